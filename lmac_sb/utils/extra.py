"""Packages that only some commands need."""

import importlib

from lmac_sb.utils.errors import LMACError

__all__ = ["needed"]

_INSTALL = 'pip install "lmac-sb[corpus]"'
_WITH = {"pyarrow": ("pyarrow.ipc", "pyarrow.parquet")}  # what reads files


def needed(name):
    """A package of the extra `corpus`, or an error that says how to get it.

    Arguments
    ---------
    name : str
        ``pyarrow`` or ``pandas``.

    Returns
    -------
    module

    Raises
    ------
    LMACError
        If it is not installed.

    Example
    -------
    >>> needed("pyarrow").__name__
    'pyarrow'
    """
    try:
        module = importlib.import_module(name)
        for part in _WITH.get(name, ()):
            importlib.import_module(part)
    except ImportError as error:
        raise LMACError(
            f"{name}: not installed, tables need it; run: {_INSTALL}"
        ) from error
    return module
