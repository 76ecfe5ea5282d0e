"""Decoding of files: all samples that are in them, or an error.

A file is read from its start to its end, once and without seeking. No length
that a decoder estimates is believed, nor does a name decide what is in a file.
"""

import contextlib
import functools
import logging
import os

import numpy as np
import soundfile as sf
import torch

from lmac_sb.data import mpeg
from lmac_sb.data.containers import NOT_READ, layout_of
from lmac_sb.data.pieces import Source, Window, check_path, opened
from lmac_sb.data.rates import resample
from lmac_sb.utils.errors import LMACError

__all__ = ["Recording", "decode_audio"]

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20  # values decoded at a time
_LONGEST = 1 << 29  # samples held at once; a small file can hold more silence
_UNKNOWN = 1 << 62  # frames; from here on, the header tells none
_EIGHT_BITS = ("PCM_S8", "PCM_U8", "DPCM_8")
_FINE = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")
_CANCELLED = 1e-4  # of the loudest channel: what its inverse leaves of it
# Place and first bytes of films and sounds that are to be converted first,
# whatever their names.
_CONVERTED = (
    *((4, kind) for kind in (b"ftyp", b"moov", b"mdat", b"wide", b"free")),
    (0, b"\x1aE\xdf\xa3"),  # Matroska and WebM
    (0, b"0&\xb2u\x8ef\xcf\x11"),  # Windows Media
    (8, b"AVI "),
    (0, b"FLV\x01"),
    *((0, magic) for magic in (b"\xff\xf1", b"\xff\xf9", b"ADIF")),  # AAC
    *((0, magic) for magic in (b"#!AMR", b"\x0bw", b"MAC ", b"wvpk")),
    (28, b"Speex   "),
)


