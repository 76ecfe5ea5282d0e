r"""Where a mask lies, one value a clip: does it find a known event?

What is known of the event is either its bins, an ideal mask
`[batch, time, freq]`, or, on most recordings, only when it sounds: its active
frames, `[batch, time]`. Against frames the mask is summed over frequency.

`event_*`, `time_mass` and `time_auc` judge the mask alone, in each bin alike,
also where there is nothing to mask. All others judge the *kept magnitude*, mask
times magnitude, which is what is heard of an explanation. There the ideal mask
has 1 in each, a mask that is the same everywhere has what the magnitude has,
and the clip's level does not matter. A bin in which the clip is silent, with
magnitude zero, holds no event: nothing can be kept of it.

A clip without an event, or with NaN in its mask, has the value NaN, never a
good or a bad one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lmac_sb.utils.errors import LMACError

__all__ = [
    "event_auc",
    "event_mass",
    "event_topk",
    "kept_event_auc",
    "kept_event_mass",
    "kept_event_topk",
    "kept_time_auc",
    "kept_time_mass",
    "pointing",
    "time_auc",
    "time_f1",
    "time_iou",
    "time_mass",
]

ACTIVE = 0.2  # of the loudest frame: from there on a frame is active


def _check(name: str, known: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse another grid than the mask's."""
    if known.shape != shape:
        raise LMACError(
            f"{name}: shape {tuple(known.shape)}, but the mask has "
            f"{tuple(shape)}"
        )


def _flat(mask: Tensor, ideal: Tensor) -> tuple[Tensor, Tensor]:
    """Mask and event, [batch, bins] each, after checking their shapes.

    Half precision, in which a sum of so many bins overflows, is made single.
    """
    _check_grid(mask)
    _check("event", ideal, mask.shape)
    scores = mask.detach().to(torch.promote_types(mask.dtype, torch.float32))
    return scores.flatten(1), ideal.flatten(1) > 0


def _check_grid(mask: Tensor) -> None:
    """Refuse a mask without time and frequency."""
    if mask.dim() != 3:
        raise LMACError(
            f"mask: shape {tuple(mask.shape)}, expected [batch, time, freq]"
        )


def _frames(mask: Tensor, active: Tensor) -> Tensor:
    """The mask summed over frequency, [batch, time], after a check."""
    _check_grid(mask)
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
    areas = torch.empty(len(scores), device=scores.device)
    for i, (clip, inside) in enumerate(zip(scores, event)):
        _, inverse, counts = clip.unique(
            return_inverse=True, return_counts=True
        )
        # Mid-ranks, so that ties count half (Mann-Whitney).
        ends = counts.cumsum(0).double()
        ranks = (ends - (counts - 1) / 2)[inverse]
        n_event = inside.sum().double()
        n_rest = inside.numel() - n_event
        above = ranks[inside].sum() - n_event * (n_event + 1) / 2
        areas[i] = above / (n_event * n_rest)
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


def _bins(mask: Tensor, known: Tensor) -> Tensor:
    """A known event as bins, whether its bins or its frames are known."""
    _check_grid(mask)
    if known.dim() != 2:
        _check("event", known, mask.shape)
        return known > 0
    _check("frames", known, mask.shape[:2])
    return (known > 0)[..., None].expand(mask.shape)


