"""The decoder: from latents of the classifier (and its input) to a mask."""

import math

import torch
from torch.nn import functional as F

__all__ = [
    "OTHER_START",
    "LevelDecoder",
    "MaskDecoder",
    "fit_grid",
    "standard_level",
    "usual_order",
]

# Each cell of the fine grid covers 4 frames x 4 bins of the spectrogram.
PATCH = 4

_RANGE = 1e-4  # of magnitudes that count, below a clip's largest: 80 dB
_FLOOR = 1e-7  # of magnitudes, see `SpectralFeatures.magnitude`
# Of a mask that lets the loud bins through, where the training of a decoder
# starts.
_OFFSET, _GAIN = -2.0, 2.0


class MaskDecoder(torch.nn.Module):
    """Small transposed-convolution decoder for any list of latents.

    The decoder starts with the deepest latent. It doubles the map in time and
    frequency until it has the size of the next latent, adds that latent, and
    mixes both with a convolution. This repeats up to the resolution of the mel
    bands at a quarter of the frame rate. Then each cell of 4 x 4 frames and
    linear-frequency bins reads the mel bands whose centres surround it.
    Patches of the spectrogram itself are added on that grid; they carry the
    detail that the classifier has pooled away. There the network ends with
    coefficients, which are interpolated to full resolution: an offset, and
    gains for the level of a bin and for the mean level around it. So no
    learned layer runs at full resolution, but the mask follows the finest
    detail of the sound. With ``spectrogram=False`` the mask depends only on
    the latents, as in the paper.

    Geometry: a cell of a latent lies exactly over the frames and bands that
    were pooled into it. Frames and bands that pooling dropped repeat their
    neighbour. Transposed convolutions have kernels of twice the stride and
    are initialised as bilinear interpolation, and the last step is bilinear
    interpolation. So no frame or bin is treated differently from its
    neighbours, which would cause checkerboard patterns.

    Arguments
    ---------
    latent_channels : list of int
        Channels of each latent, deepest first.
    n_mels : int
        Mel bands that the classifier sees.
    n_fft : int
        FFT size in samples; the mask has ``n_fft // 2 + 1`` bins.
    sample_rate : int
        Sampling rate in Hz; determines which bins a mel band covers.
    width : int
        Channels of the decoder.
    n_mix : int
        Convolution blocks on the fine grid.
    spectrogram : bool
        Whether the decoder also reads the spectrogram.
    standard : bool
        Whether it reads the spectrogram as `standard_level` does, so that no
        gain changes the mask; its training then starts near the mask of
        `LevelDecoder`.
    f_min, f_max : float
        Hz from the lowest to the highest band; by default from 0 to half of
        the sampling rate.
    depthwise : bool
        Whether a convolution on the fine grid hears each channel on its own,
        and the pointwise layer after it mixes them: two thirds of the cost.

    Example
    -------
    >>> decoder = MaskDecoder([16, 8], n_mels=40, width=8)
    >>> latents = [torch.rand(2, 16, 5, 5), torch.rand(2, 8, 10, 10)]
    >>> decoder(latents, torch.rand(2, 43, 513)).shape
    torch.Size([2, 43, 513])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        latent_channels,
        n_mels=80,
        n_fft=1024,
        sample_rate=16000,
        width=32,
        n_mix=2,
        spectrogram=True,
        standard=False,
        f_min=0.0,
        f_max=None,
        depthwise=False,
    ):
        super().__init__()
        self.n_mels = n_mels
        self.standard = standard
        self.depthwise = depthwise
        self.f_min = f_min
        self.f_max = sample_rate / 2 if f_max is None else f_max
        self.register_buffer(
            "mel_to_patch",
            _mel_to_patch(
                n_mels, n_fft // 2 + 1, sample_rate, self.f_min, self.f_max
            ),
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
        # Shared by all levels: a level without doubling would leave its own
        # layer without gradient, which distributed training refuses.
        self.grow = _Grow(width)
        self.patches = (
            torch.nn.Conv2d(1, width, PATCH, PATCH) if spectrogram else None
        )
        groups = width if depthwise else 1
        self.fine = torch.nn.Sequential(
            *(_Mix(width, groups) for _ in range(n_mix))
        )
        # An offset, and gains for the level of a bin and around it.
        self.coefficients = torch.nn.Conv2d(width, 3 if spectrogram else 1, 1)
        if standard and spectrogram:
            start = torch.tensor([_OFFSET, _GAIN, 0.0])
            with torch.no_grad():
                self.coefficients.bias.copy_(start)

    def forward(self, latents, log_magnitude):
        """Compute the logits of a mask.

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
        if self.standard:
            log_magnitude = standard_level(torch.expm1(log_magnitude))
        n_frames, n_bins = log_magnitude.shape[1:]
        sizes = [latent.shape[2:] for latent in latents[1:]]
        sizes.append((-(-n_frames // PATCH), self.n_mels))
        h = 0
        for latent, project, mix, size in zip(
            latents, self.project, self.mix, sizes
        ):
            h = h + self._quick_order(project(usual_order(latent)))
            h = self.grow(mix(h), size)
        h = _to_patches(h, self.mel_to_patch)
        if self.patches is not None:
            pad = (0, -n_bins % PATCH, 0, -n_frames % PATCH)
            detail = F.pad(log_magnitude[:, None], pad)
            if not h.is_contiguous():
                # Of one channel both orders are one: the strides tell which.
                detail = detail[:, 0, :, :, None].permute(0, 3, 1, 2)
            h = self.patches(detail).add_(h)
        h = self.coefficients(self.fine(h)).contiguous()
        h = _enlarge(h)[:, :, :n_frames, :n_bins]
        if self.patches is None:
            return h[:, 0]
        offset, gain, wide_gain = h.unbind(1)
        found = torch.addcmul(offset, gain, log_magnitude)
        return found.addcmul_(wide_gain, _around(log_magnitude))

    def _quick_order(self, x):
        """A map in the order of memory in which a CPU runs the layers faster.

        That is the one with the channels last, but for the backward pass of
        training. With and without gradients it is the same one, so that a clip
        has one mask to the bit.
        """
        if self.training or x.device.type != "cpu":
            return x
        if torch.is_grad_enabled() and not x.requires_grad:
            # See `usual_order` for what a norm with a gradient would do.
            if any(weight.requires_grad for weight in self.parameters()):
                return x
        return x.contiguous(memory_format=torch.channels_last)


def usual_order(latent):
    """A map as any layer can read it.

    GroupNorm's backward pass crashes on a channels-last map that needs no
    gradient. With one cell, a map may be contiguous and still have the strides
    of that order.

    Arguments
    ---------
    latent : torch.Tensor
        [batch, channels, time, freq].

    Returns
    -------
    torch.Tensor
        The same values; a view, if they lie in the usual order already.

    Example
    -------
    >>> last = torch.rand(2, 3, 1, 1).to(memory_format=torch.channels_last)
    >>> last.is_contiguous(), last.stride(), usual_order(last).stride()
    (True, (3, 1, 3, 3), (3, 1, 1, 1))
    """
    return latent.flatten().view(latent.shape)


class _Mix(torch.nn.Module):
    """Residual block of one convolution and one pointwise layer."""

    def __init__(self, width, groups=1):
        super().__init__()
        self.norm = torch.nn.GroupNorm(1, width)
        self.conv = torch.nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.point = torch.nn.Conv2d(width, width, 1)

    def forward(self, x):
        """Mix neighbouring cells; the shape stays the same."""
        # Memory that is new takes a CPU longer than the sum itself.
        h = self.conv(self.norm(x))
        h = F.gelu(h, out=None if torch.is_grad_enabled() else h)
        return self.point(h).add_(x)


class _Grow(torch.nn.Module):
    """Doubles each axis until a map has the requested size."""

    def __init__(self, width):
        super().__init__()
        self.time = _double(width, 0)
        self.freq = _double(width, 1)

    def forward(self, x, size):
        """Grow a map to [batch, channels, *size]."""
        for dim, double in ((2, self.time), (3, self.freq)):
            wanted, cell = size[dim - 2], 1
            # Within a factor of 1.5, another doubling would be further off.
            while wanted >= 1.5 * x.shape[dim]:
                x = _grow_axis(x, dim, double)
                cell *= 2
            # Halving drops at most one cell; otherwise the ratio is not 2.
            if abs(wanted - x.shape[dim]) > cell:
                x = _stretch(x, dim, wanted)
        return fit_grid(x, size)


def _double(width, axis):
    """Depthwise transposed convolution, initialised as interpolation."""
    kernel, stride, padding = [1, 1], [1, 1], [0, 0]
    # Padding 3 cuts off what the replicated border cells add.
    kernel[axis], stride[axis], padding[axis] = 4, 2, 3
    double = torch.nn.ConvTranspose2d(
        width, width, kernel, stride, padding, groups=width
    )
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25]).view(kernel)
    with torch.no_grad():
        double.weight.copy_(taps.expand_as(double.weight))
        double.bias.zero_()
    return double


def _grow_axis(x, dim, double):
    """An axis twice as long, by a layer of `_double`.

    Each new cell is a weighted sum of two old ones, which takes a CPU a fifth
    of the time of the convolution.
    """
    if x.device.type != "cpu":
        pad = (0, 0, 1, 1) if dim == 2 else (1, 1, 0, 0)
        return double(F.pad(x, pad, mode="replicate"))
    by_channel = -1, 1, 1
    channels_last = not x.is_contiguous()
    if channels_last:
        x, dim, by_channel = x.permute(0, 2, 3, 1), dim - 1, (-1,)
    before, after = _shifted(x, dim)
    taps = [tap.view(by_channel) for tap in double.weight.flatten(1).unbind(1)]
    bias = double.bias.view(by_channel)
    first = torch.addcmul(bias, before, taps[3]).addcmul_(x, taps[1])
    second = torch.addcmul(bias, after, taps[0]).addcmul_(x, taps[2])
    x = torch.stack((first, second), dim + 1).flatten(dim, dim + 1)
    return x.permute(0, 3, 1, 2) if channels_last else x


def _shifted(x, dim):
    """The cells before and after each along an axis; the border is repeated."""
    size = x.shape[dim]
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, size - 1, 1)
    return (
        torch.cat((first, x.narrow(dim, 0, size - 1)), dim),
        torch.cat((x.narrow(dim, 1, size - 1), last), dim),
    )


