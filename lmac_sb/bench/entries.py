"""Entries by their name, or from a module of the user."""

from lmac_sb.inference.reference import (
    imported,
    is_import_path,
    searching_here,
)
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line
from lmac_sb.utils.near import near

__all__ = ["call_entry", "find_entry", "said"]


def said(error):
    """An error of the user's code on one line.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    str

    Example
    -------
    >>> said(KeyError("x"))
    "KeyError: 'x'"
    """
    return f"{type(error).__name__}: {first_line(error)}"


def call_entry(name, function, *arguments):
    """Call a function of an entry; one of the user may raise anything.

    Arguments
    ---------
    name : str
        Of the entry.
    function : callable
        Its function.
    *arguments
        Of that.

    Returns
    -------
    object
        What it gives.

    Raises
    ------
    LMACError
        If it fails, and is of the user.

    Example
    -------
    >>> call_entry("mine:data", int, "x")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: mine:data: ValueError: invalid literal for int() ...
    """
    if not is_import_path(name):
        return function(*arguments)
    try:
        with searching_here():
            return function(*arguments)
    except LMACError:
        raise
    except Exception as error:
        raise LMACError(f"{name}: {said(error)}") from error


def find_entry(kind, name, table, form):
    """An entry of a table, or one of the user.

    Arguments
    ---------
    kind : str
        What it is, for messages.
    name : str
        A name in the table, or ``package.module:name``.
    table : dict
        Name to entry.
    form : type
        What an entry is. Of a function alone, one is made.

    Returns
    -------
    object
        Of that form.

    Raises
    ------
    LMACError
        If there is none, or it is something else.

    Example
    -------
    >>> from lmac_sb.bench.data import DATA, Data
    >>> find_entry("data", "scnes", DATA, Data)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: data: unknown 'scnes'; did you mean 'scenes'? ...
    """
    if name in table:
        found = table[name]
    elif is_import_path(name):
        try:
            found = imported(name)
        except Exception as error:
            # It is the user's code: anything can happen.
            raise LMACError(
                f"{kind}: {name}: {said(error)}; expected a {form.__name__} or "
                "its function, which can be imported"
            ) from error
    else:
        raise LMACError(
            f"{kind}: unknown '{name}'{near(name, table) or ';'} there are "
            f"{', '.join(table)}, and package.module:name is one of your own"
        )
    if isinstance(found, form):
        return found
    if callable(found):
        return form(found)
    raise LMACError(
        f"{kind}: {name} is a {type(found).__name__}, expected a "
        f"{form.__name__} or its function"
    )
