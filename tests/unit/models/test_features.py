"""Tests of the front end."""

import pytest
import torch
from speechbrain.processing.features import (
    STFT,
    Filterbank,
    spectral_magnitude,
)

from lmac_sb.models.features import SpectralFeatures
from lmac_sb.utils.errors import LMACError

LENGTHS = [1600, 5000, 12345, 16000, 80000]
# Window and hop of 23.2 and 11.6 ms fit 1024 points up to 44.1 kHz.
RATES = [8000, 16000, 22050, 32000, 44100]


@pytest.fixture(scope="module")
def features():
    """The default front end, 16 kHz."""
    return SpectralFeatures()


@pytest.mark.parametrize("length", LENGTHS)
def test_there_and_back(features, length):
    """ISTFT of STFT is the waveform, its last samples included."""
    wavs = torch.rand(2, length) * 2 - 1
    back = features.istft(features.stft(wavs), length)
    assert back.shape == wavs.shape
    assert (back - wavs).abs().max() < 1e-5


def test_there_and_back_by_magnitude(features):
    """A mask of ones in log1p, and the input's phase, change nothing."""
    wavs = torch.rand(1, 12345) * 2 - 1
    stft = features.stft(wavs)
    magnitude = features.magnitude(stft)
    again = torch.expm1(torch.log1p(magnitude))
    back = features.istft(stft * (again / magnitude)[..., None], 12345)
    assert (back - wavs).abs().max() < 1e-4


@pytest.mark.parametrize("rate", RATES)
def test_there_and_back_at_rates(rate):
    """At each rate, half a second."""
    features = SpectralFeatures(sample_rate=rate, n_mels=40)
    wavs = torch.rand(1, rate // 2) * 2 - 1
    back = features.istft(features.stft(wavs), rate // 2)
    assert (back - wavs).abs().max() < 1e-5


@pytest.mark.parametrize("length", [*LENGTHS, 185, 186, 187, 371, 372])
def test_n_frames(features, length):
    """The promised number of frames is the real one."""
    stft = features.stft(torch.rand(1, length))
    assert stft.shape == (1, features.n_frames(length), features.n_bins, 2)


def test_stft_is_of_its_own_clip(features):
    """The spectrogram of a clip does not depend on the batch."""
    wavs = torch.rand(4, 5000)
    together = features.stft(wavs)
    alone = features.stft(wavs[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_settings_in_milliseconds(features):
    """Window and hop in samples."""
    assert features.hop_samples == 186
    assert features.compute_stft.win_length == 372
    fast = SpectralFeatures(sample_rate=44100)
    assert fast.hop_samples == 512
    assert fast.compute_stft.win_length == 1024


@pytest.mark.parametrize("n_mels", [40, 80])
def test_mel_is_speechbrains(n_mels):
    """As SpeechBrain's own chain, step by step."""
    features = SpectralFeatures(n_mels=n_mels)
    wavs = torch.rand(2, 5000) * 2 - 1
    stft = STFT(
        sample_rate=16000, n_fft=1024, win_length=23.2199, hop_length=11.6099
    )(wavs)
    magnitude = spectral_magnitude(stft, power=0.5)
    bands = Filterbank(
        n_mels=n_mels, n_fft=1024, f_min=0, f_max=8000, log_mel=False
    )(magnitude)
    assert torch.equal(features.stft(wavs), stft)
    assert torch.equal(features.magnitude(stft), magnitude)
    found = features.mel(magnitude)
    assert found.shape == (2, features.n_frames(5000), n_mels)
    assert torch.allclose(found, torch.log1p(bands), atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_every_bin_reaches_the_classifier(rate):
    """Each bin up to half the rate moves the classifier's input."""
    features = SpectralFeatures(sample_rate=rate)
    magnitude = torch.zeros(1, 1, features.n_bins, requires_grad=True)
    features.mel(magnitude).sum().backward()
    weight = magnitude.grad[0, 0]
    # The triangles begin at 0 Hz and end at half the rate with weight 0.
    assert (weight[1:-1] > 1e-3).all()
    assert weight[0] == 0 and weight[-1] < 1e-3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("place", [0.05, 0.5, 0.95])
def test_tones_are_seen(rate, place):
    """A tone anywhere below half the rate is far above silence."""
    features = SpectralFeatures(sample_rate=rate)
    time = torch.arange(rate // 4) / rate
    tone = torch.sin(torch.pi * place * rate * time)[None]
    mel = features.mel(features.magnitude(features.stft(tone)))
    loudest = mel[0].mean(0).argmax().item()
    assert mel.max() > 1
    # The bands rise with the frequency.
    if place == 0.05:
        assert loudest < features.n_mels * 0.5
    if place == 0.95:
        assert loudest >= features.n_mels - 3


def test_window_longer_than_fft():
    """A window longer than the FFT is refused."""
    with pytest.raises(LMACError, match="372 samples at 16000 Hz.*= 256"):
        SpectralFeatures(n_fft=256)
    SpectralFeatures(n_fft=372, n_mels=20)


def test_empty_bands():
    """More bands than the bins can fill are refused, with their number."""
    with pytest.raises(LMACError, match="200 bands on 257 bins leave .* bands"):
        SpectralFeatures(n_fft=512, n_mels=200)


def test_gradient_at_silence(features):
    """Finite, and the magnitude is above zero."""
    stft = torch.zeros(1, 4, features.n_bins, 2, requires_grad=True)
    magnitude = features.magnitude(stft)
    assert (magnitude > 0).all() and magnitude.max() < 1e-6
    features.mel(magnitude).sum().backward()
    assert stft.grad.isfinite().all()


def test_magnitude(features):
    """The root of both squares."""
    stft = torch.tensor([3.0, 4.0]).expand(1, 2, 3, 2)
    assert features.magnitude(stft).flatten().tolist() == [5.0] * 6


def test_moves():
    """The filterbank moves to a device with the module."""
    features = SpectralFeatures()
    magnitude = torch.rand(1, 3, features.n_bins)
    single = features.mel(magnitude)
    double = features.to(torch.float64).mel(magnitude.double())
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), single, atol=1e-5)
    features.to("meta")
    assert features.mel(magnitude.to("meta")).device.type == "meta"


def test_state_dict_is_empty(features):
    """The settings define it, so a checkpoint holds nothing of it."""
    assert len(features.state_dict()) == 0
    assert len(list(features.parameters())) == 0


def test_istft_of_half_precision(features):
    """Autocast may hand over bf16; the waveform is in single precision."""
    wavs = torch.rand(1, 5000) * 2 - 1
    stft = features.stft(wavs).bfloat16()
    back = features.istft(stft, 5000)
    assert back.dtype == torch.float32
    assert (back - wavs).abs().max() < 0.05
