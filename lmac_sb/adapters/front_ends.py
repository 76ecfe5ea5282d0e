"""Other people's front ends: from waveforms to what their model reads."""

import math

import torch
import torch.nn.functional as F
import torchaudio.compliance.kaldi
import torchaudio.transforms as T
from speechbrain.lobes import features as speechbrain_lobes
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    InputNormalization,
    spectral_magnitude,
)

from lmac_sb.models.features import (
    FixedNormalization,
    LogForm,
    SpectralFeatures,
    linear_bands,
)
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["KaldiFbank", "fast_path", "per_clip", "preemphasise"]

_RATE = 16000  # of a front end that does not say it, as torchaudio's default
# Far below what any front end tells from silence, and still above zero.
_EPS = 1e-30


def fast_path(front_end, sample_rate=None):
    """Read a front end that is an STFT and what follows it.

    A mask can then be put on its own spectrogram, without an inverse STFT:
    ``layout(features.mel(features.magnitude(features.stft(wavs))))`` is what
    the front end gives for each clip alone. Recognised are, from torchaudio,
    `Spectrogram`, `MelScale`, `MelSpectrogram`, `AmplitudeToDB` and `MFCC`;
    from SpeechBrain `Fbank`, `MFCC`, `STFT`, `spectral_magnitude` and
    `Filterbank`; in a `torch.nn.Sequential`, or in a list or tuple, in the
    order in which they are called. What follows there, such as
    SpeechBrain's `InputNormalization`, the owner's own modules or functions,
    and the model itself if it is in there, becomes part of `layout`.

    Arguments
    ---------
    front_end : torch.nn.Module, list or tuple
        From waveforms [batch, samples].
    sample_rate : int
        Rate in Hz of the waveforms; by default the front end's own, and 16000
        if it has none.

    Returns
    -------
    features : lmac_sb.models.features.SpectralFeatures
        The part up to the levels of the bands.
    layout : torch.nn.Module
        From these, [batch, time, bands], to what the front end gives. None
        is returned instead of both if the front end begins with something
        else: its own class, a resampler, a complex spectrogram.

    Example
    -------
    >>> front_end = torch.nn.Sequential(
    ...     T.MelSpectrogram(n_fft=512, n_mels=40), T.AmplitudeToDB(top_db=80)
    ... )
    >>> features, layout = fast_path(front_end)
    >>> wavs = torch.rand(1, 16000)
    >>> levels = features.mel(features.magnitude(features.stft(wavs)))
    >>> torch.allclose(layout(levels), front_end(wavs), atol=1e-4)
    True
    >>> fast_path(torch.nn.Linear(4, 2)) is None
    True
    """
    parts = _parts(front_end)
    torchaudios = _is(parts, T.Spectrogram)
    settings = _read_stft(parts)
    if settings is None:
        return None
    settings.update(_read_bands(parts, torchaudios))
    settings["log"] = _read_log(parts)
    rate = sample_rate or _rate_of(front_end) or _RATE
    features = SpectralFeatures(rate, eps=_EPS, **settings)
    steps = [_SwapAxes()] if torchaudios else []
    steps += [_step(part) for part in parts]
    layout = torch.nn.Sequential(*steps)
    return features.to(settings["window"].device), layout


def per_clip(front_end):
    """A front end whose output for a clip does not depend on other clips.

    torchaudio's `AmplitudeToDB` with `top_db` takes one maximum for all clips
    of a batch, and SpeechBrain's `InputNormalization` one mean. The owner who
    calls them with one clip means that of this clip.

    Arguments
    ---------
    front_end : torch.nn.Module, callable, list or tuple
        A list or tuple of them is called one after the other.

    Returns
    -------
    torch.nn.Module
        From waveforms [batch, samples] to what it gives for each of them.

    Example
    -------
    >>> decibel = T.AmplitudeToDB(top_db=40)
    >>> wavs = torch.rand(2, 16000) * torch.tensor([[1.0], [0.001]])
    >>> together = per_clip([T.MelSpectrogram(n_mels=40), decibel])(wavs)
    >>> alone = decibel(T.MelSpectrogram(n_mels=40)(wavs[1:]))
    >>> torch.allclose(together[1:], alone, atol=1e-4)
    True
    """
    return torch.nn.Sequential(*map(_step, _parts(front_end)))


