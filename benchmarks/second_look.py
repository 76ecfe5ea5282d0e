#!/usr/bin/env python3
"""What a second look does to a decoder's masks.

    python benchmarks/second_look.py results/lmac/1234 results/lmac/1235 \
        --data_folder ESC-10 --fold 4

Runs of train_lmac.py with different seeds, which explain the same classifier.
The sounds are heard again by that classifier, and by a linear layer on
YAMNet's embedding (`pip install "lmac-sb[yamnet]"`, trained on folds 1 and 2),
which is asked for the clip's class where it gives the whole clip more than .3.
A figure of a clip is its mean over the runs; the intervals are over clips.
"""

import argparse
import json

import torch
from ahead import means
from coefficients import by_judges, linear_judge, of_fold, read_clips
from measure import (
    exit_on_mistake,
    machine,
    n_threads,
    print_differences,
    print_means,
    print_table,
    shown,
)
from yamnet import load_yamnet

from lmac_sb.evaluation.models import load_interpreters
from lmac_sb.lmac.masking import top_share
from lmac_sb.methods.registry import make_case, make_methods, passes
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import summarize

METHODS = "lmac", "lmac_look", "lmac+1", "lmac+5"
FIRST, LOUDEST = METHODS[0], "loudest"
BATCH = 8
OWN = "AI", "AD", "AG", "FF", "Fid-In", "area"
COLUMNS = (
    *OWN,
    *("heard AI", "heard AD", "heard AG", "heard FF"),
    *("linear AI", "linear AD", "linear AG", "linear FF"),
)


def rows_of(explainer, clips, judge, classes):
    """A row for each clip and method."""
    methods = make_methods(METHODS, {FIRST: explainer})
    judges = {"linear": judge}
    heard = {"heard": explainer.classify_sounds}
    for i in range(0, len(clips), BATCH):
        part = clips[i : i + BATCH]
        wavs = torch.stack([clip["wav"] for clip in part])
        labels = torch.tensor([classes.index(x["category"]) for x in part])
        case = make_case(explainer, wavs, [1.0] * len(part), part)
        masks = {name: x.function(case) for name, x in methods.items()}
        area = masks[FIRST].mean((1, 2))
        masks[LOUDEST] = top_share(case.analysis.magnitude, area)
        for method, mask in masks.items():
            with torch.no_grad():
                found = explainer.complete(case.analysis, mask, case.target)
            columns = evaluate(found.asked())
            columns |= by_judges(found, wavs, heard, case.target)
            columns |= by_judges(found, wavs, judges, labels)
            for place, clip in enumerate(part):
                values = {x: columns[x][place].item() for x in COLUMNS}
                yield {"id": clip["id"], "method": method, **values}


@exit_on_mistake
def main(argv=None):
    """Print the means, the differences, and those of each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of train_lmac.py")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--fold", type=int, default=4)
    parser.add_argument("--threads", type=n_threads, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(json.dumps(machine(args.threads)), flush=True)
    clips = read_clips(args.data_folder, {1, 2, args.fold})
    classes = sorted({clip["category"] for clip in clips})
    judge = linear_judge(load_yamnet()[0], clips, classes)
    clips = of_fold(clips, args.fold)
    rows = []
    for run in args.runs:
        explainer = load_interpreters({FIRST: run})[FIRST].explainer
        rows += rows_of(explainer, clips, judge, classes)
        print(run, flush=True)
        last = rows[-len(clips) * (len(METHODS) + 1) :]
        figures = summarize(last, columns=COLUMNS)
        print_table(
            [
                {"method": method}
                | {x: shown(x, found[x]["mean"])[0] for x in COLUMNS}
                for method, found in figures.items()
            ]
        )
    found = summarize(
        means(rows, ["id", "method"], COLUMNS), "method", FIRST, COLUMNS
    )
    counts = {
        name: passes(method)
        for name, method in make_methods(METHODS, {FIRST: explainer}).items()
    }
    print(f"\n{len(clips)} clips of fold {args.fold}, {len(args.runs)} runs\n")
    counts |= {LOUDEST: 0}
    print_means(found, COLUMNS, {"passes": counts})
    print("\npaired by clip, 95 % intervals\n")
    print_differences(found, COLUMNS, FIRST)


if __name__ == "__main__":
    main()
