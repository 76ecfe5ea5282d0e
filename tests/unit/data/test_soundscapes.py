"""Tests of soundscapes: real recordings whose explanation is known."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.cli.main import main
from lmac_sb.data import scene_folder, soundscapes
from lmac_sb.data.dataset import MultilabelEncoder, make_dataset
from lmac_sb.data.regions import read_regions
from lmac_sb.data.soundscapes import make_soundscapes
from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
RATE = 16000
CLASSES = ("bell", "dog", "rain")
SMALL = {"clips_per_class": 2, "duration_s": 1.5}


def sound(seed, seconds, rate, channels=1):
    """Noise with a slow envelope, [samples, channels]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((round(seconds * rate), channels))
    t = np.arange(len(x))[:, None] / rate
    return 0.1 * x * (1.2 + np.sin(2 * np.pi * (1 + seed % 3) * t))


def write_sources(folder, level=1.0):
    """Clips of three classes in three folds, ambient sounds, distractors."""
    audio = folder / "events" / "audio"
    for path in (audio, folder / "events" / "meta", folder / "others"):
        path.mkdir(parents=True)
    rows = [("filename", "fold", "category")]
    for fold in (1, 2, 3):
        for number, name in enumerate(CLASSES):
            for take in range(2):
                seed = 100 * fold + 10 * number + take
                x = sound(seed, 0.4 + 0.3 * number, 44100, 2)
                # Silence around it, as ESC-50 has it.
                x = np.pad(x, ((8000 * take, 30000), (0, 0)))
                rows.append((f"{seed}.wav", fold, name))
                sf.write(audio / f"{seed}.wav", level * x, 44100, "FLOAT")
    table = folder / "events" / "meta" / "mine.csv"
    table.write_text("\n".join(",".join(map(str, row)) for row in rows))
    for number, split in enumerate(("tr", "tr", "cv", "tt")):
        path = folder / "ambient" / split / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, 0.03 * sound(number, 4, 48000, 2), 48000)
        sf.write(
            folder / "others" / f"{number}.wav",
            sound(50 + number, 0.5, 8000),
            8000,
        )
    return folder


def sources_of(folder):
    """What `make_soundscapes` is given of it."""
    return {
        "foregrounds": folder / "events",
        "ambients": folder / "ambient",
        "distractors": [folder / "others"],
    }


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    """18 scenes of one event."""
    folder = tmp_path_factory.mktemp("made") / "one"
    return make_soundscapes(folder, **sources_of(sources), **SMALL)


@pytest.fixture(scope="module")
def several(sources, tmp_path_factory):
    """36 scenes of one to three events."""
    folder = tmp_path_factory.mktemp("made") / "several"
    return make_soundscapes(
        folder,
        **sources_of(sources),
        clips_per_class=4,
        duration_s=2,
        n_events=[1, 2, 3],
    )


@pytest.fixture
def copied(sources, tmp_path):
    """Sources that a test may change."""
    return Path(shutil.copytree(sources, tmp_path / "sources"))


Scene = namedtuple("Scene", "row audio stems rest events others")


def read(path):
    """Samples [samples, channels]."""
    return sf.read(path, always_2d=True)[0]


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scenes_of(folder):
    """All scenes with what the tables say of them."""
    parts = read_csv(folder / "rest" / "parts.csv")
    for row in read_csv(folder / "meta" / "esc50.csv"):
        name = row["filename"]
        own = [part for part in parts if part["filename"] == name]
        yield Scene(
            row,
            read(folder / "audio" / name)[:, 0],
            read(folder / "stems" / name),
            read(folder / "rest" / name),
            [part for part in own if part["folder"] == "stems"],
            [part for part in own if part["folder"] == "rest"],
        )


def span(part):
    """Where a part is, in samples."""
    return slice(*(round(float(part[x]) * RATE) for x in ("onset", "offset")))


def level(x):
    """Mean power in dB, by a loop."""
    return 10 * np.log10(sum(float(v) ** 2 for v in x) / len(x))


