"""From one sampling rate to another, whatever the two are."""

import functools
import math

import torch
import torchaudio

from lmac_sb.utils.errors import LMACError

__all__ = ["reach", "resample"]

# Rates with few phases, such as 44100 and 16000 Hz, are torchaudio's: models
# were trained with its filter. It grows with the product of two odd rates.
_MOST_PHASES = 1 << 19
_RATES = range(250, 1000001)  # in Hz; beyond, a header is broken
_LONGEST = 1 << 31  # samples of a result
# The other filter: zero crossings on each side, where it ends in parts of half
# the lower rate, and the shape of its window. Those of ffmpeg.
_CROSSINGS = 16
_CUTOFF = 0.97
_BETA = 9.0
_MOST_WEIGHTS = 1 << 22  # of its table; beyond, phases are rounded
_CHUNK = 1 << 22  # products at a time


def resample(wav, found_rate, sample_rate, name="signal"):
    """Bring a signal from one rate to another.

    Arguments
    ---------
    wav : torch.Tensor
        Signal, [..., samples].
    found_rate : int
        Its rate in Hz.
    sample_rate : int
        Wanted rate in Hz.
    name : str
        Where the signal comes from, for the message.

    Returns
    -------
    torch.Tensor
        Signal, [..., samples]; untouched when the rates are equal.

    Raises
    ------
    LMACError
        When the file's rate is none of sound, or the result would fill the
        memory.

    Example
    -------
    >>> resample(torch.zeros(44100), 44100, 16000).shape
    torch.Size([16000])
    >>> resample(torch.zeros(2, 44099), 44099, 16000).shape
    torch.Size([2, 16000])
    """
    if found_rate == sample_rate:
        return wav
    old, new = _parts(found_rate, sample_rate)
    n_samples = -(-wav.shape[-1] * new // old)
    if found_rate not in _RATES or n_samples > _LONGEST:
        raise LMACError(
            f"{name}: {wav.shape[-1]} samples cannot be brought from "
            f"{found_rate} Hz to {sample_rate} Hz; expected a rate from "
            f"{_RATES.start} to {_RATES.stop - 1} Hz and at most {_LONGEST} "
            "samples then"
        )
    if old * new <= _MOST_PHASES:
        return _resampler(found_rate, sample_rate, str(wav.device))(wav)
    return _resample_oddly(wav, old, new, n_samples)


def reach(found_rate, sample_rate):
    """Samples on each side that a result's sample depends on.

    Arguments
    ---------
    found_rate, sample_rate : int
        In Hz.

    Returns
    -------
    int
        Not less than that.

    Example
    -------
    >>> reach(48000, 16000)
    54
    """
    old, new = _parts(found_rate, sample_rate)
    return math.ceil((_CROSSINGS + 1) / _factor(old, new)) + 1


def _parts(found_rate, sample_rate):
    """The two rates without what they have in common."""
    common = math.gcd(found_rate, sample_rate)
    return found_rate // common, sample_rate // common


@functools.lru_cache(maxsize=32)
def _resampler(found_rate, sample_rate, device):
    """A resampler; its filter is costly to make, so it is kept."""
    return torchaudio.transforms.Resample(found_rate, sample_rate).to(device)


def _factor(old, new):
    """Where the filter ends, in parts of half the found rate."""
    return min(1.0, _CUTOFF * new / old)


@functools.lru_cache(maxsize=4)
def _table(old, new):
    """Weights of the filter by phase, [phases + 1, taps]."""
    factor = _factor(old, new)
    half = math.ceil(_CROSSINGS / factor)
    phases = min(new, max(1, _MOST_WEIGHTS // (2 * half)))
    phase = torch.arange(phases + 1, dtype=torch.double) / phases
    offset = torch.arange(1 - half, half + 1, dtype=torch.double)
    x = (offset - phase[:, None]) * factor
    inside = (1 - (x / _CROSSINGS).square()).clamp_min(0)
    weights = torch.special.i0(_BETA * inside.sqrt()) * torch.sinc(x)
    return (weights / weights.sum(1, keepdim=True)).float()


def _resample_oddly(wav, old, new, n_samples):
    """Rates with so many phases that only the weights in use are taken."""
    table = _table(old, new).to(wav)
    phases, taps = len(table) - 1, table.shape[1]
    half = taps // 2
    padded = torch.nn.functional.pad(wav, (half - 1, half + 1))
    around = padded.unfold(-1, taps, 1)
    result = wav.new_empty(*wav.shape[:-1], n_samples)
    chunk = max(1, _CHUNK // taps)
    for start in range(0, n_samples, chunk):
        at = torch.arange(start, min(start + chunk, n_samples)) * old
        place = torch.div(at, new, rounding_mode="floor")
        phase = ((at % new).double() * phases / new).round().long()
        weights = table[phase.to(table.device)]
        found = around[..., place.to(wav.device), :]
        result[..., start : start + chunk] = (found * weights).sum(-1)
    return result
