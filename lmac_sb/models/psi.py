"""Adapter for SpeechBrain's published decoder."""

import torch
from speechbrain.lobes.models.Cnn14 import CNN14PSI_stft
from torch.nn import functional as F

from lmac_sb.models.decoder import fit_grid

__all__ = ["PSIAdapter", "as_mask_decoder"]


class PSIAdapter(torch.nn.Module):
    """SpeechBrain's published `CNN14PSI_stft` for clips of any length.

    The model's own `forward` only adds skips of equal size, which one clip
    length in four has, and drops the last frames. Here each sum is cut to the
    common size, and the last frame of the mask is repeated up to the clip's
    end. The mask is the same for the frames that the public recipe explains.
    The wrapped model keeps its parameter names, so it can load published
    checkpoints.

    Arguments
    ---------
    psi : speechbrain.lobes.models.Cnn14.CNN14PSI_stft
        The decoder, for the latents of `Cnn14`, the deepest first.

    Example
    -------
    >>> psi = PSIAdapter(CNN14PSI_stft(dim=8))
    >>> shapes = (8, 3, 2), (4, 3, 2), (2, 6, 5), (1, 12, 10)
    >>> latents = [torch.rand(1, *shape) for shape in shapes]
    >>> psi(latents, torch.rand(1, 100, 513)).shape
    torch.Size([1, 100, 513])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, psi):
        super().__init__()
        self.psi = psi

    def forward(self, latents, log_magnitude):
        """Mask logits [batch, time, freq], see `MaskDecoder.forward`."""
        psi = self.psi
        skips = (psi.convt1, psi.convt2, psi.convt4, psi.convt6)
        h1, h2, h4, h6 = (
            F.relu(layer(latent)) for layer, latent in zip(skips, latents)
        )
        h = _add_common(F.relu(psi.convt3(_add_common(h1, h2))), h4)
        h = _add_common(F.relu(psi.convt5(h)), h6)
        h = psi.convt9(psi.convt8(F.relu(psi.convt7(h))))
        return fit_grid(h, log_magnitude.shape[1:])[:, 0]


def _add_common(a, b):
    """Sum over the time and frequency range that both maps have."""
    time = min(a.shape[2], b.shape[2])
    freq = min(a.shape[3], b.shape[3])
    return a[:, :, :time, :freq] + b[:, :, :time, :freq]


def as_mask_decoder(decoder):
    """The decoder itself, or SpeechBrain's decoder in its adapter.

    Arguments
    ---------
    decoder : torch.nn.Module
        A `CNN14PSI_stft`, or any other decoder.

    Returns
    -------
    torch.nn.Module
        Callable as ``decoder(latents, log_magnitude)``.
    """
    if isinstance(decoder, CNN14PSI_stft):
        return PSIAdapter(decoder)
    return decoder
