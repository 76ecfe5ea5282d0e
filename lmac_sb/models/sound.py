"""The spectrogram of a mask whose classifier hears sound."""

import math

import torch

from lmac_sb.models.features import OverlapAdd, magnitude_of
from lmac_sb.utils.errors import LMACError

__all__ = ["SoundFeatures"]

_WINDOW_S = 0.064  # of the default; tells the harmonics of a low voice apart


class SoundFeatures(torch.nn.Module):
    """STFT and its inverse, for a classifier that gets the sound itself.

    The mask acts on this spectrogram, and the classifier hears what its
    inverse makes of it: what is judged is what a person hears. Periodic Hann
    windows; the sound is padded with zeros.

    Arguments
    ---------
    sample_rate : int
        Sampling rate in Hz.
    n_fft : int
        Window and FFT size in samples; by default the power of two next to
        64 ms.
    hop_samples : int
        From one frame to the next; by default a quarter of the window.

    Raises
    ------
    LMACError
        If the windows do not overlap enough for an inverse.

    Example
    -------
    >>> features = SoundFeatures(16000)
    >>> wavs = torch.rand(2, 16000)
    >>> stft = features.stft(wavs)
    >>> stft.shape
    torch.Size([2, 64, 513, 2])
    >>> torch.allclose(features.istft(stft, 16000), wavs, atol=1e-5)
    True
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin
    IS_SOUND = True  # what the classifier gets

    def __init__(self, sample_rate, n_fft=None, hop_samples=None):
        super().__init__()
        if n_fft is None:
            n_fft = 2 ** round(math.log2(_WINDOW_S * sample_rate))
        if type(n_fft) is not int or n_fft < 4 or n_fft % 2:
            raise LMACError(
                f"n_fft: found {n_fft}, expected an even whole number from 4"
            )
        if hop_samples is None:
            hop_samples = n_fft // 4
        if type(hop_samples) is not int or not 0 < hop_samples <= n_fft // 2:
            raise LMACError(
                f"hop_samples: found {hop_samples}, expected 1 to half of "
                f"n_fft, {n_fft // 2}"
            )
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.n_bins = n_fft // 2 + 1
        self.hop_samples = hop_samples
        # Not persistent: the settings define it, so checkpoints omit it.
        window = torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)
        self.compute_istft = OverlapAdd(n_fft, hop_samples, window, center=True)

    @property
    def frame_start(self):
        """First sample that the first frame sees, before the clip's start."""
        return -(self.n_fft // 2)

    def n_frames(self, n_samples):
        """Number of frames of a clip of `n_samples` samples."""
        return -(-n_samples // self.hop_samples) + 1

    def stft(self, wavs):
        """Real and imaginary parts [batch, time, freq, 2] of waveforms."""
        # The last frame lies at the end or behind it, so that the windows over
        # each sample add up to enough.
        missing = -wavs.shape[1] % self.hop_samples
        frames = torch.stft(
            torch.nn.functional.pad(wavs, (0, missing)),
            self.n_fft,
            self.hop_samples,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return torch.view_as_real(frames.transpose(1, 2))

    def magnitude(self, stft):
        """Magnitude [batch, time, freq], above zero for a finite gradient."""
        return magnitude_of(stft)

    def istft(self, stft, n_samples):
        """Waveforms [batch, n_samples] of an STFT [batch, time, freq, 2]."""
        return self.compute_istft(stft.float(), n_samples)
