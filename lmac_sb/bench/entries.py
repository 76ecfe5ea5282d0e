"""Entries by their name, or from a module of the user."""

from lmac_sb.inference.reference import imported, is_import_path
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line
from lmac_sb.utils.near import near

__all__ = ["find_entry"]


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
                f"{kind}: {name}: {type(error).__name__}: "
                f"{first_line(error)}; expected a {form.__name__} or its "
                "function, which can be imported"
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
