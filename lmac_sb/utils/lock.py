"""One run at a time in an output folder.

The lock belongs to the process: it is gone when the process is, however it
ends, so that no lock of a killed run has to be removed by hand.
"""

import errno
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import (
    host,
    is_leftover,
    is_running,
    make_folder,
    naming,
    no_link,
)

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = [
    "STALE_S",
    "Claim",
    "hold",
    "is_held",
    "lock_folder",
    "remove_abandoned",
    "wait_for_folder",
]

logger = logging.getLogger(__name__)

NAME = "run.lock"
_SHORT = ".folder.lock"  # held for a moment, by whoever comes next
_HELD = (errno.EAGAIN, errno.EACCES)
_threads = threading.RLock()  # which a lock of the file system does not part

STALE_S = 90  # after which a claim of another machine counts no more
_BEAT_S = 15  # between two signs of life
_MOST_TRIES = 100  # to open a file that its holder removes meanwhile


@contextmanager
def lock_folder(folder):
    """Hold a folder against other processes, or refuse it.

    Of several processes of one run the main one holds it. Where the file
    system has no locks, a warning says so and the run goes on.

    Arguments
    ---------
    folder : str or Path
        Made if need be.

    Returns
    -------
    context manager

    Raises
    ------
    LMACError
        If another process holds the folder; names the folder and its holder.
        If it cannot be made.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with lock_folder(folder):
    ...     (folder / "run.lock").exists()
    True
    >>> (folder / "run.lock").exists()
    False
    """
    if not if_main_process():
        yield
        return
    path = Path(folder) / NAME
    make_folder(path.parent)
    try:
        file = _hold(path)
    except OSError as error:
        logger.warning(
            "%s: cannot be locked (%s), so nothing stops a second run in "
            "this folder",
            folder,
            error,
        )
        file = None
    try:
        yield
    finally:
        if file is not None:
            # While it is held: whoever waits for this file looks again.
            with suppress(OSError):  # another user's, in a sticky folder
                path.unlink(missing_ok=True)
            file.close()


@contextmanager
def wait_for_folder(folder):
    """Hold a folder for a moment; other processes and threads wait for its end.

    Where the file system has no locks, no other process waits.

    Arguments
    ---------
    folder : str or Path
        Exists.

    Returns
    -------
    context manager

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with wait_for_folder(folder):
    ...     (folder / "x").touch()
    >>> [path.name for path in folder.iterdir()]
    ['x']
    """
    path = Path(folder) / _SHORT
    file = None
    with _threads:
        try:
            while fcntl is not None:
                file = _opened(path)
                _lock(file, wait=True)
                if _is_same(file, path):
                    break
                file.close()  # its holder has just removed it
        except OSError:
            pass
        try:
            yield
        finally:
            if file is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                file.close()


