"""Preprocessing of audio: one way for training and inference.

A file becomes a mono signal at the wanted rate, cut or padded where that is
asked for, with a peak of one. Whatever cannot be used is named in an error.
"""

import os

import numpy as np
import torch

from lmac_sb.data.decode import decode_audio
from lmac_sb.data.rates import resample
from lmac_sb.utils.errors import LMACError, is_number, kind_of, shown

__all__ = [
    "MIN_LENGTH_S",
    "ROUNDING",
    "SILENT_DB",
    "VERSION",
    "Preprocessor",
    "as_signal",
    "fit_length",
    "is_silent",
    "keep_silence",
    "normalize_peak",
    "read_audio",
    "scalar",
]

# Of the samples and gains that a `Preprocessor` makes. Raise it with every
# change that changes one of them, by however little, here or where files are
# decoded and resampled: audio caches then make their clips again.
# `test_samples_are_those_of_the_version` notices.
VERSION = 3
ROUNDING = 2.0**-15  # one step of 16 bits, below which there is no sound
# A sound whose largest swing is not above this is silent: one step of 16 bits
# up and down. That of `lmac_sb.metrics.verdict`, which data cannot import.
SILENT_DB = -90.0
MIN_LENGTH_S = 0.1  # shorter clips have too few frames to explain


def read_audio(path, sample_rate):
    """Read a file as a mono signal at the wanted rate.

    Arguments
    ---------
    path : str or path
        The audio file.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    torch.Tensor
        The signal, float32, [samples].

    Raises
    ------
    LMACError
        See `decode_audio`.

    Example
    -------
    >>> import soundfile as sf
    >>> path = getfixture("tmp_path") / "x.wav"
    >>> sf.write(path, torch.full((8000, 2), 0.5).numpy(), 8000)
    >>> read_audio(path, 16000).shape
    torch.Size([16000])
    """
    wav, found_rate = decode_audio(path)
    found = resample(wav, found_rate, sample_rate, os.fspath(path))
    return keep_silence(wav, found)


def as_signal(sound, found_rate, sample_rate):
    """A sound in memory as a mono signal at the wanted rate.

    Arguments
    ---------
    sound : torch.Tensor or numpy.ndarray
        [samples], [channels, samples] or [samples, channels]: the longer axis
        is time. Whole numbers are taken as PCM samples of their type.
    found_rate : int
        Its rate in Hz.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    torch.Tensor
        The signal, float32, on the CPU, [samples].

    Raises
    ------
    LMACError
        If it is no sound: other axes, empty, too short, or not finite.

    Example
    -------
    >>> stereo = torch.ones(16000, 2, dtype=torch.int16)
    >>> as_signal(stereo, 16000, 8000).shape
    torch.Size([8000])
    """
    if isinstance(sound, (bytes, bytearray, memoryview)):
        raise LMACError(
            f"sound: found {len(sound)} bytes, expected a path, or an array or "
            "a tensor of samples"
        )
    if isinstance(sound, np.ndarray):
        # As torch takes it: forward, in the machine's bytes, to be written.
        kind = sound.dtype.newbyteorder("=")
        kind = np.float64 if kind == np.longdouble else kind
        sound = np.require(sound, kind, ("C", "W"))
    try:
        wav = torch.as_tensor(sound).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise LMACError(
            f"sound: found {kind_of(sound)}, expected a path, an "
            "array or a tensor of samples"
        ) from error
    if wav.is_meta or wav.layout != torch.strided:
        raise LMACError(
            f"sound: found a tensor of {wav.layout} on {wav.device}, expected "
            "a dense one that holds samples"
        )
    wav = wav.cpu()
    if wav.dim() == 3 and len(wav) == 1:
        wav = wav[0]
    if wav.dim() not in (1, 2) or wav.numel() == 0 or wav.is_complex():
        raise LMACError(
            f"sound: found shape {list(wav.shape)} of {wav.dtype}, expected "
            "[samples] or [channels, samples], not empty"
        )
    if not wav.is_floating_point():
        wav = _from_whole(wav)
    wav = wav.float()
    if wav.dim() == 2:
        wav = wav.mean(0 if wav.shape[0] <= wav.shape[1] else 1)
    if not wav.isfinite().all():
        raise LMACError("sound: holds NaN or infinite values")
    found_rate = _check_rate(found_rate)
    seconds = len(wav) / found_rate
    if seconds < MIN_LENGTH_S:
        raise LMACError(
            f"sound: {seconds:.4f} s long, expected at least {MIN_LENGTH_S} s"
        )
    return keep_silence(wav, resample(wav, found_rate, sample_rate, "sound"))