def _heard(
    mask: Tensor, magnitude: Tensor, known: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What is kept, the event where there is sound, and its magnitude.

    All [batch, time, freq], relative to the loudest bin of each clip, so that
    no product of a quiet clip is lost.
    """
    event = _bins(mask, known)
    _check("magnitude", magnitude, mask.shape)
    level = magnitude.detach().double()
    peak = level.amax((1, 2), keepdim=True)
    level = (level / torch.where(peak > 0, peak, 1.0)).float()
    event = event & (level > 0)
    return mask.detach().float() * level, event, event * level


def kept_event_mass(mask: Tensor, magnitude: Tensor, ideal: Tensor) -> Tensor:
    """Share of the kept magnitude that lies on a known event.

    Arguments
    ---------
    mask : torch.Tensor
        Factor on the magnitude, in [0, 1], [batch, time, freq].
    magnitude : torch.Tensor
        Linear, of the clip, [batch, time, freq].
    ideal : torch.Tensor
        Zeros and ones, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], as of `event_mass`. NaN where nothing is kept, too.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> mask = torch.tensor([[[0.5, 0.0], [0.5, 0.5]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> event_mass(mask, ideal), kept_event_mass(mask, magnitude, ideal)
    (tensor([0.3333]), tensor([0.7500]))
    """
    kept, event, _ = _heard(mask, magnitude, ideal)
    return event_mass(kept, event)


def kept_event_topk(mask: Tensor, magnitude: Tensor, ideal: Tensor) -> Tensor:
    """Share of the loudest kept bins that lie on a known event.

    Arguments
    ---------
    mask, magnitude, ideal : torch.Tensor
        As of `kept_event_mass`.

    Returns
    -------
    torch.Tensor
        [batch], as of `event_topk`, ties included.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> mask = torch.tensor([[[0.5, 0.1], [0.9, 0.9]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> event_topk(mask, ideal), kept_event_topk(mask, magnitude, ideal)
    (tensor([0.]), tensor([1.]))
    """
    kept, event, _ = _heard(mask, magnitude, ideal)
    return event_topk(kept, event)


def kept_event_auc(mask: Tensor, magnitude: Tensor, ideal: Tensor) -> Tensor:
    """Area under the ROC curve of the kept magnitude, as of `event_auc`.

    Arguments
    ---------
    mask, magnitude, ideal : torch.Tensor
        As of `kept_event_mass`.

    Returns
    -------
    torch.Tensor
        [batch]. What is not kept is a tie, however loud it is: a mask of few
        bins has little more than 0.5, as in `event_auc`.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> mask = torch.tensor([[[0.5, 0.1], [0.9, 0.9]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> event_auc(mask, ideal), kept_event_auc(mask, magnitude, ideal)
    (tensor([0.3333]), tensor([1.]))
    """
    kept, event, _ = _heard(mask, magnitude, ideal)
    return event_auc(kept, event)


def kept_time_mass(mask: Tensor, magnitude: Tensor, active: Tensor) -> Tensor:
    """Share of the kept magnitude that lies in the active frames.

    Arguments
    ---------
    mask, magnitude : torch.Tensor
        As of `kept_event_mass`.
    active : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time].

    Returns
    -------
    torch.Tensor
        [batch], as of `time_mass`. NaN where nothing is kept, too.

    Example
    -------
    >>> active = torch.tensor([[True, False]])
    >>> mask = torch.tensor([[[0.5, 0.0], [0.5, 0.5]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> kept_time_mass(mask, magnitude, active)
    tensor([0.7500])
    """
    kept, event, _ = _heard(mask, magnitude, active)
    return time_mass(kept, event.any(-1))


def kept_time_auc(mask: Tensor, magnitude: Tensor, active: Tensor) -> Tensor:
    """Area under the ROC curve of the kept frames, as of `time_auc`.

    Arguments
    ---------
    mask, magnitude, active : torch.Tensor
        As of `kept_time_mass`.

    Returns
    -------
    torch.Tensor
        [batch]. NaN if no frame is active, or each.

    Example
    -------
    >>> active = torch.tensor([[True, False]])
    >>> mask = torch.tensor([[[0.5, 0.0], [0.5, 0.5]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> time_auc(mask, active), kept_time_auc(mask, magnitude, active)
    (tensor([0.]), tensor([1.]))
    """
    kept, event, _ = _heard(mask, magnitude, active)
    return time_auc(kept, event.any(-1))


def _active(magnitude: Tensor) -> Tensor:
    """Frames that are near the loudest one, [batch, time]."""
    frames = magnitude.double().sum(-1)
    loudest = frames.amax(1, keepdim=True)
    return (frames >= ACTIVE * loudest) & (frames > 0)


def _overlap(mask: Tensor, magnitude: Tensor, known: Tensor) -> list[Tensor]:
    """Numbers of frames that are active in both, kept, and known, [batch].

    NaN without an active frame, without a rest, or with NaN.
    """
    kept, event, alone = _heard(mask, magnitude, known)
    found, wanted = _active(kept), _active(alone)
    frames = event.any(-1)
    unknown = ~frames.any(1) | frames.all(1) | kept.isnan().flatten(1).any(1)
    counts = (found & wanted).sum(1), found.sum(1), wanted.sum(1)
    return [count.float().masked_fill(unknown, math.nan) for count in counts]


def time_iou(mask: Tensor, magnitude: Tensor, known: Tensor) -> Tensor:
    """Overlap in time of what is kept with a known event.

    A frame is active from 20 % of the loudest one on, by its sum over
    frequency: of the kept magnitude for what is found, and of the event's
    for what is wanted. So frames that are far under the event's own level,
    such as pauses between its onset and offset, are neither missed nor wanted.
    The share is that of class activation maps (Zhou et al., arXiv 1512.04150).
    It is 14 dB, near the 15.9 dB below its level down to which speech counts
    as active (ITU-T P.56). No result has chosen it.

    Arguments
    ---------
    mask, magnitude : torch.Tensor
        As of `kept_event_mass`.
    known : torch.Tensor
        The event: its ideal mask [batch, time, freq], or the frames in which
        it sounds, [batch, time].

    Returns
    -------
    torch.Tensor
        [batch]: frames that are active in both, over those that are in either;
        0 where nothing is kept. NaN if no frame is the event's, or each.

    Example
    -------
    >>> known = torch.tensor([[True, True, True, False]])
    >>> magnitude = torch.tensor([[[5.0], [0.1], [4.0], [4.0]]])
    >>> mask = torch.tensor([[[1.0], [1.0], [0.0], [0.5]]])
    >>> time_iou(mask, magnitude, known)  # one of three
    tensor([0.3333])
    """
    both, found, wanted = _overlap(mask, magnitude, known)
    return both / (found + wanted - both)


def time_f1(mask: Tensor, magnitude: Tensor, known: Tensor) -> Tensor:
    """F1 score in time of what is kept as a detector of a known event.

    As of sound event detection, with a frame as the segment (Mesaros et al.,
    Metrics for polyphonic sound event detection, Applied Sciences 2016). What
    is active is said in `time_iou`.

    Arguments
    ---------
    mask, magnitude, known : torch.Tensor
        As of `time_iou`.

    Returns
    -------
    torch.Tensor
        [batch]: the harmonic mean of precision and recall of the frames; 0
        where nothing is kept. NaN if no frame is the event's, or each.

    Example
    -------
    >>> known = torch.tensor([[True, True, True, False]])
    >>> magnitude = torch.tensor([[[5.0], [0.1], [4.0], [4.0]]])
    >>> mask = torch.tensor([[[1.0], [1.0], [0.0], [0.5]]])
    >>> time_f1(mask, magnitude, known)  # both are a half
    tensor([0.5000])
    """
    both, found, wanted = _overlap(mask, magnitude, known)
    return 2 * both / (found + wanted)


def pointing(mask: Tensor, magnitude: Tensor, known: Tensor) -> Tensor:
    """Whether the loudest kept bin lies on a known event.

    The pointing game (Zhang et al., arXiv 1608.00507), without its tolerance:
    the event's own bins are known, or its frames, which count at each
    frequency. Where several bins are as loud, the value is what is expected
    if one of them were drawn at random.

    Arguments
    ---------
    mask, magnitude, known : torch.Tensor
        As of `time_iou`.

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]. NaN if no bin is the event's, or each.

    Example
    -------
    >>> ideal = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> mask = torch.tensor([[[0.5, 0.1], [0.9, 0.9]]])
    >>> magnitude = torch.tensor([[[3.0, 9.0], [0.0, 1.0]]])
    >>> pointing(mask, magnitude, ideal)
    tensor([1.])
    """
    kept, event, _ = (x.flatten(1) for x in _heard(mask, magnitude, known))
    highest = kept == kept.amax(1, keepdim=True)
    hits = (highest & event).sum(1) / highest.sum(1)
    return hits.masked_fill(~event.any(1) | event.all(1), math.nan)
