"""What an evaluation leaves in its folder: rows, tables and figures."""

from lmac_sb.evaluation.comparison import OWN
from lmac_sb.evaluation.plots import draw_curves, draw_passes, draw_snr
from lmac_sb.evaluation.tables import write_summary
from lmac_sb.methods.registry import passes
from lmac_sb.metrics.registry import shown_in
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.console import Loudness, say, say_table
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_csv, write_json

__all__ = ["complete_rows", "report_failures", "write_results"]


def write_results(output_folder, rows, seconds, methods, origin):
    """Write the rows of an evaluation, its tables and its figures.

    Arguments
    ---------
    output_folder : Path
        Where they go.
    rows, seconds : list of dict
        From `lmac_sb.evaluation.runner.Grid.run`.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    origin : dict
        Where the rows came from, kept as ``provenance.json``.

    Returns
    -------
    pathlib.Path
        The summary as Markdown.

    Raises
    ------
    LMACError
        If a row failed; the others are written by then.
    """
    write_csv(output_folder / "results.csv", complete_rows(rows))
    write_csv(output_folder / "seconds.csv", seconds)
    write_json(output_folder / "provenance.json", origin)
    write_summary(output_folder, rows)
    draw_curves(output_folder / "curves", rows)
    draw_snr(output_folder / "snr", rows)
    for setting, lines in _steps(rows, methods).items():
        # One point is no line.
        lines = {name: x for name, x in lines.items() if len(x) > 1}
        if lines:
            stem = output_folder / f"steps {setting}".replace(" ", "_")
            draw_passes(stem, lines, shown_in("passes"))
    summary = output_folder / "summary.md"
    say_table(summary.read_text(encoding="utf-8"), summary)
    say(f"all rows, tables and figures: {output_folder}", Loudness.QUIET)
    report_failures(rows, output_folder)
    return summary


def report_failures(rows, folder):
    """Print the rows that failed, and fail if there are any.

    Arguments
    ---------
    rows : list of dict
        From `lmac_sb.evaluation.comparison.Comparison`.
    folder : str or Path
        Where they have been written, for the message.

    Raises
    ------
    LMACError
        If a row failed.

    Example
    -------
    >>> row = {"setting": "clean", "method": "m", "id": "a", "error": "no"}
    >>> report_failures([row], "results")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: 1 of 1 rows failed, see results
    """
    failed = [row for row in rows if row.get("error")]
    for row in failed:
        print(f"{row['setting']}, {row['method']}, {row['id']}: {row['error']}")
    if failed:
        raise LMACError(
            f"{len(failed)} of {len(rows)} rows failed, see {folder}"
        )


def complete_rows(rows):
    """Rows that all have the same columns.

    Arguments
    ---------
    rows : list of dict
        Any.

    Returns
    -------
    list of dict
        With all columns, those of the first row first, ``warning`` and
        ``error`` last; empty where a row has none.

    Example
    -------
    >>> complete_rows([{"id": "a", "AI": 1.0}, {"id": "b"}])[1]
    {'id': 'b', 'AI': '', 'warning': '', 'error': ''}
    """
    last = ["warning", "error"]
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name not in last] + last
    return [{name: row.get(name, "") for name in names} for row in rows]


def _steps(rows, methods):
    """Setting to method to (passes, figures), where a method took steps."""
    lines = {}
    for name, method in methods.items():
        if passes(method) is None:
            continue
        line = name.split("+")[0]
        for setting in dict.fromkeys(row["setting"] for row in rows):
            chosen = [
                row
                for row in rows
                if (row["setting"], row["method"], row["keep"])
                == (setting, name, OWN)
                and "error" not in row
            ]
            if chosen:
                figures = summarize(chosen, columns=shown_in("passes"))[name]
                points = lines.setdefault(setting, {}).setdefault(line, [])
                points.append((passes(method), figures))
    return lines
