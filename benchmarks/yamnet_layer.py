#!/usr/bin/env python3
"""YAMNet's decoder on classes that it was not trained for.

    python benchmarks/yamnet_layer.py --data_folder ESC-10 --every 2
    python benchmarks/yamnet_layer.py --fsdd FSDD --column speaker --every 10

A linear layer on the mean of YAMNet's embeddings learns the classes of ESC-10
(folds 1 and 2; explained are clips of fold 4), or the speakers or digits of
FSDD (its official split). The decoder of the package, which knows of no such
layer, explains its decisions. Of ESC-10, `esc10` hears the sounds as well: it
is asked for the clip's class where it gives the whole clip more than .3. A
figure of a clip is its mean over the layers, which differ by their seed; the
intervals are over clips.
"""

import argparse
import csv
import json
from pathlib import Path

import torch
from ahead import means
from coefficients import by_judges, read_clips
from measure import (
    count,
    exit_on_mistake,
    machine,
    n_threads,
    print_differences,
    print_means,
)

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.yamnet import load_yamnet
from lmac_sb.bench.yamnet import fit_layer, mean_embedding
from lmac_sb.data.audio import Preprocessor
from lmac_sb.lmac.masking import top_share
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.errors import LMACError

RATE = 16000
LEARNT, HEARD = (1, 2), 4  # folds of ESC-10
DECODER = "decoder"
OWN = "AI", "AD", "AG", "FF", "Fid-In", "area"
JUDGE = "CNN AD", "CNN FF"


def read_esc10(folder):
    """Clips to learn from, and clips to explain."""
    clips = read_clips(folder, {*LEARNT, HEARD})
    learnt = [clip for clip in clips if clip["fold"] != HEARD]
    return learnt, [clip for clip in clips if clip["fold"] == HEARD]


def read_fsdd(folder, column):
    """The same, of digits by their speaker or digit."""
    preprocess = Preprocessor(RATE)
    with open(Path(folder) / "manifest.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {"train": [], "test": []}
    for row in rows:
        wav, _ = preprocess(Path(folder) / row["file"])
        clip = {"id": row["file"], "category": row[column], "wav": wav}
        found[row["official_split"]].append(clip)
    return found["train"], found["test"]


def embeddings(yamnet, clips):
    """Mean embedding of each clip, [clips, 1024]."""
    return torch.stack([mean_embedding(yamnet, clip["wav"]) for clip in clips])


def rows_of(layer, clips, classes, judges, names):
    """A row for each clip and mask."""
    decoder, steps = (
        LMACInterpreter.from_pretrained(
            "yamnet", decoder=given, layer=layer, labels=classes
        ).explainer
        for given in (True, False)
    )
    ways = {
        DECODER: (decoder, {}),
        "decoder, second look": (decoder, {"second_look": True}),
        "decoder, 5 steps": (decoder, {"refine_steps": 5}),
        "steps from nothing": (steps, {}),
    }
    for clip in clips:
        wav = clip["wav"][None]
        masks = {name: way(wav, **how) for name, (way, how) in ways.items()}
        area = masks[DECODER].mask.mean((1, 2))
        analysis = decoder.analyze(wav)
        with torch.no_grad():
            masks["loudest, as much as the decoder"] = decoder.complete(
                analysis, top_share(analysis.magnitude, area)
            )
        label = torch.tensor([classes.index(clip["category"])])
        for method, found in masks.items():
            columns = evaluate(found.asked()) | by_judges(
                found, wav, judges, label
            )
            values = {x: columns[x].item() for x in names}
            yield {"id": clip["id"], "method": method, **values}


@exit_on_mistake
def main(argv=None):
    """Train the layers, explain their decisions, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", help="ESC-10, in ESC-50's layout")
    parser.add_argument("--fsdd", help="folder of FSDD")
    parser.add_argument(
        "--column", choices=("speaker", "digit"), default="speaker"
    )
    parser.add_argument(
        "--every", type=count, default=1, help="of so many clips"
    )
    parser.add_argument("--seeds", type=count, default=3, help="of the layer")
    parser.add_argument("--threads", type=n_threads, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if (args.data_folder is None) == (args.fsdd is None):
        raise LMACError("expected either --data_folder or --fsdd")
    print(json.dumps(machine(args.threads)), flush=True)
    judges = {}
    if args.fsdd is None:
        learnt, clips = read_esc10(args.data_folder)
    else:
        learnt, clips = read_fsdd(args.fsdd, args.column)
    classes = sorted({clip["category"] for clip in learnt})
    if args.fsdd is None:
        small = LMACInterpreter.from_pretrained("esc10")
        places = [small.classes.index(name) for name in classes]
        judges["CNN"] = lambda x: small.explainer.classify_sounds(x)[:, places]
    yamnet = load_yamnet()
    inputs, known = embeddings(yamnet, learnt), embeddings(yamnet, clips)
    labels, right = (
        torch.tensor([classes.index(clip["category"]) for clip in part])
        for part in (learnt, clips)
    )
    columns = [*OWN, *(JUDGE if judges else ())]
    rows, asked = [], clips[:: args.every]
    for seed in range(args.seeds):
        layer = fit_layer(inputs, labels, seed=seed)
        share = (layer(known).argmax(1) == right).double().mean()
        print(f"layer {seed}: {100 * share:.1f} % right", flush=True)
        rows += rows_of(layer, asked, classes, judges, columns)
    print(f"{len(asked)} clips, {args.seeds} layers\n")
    rows = means(rows, ["id", "method"], columns)
    found = summarize(rows, "method", DECODER, columns)
    print_means(found, columns)
    print()
    print_differences(found, columns, DECODER)


if __name__ == "__main__":
    main()
