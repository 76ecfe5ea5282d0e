"""Find and check the folder of a trained model, and load its weights.

Such a folder, a bundle, holds ``hyperparams.yaml``, a file of weights for each
module, ``label_encoder.txt`` and ``SHA256SUMS``. Nothing in it is used before
the checksums have been checked.
"""

import shutil
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.models.classifier_folder import load_labels
from lmac_sb.models.source import HPARAMS, local_folder
from lmac_sb.models.weights import load_strict
from lmac_sb.utils.checksums import SUMS, check_sums, read_sums
from lmac_sb.utils.errors import LMACError, is_number, kind_of, shown
from lmac_sb.utils.io import as_path, folder_in_one_step

__all__ = ["check_work", "find_bundle", "load_weights"]

# What an explanation may take of a model that nobody vouches for.
MOST = {
    "sample_rate": 768_000,  # Hz
    "seconds": 600,  # of a clip or window
    "refine_steps": 1000,
    "n_fft": 1 << 17,
    "cells": 1 << 25,  # frames times bins of a clip or window
    "samples": 1 << 26,  # of a window
    "overlap": 64,  # windows over a sample
}


def find_bundle(source, savedir=None):
    """Folder of a model, which is local or downloaded from a hub.

    Arguments
    ---------
    source : str or Path
        A folder, or the id of a hub repository, ``name/repository``.
    savedir : str or Path
        Folder for a copy of this model; by default no copy is made.

    Returns
    -------
    pathlib.Path
        A folder whose checksums match.

    Raises
    ------
    LMACError
        If it is no path, there is no such folder or repository, a file is
        missing, changed or added, or a link out of the folder, or `savedir`
        holds another model.
    """
    as_path("source", source)  # or a hub id, as long as it is a text
    folder = local_folder(source)
    if not (folder / SUMS).exists():
        raise LMACError(
            f"{folder / SUMS}: no such file, expected a folder written by "
            "`lmac export`"
        )
    if HPARAMS not in read_sums(folder):
        raise LMACError(f"{folder / SUMS}: does not name {HPARAMS}")
    names = check_sums(folder, complete=True, hidden=False)
    if savedir is None:
        return folder
    savedir = as_path("savedir", savedir)
    if savedir.is_dir() and any(savedir.iterdir()):
        present = savedir / SUMS
        if not present.is_file() or read_sums(savedir) != read_sums(folder):
            raise LMACError(
                f"savedir: {savedir} does not hold the model of {source}; use "
                "a separate folder for each model"
            )
        check_sums(savedir, complete=True, hidden=False)
        return savedir
    _copy(folder, names, savedir)
    return savedir


def _copy(folder, names, target):
    """Copy files, never links, in one step."""
    with folder_in_one_step(target) as part:
        for name in [*names, SUMS]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, part / name)


def check_work(settings, source):
    """Refuse settings with which an explanation would take hours or all memory.

    Arguments
    ---------
    settings : dict
        Some of `MOST`: name to value, None where there is none.
    source : str or Path
        Where they come from, for messages.

    Raises
    ------
    LMACError
        If one is too large, or no number.

    Example
    -------
    >>> check_work({"refine_steps": 20, "seconds": None}, "model")
    >>> check_work({"refine_steps": 10**9}, "model")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: refine_steps is 1000000000, expected at most 1000
    """
    for name, value in settings.items():
        is_finite = is_number(value) and value == value
        if value is not None and not (is_finite and value <= MOST[name]):
            raise LMACError(
                f"{source}: {name} is {shown(value)}, expected at most "
                f"{MOST[name]}"
            )


def load_weights(hparams, folder):
    """Load the weights and class names of a model, strictly.

    Arguments
    ---------
    hparams : dict
        Objects from `lmac_sb.models.source.read_hparams`.
    folder : str or Path
        The model's folder, checked by `find_bundle`. It holds
        ``<name>.safetensors`` or ``<name>.ckpt`` for each of the pretrainer's
        loadables, and ``label_encoder.txt`` or ``.ckpt``.

    Raises
    ------
    LMACError
        If a file is missing or does not fit, or an object would keep random
        weights.

    Example
    -------
    >>> from lmac_sb.models.source import read_hparams
    >>> hparams = read_hparams(model / "hyperparams.yaml")
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
                f"{path}: the pretrainer has {name}, expected none: the files "
                "are in this folder"
            )
    vouched = read_sums(folder)
    for name, item in pretrainer.loadables.items():
        if isinstance(item, CategoricalEncoder):
            kinds, hook = ("txt", "ckpt"), load_labels
        elif isinstance(item, torch.nn.Module):
            kinds, hook = ("safetensors", "ckpt"), load_strict
        else:
            raise LMACError(f"{path}: cannot load '{name}', {kind_of(item)}")
        files = [f"{name}.{kind}" for kind in kinds]
        found = [file for file in files if file in vouched]
        if not found:
            raise LMACError(
                f"{folder}: no file {' or '.join(files)}, expected by {HPARAMS}"
            )
        pretrainer.add_paths({name: str(folder.resolve() / found[0])})
        pretrainer.add_custom_hooks({name: hook})
    loadables = torch.nn.ModuleList(
        item
        for item in pretrainer.loadables.values()
        if isinstance(item, torch.nn.Module)
    )
    loaded = {id(x) for x in loadables.state_dict(keep_vars=True).values()}
    for name, module in hparams["modules"].items():
        for part, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in loaded:
                raise LMACError(
                    f"{path}: the pretrainer does not load {name}.{part}"
                )
    encoder = hparams.get("label_encoder")
    if not any(item is encoder for item in pretrainer.loadables.values()):
        raise LMACError(f"{path}: the pretrainer does not load label_encoder")
    pretrainer.collect_files()
    pretrainer.load_collected()
