"""Tests of the evaluation's settings."""

import csv
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data.audio import Preprocessor, normalize_peak
from lmac_sb.data.noise import NoiseMixer
from lmac_sb.evaluation.contamination import (
    KINDS,
    Clean,
    Kind,
    Mixture,
    Noise,
    Speech,
    WhiteNoise,
    make_settings,
)
from lmac_sb.utils.errors import LMACError

RATE = 8000
ROOT = Path(__file__).resolve().parents[3]
CLASSES = {"41": "saw", "0": "dog", "1": "rooster"}
SPECS = [
    "clean",
    "noise 0 dB",
    "white 5 dB",
    "white paper",
    "speech -3 dB",
    "speech paper",
    "mixture 0 dB",
    "mixture paper",
    "same-class mixture 0 dB",
    "any-class mixture 0 dB",
]


def write(path, wav, rate=RATE):
    """Write a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wav, rate, subtype="FLOAT")
    return str(path)


def make_data(folder):
    """Noise, speech and the manifest of a split.

    Each class has three recordings, the first of them with two takes. The
    n-th clip is a tone of n + 1 times 200 Hz, which tells it from the others.
    """
    rng = np.random.default_rng(0)
    for index, seconds in enumerate((2.0, 0.5)):
        wav = rng.normal(0, 0.1, int(seconds * RATE))
        write(folder / "noise" / "tt" / f"n{index}.wav", wav)
    # Resampled, and of lengths at which the number of threads matters.
    for index, seconds in enumerate((3.0, 0.4, 1.5)):
        wav = rng.normal(0, 0.1, int(seconds * 11025))
        write(folder / "LJ" / "wavs" / f"LJ{index}.flac.wav", wav, 11025)
    entries = {}
    for target, label in CLASSES.items():
        for take in ("100-A", "100-B", "101-A", "102-A"):
            clip_id = f"4-{target}{take}-{target}"
            time = np.arange(rng.integers(RATE // 2, 2 * RATE)) / RATE
            wav = np.sin(2 * np.pi * 200 * (len(entries) + 1) * time)
            path = write(folder / "audio" / f"{clip_id}.wav", wav)
            entries[clip_id] = {"wav": path, "class_string": label}
    return entries


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder and manifest; only read them."""
    folder = tmp_path_factory.mktemp("data")
    return folder, make_data(folder)


def settings_of(data, specs=SPECS, **more):
    """Settings on the random data."""
    folder, entries = data
    folders = {
        "wham_folder": folder / "noise",
        "speech_folder": folder / "LJ",
    }
    folders.update(more.pop("folders", {}))
    return make_settings(specs, entries, RATE, folders=folders, **more)


def hash_all(folder, entries, reverse=False):
    """Checksum of each clip in each setting, however the clips are visited."""
    clips = sorted(entries, reverse=reverse)
    preprocess = Preprocessor(RATE)
    settings = settings_of((Path(folder), entries))
    hashes = {}
    for setting in settings[::-1] if reverse else settings:
        for clip_id in clips:
            wav, _ = preprocess(entries[clip_id]["wav"])
            *pair, gain = setting(wav, clip_id)
            content = b"".join(wav.numpy().tobytes() for wav in pair)
            content += str(gain).encode()
            digest = hashlib.sha256(content).hexdigest()
            hashes[f"{setting.name} {clip_id}"] = digest
    return hashes


def clip(n_samples=RATE):
    """A clip with a peak of one."""
    return normalize_peak(torch.randn(n_samples))[0]


def measured_snr(mixture, clean):
    """The ratio in dB, computed from sums."""
    mixture, clean = mixture.tolist(), clean.tolist()
    signal = sum(x**2 for x in clean)
    noise = sum((m - c) ** 2 for m, c in zip(mixture, clean))
    return 10 * math.log10(signal / noise)


# ------------------------------------------------------------ level and peak


