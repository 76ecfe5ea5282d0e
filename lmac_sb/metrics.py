r"""Faithfulness, shape and sound of explanations, one value a clip.

:math:`p` are the classifier's probabilities on the unmasked clip,
:math:`p_{in}` and :math:`p_{out}` those on its masked-in and masked-out part;
:math:`c` is the explained class, by default the decision
:math:`\arg\max p`. Probabilities enter as they are: a second softmax would
turn a drop of 88.9 % into 54.6 %.

A clip with a NaN probability has a NaN value, never a good or a bad one.

Authors
 * The lmac-sb authors 2026
"""

import math
from collections import namedtuple

import numpy as np
import torch

from lmac_sb.errors import LMACError
from lmac_sb.localisation import (
    event_auc,
    event_mass,
    event_topk,
    time_auc,
    time_mass,
)

__all__ = [
    "GUARDS",
    "METRICS",
    "average_drop",
    "average_drop_second_softmax",
    "average_gain",
    "average_increase",
    "complexity",
    "direction",
    "evaluate",
    "faithfulness",
    "faithfulness_logit",
    "input_fidelity",
    "mask_area",
    "si_sdr",
    "sparseness",
    "unguarded",
]

# Rounding moves a probability near 1 by a few 1e-7, and analysis and
# resynthesis by a little more; a smaller rise is none.
TOLERANCE = 1e-6
# In dB; beyond it rounding decides, and an exact estimate would be infinite.
LARGEST_SI_SDR = 100.0


def _of_class(name, whole, masked, target):
    """Class's value before and after, [batch] each, after checking shapes."""
    if whole.dim() != 2 or whole.shape != masked.shape:
        raise LMACError(
            f"{name}: both must be [batch, classes], found "
            f"{tuple(whole.shape)} and {tuple(masked.shape)}"
        )
    if target is None:
        target = whole.argmax(1)
    if target.shape != whole.shape[:1]:
        raise LMACError(
            f"target: shape {tuple(target.shape)}, needed is one class for "
            f"each of {len(whole)} clips"
        )
    index = target[:, None]
    return whole.gather(1, index)[:, 0], masked.gather(1, index)[:, 0]


def _explained(p, p_masked, target):
    """p_c before and after, [batch] each, after checking the inputs."""
    pair = _of_class("probabilities", p, p_masked, target)
    for name, values in (("p", p), ("p masked", p_masked)):
        if ((values < -1e-4) | (values > 1 + 1e-4)).any():
            raise LMACError(
                f"{name}: values outside [0, 1]; give probabilities, not logits"
            )
    return pair


def _invalid(value, *inputs):
    """The value, NaN for the clips that have NaN among the inputs."""
    bad = torch.zeros_like(value, dtype=torch.bool)
    for x in inputs:
        bad = bad | x.isnan().flatten(1).any(1)
    return value.masked_fill(bad, math.nan)


def average_increase(p, p_in, target=None, tolerance=TOLERANCE):
    """AI: 100 where the masked-in part is more convincing than the whole.

    Arguments
    ---------
    p : torch.Tensor
        Probabilities on the clip, [batch, classes].
    p_in : torch.Tensor
        Probabilities on the masked-in part, [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.
    tolerance : float
        Rises up to this count as rounding.

    Returns
    -------
    torch.Tensor
        [batch], 0 or 100; higher is better (Chattopadhay et al., Grad-CAM++,
        arXiv 1710.11063).

    Example
    -------
    >>> p = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    >>> average_increase(p, torch.tensor([[0.7, 0.3], [0.6, 0.4]]))
    tensor([100.,   0.])
    """
    before, inside = _explained(p, p_in, target)
    return _invalid((inside > before + tolerance).float() * 100, p, p_in)


