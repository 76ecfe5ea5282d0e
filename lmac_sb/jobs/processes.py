"""Which of several processes this one is, and how they are started."""

import logging
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lmac_sb.utils.console import Loudness, get_loudness, set_loudness
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.program import CALLED, program

__all__ = [
    "Processes",
    "be_one_of_many",
    "is_first",
    "is_launched",
    "leave",
    "n_usable_cores",
    "one_thread",
    "processes",
    "run_name",
    "start",
    "wait_for",
    "wait_for_others",
]

_RUN = "LMAC_RUN"  # names the run of processes that `start` has started
_PARENT = "LMAC_PARENT"  # the number of the process that has started them
# As `python -m lmac_sb`, but without the current folder among those of modules:
# it may hold a file of others, such as yaml.py, beside their sounds.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); import runpy; "
    "runpy.run_module('lmac_sb', run_name='__main__', alter_sys=True)"
)
_SHORTEST_S, _LONGEST_S = 0.05, 2.0  # between two looks
_LEFT = "left-"  # what a process calls its file when it leaves


class Processes(NamedTuple):
    """Number of a process among those of a run.

    Arguments
    ---------
    rank : int
        Its number, from 0.
    world : int
        How many there are.

    Example
    -------
    >>> list(Processes(1, 3).order(7))
    [1, 4, 0, 2, 3, 5, 6]
    """

    rank: int = 0
    world: int = 1

    def order(self, n_chunks):
        """Chunks in the order in which this process looks at them.

        Its own share comes first; together the processes do the first ones
        first.
        """
        yield from range(self.rank, n_chunks, self.world)
        for index in range(n_chunks):
            if index % self.world != self.rank:
                yield index


def processes():
    """Which process this is, as `torchrun` says in the environment.

    Returns
    -------
    Processes
        One alone, where the environment says nothing.

    Raises
    ------
    LMACError
        If it says only half of it, or no numbers.

    Example
    -------
    >>> processes()
    Processes(rank=0, world=1)
    """
    names = ("RANK", "WORLD_SIZE")
    given = {name: os.environ[name] for name in names if name in os.environ}
    if not given:
        return Processes()
    for name in names:
        if name not in given:
            (other,) = given
            raise LMACError(
                f"{name}: not set, but {other} is {given[other]!r}; start "
                "several processes by torchrun, which sets both, or unset "
                f"{other}"
            )
        if not given[name].isdecimal():
            raise LMACError(
                f"{name}: found {given[name]!r}, expected a whole number, as "
                "torchrun sets it"
            )
    rank, world = (int(given[name]) for name in names)
    if rank >= world:
        raise LMACError(
            f"RANK: found {rank}, expected less than WORLD_SIZE, {world}"
        )
    return Processes(rank, world)


def is_first():
    """Whether this process prints and writes what there is only one of.

    Returns
    -------
    bool

    Example
    -------
    >>> is_first()
    True
    """
    return processes().rank == 0


