"""Tests of a clip's picture: the one that matplotlib draws, in less time."""

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lmac_sb.inference.spectra import (
    _PLACES,
    draw_clip,
    levels_of,
    picture_of,
    ticks,
)
from lmac_sb.models.features import SpectralFeatures

RATE = 16000
# Where the spectrograms are, as matplotlib puts them.
BOXES = {(0, 0): (50, 60), (0, 1): (522, 60), (1, 0): (50, 292)}
BOXES[1, 1] = (522, 292)
WIDTH, HEIGHT = 389, 199


def a_clip(sound, kept=None, mask=None, name="dog"):
    """An explained clip, as far as it is drawn."""
    features = SpectralFeatures(n_mels=20)
    n_samples = len(sound)
    kept = sound / 2 if kept is None else kept
    if mask is None:
        n_frames = features.n_frames(n_samples)
        mask = torch.linspace(0, 1, features.n_bins).repeat(n_frames, 1)
    return SimpleNamespace(
        wavs=sound[None],
        waveform=kept[None],
        residual=(sound - kept)[None],
        mask=mask[None],
        features=features,
        n_samples=[n_samples],
        sample_rate=RATE,
        labels=[name],
        judged=["faithful"],
        top=lambda n: [[("dog", 1.0)]],
        **dict.fromkeys(("p_before", "p_inside", "p_outside"), [0.5]),
    )


def pixels(clip, truth=None):
    """What the file shows, [height, width, 3]."""
    data = picture_of(clip, truth, levels_of(clip)[0])
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG" and image.size == (990, 540)
    image.load()  # which looks at its checksums
    return np.asarray(image.convert("RGB")).astype(float)


def sweep(seconds=4.0):
    """A tone that rises from 500 Hz by 1000 Hz a second, and some noise."""
    torch.manual_seed(0)
    time = torch.arange(round(seconds * RATE)) / RATE
    tone = torch.sin(2 * math.pi * (500 * time + 500 * time**2))
    return tone / 2 + torch.randn(len(time)) / 1000


@pytest.mark.parametrize("seconds", [0.2, 4.0, 40.0])
def test_it_looks_as_matplotlib_draws_it(seconds):
    """Seen from a little distance: letters and smoothing differ a bit."""
    clip = a_clip(sweep(min(seconds, 4.0)).repeat(max(1, int(seconds / 4))))
    file = io.BytesIO()
    draw_clip(clip, "cat").savefig(file, dpi=90)
    expected = np.asarray(Image.open(file).convert("RGB")).astype(float)
    found = pixels(clip, "cat")
    few = [
        x[:, :990].reshape(54, 10, 99, 10, 3).mean((1, 3))
        for x in (found, expected)
    ]
    assert np.corrcoef(few[0].ravel(), few[1].ravel())[0, 1] > 0.985
    for left, up in BOXES.values():
        one, other = (
            x[up + 1 : up + HEIGHT - 2, left + 2 : left + WIDTH - 3]
            for x in (found, expected)
        )
        assert abs(one - other).mean() < 16


def test_each_bin_is_at_its_place():
    """A tone of 3 kHz in the second of four seconds."""
    time = torch.arange(4 * RATE) / RATE
    sound = torch.sin(2 * math.pi * 3000 * time) * (time >= 1) * (time < 2)
    bright = pixels(a_clip(sound + torch.randn(4 * RATE) / 1e4)).sum(2)
    left, up = BOXES[_PLACES["original"]]
    seen = bright[up : up + HEIGHT, left : left + WIDTH]
    row = seen.sum(1).argmax()
    assert (HEIGHT - row) / HEIGHT == pytest.approx(3 / 8, abs=0.01)
    columns = np.flatnonzero(seen[row] > 500) / WIDTH
    assert columns[0] == pytest.approx(0.25, abs=0.02)
    assert columns[-1] == pytest.approx(0.5, abs=0.02)


def test_a_mask_over_silence_is_black():
    sound = sweep()
    sound[: len(sound) // 2] = 0
    n_frames = SpectralFeatures(n_mels=20).n_frames(len(sound))
    found = pixels(a_clip(sound, mask=torch.ones(n_frames, 513)))
    left, up = BOXES[_PLACES["mask"]]
    assert found[up : up + HEIGHT, left : left + WIDTH // 2 - 5].max() < 10
    assert (
        found[up : up + HEIGHT, left + WIDTH // 2 + 5 : left + 380].max() > 99
    )


@pytest.mark.parametrize(
    "name", ["", "a\nb", "dog\udce9", "$x_1$", "x" * 999, "собака 犬 كلب"]
)
def test_any_name(name):
    assert pixels(a_clip(sweep(0.2), name=name), name).shape == (540, 990, 3)


def test_what_is_no_number_is_drawn_too():
    sound = sweep(0.2)
    n_frames = SpectralFeatures(n_mels=20).n_frames(len(sound))
    mask = torch.full((n_frames, 513), math.nan)
    pixels(a_clip(sound, kept=sound * math.nan, mask=mask))
    pixels(a_clip(0 * sound, kept=0 * sound))


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 0.1),
        (0, 2),
        (0, 5.001),
        (0, 10800),
        (-79.3, 0.7),
        (0, 1),
        (0, 22.05),
    ],
)
def test_ticks_are_round_and_evenly_spaced(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 7
    values = [value for value, _ in found]
    assert low - 1e-9 <= values[0] and values[-1] <= high + 1e-9
    steps = np.diff(values)
    assert np.allclose(steps, steps[0])
    mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
    assert round(mantissa, 6) in (1, 2, 5)
    for value, text in found:
        assert float(text.replace("\u2212", "-")) == pytest.approx(value)


def test_long_names_leave_room_for_the_verdict():
    """Names are cut, not the line."""
    noise = torch.randn(RATE)
    title = draw_clip(a_clip(noise, name="x" * 200), "y" * 200).get_suptitle()
    assert title.startswith("explained: xxx") and len(title) < 110
    assert title.endswith("y\u2026), faithful")
