"""Decoders: latents of the classifier (and the spectrogram) -> mask logits.

Authors
 * The lmac-sb authors 2026
"""

import torch
from speechbrain.lobes.models.Cnn14 import CNN14PSI_stft
from torch.nn import functional as F

__all__ = ["MaskDecoder", "PSIAdapter", "as_mask_decoder"]


class MaskDecoder(torch.nn.Module):
    """Small transposed-convolution decoder for any list of latents.

    From the deepest latent on, the map is doubled in time and frequency
    until it has the next latent's size, that latent is added, and a
    depthwise-separable block mixes them; so up to the mel bands at half the
    frame rate. There the network states, for each of `spec_width` channels
    and a bias, how much it should count. These coefficients are carried from
    the mel bands to the bins between whose centres they lie, and weight a few
    learned full-resolution channels of the spectrogram itself. So the
    expensive part runs at low resolution, while the mask follows the finest
    detail of the sound. With ``spec_width=0`` the mask comes from the latents
    alone, as in the paper.

    Geometry: a cell of a latent lies exactly over the frames and bands that
    were pooled into it. Kernels are twice the stride and start as bilinear
    interpolation, so there is no checkerboard; frames and bands that pooling
    dropped repeat their neighbour.

    Arguments
    ---------
    latent_channels : list of int
        Channels of each latent, deepest first.
    n_mels : int
        Mel bands that the classifier sees.
    n_bins : int
        Frequency bins of the mask.
    sample_rate : int
        Sampling rate in Hz; places the mel bands on the bins.
    width : int
        Channels at low resolution.
    spec_width : int
        Channels at full resolution.

    Example
    -------
    >>> decoder = MaskDecoder([16, 8], n_mels=40, width=8)
    >>> latents = [torch.rand(2, 16, 5, 5), torch.rand(2, 8, 10, 10)]
    >>> decoder(latents, torch.rand(2, 43, 513)).shape
    torch.Size([2, 43, 513])
    """

    def __init__(
        self,
        latent_channels,
        n_mels=80,
        n_bins=513,
        sample_rate=16000,
        width=48,
        spec_width=8,
    ):
        super().__init__()
        self.n_mels = n_mels
        self.register_buffer(
            "mel_to_linear",
            _mel_to_linear(n_mels, n_bins, sample_rate),
            persistent=False,
        )
        self.project = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.GroupNorm(1, n_channels),
                torch.nn.Conv2d(n_channels, width, 1),
                torch.nn.GELU(),
            )
            for n_channels in latent_channels
        )
        self.mix = torch.nn.ModuleList(_Mix(width) for _ in latent_channels)
        self.grow = torch.nn.ModuleList(_Grow(width) for _ in latent_channels)
        self.coefficients = torch.nn.Conv2d(width, spec_width + 1, 1)
        self.spectrum = None
        if spec_width:
            self.spectrum = torch.nn.Sequential(
                torch.nn.Conv2d(1, spec_width, 3, padding=1),
                torch.nn.GELU(),
                torch.nn.Conv2d(
                    spec_width, spec_width, 5, padding=2, groups=spec_width
                ),
            )

    def forward(self, latents, log_magnitude):
        """Decode a mask.

        Arguments
        ---------
        latents : list of torch.Tensor
            [batch, channels, time, freq] each, deepest first.
        log_magnitude : torch.Tensor
            ``log1p`` of the linear magnitude, [batch, time, freq].

        Returns
        -------
        torch.Tensor
            Mask logits, [batch, time, freq].
        """
        n_frames = log_magnitude.shape[1]
        sizes = [latent.shape[2:] for latent in latents[1:]]
        sizes.append(((n_frames + 1) // 2, self.n_mels))
        h = 0
        for latent, project, mix, grow, size in zip(
            latents, self.project, self.mix, self.grow, sizes
        ):
            h = grow(mix(h + project(latent)), size)
        h = F.interpolate(
            self.coefficients(h), scale_factor=(2, 1), mode="bilinear"
        )
        h = h[:, :, :n_frames] @ self.mel_to_linear
        if self.spectrum is None:
            return h[:, 0]
        detail = self.spectrum(log_magnitude[:, None])
        return h[:, 0] + (h[:, 1:] * detail).sum(1)


class _Mix(torch.nn.Module):
    """Residual depthwise-separable block."""

    def __init__(self, width):
        super().__init__()
        self.depthwise = torch.nn.Conv2d(
            width, width, 5, padding=2, groups=width
        )
        self.norm = torch.nn.GroupNorm(1, width)
        self.expand = torch.nn.Conv2d(width, 2 * width, 1)
        self.reduce = torch.nn.Conv2d(2 * width, width, 1)

    def forward(self, x):
        h = self.norm(self.depthwise(x))
        return x + self.reduce(F.gelu(self.expand(h)))


class _Grow(torch.nn.Module):
    """Doubles each axis as often as the wanted size asks."""

    def __init__(self, width):
        super().__init__()
        self.time = _double(width, 0)
        self.freq = _double(width, 1)

    def forward(self, x, size):
        for dim, double in ((2, self.time), (3, self.freq)):
            # Within a factor of 1.5 no further doubling comes closer.
            while size[dim - 2] >= 1.5 * x.shape[dim]:
                pad = (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0)
                x = double(F.pad(x, pad, mode="replicate"))
        return _fit(x, size)


def _double(width, axis):
    """Depthwise transposed convolution, at first linear interpolation."""
    kernel, stride, padding = [1, 1], [1, 1], [0, 0]
    # Padding 3 cuts what the replicated border cells add.
    kernel[axis], stride[axis], padding[axis] = 4, 2, 3
    double = torch.nn.ConvTranspose2d(
        width, width, kernel, stride, padding, groups=width
    )
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25]).view(kernel)
    with torch.no_grad():
        double.weight.copy_(taps.expand_as(double.weight))
        double.bias.zero_()
    return double