def bytes_of(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ---------------------------------------------------------------- what it holds


@pytest.mark.parametrize("name", ["made", "several"])
def test_layout(name, request):
    folder = request.getfixturevalue(name)
    scenes = list(scenes_of(folder))
    n_scenes = len(CLASSES) * 3 * (2 if name == "made" else 4)
    assert len({scene.row["filename"] for scene in scenes}) == n_scenes
    for scene in scenes:
        row, n_events = scene.row, len(scene.events)
        names = row["category"].split("+")
        assert [CLASSES[int(x)] for x in row["target"].split("+")] == names
        assert [part["category"] for part in scene.events] == names
        assert len(set(names)) == n_events
        label = f"{row['fold']}-{row['src_file']}-A-{row['target']}.wav"
        assert row["filename"] == label
        for kind, n_channels in (
            ("audio", 1),
            ("stems", n_events),
            ("rest", len(scene.others)),
        ):
            info = sf.info(folder / kind / row["filename"])
            assert (info.samplerate, info.subtype) == (RATE, "PCM_16")
            assert info.channels == n_channels
        roles = [part["role"] for part in scene.others]
        assert roles[0] == "ambient" and roles[-1] == "loud"
        assert set(roles[1:-1]) <= {"distractor"}
        assert float(scene.others[0]["gain"]) == float(row["gain"])
    counts = {len(scene.events) for scene in scenes}
    assert counts == ({1} if name == "made" else {1, 2, 3})


@pytest.mark.parametrize("name", ["made", "several"])
def test_stems_add_up_and_nothing_clips(name, request):
    for scene in scenes_of(request.getfixturevalue(name)):
        total = scene.stems.sum(1) + scene.rest.sum(1)
        assert np.abs(total - scene.audio).max() <= 1e-6
        tracks = [scene.audio, *scene.stems.T, *scene.rest.T]
        assert 0.89 < max(np.abs(x).max() for x in tracks) < 0.91


@pytest.mark.parametrize("name", ["made", "several"])
def test_levels_are_those_asked_for(name, request):
    """Measured in the files: each level over what it is a level of."""
    drawn = []
    for scene in scenes_of(request.getfixturevalue(name)):
        loudest = -np.inf
        for stem, part in zip(scene.stems.T, scene.events):
            rest = (scene.audio - stem)[span(part)]
            found = level(stem[span(part)]) - level(rest)
            assert found == pytest.approx(float(part["level_db"]), abs=0.05)
            assert not np.delete(stem, np.arange(len(stem))[span(part)]).any()
            loudest = max(loudest, level(stem[span(part)]))
            drawn.append(float(part["level_db"]))
        ambient = scene.rest[:, 0]
        for track, part in list(zip(scene.rest.T, scene.others))[1:]:
            over = loudest
            if part["role"] == "distractor":
                over = level(ambient[span(part)])
            found = level(track[span(part)]) - over
            assert found == pytest.approx(float(part["level_db"]), abs=0.05)
            if part["role"] == "loud":
                assert 3 <= float(part["level_db"]) <= 12
    assert min(drawn) >= -5 and max(drawn) <= 20
    assert max(drawn) - min(drawn) > 15


def test_events_and_the_loud_sound_are_one_at_a_time(several):
    for scene in scenes_of(several):
        alone = [*scene.events, scene.others[-1]]
        ends = sorted((span(x).start, span(x).stop) for x in alone)
        for (_, stop), (start, _) in zip(ends, ends[1:]):
            assert stop <= start
        assert ends[0][0] >= 1600 and ends[-1][1] <= len(scene.audio) - 1600


def test_silence_around_a_clip_is_cut(made):
    """Every tenth of an event sounds, wherever silence was in its clip."""
    for scene in scenes_of(made):
        (event,) = scene.events
        blocks = np.array_split(scene.stems[span(event), 0], 10)
        powers = [float((block**2).mean()) for block in blocks]
        assert min(powers) > 1e-3 * max(powers)


def test_regions_are_those_of_the_stems(made, several):
    regions = read_regions(made)
    for scene in scenes_of(made):
        (event,) = scene.events
        ((onset, offset),) = regions[Path(scene.row["filename"]).stem]
        assert (onset, offset) == (
            float(event["onset"]),
            float(event["offset"]),
        )
        found = np.flatnonzero(scene.stems[:, 0])
        assert onset * RATE <= found[0] and found[-1] < offset * RATE
        assert found[-1] - found[0] > 0.95 * (offset - onset) * RATE
    single = {
        Path(scene.row["filename"]).stem
        for scene in scenes_of(several)
        if len(scene.events) == 1
    }
    assert set(read_regions(several)) == single


@pytest.mark.parametrize("name", ["made", "several"])
def test_no_recording_is_in_two_folds(name, request):
    folds = {}
    for scene in scenes_of(request.getfixturevalue(name)):
        for part in (*scene.events, *scene.others):
            folds.setdefault(part["source"], set()).add(scene.row["fold"])
            if part["role"] == "event":  # its name begins with its fold
                assert part["source"][len("audio/")] == scene.row["fold"]
            if part["role"] == "ambient":
                split = part["source"].partition("/")[0]
                assert split == ("tr", "cv", "tt")[int(scene.row["fold"]) - 1]
    assert all(len(found) == 1 for found in folds.values())
    assert len(folds) > 15


# ------------------------------------------------------------------ same bytes


def test_same_bytes_in_another_process_and_place(made, copied, tmp_path):
    code = (
        "import sys; from lmac_sb.data.soundscapes import make_soundscapes\n"
        "a, b, c, d = sys.argv[1:]\n"
        "make_soundscapes(a, b, c, distractors=[d], clips_per_class=2, "
        "duration_s=1.5)"
    )
    places = [copied / name for name in ("events", "ambient", "others")]
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(tmp_path / "there"),
            *map(str, places),
        ],
        cwd=ROOT,
        env=dict(os.environ, PYTHONHASHSEED="7", OMP_NUM_THREADS="2"),
        check=True,
    )
    assert bytes_of(tmp_path / "there") == bytes_of(made)


