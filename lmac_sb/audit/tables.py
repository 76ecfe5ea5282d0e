"""Tables of an audit, each as csv and Parquet, to go on with elsewhere."""

from lmac_sb.audit.classes import class_rows
from lmac_sb.utils.io import write_in_one_step

__all__ = ["table_rows", "write_clips", "write_table"]


def table_rows(results):
    """Rows of the short tables.

    Arguments
    ---------
    results : dict
        The content of ``audit.json``.

    Returns
    -------
    dict
        ``classes``, ``groups``, ``alarms`` and ``confusions`` to a list of
        flat dicts each.

    Example
    -------
    >>> table_rows({"classes": [], "alarms": [], "confusions": []})["groups"]
    []
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
    return {
        "classes": class_rows(results["classes"]),
        "groups": [{**dict(named), **_flat(group)} for *named, group in groups],
        "alarms": [_flat(alarm) for alarm in results["alarms"]],
        "confusions": [
            {key: pair[key] for key in ("label", "decision", "n", "text")}
            for pair in results["confusions"]
        ],
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


def write_table(stem, rows):
    r"""Write a table as csv and as Parquet.

    Arguments
    ---------
    stem : pathlib.Path
        The files, without their endings.
    rows : list of dict
        Flat; may be none.

    Example
    -------
    >>> stem = getfixture("tmp_path") / "x"
    >>> write_table(stem, [{"a": 1}])
    >>> stem.with_suffix(".csv").read_text()
    'a\n1\n'
    """
    import pandas as pd

    frame = pd.DataFrame(rows)
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
