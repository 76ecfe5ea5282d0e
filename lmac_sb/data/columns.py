"""What the columns of a table of clips are, by their usual names."""

import re

from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "FILE",
    "LABEL",
    "SPLIT",
    "check_column",
    "find_column",
    "find_segment",
    "label_of",
    "listed",
    "place_among",
]

_MOST = 10  # columns that a message lists
# As data sets write them, the surest first; without case and signs.
FILE = (
    *("file", "filename", "filepath", "path", "audio", "audiofile"),
    *("audiopath", "audiofilepath", "audiofilename", "wav", "wavfile"),
    *("wavpath", "clip", "clipname", "clippath", "sound", "soundfile"),
    *("recording", "slicefilename", "fname", "itemname", "name"),
    *("id", "clipid", "uttid", "key", "bytes"),
)
LABEL = (
    *("label", "labels", "class", "classname", "classstring", "category"),
    *("categories", "classlabel", "labelname", "eventlabel", "eventlabels"),
    *("species", "primarylabel", "tag", "tags", "word", "command", "genre"),
    *("emotion", "digit", "target", "y", "classid", "labelid", "cls"),
)
SPLIT = (
    *("fold", "folds", "foldid", "split", "splits", "datasplit"),
    *("subset", "partition", "set"),
)

# Where a segment of a recording begins and ends, if a row is of one.
_STARTS = (
    *("start", "starttime", "startsec", "startseconds", "starts", "startms"),
    *("begin", "begintime", "begintimes", "beginsec", "beginseconds"),
    *("segmentstart", "tstart", "tmin", "xmin"),
)
_ENDS = (
    *("end", "endtime", "endsec", "endseconds", "ends", "endms", "endtimes"),
    *("stop", "stoptime", "stopsec", "stopseconds", "duration", "length"),
    *("segmentend", "tend", "tmax", "xmax"),
)


def find_segment(columns, is_repeated):
    """The columns that seem to say which part of a file a row is of.

    Arguments
    ---------
    columns : iterable of str
        Of the table.
    is_repeated : bool
        Whether files have several rows; else an onset and an offset are those
        of the event in a file.

    Returns
    -------
    tuple of str or None

    Example
    -------
    >>> find_segment(["file", "Start (s)", "End (s)"], False)
    ('Start (s)', 'End (s)')
    >>> find_segment(["file", "onset", "offset"], False)
    """
    starts, ends = _STARTS, _ENDS
    if is_repeated:
        starts, ends = (*starts, "onset"), (*ends, "offset")
    found = find_column(columns, starts), find_column(columns, ends)
    return found if None not in found else None


def find_column(columns, names):
    """The first of some names that a table has.

    Arguments
    ---------
    columns : iterable of str
        Of the table.
    names : tuple of str
        `FILE` or `LABEL`.

    Returns
    -------
    str or None

    Example
    -------
    >>> find_column(["File_Name", "target", "category"], LABEL)
    'category'
    """
    found = {}
    for column in columns:
        found.setdefault(_without_signs(column), column)
    return next((found[name] for name in names if name in found), None)


def place_among(column, names):
    """Where among some names that of a column is.

    Arguments
    ---------
    column : str
        Of a table.
    names : tuple of str
        `FILE`, `LABEL` or `SPLIT`.

    Returns
    -------
    int or None
        None if it is none of them.

    Example
    -------
    >>> place_among("File_Name", FILE), place_among("site", FILE)
    (1, None)
    """
    name = _without_signs(column)
    return names.index(name) if name in names else None


def _without_signs(column):
    """A column's name in the form of the usual names."""
    return re.sub(r"[\W_]+", "", column.casefold())


def check_column(column, columns, place):
    """Refuse a column that a table does not have.

    Arguments
    ---------
    column : str or None
        The one asked for; None is none.
    columns : sequence of str
        Those that there are.
    place : str or Path
        Of the table, for the message.

    Raises
    ------
    LMACError
        If it is none of them.

    Example
    -------
    >>> check_column("site", ["file", "label"], "x.csv")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.csv: has no column 'site', found file, label
    """
    if column is not None and column not in columns:
        raise LMACError(
            f"{place}: has no column {shown(column)}, found {listed(columns)}"
        )


def listed(columns):
    """Names of columns in one short line.

    Arguments
    ---------
    columns : sequence of str
        Any number.

    Returns
    -------
    str

    Example
    -------
    >>> listed([]), listed(["a", "b"]), listed(list("abcdefghijkl"))
    ('none', 'a, b', 'a, b, c, d, e, f, g, h, i, j and 2 more')
    >>> listed(["dog, cat", "cow"])  # two names
    "'dog, cat', cow"
    """
    quoted = [f"'{x}'" if "," in x else x for x in columns[:_MOST]]
    names = ", ".join(quoted)
    rest = len(columns) - _MOST
    return (names or "none") + (f" and {rest} more" if rest > 0 else "")


def label_of(value):
    """A label as text; several joined by a plus, as manifests have them.

    Arguments
    ---------
    value : object
        As a table has it.

    Returns
    -------
    str or None
        None for a missing one.

    Example
    -------
    >>> label_of(["dog", "cat"]), label_of(3), label_of(" "), label_of(None)
    ('dog+cat', '3', None, None)
    """
    if isinstance(value, (list, tuple)):
        labels = [label for label in map(label_of, value) if label]
        return "+".join(labels) or None
    if value is None or value != value:  # the latter is NaN
        return None
    return str(value).strip() or None
