#!/usr/bin/env python3
"""How good explanations of YAMNet are: all ways to a mask in one table.

    python benchmarks/yamnet_table.py --data_folder ESC-10 --fold 4 \
        --judge results/judge/2234/model --json table.jsonl
    python benchmarks/yamnet_table.py ... --contaminate SPEECH

Clips whose own AudioSet class gets more than .3; that class is explained.
YAMNet is the product's, `LMACInterpreter.from_pretrained("yamnet")`, and hears
the sounds on both sides of each mask. So do two judges that had no part in
it: a linear layer on YAMNet's embedding, trained on `--judge_folds` (three sets
of clips, each with another seed), and a small CNN of train_classifier.py
that knows nothing of YAMNet. Rows are written to a file of one JSON object a
line as they come; what it holds already is not computed again, and the tables
are of all rows in it, so that several folds go into one. `--decoder` takes one
of tools/yamnet_decoder.py in place of the package's, which has heard all folds
but the fourth. With `--contaminate`, the main rows with speech or white noise
mixed in. With `--decoders`, those that tools/yamnet_decoder.py saved, in one
pass and with five steps, and the mean of theirs with its interval.
"""

import argparse
import json
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import torch
from coefficients import (
    N_SETS,
    OFFSETS,
    START,
    Half,
    by_judges,
    linear_judge,
    of_fold,
    read_clips,
    small_judge,
)
from measure import (
    check_names,
    count,
    exit_on_mistake,
    machine,
    n_threads,
    new_file,
)
from scipy import stats
from yamnet import SAMPLE_RATE, load_yamnet
from yamnet_attributions import make_attributions

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.yamnet import YAMNet
from lmac_sb.bench.measured import Passes
from lmac_sb.bench.yamnet import KNOWN, MEANS
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.inference.adopt import HEAD_STEPS as STEPS
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.masking import top_share
from lmac_sb.lmac.refine import Refiner
from lmac_sb.methods.registry import min_max
from lmac_sb.metrics.registry import METRICS, evaluate
from lmac_sb.metrics.summary import summarize
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import Question
from lmac_sb.utils.errors import LMACError

BATCH = 10
SHARE = 0.2  # of the bins that a score keeps
DEFAULT, OLD = "default", "offset and gain, no embedding"
LOUDEST = "loudest {:.0%}".format
DECODER = "decoder"
MAIN = DEFAULT, DECODER, f"{DECODER}, 5 steps", OLD, LOUDEST(SHARE)
CONTAMINATED = "clean", "speech 0 dB", "white 0 dB"
OWN = "AI", "AD", "AG", "FF", "area"
COLUMNS = *OWN, "linear AD", "linear FF", "CNN AD", "CNN FF"
COSTS = "seconds", "passes"
AFTER_STEPS = ", 5 steps"
LOOKED = f"{DECODER}, second look"
AS_MUCH = "loudest, as much as the decoder"
AFTER = {"": 0, AFTER_STEPS: 5}  # ends of names, and steps from a decoder
DIGITS = {"area": 3, "seconds": 2, "passes": 0}

# A clip to explain: its id, sound, AudioSet class, class of ESC-10, and which
# of the sets it is in.
Clip = namedtuple("Clip", "id wav target label seed")


def trained(folders):
    """Ways to masks of trained decoders, by the names of their folders."""
    ways = {}
    for folder in folders:
        explainer = LMACInterpreter.from_hparams(folder).explainer
        for name, steps in AFTER.items():
            ways[Path(folder).name + name] = partial(decoded, explainer, steps)
    return ways


