"""Checkpoints that survive a kill, and strict loading of weights.

Authors
 * The lmac-sb authors 2026
"""

import hashlib
import json
import logging
import math
import os
import shutil
from pathlib import Path

import safetensors.torch
import torch
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    Checkpointer,
    ckpt_recency,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.fetching import fetch

from lmac_sb.errors import LMACError
from lmac_sb.results import read_json

__all__ = [
    "SafeCheckpointer",
    "best_checkpoint",
    "file_sha256",
    "is_local",
    "load_classifier",
    "load_labels",
    "load_strict",
    "plain",
    "save_classifier",
]

logger = logging.getLogger(__name__)

SUMS = "SHA256SUMS"
NEWEST = 2  # checkpoints that always stay: should one be damaged, the other


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's `Checkpointer`, but a broken checkpoint is never read.

    Each checkpoint gets a file of checksums, written last and deleted first.
    One without it was cut short by a kill; one that does not match it was
    damaged. Both are named in the log and passed over, so that the one before
    counts: the newest two are kept whatever else is.

    Arguments
    ---------
    *args, **kwargs
        See `speechbrain.utils.checkpoints.Checkpointer`.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> checkpointer = SafeCheckpointer(folder, {"m": torch.nn.Linear(1, 1)})
    >>> good = checkpointer.save_checkpoint({"loss": 1.0}, name="a")
    >>> newer = checkpointer.save_checkpoint({"loss": 0.5}, name="b")
    >>> _ = newer.paramfiles["m"].write_bytes(b"damaged")
    >>> checkpointer.find_checkpoint(min_key="loss").meta["loss"]
    1.0
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._verified = {}

    def save_checkpoint(self, meta=None, *args, **kwargs):
        """Save, and seal with checksums.

        Arguments
        ---------
        meta : dict
            Plain finite or infinite numbers and strings.
        *args, **kwargs
            See `Checkpointer.save_checkpoint`.

        Returns
        -------
        Checkpoint
            Or None on a process that is not the main one.

        Raises
        ------
        LMACError
            If a value of `meta` is a tensor or NaN, which no later
            comparison could order; or if it cannot be written, such as on a
            full disk. Then nothing of it is left.
        """
        meta = {} if meta is None else meta
        for key, value in meta.items():
            if not isinstance(value, (int, float, str)) or value != value:
                raise LMACError(
                    f"checkpoint: '{key}' is {value!r}, needed is a plain "
                    "number or text"
                )
        self.remove_unsealed()
        try:
            checkpoint = super().save_checkpoint(meta, *args, **kwargs)
            # All processes have written their part.
            ddp_barrier()
            if checkpoint is not None:
                _seal(checkpoint.path)
        except (OSError, RuntimeError) as error:
            if not _is_write_error(error):
                raise
            for path in self._unsealed():
                shutil.rmtree(path, ignore_errors=True)
            raise LMACError(
                f"{self.checkpoints_dir}: a checkpoint cannot be written "
                f"({_first_line(error)}); the ones before it are kept: free "
                "some space and give the same command again"
            ) from error
        ddp_barrier()
        return checkpoint

    def delete_checkpoints(
        self,
        *,
        num_to_keep=1,
        min_keys=None,
        max_keys=None,
        importance_keys=(ckpt_recency,),
        ckpt_predicate=None,
        verbosity=logging.INFO,
    ):
        """Delete all but the best by each key, and the newest two.

        Arguments
        ---------
        num_to_keep : int
            Checkpoints to keep for each key.
        min_keys, max_keys, importance_keys, ckpt_predicate
            See `Checkpointer.delete_checkpoints`.
        verbosity : int
            Level of the note in the log.
        """
        keys = [{"min_key": key} for key in min_keys or ()]
        keys += [{"max_key": key} for key in max_keys or ()]
        keys += [{"importance_key": key} for key in importance_keys]
        kept = set(self.find_checkpoints(max_num_checkpoints=NEWEST))
        found = set()
        for key in keys:
            ranked = self.find_checkpoints(ckpt_predicate=ckpt_predicate, **key)
            found.update(ranked)
            kept.update(ranked[:num_to_keep])
        # Nobody deletes what another process still looks at.
        ddp_barrier()
        if if_main_process():
            for checkpoint in found - kept:
                # First, so that a kill leaves no checkpoint with a gap.
                (checkpoint.path / SUMS).unlink()
                shutil.rmtree(checkpoint.path)
                logger.log(verbosity, f"Deleted {checkpoint.path}")
        ddp_barrier()

    def remove_unsealed(self):
        """Delete what a kill left half-written or half-deleted."""
        if if_main_process():
            for path in self._unsealed():
                logger.warning(f"{path}: half-written checkpoint, removed")
                shutil.rmtree(path)
        ddp_barrier()

    def _unsealed(self):
        """Checkpoints without their seal."""
        return [p for p in self._folders() if not (p / SUMS).exists()]

    def _list_checkpoint_dirs(self):
        """Only checkpoints whose files are all there and unchanged."""
        return [path for path in self._folders() if self._is_intact(path)]

    def _folders(self):
        """All that began as a checkpoint, even if a kill left it empty."""
        return [
            path
            for path in sorted(self.checkpoints_dir.iterdir())
            if path.is_dir() and path.name.startswith(CKPT_PREFIX)
        ]

    def _is_intact(self, path):
        """Whether the checksums hold; read again only when files change."""
        try:
            state = tuple(
                (file.name, file.stat().st_size, file.stat().st_mtime_ns)
                for file in sorted(path.iterdir())
            )
            if self._verified.get(path, (None,))[0] == state:
                return self._verified[path][1]
            fault = _fault(path)
        except OSError as error:
            # A bad sector, or the run that it belongs to deletes it just now.
            state, fault = None, f"cannot be read ({error})"
        if fault and if_main_process():
            logger.warning(f"{path}: {fault}; checkpoint passed over")
        self._verified[path] = (state, fault is None)
        return fault is None


