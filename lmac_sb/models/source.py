"""Where a trained model comes from: a folder or a hub, and its yaml."""

import io
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.parameter_transfer import Pretrainer

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.yaml_safety import one_line, safe_yaml

__all__ = [
    "HPARAMS",
    "cached_file",
    "is_local",
    "load_yaml",
    "local_folder",
    "not_fetched",
    "on_hub",
    "read_hparams",
]

HPARAMS = "hyperparams.yaml"


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


def load_yaml(path, trusted=False):
    """Make the objects in a yaml file.

    Arguments
    ---------
    path : str or Path
        A file of hyperpyyaml's format.
    trusted : bool
        Whether it may make any object and call any function.

    Returns
    -------
    dict
        Objects and values by key.

    Raises
    ------
    LMACError
        If it is invalid or contains something that is not allowed.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.yaml"
    >>> _ = path.write_text("net: !new:torch.nn.Linear [2, 1]")
    >>> load_yaml(path)["net"].in_features
    2
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LMACError(f"{path}: not a text file ({error})") from error
    stream = io.StringIO(text if trusted else safe_yaml(text, path))
    # What a trusted file includes lies beside it.
    stream.name = str(path)
    try:
        return load_hyperpyyaml(stream)
    except Exception as error:
        # A yaml can call anything; hyperpyyaml wraps the resulting errors.
        reason = one_line(error.__cause__ or error)
        raise LMACError(f"{path}: {reason}") from error


def read_hparams(path, trusted=False):
    """Make the objects in a model's yaml, without their weights.

    Arguments
    ---------
    path : str or Path
        A file of SpeechBrain's format, mostly ``hyperparams.yaml``.
    trusted : bool
        Whether the yaml may make any object and call any function.

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
    hparams = load_yaml(path, trusted)
    for key, kind in (("modules", dict), ("pretrainer", Pretrainer)):
        if not isinstance(hparams.get(key), kind):
            raise LMACError(
                f"{path}: key '{key}' is missing or not a {kind.__name__}"
            )
    return hparams
