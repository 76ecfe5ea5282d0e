"""Shape of a mask: sparseness, complexity, area; one value a clip."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["complexity", "mask_area", "sparseness"]


def sparseness(mask: Tensor) -> Tensor:
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


def _sort(values: Tensor) -> Tensor:
    """Each row in ascending order; [batch, n]."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    # Several times faster there; with torch's most of all metrics' time.
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def complexity(mask: Tensor) -> Tensor:
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


def mask_area(mask: Tensor) -> Tensor:
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
