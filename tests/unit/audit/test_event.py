"""Tests of where a clip's loud event is, and of what is left without it."""

import pytest
import torch

from lmac_sb.audit.event import find_event, without_event
from lmac_sb.audit.evidence import spectrogram

RATE = 16000
FEATURES = spectrogram(RATE)


def tone(hertz, n=2 * RATE):
    return torch.sin(2 * torch.pi * hertz * torch.arange(n) / RATE)


def noise(n=2 * RATE):
    return 0.02 * torch.randn(n)


def burst(hertz, n=RATE // 2):
    """A tone that begins and ends softly."""
    return 0.5 * tone(hertz, n) * torch.hann_window(n).clamp(max=0.25) * 4


def seconds(event):
    """Start and end of the first and last frame of an event."""
    places = event.frames.nonzero().flatten()
    hop = FEATURES.hop_samples / RATE
    return places[0].item() * hop, places[-1].item() * hop


def test_the_loud_part_is_found_and_a_hum_below_it_is_not():
    wav = noise() + 0.1 * tone(60)
    wav[RATE // 2 : RATE] += burst(1000)
    event = find_event(wav, FEATURES)
    start, end = seconds(event)
    assert 0.4 <= start <= 0.55 and 0.95 <= end <= 1.1
    hertz = torch.arange(FEATURES.n_bins) * RATE / FEATURES.n_fft
    inside = event.mask[event.frames].mean(0)
    assert inside[(hertz > 980) & (hertz < 1020)].min() > 0.5
    assert inside[hertz < 300].max() < 0.3  # the hum goes on
    assert not event.mask[~event.frames].any()


def test_clicks_are_one_event_and_a_soft_sound_is_none():
    wav = noise()
    for start in range(8000, 16000, 2000):
        wav[start : start + 100] += 0.8
    wav[28000:30000] += 0.05 * tone(3000)[:2000]
    event = find_event(wav, FEATURES)
    start, end = seconds(event)
    assert 0.35 <= start <= 0.5 and 0.88 <= end <= 1.05
    assert event.frames[int(0.5 * RATE / 512) : int(0.88 * RATE / 512)].all()


def test_two_loud_sounds_are_the_event():
    wav = noise()
    for start in (4000, 24000):
        wav[start : start + 4000] += 0.5 * tone(700)[:4000]
    event = find_event(wav, FEATURES)
    start, end = seconds(event)
    assert start < 0.25 and end > 1.7 and event.share < 0.75


def test_a_known_region_is_taken():
    event = find_event(noise() + 0.3 * tone(500), FEATURES, (0.5, 1.0))
    start, end = seconds(event)
    assert start == pytest.approx(0.47, abs=0.05)
    assert end == pytest.approx(1.03, abs=0.05)


def test_without_event_the_rest_is_the_same_and_the_event_is_gone():
    wav = noise() + 0.1 * tone(60)
    wav[RATE // 2 : RATE] += burst(1000)
    event = find_event(wav, FEATURES)
    rest = without_event(wav, event, FEATURES)
    assert rest.shape == wav.shape
    start, end = (round(second * RATE) for second in seconds(event))
    hop = FEATURES.hop_samples
    assert torch.equal(rest[: start - 2 * hop], wav[: start - 2 * hop])
    assert torch.equal(rest[end + 2 * hop :], wav[end + 2 * hop :])
    spectrum = torch.fft.rfft(rest).abs()  # a bin is half a hertz
    assert spectrum[1900:2100].max() < 0.02 * spectrum[115:125].max()
    level = rest[RATE // 2 : RATE].square().mean()
    assert level == pytest.approx(0.1**2 / 2 + 0.02**2, rel=0.3)


@pytest.mark.parametrize("wav", [torch.zeros(RATE), torch.full((RATE,), 0.5)])
def test_silence_has_no_event(wav):
    event = find_event(wav, FEATURES)
    assert event.share < 0.4  # the step at the ends of a constant is a sound
    if not wav.any():
        assert torch.equal(without_event(wav, event, FEATURES), wav)


def test_an_event_as_long_as_the_clip_leaves_no_rest():
    event = find_event(tone(500), FEATURES, (0.0, 2.0))
    assert event.share == 1.0
    assert without_event(tone(500), event, FEATURES) is None


@pytest.mark.parametrize("n", [1600, 1601, 5000])
def test_short_clips(n):
    wav = noise(n)
    wav[n // 2 : n // 2 + 100] += 1.0
    event = find_event(wav, FEATURES)
    rest = without_event(wav, event, FEATURES)
    assert rest is None or rest.shape == wav.shape
