"""Sounds of any length in bounded memory.

What is too long for the memory is kept in temporary files that are mapped into
it; the operating system keeps there what is in use. The files are gone once
nobody holds the tensors.
"""

import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile as sf
import torch

from lmac_sb.data.audio import (
    MIN_LENGTH_S,
    as_signal,
    decode_blocks,
    read_audio,
    resample,
)
from lmac_sb.utils.errors import LMACError

__all__ = ["mapped", "read_signal", "signal_of", "source_of"]

_BLOCK = 1 << 20  # values read at a time


def mapped(shape, dtype=torch.float32):
    """Tensor of zeros whose values lie on disk.

    Arguments
    ---------
    shape : tuple of int
        Its shape.
    dtype : torch.dtype
        Its type.

    Returns
    -------
    torch.Tensor
        Like any other; its file is deleted with it.

    Example
    -------
    >>> mapped((2, 3)).sum()
    tensor(0.)
    """
    handle, path = tempfile.mkstemp(prefix="lmac_sb_")
    os.close(handle)
    return _map(path, math.prod(shape), dtype).view(shape)


def _map(path, size, dtype):
    """Map a file and unlink its name; the content stays while it is used."""
    try:
        return torch.from_file(path, shared=True, size=size, dtype=dtype)
    finally:
        os.unlink(path)


def read_signal(path, sample_rate):
    """Read a file of any length as a mono signal at the wanted rate.

    Short files are read as in training; long ones by the same steps, block
    by block.

    Arguments
    ---------
    path : str or Path
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
        As `lmac_sb.data.audio.read_audio`, and when the file is too short.
    """
    promised = _promised_values(path)
    if promised is None or promised <= _BLOCK:
        wav = read_audio(path, sample_rate)
    else:
        wav = _stream(path, sample_rate)
    if len(wav) < MIN_LENGTH_S * sample_rate:
        raise LMACError(
            f"{path}: {len(wav) / sample_rate:.4f} s long, expected "
            f"at least {MIN_LENGTH_S} s"
        )
    return wav


def signal_of(sound, sample_rate):
    """A sound from anywhere as a mono signal at the wanted rate.

    Arguments
    ---------
    sound : str, Path, numpy.ndarray, torch.Tensor, tuple or dict
        A file, samples at the wanted rate, or samples with their rate: in any
        order, or as ``array`` and ``sampling_rate``, as data sets of Hugging
        Face have them.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    torch.Tensor
        [samples].

    Raises
    ------
    LMACError
        If it is no sound.

    Example
    -------
    >>> signal_of((torch.rand(2, 44100), 44100), 16000).shape
    torch.Size([16000])
    """
    if isinstance(sound, (str, Path)):
        return read_signal(sound, sample_rate)
    if isinstance(sound, Mapping) and {"array", "sampling_rate"} <= set(sound):
        sound = (sound["array"], sound["sampling_rate"])
    if isinstance(sound, tuple) and len(sound) == 2:
        samples, rate = sound
        if np.ndim(samples) == 0:  # as of scipy.io.wavfile
            samples, rate = rate, samples
    else:
        samples, rate = sound, sample_rate
    # A copy, so that what is done to the user's array later changes nothing.
    return as_signal(samples, rate, sample_rate).clone()


def source_of(sound):
    """Rate and channels of a sound before it becomes a signal.

    Arguments
    ---------
    sound : object
        See `signal_of`.

    Returns
    -------
    tuple
        Rate in Hz and number of channels; None for what nothing tells.

    Example
    -------
    >>> source_of((torch.rand(2, 44100), 44100)), source_of(torch.rand(9))
    ((44100, 2), (None, 1))
    """
    if isinstance(sound, (str, Path)):
        try:
            info = sf.info(str(sound))
        except (OSError, RuntimeError):
            return None, None
        return info.samplerate, info.channels
    rate = None
    if isinstance(sound, Mapping) and {"array", "sampling_rate"} <= set(sound):
        sound = (sound["array"], sound["sampling_rate"])
    if isinstance(sound, tuple) and len(sound) == 2:
        sound, rate = sound
        if np.ndim(sound) == 0:
            sound, rate = rate, sound
    shape = np.shape(sound)
    return rate, min(shape) if len(shape) == 2 else 1


def _promised_values(path):
    """Values of all channels by the file's header; None if it has none."""
    if not Path(path).is_file():
        return None
    try:
        info = sf.info(str(path))
    except (OSError, RuntimeError):
        return None
    return info.frames * info.channels


def _stream(path, sample_rate):
    """Decode, mix down and resample in blocks."""
    handle, raw = tempfile.mkstemp(prefix="lmac_sb_")
    n_frames = 0
    try:
        with os.fdopen(handle, "wb") as out:
            for block, rate in decode_blocks(path):
                out.write(block.tobytes())
                n_frames += len(block)
                found_rate = rate
        wav = torch.from_file(raw, shared=False, size=n_frames)
    finally:
        os.unlink(raw)
    if found_rate == sample_rate:
        return wav
    return _resample(wav, found_rate, sample_rate)


def _resample(wav, found_rate, sample_rate):
    """Resample in blocks, each with the neighbours that its filter reaches."""
    common = math.gcd(found_rate, sample_rate)
    old, new = found_rate // common, sample_rate // common
    n_samples = -(-len(wav) * new // old)
    # Blocks begin where both rates have a sample. A filter of the resampler
    # reaches 6 zero crossings far.
    margin = (8 * max(old, new) // min(old, new) // old + 1) * old
    size = max(1, _BLOCK // old) * old
    result = mapped((n_samples,))
    for start in range(0, len(wav), size):
        first = max(0, start - margin)
        piece = resample(
            wav[first : start + size + margin], found_rate, sample_rate
        )
        begin = start // old * new
        end = min(begin + size // old * new, n_samples)
        skip = (start - first) // old * new
        result[begin:end] = piece[skip : skip + end - begin]
    return result
