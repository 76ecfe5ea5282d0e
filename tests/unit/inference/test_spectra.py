"""Tests of the levels that pictures and maps show."""

import pytest
import torch

from lmac_sb.inference import spectra
from lmac_sb.models.features import SpectralFeatures


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"center": False},
        {"center": False, "pad": 90},
        {"pad_mode": "reflect", "hop_samples": 64},
        {"pad": 300},
        {"hop_samples": 301},
    ],
)
@pytest.mark.parametrize("n_samples", [700, 3 * 64 * 16, 5000])
def test_levels_in_blocks_are_those_of_the_whole(
    settings, n_samples, monkeypatch
):
    """Wherever the frames of a front end lie, also in its padding."""
    settings = {"win_samples": 200, "hop_samples": 90, **settings}
    features = SpectralFeatures(n_fft=256, n_mels=20, **settings)
    sound = torch.rand(n_samples) * 2 - 1
    monkeypatch.setattr(spectra, "_BLOCK", 1024)
    found = spectra._level(sound, features, pool=1)
    magnitude = features.magnitude(features.stft(sound[None]))[0]
    assert found.shape == magnitude.shape
    assert torch.allclose(found, 20 * magnitude.log10(), atol=1e-2)
