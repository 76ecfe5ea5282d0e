"""Files and folders that appear complete or not at all.

While one is written, it lies beside its place as
``.<name>.<process>@<host>.<random>.part``. Nothing reads what has such a name;
what a killed process left is deleted when the same thing is written again. The
host stands there as a number, since folders go to others.

A file is always made new: where its name is a link, the link gives way, and
what it leads to stays as it is.
"""

import csv
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from lmac_sb.utils.errors import LMACError, is_full, shown
from lmac_sb.utils.given import read_given

__all__ = [
    "as_path",
    "check_folder",
    "check_is_folder",
    "check_readable",
    "first_line",
    "folder_in_one_step",
    "host",
    "is_free",
    "is_leftover",
    "is_running",
    "is_write_error",
    "make_folder",
    "make_inner",
    "naming",
    "no_link",
    "not_written",
    "open_regular",
    "part_folder",
    "parts_of",
    "read_json",
    "remove_leftovers",
    "remove_parts",
    "replace_folder",
    "restore_folder",
    "write_csv",
    "write_in_one_step",
    "write_json",
]

logger = logging.getLogger(__name__)

_LONGEST_LINE = 300  # characters of an error of others
_LONGEST_NAME = 150  # bytes of a name that are kept in a temporary one
_LONGEST_PATH = 4096  # no system takes a longer one


def write_csv(path, rows, names=None):
    """Write rows to a csv file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    rows : iterable of dict
        At least one; all with the same keys.
    names : iterable of str
        The keys, by default those of the first of a list.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> write_csv(path, [{"id": "a", "AI": 100.0}])
    >>> print(path.read_text())
    id,AI
    a,100.0
    <BLANKLINE>
    """

    def write(file):
        """Write the table to an open file."""
        keys = rows[0] if names is None else names
        writer = csv.DictWriter(file, keys, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    write_in_one_step(path, write)


def read_json(path):
    """Content of a JSON file.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    object

    Raises
    ------
    LMACError
        If the file holds something else, is too large or no file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> _ = path.write_text("{")
    >>> read_json(path)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x.json: not JSON (...)
    """
    text = read_given(path)
    try:
        return json.loads(text)
    # RecursionError: lists in lists in lists.
    except (ValueError, RecursionError) as error:
        raise LMACError(f"{path}: not JSON ({error})") from error


def write_json(path, content):
    """Write JSON to a file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    content : object
        What to write.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> write_json(path, [1])
    >>> json.loads(path.read_text())
    [1]
    """
    write_in_one_step(path, lambda file: json.dump(content, file, indent=1))


def write_in_one_step(path, write, binary=False):
    r"""Write a file of which only a complete one ever has its name.

    Arguments
    ---------
    path : str or Path
        The file.
    write : callable
        Gets an open file and writes to it.
    binary : bool
        Whether that file takes bytes.

    Raises
    ------
    OSError
        Names the file, whatever could not be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.txt"
    >>> write_in_one_step(path, lambda file: print("all", file=file))
    >>> path.read_text()
    'all\n'
    """
    part = _part_of(Path(path))
    text = {} if binary else {"encoding": "utf-8", "newline": ""}
    try:
        with naming(path):
            with open(part, "xb" if binary else "x", **text) as file:
                write(file)
                # The name must not reach the disk before the content does.
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def naming(path):
    """Let an error of writing name a file, whatever it names by itself.

    A full disk names none, and nobody knows the temporary ones.

    Arguments
    ---------
    path : str or Path
        What is written.

    Returns
    -------
    context manager

    Example
    -------
    >>> with naming("x.txt"):
    ...     raise OSError(28, "No space left on device")
    Traceback (most recent call last):
    ...
    OSError: [Errno 28] No space left on device: 'x.txt'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a library, with a text alone
            raise OSError(f"{path}: {error}") from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def no_link(path, flags):
    """Open a file that is no link; to be given to `open` as its opener.

    Arguments
    ---------
    path : str or Path
        The file.
    flags : int
        As of `os.open`.

    Returns
    -------
    int
        Descriptor of the file.

    Raises
    ------
    OSError
        If it is a link, which is not followed.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def open_regular(path, most):
    """Open a file of somebody's folder for reading, or refuse it.

    Arguments
    ---------
    path : str or Path
        The file. Links, pipes and devices are refused, and never waited for.
    most : int
        The largest size in bytes.

    Returns
    -------
    file object
        Binary.

    Raises
    ------
    FileNotFoundError
        If there is none.
    LMACError
        If it is no regular file, or too large.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x"
    >>> _ = path.write_bytes(b"abc")
    >>> open_regular(path, most=3).read()
    b'abc'
    >>> open_regular(path, most=2)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x: found 3 bytes, expected at most 2
    """
    if os.path.islink(path):
        raise LMACError(f"{path}: is a link, expected a regular file")
    # A pipe that nobody writes to would be waited for.
    wait = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda p, flags: no_link(p, flags | wait))
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        file.close()
        raise LMACError(f"{path}: is no regular file, expected one")
    if found.st_size > most:
        file.close()
        raise LMACError(
            f"{path}: found {found.st_size} bytes, expected at most {most}"
        )
    return file


