"""Tests of the levels that pictures and maps show."""

from types import SimpleNamespace

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


@pytest.mark.parametrize("loud", [True, False])
def test_a_mask_over_silence_is_not_drawn(loud):
    """The picture's mask fades with the level of the input."""
    features = SpectralFeatures(
        n_fft=256, win_samples=200, hop_samples=90, n_mels=20
    )
    sound = torch.zeros(1, 4096)
    if loud:
        sound[:, :2048] = torch.rand(2048) - 0.5
    n_frames = features.n_frames(4096)
    mask = torch.ones(1, n_frames, features.n_bins)
    clip = SimpleNamespace(
        wavs=sound,
        waveform=sound,
        residual=0 * sound,
        mask=mask,
        features=features,
        n_samples=[4096],
        sample_rate=features.sample_rate,
        labels=["dog"],
        judged=["faithful"],
        top=lambda n: [[("dog", 1.0)]],
        **dict.fromkeys(("p_before", "p_inside", "p_outside"), [1.0]),
    )
    figure = spectra.draw_clip(clip)
    places = {axis.get_title().split(",")[0]: axis for axis in figure.axes}
    (image,) = places["mask"].images
    shares = image.get_alpha()
    assert shares[:, -3:].max() == 0
    assert shares[:, : n_frames // 3].mean() > 0.5 if loud else not shares.any()
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels.count("dB") == 3
    assert "mask, darker where it is quiet" in labels
    assert places["residual"].get_xlabel() == "time in s"
    assert places["input"].get_ylabel() == "frequency in kHz"