def _fit(x, size):
    """Cut the end of [batch, channels, time, freq], or repeat its last cell.

    Sizes that no cut or short repeat explains (more than half a cell of a
    doubling off) are interpolated.
    """
    for dim, wanted in ((2, size[0]), (3, size[1])):
        found = x.shape[dim]
        if found * 2 <= wanted or wanted * 2 <= found:
            shape = list(x.shape[2:])
            shape[dim - 2] = wanted
            x = F.interpolate(x, shape, mode="bilinear")
        elif found >= wanted:
            x = x.narrow(dim, 0, wanted)
        else:
            pad = [0, 0, 0, 0]
            pad[1 if dim == 3 else 3] = wanted - found
            x = F.pad(x, pad, mode="replicate")
    return x


def _mel_to_linear(n_mels, n_bins, sample_rate):
    """Linear interpolation from mel band centres to bins, [mel, freq]."""

    def to_mel(hertz):
        return 2595 * torch.log10(1 + hertz / 700)

    bins = to_mel(torch.linspace(0, sample_rate / 2, n_bins).double())
    # SpeechBrain's bank has n_mels + 2 equally spaced points; the outer two
    # are edges, not centres.
    position = bins / bins[-1] * (n_mels + 1) - 1
    position = position.clamp(0, n_mels - 1)
    bands = torch.arange(n_mels).double()
    weights = (1 - (position[None] - bands[:, None]).abs()).clamp(min=0)
    return weights.float()


class PSIAdapter(torch.nn.Module):
    """SpeechBrain's published `CNN14PSI_stft` for clips of any length.

    The model's own `forward` adds skips of equal size only, which one clip
    length in four has, and it drops the last frames. Here each sum is cut to
    the common size and the mask's last frame is repeated up to the clip's
    end. On the frames that the public recipe explains the mask is the same.
    The wrapped model keeps its parameter names, so published checkpoints load
    into it.

    Arguments
    ---------
    psi : speechbrain.lobes.models.Cnn14.CNN14PSI_stft
        The decoder, for the latents of `Cnn14`, deepest first.

    Example
    -------
    >>> psi = PSIAdapter(CNN14PSI_stft(dim=2048))  # doctest: +SKIP
    >>> psi(latents, log_magnitude)  # doctest: +SKIP
    """

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
        return _fit(h, log_magnitude.shape[1:])[:, 0]


def _add_common(a, b):
    """Sum over the time and frequency range that both have."""
    time = min(a.shape[2], b.shape[2])
    freq = min(a.shape[3], b.shape[3])
    return a[:, :, :time, :freq] + b[:, :, :time, :freq]


def as_mask_decoder(decoder):
    """The decoder itself, or SpeechBrain's behind its adapter.

    Arguments
    ---------
    decoder : torch.nn.Module
        A decoder of this module or a `CNN14PSI_stft`.

    Returns
    -------
    torch.nn.Module
        Callable as ``decoder(latents, log_magnitude)``.
    """
    if isinstance(decoder, CNN14PSI_stft):
        return PSIAdapter(decoder)
    return decoder
