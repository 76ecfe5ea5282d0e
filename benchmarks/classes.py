#!/usr/bin/env python3
"""Whether each class's event is found, in runs of train_multilabel.py.

    python benchmarks/classes.py results/lmac_multilabel/*

The runs have different seeds. A figure is the mean over the runs of what
`classes.csv` of each says; the worst run's stand beside the two that a class is
judged by. A class is found where *event_auc* is .75 or more and
less of its mask is on the clip's other events than on its own.
"""

import argparse
import csv
from pathlib import Path
from statistics import fmean

from measure import exit_on_mistake, print_table

from lmac_sb.utils.errors import LMACError

AUC, MASS, OTHER = "event_auc", "event_mass", "other_mass"
LEAST_AUC = 0.75
COLUMNS = (
    *("right", MASS, OTHER, "kept_event_mass", "kept_other_mass"),
    *(AUC, "kept_event_auc", "AD", "FF", "Fid-In"),
)


def read(run):
    """Figures of each class of a run: class, figure, its mean; and numbers."""
    path = Path(run) / "classes.csv"
    if not path.is_file():
        raise LMACError(
            f"{path}: no such file, expected that of a finished run of "
            "train_multilabel.py"
        )
    figures, numbers = {}, {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name, figure = row["class"], row["figure"]
            figures.setdefault(name, {})[figure] = float(row["mean"])
            numbers[name] = int(row["n"])
    return figures, numbers


def is_found(figures):
    """Whether a class's figures say that its event is found, and no other."""
    return figures[AUC] >= LEAST_AUC and figures[OTHER] < figures[MASS]


def lines(runs):
    """A row for each class, and one for all."""
    names = list(runs[0][0])
    for figures, _ in runs[1:]:
        if set(figures) != set(names):
            raise LMACError(
                f"classes: found {sorted(figures)} beside {sorted(names)}, "
                "expected the same in all runs"
            )
    for name in names:
        of_runs = [figures[name] for figures, _ in runs]
        aucs = [one[AUC] for one in of_runs]
        apart = [one[MASS] - one[OTHER] for one in of_runs]
        row = {
            "class": name,
            "explanations": sum(numbers[name] for _, numbers in runs),
        }
        for column in COLUMNS:
            mean = fmean(one[column] for one in of_runs)
            row[column] = f"{mean:.{2 if column == 'AD' else 3}f}"
        row[f"lowest {AUC}"] = f"{min(aucs):.3f}"
        row[f"least {MASS} - {OTHER}"] = f"{min(apart):.3f}"
        row["found in"] = f"{sum(map(is_found, of_runs))} of {len(runs)}"
        yield row


@exit_on_mistake
def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of the runs")
    args = parser.parse_args(argv)
    print_table(list(lines([read(run) for run in args.runs])))


if __name__ == "__main__":
    main()
