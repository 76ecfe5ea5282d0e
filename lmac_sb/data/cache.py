"""Preprocessed audio, kept on disk: each clip is decoded once.

A folder of one `.npy` file a clip, named by a checksum of the audio file's
content and of all settings that the samples depend on. So a changed file,
another rate or another version is another name, and moved or copied data is
found again. Files appear complete or not at all, and each is checked when it
is read: any number of processes may fill and read one folder, without a lock.

A file holds one record: gain, checksum and samples. The checksum, a CRC-32
since numpy's format has none, is in the same file as the samples: a file of its
own would be a second one to write, and two cannot appear at once.
"""

import hashlib
import io
import json
import logging
import os
import re
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import torchaudio

from lmac_sb.data import audio
from lmac_sb.data.pieces import opened
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["AudioCache", "cache_version", "count_cache", "prune_cache"]

logger = logging.getLogger(__name__)

OLD_FORMAT, UNFINISHED = "before v1", "unfinished"

_BLOCK = 1 << 20  # bytes hashed at a time
_OLD_S = 3600  # an unfinished file of this age was left by a killed process
# Each file of a cache, by its path in it. Nothing else is ever deleted.
_FILES = {
    r"(v\d+-[^/]+)/([0-9a-f]{2})/\2[0-9a-f]{62}\.npy": r"\1",
    r"([0-9a-f]{2})/\1[0-9a-f]{62}\.f32": OLD_FORMAT,
    r"parts/tmp\w{8}": UNFINISHED,
}


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
    >>> len(list((folder / "cache").glob("*/*/*.npy")))
    1
    """

    def __init__(self, folder, preprocess):
        self.folder = Path(folder)
        self.preprocess = preprocess
        self.sample_rate = preprocess.sample_rate
        self._version = cache_version()
        settings = [preprocess.sample_rate, preprocess.signal_length_s]
        self._settings = json.dumps([self._version, *settings]).encode()
        self._full = False
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise LMACError(
                f"audio_cache: {folder} cannot be used ({error}); expected "
                "another folder, or null"
            ) from error

    @property
    def n_samples(self):
        """Samples of every result, see `Preprocessor`."""
        return self.preprocess.n_samples

    def __call__(self, path):
        """Read and preprocess a file, or what is remembered of it.

        Arguments
        ---------
        path : str, path or Place
            The audio file, see `lmac_sb.data.decode.decode_audio`.

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
        for part in self._parts.glob("tmp????????"):
            if _is_old(part):
                part.unlink(missing_ok=True)

    def _name(self, path):
        """Checksum of a file's content and of the settings."""
        digest = hashlib.sha256(self._settings)
        with opened(path) as file:
            block = file.read(_BLOCK)
            while block:
                digest.update(block)
                block = file.read(_BLOCK)
        return digest.digest()

    def _path(self, name):
        """File of a name; in 256 folders, as some systems are slow else."""
        name = name.hex()
        return self.folder / self._version / name[:2] / f"{name}.npy"

    def _read(self, kept, name):
        """Samples and gain of a file in the cache; None if there is none."""
        try:
            # The process's own copy, so that writing to it is harmless.
            record = np.load(kept, mmap_mode="c")
            samples, gain = record["wav"], float(record["gain"])
            # The header first: the checksum knows neither types nor order.
            if record.dtype != _record_type(len(samples)):
                raise ValueError(f"holds {record.dtype}")
            if record["crc"] != _checksum(name, samples, gain):
                raise ValueError("changed")
        except FileNotFoundError:
            return None
        except Exception as error:
            # numpy fails on damage in many ways.
            logger.warning(
                "audio_cache: %s is damaged (%s), made again", kept, error
            )
            return None
        return torch.from_numpy(samples), gain

    def _write(self, kept, name, wav, gain):
        """Keep samples; a full disk costs speed and nothing else."""
        if self._full:
            return
        record = np.empty((), _record_type(len(wav)))
        record["wav"], record["gain"] = wav.numpy(), gain
        record["crc"] = _checksum(name, record["wav"], gain)
        # Into memory first: into a file, numpy writes by a buffer of C's, and
        # does not notice when the last of it finds no space.
        content = io.BytesIO()
        np.save(content, record)
        part = None
        try:
            handle, part = tempfile.mkstemp(dir=self._parts)
            with open(handle, "wb") as file:
                file.write(content.getbuffer())
            kept.parent.mkdir(parents=True, exist_ok=True)
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