def test_other_seed(made, sources, tmp_path):
    other = make_soundscapes(
        tmp_path / "a", **sources_of(sources), seed=1, **SMALL
    )
    here, there = bytes_of(made), bytes_of(other)
    sounds = [name for name in here if name.endswith(".wav")]
    assert all(here[name] != there[name] for name in sounds)


def test_fewer_scenes_are_the_same_ones(made, sources, tmp_path):
    few = make_soundscapes(
        tmp_path / "a", **sources_of(sources), **{**SMALL, "clips_per_class": 1}
    )
    here, there = bytes_of(made), bytes_of(few)
    sounds = [name for name in there if name.endswith(".wav")]
    assert all(here[name] == there[name] for name in sounds)


def test_quiet_clips_are_as_good_as_loud_ones(made, tmp_path):
    """At -60 dB of the others, and by a power of two: the same scenes."""
    quiet = write_sources(tmp_path / "sources", level=2.0**-10)
    found = make_soundscapes(tmp_path / "a", **sources_of(quiet), **SMALL)
    here, there = bytes_of(made), bytes_of(found)
    sounds = [name for name in here if name.endswith(".wav")]
    assert all(here[name] == there[name] for name in sounds)


def test_found_again(made, sources):
    before = (made / "scenes.json").stat().st_mtime_ns
    again = make_soundscapes(str(made), **sources_of(sources), **SMALL)
    assert (again / "scenes.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "key, value", [("seed", 3), ("snr_db", [0.0, 5.0]), ("n_events", [2])]
)
def test_other_settings_are_named(made, sources, key, value):
    with pytest.raises(LMACError, match=f"expected {key}=") as error:
        make_soundscapes(made, **sources_of(sources), **{**SMALL, key: value})
    assert str(value) in str(error.value)


def test_changed_sources_and_scenes_are_told(made, copied, tmp_path):
    given = sources_of(copied)
    folder = Path(shutil.copytree(made, tmp_path / "a"))
    for table in ("rest/parts.csv", "meta/active_regions.csv"):
        text = (folder / table).read_text()
        (folder / table).write_text("filename\n")
        with pytest.raises(LMACError, match="changed since they were made"):
            make_soundscapes(folder, **given, **SMALL)
        (folder / table).write_text(text)
    (copied / "others" / "0.wav").unlink()
    with pytest.raises(LMACError, match="found scenes made with distractors="):
        make_soundscapes(made, **given, **SMALL)


