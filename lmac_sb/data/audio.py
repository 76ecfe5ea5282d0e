"""Reading and preprocessing of audio: one way for training and inference.

A file becomes a mono signal at the wanted rate, cut or padded where that is
asked for, with a peak of one. Whatever cannot be used is named in an error.
"""

import functools
import math
import os
import struct

import numpy as np
import soundfile as sf
import torch
import torchaudio

from lmac_sb.utils.errors import LMACError

__all__ = [
    "MIN_LENGTH_S",
    "VERSION",
    "Preprocessor",
    "as_signal",
    "decode_audio",
    "decode_blocks",
    "fit_length",
    "is_truncated",
    "normalize_peak",
    "read_audio",
    "resample",
]

# Of the samples and gains that a `Preprocessor` makes. Raise it with every
# change here that changes one of them, by however little: audio caches then
# make their clips again. `test_samples_are_those_of_the_version` notices.
VERSION = 1
MIN_LENGTH_S = 0.1  # shorter clips have too few frames to explain
_BLOCK = 1 << 20  # values decoded at a time
_LONGEST = 1 << 29  # samples held at once; a small file can hold more silence
_MOST_TAPS = 1 << 24  # of a resampling filter
_MOST_UP = 64  # times the found rate
_OGG_PAGE_MAX = 65307  # bytes of the longest possible Ogg page
_WAV_UNKNOWN = 0x7FFFF000  # from here on a size stands for "was a stream"


def decode_audio(path):
    """Decode a whole file and mix it down to one channel.

    Arguments
    ---------
    path : str or path
        A file in a format of libsndfile (wav, flac, ogg, ...).

    Returns
    -------
    wav : torch.Tensor
        Mean of the channels, float32, [samples].
    sample_rate : int
        The file's own rate in Hz.

    Raises
    ------
    LMACError
        When the file is missing, a directory, not audio, truncated, empty,
        longer than memory should hold, or holds NaN or infinite values.

    Example
    -------
    >>> decode_audio("nowhere.wav")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere.wav: no such audio file
    """
    blocks, n_samples = [], 0
    for block in decode_blocks(path):
        blocks.append(block)
        n_samples += len(block[0])
        if n_samples > _LONGEST:
            raise LMACError(
                f"{path}: holds more than {_LONGEST} samples, cut it into "
                "shorter files"
            )
    wav = np.concatenate([block for block, _ in blocks])
    return torch.from_numpy(wav), blocks[0][1]


def decode_blocks(path):
    """Decode a file block by block; faults are reported at its end.

    Arguments
    ---------
    path : str or path
        A file in a format of libsndfile (wav, flac, ogg, ...).

    Yields
    ------
    block : np.ndarray
        Mean of the channels, float32, [samples].
    sample_rate : int
        The file's own rate in Hz.

    Returns
    -------
    generator

    Raises
    ------
    LMACError
        See `decode_audio`.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise LMACError(f"{path}: is a folder, expected an audio file")
    if not os.path.isfile(path):
        raise LMACError(f"{path}: no such audio file")
    n_samples, finite = 0, True
    try:
        with sf.SoundFile(path) as file:
            promised = file.frames
            # In blocks, as a broken header may promise terabytes.
            size = max(1, _BLOCK // file.channels)
            length = size
            while length == size:
                block = file.read(size, dtype="float32", always_2d=True)
                length = len(block)
                mono = block.mean(axis=1)
                n_samples += length
                finite = finite and bool(np.isfinite(mono).all())
                yield mono, file.samplerate
        truncated = is_truncated(path)
    except (OSError, RuntimeError) as error:
        raise LMACError(
            f"{path}: cannot be read as audio, or is truncated ({error})"
        ) from error
    if n_samples < promised or truncated:
        raise LMACError(
            f"{path}: truncated, only {n_samples} samples could be decoded, "
            "fewer than the file promises"
        )
    if n_samples == 0:
        raise LMACError(f"{path}: holds no samples")
    if not finite:
        raise LMACError(f"{path}: holds NaN or infinite values")


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
    >>> import os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = os.path.join(folder.name, "x.wav")
    >>> sf.write(path, np.full((8000, 2), 0.5), 8000)
    >>> read_audio(path, 16000).shape
    torch.Size([16000])
    >>> folder.cleanup()
    """
    wav, found_rate = decode_audio(path)
    return resample(wav, found_rate, sample_rate, os.fspath(path))


