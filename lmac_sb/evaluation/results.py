"""What an evaluation leaves in its folder: rows, tables and figures."""

from lmac_sb.evaluation.comparison import OWN
from lmac_sb.evaluation.plots import draw_curves, draw_passes, draw_snr
from lmac_sb.evaluation.rows import by_method
from lmac_sb.evaluation.tables import write_summary
from lmac_sb.methods.registry import passes
from lmac_sb.metrics.registry import shown_in
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.console import Loudness, say, say_table
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_csv, write_json

__all__ = ["report_failures", "write_results", "write_rows"]


def write_results(output_folder, rows, seconds, methods, origin):
    """Write the rows of an evaluation, its tables and its figures.

    Arguments
    ---------
    output_folder : Path
        Where they go.
    rows : lmac_sb.evaluation.rows.StoredRows
        From `lmac_sb.evaluation.runner.Grid.run`.
    seconds : list of dict
        From the same.
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
    write_rows(output_folder / "results.csv", rows)
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
    rows : iterable of dict
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
    n_failed = 0
    for row in rows:
        if row.get("error"):
            n_failed += 1
            where = f"{row['setting']}, {row['method']}, {row['id']}"
            print(f"{where}: {row['error']}")
    if n_failed:
        raise LMACError(f"{n_failed} of {len(rows)} rows failed, see {folder}")


def write_rows(path, rows):
    """Write rows to a csv file, all with the same columns.

    Arguments
    ---------
    path : str or Path
        The file. Its columns are all that a row has, those of the first row
        first, ``warning`` and ``error`` last; empty where a row has none.
    rows : iterable of dict
        Any; read twice.

    Example
    -------
    >>> path = getfixture("tmp_path") / "results.csv"
    >>> write_rows(path, [{"id": "a", "AI": 1.0}, {"id": "b"}])
    >>> print(path.read_text(), end="")
    id,AI,warning,error
    a,1.0,,
    b,,,
    """
    last = ["warning", "error"]
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name not in last] + last
    complete = ({name: row.get(name, "") for name in names} for row in rows)
    write_csv(path, complete, names)


def _steps(rows, methods):
    """Setting to method to (passes, figures), where a method took steps."""
    lines, parts = {}, by_method(rows)
    settings = dict.fromkeys(setting for setting, _ in parts.names)
    for name, method in methods.items():
        if passes(method) is None:
            continue
        line = name.split("+")[0]
        for setting in settings:
            chosen = [
                row
                for row in parts.of(setting, name)
                if row["keep"] == OWN and "error" not in row
            ]
            if chosen:
                figures = summarize(chosen, columns=shown_in("passes"))[name]
                points = lines.setdefault(setting, {}).setdefault(line, [])
                points.append((passes(method), figures))
    return lines
