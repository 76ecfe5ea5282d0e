"""Sounds as whole numbers: against Python's whole numbers, and by ear."""

import math
from fractions import Fraction

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data import exact
from lmac_sb.data.active import active_part, loud_place
from lmac_sb.data.exact import power, power_ratio, read_whole
from lmac_sb.utils.errors import LMACError


def write(folder, x, rate, kind="FLOAT"):
    path = folder / "x.wav"
    sf.write(path, x, rate, kind)
    return path


def slow_resampled(whole, found_rate, rate):
    """The same filter by loops over Python's whole numbers, of any size."""
    common = math.gcd(found_rate, rate)
    up, down = rate // common, found_rate // common
    weights = [int(x) for x in exact._weights(max(up, down))]
    middle = len(weights) // 2
    out = []
    for i in range(-(-len(whole) * up // down)):
        total = 0
        for j, x in enumerate(whole):
            place = middle + i * down - j * up
            if 0 <= place < len(weights):
                total += int(x) * up * weights[place]
        out.append(round(Fraction(total, 2**exact._WEIGHT_BITS)))
    return out


@pytest.mark.parametrize(
    "found_rate, rate", [(44100, 16000), (8000, 16000), (48000, 16000)]
)
def test_resampling_is_exact(found_rate, rate):
    rng = np.random.default_rng(0)
    whole = rng.integers(-(2**23), 2**23, 150).astype(float)
    found = exact._resampled(whole, found_rate, rate)
    assert found.tolist() == slow_resampled(whole, found_rate, rate)


def test_no_sum_is_rounded():
    """The largest possible sum of each rate fits into 53 bits."""
    for found_rate in (8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000):
        common = math.gcd(found_rate, 16000)
        up, down = 16000 // common, found_rate // common
        weights = np.abs(exact._weights(max(up, down)))
        largest = max(int(weights[i::up].sum()) for i in range(up))
        assert largest * up * 2**23 < 2**53


@pytest.mark.parametrize(
    "found_rate, largest",
    # Of an odd rate, the weights are many and small, and rounded more.
    [(8000, 5e-5), (22050, 5e-5), (44100, 5e-5), (96000, 5e-5), (44099, 5e-4)],
)
def test_a_tone_stays_a_tone(tmp_path, found_rate, largest):
    t = np.arange(found_rate) / found_rate
    path = write(tmp_path, 0.5 * np.sin(2 * np.pi * 1000 * t), found_rate)
    samples, step = read_whole(path, 16000)
    assert len(samples) == 16000
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    error = step * samples.astype(float) - expected
    assert np.abs(error[1000:-1000]).max() < largest


def test_what_is_above_half_the_rate_goes(tmp_path):
    t = np.arange(44100) / 44100
    path = write(tmp_path, 0.5 * np.sin(2 * np.pi * 9000 * t), 44100)
    samples, step = read_whole(path, 16000)
    assert np.abs(step * samples[1000:-1000]).max() < 5e-5


@pytest.mark.parametrize("level", [1e-4, 0.003, 1.0, 7.0, 1e6])
def test_any_level(tmp_path, level):
    """Whole numbers of the same size, whatever the level is."""
    x = np.random.default_rng(1).uniform(-1, 1, 4000).astype(np.float32)
    samples, step = read_whole(write(tmp_path, level * x, 16000), 16000)
    assert 2**22 <= np.abs(samples).max() <= 2**23
    assert (samples == np.rint(samples)).all() and math.log2(step) % 1 == 0
    np.testing.assert_allclose(step * samples, level * x, atol=level * 3e-7)


@pytest.mark.parametrize(
    "x, rate, message",
    [
        (np.zeros(8000), 16000, "is silent"),
        (np.full(8000, 1e-7), 16000, "is silent"),
        (np.full(8000, 0.5), 16000, "is silent"),
        (np.resize([0.5, 0.50005], 8000), 16000, "is silent"),
        (np.ones(700) / 2, 8000, "0.0875 s long, expected at least 0.1 s"),
        (np.ones(8000) / 2, 3, "found a rate of 3 Hz, expected one from 1000"),
        (np.full(8000, np.inf), 16000, "NaN or infinite"),
    ],
)
def test_what_is_no_sound(tmp_path, x, rate, message):
    with pytest.raises(LMACError, match=f"x.wav: .*{message}"):
        read_whole(write(tmp_path, x, rate), 16000)


def test_power_is_rounded_once():
    x = np.random.default_rng(2).standard_normal(1000) * 2.0**20
    total = sum(Fraction(float(v) * float(v)) for v in x)
    assert power(x) == float(total) / 1000
    assert power(x) == power(x[::-1])


def test_power_ratio():
    for level in np.linspace(-40, 40, 33):
        expected = math.exp(level / 10 * math.log(10))
        assert power_ratio(float(level)) == pytest.approx(expected, rel=1e-12)


# ----------------------------------------------------------------- active parts


@pytest.mark.parametrize("scale", [1.0, 2.0**-12])
def test_active_part_at_any_level(scale):
    """Down to 30 dB below the loudest frame."""
    x = 2.0**20 * np.random.default_rng(3).choice([-1.0, 1.0], 16000)
    gains = np.zeros(16000)
    gains[3200:6400], gains[6400:8000], gains[8000:] = 1, 10**-1.4, 10**-1.6
    assert active_part(np.rint(scale * gains * x), 16000) == (3200, 8000)


def test_loud_places_are_likelier():
    x = np.zeros(16000)
    x[1600:1760], x[8000:8160] = 100, 300
    found = [loud_place(x, 16000, i / 1000) for i in range(1000)]
    assert set(found) == {1600, 8000}
    assert found.count(8000) == pytest.approx(900, abs=2)


@pytest.mark.parametrize("offset", [0.3, -0.6])
def test_an_offset_is_no_sound(offset, tmp_path):
    """The active part is that of the sound, at the sound's own level."""
    rate = 16000
    x = np.zeros(2 * rate)
    t = np.arange(int(0.3 * rate)) / rate
    x[rate : rate + len(t)] = 0.2 * np.sin(2 * np.pi * 500 * t)
    alone = read_whole(write(tmp_path, x, rate), rate)
    found = read_whole(write(tmp_path, x + offset, rate), rate)
    assert active_part(found.samples, rate) == active_part(alone.samples, rate)
    levels = [power(sound.samples * sound.step) for sound in (found, alone)]
    assert levels[0] == pytest.approx(levels[1], rel=1e-4)
    assert np.abs(found.samples).max() <= 2**23


def test_the_mean_of_a_short_sound_stays(tmp_path):
    """Half a period of a low tone has one, and is all sound."""
    x = 0.1 * np.random.default_rng(0).standard_normal(4000) + 0.03
    found = read_whole(write(tmp_path, x, 8000), 8000)
    assert found.samples.mean() * found.step == pytest.approx(
        np.float32(x).mean(), rel=1e-3
    )
