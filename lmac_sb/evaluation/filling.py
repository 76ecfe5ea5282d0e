"""What stands in place of removed bins.

A hole of silence has a shape, and a classifier that is trained on such holes
may read the class from it. A hole that is filled with what surrounds it shows
less of that. Here a hole is a mask of ones where bins were removed, and all
fills keep each other bin as it is.
"""

import torch
from torch.nn import functional as F

__all__ = ["FILLS", "inpainted", "noise", "silence"]

_FIRST_WINDOW = 3  # frames and bins


def silence(magnitude, hole, seeds=None):
    """Nothing.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear, [batch, time, freq].
    hole : torch.Tensor
        Ones where bins were removed, else zeros, [batch, time, freq].
    seeds : list of int
        Unused.

    Returns
    -------
    torch.Tensor
        [batch, time, freq].

    Example
    -------
    >>> magnitude = torch.tensor([[[2.0, 5.0, 4.0]]])
    >>> silence(magnitude, torch.tensor([[[0.0, 1.0, 0.0]]]))
    tensor([[[2., 0., 4.]]])
    """
    return magnitude * (1 - hole)


def inpainted(magnitude, hole, seeds=None):
    """The mean magnitude of what was kept around each removed bin.

    The mean is over the smallest window that holds a kept bin; windows are
    of 3, 7, 15, 31, ... frames and as many bins, around the removed one.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear, [batch, time, freq].
    hole : torch.Tensor
        Ones where bins were removed, else zeros, [batch, time, freq].
    seeds : list of int
        Unused.

    Returns
    -------
    torch.Tensor
        [batch, time, freq]. A hole in a constant magnitude is filled with
        that; of a clip of which nothing was kept, zeros.

    Example
    -------
    >>> magnitude = torch.tensor([[[2.0, 5.0, 4.0]]])
    >>> inpainted(magnitude, torch.tensor([[[0.0, 1.0, 0.0]]]))
    tensor([[[2., 3., 4.]]])
    """
    kept = 1 - hole
    filled = magnitude * kept
    sums = torch.stack((filled, kept), 1)
    known, window = kept > 0, _FIRST_WINDOW
    while not known.all() and window < 4 * max(hole.shape[1:]):
        total, count = _local(sums, window).unbind(1)
        near = count * window**2 > 0.5
        filled = torch.where(near & ~known, total / count, filled)
        known, window = known | near, 2 * window + 1
    return filled


def noise(magnitude, hole, seeds):
    """Noise of the level that `inpainted` finds around each removed bin.

    Its magnitude has the distribution of Gaussian noise of random phase,
    Rayleigh's, with that level as its mean.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear, [batch, time, freq].
    hole : torch.Tensor
        Ones where bins were removed, else zeros, [batch, time, freq].
    seeds : list of int
        Seed of each clip's draw. Clips must not share it: the same draw in
        all of them would mark the hole.

    Returns
    -------
    torch.Tensor
        [batch, time, freq].

    Example
    -------
    >>> magnitude, hole = torch.ones(1, 50, 100), torch.zeros(1, 50, 100)
    >>> hole[:, 10:40] = 1
    >>> filled = noise(magnitude, hole, [0])[hole > 0]
    >>> bool((filled.mean() - 1).abs() < 0.05 and filled.std() > 0.4)
    True
    """
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        real, imaginary = torch.randn(2, *hole.shape[1:], generator=generator)
        draws.append(torch.hypot(real, imaginary))
    # Rayleigh's mean, of two deviations of one.
    draw = torch.stack(draws).to(magnitude) / (torch.pi / 2) ** 0.5
    level = inpainted(magnitude, hole)
    return torch.where(hole > 0, level * draw, level)


def _local(x, window):
    """Mean over a window around each bin, with zeros around the whole."""
    half = window // 2
    for size, pad in (((window, 1), (half, 0)), ((1, window), (0, half))):
        x = F.avg_pool2d(x, size, 1, pad)
    return x


# name -> function of the magnitude [batch, time, freq], the hole of the same
# shape and a seed for each clip
FILLS = {"silence": silence, "inpainted": inpainted, "noise": noise}
