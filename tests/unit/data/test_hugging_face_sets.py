"""Data sets of Hugging Face as a corpus, beside the package `datasets`."""

import io
import json
import pickle
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.pieces import Place
from lmac_sb.data.places import Cell
from lmac_sb.utils.errors import LMACError

datasets.disable_progress_bars()
STRUCT = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}


def sound(seed=0):
    """Content of a sound file."""
    file = io.BytesIO()
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, 4000)
    sf.write(file, wav, 8000, format="WAV")
    return file.getvalue()


def make(n_clips, first=0):
    """A data set in memory."""
    numbers = range(first, first + n_clips)
    features = datasets.Features(
        {
            "audio": STRUCT,
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "site": datasets.Value("string"),
            "fold": datasets.Value("int32"),
        }
    )
    rows = {
        "audio": [
            {"bytes": sound(i), "path": f"c{i:02d}.wav"} for i in numbers
        ],
        "label": [i % 2 for i in numbers],
        "site": [None if i == 1 else f"s{i}" for i in numbers],
        "fold": list(numbers),
    }
    # Audio itself would want torchcodec to write bytes that it has already.
    found = datasets.Dataset.from_dict(rows, features=features)
    return found.cast_column("audio", datasets.Audio(sampling_rate=8000))


def check(corpus, reference):
    """Compare all clips with what the reference reads."""
    reference = reference.cast_column("audio", datasets.Audio(decode=False))
    names = reference.features["label"].names
    assert len(corpus) == len(reference)
    for clip, item in zip(corpus, reference):
        with clip.place.opened() as file:
            assert file.read(1 << 20) == item["audio"]["bytes"]
        assert clip.id.endswith(item["audio"]["path"])
        assert clip.label == names[item["label"]]
        assert clip.columns["site"] == item["site"]
        assert clip.columns["fold"] == str(item["fold"])


@pytest.mark.parametrize("n_files", [1, 3])
def test_saved_to_disk(tmp_path, n_files):
    """Sounds are read where they lie in the files."""
    make(7).save_to_disk(tmp_path / "x", num_shards=n_files)
    corpus = open_corpus(tmp_path / "x")
    check(corpus, datasets.load_from_disk(tmp_path / "x"))
    assert all(isinstance(clip.place, Place) for clip in corpus)
    assert corpus.columns == ["site", "fold"]
    assert corpus.classes == ["cat", "dog"] and not corpus.notes


def test_splits_that_were_saved(tmp_path):
    both = datasets.DatasetDict({"train": make(5), "test": make(3)})
    both.save_to_disk(tmp_path / "x")
    corpus = open_corpus(tmp_path / "x")
    assert [clip.columns["split"] for clip in corpus] == [
        *["test"] * 3,
        *["train"] * 5,
    ]
    assert corpus[3].id == "train/c00.wav"
    check(open_corpus(tmp_path / "x" / "test"), both["test"])


def write_repository(folder, groups=2):
    """Parquet files as a repository on the hub has them."""
    (folder / "data").mkdir(parents=True)
    for split, data in ("train", make(5)), ("test", make(3)):
        path = folder / "data" / f"{split}-00000-of-00001.parquet"
        data.to_parquet(path, batch_size=groups)
    return folder


def test_repository(tmp_path):
    folder = write_repository(tmp_path / "x")
    corpus = open_corpus(folder)
    files = {
        s: str(x) for s in ("train", "test") for x in folder.rglob(f"{s}*")
    }
    reference = datasets.load_dataset(
        "parquet", data_files=files, cache_dir=str(tmp_path / "cache")
    )
    assert len(corpus) == 8 and corpus.columns == ["site", "fold", "split"]
    check(corpus[:3], reference["test"])
    check(corpus[3:], reference["train"])
    check(open_corpus(folder / "train"), reference["train"])
    # As a cache of the package, too.
    assert len(open_corpus(tmp_path / "cache")) == 8


