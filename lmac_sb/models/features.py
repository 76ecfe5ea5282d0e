"""Waveform <-> spectrogram <-> classifier features.

One object holds the classifier's front end, so that training, evaluation and
inference use the same one.
"""

import copy
from dataclasses import dataclass
from numbers import Real
from typing import Optional

import torch
import torch.nn.functional as F
import torchaudio
from speechbrain.processing.features import STFT, Filterbank

from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "FbankFeatures",
    "FixedNormalization",
    "LogForm",
    "SpectralFeatures",
    "OverlapAdd",
    "linear_bands",
    "magnitude_of",
]

# Where fewer than this share of a window's highest square lies on a sample,
# the inverse STFT fades it out: a division by it would be noise.
_LEAST_COVER = 1e-4
# Below this, a root has too steep a gradient.
_LEAST_ROOT = 1e-20

_PAD_MODES = ("constant", "reflect", "replicate", "circular")
_LOGARITHMS = {
    "log1p": torch.log1p,
    "log": torch.log,
    "log10": torch.log10,
    "dB": torch.log10,
}


@dataclass(frozen=True)
class LogForm:
    """How the bands of a spectrogram become levels.

    ``gain * logarithm(max(band + offset, floor))``, not lower than the clip's
    highest level less `top_db`.

    Arguments
    ---------
    kind : str
        ``log1p``, ``log``, ``log10``, ``dB`` or ``none``.
    offset : float
        Added to the bands.
    floor : float
        Smallest value whose logarithm is taken.
    top_db : float
        Range of the levels of a clip, in their own unit: decibel for ``dB``.
        By default it is not limited.
    gain : float
        Factor of the logarithm: by default 1, for ``dB`` 20 on magnitudes and
        10 on their squares.

    Raises
    ------
    LMACError
        If the kind is not known, or silence would be minus infinity.

    Example
    -------
    >>> level = LogForm("dB", floor=1e-10, top_db=80)
    >>> level(torch.tensor([[[1.0, 0.01, 0.0]]]), power=2)
    tensor([[[  0., -20., -80.]]])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    kind: str = "log1p"
    offset: float = 0.0
    floor: float = 0.0
    top_db: Optional[float] = None
    gain: Optional[float] = None

    def __post_init__(self):
        kinds = (*_LOGARITHMS, "none")
        if self.kind not in kinds:
            raise LMACError(
                f"log: found {shown(self.kind)}, expected one of "
                f"{', '.join(kinds)}"
            )
        if self.offset < 0 or self.floor < 0:
            raise LMACError(
                f"log: found offset {self.offset} and floor {self.floor}, "
                "expected none below zero"
            )
        if self.kind in ("log", "log10", "dB") and not self.lowest > 0:
            raise LMACError(
                f"log: found {self.kind} without offset or floor, expected "
                "one above zero (the logarithm of silence is infinite)"
            )
        if self.top_db is not None and not self.top_db >= 0:
            raise LMACError(
                f"log: found top_db {self.top_db}, expected none below zero"
            )

    @property
    def lowest(self):
        """Of what the logarithm of silence is taken."""
        return max(self.offset, self.floor)

    def __call__(self, bands, power=1):
        """Levels of bands.

        Arguments
        ---------
        bands : torch.Tensor
            [batch, time, bands], zero or more.
        power : float
            Power of the magnitude that they are.

        Returns
        -------
        torch.Tensor
            [batch, time, bands].
        """
        levels = bands + self.offset if self.offset else bands
        levels = levels.clamp(min=self.floor) if self.floor else levels
        if self.kind != "none":
            levels = _LOGARITHMS[self.kind](levels)
        gain = self.gain
        if gain is None:
            gain = 20 / power if self.kind == "dB" else 1
        levels = levels if gain == 1 else gain * levels
        if self.top_db is not None:
            highest = levels.amax(dim=(-2, -1), keepdim=True)
            levels = torch.maximum(levels, highest - self.top_db)
        return levels


class SpectralFeatures(torch.nn.Module):
    """STFT, log-mel features and the inverse STFT.

    ``waveform -> STFT -> magnitude -> power -> mel filterbank -> logarithm``.
    The defaults are those of the L-MAC paper (arXiv 2403.13086, section 3),
    with SpeechBrain's STFT, Filterbank and ISTFT. The filterbank extends to
    half the sampling rate, so the classifier sees the whole spectrum at any
    rate. The other settings are those of other people's front ends, such as
    torchaudio's.

    The inverse STFT gives the waveform back, sample by sample, wherever
    frames cover it. Without `center` the first and last samples lie under the
    edge of a window alone: they fade in and out where it is below 1 % of its
    height, and what lies behind the last whole frame, which the classifier
    never sees, is silent. So is what a long hop leaves out.

    Arguments
    ---------
    sample_rate : int
        Sampling rate in Hz.
    n_fft : int
        FFT size in samples; the spectrogram has ``n_fft // 2 + 1`` bins.
    win_length : float
        Window length in ms.
    hop_length : float
        Hop length in ms.
    n_mels : int
        Number of mel bands that the classifier sees. None: it sees the bins.
    win_samples, hop_samples : int
        Window and hop length in samples, instead of those in ms.
    window : str or torch.Tensor
        Name of a window of torch, such as ``hann``, ``blackman`` or, from
        `torch.signal.windows`, ``nuttall``; ``ones``; or its values.
    periodic : bool
        Whether a window with a name is periodic, as torch's are by default,
        or symmetric.
    center : bool
        Whether frame t is centred at sample ``t * hop``, with half an FFT of
        padding on both sides, or begins there.
    pad_mode : str
        ``constant`` (zeros), ``reflect``, ``replicate`` or ``circular``.
    pad : int
        Zeros on both sides before that, as torchaudio's `pad`.
    mel_scale : str
        ``speechbrain``: HTK's scale with SpeechBrain's triangles, which are
        symmetric in Hz; ``htk`` or ``slaney``: with torchaudio's and
        librosa's, which end at their neighbours' centres.
    norm : str
        ``slaney``: triangles of equal area, for the last two; or None.
    f_min, f_max : float
        Range of the filterbank in Hz, by default to half the sampling rate.
    fbank_matrix : torch.Tensor
        Another filterbank [freq, bands] instead of these.
    power : float
        Power of the magnitude that the filterbank gets: 1 or 2.
    scale : float
        Factor of the magnitude before that.
    log : str or LogForm
        What becomes of the bands: a kind, or all of a `LogForm`.
    eps : float
        Added to the squared magnitude, which has a finite gradient with it.

    Raises
    ------
    LMACError
        If a setting is not known, there is no rate, `n_fft` is shorter than
        the window, or SpeechBrain's filterbank has so many bands that one
        holds no bin. Torchaudio's may have such bands; it warns of them.

    Example
    -------
    >>> features = SpectralFeatures(n_fft=512, n_mels=40)
    >>> wavs = torch.rand(2, 16000)
    >>> stft = features.stft(wavs)
    >>> stft.shape
    torch.Size([2, 87, 257, 2])
    >>> features.mel(features.magnitude(stft)).shape
    torch.Size([2, 87, 40])
    >>> features.istft(stft, 16000).shape
    torch.Size([2, 16000])

    As ``torchaudio.transforms.MelSpectrogram(n_mels=64)``:

    >>> features = SpectralFeatures(
    ...     n_fft=400, win_samples=400, hop_samples=200, window="hann",
    ...     pad_mode="reflect", n_mels=64, mel_scale="htk", power=2, log="none",
    ... )
    >>> ours = features.mel(features.magnitude(features.stft(wavs)))
    >>> theirs = torchaudio.transforms.MelSpectrogram(n_mels=64)(wavs)
    >>> torch.allclose(ours.transpose(1, 2), theirs, rtol=1e-4)
    True
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin
    IS_SOUND = False  # what the classifier gets

    def __init__(
        self,
        sample_rate=16000,
        n_fft=1024,
        win_length=23.2199,
        hop_length=11.6099,
        n_mels=80,
        *,
        win_samples=None,
        hop_samples=None,
        window="hamming",
        periodic=True,
        center=True,
        pad_mode="constant",
        pad=0,
        mel_scale="speechbrain",
        norm=None,
        f_min=0,
        f_max=None,
        fbank_matrix=None,
        power=1,
        scale=1,
        log="log1p",
        eps=1e-14,
    ):
        super().__init__()
        if not isinstance(sample_rate, Real) or not sample_rate > 0:
            raise LMACError(
                f"sample_rate: found {shown(sample_rate)}, expected a number "
                "of Hz"
            )
        length, hop = win_samples, hop_samples
        if length is None:
            length = _samples(win_length, sample_rate)
        if hop is None:
            hop = _samples(hop_length, sample_rate)
        _check_frames(n_fft, length, hop, sample_rate)
        _check_choices(pad_mode, pad, power)
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.n_bins = n_fft // 2 + 1
        self.center, self.pad_mode, self.pad = center, pad_mode, pad
        self.power, self.scale, self.eps = power, scale, eps
        self.log = log if isinstance(log, LogForm) else LogForm(log)
        window = _window(window, length, periodic)
        self._make_stft(window, hop)
        self.linear = fbank_matrix is None and n_mels is None
        if self.linear:
            fbank_matrix = torch.eye(self.n_bins)
        elif fbank_matrix is None:
            fbank_matrix = _mel_bands(
                (sample_rate, n_fft, n_mels), (f_min, f_max), mel_scale, norm
            )
        self._set_bands(torch.as_tensor(fbank_matrix))

    def _set_bands(self, matrix):
        """Keep the filterbank [freq, bands], if it is one for these bins."""
        if matrix.dim() != 2 or len(matrix) != self.n_bins:
            raise LMACError(
                f"fbank_matrix: found shape {tuple(matrix.shape)}, expected "
                f"[n_fft // 2 + 1 = {self.n_bins}, bands]"
            )
        self.n_mels = matrix.shape[1]
        # Not persistent: the settings define it, so checkpoints omit it.
        self.register_buffer("fbank_matrix", matrix, persistent=False)

    def _make_stft(self, window, hop):
        """SpeechBrain's STFT and its inverse."""
        frame = {
            "sample_rate": self.sample_rate,
            "n_fft": self.n_fft,
            # Milliseconds that are these samples, whatever the rate.
            "win_length": len(window) * 1000 / self.sample_rate,
            "hop_length": hop * 1000 / self.sample_rate,
            "window_fn": lambda n: window,
        }
        self.compute_stft = STFT(
            **frame, center=self.center, pad_mode=self.pad_mode
        )
        self.compute_istft = OverlapAdd(self.n_fft, hop, window, self.center)

    @property
    def hop_samples(self):
        """Hop length in samples."""
        return self.compute_stft.hop_length

    @property
    def frame_start(self):
        """First sample that frame 0 sees: below zero if it is in padding."""
        return -self.pad - (self.n_fft // 2 if self.center else 0)

    def n_frames(self, n_samples):
        """Number of STFT frames of a clip of `n_samples` samples."""
        behind = n_samples - 2 * self.frame_start - self.n_fft
        return max(behind // self.hop_samples + 1, 0)

    def stft(self, wavs):
        """Short-time Fourier transform.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        torch.Tensor
            Real and imaginary parts, [batch, time, freq, 2].

        Raises
        ------
        LMACError
            If they are too short for a frame, or to be reflected.
        """
        self._check_length(wavs.shape[-1])
        if self.pad:
            wavs = F.pad(wavs, (self.pad, self.pad))
        return self.compute_stft(wavs)

    def _check_length(self, n_samples):
        """Refuse clips that the transform cannot take."""
        if not self.center:
            least = self.n_fft - 2 * self.pad
        elif self.pad_mode in ("reflect", "circular"):
            folded = self.n_fft // 2 + (self.pad_mode == "reflect")
            least = folded - 2 * self.pad
        else:
            least = 1
        if n_samples < least:
            raise LMACError(
                f"waveform: found {n_samples} samples, expected at least "
                f"{least} for a frame of {self.n_fft}; repeat the sound or "
                "pad it with silence"
            )

    def magnitude(self, stft):
        """Magnitude of a spectrogram.

        Arguments
        ---------
        stft : torch.Tensor
            [batch, time, freq, 2].

        Returns
        -------
        torch.Tensor
            [batch, time, freq], above zero for a finite gradient.
        """
        return magnitude_of(stft, self.eps)

    def mel(self, magnitude):
        """The classifier's input: the levels of the mel bands.

        Arguments
        ---------
        magnitude : torch.Tensor
            Linear magnitude, [batch, time, freq].

        Returns
        -------
        torch.Tensor
            [batch, time, n_mels].
        """
        x = magnitude if self.scale == 1 else magnitude * self.scale
        if self.power == 2:
            x = x.square()
        elif self.power != 1:
            x = x.clamp(min=_LEAST_ROOT).pow(self.power)
        if not self.linear:
            x = x @ self.fbank_matrix
        return self.log(x, self.power)

    def istft(self, stft, n_samples):
        """Inverse STFT to waveforms of exactly `n_samples`.

        Arguments
        ---------
        stft : torch.Tensor
            [batch, time, freq, 2].
        n_samples : int
            Length of the waveforms from which the STFT was computed.

        Returns
        -------
        torch.Tensor
            Waveforms, [batch, n_samples].
        """
        padded = n_samples + 2 * self.pad
        wavs = self.compute_istft(stft.float(), sig_length=padded)
        return wavs[:, self.pad : self.pad + n_samples]


class FbankFeatures(SpectralFeatures):
    """Front end of the classifiers that SpeechBrain trains on `Fbank`.

    Such a classifier has its own modules for features: log mel energies in
    dB, then a normalisation. Here they start from a magnitude, so that a mask
    can be applied first.

    Arguments
    ---------
    fbank : speechbrain.lobes.features.Fbank
        The classifier's ``compute_features``, without deltas or context.
    normalize : torch.nn.Module
        Its ``mean_var_norm``, called with features and relative lengths.
        Global statistics, which must be loaded, stay as they are.

    Raises
    ------
    LMACError
        If `fbank` adds deltas or context.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.processing.features import InputNormalization
    >>> fbank = Fbank(n_mels=40)
    >>> normalize = InputNormalization(norm_type="sentence", std_norm=False)
    >>> features = FbankFeatures(fbank, normalize)
    >>> wavs = torch.rand(2, 16000)
    >>> ours = features.mel(features.magnitude(features.stft(wavs)))
    >>> theirs = normalize(fbank(wavs), torch.ones(2))
    >>> torch.allclose(ours, theirs, atol=1e-3)
    True
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, fbank, normalize):
        if fbank.deltas or fbank.context:
            raise LMACError(
                "compute_features: found Fbank with deltas or context, "
                "expected one without"
            )
        stft = fbank.compute_STFT
        super().__init__(
            sample_rate=stft.sample_rate,
            n_fft=stft.n_fft,
            win_samples=stft.win_length,
            hop_samples=stft.hop_length,
            window=stft.window,
            center=stft.center,
            pad_mode=stft.pad_mode,
            fbank_matrix=linear_bands(fbank.compute_fbanks),
            power=2,
            log="none",
        )
        self.fbank = fbank
        self.normalize = FixedNormalization(normalize)

    def mel(self, magnitude):
        """The classifier's input [batch, time, n_mels] for a magnitude."""
        # Its own filterbank, which may be a trained one.
        return self.normalize(self.fbank.compute_fbanks(magnitude.pow(2)))


class FixedNormalization(torch.nn.Module):
    """A normalisation of features that learns nothing more.

    SpeechBrain's global statistics change with each call in training mode,
    and do not follow the module to its device. Here they do the contrary.

    Arguments
    ---------
    normalize : torch.nn.Module
        SpeechBrain's `InputNormalization`, or one that is called like it.

    Example
    -------
    >>> from speechbrain.processing.features import InputNormalization
    >>> theirs = InputNormalization(norm_type="global")
    >>> x = theirs(torch.rand(2, 10, 4))
    >>> fixed = FixedNormalization(theirs).train()
    >>> _ = fixed(torch.rand(2, 10, 4))
    >>> theirs.count
    20
    """

    def __init__(self, normalize):
        super().__init__()
        self.normalize = normalize.eval()

    def train(self, mode=True):
        """Change the mode of nothing: what is loaded stays."""
        self.training = mode
        return self

    def forward(self, x):
        """Normalise features.

        Arguments
        ---------
        x : torch.Tensor
            [batch, time, bands], whole clips.

        Returns
        -------
        torch.Tensor
            The same shape.

        Raises
        ------
        LMACError
            If global statistics are wanted, and none were loaded.
        """
        if getattr(self.normalize, "norm_type", None) == "global":
            self._place_statistics(x)
        return self.normalize(x, torch.ones(len(x), device=x.device))

    def _place_statistics(self, x):
        """Check the loaded statistics, and bring them to the features."""
        mean, std = self.normalize.glob_mean, self.normalize.glob_std
        if not torch.as_tensor(mean).numel():
            raise LMACError(
                "normalize: found no global statistics, expected those of the "
                "training; load its checkpoint into InputNormalization first"
            )
        self.normalize.glob_mean = torch.as_tensor(mean).to(x.device)
        self.normalize.glob_std = torch.as_tensor(std).to(x.device)


def magnitude_of(stft, eps=1e-14):
    """Magnitude of a spectrogram, as SpeechBrain's `spectral_magnitude`.

    Arguments
    ---------
    stft : torch.Tensor
        Real and imaginary parts, [..., 2].
    eps : float
        Added to the squares, so that the gradient is finite.

    Returns
    -------
    torch.Tensor
        [...], to the bit what SpeechBrain computes in six times the time.

    Example
    -------
    >>> magnitude_of(torch.tensor([3.0, 4.0]))
    tensor(5.)
    """
    # A sum over an axis of two is slow.
    square = stft.square()
    return (square[..., 0] + square[..., 1]).add_(eps).sqrt_()


class OverlapAdd(torch.nn.Module):
    """Inverse STFT, also for windows that do not cover every sample.

    ``torch.istft`` refuses those, adds frames of the FFT's size where only
    the window's count, and takes twice the time.

    Arguments
    ---------
    n_fft, hop : int
        FFT size and hop length in samples.
    window : torch.Tensor
        Its values, at most `n_fft` of them.
    center : bool
        Whether half an FFT at the beginning was padding.

    Attributes
    ----------
    is_whole : bool
        Whether it gives every sample back.

    Example
    -------
    >>> window, wavs = torch.hann_window(16), torch.rand(1, 100)
    >>> stft = torch.stft(
    ...     wavs, 16, 4, window=window, pad_mode="constant", return_complex=True
    ... )
    >>> inverse = OverlapAdd(16, 4, window, center=True)
    >>> found = inverse(torch.view_as_real(stft.transpose(1, 2)), 100)
    >>> torch.allclose(found, wavs, atol=1e-6)
    True
    """

    def __init__(self, n_fft, hop, window, center):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        # Of a frame, only what the window covers is added up.
        self.left = (n_fft - len(window)) // 2
        self.start = (n_fft // 2 if center else 0) - self.left
        # Not persistent: the settings define it, so checkpoints omit it.
        window = window.detach().clone()
        self.register_buffer("window", window, persistent=False)
        # Each sample lies well within a window, at the ends of a clip too.
        square = F.pad(window.square(), (0, -len(window) % hop))
        cover = square.view(-1, hop).sum(0)
        self.is_whole = center and bool(
            cover.min() >= _LEAST_COVER * square.max()
        )

    def forward(self, stft, sig_length):
        """Waveforms [batch, sig_length] of an STFT [batch, time, freq, 2]."""
        spectrum = torch.view_as_complex(stft.contiguous())
        frames = torch.fft.irfft(spectrum, self.n_fft)
        frames = frames.narrow(2, self.left, len(self.window)) * self.window
        square = self.window.square()
        cover = self._add(square.expand(1, stft.shape[1], -1))
        least = _LEAST_COVER * square.max()
        wavs = self._add(frames) / torch.maximum(cover, least)
        # The sound may begin before the first window, and end behind the last.
        before = max(0, -self.start)
        wavs = F.pad(wavs, (before, 0)) if before else wavs
        start = max(0, self.start)
        wavs = wavs[:, start : start + sig_length]
        return F.pad(wavs, (0, sig_length - wavs.shape[1]))

    def _add(self, frames):
        """Sum of frames [batch, time, window] at their places."""
        batch, n_frames, length = frames.shape
        n_parts = -(-length // self.hop)
        frames = F.pad(frames, (0, n_parts * self.hop - length))
        parts = frames.view(batch, n_frames, n_parts, self.hop).unbind(2)
        # Part i of a frame lies i hops behind the frame's own place.
        return sum(
            F.pad(part, (0, 0, i, n_parts - 1 - i))
            for i, part in enumerate(parts)
        ).flatten(1)


def linear_bands(filterbank):
    """Matrix of a filterbank of SpeechBrain.

    Arguments
    ---------
    filterbank : speechbrain.processing.features.Filterbank
        With any shape of filters, also trained ones.

    Returns
    -------
    torch.Tensor
        [freq, bands].

    Example
    -------
    >>> linear_bands(Filterbank(n_mels=40, n_fft=400)).shape
    torch.Size([201, 40])
    """
    # It is linear but for the logarithm: its output for the identity is its
    # matrix, which is computed once here instead of at each call.
    linear = copy.copy(filterbank)
    linear.log_mel, linear.training = False, False
    return linear(torch.eye(linear.n_stft)[None])[0].detach()


def _samples(ms, sample_rate):
    """A time in samples, rounded as SpeechBrain does."""
    return int(round(sample_rate / 1000 * ms))


def _check_frames(n_fft, window, hop, sample_rate):
    """Refuse frames that are none."""
    if window > n_fft:
        raise LMACError(
            f"win_length: {window * 1000 / sample_rate:.6g} ms are {window} "
            f"samples at {sample_rate} Hz, more than n_fft = {n_fft}"
        )
    if window < 1 or hop < 1:
        raise LMACError(
            f"win_length, hop_length: found {window} and {hop} samples at "
            f"{sample_rate} Hz, expected one or more"
        )


def _check_choices(pad_mode, pad, power):
    """Refuse padding and powers that are none."""
    if pad_mode not in _PAD_MODES:
        raise LMACError(
            f"pad_mode: found {shown(pad_mode)}, expected one of "
            f"{', '.join(_PAD_MODES)}"
        )
    if pad < 0:
        raise LMACError(f"pad: found {pad} samples, expected none below zero")
    if not power > 0:
        raise LMACError(f"power: found {power}, expected one above zero")


def _window(window, length, periodic):
    """Values of a window, from its name if it has one."""
    if not isinstance(window, str):
        window = torch.as_tensor(window).detach()
        if window.shape != (length,):
            raise LMACError(
                f"window: found values of shape {tuple(window.shape)}, "
                f"expected {length}, the window's length in samples"
            )
        return window
    name = window[: -len("_window")] if window.endswith("_window") else window
    if name in ("ones", "rectangular", "boxcar"):
        return torch.ones(length)
    if name in ("bartlett", "blackman", "hamming", "hann", "kaiser"):
        return getattr(torch, f"{name}_window")(length, periodic=periodic)
    if name in torch.signal.windows.__all__ and name != "general_cosine":
        return getattr(torch.signal.windows, name)(length, sym=not periodic)
    raise LMACError(
        f"window: found {shown(window)}, expected a window of torch such as "
        "hamming, hann, blackman, bartlett, kaiser, nuttall or ones"
    )


def _mel_bands(size, limits, scale, norm):
    """Mel filterbank [freq, bands]: of rate, FFT and number; in limits."""
    sample_rate, n_fft, n_mels = size
    f_min, f_max = limits
    if scale not in ("speechbrain", "htk", "slaney"):
        raise LMACError(
            f"mel_scale: found {shown(scale)}, expected speechbrain, htk or "
            "slaney"
        )
    if norm not in (None, "none", "slaney"):
        raise LMACError(f"norm: found {shown(norm)}, expected slaney or none")
    norm = None if norm == "none" else norm
    theirs = scale != "speechbrain"
    if norm and not theirs:
        raise LMACError(
            "norm: found slaney with mel_scale speechbrain, expected htk or "
            "slaney with it"
        )
    if f_max is None:
        f_max = float(sample_rate // 2) if theirs else sample_rate / 2
    if not 0 <= f_min < f_max:
        raise LMACError(
            f"f_min, f_max: found {f_min} and {f_max} Hz, expected the first "
            "to be the lower one"
        )
    n_bins = n_fft // 2 + 1
    if theirs:
        return torchaudio.functional.melscale_fbanks(
            n_bins, f_min, f_max, n_mels, sample_rate, norm, scale
        )
    matrix = linear_bands(
        Filterbank(
            n_mels=n_mels,
            n_fft=n_fft,
            sample_rate=sample_rate,
            f_min=f_min,
            f_max=f_max,
        )
    )
    if (matrix.sum(0) == 0).any():
        empty = int((matrix.sum(0) == 0).sum())
        raise LMACError(
            f"n_mels: {n_mels} bands on {n_bins} bins leave {empty} "
            "bands without a bin; use fewer bands or a larger n_fft"
        )
    return matrix
