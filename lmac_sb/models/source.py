"""Where a trained model comes from: a folder or a hub, and its yaml."""

import contextlib
import io
from itertools import islice
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.parameter_transfer import Pretrainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.given import (
    MOST_FILES,
    WEIGHTS,
    check_file,
    read_given,
    show_size,
)
from lmac_sb.utils.yaml_safety import one_line, safe_yaml

__all__ = [
    "HPARAMS",
    "Budget",
    "cached_file",
    "is_local",
    "load_yaml",
    "local_folder",
    "make_objects",
    "not_fetched",
    "on_hub",
    "read_hparams",
    "room_beside",
]

HPARAMS = "hyperparams.yaml"
# Of an interface of ours.
NEEDED = ("modules", "pretrainer", "preprocess", "label_encoder")
_ROOM = 64 << 20  # bytes of windows and filters, which no file holds
_STEPS = 20_000  # tensors of a model, and of what leads to them


def is_local(source):
    """Whether a source is a folder and not the id of a hub repository.

    Arguments
    ---------
    source : str or Path
        It counts as an id if it has the form ``name/repository`` and no folder
        of that name exists.

    Returns
    -------
    bool

    Example
    -------
    >>> is_local("speechbrain/cnn14-esc50"), is_local("./a/b"), is_local("a")
    (False, True, True)
    """
    source = str(source)
    is_id = source.count("/") == 1 and not source.startswith((".", "/", "~"))
    return Path(source).is_dir() or not is_id