def test_rows_in_any_order(tmp_path):
    """A row behind, before and again, of several groups."""
    corpus = open_corpus(write_repository(tmp_path / "x"))
    wanted = [clip.read(8000) for clip in corpus]
    for i in (7, 3, 3, 6, 0, 4, 2, 7, 1, 5):
        assert isinstance(corpus[i].place, Cell)
        assert torch.equal(corpus[i].read(8000), wanted[i])


def test_identity_is_that_of_the_rows(tmp_path):
    """Of Arrow and of Parquet."""
    make(5).save_to_disk(tmp_path / "x")
    make(5).to_parquet(tmp_path / "y.parquet")
    one, two = open_corpus(tmp_path / "x"), open_corpus(tmp_path / "y.parquet")
    assert one.identity == two.identity


def test_no_such_split(tmp_path):
    folder = write_repository(tmp_path / "x")
    with pytest.raises(LMACError, match="found the splits test, train"):
        open_corpus(folder / "valid")


def test_several_configurations(tmp_path):
    for name in ("en", "fr"):
        write_repository(tmp_path / name)
    with pytest.raises(
        LMACError, match="several configurations, in en/data, fr"
    ):
        open_corpus(tmp_path)
    assert len(open_corpus(tmp_path / "fr")) == 8


def write(path, columns, **more):
    """A Parquet file of no maker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **more)
    return path


def test_other_schemas(tmp_path):
    """Bytes alone, samples with their rate, of each type."""
    path = write(tmp_path / "a.parquet", {"wav": [sound(1)], "y": ["dog"]})
    (clip,) = open_corpus(path)
    assert (clip.id, clip.label) == ("a.parquet/0", "dog")
    wanted = clip.read(8000)
    wav, _ = sf.read(io.BytesIO(sound(1)), dtype="int16")
    for kind, array in (
        (pa.int16(), wav),
        (pa.float32(), wav / np.float32(1 << 15)),
        (pa.float64(), wav / (1 << 15)),
    ):
        audio = pa.StructArray.from_arrays(
            [pa.array([array], pa.list_(kind)), pa.array([8000])],
            ["array", "sampling_rate"],
        )
        (clip,) = open_corpus(write(tmp_path / "b.parquet", {"audio": audio}))
        assert torch.equal(clip.read(8000), wanted) and clip.label is None


def test_names_of_classes(tmp_path):
    """Of lists, of numbers that stand for nothing, and by a README."""
    columns = {"bytes": [sound(i) for i in range(3)], "tags": [[0, 1], [1], []]}
    path = write(tmp_path / "x" / "a.parquet", columns)
    readme = (
        "---\ndataset_info:\n  features:\n  - name: tags\n    dtype:\n"
        "      class_label:\n        names:\n          '0': cat\n"
        "          '1': dog\n---\n# Data\n"
    )
    (path.parent / "README.md").write_text(readme)
    corpus = open_corpus(path.parent)
    assert [clip.label for clip in corpus] == ["cat+dog", "dog", None]
    columns["tags"] = [1, -1, 7]
    write(path, columns)
    corpus = open_corpus(path.parent)
    assert [clip.label for clip in corpus] == ["dog", None, "7"]


def test_file_and_label_columns(tmp_path):
    columns = {"x": [sound(1)], "near": [sound(2)], "a": ["1"], "b": ["2"]}
    path = write(tmp_path / "a.parquet", columns)
    (clip,) = open_corpus(path, file_column="near", label_column="b")
    assert clip.label == "2" and clip.columns == {"a": "1"}
    with clip.place.opened() as file:
        assert file.read() == sound(2)
    with pytest.raises(LMACError, match="no column 'far', found x, near, a, b"):
        open_corpus(path, file_column="far")
    with pytest.raises(LMACError, match="label_column: a.parquet: has no.*'c'"):
        open_corpus(path, label_column="c")


def test_paths_stay_in_the_data_set(tmp_path):
    """A row that names a file elsewhere is a clip that cannot be read."""
    (tmp_path / "secret.wav").write_bytes(sound())
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "in.wav").write_bytes(sound(1))
    (tmp_path / "x" / "link.wav").symlink_to("../secret.wav")
    paths = [
        "in.wav",
        "../secret.wav",
        str(tmp_path / "secret.wav"),
        "link.wav",
    ]
    rows = [{"bytes": None, "path": path} for path in paths]
    for column in (rows, paths):
        write(tmp_path / "x" / "a.parquet", {"audio": column})
        n_read = 0
        for clip in open_corpus(tmp_path / "x" / "a.parquet"):
            try:
                n_read += len(clip.read(8000)) == 4000
            except LMACError as error:
                assert "outside the data set" in str(error)
        assert n_read == 1


def test_null_sounds(tmp_path):
    """Of a row with neither bytes nor path."""
    path = write(tmp_path / "a.parquet", {"bytes": [None, sound()]})
    corpus = open_corpus(path)
    with pytest.raises(LMACError, match="a.parquet/0: holds no sound"):
        corpus[0].read(8000)
    assert len(corpus[1].read(8000)) == 4000


def test_state_file_leads_nowhere(tmp_path):
    (tmp_path / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "../x.arrow"}]})
    )
    with pytest.raises(LMACError, match="expected a plain name"):
        open_corpus(tmp_path)
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(LMACError, match="has no list '_data_files'"):
        open_corpus(tmp_path)


@pytest.mark.parametrize("n_bytes", [0, 100, -20])
def test_truncated_file(tmp_path, n_bytes):
    """Its clips are missing, which is said; the others are there."""
    folder = write_repository(tmp_path / "x")
    path = folder / "data" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:n_bytes])
    corpus = open_corpus(folder)
    assert len(corpus) == 3 and len(corpus.lost) == 1
    assert f"{path}: cannot be read" in corpus.lost[0]
    with pytest.raises(LMACError, match="cannot be read"):
        open_corpus(path)


def test_truncated_arrow(tmp_path):
    make(5).save_to_disk(tmp_path / "x")
    (path,) = (tmp_path / "x").glob("*.arrow")
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(LMACError, match="cannot be read"):
        open_corpus(tmp_path / "x")


def test_damaged_content(tmp_path):
    """It is found when it is read, and named."""
    folder = write_repository(tmp_path / "x", groups=100)
    path = folder / "data" / "test-00000-of-00001.parquet"
    content = bytearray(path.read_bytes())
    content[200:9000] = b"\xff" * 8800
    path.write_bytes(content)
    n_failed = 0
    for clip in open_corpus(folder / "test"):
        try:
            clip.read(8000)
        except LMACError as error:
            assert str(path) in str(error)
            n_failed += 1
    assert n_failed


def test_no_sounds(tmp_path):
    path = write(tmp_path / "a.parquet", {"a": [1], "b": ["x"]})
    with pytest.raises(LMACError, match="found the columns a, b, expected one"):
        open_corpus(path)


def test_without_pyarrow(tmp_path, monkeypatch):
    make(1).save_to_disk(tmp_path / "x")
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(LMACError, match=r'pip install "lmac-sb\[corpus\]"'):
        open_corpus(tmp_path / "x")


def test_other_processes(tmp_path):
    make(3).save_to_disk(tmp_path / "x")
    for folder in (tmp_path / "x", write_repository(tmp_path / "y")):
        corpus = open_corpus(folder)
        assert list(pickle.loads(pickle.dumps(corpus))) == list(corpus)


def test_hostile_places(tmp_path):
    """Of an Arrow file whose bytes would lie elsewhere in memory."""
    make(3).save_to_disk(tmp_path)
    (path,) = tmp_path.glob("*.arrow")
    content = path.read_bytes()
    sizes = [len(sound(i)) for i in range(3)]
    ends = np.cumsum([0, *sizes]).astype("<i4").tobytes()
    wrong = np.array([0, 1 << 30, -5, 1 << 20], "<i4").tobytes()
    assert ends in content
    path.write_bytes(content.replace(ends, wrong))
    with pytest.raises(LMACError, match="cannot be read"):
        open_corpus(tmp_path)
