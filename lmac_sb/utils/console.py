"""How much a command prints: the usual, less, or more."""

import enum
import logging

from lmac_sb.utils.errors import LMACError

__all__ = [
    "Loudness",
    "NotesIfVerbose",
    "choose_loudness",
    "get_loudness",
    "progress",
    "say",
    "say_table",
    "set_loudness",
]

MOST_LINES = 16  # of a table on the console


class Loudness(enum.IntEnum):
    """How much is printed.

    Example
    -------
    >>> Loudness.QUIET < Loudness.USUAL < Loudness.VERBOSE
    True
    """

    QUIET = 0  # results, warnings and errors
    USUAL = 1  # also a line an epoch, and progress bars on a terminal
    VERBOSE = 2  # also notes, all values of an epoch, and whole tables


_now = {"loudness": Loudness.USUAL}


def get_loudness():
    """How much is printed now.

    Returns
    -------
    Loudness

    Example
    -------
    >>> get_loudness().name
    'USUAL'
    """
    return _now["loudness"]


def set_loudness(loudness):
    """Print more or less from now on.

    Arguments
    ---------
    loudness : Loudness
        How much.

    Example
    -------
    >>> set_loudness(Loudness.QUIET)
    >>> say("epoch 1")
    >>> set_loudness(Loudness.USUAL)
    >>> say("epoch 1")
    epoch 1
    """
    _now["loudness"] = loudness


def choose_loudness(quiet, verbose):
    """Print as much as a command line asks for, from now on.

    Arguments
    ---------
    quiet, verbose : bool
        Whether it has ``--quiet``, ``--verbose``.

    Raises
    ------
    LMACError
        If it has both.

    Example
    -------
    >>> choose_loudness(quiet=False, verbose=False)
    >>> get_loudness().name
    'USUAL'
    """
    if quiet and verbose:
        raise LMACError("command line: expected --quiet or --verbose, not both")
    loud = Loudness.VERBOSE if verbose else Loudness.USUAL
    set_loudness(Loudness.QUIET if quiet else loud)


def say(text, loudness=Loudness.USUAL):
    """Print a line, above the progress bar if there is one.

    Arguments
    ---------
    text : str
        The line.
    loudness : Loudness
        The least at which it is printed.

    Example
    -------
    >>> say("clip 3 is left out", Loudness.VERBOSE)
    """
    if get_loudness() >= loudness:
        from tqdm import tqdm

        tqdm.write(text)


def say_table(text, path):
    r"""Print a table if it is short, and the file that has it.

    Arguments
    ---------
    text : str
        The table.
    path : str or Path
        The file.

    Example
    -------
    >>> say_table("row\n" * 99, "results/summary.md")
    table of 99 lines: results/summary.md
    """
    n_lines = len(text.splitlines())
    if n_lines > MOST_LINES and get_loudness() < Loudness.VERBOSE:
        say(f"table of {n_lines} lines: {path}", Loudness.QUIET)
        return
    say(text.rstrip("\n"), Loudness.QUIET)
    say(f"table: {path}", Loudness.QUIET)


def progress(iterable=None, **options):
    """A progress bar: on a terminal alone, and not if it shall be quiet.

    Arguments
    ---------
    iterable : iterable
        What is counted, if it is one.
    **options
        Of `tqdm.tqdm`.

    Returns
    -------
    tqdm.tqdm

    Example
    -------
    >>> list(progress([1, 2]))
    [1, 2]
    """
    from tqdm import tqdm  # which help and refusals need not wait for

    # None: tqdm looks whether its output is a terminal.
    quiet = True if get_loudness() is Loudness.QUIET else None
    hidden = options.pop("disable", False) or quiet
    return tqdm(iterable, disable=hidden, leave=False, **options)


class NotesIfVerbose(logging.Filter):
    """Lets warnings pass to the console, and notes if more is wanted.

    Example
    -------
    >>> note = logging.makeLogRecord({"levelno": logging.INFO})
    >>> NotesIfVerbose().filter(note)
    False
    """

    def filter(self, record):
        """Whether a record is printed."""
        verbose = get_loudness() is Loudness.VERBOSE
        return record.levelno >= (logging.INFO if verbose else logging.WARNING)
