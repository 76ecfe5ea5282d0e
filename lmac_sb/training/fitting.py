"""Train a decoder in a few lines: no run folder, no checkpoints on disk."""

import copy
import dataclasses
import logging
import math
import numbers

import torch
from tqdm import tqdm

from lmac_sb.data.clips import equal_batches
from lmac_sb.metrics.registry import evaluate
from lmac_sb.training.brain import OneCycle
from lmac_sb.training.kinds import positive, whole
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.user import help_torch

__all__ = ["Fitting", "fit_decoder"]

logger = logging.getLogger(__name__)

_LARGEST = 2**63 - 1  # seed, as torch takes them
_SHOWN = ("AI", "AD", "FF", "area")  # beside the progress bar


@dataclasses.dataclass(frozen=True)
class Fitting:
    """How a decoder is trained.

    Arguments
    ---------
    valid : float or sounds
        Share of the sounds that is held out, or sounds of its own, of any
        kind that `lmac_sb.data.clips.Clips` takes.
    batch_size : int
        Clips of a step.
    lr : float
        Highest learning rate of Adam.
    patience : int
        Epochs without a better validation loss after which training ends.
    seed : int
        Of the decoder's first weights, the held-out clips and their order.
    width : int
        Channels of the decoder.
    rate : int
        Rate in Hz of waveforms that come without one.
    loss : lmac_sb.lmac.losses.LMACLoss
        The objective; by default that of the gradient steps.
    progress : bool
        Whether a bar shows how far it is.

    Raises
    ------
    LMACError
        If a value is out of range.

    Example
    -------
    >>> Fitting(patience=0)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: patience: found 0, expected a whole number from 1
    """

    valid: object = 0.2
    batch_size: int = 8
    lr: float = 2e-3
    patience: int = 5
    seed: int = 1234
    width: int = 32
    rate: int = None
    loss: object = None
    progress: bool = True

    def __post_init__(self):
        for name, least in (
            ("batch_size", 1),
            ("patience", 1),
            ("width", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if not whole(least, _LARGEST).holds(value):
                raise LMACError(
                    f"{name}: found {shown(value)}, expected a whole number "
                    f"from {least}"
                    + (f" to {_LARGEST}" if name == "seed" else "")
                )
            object.__setattr__(self, name, int(value))  # torch wants no NumPy
        if not positive.holds(self.lr):
            raise LMACError(
                f"lr: found {shown(self.lr)}, expected a number above 0"
            )
        if self.loss is not None and not callable(self.loss):
            raise LMACError(
                f"loss: found {shown(self.loss)}, expected an "
                "lmac_sb.losses.LMACLoss"
            )
        if isinstance(self.valid, numbers.Real) and not 0 < self.valid < 1:
            raise LMACError(
                f"valid: found {self.valid}, expected a share between 0 and "
                "1, or sounds"
            )


def fit_decoder(explainer, train, valid, epochs, how):
    """Train the decoder of an explainer, and keep its best weights.

    The target of each clip is the classifier's own decision; of one that
    decides each class on its own, the most probable class.

    Arguments
    ---------
    explainer : lmac_sb.Explainer
        Its decoder is trained.
    train, valid : lmac_sb.data.clips.Clips
        Sounds, of which no label is needed.
    epochs : int
        At most so many passes over `train`.
    how : Fitting
        Everything else.

    Returns
    -------
    list of dict
        For each epoch its number as ``epoch``, ``train_loss``, ``loss`` (that
        of validation) and the means of all metrics of validation. The epoch
        that is kept has the smallest ``loss``.

    Raises
    ------
    LMACError
        If no step of an epoch has a finite loss.
    """
    help_torch()
    decoder, loss = explainer.decoder, how.loss or explainer.refiner.loss
    optimizer = torch.optim.Adam(decoder.parameters(), lr=how.lr)
    generator = torch.Generator().manual_seed(how.seed)
    n_steps = -(-len(train) // how.batch_size) * epochs
    schedule, step = OneCycle(how.lr), 0
    best, history, waits = math.inf, [], 0
    weights = copy.deepcopy(decoder.state_dict())
    bar = tqdm(
        total=n_steps,
        desc="fit",
        unit="step",
        disable=None if how.progress else True,
    )
    with bar:
        for epoch in range(1, epochs + 1):
            losses = []
            for rows in equal_batches(train.lengths, how.batch_size, generator):
                step += 1
                rate = schedule.at(step / (n_steps + 1))
                for group in optimizer.param_groups:
                    group["lr"] = rate
                losses += _step(explainer, loss, optimizer, train, rows)
                bar.update()
            if not losses:
                raise LMACError(
                    "sounds: found no clip with a finite loss and gradient, "
                    "expected sounds that the classifier answers with "
                    "finite numbers; a lower lr may help"
                )
            row = {"epoch": epoch, "train_loss": sum(losses) / len(losses)}
            row.update(_validate(explainer, loss, valid, how.batch_size))
            history.append(row)
            bar.set_postfix({k: f"{row[k]:.3g}" for k in ("loss", *_SHOWN)})
            logger.info("epoch %d: loss %.4g", epoch, row["loss"])
            waits += 1
            if row["loss"] < best:
                best, waits = row["loss"], 0
                weights = copy.deepcopy(decoder.state_dict())
            if waits >= how.patience:
                break
    decoder.load_state_dict(weights)
    return history


def _batch(explainer, clips, rows):
    """Waveforms [batch, samples] of clips, cut to the shortest."""
    wavs = [clips[i] for i in rows]
    shortest = min(len(wav) for wav in wavs)
    device = next(explainer.decoder.parameters()).device
    return torch.stack([wav[:shortest] for wav in wavs]).to(device)


def _losses(explainer, loss, wavs):
    """Losses [batch] of the decoder's masks, and the explanation."""
    analysis = explainer.analyze(wavs)
    explanation = explainer(
        analysis=analysis, sounds=False, refine_steps=0, second_look=False
    )
    asked = explanation.asked()
    losses, _ = loss(
        asked.mask, asked.logits_in, asked.logits_out, asked.decision
    )
    return losses, asked


def _step(explainer, loss, optimizer, clips, rows):
    """One step; returns its losses, none if they are not finite."""
    with torch.inference_mode(False), torch.enable_grad():
        losses, _ = _losses(explainer, loss, _batch(explainer, clips, rows))
        optimizer.zero_grad()
        losses.mean().backward()
    parameters = [p for p in explainer.decoder.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(parameters, 5.0)
    if not (losses.isfinite().all() and norm.isfinite()):
        logger.warning("loss or gradient not finite, step skipped: %s", rows)
        return []
    optimizer.step()
    return losses.tolist()


@torch.no_grad()
def _validate(explainer, loss, clips, batch_size):
    """Mean loss and metrics of held-out clips."""
    values = {}
    for rows in equal_batches(clips.lengths, batch_size):
        losses, asked = _losses(explainer, loss, _batch(explainer, clips, rows))
        for name, column in {"loss": losses, **evaluate(asked)}.items():
            values.setdefault(name, []).extend(column.tolist())
    means = {}
    for name, column in values.items():
        column = [value for value in column if not math.isnan(value)]
        means[name] = sum(column) / len(column) if column else math.nan
    # A loss that is no number is not the best.
    if math.isnan(means["loss"]):
        means["loss"] = math.inf
    return means