# --------------------------------------------------------------- odd sources


def test_own_folds_and_turns(copied, tmp_path):
    """Folds of their own count; else sounds take turns."""
    ambient = copied / "turns"
    ambient.mkdir()
    for number in range(5):
        sf.write(ambient / f"{number}.wav", sound(number, 2, RATE), RATE)
    table = "filename,fold\n" + "".join(f"{n}.wav,{3 - n}\n" for n in range(3))
    (copied / "others" / "3.wav").unlink()
    (copied / "others" / "mine.csv").write_text(table)
    given = {**sources_of(copied), "ambients": ambient}
    found = make_soundscapes(tmp_path / "a", **given, **SMALL)
    for scene in scenes_of(found):
        fold = int(scene.row["fold"])
        number = int(Path(scene.others[0]["source"]).stem)
        assert number % 3 == fold - 1
        for part in scene.others[1:]:
            assert 3 - int(Path(part["source"]).stem) == fold


def test_distractors_are_of_no_known_class(copied, tmp_path, caplog):
    """Of a labelled corpus, and of the clips of the events themselves."""
    for name in ("dog", "car"):
        (copied / "more" / name).mkdir(parents=True)
        for number in range(3):
            seed = 70 + number + len(name) * (name == "car")
            path = copied / "more" / name / f"{number}.wav"
            sf.write(path, sound(seed, 0.5, RATE), RATE)
    given = {**sources_of(copied), "distractors": copied / "more"}
    found = make_soundscapes(tmp_path / "a", **given, **SMALL)
    assert "3 sounds are of the events' classes, and left out" in caplog.text
    for scene in scenes_of(found):
        for part in scene.others[1:]:
            assert part["category"] == "car"


def test_the_same_sound_twice(copied, tmp_path, caplog):
    audio = copied / "events" / "audio"
    shutil.copy(audio / "100.wav", copied / "others" / "z.wav")
    found = make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    assert "1 sounds are there twice, and count once" in caplog.text
    for scene in scenes_of(found):
        assert all(part["source"] != "z.wav" for part in scene.others)
    shutil.copy(audio / "100.wav", audio / "200.wav")
    with pytest.raises(LMACError, match="the same sound as .*100.wav"):
        make_soundscapes(tmp_path / "b", **sources_of(copied), **SMALL)


def test_the_same_folder_in_two_roles(copied, tmp_path):
    """What is lacking is not sounds, but sounds that are nothing else."""
    given = {**sources_of(copied), "distractors": copied / "ambient"}
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **given, **SMALL)
    first = copied / "ambient" / "tr" / "0.flac"
    assert str(error.value) == (
        f"fold 1: found no distractor, as {first} and others are among the "
        "ambients already, expected one that is nothing else; add some"
    )


def spoil(path, samples, rate=RATE, kind="FLOAT"):
    sf.write(path, np.asarray(samples), rate, kind, format="WAV")


SPOILT = {
    "is silent": lambda path: spoil(path, np.zeros(RATE)),
    "0.0500 s long, expected at least 0.1 s": lambda path: spoil(
        path, np.ones(RATE // 20) / 2
    ),
    "holds NaN or infinite values": lambda path: spoil(path, [np.nan] * RATE),
    "cannot be read as audio": lambda path: path.write_bytes(b"RIFF nothing"),
}


@pytest.mark.parametrize("message", SPOILT)
@pytest.mark.parametrize("place", ["events/audio/100.wav", "others/0.wav"])
def test_bad_sounds(copied, tmp_path, caplog, place, message):
    """One line for each; or they are skipped and listed."""
    SPOILT[message](copied / place)
    given = sources_of(copied)
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **given, **SMALL)
    text = str(error.value)
    assert place.rpartition("/")[2] in text and message in text
    assert text.endswith(
        "; repair it, or leave it out with `skip_bad_clips` (on the command "
        "line: --skip_bad_clips)"
    )
    assert "\n" not in text
    assert not (tmp_path / "a").exists()
    found = make_soundscapes(
        tmp_path / "a", **given, skip_bad_clips=True, **SMALL
    )
    assert message in caplog.text and "They are skipped" in caplog.text
    kind = "stems" if place.startswith("events") else "rest"
    own = place.removeprefix("events/").removeprefix("others/")
    for part in read_csv(found / "rest" / "parts.csv"):
        assert (part["folder"], part["source"]) != (kind, own)


