"""Who runs a program: a container may give a number without a name."""

import getpass
import os
import tempfile
from pathlib import Path

__all__ = ["help_torch", "home_name", "user_name"]


def user_name():
    """Name of the user.

    Returns
    -------
    str or None
        None where the system knows a number alone.

    Example
    -------
    >>> user_name() == "nobody of that name"
    False
    """
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return None


def home_name():
    """Name of the user's home folder.

    Returns
    -------
    str or None
        None where there is no home.

    Example
    -------
    >>> home_name() == "no folder of that name"
    False
    """
    try:
        return Path.home().name
    except RuntimeError:
        return None


def help_torch():
    """Let torch make an optimizer for a user without a name.

    It names a folder for compiled code after the user, and fails without one,
    though nothing is compiled.

    Example
    -------
    >>> help_torch()
    """
    if user_name() is None:
        folder = os.path.join(
            tempfile.gettempdir(), f"torchinductor_{os.getuid()}"
        )
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)
