"""The base class of the recipes' Brains: batches, records, safe steps."""

import hashlib
import logging
import math
import os
import re
from contextlib import contextmanager
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import if_main_process, main_process_only
from torch import distributed

from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.metrics.registry import shown_in
from lmac_sb.training.checkpoints import plain
from lmac_sb.utils.console import Loudness, get_loudness, progress, say
from lmac_sb.utils.errors import LMACError

__all__ = ["LOG_CONFIG", "OneCycle", "RecipeBrain", "gather_rows"]

logger = logging.getLogger(__name__)

# For `create_experiment_directory`: a quiet console.
LOG_CONFIG = str(Path(__file__).with_name("log-config.yaml"))


# What the console shows beside the metrics; the log file has all.
CONSOLE = ("loss", "accuracy", "fidelity", "gated", "n_nan")
# Of a longer training, the console shows evenly spread epochs.
MOST_EPOCHS = 25


class OneCycle:
    """Learning rate that rises linearly, then falls to zero as a cosine.

    It depends only on the share of the training that is done, so an
    interrupted run continues exactly where it stopped (Smith and Topin,
    arXiv 1708.07120).

    Arguments
    ---------
    lr : float
        Highest learning rate.
    warmup : float
        Share of the training during which it rises, in [0, 1).

    Example
    -------
    >>> schedule = OneCycle(lr=0.1, warmup=0.5)
    >>> [round(schedule.at(done), 3) for done in (0.25, 0.5, 0.75, 1.0)]
    [0.05, 0.1, 0.05, 0.0]
    """

    def __init__(self, lr, warmup=0.15):
        if not (lr > 0 and 0 <= warmup < 1):
            raise LMACError(
                f"lr, warmup: {lr}, {warmup}; expected lr > 0 and warmup "
                "in [0, 1)"
            )
        self.lr = lr
        self.warmup = warmup

    def at(self, done):
        """Learning rate after a share of the training, in [0, 1]."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        falling = (done - self.warmup) / (1 - self.warmup)
        return self.lr * (1 + math.cos(math.pi * min(falling, 1))) / 2


class _SkipStep(Exception):
    """The loss of this step, or its gradient, is not finite."""


class _NamedItems(torch.utils.data.Dataset):
    """A data set that knows which clip each worker process is reading.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Data set with the items.
    n_workers : int
        Number of worker processes of the loader.
    """

    def __init__(self, dataset, n_workers):
        self.dataset = dataset
        # Process and clip of each worker, in shared memory.
        self.reading = torch.zeros(n_workers, 2, dtype=torch.long)
        self.reading.share_memory_()

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self.reading[worker.id] = torch.tensor([os.getpid(), index])
        try:
            return self.dataset[index]
        except LMACError:
            raise
        except Exception as error:
            clip = self.dataset.data_ids[index]
            raise LMACError(
                f"clip '{clip}': {type(error).__name__}: {error}"
            ) from error

    def read_by(self, message):
        """Name of the clip of the worker whose process a message names."""
        for process, index in self.reading.tolist():
            if process and re.search(rf"\b{process}\b", message):
                return self.dataset.data_ids[index]
        return None


class RecipeBrain(sb.Brain):
    """A `Brain` that records values by clip and skips non-finite steps.

    A subclass implements `compute_forward` and `compute_objectives`. The
    latter calls `record` with one value for each clip, and `mean_loss` on the
    losses of the clips.

    Arguments
    ---------
    *args, **kwargs
        See `speechbrain.Brain`.
    seed : int
        Seed of the order of the clips and of each step's random numbers.
    number_of_epochs : int
        Length of the training.
    lr_annealing : OneCycle or speechbrain.nnet.schedulers.ReduceLROnPlateau
        The learning rate.
    train_logger : speechbrain.utils.train_logger.TrainLogger
        Logger of all statistics.
    select_key : str
        Validation statistic that selects the best checkpoint.
    select_largest : bool
        Whether the largest value is the best.
    use_tensorboard : bool
        Whether to write files for TensorBoard.
    tensorboard_folder : str or Path
        Folder for these files.

    Example
    -------
    >>> class Mean(RecipeBrain):
    ...     def compute_forward(self, batch, stage):
    ...         return self.modules.model(batch["x"])
    ...
    ...     def compute_objectives(self, predictions, batch, stage):
    ...         losses = (predictions - batch["y"]).pow(2).mean(1)
    ...         return self.mean_loss(losses, batch["id"])
    """

    # Statistics that the first batch may lack: those of validation alone, and
    # of clips whose labels the classifier knows.
    later = ("accuracy",)

    def __init__(
        self,
        *args,
        seed,
        number_of_epochs,
        lr_annealing,
        train_logger,
        select_key,
        select_largest=False,
        use_tensorboard=False,
        tensorboard_folder=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.number_of_epochs = number_of_epochs
        self.lr_annealing = lr_annealing
        self.train_logger = train_logger
        self.select_key = select_key
        self.select_largest = select_largest
        self.tensorboard_logger = None
        if use_tensorboard and if_main_process():
            self.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                tensorboard_folder
            )
        self.loaded = []
        self.bar = progress(disable=True)
        self._has_key = False
        # A finite loss may still have gradients that are not finite.
        self.skip_nonfinite_grads = True

    def make_dataloader(
        self, dataset, stage, ckpt_prefix="dataloader-", **kwargs
    ):
        """Loader of batches of equal length, split among the processes."""
        train = stage == sb.Stage.TRAIN
        self.batch_size = kwargs.pop("batch_size")
        items = _NamedItems(dataset, kwargs.get("num_workers", 0))
        self.loaded.append(items)
        sampler = EqualLengthBatches(
            dataset.n_samples,
            self.batch_size,
            shuffle=train,
            seed=self.seed,
            rank=_rank(),
            world_size=_world_size(),
        )
        kwargs.setdefault("collate_fn", PaddedBatch)
        loader = make_dataloader(items, batch_sampler=sampler, **kwargs)
        if stage == sb.Stage.TEST:
            self.bar.reset(total=len(sampler))
        if train:
            self.train_sampler = sampler
            self._count_steps(len(sampler))
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(
                    f"{ckpt_prefix}{stage.name}", loader
                )
        return loader

    def _count_steps(self, n_batches):
        """Count batches and steps of an epoch; refuse one without a step."""
        factor, key = self.grad_accumulation_factor, "grad_accumulation_factor"
        tried = min(n_batches, self.debug_batches) if self.debug else n_batches
        if factor > tried:
            few = "debug_batches" if tried < n_batches else "batches an epoch"
            raise LMACError(
                f"{key} is {factor}, expected at most {tried}, the number of "
                f"{few}"
            )
        self.batches_per_epoch = n_batches
        # SpeechBrain makes no step with the batches that are left over.
        self.steps_per_epoch = n_batches // factor

    def fit(self, *args, **kwargs):
        """Train and validate; an error becomes one clear message."""
        # One bar for all epochs, instead of one for each.
        with self._clear_errors(), self._bar(unit="step") as self.bar:
            super().fit(*args, progressbar=False, **kwargs)

    def evaluate(self, *args, **kwargs):
        """Test; an error becomes one clear message."""
        with self._clear_errors(), self._bar(unit="batch") as self.bar:
            return super().evaluate(*args, progressbar=False, **kwargs)

    def _bar(self, **options):
        """A progress bar, if it is wanted."""
        hidden = self.noprogressbar or not if_main_process()
        return progress(disable=hidden, dynamic_ncols=True, **options)

    @contextmanager
    def _clear_errors(self):
        """Turn errors of workers and lack of memory into an `LMACError`."""
        try:
            yield
        except LMACError as error:
            # A worker's error arrives with its traceback as text.
            message = str(error).rsplit("LMACError: ", 1)[-1].strip()
            raise LMACError(message) from error
        except (MemoryError, RuntimeError) as error:
            message = str(error).strip() or "MemoryError"
            first = message.splitlines()[0]
            if message.startswith("DataLoader worker"):
                clips = {items.read_by(message) for items in self.loaded}
                raise LMACError(
                    f"num_workers: {first} It was reading clip "
                    f"{', '.join(sorted(clips - {None}))}. If memory ran out, "
                    "use fewer workers"
                ) from error
            if not _is_memory_error(error):
                raise
            raise LMACError(
                f"batch_size: {self.batch_size} clips do not fit into memory "
                f"({first}); use a smaller --batch_size, or shorter clips "
                "with --signal_length_s"
            ) from error

    def on_fit_start(self):
        """Resume; say so if there is nothing left to train."""
        self.checkpointer.remove_unsealed()
        super().on_fit_start()
        done = self.checkpointer.recoverables["counter"].current
        if done >= self.number_of_epochs and if_main_process():
            say(f"all {done} epochs are already done")
        self.bar.reset(total=self.number_of_epochs * self.batches_per_epoch)
        self.bar.update(done * self.batches_per_epoch)

    def on_stage_start(self, stage, epoch=None):
        """Clear the records of the previous stage."""
        self.records = {}

    def fit_batch(self, batch):
        """Make one step, unless the loss or a gradient is not finite."""
        self._batch_ids = list(batch.id)
        self.bar.update()
        # Random numbers depend only on the step and the batch's place in it,
        # so that a resumed run draws the same ones as an uninterrupted run.
        place = self.step % self.grad_accumulation_factor
        seed = (self.seed, self.optimizer_step, _rank())
        torch.manual_seed(hash((*seed, place) if place else seed))
        try:
            loss = super().fit_batch(batch)
        except _SkipStep:
            self.zero_grad(set_to_none=True)
            # SpeechBrain turns this off for all but the last batch of a step,
            # and after an exception it stays off.
            for module in self.modules.values():
                if hasattr(module, "require_backward_grad_sync"):
                    module.require_backward_grad_sync = True
            return torch.tensor(math.nan)
        self.nonfinite_count = 0
        if self.records and not self._has_key:
            # Not as late as after an epoch, which may take hours.
            known = next(iter(self.records.values()))
            self._check_select_key(dict.fromkeys((*known, *self.later)))
            self._has_key = True
        return loss

    def _check_select_key(self, known):
        """Refuse a key that is none of the known statistics."""
        if self.select_key not in known:
            raise LMACError(
                f"select_key: '{self.select_key}' is none of {', '.join(known)}"
            )

    def on_fit_batch_start(self, batch, should_step):
        """Set the learning rate of this step."""
        schedule = self.lr_annealing
        if isinstance(schedule, OneCycle):
            rate = schedule.at(self.done)
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def _should_save_intra_epoch_ckpt(self, *args):
        """Not within a step: no checkpoint holds the gradients so far."""
        within = self.step % self.grad_accumulation_factor
        return not within and super()._should_save_intra_epoch_ckpt(*args)

    @property
    def done(self):
        """Share of the training that is done at the end of this step."""
        n_steps = self.steps_per_epoch * self.number_of_epochs
        # Of one step more than there are, so that the last learning rate is
        # not zero either.
        return (self.optimizer_step + 1) / (n_steps + 1)

    def mean_loss(self, losses, ids):
        """Mean loss over the clips of all processes.

        Arguments
        ---------
        losses : torch.Tensor
            [batch].
        ids : list of str
            Names of the clips.

        Returns
        -------
        torch.Tensor
            Scalar. SpeechBrain averages the gradients of several processes.
            So here a process with fewer clips gets a smaller weight, and a
            process without clips of its own, which repeats another's, gets
            none.
        """
        self.record(ids, loss=losses)
        if _world_size() == 1 or not torch.is_grad_enabled():
            return losses.mean()
        # Number of clips, and a hash of the first, which others may repeat.
        digest = hashlib.sha256(ids[0].encode()).digest()
        first = int.from_bytes(digest[:7], "big")
        mine = torch.tensor([len(ids), first], device=losses.device)
        shares = [torch.zeros_like(mine) for _ in range(_world_size())]
        distributed.all_gather(shares, mine)
        shares = [share.tolist() for share in shares]
        repeats = [i > 0 and s[1] == shares[0][1] for i, s in enumerate(shares)]
        n_clips = sum(s[0] for s, again in zip(shares, repeats) if not again)
        weight = 0 if repeats[_rank()] else _world_size() / n_clips
        return losses.sum() * weight

    def check_loss_isfinite(self, loss):
        """Skip this step if the loss is not finite in any process."""
        finite = torch.isfinite(loss.detach()).float().reshape(1)
        if _world_size() > 1:
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        if not finite.item():
            self._leave_out(
                "loss",
                [
                    clip
                    for clip in self._batch_ids
                    if not math.isfinite(self.records[clip]["loss"])
                ],
            )

    def check_gradients(self):
        """Skip this step if a finite loss has gradients that are not finite."""
        for parameter in self.modules.parameters():
            gradient = parameter.grad
            if gradient is not None and not gradient.isfinite().all():
                self._leave_out("gradient", self._batch_ids)

    def _leave_out(self, what, clips):
        """Skip this step, or stop if there were too many in a row."""
        # All processes get here, since they share loss and gradients.
        clips = sorted({clip for part in _gather(clips) for clip in part})
        names = ", ".join(clips)
        self.nonfinite_count += 1
        if if_main_process():
            logger.warning(
                "%s is not finite, step skipped; clips: %s", what, names
            )
        if self.nonfinite_count > self.nonfinite_patience:
            raise LMACError(
                f"{what}: not finite in {self.nonfinite_count} steps in a "
                f"row, the last with the clips {names}; the last checkpoint "
                "is kept, lower the learning rate or check these clips"
            )
        raise _SkipStep

    def record(self, ids, **values):
        """Keep values for each clip, by name.

        Arguments
        ---------
        ids : list of str
            Names of the clips.
        **values
            One torch.Tensor [batch] for each name.
        """
        columns = {k: v.detach().float().tolist() for k, v in values.items()}
        for place, clip in enumerate(ids):
            row = self.records.setdefault(clip, {})
            for name, column in columns.items():
                row[name] = column[place]

    def gathered_records(self):
        """Records of all processes, each clip once, sorted by name."""
        parts = _gather(self.records)[::-1]  # the first process overrides
        merged = {clip: row for part in parts for clip, row in part.items()}
        return dict(sorted(merged.items()))

    def averages(self):
        """Mean of each recorded value over the clips, without NaN.

        Returns
        -------
        dict
            Name to mean, and ``n_nan``, the number of clips with a NaN, if
            there are any.
        """
        rows = self.gathered_records().values()
        names = list(dict.fromkeys(name for row in rows for name in row))
        stats, n_nan = {}, 0
        for row in rows:
            n_nan += any(math.isnan(value) for value in row.values())
        for name in names:
            values = [row[name] for row in rows if name in row]
            values = [value for value in values if not math.isnan(value)]
            # A metric that no clip defines has no mean.
            stats[name] = sum(values) / len(values) if values else math.nan
        if n_nan:
            stats["n_nan"] = n_nan
        return stats

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log the averages; after validation, also save a checkpoint."""
        self.stats = stats = self.averages()
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        elif stage == sb.Stage.VALID:
            self.finish_epoch(epoch, stats)
        else:
            self.log({"epoch": self.tested.meta["epoch"]}, test_stats=stats)

    def finish_epoch(self, epoch, valid_stats):
        """Log, update the learning rate, and save a checkpoint.

        Only the last checkpoints and the best one are kept.

        Arguments
        ---------
        epoch : int
            The epoch that ends.
        valid_stats : dict
            From `averages`.

        Raises
        ------
        LMACError
            If `select_key` is not one of the statistics.
        """
        self._check_select_key(valid_stats)
        rate = self.optimizer.param_groups[0]["lr"]
        annealing = self.lr_annealing
        if not isinstance(annealing, OneCycle):
            # The scheduler cannot compare NaN: treat it as the worst loss.
            loss = plain(valid_stats).get("loss", math.inf)
            _, new_rate = annealing([self.optimizer], epoch, loss)
            sb.nnet.schedulers.update_learning_rate(self.optimizer, new_rate)
        self.log({"epoch": epoch, "lr": rate}, self.train_stats, valid_stats)
        meta = plain({**valid_stats, "epoch": epoch})
        worst = -math.inf if self.select_largest else math.inf
        meta.setdefault(self.select_key, worst)
        direction = "max_keys" if self.select_largest else "min_keys"
        self.checkpointer.save_and_keep_only(
            meta=meta, **{direction: [self.select_key]}, num_to_keep=1
        )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the best checkpoint; without one, raise an error."""
        direction = "max_key" if self.select_largest else "min_key"
        found = self.checkpointer.recover_if_possible(
            **{direction: self.select_key}
        )
        if found is None:
            raise LMACError(
                f"{self.checkpointer.checkpoints_dir}: no checkpoint with "
                f"'{self.select_key}' to test; train first"
            )
        self.tested = found

    def evaluate_batch(self, batch, stage):
        """Evaluate one batch, and count it where that is a test."""
        if stage == sb.Stage.TEST:
            self.bar.update()
        return super().evaluate_batch(batch, stage)

    # All processes call this: SpeechBrain's loggers would wait for the others
    # if only the main process called them without this decorator.
    @main_process_only
    def log(self, meta, train_stats=None, valid_stats=None, test_stats=None):
        """Write statistics to the console, the log and TensorBoard."""
        stats = {
            "train_stats": train_stats,
            "valid_stats": valid_stats,
            "test_stats": test_stats,
        }
        stats = {k: v for k, v in stats.items() if v is not None}
        self.train_logger.log_stats(meta, **stats)
        if self.tensorboard_logger is not None and test_stats is None:
            self.tensorboard_logger.log_stats(meta, **stats)
        self._print(meta, stats)

    def _print(self, meta, stats):
        """Print a line of statistics."""
        verbose = get_loudness() is Loudness.VERBOSE
        every = math.ceil(self.number_of_epochs / MOST_EPOCHS)
        epoch, tested = meta["epoch"], "test_stats" in stats
        last = epoch == self.number_of_epochs
        if not (tested or verbose or last or (epoch - 1) % every == 0):
            return
        parts = [f"{k} {_number(v)}" for k, v in meta.items()]
        console = {*CONSOLE, *shown_in("console")}
        for kind, values in stats.items():
            kind = kind.split("_")[0]
            numbers = " ".join(
                f"{k} {_number(v)}"
                for k, v in values.items()
                if verbose or k in console
            )
            parts.append(f"{kind}: {numbers}")
        say(" | ".join(parts), Loudness.QUIET if tested else Loudness.USUAL)


def gather_rows(rows):
    """Rows of all processes, each clip and method once.

    Arguments
    ---------
    rows : list of dict
        Rows of this process, with the keys ``id`` and ``method``.

    Returns
    -------
    list of dict
        Sorted by clip; the methods of a clip keep their order.
    """
    merged = {}
    for part in _gather(rows):
        for row in part:
            merged.setdefault((row["id"], row["method"]), row)
    return sorted(merged.values(), key=lambda row: row["id"])


def _gather(value):
    """List of the values of all processes."""
    if _world_size() == 1:
        return [value]
    values = [None] * _world_size()
    distributed.all_gather_object(values, value)
    return values


def _is_memory_error(error):
    """Whether an error means that a device has run out of memory."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def _number(value):
    """A number as short text."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _world_size():
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank():
    """Number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0