class KaldiFbank(torch.nn.Module):
    """Kaldi's filterbank for batches, with gradients.

    The same as ``torchaudio.compliance.kaldi.fbank`` for each clip, which
    takes one at a time, and its options, except for noise (`dither`).

    Arguments
    ---------
    sample_frequency : float
        Sampling rate in Hz.
    frame_length, frame_shift : float
        Window and hop length in ms.
    num_mel_bins : int
        Number of mel bands, at least 4.
    low_freq, high_freq : float
        Range of the bands in Hz; zero and less for the second count from half
        the sampling rate.
    window_type : str
        ``povey``, ``hanning``, ``hamming``, ``rectangular`` or ``blackman``.
    blackman_coeff : float
        Of the last one.
    preemphasis_coefficient : float
        What of the sample before is subtracted.
    remove_dc_offset : bool
        Whether the mean of a frame is subtracted.
    round_to_power_of_two : bool
        Whether the FFT has a power of two samples.
    snip_edges : bool
        Whether only whole frames are taken; otherwise the ends are reflected.
    use_power, use_log_fbank : bool
        Whether the spectrum is squared, and the bands are logarithms.
    use_energy, htk_compat : bool
        Whether the frame's log energy is added as first band, or last.
    raw_energy : bool
        Whether it is that before pre-emphasis and window.
    energy_floor : float
        Least energy.
    subtract_mean : bool
        Whether the mean of each band over the clip is subtracted.
    vtln_low, vtln_high, vtln_warp : float
        Warping of the bands for a vocal tract's length.
    dither : float
        0: noise would give another explanation each time.

    Raises
    ------
    LMACError
        If an option has no such value.

    Example
    -------
    >>> fbank = KaldiFbank(num_mel_bins=80, window_type="hanning")
    >>> fbank(torch.rand(2, 16000)).shape
    torch.Size([2, 98, 80])
    """

    def __init__(
        self,
        sample_frequency=16000.0,
        frame_length=25.0,
        frame_shift=10.0,
        num_mel_bins=23,
        low_freq=20.0,
        high_freq=0.0,
        window_type="povey",
        blackman_coeff=0.42,
        preemphasis_coefficient=0.97,
        remove_dc_offset=True,
        round_to_power_of_two=True,
        snip_edges=True,
        use_power=True,
        use_log_fbank=True,
        use_energy=False,
        htk_compat=False,
        raw_energy=True,
        energy_floor=1.0,
        subtract_mean=False,
        vtln_low=100.0,
        vtln_high=-500.0,
        vtln_warp=1.0,
        dither=0.0,
    ):
        super().__init__()
        if dither:
            raise LMACError(
                f"dither: found {dither}, expected 0 (with noise each "
                "explanation would be another one)"
            )
        self.length, self.hop, self.n_fft = _kaldi_frame(
            sample_frequency, frame_length, frame_shift, round_to_power_of_two
        )
        self.sample_rate = sample_frequency
        self.preemphasis = preemphasis_coefficient
        self.remove_dc_offset, self.snip_edges = remove_dc_offset, snip_edges
        self.use_power, self.use_log_fbank = use_power, use_log_fbank
        self.use_energy, self.htk_compat = use_energy, htk_compat
        self.raw_energy, self.energy_floor = raw_energy, energy_floor
        self.subtract_mean = subtract_mean
        window = _kaldi_window(window_type, self.length, blackman_coeff)
        self.register_buffer("window", window, persistent=False)
        limits = low_freq, high_freq, vtln_low, vtln_high, vtln_warp
        bands = _kaldi_bands(num_mel_bins, self.n_fft, sample_frequency, limits)
        self.register_buffer("bands", bands, persistent=False)

    def forward(self, wavs):
        """Features of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples], at least one window long.

        Returns
        -------
        torch.Tensor
            [batch, time, num_mel_bins], with the energy one more.

        Raises
        ------
        LMACError
            If they are shorter than a window.
        """
        frames = self._frames(wavs)
        if self.remove_dc_offset:
            frames = frames - frames.mean(2, keepdim=True)
        energy = self._log_energy(frames) if self.raw_energy else None
        if self.preemphasis:
            frames = preemphasise(frames, self.preemphasis)
        frames = frames * self.window
        if energy is None:
            energy = self._log_energy(frames)
        spectrum = torch.fft.rfft(frames, self.n_fft)
        if self.use_power:
            spectrum = spectrum.real.square() + spectrum.imag.square()
        else:
            spectrum = spectrum.abs()
        levels = spectrum @ self.bands
        if self.use_log_fbank:
            levels = levels.clamp(min=torch.finfo(torch.float).eps).log()
        if self.use_energy:
            both = [levels, energy] if self.htk_compat else [energy, levels]
            levels = torch.cat(both, 2)
        if self.subtract_mean:
            levels = levels - levels.mean(1, keepdim=True)
        return levels

    def _frames(self, wavs):
        """Frames [batch, time, samples] of waveforms [batch, samples]."""
        n_samples = wavs.shape[1]
        if n_samples < self.length:
            raise LMACError(
                f"waveform: found {n_samples} samples, expected at least "
                f"{self.length}, a window of Kaldi's"
            )
        if self.snip_edges:
            return wavs.unfold(1, self.length, self.hop)
        # Reflected with the first and the last sample twice.
        left = self.length // 2 - self.hop // 2
        back = wavs.flip(1)
        if left > 0:
            padded = torch.cat([back[:, -left:], wavs, back], 1)
        else:
            padded = torch.cat([wavs[:, -left:], back], 1)
        n_frames = (n_samples + self.hop // 2) // self.hop
        return padded.unfold(1, self.length, self.hop)[:, :n_frames]

    def _log_energy(self, frames):
        """Of frames [batch, time, samples], [batch, time, 1]."""
        energy = frames.square().sum(2, keepdim=True)
        energy = energy.clamp(min=torch.finfo(torch.float).eps).log()
        if self.energy_floor == 0:
            return energy
        return energy.clamp(min=math.log(self.energy_floor))


def preemphasise(frames, amount):
    """Kaldi's pre-emphasis.

    Arguments
    ---------
    frames : torch.Tensor
        [batch, time, samples].
    amount : float
        What of the sample before is subtracted; the first sample of a frame
        is its own predecessor.

    Returns
    -------
    torch.Tensor
        [batch, time, samples].

    Example
    -------
    >>> preemphasise(torch.tensor([[[2.0, 3.0]]]), 0.5)
    tensor([[[1., 2.]]])
    """
    before = torch.cat([frames[..., :1], frames[..., :-1]], 2)
    return frames - amount * before


def _kaldi_frame(rate, length, shift, power_of_two):
    """Samples of window, hop and FFT, from window and hop in ms."""
    # Cut off, not rounded, as Kaldi does.
    window = int(rate * length * 0.001)
    hop = int(rate * shift * 0.001)
    if window < 2 or hop < 1:
        raise LMACError(
            f"frame_length, frame_shift: found {window} and {hop} samples, "
            "expected at least 2 and 1"
        )
    n_fft = 2 ** (window - 1).bit_length() if power_of_two else window
    if n_fft % 2:
        raise LMACError(
            f"frame_length: found {window} samples, expected an even number, "
            "or round_to_power_of_two"
        )
    return window, hop, n_fft


def _kaldi_bands(n_mels, n_fft, rate, limits):
    """Kaldi's filterbank [freq, bands]; lowest, highest and warping limits."""
    try:
        bands, _ = torchaudio.compliance.kaldi.get_mel_banks(
            n_mels, n_fft, rate, *limits
        )
    except AssertionError as error:
        raise LMACError(f"KaldiFbank: {error}") from error
    # Half the sampling rate is in no band.
    return F.pad(bands, (0, 1)).T


def _kaldi_window(kind, length, blackman_coeff):
    """One of Kaldi's symmetric windows."""
    if kind == "hanning":
        return torch.hann_window(length, periodic=False)
    if kind == "povey":
        return torch.hann_window(length, periodic=False) ** 0.85
    if kind == "hamming":
        return torch.hamming_window(length, periodic=False)
    if kind == "rectangular":
        return torch.ones(length)
    if kind == "blackman":
        angle = 2 * math.pi / (length - 1) * torch.arange(length)
        second = (0.5 - blackman_coeff) * torch.cos(2 * angle)
        return blackman_coeff - 0.5 * torch.cos(angle) + second
    raise LMACError(
        f"window_type: found {shown(kind)}, expected povey, hanning, hamming, "
        "rectangular or blackman"
    )


def _parts(front_end):
    """What a front end calls one after the other, as far as it is known."""
    kind = type(front_end)
    if kind in (list, tuple):
        inner = list(front_end)
    elif _is_changed(front_end):
        return [front_end]
    elif kind is torch.nn.Sequential:
        inner = list(front_end)
    elif kind is _Call:  # of `per_clip`
        return [front_end.function]
    elif kind is _EachClip and type(front_end.module) is T.AmplitudeToDB:
        return _parts(front_end.module)
    elif kind is T.MelSpectrogram:
        inner = [front_end.spectrogram, front_end.mel_scale]
    elif kind is T.MFCC:
        log = front_end.amplitude_to_DB
        if front_end.log_mels:
            log = LogForm("log", offset=1e-6)
        matrix = front_end.dct_mat
        inner = [front_end.MelSpectrogram, log, _MatrixOnBands(matrix)]
    elif kind in (speechbrain_lobes.Fbank, speechbrain_lobes.MFCC):
        inner = _speechbrain_parts(front_end)
    else:
        return [front_end]
    return [part for x in inner for part in _parts(x)]


def _speechbrain_parts(lobe):
    """What SpeechBrain's `Fbank` or `MFCC` calls one after the other."""
    parts = [lobe.compute_STFT, spectral_magnitude, lobe.compute_fbanks]
    if isinstance(lobe, speechbrain_lobes.MFCC):
        parts.append(lobe.compute_dct)
    if lobe.deltas:
        parts.append(_WithDeltas(lobe.compute_deltas))
    if lobe.context:
        parts.append(lobe.context_window)
    return parts


def _is_changed(part):
    """Whether a module may do more than its class says."""
    return isinstance(part, torch.nn.Module) and bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or "forward" in vars(part)
    )