def resample(wav, found_rate, sample_rate, name="signal"):
    """Bring a signal from one rate to another.

    Arguments
    ---------
    wav : torch.Tensor
        Signal, [..., samples].
    found_rate : int
        Its rate in Hz.
    sample_rate : int
        Wanted rate in Hz.
    name : str
        Where the signal comes from, for the message.

    Returns
    -------
    torch.Tensor
        Signal, [..., samples]; untouched when the rates are equal.

    Raises
    ------
    LMACError
        When the rates are so odd that the filter, or the result, would fill
        the memory.

    Example
    -------
    >>> resample(torch.zeros(44100), 44100, 16000).shape
    torch.Size([16000])
    """
    if found_rate == sample_rate:
        return wav
    common = math.gcd(found_rate, sample_rate)
    taps = found_rate // common * (sample_rate // common)
    if taps > _MOST_TAPS or sample_rate > _MOST_UP * found_rate:
        raise LMACError(
            f"{name}: cannot be brought from {found_rate} Hz to {sample_rate} "
            "Hz; expected a usual rate, such as 16000, 44100 or 48000 Hz"
        )
    return _resampler(found_rate, sample_rate, str(wav.device))(wav)


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
    try:
        wav = torch.as_tensor(sound).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise LMACError(
            f"sound: found a {type(sound).__name__}, expected a path, an "
            "array or a tensor of samples"
        ) from error
    if wav.dim() == 3 and len(wav) == 1:
        wav = wav[0]
    if wav.dim() not in (1, 2) or wav.numel() == 0 or wav.is_complex():
        raise LMACError(
            f"sound: found shape {list(wav.shape)} of {wav.dtype}, expected "
            "[samples] or [channels, samples], not empty"
        )
    if not wav.is_floating_point():
        if wav.dtype == torch.bool:
            raise LMACError("sound: found truth values, expected samples")
        info = torch.iinfo(wav.dtype)
        middle = 0 if info.min < 0 else (info.max + 1) / 2
        wav = (wav.double() - middle) / (info.max + 1 - middle)
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
    return resample(wav, found_rate, sample_rate, "sound")


def normalize_peak(wav, eps=1e-8):
    """Scale a signal to a largest absolute value of one.

    The absolute value matters: a signal and its inverse get the same level.

    Arguments
    ---------
    wav : torch.Tensor
        Signal, [samples].
    eps : float
        The least peak to divide by, so that silence stays silence.

    Returns
    -------
    wav : torch.Tensor
        The scaled signal, [samples].
    gain : float
        What it was multiplied by; 1 for silence, which has no level.

    Example
    -------
    >>> normalize_peak(torch.tensor([0.25, -0.5]))
    (tensor([ 0.5000, -1.0000]), 2.0)
    >>> normalize_peak(torch.zeros(2))
    (tensor([0., 0.]), 1.0)
    """
    peak = wav.abs().max()
    gain = 1 / max(peak.item(), eps) if peak > 0 else 1.0
    return wav / peak.clamp_min(eps), gain


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
            _is_number(signal_length_s)
            and MIN_LENGTH_S <= signal_length_s < float("inf")
        ):
            raise LMACError(
                f"signal_length_s: found {signal_length_s!r}, expected null or "
                f"a number of seconds, at least {MIN_LENGTH_S}"
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
        wav = resample(wav, found_rate, self.sample_rate, name)
        if not torch.isfinite(wav).all():
            raise LMACError(f"{name}: holds values too large to resample")
        if self.n_samples is not None:
            wav = fit_length(wav, self.n_samples)
        return normalize_peak(wav) if self.normalize else (wav, 1.0)


@functools.lru_cache(maxsize=32)
def _resampler(found_rate, sample_rate, device):
    """A resampler; its filter is costly to make, so it is kept."""
    return torchaudio.transforms.Resample(found_rate, sample_rate).to(device)


def _is_number(value):
    """Whether a setting is a real number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_rate(sample_rate):
    """Return the rate as an int, or say that it is none."""
    if (
        not _is_number(sample_rate)
        or sample_rate != sample_rate // 1
        or sample_rate < 1
    ):
        raise LMACError(
            f"sample_rate: found {sample_rate!r}, expected a whole number of Hz"
        )
    return int(sample_rate)


def is_truncated(path):
    """Whether a wav or Ogg file ends before its own end.

    libsndfile corrects the count of such files without a word.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    bool
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            return _is_truncated_wav(file, size)
        if head[:4] == b"OggS":
            file.seek(max(0, size - _OGG_PAGE_MAX))
            return _is_truncated_ogg(file.read())
    return False


def _is_truncated_wav(file, size):
    """Whether the data chunk reaches beyond the end of the file."""
    chunk = file.read(8)
    while len(chunk) == 8:
        name, length = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            return size - file.tell() < length < _WAV_UNKNOWN
        file.seek(length + length % 2, os.SEEK_CUR)
        chunk = file.read(8)
    return False


def _is_truncated_ogg(tail):
    """Whether the last page is cut, or is not marked as the last one."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    complete = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return len(page) < complete or not page[5] & 4
