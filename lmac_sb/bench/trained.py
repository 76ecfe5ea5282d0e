"""What is trained for a bench, by the scripts of the recipe.

A run that was broken off goes on; one that is finished is taken as it is, and
other settings than it would have now are said.
"""

import functools
import io
import logging
import os
import sys
from contextlib import contextmanager, redirect_stdout

import torch

from lmac_sb.data.manifest import read_entries
from lmac_sb.training.arguments import read_arguments, script_of
from lmac_sb.training.identity import EPOCHS, EXPERIMENT, NEUTRAL
from lmac_sb.utils.console import Loudness, get_loudness, say, set_loudness
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import read_json
from lmac_sb.utils.recipe import find_yaml, load_script

__all__ = ["check_unseen", "is_finished", "left_alone", "train"]

_SHOWN = 3  # clips in a message
# By which a script would take itself for one of several that train together.
_LAUNCHED = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)


def is_finished(folder):
    """Whether a run has come to its end.

    Arguments
    ---------
    folder : Path
        Of a classifier or of an explainer.

    Returns
    -------
    bool

    Example
    -------
    >>> is_finished(getfixture("tmp_path"))
    False
    """
    return (folder / "model").is_dir() or (folder / "results.json").is_file()


def train(yaml, folder, prepared, seed, keys):
    """Train what a yaml file of the recipe trains, unless that is done.

    Arguments
    ---------
    yaml : str
        Its name, such as ``lmac``.
    folder : Path
        Of the run.
    prepared : lmac_sb.bench.data.Prepared
        What it is trained on.
    seed : int
        Of the run.
    keys : dict
        Further keys, as ``lmac train`` takes them.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LMACError
        If the script fails, or the run has heard a clip of the test.
    """
    folds = prepared.data.folds
    keys = {
        "seed": seed,
        "output_folder": folder.resolve(),
        "data_folder": prepared.folder.resolve(),
        **{f"{split}_fold_nums": list(folds[split]) for split in folds},
        **prepared.data.keys,
        **keys,
    }
    file = find_yaml(yaml)
    command = [str(file), *(f"--{key}={value}" for key, value in keys.items())]
    if is_finished(folder):
        _say_differences(folder, read_arguments(command).resolved, keys)
    else:
        say(f"training: {folder}")
        script = load_script(script_of(file))
        with left_alone():
            # Without the decorator that ends the process on errors.
            script.main.__wrapped__([*command, "--noprogressbar", "--quiet"])
    check_unseen(folder, prepared)
    return folder


def _say_differences(folder, wanted, keys):
    """Say with which other settings a finished run was trained."""
    path = folder / EXPERIMENT
    found = read_json(path) if path.is_file() else {}
    others = [
        f"{key} {shown(found[key])} in place of {shown(wanted.get(key))}"
        for key in {**keys, EPOCHS: None}
        if key not in NEUTRAL
        and found.get(key, wanted.get(key)) != wanted.get(key)
    ]
    if others:
        _say_once(f"taken as it is: {folder}, with {', '.join(others)}")


# A bench looks at each run more than once.
_say_once = functools.cache(say)


@contextmanager
def left_alone():
    """Keep what a script changes: the console, random numbers, handlers.

    It works in this process alone, whoever has started it among others.

    Returns
    -------
    context manager

    Example
    -------
    >>> with left_alone():
    ...     found = "RANK" in os.environ
    >>> found
    False
    """
    kept = {name: os.environ.pop(name, None) for name in _LAUNCHED}
    logger, hook = logging.getLogger(), sys.excepthook
    handlers, level = logger.handlers[:], logger.level
    loudness = get_loudness()
    # What it prints is in the log of its folder as well.
    talk = sys.stdout if loudness is Loudness.VERBOSE else io.StringIO()
    try:
        with torch.random.fork_rng(), redirect_stdout(talk):
            yield
    finally:
        os.environ.update({k: v for k, v in kept.items() if v is not None})
        sys.excepthook = hook
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
        set_loudness(loudness)


def check_unseen(folder, prepared):
    """Refuse a run that was trained on clips which are tested.

    Arguments
    ---------
    folder : Path
        Of a run, with its ``manifests``.
    prepared : lmac_sb.bench.data.Prepared
        What is tested.

    Raises
    ------
    LMACError
        If its training or validation clips are among them, or it has no list
        of them.

    Example
    -------
    >>> from pathlib import Path
    >>> check_unseen(Path("nowhere"), None)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere/manifests/train.jsonl: no such file, expected \
the clips that it was trained on
    """
    heard = set()
    for split in ("train", "valid"):
        path = folder / "manifests" / f"{split}.jsonl"
        if not path.is_file():
            raise LMACError(
                f"{path}: no such file, expected the clips that it was "
                "trained on"
            )
        heard |= {clip for clip, _ in read_entries(path)}
    both = sorted(heard & set(prepared.ids("test")))
    if both:
        raise LMACError(
            f"{folder}: was trained or chosen on {len(both)} clips that "
            f"{prepared.name} tests, such as {', '.join(both[:_SHOWN])}; "
            f"expected folds {prepared.data.folds['test']} to be left out"
        )