def local_folder(source, savedir=None):
    """A model's folder on this machine.

    Arguments
    ---------
    source : str or Path
        A folder, or the id of a hub repository, ``name/repository`` or
        ``name/repository@revision``.
    savedir : str or Path
        Folder for what comes from a hub; by default the hub's own cache.

    Returns
    -------
    pathlib.Path
        `source` itself, or where the repository was downloaded to.

    Raises
    ------
    LMACError
        If there is no such folder or repository, or the hub does not answer.

    Example
    -------
    >>> local_folder("./nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ./nowhere: no such folder, expected a model
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or is_local(source):
        raise LMACError(f"{source}: no such folder, expected a model")
    from huggingface_hub import snapshot_download

    where = {} if savedir is None else {"local_dir": str(savedir)}
    repository, revision = on_hub(source)
    if revision is not None:
        where["revision"] = revision
    try:
        return Path(snapshot_download(repository, **where))
    except Exception as error:
        raise not_fetched(source, error) from error


def on_hub(source):
    """Repository and revision of a hub id.

    Arguments
    ---------
    source : str
        ``name/repository`` or ``name/repository@revision``.

    Returns
    -------
    repository : str
    revision : str or None
        None for the newest.

    Example
    -------
    >>> on_hub("name/repository@v2"), on_hub("name/repository")
    (('name/repository', 'v2'), ('name/repository', None))
    """
    repository, _, revision = str(source).partition("@")
    return repository, revision or None


def cached_file(source, name):
    """A file of a repository that was downloaded before.

    Arguments
    ---------
    source : str
        See `on_hub`.
    name : str
        Of the file.

    Returns
    -------
    pathlib.Path or None
        None if it is not in the cache.

    Example
    -------
    >>> cached_file("nobody/nothing", "config.json")
    """
    from huggingface_hub import try_to_load_from_cache

    repository, revision = on_hub(source)
    found = try_to_load_from_cache(repository, name, revision=revision)
    # Or a mark that the repository has no such file.
    return Path(found) if isinstance(found, str) else None


def not_fetched(source, error):
    """The error for what a hub does not give.

    Arguments
    ---------
    source : str
        What was asked for.
    error : Exception
        Of the hub's client, whose errors have no common class; all mean that
        there is no model.

    Returns
    -------
    LMACError

    Example
    -------
    >>> print(not_fetched("a/b", OSError("no route")))
    a/b: not a local folder, and cannot be fetched from a hub (OSError: no ...
    """
    reason = " ".join(str(error).split())
    return LMACError(
        f"{source}: not a local folder, and cannot be fetched from a hub "
        f"({type(error).__name__}: {reason})"
    )


def load_yaml(path, trusted=False, needed=None):
    """Make the objects in a yaml file.

    Arguments
    ---------
    path : str or Path
        A file of hyperpyyaml's format.
    trusted : bool
        Whether it may make any object and call any function.
    needed : tuple of str
        Keys whose objects are needed, see
        `lmac_sb.utils.yaml_safety.safe_yaml`; by default all are.

    Returns
    -------
    dict
        Objects and values by key.

    Raises
    ------
    LMACError
        If it is invalid or contains something that is not allowed, or its
        objects are much larger than the weights that lie beside it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("net: !new:torch.nn.Linear [2, 1]")
    >>> load_yaml(path)["net"].in_features
    2
    """
    path = Path(path)
    text = read_given(path)
    if trusted:
        return make_objects(text, path)
    text = safe_yaml(text, path, needed)
    return make_objects(text, path, room_beside(path.parent))


def make_objects(text, path, room=None):
    """Make the objects in a yaml text, which has been checked or is trusted.

    Arguments
    ---------
    text : str
        See `lmac_sb.utils.yaml_safety.safe_yaml`.
    path : str or Path
        Its file, for messages; what a trusted one includes lies beside it.
    room : int
        Bytes that all tensors may take; by default any number.

    Returns
    -------
    dict
        Objects and values by key.

    Raises
    ------
    LMACError
        If it is invalid, or there is no such room.

    Example
    -------
    >>> text = "net: !new:torch.nn.Linear [2, 1]"
    >>> make_objects(text, "x.yaml")["net"].in_features
    2
    >>> make_objects(text, "x.yaml", room=1)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: its objects take more than 1 byte, ...
    """
    stream = io.StringIO(text)
    stream.name = str(path)
    budget = contextlib.nullcontext() if room is None else Budget(room)
    try:
        with budget:
            return load_hyperpyyaml(stream)
    except Exception as error:
        # A yaml can call anything; hyperpyyaml wraps the resulting errors.
        reason = one_line(error.__cause__ or error)
        raise LMACError(f"{path}: {reason}") from error


def room_beside(folder):
    """Bytes that a model may take whose weights lie in a folder.

    Arguments
    ---------
    folder : str or Path
        The folder.

    Returns
    -------
    int
        Four times their size, since some are drawn at random before they are
        loaded, and as much as windows and filters may take.

    Raises
    ------
    LMACError
        If a file of weights is too large, or mostly a hole.

    Example
    -------
    >>> room_beside(getfixture("tmp_path")) >> 20
    64
    """
    files = (
        path
        for path in islice(Path(folder).rglob("*"), MOST_FILES)
        if path.suffix in WEIGHTS and path.is_file()
    )
    return 4 * sum(map(check_file, files)) + _ROOM


class Budget(TorchDispatchMode):
    """While it is entered, tensors may be made of so many bytes in all.

    Their sizes are known before they are made.

    Arguments
    ---------
    room : int
        Bytes.
    largest : int
        Bytes of each; by default as many.
    steps : int
        Number of operations.

    Example
    -------
    >>> with Budget(1000):
    ...     _ = torch.zeros(10)
    ...     _ = torch.zeros(10**12)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: its objects take more than 1.0 kB, expected no more ...
    """

    def __init__(self, room, largest=None, steps=_STEPS):
        super().__init__()
        self.room, self.left, self.steps = room, room, steps
        self.largest = room if largest is None else largest

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Do what was asked, if there is room for what it gives."""
        kwargs = kwargs or {}
        self.steps -= 1
        size = _bytes_of(func, args, kwargs)
        self.left -= size
        if self.left < 0 or size > self.largest or self.steps < 0:
            raise LMACError(
                f"its objects take more than {show_size(self.room)}, expected "
                "no more than the weights that lie beside them"
            )
        return func(*args, **kwargs)


def _bytes_of(func, args, kwargs):
    """Bytes of the new tensors that an operation gives."""
    schema = func._schema
    if any(x.alias_info is not None for x in schema.returns):
        return 0  # a view, or in place
    if any(x.name == "device" for x in schema.arguments):
        kwargs = {**kwargs, "device": "meta"}
    args, kwargs = tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), (args, kwargs)
    )
    try:
        found = func(*args, **kwargs)
    except Exception:
        # It asks for values, of which no shape that follows is large.
        return 0
    found = found if isinstance(found, (list, tuple)) else (found,)
    return sum(x.nbytes for x in found if isinstance(x, torch.Tensor))


def read_hparams(path, trusted=False, needed=NEEDED):
    """Make the objects in a model's yaml, without their weights.

    Arguments
    ---------
    path : str or Path
        A file of SpeechBrain's format, mostly ``hyperparams.yaml``.
    trusted : bool
        Whether the yaml may make any object and call any function.
    needed : tuple of str
        See `load_yaml`.

    Returns
    -------
    dict
        Objects and values by key, with at least the keys ``modules`` and
        ``pretrainer``.

    Raises
    ------
    LMACError
        If the yaml is invalid or contains something that is not allowed.
    """
    hparams = load_yaml(path, trusted, needed)
    for key, kind in (("modules", dict), ("pretrainer", Pretrainer)):
        if not isinstance(hparams.get(key), kind):
            raise LMACError(
                f"{path}: key '{key}' is missing or not a {kind.__name__}"
            )
    return hparams
