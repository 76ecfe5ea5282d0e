r"""Where a mask lies, one value a clip: does it find a known event?

What is known of the event is either its bins, an ideal mask
`[batch, time, freq]`, or, on most recordings, only when it sounds: its active
frames, `[batch, time]`. Against frames the mask is summed over frequency.

A clip without an event, or with NaN in its mask, has the value NaN, never a
good or a bad one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmac_sb.utils.errors import LMACError

__all__ = ["event_auc", "event_mass", "event_topk", "time_auc", "time_mass"]


def _check(name: str, known: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another grid than the mask's."""
    if known.shape != shape:
        raise LMACError(
            f"{name}: shape {tuple(known.shape)}, but the mask has "
            f"{tuple(shape)}"
        )


def _flat(mask: Tensor, ideal: Tensor) -> tuple[Tensor, Tensor]:
    """Mask and event, [batch, bins] each, after checking their shapes."""
    _check("event", ideal, mask.shape)
    return mask.detach().flatten(1), ideal.flatten(1) > 0


def _frames(mask: Tensor, active: Tensor) -> Tensor:
    """The mask summed over frequency, [batch, time], after a check."""
    if mask.dim() != 3:
        raise LMACError(
            f"mask: shape {tuple(mask.shape)}, expected [batch, time, freq]"
        )
    _check("frames", active, mask.shape[:2])
    # In double precision the order of the sum does not matter: frames that
    # are equal stay equal.
    return mask.detach().double().sum(-1)


def _mass(scores: Tensor, event: Tensor) -> Tensor:
    """Share of the scores in the event, [batch]."""
    inside = (scores * event).sum(1) / scores.sum(1)
    return inside.masked_fill(~event.any(1), math.nan).float()


def _auc(scores: Tensor, event: Tensor) -> Tensor:
    """Area under the ROC curve of the scores, [batch]."""
    values = []
    for clip, inside in zip(scores, event):
        _, inverse, counts = clip.unique(
            return_inverse=True, return_counts=True
        )
        # Mid-ranks, so that ties count half (Mann-Whitney).
        ends = counts.cumsum(0).double()
        ranks = (ends - (counts - 1) / 2)[inverse]
        n_event = inside.sum().double()
        n_rest = inside.numel() - n_event
        above = ranks[inside].sum() - n_event * (n_event + 1) / 2
        values.append(above / (n_event * n_rest))
    areas = torch.stack(values).float()
    return areas.masked_fill(scores.isnan().any(1), math.nan)


def event_mass(mask: Tensor, ideal: Tensor) -> Tensor:
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
    return _mass(*_flat(mask, ideal))


def event_topk(mask: Tensor, ideal: Tensor) -> Tensor:
    """Share of the mask's highest bins that lie on a known event.

    As many bins count as the event has. Where bins of the same value stand at
    the edge, the value is what is expected if they were drawn at random: a
    constant mask has the event's share of the bins, not what their order in
    memory makes of it.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].
    ideal : torch.Tensor
        Zeros and ones, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; higher is better (Arras et al., relevance rank
        accuracy, arXiv 2003.07258; top-k intersection with k the event's
        size). NaN without an event.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    >>> event_topk(torch.tensor([[[0.9, 0.2], [0.2, 0.0]]]), ideal)
    tensor([0.7500])
    """
    scores, event = _flat(mask, ideal)
    values = []
    for clip, inside in zip(scores, event):
        k = int(inside.sum())
        if k == 0 or clip.isnan().any():
            values.append(math.nan)
            continue
        edge = clip.kthvalue(clip.numel() - k + 1).values
        above, tied = clip > edge, clip == edge
        places = k - int(above.sum())
        hits = int((above & inside).sum())
        chance = int((tied & inside).sum()) / int(tied.sum())
        values.append((hits + places * chance) / k)
    return torch.tensor(values, device=mask.device)


def event_auc(mask: Tensor, ideal: Tensor) -> Tensor:
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
    return _auc(*_flat(mask, ideal))


def time_mass(mask: Tensor, active: Tensor) -> Tensor:
    """Share of the mask that lies in the active frames, at any frequency.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    active : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; higher is better. NaN without an active frame or
        a mask.

    Example
    -------
    >>> active = torch.tensor([[True, False]])
    >>> time_mass(torch.tensor([[[0.6, 0.0], [0.1, 0.1]]]), active)
    tensor([0.7500])
    """
    return _mass(_frames(mask, active), active > 0)


def time_auc(mask: Tensor, active: Tensor) -> Tensor:
    """Area under the ROC curve of the frames' sums as a detector in time.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].
    active : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time].

    Returns
    -------
    torch.Tensor
        [batch], as of `event_auc`. NaN if no frame is active, or each.

    Example
    -------
    >>> active = torch.tensor([[True, False]])
    >>> time_auc(torch.tensor([[[0.6, 0.0], [0.1, 0.1]]]), active)
    tensor([1.])
    """
    return _auc(_frames(mask, active), active > 0)