def _is(parts, kind):
    """Whether the first part is of this class, and does what that says."""
    return bool(parts) and type(parts[0]) is kind and not _is_changed(parts[0])


def _read_stft(parts):
    """Settings of the STFT that comes first, None if there is none.

    It, and what takes the magnitude, are taken from the parts.
    """
    if _is(parts, T.Spectrogram):
        stft = parts[0]
        if not (stft.onesided and stft.power):
            return None
        del parts[0]
        return {
            "hop_samples": stft.hop_length,
            "pad": stft.pad,
            "power": stft.power,
            "scale": _torchaudio_scale(stft),
            **_frame(stft),
        }
    if not _is(parts, STFT) or len(parts) < 2 or not parts[0].onesided:
        return None
    stft = parts[0]
    if parts[1] is not spectral_magnitude:
        return None
    del parts[:2]
    return {
        "hop_samples": stft.hop_length,
        "power": 2,
        "scale": stft.n_fft**-0.5 if stft.normalized_stft else 1,
        **_frame(stft),
    }


def _frame(stft):
    """Settings that torchaudio and SpeechBrain call by the same names."""
    return {
        "n_fft": stft.n_fft,
        "win_samples": stft.win_length,
        "window": stft.window,
        "center": stft.center,
        "pad_mode": stft.pad_mode,
    }


