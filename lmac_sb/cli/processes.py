"""Commands whose work several processes share."""

import os
import sys

import click

from lmac_sb.cli.usage import WHOLE
from lmac_sb.jobs.processes import (
    be_one_of_many,
    is_launched,
    n_usable_cores,
    processes,
    start,
)
from lmac_sb.utils.console import Loudness, get_loudness
from lmac_sb.utils.errors import LMACError

__all__ = ["PROCESSES", "check_processes", "say_if_alone", "shared"]

_MANY = 50  # sounds, from which it matters

PROCESSES = click.option(
    "--processes",
    type=WHOLE,
    metavar="N",
    help="share the work among N processes of this machine, with a thread "
    "each; torchrun does it on several machines; default: one",
)


def check_processes(n_processes):
    """Refuse a number of processes, or an odd environment of a launcher.

    Arguments
    ---------
    n_processes : int or None
        As the command line asks for.

    Raises
    ------
    LMACError
        If there cannot be so many.

    Example
    -------
    >>> check_processes(0)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: --processes: 0, expected a whole number from 1
    """
    if n_processes is not None:
        if n_processes < 1:
            raise LMACError(
                f"--processes: {n_processes}, expected a whole number from 1"
            )
        if is_launched():
            raise LMACError(
                "--processes: expected without torchrun, which says how many"
            )
        n_cores = n_usable_cores()
        if n_processes > n_cores and "RANK" not in os.environ:
            print(
                f"warning: --processes: {n_processes}, but there are {n_cores} "
                "cores; more processes than that are slower, and each takes "
                "memory for the model",
                file=sys.stderr,
            )
    processes()


def say_if_alone(n_processes, n_sounds, n_used=1):
    """Say that more processes would be faster, where that is so.

    Arguments
    ---------
    n_processes : int or None
        As the command line asks for.
    n_sounds : int
        How many there are to explain.
    n_used : int
        How many this process explains at the same time.

    Example
    -------
    >>> say_if_alone(None, 3)
    """
    n_cores = n_usable_cores()
    if (
        n_processes is None
        and not is_launched()
        and n_sounds >= _MANY
        and n_cores > n_used
        and get_loudness() > Loudness.QUIET
    ):
        is_used = "is" if n_used == 1 else "are"
        print(
            f"{n_used} of {n_cores} cores {is_used} used; "
            f"--processes {n_cores} shares the work",
            file=sys.stderr,
        )


def shared(n_processes, work):
    """Work in this process, or run the same command in several.

    Arguments
    ---------
    n_processes : int or None
        How many; None for this one, which may be one of several.
    work : callable
        Called without arguments, gives the exit code.

    Returns
    -------
    int
        Exit code.

    Example
    -------
    >>> shared(None, lambda: 3)
    3
    """
    if n_processes is not None and "RANK" not in os.environ:
        words = click.get_current_context().obj or sys.argv[1:]
        return start(n_processes, words)
    with be_one_of_many():
        return work()
