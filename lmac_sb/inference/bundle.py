"""Folders of a trained model: found, checked and read without surprises.

A bundle is a folder with ``hyperparams.yaml``, one file of weights for each
module, ``label_encoder.txt`` and ``SHA256SUMS``. Nothing of it is used before
its checksums hold.
"""

import shutil
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.parameter_transfer import Pretrainer

from lmac_sb.inference.yaml_safety import one_line, safe_yaml
from lmac_sb.models.classifier_folder import is_local, load_labels
from lmac_sb.models.weights import load_strict
from lmac_sb.utils.checksums import SUMS, check_sums, read_sums
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import folder_in_one_step

__all__ = [
    "HPARAMS",
    "find_bundle",
    "load_weights",
    "read_hparams",
]

HPARAMS = "hyperparams.yaml"


def find_bundle(source, savedir=None):
    """Folder of a model, on this machine or fetched from a hub.

    Arguments
    ---------
    source : str or Path
        A folder, or the id of a hub repository, ``name/repository``.
    savedir : str or Path
        Where a copy is kept, if one is wanted; one folder a model.

    Returns
    -------
    pathlib.Path
        A folder whose checksums hold.

    Raises
    ------
    LMACError
        If there is no such folder or repository, a file is missing or
        changed, or `savedir` holds another model.
    """
    folder = Path(source)
    if not folder.is_dir():
        if isinstance(source, Path) or is_local(source):
            raise LMACError(f"{source}: no such folder, a model is needed")
        folder = _download(source)
    if not (folder / SUMS).is_file():
        raise LMACError(
            f"{folder / SUMS}: no such file, expected a folder written by "
            "`lmac export`"
        )
    names = check_sums(folder)
    if HPARAMS not in names:
        raise LMACError(f"{folder / SUMS}: does not name {HPARAMS}")
    if savedir is None:
        return folder
    savedir = Path(savedir)
    if savedir.is_dir() and any(savedir.iterdir()):
        present = savedir / SUMS
        if not present.is_file() or (
            present.read_bytes() != (folder / SUMS).read_bytes()
        ):
            raise LMACError(
                f"savedir: {savedir} holds something else than the model of "
                f"{source}; give each model a folder of its own"
            )
        check_sums(savedir)
        return savedir
    _copy(folder, names, savedir)
    return savedir


def _download(repository):
    """Folder of a hub repository in the local cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository))
    except Exception as error:
        # Its errors have no common class; all mean that there is no model.
        reason = " ".join(str(error).split())
        raise LMACError(
            f"{repository}: is no local folder, and cannot be fetched from a "
            f"hub ({type(error).__name__}: {reason})"
        ) from error


def _copy(folder, names, target):
    """Copy files, never links, in one step."""
    with folder_in_one_step(target) as part:
        for name in [*names, SUMS]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, part / name)


def read_hparams(folder, trusted=False):
    """Make the objects of a model's yaml, without their weights.

    Arguments
    ---------
    folder : str or Path
        From `find_bundle`.
    trusted : bool
        Whether the yaml may make any object and call any function.

    Returns
    -------
    dict
        With the keys ``modules`` and ``pretrainer`` at least.

    Raises
    ------
    LMACError
        If the yaml is broken, or asks for what is not allowed.
    """
    path = Path(folder) / HPARAMS
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LMACError(f"{path}: is no text ({error})") from error
    if not trusted:
        text = safe_yaml(text, path)
    try:
        hparams = load_hyperpyyaml(text)
    except Exception as error:
        # A yaml can call anything; hyperpyyaml wraps what that raises.
        reason = one_line(error.__cause__ or error)
        raise LMACError(f"{path}: {reason}") from error
    for key, kind in (("modules", dict), ("pretrainer", Pretrainer)):
        if not isinstance(hparams.get(key), kind):
            raise LMACError(
                f"{path}: key '{key}' is missing or no {kind.__name__}"
            )
    return hparams


def load_weights(hparams, folder):
    """Fill the objects of a model from the files of its folder, strictly.

    Arguments
    ---------
    hparams : dict
        From `read_hparams`.
    folder : str or Path
        Where they come from, checked by `find_bundle`. For each entry of the
        pretrainer's loadables it holds ``<name>.safetensors`` or
        ``<name>.ckpt``, for the label encoder ``label_encoder.txt`` or
        ``.ckpt``.

    Raises
    ------
    LMACError
        If a file is missing or does not fit, or an object would be left with
        random weights.

    Example
    -------
    >>> hparams = read_hparams(model)
    >>> load_weights(hparams, model)
    >>> len(hparams["label_encoder"])
    3
    """
    folder = Path(folder)
    path = folder / HPARAMS
    pretrainer = hparams["pretrainer"]
    for name in ("collect_in", "paths", "custom_hooks", "conditions"):
        if getattr(pretrainer, name):
            raise LMACError(
                f"{path}: the pretrainer has {name}; leave them out, the "
                "files lie in the folder"
            )
    vouched = read_sums(folder)
    for name, item in pretrainer.loadables.items():
        if isinstance(item, CategoricalEncoder):
            kinds, hook = ("txt", "ckpt"), load_labels
        elif isinstance(item, torch.nn.Module):
            kinds, hook = ("safetensors", "ckpt"), load_strict
        else:
            raise LMACError(
                f"{path}: cannot load '{name}', a {type(item).__name__}"
            )
        files = [f"{name}.{kind}" for kind in kinds]
        found = [file for file in files if file in vouched]
        if not found:
            raise LMACError(
                f"{folder}: no file {' or '.join(files)}, needed by {HPARAMS}"
            )
        pretrainer.add_paths({name: str(folder.resolve() / found[0])})
        pretrainer.add_custom_hooks({name: hook})
    loadables = torch.nn.ModuleList(
        item
        for item in pretrainer.loadables.values()
        if isinstance(item, torch.nn.Module)
    )
    loaded = _saved_ids(loadables)
    for name, module in hparams["modules"].items():
        if not _saved_ids(module) <= loaded:
            raise LMACError(
                f"{path}: the pretrainer does not load all weights of '{name}'"
            )
    encoder = hparams.get("label_encoder")
    if not any(item is encoder for item in pretrainer.loadables.values()):
        raise LMACError(f"{path}: the pretrainer does not load label_encoder")
    pretrainer.collect_files()
    pretrainer.load_collected()


def _saved_ids(module):
    """Which tensors a module saves."""
    return {id(x) for x in module.state_dict(keep_vars=True).values()}