def average_drop(p, p_in, target=None):
    """AD: share of the probability that the masked-in part loses, in %.

    Arguments
    ---------
    p, p_in : torch.Tensor
        Probabilities on the clip and on its masked-in part,
        [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], in [0, 100]; lower is better (arXiv 1710.11063).

    Example
    -------
    >>> p = torch.tensor([[0.9, 0.1]])
    >>> average_drop(p, torch.tensor([[0.1, 0.9]]))
    tensor([88.8889])
    """
    before, inside = _explained(p, p_in, target)
    drop = (before - inside).clamp(min=0)
    # In this order, rounding cannot exceed 100.
    return _invalid(100 * (drop / before.clamp(min=1e-12)), p, p_in)


def average_drop_second_softmax(p, p_in, target=None):
    """AD-2softmax: average drop as the paper's public code computes it.

    That code applies softmax to probabilities, which moves them all close to
    one over the number of classes. A drop from 1 to 0 then reads about 63 %,
    the value depends on the number of classes, and the better of two methods
    can come out as the worse. It is here only to be compared with tables
    that were published that way; `average_drop` is the metric.

    Arguments
    ---------
    p, p_in : torch.Tensor
        Probabilities on the clip and on its masked-in part,
        [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], in %; lower is better.

    Example
    -------
    >>> p, p_in = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> average_drop(p, p_in), average_drop_second_softmax(p, p_in)
    (tensor([100.]), tensor([63.2121]))
    """
    _explained(p, p_in, target)
    target = p.argmax(1) if target is None else target
    return average_drop(p.softmax(1), p_in.softmax(1), target)


def average_gain(p, p_in, target=None):
    """AG: share of the missing probability that the masked-in part wins, in %.

    Arguments
    ---------
    p, p_in : torch.Tensor
        Probabilities on the clip and on its masked-in part,
        [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], in [0, 100]; higher is better (Zhang et al., Opti-CAM,
        arXiv 2301.07002). 0 where the clip leaves nothing to win.

    Example
    -------
    >>> p = torch.tensor([[0.6, 0.4]])
    >>> average_gain(p, torch.tensor([[0.8, 0.2]]))
    tensor([50.])
    """
    before, inside = _explained(p, p_in, target)
    gain = inside - before
    # Near p = 1 a rounding error would read as a gain of 100 %.
    gain = torch.where(gain > TOLERANCE, gain, torch.zeros_like(gain))
    return _invalid(100 * gain / (1 - before).clamp(min=1e-6), p, p_in).clamp(
        max=100
    )


def faithfulness(p, p_out, target=None):
    """FF: probability that the decision loses when the mask is cut out.

    Arguments
    ---------
    p, p_out : torch.Tensor
        Probabilities on the clip and on its masked-out part,
        [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], in [-1, 1]; higher is better (L-MAC, arXiv 2403.13086, in
        the form of its public code).

    Example
    -------
    >>> p = torch.tensor([[0.9, 0.1]])
    >>> faithfulness(p, torch.tensor([[0.2, 0.8]]))
    tensor([0.7000])
    """
    before, outside = _explained(p, p_out, target)
    return _invalid(before - outside, p, p_out)


def faithfulness_logit(logits, logits_out, target=None):
    """FF-logit: what the class's logit loses when the mask is cut out.

    Unlike the probability it does not saturate: near p = 1 it still tells
    cutting out some of the evidence from cutting out all of it.

    Arguments
    ---------
    logits, logits_out : torch.Tensor
        Logits on the clip and on its masked-out part, [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], any number; higher is better (L-MAC, arXiv 2403.13086, as
        the paper writes it).

    Example
    -------
    >>> logits = torch.tensor([[3.0, 0.0]])
    >>> faithfulness_logit(logits, torch.tensor([[-1.0, 2.0]]))
    tensor([4.])
    """
    before, outside = _of_class("logits", logits, logits_out, target)
    return _invalid(before - outside, logits, logits_out)


def input_fidelity(p, p_in, target=None):
    """Fid-In: 1 where the masked-in part gets the same decision.

    Arguments
    ---------
    p, p_in : torch.Tensor
        Probabilities on the clip and on its masked-in part,
        [batch, classes].
    target : torch.Tensor
        Explained class, [batch]; default the decision.

    Returns
    -------
    torch.Tensor
        [batch], 0 or 1; higher is better (Paissan et al., PIQ,
        arXiv 2303.12659).

    Example
    -------
    >>> p = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    >>> input_fidelity(p, torch.tensor([[0.6, 0.4], [0.4, 0.6]]))
    tensor([1., 0.])
    """
    _explained(p, p_in, target)
    target = p.argmax(1) if target is None else target
    return _invalid((p_in.argmax(1) == target).float(), p, p_in)


