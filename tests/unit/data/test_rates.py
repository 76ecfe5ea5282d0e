"""Tests of resampling: any rate, as ffmpeg does it, in bounded memory."""

import math
import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data import rates
from lmac_sb.data.rates import reach, resample
from lmac_sb.utils.errors import LMACError

ODD = [
    (22254, 16000),
    (44099, 16000),
    (11127, 16000),
    (15999, 16000),
    (1009, 16000),
    (383999, 16000),
    (44101, 48000),
    (16000, 44099),
]


def band(rate, top, seconds=1.0):
    """Noise up to a frequency, [samples]."""
    n = round(rate * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(n))
    spectrum[np.fft.rfftfreq(n, 1 / rate) > top] = 0
    wav = np.fft.irfft(spectrum, n)
    return (0.9 * wav / np.abs(wav).max()).astype("f4")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
@pytest.mark.parametrize(("found", "wanted"), ODD)
def test_as_ffmpeg(tmp_path, found, wanted):
    """Within 1e-3, in what both rates can hold."""
    wav = band(found, 0.4 * min(found, wanted))
    sf.write(tmp_path / "x.wav", wav, found, "FLOAT")
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "x.wav"]
    command += ["-ar", str(wanted), "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, capture_output=True)
    expected = np.frombuffer(done.stdout, "<f4")
    result = resample(torch.tensor(wav), found, wanted).numpy()
    assert len(result) == math.ceil(len(wav) * wanted / found)
    inner = slice(wanted // 10, len(expected) - wanted // 10)
    assert np.abs(result[inner] - expected[inner]).max() < 1e-3


def tone(frequency, rate):
    """A second of it, [rate]."""
    time = torch.arange(rate, dtype=torch.double) / rate
    return torch.sin(2 * torch.pi * frequency * time).float()


@pytest.mark.parametrize(("found", "wanted"), ODD)
def test_tone(found, wanted):
    """It stays where it is, and what the new rate cannot hold is gone."""
    inner = slice(wanted // 10, -wanted // 10)
    low = 0.3 * min(found, wanted)
    result = resample(tone(low, found), found, wanted)
    assert (result - tone(low, wanted))[inner].abs().max() < 1e-3
    if wanted < found / 2:
        result = resample(tone(0.7 * wanted, found), found, wanted)
        assert result[inner].abs().max() < 1e-3


def test_usual_rates_are_torchaudio_s():
    """What models were trained on does not change."""
    import torchaudio

    wav = torch.tensor(band(44100, 7000))
    expected = torchaudio.functional.resample(wav, 44100, 16000)
    torch.testing.assert_close(resample(wav, 44100, 16000), expected)


@pytest.mark.parametrize("shape", [(5000,), (2, 5000), (2, 3, 5000)])
def test_leading_axes(shape):
    """Each row on its own, at any kind of rate."""
    wav = torch.rand(shape)
    for found in (44100, 44099):
        result = resample(wav, found, 16000)
        assert result.shape == (*shape[:-1], 1815)
        alone = resample(wav.reshape(-1, 5000)[0], found, 16000)
        assert torch.allclose(result.reshape(-1, 1815)[0], alone, atol=1e-6)


@pytest.mark.parametrize(("found", "wanted"), ODD + [(44100, 16000)])
def test_reach(found, wanted):
    """No sample farther away changes a result."""
    wav = torch.zeros(2 * found)
    wav[found] = 1.0
    changed = resample(wav, found, wanted).nonzero().flatten()
    far = (changed - wanted).abs().max() * found / wanted
    assert far <= reach(found, wanted)


def test_small_tables(monkeypatch):
    """Rounded phases are near enough."""
    wav = torch.tensor(band(16000, 6000))
    expected = resample(wav, 16000, 383999)
    rates._table.cache_clear()
    monkeypatch.setattr(rates, "_MOST_WEIGHTS", 1 << 18)
    found = resample(wav, 16000, 383999)
    rates._table.cache_clear()
    assert (found - expected).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("found", "n"), [(249, 9), (1 << 31, 9), (250, 1 << 26)]
)
def test_refused(found, n):
    """A broken header makes no filter or result that fills the memory."""
    wav = torch.zeros(1).expand(n)
    with pytest.raises(
        LMACError, match=f"x.wav: {n} samples .* from {found} Hz"
    ):
        resample(wav, found, 16000, "x.wav")
