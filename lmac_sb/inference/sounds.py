"""What is to be explained: files, and the clips of whole corpora."""

import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from lmac_sb.data.corpus import Clip, Corpus, open_corpus
from lmac_sb.data.fingerprint import fingerprint
from lmac_sb.data.names import is_audio, plain_path
from lmac_sb.data.pieces import check_path
from lmac_sb.data.rows import TABLES
from lmac_sb.data.shards import SHARD
from lmac_sb.utils.errors import LMACError

__all__ = ["Sound", "Sounds"]

_OPEN = ("/dev/", "/proc/")  # pipes that the shell has made, as by <(...)


class Sound(NamedTuple):
    """A sound that is to be explained.

    Arguments
    ---------
    id : str
        Its name, which no other one has and which tells of no machine.
    place : str or lmac_sb.data.pieces.Place
        Where it is, see `lmac_sb.data.corpus.Clip`.
    name : str
        What its folder may be called.
    label : str or None
        Its class.
    columns : dict
        What the user's own columns say of it, text or None.

    Example
    -------
    >>> Sound("dog/a.wav", "/data/dog/a.wav", "dog/a", "dog", {}).label
    'dog'
    """

    id: str
    place: object
    name: str
    label: str | None = None
    columns: dict | None = None


class Sounds(Sequence):
    """Sounds that are named one by one, or as corpora, in their order.

    Arguments
    ---------
    named : list of str
        Files; and what `lmac_sb.data.corpus.open_corpus` opens: folders,
        tables, manifests and shards. What is named twice counts once. Several
        threads may ask for them.

    Raises
    ------
    LMACError
        If the only one is a corpus that cannot be opened. Of several, and of a
        file, that is found when it is read.

    Example
    -------
    >>> sounds = Sounds([str(path)])
    >>> sounds[0].id, sounds[0].name, sounds[0].label
    ('dog.wav', 'dog', None)
    >>> len(Sounds([str(path.parent)]))
    1
    """

    def __init__(self, named):
        named = list(dict.fromkeys(map(os.fsdecode, named)))
        found = [_found(name, len(named) == 1) for name in named]
        ids = iter(_ids_of([x for x in found if not isinstance(x, Corpus)]))
        self._parts = [
            x if isinstance(x, Corpus) else [Clip(next(ids), x, None, {})]
            for x in found
        ]
        self._ends = list(accumulate(map(len, self._parts)))
        self._lock = threading.Lock()  # of files that corpora have open
        self.columns = list(
            dict.fromkeys(
                column
                for part in self._parts
                for column in getattr(part, "columns", ())
            )
        )

    def __len__(self):
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        part = self._parts[number]
        with self._lock:
            clip = part[index - self._ends[number] + len(part)]
        if isinstance(part, list):
            name = Path(clip.place).stem
            return Sound(clip.id, clip.place, name, None, {})
        clip = clip._replace(place=_checked(clip.place))
        above = "" if len(self._parts) == 1 else f"{number}-{part.name}/"
        name = clip.id
        if is_audio(name):
            name = os.path.splitext(name)[0]
        return Sound(f"{above}{clip.id}", clip.place, name, *clip[2:])

    @property
    def identity(self):
        """What makes them the same sounds, wherever they lie, as plain JSON.

        Raises
        ------
        LMACError
            If a file can be read only once.
        """
        corpora = [part for part in self._parts if not isinstance(part, list)]
        files = [part[0] for part in self._parts if isinstance(part, list)]
        for clip in files:
            if isinstance(clip.place, _NotOpened):
                continue
            if os.path.exists(clip.place) and not os.path.isfile(clip.place):
                raise LMACError(
                    f"{clip.place}: is no regular file, expected one that can "
                    "be read again"
                )
        found = {f"corpus {i}": x.identity for i, x in enumerate(corpora, 1)}
        return {**found, "files": fingerprint(files)} if files else found


class _NotOpened(NamedTuple):
    """What cannot be opened, in the place of a sound that fails."""

    name: str
    error: Exception

    def __fspath__(self):
        return self.name

    __str__ = __fspath__

    def opened(self):
        """Say why not, where a sound is read, see `Sounds`."""
        raise self.error


def _found(name, alone):
    """What a name on the command line is of: a corpus, or where a sound is."""
    if not _is_corpus(name):
        # Of several, a pattern of the shell may have found it.
        is_meant = alone or name.startswith(_OPEN)
        return name if is_meant else _checked(name)
    try:
        return open_corpus(name)
    except (LMACError, PermissionError) as error:
        if alone:
            raise
        return _NotOpened(name, error)


def _checked(place):
    """Where a clip of a corpus is; nobody meant a pipe that lies there.

    One that is named alone is read: somebody writes to it.
    """
    if isinstance(place, str):
        try:
            check_path(place)
        except LMACError as error:
            return _NotOpened(place, error)
    return place


def _is_corpus(name):
    """Whether a name on the command line is of more than a sound."""
    lower = name.lower()
    return (
        os.path.isdir(name)
        or lower.endswith(SHARD)
        or (lower.endswith(TABLES) and not is_audio(name))
        or ("{" in name and not os.path.exists(name) and not is_audio(name))
    )


def _ids_of(files):
    """Paths of files below the folder that has all of them, none twice."""
    if not files:
        return []
    paths = [os.path.abspath(file) for file in files]
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    found, times = [], {}
    for path in paths:
        name = plain_path(os.path.relpath(path, above).replace(os.sep, "/"))
        times[name] = times.get(name, 0) + 1
        found.append(name if times[name] == 1 else f"{name}#{times[name]}")
    return found
