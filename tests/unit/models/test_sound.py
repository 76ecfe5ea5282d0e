"""The spectrogram of classifiers that hear sound."""

import math

import pytest
import torch

from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError


@pytest.mark.parametrize("n_samples", [1, 7, 160, 1600, 4001, 16000, 16383])
@pytest.mark.parametrize(
    "n_fft, hop", [(1024, 256), (512, 128), (400, 160), (512, 255), (512, 16)]
)
def test_there_and_back(n_fft, hop, n_samples):
    """The inverse gives the waveform, of any length, to its last sample."""
    features = SoundFeatures(16000, n_fft, hop)
    wavs = torch.rand(2, n_samples) - 0.5
    stft = features.stft(wavs)
    assert stft.shape == (2, features.n_frames(n_samples), n_fft // 2 + 1, 2)
    back = features.istft(stft, n_samples)
    assert back.shape == wavs.shape
    assert torch.allclose(back, wavs, atol=1e-5)


def test_largest_hop_keeps_the_end():
    """No window is nearly zero at the last samples, which would be noise."""
    features = SoundFeatures(16000, 2048, 1024)
    wavs = torch.rand(1, 1024 * 5 + 1023) - 0.5
    stft = features.stft(wavs)
    noisy = stft + 1e-4 * torch.randn_like(stft)
    error = features.istft(noisy, wavs.shape[1]) - wavs
    middle = error[:, 2048:3072].abs().max()
    assert error[:, -1024:].abs().max() < 30 * middle


def test_slow_stft():
    """One bin of one frame, by its definition."""
    features = SoundFeatures(8000, n_fft=16, hop_samples=4)
    wav = torch.rand(1, 50) - 0.5
    stft = features.stft(wav)
    for frame, k in ((0, 0), (3, 5), (12, 8)):
        total = 0j
        for i in range(16):
            place = frame * 4 + i - 8
            sample = float(wav[0, place]) if 0 <= place < 50 else 0.0
            window = 0.5 - 0.5 * math.cos(2 * math.pi * i / 16)
            angle = -2 * math.pi * k * i / 16
            total += sample * window * complex(math.cos(angle), math.sin(angle))
        found = stft[0, frame, k].tolist()
        assert found == pytest.approx([total.real, total.imag], abs=1e-5)
    magnitude = features.magnitude(stft)
    assert float(magnitude[0, 12, 8]) == pytest.approx(abs(total), abs=1e-5)


def test_magnitude_of_silence_has_a_gradient():
    features = SoundFeatures(8000, 64)
    wavs = torch.zeros(1, 640, requires_grad=True)
    features.magnitude(features.stft(wavs)).sum().backward()
    assert wavs.grad.isfinite().all()


@pytest.mark.parametrize(
    "rate, n_fft", [(8000, 512), (16000, 1024), (22050, 1024), (44100, 2048)]
)
def test_default_window(rate, n_fft):
    """The power of two next to 64 ms, a quarter of it as hop."""
    features = SoundFeatures(rate)
    assert (features.n_fft, features.hop_samples) == (n_fft, n_fft // 4)
    assert features.n_bins == n_fft // 2 + 1


@pytest.mark.parametrize("hop", [0, -1, 257, 512, 64.0])
def test_hop_without_inverse(hop):
    with pytest.raises(LMACError, match=f"hop_samples: found {hop}, expected"):
        SoundFeatures(16000, 512, hop)


@pytest.mark.parametrize("n_fft", [0, 3, 511, 512.0, True])
def test_no_such_window(n_fft):
    with pytest.raises(LMACError, match=f"n_fft: found {n_fft}, expected an"):
        SoundFeatures(16000, n_fft)


def test_half_precision_stft():
    """An inverse in single precision, whatever an autocast has made of it."""
    features = SoundFeatures(16000)
    stft = features.stft(torch.rand(1, 4000))
    assert features.istft(stft.half(), 4000).dtype == torch.float32
