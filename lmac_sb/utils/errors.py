"""The one exception for a user's mistake, and what tells that it is one."""

from __future__ import annotations

import errno
import functools
import numbers
import os
import re
import reprlib
import sys
import time
from typing import Any, Callable

__all__ = [
    "LMACError",
    "exit_on_user_error",
    "in_words",
    "is_full",
    "is_number",
    "is_whole",
    "kind_of",
    "leave_it_to_the_first",
    "let_out",
    "shown",
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PATIENCE_S = 10
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


class LMACError(ValueError):
    """Bad input, described in one message.

    The message names the file or the key, says what was found and what is
    needed. Scripts print it without a traceback (see `exit_on_user_error`).

    Example
    -------
    >>> raise LMACError("fold 7: found in train_fold_nums, folds are 1 to 5")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: fold 7: found in train_fold_nums, folds are 1 to 5
    """

    # The name that users import, and so the one that a traceback shows.
    __module__ = "lmac_sb"


def shown(value: object) -> str:
    r"""What a file holds, to be named in a message.

    Arguments
    ---------
    value : object
        A text, number, list or dict, as it was read.

    Returns
    -------
    str
        One line without control characters, shortened where it is long.

    Example
    -------
    >>> shown("a\nb"), len(shown("x" * 1000))
    ("'a\\nb'", 100)
    """
    text = _SHORT.repr(value)
    if not isinstance(value, str):
        # Where an object lies tells nobody anything.
        text = re.sub(r" at 0x[0-9A-Fa-f]+", "", text)
    return re.sub(r"\s*\n\s*", " ", text)


def kind_of(value: object) -> str:
    """What a value is, to be named in a message.

    Arguments
    ---------
    value : object
        Anything.

    Returns
    -------
    str
        The name of its class with an article.

    Example
    -------
    >>> kind_of(3), kind_of({}), kind_of(None)
    ('an int', 'a dict', 'None')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    begins = name.startswith(tuple("AEIOaeio")) or name == "ndarray"
    return f"{'an' if begins else 'a'} {name}"


def is_whole(value: object) -> bool:
    """Whether a value is a whole number, of NumPy's types too; True is none.

    Arguments
    ---------
    value : object
        Anything.

    Returns
    -------
    bool

    Example
    -------
    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a real number, of NumPy's types too; True is none.

    Arguments
    ---------
    value : object
        Anything.

    Returns
    -------
    bool

    Example
    -------
    >>> is_number(0.5), is_number(3), is_number("3"), is_number(True)
    (True, True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full, or a user's part of it.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    bool

    Example
    -------
    >>> is_full(OSError(errno.ENOSPC, "full")), is_full(OSError("gone"))
    (True, False)
    """
    return isinstance(error, OSError) and error.errno in _FULL


def in_words(error: BaseException) -> str:
    """What an error says, to be printed.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    str
        Its text; of what a user has no right to, the file and what is wrong
        with it.

    Example
    -------
    >>> in_words(PermissionError(errno.EACCES, "Permission denied", "x.wav"))
    'x.wav: cannot be read or written to (Permission denied)'
    """
    if isinstance(error, PermissionError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        return f"{name}: cannot be read or written to ({error.strerror})"
    return str(error)


def let_out(error: BaseException | None) -> None:
    """Raise what is meant to end the program, if an error has wrapped it.

    `pydoc.locate`, which finds what a yaml names, makes an error even of
    Ctrl-C within an import.

    Arguments
    ---------
    error : Exception
        What a yaml's loader has raised.

    Raises
    ------
    KeyboardInterrupt
        Or SystemExit.

    Example
    -------
    >>> let_out(ValueError("of a yaml"))
    """
    while error is not None:
        value = getattr(error, "value", None)
        if isinstance(value, (KeyboardInterrupt, SystemExit)):
            raise value
        error = error.__cause__ or error.__context__


def exit_on_user_error(main: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a script's `main`, so that an `LMACError` ends it in one line.

    So does Ctrl-C. Where the process has no standard output or error, as those
    of some launchers, what is printed there is lost, and no error.

    Arguments
    ---------
    main : callable
        The script's entry point.

    Returns
    -------
    callable
        The same function; on `LMACError`, on a full disk, or on a file that
        the user has no right to, it prints ``error: <message>`` to the
        standard error and exits with code 1; on Ctrl-C, ``stopped``, and 130.
        Of several processes only one prints it. Where nobody reads what it
        prints any more, as after ``| head``, it ends with code 1 and without
        a word.

    Example
    -------
    >>> @exit_on_user_error
    ... def main():
    ...     raise LMACError("x.wav: empty file")
    >>> main()
    Traceback (most recent call last):
    ...
    SystemExit: 1
    """

    @functools.wraps(main)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        """Call it; print a user's mistake and exit."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            leave_it_to_the_first()
            print("stopped", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            leave_it_to_the_first()
            if isinstance(error, (LMACError, PermissionError)):
                message = in_words(error)
            elif isinstance(error, BrokenPipeError) and _is_unread():
                sys.exit(1)
            elif is_full(error):
                named = getattr(error, "filename", None) is not None
                where = "" if named else " where results or what is printed go"
                message = f"{error}; free some space{where}, then start again"
            else:
                raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)

    return wrapper


def _is_unread() -> bool:
    """Whether nobody reads the standard output; then it is lost."""
    try:
        print(flush=True)
    except BrokenPipeError:
        # Python would complain at its end that it cannot write the rest.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return True
    return False


def leave_it_to_the_first() -> None:
    """Let the first process tell what ends all of a run, if it is about to.

    The others meet the same error, or miss the first one. The launcher stops
    them as soon as that has ended, so they wait for it before they speak.

    Example
    -------
    >>> leave_it_to_the_first()
    """
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_PATIENCE_S)
