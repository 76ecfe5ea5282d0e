"""Background noise in the layout of WHAM!, mixed at a stated ratio.

The excerpt depends only on the seed, the split, the clip's id and the epoch:
neither the order of visits, nor the worker, nor the rank plays a part, so
validation and test hear the same mixtures in every run.
"""

import functools
import hashlib
import json
import math
import os
import random

import numpy as np
import soundfile as sf
import torch

from lmac_sb.data.audio import ROUNDING, fit_length
from lmac_sb.data.decode import Recording
from lmac_sb.data.rates import resample
from lmac_sb.utils.errors import LMACError, is_number, shown

__all__ = ["MIN_NOISE_RMS", "SPLITS", "NoiseMixer"]

SPLITS = ("tr", "cv", "tt")
SUFFIXES = (".wav", ".flac", ".ogg")
MIN_NOISE_RMS = 1e-5  # -100 dBFS: below a third of a 16-bit step is silence
MAX_DRAWS = 20


class NoiseMixer:
    """Mixes clips with random excerpts of noise recordings.

    Arguments
    ---------
    folder : str or path
        Folder that holds the splits as sub-folders (`tr`, `cv`, `tt`).
    split : str
        The sub-folder to draw from: `tr` in training, `cv` in validation,
        `tt` in the test.
    sample_rate : int
        Rate of the clips in Hz; noise at another rate is resampled.
    snr_db : float
        Ratio of the clip's mean power to the noise's in dB.
    seed : int
        Seed of the draws.

    Raises
    ------
    LMACError
        When the folder or split is missing or empty, or a setting is wrong.

    Example
    -------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> os.mkdir(os.path.join(folder.name, "tr"))
    >>> noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    >>> sf.write(os.path.join(folder.name, "tr", "n.wav"), noise, 8000)
    >>> mixer = NoiseMixer(folder.name, "tr", 8000, snr_db=6.0)
    >>> mixture, clean, gain = mixer(torch.randn(8000), "clip-1", epoch=3)
    >>> mixture.shape, clean.shape
    (torch.Size([8000]), torch.Size([8000]))
    >>> round(mixture.abs().max().item(), 4)
    1.0
    >>> folder.cleanup()
    """

    def __init__(self, folder, split, sample_rate, snr_db=0.0, seed=0):
        if split not in SPLITS:
            raise LMACError(
                f"noise split: found {shown(split)}, expected one of "
                f"{', '.join(SPLITS)}"
            )
        if not is_number(snr_db) or not math.isfinite(snr_db):
            raise LMACError(
                f"snr_db: found {shown(snr_db)}, expected a finite number of dB"
            )
        self.split = split
        self.sample_rate = sample_rate
        self.snr_db = snr_db
        self.seed = seed
        self.files = _list_noise(os.fspath(folder), split)

    def __call__(self, wav, clip_id, epoch=None):
        """Mix one clip.

        Arguments
        ---------
        wav : torch.Tensor
            The clip, [samples].
        clip_id : str
            Its id, which picks the noise.
        epoch : int or None
            Picks other noise in every epoch; None keeps one excerpt per
            clip, for validation and test.

        Returns
        -------
        mixture : torch.Tensor
            Clip and noise with a common peak of one, [samples].
        clean : torch.Tensor
            The clip at the gain that it has in the mixture, [samples].
        gain : float
            What the clip was multiplied by: `clean` is `gain * wav`.

        Raises
        ------
        LMACError
            When a noise file cannot be read, or only silence was drawn.
        """
        if wav.dim() != 1 or len(wav) == 0:
            raise LMACError(
                f"clip {clip_id}: found shape {list(wav.shape)}, expected "
                "[samples], not empty"
            )
        # No gain gives silence the wanted ratio.
        if wav.abs().max() <= ROUNDING:
            return wav, wav.clone(), 1.0
        power = wav.double().square().mean()
        noise = self._draw(len(wav), clip_id, epoch).to(wav)
        wanted = power / 10 ** (self.snr_db / 10)
        gain = (wanted / noise.double().square().mean()).sqrt()
        mixture = wav + gain.to(wav) * noise
        peak = mixture.abs().max().clamp_min(1e-8)
        # One gain for both: the target is what is inside of the mixture.
        return mixture / peak, wav / peak, 1 / peak.item()

    def _draw(self, n_samples, clip_id, epoch):
        """The excerpt for a clip, [n_samples], never silent."""
        key = json.dumps([self.seed, self.split, str(clip_id), epoch])
        digest = hashlib.sha256(key.encode()).digest()
        rng = random.Random(int.from_bytes(digest, "big"))
        drawn = set()
        for _ in range(MAX_DRAWS):
            path = self.files[_below(rng, len(self.files))]
            noise = self._excerpt(path, n_samples, rng)
            if noise.double().square().mean().sqrt() >= MIN_NOISE_RMS:
                return noise
            drawn.add(path)
        raise LMACError(
            f"{', '.join(sorted(drawn))}: {MAX_DRAWS} excerpts drawn for clip "
            f"{clip_id} and all silent, expected noise above an "
            f"RMS of {MIN_NOISE_RMS}"
        )

    def _excerpt(self, path, n_samples, rng):
        """A random stretch of one file, read alone, [n_samples]."""
        try:
            with sf.SoundFile(os.fsencode(path)) as file:
                total, rate = file.frames, file.samplerate
                needed = math.ceil(n_samples * rate / self.sample_rate)
                repeats = needed > total
                start = 0 if repeats else _below(rng, total - needed + 1)
                wanted = total if repeats else needed
                file.seek(start)
                block = file.read(wanted, dtype="float32", always_2d=True)
        except (OSError, RuntimeError) as error:
            raise LMACError(
                f"{path}: noise cannot be read ({error})"
            ) from error
        if total == 0:
            raise LMACError(f"{path}: noise file holds no samples")
        if len(block) < wanted:
            raise LMACError(
                f"{path}: truncated, {len(block)} of {wanted} samples could "
                f"be read from sample {start} on"
            )
        _check_whole(path)
        noise = block.mean(axis=1)
        if not np.isfinite(noise).all():
            raise LMACError(f"{path}: noise holds NaN or infinite values")
        if repeats:
            # From a random place on, as for longer files.
            noise = np.roll(noise, -_below(rng, total))
            noise = np.resize(noise, needed)
        noise = resample(torch.from_numpy(noise), rate, self.sample_rate)
        return fit_length(noise, n_samples)


@functools.lru_cache(maxsize=None)
def _check_whole(path):
    """Refuse a truncated file, of which an excerpt may be whole."""
    Recording(path)


def _below(rng, n):
    """A random int below `n`; `random` is the same in all of Python's."""
    return int(rng.random() * n)


def _list_noise(folder, split):
    """The split's files, sorted by name."""
    if not os.path.isdir(folder):
        raise LMACError(f"{folder}: no such noise folder")
    path = os.path.join(folder, split)
    if not os.path.isdir(path):
        found = sorted(os.listdir(folder))[:10]
        raise LMACError(
            f"{path}: no such noise split, {folder} holds "
            f"{', '.join(found) or 'nothing'}"
        )
    # Files alone: to open a pipe is to wait for whoever writes to it.
    names = sorted(
        name
        for name in os.listdir(path)
        if name.lower().endswith(SUFFIXES)
        and os.path.isfile(os.path.join(path, name))
    )
    if not names:
        raise LMACError(
            f"{path}: no noise files, expected {', '.join(SUFFIXES)} files"
        )
    return [os.path.join(path, name) for name in names]
