"""How much of a sound another one is."""

from __future__ import annotations

import math

from torch import Tensor

from lmac_sb.utils.errors import LMACError

__all__ = ["si_sdr"]

# In dB; beyond it rounding decides, and an exact estimate would be infinite.
LARGEST_SI_SDR = 100.0


def si_sdr(estimate: Tensor, reference: Tensor) -> Tensor:
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
    >>> import torch
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


def _centred(sounds: Tensor) -> tuple[Tensor, Tensor]:
    """Sounds without their mean, [batch, samples], and whether none is left."""
    sounds = sounds.detach().double()
    centred = sounds - sounds.mean(1, keepdim=True)
    # Of a constant, rounding leaves a little beside its mean.
    left = centred.square().sum(1)
    return centred, left <= 1e-20 * sounds.square().sum(1)
