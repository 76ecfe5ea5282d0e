#!/usr/bin/env python3
"""A few steps from nothing with a short memory, and twenty with Adam's.

    python benchmarks/fewer_steps.py --data_folder ESC-10 --fold 4 --every 4
    python benchmarks/fewer_steps.py --data_folder ESC-10 --model yamnet

Explains clips of ESC-10 with `esc10`, the small classifier of this package, or
with YAMNet: its decision, or the AudioSet class that means the clip's, where
that gets more than .3. The other of both hears the sounds as a judge.
"""

import argparse
import time
from functools import partial

import torch
from coefficients import by_judges, read_clips
from measure import count, exit_on_mistake, machine, n_threads, new_file, write

from lmac_sb import LMACInterpreter
from lmac_sb.bench.yamnet import KNOWN, MEANS
from lmac_sb.inference.adopt import STEPS, make_refiner
from lmac_sb.lmac.refine import Refiner
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.utils.errors import LMACError

BEFORE, NOW = "20 steps, memory .9 and .999", "today's, short memory"
OWN = "AI", "AD", "AG", "FF", "area"
BATCH = 4
CLASSES = sorted(MEANS)


def make_models():
    """Explainers from nothing by name, and logits of `CLASSES` of sounds."""
    small = LMACInterpreter.from_pretrained("esc10")
    yamnet = LMACInterpreter.from_pretrained("yamnet")
    stepping = small.explainer.starting_from(LevelDecoder())
    stepping.mask_domain, stepping.refiner = "linear", make_refiner()
    stepping.refine_steps = STEPS
    places = {
        "esc10": [small.classes.index(name) for name in CLASSES],
        "yamnet": [yamnet.classes.index(MEANS[name]) for name in CLASSES],
    }
    explainers = {"esc10": stepping, "yamnet": yamnet.explainer}
    judges = {
        name: partial(heard, explainers[name], places[name]) for name in places
    }
    return explainers, judges, places["yamnet"]


def heard(explainer, places, wavs):
    """Logits of `CLASSES`, [batch, 10]."""
    return explainer.classify_sounds(wavs)[:, places]


def before(explainer):
    """The refiner with Adam's usual memory."""
    loss = explainer.refiner.loss
    return Refiner(loss, lr=0.5, resolution=4, gain=True)


@torch.no_grad()
def explained(explainer, judge, clips, heads, steps):
    """Rows of some clips, what the model says and what the judge does."""
    wavs = torch.stack([clip["wav"] for clip in clips])
    names = [clip["category"] for clip in clips]
    target = None
    if explainer.classifier.multilabel:
        target = torch.tensor([heads[CLASSES.index(name)] for name in names])
    start = time.process_time()
    found = explainer(wavs, target=target, refine_steps=steps).cpu()
    seconds = (time.process_time() - start) / len(clips)
    label = torch.tensor([CLASSES.index(name) for name in names])
    columns = evaluate(found.asked())
    columns = {key: columns[key] for key in OWN}
    columns |= by_judges(found, wavs, {"judge": judge}, label)
    return [
        {key: value[i].item() for key, value in columns.items()}
        | {"id": clip["id"], "s": seconds}
        for i, clip in enumerate(clips)
    ]


@torch.no_grad()
def measure(args):
    """Rows of both ways."""
    explainers, judges, heads = make_models()
    explainer = explainers[args.model]
    (judge,) = (judges[name] for name in judges if name != args.model)
    clips = read_clips(args.data_folder, [args.fold])
    if args.model == "yamnet":
        hears = judges["yamnet"]
        clips = [
            clip
            for clip in clips
            if hears(clip["wav"][None])[0].sigmoid()[
                CLASSES.index(clip["category"])
            ]
            > KNOWN
        ]
    clips = clips[:: args.every]
    if not clips:
        raise LMACError(f"--fold: found no clips of fold {args.fold}")
    ways = {
        BEFORE: (before(explainer), 20),
        NOW: (explainer.refiner, explainer.refine_steps),
    }
    rows = []
    for name, (refiner, steps) in ways.items():
        explainer.refiner = refiner
        for i in range(0, len(clips), BATCH):
            part = clips[i : i + BATCH]
            found = explained(explainer, judge, part, heads, steps)
            rows += [{"method": name, **row} for row in found]
    return rows


@exit_on_mistake
def main(argv=None):
    """Measure, print a table and differences, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--fold", type=int, default=4)
    parser.add_argument(
        "--every", type=count, default=1, help="of so many clips"
    )
    parser.add_argument("--model", choices=("esc10", "yamnet"), default="esc10")
    parser.add_argument("--threads", type=n_threads, default=1)
    parser.add_argument("--json", type=new_file, help="file for the rows")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = measure(args)
    columns = [*OWN, "judge AD", "judge FF", "s"]
    print(f"{args.model}, {len({row['id'] for row in rows})} clips\n")
    print(markdown_table(summarize(rows, columns=columns), columns, by="steps"))
    differences = summarize(rows, reference=NOW, columns=columns)[BEFORE]
    print("\ntoday's minus before, paired by clip, with 95 % intervals\n")
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    cells = [
        "{mean:.3g} [{low:.3g}, {high:.3g}]".format(**found["difference"])
        for found in (differences[column] for column in columns)
    ]
    print(f"| {args.model} | {' | '.join(cells)} |")
    write(args.json, {"machine": machine(args.threads), "rows": rows})


if __name__ == "__main__":
    main()
