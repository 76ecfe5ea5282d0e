"""Read and write the folder of a trained classifier."""

import copy
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.fetching import fetch

from lmac_sb.models.source import is_local, why_not_fetched
from lmac_sb.models.weights import load_strict
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.given import check_file, read_given
from lmac_sb.utils.io import (
    first_line,
    folder_in_one_step,
    is_write_error,
    read_json,
    restore_folder,
    write_json,
)

__all__ = [
    "load_classifier",
    "load_labels",
    "save_classifier",
    "save_labels",
]

# Of a file of class names: bytes, lines, and characters of a line.
_LONGEST, _MOST_LABELS, _WIDEST = 4 << 20, 30_000, 1000


def load_classifier(
    source, modules, label_encoder, savedir, key="classifier_folder"
):
    """Load a trained classifier and the names of its classes.

    Arguments
    ---------
    source : str
        Local folder written by `train_classifier.py`, or the id of a hub
        repository with the same files: one ``<name>.ckpt`` for each of
        `modules`, and ``label_encoder.txt`` (or ``.ckpt``).
    modules : dict
        Name to torch.nn.Module.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Empty encoder that receives the class names.
    savedir : str or Path
        Folder for files from a hub, with one sub-folder for each source.
    key : str
        The key that names it, for messages.

    Returns
    -------
    dict
        Content of ``config.json``; empty if there is none.

    Raises
    ------
    LMACError
        If the folder or a file is missing or does not fit.
    """
    restore_folder(source)
    if is_local(source) and not Path(source).is_dir():
        raise LMACError(f"{key}: {source} does not exist")
    savedir = Path(savedir) / str(source).replace("/", "--")
    for name, module in modules.items():
        path = _get(source, f"{name}.ckpt", savedir)
        try:
            load_strict(module, path)
        except LMACError as error:
            if name == "classifier":
                _check_classes(source, savedir, module, f"{key}: {error}")
            raise
    path = _find_labels(source, savedir)
    load_labels(label_encoder, path)
    config = Path(source) / "config.json"
    if not config.is_file():
        return {}
    check_file(config, folder=source)
    found = read_json(config)
    if not isinstance(found, dict):
        raise LMACError(f"{config}: holds no keys, expected settings")
    return found


def _find_labels(source, savedir):
    """Local path of the file with the names of the classes."""
    for file in ("label_encoder.txt", "label_encoder.ckpt"):
        try:
            return _get(source, file, savedir)
        except LMACError as error:
            missing = error
    raise LMACError(
        f"{source}: no label_encoder.txt, expected the names of the classes "
        "there"
    ) from missing


def _check_classes(source, savedir, module, said):
    """Refuse a classifier of another number of classes than its last layer."""
    encoder = CategoricalEncoder()
    load_labels(encoder, _find_labels(source, savedir))
    n_classes = [len(x) for x in module.state_dict().values() if x.dim()][-1]
    if len(encoder) != n_classes:
        raise LMACError(
            f"{said}; it has {len(encoder)} classes, but n_classes is "
            f"{n_classes}: use --n_classes {len(encoder)}"
        )


def load_labels(label_encoder, path):
    """Load the names of the classes, at least one.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Empty encoder that receives the names.
    path : str or Path
        File written by the encoder's `save`.

    Raises
    ------
    LMACError
        If the file is not such a file, or holds no class.

    Example
    -------
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> path = getfixture("tmp_path") / "labels.txt"
    >>> CategoricalEncoder().save(path)
    >>> load_labels(CategoricalEncoder(), path)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../labels.txt: holds no classes
    """
    lines = read_given(path, _LONGEST).splitlines()
    if len(lines) > _MOST_LABELS or max(map(len, lines), default=0) > _WIDEST:
        raise LMACError(
            f"{path}: {len(lines)} lines, expected names of classes: at most "
            f"{_MOST_LABELS} of {_WIDEST} characters"
        )
    try:
        label_encoder.load(str(path))
    except Exception as error:
        raise LMACError(f"{path}: not a label encoder ({error})") from error
    if len(label_encoder) == 0:
        raise LMACError(f"{path}: holds no classes")
    # With this, the encoder raises an error for unknown labels.
    label_encoder.expect_len(len(label_encoder))


def save_labels(label_encoder, path):
    """Write the names of the classes, whatever they are, for `load_labels`.

    The encoder's own `save` writes no name with " => " in it that its `load`
    can read. Here its equals sign is escaped, which `load` undoes.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the classes.
    path : str or Path
        The file.

    Example
    -------
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> encoder, read = CategoricalEncoder(), CategoricalEncoder()
    >>> encoder.update_from_iterable(["cat => dog"])
    >>> path = getfixture("tmp_path") / "labels.txt"
    >>> save_labels(encoder, path)
    >>> load_labels(read, path)
    >>> read.lab2ind
    {'cat => dog': 0}
    """
    written = copy.copy(label_encoder)
    written.lab2ind = {
        _Escaped(label) if isinstance(label, str) else label: index
        for label, index in label_encoder.lab2ind.items()
    }
    written.save(path)


class _Escaped(str):
    """A name that is written without what separates it from its number."""

    def __repr__(self):
        return super().__repr__().replace("=>", r"\x3d>")


def _get(source, name, savedir):
    """Local path of a file in a folder or hub repository."""
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            model = Path(source) / "model"
            hint = f"; did you mean {model}?" if model.is_dir() else ""
            raise LMACError(
                f"{path}: no such file in the classifier's folder{hint}"
            )
        check_file(path, folder=source)
        return path
    try:
        return fetch(name, source=source, savedir=str(savedir))
    except Exception as error:
        raise LMACError(
            f"classifier_folder: {source} is not a local folder, and {name} "
            f"cannot be fetched from a hub ({why_not_fetched(error)})"
        ) from error


def save_classifier(folder, modules, label_encoder, config):
    """Write a trained classifier as `load_classifier` reads it.

    Arguments
    ---------
    folder : str or Path
        Written in one step; an existing folder is replaced.
    modules : dict
        Name to torch.nn.Module.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the classes.
    config : dict
        Content for ``config.json``.

    Raises
    ------
    LMACError
        If the folder cannot be written; then an existing one is unchanged.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "model"
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> encoder = CategoricalEncoder()
    >>> encoder.update_from_iterable(["cat", "dog"])
    >>> model = torch.nn.Linear(3, 2)
    >>> save_classifier(folder, {"classifier": model}, encoder, {"seed": 1})
    >>> loaded = CategoricalEncoder()
    >>> load_classifier(folder, {"classifier": model}, loaded, folder)
    {'seed': 1}
    >>> loaded.lab2ind
    {'cat': 0, 'dog': 1}
    """
    try:
        with folder_in_one_step(folder, replace=True) as part:
            for name, module in modules.items():
                torch.save(module.state_dict(), part / f"{name}.ckpt")
            save_labels(label_encoder, part / "label_encoder.txt")
            write_json(part / "config.json", config)
    except (OSError, RuntimeError) as error:
        if not is_write_error(error):
            raise
        raise LMACError(
            f"{folder}: cannot be written ({first_line(error)})"
        ) from error
