"""Manifests that stay on disk: a million clips in a few bytes each.

A manifest is one JSON object, clip id to entry, as SpeechBrain's. Parsed at
once, each clip takes about 700 bytes of every process; here a file is read
clip by clip, and only the place of each clip is kept.
"""

import hashlib
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Manifest", "labels_of", "read_entries"]

_CHUNK = 1 << 18  # bytes read at a time
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


class Manifest(Mapping):
    """A manifest by clip id, whose entries are read when asked for.

    Costs 24 bytes of memory a clip. Can be sent to other processes; a file
    that changes meanwhile is refused.

    Arguments
    ---------
    path : str or Path
        JSON file: an object of objects.
    visit : callable
        Called with each id and entry on the one pass through the file.

    Raises
    ------
    LMACError
        If the file is missing, no such JSON, or holds an id twice.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.json"
    >>> _ = path.write_text('{"a": {"fold": 1}, "b": {"fold": 2}}')
    >>> manifest = Manifest(path)
    >>> manifest["b"], manifest.ids[0], len(manifest)
    ({'fold': 2}, 'a', 2)
    """

    def __init__(self, path, visit=None):
        self.path = Path(path)
        starts, ends, keys = array("q"), array("q"), array("Q")
        for clip_id, entry, start, end in _scan(self.path):
            starts.append(start)
            ends.append(end)
            keys.append(_number(clip_id))
            if visit is not None:
                visit(clip_id, entry)
        self._state = _state_of(os.stat(self.path))
        self._starts = np.frombuffer(starts, np.int64)
        self._lengths = (np.frombuffer(ends, np.int64) - starts).astype(
            np.uint32
        )
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
        for place in self._places(_number(clip_id)):
            found, entry = self.at(place)
            if found == clip_id:
                return entry
        raise KeyError(clip_id)

    def at(self, place):
        """Id and entry of the clip at a place in the file's order."""
        start, length = self._starts[place], self._lengths[place]
        try:
            with open(self.path, "rb") as file:
                same = _state_of(os.fstat(file.fileno())) == self._state
                file.seek(start)
                text = file.read(length)
        except OSError as error:
            raise LMACError(f"{self.path}: cannot be read ({error})") from error
        if not same:
            raise LMACError(
                f"{self.path}: was changed while it was in use; start again"
            )
        ((clip_id, entry),) = json.loads(b"{" + text + b"}").items()
        return clip_id, entry

    def _places(self, number):
        """Places of the ids with this number: as good as always one."""
        number = np.uint64(number)
        low = np.searchsorted(self._sorted, number)
        high = np.searchsorted(self._sorted, number, side="right")
        return self._order[low:high]

    def _refuse_repeated(self):
        """An id that stands twice would be counted as one clip."""
        equal = self._sorted[1:] == self._sorted[:-1]
        for number in np.unique(self._sorted[1:][equal]):
            ids = [self.ids[place] for place in self._places(number)]
            for clip_id in ids:
                if ids.count(clip_id) > 1:
                    raise LMACError(
                        f"{self.path}: clip {shown(clip_id)} stands there twice"
                    )


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


def read_entries(path):
    """Read a manifest clip by clip, without an index.

    Arguments
    ---------
    path : str or Path
        JSON file: an object of objects.

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
        If the file is missing or is no such JSON.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.json"
    >>> _ = path.write_text('{"a": {"fold": 1}, "b": 2}')
    >>> list(read_entries(path))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../train.json: clip 'b' is 2, an object is needed
    """
    for clip_id, entry, _, _ in _scan(path):
        yield clip_id, entry


def _scan(path):
    """Id, entry, and first and last byte of each clip of a manifest."""
    try:
        with open(path, "rb") as file:
            yield from _Scanner(path, file)
    except OSError as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error


class _Scanner:
    """Walks through an open manifest, a chunk in memory at a time."""

    def __init__(self, path, file):
        self.path = path
        self.file = file
        # Latin-1: a character a byte, so that places in the text are places
        # in the file. All of JSON's signs are ASCII.
        self.text = ""
        self.base = 0  # byte of the file at which the text starts
        self.place = 0  # character of the text that is next
        self.ended = False

    def __iter__(self):
        """Id, entry, and first and last byte of each clip."""
        self._whole(lambda: self._sign("{"))
        if self._whole(lambda: self._sign("}", '"')) == "}":
            yield from self._end()
            return
        self.place -= 1
        sign = ","
        while sign == ",":
            clip_id, entry, start, end, sign = self._whole(self._entry)
            if not isinstance(entry, dict):
                raise LMACError(
                    f"{self.path}: clip {shown(clip_id)} is {shown(entry)}, "
                    "an object is needed"
                )
            yield clip_id, entry, start, end
        yield from self._end()

    def _entry(self):
        """One ``"id": entry``, and the sign after it."""
        self._space()
        start = self.place
        clip_id = self._value()
        if not isinstance(clip_id, str):
            raise ValueError("an id in quotes is needed")
        self._sign(":")
        self._space()
        entry = self._value()
        end = self.place
        if not self.text[start:end].isascii():
            text = "{" + self.text[start:end] + "}"
            ((clip_id, entry),) = json.loads(text.encode("latin-1")).items()
        sign = self._sign(",", "}")
        return clip_id, entry, self.base + start, self.base + end, sign

    def _whole(self, read):
        """What `read` gives, with as much of the file as it takes."""
        while True:
            start = self.place
            try:
                return read()
            except (ValueError, RecursionError) as error:
                self.place = start
                if self.ended:
                    raise LMACError(
                        f"{self.path}: not JSON, an object of objects is "
                        f"needed; from byte {self.base + start} on: {error}"
                    ) from error
            # At least doubled, so that a long entry is not begun too often.
            chunk = self.file.read(max(_CHUNK, len(self.text)))
            self.ended = not chunk
            self.text = self.text[start:] + chunk.decode("latin-1")
            self.base += start
            self.place = 0

    def _value(self):
        """A JSON value."""
        value, self.place = _DECODER.raw_decode(self.text, self.place)
        return value

    def _space(self):
        """Pass over white space."""
        while self.text[self.place : self.place + 1] in _SPACE:
            if self.place >= len(self.text):
                raise ValueError("the file ends")
            self.place += 1

    def _sign(self, *wanted):
        """One of these signs, after white space."""
        self._space()
        sign = self.text[self.place]
        if sign not in wanted:
            raise ValueError(f"found {sign!r}, needed {' or '.join(wanted)}")
        self.place += 1
        return sign

    def _end(self):
        """Nothing but white space may follow; yields nothing."""
        rest = self.text[self.place :] + self.file.read().decode("latin-1")
        if rest.strip(_SPACE):
            raise LMACError(f"{self.path}: not JSON, more follows its end")
        return iter(())


def _number(clip_id):
    """64 bits of an id, the same in each process."""
    data = clip_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _state_of(info):
    """What changes when a file is written."""
    return info.st_size, info.st_mtime_ns, info.st_ino
