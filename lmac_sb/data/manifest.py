"""Manifests that stay on disk: a million clips in a few bytes each.

A manifest is a file of JSON Lines: one object a line, with the clip's `id`
and whatever else there is to say of it. Parsed at once, each clip would take
about 700 bytes of every process; here a file is read line by line, and only
the place of each line is kept.
"""

import json
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmac_sb.data.pieces import open_file
from lmac_sb.data.texts import hash64
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Manifest", "file_state", "labels_of", "read_entries", "to_lines"]

_NEEDED = "a manifest has one JSON object a line, with the clip's 'id'"


class Manifest(Mapping):
    """A manifest by clip id, whose entries are read when asked for.

    Costs 20 bytes of memory a clip. Can be sent to other processes; a file
    that changes meanwhile is refused.

    Arguments
    ---------
    path : str or Path
        File of JSON Lines.
    visit : callable
        Called with each id and entry on the one pass through the file.

    Raises
    ------
    LMACError
        If the file is missing, a line is no such object, or an id is there
        twice.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.jsonl"
    >>> _ = path.write_text(to_lines({"a": {"fold": 1}, "b": {"fold": 2}}))
    >>> manifest = Manifest(path)
    >>> manifest["b"], manifest.ids[0], len(manifest)
    ({'fold': 2}, 'a', 2)
    """

    def __init__(self, path, visit=None):
        self.path = Path(path)
        starts, keys = array("q"), array("Q")
        start = 0
        with _open(self.path) as file:
            self._state = file_state(file)
            for number, line in enumerate(file, 1):
                clip_id, entry = _parse(self.path, number, line)
                starts.append(start)
                start += len(line)
                keys.append(hash64(clip_id))
                if visit is not None:
                    visit(clip_id, entry)
        self._starts = np.frombuffer(starts, np.int64)
        numbers = np.frombuffer(keys, np.uint64)
        self._order = numbers.argsort(kind="stable").astype(np.uint32)
        self._sorted = numbers[self._order]
        self.ids = _Ids(self)
        self._refuse_repeated()

    def __len__(self):
        return len(self._starts)

    def __iter__(self):
        return iter(self.ids)

    def __getitem__(self, clip_id):
        for place in self._places(hash64(clip_id)):
            found, entry = self.at(place)
            if found == clip_id:
                return entry
        raise KeyError(clip_id)

    def at(self, place):
        """Id and entry of the clip at a place in the file's order."""
        with _open(self.path) as file:
            if file_state(file) != self._state:
                raise LMACError(
                    f"{self.path}: was changed while it was in use; start again"
                )
            file.seek(self._starts[place])
            return _parse(self.path, place + 1, file.readline())

    def _places(self, number):
        """Places of the ids with this number: nearly always one."""
        number = np.uint64(number)
        low = np.searchsorted(self._sorted, number)
        high = np.searchsorted(self._sorted, number, side="right")
        return self._order[low:high]

    def _refuse_repeated(self):
        """A repeated id would be counted as one clip."""
        equal = self._sorted[1:] == self._sorted[:-1]
        for number in np.unique(self._sorted[1:][equal]):
            lines = {}
            for place in self._places(number):
                clip_id, line = self.ids[place], place + 1
                if clip_id in lines:
                    raise LMACError(
                        f"{self.path}: clip {shown(clip_id)} appears "
                        f"twice, in lines {lines[clip_id]} and {line}"
                    )
                lines[clip_id] = line


class _Ids(Sequence):
    """Ids of a manifest in the file's order."""

    def __init__(self, manifest):
        self.manifest = manifest

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        return self.manifest.at(place)[0]


def labels_of(class_string):
    """Classes of a clip that may have several.

    Arguments
    ---------
    class_string : str
        Of a manifest's entry: a class, or several joined by a plus.

    Returns
    -------
    list of str

    Example
    -------
    >>> labels_of("trill+bounce")
    ['trill', 'bounce']
    """
    return class_string.split("+")


def to_lines(entries):
    r"""What a manifest of these clips has in its file.

    Arguments
    ---------
    entries : dict
        Clip id to a dict of what there is to say of it.

    Returns
    -------
    str

    Example
    -------
    >>> to_lines({"a": {"fold": 1}})
    '{"id": "a", "fold": 1}\n'
    """
    return "".join(
        json.dumps({"id": clip_id, **entry}) + "\n"
        for clip_id, entry in entries.items()
    )


def read_entries(path):
    r"""Read a manifest clip by clip, without an index.

    Arguments
    ---------
    path : str or Path
        File of JSON Lines.

    Yields
    ------
    clip_id : str
        Name of the clip.
    entry : dict
        What the manifest says about it.

    Returns
    -------
    generator

    Raises
    ------
    LMACError
        If the file is missing or a line is no such object.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.jsonl"
    >>> _ = path.write_text('{"id": "a", "fold": 1}\n{"fold": 2}\n')
    >>> list(read_entries(path))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../train.jsonl: line 2: found {'fold': 2}; a ...
    """
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            yield _parse(path, number, line)


def _open(path):
    """The open file, or an error that names it."""
    try:
        return open_file(path)
    except OSError as error:
        old = Path(path).with_suffix(".json")
        hint = ""
        if old.is_file():
            hint = f"; {old.name} there is of an older release, now {_NEEDED}"
        raise LMACError(f"{path}: cannot be read ({error}){hint}") from error


def _parse(path, number, line):
    """Id and entry of a line; its number is for the message."""
    try:
        entry = json.loads(str(line, "utf-8"))
    except (ValueError, RecursionError) as error:
        # Without its place, which names a line as well.
        problem = f"not JSON ({getattr(error, 'msg', error)})"
    else:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            return entry.pop("id"), entry
        problem = f"found {shown(entry)}"
    raise LMACError(f"{path}: line {number}: {problem}; {_NEEDED}")


def file_state(file):
    """What is another when a file was written.

    Arguments
    ---------
    file : file object
        Open file.

    Returns
    -------
    tuple of int
        Size, time and number.
    """
    info = os.fstat(file.fileno())
    return info.st_size, info.st_mtime_ns, info.st_ino