def decode_audio(path):
    """Decode a whole file and mix it down to one channel.

    Arguments
    ---------
    path : str, path or Place
        A file in a format of libsndfile (wav, flac, ogg, mp3, ...), or such
        a file within another, see `lmac_sb.data.pieces.Place`.

    Returns
    -------
    wav : torch.Tensor
        Mean of the channels, float32, [samples]; see `Recording`.
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
    recording = Recording(path)
    blocks = []
    for block in recording.blocks():
        blocks.append(block)
        _check_length(recording.n_samples, path)
    wav = torch.from_numpy(np.concatenate(blocks))
    return recording.heard(wav), recording.sample_rate


class Recording:
    """An audio file that is decoded block by block.

    The links of a chained Ogg file, and other streams in one file, follow
    each other at the first one's rate.

    Arguments
    ---------
    path : str, path or Place
        As for `decode_audio`.
    file : file object
        What is read instead, if the path can be read only once.

    Raises
    ------
    LMACError
        See `decode_audio`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.wav"
    >>> sf.write(path, np.zeros((8000, 2)), 8000)
    >>> recording = Recording(path)
    >>> recording.sample_rate, recording.channels
    (8000, 2)
    >>> [len(block) for block in recording.blocks(size=5000)]
    [2500, 2500, 2500, 500]
    """

    def __init__(self, path, file=None):
        self.path, self._file = os.fsdecode(path), file
        self._inside = path if hasattr(path, "opened") else None
        self.n_samples, self._loudest, self._peak = 0, 0.0, 0.0
        self._told = None
        with self._opened() as source:
            self._parts, missing, note = layout_of(source)
            if missing:
                raise LMACError(
                    f"{self.path}: truncated, {missing} bytes fewer than the "
                    "file promises"
                )
            if not self._parts:
                raise LMACError(f"{self.path}: holds no samples")
        if note:
            _warn_once(f"{self.path}: {note}")

    @property
    def sample_rate(self):
        """In Hz, of the first stream."""
        return self._first()[0]

    @property
    def channels(self):
        """Of the first stream."""
        return self._first()[1]

    def _first(self):
        """Rate, channels and type of the first stream."""
        if self._told is None:  # else known from decoding
            with self._opened() as source:
                with self._decoder(source, self._parts[0]):
                    pass
        return self._told

    def blocks(self, size=_BLOCK):
        """Decode and mix down, once; faults are reported at the end.

        Arguments
        ---------
        size : int
            Values decoded at a time, those of all channels together.

        Yields
        ------
        np.ndarray
            Mean of the channels, float32, [samples].

        Returns
        -------
        generator
        """
        for frames, rate in self._frames(size):
            mono = frames.mean(axis=1)
            self._loudest = max(self._loudest, _peak_of(frames))
            self._peak = max(self._peak, _peak_of(mono))
            if rate != self.sample_rate:
                wav = torch.from_numpy(mono)
                mono = resample(wav, rate, self.sample_rate, self.path).numpy()
            self.n_samples += len(mono)
            yield mono

    def by_channel(self):
        """Decode, without mixing.

        Returns
        -------
        torch.Tensor
            float32, [channels, samples].
        """
        found = list(self._frames(_BLOCK))
        kinds = {(frames.shape[1], rate) for frames, rate in found}
        if len(kinds) > 1:
            raise LMACError(
                f"{self.path}: holds streams of several rates or numbers of "
                "channels, expected one"
            )
        return torch.from_numpy(np.concatenate([f for f, _ in found]).T.copy())

    def heard(self, wav):
        """What was read, or digital silence if that is only rounding.

        So it is if no sample is above one step of a file of 8 or 16 bits, or
        if channels cancel each other. Raised to full scale, it would be noise.

        Arguments
        ---------
        wav : torch.Tensor
            All blocks, [samples].

        Returns
        -------
        torch.Tensor
            [samples].
        """
        step = _step_of(self._first()[2])
        rounding = max(step, _CANCELLED * self._loudest)
        return wav if self._peak > rounding else torch.zeros_like(wav)

    def _frames(self, size):
        """All frames, [samples, channels], and their rate."""
        n_read, finite = 0, True
        with self._opened() as source:
            for part in self._parts:
                with self._decoder(source, part) as stream:
                    rate = stream.samplerate
                    blocks = self._decoded(stream, part, size)
                    if rate != self.sample_rate:
                        # Resampled as a whole, so without seams.
                        blocks = _joined(blocks, self.path)
                    for block in blocks:
                        n_read += len(block)
                        finite = finite and bool(np.isfinite(block).all())
                        yield block, rate
        if n_read == 0:
            raise LMACError(f"{self.path}: holds no samples")
        if not finite:
            raise LMACError(f"{self.path}: holds NaN or infinite values")

    def _decoded(self, stream, part, size):
        """Blocks of one part, [samples, channels], until it ends."""
        # In blocks, as a broken header may promise terabytes.
        size = max(1, size // stream.channels)
        left = part.n_samples
        n_read, length = 0, None
        while length != 0 and left != 0:
            wanted = size if left is None else min(size, left)
            block = stream.read(wanted, dtype="float32", always_2d=True)
            length = len(block)
            n_read += length
            left = None if left is None else left - length
            if length:
                yield block
        promised = part.n_samples or stream.frames
        if n_read < promised < _UNKNOWN:
            raise LMACError(
                f"{self.path}: truncated or damaged, only {n_read} samples "
                "could be decoded, fewer than the file promises"
            )

    @contextlib.contextmanager
    def _opened(self):
        """Bytes of the file, behind tags that may stand before any format."""
        if self._file is None and self._inside is None:
            check_path(self.path)
        try:
            with contextlib.ExitStack() as stack:
                file = self._file or stack.enter_context(
                    opened(self._inside or self.path)
                )
                start = mpeg.skip_tags(Source(file), 0)
                yield Source(file, start)
        except OSError as error:
            raise LMACError(f"{self.path}: cannot be read ({error})") from error

    @contextlib.contextmanager
    def _decoder(self, source, part):
        """Decoder of a part; its errors name the file."""
        window = Window(source, part.pieces)
        try:
            with _open_stream(window, self.path) as stream:
                if self._told is None:
                    kind = stream.samplerate, stream.channels, stream.subtype
                    self._told = kind
                yield stream
        except RuntimeError as error:
            reason = window.error or getattr(error, "error_string", error)
            hint = ""
            if _is_convertible(source, self.path):
                hint = "; convert it to WAV or FLAC, for example with ffmpeg"
            raise LMACError(
                f"{self.path}: cannot be read as audio, or is truncated "
                f"({reason}){hint}"
            ) from error
        if window.error:
            raise window.error


class _Stream(sf.SoundFile):
    """A decoder that only reads on.

    Else it seeks after each block, which costs samples in some formats, and
    reads no further than its estimate of the length.
    """

    def seekable(self):
        """It is not used."""
        return False


def _open_stream(window, path):
    """Decoder of what is in a window."""
    try:
        return _Stream(window)
    except RuntimeError:
        # Sound Designer II has its header in a file beside it.
        folder, name = os.path.split(path)
        beside = os.path.join(folder, f"._{name}")
        if name.lower().endswith(".sd2") and os.path.isfile(beside):
            return _Stream(path)
        raise


def _is_convertible(source, path):
    """Whether other programs read what is in a file that is not read here."""
    ending = os.path.splitext(path)[1][1:].lower()
    return ending in NOT_READ or any(
        source.at(place, len(magic)) == magic for place, magic in _CONVERTED
    )


def _step_of(subtype):
    """Between two values of a sample; of formats with loss, as of 16 bits."""
    if subtype in _FINE:
        return 0.0
    return 2.0**-7 if subtype in _EIGHT_BITS else 2.0**-15


def _peak_of(values):
    """Largest absolute value."""
    return max(float(values.max()), -float(values.min()))


def _joined(blocks, path):
    """All frames of a part as one block, if there are any."""
    found, n_read = [], 0
    for block in blocks:
        found.append(block)
        n_read += len(block)
        _check_length(n_read, path)
    return [np.concatenate(found)] if found else []


def _check_length(n_samples, path):
    """Refuse what would fill the memory."""
    if n_samples > _LONGEST:
        raise LMACError(
            f"{path}: holds more than {_LONGEST} samples, cut it into "
            "shorter files"
        )


@functools.lru_cache(maxsize=None)
def _warn_once(message):
    """Say it when a file is read first, not in each epoch."""
    logger.warning(message)