@contextmanager
def part_folder(path):
    """A folder of one's own beside a path, deleted at the end.

    Arguments
    ---------
    path : str or Path
        What is made there; need not exist.

    Returns
    -------
    context manager
        Gives the folder's Path.

    Example
    -------
    >>> with part_folder(getfixture("tmp_path") / "x") as part:
    ...     part.name.startswith(".x."), part.name.endswith(".part")
    (True, True)
    >>> part.exists()
    False
    """
    part = _part_of(Path(path))
    try:
        part.mkdir()
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_folder(folder, name):
    """Refuse a file as the folder for results, or as one above it.

    So is a folder that this user may not enter.

    Arguments
    ---------
    folder : str or Path
        The folder; need not exist.
    name : str
        Of the option or key that says so.

    Raises
    ------
    LMACError
        If it is something else.

    Example
    -------
    >>> file = getfixture("tmp_path") / "x"
    >>> file.touch()
    >>> check_folder(file, "--out")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: --out: .../x cannot be made or written to (File exists)
    """
    path = Path(folder)
    try:
        there = next((x for x in (path, *path.parents) if x.exists()), path)
        if not there.exists() or there.is_dir():
            with suppress(FileNotFoundError):
                os.stat(os.path.join(there, os.curdir))
            return
        why = "File exists" if there == path else "Not a directory"
    except PermissionError as error:
        why = error.strerror
    raise not_written(folder, why, name)


def check_is_folder(folder, what):
    """Refuse what is no folder.

    Arguments
    ---------
    folder : str or Path
        Has to be there.
    what : str
        What it holds.

    Raises
    ------
    LMACError
        If it is a file, not there, or another user's who alone may read it.

    Example
    -------
    >>> check_is_folder("nowhere", "explanations")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    check_readable(folder, f"folder of {what}")
    if Path(folder).is_file():
        raise LMACError(f"{folder}: found a file, expected a folder of {what}")
    if not Path(folder).is_dir():
        raise LMACError(f"{folder}: no such folder of {what}")


def check_readable(folder, name):
    """Refuse a folder that this user may not read, or what lies in one.

    Arguments
    ---------
    folder : str or Path
        The folder; what is none, or is not there, is not looked at.
    name : str
        Of the option or key that says so.

    Raises
    ------
    LMACError
        If it is another user's, say.

    Example
    -------
    >>> check_readable(getfixture("tmp_path"), "data_folder")
    """
    try:
        os.listdir(folder)
        os.stat(os.path.join(folder, os.curdir))
    except PermissionError as error:
        raise LMACError(
            f"{name}: {folder} cannot be read ({error.strerror})"
        ) from error
    except (OSError, ValueError):
        pass


def make_folder(folder, name=None):
    """Make a folder for results, and those above it, if need be.

    Arguments
    ---------
    folder : str or Path
        As a user has named it.
    name : str
        Of the option that says so, for the message.

    Raises
    ------
    LMACError
        If it cannot be made, such as where a file is, or written to, such as
        one of another user.
    OSError
        If the disk is full.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> make_folder(folder / "y")
    >>> (folder / "file").touch()
    >>> make_folder(folder / "file")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../file: cannot be made or written to (File exists)
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # Tells why not, which `os.access` does not.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if is_full(error):
            raise
        raise not_written(folder, error.strerror, name) from error


def not_written(folder, why, name=None):
    """The error that tells of a folder for results which cannot be used.

    Arguments
    ---------
    folder : str or Path
        As a user has named it.
    why : str
        What the system says.
    name : str
        Of the option that says so.

    Returns
    -------
    LMACError

    Example
    -------
    >>> str(not_written("out", "Permission denied", "--out"))
    '--out: out cannot be made or written to (Permission denied)'
    """
    where = f"{folder}:" if name is None else f"{name}: {folder}"
    return LMACError(f"{where} cannot be made or written to ({why})")


