"""Rows of an evaluation, by setting and method.

All figures are of one method in one setting, so that is what has to fit into
memory, however many there are.
"""

import re
from statistics import fmean

from lmac_sb.jobs.rows import read_rows

__all__ = [
    "ListedRows",
    "StoredRows",
    "by_method",
    "in_order",
    "means_of",
    "natural",
    "of_one_length",
]


def in_order(lengths):
    """Places of clips, those of one length side by side.

    So few chunks hold clips of several lengths, which share no batch.

    Arguments
    ---------
    lengths : list of int
        Of each clip, in samples.

    Returns
    -------
    list of int

    Example
    -------
    >>> in_order([9, 5, 9])
    [1, 0, 2]
    """
    return sorted(range(len(lengths)), key=lengths.__getitem__)


def of_one_length(places, dataset):
    """Clips of a chunk as batches.

    Arguments
    ---------
    places : list of int
        Of clips.
    dataset : object
        Knows the length of each, ``n_samples``.

    Returns
    -------
    list of list of int
    """
    found = {}
    for place in places:
        found.setdefault(dataset.n_samples[place], []).append(place)
    return list(found.values())


class ListedRows:
    """Rows in memory.

    Arguments
    ---------
    rows : list of dict
        With ``setting``, ``method`` and ``keep``.

    Example
    -------
    >>> rows = [{"setting": "clean", "method": m, "keep": "own"} for m in "ba"]
    >>> listed = ListedRows(rows)
    >>> listed.names, len(listed.of("clean", "a"))
    ([('clean', 'a'), ('clean', 'b')], 1)
    """

    def __init__(self, rows):
        self._rows = {}
        for row in rows:
            name = row["setting"], row["method"]
            self._rows.setdefault(name, []).append(row)
        self.names = sorted(self._rows, key=_order)
        self.keeps = sorted({row["keep"] for row in rows})

    def of(self, setting, method):
        """Rows of a method in a setting."""
        return self._rows.get((setting, method), [])


class StoredRows:
    """Rows that a `lmac_sb.evaluation.runner.Grid` has left in its folder.

    Iterating gives all of them, sorted by setting, method, keep and clip.

    Arguments
    ---------
    job : lmac_sb.jobs.job.Job
        What has been done; its items are the clips in each setting.
    settings, methods, keeps : list of str
        Their names, in the order of the rows.

    Example
    -------
    >>> from lmac_sb.jobs.job import Chunk, Job
    >>> job = Job(getfixture("tmp_path") / "rows", 1, {})
    >>> row = {"id": "a", "setting": "clean", "method": "m", "keep": "own"}
    >>> job.run(lambda items: Chunk([row]))
    >>> stored = StoredRows(job, ["clean"], ["m"], ["own"])
    >>> list(stored) == stored.of("clean", "m") == [row], len(stored)
    (True, 1)
    """

    def __init__(self, job, settings, methods, keeps):
        self.job, self.keeps = job, keeps
        self._names = [(s, m) for s in settings for m in methods]
        self._first = {s: i for i, s in enumerate(settings)}
        self._clips = job.n_items // len(settings)
        self.names = sorted(self._names, key=_order)

    def __iter__(self):
        for name in self._names:
            yield from self.of(*name)

    def __len__(self):
        files = map(self.job.rows_file, range(self.job.n_chunks))
        return sum(read_rows(file, ["id"]).num_rows for file in files)

    def of(self, setting, method):
        """Rows of a method in a setting, sorted by keep and clip."""
        rows = []
        for index in self._chunks(setting):
            table = read_rows(self.job.rows_file(index))
            if not table.num_rows:  # nor columns
                continue
            wanted = [
                name == (setting, method)
                for name in zip(
                    table["setting"].to_pylist(), table["method"].to_pylist()
                )
            ]
            rows += [
                {key: x for key, x in row.items() if x is not None}
                for row in table.filter(wanted).to_pylist()
            ]
        place = {keep: i for i, keep in enumerate(self.keeps)}
        return sorted(rows, key=lambda row: (place[row["keep"]], row["id"]))

    def _chunks(self, setting):
        """Numbers of the chunks with clips in a setting."""
        first = self._first[setting] * self._clips
        last = first + self._clips - 1
        return range(first // self.job.chunk, last // self.job.chunk + 1)


def by_method(rows):
    """Rows by setting and method, wherever they are.

    Arguments
    ---------
    rows : list of dict, ListedRows or StoredRows
        Any.

    Returns
    -------
    ListedRows or StoredRows

    Example
    -------
    >>> by_method([]).names
    []
    """
    return rows if hasattr(rows, "of") else ListedRows(rows)


def means_of(rows, keys, columns):
    """One row for all that have the same keys, with the mean of each column.

    Rows of one clip are no more than one clip to an interval over clips.

    Arguments
    ---------
    rows : list of dict
        Any; a column is left out where no row has it.
    keys : list of str
        What they have in common.
    columns : list of str
        Whose mean is taken.

    Returns
    -------
    list of dict
        In the order in which the keys are first met.

    Example
    -------
    >>> rows = [{"id": "a", "AI": 0.0}, {"id": "a", "AI": 100.0}]
    >>> means_of(rows, ["id"], ["AI"])
    [{'id': 'a', 'AI': 50.0}]
    """
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    columns = [name for name in columns if any(name in row for row in rows)]
    return [
        dict(zip(keys, group))
        | {name: fmean(row[name] for row in part) for name in columns}
        for group, part in groups.items()
    ]


def natural(text):
    """Sorting key by which "lmac+5" comes before "lmac+20".

    Arguments
    ---------
    text : str
        A name.

    Returns
    -------
    tuple

    Example
    -------
    >>> sorted(["lmac+20", "lmac+5", "lmac"], key=natural)
    ['lmac', 'lmac+5', 'lmac+20']
    """
    parts = re.split(r"(-?\d+(?:\.\d+)?)", str(text))
    key = [
        (float(p), "") if i % 2 else (float("inf"), p)
        for i, p in enumerate(parts)
    ]
    # The text last: no two names have the same place.
    return key, str(text)


def _order(name):
    """Sorting key of a setting and method."""
    return [natural(text) for text in name]
