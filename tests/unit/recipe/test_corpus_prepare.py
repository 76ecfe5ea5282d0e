"""Tests of the preparation of any corpus."""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.manifest import read_entries
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"
sys.path.insert(0, str(RECIPE))

from esc50_prepare import Needs, prepare_esc50  # noqa: E402
from preparation import prepare_clips  # noqa: E402


def sound(seed):
    """Content of a sound file."""
    file = io.BytesIO()
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, 1600)
    sf.write(file, wav, 8000, format="WAV")
    return file.getvalue()


def write_shard(path, clips):
    """A shard of keys with what their json holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for i, (key, info) in enumerate(clips.items()):
            for ending, content in (
                ("wav", sound(i)),
                ("json", json.dumps(info).encode()),
            ):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def fill(folder, *names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sound(i))
    return folder


def prepare(data, folder, **options):
    """Entries of the three splits."""
    paths = prepare_esc50(data, folder / "manifests", **options)
    return {s: dict(read_entries(path)) for s, path in paths.items()}


def counts(found):
    return {split: len(entries) for split, entries in found.items()}


def names(n_clips, *above):
    return [
        f"{x}/{label}/{i}{label}.wav"
        for x in above
        for label in "ab"
        for i in range(n_clips)
    ]


def test_splits_of_folders(tmp_path):
    """Each in the folds that the yaml files have for it."""
    fill(tmp_path / "d", *names(3, "train"))
    fill(tmp_path / "d", "val/a/v.wav", "test/b/t.wav")
    found = prepare(tmp_path / "d", tmp_path)
    assert counts(found) == {"train": 6, "valid": 1, "test": 1}
    folds = [entry["fold"] for entry in found["train"].values()]
    assert sorted(folds) == [1, 1, 2, 2, 3, 3]
    assert list(found["valid"]) == ["v"] and list(found["test"]) == ["t"]


def test_splits_that_are_missing(tmp_path):
    """They get their share of each class in turn."""
    fill(tmp_path / "d", *names(4, "train"), "test/a/t.wav")
    found = prepare(tmp_path / "d", tmp_path)
    assert counts(found) == {"train": 6, "valid": 2, "test": 1}
    fill(tmp_path / "e", *(f"{x}/{i}{x}.wav" for x in "ab" for i in range(5)))
    found = prepare(tmp_path / "e", tmp_path)
    assert counts(found) == {"train": 6, "valid": 2, "test": 2}


def test_folds_of_a_column(tmp_path):
    """As of ESC-50; other folds can be asked for."""
    clips = {f"c{i}": {"label": "ab"[i % 2], "fold": i // 2} for i in range(8)}
    path = write_shard(tmp_path / "d" / "x-000.tar", clips)
    folds = {"train": [0, 1], "valid": [2], "test": [3]}
    for where in (path, path.parent, path.parent / "x-{000..000}.tar"):
        found = prepare(where, tmp_path, folds=folds)
        assert list(found["valid"]) == ["c4", "c5"]
        assert found["train"]["c0"]["wav"] == {
            **{"file": str(path), "offset": 512, "size": len(sound(0))},
            "name": "c0.wav",
        }
    with pytest.raises(
        LMACError, match="valid_fold_nums: fold 4 does not occur"
    ):
        prepare(path, tmp_path)


def test_shards_by_split(tmp_path):
    """By their names; a split may be a pattern of its own."""
    for split, n in ("train", 3), ("valid", 1), ("test", 1):
        clips = {f"{split}{i}{x}": {"class": x} for i in range(n) for x in "ab"}
        write_shard(tmp_path / "d" / f"{split}-0.tar", clips)
    found = prepare(tmp_path / "d", tmp_path)
    assert counts(found) == {"train": 6, "valid": 2, "test": 2}
    assert found == prepare(
        tmp_path / "d" / "{train,valid,test}-0.tar", tmp_path
    )


def test_ids_are_plain_and_differ(tmp_path):
    """Without folders and ending, where that is enough."""
    fill(
        tmp_path / "d",
        *(f"fold{i}/{x}/1.wav" for i in range(1, 6) for x in "ab"),
    )
    found = prepare(tmp_path / "d", tmp_path)
    assert list(found["test"]) == ["fold5_a_1", "fold5_b_1"]


@pytest.mark.parametrize(
    "info, message",
    [
        ({"label": "a", "fold": "x"}, "fold is 'x', expected a whole number"),
        ({"label": "a", "fold": None}, "fold is '', expected a whole number"),
        ({"label": "a", "split": "extra"}, "found the split 'extra'"),
    ],
)
def test_clips_that_fit_nowhere(tmp_path, info, message):
    path = write_shard(tmp_path / "d" / "a.tar", {"one": info})
    with pytest.raises(LMACError, match=message):
        prepare(path, tmp_path)
    assert not (tmp_path / "manifests").exists()


def test_bad_clips_are_listed(tmp_path):
    """One without a label, and one that cannot be read."""
    clips = {f"c{i}": {"label": "a", "fold": i % 5 + 1} for i in range(10)}
    clips["c7"] = {"fold": 3}
    path = write_shard(tmp_path / "d" / "a.tar", clips)
    content = path.read_bytes()
    place = content.index(sound(8))
    path.write_bytes(content[:place] + b"x" * 44 + content[place + 44 :])
    with pytest.raises(LMACError) as error:
        prepare(path, tmp_path)
    assert "2 of 10 clips cannot be used" in str(error.value)
    assert f"{path}/c7.wav: has no label" in str(error.value)
    assert f"{path}/c8.wav: cannot be read" in str(error.value)
    found = prepare(path, tmp_path, skip_bad_clips=True)
    assert sum(counts(found).values()) == 8


def test_nothing_is_decoded_again(tmp_path, monkeypatch):
    """Unless a shard is another one."""
    clips = {f"c{i}": {"label": "a", "fold": i % 5 + 1} for i in range(5)}
    path = write_shard(tmp_path / "d" / "a.tar", clips)
    found, calls = prepare(path, tmp_path), []
    read = sys.modules["esc50_prepare"].decode_audio

    def decode(place):
        calls.append(place)
        return read(place)

    monkeypatch.setattr("esc50_prepare.decode_audio", decode)
    assert prepare(path, tmp_path) == found and calls == []
    write_shard(path, {**clips, "c5": {"label": "a", "fold": 1}})
    assert counts(prepare(path, tmp_path))["train"] == 4 and len(calls) == 6


def test_several_labels(tmp_path):
    clips = {
        f"c{i}": {"labels": ["b", "a"] if i < 5 else ["b"], "fold": i % 5 + 1}
        for i in range(10)
    }
    path = write_shard(tmp_path / "d" / "a.tar", clips)
    found = prepare(path, tmp_path, needs=Needs(multilabel=True))
    assert found["test"]["c4"]["class_string"] == "b+a"


def test_a_folder_in_the_data_that_may_not_be_read(shared):
    """Its clips can be left out, as others that cannot be used."""
    data = fill(shared.folder / "data", *names(3, "train", "valid", "test"))
    fill(data, "train/c/1.wav")
    (data / "train" / "c").chmod(0)
    with shared.without_rights():
        with pytest.raises(LMACError, match="c: cannot be read .*\n.*skip_bad"):
            prepare(data, shared.folder)
        found = prepare(data, shared.folder, skip_bad_clips=True)
    assert counts(found) == {"train": 6, "valid": 6, "test": 6}
    (data / "train" / "c").chmod(0o700)


@pytest.mark.parametrize("key", ["data_folder", "scenes_folder"])
def test_a_folder_that_may_not_be_read(shared, key):
    """The line names the key."""
    data = fill(shared.folder / "data", *names(1, "train"))
    data.chmod(0)
    options = {"data_folder": None, key: data}
    with shared.without_rights(), pytest.raises(LMACError) as caught:
        prepare_clips(None, {}, manifest_folder=shared.folder, **options)
    data.chmod(0o700)
    told = f"{key}: {data} cannot be read (Permission denied)"
    assert str(caught.value) == told


def test_folders_without_labels_are_no_corpus(tmp_path):
    fill(tmp_path / "d", "audio/a.wav")
    with pytest.raises(LMACError, match="esc50.csv: not found.*a corpus with"):
        prepare(tmp_path / "d", tmp_path)


@pytest.mark.parametrize("where", ["a.wav", "train/a.wav"])
@pytest.mark.parametrize(
    "table, why",
    [
        (None, "a.wav: has no label"),
        ("file,site\na.wav,north\n", "t.csv: has no column of labels, found f"),
        ("file,label\nb.wav,x\n", "t.csv: no column names the clips; found f"),
    ],
)
def test_sounds_without_labels_are_told(tmp_path, where, table, why):
    fill(tmp_path / "d", where, where.replace("a.", "c."))
    if table:
        (tmp_path / "d" / "t.csv").write_text(table)
    with pytest.raises(LMACError) as found:
        prepare(tmp_path / "d", tmp_path)
    said = str(found.value)
    assert said.startswith(f"{tmp_path}/d: holds 2 sounds without labels (")
    assert why in said and "expected folders of classes, or a table" in said
