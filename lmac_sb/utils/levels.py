"""How loud a sound is, and from where on it is silence."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["SILENT_DB", "is_silent", "level_db"]

# A sound whose largest swing is not above this is silent: one step of 16 bits
# up and down, as of dither, or of channels that cancel each other.
SILENT_DB = -90.0


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


def is_silent(wav: Tensor) -> bool:
    """Whether there is no sound in a signal at its own level.

    The one test for data preparation, training and explanation.

    Arguments
    ---------
    wav : torch.Tensor
        Full scale is 1, [samples].

    Returns
    -------
    bool

    Example
    -------
    >>> is_silent(torch.tensor([1.0, 0.0, -1.0]) / 32768)
    True
    >>> is_silent(torch.tensor([1.0, 0.0, -1.0]) * 1e-4)
    False
    """
    return bool(level_db(wav[None]) <= SILENT_DB)
