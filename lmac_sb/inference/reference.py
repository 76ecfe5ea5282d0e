"""Where a user's classifier lies: a hub, a folder, or a function of theirs."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from lmac_sb.adapters.named import is_named
from lmac_sb.models.source import cached_file, is_local, on_hub
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError, kind_of, shown
from lmac_sb.utils.given import MOST_FILES, check_file
from lmac_sb.utils.io import first_line
from lmac_sb.utils.yaml_safety import BY_OPTION

__all__ = [
    "SURPRISES",
    "call_import_path",
    "find_referred",
    "imported",
    "is_import_path",
    "refer_to",
    "searching_here",
]

# What the user's code may raise: anything. Scripts end in SystemExit.
SURPRISES = (Exception, SystemExit)
_IMPORT_PATH = re.compile(
    r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*"
)


def is_import_path(model: Any) -> bool:
    """Whether a model is given as ``package.module:function``.

    Arguments
    ---------
    model : object
        Whatever a user gives as a model.

    Returns
    -------
    bool

    Example
    -------
    >>> is_import_path("my.models:load"), is_import_path("facebook/wav2vec2")
    (True, False)
    """
    return isinstance(model, str) and bool(_IMPORT_PATH.fullmatch(model))


@contextmanager
def searching_here() -> Iterator[None]:
    """Let Python find modules in the folder in which it runs.

    Returns
    -------
    context manager

    Example
    -------
    >>> import os, sys
    >>> with searching_here():
    ...     {"", os.getcwd()} & {*sys.path} != set()
    True
    """
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def imported(name: str) -> Any:
    """What a module of the user calls so.

    Arguments
    ---------
    name : str
        ``package.module:name``; the folder in which Python runs is searched
        too.

    Returns
    -------
    object

    Raises
    ------
    Exception
        Whatever the user's module raises.

    Example
    -------
    >>> imported("math:pi")
    3.141592653589793
    """
    module, _, path = name.partition(":")
    with searching_here():
        found = whole = importlib.import_module(module)
        for part in path.split("."):
            if not hasattr(found, part):
                file = getattr(whole, "__file__", f"the module '{module}'")
                raise AttributeError(f"{file} has no '{path}'")
            found = getattr(found, part)
    return found


def call_import_path(name: str, trusted: bool) -> dict[str, Any]:
    """What a function of the user gives, as arguments of `from_classifier`.

    The folder in which Python runs is searched too.

    Arguments
    ---------
    name : str
        ``package.module:function``. The function takes no arguments. It
        returns a model, or a dict of arguments of
        `lmac_sb.LMACInterpreter.from_classifier`, with the key ``model``, or
        an interpreter. A module (`torch.nn.Module`) in place of the function
        is the model.
    trusted : bool
        Whether the user's code may run.

    Returns
    -------
    dict
        With the key ``model``.

    Raises
    ------
    LMACError
        If it is not trusted, cannot be imported, or fails.

    Example
    -------
    >>> call_import_path("my.models:load", trusted=False)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: my.models:load runs code, expected trusted=True...
    """
    import torch

    if not trusted:
        raise LMACError(
            f"model: {name} runs code, expected trusted=True if you know its "
            f"author {BY_OPTION}"
        )
    try:
        with searching_here():
            found = imported(name)
    except SURPRISES as error:
        raise LMACError(
            f"model: {name}: {type(error).__name__}: {first_line(error)}; "
            "expected a function that can be imported and takes no arguments"
        ) from error
    if not isinstance(found, torch.nn.Module):
        found = _called(found, name)
    if not isinstance(found, Mapping):
        return {"model": found}
    if "model" not in found:
        raise LMACError(
            f"model: {name} returned a dict of {', '.join(map(str, found))}, "
            "expected the key 'model' among them"
        )
    return dict(found)


def _called(function: Any, name: str) -> Any:
    """What a function of the user returns."""
    needed = "expected a function that takes no arguments"
    if not callable(function):
        raise LMACError(f"model: {name}: found {shown(function)}, {needed}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise LMACError(f"model: {name}: {error}, {needed}") from error
    except ValueError:
        pass  # of a builtin, which does not tell
    try:
        with searching_here():
            return function()
    except SURPRISES as error:
        reason = " ".join(str(error).split())[:300]
        raise LMACError(
            f"model: {name}: it ran, and raised {type(error).__name__}: "
            f"{reason}"
        ) from error


def refer_to(model: Any, leave_out: Path | None = None) -> dict[str, Any]:
    """How to find a model again, and to know it when it is found.

    Arguments
    ---------
    model : str or Path
        ``package.module:function``; the folder or yaml of a model; a name,
        see `lmac_sb.adapters.named`; or the id of a hub repository,
        ``name/repository`` or ``name/repository@revision``.
    leave_out : Path
        Folder that refers to it, from which its path is seen; where it lies
        within that of the model, its files do not count.

    Returns
    -------
    dict
        Plain values: ``kind``, and ``name``; ``path`` and checksums by file;
        or ``id`` and ``revision``, the commit.

    Raises
    ------
    LMACError
        If it is no text, there is no such folder, or the commit is not known.

    Example
    -------
    >>> refer_to("my.models:load")
    {'kind': 'function', 'name': 'my.models:load'}
    """
    if is_import_path(model):
        return {"kind": "function", "name": model}
    if is_named(model):
        return {"kind": "name", "name": model}
    if not isinstance(model, (str, Path)):
        raise LMACError(
            f"model: found {kind_of(model)}, which is not saved with "
            "the decoder, expected to know where it comes from: "
            'save(folder, model="package.module:function"), of a function '
            "that returns it, or model= with its folder or hub id"
        )
    path = Path(model)
    if path.exists() or is_local(on_hub(model)[0]):
        if not path.exists():
            raise LMACError(f"model: {model}: no such folder")
        return {
            "kind": "folder",
            "path": _path_from(leave_out, path),
            "files": _sums(path, leave_out),
        }
    return {
        "kind": "hub",
        "id": on_hub(model)[0],
        "revision": _commit(str(model)),
    }


def _path_from(folder: Path | None, path: Path) -> str:
    """Where a model lies, seen from the folder that refers to it."""
    if folder is None:
        return str(path.resolve())
    # An absolute one would tell others of the maker's machine.
    return os.path.relpath(path.resolve(), folder.resolve())


def _sums(path: Path, leave_out: Path | None = None) -> dict[str, str]:
    """Checksums of the files of a model, by name."""
    folder = path if path.is_dir() else path.parent
    names = _names(folder, leave_out)
    return {name: file_sha256(folder / name) for name in names}


def _names(folder: Path, leave_out: Path | None) -> list[str]:
    """The files of a model, none of which is read."""
    leave_out = leave_out and leave_out.resolve()
    found = [
        file.relative_to(folder).as_posix()
        for file in islice(folder.rglob("*"), MOST_FILES)
        if file.is_file()
        and not _is_hidden(file.relative_to(folder))
        and leave_out not in file.resolve().parents
    ]
    if len(found) >= MOST_FILES:
        raise LMACError(
            f"{folder}: holds more than {MOST_FILES} files, expected those of "
            "a model"
        )
    return sorted(found)


def _is_hidden(path: Path) -> bool:
    """Whether a file belongs to git, the hub's client or Python."""
    return any(
        part.startswith(".") or part == "__pycache__" for part in path.parts
    )


