"""Find and load the weights, statistics and labels of a SpeechBrain folder.

SpeechBrain's own loader follows any path or address in the yaml, runs the
pickles it finds there under old versions of PyTorch, and only warns of weights
that do not fit. This one reads files of the folder alone, strictly.
"""

import os
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.fetching import fetch
from speechbrain.utils.logger import get_logger

from lmac_sb.models.classifier_folder import load_labels
from lmac_sb.models.weights import load_strict, load_tensors
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.given import check_file
from lmac_sb.utils.io import first_line

__all__ = ["find_file", "load_parts", "load_statistics"]

logger = get_logger(__name__)

_MOST_MEANS = 1 << 20  # features of a normaliser


def load_parts(hparams, path, parts, trusted=False):
    """Load what the pretrainer of a yaml says, as far as it is needed.

    Arguments
    ---------
    hparams : dict
        Objects from `lmac_sb.models.source.read_hparams`.
    path : pathlib.Path
        The yaml, beside which the files lie.
    parts : dict
        Key to what is needed: modules and label encoders. For statistics and
        labels that the pretrainer forgets, a file of the key's name counts.
    trusted : bool
        Whether files elsewhere, and hooks that the yaml names, may be used.

    Raises
    ------
    LMACError
        If a file is missing or does not fit, or a needed module would keep
        random weights.

    Example
    -------
    >>> from speechbrain.utils.parameter_transfer import Pretrainer
    >>> path = getfixture("tmp_path") / "hyperparams.yaml"
    >>> head = torch.nn.Linear(2, 1, bias=False)
    >>> torch.save({"weight": torch.ones(1, 2)}, path.parent / "head.ckpt")
    >>> hparams = {"pretrainer": Pretrainer(loadables={"head": head})}
    >>> load_parts(hparams, path, {"head": head})
    >>> head.weight.tolist()
    [[1.0, 1.0]]
    """
    pretrainer = hparams["pretrainer"]
    if pretrainer.custom_hooks and not trusted:
        raise LMACError(
            f"{path}: the pretrainer has custom_hooks, which run code; if you "
            "know its author, load it with trusted=True"
        )
    needed = _tensors(parts.values())
    loaded = set()
    for key, item in pretrainer.loadables.items():
        is_part = any(item is part for part in parts.values())
        if not is_part and not _tensors([item]) & needed:
            continue
        # A condition may be a function, which only a trusted yaml has called.
        if not (
            pretrainer.is_loadable(key)
            if trusted
            else pretrainer.conditions.get(key, True)
        ):
            continue
        if isinstance(item, InputNormalization) and not _needs_file(item):
            continue
        kinds, load = _loader(item)
        file = find_file(path, key, pretrainer.paths.get(key), kinds, trusted)
        pretrainer.custom_hooks.get(key, load)(item, file)
        loaded |= _tensors([item])
    for name, part in parts.items():
        if _tensors([part]) - loaded:
            raise LMACError(
                f"{path}: the pretrainer does not load '{name}', which would "
                "keep random weights; expected it under loadables"
            )
        if _needs_file(part):
            kinds, load = _loader(part)
            load(part, find_file(path, name, None, kinds))


def _loader(item):
    """Endings of the files of such an object, and the function that loads."""
    if isinstance(item, CategoricalEncoder):
        return ("txt", "ckpt"), load_labels
    if isinstance(item, InputNormalization):
        return ("ckpt",), load_statistics
    return ("ckpt", "safetensors"), load_strict


def _needs_file(item):
    """Whether an object without weights has something to load, and has not."""
    if isinstance(item, InputNormalization):
        return item.norm_type == "global" and item.glob_mean.numel() == 0
    return isinstance(item, CategoricalEncoder) and len(item) == 0


def _tensors(items):
    """Identities of what is learned: parameters, and statistics of norms."""
    found = set()
    for item in items:
        if isinstance(item, torch.nn.Module):
            found |= {id(x) for x in item.parameters()}
            for name, buffer in item.named_buffers():
                if name.rpartition(".")[2] in ("running_mean", "running_var"):
                    found.add(id(buffer))
    return found


