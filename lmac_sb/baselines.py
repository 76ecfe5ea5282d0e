"""Masks that know nothing of the classifier.

Every table shows them beside the explanations: a metric that they also reach
says nothing about the method.

Authors
 * The lmac-sb authors 2026
"""

import torch

from lmac_sb.masking import top_share

__all__ = ["TRIVIAL_MASKS"]


def ones(magnitude, area, seed=0):
    """Keep everything."""
    return torch.ones_like(magnitude)


def random_bins(magnitude, area, seed=0):
    """Keep random bins, as many as the area says."""
    generator = torch.Generator().manual_seed(seed)
    # One draw for all clips, so that a clip's mask does not depend on its
    # place in the batch.
    scores = torch.rand(magnitude.shape[1:], generator=generator)
    scores = scores.to(magnitude.device).expand_as(magnitude)
    return top_share(scores, area)


def loudest_bins(magnitude, area, seed=0):
    """Keep the loudest bins, as many as the area says."""
    return top_share(magnitude, area)


# name -> function of the magnitude [batch, time, freq] and the share of bins
# to keep [batch]
TRIVIAL_MASKS = {
    "ones": ones,
    "random": random_bins,
    "loudest": loudest_bins,
}