@contextmanager
def one_thread():
    """Compute in one thread, so that results do not depend on their number.

    Returns
    -------
    context manager

    Example
    -------
    >>> import torch
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_name():
    """A name of this run, which all of its processes give it, and no other run.

    Returns
    -------
    str

    Raises
    ------
    LMACError
        If the processes have no common launcher that tells it.

    Example
    -------
    >>> len(run_name())
    16
    """
    name = secrets.token_hex(8)
    rank, world = processes()
    if world == 1:
        return name
    if _RUN in os.environ:
        return os.environ[_RUN]
    from torch import distributed

    try:
        store, _, _ = next(distributed.rendezvous("env://"))
    except (ValueError, RuntimeError) as error:
        raise LMACError(
            f"WORLD_SIZE: found {world}, but the processes find no common "
            f"launcher ({error}); start them by torchrun"
        ) from error
    # Kept: the first process may serve it to the others.
    _stores.append(store)
    if rank == 0:
        store.set(_RUN, name)
    return store.get(_RUN).decode()


_stores = []


def wait_for(condition):
    """Wait until something is so.

    Arguments
    ---------
    condition : callable
        Returns whether it is.

    Example
    -------
    >>> wait_for(lambda: True)
    """
    pause = _SHORTEST_S
    while not condition():
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)


def leave(folder):
    """Tell the first process that this one needs a folder no more.

    Arguments
    ---------
    folder : str or Path
        May be gone.

    Example
    -------
    >>> leave(getfixture("tmp_path") / "gone")
    """
    with suppress(OSError):
        (Path(folder) / f"{_LEFT}{processes().rank}").touch()


def wait_for_others(folder):
    """Wait until no other process of the run needs a folder.

    Those that `start` has started are not waited for: they are ended.

    Arguments
    ---------
    folder : str or Path
        Where they `leave`.

    Example
    -------
    >>> wait_for_others(getfixture("tmp_path"))
    """
    if _RUN not in os.environ:
        for rank in range(1, processes().world):
            wait_for((Path(folder) / f"{_LEFT}{rank}").exists)


def start(n_processes, words):
    """Run a command of this program in several processes of this machine.

    What the first one prints is all that is printed, and its exit code is the
    run's. Of the others, one that is lost is no harm: the rest does its work.

    Arguments
    ---------
    n_processes : int
        How many.
    words : list of str
        The command, as it was given.

    Returns
    -------
    int
        Exit code.
    """
    run = secrets.token_hex(8)
    package = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH")
    common = {
        **os.environ,
        _RUN: run,
        _PARENT: str(os.getpid()),
        "WORLD_SIZE": str(n_processes),
        "OMP_NUM_THREADS": "1",
        CALLED: shlex.join(program() or ["python", "-m", "lmac_sb"]),
        "PYTHONPATH": os.pathsep.join(filter(None, [package, given])),
    }
    started = []
    with _asked_to_end() as asked:
        try:
            for rank in range(n_processes):
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *words],
                    env={**common, "RANK": str(rank)},
                )
                started.append(process)
            while started[0].poll() is None:
                if asked.is_set():
                    sys.exit(128 + signal.SIGTERM)  # as a shell has it
                # One that was killed is gone only when somebody has asked.
                for process in started:
                    process.poll()
                time.sleep(_SHORTEST_S)
            code = started[0].returncode
            if code < 0:
                raise LMACError(
                    f"the first of {n_processes} processes was killed by "
                    f"signal {-code}; the same command goes on where it "
                    "stopped"
                )
            return code
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()


@contextmanager
def _asked_to_end():
    """Note that this process shall end, so that it can end others first."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are not for it
        return
    former = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, former or signal.SIG_DFL)


def n_usable_cores():
    """Cores that this process may use, which may be fewer than there are.

    Returns
    -------
    int

    Example
    -------
    >>> n_usable_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_launched():
    """Whether a launcher of others has started this process among others.

    Returns
    -------
    bool

    Example
    -------
    >>> is_launched()
    False
    """
    return "RANK" in os.environ and _RUN not in os.environ


@contextmanager
def be_one_of_many():
    """Behave as one of several processes, where it is one.

    Only the first one says something, and all end with the one that has
    started them.

    Returns
    -------
    context manager

    Example
    -------
    >>> with be_one_of_many():
    ...     processes().world
    1
    """
    # Not handed on: what this process starts has another parent.
    parent = os.environ.pop(_PARENT, None)
    # Its number tells whether it lives, though not on Windows.
    if parent is not None and os.name == "posix":
        _follow(int(parent))
    if is_first():
        yield
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    loudness = get_loudness()
    set_loudness(Loudness.QUIET)
    try:
        yield
    finally:
        logging.disable(before)
        set_loudness(loudness)


def _follow(parent):
    """End when the parent ends, which may be killed and have no chance.

    It may have ended before this one asks, so that it must be told which one
    it was.
    """

    def watch():
        """Look for it until it is gone."""
        while os.getppid() == parent:
            time.sleep(_LONGEST_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