def make_inner(folder):
    """Make a folder in one for results, to which the same users may write.

    Arguments
    ---------
    folder : str or Path
        May exist.

    Raises
    ------
    OSError
        If it cannot be made.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> folder.chmod(0o777)
    >>> make_inner(folder / "x")
    >>> oct((folder / "x").stat().st_mode & 0o777)
    '0o777'
    """
    folder = Path(folder)
    with suppress(FileExistsError):
        folder.mkdir()
        with suppress(OSError):  # some file systems have no modes
            shutil.copymode(folder.parent, folder)


def as_path(key, value):
    """A path that a user gave.

    Arguments
    ---------
    key : str
        What the user called it.
    value : str, bytes or Path
        What was given.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    LMACError
        If it is none, empty, or the content of a file.

    Example
    -------
    >>> as_path("folder", b"why").name
    'why'
    >>> as_path("folder", None)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: folder: found None, expected a path
    """
    is_path = isinstance(value, (str, bytes, os.PathLike))
    if not is_path or not os.fspath(value):
        raise LMACError(f"{key}: found {shown(value)}, expected a path")
    name = os.fspath(value)
    is_bytes = isinstance(name, bytes)
    if len(name) > _LONGEST_PATH or (is_bytes and b"\0" in name):
        unit = "bytes" if is_bytes else "characters"
        raise LMACError(
            f"{key}: found the content of a file, {len(name)} {unit}, expected "
            "its path"
        )
    return Path(os.fsdecode(value))


def is_free(folder):
    """Whether a folder can be written without losing anything.

    Arguments
    ---------
    folder : str or Path
        Any path.

    Returns
    -------
    bool
        Whether there is nothing, or an empty folder.

    Example
    -------
    >>> is_free(getfixture("tmp_path")), is_free(getfixture("path"))
    (True, False)
    """
    folder = Path(folder)
    empty = folder.is_dir() and not any(folder.iterdir())
    return empty or not folder.exists()


