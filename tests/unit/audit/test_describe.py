"""Descriptors against a second, slow writing and sounds of known answers."""

import math
from dataclasses import replace

import pytest
import torch

from lmac_sb.audit.describe import (
    BANDS,
    OF_BANDS,
    TIMES,
    band_edges,
    describe,
    describe_map,
)

RATE = 16000
OTHERS = (
    *("kept_energy", "kept_s", "kept_from", "level_db", "centroid_hz"),
    *("flatness", "modulation_hz", "modulation_depth"),
)
NAMES = {*BANDS, *TIMES, *OF_BANDS, *OTHERS}


def slow_shares(mask, magnitude, times, rate):
    """Shares over bands and times, bin by bin."""
    edges = band_edges(rate)
    bands, kept_bands, parts = [0.0] * 16, [0.0] * 16, [0.0] * 16
    for t, place in enumerate(times.tolist()):
        for f in range(mask.shape[1]):
            hz = f * rate / 2 / (mask.shape[1] - 1)
            band = max(i for i in range(16) if hz >= edges[i])
            energy = float(magnitude[t, f]) ** 2
            kept = float(mask[t, f]) ** 2 * energy
            bands[band] += kept
            kept_bands[band] += energy
            parts[min(15, max(0, int(place * 16)))] += kept
    total = sum(bands)
    ratio = [
        kept / energy if energy else math.nan
        for kept, energy in zip(bands, kept_bands)
    ]
    return [x / total for x in bands], ratio, [x / total for x in parts]


def described(mask, magnitude, times, seconds, rate):
    """Descriptors of a mask on magnitudes."""
    parts = mask * magnitude, (1 - mask) * magnitude, magnitude
    return describe_map(parts, times, seconds, rate)


def slow_modulation(amplitude, hop_s):
    """Strongest rate up to 20 Hz by the definition of the transform."""
    n = len(amplitude)
    best = (math.nan, -1.0)
    for k in range(n // 2 + 1):
        rate = k / (n * hop_s)
        if k < 2 or rate > 20:
            continue
        waves = [2 * math.pi * k * i / n for i in range(n)]
        real = sum(a * math.cos(w) for a, w in zip(amplitude, waves))
        imaginary = sum(a * math.sin(w) for a, w in zip(amplitude, waves))
        depth = 2 * math.hypot(real, imaginary) / sum(amplitude)
        if depth > best[1]:
            best = (rate, depth)
    return best


@pytest.mark.parametrize("shape", [(40, 33), (7, 5), (1, 513)])
def test_shares_are_those_of_the_slow_writing(shape):
    mask, magnitude = torch.rand(shape), torch.rand(shape) * 9
    times = (torch.arange(shape[0]) + 0.5) / shape[0]
    found = described(mask, magnitude, times, 2.0, RATE)
    bands, kept, parts = slow_shares(mask, magnitude, times, RATE)
    for names, expected in ((BANDS, bands), (TIMES, parts), (OF_BANDS, kept)):
        values = [found[name] for name in names]
        assert values == pytest.approx(expected, nan_ok=True, abs=1e-6)
    assert set(found) == NAMES


def test_modulation_is_that_of_the_slow_writing():
    mask = torch.rand(50, 1).expand(50, 9)
    times = torch.arange(50) / 50
    found = described(mask, torch.ones(50, 9), times, 2.0, RATE)
    rate, depth = slow_modulation((mask[:, 0].double() * 3).tolist(), 0.04)
    assert found["modulation_hz"] == pytest.approx(rate)
    assert found["modulation_depth"] == pytest.approx(depth, rel=1e-6)


def test_a_pulsed_tone_is_described():
    """At 1 kHz, in the second half, on and off four times a second."""
    times = torch.arange(200) / 200
    on = (times >= 0.5) & (torch.arange(200) % 25 < 12)
    magnitude = torch.zeros(200, 81)
    magnitude[on, 10] = 1.0
    magnitude[:, 40] = 0.1  # not kept
    mask = torch.zeros(200, 81)
    mask[:, 10] = 1.0
    found = described(mask, magnitude, times, 2.0, RATE)
    assert found["centroid_hz"] == pytest.approx(1000)
    assert found["flatness"] == pytest.approx(1 / 81)
    assert found["kept_from"] == 0.5
    assert found["kept_s"] == pytest.approx(float(on.float().mean()) * 2)
    assert found["modulation_hz"] == pytest.approx(4)
    assert sum(found[name] for name in TIMES[:8]) == 0
    energy = float(on.sum())
    rest = 200 * 0.01
    assert found["level_db"] == pytest.approx(10 * math.log10(energy / rest))
    assert found["kept_energy"] == pytest.approx(energy / (energy + rest))


def test_white_noise_is_flat():
    ones = torch.ones(20, 65)
    found = described(ones, ones, torch.arange(20) / 20, 1.0, RATE)
    assert found["flatness"] == pytest.approx(1)
    assert found["modulation_depth"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_kept_and_silence_are_unknown_but_no_error(value):
    mask = torch.zeros(10, 9)
    magnitude = torch.full((10, 9), value)
    found = described(mask, magnitude, torch.arange(10) / 10, 1.0, RATE)
    assert all(math.isnan(found[name]) for name in BANDS + TIMES)
    assert math.isnan(found["kept_s"]) and math.isnan(found["modulation_hz"])
    assert set(found) == NAMES


def test_a_longer_clip_of_windows_is_described_as_a_whole(interpreter):
    """Sound at its end alone; more frames than a map may have are pooled."""
    rate = interpreter.sample_rate
    wav = torch.zeros(40 * rate)
    wav[-2 * rate :] = torch.randn(2 * rate) / 8
    found = describe(interpreter.explain_batch(wav[None]))
    assert found["seconds"] == 40
    assert found["time_15"] == pytest.approx(1, abs=1e-3)
    assert 0.94 < found["kept_from"] < 0.96
    assert 1.5 < found["kept_s"] < 2.5


def energies(features, *sounds):
    """Energy of each sound's spectrogram."""
    magnitudes = (features.magnitude(features.stft(x)) for x in sounds)
    return [float(x.double().square().sum()) for x in magnitudes]


def test_what_another_mask_keeps_is_what_is_heard(
    interpreter, sounds, monkeypatch
):
    """On log1p, half of a bin is less than half of its magnitude."""
    monkeypatch.setattr(interpreter.explainer, "mask_domain", "log1p")
    clip = interpreter.explain_batch(sounds[:1])
    kept, rest, whole = energies(
        interpreter.explainer.features, clip.waveform, clip.residual, clip.wavs
    )
    found = describe(clip)
    assert found["kept_energy"] == pytest.approx(kept / whole, rel=1e-3)
    level = 10 * math.log10(kept / rest)
    assert found["level_db"] == pytest.approx(level, abs=0.01)
    linear = describe(replace(clip, mask_domain="linear"))
    assert linear["kept_energy"] > 2 * found["kept_energy"]


def test_what_a_linear_mask_keeps_is_its_share_of_each_bin(interpreter, sounds):
    clip = interpreter.explain_batch(sounds[:1])
    features = interpreter.explainer.features
    whole = features.magnitude(features.stft(clip.wavs))[0].double()
    mask = clip.mask[0].double()
    found = describe(clip)
    kept = (mask * whole).square().sum() / whole.square().sum()
    assert found["kept_energy"] == pytest.approx(float(kept), rel=1e-3)