def make_ways(explainer, folder=None):
    """Ways to masks by name, in the order in which they are tried.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        The product's. One more row is one more entry.
    folder : str or None
        Of an interpreter whose decoder takes the place of the package's.

    Returns
    -------
    dict
        Name to a function from an `lmac_sb.lmac.explainer.Analysis` of clips
        and their classes [batch] to masks [batch, time, freq], or to several
        of them by the end of the row's name.
    """
    listener = explainer.classifier.embedding_model
    by_logits = FrozenClassifier(
        listener.with_options(head=None),
        torch.nn.Identity(),
        latent_layers=[],
        evidence=False,
        multilabel=True,
    )

    def weighted(**weights):
        """The default with other weights of its loss."""
        loss = explainer.refiner.loss
        known = ("reg_w_l1", "e_in_w", "e_out_w")
        weights = {key: getattr(loss, key) for key in known} | weights
        return other(explainer, loss=_loss(**weights))

    level = LevelDecoder(*START)
    old = other(explainer, level, _loss())
    offsets = other(explainer, Half(), _loss(), OFFSETS)
    if folder:
        decoder = LMACInterpreter.from_hparams(folder).explainer
    else:
        packaged = LMACInterpreter.from_pretrained("yamnet", decoder=True)
        decoder = packaged.explainer
    ways = {
        DEFAULT: partial(stepped, explainer, STEPS),
        DECODER: partial(decoded, decoder, 0),
        f"{DECODER}, 5 steps": partial(decoded, decoder, 5),
        LOOKED: partial(decoded, decoder, 0, look=True),
        AS_MUCH: partial(as_loud, decoder),
        OLD: partial(stepped, old, STEPS),
        LOUDEST(SHARE): partial(loudest, SHARE),
        "offsets alone": partial(stepped, offsets, STEPS),
    }
    for share in (0.1, 0.3):
        ways[LOUDEST(share)] = partial(loudest, share)
    attributions = {
        name: partial(scored, scores)
        for name, scores in make_attributions(explainer).items()
    }
    changed = {
        "without e_out_w": weighted(e_out_w=0.0),
        "without e_in_w": weighted(e_in_w=0.0),
        "logits, not embedding": other(explainer, classifier=by_logits),
    }
    changed = {
        f"{DEFAULT}, {name}": partial(stepped, one, STEPS)
        for name, one in changed.items()
    }
    more = {
        f"{DEFAULT}, {steps} steps": partial(stepped, explainer, steps)
        for steps in (5, 40)
    }
    return ways | changed | more | attributions


def _loss(reg_w_l1=4.0, **weights):
    """The loss of the steps, by default that without the embedding."""
    return LMACLoss(
        l_in_w=12,
        l_out_w=8,
        l_out_type="probability",
        reg_w_l1=reg_w_l1,
        **weights,
    )


def other(explainer, decoder=None, loss=None, steps=None, classifier=None):
    """The same explainer with some parts replaced."""
    steps = steps or {"gain": True, "resolution": 4, "lr": 0.5}
    return Explainer(
        explainer.features,
        classifier or explainer.classifier,
        decoder or explainer.decoder,
        explainer.mask_domain,
        Refiner(loss or explainer.refiner.loss, **steps),
    )


def stepped(explainer, steps, analysis, target):
    """Masks that gradient steps draw."""
    with torch.no_grad():
        start = explainer.mask(analysis, target)
    return explainer.refine(analysis, start, steps, target)


def decoded(explainer, steps, analysis, target, look=False):
    """Masks of a decoder, improved by a second look or gradient steps."""
    question = Question(target)
    own = explainer.analyze(analysis.wavs, question)
    with torch.no_grad():
        mask = explainer.mask(own, question)
    if look:
        mask = explainer.look_again(own, mask, question)
    return explainer.refine(own, mask, steps, question) if steps else mask


def loudest(share, analysis, target):
    """Masks of the loudest bins."""
    return top_share(analysis.magnitude, share)


def as_loud(explainer, analysis, target):
    """Masks of as many of the loudest bins as a decoder keeps."""
    area = decoded(explainer, 0, analysis, target).mean((1, 2))
    return top_share(analysis.magnitude, area)


def scored(function, analysis, target):
    """Masks of an attribution: its highest bins, and its scores as they are.

    What does not speak for the class is in neither.
    """
    scores = function(analysis, target)
    return {
        f", top {SHARE:.0%}": top_share(scores, SHARE) * (scores > 0),
        ", scaled to [0, 1]": min_max(scores),
    }


def is_yamnet(module):
    """Whether passes of a module count: the decoder has a YAMNet of its own.

    It gets the patches of clips in the batch axis.
    """
    return isinstance(module, YAMNet)


