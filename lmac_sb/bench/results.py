"""From the rows of all cells to figures: means, differences, losses.

Each figure is a mean over the clips of a cell, with its 95 % bootstrap
interval. A *difference* is a method minus another one, paired by clip. L-MAC
*loses* where the interval of another method minus L-MAC lies on the better
side of zero, over at least `LEAST` clips: that of fewer is no interval.
"""

import math

from lmac_sb.bench.measured import MEASURES
from lmac_sb.bench.methods import LMAC, REFERENCE, base
from lmac_sb.evaluation.comparison import OWN
from lmac_sb.evaluation.tables import PROBABILITIES, TEXTS
from lmac_sb.metrics.registry import GUARDS, METRICS, direction, unguarded
from lmac_sb.metrics.summary import summarize

__all__ = [
    "EQUAL",
    "LEAST",
    "OTHER_FORMS",
    "better",
    "differences",
    "digits",
    "figures",
    "losses",
    "measures",
    "told",
]

EQUAL = "equal area"  # what the tables call the area of the reference
LEAST = 5  # clips of a claim
OTHER_FORMS = ("FF-logit", "AD-2softmax")  # of what the tables have
_KEYS = ("data", "classifier", "method", "keep", "measure")
_INTERVAL = ("mean", "low", "high", "n")


def better(measure):
    """Better direction of a measure.

    Arguments
    ---------
    measure : str
        Its name.

    Returns
    -------
    int
        1 if higher is better, -1 if lower is, 0 if neither.

    Example
    -------
    >>> better("AD"), better("heard AI"), better("passes"), better("area")
    (-1, 1, -1, 0)
    """
    return MEASURES[measure][0] if measure in MEASURES else direction(measure)


def digits(measure):
    """Decimals of a measure in tables.

    Arguments
    ---------
    measure : str
        Its name.

    Returns
    -------
    int

    Example
    -------
    >>> digits("AI"), digits("heard AD"), digits("seconds")
    (1, 2, 2)
    """
    if measure in MEASURES:
        return MEASURES[measure][1]
    metric = METRICS.get(unguarded(measure))
    return metric.digits if metric else 3


def measures(names):
    """Measures in the order of the tables.

    Arguments
    ---------
    names : iterable of str
        Some.

    Returns
    -------
    list of str

    Example
    -------
    >>> measures(["seconds", "heard AI", "AD", "AI"])
    ['AI', 'AD', 'heard AI', 'seconds']
    """
    guarded = (f"{guard} {name}" for guard in GUARDS for name in METRICS)
    order = [*METRICS, *guarded, *MEASURES]
    return sorted(set(names), key=order.index)


def figures(facts, rows):
    """Means of a cell, in long form.

    Arguments
    ---------
    facts : dict
        Of the cell, with ``data``, ``classifier`` and ``reference``.
    rows : list of dict
        Of the cell.

    Returns
    -------
    list of dict
        ``data``, ``classifier``, ``method``, ``keep``, ``measure``, ``mean``,
        ``low``, ``high`` and ``n``. ``failed`` is the share of a method's
        rows that have no mask.

    Example
    -------
    >>> facts = {"data": "d", "classifier": "c", "reference": "lmac"}
    >>> row = {"id": "a", "method": "lmac", "keep": "own", "AI": 100.0}
    >>> figures(facts, [row])[0]["measure"], figures(facts, [row])[0]["mean"]
    ('AI', 100.0)
    """
    found = []
    for keep, part in _by_keep(facts, rows):
        columns = _columns(part)
        for method, values in summarize(part, columns=columns).items():
            for measure, figure in values.items():
                found.append(_line(facts, method, keep, measure, figure))
    return found


