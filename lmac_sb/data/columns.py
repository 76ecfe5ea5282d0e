"""What the columns of a table of clips are, by their usual names."""

import re

__all__ = ["FILE", "LABEL", "find_column", "label_of"]

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
        found.setdefault(re.sub(r"[\W_]+", "", column.casefold()), column)
    return next((found[name] for name in names if name in found), None)


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
    return None if value is None else str(value).strip() or None
