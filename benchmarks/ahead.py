#!/usr/bin/env python3
"""How far one method is ahead of another in the tables of several runs.

    python benchmarks/ahead.py results/lmac_attention/*/results.csv
    python benchmarks/ahead.py results/eval/1234/results.csv \
        --methods lmac integrated_gradients --keep "area of lmac"

The tables are those of train_lmac.py or eval.py, from one set of clips and
classifiers of one kind. A figure of a clip is its mean over the tables, and the
intervals are over clips, of which each is a pair. The second table shows how
far the runs are apart.
"""

import argparse
import math
from statistics import fmean

from measure import exit_on_mistake, print_table

from lmac_sb.evaluation.tables import read_results
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.errors import LMACError

COLUMNS = "AI", "AD", "AG", "FF", "Fid-In", "area"
LOCATED = "event_auc", "kept_event_auc"


def read(paths, methods, keep):
    """Rows of the two methods on clean clips, with the run of each."""
    rows = []
    for path in paths:
        found = [
            {**row, "run": path}
            for row in read_results(path)
            if row["method"] in methods
            and (row["setting"], row["keep"]) == ("clean", keep)
        ]
        if {row["method"] for row in found} != set(methods):
            raise LMACError(
                f"{path}: expected clean rows of {' and '.join(methods)} with "
                f"keep '{keep}'"
            )
        rows += found
    return rows


def means(rows, keys, columns=(*COLUMNS, *LOCATED)):
    """One row for each value of these keys, with the means of the columns."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for values, part in groups.items():
        row = dict(zip(keys, values))
        for name in columns:
            numbers = [x.get(name, math.nan) for x in part]
            numbers = [x for x in numbers if not math.isnan(x)]
            if numbers:
                row[name] = fmean(numbers)
        found.append(row)
    return found


def paired(rows, first, second):
    """A row for each column: both means, and the first minus the second."""
    over_runs = means(rows, ["id", "method"])
    found = summarize(over_runs, "method", first, [*COLUMNS, *LOCATED])
    for name, other in found[second].items():
        yield {
            "metric": name,
            first: f"{found[first][name]['mean']:.3f}",
            second: f"{other['mean']:.3f}",
            "ahead": "{mean:.3f} [{low:.3f}, {high:.3f}]".format(
                **other["difference"]
            ),
        }


@exit_on_mistake
def main(argv=None):
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", help="results.csv of the runs")
    parser.add_argument("--methods", nargs=2, default=["lmac", "loudest"])
    parser.add_argument("--keep", default="own", help="how masks were cut")
    args = parser.parse_args(argv)
    rows = read(args.tables, args.methods, args.keep)
    print_table(list(paired(rows, *args.methods)))
    print()
    print_table(means(rows, ["run", "method"]))


if __name__ == "__main__":
    main()