@pytest.mark.parametrize("snr_db", [-20, -5.0, 0, 12.5])
@pytest.mark.parametrize(
    "kind", ["noise", "white", "speech", "mixture", "same-class mixture"]
)
def test_ratio_peak_and_clean_part(data, kind, snr_db):
    """Mixtures have the stated ratio and a peak of one; clean has its gain."""
    (setting,) = settings_of(data, [f"{kind} {snr_db} dB"])
    wav = clip()
    mixture, clean, gain = setting(wav, "4-41101-A-41")
    assert mixture.shape == clean.shape == wav.shape
    assert mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)
    assert measured_snr(mixture, clean) == pytest.approx(snr_db, abs=0.01)
    assert gain == pytest.approx(clean.abs().max().item(), abs=1e-6)
    assert torch.allclose(clean, gain * wav, atol=1e-6)
    # So that a clean part with gain one would be noticed.
    assert gain < 0.999 or snr_db > 0


@pytest.mark.parametrize(
    "kind, weights",
    [
        ("white", (1.0, 0.5)),
        ("speech", (0.8, 0.2)),
        ("mixture", (0.8, 0.2)),
        ("same-class mixture", (0.8, 0.2)),
        ("any-class mixture", (0.8, 0.2)),
    ],
)
def test_paper_form(data, kind, weights):
    """Mixtures equal the paper's formula, written out here."""
    paper, at_0_db = settings_of(data, [f"{kind} paper", f"{kind} 0 dB"])
    wav = clip()
    mixture, clean, _ = at_0_db(wav, "4-0101-A-0")
    other = (mixture - clean).double().tolist()  # the same at any level
    x = wav.double().tolist()
    norm_x = math.sqrt(sum(value**2 for value in x))
    norm_other = math.sqrt(sum(value**2 for value in other))
    first = [weights[0] * value / norm_x for value in x]
    second = [weights[1] * value / norm_other for value in other]
    both = [a + b for a, b in zip(first, second)]
    peak = max(abs(value) for value in both)
    found, found_clean, _ = paper(wav, "4-0101-A-0")
    for ours, wanted in ((found, both), (found_clean, first)):
        wanted = torch.tensor([value / peak for value in wanted])
        assert torch.allclose(ours, wanted, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_polarity_plays_no_part_in_the_level(data, spec):
    """The peak is the largest absolute value, also of a negative sample."""
    (setting,) = settings_of(data, [spec])
    wav = torch.rand(RATE) - 1  # its peaks are negative
    wav /= wav.abs().max()
    mixture, *_ = setting(wav, "4-1101-A-1")
    assert mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("spec", SPECS)
def test_silent_clip(data, spec):
    """A silent clip comes back unchanged, as new tensors, and not as NaN."""
    (setting,) = settings_of(data, [spec])
    wav = torch.zeros(800)
    *pair, gain = setting(wav, "4-1101-A-1")
    assert gain == 1
    for found in pair:
        assert torch.equal(found, wav)
    pair[0][0] = 1.0
    assert not wav.any() and not pair[1].any()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "wav, found",
    [
        (torch.ones(0), r"torch.float32 of shape \[0\]"),
        (torch.ones(2, 800), r"torch.float32 of shape \[2, 800\]"),
        (torch.ones(800).int(), "torch.int32"),
        (torch.tensor([0.5, float("nan")]), "NaN or infinite"),
        (torch.tensor([0.5, float("inf")]), "NaN or infinite"),
    ],
)
def test_bad_clip(data, spec, wav, found):
    """The message has the clip and what is wrong with it."""
    (setting,) = settings_of(data, [spec])
    with pytest.raises(LMACError, match=f"clip 4-1101-A-1: .*{found}"):
        setting(wav, "4-1101-A-1")


def test_clean():
    """The clip is unchanged, bit by bit."""
    wav = clip()
    mixture, clean, gain = Clean()(wav, "a")
    assert torch.equal(mixture, wav) and torch.equal(clean, wav)
    assert gain == 1


