"""What commands print: texts that any terminal shows, and what comes next."""

import os
import shlex
import sys

from lmac_sb.utils.console import say
from lmac_sb.utils.program import program

__all__ = ["command_line", "printable", "say_next"]


def printable(text):
    r"""Text without characters that the terminal cannot show.

    Arguments
    ---------
    text : str
        Any, such as the name of a file.

    Returns
    -------
    str

    Example
    -------
    >>> printable("a\nb")
    'a?b'
    """
    text = "".join(c if c.isprintable() else "?" for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def command_line(*words):
    """A command of this program, to be given to a shell.

    Arguments
    ---------
    *words : str or Path
        The command's name, and what it is given.

    Returns
    -------
    str
        Quoted where a shell needs it.

    Example
    -------
    >>> command_line("report", "my sounds")
    "lmac report 'my sounds'"
    """
    return shlex.join([*(program() or ["lmac"]), *map(str, words)])


def say_next(*commands):
    """Print what a user may want to run next, unless that is too much.

    Of several processes, one does.

    Arguments
    ---------
    *commands : str
        From `command_line`.

    Example
    -------
    >>> say_next(command_line("report", "explained"))
    next: lmac report explained
    """
    if os.environ.get("RANK", "0") == "0":
        for command in commands:
            say(printable(f"next: {command}"))
