"""Tests of the table of spoken digits, and of their preparation."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.manifest import read_entries
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"
sys.path.insert(0, str(RECIPE))

from esc50_prepare import prepare_esc50  # noqa: E402
from fsdd_prepare import digits_table  # noqa: E402


def make_digits(folder, counts=range(15), suffix="wav"):
    """Two digits of one speaker, in the layout of the release."""
    (folder / "recordings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for digit in (0, 7):
        for count in counts:
            wav = rng.uniform(-0.5, 0.5, 1600 + 10 * count)
            name = f"{digit}_jackson_{count}.{suffix}"
            sf.write(folder / "recordings" / name, wav, 8000)
    return folder


def rows(folder):
    """Rows of the table by file name."""
    text = digits_table(folder).decode()
    return {row["filename"]: row for row in csv.DictReader(io.StringIO(text))}


def test_rows(tmp_path):
    """Digit as class, and the fold by the count in the name."""
    found = rows(make_digits(tmp_path, [0, 4, 5, 9, 10, 11, 12, 13, 49]))
    folds = [row["fold"] for row in found.values()]
    assert len(found) == 18
    assert found["7_jackson_0.wav"]["category"] == "seven"
    assert found["0_jackson_0.wav"]["category"] == "zero"
    assert found["7_jackson_0.wav"]["target"] == "7"
    for count, fold in {0: 5, 4: 5, 5: 4, 9: 4, 10: 2, 11: 3, 12: 1}.items():
        assert found[f"7_jackson_{count}.wav"]["fold"] == str(fold)
    assert set(folds) == set("12345")


def test_other_folders_are_none(tmp_path):
    """Without recordings, or with a table of its own."""
    assert digits_table(tmp_path) is None
    make_digits(tmp_path, [0])
    assert digits_table(tmp_path) is not None
    (tmp_path / "meta").mkdir()
    assert digits_table(tmp_path) is None


def test_hidden_files_are_passed_over(tmp_path):
    make_digits(tmp_path, [0])
    (tmp_path / "recordings" / ".DS_Store").touch()
    assert len(rows(tmp_path)) == 2


@pytest.mark.parametrize(
    "name", ["7_jackson.wav", "10_jackson_1.wav", "notes.txt", "7_a_b.wav"]
)
def test_another_name_is_an_error(tmp_path, name):
    """The message names a file with another name."""
    make_digits(tmp_path, [0])
    (tmp_path / "recordings" / name).touch()
    with pytest.raises(LMACError, match=f"{name}: is no recording of a digit"):
        digits_table(tmp_path)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_preparation(tmp_path, suffix):
    """The manifests of the default folds; a second call finds them done."""
    data = make_digits(tmp_path / "data", suffix=suffix)
    paths = prepare_esc50(data, tmp_path / "manifests")
    clips = {split: dict(read_entries(path)) for split, path in paths.items()}
    assert {split: len(found) for split, found in clips.items()} == {
        "train": 10,
        "valid": 10,
        "test": 10,
    }
    clip = clips["test"]["7_jackson_3"]
    assert clip["wav"] == str(data / "recordings" / f"7_jackson_3.{suffix}")
    assert clip["class_string"] == "seven"
    assert (clip["num_samples"], clip["sample_rate"]) == (1630, 8000)
    before = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "manifests").iterdir()
    }
    assert prepare_esc50(data, tmp_path / "manifests") == paths
    after = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "manifests").iterdir()
    }
    assert after == before


def test_preparation_sees_new_recordings(tmp_path):
    """A new recording is noticed."""
    data = make_digits(tmp_path / "data")
    prepare_esc50(data, tmp_path / "manifests")
    sf.write(
        data / "recordings" / "7_lucas_2.wav", np.sin(np.arange(1600)), 8000
    )
    paths = prepare_esc50(data, tmp_path / "manifests")
    assert "7_lucas_2" in dict(read_entries(paths["test"]))


def test_a_bad_fold_names_the_recordings(tmp_path):
    data = make_digits(tmp_path / "data", [0, 5])
    with pytest.raises(LMACError, match=r"fold 1 .* in .*recordings, which"):
        prepare_esc50(data, tmp_path / "manifests")


def test_official_split(real_data):
    """On the real data: its own test clips are fold 5, and only they."""
    if not (real_data / "fsdd").is_dir():
        pytest.skip(f"no fsdd in {real_data}")
    found = rows(real_data / "fsdd")
    with open(real_data / "fsdd" / "manifest.csv", encoding="utf-8") as file:
        official = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    assert found.keys() == official.keys()
    for name, row in official.items():
        assert (found[name]["fold"] == "5") == (
            row["official_split"] == "test"
        ), name
        assert found[name]["target"] == row["digit"]