def measured(explainer, judges, way, clips):
    """Rows of some clips of one set: what YAMNet and the judges say."""
    wavs = torch.stack([clip.wav for clip in clips])
    target = torch.tensor([clip.target for clip in clips])
    label = torch.tensor([clip.label for clip in clips])
    analysis = explainer.analyze(wavs)
    listener = explainer.classifier.embedding_model
    n_rows = len(clips) * listener.windows.count(wavs.shape[1])
    start = time.process_time()
    with Passes(is_yamnet, n_rows) as passes:
        masks = way(analysis, target)
    cost = time.process_time() - start, passes.count * len(clips)
    cost = {key: x / len(clips) for key, x in zip(COSTS, cost)}
    if not isinstance(masks, dict):
        masks = {"": masks}
    rows = []
    for end, mask in masks.items():
        with torch.no_grad():
            found = explainer.complete(analysis, mask, target).cpu()
            columns = judged(found, wavs, judges, label)
        for i, clip in enumerate(clips):
            row = {key: value[i].item() for key, value in columns.items()}
            row |= {"end": end, "id": clip.id, "seed": clip.seed, **cost}
            rows.append(row)
    return rows


def judged(found, wavs, judges, label):
    """Columns of an explanation, each [batch]."""
    values = evaluate(found.asked())
    columns = {key: values[key] for key in OWN}
    return columns | by_judges(found, wavs, judges, label)


@torch.no_grad()
def choose(explainer, clips, heads, setting=None):
    """Clips whose own class gets more than `KNOWN`, in their sets."""
    chosen = []
    for clip in clips:
        wav = clip["wav"]
        if setting is not None:
            wav, _, _ = setting(wav, clip["id"])
        target = heads[clip["category"]]
        if explainer.classify_sounds(wav[None])[0, target].sigmoid() > KNOWN:
            label = sorted(MEANS).index(clip["category"])
            chosen.append((clip, wav, target, label))
    return chosen


class Rows:
    """Rows of a table, kept in a file of one JSON object a line.

    Arguments
    ---------
    path : str or None
        The file; what is there is read. Without one nothing is kept.
    """

    def __init__(self, path):
        self.path = path and Path(path)
        self.rows = []
        if self.path and self.path.is_file():
            text = self.path.read_text(encoding="utf-8")
            # A line that was cut off is computed again.
            whole = text[: text.rfind("\n") + 1]
            if whole != text:
                self.path.write_text(whole, encoding="utf-8")
            self.rows = [json.loads(line) for line in whole.splitlines()]

    def done(self, setting, way):
        """Ids of the clips that a way has."""
        return {
            row["id"]
            for row in self.rows
            if (row["setting"], row["way"]) == (setting, way)
        }

    def add(self, rows):
        """Keep some more."""
        self.rows += rows
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)


def measure(args):
    """All rows, each with the names of its way, its method and its setting."""
    kept = Rows(args.json)
    interpreter = LMACInterpreter.from_pretrained("yamnet")
    explainer, labels = interpreter.explainer, interpreter.classes
    heads = {name: labels.index(means) for name, means in MEANS.items()}
    ways = trained(args.decoders) or make_ways(explainer, args.decoder)
    names = args.only or (MAIN if args.contaminate else ways)
    check_names("--only", names, ways)
    clips = read_clips(args.data_folder, range(1, 6))
    judges = make_judges(clips, args.judge, args.judge_folds)
    asked = of_fold(clips, args.fold)
    asked = [x[0] for x in choose(explainer, asked, heads)]
    print(f"{len(asked)} clips of fold {args.fold} have p > {KNOWN}")
    asked = asked[:: args.every]
    specs = CONTAMINATED if args.contaminate else CONTAMINATED[:1]
    folders = {"speech_folder": args.contaminate}
    settings = make_settings(list(specs), {}, SAMPLE_RATE, folders=folders)
    chosen = {x.name: choose(explainer, asked, heads, x) for x in settings}
    place = {clip["id"]: i for i, clip in enumerate(asked)}
    for name in names:
        for setting, found in chosen.items():
            for seed in range(N_SETS):
                part = [
                    Clip(clip["id"], wav, target, label, seed)
                    for clip, wav, target, label in found
                    if place[clip["id"]] % N_SETS == seed
                ]
                done = kept.done(setting, name)
                part = [clip for clip in part if clip.id not in done]
                for i in range(0, len(part), BATCH):
                    rows = measured(
                        explainer, judges[seed], ways[name], part[i : i + BATCH]
                    )
                    for row in rows:
                        row |= {"setting": setting, "way": name}
                        row["method"] = name + row.pop("end")
                    kept.add(rows)
        print(name, flush=True)
    return kept.rows


