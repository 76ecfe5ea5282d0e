"""Tables of results: one row a clip, and their means with intervals.

Authors
 * The lmac-sb authors 2026
"""

import csv
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import speechbrain
import torch
import torchaudio

from lmac_sb.errors import LMACError
from lmac_sb.metrics import METRICS

__all__ = [
    "bootstrap",
    "markdown_table",
    "provenance",
    "read_json",
    "summarize",
    "write_csv",
    "write_json",
]

# Columns whose figures are shown with so many decimals.
DECIMALS = {"AI": 1, "AD": 2, "AG": 1}


def bootstrap(values, n_draws=2000, seed=0):
    """Mean and its 95 % bootstrap interval.

    Arguments
    ---------
    values : list of float
        One value a clip; NaN ones are left out and counted.
    n_draws : int
        Number of resamplings.
    seed : int
        Seed of the resampling.

    Returns
    -------
    dict
        ``mean``, ``low``, ``high``, ``n`` and ``n_nan``.

    Example
    -------
    >>> bootstrap([1.0, 1.0, float("nan")])
    {'mean': 1.0, 'low': 1.0, 'high': 1.0, 'n': 2, 'n_nan': 1}
    """
    values = np.asarray(values, dtype=np.float64)
    # Sorted, so that the order of the rows does not matter.
    valid = np.sort(values[~np.isnan(values)])
    interval = {"mean": math.nan, "low": math.nan, "high": math.nan}
    if len(valid):
        rng = np.random.default_rng(seed)
        draws = rng.integers(len(valid), size=(n_draws, len(valid)))
        low, high = np.percentile(valid[draws].mean(1), [2.5, 97.5])
        interval = {
            "mean": float(valid.mean()),
            "low": float(low),
            "high": float(high),
        }
    return {**interval, "n": len(valid), "n_nan": len(values) - len(valid)}


def summarize(rows, by="method", reference=None):
    """Mean and interval of each metric for each method.

    Arguments
    ---------
    rows : list of dict
        One a clip and method.
    by : str
        Key that names the method.
    reference : str
        Method to which each other one is compared clip by clip.

    Returns
    -------
    dict
        Method to metric to the result of `bootstrap`; with a reference also
        ``difference``: reference minus method, paired by clip.

    Example
    -------
    >>> rows = [{"id": "a", "method": "m", "AI": 100.0}]
    >>> summarize(rows)["m"]["AI"]["mean"]
    100.0
    """
    methods = list(dict.fromkeys(row[by] for row in rows))
    table = {m: {r["id"]: r for r in rows if r[by] == m} for m in methods}
    summary = {}
    for method, clips in table.items():
        summary[method] = {}
        for name in METRICS:
            if not all(name in row for row in clips.values()):
                continue
            values = [row[name] for row in clips.values()]
            summary[method][name] = bootstrap(values)
            if reference in table and method != reference:
                paired = [
                    table[reference][i][name] - row[name]
                    for i, row in clips.items()
                ]
                summary[method][name]["difference"] = bootstrap(paired)
    return summary


def markdown_table(summary):
    """A summary as a Markdown table, with arrows for the better direction.

    Arguments
    ---------
    summary : dict
        From `summarize`.

    Returns
    -------
    str
        Mean, and half the width of the 95 % interval.

    Example
    -------
    >>> rows = [{"id": "a", "method": "m", "AI": 100.0, "FF": 0.5}]
    >>> print(markdown_table(summarize(rows)))
    | method | AI ↑ | FF ↑ |
    |---|---|---|
    | m | 100.0 ± 0.0 | 0.500 ± 0.000 |
    """
    columns = [n for n in METRICS if any(n in row for row in summary.values())]
    arrows = {1: " ↑", -1: " ↓", 0: ""}
    head = [f"{n}{arrows[METRICS[n].direction]}" for n in columns]
    lines = [
        "| " + " | ".join(["method", *head]) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for method, metrics in summary.items():
        cells = [method]
        for name in columns:
            if name not in metrics:
                cells.append("–")
                continue
            figure = metrics[name]
            half = (figure["high"] - figure["low"]) / 2
            digits = DECIMALS.get(name, 3)
            cells.append(f"{figure['mean']:.{digits}f} ± {half:.{digits}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def provenance(**more):
    """What is needed to know where a result came from.

    Arguments
    ---------
    **more
        Further entries, such as the fold and the checkpoint.

    Returns
    -------
    dict
        Command, versions, machine, git commit and the entries given.
    """
    return {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchaudio": torchaudio.__version__,
        "speechbrain": speechbrain.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        **more,
    }


def _commit():
    """Commit of this code, "unknown" outside a clone or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def write_csv(path, rows):
    """Write rows to a csv file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    rows : list of dict
        At least one; all with the same keys.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> write_csv(path, [{"id": "a", "AI": 100.0}])
    >>> print(path.read_text())
    id,AI
    a,100.0
    <BLANKLINE>
    """

    def write(file):
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    _write(path, write)


def read_json(path):
    """Content of a JSON file.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    object

    Raises
    ------
    LMACError
        If the file holds something else.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> _ = path.write_text("{")
    >>> read_json(path)
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: .../x.json: not JSON (...)
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LMACError(f"{path}: not JSON ({error})") from error


def write_json(path, content):
    """Write JSON to a file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    content : object
        What to write.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> write_json(path, [1])
    >>> json.loads(path.read_text())
    [1]
    """
    _write(path, lambda file: json.dump(content, file, indent=1))


def _write(path, write):
    """Write through a temporary file in the same folder."""
    part = Path(f"{path}.part")
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            write(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
