r"""Faithfulness and shape of explanations, one value a clip.

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

import torch

from lmac_sb.errors import LMACError

__all__ = [
    "METRICS",
    "average_drop",
    "average_gain",
    "average_increase",
    "complexity",
    "event_auc",
    "evaluate",
    "event_mass",
    "faithfulness",
    "input_fidelity",
    "mask_area",
    "sparseness",
]

# Rounding moves a probability near 1 by a few 1e-7, and analysis and
# resynthesis by a little more; a smaller rise is none.
TOLERANCE = 1e-6


def _explained(p, p_masked, target):
    """p_c before and after, [batch] each, after checking the inputs."""
    if p.dim() != 2 or p.shape != p_masked.shape:
        raise LMACError(
            "probabilities: both must be [batch, classes], found "
            f"{tuple(p.shape)} and {tuple(p_masked.shape)}"
        )
    for name, values in (("p", p), ("p masked", p_masked)):
        if ((values < -1e-4) | (values > 1 + 1e-4)).any():
            raise LMACError(
                f"{name}: values outside [0, 1]; give probabilities, not logits"
            )
    if target is None:
        target = p.argmax(1)
    if target.shape != p.shape[:1]:
        raise LMACError(
            f"target: shape {tuple(target.shape)}, needed is one class for "
            f"each of {len(p)} clips"
        )
    index = target[:, None]
    return p.gather(1, index)[:, 0], p_masked.gather(1, index)[:, 0]


def _invalid(value, *inputs):
    """The value, NaN for the clips that have NaN among the inputs."""
    bad = torch.zeros_like(value, dtype=torch.bool)
    for x in inputs:
        bad = bad | x.isnan().flatten(1).any(1)
    return value.masked_fill(bad, math.nan)


def _check_event(mask, ideal):
    """Refuse another grid than the mask's."""
    if mask.shape != ideal.shape:
        raise LMACError(
            f"event: shape {tuple(ideal.shape)}, but the mask has "
            f"{tuple(mask.shape)}"
        )


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
    values = mask.detach().abs().flatten(1).double().sort(dim=1).values
    # As in Quantus; it also gives the empty mask the limit of constant ones.
    values = values + 1e-7
    n = values.shape[1]
    weights = 2 * torch.arange(1, n + 1, device=values.device) - n - 1
    index = (values * weights).sum(1) / (n * values.sum(1))
    # Rounding may leave a constant mask below zero.
    return index.clamp(min=0).float()


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


def event_mass(mask, ideal):
    """Share of the mask that lies on a known event.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    ideal : torch.Tensor
        Zeros and ones, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; higher is better (Arras et al., relevance mass
        accuracy, arXiv 2003.07258). NaN without an event or a mask.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> event_mass(torch.tensor([[[0.6, 0.2], [0.0, 0.0]]]), ideal)
    tensor([0.7500])
    """
    _check_event(mask, ideal)
    mask = mask.detach()
    inside = (mask * ideal).sum((-2, -1)) / mask.sum((-2, -1))
    return inside.masked_fill(ideal.sum((-2, -1)) == 0, math.nan)


def event_auc(mask, ideal):
    """Area under the ROC curve of the mask as a detector of a known event.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].
    ideal : torch.Tensor
        Zeros and ones, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch]: 1 if each bin of the event is above each other bin, 0.5 for
        a constant or random mask; ties count half. NaN without an event or
        without a rest.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> event_auc(torch.tensor([[[0.9, 0.2], [0.0, 0.0]]]), ideal)
    tensor([1.])
    """
    _check_event(mask, ideal)
    values = []
    for scores, event in zip(mask.detach().flatten(1), ideal.flatten(1) > 0):
        _, inverse, counts = scores.unique(
            return_inverse=True, return_counts=True
        )
        # Mid-ranks, so that ties count half (Mann-Whitney).
        ends = counts.cumsum(0).double()
        ranks = (ends - (counts - 1) / 2)[inverse]
        n_event = event.sum().double()
        n_rest = event.numel() - n_event
        above = ranks[event].sum() - n_event * (n_event + 1) / 2
        values.append(above / (n_event * n_rest))
    return _invalid(torch.stack(values).float(), mask)


Metric = namedtuple("Metric", "function direction needs")
# The columns of every table: printed name, better direction (+1 higher,
# -1 lower, 0 neither) and what the metric is a function of.
METRICS = {
    "AI": Metric(average_increase, 1, "in"),
    "AD": Metric(average_drop, -1, "in"),
    "AG": Metric(average_gain, 1, "in"),
    "FF": Metric(faithfulness, 1, "out"),
    "Fid-In": Metric(input_fidelity, 1, "in"),
    "SPS": Metric(sparseness, 1, "mask"),
    "COMP": Metric(complexity, -1, "mask"),
    "area": Metric(mask_area, 0, "mask"),
    "event_mass": Metric(event_mass, 1, "event"),
    "event_auc": Metric(event_auc, 1, "event"),
}


def evaluate(explanation, event=None):
    """All metrics of an explained batch.

    Arguments
    ---------
    explanation : lmac_sb.explainer.Explanation
        Any object with mask, logits, logits_in, logits_out and decision.
    event : torch.Tensor
        Ideal mask of a known event, [batch, time, freq], or None.

    Returns
    -------
    dict
        Name in `METRICS` to [batch].
    """
    p, p_in, p_out = (
        logits.detach().float().softmax(1)
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    inputs = {
        "in": (p, p_in, explanation.decision),
        "out": (p, p_out, explanation.decision),
        "mask": (explanation.mask,),
        "event": (explanation.mask, event),
    }
    return {
        name: metric.function(*inputs[metric.needs])
        for name, metric in METRICS.items()
        if metric.needs != "event" or event is not None
    }