# -------------------------------------------------------------- reproducible


def test_visits_process_and_threads_play_no_part(data):
    """Any order, process and number of threads gives the same bits."""
    folder, entries = data
    here = hash_all(folder, entries)
    assert len(set(here.values())) == len(here) == 10 * 12
    code = (
        "import json, random, sys, numpy, torch;"
        "sys.path[:0] = sys.argv[2:];"
        "from test_contamination import hash_all;"
        "torch.set_num_threads(3);"
        "entries = json.load(sys.stdin);"
        "[library.seed(5) for library in (random, numpy.random)];"
        "torch.manual_seed(5);"
        "print(json.dumps(hash_all(sys.argv[1], entries, reverse=True)))"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", code, str(folder)),
            *(str(ROOT), str(Path(__file__).parent)),
        ],
        # The order of the manifest does not matter either.
        input=json.dumps(dict(reversed(list(entries.items())))),
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == here


class Mixed(torch.utils.data.Dataset):
    """Data set of one setting on the same clip with several ids."""

    def __init__(self, setting, ids, wav):
        self.setting, self.ids, self.wav = setting, ids, wav

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.setting(self.wav, self.ids[index])[0]


@pytest.mark.parametrize("spec", ["noise 0 dB", "speech 0 dB", "mixture 0 dB"])
def test_workers_and_batch_size_play_no_part(data, spec):
    """Workers of a loader give the same bits."""
    (setting,) = settings_of(data, [spec])
    mixed = Mixed(setting, sorted(data[1]), clip())
    loaders = [
        torch.utils.data.DataLoader(mixed, batch_size, num_workers=workers)
        for batch_size, workers in ((1, 0), (5, 2))
    ]
    alone, together = (torch.cat(list(loader)) for loader in loaders)
    assert torch.equal(alone, together)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec != "clean"])
def test_seed_and_id_choose_the_second_sound(data, spec):
    """Draws depend on the seed and the clip's id; a copy gives the same."""
    (setting,) = settings_of(data, [spec])
    (other,) = settings_of(data, [spec], seed=1)
    wav = clip()
    ids = sorted(data[1])
    first = [setting(wav, clip_id)[0] for clip_id in ids]
    again = pickle.loads(pickle.dumps(setting))
    assert all(map(torch.equal, first, [again(wav, c)[0] for c in ids]))
    assert not any(map(torch.equal, first, [other(wav, c)[0] for c in ids]))
    assert not any(map(torch.equal, first[1:], first))


@pytest.mark.parametrize("kind", ["noise", "white", "speech", "mixture"])
def test_levels_share_one_draw(data, kind):
    """A table over SNRs compares levels, not draws."""
    pair = settings_of(data, [f"{kind} 10 dB", f"{kind} -5 dB"])
    wav = clip()
    noises = []
    for setting in pair:
        mixture, clean, _ = setting(wav, "4-1101-A-1")
        noise = (mixture - clean).double()
        noises.append(noise / noise.norm())
    assert torch.dot(*noises).item() == pytest.approx(1.0, abs=1e-6)


# ---------------------------------------------------------- the second sound


def test_noise_is_that_of_the_mixer(data):
    """The same draw as in a run's own test, for the same seed."""
    folder = data[0] / "noise"
    wav = clip()
    mixture, clean, _ = Noise(folder, "tt", RATE, 3.0, seed=7)(wav, "a")
    wanted = NoiseMixer(folder, "tt", RATE, 3.0, seed=7)(wav, "a")
    assert torch.equal(mixture, wanted[0])
    assert torch.equal(clean, wanted[1])


def test_white_noise_is_white_and_gaussian():
    """Flat spectrum, moments of a normal distribution."""
    wav = torch.zeros(100000)
    wav[0] = 1.0
    mixture, clean, _ = WhiteNoise(snr_db=-60)(wav, "a")
    noise = (mixture - clean).double()
    noise /= noise.square().mean().sqrt()
    assert noise.mean().abs() < 0.02
    assert noise.pow(4).mean().item() == pytest.approx(3.0, abs=0.1)
    power = torch.fft.rfft(noise)[1:].abs().square()
    bands = torch.stack([band.mean() for band in power.chunk(10)])
    assert (bands / power.mean() - 1).abs().max() < 0.06


