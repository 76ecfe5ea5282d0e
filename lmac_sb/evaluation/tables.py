"""Summary of an evaluation: from rows to tables for people and for papers.

A row is one clip, setting, method and way to keep bins (`keep`); the summary
has the mean of each column with its 95 % bootstrap interval for each setting,
method and keep, over all clips and over those that the classifier decided
rightly (`right`) and wrongly. What is written depends on the rows only, not
on their order.
"""

import csv
from pathlib import Path

from lmac_sb.evaluation.rows import by_method, natural
from lmac_sb.metrics.registry import GUARDS, METRICS, unguarded
from lmac_sb.metrics.summary import (
    check_unique,
    header,
    markdown_table,
    marked_cells,
    summarize,
)
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import write_csv, write_in_one_step

__all__ = [
    "CURVE",
    "area_under",
    "curve_rows",
    "curves",
    "read_results",
    "shares_of",
    "summarize_grid",
    "write_summary",
]

KEYS = ["id", "setting", "method", "keep"]
TEXTS = (*KEYS, "label", "decision", "warning", "error")
PROBABILITIES = ("p", "p_in", "p_out", "p_silence")
# Columns of the csv that the tables show in another way or not at all.
UNSEEN = (*PROBABILITIES, "warnings", "errors")
CURVE = "curve"  # `keep` of the rows that sum up all shares of a clip
SUBSETS = {"all": (1, 0, None), "right": (1,), "wrong": (0,)}
WIDEST = 10  # columns; the others of a table go below

NOTE = (
    "Mean over clips ± half the width of its 95 % bootstrap interval; bold is "
    "the best of a column in the direction of its arrow. The full intervals, "
    "and the split by right and wrong decisions, are in summary.csv."
)


