"""Where a sound is, if it is no file of its own."""

import contextlib
import functools
import io
import os
from typing import NamedTuple

import numpy as np
import soundfile as sf

from lmac_sb.data.pieces import Place
from lmac_sb.utils.errors import LMACError

__all__ = ["Cell", "Lost", "arrow", "place_of", "read_arrow", "to_entry"]

_ROWS = 16  # that are read at a time
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
    """

    file: str
    group: int
    row: int
    column: str
    name: str

    def __str__(self):
        return f"{self.file}/{self.name}"

    __fspath__ = __str__

    @contextlib.contextmanager
    def opened(self):
        """Its bytes as a file."""
        try:
            state = os.stat(self.file).st_mtime_ns
            reader = _reader(self.file, state, self.group, self.column)
            value = reader.read(self.row)
            content = _bytes_of(value)
        except OSError as error:  # pyarrow's own, too
            raise LMACError(f"{self}: cannot be read ({error})") from error
        except arrow().ArrowException as error:
            raise LMACError(f"{self}: is damaged ({error})") from error
        if content is None:
            raise LMACError(f"{self}: holds no sound")
        yield io.BytesIO(content)


class _Reader:
    """Reads the rows of one group of a file, best one after the other."""

    def __init__(self, file, group, column):
        self._batches = functools.partial(_batches, file, group, column)
        self._open, self._first, self._batch = None, 0, None

    def read(self, row):
        """The value in a row."""
        if self._open is None or row < self._first:
            self._open, self._first, self._batch = self._batches(), 0, None
        while self._batch is None or row >= self._first + len(self._batch):
            self._first += len(self._batch or ())
            self._batch = next(self._open, None)
            if self._batch is None:
                raise OSError(f"has no row {row}")
        return self._batch[row - self._first]


@functools.lru_cache(maxsize=2)
def _reader(file, state, group, column):
    """The reader of a group; `state` is another when the file was written."""
    return _Reader(file, group, column)


def _batches(file, group, column):
    """Values of a column in a group, some at a time."""
    if file.endswith(".arrow"):
        for batch in read_arrow(file)[group : group + 1]:
            yield batch.column(column)
        return
    import pyarrow.parquet

    # Without a buffer for the whole group.
    with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as opened:
        for batch in opened.iter_batches(_ROWS, [group], [column]):
            yield batch.column(column)


def read_arrow(file):
    """Batches of an Arrow file, mapped into memory.

    Arguments
    ---------
    file : str
        In either of Arrow's two formats.

    Returns
    -------
    list of pyarrow.RecordBatch
    """
    arrow()
    import pyarrow.ipc

    mapped = pyarrow.memory_map(file)
    try:
        return list(pyarrow.ipc.open_stream(mapped))
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        opened = pyarrow.ipc.open_file(mapped)
        return [opened.get_batch(i) for i in range(opened.num_record_batches)]


def _bytes_of(value):
    """What is in a cell, as the content of a file; None for nothing."""
    import pyarrow

    if not value.is_valid:
        return None
    if not pyarrow.types.is_struct(value.type):
        return value.as_py()
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


def arrow():
    """The module pyarrow.

    Returns
    -------
    module

    Raises
    ------
    LMACError
        If it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise LMACError(
            "pyarrow: not installed, expected pyarrow 17 or newer; run: pip "
            'install "lmac-sb[corpus]"'
        ) from error
    return pyarrow


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
        f"wav: found {entry!r}, expected a path, or a dict with "
        f"{', '.join(Place._fields)}, or {', '.join(Cell._fields)}"
    )