def load_statistics(normalizer, path):
    """Load the stored statistics of a global normaliser.

    Arguments
    ---------
    normalizer : speechbrain.processing.features.InputNormalization
        Receives them.
    path : str or Path
        File written by its `_save`.

    Raises
    ------
    LMACError
        If the file is missing, or holds no finite mean and deviation.

    Example
    -------
    >>> path = getfixture("tmp_path") / "normalizer.ckpt"
    >>> saved = InputNormalization()
    >>> _ = saved(torch.rand(2, 50, 4))
    >>> saved._save(path)
    >>> loaded = InputNormalization()
    >>> load_statistics(loaded, path)
    >>> torch.equal(loaded.glob_mean, saved.glob_mean)
    True
    """
    if not Path(path).is_file():
        raise LMACError(f"{path}: no such file, expected statistics")
    try:
        state = load_tensors(path)
        # SpeechBrain counts frames in a tensor or a number.
        mean, std = state["glob_mean"], state["glob_std"]
        fits = mean.shape == std.shape and 0 < mean.numel() <= _MOST_MEANS
        fits = fits and bool((mean.isfinite() & std.isfinite()).all())
        fits = fits and mean.dtype == std.dtype == torch.float32
        fits = fits and bool((std >= 0).all())
        count = state["count"]
    except Exception as error:
        raise LMACError(
            f"{path}: not the statistics of a normaliser ({first_line(error)})"
        ) from error
    if not fits:
        raise LMACError(
            f"{path}: mean {list(mean.shape)} and deviation {list(std.shape)}, "
            "expected finite ones of one shape, of float32, and no deviation "
            "below zero"
        )
    normalizer.count, normalizer.glob_mean, normalizer.glob_std = (
        count,
        mean,
        std,
    )


def find_file(path, key, named, kinds, trusted=False):
    """The file for one of the pretrainer's loadables.

    Arguments
    ---------
    path : pathlib.Path
        The yaml. Files beside it count, and in folders beside it.
    key : str
        Name of the loadable.
    named : str
        Path in the yaml, such as ``speechbrain/some-model/classifier.ckpt``:
        its beginning says where the author keeps the folder, and the end that
        exists here is the file. None if the yaml gives no path.
    kinds : tuple of str
        Endings; another of them counts if the named file is missing.
    trusted : bool
        Whether a file elsewhere, on this machine or a hub, may be used. As in
        SpeechBrain, one on this machine comes before one beside the yaml.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    LMACError
        If there is none, or the path or a link leads out of the folder.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "classifier.ckpt").touch()
    >>> yaml = folder / "hyperparams.yaml"
    >>> find_file(yaml, "c", "some/model/classifier.ckpt", ("ckpt",)).name
    'classifier.ckpt'
    >>> find_file(yaml, "c", "../classifier.ckpt", ("ckpt",))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../hyperparams.yaml: c: '../classifier.ckpt' leads ...
    """
    folder = Path(path).parent
    if trusted and isinstance(named, (str, Path)) and Path(named).is_file():
        return Path(named)
    longer, names = [], [f"{key}.{kind}" for kind in kinds]
    if named is not None:
        longer, name = _ends(path, key, named, trusted)
        stem = name.rpartition(".")[0]
        names = [name, *(f"{stem}.{kind}" for kind in kinds if stem)]
    for end in [*longer, *names]:
        if (folder / end).is_file():
            if not trusted:
                _check_link(folder / end, Path(path))
            _tell_if_elsewhere(folder / end, named)
            return folder / end
    if trusted and named is not None:
        return _fetched(path, key, named)
    expected = " or ".join(shown(name) for name in dict.fromkeys(names))
    raise LMACError(
        f"{folder}: no file {expected}, expected by {Path(path).name} for "
        f"'{key}' (files elsewhere are used with trusted=True only)"
    )


def _check_link(file, path):
    """Refuse a link out of the folder, but to where the yaml itself is.

    SpeechBrain keeps a folder of links to a model, with that of its yaml.
    """
    is_link = file.is_symlink() and path.is_symlink()
    check_file(file, folder=path.resolve().parent if is_link else path.parent)


def _ends(path, key, named, trusted):
    """Ends of a path that stay in a folder, longest first; its last part."""
    if not isinstance(named, str) and not trusted:
        raise LMACError(
            f"{path}: {key}: found {shown(named)} as its path, expected text"
        )
    parts = str(named).split("/")
    if ".." in parts or any(c in str(named) for c in "\\\0\n"):
        raise LMACError(
            f"{path}: {key}: {shown(str(named))} leads out of the folder, or "
            "is no path"
        )
    # A drive or a scheme begins anew.
    for i in range(len(parts), 0, -1):
        if ":" in parts[i - 1]:
            parts = parts[i:]
            break
    parts = [part for part in parts if part not in ("", ".")]
    if not parts:
        raise LMACError(f"{path}: {key}: {shown(str(named))} names no file")
    longer = ["/".join(parts[i:]) for i in range(len(parts) - 1)]
    return longer, parts[-1]


def _tell_if_elsewhere(file, named):
    """Say so if the yaml names a file in another place of this machine."""
    if named is None or not os.path.isabs(str(named)):
        return
    if os.path.abspath(str(named)) != os.path.abspath(file):
        logger.warning("%s is read, and not %s", file, named)


def _fetched(path, key, named):
    """A file from where the yaml says, as SpeechBrain gets it."""
    source, _, name = str(named).rpartition("/")
    try:
        file = fetch(name, source=source or "./")
    except Exception as error:
        raise LMACError(
            f"{path}: {key}: cannot get {named} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    return Path(file)
