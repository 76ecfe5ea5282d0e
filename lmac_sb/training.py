"""What the Brain of each recipe shares: batches, records, safe steps.

Authors
 * The lmac-sb authors 2026
"""

import logging
import math
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import if_main_process, main_process_only
from torch import distributed

from lmac_sb.checkpoints import plain
from lmac_sb.data import EqualLengthBatches
from lmac_sb.errors import LMACError

__all__ = ["LOG_CONFIG", "OneCycle", "RecipeBrain", "gather_rows"]

logger = logging.getLogger(__name__)

# For `create_experiment_directory`: a quiet console.
LOG_CONFIG = str(Path(__file__).with_name("log-config.yaml"))


# What the console shows; the log file has all.
SHOWN = "loss accuracy AI AD AG FF Fid-In area event_auc gated n_nan".split()


class OneCycle:
    """Learning rate that rises linearly, then falls to zero as a cosine.

    A pure function of the share of the training that is done, so an
    interrupted run goes on exactly where it was (Smith and Topin,
    arXiv 1708.07120).

    Arguments
    ---------
    lr : float
        Highest learning rate.
    warmup : float
        Share of the training in which it rises, in [0, 1).

    Example
    -------
    >>> schedule = OneCycle(lr=0.1, warmup=0.5)
    >>> [round(schedule.at(done), 3) for done in (0.25, 0.5, 0.75, 1.0)]
    [0.05, 0.1, 0.05, 0.0]
    """

    def __init__(self, lr, warmup=0.15):
        if not (lr > 0 and 0 <= warmup < 1):
            raise LMACError(
                f"lr, warmup: {lr}, {warmup}; needed are lr > 0 and warmup "
                "in [0, 1)"
            )
        self.lr = lr
        self.warmup = warmup

    def at(self, done):
        """Rate after this share of the training, in [0, 1]."""
        if done < self.warmup:
            return self.lr * done / self.warmup
        falling = (done - self.warmup) / (1 - self.warmup)
        return self.lr * (1 + math.cos(math.pi * min(falling, 1))) / 2


class _SkipStep(Exception):
    """The loss of this step is not finite."""