def read_results(path):
    r"""Rows of a `results.csv`, with numbers as numbers.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    list of dict
        ``right`` is a whole number, texts are texts, all else are floats; a
        key is absent where the field is empty, but for texts.

    Raises
    ------
    LMACError
        If the file is no such table; names the file and the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "results.csv"
    >>> text = "id,setting,method,keep,right,AI\na,clean,m,own,1,"
    >>> _ = path.write_text(text)
    >>> read_results(path)
    [{'id': 'a', 'setting': 'clean', 'method': 'm', 'keep': 'own', 'right': 1}]
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next(lines, [])
            missing = [key for key in KEYS if key not in names]
            if missing or len(names) > len(set(names)):
                raise LMACError(
                    f"{path}: found the columns {_listed(names)}; expected "
                    f"{', '.join(KEYS)} and no name twice"
                )
            return [
                _read_row(f"{path}, line {lines.line_num}", names, fields)
                for fields in lines
            ]
    except OSError as error:
        raise LMACError(f"{path}: cannot be read ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise LMACError(f"{path}: not a csv file ({error})") from error


def _read_row(place, names, fields):
    """Values by name."""
    if len(fields) != len(names):
        raise LMACError(
            f"{place}: {len(fields)} fields, expected {len(names)} as in "
            "the first line"
        )
    row = {}
    for name, field in zip(names, fields):
        if name in TEXTS:
            row[name] = field
        elif field:
            try:
                row[name] = int(field) if name == "right" else float(field)
            except ValueError as error:
                raise LMACError(
                    f"{place}: {_listed([name])} is {shown(field)}, expected "
                    "a number"
                ) from error
    return row


def _listed(names):
    """Columns in a message: on one line, whatever a file calls them."""
    text = ", ".join(names) or "none"
    return text if text.isprintable() and len(text) < 1000 else shown(names)


def area_under(shares, values):
    """Area under a curve over the share of kept bins.

    Arguments
    ---------
    shares : list of float
        At least two, rising.
    values : list of float
        One for each share.

    Returns
    -------
    float
        By trapezoids, for a width of 1: the mean height of the curve.

    Raises
    ------
    LMACError
        If the shares do not rise or are not as many as the values.

    Example
    -------
    >>> area_under([0, 0.5, 1], [0, 1, 1])
    0.75
    """
    rising = all(low < high for low, high in zip(shares, shares[1:]))
    if len(shares) < 2 or len(shares) != len(values) or not rising:
        raise LMACError(
            f"shares: {list(shares)} for {len(values)} values; expected two "
            "or more that rise, one for each value"
        )
    area = sum(
        (shares[i + 1] - shares[i]) * (values[i] + values[i + 1]) / 2
        for i in range(len(shares) - 1)
    )
    return area / (shares[-1] - shares[0])


def shares_of(keeps):
    """The shares among names of keeps.

    Arguments
    ---------
    keeps : iterable of str
        Values of ``keep``.

    Returns
    -------
    list of float
        Rising.

    Example
    -------
    >>> shares_of(["own", "0.5", "area of lmac", "0.1"])
    [0.1, 0.5]
    """
    found = {_number(keep) for keep in keeps} - {None}
    return sorted(share for share in found if 0 < share < 1)


def curves(rows, shares=None):
    """Insertion and deletion curve of each clip, setting and method.

    The probability of the explained class as more of the bins are kept, in
    the order in which the method ranks them: on the kept bins alone
    (insertion, from silence to the whole clip) and on all others (deletion,
    from the whole clip to silence).

    Arguments
    ---------
    rows : list of dict
        Those whose ``keep`` is a share have ``p``, ``p_in``, ``p_out`` and
        ``p_silence``, or an error; others do not matter.
    shares : list of float
        Those that each clip has; by default all that any of these has.

    Returns
    -------
    list of dict
        With the keys ``id``, ``setting``, ``method``, ``right``, ``shares``,
        ``insertion`` and ``deletion``; with ``error`` instead of the last four
        where any row of the clip, setting and method has one.

    Raises
    ------
    LMACError
        If, without an error, a row lacks a probability or a clip one of
        the shares.

    Example
    -------
    >>> row = {"id": "a", "setting": "clean", "method": "m", "keep": "0.5"}
    >>> p = {"p": 0.9, "p_in": 0.8, "p_out": 0.2, "p_silence": 0.1}
    >>> curves([{**row, **p}])[0]["insertion"]
    [0.1, 0.8, 0.9]
    """
    found, errors = {}, {}
    for row in rows:
        name = (row["setting"], row["method"], row["id"])
        if row.get("error"):
            errors.setdefault(name, []).append(row["error"])
        share = _number(row["keep"])
        if share is not None and 0 < share < 1:
            found.setdefault(name, {})[share] = row
    every = shares or sorted({x for clip in found.values() for x in clip})
    # A clip counts for a method even if its error is in another row.
    drawn = {name[:2] for name in found}
    names = {*found, *(name for name in errors if name[:2] in drawn)}
    return [
        _curve(name, every, found.get(name, {}), errors.get(name))
        for name in sorted(names, key=lambda name: [natural(x) for x in name])
    ]


def _curve(name, shares, clip, errors):
    """Curve of a clip from its rows by share."""
    setting, method, identity = name
    curve = {"id": identity, "setting": setting, "method": method}
    if errors:
        return {**curve, "error": min(errors)}
    place = f"clip '{identity}', setting '{setting}', method '{method}'"
    inside, outside = [], []
    for share in shares:
        if share not in clip:
            raise LMACError(
                f"results: {place}: no row with keep {share}, which others have"
            )
        row = clip[share]
        missing = [key for key in PROBABILITIES if key not in row]
        if missing:
            raise LMACError(
                f"results: {place}, keep {share}: no {', '.join(missing)}, "
                "which the curves need"
            )
        inside.append(row["p_in"])
        outside.append(row["p_out"])
    if "right" in row:
        curve["right"] = row["right"]
    whole, silence = row["p"], row["p_silence"]
    return {
        **curve,
        "shares": [0.0, *shares, 1.0],
        "insertion": [silence, *inside, whole],
        "deletion": [whole, *outside, silence],
    }


def curve_rows(rows, shares=None):
    """Area under the insertion and the deletion curve as rows of their own.

    Arguments
    ---------
    rows, shares : list
        See `curves`.

    Returns
    -------
    list of dict
        With `CURVE` for ``keep``.

    Example
    -------
    >>> row = {"id": "a", "setting": "clean", "method": "m", "keep": "0.5"}
    >>> p = {"p": 1.0, "p_in": 1.0, "p_out": 0.0, "p_silence": 0.0}
    >>> curve_rows([{**row, **p}])[0]["insertion AUC"]
    0.75
    """
    made = []
    for curve in curves(rows, shares):
        row = {"keep": CURVE}
        for key in ("id", "setting", "method", "right", "error"):
            if key in curve:
                row[key] = curve[key]
        for key in ("insertion", "deletion"):
            if key in curve:
                area = area_under(curve["shares"], curve[key])
                row[f"{key} AUC"] = area
        made.append(row)
    return made


def summarize_grid(rows):
    """Mean and interval of each column for each setting, keep and method.

    Arguments
    ---------
    rows : list of dict or lmac_sb.evaluation.rows.StoredRows
        One for each clip, setting, method and keep. All keys but texts and
        ``right`` are numbers to take the mean of; the areas under the curves
        join them.

    Returns
    -------
    dict
        (setting, keep, subset) to what `summarize` returns.
        ``warnings`` and ``errors`` are the share of the rows that have one,
        and their ``n`` is the number of rows.

    Raises
    ------
    LMACError
        If there is no row, or two are of the same clip, setting, method and
        keep.

    Example
    -------
    >>> row = {"id": "a", "setting": "clean", "method": "m", "keep": "own"}
    >>> summary = summarize_grid([{**row, "AI": 100.0, "right": 1}])
    >>> list(summary)
    [('clean', 'own', 'all'), ('clean', 'own', 'right')]
    >>> summary["clean", "own", "all"]["m"]["AI"]["mean"]
    100.0
    """
    if not rows:
        raise LMACError("results: no rows, expected at least one")
    if isinstance(rows, list):
        check_unique(rows, KEYS)
    parts = by_method(rows)
    shares, found = shares_of(parts.keeps), {}
    for setting, method in parts.names:
        part = parts.of(setting, method)
        cells = {}
        for row in [*part, *curve_rows(part, shares)]:
            cells.setdefault(row["keep"], []).append(_numbers(row))
        for keep, cell in cells.items():
            columns = _columns(cell)
            for subset, rights in SUBSETS.items():
                chosen = [row for row in cell if row.get("right") in rights]
                if chosen:
                    figures = summarize(chosen, columns=columns)
                    name = setting, keep, subset
                    found.setdefault(name, {}).update(figures)
    subsets = list(SUBSETS)
    names = sorted(found, key=lambda x: (_cell_order(x), subsets.index(x[2])))
    return {name: found[name] for name in names}


def _numbers(row):
    """A row for `summarize`: its numbers, and what it is of."""
    numbers = {k: v for k, v in row.items() if k not in TEXTS}
    _check_numbers(row["id"], numbers)
    numbers["warnings"] = float(bool(row.get("warning")))
    numbers["errors"] = float(bool(row.get("error")))
    return {**numbers, "id": row["id"], "method": row["method"]}


def _check_numbers(clip, numbers):
    """Refuse values without a mean, which would be lost silently."""
    for key, value in numbers.items():
        if not isinstance(value, (int, float)):
            expected = "a number"
        elif key == "right" and value not in (0, 1):
            expected = "0 or 1"
        else:
            continue
        raise LMACError(
            f"results: clip '{clip}': {key} is {value!r}, expected {expected}"
        )


def write_summary(folder, rows):
    """Write the summary as `summary.csv`, `summary.md` and `summary.tex`.

    The csv has all figures, one a line; the others a table for each setting
    and keep.

    Arguments
    ---------
    folder : str or Path
        An existing one.
    rows : list of dict
        See `summarize_grid`.

    Returns
    -------
    dict
        From `summarize_grid`.
    """
    folder = Path(folder)
    summary = summarize_grid(rows)
    write_csv(folder / "summary.csv", _long(summary))
    for name, text in (
        ("summary.md", _markdown(summary)),
        ("summary.tex", _latex(summary)),
    ):
        write_in_one_step(folder / name, lambda file, t=text: file.write(t))
    return summary


def _number(text):
    """The number that a text is, or None."""
    try:
        return float(text)
    except ValueError:
        return None


def _cell_order(name):
    """Order of the tables: by setting, then as published, then the shares."""
    setting, keep, *_ = name
    share = _number(keep)
    rank = 0 if keep == "own" else 1 if share is None else 2
    return natural(setting), rank, share or 0.0, str(keep)


def _columns(rows):
    """Columns of numbers in the rows, the known ones in their usual order."""
    found = {key for row in rows for key in row} - {"id", "method", "right"}
    guards = (f"{guard} {name}" for guard in GUARDS for name in METRICS)
    known = [*METRICS, "seconds", *guards]
    rest = sorted(found - set(known))
    return [name for name in known if name in found] + rest


def _long(summary):
    """A row for each figure."""
    return [
        {
            "setting": setting,
            "method": method,
            "keep": keep,
            "subset": subset,
            "metric": metric,
            **{key: figure[key] for key in ("mean", "low", "high", "n")},
        }
        for (setting, keep, subset), methods in summary.items()
        for method, metrics in methods.items()
        for metric, figure in metrics.items()
    ]


def _tables(summary):
    """Setting, keep, methods and the columns of each part of each table."""
    for (setting, keep, subset), methods in summary.items():
        if subset != "all":
            continue
        names = dict.fromkeys(n for row in methods.values() for n in row)
        own, guards = [], []
        for name in _columns([names]):
            if name not in UNSEEN:
                (own if name == unguarded(name) else guards).append(name)
        parts = [
            columns[i : i + WIDEST]
            for columns in (own, guards)
            for i in range(0, len(columns), WIDEST)
        ]
        yield setting, keep, methods, parts


def _counts(methods):
    """Numbers of clips, warnings and errors behind a table, in words."""
    clips = sorted({row["errors"]["n"] for row in methods.values()})
    text = " to ".join(str(n) for n in dict.fromkeys((clips[0], clips[-1])))
    text += " clip" if clips == [1] else " clips"
    for key in ("warnings", "errors"):
        numbers = {
            method: round(row[key]["mean"] * row[key]["n"])
            for method, row in methods.items()
        }
        found = [f"{method} {n}" for method, n in numbers.items() if n]
        text += f"; {key}: {', '.join(found) or 'none'}"
    return text


def _markdown(summary):
    """Text of `summary.md`."""
    blocks = ["# Summary", NOTE]
    for setting, keep, methods, parts in _tables(summary):
        blocks += [f"## {setting}, keep: {keep}", f"{_counts(methods)}."]
        blocks += [markdown_table(methods, part, mark=True) for part in parts]
    return "\n\n".join(blocks) + "\n"


def _latex(summary):
    """Text of `summary.tex`."""
    lines = [f"% {NOTE}", "% Needs \\usepackage{booktabs}."]
    for setting, keep, methods, parts in _tables(summary):
        caption = _escape(f"{setting}, keep: {keep}. {_counts(methods)}.")
        lines += [
            "",
            "\\begin{table*}[htbp]",
            "\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}",
            f"\\caption{{{caption}}}",
        ]
        for i, part in enumerate(parts):
            if i:
                lines += ["", "\\medskip"]
            lines += _tabular(methods, part)
        lines.append("\\end{table*}")
    return "\n".join(lines) + "\n"


def _tabular(methods, columns):
    """Lines of one part of a table."""
    head = ["method", *map(header, columns)]
    lines = [
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(map(_escape, head)) + " \\\\",
        "\\midrule",
    ]
    for method, cells in marked_cells(methods, columns).items():
        texts = [_escape(method), *map(_latex_cell, cells)]
        lines.append(" & ".join(texts) + " \\\\")
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _latex_cell(cell):
    """Text of one of the `marked_cells`."""
    if cell is None:
        return "--"
    mean, half, best = cell
    if mean == "nan":
        return mean
    # In math, where a hyphen is a minus.
    text = f"{mean} \\pm {half}"
    return f"$\\mathbf{{{text}}}$" if best else f"${text}$"


def _escape(text):
    """Text that LaTeX prints as it is."""
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "↑": "$\\uparrow$",
        "↓": "$\\downarrow$",
        "×": "$\\times$",
        **{c: f"\\{c}" for c in "&%$#_{}"},
    }
    return "".join(special.get(c, c) for c in str(text))