def test_short_ambient_recordings(copied, tmp_path):
    """They are listed with whatever else cannot be used."""
    for number in range(12):
        path = copied / "ambient" / "tr" / f"x{number:02d}.wav"
        sf.write(path, sound(90 + number, 1, RATE), RATE)
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    first, *lines, rest, remedy = str(error.value).splitlines()
    assert first == "soundscapes: 12 of 38 sounds cannot be used"
    for number, line in enumerate(lines):
        assert f"x{number:02d}.wav: 1.00 s long" in line and "1.50 s" in line
    assert len(lines) == 10 and rest == "  and 2 more"
    ways = (
        "make the scenes shorter with `duration_s` (on the command line: "
        "--duration_s), or leave {} out with `skip_bad_clips` (on the command "
        "line: --skip_bad_clips)"
    )
    assert remedy == "M" + ways.format("them")[1:]
    (copied / "others" / "0.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    remedy = str(error.value).splitlines()[-1]
    assert remedy == f"Repair them, {ways.format('them')}"
    shutil.copy(copied / "others" / "1.wav", copied / "others" / "0.wav")
    for path in (copied / "ambient" / "tr").glob("x0*"):
        path.unlink()
    (copied / "ambient" / "tr" / "x11.wav").unlink()
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    assert str(error.value).endswith(f"the scenes; {ways.format('it')}")


def test_ambient_recording_with_holes(copied, tmp_path):
    """Where it is silent no event gets a level; of nothing else, an error."""
    for split in ("tr", "cv", "tt"):
        for path in (copied / "ambient" / split).iterdir():
            path.unlink()
        x = sound(9, 6, RATE)
        x[: 3 * RATE] = 0
        path = copied / "ambient" / split / "x.wav"
        sf.write(path, x * (1 + ord(split[1])) / 500, RATE)
    found = make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    for scene in scenes_of(found):
        (event,) = scene.events
        assert np.abs(scene.rest[span(event), 0]).max() > 0
    for split in ("tr", "cv", "tt"):
        x = np.zeros(6 * RATE)
        x[:: 3 * RATE] = 0.5 + ord(split[1]) / 1000
        sf.write(copied / "ambient" / split / "x.wav", x, RATE)
    with pytest.raises(LMACError, match="are silent where the events are"):
        make_soundscapes(tmp_path / "b", **sources_of(copied), **SMALL)


def test_levels_that_16_bits_do_not_hold(copied, tmp_path):
    """The levels are to blame, and no ambient recording."""
    with pytest.raises(LMACError) as error:
        make_soundscapes(
            tmp_path / "a",
            **sources_of(copied),
            **SMALL,
            n_events=[2],
            snr_db=[-40, 40],
            loud_db=[40, 40],
        )
    assert str(error.value) == (
        "fold 1: in 50 tries a sound is next to nothing in 16 bits beside the "
        "loudest one; expected levels that lie closer together, found snr_db "
        "from -40.0 to 40.0 dB and loud_db from 40.0 to 40.0 dB"
    )
    assert not (tmp_path / "a").exists()


def test_no_sound_is_lost_in_16_bits(copied, tmp_path):
    """Nor is a distractor written that is silence, with a level beside it."""
    levels = {"snr_db": [-20, 20], "loud_db": [0, 12]}
    found = make_soundscapes(
        tmp_path / "a", **sources_of(copied), **{**SMALL, **levels}
    )
    for scene in scenes_of(found):
        assert np.abs(scene.rest).max(0).min() * 32768 >= 32
    levels = {"snr_db": [-30, 30], "loud_db": [10, 25]}
    with pytest.raises(LMACError, match="a sound is next to nothing"):
        make_soundscapes(
            tmp_path / "b", **sources_of(copied), **{**SMALL, **levels}
        )


def test_skipped_clips_are_named_where_they_lack(copied, tmp_path):
    """The fold has lost its only clip of a class, and which one is said."""
    (silent,) = [
        path
        for path in (copied / "events" / "audio").glob("31*.wav")
        if sf.read(path)[0].any()
    ][:1]
    for path in (copied / "events" / "audio").glob("31*.wav"):
        if path != silent:
            path.unlink()
    sf.write(silent, np.zeros(RATE), RATE)
    with pytest.raises(LMACError, match=f"{silent.name} is skipped"):
        make_soundscapes(
            tmp_path / "a",
            **sources_of(copied),
            **{**SMALL, "skip_bad_clips": True},
        )


def remove_class(folder):
    for path in (folder / "events" / "audio").glob("31*.wav"):
        path.unlink()


def one_class(folder):
    table = folder / "events" / "meta" / "mine.csv"
    text = table.read_text().replace("bell", "dog").replace("rain", "dog")
    table.write_text(text)


def with_plus(folder):
    table = folder / "events" / "meta" / "mine.csv"
    table.write_text(table.read_text().replace("bell", "bell+dog"))


def with_lists(folder):
    table = folder / "events" / "meta" / "mine.csv"
    text = table.read_text()
    for name in ("bell", "dog"):
        text = text.replace(name, f'"{name}, animal"')
    table.write_text(text)


def few_distractors(folder):
    for number in (1, 2, 3):
        (folder / "others" / f"{number}.wav").unlink()


def no_ambient(folder):
    shutil.rmtree(folder / "ambient" / "cv")


def empty(folder):
    shutil.rmtree(folder / "others")
    (folder / "others").mkdir()


@pytest.mark.parametrize(
    "change, message",
    [
        (
            remove_class,
            "fold 3: found no usable clip of dog, expected one of each class "
            r"in each fold; name the folds that have them in `folds` \(on the "
            r"command line: --folds\)",
        ),
        (one_class, "found dog, expected sounds of at least two classes"),
        (with_plus, r"found the class 'bell\+dog'.* without a plus"),
        (
            with_lists,
            "found the classes 'bell, animal' and 'dog, animal', which share "
            "'animal', expected sounds of one class each",
        ),
        (
            few_distractors,
            "fold 2: found no distractor that no other fold has, expected one; "
            r"add some, or name fewer folds in `folds` \(on the command line: "
            r"--folds\)",
        ),
        (no_ambient, "fold 2: found no ambient recording that no other"),
        (empty, "others: holds no sounds"),
    ],
)
def test_too_few_sounds(copied, tmp_path, change, message):
    change(copied)
    with pytest.raises(LMACError, match=message) as error:
        make_soundscapes(tmp_path / "new" / "a", **sources_of(copied), **SMALL)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["sources"]


OF_CLASSES = "expected sounds of at least two classes"


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "fold,category\n1,dog\n",
            f"found no classes, {OF_CLASSES}; {{table}}: no column names the "
            "clips; found fold, category, expected one with names such as "
            "audio/100.wav",
        ),
        (
            "filename,fold,category\n1.wav,1,dog\n2.wav,1,dog\n100.wav,1,cat",
            f"found no classes, {OF_CLASSES}; {{table}}: only 33% of its rows "
            "name a clip in the column 'filename'",
        ),
        (
            "filename,fold\n" + "".join(f"{100 + n}.wav,1\n" for n in (0, 1)),
            f"found no classes, {OF_CLASSES}; {{table}}: has no column of "
            "labels, found filename, fold",
        ),
        (
            "filename,fold,category\n100.wav,1,dog\n101.wav,1,\n",
            f"found dog, {OF_CLASSES}; {{table}}, line 3: has no label of "
            "audio/101.wav in the column 'category'",
        ),
    ],
)
def test_a_table_without_labels(copied, tmp_path, text, message):
    """The table is named, and what it lacks."""
    events = copied / "events"
    (events / "meta" / "mine.csv").write_text(text)
    for path in (events / "audio").iterdir():
        if path.stem not in ("100", "101"):
            path.unlink()
    with pytest.raises(LMACError) as error:
        make_soundscapes(tmp_path / "a", **sources_of(copied), **SMALL)
    table = events / "meta" / "mine.csv"
    assert str(error.value) == f"{events}: {message.format(table=table)}"