def _from_whole(wav):
    """Samples that are whole numbers as floating point from -1 to 1."""
    if wav.dtype == torch.bool:
        raise LMACError("sound: found truth values, expected samples")
    info = torch.iinfo(wav.dtype)
    peak = wav.double().abs().max()
    why = None
    if info.bits == 64:  # as lists of numbers are, whatever they were
        why = "in which nobody keeps samples"
    elif info.bits == 32 and 0 < peak < 1 << 16:  # a step of 16 bits
        why = "which would be silence"
    if why is not None:
        raise LMACError(
            f"sound: found whole numbers of {info.bits} bits, up to "
            f"{peak:.0f}, {why}; expected samples that use the range of "
            "their type, such as sound.astype('int16'), or floating point "
            "from -1 to 1"
        )
    middle = 0 if info.min < 0 else (info.max + 1) / 2
    return (wav.double() - middle) / (info.max + 1 - middle)


def normalize_peak(wav):
    """Scale a signal to a largest absolute value of one.

    The absolute value matters: a signal and its inverse get the same level.
    Silence has no level and stays as it is; rounding at full scale would be
    noise.

    Arguments
    ---------
    wav : torch.Tensor
        Signal, [samples].

    Returns
    -------
    wav : torch.Tensor
        The scaled signal, [samples].
    gain : float
        What it was multiplied by; 1 for silence.

    Example
    -------
    >>> normalize_peak(torch.tensor([0.25, -0.5]))
    (tensor([ 0.5000, -1.0000]), 2.0)
    >>> normalize_peak(torch.tensor([1e-5, -1e-5]))
    (tensor([ 1.0000e-05, -1.0000e-05]), 1.0)
    """
    peak = wav.abs().max()
    if peak <= ROUNDING:
        return wav, 1.0
    return wav / peak, 1 / peak.item()


def is_silent(wav):
    """Whether there is no sound in a signal at its own level.

    The one test for data preparation, training and explanation. A constant
    offset is no sound, so it does not count.

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
    >>> is_silent(torch.full((3,), 0.5))
    True
    """
    swing = torch.tensor(float(wav.max()) - float(wav.min()))
    return bool(20 * swing.div(2).log10() <= SILENT_DB)


def keep_silence(wav, resampled):
    """What a resampler makes of a sound; of silence, a constant.

    To the filter, a constant offset is a step at both ends, around which it
    rings: that would be heard.

    Arguments
    ---------
    wav : torch.Tensor
        The whole sound as it was, [samples].
    resampled : torch.Tensor
        The same at another rate, which may be changed, or at its own.

    Returns
    -------
    torch.Tensor
        [samples].

    Example
    -------
    >>> keep_silence(torch.full((3,), 0.5), torch.tensor([0.4, 0.6]))
    tensor([0.5000, 0.5000])
    """
    if resampled is wav or not is_silent(wav):
        return resampled
    return resampled.fill_((float(wav.max()) + float(wav.min())) / 2)


def scalar(value):
    """A number out of the array or tensor of no axes that holds it.

    Arguments
    ---------
    value : object
        Data sets that give tensors have rates as such.

    Returns
    -------
    object
        Anything else as it is.

    Example
    -------
    >>> scalar(torch.tensor(16000)), scalar(16000)
    (16000, 16000)
    """
    is_array = isinstance(value, (np.ndarray, torch.Tensor))
    return value.item() if is_array and value.ndim == 0 else value


def fit_length(wav, n_samples):
    """Cut signals at the end, or pad them with zeros there.

    Arguments
    ---------
    wav : torch.Tensor
        Signals, [..., samples].
    n_samples : int
        Wanted number of samples.

    Returns
    -------
    torch.Tensor
        Signals, [..., n_samples].

    Example
    -------
    >>> fit_length(torch.ones(3), 5)
    tensor([1., 1., 1., 0., 0.])
    >>> fit_length(torch.ones(3), 2)
    tensor([1., 1.])
    """
    missing = n_samples - wav.shape[-1]
    if missing <= 0:
        return wav[..., :n_samples]
    return torch.nn.functional.pad(wav, (0, missing))


