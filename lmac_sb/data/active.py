"""The active part of a clip: where its sound is, between silences."""

from itertools import accumulate

import numpy as np

__all__ = ["active_part", "loud_place", "widened"]

_FRAMES = 100  # in a second
_QUIET = 1000  # a frame is active down to this part of the loudest: 30 dB


def active_part(samples, rate):
    """Where a sound begins and ends, without the silence around it.

    Silence is what is 30 dB below the loudest frame, at whatever level the
    clip was recorded.

    Arguments
    ---------
    samples : np.ndarray
        Whole numbers, not all zero, [samples].
    rate : int
        In Hz.

    Returns
    -------
    start, stop : int
        In samples.

    Example
    -------
    >>> active_part(np.array([0.0] * 20 + [9.0] * 10 + [0.0] * 30), 1000)
    (20, 30)
    """
    powers = _frame_powers(samples, rate)
    active = np.flatnonzero(powers > powers.max() // _QUIET)
    start, stop = int(active[0]), int(active[-1]) + 1
    return start * _hop(rate), min(stop * _hop(rate), len(samples))


def _frame_powers(samples, rate):
    """Mean power in frames of 10 ms, whole numbers, [frames]."""
    squares = samples.astype(np.int64) ** 2
    starts = np.arange(0, len(squares), _hop(rate))
    return np.add.reduceat(squares, starts) // np.diff([*starts, len(squares)])


def _hop(rate):
    """Samples of a frame."""
    return max(1, rate // _FRAMES)


def widened(part, least, n_samples):
    """A part that is long enough, around the same middle.

    Arguments
    ---------
    part : tuple of int
        Start and stop.
    least : int
        Samples that it must have.
    n_samples : int
        Of the clip, at least as many.

    Returns
    -------
    start, stop : int

    Example
    -------
    >>> widened((4, 6), 6, 100), widened((0, 2), 6, 100), widened((0, 9), 6, 9)
    ((2, 8), (0, 6), (0, 9))
    """
    start, stop = part
    missing = least - (stop - start)
    if missing <= 0:
        return part
    start = min(max(0, start - missing // 2), n_samples - least)
    return start, start + least


def loud_place(samples, rate, share):
    """Start of a frame, the likelier the louder it is.

    Arguments
    ---------
    samples : np.ndarray
        Whole numbers, not all zero, [samples].
    rate : int
        In Hz.
    share : float
        A random number from 0 to 1.

    Returns
    -------
    int
        In samples.

    Example
    -------
    >>> samples = np.array([1.0] * 10 + [0.0] * 10 + [2.0] * 10)
    >>> [loud_place(samples, 1000, share) for share in (0.1, 0.3)]
    [0, 20]
    """
    sums = list(accumulate(_frame_powers(samples, rate).tolist()))
    frame = next(i for i, x in enumerate(sums) if x > share * sums[-1])
    return frame * _hop(rate)
