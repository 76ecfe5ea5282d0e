"""Checkpoints that survive a kill."""

import logging
import math
import os
import shutil
from pathlib import Path

from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    Checkpointer,
    ckpt_recency,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process

from lmac_sb.utils.checksums import SUMS, check_sums, write_sums
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line, is_write_error

__all__ = ["SafeCheckpointer", "best_checkpoint", "plain"]

logger = logging.getLogger(__name__)

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
    >>> import torch
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
                    f"checkpoint: '{key}' is {value!r}, expected a plain "
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
            if not is_write_error(error):
                raise
            for path in self._unsealed():
                shutil.rmtree(path, ignore_errors=True)
            raise LMACError(
                f"{self.checkpoints_dir}: a checkpoint cannot be written "
                f"({first_line(error)}); the ones before it are kept: free "
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
            state, fault = None, f"{path}: cannot be read ({error})"
        if fault and if_main_process():
            logger.warning(f"{fault}; checkpoint passed over")
        self._verified[path] = (state, fault is None)
        return fault is None


def _seal(folder):
    """Write the checksums, after all else has reached the disk."""
    for file in folder.iterdir():
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
    write_sums(folder)


def _fault(folder):
    """What is wrong with a checkpoint, or None."""
    if not (folder / SUMS).exists():
        return f"{folder}: half-written, a kill or a full disk cut it short"
    try:
        # Sums cut short would vouch for less than all files.
        check_sums(folder, complete=True)
    except LMACError as error:
        return str(error)
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