def test_some_folds(copied, tmp_path):
    """What one fold lacks does not matter to the others."""
    remove_class(copied)
    found = make_soundscapes(
        tmp_path / "a", **sources_of(copied), folds=[2, 1], **SMALL
    )
    rows = read_csv(found / "meta" / "esc50.csv")
    assert {row["fold"] for row in rows} == {"1", "2"}


@pytest.mark.parametrize(
    "given, message",
    [
        ({"distractors": []}, "distractors: found none"),
        ({"ambients": ""}, "ambients: found none"),
        ({"foregrounds": "nowhere"}, "nowhere"),
        ({"clips_per_class": 0}, "clips_per_class: found 0"),
        ({"clips_per_class": 10000}, "clips_per_class: found 10000"),
        ({"duration_s": float("nan")}, "duration_s: found nan"),
        ({"duration_s": 0.5}, "duration_s: found 0.5"),
        ({"duration_s": 61}, "duration_s: found 61"),
        ({"duration_s": "5"}, "duration_s: found '5'"),
        ({"duration_s": True}, "duration_s: found True"),
        ({"sample_rate": 44100.5}, "sample_rate: found 44100.5"),
        ({"sample_rate": 10}, "sample_rate: found 10"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": None}, "seed: found None"),
        ({"n_events": []}, r"n_events: found \[\]"),
        ({"n_events": 2}, "n_events: found 2"),
        ({"n_events": [0]}, "n_events: found 0"),
        ({"n_events": [4]}, "n_events: found 4, expected at most 3"),
        ({"n_events": [3], "duration_s": 0.9}, "duration_s: found 0.9"),
        ({"snr_db": [5]}, r"snr_db: found \[5\]"),
        ({"snr_db": [5, float("inf")]}, "snr_db: found inf"),
        ({"snr_db": [5, float("nan")]}, "snr_db: found nan"),
        ({"snr_db": [5, -5]}, "snr_db: found 5.0 to -5.0 dB"),
        ({"loud_db": ["a", "b"]}, "loud_db: found 'a'"),
        ({"folds": [9]}, "folds: found 9, expected those of .*: 1, 2, 3"),
        ({"folds": []}, r"folds: found \[\]"),
        ({"skip_bad_clips": "yes"}, "skip_bad_clips: found 'yes'"),
        ({"volume": 1}, "soundscapes: found volume, expected clips_per_class"),
    ],
)
def test_bad_arguments(sources, tmp_path, given, message):
    with pytest.raises(LMACError, match=message) as error:
        make_soundscapes(
            tmp_path / "a", **{**sources_of(sources), **SMALL, **given}
        )
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["events", "events/new", "others", "."])
def test_same_folder_in_and_out(copied, where):
    before = bytes_of(copied)
    with pytest.raises(LMACError, match="the folder of "):
        make_soundscapes(copied / where, **sources_of(copied), **SMALL)
    assert bytes_of(copied) == before


