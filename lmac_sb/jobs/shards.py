"""Shards: tar files in the form of WebDataset, and single samples of them.

The files of a sample lie one after the other, and their names begin with its
key, up to the first dot: ``00000012.explanation.json`` and
``00000012.original.wav`` are of the sample ``00000012``. `write_shard` writes
the same bytes for the same files, whoever does it and when.

To read the files of a few samples without unpacking a shard, open it as a
`Shard`: its index takes one pass over the headers of its members, which skips
what is in them.

>>> folder = getfixture("tmp_path")
>>> _ = write_shard(folder / "x.tar", [("7.a.txt", b"A"), ("8.a.txt", b"B")])
>>> shard = Shard(folder / "x.tar")
>>> shard.keys, shard.read("8", "a.txt")
(['7', '8'], b'B')
>>> shard.unpack("7", folder / "seven")
>>> (folder / "seven" / "a.txt").read_bytes()
b'A'
"""

import io
import os
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line, open_regular, write_in_one_step

__all__ = ["Shard", "write_shard"]

_MOST_BYTES = 1 << 40  # of a shard
_BLOCK = 1 << 20  # bytes that are copied at a time
_END = bytes(512)  # that a shard ends with
_NAME = re.compile(r"([^./\\]+)\.([^./\\][^/\\]*)")  # KEY.NAME


def write_shard(path, files):
    """Write a tar file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    files : iterable
        (name, content) each, in the order of the shard; content is bytes, or
        the Path of a file. Names have no folder.

    Returns
    -------
    int
        Its size in bytes.

    Raises
    ------
    OSError
        Names the shard, if it could not be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.tar"
    >>> write_shard(path, [("a.txt", b"A")])
    10240
    """

    def write(sink):
        """Write it to an open file."""
        # What a name holds is told as in any system, and not as in this one.
        with tarfile.open(
            fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8"
        ) as shard:
            for name, content in files:
                # Times, owners and rights are the same for all.
                member = tarfile.TarInfo(name)
                member.mode = 0o644
                if isinstance(content, bytes):
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
                    continue
                with open(content, "rb") as source:
                    member.size = os.fstat(source.fileno()).st_size
                    shard.addfile(member, source)

    write_in_one_step(path, write, binary=True)
    return os.path.getsize(path)


class _Member(NamedTuple):
    """Where the content of a file begins in a shard, and its length."""

    start: int
    size: int


class Shard:
    """A shard of which single samples are read.

    Arguments
    ---------
    path : str or Path
        The tar file, not compressed.

    Raises
    ------
    LMACError
        If it is missing or truncated, or holds anything but files with a key,
        each once.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.tar"
    >>> _ = write_shard(path, [("7.a.txt", b"A"), ("7.b.txt", b"B")])
    >>> Shard(path).names("7")
    ['a.txt', 'b.txt']
    """

    def __init__(self, path):
        self.path = Path(path)
        self._members = {}
        try:
            with open_regular(self.path, _MOST_BYTES) as file:
                self._size = os.fstat(file.fileno()).st_size
                with tarfile.open(fileobj=file, mode="r:") as shard:
                    for member in shard:
                        self._add(member)
                    file.seek(shard.offset)
                # One that is cut between two members looks whole otherwise.
                if file.read(len(_END)) != _END:
                    raise LMACError(f"{path}: truncated; make it again")
        except FileNotFoundError as error:
            raise LMACError(f"{path}: no such shard") from error
        except (OSError, tarfile.TarError) as error:
            raise LMACError(
                f"{path}: cannot be read as a shard ({first_line(error)})"
            ) from error

    def _add(self, member):
        """Note where a member is, or refuse it."""
        found = _NAME.fullmatch(member.name)
        if not member.isreg() or found is None:
            raise LMACError(
                f"{self.path}: found the member {shown(member.name)}, expected "
                "files named KEY.NAME alone"
            )
        key, name = found.groups()
        files = self._members.setdefault(key, {})
        if name in files:
            raise LMACError(
                f"{self.path}: holds {shown(member.name)} twice, expected once"
            )
        if member.offset_data + member.size > self._size:
            raise LMACError(
                f"{self.path}: truncated in {shown(member.name)}; make it again"
            )
        files[name] = _Member(member.offset_data, member.size)

    @property
    def keys(self):
        """Keys of the samples, in their order."""
        return list(self._members)

    def names(self, key):
        """Names of the files of a sample, without its key.

        Raises
        ------
        LMACError
            If there is no such sample.
        """
        if key not in self._members:
            raise LMACError(f"{self.path}: holds no sample {shown(key)}")
        return list(self._members[key])

    def read(self, key, name):
        """Content of a file of a sample.

        Raises
        ------
        LMACError
            If there is no such sample or file.
        """
        return b"".join(self._blocks(key, name))

    def unpack(self, key, folder):
        """Write the files of a sample to a folder, which is made if need be.

        Raises
        ------
        LMACError
            If there is no such sample.
        OSError
            If the folder could not be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.names(key):
            with open(folder / name, "wb") as file:
                file.writelines(self._blocks(key, name))

    def _blocks(self, key, name):
        """Content of a file, block by block."""
        if name not in self.names(key):
            raise LMACError(
                f"{self.path}: {shown(key)} has no file {shown(name)}"
            )
        start, left = self._members[key][name]
        with open_regular(self.path, _MOST_BYTES) as file:
            file.seek(start)
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise LMACError(f"{self.path}: was truncated meanwhile")
                left -= len(block)
                yield block
