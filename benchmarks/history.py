"""What explanations have cost so far: one row a figure, and how it moved."""

import csv
import math
import os
import subprocess
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from lmac_sb.utils.errors import LMACError

FILE = Path(__file__).with_name("history.csv")


@dataclass(frozen=True)
class Entry:
    """One figure of one measurement.

    Arguments
    ---------
    date, commit : str
        When, and of what tree; a plus sign after the commit: changed since.
    machine : str
        What was measured on: processor, threads and versions.
    classifier : str
        What is explained.
    batch : int
        Clips at once.
    what : str
        Name of the figure.
    value, low, high : float
        The figure and its 95 % interval, equal where there is none.
    """

    date: str
    commit: str
    machine: str
    classifier: str
    batch: int
    what: str
    value: float
    low: float
    high: float

    @property
    def of(self):
        """What has to be the same for two figures to be compared."""
        return self.machine, self.classifier, self.batch, self.what


COLUMNS = [field.name for field in fields(Entry)]


def read(path):
    """Entries of a file, the oldest first.

    Arguments
    ---------
    path : str or Path
        A csv with the columns of `Entry`.

    Returns
    -------
    list of Entry

    Raises
    ------
    LMACError
        If the file is missing or of another form.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error
    if not rows or rows[0] != COLUMNS:
        found = ",".join(rows[0]) if rows else "nothing"
        raise LMACError(
            f"{path}: found {found[:100]}, expected the columns "
            f"{','.join(COLUMNS)}"
        )
    return [
        _entry(row, f"{path}, line {i}") for i, row in enumerate(rows[1:], 2)
    ]


def _entry(row, place):
    """An entry of the texts in a row."""
    if len(row) != len(COLUMNS):
        raise LMACError(
            f"{place}: found {len(row)} values, expected {len(COLUMNS)}"
        )
    date, commit, machine, classifier, batch, what, *figures = row
    try:
        batch, *numbers = int(batch), *map(float, figures)
    except ValueError as error:
        raise LMACError(f"{place}: expected numbers ({error})") from error
    for number in numbers:
        if not (number > 0 and math.isfinite(number)):
            raise LMACError(
                f"{place}: found {number}, expected finite numbers above 0"
            )
    return Entry(date, commit, machine, classifier, batch, what, *numbers)


def check(path):
    """Refuse a file that entries cannot be added to.

    Arguments
    ---------
    path : str or Path
        The file, which may be missing.

    Raises
    ------
    LMACError
        If it is of another form, or cannot be written.
    """
    path = Path(path)
    if path.exists():
        read(path)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise LMACError(
            f"{path}: cannot be written, expected a file in a folder that is "
            "there"
        )


def add(path, entries):
    """Append entries to a file, which is made if it is missing.

    Arguments
    ---------
    path : str or Path
        The file.
    entries : list of Entry
        What was measured.

    Raises
    ------
    LMACError
        See `check`.
    """
    check(path)
    is_new = not Path(path).exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        for entry in entries:
            *texts, value, low, high = astuple(entry)
            writer.writerow([*texts, *(f"{x:.4g}" for x in (value, low, high))])


def compare(entries, past):
    """Rows that say how figures have moved since they were last measured.

    Arguments
    ---------
    entries : list of Entry
        New ones.
    past : list of Entry
        Older ones, the oldest first.

    Returns
    -------
    list of dict
        One for each new figure that was measured before on such a machine.
    """
    last = {entry.of: entry for entry in past}
    rows = []
    for entry in entries:
        then = last.get(entry.of)
        if then is None:
            continue
        apart = entry.low > then.high or entry.high < then.low
        rows.append(
            {
                "classifier": entry.classifier,
                "batch": entry.batch,
                "figure": entry.what,
                "commit": then.commit,
                "then": then.value,
                "now": entry.value,
                "change": f"{entry.value / then.value - 1:+.0%}",
                "apart": "yes" if apart else "no",
            }
        )
    return rows


def commit():
    """The tree's commit, with a plus sign if it was changed since.

    Returns
    -------
    str
    """
    here = Path(__file__).parent
    try:
        name, changes = (
            subprocess.run(
                ["git", "-C", here, *words],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            for words in (
                ("rev-parse", "--short=7", "HEAD"),
                ("status", "--porcelain", "--untracked-files=no"),
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name + "+" * bool(changes)
