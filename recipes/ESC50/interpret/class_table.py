"""Table of the explanations of multi-label decisions, by class."""

from pathlib import Path

from lmac_sb.metrics.summary import markdown_table, summarize, tellable
from lmac_sb.utils.console import Loudness, say, say_table
from lmac_sb.utils.io import write_csv, write_in_one_step

# Columns of the table; "ones" is the mask that keeps everything.
COLUMNS = (
    "right",
    "event_mass",
    "ones event_mass",
    "other_mass",
    "ones other_mass",
    "kept_event_mass",
    "kept_other_mass",
    "event_auc",
    "other_auc",
    "kept_event_auc",
    "AD",
    "FF",
    "Fid-In",
)


def tabulate(rows, method):
    """Metrics by class: does the explanation find its event and no other?

    Arguments
    ---------
    rows : list of dict
        A row for each explanation and method.
    method : str
        The method to show.

    Returns
    -------
    dict
        Each class, and all classes together, to the metrics in `COLUMNS`.
    """
    ones = {row["id"]: row for row in rows if row["method"] == "ones"}
    own = [
        {
            **row,
            **{f"ones {key}": x for key, x in ones[row["id"]].items()},
        }
        for row in rows
        if row["method"] == method
    ]
    own.sort(key=lambda row: row["decision"])
    everything = [{**row, "decision": "all classes"} for row in own]
    return summarize(own + everything, by="decision", columns=COLUMNS)


def write_classes(hparams, brain, n_clips):
    """Write the table by class, as csv and Markdown."""
    folder = Path(hparams["output_folder"])
    summary = tabulate(brain.test_rows, brain.method)
    explained = {row["id"].rsplit("-", 1)[0] for row in brain.test_rows}
    write_csv(
        folder / "classes.csv",
        [
            {"class": name, "figure": column, **values}
            for name, metrics in summary.items()
            for column, values in metrics.items()
        ],
    )
    shown = {
        f"{name} ({metrics['right']['n']})": metrics
        for name, metrics in summary.items()
    }
    found = [c for c in COLUMNS if c in summary["all classes"]]
    table = markdown_table(tellable(shown), found, by="class (explanations)")
    write_in_one_step(
        folder / "classes.md", lambda file: print(table, file=file)
    )
    say_table(table, folder / "classes.md")
    n_none = n_clips - len(explained)
    say(f"{n_none} of {n_clips} clips have no decision", Loudness.QUIET)
