"""Sounds of any length in bounded memory.

What is too long for the memory is kept in temporary files that are mapped into
it; the operating system keeps there what is in use. The files are gone once
nobody holds the tensors.
"""

import contextlib
import math
import os
import stat
import tempfile
from collections.abc import Mapping
from itertools import chain

import numpy as np
import torch

from lmac_sb.data.audio import MIN_LENGTH_S, as_signal, keep_silence, scalar
from lmac_sb.data.decode import Recording
from lmac_sb.data.rates import reach, resample
from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.io import naming

__all__ = ["mapped", "read_signal", "signal_of", "source_of"]

_BLOCK = 1 << 20  # values read at a time
_LONGEST_PIPE = 1 << 32  # bytes; one that never ends would fill the disk


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
    size = math.prod(shape)
    try:
        with naming(tempfile.gettempdir()):
            _take_room(handle, size * dtype.itemsize)
        values = torch.from_file(path, shared=True, size=size, dtype=dtype)
        return values.view(shape)
    finally:
        # The content stays while it is used.
        os.close(handle)
        os.unlink(path)


def _take_room(handle, n_bytes):
    """Let a full disk be an error here; it would kill who writes a map."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, n_bytes)


def read_signal(path, sample_rate):
    """Read a file of any length as a mono signal at the wanted rate.

    Short files are read as in training; long ones by the same steps, block
    by block. A pipe is read as well, once.

    Arguments
    ---------
    path : str, Path or Place
        The audio file, see `lmac_sb.data.decode.decode_audio`.
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
    with _rereadable(path) as file:
        recording = Recording(path, file)
        blocks, first = recording.blocks(_BLOCK), []
        for block in blocks:
            first.append(block)
            if recording.n_samples * recording.channels > _BLOCK:
                wav = _stream(recording, chain(first, blocks), sample_rate)
                break
        else:
            wav = recording.heard(torch.from_numpy(np.concatenate(first)))
            found_rate = recording.sample_rate
            found = resample(wav, found_rate, sample_rate, os.fspath(path))
            wav = keep_silence(wav, found)
    if len(wav) < MIN_LENGTH_S * sample_rate:
        raise LMACError(
            f"{path}: {len(wav) / sample_rate:.4f} s long, expected "
            f"at least {MIN_LENGTH_S} s"
        )
    return wav


@contextlib.contextmanager
def _rereadable(path):
    """What a pipe holds as an open file; None for a file."""
    is_pipe = False
    if not hasattr(path, "opened"):  # which a place in a file has
        with contextlib.suppress(OSError, ValueError):  # said when it is opened
            is_pipe = stat.S_ISFIFO(os.stat(path).st_mode)
    if not is_pipe:
        yield None
        return
    with tempfile.TemporaryFile(prefix="lmac_sb_") as file:
        try:
            with open(path, "rb") as pipe:
                block = pipe.read(_BLOCK)
                while block:
                    file.write(block)
                    if file.tell() > _LONGEST_PIPE:
                        raise LMACError(
                            f"{path}: gives more than {_LONGEST_PIPE} bytes, "
                            "expected a sound that ends"
                        )
                    block = pipe.read(_BLOCK)
            file.flush()
        except OSError as error:
            if is_full(error):
                with naming(tempfile.gettempdir()):
                    raise
            raise LMACError(f"{path}: cannot be read ({error})") from error
        yield file


def signal_of(sound, sample_rate):
    """A sound from anywhere as a mono signal at the wanted rate.

    Arguments
    ---------
    sound : str, Path, Place, numpy.ndarray, torch.Tensor, tuple or dict
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
    if isinstance(sound, (str, os.PathLike)):
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
    if isinstance(sound, (str, os.PathLike)):
        try:
            recording = Recording(sound)
            return recording.sample_rate, recording.channels
        except LMACError:
            return None, None
    rate = None
    if isinstance(sound, Mapping) and {"array", "sampling_rate"} <= set(sound):
        sound = (sound["array"], sound["sampling_rate"])
    if isinstance(sound, tuple) and len(sound) == 2:
        sound, rate = sound
        if np.ndim(sound) == 0:
            sound, rate = rate, sound
    shape = np.shape(sound)
    return scalar(rate), min(shape) if len(shape) == 2 else 1


def _stream(recording, blocks, sample_rate):
    """Put what is decoded into a file, and resample it in blocks."""
    handle, raw = tempfile.mkstemp(prefix="lmac_sb_")
    try:
        with naming(tempfile.gettempdir()), os.fdopen(handle, "wb") as out:
            for block in blocks:
                out.write(block.tobytes())
        wav = torch.from_file(raw, shared=False, size=recording.n_samples)
    finally:
        os.unlink(raw)
    wav, found_rate = recording.heard(wav), recording.sample_rate
    if found_rate == sample_rate:
        return wav
    return keep_silence(wav, _resample(wav, found_rate, sample_rate))


def _resample(wav, found_rate, sample_rate):
    """Resample in blocks, each with the neighbours that its filter reaches."""
    common = math.gcd(found_rate, sample_rate)
    old, new = found_rate // common, sample_rate // common
    n_samples = -(-len(wav) * new // old)
    # Blocks begin where both rates have a sample.
    margin = (reach(found_rate, sample_rate) // old + 1) * old
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