def _torchaudio_scale(stft):
    """Factor of the magnitude by torchaudio's `normalized`."""
    if stft.normalized == "frame_length":
        return stft.n_fft**-0.5
    if stft.normalized:
        return float(stft.window.square().sum()) ** -0.5
    return 1


def _read_bands(parts, torchaudios):
    """Settings of the filterbank, if one comes first; it is taken away."""
    if torchaudios and _is(parts, T.MelScale):
        return {"fbank_matrix": parts.pop(0).fb.detach().clone()}
    if not torchaudios and _is(parts, Filterbank):
        bank = parts.pop(0)
        if bank.log_mel:
            parts[:0] = _speechbrain_log(bank)
        return {"fbank_matrix": linear_bands(bank)}
    return {"n_mels": None}


def _speechbrain_log(bank):
    """The logarithm of a filterbank, and its reference unless it is 1."""
    log = LogForm(
        "dB", floor=bank.amin, gain=bank.multiplier, top_db=bank.top_db
    )
    shift = bank.multiplier * bank.db_multiplier
    return [log, lambda levels: levels - shift] if shift else [log]


def _read_log(parts):
    """The logarithm that comes first, if one does; it is taken away."""
    if _is(parts, LogForm):
        return parts.pop(0)
    if _is(parts, T.AmplitudeToDB) and not parts[0].db_multiplier:
        log = parts.pop(0)
        return LogForm(
            "dB", floor=log.amin, gain=log.multiplier, top_db=log.top_db
        )
    return LogForm("none")