def _enlarge(x):
    """Both axes of [batch, channels, time, freq] `PATCH` times as long.

    As ``F.interpolate(x, scale_factor=PATCH, mode="bilinear")``, in a third of
    the time.
    """
    # The shorter axis grows first: what is computed twice is smaller then.
    for dim in (3, 2):
        before, after = _shifted(x, dim)
        parts = []
        for place in range(PATCH):
            # Centre of a new cell, in old ones from the centre of its own.
            shift = (place + 0.5) / PATCH - 0.5
            other = before if shift < 0 else after
            parts.append(torch.lerp(x, other, abs(shift)))
        x = torch.stack(parts, dim + 1).flatten(dim, dim + 1)
    return x


def _to_patches(x, weights):
    """Bands [batch, channels, time, mel] to patches, by [mel, patches]."""
    if x.is_contiguous():
        return x @ weights
    return (weights.T @ x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _stretch(x, dim, wanted):
    """Interpolate one axis of [batch, channels, time, freq]."""
    shape = list(x.shape[2:])
    shape[dim - 2] = wanted
    return F.interpolate(x, shape, mode="bilinear")


def fit_grid(x, size):
    """Fit a map to a size by cutting its end or repeating its last cell.

    An axis that is off by a factor of two or more is interpolated.

    Arguments
    ---------
    x : torch.Tensor
        [batch, channels, time, freq].
    size : tuple of int
        Requested numbers of frames and bins.

    Returns
    -------
    torch.Tensor
        [batch, channels, time, freq], of that size.
    """
    for dim, wanted in ((2, size[0]), (3, size[1])):
        found = x.shape[dim]
        if found * 2 <= wanted or wanted * 2 <= found:
            x = _stretch(x, dim, wanted)
        elif found >= wanted:
            x = x.narrow(dim, 0, wanted)
        else:
            pad = [0, 0, 0, 0]
            pad[1 if dim == 3 else 3] = wanted - found
            x = F.pad(x, pad, mode="replicate")
    return x


def _around(x):
    """Mean of each bin and its neighbours, [batch, time, freq].

    As ``avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)``, which
    takes five times as long.
    """
    for dim in (1, 2):
        size = x.shape[dim]
        total, most = x.clone(), size - 1
        total.narrow(dim, 1, most).add_(x.narrow(dim, 0, most))
        total.narrow(dim, 0, most).add_(x.narrow(dim, 1, most))
        count = torch.full((size,), 3.0, device=x.device)
        count[0] -= 1
        count[-1] -= 1
        x = total.div_(count[:, None] if dim == 1 else count)
    return x


def _mel_to_patch(n_mels, n_bins, sample_rate, f_min, f_max):
    """Weights of the mel bands in each patch of `PATCH` bins, [mel, patches].

    Mean, over the bins of the patch, of linear interpolation between the
    centres of the bands. No band is left out.
    """
    n_patches = -(-n_bins // PATCH)
    hertz = torch.arange(n_patches * PATCH).double()
    hertz = hertz * sample_rate / 2 / (n_bins - 1)
    low, high = (math.log10(1 + limit / 700) for limit in (f_min, f_max))
    # A filterbank has n_mels + 2 equally spaced points; the first and the
    # last are edges, not centres.
    position = (torch.log10(1 + hertz / 700) - low) / (high - low)
    position = position * (n_mels + 1) - 1
    position = position.clamp(0, n_mels - 1)
    bands = torch.arange(n_mels).double()
    weights = (1 - (position - bands[:, None]).abs()).clamp(min=0)
    return weights.view(n_mels, n_patches, PATCH).mean(2).float()


def standard_level(magnitude):
    """Log magnitude of each bin, with mean 0 and deviation 1 in each clip.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear, [batch, time, freq]. Bins more than 80 dB below the largest
        count as 80 dB below it.

    Returns
    -------
    torch.Tensor
        [batch, time, freq]; zeros where all bins are the same. No gain
        changes it, unless bins that matter sink to 1e-7.

    Example
    -------
    >>> standard_level(torch.tensor([[[1.0, 10.0, 100.0]]]))
    tensor([[[-1.2247,  0.0000,  1.2247]]])
    """
    floor = _RANGE * magnitude.amax((1, 2), keepdim=True)
    level = magnitude.maximum(floor.clamp(min=_FLOOR)).log()
    level = level - level.mean((1, 2), keepdim=True)
    spread = level.square().mean((1, 2), keepdim=True).sqrt()
    # Of silence, rounding alone is left.
    return level / torch.where(spread > 1e-4, spread, torch.inf)


class LevelDecoder(torch.nn.Module):
    """Where refinement starts if no decoder was trained: the loud bins.

    Arguments
    ---------
    offset : float
        Mask logit at a clip's mean level.
    gain : float
        How much it grows with each standard deviation above that.

    Example
    -------
    >>> decoder = LevelDecoder(offset=-1.0, gain=2.0)
    >>> decoder([], torch.tensor([[[1.0, 10.0, 100.0]]]).log1p())
    tensor([[[-3.4495, -1.0000,  1.4495]]])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, offset=-1.0, gain=2.0):
        super().__init__()
        self.offset = offset
        self.gain = gain

    def forward(self, latents, log_magnitude):
        """Mask logits [batch, time, freq], see `MaskDecoder.forward`."""
        level = standard_level(torch.expm1(log_magnitude))
        return self.offset + self.gain * level


# Where steps start that should lead to the same mask as from the default.
OTHER_START = LevelDecoder(offset=-2.0, gain=1.0)