@contextmanager
def hold(folder):
    """Hold a folder against whoever asks `is_held`, without a file in it.

    Where the file system has no locks, nobody is kept off.

    Arguments
    ---------
    folder : str or Path
        Exists; may get another name meanwhile.

    Returns
    -------
    context manager

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> with hold(folder):
    ...     is_held(folder)
    True
    >>> is_held(folder)
    False
    """
    handle = None
    with suppress(OSError, AttributeError):
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def is_held(folder):
    """Whether a process that lives holds a folder.

    The number of a process does not tell: another one may have it by now.

    Arguments
    ---------
    folder : str or Path
        May not exist.

    Returns
    -------
    bool
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):  # no locks here
        return False
    finally:
        os.close(handle)
    return False


class Claim:
    """A piece of work that one process does, of all that see a folder.

    A file says who does it. It is locked, so that a killed process holds
    nothing any more, not even against other users. Locks may end at the
    machine, or be missing, as on some file systems that several machines
    share; so the holder also touches the file every 15 s, and a claim of
    another machine counts until it has not been touched for 90 s (`STALE_S`).
    Two processes may then do the same work: what they write has to be the
    same, and to appear in one step.

    Arguments
    ---------
    path : str or Path
        The file; its folder exists.

    Example
    -------
    >>> path = getfixture("tmp_path") / "part-0"
    >>> claim = Claim(path)
    >>> claim.take(), Claim(path).take()
    (True, False)
    >>> claim.release()
    >>> path.exists()
    False
    """

    _mine = set()  # of this process, whose locks do not keep off itself

    def __init__(self, path):
        self.path = Path(path)
        self._file = None

    def take(self):
        """Whether the work is this process's from now on.

        Raises
        ------
        OSError
            If the file cannot be written; names it.
        """
        if self.path in self._mine:
            return False
        with naming(self.path):
            file, is_new = self._open()
            if file is None:
                return False
            try:
                if not self._is_free(file, is_new):
                    file.close()
                    return False
                if file.writable():
                    file.truncate(0)
                    file.write(f"{os.getpid()} {host()}".encode())
            except BaseException:
                file.close()
                if is_new:
                    self.path.unlink(missing_ok=True)
                raise
        self._file = file
        self._mine.add(self.path)
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def release(self):
        """Leave the work to others, or to nobody if it is done."""
        self._ended.set()
        self._mine.discard(self.path)
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _open(self):
        """The file, and whether it has just been made; None if it is gone."""
        try:
            # Unbuffered: what could not be written is not tried again.
            return open(self.path, "x+b", 0, opener=no_link), True
        except FileExistsError:
            pass
        try:
            return _opened(self.path, "r+b"), False
        except FileNotFoundError:
            return None, False

    def _is_free(self, file, is_new):
        """Whether nobody else is at it; locks the file where that is so."""
        locked = True
        try:
            _lock(file)
        except (OSError, AttributeError) as error:
            if getattr(error, "errno", None) in _HELD:
                return False
            locked = False  # there are no locks here
        if not _is_same(file, self.path):
            return False
        if is_new:
            return True
        said = re.fullmatch(rb"(\d+) (\w+)", file.read(100))
        if said is None and locked:  # killed before it said who it is
            return True
        if said is not None and said[2].decode() == host():
            return locked or not is_running(int(said[1]))
        changed = os.fstat(file.fileno()).st_mtime
        return _now_beside(self.path) - changed > STALE_S

    def _beat(self):
        """Touch the file until the work is done."""
        while not self._ended.wait(_BEAT_S):
            with suppress(OSError):
                os.utime(self.path)


def remove_abandoned(folder):
    """Delete what killed processes of any machine were writing in a folder.

    Of this machine's, `lmac_sb.utils.io.remove_parts` knows who lives.

    Arguments
    ---------
    folder : str or Path
        Need not exist. A temporary file or folder goes if it has not been
        written to for `STALE_S`.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> part = folder / ".x.7@another.0.part"
    >>> part.touch()
    >>> remove_abandoned(folder)
    >>> part.exists()
    True
    >>> os.utime(part, (0, 0))
    >>> remove_abandoned(folder)
    >>> part.exists()
    False
    """
    for path in Path(folder).glob(".*.part"):
        with suppress(OSError):
            age = _now_beside(path) - path.stat().st_mtime
            if not is_leftover(path.name) or age <= STALE_S:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _now_beside(path):
    """The time by the clock that dates the files there, maybe not ours."""
    with tempfile.TemporaryFile(dir=path.parent) as file:
        return os.fstat(file.fileno()).st_mtime


def _hold(path):
    """The locked file."""
    if fcntl is None:
        raise OSError("this system has no fcntl")
    while True:
        file = _opened(path)
        try:
            _lock(file)
            if _is_same(file, path):
                break
        except OSError as error:
            holder = _holder(file)
            file.close()
            if error.errno not in _HELD:
                raise
            raise LMACError(
                f"output_folder: {path.parent} is in use by another run "
                f"({holder}); wait for its end, or choose another "
                "--output_folder"
            ) from error
        # Its holder has just ended and removed it.
        file.close()
    if file.writable():
        file.truncate(0)
        file.write(
            f"process {os.getpid()} on {socket.gethostname()}\n".encode()
        )
    return file


def _opened(path, mode="a+b"):
    """The file of a lock, open for reading alone if it is another user's."""
    for tries in range(_MOST_TRIES):
        try:
            return open(path, mode, 0, opener=no_link)
        except PermissionError:
            with suppress(FileNotFoundError):
                return open(path, "rb", 0, opener=no_link)
            # Its holder has just removed it, unless none may be made at all.
            if tries + 1 == _MOST_TRIES:
                raise


def _lock(file, wait=False):
    """Lock a file; without waiting, raise OSError if another process has.

    Not by `flock` alone: worker processes would inherit and outlive it.
    """
    how = 0 if wait else fcntl.LOCK_NB
    if file.writable():
        fcntl.lockf(file, fcntl.LOCK_EX | how)
    else:
        # The first keeps off those who may write, the second who may not.
        fcntl.lockf(file, fcntl.LOCK_SH | how)
        fcntl.flock(file, fcntl.LOCK_EX | how)


def _is_same(file, path):
    """Whether the path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(file):
    """What the holder wrote, as far as it has come."""
    file.seek(0)
    said = file.read(200).decode(errors="replace")
    return said.strip() or "which has just begun"