def _commit(source: str) -> str:
    """Commit of a hub repository: that in the cache, or the hub's own."""
    from huggingface_hub import HfApi

    for name in ("config.json", "hyperparams.yaml"):
        found = cached_file(source, name)
        if found is not None:
            # .../snapshots/<commit>/<name>
            return str(found.parent.name)
    repository, revision = on_hub(source)
    try:
        return str(HfApi().model_info(repository, revision=revision).sha)
    except Exception as error:
        raise LMACError(
            f"model: {repository}: its commit is neither in the cache nor "
            f"told by the hub ({type(error).__name__}: {first_line(error)})"
        ) from error


def find_referred(
    reference: dict[str, Any], folder: Path, moved: Any = None
) -> str:
    """The model of a reference, as `from_classifier` takes it.

    Arguments
    ---------
    reference : dict
        From `refer_to`.
    folder : Path
        In which the reference was found, whose files do not count.
    moved : str or Path
        Where the model's folder lies now, if not where it was.

    Returns
    -------
    str
        Import path, folder, or hub id with the commit.

    Raises
    ------
    LMACError
        If a folder is gone, or its files are not those that were there.
    """
    kind = reference.get("kind")
    needed = {"folder": ("path", "files"), "hub": ("id", "revision")}
    for key in needed.get(str(kind), ("name",)):
        if not isinstance(reference.get(key), dict if key == "files" else str):
            raise LMACError(f"{folder}: its model has no {key}")
    is_kind = {"function": is_import_path, "name": is_named}.get(kind)
    if is_kind is not None:
        found = reference["name"] if moved is None else moved
        if moved is None and not is_kind(found):
            raise LMACError(f"{folder}: {shown(found)} is no {kind}")
        return str(found)
    if kind == "hub" and moved is None:
        return f"{reference['id']}@{reference['revision']}"
    if kind not in ("folder", "hub"):
        raise LMACError(
            f"{folder}: its model is of the kind {shown(kind)}, expected "
            "function, name, folder or hub"
        )
    place = os.path.normpath(folder.resolve() / reference["path"])
    path = Path(moved or place)
    if not path.exists():
        raise LMACError(
            f"{folder}: the model that it explains is not in {path} any more; "
            "say where it is with model="
        )
    if kind == "folder":
        _check_files(path, reference["files"], folder)
    return str(path)


def _check_files(path: Path, expected: dict[str, str], folder: Path) -> None:
    """Refuse a folder with other files than there were."""
    place = path if path.is_dir() else path.parent
    found = set(_names(place, folder))
    # Names come first: hashing takes long.
    for name in sorted(found ^ set(expected)) + sorted(expected):
        what = "has changed"
        if name not in found:
            what = "is gone"
        elif name not in expected:
            what = "is new"
        elif check_file(place / name) >= 0 and (
            file_sha256(place / name) == expected[name]
        ):
            continue
        raise LMACError(
            f"{path}: {name} {what} since {folder} was saved, expected the "
            "model that it was made for; make the interpreter again from this "
            "one"
        )
