r"""What to make of an explanation: a verdict, and whether it is stable.

A part of a sound *decides as the whole does* where it keeps `SAME` of the
probability :math:`p` of the explained class, and does not where it keeps less
than `LOST` of it. In between, it does if the decision is the same. An
explanation is faithful if the kept part decides as the whole does and the rest
does not.

Of a class that is not the decision (a target, or a class that is present with
:math:`p = .3`), half of the probability is enough, but at least `LEAST`.

Before that it is asked whether there is anything to judge: a sound, and a mask
that keeps some of it and leaves some of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lmac_sb.utils.errors import LMACError

__all__ = [
    "VERDICTS",
    "Evidence",
    "agreement",
    "energy_share",
    "heard_area",
    "level_db",
    "verdicts",
]

# Of the probability of the explained class before, a part that decides as the
# whole does has SAME or more, and one that does not has less than LOST. A
# decision of .6 between two classes turns at .5, and one of 1.0 is in doubt
# long before it turns: between the two bounds, the most probable class counts.
SAME = 0.9
LOST = 0.5
# The least probability that says something for a class that is not the
# decision: half of next to nothing is nothing.
LEAST = 0.01
# Rounding moves probabilities by a few 1e-7.
TOLERANCE = 1e-6
# A sound whose largest swing is not above this is silent: one step of 16 bits
# up and down, as of dither, or of channels that cancel each other.
SILENT_DB = -90.0
# Bins that far below the loudest one count as empty: what the STFT's window
# leaks into them is no sound, and the mask may have any value there.
HEARD_DB = -50.0
# Mean of the mask over the bins that sound, for a mask that keeps nothing or
# everything; and the share of the energy, since a whistle is one bin of
# hundreds.
NOTHING_AREA = 0.005
NOTHING_ENERGY = 1e-3
EVERYTHING_AREA = 0.9
# Correlation of two masks of one sound: half of their variance in common.
STABLE = 0.7

# Every verdict with what it means, in the order in which they are tried.
VERDICTS = {
    "silent": "the input has no sound",
    "unknown": "the classifier or the mask gives no number",
    "nothing kept": "the mask keeps next to nothing of the sound",
    "everything kept": "the mask keeps nearly all of the sound",
    "unfaithful: the rest decides the same": (
        "without the kept part, the classifier still decides so"
    ),
    "unfaithful: the kept part does not decide so": (
        "on the kept part alone, the classifier does not decide so"
    ),
    "faithful": "the kept part decides as the whole does, the rest does not",
}


class Evidence(NamedTuple):
    """What a verdict rests on, one value a clip: each is [batch].

    Arguments
    ---------
    p_before, p_inside, p_outside : torch.Tensor
        Probability of the explained class on the whole, the kept part and the
        rest.
    top_before, top_inside, top_outside : torch.Tensor
        Whether it is the most probable class there, boolean.
    level : torch.Tensor
        Of the input in dB, see `level_db`.
    area : torch.Tensor
        Of the mask where there is sound, see `heard_area`.
    energy : torch.Tensor
        Share of the energy that is kept, see `energy_share`.

    Example
    -------
    >>> yes, no = torch.tensor([True]), torch.tensor([False])
    >>> evidence = Evidence(
    ...     p_before=torch.tensor([0.999]),
    ...     p_inside=torch.tensor([0.490]),
    ...     p_outside=torch.tensor([1.000]),
    ...     top_before=yes,
    ...     top_inside=no,
    ...     top_outside=yes,
    ...     level=torch.tensor([-10.0]),
    ...     area=torch.tensor([0.2]),
    ...     energy=torch.tensor([0.2]),
    ... )
    >>> verdicts(evidence)
    ['unfaithful: the rest decides the same']
    """

    p_before: Tensor
    p_inside: Tensor
    p_outside: Tensor
    top_before: Tensor
    top_inside: Tensor
    top_outside: Tensor
    level: Tensor
    area: Tensor
    energy: Tensor


def verdicts(evidence: Evidence) -> list[str]:
    """The verdict on each clip.

    Arguments
    ---------
    evidence : Evidence
        Probabilities in [0, 1]; where several classes may be true, those of
        the explained class alone, and it is the most probable one from .5.

    Returns
    -------
    list of str
        The first in `VERDICTS` that holds, one a clip. Where the rest decides
        the same and the kept part does not, the first of the two.

    Raises
    ------
    LMACError
        If the values are not of one shape, [batch], or a probability lies
        outside [0, 1].

    Example
    -------
    >>> p = torch.tensor([0.9, 0.9]), torch.tensor([0.8, 0.3])
    >>> top = torch.tensor([True, True]), torch.tensor([True, False])
    >>> no = torch.zeros(2)
    >>> good = torch.full((2,), 0.2)
    >>> verdicts(Evidence(*p, no, *top, no > 0, good, good, good))
    ['faithful', 'unfaithful: the kept part does not decide so']
    """
    _check(evidence)
    numbers = torch.stack([value.double() for value in evidence])
    inside = _decides(evidence, evidence.p_inside, evidence.top_inside)
    outside = _decides(evidence, evidence.p_outside, evidence.top_outside)
    nothing = (evidence.area < NOTHING_AREA) & (
        evidence.energy < NOTHING_ENERGY
    )
    holds = {
        "silent": evidence.level <= SILENT_DB,
        "unknown": numbers.isnan().any(0),
        "nothing kept": nothing,
        "everything kept": evidence.area >= EVERYTHING_AREA,
        "unfaithful: the rest decides the same": outside,
        "unfaithful: the kept part does not decide so": ~inside,
        "faithful": inside & ~outside,
    }
    table = torch.stack([holds[name] for name in VERDICTS])
    # The first that holds: argmax gives any of several equal values.
    order = torch.arange(len(VERDICTS), device=table.device)[:, None]
    first = torch.where(table, order, len(VERDICTS)).amin(0)
    names = list(VERDICTS)
    return [names[place] for place in first.tolist()]


def _check(evidence: Evidence) -> None:
    """Refuse other shapes, and what are no probabilities."""
    shape = evidence.p_before.shape
    for name, value in evidence._asdict().items():
        if value.dim() != 1 or value.shape != shape:
            raise LMACError(
                f"{name}: found shape {tuple(value.shape)}, expected one value "
                f"a clip as in p_before, {tuple(shape)}"
            )
        if (
            name.startswith("p_")
            and ((value < -1e-4) | (value > 1 + 1e-4)).any()
        ):
            raise LMACError(
                f"{name}: found values outside [0, 1], expected probabilities"
            )


def _decides(evidence: Evidence, p: Tensor, top: Tensor) -> Tensor:
    """Whether a part decides as the whole does, [batch]."""
    before, decided = evidence.p_before, evidence.top_before
    same = p >= SAME * before - TOLERANCE
    possible = p >= LOST * before - TOLERANCE
    says_something = decided | top | (p >= LEAST)
    return says_something & (same | (possible & (top | ~decided)))


def level_db(wavs: Tensor) -> Tensor:
    """Level of sounds: half of the distance from lowest to highest sample.

    A constant offset is no sound, so it does not count.

    Arguments
    ---------
    wavs : torch.Tensor
        Full scale is 1, [batch, samples].

    Returns
    -------
    torch.Tensor
        In dB below full scale, [batch]; -inf for a constant.

    Example
    -------
    >>> level_db(torch.tensor([[0.1, -0.1], [0.5, 0.5]]))
    tensor([-20., -inf])
    """
    # One after the other: sounds of long files lie on disk.
    swings = [float(wav.max()) - float(wav.min()) for wav in wavs.detach()]
    return 20 * torch.tensor(swings).div(2).log10()


def heard_area(mask: Tensor, magnitude: Tensor) -> Tensor:
    """Mean of the mask over the bins that sound.

    Those are the bins at most 50 dB below the loudest one: where a recording
    has nothing above 4 kHz, what the mask does there does not count.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    magnitude : torch.Tensor
        Linear, of the input, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; the mean over all bins where there is no sound.

    Raises
    ------
    LMACError
        If the shapes differ.

    Example
    -------
    >>> mask = torch.tensor([[[1.0, 0.5, 0.0, 0.0]]])
    >>> heard_area(mask, torch.tensor([[[2.0, 1.0, 0.0, 0.001]]]))
    tensor([0.7500])
    """
    weight = _heard(mask, magnitude)
    kept = (mask.detach() * weight).sum((1, 2))
    return (kept / weight.sum((1, 2))).float()


def _heard(mask: Tensor, magnitude: Tensor) -> Tensor:
    """1 for each bin that sounds, else 0, [batch, time, freq]."""
    if mask.dim() != 3 or mask.shape != magnitude.shape:
        raise LMACError(
            f"mask: found shape {tuple(mask.shape)}, expected [batch, time, "
            f"freq] as of the magnitude, {tuple(magnitude.shape)}"
        )
    magnitude = magnitude.detach()
    floor = magnitude.amax((1, 2), keepdim=True) * 10 ** (HEARD_DB / 20)
    return (magnitude >= floor).double()


_BLOCK = 1 << 18  # samples that are processed at a time


def energy_share(kept: Tensor, rest: Tensor) -> Tensor:
    """Energy of the kept part, of that of both parts.

    Arguments
    ---------
    kept, rest : torch.Tensor
        Masked-in and masked-out sound, [batch, samples].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; 0 where both are silent.

    Example
    -------
    >>> energy_share(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]]))
    tensor([0.5000])
    """
    inside, outside = (
        sum(
            (part.double().square().sum(1) for part in side.split(_BLOCK, 1)),
            torch.zeros(len(side), dtype=torch.double, device=side.device),
        )
        for side in (kept.detach(), rest.detach())
    )
    total = inside + outside
    return (inside / total).masked_fill(total == 0, 0.0).float()


def agreement(
    mask: Tensor, other: Tensor, magnitude: Tensor | None = None
) -> Tensor:
    """Correlation of two masks of the same sound, over the bins that sound.

    Arguments
    ---------
    mask, other : torch.Tensor
        [batch, time, freq].
    magnitude : torch.Tensor
        Linear, of the input, [batch, time, freq]; without it, all bins count.

    Returns
    -------
    torch.Tensor
        [batch], 1 for masks that keep the same bins, 0 for masks that have
        nothing in common, negative for opposites. It does not ask how much
        they keep. Of constant masks, 1 if both are the same, else 0. An
        explanation is called stable from `STABLE`.

    Raises
    ------
    LMACError
        If the shapes differ.

    Example
    -------
    >>> mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    >>> agreement(mask, mask), agreement(mask, 1 - mask)
    (tensor([1.]), tensor([-1.]))
    """
    if mask.shape != other.shape:
        raise LMACError(
            f"masks: found shapes {tuple(mask.shape)} and "
            f"{tuple(other.shape)}, expected two of one shape"
        )
    like = torch.ones_like(mask) if magnitude is None else magnitude
    weight = _heard(mask, like)
    n_bins = weight.sum((1, 2), keepdim=True)
    centred = []
    for values in (mask.detach().double(), other.detach().double()):
        mean = (weight * values).sum((1, 2), keepdim=True) / n_bins
        centred.append(weight * (values - mean))
    a, b = centred
    spread = [x.square().sum((1, 2)).sqrt() for x in (a, b)]
    found = (a * b).sum((1, 2)) / (spread[0] * spread[1])
    # Rounding leaves a little of a constant: 1e-7 a bin.
    least = 1e-6 * n_bins[:, 0, 0].sqrt()
    constant = (spread[0] <= least) | (spread[1] <= least)
    distance = (weight * (mask - other).detach().abs()).sum((1, 2))
    equal = distance <= 1e-6 * n_bins[:, 0, 0]
    found = torch.where(constant, equal.double(), found.clamp(-1, 1))
    unknown = (mask + other).isnan().flatten(1).any(1)
    return found.masked_fill(unknown, math.nan).float()