def make_judges(clips, folder, folds):
    """Judges of each set of clips, by name."""
    classes = sorted(MEANS)
    net, _ = load_yamnet()
    small = small_judge(folder, classes)
    return [
        {
            "linear": linear_judge(net, clips, classes, seed, folds),
            "CNN": small,
        }
        for seed in range(N_SETS)
    ]


def show(rows):
    """Print the tables of all settings."""
    for setting in dict.fromkeys(row["setting"] for row in rows):
        part = [row for row in rows if row["setting"] == setting]
        print(f"\n{setting}, {len({row['id'] for row in part})} clips\n")
        print(table(part, (*COLUMNS, *COSTS)))
        first = part[0]["method"]
        print(f"\n{first} minus others, paired, 95 % intervals\n")
        print(differences(part, first))
        for seed in sorted({row["seed"] for row in part}):
            of_set = [row for row in part if row["seed"] == seed]
            print(f"\nset {seed}, {len({r['id'] for r in of_set})} clips\n")
            print(table(of_set, COLUMNS, interval=False))


def table(rows, columns, interval=True):
    """Markdown table: means, and half the widths of the 95 % intervals."""
    lines = [f"| mask | {' | '.join(columns)} |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for method, found in summarize(rows, columns=columns).items():
        cells = []
        for column in columns:
            figure, n = found[column], _digits(column)
            cell = f"{figure['mean']:.{n}f}"
            if interval and column not in COSTS:
                half = (figure["high"] - figure["low"]) / 2
                cell += f" ± {half:.{n}f}"
            cells.append(cell)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(rows, first):
    """Markdown table of one method minus each other."""
    lines = [f"| {first} minus | {' | '.join(COLUMNS)} |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    found = summarize(rows, reference=first, columns=COLUMNS)
    for method in (name for name in found if name != first):
        cells = []
        for column in COLUMNS:
            figure, n = found[method][column]["difference"], _digits(column)
            mean, low, high = (figure[key] for key in ("mean", "low", "high"))
            cells.append(f"{mean:.{n}f} [{low:.{n}f}, {high:.{n}f}]")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(column):
    """Decimals of a column."""
    metric = METRICS.get(column.split()[-1])
    return DIGITS.get(column, metric.digits if metric else 3)


@exit_on_mistake
def main(argv=None):
    """Measure, keep the rows, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--fold", type=int, default=4)
    parser.add_argument(
        "--every", type=count, default=1, help="of so many clips"
    )
    parser.add_argument("--judge", required=True, help="model folder")
    parser.add_argument(
        "--judge_folds",
        type=int,
        nargs="+",
        default=[1, 2],
        help="that the linear judge is trained on, not --fold",
    )
    parser.add_argument("--decoder", help="folder of an interpreter")
    parser.add_argument(
        "--contaminate", metavar="SPEECH", help="folder of recordings"
    )
    parser.add_argument("--only", nargs="*", help="names of ways")
    parser.add_argument(
        "--decoders", nargs="+", default=[], help="folders of interpreters"
    )
    parser.add_argument("--threads", type=n_threads, default=1)
    parser.add_argument(
        "--json", type=new_file, help="file for the rows, one a line"
    )
    args = parser.parse_args(argv)
    if args.fold in args.judge_folds:
        raise LMACError(
            f"--judge_folds: {args.fold} is also --fold, expected others"
        )
    torch.set_num_threads(args.threads)
    print(json.dumps(machine(args.threads)))
    rows = measure(args)
    show(rows)
    if len(args.decoders) > 1:
        print(f"\nmean of {len(args.decoders)} decoders, 95 % interval\n")
        print(over_decoders(rows))


def over_decoders(rows):
    """Markdown table: each column's mean over decoders, by Student's t."""
    lines = [f"| mask | {' | '.join(COLUMNS)} |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    found = summarize(rows, columns=COLUMNS)
    for end in AFTER:
        names = [
            name for name in found if name.endswith(AFTER_STEPS) == bool(end)
        ]
        cells = []
        for column in COLUMNS:
            means = np.array([found[name][column]["mean"] for name in names])
            half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
            n = _digits(column)
            cells.append(f"{means.mean():.{n}f} ± {half:.{n}f}")
        lines.append(f"| decoder{end} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