def second_of(setting, entries, clip_id):
    """Id of the clip that was mixed in, found by its tone."""
    mixture, clean, _ = setting(clip(RATE), clip_id)
    tone = torch.fft.rfft(mixture - clean).abs().argmax().item()
    return list(entries)[round(tone / 200) - 1]


@pytest.mark.parametrize("classes", ["other", "same", "any"])
def test_second_clip(data, classes):
    """A second clip has another recording, and the requested class."""
    entries = data[1]
    name = {"other": "", "same": "same-class ", "any": "any-class "}[classes]
    recordings = {clip_id: clip_id.split("-")[1] for clip_id in entries}
    labels = {clip_id: entries[clip_id]["class_string"] for clip_id in entries}
    kept, drawn = set(), set()
    for seed in range(6):
        setting = Mixture(entries, RATE, classes, snr_db=-60, seed=seed)
        assert setting.name == f"{name}mixture -60 dB"
        for clip_id in entries:
            found = second_of(setting, entries, clip_id)
            assert recordings[found] != recordings[clip_id]
            kept.add(labels[found] == labels[clip_id])
            drawn.add(found)
    wanted = {"other": {False}, "same": {True}, "any": {True, False}}
    assert kept == wanted[classes]
    assert drawn == set(entries)  # each of them is drawn at some point


def test_other_names_are_recordings_of_their_own(data):
    """Only names as in ESC-50 mark takes of one recording."""
    wav = next(iter(data[1].values()))["wav"]
    entries = {
        name: {"wav": wav, "class_string": "x"} for name in ("a-1-b", "a-1-c")
    }
    setting = Mixture(entries, RATE, "same", snr_db=0)
    assert setting.candidates("a-1-b") == ["a-1-c"]


def ramp_places(tmp_path, seconds):
    """Places of excerpts for many clips, from one file with a ramp."""
    n_samples = int(seconds * RATE)
    write(tmp_path / "s.wav", np.linspace(0.1, 0.9, n_samples))
    setting = Speech(tmp_path, RATE, snr_db=0.0)
    for index in range(200):
        mixture, clean, _ = setting(clip(), str(index))
        yield mixture - clean


def test_long_sounds_are_cut_at_a_drawn_place(tmp_path):
    """Excerpts may start anywhere and reach the last sample."""
    starts = []
    for noise in ramp_places(tmp_path, 2.0):
        # On the ramp, the ratio of the ends gives the place.
        first = 0.8 * (RATE - 1) / (noise[-1] / noise[0] - 1)
        starts.append((first.item() / (2 * RATE - 1) - 0.1) / 0.8 * 2)
    assert -0.01 < min(starts) < 0.05 and 0.95 < max(starts) < 1.01
    assert 0.4 < np.mean(starts) < 0.6


def test_short_sounds_lie_in_silence(tmp_path):
    """A short sound appears once, complete, at a random place."""
    starts = []
    for noise in ramp_places(tmp_path, 0.25):
        loud = torch.nonzero(noise.abs() > 1e-3 * noise.abs().max())
        assert loud[-1] - loud[0] + 1 == len(loud) == RATE // 4
        starts.append(loud[0].item() / RATE)
    assert min(starts) < 0.05 and 0.7 < max(starts) <= 0.75
    assert 0.3 < np.mean(starts) < 0.45


