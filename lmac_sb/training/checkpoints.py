"""Checkpoints that survive a kill."""

import logging
import math
import os
import shutil
from pathlib import Path

import yaml
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    PARAMFILE_EXT,
    Checkpoint,
    Checkpointer,
    ckpt_recency,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from lmac_sb.utils.checksums import SUMS, check_sums, write_sums
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.given import read_given
from lmac_sb.utils.io import first_line, is_write_error
from lmac_sb.utils.yaml_safety import compose_bounded, one_line

__all__ = ["SafeCheckpointer", "best_checkpoint", "plain"]

logger = logging.getLogger(__name__)

NEWEST = 2  # checkpoints that always stay: should one be damaged, the other


class SafeCheckpointer(Checkpointer):
    """SpeechBrain's `Checkpointer`, but it never reads a broken checkpoint.

    Each checkpoint has a file of checksums, which is written last and deleted
    first. A checkpoint without the file is incomplete, and one that does not
    match it is damaged. The log names such checkpoints, and the one before is
    used instead. For this the newest two are always kept.

    Arguments
    ---------
    checkpoints_dir : str or Path
        Made with the first checkpoint.
    *args, **kwargs
        See `speechbrain.utils.checkpoints.Checkpointer`.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> checkpointer = SafeCheckpointer(folder, {"m": torch.nn.Linear(1, 1)})
    >>> good = checkpointer.save_checkpoint({"loss": 1.0}, name="a")
    >>> newer = checkpointer.save_checkpoint({"loss": 0.5}, name="b")
    >>> _ = newer.paramfiles["m"].write_bytes(b"damaged")
    >>> checkpointer.find_checkpoint(min_key="loss").meta["loss"]
    1.0
    """

    def __init__(self, checkpoints_dir, *args, **kwargs):
        # SpeechBrain's makes the folder at once, even of a run that is refused.
        super().__init__(os.curdir, *args, **kwargs)
        self.checkpoints_dir = Path(checkpoints_dir)
        self._verified = {}

    def save_checkpoint(self, meta=None, *args, **kwargs):
        """Save, and seal with checksums.

        Arguments
        ---------
        meta : dict
            Plain strings and numbers, but no NaN.
        *args, **kwargs
            See `Checkpointer.save_checkpoint`.

        Returns
        -------
        Checkpoint
            None in processes other than the main one.

        Raises
        ------
        LMACError
            If a value of `meta` is a tensor or NaN, which could not be
            compared later, or if the checkpoint cannot be written, for
            example because the disk is full. Then no part of it remains.
        """
        meta = {} if meta is None else meta
        for key, value in meta.items():
            if not isinstance(value, (int, float, str)) or value != value:
                raise LMACError(
                    f"checkpoint: '{key}' is {value!r}, expected a plain "
                    "number or text"
                )
        self.remove_unsealed()
        try:
            checkpoint = super().save_checkpoint(meta, *args, **kwargs)
            # Wait until all processes have written their part.
            ddp_barrier()
            if checkpoint is not None:
                _seal(checkpoint.path)
        except (OSError, RuntimeError) as error:
            if not is_write_error(error):
                raise
            for path in self._unsealed():
                shutil.rmtree(path, ignore_errors=True)
            raise LMACError(
                f"{self.checkpoints_dir}: a checkpoint cannot be written "
                f"({first_line(error)}); earlier ones are kept: free some "
                "space and run the same command again"
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
            Number of checkpoints to keep for each key.
        min_keys, max_keys, importance_keys, ckpt_predicate
            See `Checkpointer.delete_checkpoints`.
        verbosity : int
            Level of the message in the log.
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
        # Do not delete what another process is still reading.
        ddp_barrier()
        if if_main_process():
            for checkpoint in found - kept:
                # The checksums first: then a kill leaves no valid checkpoint
                # with missing files.
                (checkpoint.path / SUMS).unlink()
                shutil.rmtree(checkpoint.path)
                logger.log(verbosity, f"Deleted {checkpoint.path}")
        ddp_barrier()

    def list_checkpoints(self):
        """All intact checkpoints.

        Those that best values and recency are looked up in, several times an
        epoch, so their metadata is not parsed again for each.

        Returns
        -------
        list of Checkpoint
        """
        return [self._checkpoint(path) for path in self._list_checkpoint_dirs()]

    def _checkpoint(self, path):
        """An intact checkpoint, as it was when its checksums were compared."""
        state, meta = self._verified[path]
        files = [path / name for name, *_ in state]
        tensors = {x.stem: x for x in files if x.suffix == PARAMFILE_EXT}
        return Checkpoint(path, dict(meta), tensors)

    def remove_unsealed(self):
        """Delete checkpoints that a kill left incomplete."""
        if if_main_process():
            for path in self._unsealed():
                logger.warning(f"{path}: incomplete checkpoint, removed")
                shutil.rmtree(path)
        ddp_barrier()

    def _unsealed(self):
        """Folders of checkpoints without checksums."""
        return [p for p in self._folders() if not (p / SUMS).exists()]

    def _list_checkpoint_dirs(self):
        """Checkpoints whose files are complete and unchanged."""
        return [path for path in self._folders() if self._is_intact(path)]

    def _folders(self):
        """Folders of all checkpoints, including incomplete ones."""
        return [
            path
            for path in sorted(self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"))
            if path.is_dir()
        ]

    def _is_intact(self, path):
        """Whether the checksums match; recomputed only if files change."""
        try:
            state = tuple(
                (file.name, file.stat().st_size, file.stat().st_mtime_ns)
                for file in sorted(path.iterdir())
            )
            if self._verified.get(path, (None,))[0] == state:
                return self._verified[path][1] is not None
            meta, fault = _checked(path)
        except OSError as error:
            # A bad sector, or the run that it belongs to deletes it just now.
            state, meta, fault = None, None, f"{path}: cannot be read ({error})"
        if fault and if_main_process():
            logger.warning(f"{fault}; checkpoint passed over")
        self._verified[path] = (state, meta)
        return meta is not None


def _seal(folder):
    """Write the checksums, after all other files have reached the disk."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    write_sums(folder)


def _checked(folder):
    """Metadata of a checkpoint, or None and what is wrong with it."""
    if not (folder / SUMS).exists():
        return (
            None,
            f"{folder}: half-written, a kill or a full disk cut it short",
        )
    try:
        # Sums cut short would vouch for less than all files.
        check_sums(folder, complete=True)
        return _read_meta(folder / METAFNAME), None
    except LMACError as error:
        return None, str(error)


def _read_meta(path):
    """Read metadata; refuse what `save_checkpoint` has not written."""
    text = read_given(path, folder=path.parent)
    root = compose_bounded(text, path)
    try:
        if not all(isinstance(v, yaml.ScalarNode) for _, v in root.value):
            raise LMACError("a value is no number or text")
        meta = yaml.load(text, Loader=yaml.SafeLoader)
        kinds = {"unixtime": (int, float)}
        for key, value in {"unixtime": None, **meta}.items():
            if not isinstance(value, kinds.get(key, (int, float, str))):
                raise LMACError(f"{key} is no number or text")
        return meta
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise LMACError(f"{path}: {one_line(error)}") from error


def best_checkpoint(folder, key, largest=False):
    """The best intact checkpoint of a run.

    Arguments
    ---------
    folder : str or Path
        The run's `save` folder.
    key : str
        Name of the number that selects the run's best checkpoint.
    largest : bool
        Whether the largest value is the best.

    Returns
    -------
    Checkpoint
        None if the folder has no checkpoint with this key.
    """
    if not Path(folder).is_dir():
        return None
    return SafeCheckpointer(folder).find_checkpoint(
        **{"max_key" if largest else "min_key": key},
        ckpt_predicate=lambda found: isinstance(
            found.meta.get(key), (int, float)
        ),
    )


def plain(stats):
    """Statistics as plain numbers, for the metadata of checkpoints.

    Arguments
    ---------
    stats : dict
        Name to number or one-element tensor.

    Returns
    -------
    dict
        The same without values that are NaN.
    """
    numbers = {key: float(value) for key, value in stats.items()}
    return {k: v for k, v in numbers.items() if not math.isnan(v)}
