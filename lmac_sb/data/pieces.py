"""Pieces of a file, read as if they were a file of their own."""

import contextlib
import io
import os
import stat
from bisect import bisect_right
from itertools import accumulate
from typing import NamedTuple

from lmac_sb.utils.errors import LMACError

__all__ = [
    "Part",
    "Place",
    "Source",
    "Window",
    "check_path",
    "open_file",
    "opened",
]


class Source:
    """Bytes of an open file, anywhere.

    Arguments
    ---------
    file : file object
        Open for reading bytes, and seekable.
    start : int
        What counts as its beginning.

    Example
    -------
    >>> source = Source(io.BytesIO(b"RIFF...."))
    >>> source.at(4, 2), source.size
    (b'..', 8)
    """

    def __init__(self, file, start=0):
        self.file, self.start = file, start
        self.size = file.seek(0, io.SEEK_END) - start

    def at(self, start, size):
        """As many bytes from a place on, or fewer at the end."""
        self.file.seek(self.start + start)
        return self.file.read(max(0, size))


class Part(NamedTuple):
    """What is decoded as one stream.

    `pieces` are places in the file, (start, stop), or bytes that are not there,
    repeated up to a size, (bytes, size); `n_samples` is the length, None for
    all that comes out.

    Example
    -------
    >>> Part(((0, 44), (b"-", 8))).n_samples is None
    True
    """

    pieces: tuple
    n_samples: int = None


class Window:
    """Pieces of a file as one file; what is read past its end is empty.

    It has no name, so that nobody takes an ending for a format.

    Arguments
    ---------
    source : Source
        The file.
    pieces : tuple
        See `Part`.

    Example
    -------
    >>> source = Source(io.BytesIO(b"0123456789"))
    >>> Window(source, ((2, 4), (b"-", 3), (8, 10))).read(9)
    b'23---89'
    """

    def __init__(self, source, pieces):
        self.source = source
        self.pieces = pieces
        self.ends = list(accumulate(_size(piece) for piece in pieces))
        self.place = 0
        self.error = None  # of the disk; C code in between would lose it

    def tell(self):
        """Where the next byte is read."""
        return self.place

    def seek(self, offset, whence=io.SEEK_SET):
        """Go to a place, as in a file."""
        size = self.ends[-1] if self.ends else 0
        place = offset + (0, self.place, size)[whence]
        # A broken header may send libsndfile before the beginning.
        self.place = size if place < 0 else place
        return self.place

    def read(self, size):
        """The next bytes."""
        found = []
        while size > 0:
            i = bisect_right(self.ends, self.place)
            if i == len(self.ends):
                break
            block = self._read(i, min(size, self.ends[i] - self.place))
            if not block:
                break
            found.append(block)
            self.place += len(block)
            size -= len(block)
        return b"".join(found)

    def readinto(self, buffer):
        """The next bytes, into memory; how many there were."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _read(self, i, size):
        """Bytes of one piece, from the place on."""
        content, _ = self.pieces[i]
        skip = self.place - self.ends[i] + _size(self.pieces[i])
        if isinstance(content, bytes):
            skip %= len(content)
            return content[skip : skip + size]
        try:
            return self.source.at(content + skip, size)
        except OSError as error:
            self.error = error
            return b""


class Place(NamedTuple):
    """A sound within another file, such as a member of a tar archive.

    It is given wherever a path to a sound is: what reads sounds opens it by
    `opened`, and messages name it as if the file were a folder.

    Arguments
    ---------
    file : str
        The other file.
    offset, size : int
        Where the sound is in it, in bytes.
    name : str
        What the sound is called there.

    Example
    -------
    >>> file = getfixture("tmp_path") / "two.bin"
    >>> _ = file.write_bytes(b"RIFF....fLaC....")
    >>> place = Place(str(file), 8, 8, "b.flac")
    >>> with place.opened() as sound:
    ...     sound.read(100)
    b'fLaC....'
    """

    file: str
    offset: int
    size: int
    name: str

    def __str__(self):
        return f"{self.file}/{self.name}"

    __fspath__ = __str__

    @contextlib.contextmanager
    def opened(self):
        """Its bytes as a file; an error if not all of them are there."""
        if self.size < 0:
            raise LMACError(
                f"{self}: is a link or a device in its archive, expected a file"
            )
        with open(self.file, "rb") as file:
            source = Source(file)
            missing = self.offset + self.size - source.size
            if missing > 0:
                raise LMACError(
                    f"{self}: truncated, {missing} of its bytes are not there"
                )
            yield Window(source, ((self.offset, self.offset + self.size),))


def opened(path):
    """The bytes of a file, or of a place within one.

    Arguments
    ---------
    path : str, Path or Place
        A place is anything that has a method `opened`.

    Returns
    -------
    context manager
        A file that is open for reading bytes.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.bin"
    >>> _ = path.write_bytes(b"abc")
    >>> with opened(path) as file:
    ...     file.read(2)
    b'ab'
    """
    inside = getattr(path, "opened", None)
    return open(path, "rb") if inside is None else inside()


def check_path(path):
    """Refuse what is no file that can be read again and again.

    Arguments
    ---------
    path : str or Path
        Of a sound.

    Raises
    ------
    LMACError
        If it is missing, a folder, a pipe or a device.

    Example
    -------
    >>> check_path("nowhere.wav")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere.wav: no such audio file
    """
    if os.path.isdir(path):
        raise LMACError(f"{path}: is a folder, expected an audio file")
    try:
        mode = os.stat(path).st_mode
    except PermissionError as error:  # in another user's folder
        raise LMACError(f"{path}: cannot be read ({error})") from error
    except (OSError, ValueError) as error:
        raise LMACError(f"{path}: no such audio file") from error
    _check_kind(path, mode)


def open_file(path):
    """Open a file that is read again and again, never waiting for a pipe.

    Arguments
    ---------
    path : str or Path
        Of a table or an archive.

    Returns
    -------
    file object
        Binary.

    Raises
    ------
    LMACError
        If it is a pipe or a device.
    OSError
        If it cannot be opened.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> _ = path.write_bytes(b"abc")
    >>> with open_file(path) as file:
    ...     file.read(2)
    b'ab'
    """
    if not os.path.isdir(path):  # which `open` refuses
        _check_kind(path, os.stat(path).st_mode)
    return open(path, "rb")


def _check_kind(path, mode):
    """Refuse pipes and devices."""
    if not stat.S_ISREG(mode):
        raise LMACError(
            f"{path}: is a pipe or device, expected a file, which can be read "
            "more than once"
        )


def _size(piece):
    """Bytes of a piece."""
    content, end = piece
    return end if isinstance(content, bytes) else end - content
