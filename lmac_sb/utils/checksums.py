"""Checksums of a folder's files, as `sha256sum` writes and checks them.

They lie in the folder's ``SHA256SUMS``, one line a file: 64 hexadecimal
digits, two spaces, and the name as seen from the folder.
"""

import hashlib
import os
import re
from pathlib import Path

from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.given import check_file, list_files, read_given, show_size
from lmac_sb.utils.io import write_in_one_step

__all__ = [
    "SUMS",
    "check_sums",
    "file_sha256",
    "read_sums",
    "stream_sha256",
    "write_sums",
]

SUMS = "SHA256SUMS"
_LONGEST = 1 << 20  # bytes of that file, at most
_MOST = 8 << 30  # and of all files together
_SUM = re.compile("[0-9a-f]{64}")


def file_sha256(path):
    """Checksum of a file of any size.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        Hexadecimal.
    """
    with open(path, "rb") as file:
        return stream_sha256(file)


def stream_sha256(file):
    """Checksum of what an open file holds from here on.

    Arguments
    ---------
    file : file object
        Open for reading bytes.

    Returns
    -------
    str
        Hexadecimal.

    Example
    -------
    >>> import io
    >>> stream_sha256(io.BytesIO(b"a"))[:8]
    'ca978112'
    """
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def write_sums(folder):
    """Write the checksums of all files of a folder, in one step.

    Arguments
    ---------
    folder : str or Path
        Files of sub-folders count too.

    Returns
    -------
    pathlib.Path
        The file of checksums.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.txt").write_text("a")
    >>> print(write_sums(folder).read_text())
    ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a.txt
    <BLANKLINE>
    """
    folder = Path(folder)
    text = "".join(
        f"{file_sha256(folder / name)}  {name}\n" for name in _names(folder)
    )
    write_in_one_step(folder / SUMS, lambda file: file.write(text))
    return folder / SUMS


def _has_other_line_ends(path, checksum):
    """Whether a text is as it was but for the ends of its lines."""
    if path.stat().st_size > _LONGEST:
        return False
    text = path.read_bytes().replace(b"\r\n", b"\n")
    return hashlib.sha256(text).hexdigest() == checksum


def _names(folder):
    """All files of a folder but the checksums, in their order."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / SUMS
    ]


def read_sums(folder):
    """Checksum of each file that a folder says it has, unchecked.

    Arguments
    ---------
    folder : str or Path
        With a file ``SHA256SUMS``.

    Returns
    -------
    dict
        Name to checksum. No name leads out of the folder.

    Raises
    ------
    LMACError
        If there are no checksums, or they are something else.
    """
    path = Path(folder) / SUMS
    if not os.path.lexists(path):
        raise LMACError(f"{path}: no such file, expected the folder's sums")
    sums = {}
    for line in read_given(path, _LONGEST, folder).splitlines():
        checksum, _, name = line.partition("  ")
        if not name or os.path.isabs(name) or ".." in Path(name).parts:
            raise LMACError(
                f"{path}: {shown(line)} names no file of this folder"
            )
        if not _SUM.fullmatch(checksum) or name in sums:
            raise LMACError(
                f"{path}: found {shown(line)}, expected one checksum of 64 "
                "digits for each file"
            )
        sums[name] = checksum
    return sums


def check_sums(folder, complete=False, hidden=True):
    """Refuse a folder with a missing or changed file.

    Nothing is hashed before the sizes of all files have been looked at.

    Arguments
    ---------
    folder : str or Path
        With a file ``SHA256SUMS``.
    complete : bool
        Whether to refuse files without a checksum too.
    hidden : bool
        Whether these may be what git, a hub's client and Python keep there,
        see `lmac_sb.utils.given.list_files`.

    Returns
    -------
    list of str
        The names of the files that the checksums vouch for.

    Raises
    ------
    LMACError
        Names the file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.txt").write_text("a")
    >>> _ = write_sums(folder)
    >>> check_sums(folder)
    ['a.txt']
    >>> _ = (folder / "a.txt").write_text("b")
    >>> check_sums(folder)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../a.txt: truncated or changed, ...
    """
    folder = Path(folder)
    sums = read_sums(folder)
    total = 0
    for name in sums:
        # Of os: that of pathlib fails where the name is too long for a file.
        if not os.path.exists(folder / name):
            raise LMACError(
                f"{folder / SUMS}: names {shown(name)}, which does not exist"
            )
        total += check_file(folder / name, folder=folder)
    if total > _MOST:
        raise LMACError(
            f"{folder}: its files hold {show_size(total)}, expected at most "
            f"{show_size(_MOST)}"
        )
    for name in list_files(folder, hidden) if complete else ():
        if name not in sums and name != SUMS:
            raise LMACError(
                f"{folder / name}: is not in {SUMS}, so nobody vouches for it"
            )
    for name, checksum in sums.items():
        if file_sha256(folder / name) != checksum:
            what = "truncated or changed"
            if _has_other_line_ends(folder / name, checksum):
                what = "its line ends were changed, as git may do"
            raise LMACError(
                f"{folder / name}: {what}, expected the checksum in {SUMS}"
            )
    return list(sums)
