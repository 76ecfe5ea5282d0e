#!/usr/bin/env python3
"""How far decoders are ahead of the loudest bins, paired by clip.

    python benchmarks/ahead.py --runs results/lmac_attention/1234 \
        results/lmac_attention/1235 results/lmac_attention/1236 \
        --data_folder results/scenes_25

The runs are of train_lmac.py. Both masks have the area of the decoder's: once
its own mask is taken, with all its shades, and once as many of its highest
bins. A figure of a clip is its mean over the runs, and the intervals are over
clips; the last table shows how far the runs are apart.
"""

import argparse
import csv
import math
from pathlib import Path
from statistics import fmean

import torch
from measure import machine, print_table, write

from lmac_sb.data.audio import Preprocessor
from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.judge import Judge
from lmac_sb.inference.export import load_interpreter
from lmac_sb.methods.registry import make_case, make_methods
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.errors import exit_on_user_error

BATCH = 8
COLUMNS = ("AI", "AD", "AG", "FF", "Fid-In", "area")
LOCATED = ("event_auc", "kept_event_auc")


def read_clips(folder, fold, preprocess):
    """Clips of a fold as `make_case` takes them; events where stems are."""
    stem_of = Preprocessor(preprocess.sample_rate, preprocess.signal_length_s)
    clips = []
    with open(folder / "meta" / "esc50.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == str(fold)]
    for row in rows:
        wav, gain = preprocess(folder / "audio" / row["filename"])
        clip = {"id": row["filename"], "class_string": row["category"]}
        clip.update(sig=wav, gain=gain)
        stem = folder / "stems" / row["filename"]
        if stem.is_file():
            clip["event"], own = stem_of(stem)
            clip["event"] = clip["event"] / own
        clips.append(clip)
    return clips


def measure(run, folder, fold, length_s):
    """A row for each clip, mask and way to cut it."""
    trained = load_interpreter(run)
    explainer = trained.explainer
    clips = read_clips(
        folder, fold, Preprocessor(trained.sample_rate, length_s)
    )
    comparison = Comparison(
        Judge(explainer, guards=[]),
        make_methods(["lmac", "loudest"], {"lmac": explainer}),
        trained.classes,
        shares=[],
    )
    rows = []
    for i in range(0, len(clips), BATCH):
        part = clips[i : i + BATCH]
        wavs = torch.stack([clip["sig"] for clip in part])
        gains = [clip["gain"] for clip in part]
        rows += comparison(make_case(explainer, wavs, gains, part), part)[0]
    right = fmean(r["right"] for r in rows if r["method"] == "loudest")
    print(f"{run}: {right:.1%} of {len(clips)} clips right", flush=True)
    return [{"run": str(run), **row} for row in rows]


def means(rows, keys):
    """One row for each value of these keys, with the means of the columns."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for values, part in groups.items():
        row = dict(zip(keys, values))
        for name in (*COLUMNS, *LOCATED):
            numbers = [x[name] for x in part if not math.isnan(x.get(name, math.nan))]
            if numbers:
                row[name] = fmean(numbers)
        found.append(row)
    return found


def show(rows):
    """Print means, and differences with their intervals, for each cut."""
    for keep in dict.fromkeys(row["keep"] for row in rows):
        part = [row for row in rows if row["keep"] == keep]
        over_runs = means(part, ["id", "method"])
        columns = [*COLUMNS, *LOCATED]
        found = summarize(over_runs, "method", "lmac", columns)
        table = []
        for name, loud in found["loudest"].items():
            own, ahead = found["lmac"][name], loud["difference"]
            table.append(
                {
                    "metric": name,
                    "lmac": f"{own['mean']:.3f}",
                    "loudest": f"{loud['mean']:.3f}",
                    "ahead": "{mean:.3f} [{low:.3f}, {high:.3f}]".format(
                        **ahead
                    ),
                }
            )
        print(f"\n{keep}\n")
        print_table(table)
    print()
    by_run = means([r for r in rows if r["keep"] == "own"], ["run", "method"])
    print_table(
        {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}
        for row in by_run
    )


@exit_on_user_error
def main(argv=None):
    """Measure, print the tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--data_folder", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=5)
    parser.add_argument("--signal_length_s", type=float)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file for the rows")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for run in args.runs:
        rows += measure(run, args.data_folder, args.fold, args.signal_length_s)
    show(rows)
    write(args.json, {"machine": machine(args.threads), "rows": rows})


if __name__ == "__main__":
    main()