class RecipeBrain(sb.Brain):
    """A `Brain` with per-clip records and steps that cannot do damage.

    A subclass implements `compute_forward` and `compute_objectives`, where
    it calls `record` with one value a clip, and `mean_loss` on the losses of
    its clips.

    Arguments
    ---------
    *args, **kwargs
        See `speechbrain.Brain`.
    seed : int
        Of the order of the clips and of each step's random numbers.
    number_of_epochs : int
        Length of the training.
    lr_annealing : OneCycle or speechbrain.nnet.schedulers.ReduceLROnPlateau
        The learning rate.
    train_logger : speechbrain.utils.train_logger.TrainLogger
        Takes all figures.
    select_key : str
        Figure of the validation by which the best checkpoint is chosen.
    select_largest : bool
        Whether its largest value is the best.

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

    def __init__(
        self,
        *args,
        seed,
        number_of_epochs,
        lr_annealing,
        train_logger,
        select_key,
        select_largest=False,
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
        # A finite loss may still have gradients that are not.
        self.skip_nonfinite_grads = True

    def make_dataloader(
        self, dataset, stage, ckpt_prefix="dataloader-", **kwargs
    ):
        """Loader of batches of equal length, sharded over the processes."""
        train = stage == sb.Stage.TRAIN
        sampler = EqualLengthBatches(
            dataset.n_samples,
            kwargs.pop("batch_size"),
            shuffle=train,
            seed=self.seed,
            rank=_rank(),
            world_size=_world_size(),
        )
        loader = make_dataloader(dataset, batch_sampler=sampler, **kwargs)
        if train:
            self.train_sampler = sampler
            self.steps_per_epoch = len(sampler)
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(
                    f"{ckpt_prefix}{stage.name}", loader
                )
        return loader

    def on_fit_start(self):
        """Resume; say so where there is nothing left to train."""
        super().on_fit_start()
        done = self.checkpointer.recoverables["counter"].current
        if done >= self.number_of_epochs and if_main_process():
            print(f"all {done} epochs are done already", flush=True)

    def _fit_valid(self, valid_set, epoch, enable):
        """Validate without a progress bar of its own."""
        super()._fit_valid(valid_set, epoch, enable=False)

    def on_stage_start(self, stage, epoch=None):
        """Forget the records of the stage before."""
        self.records = {}

    def fit_batch(self, batch):
        """One step, left out if the loss is not finite."""
        self._batch_ids = list(batch.id)
        # Random numbers depend on the step alone, so that a resumed run
        # draws those that the uninterrupted one drew.
        torch.manual_seed(hash((self.seed, self.optimizer_step, _rank())))
        try:
            return super().fit_batch(batch)
        except _SkipStep:
            self.zero_grad(set_to_none=True)
            return torch.tensor(math.nan)

    def on_fit_batch_start(self, batch, should_step):
        """Set the learning rate of this step."""
        schedule = self.lr_annealing
        if isinstance(schedule, OneCycle):
            n_steps = self.steps_per_epoch * self.number_of_epochs
            # The rate at a step's end, so that the first is not zero.
            rate = schedule.at((self.optimizer_step + 1) / (n_steps + 1))
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def mean_loss(self, losses, ids):
        """Mean over the clips of all processes, to be minimised.

        Arguments
        ---------
        losses : torch.Tensor
            [batch].
        ids : list of str
            Names of the clips.

        Returns
        -------
        torch.Tensor
            Scalar. With several processes, whose gradients SpeechBrain
            averages, a process with fewer clips weighs less.
        """
        self.record(ids, loss=losses)
        if _world_size() == 1 or not torch.is_grad_enabled():
            return losses.mean()
        n_clips = torch.tensor(float(len(losses)), device=losses.device)
        distributed.all_reduce(n_clips)
        return losses.sum() * _world_size() / n_clips

    def check_loss_isfinite(self, loss):
        """Leave this step out if the loss is not finite anywhere."""
        finite = torch.isfinite(loss.detach()).float().reshape(1)
        if _world_size() > 1:
            distributed.all_reduce(finite, distributed.ReduceOp.MIN)
        if finite.item():
            self.nonfinite_count = 0
            return
        bad = [
            clip
            for clip in self._batch_ids
            if not math.isfinite(self.records[clip]["loss"])
        ]
        self.nonfinite_count += 1
        logger.warning(
            "loss is not finite, step left out; clips: %s",
            ", ".join(bad) or "of another process",
        )
        if self.nonfinite_count > self.nonfinite_patience:
            raise LMACError(
                f"loss: not finite in {self.nonfinite_count} steps in a row, "
                f"at last for clips {', '.join(bad)}; the last checkpoint is "
                "kept, lower the learning rate or look at these clips"
            )
        raise _SkipStep

    def record(self, ids, **values):
        """Keep one value a clip and name.

        Arguments
        ---------
        ids : list of str
            Names of the clips.
        **values
            Name to torch.Tensor [batch].
        """
        columns = {k: v.detach().float().tolist() for k, v in values.items()}
        for place, clip in enumerate(ids):
            row = self.records.setdefault(clip, {})
            for name, column in columns.items():
                row[name] = column[place]

    def gathered_records(self):
        """Records of all processes, each clip once, ordered by name."""
        parts = _gather(self.records)
        merged = {clip: row for part in parts for clip, row in part.items()}
        return dict(sorted(merged.items()))

    def averages(self):
        """Mean over the clips of each recorded value, NaN ones left out.

        Returns
        -------
        dict
            Name to mean; ``n_nan`` counts the clips with a NaN, if any.
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

    def finish_epoch(self, epoch, valid_stats):
        """Log, anneal and keep the last and the best checkpoint.

        Arguments
        ---------
        epoch : int
            The epoch that ends.
        valid_stats : dict
            From `averages`.

        Raises
        ------
        LMACError
            If `select_key` is none of the statistics.
        """
        key = self.select_key
        if key not in valid_stats:
            raise LMACError(
                f"select_key: '{key}' is none of {', '.join(valid_stats)}"
            )
        rate = self.optimizer.param_groups[0]["lr"]
        annealing = self.lr_annealing
        if not isinstance(annealing, OneCycle):
            # One that never improves must not stop at a NaN.
            loss = plain(valid_stats).get("loss", math.inf)
            _, new_rate = annealing([self.optimizer], epoch, loss)
            sb.nnet.schedulers.update_learning_rate(self.optimizer, new_rate)
        self.log({"epoch": epoch, "lr": rate}, self.train_stats, valid_stats)
        meta = plain({**valid_stats, "epoch": epoch})
        worst = -math.inf if self.select_largest else math.inf
        meta.setdefault(key, worst)
        direction = "max_keys" if self.select_largest else "min_keys"
        self.checkpointer.save_and_keep_only(
            meta=meta, **{direction: [key]}, num_to_keep=1
        )

    def on_evaluate_start(self, max_key=None, min_key=None):
        """Load the best checkpoint; without one there is nothing to test."""
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

    # All processes come here: SpeechBrain's loggers wait for each other
    # unless one process alone is known to run.
    @main_process_only
    def log(self, meta, train_stats=None, valid_stats=None, test_stats=None):
        """One line on the console, all in the log file, maybe TensorBoard."""
        stats = {
            "train_stats": train_stats,
            "valid_stats": valid_stats,
            "test_stats": test_stats,
        }
        stats = {k: v for k, v in stats.items() if v is not None}
        self.train_logger.log_stats(meta, **stats)
        if self.tensorboard_logger is not None and test_stats is None:
            self.tensorboard_logger.log_stats(meta, **stats)
        parts = [f"{k} {_number(v)}" for k, v in meta.items()]
        for kind, values in stats.items():
            kind = kind.split("_")[0]
            figures = " ".join(
                f"{k} {_number(v)}" for k, v in values.items() if k in SHOWN
            )
            parts.append(f"{kind}: {figures}")
        print(" | ".join(parts), flush=True)


def gather_rows(rows):
    """Rows of all processes, each clip and method once, in order.

    Arguments
    ---------
    rows : list of dict
        With the keys ``id`` and ``method``.

    Returns
    -------
    list of dict
        Ordered by clip; the methods keep their order.
    """
    merged = {}
    for part in _gather(rows):
        for row in part:
            merged.setdefault((row["id"], row["method"]), row)
    return sorted(merged.values(), key=lambda row: row["id"])


def _gather(value):
    """The values of all processes."""
    if _world_size() == 1:
        return [value]
    values = [None] * _world_size()
    distributed.all_gather_object(values, value)
    return values


def _number(value):
    """Short text of a number."""
    return str(value) if isinstance(value, int) else f"{value:.4g}"


def _world_size():
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def _rank():
    """Number of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0
