"""Where a sound is, if it is no file of its own."""

import contextlib
import functools
import io
import os
import threading
from typing import NamedTuple

import numpy as np
import soundfile as sf

from lmac_sb.data.columnar import read_batches
from lmac_sb.data.pieces import Place
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line

__all__ = ["Cell", "Lost", "place_of", "to_entry"]

_KINDS = {"i2": "PCM_16", "i4": "PCM_32", "f4": "FLOAT", "f8": "FLOAT"}


class Lost(NamedTuple):
    """A sound that cannot be found, so that it is missed where it is read.

    Arguments
    ---------
    name : str
        What messages call it.
    reason : str
        What is wrong.

    Example
    -------
    >>> with Lost("a.tar/dog.wav", "is a link").opened():
    ...     pass
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: a.tar/dog.wav: is a link
    """

    name: str
    reason: str

    def __str__(self):
        return self.name

    __fspath__ = __str__

    def opened(self):
        """Say what is wrong."""
        raise LMACError(f"{self.name}: {self.reason}")


class Cell(NamedTuple):
    """A sound in a row of a Parquet or Arrow file.

    Rows that are read in their order cost one pass through the file; any
    other row costs a pass through its group up to there.

    Arguments
    ---------
    file : str
        The file.
    group, row : int
        Of the row: its group or batch, and its place in that.
    column : str
        Name of the column with sounds.
    name : str
        What messages call it, behind the name of the file.
    folder : str
        Where a file has to be that the row names instead of its content.

    Example
    -------
    >>> import pyarrow, pyarrow.parquet
    >>> path = getfixture("tmp_path") / "a.parquet"
    >>> rows = pyarrow.table({"bytes": [b"RIFF", b"fLaC"]})
    >>> pyarrow.parquet.write_table(rows, path)
    >>> with Cell(str(path), 0, 1, "bytes", "1", "").opened() as file:
    ...     file.read()
    b'fLaC'
    """

    file: str
    group: int
    row: int
    column: str
    name: str
    folder: str

    def __str__(self):
        return f"{self.file}/{self.name}"

    __fspath__ = __str__

    @contextlib.contextmanager
    def opened(self):
        """Its bytes as a file."""
        try:
            state = os.stat(self.file).st_mtime_ns
            # Each thread reads on where it is.
            me = threading.get_ident()
            value = _reader(self.file, state, self.group, self.column, me).read(
                self.row
            )
            content = _bytes_of(value)
        except Exception as error:
            # pyarrow fails on damage in many ways.
            raise LMACError(
                f"{self}: cannot be read ({first_line(error)})"
            ) from error
        if content is not None:
            yield io.BytesIO(content)
            return
        with open(self._beside(value.as_py()), "rb") as file:
            yield file

    def _beside(self, value):
        """The file that the row names, if it is in the folder."""
        path = value.get("path") if isinstance(value, dict) else value
        if not path:
            raise LMACError(f"{self}: holds no sound")
        folder = os.path.realpath(self.folder)
        for base in (os.path.dirname(self.file), folder):
            found = os.path.realpath(os.path.join(base, path))
            if os.path.commonpath([folder, found]) != folder:
                raise LMACError(
                    f"{self}: names the file {shown(path)}, outside the data "
                    "set"
                )
            if os.path.isfile(found):
                return found
        raise LMACError(f"{self}: has no bytes, and no file {shown(path)}")


class _Reader:
    """Reads the rows of one group of a file, best one after the other."""

    def __init__(self, file, group, column):
        self._batches = functools.partial(read_batches, file, group, [column])
        self._open, self._first, self._batch = None, 0, None

    def read(self, row):
        """The value in a row."""
        if self._open is None or row < self._first:
            self._open, self._first, self._batch = self._batches(), 0, None
        batch = self._batch
        while batch is None or row >= self._first + len(batch):
            self._first += 0 if batch is None else len(batch)
            rows, self._open = self._open, None  # after an error, anew
            batch = self._batch = next(rows, None)
            if batch is None:
                raise LMACError(f"has no row {row}")
            self._open = rows
        return batch.column(0)[row - self._first]


@functools.lru_cache(maxsize=8)
def _reader(file, state, group, column, thread):
    """The reader of a group; `state` is another when the file was written."""
    return _Reader(file, group, column)


def _bytes_of(value):
    """What is in a cell, as the content of a file; None for nothing."""
    import pyarrow

    if not value.is_valid:
        return None
    if not pyarrow.types.is_struct(value.type):
        value = value.as_py()
        return None if isinstance(value, str) else value
    names = [field.name for field in value.type]
    if "array" in names and value["array"].is_valid:
        return _as_wave(value["array"], value["sampling_rate"].as_py())
    return value["bytes"].as_py() if "bytes" in names else None


def _as_wave(array, rate):
    """Samples as the content of a wave file."""
    samples = array.values.to_numpy(zero_copy_only=False)
    if samples.dtype == object:  # of several channels
        samples = np.asarray(array.as_py())
        samples = samples if len(samples) > samples.shape[1] else samples.T
    kind = _KINDS.get(samples.dtype.kind + str(samples.dtype.itemsize))
    if kind is None or not rate:
        raise OSError(f"samples of {samples.dtype} at {rate} Hz are no sound")
    file = io.BytesIO()
    sf.write(file, samples, int(rate), kind, format="WAV")
    return file.getvalue()


def to_entry(place):
    """A place as a manifest has it.

    Arguments
    ---------
    place : str, Path, Place, Cell or Lost
        Where a sound is.

    Returns
    -------
    str or dict
        For `place_of`.

    Example
    -------
    >>> place_of(to_entry(Place("a.tar", 512, 44, "dog.wav")))
    Place(file='a.tar', offset=512, size=44, name='dog.wav')
    """
    if isinstance(place, (Place, Cell)):
        return place._asdict()
    return str(place)


def place_of(entry):
    """Where a sound is that a manifest lists.

    Arguments
    ---------
    entry : str or dict
        Of the manifest.

    Returns
    -------
    str, Place or Cell

    Raises
    ------
    LMACError
        If it is something else.

    Example
    -------
    >>> place_of("a.wav")
    'a.wav'
    """
    if isinstance(entry, str):
        return entry
    for kind in (Place, Cell):
        if isinstance(entry, dict) and set(entry) == set(kind._fields):
            return kind(**entry)
    raise LMACError(
        f"wav: found {shown(entry)}, expected a path, or a dict with "
        f"{', '.join(Place._fields)}, or {', '.join(Cell._fields)}"
    )
