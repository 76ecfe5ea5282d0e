"""The active part of a clip: where its sound is, between silences."""

from itertools import accumulate

import numpy as np

__all__ = ["active_part", "frame_powers", "loud_place", "widened"]

_FRAMES = 100  # in a second
_QUIET = 1000  # a frame is active down to this part of the loudest: 30 dB


def frame_powers(samples, rate):
    """Mean power in frames of 10 ms.

    Arguments
    ---------
    samples : np.ndarray
        Whole numbers, see `lmac_sb.data.exact`, [samples].
    rate : int
        In Hz.

    Returns
    -------
    np.ndarray
        Whole numbers, [frames].

    Example
    -------
    >>> frame_powers(np.array([2.0] * 10 + [4.0] * 5), 1000)
    array([ 4, 16])
    """
    squares = samples.astype(np.int64) ** 2
    starts = np.arange(0, len(squares), max(1, rate // _FRAMES))
    lengths = np.diff([*starts, len(squares)])
    return np.add.reduceat(squares, starts) // lengths


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
    powers = frame_powers(samples, rate)
    active = np.flatnonzero(powers > powers.max() // _QUIET)
    hop = max(1, rate // _FRAMES)
    start, stop = int(active[0]) * hop, int(active[-1] + 1) * hop
    return start, min(stop, len(samples))


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


def loud_place(powers, share):
    """Index of a frame, the likelier the louder it is.

    Arguments
    ---------
    powers : np.ndarray
        From `frame_powers`.
    share : float
        A random number from 0 to 1.

    Returns
    -------
    int

    Example
    -------
    >>> [loud_place(np.array([1, 0, 3]), share) for share in (0.2, 0.3)]
    [0, 2]
    """
    sums = list(accumulate(powers.tolist()))
    return next(i for i, total in enumerate(sums) if total > share * sums[-1])
