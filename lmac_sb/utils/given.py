"""Files and folders that somebody else made: looked at before they are read.

A small folder can make a lot of work: a sparse file of a terabyte, a pipe that
never ends, a link to a file elsewhere. What is checked here costs nothing.
"""

import os
import stat
from pathlib import Path

from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "MOST_FILES",
    "WEIGHTS",
    "check_file",
    "list_files",
    "read_given",
    "show_size",
]

TEXT = 8 << 20  # bytes of a text or table, at most
DATA = 16 << 30  # and of weights
MOST_FILES = 10_000
DEEPEST = 12  # folders in folders
# Endings of files of weights.
WEIGHTS = (".bin", ".ckpt", ".h5", ".onnx", ".pt", ".pth", ".safetensors")
_OTHERS = 512 << 20  # bytes of what is neither, such as the sound of an example
_TEXTS = (".csv", ".json", ".md", ".txt", ".yaml", ".yml", "")
_SMALL = 1 << 20  # below, nobody minds a hole


def check_file(path, most=None, folder=None):
    """Refuse what is no file of a folder, or too large to be read.

    Arguments
    ---------
    path : str or Path
        The file.
    most : int
        Bytes that it may hold; by default by the ending of its name.
    folder : str or Path
        The folder to which it belongs: no link may lead out of it. By default
        any link is followed.

    Returns
    -------
    int
        Its size in bytes.

    Raises
    ------
    LMACError
        If there is no such file, or it is a pipe or device, leads out of the
        folder, or is too large or mostly a hole.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> _ = path.write_text("{}")
    >>> check_file(path)
    2
    >>> check_file(path, most=1)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x.json: holds 2 bytes, expected at most 1 byte
    """
    try:
        found = os.stat(path)
    except PermissionError as error:  # in another user's folder
        raise LMACError(f"{_name(path)}: cannot be read ({error})") from error
    except (OSError, ValueError) as error:
        raise LMACError(f"{_name(path)}: no such file") from error
    if not stat.S_ISREG(found.st_mode):
        raise LMACError(
            f"{_name(path)}: is {_kind(found.st_mode)}, expected a file"
        )
    if folder is not None:
        _check_place(path, folder)
    if most is None:
        most = _most(path)
    if found.st_size > most:
        raise LMACError(
            f"{_name(path)}: holds {show_size(found.st_size)}, expected at "
            f"most {show_size(most)}"
        )
    # Of 512 bytes, on all systems; some file systems do not tell.
    there = 512 * getattr(found, "st_blocks", 0)
    if found.st_size > _SMALL and 0 < there < found.st_size // 2:
        raise LMACError(
            f"{_name(path)}: is mostly a hole, {show_size(there)} of "
            f"{show_size(found.st_size)} are there, expected a whole file"
        )
    return found.st_size


def _most(path):
    """Bytes that a file may hold, by the ending of its name."""
    ending = os.path.splitext(path)[1].lower()
    if ending in WEIGHTS:
        return DATA
    return TEXT if ending in _TEXTS else _OTHERS


def _kind(mode):
    """What is there in place of a file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _check_place(path, folder):
    """Refuse a link that leads out of a folder, but to the hub's own cache."""
    real = Path(os.path.realpath(path))
    # models--name--repository/blobs, which holds what anyone can get.
    place = real.parent
    if place.name == "blobs" and place.parent.name.startswith("models--"):
        return
    if Path(os.path.realpath(folder)) not in real.parents:
        raise LMACError(
            f"{_name(path)}: is a link out of the folder, to {_name(real)}, "
            "expected a file; put a copy in its place"
        )


def _name(path):
    """A path for a message: names of others may hold anything."""
    text = str(path)
    return text if text.isprintable() and len(text) < 1000 else shown(text)


def show_size(n_bytes):
    """A number of bytes, for a person.

    Arguments
    ---------
    n_bytes : int
        Any.

    Returns
    -------
    str

    Example
    -------
    >>> show_size(1), show_size(3_500_000), show_size(10**12)
    ('1 byte', '3.5 MB', '1000.0 GB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.1f} {name}"
    return "1 byte" if n_bytes == 1 else f"{n_bytes} bytes"


def list_files(folder, hidden=True):
    """All files of a folder and of its folders, none of which is read.

    Arguments
    ---------
    folder : str or Path
        The folder.
    hidden : bool
        Whether to list what git, a hub's client and Python keep there too:
        names that begin with a dot, and ``__pycache__``.

    Returns
    -------
    list of str
        Names as seen from the folder, in their order.

    Raises
    ------
    LMACError
        If there are too many, folders lie too deep, or one is a pipe, a
        device, a broken link or a link out of the folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "b").mkdir()
    >>> for name in ("c", "b/a", ".git"):
    ...     (folder / name).touch()
    >>> list_files(folder, hidden=False)
    ['b/a', 'c']
    """
    folder = Path(folder)
    found, waiting, seen = [], [(folder, 0)], 0
    while waiting:
        place, depth = waiting.pop()
        if depth > DEEPEST:
            raise LMACError(
                f"{_name(folder)}: holds folders in folders more than "
                f"{DEEPEST} deep, expected those of a model"
            )
        for entry in _entries(place):
            if not hidden and _is_hidden(entry.name):
                continue
            seen += 1
            if seen > MOST_FILES:
                raise LMACError(
                    f"{_name(folder)}: holds more than {MOST_FILES} files, "
                    "expected those of a model"
                )
            if entry.is_dir(follow_symlinks=False):
                waiting.append((Path(entry.path), depth + 1))
                continue
            _check_entry(Path(entry.path), folder)
            found.append(Path(entry.path).relative_to(folder).as_posix())
    return sorted(found)


def _entries(folder):
    """What a folder holds, one by one: there may be millions."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise LMACError(f"{_name(folder)}: cannot be read ({error})") from error


def _is_hidden(name):
    """Whether it belongs to git, the hub's client or Python."""
    return name.startswith(".") or name == "__pycache__"


def _check_entry(path, folder):
    """Refuse what is no file, or a link out of the folder."""
    if path.is_symlink():
        _check_place(path, folder)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise LMACError(
            f"{_name(path)}: is a link to nothing, expected a file"
        ) from error
    if not stat.S_ISREG(mode):
        raise LMACError(f"{_name(path)}: is {_kind(mode)}, expected a file")


def read_given(path, most=TEXT, folder=None):
    """The text of a file, if it is one and short.

    Arguments
    ---------
    path : str or Path
        The file, of UTF-8.
    most : int
        Bytes that it may hold.
    folder : str or Path
        See `check_file`.

    Returns
    -------
    str

    Raises
    ------
    LMACError
        See `check_file`; also if it is no text.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.txt"
    >>> _ = path.write_text("dog")
    >>> read_given(path)
    'dog'
    """
    check_file(path, most, folder)
    try:
        with open(path, "rb") as file:
            # It may grow meanwhile.
            return str(file.read(most), "utf-8")
    except UnicodeDecodeError as error:
        raise LMACError(f"{_name(path)}: is no text ({error})") from error
    except OSError as error:
        raise LMACError(f"{_name(path)}: cannot be read ({error})") from error
