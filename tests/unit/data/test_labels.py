"""Labels are the same by whichever way they are reached."""

import json

import pytest
from test_corpus import fill, labels
from test_shards import pair, sound, write_tar

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.manifest import to_lines

VALUES = [["dog", "cat"], "cow", 3, True, 1.5, [], None, ["hen"]]
WANTED = ["dog+cat", "cow", "3", "True", "1.5", None, None, "hen"]
NAMES = [f"{i}.wav" for i in range(len(VALUES))]


def rows(column, values=VALUES):
    return [{"file": x, column: value} for x, value in zip(NAMES, values)]


def in_lines(folder, column, values=VALUES):
    """A table of JSON lines, with its sounds."""
    fill(folder, *NAMES)
    text = "".join(json.dumps(row) + "\n" for row in rows(column, values))
    (folder / "t.jsonl").write_text(text)
    return folder / "t.jsonl"


def in_shard(folder, column, values=VALUES):
    """The same in a shard."""
    return write_tar(
        folder / "a.tar",
        [
            member
            for i, value in enumerate(values)
            for member in (
                (f"{i}.wav", sound(i)),
                (f"{i}.json", json.dumps({column: value})),
            )
        ],
    )


def in_parquet(folder, column, values=VALUES):
    """Those that Parquet can have in one column."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    sounds = [sound(i) for i in range(len(values))]
    folder.mkdir()
    path = folder / "a.parquet"
    pq.write_table(pa.table({"bytes": sounds, column: values}), path)
    return path


@pytest.mark.parametrize("column", ["labels", "mine"])
@pytest.mark.parametrize("write", [in_lines, in_shard])
def test_lists_numbers_and_truth_values(tmp_path, write, column):
    where = write(tmp_path / "c", column)
    assert labels(open_corpus(where, label_column=column)) == WANTED
    if column == "labels":
        assert labels(open_corpus(where)) == WANTED


@pytest.mark.parametrize("column", ["labels", "mine"])
def test_a_table_beside_a_folder(tmp_path, column):
    path = in_lines(tmp_path / "c", column)
    for table in (None, path):
        corpus = open_corpus(tmp_path / "c", table=table, label_column=column)
        assert labels(corpus) == WANTED


@pytest.mark.parametrize(
    "values, wanted",
    [
        ([["dog", "cat"], [], None], ["dog+cat", None, None]),
        ([True, False, None], ["True", "False", None]),
        (["None", "nan", "NA"], ["None", "nan", "NA"]),
    ],
)
@pytest.mark.parametrize("write", [in_parquet, in_shard])
def test_the_usual_column_is_the_same_if_it_is_named(
    tmp_path, write, values, wanted
):
    where = write(tmp_path / "c", "label", values)
    assert labels(open_corpus(where)) == wanted
    assert labels(open_corpus(where, label_column="label")) == wanted
    where = write(tmp_path / "d", "mine", values)
    assert labels(open_corpus(where, label_column="mine")) == wanted


@pytest.mark.parametrize("column", ["label", "mine"])
def test_numbers_of_classes_have_their_names(tmp_path, column):
    where = in_shard(tmp_path, column, [1, 0, 1])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    corpus = open_corpus(where, label_column=column)
    assert labels(corpus) == ["dog", "cat", "dog"]


def test_numbers_beyond_the_classes_are_noted(tmp_path):
    where = in_shard(tmp_path, "mine", [1, 7, 1])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    corpus = open_corpus(where, label_column="mine")
    assert labels(corpus) == ["1", "7", "1"]
    assert any("has 2 classes" in note for note in corpus.notes)


@pytest.mark.parametrize("column", ["label", "mine"])
def test_class_labels_of_data_sets_have_their_names(tmp_path, column):
    datasets = pytest.importorskip("datasets")
    kind = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {
            "bytes": datasets.Value("binary"),
            column: datasets.Sequence(kind),
        }
    )
    found = datasets.Dataset.from_dict(
        {"bytes": [sound(0), sound(1)], column: [[1, 0], [1]]},
        features=features,
    )
    found.to_parquet(tmp_path / "a.parquet")
    corpus = open_corpus(tmp_path / "a.parquet", label_column=column)
    assert labels(corpus) == ["dog+cat", "dog"]


def test_class_labels_of_a_table_have_their_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    fill(tmp_path, "a.wav", "b.wav", "c.wav")
    features = datasets.Features(
        {
            "file": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    rows = {"file": ["b.wav", "a.wav", "c.wav"], "label": [0, 1, -1]}
    table = tmp_path / "labels.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(table)
    assert labels(open_corpus(tmp_path, table=table)) == ["dog", "cat", None]


def test_a_split_as_the_label(tmp_path):
    for split in ("train", "test"):
        write_tar(tmp_path / f"{split}-0.tar", pair("a"))
    corpus = open_corpus(tmp_path, label_column="split")
    assert labels(corpus) == ["test", "train"]


def test_a_list_in_a_manifest(tmp_path):
    fill(tmp_path, "a.wav")
    for entry in (
        {"wav": "a.wav", "class_string": ["dog", "cat"]},
        {"wav": "a.wav", "class_string": "x", "mine": ["dog", "cat"]},
    ):
        column = "mine" if "mine" in entry else None
        (tmp_path / "t.jsonl").write_text(to_lines({"a": entry}))
        corpus = open_corpus(tmp_path / "t.jsonl", label_column=column)
        assert labels(corpus) == ["dog+cat"]