def _record_type(n_samples):
    """What a file holds."""
    return np.dtype(
        [("gain", "<f8"), ("crc", "<u4"), ("wav", "<f4", (n_samples,))]
    )


def _checksum(name, samples, gain):
    """Of all that a file holds, and of its name, so that files do not swap."""
    start = zlib.crc32(name + np.array(gain, "<f8").tobytes())
    return zlib.crc32(samples, start)


def _is_old(part):
    """Whether an unfinished file is one that nobody writes to any more."""
    try:
        return time.time() - part.stat().st_mtime > _OLD_S
    except FileNotFoundError:
        return False  # finished or swept by another process


def cache_version():
    """Version of the samples that this installation makes and reads.

    Returns
    -------
    str
        Of the preprocessing and of the libraries that it uses; the name of
        a folder in each cache.

    Example
    -------
    >>> cache_version()
    'v3-libsndfile-...-torchaudio-...-torch-...'
    """
    return (
        f"v{audio.VERSION}-libsndfile-{sf.__libsndfile_version__}"
        f"-torchaudio-{torchaudio.__version__}-torch-{torch.__version__}"
    )


def count_cache(folder):
    """What is in the folder of an audio cache.

    Arguments
    ---------
    folder : str or Path
        What was given as `audio_cache`.

    Returns
    -------
    dict
        Version to number of files and bytes. Beside versions as
        `cache_version` names them, there are `OLD_FORMAT`, clips of releases
        without versions, and `UNFINISHED`.

    Raises
    ------
    LMACError
        If it is not an audio cache, or holds anything else.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> count_cache(folder)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ...: is not an audio cache: it has no folder 'parts'
    >>> _ = AudioCache(folder, audio.Preprocessor(16000))
    >>> count_cache(folder)
    {}
    """
    files, sizes = Counter(), Counter()
    for version, _, size in _files(folder):
        files[version] += 1
        sizes[version] += size
    return {version: (files[version], sizes[version]) for version in files}


def prune_cache(folder):
    """Delete what this installation does not use of an audio cache.

    Those are the clips of other versions, and unfinished files that are so
    old that no process can be writing them.

    Arguments
    ---------
    folder : str or Path
        What was given as `audio_cache`.

    Returns
    -------
    dict
        What was deleted, as `count_cache` tells it.

    Raises
    ------
    LMACError
        As for `count_cache`, and then nothing was deleted; or if a file
        cannot be deleted.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> sf.write(folder / "x.wav", np.full(8000, 0.5), 8000)
    >>> cache = AudioCache(folder / "cache", audio.Preprocessor(16000))
    >>> _ = cache(folder / "x.wav")
    >>> prune_cache(folder / "cache")
    {}
    """
    count_cache(folder)  # refuses it as a whole
    files, sizes, folders = Counter(), Counter(), set()
    used, top = cache_version(), Path(folder)
    try:
        for version, path, size in _files(folder):
            if version == used or version == UNFINISHED and not _is_old(path):
                continue
            path.unlink(missing_ok=True)
            files[version] += 1
            sizes[version] += size
            folders |= {path.parent, path.parent.parent}
    except OSError as error:
        raise LMACError(f"{folder}: cannot be pruned ({error})") from error
    # The deepest first.
    for empty in sorted(folders - {top, top / "parts"}, reverse=True):
        try:
            empty.rmdir()
        except OSError:
            continue  # another process goes on to fill it
    return {version: (files[version], sizes[version]) for version in files}


def _files(folder):
    """Version, path and size of each file; an error at any that is foreign."""
    folder = Path(folder)
    if not (folder / "parts").is_dir():
        raise LMACError(
            f"{folder}: is not an audio cache: it has no folder 'parts'"
        )
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            version = _version_of(path.relative_to(folder).as_posix())
            if version is None or path.is_symlink():
                raise LMACError(
                    f"{folder}: holds {shown(str(path.relative_to(folder)))}, "
                    "expected an audio cache and nothing else"
                )
            try:
                yield version, path, path.stat().st_size
            except FileNotFoundError:
                continue  # another process was faster


def _version_of(name):
    """Version of a file by its path in the cache; None for a foreign one."""
    for pattern, version in _FILES.items():
        match = re.fullmatch(pattern, name, re.ASCII)
        if match:
            return match.expand(version)
    return None