def file_sha256(path):
    """Checksum of a file of any size.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _sums(folder):
    """Name and sha256 of each file of a folder, but for the sums."""
    return {
        file.name: file_sha256(file)
        for file in sorted(folder.iterdir())
        if file.name != SUMS
    }


def _is_write_error(error):
    """Whether a file could not be written, rather than anything else."""
    # PyTorch's own writer raises no OSError; nor do lost processes.
    return isinstance(error, OSError) or "inline_container" in str(error)


def _first_line(error):
    """What an error says, in short."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _seal(folder):
    """Write the checksums, after all else has reached the disk."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    lines = "".join(f"{s}  {n}\n" for n, s in _sums(folder).items())
    part = folder / f"{SUMS}.part"
    with open(part, "w", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / SUMS)


def _fault(folder):
    """What is wrong with a checkpoint, or None."""
    if not (folder / SUMS).exists():
        return "half-written, a kill or a full disk cut it short"
    expected = {}
    sums = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    for line in sums.splitlines():
        checksum, _, name = line.partition("  ")
        expected[name] = checksum
    found = _sums(folder)
    if not expected:
        return f"{SUMS} is truncated"
    for name, checksum in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != checksum:
            return f"{name} is truncated or changed"
    # Sums cut short would vouch for less than all files.
    for name in found:
        if name not in expected:
            return f"{name} is not in {SUMS}"
    return None


def best_checkpoint(folder, key, largest=False):
    """The best intact checkpoint of a run.

    Arguments
    ---------
    folder : str or Path
        The run's `save` folder.
    key : str
        Name of the number by which the run keeps its best checkpoint.
    largest : bool
        Whether the largest value is the best.

    Returns
    -------
    Checkpoint
        Or None, if the folder holds none with this key.
    """
    if not Path(folder).is_dir():
        return None
    return SafeCheckpointer(folder).find_checkpoint(
        **{"max_key" if largest else "min_key": key}
    )


def load_strict(module, path):
    """Load weights, all of them and no others.

    Arguments
    ---------
    module : torch.nn.Module
        Takes the weights.
    path : str or Path
        File of a state dict: ``.safetensors``, or else a pickle of nothing
        but tensors.

    Raises
    ------
    LMACError
        If the file is missing or unreadable, holds more than tensors, or
        does not fit the module; names the file and the first difference.

    Example
    -------
    >>> path = getfixture("tmp_path") / "m.ckpt"
    >>> torch.save(torch.nn.Linear(2, 1).state_dict(), path)
    >>> load_strict(torch.nn.Linear(3, 1), path)
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: .../m.ckpt: 'weight' has shape [1, 2], ...
    """
    path = Path(path)
    if not path.is_file():
        raise LMACError(f"{path}: no such file, weights are needed")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Broken files fail in many ways: IndexError, UnicodeDecodeError, ...
        raise LMACError(
            f"{path}: not a file of weights only ({_first_line(error)})"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise LMACError(f"{path}: not a state dict of tensors")
    wanted = module.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise LMACError(
                f"{path}: holds no '{name}', needed by {type(module).__name__}"
            )
        if state[name].shape != value.shape:
            raise LMACError(
                f"{path}: '{name}' has shape {list(state[name].shape)}, "
                f"needed is {list(value.shape)}"
            )
    extra = sorted(set(state) - set(wanted))
    if extra:
        raise LMACError(
            f"{path}: holds '{extra[0]}', which {type(module).__name__} "
            "does not have"
        )
    bad = [n for n, v in state.items() if not torch.isfinite(v).all()]
    if bad:
        raise LMACError(f"{path}: '{bad[0]}' holds NaN or infinite values")
    module.load_state_dict(state)


def is_local(source):
    """Whether a source is a folder, rather than the id of a hub repository.

    Arguments
    ---------
    source : str or Path
        An id is ``name/repository``, and no folder of that name exists.

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


