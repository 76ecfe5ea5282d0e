"""Tests of the embedded data set and of its ideal masks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from speechbrain.processing.features import STFT

from lmac_sb.data import scenes
from lmac_sb.data.scene_folder import checksum
from lmac_sb.data.scenes import CLASSES, NOISE_SPLITS, make_scenes
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
RATE = 16000
SMALL = {"clips_per_class": 1, "n_folds": 2}


def read_all(folder):
    """Bytes of every file below `folder`, by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_elsewhere(folder, hash_seed="0"):
    """Start another process that makes the small data set."""
    code = "import sys; from lmac_sb.data.scenes import make_scenes; "
    code += "make_scenes(sys.argv[1], clips_per_class=1, n_folds=2)"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONHASHSEED=hash_seed),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of 2 folds and 3 clips of each class in each."""
    folder = tmp_path_factory.mktemp("scenes") / "data"
    return make_scenes(folder, clips_per_class=3, n_folds=2)


@pytest.fixture(scope="module")
def drawn():
    """60 clips of each class: mixture, stem and distractors."""
    kept, out = [], {}
    make = scenes._distractors

    def spy(rng, n, rate, onset, length):
        x = make(rng, n, rate, onset, length)
        kept.append((x, onset, length))
        return x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "_distractors", spy)
        for target in range(len(CLASSES)):
            kept = []
            clips = [
                scenes._make_clip((target, 1, index), 2.0, RATE, 5)
                for index in range(60)
            ]
            out[target] = [a + b for a, b in zip(clips, kept)]
    return out


def test_layout_and_csv(data):
    table = pd.read_csv(data / "meta" / "esc50.csv")
    names = "filename fold target category esc10 src_file take"
    assert list(table.columns) == names.split()
    assert len(CLASSES) == len(set(CLASSES)) == 10
    assert len(table) == table.filename.nunique() == 2 * 3 * 10
    assert table.src_file.nunique() == len(table)
    counts = table.groupby(["fold", "target"]).size()
    assert len(counts) == 20 and (counts == 3).all()
    for name in ("audio", "stems"):
        found = {path.name for path in (data / name).iterdir()}
        assert found == set(table.filename)
    for row in table.itertuples():
        assert row.category == CLASSES[row.target]
        expected = f"{row.fold}-{row.src_file}-{row.take}-{row.target}.wav"
        assert row.filename == expected
        for name in ("audio", "stems"):
            info = sf.info(str(data / name / row.filename))
            assert (info.samplerate, info.channels) == (RATE, 1)
            assert (info.subtype, info.frames) == ("PCM_16", 2 * RATE)


def test_noise_differs_per_split(data):
    seen = set()
    for split, count in NOISE_SPLITS.items():
        paths = sorted((data / "noise" / split).iterdir())
        assert len(paths) == count
        for path in paths:
            x, rate = sf.read(str(path))
            assert rate == RATE and 9 <= len(x) / rate <= 11
            assert 0.3 <= np.abs(x).max() <= 0.71
            # no second of it is silent: it can be mixed at a stated SNR
            blocks = x[: len(x) // rate * rate].reshape(-1, rate)
            assert np.sqrt((blocks**2).mean(1)).min() > 1e-3
            seen.add(path.read_bytes())
    assert len(seen) == sum(NOISE_SPLITS.values())


def test_files_are_the_drawn_signals(data):
    """Mixture and stem are on one scale, rounded once each."""
    for path in (data / "audio").iterdir():
        fold, number, _, target = path.stem.split("-")
        place = int(target), int(fold), int(number[-4:])
        mixture, stem = scenes._make_clip(place, 2.0, RATE, 0)
        for name, x in (("audio", mixture), ("stems", stem)):
            found, _ = sf.read(str(data / name / path.name))
            assert np.abs(found - x).max() <= 0.5 / 32768 + 1e-12
        assert 0.4 <= np.abs(mixture).max() <= 0.951


def test_same_bytes_in_another_process(tmp_path):
    make_scenes(tmp_path / "a", **SMALL)
    assert write_elsewhere(tmp_path / "b", hash_seed="7").wait() == 0
    here, there = read_all(tmp_path / "a"), read_all(tmp_path / "b")
    assert len(here) == 2 * 20 + sum(NOISE_SPLITS.values()) + 2
    assert here == there
    make_scenes(tmp_path / "c", seed=1, **SMALL)
    other = read_all(tmp_path / "c")
    sounds = [name for name in here if name.endswith(".wav")]
    assert all(here[name] != other[name] for name in sounds)


def test_clip_does_not_depend_on_the_others(data, tmp_path):
    few = read_all(make_scenes(tmp_path / "few", **SMALL))
    many = read_all(data)
    sounds = [name for name in few if name.endswith(".wav")]
    assert all(few[name] == many[name] for name in sounds)
    assert len(set(many.values())) == len(many)


def test_stem_is_one_event_and_the_rest_is_everywhere(drawn):
    for clips in drawn.values():
        for mixture, stem, _, onset, length in clips:
            inside = slice(onset, onset + length)
            outside = np.delete(stem, np.arange(2 * RATE)[inside])
            assert not outside.any()
            assert 0.4 * RATE <= length <= RATE + 1
            assert onset >= 0.09 * RATE
            assert onset + length <= 1.91 * RATE
            rest = (mixture - stem).reshape(20, -1)
            assert (np.abs(rest).max(1) > 0.001).all()
            # audible: the event's peak is far above the noise level
            noise = np.median(np.abs(rest)) / 0.6745
            assert np.abs(stem).max() > 10 ** (15 / 20) * noise


def test_distractors_explain_nothing(drawn):
    """Distractors have the same statistics in every class."""
    rates, levels = [], []
    for clips in drawn.values():
        rates.append(np.mean([x.any() for _, _, x, _, _ in clips]))
        rest = [mixture - stem for mixture, stem, *_ in clips]
        levels.append([10 * np.log10((x**2).mean()) for x in rest])
        for _, _, x, onset, length in clips:
            runs = np.flatnonzero(np.abs(x) > 0)
            within = (runs >= onset) & (runs < onset + length)
            if len(runs):
                assert within.mean() <= 0.51
    # 3/4 of the clips have a beep or a knock, within 4.5 standard errors
    assert np.abs(np.array(rates) - 0.75).max() < 4.5 * np.sqrt(3 / 16 / 60)
    levels = np.array(levels)
    error = levels.std() / np.sqrt(60)
    assert np.abs(levels.mean(1) - levels.mean()).max() < 4.5 * error


def loudest_frequencies(stem, onset, length):
    """Loudest frequency of the first and the last fifth of the event."""
    part = length // 5
    found = []
    for start in (onset, onset + length - part):
        spectrum = np.abs(np.fft.rfft(stem[start : start + part], RATE))
        found.append(np.argmax(spectrum))
    return found


@pytest.mark.parametrize("name, sign", [("sweep_up", 1), ("sweep_down", -1)])
def test_sweeps_go_their_way(drawn, name, sign):
    for _, stem, _, onset, length in drawn[CLASSES.index(name)]:
        first, last = loudest_frequencies(stem, onset, length)
        assert sign * np.log2(last / first) > 1


@pytest.mark.parametrize(
    "name, low, high", [("low_band", 140, 1000), ("high_band", 3490, 7010)]
)
def test_bands_hold_their_energy(drawn, name, low, high):
    for _, stem, *_ in drawn[CLASSES.index(name)]:
        power = np.abs(np.fft.rfft(stem)) ** 2
        hertz = np.fft.rfftfreq(len(stem), 1 / RATE)
        inside = (hertz >= low) & (hertz <= high)
        assert power[inside].sum() > 0.98 * power.sum()


def test_click_distances(monkeypatch):
    """Distances are equal in a click train, and shrink in a bounce."""
    kept = []
    clicks = scenes._clicks

    def spy(rng, n, rate, times, levels):
        kept.append(np.diff(times))
        assert 0 <= min(times) and max(times) * rate < n
        return clicks(rng, n, rate, times, levels)

    monkeypatch.setattr(scenes, "_clicks", spy)
    for index in range(30):
        for name in ("click_train", "bounce"):
            scenes._make_clip((CLASSES.index(name), 1, index), 2.0, RATE, 0)
    for train, bounce in zip(kept[::2], kept[1::2]):
        assert min(len(train), len(bounce)) >= 3
        assert np.allclose(train, train[0])
        assert (bounce[1:] < 0.85 * bounce[:-1]).all()


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_noise_slope(slope):
    rng = np.random.default_rng(0)
    x = scenes._coloured_noise(rng, 2**17, RATE, slope)
    assert np.mean(x**2) == pytest.approx(1)
    power = np.abs(np.fft.rfft(x)) ** 2
    hertz = np.fft.rfftfreq(len(x), 1 / RATE)
    edges = np.geomspace(100, 7000, 12)
    bands = [
        power[(hertz >= low) & (hertz < high)].mean()
        for low, high in zip(edges[:-1], edges[1:])
    ]
    centres = np.sqrt(edges[:-1] * edges[1:])
    fit = np.polyfit(np.log(centres), np.log(bands), 1)[0]
    assert fit == pytest.approx(-slope, abs=0.1)


def test_other_duration(tmp_path):
    folder = make_scenes(tmp_path / "a", 1, 1, duration_s=1.5, seed=3)
    for path in (folder / "stems").iterdir():
        x, rate = sf.read(str(path))
        assert (len(x), rate) == (24000, 16000) and x.any()


# one folder, made once


def test_finished_folder_is_reused(tmp_path):
    make_scenes(tmp_path / "a", **SMALL)
    path = tmp_path / "a" / "scenes.json"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    make_scenes(str(tmp_path / "a"), duration_s=2, **SMALL)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_empty_folder_and_link_are_filled(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert make_scenes(tmp_path / "b", **SMALL) == tmp_path / "b"
    assert (tmp_path / "a" / "scenes.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize(
    "key, value",
    [
        ("clips_per_class", 2),
        ("n_folds", 3),
        ("duration_s", 1.5),
        ("seed", 4),
    ],
)
def test_other_setting_is_named(data, key, value):
    settings = {"clips_per_class": 3, "n_folds": 2, key: value}
    with pytest.raises(LMACError, match=f"{data}.*expected {key}={value}"):
        make_scenes(data, **settings)


def test_other_version_is_named(data, monkeypatch):
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    with pytest.raises(LMACError, match="version=1, expected version=2"):
        make_scenes(data, clips_per_class=3, n_folds=2)


def test_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(LMACError, match="no scenes.json"):
        make_scenes(tmp_path, **SMALL)
    with pytest.raises(LMACError, match="mine.txt: found a file"):
        make_scenes(tmp_path / "mine.txt", **SMALL)
    with pytest.raises(LMACError, match="cannot be written"):
        make_scenes(tmp_path / "mine.txt" / "a", **SMALL)
    assert read_all(tmp_path) == {"mine.txt": b"keep"}


def test_changed_folder_is_told(tmp_path):
    folder = make_scenes(tmp_path / "a", **SMALL)
    sound = next((folder / "stems").iterdir())
    content = sound.read_bytes()
    sound.write_bytes(content[:-2])
    with pytest.raises(LMACError, match="changed"):
        make_scenes(folder, **SMALL)
    sound.unlink()
    with pytest.raises(LMACError, match="changed"):
        make_scenes(folder, **SMALL)
    sound.write_bytes(content)
    make_scenes(folder, **SMALL)
    (folder / "meta" / "esc50.csv").unlink()
    with pytest.raises(LMACError, match="changed"):
        make_scenes(folder, **SMALL)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"settings": 1}'])
def test_broken_information_is_told(tmp_path, text):
    (tmp_path / "scenes.json").write_text(text)
    with pytest.raises(LMACError, match="no settings, version and sha256"):
        make_scenes(tmp_path, **SMALL)


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_nothing_half_written_is_left(tmp_path, monkeypatch, error):
    count = []

    def fail(path, x, rate):
        count.append(path)
        if len(count) == 5:
            raise error

    monkeypatch.setattr(scenes, "write_wav", fail)
    with pytest.raises((LMACError, KeyboardInterrupt)):
        make_scenes(tmp_path / "a", **SMALL)
    assert len(count) == 5 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("same", [True, False])
def test_another_process_finishes_first(tmp_path, monkeypatch, same):
    write = scenes._write

    def late(folder, settings):
        monkeypatch.setattr(scenes, "_write", write)
        make_scenes(tmp_path / "a", seed=0 if same else 1, **SMALL)
        write(folder, settings)

    monkeypatch.setattr(scenes, "_write", late)
    if same:
        make_scenes(tmp_path / "a", **SMALL)
    else:
        with pytest.raises(LMACError, match="seed=1, expected seed=0"):
            make_scenes(tmp_path / "a", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    info = json.loads((tmp_path / "a" / "scenes.json").read_text())
    assert info["sha256"] == checksum(tmp_path / "a")


def test_two_processes_at_once(tmp_path):
    jobs = [write_elsewhere(tmp_path / "a") for _ in range(2)]
    assert [job.wait() for job in jobs] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    make_scenes(tmp_path / "a", **SMALL)


@pytest.mark.parametrize(
    "key, value",
    [
        ("clips_per_class", 0),
        ("clips_per_class", 1.5),
        ("clips_per_class", True),
        ("n_folds", 0),
        ("duration_s", 0.9),
        ("duration_s", float("nan")),
        ("duration_s", "2"),
        ("duration_s", True),
        ("seed", -1),
        ("seed", None),
    ],
)
def test_bad_arguments(tmp_path, key, value):
    with pytest.raises(LMACError, match=f"{key}: found {value!r}, expected"):
        make_scenes(tmp_path / "a", **{key: value})
    assert not list(tmp_path.iterdir())


# ideal mask


def slow_ideal_mask(stem, mixture):
    """Second implementation, bin by bin, with complex numbers."""
    out = np.zeros(stem.shape[:-1])
    for clip in range(len(stem)):
        a = stem[clip, ..., 0] + 1j * stem[clip, ..., 1]
        b = mixture[clip, ..., 0] + 1j * mixture[clip, ..., 1]
        for t in range(a.shape[0]):
            for f in range(a.shape[1]):
                above = abs(a[t, f]) > abs(b[t, f] - a[t, f])
                loud = abs(a[t, f]) > abs(a).max() / 1000
                out[clip, t, f] = above and loud
    return out


def test_ideal_mask_against_loops():
    size = (3, 7, 9)
    level = 10 ** (-5 * torch.rand(*size, 1))
    level[1] *= 100  # the floor is each clip's own
    stem = level * torch.randn(*size, 2)
    mixture = stem + 10 ** (-5 * torch.rand(*size, 1)) * torch.randn(*size, 2)
    expected = slow_ideal_mask(stem.double().numpy(), mixture.double().numpy())
    found = ideal_mask(stem.double(), mixture.double())
    assert np.array_equal(found.numpy(), expected)
    assert 0.1 < expected.mean() < 0.9
    assert ideal_mask(stem, mixture).dtype == torch.float32
    one = ideal_mask(stem[1], mixture[1])
    assert torch.equal(one, ideal_mask(stem, mixture)[1])


def test_ideal_mask_of_event_alone_and_of_silence():
    stem = torch.randn(2, 5, 6, 2)
    stem[0, 1] *= 1e-5
    mask = ideal_mask(stem, stem)
    assert (mask[0, 1] == 0).all()
    mask[0, 1] = 1
    assert (mask == 1).all()
    assert (ideal_mask(0 * stem, stem) == 0).all()
    assert (ideal_mask(0 * stem, 0 * stem) == 0).all()


def test_ideal_mask_on_scenes(data):
    """The mask keeps the energy of the event and drops the rest."""
    stft = STFT(RATE, n_fft=1024, hop_length=11.625, win_length=23.25)
    names = sorted(path.name for path in (data / "audio").iterdir())[::3]
    parts = []
    for name in ("stems", "audio"):
        x = [sf.read(str(data / name / file))[0] for file in names]
        parts.append(torch.tensor(np.stack(x), dtype=torch.float32))
    stem, mixture = (stft(x) for x in parts)
    mask = ideal_mask(stem, mixture)
    assert mask.shape == (len(names), 173, 513)
    event = stem.square().sum(-1)
    rest = (mixture - stem).square().sum(-1)
    assert ((event * mask).sum((1, 2)) > 0.9 * event.sum((1, 2))).all()
    assert ((rest * mask).sum((1, 2)) < 0.2 * event.sum((1, 2))).all()
    assert (mask.mean((1, 2)) > 0.002).all()
    assert (mask.mean((1, 2)) < 0.3).all()
    for wave, clip in zip(parts[0], mask):
        sounding = torch.nonzero(wave)
        first, last = sounding[0] // 186 - 3, sounding[-1] // 186 + 3
        assert clip[:first].sum() == 0 and clip[last:].sum() == 0


@pytest.mark.parametrize(
    "stem, mixture",
    [((2, 4, 5, 2), (2, 4, 6, 2)), ((2, 4, 5), (2, 4, 5)), ((5, 2), (5, 2))],
)
def test_ideal_mask_names_both_shapes(stem, mixture):
    with pytest.raises(LMACError) as caught:
        ideal_mask(torch.zeros(stem), torch.zeros(mixture))
    assert str(stem) in str(caught.value) and str(mixture) in str(caught.value)