class Preprocessor:
    """From a file, or a signal in memory, to what the classifier is given.

    Mono, at one rate, cut or padded to one length if there is one, with a
    peak of one unless a classifier wants a sound at its own level. Training,
    evaluation and inference all use this object.

    Arguments
    ---------
    sample_rate : int
        Rate of the result in Hz.
    signal_length_s : float or None
        Length of the result in seconds; None keeps every clip's own length.
    normalize : bool
        Whether the peak is brought to one.

    Raises
    ------
    LMACError
        When a setting or a signal cannot be used.

    Example
    -------
    >>> preprocess = Preprocessor(16000, signal_length_s=0.5)
    >>> preprocess.n_samples
    8000
    >>> wav, gain = preprocess.process(torch.full((2, 16000), 0.25), 16000)
    >>> wav.shape, gain
    (torch.Size([8000]), 4.0)
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, sample_rate, signal_length_s=None, normalize=True):
        self.sample_rate = _check_rate(sample_rate)
        if signal_length_s is not None and not (
            is_number(signal_length_s)
            and MIN_LENGTH_S <= signal_length_s < float("inf")
        ):
            raise LMACError(
                f"signal_length_s: found {shown(signal_length_s)}, expected "
                f"null or a number of seconds, at least {MIN_LENGTH_S}"
            )
        self.signal_length_s = signal_length_s
        self.normalize = normalize

    @property
    def n_samples(self):
        """Samples of every result; None when clips keep their own length."""
        if self.signal_length_s is None:
            return None
        return round(self.signal_length_s * self.sample_rate)

    def __call__(self, path):
        """Read and preprocess a file.

        Arguments
        ---------
        path : str or path
            The audio file.

        Returns
        -------
        wav : torch.Tensor
            The signal, float32, [samples].
        gain : float
            What the samples were multiplied by: `wav / gain` is at the
            file's own level. It is 1 for silence, which has no level.
        """
        wav, found_rate = decode_audio(path)
        return self._finish(wav, found_rate, os.fspath(path))

    def process(self, wav, sample_rate):
        """Preprocess a signal in memory, by the same steps as a file.

        Arguments
        ---------
        wav : torch.Tensor
            Signal, [samples] or [channels, samples].
        sample_rate : int
            Its rate in Hz.

        Returns
        -------
        wav : torch.Tensor
            The signal, float32, [samples].
        gain : float
            As of a file.
        """
        if wav.dim() not in (1, 2) or wav.numel() == 0:
            raise LMACError(
                f"signal: found shape {list(wav.shape)}, expected [samples] or "
                "[channels, samples], not empty"
            )
        wav = wav.float()
        if wav.dim() == 2:
            wav = wav.mean(dim=0)
        if not torch.isfinite(wav).all():
            raise LMACError("signal: holds NaN or infinite values")
        return self._finish(wav, _check_rate(sample_rate), "signal")

    def _finish(self, wav, found_rate, name):
        """The steps after decoding, and the gain; `name` is for messages."""
        seconds = len(wav) / found_rate
        if seconds < MIN_LENGTH_S:
            raise LMACError(
                f"{name}: {seconds:.4f} s long, expected at least "
                f"{MIN_LENGTH_S} s"
            )
        found = resample(wav, found_rate, self.sample_rate, name)
        if not torch.isfinite(found).all():
            raise LMACError(f"{name}: holds values too large to resample")
        wav = keep_silence(wav, found)
        if self.n_samples is not None:
            wav = fit_length(wav, self.n_samples)
        return normalize_peak(wav) if self.normalize else (wav, 1.0)


def _check_rate(sample_rate):
    """Return the rate as an int, or say that it is none."""
    sample_rate = scalar(sample_rate)
    if (
        not is_number(sample_rate)
        or sample_rate != sample_rate // 1
        or sample_rate < 1
    ):
        raise LMACError(
            f"sample_rate: found {shown(sample_rate)}, expected a whole number "
            "of Hz"
        )
    return int(sample_rate)
