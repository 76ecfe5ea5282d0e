"""Tables of results: one row a clip, and their means with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lmac_sb.metrics.registry import METRICS, direction, shown_in, unguarded
from lmac_sb.utils.errors import LMACError

__all__ = [
    "bootstrap",
    "check_unique",
    "header",
    "markdown_table",
    "marked_cells",
    "means_over",
    "summarize",
    "tellable",
]

# A row of a table, the means of each method, and what a cell shows.
Row = dict[str, Any]
Summary = dict[str, dict[str, Any]]
Cell = tuple[str, str, bool] | None

N_DRAWS = 2000  # resamplings of a bootstrap interval


def bootstrap(
    values: Sequence[float], n_draws: int = N_DRAWS, seed: int = 0
) -> dict[str, Any]:
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

    Raises
    ------
    LMACError
        If a value is infinite, there is more than one a clip, or no draw.

    Example
    -------
    >>> bootstrap([1.0, 1.0, float("nan")])
    {'mean': 1.0, 'low': 1.0, 'high': 1.0, 'n': 2, 'n_nan': 1}
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise LMACError(
            f"values: found shape {column.shape}, expected one a clip"
        )
    if np.isinf(column).any():
        found = column[np.isinf(column)][0]
        raise LMACError(f"values: found {found}, expected finite ones")
    if n_draws < 1:
        raise LMACError(
            f"n_draws: found {n_draws}, expected a whole number from 1"
        )
    return _bootstrap(column[:, None], n_draws, seed)[0]


def _bootstrap(
    values: np.ndarray, n_draws: int = N_DRAWS, seed: int = 0
) -> list[dict[str, Any]]:
    """Result of `bootstrap` for each column of an array [clips, columns]."""
    # Sorted, so that the order of the rows does not matter; NaN come last.
    values = np.sort(values, axis=0)
    counts = (~np.isnan(values)).sum(0)
    figures = np.full((3, values.shape[1]), math.nan)
    for n in set(counts[counts > 0].tolist()):
        chosen = counts == n
        valid = values[:n, chosen]
        means = valid.mean(0)
        # Columns with as many values share the draws: one product does for
        # all of them.
        draws = _draws(n, n_draws, seed) @ valid / n
        low, high = np.percentile(draws, [2.5, 97.5], axis=0)
        # Rounding may leave the mean of equal values outside.
        low, high = np.minimum(low, means), np.maximum(high, means)
        figures[:, chosen] = means, low, high
    return [
        {
            "mean": float(mean),
            "low": float(low),
            "high": float(high),
            "n": int(n),
            "n_nan": len(values) - int(n),
        }
        for (mean, low, high), n in zip(figures.T, counts)
    ]


@lru_cache(maxsize=8)
def _draws(n: int, n_draws: int, seed: int) -> np.ndarray:
    """How often each of n values is in each resampling, [n_draws, n]."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(n, size=(n_draws, n))
    places = draws + n * np.arange(n_draws)[:, None]
    counts = np.bincount(places.ravel(), minlength=n_draws * n)
    return counts.reshape(n_draws, n).astype(np.float64)


def check_unique(rows: Sequence[Row], keys: Sequence[str]) -> None:
    """Refuse rows that say the same thing twice.

    Arguments
    ---------
    rows : list of dict
        Any rows.
    keys : list of str
        Keys whose values together name a row.

    Raises
    ------
    LMACError
        If two rows have the same name, or one has none.

    Example
    -------
    >>> check_unique([{"id": "a"}, {"id": "a"}], ["id"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: results: two rows with id 'a', expected one
    """
    seen = set()
    for place, row in enumerate(rows, 1):
        missing = [key for key in keys if key not in row]
        if missing:
            raise LMACError(
                f"results: row {place} has no {', '.join(missing)}; "
                f"expected {', '.join(keys)}"
            )
        name = tuple(row[key] for key in keys)
        if name in seen:
            found = ", ".join(f"{k} '{value}'" for k, value in zip(keys, name))
            raise LMACError(f"results: two rows with {found}, expected one")
        seen.add(name)


def summarize(
    rows: Sequence[Row],
    by: str = "method",
    reference: str | None = None,
    columns: Sequence[str] | None = None,
) -> Summary:
    """Mean and interval of each metric for each method.

    Arguments
    ---------
    rows : list of dict
        One a clip and method.
    by : str
        Key that names the method.
    reference : str
        Method to which each other one is compared clip by clip.
    columns : list of str
        What to take the mean of, in this order; default all metrics. A method
        has those that any of its rows has; a clip without a value counts as
        NaN.

    Returns
    -------
    dict
        Method to metric to the result of `bootstrap`; with a reference also
        ``difference``: reference minus method, paired by clip.

    Raises
    ------
    LMACError
        If a clip has two rows of one method.

    Example
    -------
    >>> rows = [{"id": "a", "method": "m", "AI": 100.0}]
    >>> summarize(rows)["m"]["AI"]["mean"]
    100.0
    """
    check_unique(rows, ["id", by])
    columns = list(METRICS) if columns is None else columns
    table: dict[str, dict[str, Row]] = {}
    for row in rows:
        table.setdefault(row[by], {})[row["id"]] = row
    summary = {}
    for method, clips in table.items():
        names = [c for c in columns if any(c in row for row in clips.values())]
        values = _values(clips.values(), names)
        summary[method] = dict(zip(names, _bootstrap(values)))
        if reference in table and method != reference:
            # A clip that one of the two lacks is no pair.
            others = [table[reference].get(clip, {}) for clip in clips]
            paired = _values(others, names) - values
            for name, figure in zip(names, _bootstrap(paired)):
                summary[method][name]["difference"] = figure
    return summary