def differences(facts, rows):
    """Each method minus the loudest bins, and minus L-MAC, paired by clip.

    Arguments
    ---------
    facts, rows : dict, list of dict
        See `figures`.

    Returns
    -------
    list of dict
        As of `figures`, and ``minus``, the other method.

    Example
    -------
    >>> facts = {"data": "d", "classifier": "c", "reference": "lmac"}
    >>> rows = [
    ...     {"id": "a", "method": method, "keep": "own", "AI": value}
    ...     for method, value in {"lmac": 0.0, "loudest": 100.0}.items()
    ... ]
    >>> first, other = differences(facts, rows)
    >>> first["method"], first["minus"], first["mean"]
    ('lmac', 'loudest', -100.0)
    """
    found = []
    for keep, part in _by_keep(facts, rows):
        columns = _columns(part)
        for minus in (REFERENCE, LMAC) if part else ():
            summary = summarize(part, reference=minus, columns=columns)
            for method, values in summary.items():
                for measure, figure in values.items():
                    paired = figure.get("difference")
                    if not paired or not paired["n"]:
                        continue
                    # It is told as the reference minus the method.
                    turned = {
                        "mean": -paired["mean"] + 0.0,
                        "low": -paired["high"] + 0.0,
                        "high": -paired["low"] + 0.0,
                        "n": paired["n"],
                    }
                    line = _line(facts, method, keep, measure, turned)
                    found.append({**line, "minus": minus})
    return found


def losses(found):
    """Where another method is better than L-MAC's decoder.

    Arguments
    ---------
    found : list of dict
        From `differences`.

    Returns
    -------
    list of dict
        Those of its lines in which a method beats ``lmac``: the interval of
        the difference excludes zero. Other masks of L-MAC are no other
        method; nor is the ideal mask, which was told the answer.

    Example
    -------
    >>> line = {"method": "x", "minus": "lmac", "measure": "AD", "n": 9}
    >>> len(losses([{**line, "mean": -2.0, "low": -3.0, "high": -1.0}]))
    1
    >>> losses([{**line, "mean": -2.0, "low": -3.0, "high": 0.0}])
    []
    """
    lost = []
    for line in found:
        if line["measure"] in OTHER_FORMS or line["n"] < LEAST:
            continue
        method, sign = line["method"], better(line["measure"])
        own = base(method) == LMAC or method == "ideal"
        near = line["low"] if sign > 0 else line["high"]
        if line["minus"] == LMAC and not own and sign * near > 0:
            lost.append(line)
    return lost


def told(rows):
    """What rows say in words: which methods failed, and what is odd of masks.

    Arguments
    ---------
    rows : list of dict
        Of a cell.

    Returns
    -------
    dict
        ``errors``: how often each method failed, and its first error.
        ``warnings``: how often each method has each warning.

    Example
    -------
    >>> row = {"method": "x", "keep": "own", "warning": "constant mask"}
    >>> told([row, row])["warnings"]
    [{'method': 'x', 'n': 2, 'warning': 'constant mask'}]
    """
    errors, warnings = {}, {}
    for row in rows:
        method, error = row["method"], row.get("error")
        warning = row.get("warning")
        if row["keep"] == OWN and error:
            one = {"method": method, "n": 0, "error": error}
            errors.setdefault(method, one)["n"] += 1
        elif row["keep"] == OWN and warning:
            one = {"method": method, "n": 0, "warning": warning}
            warnings.setdefault((method, warning), one)["n"] += 1
    return {"errors": [*errors.values()], "warnings": [*warnings.values()]}


def _by_keep(facts, rows):
    """Rows of masks as they are, and of equal area."""
    names = {OWN: OWN, f"area of {facts['reference']}": EQUAL}
    some_failed = any(row.get("error") for row in rows)
    for keep, name in names.items():
        part = [row for row in rows if row["keep"] == keep]
        if some_failed and keep == OWN:
            part = [
                {**row, "failed": float(bool(row.get("error")))} for row in part
            ]
        yield name, part


def _columns(rows):
    """Measures among the columns."""
    left_out = {*TEXTS, *PROBABILITIES, "right"}
    return measures({key for row in rows for key in row} - left_out)


def _line(facts, method, keep, measure, figure):
    """One figure in long form."""
    values = [facts["data"], facts["classifier"], method, keep, measure]
    numbers = {
        key: None if math.isnan(figure[key]) else figure[key]
        for key in _INTERVAL
    }
    return {**dict(zip(_KEYS, values)), **numbers}