def test_full_disk(sources, tmp_path, monkeypatch):
    """It is told before anything is read, and when it happens."""
    given = {**sources_of(sources), **SMALL}
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(LMACError, match="found 1.0 kB of free disk space"):
            make_soundscapes(tmp_path / "new" / "a", **given)

    def fail(path, x, rate):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundscapes, "write_wav", fail)
    with pytest.raises(LMACError, match="cannot be written .*No space left"):
        make_soundscapes(tmp_path / "new" / "a", **given)
    assert not list(tmp_path.iterdir())


def test_foreign_folder(sources, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(LMACError, match="or one made by make_soundscapes"):
        make_soundscapes(tmp_path, **sources_of(sources), **SMALL)
    assert bytes_of(tmp_path) == {"mine.txt": b"keep"}


# ------------------------------------------------------------------- its use


def test_events_of_a_data_set(several, tmp_path, recipe):
    """Stems become events by class, at the gain of the clip."""
    from lmac_sb.data.audio import Preprocessor

    prepare = recipe.script("train_classifier") and sys.modules
    manifests = prepare["esc50_prepare"].prepare_esc50(
        several,
        tmp_path / "manifests",
        {"train": [1], "valid": [2], "test": [3]},
        needs=prepare["esc50_prepare"].Needs(multilabel=True),
    )
    encoder = MultilabelEncoder()
    encoder.update_from_iterable(CLASSES)
    dataset = make_dataset(
        manifests["test"], Preprocessor(RATE), encoder, events=True
    )
    for item in (dataset[i] for i in range(len(dataset))):
        stems = read(several / "stems" / f"{item['id']}.wav").T
        gain = 1 / np.abs(read(several / "audio" / f"{item['id']}.wav")).max()
        for name, stem in zip(item["class_string"].split("+"), stems):
            torch.testing.assert_close(
                item["event"][CLASSES.index(name)],
                torch.from_numpy(gain * stem).float(),
            )


def test_command(sources, tmp_path, capsys, monkeypatch):
    words = ["scenes", tmp_path / "a", "--real", "--clips_per_class", 1]
    words += ["--foregrounds", sources / "events", "--duration_s", 1.5]
    words += ["--ambients", sources / "ambient", "--snr_db", "-3,3"]
    words += ["--distractors", sources / "others", "--n_events", "1,2"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "9 of 3 classes, in the folds 1, 2, 3" in out
    assert "lmac train classifier_multilabel --data_folder" in out
    assert "--n_classes 3 --train_fold_nums '[1]'" in out
    info = json.loads((tmp_path / "a" / scene_folder.INFO).read_text())
    one = [str(tmp_path / "one"), "--clips_per_class", "1", "--n_folds", "1"]
    assert main(["scenes", *one]) == 0
    assert "(10 of 10 classes, in fold 1)" in capsys.readouterr().out
    assert info["settings"]["snr_db"] == [-3.0, 3.0]
    assert main(["scenes", str(tmp_path / "b"), "--clips_per_class", "1"]) == 0
    assert "50 of 10 classes" in capsys.readouterr().out
    monkeypatch.delenv("LMAC_SB_DATA", raising=False)
    for wrong, message in (
        (["--snr_db", "1,2"], "--snr_db: is only used with --real"),
        (
            ["--real", "--n_folds", "2"],
            "--n_folds: is only used without --real",
        ),
        (["--real"], "--foregrounds: is missing"),
        (["--folds", "a"], "--folds: invalid int value: 'a'"),
    ):
        assert main(["scenes", str(tmp_path / "c"), *wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_stopped_command(tmp_path, name, code):
    """It says so, and leaves nothing behind."""
    words = ["scenes", tmp_path / "new" / "a", "--clips_per_class", 999]
    process = subprocess.Popen(
        [sys.executable, "-m", "lmac_sb", *map(str, words)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not list(tmp_path.glob("new/.a.*/audio/*")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert err.endswith("stopped\n") and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_of_real_recordings(real_data, tmp_path):
    """ESC-10 in ambient sounds: most of what is loudest is no event."""
    folder = make_soundscapes(
        tmp_path / "a",
        real_data / "esc10",
        real_data / "noise",
        distractors=[real_data / "speech"],
        folds=[4],
        clips_per_class=2,
    )
    shares = []
    for scene in scenes_of(folder):
        (event,) = scene.events
        found = level(scene.stems[span(event), 0]) - level(
            (scene.audio - scene.stems[:, 0])[span(event)]
        )
        assert found == pytest.approx(float(event["level_db"]), abs=0.1)
        window = torch.hann_window(512, dtype=torch.double)
        scene_bins, event_bins = (
            torch.stft(
                torch.from_numpy(x), 512, window=window, return_complex=True
            ).abs()
            for x in (scene.audio, scene.stems[:, 0])
        )
        loudest = scene_bins.flatten().topk(scene_bins.numel() // 20).indices
        ideal = (event_bins > (scene_bins - event_bins).abs()).flatten()
        shares.append(ideal[loudest].double().mean().item())
    assert np.mean(shares) < 0.4