@pytest.mark.parametrize("rate", [4000, 11025, 44100])
def test_rates_and_channels(tmp_path, rate):
    """A second sound at another rate keeps its pitch; stereo becomes mono."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    write(tmp_path / "s.wav", np.stack([tone, tone / 2], axis=1), rate)
    mixture, clean, _ = Speech(tmp_path, RATE, snr_db=0.0)(clip(), "a")
    spectrum = torch.fft.rfft(mixture - clean).abs()
    assert spectrum.argmax().item() == 440  # Hz, as the clip lasts a second


def test_speech_folder_is_searched_in_a_fixed_order(tmp_path, monkeypatch):
    """wav, flac and Ogg files at any depth are used in sorted order."""
    wav = np.random.default_rng(0).normal(0, 0.1, RATE)
    names = ["b.WAV", "a/z.flac", "a/b/c.ogg", "a.wav"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / name, wav, RATE)
    (tmp_path / "transcripts.txt").write_text("no audio")
    (tmp_path / "folder.wav").mkdir()
    wanted = [str(tmp_path / name) for name in sorted(names)]
    assert Speech(tmp_path, RATE, snr_db=0).files == wanted
    listed = sorted(tmp_path.rglob("*"), reverse=True)
    monkeypatch.setattr(Path, "rglob", lambda *_: listed)
    assert Speech(tmp_path, RATE, snr_db=0).files == wanted


# ----------------------------------------------------------------- bad input


def test_silent_sounds_are_drawn_again(tmp_path):
    """Silence would give NaN or a clean clip, so it is drawn again."""
    loud = np.random.default_rng(0).normal(0, 0.1, RATE)
    write(tmp_path / "half.wav", np.concatenate([0 * loud, 0 * loud, loud]))
    write(tmp_path / "none.wav", 0 * loud)
    setting = Speech(tmp_path, RATE, snr_db=0)
    for index in range(50):
        mixture, clean, _ = setting(clip(800), str(index))
        assert measured_snr(mixture, clean) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("spec", ["noise 0 dB", "speech 0 dB", "mixture 0 dB"])
@pytest.mark.parametrize(
    "content, message",
    [
        (np.full(2 * RATE, 1e-7), "all silent"),
        (np.full(2 * RATE, np.nan), "NaN"),
        (np.ones(RATE // 20), "0.0500 s long, expected at least 0.1 s"),
        (np.ones(0), "0.0000 s long|holds no samples"),
        (None, "cannot be read"),
    ],
)
def test_useless_recordings(tmp_path, spec, content, message):
    """One message that names the file."""
    entries = {}
    for place in ("noise/tt", "LJ", "audio"):
        path = tmp_path / place / "bad.wav"
        write(path, np.ones(2 * RATE) if content is None else content)
        if content is None:
            path.write_bytes(b"no audio")
        for name in ("a", "b"):
            entries[name] = {"wav": str(path), "class_string": name}
    with pytest.raises(LMACError, match=f"bad.wav: .*({message})"):
        settings_of((tmp_path, entries), [spec])[0](clip(), "a")


@pytest.mark.parametrize(
    "snr_db", [float("nan"), float("inf"), 101, -1e4, "0", True]
)
def test_bad_ratio(data, snr_db):
    """A ratio that is not a number or too extreme is refused."""
    for make in (
        lambda: WhiteNoise(snr_db=snr_db),
        lambda: Noise(data[0] / "noise", "tt", RATE, snr_db),
    ):
        with pytest.raises(LMACError, match="snr_db: .* from -100 to 100 dB"):
            make()


@pytest.mark.parametrize("level", [{}, {"snr_db": 0, "paper": True}])
def test_exactly_one_level_is_accepted(level):
    """Both levels, and none, are refused."""
    with pytest.raises(LMACError, match="white: .*either an SNR"):
        WhiteNoise(**level)


def test_bad_mixtures(data):
    """Unusable entries are refused before the first clip."""
    entries = data[1]
    message = "'none', expected one of other, same, any"
    with pytest.raises(LMACError, match=message):
        Mixture(entries, RATE, "none", snr_db=0)
    with pytest.raises(LMACError, match="clip new is not among the 12 clips"):
        Mixture(entries, RATE, snr_db=0)(clip(), "new")
    with pytest.raises(LMACError, match="manifest without clips"):
        Mixture({}, RATE, snr_db=0)
    lacking = {**entries, "b": {"wav": "b.wav"}}
    with pytest.raises(LMACError, match="clip b: .* no class_string"):
        Mixture(lacking, RATE, snr_db=0)


def test_class_without_a_second_clip(data):
    """The message names the clip; another take does not count."""
    entries = {
        clip_id: entry
        for clip_id, entry in data[1].items()
        if entry["class_string"] != "dog" or "100" in clip_id
    }
    with pytest.raises(
        LMACError, match=r"clip 4-0100-A-0 \(class 'dog'\) .*same class"
    ):
        Mixture(entries, RATE, "same", snr_db=0)
    for classes in ("other", "any"):
        Mixture(entries, RATE, classes, snr_db=0)
    dogs = {name: entries[name] for name in entries if name[:4] == "4-01"}
    for classes in ("same", "other", "any"):
        with pytest.raises(LMACError, match=f"clip 4-0100-A-0 .*{classes}"):
            Mixture(dogs, RATE, classes, snr_db=0)


# ------------------------------------------------------------- make_settings


def test_names(data):
    """Settings have the names in tables, in the order of the yaml."""
    assert [setting.name for setting in settings_of(data)] == SPECS
    loose = [" Clean", "Noise  +5dB", "white 2.50 dB", "mixture -0 dB"]
    assert [setting.name for setting in settings_of(data, loose)] == [
        "clean",
        "noise 5 dB",
        "white 2.5 dB",
        "mixture 0 dB",
    ]
    assert settings_of(data, "speech paper")[0].name == "speech paper"


@pytest.mark.parametrize(
    "spec",
    [
        *("noises 0 dB", "noise", "noise dB", "noise x dB", "noise nan dB"),
        *("noise paper", "clean paper", "white 3", "wham 0 dB", ""),
        *({"noise": 0}, 5, None),
    ],
)
def test_unknown_name(data, spec):
    """All known names are listed."""
    known = "expected one of clean, noise <SNR> dB, white <SNR> dB, white paper"
    with pytest.raises(LMACError, match=f"settings: found .*{known}") as found:
        settings_of(data, ["clean", spec])
    assert repr(spec) in str(found.value)
    for name in ("speech paper", "mixture <SNR> dB", "any-class mixture paper"):
        assert name in str(found.value)


@pytest.mark.parametrize("specs", [[], None, {"noise": 0}, 5])
def test_no_list_of_names(data, specs):
    """An empty or missing list is refused."""
    with pytest.raises(LMACError, match="settings: found .* list of clean"):
        settings_of(data, specs)


def test_twice(data):
    """A setting that is given twice is refused."""
    with pytest.raises(LMACError, match="found 'white 0 dB' twice"):
        settings_of(data, ["white 0 dB", "clean", "white -0.0 dB"])


def test_level_out_of_range(data):
    """A level out of range in a name is refused too."""
    with pytest.raises(LMACError, match="snr_db: found 200.0"):
        settings_of(data, ["mixture 200 dB"])
    with pytest.raises(LMACError, match="^settings: 'mixture 200 dB': "):
        settings_of(data, ["mixture 200 dB"])


@pytest.mark.parametrize(
    "key, spec, content",
    [
        ("wham_folder", "noise 0 dB", "WHAM! .tr/, cv/, tt/."),
        ("speech_folder", "speech paper", "speech recordings"),
    ],
)
def test_missing_folder(data, tmp_path, key, spec, content):
    """The message names the key and says what the folder must hold."""
    for folder, found in ((None, "None"), (tmp_path / "no", "no folder at")):
        with pytest.raises(LMACError, match=f"{key}: .*{found}.*{content}"):
            settings_of(data, [spec], folders={key: folder})
        settings_of(data, ["clean", "white 0 dB"], folders={key: folder})


def test_empty_folders(data, tmp_path):
    """The message names a folder without sounds."""
    with pytest.raises(LMACError, match="no speech found, expected .*.wav"):
        settings_of(data, ["speech 0 dB"], folders={"speech_folder": tmp_path})
    with pytest.raises(LMACError, match="no such noise split"):
        settings_of(data, ["noise 0 dB"], folders={"wham_folder": tmp_path})
    with pytest.raises(LMACError, match="'test', expected one of tr, cv, tt"):
        settings_of(data, ["noise 0 dB"], part="test")


# ----------------------------------------------------------------- real data


def test_real_data(real_data):
    """Real clips in every setting have the right level and peak."""
    with open(real_data / "esc10/meta/esc50.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["fold"] == "4"]
    entries = {
        row["filename"].rsplit(".", 1)[0]: {
            "wav": str(real_data / "esc10" / "audio" / row["filename"]),
            "class_string": row["category"],
        }
        for row in rows
    }
    wanted = {"white paper": 20 * math.log10(2), "white 5 dB": 5.0}
    wanted["speech -3 dB"] = -3.0
    for spec in ("speech paper", "mixture paper"):
        wanted[spec] = 20 * math.log10(4)
    settings, again = (
        make_settings(
            SPECS,
            entries,
            16000,
            folders={
                "wham_folder": real_data / "noise",
                "speech_folder": real_data / "speech",
            },
        )
        for _ in range(2)
    )
    takes = {"4-164064-B-1", "4-164064-C-1"}  # of one recording
    assert takes <= set(entries)
    assert not takes & set(settings[-2].candidates("4-164064-B-1"))
    assert len(settings[4].files) == 92
    preprocess = Preprocessor(16000)
    for clip_id in sorted(entries)[::27]:
        wav, _ = preprocess(entries[clip_id]["wav"])
        for setting, same in zip(settings, again):
            mixture, clean, _ = setting(wav, clip_id)
            assert torch.equal(mixture, same(wav, clip_id)[0])
            assert mixture.shape == clean.shape == wav.shape
            assert mixture.abs().max().item() == pytest.approx(1.0, abs=1e-6)
            if setting.name != "clean":
                snr = 10 * torch.log10(
                    clean.double().square().sum()
                    / (mixture - clean).double().square().sum()
                )
                expected = wanted.get(setting.name, 0.0)
                assert snr.item() == pytest.approx(expected, abs=0.01)


def test_a_new_kind_is_one_entry(tmp_path, monkeypatch):
    """Its name is read, its folder asked for, and its levels are checked."""

    class Hum(WhiteNoise):
        """A tone, at the level of white noise."""

        def __init__(self, folder, **how):
            super().__init__(**how)
            self.name = self.name.replace("white", "hum")
            self.hertz = float((Path(folder) / "hertz").read_text())

        def _draw(self, n_samples, clip_id, rng):
            """The tone, [n_samples]."""
            time = torch.arange(n_samples) / RATE
            return torch.sin(2 * torch.pi * self.hertz * time)

    kind = Kind(
        lambda sources, folder, **how: Hum(folder, **how),
        levels=("dB",),
        folder="hum_folder",
        content="one file, hertz",
    )
    monkeypatch.setitem(KINDS, "hum", kind)
    (tmp_path / "hertz").write_text("50")
    folders = {"hum_folder": tmp_path}
    (hum,) = make_settings("hum 0 dB", {}, RATE, folders=folders)
    assert hum.name == "hum 0 dB"
    mixture, clean, _ = hum(torch.randn(RATE), "clip")
    spectrum = torch.fft.rfft(mixture - clean).abs()
    assert int(spectrum.argmax()) == 50
    with pytest.raises(LMACError, match="hum_folder: found None, but .* hertz"):
        make_settings("hum 0 dB", {}, RATE)
    with pytest.raises(LMACError, match="hum <SNR> dB"):
        make_settings("hum paper", {}, RATE, folders=folders)