def tellable(summary: Summary) -> Summary:
    """What a table may tell of a summary: no interval of a single value.

    Arguments
    ---------
    summary : dict
        From `summarize`.

    Returns
    -------
    dict
        The same without figures of no value; the interval of one value, which
        says nothing of others, is NaN.

    Example
    -------
    >>> rows = [{"id": "a", "method": "m", "AI": 1.0, "AD": math.nan}]
    >>> columns = ["AI", "AD"]
    >>> print(markdown_table(tellable(summarize(rows)), columns))
    | method | AI ↑ | AD ↓ |
    |---|---|---|
    | m | 1.0 | – |
    """
    unknown = {"low": math.nan, "high": math.nan}
    return {
        method: {
            name: figure if figure["n"] > 1 else {**figure, **unknown}
            for name, figure in metrics.items()
            if figure["n"]
        }
        for method, metrics in summary.items()
    }


def _values(rows: Iterable[Row], names: Sequence[str]) -> np.ndarray:
    """Values of the rows, [rows, names], NaN where there is none."""
    values = [[row.get(name, math.nan) for name in names] for row in rows]
    return np.array(values, dtype=np.float64).reshape(-1, len(names))


def header(column: str) -> str:
    """Name of a column with an arrow for the better direction.

    Arguments
    ---------
    column : str
        Such as ``AI``.

    Returns
    -------
    str

    Example
    -------
    >>> header("AI"), header("heard AD"), header("area")
    ('AI ↑', 'heard AD ↓', 'area')
    """
    return column + {1: " ↑", -1: " ↓", 0: ""}[direction(column)]


def marked_cells(
    summary: Summary, columns: Sequence[str]
) -> dict[str, list[Cell]]:
    """Mean and half width of the interval of each method, as shown.

    Arguments
    ---------
    summary : dict
        From `summarize`.
    columns : list of str
        Metrics.

    Returns
    -------
    dict
        Method to one (mean, half width, whether it is the best) for each
        column, the first two as text; None where there is no figure. Figures
        that look the same are as good as each other, and none is the best of
        a column without a better direction.

    Example
    -------
    >>> rows = [{"id": "a", "method": m, "AI": x} for m, x in zip("kl", [1, 2])]
    >>> marked_cells(summarize(rows), ["AI"])
    {'k': [('1.0', '0.0', False)], 'l': [('2.0', '0.0', True)]}
    """
    cells: dict[str, list[Cell]] = {method: [] for method in summary}
    for column in columns:
        metric = METRICS.get(unguarded(column))
        digits = metric.digits if metric else 3
        shown = {}
        for method, metrics in summary.items():
            if column in metrics:
                figure = metrics[column]
                half = (figure["high"] - figure["low"]) / 2
                # Plus zero, so that no zero is negative.
                shown[method] = tuple(
                    f"{round(x, digits) + 0.0:.{digits}f}"
                    for x in (figure["mean"], half)
                )
        sign = direction(column)
        scores = [sign * float(mean) for mean, _ in shown.values()]
        best = max((x for x in scores if not math.isnan(x)), default=math.nan)
        for method in summary:
            cell: Cell = None
            if method in shown:
                mean, half = shown[method]
                cell = mean, half, sign != 0 and sign * float(mean) == best
            cells[method].append(cell)
    return cells


def markdown_table(
    summary: Summary,
    columns: Sequence[str] | None = None,
    mark: bool = False,
    by: str = "method",
) -> str:
    """A summary as a Markdown table, with arrows for the better direction.

    Arguments
    ---------
    summary : dict
        From `summarize`.
    columns : list of str
        Metrics to show; default those of a short table that there are.
    mark : bool
        Whether the best figures of each column are in bold.
    by : str
        What the rows are, for the header.

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
    if columns is None:
        found = {name for row in summary.values() for name in row}
        columns = [name for name in shown_in("table") if name in found]
    lines = [
        "| " + " | ".join([by, *map(header, columns)]) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for method, cells in marked_cells(summary, columns).items():
        texts = [_markdown_cell(cell, mark) for cell in cells]
        # A bar would begin a new cell.
        name = str(method).replace("|", "\\|")
        lines.append("| " + " | ".join([name, *texts]) + " |")
    return "\n".join(lines)


def _markdown_cell(cell: Cell, mark: bool) -> str:
    """Text of one of the `marked_cells`."""
    if cell is None:
        return "–"
    mean, half, best = cell
    if half == "nan" != mean:  # of one clip, see `tellable`
        return f"**{mean}**" if mark and best else mean
    return f"**{mean} ± {half}**" if mark and best else f"{mean} ± {half}"


def means_over(
    rows: Sequence[Row], over: str, columns: Sequence[str]
) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Means of columns along another one, for a figure with lines.

    Arguments
    ---------
    rows : list of dict
        With a method each.
    over : str
        The column along which the lines go.
    columns : list of str
        What is averaged.

    Returns
    -------
    dict
        Method to points, each a value of `over` and the `bootstrap` of each
        column.

    Example
    -------
    >>> rows = [{"method": "a", "share": 0.1, "AI": x} for x in (0, 100)]
    >>> ((share, found),) = means_over(rows, "share", ["AI"])["a"]
    >>> share, found["AI"]["mean"]
    (0.1, 50.0)
    """
    groups: dict[str, dict[Any, list[Row]]] = {}
    for row in rows:
        points = groups.setdefault(row["method"], {})
        points.setdefault(row[over], []).append(row)
    return {
        method: [
            (x, dict(zip(columns, _bootstrap(_values(part, columns)))))
            for x, part in points.items()
        ]
        for method, points in groups.items()
    }
