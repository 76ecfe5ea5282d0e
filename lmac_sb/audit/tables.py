"""Tables of an audit, each as csv and Parquet, to go on with elsewhere."""

from lmac_sb.audit.alarm import Alarm
from lmac_sb.audit.classes import class_rows
from lmac_sb.utils.io import write_in_one_step

__all__ = ["table_rows", "write_clips", "write_table"]

_PAIR = ("label", "decision", "n", "text")  # of classes that are confused
_GROUP = ("name", "n", "share", "share low", "share high", "text", "examples")


def table_rows(results):
    """Columns and rows of the short tables.

    Arguments
    ---------
    results : dict
        The content of ``audit.json``.

    Returns
    -------
    dict
        ``classes``, ``groups``, ``alarms`` and ``confusions`` to a list of
        columns and a list of flat dicts each. There may be no alarm, and no
        class that is taken for another.

    Example
    -------
    >>> none = {"classes": [], "alarms": [], "confusions": []}
    >>> table_rows(none)["confusions"]
    (['label', 'decision', 'n', 'text'], [])
    """
    groups = [
        (("class", found["name"]), ("label", None), group)
        for found in results["classes"]
        for group in found["groups"]
    ] + [
        (("class", pair["decision"]), ("label", pair["label"]), group)
        for pair in results["confusions"]
        for group in pair["groups"]
    ]
    classes = class_rows(results["classes"])
    alarm = Alarm._make([None] * len(Alarm._fields))
    return {
        "classes": ([*classes[0]] if classes else ["class"], classes),
        "groups": (
            ["class", "label", *_GROUP],
            [{**dict(named), **_flat(group)} for *named, group in groups],
        ),
        "alarms": (
            [*_flat(alarm.as_json())],
            [_flat(found) for found in results["alarms"]],
        ),
        "confusions": (
            [*_PAIR],
            [
                {key: pair[key] for key in _PAIR}
                for pair in results["confusions"]
            ],
        ),
    }


def _flat(found):
    """Lists as columns: intervals, ranges, and names of examples."""
    parts = {
        "effect": ("effect", "effect low", "effect high"),
        "share": ("share", "share low", "share high"),
        "band_hz": ("from_hz", "to_hz"),
        "time": ("from_time", "to_time"),
    }
    row = {}
    for key, value in found.items():
        if key in parts:
            names = parts[key]
            row |= dict(zip(names, value or [None] * len(names)))
        else:
            row[key] = " ".join(value) if isinstance(value, list) else value
    return row


def write_table(stem, columns, rows):
    r"""Write a table as csv and as Parquet.

    Arguments
    ---------
    stem : pathlib.Path
        The files, without their endings.
    columns : list of str
        Of the table.
    rows : list of dict
        Flat, with these keys; may be none.

    Example
    -------
    >>> stem = getfixture("tmp_path") / "x"
    >>> write_table(stem, ["a"], [{"a": 1}])
    >>> stem.with_suffix(".csv").read_text()
    'a\n1\n'
    """
    import pandas as pd

    frame = pd.DataFrame(rows, columns=columns)
    write_in_one_step(
        f"{stem}.csv",
        lambda file: frame.to_csv(file, index=False, lineterminator="\n"),
    )
    write_in_one_step(
        f"{stem}.parquet",
        lambda file: frame.to_parquet(file, index=False),
        binary=True,
    )


def write_clips(job, folder):
    """Write the rows of all clips as one csv and one Parquet file.

    Arguments
    ---------
    job : lmac_sb.jobs.job.Job
        Of the rows; one chunk is in memory at a time.
    folder : pathlib.Path
        Where the files go.

    Example
    -------
    >>> from lmac_sb.jobs.job import Chunk, Job
    >>> job = Job(getfixture("tmp_path"), 1, {})
    >>> job.run(lambda items: Chunk([{"id": "a"}]))
    >>> write_clips(job, job.folder)
    >>> (job.folder / "clips.csv").read_text().split()
    ['"id"', '"a"']
    """
    from pyarrow import csv, parquet

    def write(file, writer):
        """Write chunk by chunk."""
        tables = job.tables()
        first = next(tables)
        with writer(file, first.schema) as out:
            out.write_table(first)
            for table in tables:
                out.write_table(table)

    kinds = {"csv": csv.CSVWriter, "parquet": parquet.ParquetWriter}
    for ending, writer in kinds.items():
        write_in_one_step(
            folder / f"clips.{ending}",
            lambda file, writer=writer: write(file, writer),
            binary=True,
        )
