"""CREPE, a pitch classifier whose weights the package `torchcrepe` brings.

360 classes of 20 cents from 31.7 to 2006 Hz, each decided on its own, on
frames of 1024 samples at 16 kHz (Kim et al., arXiv 1802.06182). The package's
own `predict` takes one clip and no gradient, and its network takes frames in
the batch axis; here a batch of clips goes in, frames of each come out, and
gradients pass through all of it.

Each frame is divided by its own standard deviation, so the classifier hears
no level: a note that a mask only makes quieter is still the same note, and
what is left of a sound without it is heard at full level.
"""

import importlib
from pathlib import Path

import torch

from lmac_sb.listener.listener import Listener
from lmac_sb.utils.errors import LMACError, is_whole, shown

__all__ = ["PitchFrames", "PitchLogits", "load_crepe", "pitch_class"]

SIZES = ("full", "tiny")
SAMPLE_RATE = 16000
_FRAME = 1024  # samples
_N_CLASSES = 360
_CENTS = 20  # from one class to the next
_FIRST = 1997.3794084376191  # cents of class 0 above 10 Hz
_SMALLEST_STD = 1e-10  # of a frame
_MISSING = (
    "torchcrepe: no such package, expected the one that holds CREPE's weights; "
    'install it with pip install "lmac-sb[crepe]"'
)


def load_crepe(size="full", hop=160, **options):
    """CREPE as a listener.

    Arguments
    ---------
    size : str
        ``"full"`` (22 M parameters) or ``"tiny"`` (.5 M).
    hop : int
        Samples from one frame to the next; 160, or 10 ms, is the package's
        own choice. Cost grows with the number of frames: at that hop a pass
        of the full network takes some seconds of one core for each second of
        sound.
    **options
        Of `Listener`: `pool` and `at` say how the frames become one answer.

    Returns
    -------
    Listener
        From waveforms [batch, samples] at 16 kHz to logits [batch, 360]
        before the sigmoid. Those of the ``1 + samples // hop`` frames,
        [batch, time, 360], are ``listener.model(listener.front_end(wavs))``.

    Raises
    ------
    LMACError
        If the size or the hop is not one of these, or the package is missing.

    Example
    -------
    >>> listener = load_crepe("tiny", at=0.25)
    >>> wavs = torch.sin(2 * torch.pi * 220 / 16000 * torch.arange(8000))[None]
    >>> listener.labels[int(listener(wavs).argmax())]
    '220.8 Hz'
    """
    if size not in SIZES:
        raise LMACError(f"size: found {shown(size)}, expected one of {SIZES}")
    if not is_whole(hop) or hop < 1:
        raise LMACError(
            f"hop: found {shown(hop)}, expected a whole number of samples "
            "from 1"
        )
    try:
        torchcrepe = importlib.import_module("torchcrepe")
    except ModuleNotFoundError as error:
        if error.name != "torchcrepe":
            raise  # of its own needs, one is missing
        raise LMACError(_MISSING) from error
    # Not by its own `load.model`, which keeps one network for the process.
    network = torchcrepe.Crepe(size)
    path = Path(torchcrepe.__file__).parent / "assets" / f"{size}.pth"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return Listener(
        PitchLogits(network).eval().requires_grad_(False),
        SAMPLE_RATE,
        labels=[f"{frequency:.1f} Hz" for frequency in _frequencies()],
        multilabel=True,
        front_end=PitchFrames(hop).eval(),
        **options,
    )


def pitch_class(frequency):
    """The class that is nearest to a frequency, in cents.

    Arguments
    ---------
    frequency : float
        In Hz.

    Returns
    -------
    int
        Class from 0 to 359.

    Raises
    ------
    LMACError
        If the frequency is further than half a class from all of them.

    Example
    -------
    >>> pitch_class(440.0)
    228
    """
    frequencies = torch.tensor(_frequencies(), dtype=torch.float64)
    apart = 1200 * (frequencies / frequency).log2().abs()
    nearest = int(apart.argmin())
    # A little more than half, since rounding decides at the very edge.
    if not apart[nearest] < _CENTS / 2 + 1e-6:
        lowest, highest = float(frequencies[0]), float(frequencies[-1])
        raise LMACError(
            f"frequency: found {shown(frequency)} Hz, expected {lowest:.1f} "
            f"to {highest:.1f}"
        )
    return nearest


def _frequencies():
    """Hz of each class."""
    return [
        10 * 2 ** ((_FIRST + _CENTS * number) / 1200)
        for number in range(_N_CLASSES)
    ]


class PitchFrames(torch.nn.Module):
    """Frames around each hop, each with mean 0 and standard deviation 1.

    The clip is padded with half a frame of zeros on both sides. Frames of a
    constant, silence above all, become zeros.

    Arguments
    ---------
    hop : int
        Samples from one frame to the next.

    Example
    -------
    >>> PitchFrames(hop=160)(torch.rand(2, 16000)).shape
    torch.Size([2, 101, 1024])
    """

    def __init__(self, hop):
        super().__init__()
        self.hop = hop

    def forward(self, wavs):
        """Frames [batch, time, 1024] of waveforms [batch, samples]."""
        padded = torch.nn.functional.pad(wavs, (_FRAME // 2, _FRAME // 2))
        frames = padded.unfold(1, _FRAME, self.hop)
        frames = frames - frames.mean(2, keepdim=True)
        std = frames.std(2, keepdim=True)
        return frames / std.clamp(min=_SMALLEST_STD)


class PitchLogits(torch.nn.Module):
    """CREPE's network without its last sigmoid, on frames of several clips.

    Arguments
    ---------
    network : torchcrepe.Crepe
        With its weights.

    Example
    -------
    >>> load_crepe("tiny").model(torch.rand(2, 3, 1024)).shape
    torch.Size([2, 3, 360])
    """

    def __init__(self, network):
        super().__init__()
        network.conv1 = _AlongTime(network.conv1)
        self.network = network

    def forward(self, frames):
        """Logits [batch, time, 360] of frames [batch, time, 1024]."""
        network = self.network
        maps = network.embed(frames.flatten(0, 1))
        maps = network.layer(maps, network.conv6, network.conv6_BN)
        # Positions first, channels last, as the weights expect them.
        vectors = maps[..., 0].transpose(1, 2).flatten(1)
        return network.classifier(vectors).unflatten(0, frames.shape[:2])


class _AlongTime(torch.nn.Module):
    """A convolution of maps that have one column, as one of sequences.

    Arguments
    ---------
    conv : torch.nn.Conv2d
        Its kernel has one column and no padding.
    """

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, maps):
        """The same maps that the convolution itself gives."""
        conv = self.conv
        # The first layer has a kernel of 512 and one channel: on a CPU, the
        # backward pass is 30 times faster in one dimension than in two.
        return torch.nn.functional.conv1d(
            maps[..., 0], conv.weight[..., 0], conv.bias, conv.stride[0]
        )[..., None]
