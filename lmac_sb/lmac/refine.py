"""Refinement: a few gradient steps from the decoder's mask, for each clip.

A decoder answers in one pass and is right on average. A mask optimised for
one clip keeps more of the decision in less area, and costs hundreds of
passes. A few steps that start at the decoder's mask have most of both.
"""

import logging
import math

import torch
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError, is_number, is_whole, shown

__all__ = ["Refiner", "check_steps"]

logger = logging.getLogger(__name__)

EPSILON = 1e-8
_NO_GRADIENT = (
    "refine_steps: no gradient of the classifier reaches the mask; refining "
    "needs a differentiable classifier"
)


class Refiner:
    """Gradient steps on a smooth correction of mask logits.

    The correction has coefficients for so many frames and bins, bilinearly
    interpolated: an offset, and with `gain` what the level of a bin is
    multiplied by, so that the mask can follow the sound. It cannot draw the
    single bins that would fool this classifier alone. The steps are Adam's
    (Kingma & Ba, arXiv 1412.6980), on the objective that trains the decoder.
    No clip depends on the others of its batch; nothing is drawn at random.
    Where a mask is all but 0 or 1 it has next to no gradient, and stays.

    Arguments
    ---------
    loss : lmac_sb.lmac.losses.LMACLoss
        The objective.
    lr : float
        Step size, in logits.
    resolution : int
        Frames and bins for one pair of coefficients.
    smooth_w : float
        Weight of the coefficients' mean squared difference between
        neighbours.
    tolerance : float
        A clip is done when neither the masked-in probability of the class
        nor the mask's area has moved by more in one step.
    gain : bool
        Whether the correction follows the level of the sound.
    betas : sequence of float
        How much of the mean gradient and of its mean square each step keeps.
        A short memory goes further in few steps.

    Raises
    ------
    LMACError
        If a setting is out of range.

    Example
    -------
    >>> from lmac_sb.lmac.losses import LMACLoss
    >>> refiner = Refiner(LMACLoss(l_in_w=1, l_out_w=0, reg_w_l1=1))
    >>> def classify(mask, rows):  # hears the first four frames alone
    ...     sides = (x[:, :4].mean((1, 2)) for x in (mask, 1 - mask))
    ...     return [torch.stack((9 * x, 9 - 9 * x), dim=1) for x in sides]
    >>> start = torch.zeros(1, 12, 8)
    >>> mask = refiner(start, classify, torch.tensor([0]), steps=5)
    >>> bool((mask[:, :4] > 0.7).all()), bool((mask[:, 8:] < 0.1).all())
    (True, True)
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        loss,
        lr=1.0,
        resolution=4,
        smooth_w=0.0,
        tolerance=1e-4,
        gain=False,
        betas=(0.9, 0.999),
    ):
        for key, value, is_good, needed in (
            ("lr", lr, 0 < lr < math.inf, "a number above 0"),
            (
                "resolution",
                resolution,
                is_whole(resolution) and resolution > 0,
                "a whole number from 1",
            ),
            ("smooth_w", smooth_w, 0 <= smooth_w < math.inf, "0 or more"),
            ("tolerance", tolerance, 0 <= tolerance < math.inf, "0 or more"),
            ("betas", betas, _are_shares(betas), "two numbers in [0, 1)"),
        ):
            if not is_good:
                raise LMACError(f"refiner: {key}: {value}, expected {needed}")
        self.loss = loss
        self.lr = lr
        self.resolution = resolution
        self.smooth_w = smooth_w
        self.tolerance = tolerance
        self.gain = gain
        self.betas = list(betas)

    def __call__(self, logits, classify, target, steps, level=None, keep=None):
        """Refine masks.

        Arguments
        ---------
        logits : torch.Tensor
            Where to start, [batch, time, freq].
        classify : callable
            Of a mask [clips, time, freq] and the numbers of these clips in
            the batch, to the classifier's logits on what is masked in and
            out, [clips, classes] each; after them, if the loss wants them,
            the `lmac_sb.lmac.losses.Embeddings`.
        target : torch.Tensor
            Explained class, [batch].
        steps : int
            At most so many. The classifier sees both sides forward and
            backward in each, and forward after the last: `4 * steps + 2`
            passes.
        level : torch.Tensor
            Level of each bin, [batch, time, freq], from
            `lmac_sb.models.decoder.standard_level`; `gain` needs it.
        keep : callable
            Called after each `classify` whose masks are the best so far, with
            the numbers of these clips in the batch and their places among
            those that were classified; so whoever classifies can keep what it
            has found of the masks that are returned.

        Returns
        -------
        torch.Tensor
            Masks [batch, time, freq], detached: of each clip the best one on
            the way under the objective, so none is worse than the start. A
            clip whose objective is not finite keeps the best mask before
            that, and a warning tells.

        Raises
        ------
        LMACError
            If the number of steps is no whole number from 0, the level is
            missing or has another shape, or no gradient of the classifier
            reaches the mask.
        """
        check_steps(steps)
        if self.gain and (level is None or level.shape != logits.shape):
            found = "none" if level is None else f"shape {tuple(level.shape)}"
            raise LMACError(
                f"level: found {found}, expected that of each bin, "
                f"{tuple(logits.shape)}, which gain=True follows"
            )
        with torch.inference_mode(False), torch.enable_grad():
            # Copies: what was made in inference mode takes no gradient.
            start = logits.detach().clone()
            level = level.detach().to(start, copy=True) if self.gain else None
            return self._descend(
                start, level, classify, target.clone(), steps, keep
            )

    def look(self, logits, log_odds):
        """A second look: one step that hears the kept part alone.

        It goes by the sign of the gradient of the answer's log-odds on what is
        masked in, less the weighted area. A step of `__call__` costs twice as
        much, since it hears both sides, and two passes more to tell whether
        it has helped, which is not asked here.

        Arguments
        ---------
        logits : torch.Tensor
            Where to start, [batch, time, freq].
        log_odds : callable
            Of a mask [batch, time, freq], to the log-odds of the explained
            answer on what is masked in, [batch].

        Returns
        -------
        torch.Tensor
            Masks [batch, time, freq], detached.

        Raises
        ------
        LMACError
            If no gradient of the classifier reaches the mask.

        Example
        -------
        >>> from lmac_sb.lmac.losses import LMACLoss
        >>> refiner = Refiner(LMACLoss(l_in_w=1, l_out_w=0, reg_w_l1=1))
        >>> mask = refiner.look(  # hears the first four frames alone
        ...     torch.zeros(1, 12, 8), lambda mask: 9 * mask[:, :4].mean((1, 2))
        ... )
        >>> bool((mask[:, 0] > 0.7).all()), bool((mask[:, 10:] < 0.3).all())
        (True, True)
        """
        with torch.inference_mode(False), torch.enable_grad():
            # A copy: what was made in inference mode takes no gradient.
            start = logits.detach().clone()
            cells = [-(-n // self.resolution) for n in start.shape[1:]]
            shift = start.new_zeros(len(start), 1, *cells).requires_grad_()
            mask = torch.sigmoid(start + self._spread(shift, None, start))
            odds = log_odds(mask)
            if not odds.requires_grad:
                raise LMACError(f"{_NO_GRADIENT}, its logits hold none")
            losses = self.loss.reg_w_l1 * mask.mean((1, 2)) - odds
            # No direction where the classifier's answer is no number.
            step = _gradient(losses, shift).nan_to_num(0, 0, 0).sign()
        step = self._spread(-self.lr * step, None, start)
        return torch.sigmoid(start + step)

    def _descend(self, logits, level, classify, target, steps, keep):
        """The steps; leaves each clip out once it is done."""
        masks = torch.sigmoid(logits)
        if steps == 0:
            return masks
        cells = [-(-n // self.resolution) for n in logits.shape[1:]]
        correction = logits.new_zeros(len(logits), 1 + self.gain, *cells)
        mean, square = correction.clone(), correction.clone()
        best = logits.new_full(logits.shape[:1], torch.inf)
        before = logits.new_full((len(logits), 2), torch.inf)
        # The clips that are not done, by their place in the batch. All else
        # but `masks` and `best` is of these clips alone.
        rows = torch.arange(len(logits), device=logits.device)
        for step in range(1, steps + 2):
            # The last round only looks at where the last step has led.
            goes_on = bool(step <= steps)
            part = correction.detach().requires_grad_(goes_on)
            with torch.set_grad_enabled(goes_on):
                mask = torch.sigmoid(logits + self._spread(part, level, logits))
                losses, state = self._objective(
                    mask, part, classify, target, rows
                )
            # After a gradient that is no number, the next round's is none.
            valid = losses.isfinite()
            if not valid.all():
                logger.warning(
                    "refinement: the objective is not finite for %d clips, "
                    "which keep the best mask before",
                    int((~valid).sum()),
                )
            better = valid & (losses.detach() < best[rows])
            masks[rows[better]] = mask.detach()[better]
            best[rows[better]] = losses[better].detach().to(best.dtype)
            if keep is not None and better.any():
                keep(rows[better], better.nonzero()[:, 0])
            if not goes_on:
                break
            moved = (state - before).abs().amax(1) > self.tolerance
            going = valid & moved
            if not going.any():
                break
            gradient, before = _gradient(losses, part), state
            if not going.all():
                rows, logits, target, before, gradient = (
                    x[going] for x in (rows, logits, target, before, gradient)
                )
                correction, mean, square = (
                    x[going] for x in (correction, mean, square)
                )
                level = None if level is None else level[going]
            first, second = self.betas
            mean = mean + (1 - first) * (gradient - mean)
            square = square + (1 - second) * (gradient**2 - square)
            rate = self.lr / (1 - first**step)
            scale = (square / (1 - second**step)).sqrt() + EPSILON
            correction = correction - rate * mean / scale
        return masks

    def _spread(self, correction, level, logits):
        """Coefficients [clips, n, cells, cells] as a change of mask logits."""
        n_frames, n_bins = logits.shape[1:]
        if self.resolution != 1:
            correction = F.interpolate(
                correction, scale_factor=self.resolution, mode="bilinear"
            )
        correction = correction[..., :n_frames, :n_bins]
        if level is None:
            return correction[:, 0]
        return torch.addcmul(correction[:, 0], correction[:, 1], level)

    def _objective(self, mask, correction, classify, target, rows):
        """Losses [clips], and what tells whether a clip still moves."""
        logits_in, logits_out, *embeddings = classify(mask, rows)
        if mask.requires_grad and not logits_in.requires_grad:
            # The sparsity has a gradient nonetheless: it would only erase.
            raise LMACError(f"{_NO_GRADIENT}, its logits hold none")
        losses, _ = self.loss(
            mask, logits_in, logits_out, target, None, *embeddings
        )
        if self.smooth_w:
            for dim in (2, 3):
                jumps = correction.diff(dim=dim)
                if jumps.numel():  # none where there is one cell alone
                    jumps = jumps.pow(2).mean((1, 2, 3))
                    losses = losses + self.smooth_w * jumps
        with torch.no_grad():
            p_in = logits_in.softmax(1).gather(1, target[:, None])[:, 0]
            state = torch.stack((p_in.float(), mask.mean((1, 2))), dim=1)
        return losses, state


def check_steps(steps, key="refine_steps"):
    """Refuse what is no number of steps.

    Arguments
    ---------
    steps : int
        From 0.
    key : str
        What the user called it.

    Raises
    ------
    LMACError
        Says what was found and what is needed.

    Example
    -------
    >>> check_steps(-1)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: refine_steps: -1, expected a whole number from 0
    """
    if not is_whole(steps) or steps < 0:
        raise LMACError(
            f"{key}: {shown(steps)}, expected a whole number from 0"
        )


def _are_shares(values):
    """Whether a value is two numbers in [0, 1)."""
    return (
        isinstance(values, (list, tuple))
        and len(values) == 2
        and all(is_number(x) and 0 <= x < 1 for x in values)
    )


def _gradient(losses, correction):
    """Gradient of each clip's loss, [clips, n, cells, cells]."""
    try:
        (gradient,) = torch.autograd.grad(losses.sum(), correction)
    except torch.OutOfMemoryError:
        raise  # a RuntimeError too, but not the classifier's fault
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise LMACError(f"{_NO_GRADIENT} ({reason})") from error
    return gradient
