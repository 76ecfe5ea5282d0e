"""Waveform <-> spectrogram <-> classifier features.

One object holds the classifier's front end, so that training, evaluation and
inference use the same one.
"""

import math

import torch
from speechbrain.processing.features import (
    ISTFT,
    STFT,
    Filterbank,
    spectral_magnitude,
)

from lmac_sb.utils.errors import LMACError

__all__ = ["FbankFeatures", "SoundFeatures", "SpectralFeatures"]

_WINDOW_S = 0.064  # of the default; tells the harmonics of a low voice apart


class SpectralFeatures(torch.nn.Module):
    """STFT, log-mel features and the inverse STFT.

    ``waveform -> STFT -> magnitude -> mel filterbank -> log1p``, as in the
    L-MAC paper (arXiv 2403.13086, section 3), with SpeechBrain's STFT,
    Filterbank and ISTFT. The filterbank extends to half the sampling rate, so
    the classifier sees the whole spectrum at any rate.

    Arguments
    ---------
    sample_rate : int
        Sampling rate in Hz.
    n_fft : int
        FFT size in samples; the spectrogram has ``n_fft // 2 + 1`` bins.
    win_length : float
        Window length in ms.
    hop_length : float
        Hop length in ms.
    n_mels : int
        Number of mel bands that the classifier sees.

    Raises
    ------
    LMACError
        If `n_fft` is shorter than the window, or so small for `n_mels` that
        a mel band holds no bin.

    Example
    -------
    >>> features = SpectralFeatures(n_fft=512, n_mels=40)
    >>> wavs = torch.rand(2, 16000)
    >>> stft = features.stft(wavs)
    >>> stft.shape
    torch.Size([2, 87, 257, 2])
    >>> features.mel(features.magnitude(stft)).shape
    torch.Size([2, 87, 40])
    >>> features.istft(stft, 16000).shape
    torch.Size([2, 16000])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        sample_rate=16000,
        n_fft=1024,
        win_length=23.2199,
        hop_length=11.6099,
        n_mels=80,
    ):
        super().__init__()
        frame = {
            "sample_rate": sample_rate,
            "n_fft": n_fft,
            "win_length": win_length,
            "hop_length": hop_length,
        }
        window = round(sample_rate * win_length / 1000)
        if window > n_fft:
            raise LMACError(
                f"win_length: {win_length} ms are {window} samples at "
                f"{sample_rate} Hz, more than n_fft = {n_fft}"
            )
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.n_bins = n_fft // 2 + 1
        self.compute_stft = STFT(**frame)
        self.compute_istft = ISTFT(**frame)
        compute_fbank = Filterbank(
            n_mels=n_mels,
            n_fft=n_fft,
            sample_rate=sample_rate,
            f_min=0,
            f_max=sample_rate / 2,
            log_mel=False,
        )
        # The filterbank is linear: its output for the identity is its matrix,
        # which is computed once here instead of at each call.
        matrix = compute_fbank(torch.eye(self.n_bins)[None])[0]
        if (matrix.sum(0) == 0).any():
            empty = int((matrix.sum(0) == 0).sum())
            raise LMACError(
                f"n_mels: {n_mels} bands on {self.n_bins} bins leave {empty} "
                "bands without a bin; use fewer bands or a larger n_fft"
            )
        # Not persistent: the settings define it, so checkpoints omit it.
        self.register_buffer("fbank_matrix", matrix, persistent=False)

    @property
    def hop_samples(self):
        """Hop length in samples."""
        return self.compute_stft.hop_length

    def n_frames(self, n_samples):
        """Number of STFT frames of a clip of `n_samples` samples."""
        return n_samples // self.hop_samples + 1

    def stft(self, wavs):
        """Short-time Fourier transform.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, [batch, samples].

        Returns
        -------
        torch.Tensor
            Real and imaginary parts, [batch, time, freq, 2].
        """
        return self.compute_stft(wavs)

    def magnitude(self, stft):
        """Magnitude of a spectrogram.

        Arguments
        ---------
        stft : torch.Tensor
            [batch, time, freq, 2].

        Returns
        -------
        torch.Tensor
            [batch, time, freq], above zero for a finite gradient.
        """
        return spectral_magnitude(stft, power=0.5)

    def mel(self, magnitude):
        """The classifier's input: ``log1p`` of the mel bands.

        Arguments
        ---------
        magnitude : torch.Tensor
            Linear magnitude, [batch, time, freq].

        Returns
        -------
        torch.Tensor
            [batch, time, n_mels].
        """
        return torch.log1p(magnitude @ self.fbank_matrix)

    def istft(self, stft, n_samples):
        """Inverse STFT to waveforms of exactly `n_samples`.

        Arguments
        ---------
        stft : torch.Tensor
            [batch, time, freq, 2].
        n_samples : int
            Length of the waveforms from which the STFT was computed.

        Returns
        -------
        torch.Tensor
            Waveforms, [batch, n_samples].
        """
        return self.compute_istft(stft.float(), sig_length=n_samples)


class FbankFeatures(SpectralFeatures):
    """Front end of the classifiers that SpeechBrain trains on `Fbank`.

    Such a classifier has its own modules for features: log mel energies in
    dB, then a normalisation. Here they start from a magnitude, so that a mask
    can be applied first.

    Arguments
    ---------
    fbank : speechbrain.lobes.features.Fbank
        The classifier's ``compute_features``, without deltas or context.
    normalize : torch.nn.Module
        Its ``mean_var_norm``, called with features and relative lengths.

    Raises
    ------
    LMACError
        If `fbank` adds deltas or context.

    Example
    -------
    >>> from speechbrain.lobes.features import Fbank
    >>> from speechbrain.processing.features import InputNormalization
    >>> fbank = Fbank(n_mels=40)
    >>> normalize = InputNormalization(norm_type="sentence", std_norm=False)
    >>> features = FbankFeatures(fbank, normalize)
    >>> wavs = torch.rand(2, 16000)
    >>> ours = features.mel(features.magnitude(features.stft(wavs)))
    >>> theirs = normalize(fbank(wavs), torch.ones(2))
    >>> torch.allclose(ours, theirs, atol=1e-3)
    True
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, fbank, normalize):
        if fbank.deltas or fbank.context:
            raise LMACError(
                "compute_features: found Fbank with deltas or context, "
                "expected one without"
            )
        stft = fbank.compute_STFT
        to_ms = 1000 / stft.sample_rate
        super().__init__(
            sample_rate=stft.sample_rate,
            n_fft=stft.n_fft,
            win_length=stft.win_length * to_ms,
            hop_length=stft.hop_length * to_ms,
            n_mels=fbank.compute_fbanks.n_mels,
        )
        self.fbank = fbank
        self.normalize = normalize

    def mel(self, magnitude):
        """The classifier's input [batch, time, n_mels] for a magnitude."""
        energies = self.fbank.compute_fbanks(magnitude.pow(2))
        whole = torch.ones(len(energies), device=energies.device)
        return self.normalize(energies, whole)


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
    torch.Size([2, 63, 513, 2])
    >>> torch.allclose(features.istft(stft, 16000), wavs, atol=1e-5)
    True
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, sample_rate, n_fft=None, hop_samples=None):
        super().__init__()
        if n_fft is None:
            n_fft = 2 ** round(math.log2(_WINDOW_S * sample_rate))
        if hop_samples is None:
            hop_samples = n_fft // 4
        if not 0 < hop_samples <= n_fft // 2:
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

    def n_frames(self, n_samples):
        """Number of frames of a clip of `n_samples` samples."""
        return n_samples // self.hop_samples + 1

    def stft(self, wavs):
        """Real and imaginary parts [batch, time, freq, 2] of waveforms."""
        frames = torch.stft(
            wavs,
            self.n_fft,
            self.hop_samples,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        return torch.view_as_real(frames.transpose(1, 2))

    def magnitude(self, stft):
        """Magnitude [batch, time, freq], above zero for a finite gradient."""
        return (stft.square().sum(-1) + 1e-14).sqrt()

    def istft(self, stft, n_samples):
        """Waveforms [batch, n_samples] of an STFT [batch, time, freq, 2]."""
        frames = torch.view_as_complex(stft.float().contiguous())
        return torch.istft(
            frames.transpose(1, 2),
            self.n_fft,
            self.hop_samples,
            window=self.window,
            length=n_samples,
        )
