r"""Faithfulness of explanations, one value a clip.

:math:`p` are the classifier's probabilities on the unmasked clip,
:math:`p_{in}` and :math:`p_{out}` those on its masked-in and masked-out part;
:math:`c` is the explained class, by default the decision
:math:`\arg\max p`. Probabilities enter as they are: a second softmax would
turn a drop of 88.9 % into 54.6 %.

A clip with a NaN probability has a NaN value, never a good or a bad one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmac_sb.utils.errors import LMACError

__all__ = [
    "average_drop",
    "average_drop_second_softmax",
    "average_gain",
    "average_increase",
    "faithfulness",
    "faithfulness_logit",
    "input_fidelity",
]

# Rounding moves a probability near 1 by a few 1e-7, and analysis and
# resynthesis by a little more; a smaller rise is none.
TOLERANCE = 1e-6


def _of_class(
    name: str, whole: Tensor, masked: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor]:
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
            f"target: shape {tuple(target.shape)}, expected one class for "
            f"each of {len(whole)} clips"
        )
    index = target[:, None]
    return whole.gather(1, index)[:, 0], masked.gather(1, index)[:, 0]


def _explained(
    p: Tensor, p_masked: Tensor, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """p_c before and after, [batch] each, after checking the inputs."""
    pair = _of_class("probabilities", p, p_masked, target)
    for name, values in (("p", p), ("p masked", p_masked)):
        if ((values < -1e-4) | (values > 1 + 1e-4)).any():
            raise LMACError(
                f"{name}: values outside [0, 1]; give probabilities, not logits"
            )
    return pair


def _invalid(value: Tensor, *inputs: Tensor) -> Tensor:
    """The value, NaN for the clips that have NaN among the inputs."""
    bad = torch.zeros_like(value, dtype=torch.bool)
    for x in inputs:
        bad = bad | x.isnan().flatten(1).any(1)
    return value.masked_fill(bad, math.nan)


def average_increase(
    p: Tensor,
    p_in: Tensor,
    target: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
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


def average_drop(
    p: Tensor, p_in: Tensor, target: Tensor | None = None
) -> Tensor:
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


def average_drop_second_softmax(
    p: Tensor, p_in: Tensor, target: Tensor | None = None
) -> Tensor:
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


def average_gain(
    p: Tensor, p_in: Tensor, target: Tensor | None = None
) -> Tensor:
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


def faithfulness(
    p: Tensor, p_out: Tensor, target: Tensor | None = None
) -> Tensor:
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


def faithfulness_logit(
    logits: Tensor, logits_out: Tensor, target: Tensor | None = None
) -> Tensor:
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


def input_fidelity(
    p: Tensor, p_in: Tensor, target: Tensor | None = None
) -> Tensor:
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