def sparseness(mask):
    """SPS: Gini index of the mask.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], 0 for any constant mask, towards 1 for a single bin; higher
        is better (Chalasani et al., arXiv 1810.06583; agrees with Quantus'
        `Sparseness`).

    Example
    -------
    >>> sparseness(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]]))
    tensor([0.7500])
    """
    values = _sort(mask.detach().double().abs().flatten(1))
    # As in Quantus; it also gives the empty mask the limit of constant ones.
    values = values + 1e-7
    n = values.shape[1]
    weights = 2 * torch.arange(1, n + 1, device=values.device) - n - 1
    index = (values * weights).sum(1) / (n * values.sum(1))
    # Rounding may leave a constant mask below zero.
    return index.clamp(min=0).float()


def _sort(values):
    """Each row in ascending order; [batch, n]."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    # Several times faster there; with torch's most of all metrics' time.
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def complexity(mask):
    """COMP: entropy of the mask normalised to sum 1.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in nats, from 0 (one bin) to log(time x freq) (a constant
        mask, the empty one included); lower is better (Bhatt et al.,
        arXiv 2005.00631; agrees with Quantus' `Complexity`).

    Example
    -------
    >>> complexity(torch.tensor([[[0.5, 0.5], [0.0, 0.0]]]))  # log 2
    tensor([0.6931])
    """
    values = mask.detach().abs().flatten(1).double()
    total = values.sum(1, keepdim=True)
    share = values / total.clamp(min=1e-300)
    entropy = -torch.xlogy(share, share).sum(1)
    empty = total[:, 0] == 0
    return entropy.masked_fill(empty, math.log(values.shape[1])).float()


def mask_area(mask):
    """Mean of the mask, the share of the spectrogram that it keeps.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1].

    Example
    -------
    >>> mask_area(torch.tensor([[[1.0, 0.0], [0.5, 0.0]]]))
    tensor([0.3750])
    """
    return mask.detach().mean((-2, -1))


def si_sdr(estimate, reference):
    """SI-SDR: how much of a sound is its reference, at whatever gain, in dB.

    Both are freed of their mean. What lies along the reference is signal,
    all else distortion.

    Arguments
    ---------
    estimate, reference : torch.Tensor
        [batch, samples].

    Returns
    -------
    torch.Tensor
        [batch]; higher is better (Le Roux et al., SDR: half-baked or well
        done?, arXiv 1811.02508). Within 100 dB of zero: 100 for an exact
        estimate, -100 for a silent one or one that has nothing of the
        reference, so that a mean over clips exists. NaN where the reference
        is silent, or either holds NaN.

    Raises
    ------
    LMACError
        If the shapes differ.

    Example
    -------
    >>> reference = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    >>> noise = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    >>> si_sdr(10 * reference + noise, reference)
    tensor([20.])
    """
    if estimate.dim() != 2 or estimate.shape != reference.shape:
        raise LMACError(
            "sounds: both must be [batch, samples], found "
            f"{tuple(estimate.shape)} and {tuple(reference.shape)}"
        )
    estimate, nothing_found = _centred(estimate)
    reference, nothing_sought = _centred(reference)
    gain = (estimate * reference).sum(1) / reference.square().sum(1)
    signal = gain[:, None] * reference
    ratio = signal.square().sum(1) / (estimate - signal).square().sum(1)
    decibels = (10 * ratio.log10()).masked_fill(nothing_found, -math.inf)
    decibels = decibels.clamp(-LARGEST_SI_SDR, LARGEST_SI_SDR)
    return decibels.masked_fill(nothing_sought, math.nan).float()


def _centred(sounds):
    """Sounds without their mean, [batch, samples], and whether none is left."""
    sounds = sounds.detach().double()
    centred = sounds - sounds.mean(1, keepdim=True)
    # Of a constant, rounding leaves a little beside its mean.
    left = centred.square().sum(1)
    return centred, left <= 1e-20 * sounds.square().sum(1)


Metric = namedtuple("Metric", "function direction needs short")
# What each explanation is judged by: printed name, better direction (+1
# higher, -1 lower, 0 neither), what the metric is a function of, and whether
# short tables, as after training, show it.
METRICS = {
    "AI": Metric(average_increase, 1, "in", True),
    "AD": Metric(average_drop, -1, "in", True),
    "AG": Metric(average_gain, 1, "in", True),
    "FF": Metric(faithfulness, 1, "out", True),
    "FF-logit": Metric(faithfulness_logit, 1, "logits", False),
    "Fid-In": Metric(input_fidelity, 1, "in", True),
    "SPS": Metric(sparseness, 1, "mask", True),
    "COMP": Metric(complexity, -1, "mask", True),
    "area": Metric(mask_area, 0, "mask", True),
    "AD-2softmax": Metric(average_drop_second_softmax, -1, "in", False),
    "event_mass": Metric(event_mass, 1, "event", True),
    "event_topk": Metric(event_topk, 1, "event", False),
    "event_auc": Metric(event_auc, 1, "event", True),
    "time_mass": Metric(time_mass, 1, "frames", False),
    "time_auc": Metric(time_auc, 1, "frames", False),
}
# Better directions of what one explanation alone does not tell.
DIRECTIONS = {
    "SI-SDR": 1,
    "insertion AUC": 1,
    "deletion AUC": -1,
    "other_mass": -1,
    "other_auc": -1,
}
# Words before a metric's name that say how the mask was judged otherwise: by
# the sounds, with noise on them, shifted, or by another classifier.
GUARDS = ("heard", "noisy", "shifted", "other")


def unguarded(column):
    """Name of the metric in a column, which may be one of the guards.

    Arguments
    ---------
    column : str
        Such as ``heard AI`` or ``AI``.

    Returns
    -------
    str

    Example
    -------
    >>> unguarded("heard AI"), unguarded("insertion AUC")
    ('AI', 'insertion AUC')
    """
    first, _, rest = column.partition(" ")
    return rest if first in GUARDS else column


def direction(column):
    """Better direction of any column of a table.

    Arguments
    ---------
    column : str
        Such as ``AI``, ``heard AI`` or ``SI-SDR``.

    Returns
    -------
    int
        1 if higher is better, -1 if lower is, 0 if neither.

    Example
    -------
    >>> direction("heard AD"), direction("insertion AUC"), direction("area")
    (-1, 1, 0)
    """
    name = unguarded(column)
    if name in METRICS:
        return METRICS[name].direction
    return DIRECTIONS.get(name, 0)


def evaluate(explanation, event=None, frames=None):
    """All metrics of an explained batch.

    Arguments
    ---------
    explanation : lmac_sb.explainer.Explanation
        Any object with mask, logits, logits_in, logits_out and decision.
        Without a mask (None), the metrics of the logits alone.
    event : torch.Tensor
        Ideal mask of a known event, [batch, time, freq], or None.
    frames : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time], where no
        more of it is known; default those of the ideal mask.

    Returns
    -------
    dict
        Name in `METRICS` to [batch]; without those of a mask, an event or
        its frames that are not there.
    """
    logits, logits_in, logits_out = (
        logits.detach().float()
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    p, p_in, p_out = (x.softmax(1) for x in (logits, logits_in, logits_out))
    if event is not None and frames is None:
        frames = (event > 0).any(-1)
    mask, decision = explanation.mask, explanation.decision
    inputs = {
        "in": (p, p_in, decision),
        "out": (p, p_out, decision),
        "logits": (logits, logits_out, decision),
        "mask": (mask,),
        "event": (mask, event),
        "frames": (mask, frames),
    }
    return {
        name: metric.function(*inputs[metric.needs])
        for name, metric in METRICS.items()
        if all(x is not None for x in inputs[metric.needs])
    }
