"""Where a trained model comes from: a folder or a hub, and its yaml."""

import contextlib
import io
import math
from itertools import islice, zip_longest
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.parameter_transfer import Pretrainer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from lmac_sb.utils.errors import LMACError, let_out
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
    "why_not_fetched",
]

HPARAMS = "hyperparams.yaml"
# Of an interface of ours.
NEEDED = ("modules", "pretrainer", "preprocess", "label_encoder")
# Names of errors of requests and httpx, one of which a hub's client uses.
_OFFLINE = {"ConnectionError", "ConnectError", "ConnectTimeout"}
_ROOM = 64 << 20  # bytes of windows and filters, which no file holds
_STEPS = 6000  # tensors of a model, and of what leads to them
# What gives a value for each place of what it is given.
_BY_PLACE = {
    getattr(room, name)
    for room in (torch, torch.Tensor)
    for name in ("add", "sub", "mul", "div", "min", "max")
}
_PRODUCTS = {torch.matmul, torch.Tensor.matmul}


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

    Raises
    ------
    LMACError
        If no repository can have that name.

    Example
    -------
    >>> cached_file("nobody/nothing", "config.json")
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repository, revision = on_hub(source)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise LMACError(
            f"{source}: no such file or folder, and no id of a hub, expected "
            "a folder's path or owner/name"
        ) from error
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
    return LMACError(
        f"{source}: not a local folder, and cannot be fetched from a hub "
        f"({why_not_fetched(error)})"
    )


def why_not_fetched(error):
    """What an error of a hub's client says, in short.

    Arguments
    ---------
    error : Exception
        Of the client, or of what it asks by.

    Returns
    -------
    str
        Of a failed connection, which such clients tell in nested errors, that
        there is none; of others, their class and text.

    Example
    -------
    >>> why_not_fetched(OSError("no route"))
    'OSError: no route'
    >>> why_not_fetched(ConnectionError("HTTPSConnectionPool(host=..."))
    'no connection to huggingface.co'
    """
    reason = " ".join(str(error).split())
    kinds = {kind.__name__ for kind in type(error).__mro__}
    # What is wrong with a certificate has to be told.
    if kinds & _OFFLINE and "SSL" not in reason:
        from huggingface_hub.constants import ENDPOINT

        return f"no connection to {ENDPOINT.partition('://')[2]}"
    return f"{type(error).__name__}: {reason}"


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
        let_out(error)
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


class Budget(TorchFunctionMode):
    """While it is entered, tensors may be made of so many bytes in all.

    Their sizes are known before they are made.

    Arguments
    ---------
    room : int
        Bytes.
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

    def __init__(self, room, steps=_STEPS):
        super().__init__()
        self.room, self.left, self.steps = room, room, steps

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Do what was asked, if there is room for what it gives."""
        kwargs = kwargs or {}
        self.steps -= 1
        given = _tensors((args, kwargs))
        # Some were made by a way that is not seen here.
        if max((x.nbytes for x in given), default=0) > self.room:
            self._take(self.room + 1)
        # A look ahead takes longer than most operations do, and imports
        # what compiles models, which takes seconds.
        if _most_bytes(func, args, kwargs) > self.left:
            self._take(_bytes_ahead(func, args, kwargs), spend=False)
        found = func(*args, **kwargs)
        known = {_place_of(x) for x in given}
        new = [x for x in _tensors(found) if _place_of(x) not in known]
        self._take(sum(x.nbytes for x in new))
        return found

    def _take(self, size, spend=True):
        """Refuse what there is no room for; take the room, unless it waits."""
        if size > self.left or self.steps < 0:
            raise LMACError(
                f"its objects take more than {show_size(self.room)}, expected "
                "no more than the weights that lie beside them"
            )
        self.left -= size if spend else 0


def _most_bytes(func, args, kwargs):
    """What an operation on tensors and sizes gives, at the very most."""
    count, values = 16, tree_leaves((args, kwargs))  # of the largest numbers
    if func in _BY_PLACE:
        shapes = [x.shape[::-1] for x in values if isinstance(x, torch.Tensor)]
        return count * math.prod(map(max, zip_longest(*shapes, fillvalue=1)))
    if func in _PRODUCTS:
        one, other = values[:2]
        sizes = [*one.shape[:-1], *other.shape[:-2], *other.shape[1:][-1:]]
        return count * math.prod(sizes)
    if func is torch.eye:
        # Its one size is that of both axes.
        values += [value for value in values if isinstance(value, int)]
    for value in values:
        if isinstance(value, torch.Tensor):
            count *= max(1, value.numel())
        elif isinstance(value, int):
            count *= max(1, abs(value))
    return count


def _bytes_ahead(func, args, kwargs):
    """Bytes of what an operation gives, which is not done."""
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": "meta"}
    args, kwargs = tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), (args, kwargs)
    )
    try:
        with torch.device("meta"):
            return sum(x.nbytes for x in _tensors(func(*args, **kwargs)))
    except (NotImplementedError, RuntimeError):
        # It asks for values, of which no shape that follows is large.
        return 0


def _tensors(values):
    """The tensors in what an operation takes or gives."""
    return [x for x in tree_leaves(values) if isinstance(x, torch.Tensor)]


def _place_of(tensor):
    """Where the numbers of a tensor lie: a view lies where its base does."""
    return tensor.untyped_storage().data_ptr()


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
