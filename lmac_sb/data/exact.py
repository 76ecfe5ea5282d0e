"""Sounds as whole numbers, the same on every machine.

A sum of fractions depends on its order, and that on the processor. Sums of
whole numbers below 2^53 are exact in 64 bits, in any order: so sounds become
whole numbers of at most 24 bits as soon as they are decoded, and the filter
that resamples them has whole weights. Files without loss are decoded to the
same samples everywhere; of MP3, Ogg and Opus the decoder decides.
"""

import functools
import math
from decimal import Decimal
from typing import NamedTuple

import numpy as np

from lmac_sb.data.audio import MIN_LENGTH_S, is_silent
from lmac_sb.data.decode import decode_audio
from lmac_sb.utils.errors import LMACError

__all__ = ["Whole", "power", "power_ratio", "read_whole"]

_BITS = 23  # of a sample, without its sign
_WEIGHT_BITS = 28  # of the filter: 24 + 28 + 1 for their sum are below 53
_CROSSINGS = 16  # of the filter, on each side
_CUTOFF = 0.95  # of half the lower rate
_BETA = 8.6  # of its window: 90 dB
_OFFSET = 0.2  # of the power: a mean of less may be that of a short sound
_RATES = range(1000, 1000001)  # in Hz; beyond, a header is broken


class Whole(NamedTuple):
    """A sound as whole numbers.

    Arguments
    ---------
    samples : np.ndarray
        Whole numbers of up to 24 bits, whatever the level, float32,
        [samples].
    step : float
        What one is, a power of two: `step * samples` is at the file's level.

    Example
    -------
    >>> Whole(np.array([3.0]), 2.0**-23).step
    1.1920928955078125e-07
    """

    samples: np.ndarray
    step: float


def read_whole(place, rate):
    """Read a sound, mono, at a rate.

    A constant offset with more than a fifth of the power is taken away, or it
    would count as sound where there is none.

    Arguments
    ---------
    place : str, Path or a place of `lmac_sb.data.places`
        Where it is.
    rate : int
        Wanted rate in Hz.

    Returns
    -------
    Whole

    Raises
    ------
    LMACError
        If it cannot be read, is silent, or shorter than 0.1 s.

    Example
    -------
    >>> sound = read_whole(path, 8000)
    >>> len(sound.samples), float(abs(sound.samples).max()) > 2**21
    (8000, True)
    """
    wav, found_rate = decode_audio(place)
    if found_rate not in _RATES:
        raise LMACError(
            f"{place}: found a rate of {found_rate} Hz, expected one from "
            f"{_RATES.start} to {_RATES.stop - 1} Hz"
        )
    if len(wav) < MIN_LENGTH_S * found_rate:
        raise LMACError(
            f"{place}: {len(wav) / found_rate:.4f} s long, expected at least "
            f"{MIN_LENGTH_S} s"
        )
    if is_silent(wav):
        raise LMACError(f"{place}: is silent")
    wav = wav.numpy().astype(np.float64)
    whole, step = _whole(wav)
    offset = _offset(whole)
    if offset:
        whole, step = _whole(wav - offset * step)
    return Whole(_resampled(whole, found_rate, rate).astype(np.float32), step)


def _whole(wav):
    """Samples as whole numbers, and what one is."""
    step = 2.0 ** (math.frexp(float(np.abs(wav).max()))[1] - _BITS)
    return np.rint(wav / step), step


def _offset(whole):
    """The mean of samples, if it has much of their power; else 0."""
    mean = round(int(whole.astype(np.int64).sum()) / len(whole))
    return mean if mean * mean > _OFFSET * power(whole) else 0


def _resampled(whole, found_rate, rate):
    """Whole numbers at another rate, rounded to whole numbers again."""
    from scipy.signal import resample_poly

    if found_rate == rate:
        return whole
    common = math.gcd(found_rate, rate)
    up, down = rate // common, found_rate // common
    found = resample_poly(whole, up, down, window=_weights(max(up, down)))
    return np.rint(found / 2.0**_WEIGHT_BITS)


@functools.lru_cache(maxsize=8)
def _weights(factor):
    """Whole weights of a low pass for `1 / factor` of the rate."""
    from scipy.signal import firwin

    n_weights = 2 * _CROSSINGS * factor + 1
    weights = firwin(n_weights, _CUTOFF / factor, window=("kaiser", _BETA))
    return np.rint(2.0**_WEIGHT_BITS * weights)


def power(wav):
    """Mean power of a sound, rounded once.

    Arguments
    ---------
    wav : np.ndarray
        Not empty, [samples].

    Returns
    -------
    float

    Example
    -------
    >>> power(np.array([3.0, -4.0]))
    12.5
    """
    wav = wav.astype(np.float64)
    return math.fsum((wav * wav).tolist()) / len(wav)


def power_ratio(level_db):
    """Ratio of powers that a level in dB is, by whole numbers alone.

    Arguments
    ---------
    level_db : float
        In dB.

    Returns
    -------
    float

    Example
    -------
    >>> power_ratio(20.0), power_ratio(-5.0)
    (100.0, 0.31622776601683794)
    """
    return float(Decimal(10) ** (Decimal(level_db) / 10))