@contextmanager
def folder_in_one_step(folder, replace=False):
    """Write a folder of which only a complete one ever has its name.

    Arguments
    ---------
    folder : str or Path
        Folders above it are made if need be.
    replace : bool
        Whether it may replace a folder that holds something. A kill at the
        wrong moment leaves that one as ``<name>.former``: whoever reads such
        folders calls `restore_folder` first.

    Returns
    -------
    context manager
        Gives the Path of an empty folder to write to. At its end that gets
        the name; after an error it is deleted, and what was there stays.

    Raises
    ------
    OSError
        If the folder holds something, and may not be replaced.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> with folder_in_one_step(folder) as part:
    ...     _ = (part / "a").write_text("a")
    >>> [path.name for path in folder.iterdir()]
    ['a']
    """
    folder = Path(os.path.realpath(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with part_folder(folder) as part:
        yield part
        if replace:
            replace_folder(part, folder)
            return
        with suppress(OSError):
            folder.rmdir()  # an empty one, which some systems do not replace
        os.replace(part, folder)


def restore_folder(folder):
    """Give a folder back that a kill left with its temporary name.

    Arguments
    ---------
    folder : str or Path
        Written by `folder_in_one_step`; left as it is if it exists.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> folder.with_name("x.former").mkdir()
    >>> restore_folder(folder)
    >>> folder.is_dir()
    True
    """
    folder = Path(os.path.realpath(folder))
    former = _former_of(folder)
    if former.is_dir() and not folder.exists():
        # Another process may just have done it.
        with suppress(FileNotFoundError):
            os.replace(former, folder)


def replace_folder(part, folder):
    """Give a finished folder its name, which another one may have.

    Renames twice, as no system replaces a full folder in one step.

    Arguments
    ---------
    part : Path
        The finished folder.
    folder : Path
        Beside it; see `folder_in_one_step` on what a kill leaves.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> with part_folder(folder) as part:
    ...     replace_folder(part, folder)
    >>> folder.is_dir()
    True
    """
    restore_folder(folder)
    former = _former_of(folder)
    _delete(former, folder)
    try:
        if folder.exists():
            os.replace(folder, former)
        os.replace(part, folder)
    except BaseException:
        restore_folder(folder)
        raise
    _delete(former, folder)


def _delete(former, folder):
    """Delete what had a folder's name, or let it be what its owner left.

    The next to write that folder deletes it then, if that is its owner.
    """
    shutil.rmtree(former, ignore_errors=True)
    if former.exists():
        part = _part_of(folder)
        os.replace(former, part)
        logger.warning(
            "%s: cannot be deleted, such as by another user than its owner; "
            "it is what %s held before",
            part,
            folder,
        )


def _former_of(folder):
    """Name of a folder that is about to be replaced."""
    return folder.with_name(f"{folder.name}.former")


def _part_of(path):
    """A name that no other process uses; removes what killed ones left."""
    remove_leftovers(path.parent, _leftovers(path.name))
    unique = f"{os.getpid()}@{host()}.{secrets.token_hex(4)}"
    return path.with_name(f".{_short(path.name)}.{unique}.part")


def _leftovers(name=None):
    """Pattern of the temporary names of a file or folder on this machine."""
    # Former versions wrote the name of the host.
    hosts = f"(?:{host()}|{re.escape(socket.gethostname())})"
    name = ".+" if name is None else re.escape(_short(name))
    return rf"\.{name}\.(\d+)@{hosts}\.\w+\.part"


def remove_parts(folder):
    """Delete what killed processes of this machine were writing in a folder.

    Arguments
    ---------
    folder : str or Path
        Need not exist.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with part_folder(folder / "x") as part:
    ...     remove_parts(folder)
    ...     part.exists()
    True
    """
    remove_leftovers(folder, _leftovers())


def host():
    """A number for this machine, which does not tell its name.

    Returns
    -------
    str

    Example
    -------
    >>> len(host())
    8
    """
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _short(name):
    """A name that leaves room for what is added to it."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return name
    start = encoded[:_LONGEST_NAME].decode(errors="ignore")
    return f"{start}.{hashlib.sha256(encoded).hexdigest()[:8]}"


def is_leftover(name):
    """Whether a name is the temporary one of a file or folder.

    Arguments
    ---------
    name : str
        Without its folder.

    Returns
    -------
    bool

    Example
    -------
    >>> is_leftover(".x.12@00ff00ff.89ab.part"), is_leftover("x.part")
    (True, False)
    """
    return re.fullmatch(r"\..+\.\d+@.+\.\w+\.part", name) is not None


def parts_of(path):
    """What is, or was, about to become a file or folder on this machine.

    Arguments
    ---------
    path : str or Path
        What it becomes, by `part_folder` or `write_in_one_step`.

    Returns
    -------
    list of Path

    Example
    -------
    >>> with part_folder(getfixture("tmp_path") / "x") as part:
    ...     parts_of(part.with_name("x")) == [part]
    True
    """
    path = Path(path)
    pattern = _leftovers(path.name)
    return [
        path.with_name(name)
        for name in os.listdir(path.parent)
        if re.fullmatch(pattern, name)
    ]


def remove_leftovers(folder, pattern):
    r"""Delete temporary files and folders of processes that were killed.

    Arguments
    ---------
    folder : str or Path
        Where they are; need not exist.
    pattern : str
        Regular expression of their names; its group is the number of the
        process. Those of a process that runs are left alone.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for process in (os.getpid(), 1 << 30):
    ...     (folder / f"a.{process}.tmp").touch()
    >>> remove_leftovers(folder, r"a\.(\d+)\.tmp")
    >>> len(list(folder.iterdir()))
    1
    """
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        match = re.fullmatch(pattern, path.name)
        if not match or is_running(int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            # Another user's, or removed by another process just now.
            with suppress(OSError):
                path.unlink()


def is_running(process):
    """Whether a process of this machine has not ended.

    One that has ended and waits for its parent to ask how, has.

    Arguments
    ---------
    process : int
        Its number.

    Returns
    -------
    bool

    Example
    -------
    >>> is_running(os.getpid()), is_running(1 << 30)
    (True, False)
    """
    try:
        os.kill(process, 0)
    except PermissionError:  # of another user
        return True
    except (OSError, OverflowError):
        return False
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        # It has just ended, or this system has no such files.
        return not Path("/proc/self/stat").exists()
    # Behind the name in brackets, which may hold any other.
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def is_write_error(error):
    """Whether a file could not be written, rather than anything else.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    bool
    """
    # PyTorch's own writer raises no OSError; nor do lost processes.
    return isinstance(error, OSError) or "inline_container" in str(error)


def first_line(error):
    """What an error says, in short.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    str
        The first line of its text, shortened, or the name of its class.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0]
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