def load_classifier(source, modules, label_encoder, savedir):
    """Load a trained classifier and the names of its classes.

    Arguments
    ---------
    source : str
        Local folder, as `train_classifier.py` writes it, or the id of a hub
        repository with the same files: one ``<name>.ckpt`` for each of
        `modules` and ``label_encoder.txt`` (or ``.ckpt``).
    modules : dict
        Name to torch.nn.Module.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Empty; takes the class names.
    savedir : str or Path
        Where files from a hub are kept, one folder a source.

    Returns
    -------
    dict
        Content of the folder's ``config.json``; empty if it has none.

    Raises
    ------
    LMACError
        If the folder or a file is missing or does not fit.
    """
    if is_local(source) and not Path(source).is_dir():
        raise LMACError(f"classifier_folder: {source} does not exist")
    savedir = Path(savedir) / str(source).replace("/", "--")
    for name, module in modules.items():
        load_strict(module, _get(source, f"{name}.ckpt", savedir))
    for file in ("label_encoder.txt", "label_encoder.ckpt"):
        try:
            path = _get(source, file, savedir)
            break
        except LMACError as error:
            missing = error
    else:
        raise LMACError(
            f"{source}: no label_encoder.txt, the names of the classes "
            "are needed"
        ) from missing
    load_labels(label_encoder, path)
    config = Path(source) / "config.json"
    if not config.is_file():
        return {}
    return read_json(config)


def load_labels(label_encoder, path):
    """Load the names of the classes, at least one.

    Arguments
    ---------
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Empty; takes the names.
    path : str or Path
        Written by its `save`.

    Raises
    ------
    LMACError
        If the file is none, or holds no class.

    Example
    -------
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> path = getfixture("tmp_path") / "labels.txt"
    >>> CategoricalEncoder().save(path)
    >>> load_labels(CategoricalEncoder(), path)
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: .../labels.txt: holds no classes
    """
    try:
        label_encoder.load(str(path))
    except Exception as error:
        raise LMACError(f"{path}: not a label encoder ({error})") from error
    if len(label_encoder) == 0:
        raise LMACError(f"{path}: holds no classes")
    # Labels are looked up by what the data says, unknown ones are an error.
    label_encoder.expect_len(len(label_encoder))


def _get(source, name, savedir):
    """Path of one file of a local folder or a hub repository."""
    if Path(source).is_dir():
        path = Path(source) / name
        if not path.is_file():
            raise LMACError(f"{path}: no such file in the classifier's folder")
        return path
    try:
        return fetch(name, source=source, savedir=str(savedir))
    except Exception as error:
        raise LMACError(
            f"classifier_folder: {source} is no local folder, and {name} "
            f"cannot be fetched from a hub ({type(error).__name__}: {error})"
        ) from error


def save_classifier(folder, modules, label_encoder, config):
    """Write a trained classifier as `load_classifier` reads it.

    Arguments
    ---------
    folder : str or Path
        Written in one step; replaces what was there.
    modules : dict
        Name to torch.nn.Module.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the classes.
    config : dict
        Goes to ``config.json``.

    Raises
    ------
    LMACError
        If it cannot be written; what was there before is still there.

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
    folder = Path(folder)
    part = folder.with_name(f"{folder.name}.part")
    # Renamed, as a kill while it is deleted would leave half of it.
    former = folder.with_name(f"{folder.name}.former")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        for name, module in modules.items():
            torch.save(module.state_dict(), part / f"{name}.ckpt")
        label_encoder.save(part / "label_encoder.txt")
        (part / "config.json").write_text(
            json.dumps(config, indent=1), encoding="utf-8"
        )
        shutil.rmtree(former, ignore_errors=True)
        if folder.exists():
            os.replace(folder, former)
        os.replace(part, folder)
        shutil.rmtree(former, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(part, ignore_errors=True)
        if not _is_write_error(error):
            raise
        raise LMACError(
            f"{folder}: cannot be written ({_first_line(error)})"
        ) from error


def plain(stats):
    """Statistics as plain numbers, fit for checkpoints' meta data.

    Arguments
    ---------
    stats : dict
        Name to number or one-element tensor.

    Returns
    -------
    dict
        Without the values that are NaN.
    """
    numbers = {key: float(value) for key, value in stats.items()}
    return {k: v for k, v in numbers.items() if not math.isnan(v)}
