"""Preprocessed audio, kept on disk: each clip is decoded once.

A folder of one file a clip, named by a checksum of the audio file's content
and of all settings that the samples depend on. So a changed file, another
rate or another version is another name, and moved or copied data is found
again. Files appear complete or not at all, and each is checked when it is
read: any number of processes may fill and read one folder, without a lock.
"""

import hashlib
import json
import logging
import mmap
import os
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import torchaudio

from lmac_sb.data import audio
from lmac_sb.utils.errors import LMACError

__all__ = ["AudioCache"]

logger = logging.getLogger(__name__)

_MAGIC = b"lmacwav2"
# Magic, name, number of samples, their checksum, gain, then a sum of these.
_HEADER = struct.Struct("<8s32sQId")
_HEADER_BYTES = 64
_BLOCK = 1 << 20  # bytes hashed at a time
_OLD_S = 3600  # an unfinished file of this age was left by a killed process


class AudioCache:
    """A `Preprocessor` that remembers what it made of each file.

    Arguments
    ---------
    folder : str or Path
        Where the clips are kept, 4 bytes a sample; made if it is not there.
    preprocess : lmac_sb.data.audio.Preprocessor
        What is remembered.

    Raises
    ------
    LMACError
        If the folder cannot be made or is a file.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> sf.write(folder / "x.wav", np.full(8000, 0.5), 8000)
    >>> cache = AudioCache(folder / "cache", audio.Preprocessor(16000))
    >>> wav, gain = cache(folder / "x.wav")
    >>> torch.equal(wav, cache(folder / "x.wav")[0])
    True
    >>> len(list((folder / "cache").glob("*/*.f32")))
    1
    """

    def __init__(self, folder, preprocess):
        self.folder = Path(folder)
        self.preprocess = preprocess
        self.sample_rate = preprocess.sample_rate
        self._settings = _settings_of(preprocess)
        self._full = False
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise LMACError(
                f"audio_cache: {folder} cannot be used ({error}); another "
                "folder, or null, is needed"
            ) from error

    @property
    def n_samples(self):
        """Samples of every result, see `Preprocessor`."""
        return self.preprocess.n_samples

    def __call__(self, path):
        """Read and preprocess a file, or what is remembered of it.

        Arguments
        ---------
        path : str or path
            The audio file.

        Returns
        -------
        wav : torch.Tensor
            The signal, float32, [samples]; changing it changes no file.
        gain : float
            What the samples were multiplied by, see `Preprocessor`.
        """
        try:
            name = self._name(path)
        except OSError:
            # Missing, or a folder: said there.
            return self.preprocess(path)
        kept = self._path(name)
        found = self._read(kept, name)
        if found is None:
            found = self.preprocess(path)
            # Written while it was read, it may be another one by now.
            if self._name(path) == name:
                self._write(kept, name, *found)
        return found

    @property
    def _parts(self):
        """Folder of the files that are being written."""
        return self.folder / "parts"

    def _sweep(self):
        """Delete what processes left that were killed while they wrote."""
        for part in self._parts.iterdir():
            try:
                if time.time() - part.stat().st_mtime > _OLD_S:
                    part.unlink()
            except FileNotFoundError:
                continue  # finished or swept by another process

    def _name(self, path):
        """Checksum of a file's content and of the settings."""
        digest = hashlib.sha256(self._settings)
        with open(path, "rb", buffering=0) as file:
            block = file.read(_BLOCK)
            while block:
                digest.update(block)
                block = file.read(_BLOCK)
        return digest.digest()

    def _path(self, name):
        """File of a name; in 256 folders, as some systems are slow else."""
        name = name.hex()
        return self.folder / name[:2] / f"{name}.f32"

    def _read(self, kept, name):
        """Samples and gain of a file in the cache; None if there is none."""
        try:
            with open(kept, "rb") as file:
                if os.fstat(file.fileno()).st_size < _HEADER_BYTES:
                    raise ValueError("cut")
                # The process's own copy, so that writing to it is harmless.
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            samples = np.frombuffer(memory, "<f4", offset=_HEADER_BYTES)
            gain = _HEADER.unpack_from(memory)[-1]
            if memory[:_HEADER_BYTES] != _header(name, samples, gain):
                raise ValueError("changed")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning(
                "audio_cache: %s is damaged (%s), made again", kept, error
            )
            return None
        return torch.from_numpy(samples), gain

    def _write(self, kept, name, wav, gain):
        """Keep samples; a full disk costs speed and nothing else."""
        if self._full:
            return
        samples = wav.numpy().astype("<f4", copy=False)
        part = None
        try:
            handle, part = tempfile.mkstemp(dir=self._parts)
            with open(handle, "wb") as file:
                file.write(_header(name, samples, gain))
                file.write(samples)
            kept.parent.mkdir(exist_ok=True)
            os.replace(part, kept)
            part = None
        except OSError as error:
            self._full = True
            logger.warning(
                "audio_cache: %s cannot be written (%s); it grows no further "
                "in this process, the other clips are decoded each time",
                self.folder,
                error,
            )
        finally:
            if part is not None:
                Path(part).unlink()


def _settings_of(preprocess):
    """All that the samples depend on beside the file."""
    settings = {
        "format": _MAGIC.decode(),
        "sample_rate": preprocess.sample_rate,
        "signal_length_s": preprocess.signal_length_s,
        "libsndfile": sf.__libsndfile_version__,
        "torchaudio": torchaudio.__version__,
        "torch": torch.__version__,
        # So that no change of these steps is forgotten.
        "code": hashlib.sha256(Path(audio.__file__).read_bytes()).hexdigest(),
    }
    return json.dumps(settings).encode() + b"\n"


def _header(name, samples, gain):
    """First bytes of the file with these samples."""
    fields = _HEADER.pack(_MAGIC, name, len(samples), zlib.crc32(samples), gain)
    check = struct.pack("<I", zlib.crc32(fields))
    return (fields + check).ljust(_HEADER_BYTES, b"\0")
