"""Which of several processes this one is, and how they are started."""

import os
from contextlib import contextmanager
from typing import NamedTuple

import torch

from lmac_sb.utils.errors import LMACError

__all__ = ["Processes", "is_first", "one_thread", "processes"]


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
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
