"""What is in a tar archive, without unpacking it, and where it ends.

Python's `tarfile` stops at damage without a word; here it is said.
"""

import tarfile
from typing import NamedTuple

from lmac_sb.data.pieces import open_file
from lmac_sb.utils.errors import LMACError

__all__ = ["Member", "read_members"]

_BLOCK = 512
_LONGEST = 1 << 20  # bytes of a header; names are no longer
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}


class Member(NamedTuple):
    """A file in an archive.

    Arguments
    ---------
    name : str
        Its path in the archive, as that has it.
    offset, size : int
        Where its content is, in bytes; it may end behind the archive's end.
    is_file : bool
        Whether it is a plain file, not a link, a device or a folder.

    Example
    -------
    >>> Member("a.wav", 512, 44, True).size
    44
    """

    name: str
    offset: int
    size: int
    is_file: bool


class _Guarded:
    """A file of which only headers are read, so that no size is believed."""

    def __init__(self, file):
        self._file = file
        self.tell, self.seek = file.tell, file.seek

    def read(self, size):
        """Some bytes, but not many."""
        if not 0 <= size <= _LONGEST:
            raise tarfile.HeaderError(f"a header of {size} bytes")
        return self._file.read(size)


def read_members(path, lost):
    r"""The files in an archive, one after the other.

    Nothing is read but the headers. Archives that follow each other in one
    file are read as one.

    Arguments
    ---------
    path : str or Path
        The archive.
    lost : list of str
        Gets a line for what cannot be read behind some place.

    Yields
    ------
    Member
        All but folders.

    Returns
    -------
    generator

    Raises
    ------
    LMACError
        If it is no archive, or a compressed one.

    Example
    -------
    >>> path, lost = getfixture("tmp_path") / "a.tar", []
    >>> with tarfile.open(path, "w") as archive:
    ...     archive.addfile(tarfile.TarInfo("a.cls"))
    >>> [member.name for member in read_members(path, lost)], lost
    (['a.cls'], [])
    """
    try:
        with open_file(path) as file:
            head = file.read(6)
            for magic, command in _COMPRESSED.items():
                if head.startswith(magic):
                    raise LMACError(
                        f"{path}: is compressed, so no clip can be read "
                        f"alone; unpack it to a plain tar file ({command})"
                    )
            size = file.seek(0, 2)
            start = 0
            while start is not None:
                file.seek(start)
                start = yield from _archive(path, file, size, lost)
    except OSError as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error


def _archive(path, file, size, lost):
    """Members of one archive; returns where another one follows."""
    start = file.tell()
    try:
        archive = tarfile.TarFile(fileobj=_Guarded(file), errorlevel=0)
    except (tarfile.TarError, ValueError, RecursionError) as error:
        if start:
            return _after(path, file, size, start, str(error), lost)
        raise LMACError(f"{path}: is no tar archive ({error})") from error
    place, problem = start, ""
    try:
        while (member := archive.next()) is not None:
            archive.members = []  # it would keep them all
            if not member.isdir():
                is_file = member.isreg() and not member.issparse()
                yield Member(
                    member.name, member.offset_data, member.size, is_file
                )
            if archive.offset <= place:
                raise tarfile.HeaderError("a size below zero")
            place = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as e:
        problem = str(e)
    if not problem:
        place = archive.offset
    return _after(path, file, size, place, problem, lost)


def _after(path, file, size, place, problem, lost):
    """Tell what is behind the last member; where an archive follows, if so."""
    if place >= size:
        lost.append(
            f"{path}: truncated, the archive has no end; clips that followed "
            "are missing"
        )
        return None
    file.seek(place)
    block = file.read(_BLOCK)
    if problem or block.strip(b"\0") or len(block) < _BLOCK:
        lost.append(
            f"{path}: damaged or truncated at byte {place}"
            f"{problem and f' ({problem})'}; clips that followed are missing"
        )
        return None
    while block and not block.strip(b"\0"):
        place = file.tell()
        block = file.read(_BLOCK)
    return place if block else None
