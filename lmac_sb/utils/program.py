"""How the command ``lmac`` was called."""

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["CALLED", "program"]

# Set for processes that a command has started: how that one was called.
CALLED = "LMAC_CALLED"


def program():
    """How the command ``lmac`` is called from where the user stands.

    Returns
    -------
    list of str or None
        ``lmac``, where a shell finds it by that name; else its path, or
        ``python -m lmac_sb``. None if this process is another program.

    Example
    -------
    >>> program() is None
    True
    """
    if CALLED in os.environ:
        return shlex.split(os.environ[CALLED])
    called = Path(sys.argv[0])
    if called.parts[-2:] == ("lmac_sb", "__main__.py"):
        return ["python", "-m", "lmac_sb"]
    if called.stem != "lmac":
        return None
    found = shutil.which("lmac")
    if found and called.is_file() and not Path(found).samefile(called):
        return [sys.argv[0]]
    return ["lmac"] if found else [sys.argv[0]]
