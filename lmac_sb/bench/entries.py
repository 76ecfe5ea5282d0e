"""Entries by their name, or from a module of the user."""

import ast
import os
import sys
from importlib.util import resolve_name
from pathlib import Path

from lmac_sb.inference.reference import (
    SURPRISES,
    imported,
    is_import_path,
    searching_here,
)
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line
from lmac_sb.utils.near import near

__all__ = [
    "OWN",
    "call_entry",
    "check_form",
    "code_of",
    "find_entry",
    "said",
]


# How entries of one's own are written, by their kind.
OWN = {
    "methods": (
        "mine:level for what is called level in the file mine.py here, a "
        "function of explainer, analysis and target"
    ),
    "data": (
        "mine:sounds for what is called sounds in the file mine.py here, such "
        'as sounds = Data(lambda made, real: "FOLDER") of lmac_sb.bench.data'
    ),
    "classifiers": (
        "mine:classifier for what is called classifier in the file mine.py "
        "here, a function of a Setup that gives "
        '{"optimised": LMACInterpreter.from_classifier(MODEL, 16000)}'
    ),
}


def said(error):
    """An error of the user's code on one line.

    Arguments
    ---------
    error : Exception or SystemExit
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


def code_of(names):
    """Checksums of the user's own modules, which have been imported.

    Those of the names, and those that they import at their top, and so on, as
    far as they are neither installed nor parts of Python.

    Arguments
    ---------
    names : iterable of str
        Of entries and methods.

    Returns
    -------
    dict
        Module to checksum of its file.

    Example
    -------
    >>> code_of(["scenes", "sys:path"]), list(code_of(["json:loads"]))
    ({}, ['json'])
    """
    asked = {name.partition(":")[0] for name in filter(is_import_path, names)}
    found, seen, todo = {}, set(), sorted(asked)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        # With a module, those around it are imported.
        todo.append(name.rpartition(".")[0])
        module = sys.modules.get(name)
        # Parts of Python itself have none.
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        is_own = _is_own(name, Path(file))
        if is_own or name in asked:
            found[name] = file_sha256(file)
        if is_own and file.endswith(".py"):
            todo += _imports(Path(file), module.__package__)
    return found


def _is_own(name, file):
    """Whether a module is not of Python, installed, or of this package."""
    return (
        name.partition(".")[0] != "lmac_sb"
        and Path(os.__file__).parent not in file.parents
        and not {"site-packages", "dist-packages"} & {*file.parts}
    )


def _imports(file, package):
    """Modules, and names in modules, that a module imports at its top.

    What its functions import is there only when they have run.
    """
    found, todo = [], [ast.parse(file.read_bytes())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [x.name for x in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            module = resolve_name(module, package)
            found += [f"{module}.{x.name}" for x in node.names]
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            todo += ast.iter_child_nodes(node)
    return found


def check_form(kind, name):
    """Refuse what is meant for a module of the user, and is not written so.

    Arguments
    ---------
    kind : str
        What it is, for messages.
    name : str
        Any.

    Raises
    ------
    LMACError
        If it looks like a path or a module, and is no ``package.module:name``.

    Example
    -------
    >>> check_form("methods", "./mine.py:level")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: methods: found './mine.py:level', expected ...
    """
    module = name.partition(":")[0]
    odd = not is_import_path(name) and any(x in name for x in ":./\\")
    if odd or module.endswith(".py"):
        raise LMACError(
            f"{kind}: found {shown(name)}, expected a name, or {OWN[kind]}"
        )


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
    except SURPRISES as error:
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
    check_form(kind, name)
    if name in table:
        found = table[name]
    elif is_import_path(name):
        try:
            found = imported(name)
        except SURPRISES as error:
            raise LMACError(
                f"{kind}: {name}: {said(error)}; expected a {form.__name__} or "
                "its function, which can be imported"
            ) from error
    else:
        raise LMACError(
            f"{kind}: unknown '{name}'{near(name, table) or ';'} there are "
            f"{', '.join(table)}; of your own: {OWN[kind]}"
        )
    if isinstance(found, form):
        return found
    if callable(found):
        return form(found)
    raise LMACError(
        f"{kind}: {name}: found an object of the type "
        f"{type(found).__name__}, expected a {form.__name__} or its function"
    )
