"""One run at a time in an output folder.

The lock belongs to the process: it is gone when the process is, however it
ends, so that no lock of a killed run has to be removed by hand.
"""

import errno
import logging
import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import no_link

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

__all__ = ["hold", "is_held", "lock_folder", "wait_for_folder"]

logger = logging.getLogger(__name__)

NAME = "run.lock"
_SHORT = ".folder.lock"  # held for a moment, by whoever comes next
_HELD = (errno.EAGAIN, errno.EACCES)


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
            path.unlink(missing_ok=True)
            file.close()


@contextmanager
def wait_for_folder(folder):
    """Hold a folder for a moment; other processes wait for its end.

    Where the file system has no locks, nobody waits.

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
    try:
        while fcntl is not None:
            file = open(path, "a", opener=no_link)
            fcntl.lockf(file, fcntl.LOCK_EX)
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


def _hold(path):
    """The locked file."""
    if fcntl is None:
        raise OSError("this system has no fcntl")
    while True:
        file = open(path, "a+", encoding="utf-8", opener=no_link)
        try:
            # Not `flock`: worker processes would inherit and outlive it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _is_same(file, path):
    """Whether the path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(file):
    """What the holder wrote, as far as it has come."""
    file.seek(0)
    return file.readline().strip() or "which has just begun"
