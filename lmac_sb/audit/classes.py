"""What a classifier listens to for each class: means with intervals."""

import math

import numpy as np

from lmac_sb.audit import significance
from lmac_sb.audit.describe import BANDS, TIMES, time_edges
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.summary import bootstrap
from lmac_sb.metrics.verdict import VERDICTS

__all__ = ["class_rows", "find_classes", "mean_interval", "wilson"]

# A bootstrap of more values gives the interval of the normal distribution,
# at a cost of memory that grows with them.
_MOST_DRAWN = 1000


def wilson(count, n):
    """A share and its 95 % Wilson interval.

    Arguments
    ---------
    count, n : int
        Of `n` clips, `count` are such.

    Returns
    -------
    list of float
        Share, lower and upper end; NaN if `n` is 0.

    Example
    -------
    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.8, 0.49, 0.943]
    """
    if not n:
        return [math.nan] * 3
    low, high = significance.wilson(count, n)
    # Rounding may leave a share of 0 or 1 outside.
    return [count / n, min(low, count / n), max(high, count / n)]


def mean_interval(values):
    """A mean and its 95 % interval.

    Arguments
    ---------
    values : numpy.ndarray
        [clips]; those that are NaN do not count.

    Returns
    -------
    list of float
        Mean, lower and upper end: of a bootstrap, or from 1,000 values on of
        the normal distribution.

    Example
    -------
    >>> mean_interval([2.0, 2.0])
    [2.0, 2.0, 2.0]
    """
    values = np.asarray(values, float)
    values = np.sort(values[~np.isnan(values)])
    if len(values) <= _MOST_DRAWN:
        found = bootstrap(values)
        return [found[name] for name in ("mean", "low", "high")]
    mean = float(values.mean())
    half = significance.Z * float(values.std(ddof=1)) / math.sqrt(len(values))
    return [mean, mean - half, mean + half]


def find_classes(frame, edges_hz):
    """Figures of each class, by the decision, and beside it by the label.

    Arguments
    ---------
    frame : pandas.DataFrame
        A row for each explained clip: ``decision``, ``right`` (None where
        the label is not known), ``label``, ``verdict``, metrics and the
        columns of `lmac_sb.audit.describe.describe`.
    edges_hz : list of float
        Of the bands.

    Returns
    -------
    list of dict
        For each class that is decided or is the label of a clip, by name:
        ``name``, ``n`` decisions, ``n_wrong`` (None if no label is known),
        shares of ``verdicts``, ``area``, ``fidelity``, ``bands`` and
        ``times``, with intervals; and ``labelled`` (None without labels):
        the same figures of the clips with that label, with ``n_missed``,
        those that are decided otherwise.

    Example
    -------
    >>> import pandas
    >>> row = dict.fromkeys([*BANDS, *TIMES], 1 / 16)
    >>> row |= {"decision": "cow", "label": "dog", "right": False}
    >>> row |= {"verdict": "faithful", "area": 0.2, "AI": 100.0}
    >>> found = find_classes(pandas.DataFrame([row]), list(range(17)))
    >>> [(x["name"], x["n"], x["n_wrong"]) for x in found]
    [('cow', 1, 1), ('dog', 0, 0)]
    """
    known = frame[frame["right"].notna()]
    decided = dict(list(frame.groupby("decision", sort=False)))
    labelled = dict(list(known.groupby("label", sort=False)))
    found = []
    for name in sorted({*decided, *labelled}):
        rows = decided.get(name, frame[:0])
        of_label = labelled.get(name, frame[:0])
        found.append(
            {
                "name": name,
                **_figures(rows, edges_hz),
                "n_wrong": _n_wrong(rows) if len(known) else None,
                "labelled": {
                    **_figures(of_label, edges_hz),
                    "n_missed": _n_wrong(of_label),
                }
                if len(known)
                else None,
            }
        )
    return found


def _n_wrong(rows):
    """Clips whose label is known not to be what was decided."""
    return int((rows["right"] == False).sum())  # noqa: E712 (None is neither)


def _figures(rows, edges_hz):
    """Figures of some clips."""
    n = len(rows)
    counts = rows["verdict"].value_counts()
    metrics = [x for x in METRICS if x in rows and x != "area"]
    return {
        "n": n,
        "verdicts": {
            name: wilson(int(counts[name]), n)
            for name in VERDICTS
            if name in counts
        },
        "area": mean_interval(rows["area"]),
        "fidelity": {name: mean_interval(rows[name]) for name in metrics},
        "bands": {"edges_hz": list(edges_hz), **_profile(rows, BANDS)},
        "times": {"edges": time_edges(), **_profile(rows, TIMES)},
    }


def _profile(rows, columns):
    """Means over an axis with intervals."""
    figures = [mean_interval(rows[name]) for name in columns]
    return dict(zip(("mean", "low", "high"), map(list, zip(*figures))))


def class_rows(classes):
    """The figures of the classes as a table.

    Arguments
    ---------
    classes : list of dict
        From `find_classes`.

    Returns
    -------
    list of dict
        A row a class by its decisions, and with labels another one by them:
        ``class``, ``by``, counts, and each figure with ``... low`` and
        ``... high``.

    Example
    -------
    >>> class_rows([])
    []
    """
    rows = []
    for found in classes:
        rows.append(_row(found["name"], "decision", found, found["n_wrong"]))
        other = found["labelled"]
        if other is not None:
            rows.append(_row(found["name"], "label", other, other["n_missed"]))
    return rows


def _row(name, by, figures, n_wrong):
    """One of them."""
    row = {"class": name, "by": by, "n": figures["n"], "n_wrong": n_wrong}
    shares = {
        f"verdict {verdict}": figures["verdicts"].get(
            verdict, wilson(0, figures["n"])
        )
        for verdict in VERDICTS
    }
    columns = {**shares, "area": figures["area"], **figures["fidelity"]}
    for names, axis in ((BANDS, "bands"), (TIMES, "times")):
        values = (figures[axis][key] for key in ("mean", "low", "high"))
        columns |= dict(zip(names, zip(*values)))
    for column, (mean, low, high) in columns.items():
        row |= {column: mean, f"{column} low": low, f"{column} high": high}
    return row
