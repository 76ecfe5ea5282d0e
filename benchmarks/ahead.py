#!/usr/bin/env python3
"""How far decoders are ahead of the loudest bins, paired by clip.

    python benchmarks/ahead.py --runs results/lmac_attention/1234 \
        results/lmac_attention/1235 results/lmac_attention/1236

The runs are of train_lmac.py, whose manifests name the clips. Both masks have
the area of the decoder's: once its own mask is taken, with all its shades, and
once as many of its highest bins. A figure of a clip is its mean over the runs,
and the intervals are over clips; the last table shows how far the runs are
apart.
"""

import argparse
import math
from pathlib import Path
from statistics import fmean

import torch
from measure import machine, print_table, write

from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.judge import Judge
from lmac_sb.evaluation.models import load_clips
from lmac_sb.evaluation.rows import in_order, of_one_length
from lmac_sb.inference.export import load_interpreter
from lmac_sb.methods.registry import make_case, make_methods
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.errors import exit_on_user_error

BATCH = 8
COLUMNS = ("AI", "AD", "AG", "FF", "Fid-In", "area")
LOCATED = ("event_auc", "kept_event_auc")


def measure(run, split):
    """A row for each clip, mask and way to cut it."""
    trained = load_interpreter(run)
    explainer = trained.explainer
    dataset = load_clips(Path(run) / "manifests", split, trained, run)
    comparison = Comparison(
        Judge(explainer, guards=[]),
        make_methods(["lmac", "loudest"], {"lmac": explainer}),
        trained.classes,
        shares=[],
    )
    places, rows = in_order(dataset.n_samples), []
    for i in range(0, len(places), BATCH):
        for part in of_one_length(places[i : i + BATCH], dataset):
            items = [dataset[place] for place in part]
            wavs = torch.stack([item["sig"] for item in items])
            case = make_case(explainer, wavs, [1.0] * len(items), items)
            rows += comparison(case, items)[0]
    right = fmean(row["right"] for row in rows)
    print(f"{run}: {right:.1%} of {len(places)} clips right", flush=True)
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
            numbers = [x.get(name, math.nan) for x in part]
            numbers = [x for x in numbers if not math.isnan(x)]
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
    print_table(by_run)


@exit_on_user_error
def main(argv=None):
    """Measure, print the tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--split", default="test", choices=("valid", "test"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="file for the rows")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for run in args.runs:
        rows += measure(run, args.split)
    show(rows)
    write(args.json, {"machine": machine(args.threads), "rows": rows})


if __name__ == "__main__":
    main()