def _rate_of(front_end):
    """Sampling rate that one of its parts says, or None."""
    if isinstance(front_end, (list, tuple, torch.nn.Sequential)):
        rates = map(_rate_of, front_end)
        return next((rate for rate in rates if rate), None)
    front_end = getattr(front_end, "compute_STFT", front_end)
    return getattr(front_end, "sample_rate", None)


def _step(part):
    """A part as a module that treats each clip alone."""
    if isinstance(part, InputNormalization):
        whole = FixedNormalization(part)
        return _EachClip(whole) if part.norm_type == "batch" else whole
    if isinstance(part, T.AmplitudeToDB) and part.top_db is not None:
        return _EachClip(part)
    if isinstance(part, torch.nn.Module):
        return part
    if isinstance(part, type):
        raise LMACError(
            f"front_end: found the class {part.__name__} in it, expected an "
            f"object of it: {part.__name__}(...)"
        )
    if callable(part):
        return _Call(part)
    raise LMACError(
        f"front_end: found {shown(str(part))} in it, expected modules and "
        "functions"
    )


class _SwapAxes(torch.nn.Module):
    """[batch, time, bands] as torchaudio's [batch, bands, time]."""

    def forward(self, x):
        """Swap them."""
        return x.transpose(1, 2)


class _MatrixOnBands(torch.nn.Module):
    """Product of a matrix with the bands of [..., bands, time]."""

    def __init__(self, matrix):
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, x):
        """[..., columns of the matrix, time]."""
        return (x.transpose(-1, -2) @ self.matrix).transpose(-1, -2)


class _WithDeltas(torch.nn.Module):
    """Features, and behind them their first and second differences."""

    def __init__(self, deltas):
        super().__init__()
        self.deltas = deltas

    def forward(self, x):
        """[batch, time, three times the bands]."""
        first = self.deltas(x)
        return torch.cat([x, first, self.deltas(first)], 2)


class _EachClip(torch.nn.Module):
    """A module that is called with one clip at a time."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        """The same as for each clip alone."""
        return torch.cat([self.module(clip) for clip in x.split(1)])


class _Call(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        """What the function gives."""
        return self.function(x)
