"""Masks that know nothing of the classifier.

Every table shows them beside the explanations: a metric that they also reach
says nothing about the method.
"""

import torch

from lmac_sb.lmac.masking import top_share

__all__ = ["TRIVIAL_MASKS"]


def ones(magnitude, area, seed=0):
    """Keep everything.

    Arguments
    ---------
    magnitude : torch.Tensor
        [batch, time, freq].
    area : torch.Tensor
        Unused.
    seed : int
        Unused.

    Returns
    -------
    torch.Tensor
        Ones, [batch, time, freq].
    """
    return torch.ones_like(magnitude)


def random_bins(magnitude, area, seed=0):
    """Keep random bins, the same order of bins for each clip.

    Arguments
    ---------
    magnitude : torch.Tensor
        [batch, time, freq].
    area : torch.Tensor
        Share of the bins to keep, [batch].
    seed : int
        Seed of the order.

    Returns
    -------
    torch.Tensor
        Zeros and ones, [batch, time, freq].

    Example
    -------
    >>> mask = random_bins(torch.rand(2, 3, 4), torch.tensor([0.5, 0.25]), 0)
    >>> mask.sum((1, 2))
    tensor([6., 3.])
    """
    generator = torch.Generator().manual_seed(seed)
    # One draw for all clips, so that a clip's mask does not depend on its
    # place in the batch.
    scores = torch.rand(magnitude.shape[1:], generator=generator)
    scores = scores.to(magnitude.device).expand_as(magnitude)
    return top_share(scores, area)


def loudest_bins(magnitude, area, seed=0):
    """Keep the loudest bins.

    Arguments
    ---------
    magnitude : torch.Tensor
        [batch, time, freq].
    area : torch.Tensor
        Share of the bins to keep, [batch].
    seed : int
        Unused.

    Returns
    -------
    torch.Tensor
        Zeros and ones, [batch, time, freq].

    Example
    -------
    >>> loudest_bins(torch.tensor([[[3.0, 1.0]]]), torch.tensor([0.5]), 0)
    tensor([[[1., 0.]]])
    """
    return top_share(magnitude, area)


def loudest_frames(magnitude, area, seed=0):
    """Keep whole frames, those of the most energy first.

    Arguments
    ---------
    magnitude : torch.Tensor
        [batch, time, freq].
    area : torch.Tensor
        Share of the frames to keep, [batch]; at least one is kept where it is
        not zero.
    seed : int
        Unused.

    Returns
    -------
    torch.Tensor
        Zeros and ones, [batch, time, freq].

    Example
    -------
    >>> magnitude = torch.tensor([[[3.0, 0.0], [2.0, 2.0]]])
    >>> loudest_frames(magnitude, torch.tensor([0.5]), 0)
    tensor([[[1., 1.],
             [0., 0.]]])
    """
    energy = magnitude.square().sum(2, keepdim=True)
    return top_share(energy, area).expand_as(magnitude).contiguous()


# name -> function of the magnitude [batch, time, freq] and the share of bins
# to keep [batch]
TRIVIAL_MASKS = {
    "ones": ones,
    "random": random_bins,
    "loudest": loudest_bins,
    "loudest_frames": loudest_frames,
}
