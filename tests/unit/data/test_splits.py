"""Splits and folds of a corpus: of folders, of columns, or dealt out."""

import logging

import pytest
from test_corpus import fill, ids, labels

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.folds import list_clips
from lmac_sb.utils.errors import LMACError

CLASSES = ("dog", "rain")


def splits(corpus, column="split"):
    return {clip.id: clip.columns[column] for clip in corpus}


def folds(corpus):
    return {row["filename"]: row["fold"] for row in list_clips(corpus)}


def below(form, n=2):
    """Names of sounds of two classes in two splits."""
    return [
        form.format(label=label, split=split, name=f"{label}{split}{i}.wav")
        for label in CLASSES
        for split in ("train", "test")
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "form",
    [
        "{label}/{split}/{name}",
        "audio/{label}/{split}/{name}",
        "{label}/{split}/wav/{name}",
        "{label}/audio/{split}/{name}",
        "{split}/{label}/{name}",
        "{split}/audio/{label}/{name}",
    ],
)
def test_splits_above_and_below_the_class(tmp_path, form):
    corpus = open_corpus(fill(tmp_path, *below(form)))
    assert corpus.classes == [*CLASSES] and corpus.notes == []
    assert corpus.columns == ["split"]
    for clip in corpus:
        assert clip.columns["split"] in clip.id.split("/")
        assert clip.label in clip.id.split("/")
    for name, fold in folds(corpus).items():
        assert (fold == 5) == ("test" in name)


def test_folds_below_the_class(tmp_path):
    names = [f"{x}/fold{i}/{x}{i}.wav" for x in CLASSES for i in (1, 2)]
    corpus = open_corpus(fill(tmp_path, *names))
    assert corpus.classes == [*CLASSES] and corpus.columns == ["fold"]
    assert folds(corpus) == {name: int(name[-5]) for name in names}


def test_folders_below_the_class_that_are_no_splits(tmp_path):
    names = ["dog/a/train/x.wav", "dog/b/y.wav", "cat/test/z.wav"]
    corpus = open_corpus(fill(tmp_path, *names))
    assert labels(corpus) == ["cat", "dog", "dog"] and corpus.columns == []


@pytest.mark.parametrize(
    "stray",
    [["demo.wav"], ["extra/x.wav"], ["extra/cow/x.wav", "demo.wav", "b.wav"]],
)
def test_strays_beside_splits_have_neither_split_nor_label(tmp_path, stray):
    names = below("{split}/{label}/{name}")
    corpus = open_corpus(fill(tmp_path / "sx", *names, *stray))
    assert corpus.classes == [*CLASSES] and corpus.columns == ["split"]
    for clip in corpus:
        is_stray = clip.id in stray
        assert (clip.columns["split"] is None) == is_stray
        assert (clip.label is None) == is_stray
    (note,) = corpus.notes
    n = len(stray)
    assert f"sx: {n} of {8 + n} sounds are in no folder of the splits" in note
    assert "test, train" in note and all(name in note for name in stray)
    rows = list_clips(corpus)
    assert sorted(x["filename"] for x in rows if "problem" in x) == sorted(
        stray
    )


def test_strays_beside_folds(tmp_path):
    names = [f"fold{i}/{x}/{x}{i}.wav" for x in CLASSES for i in (1, 2)]
    corpus = open_corpus(fill(tmp_path, *names, "demo.wav", "more/x.wav"))
    assert corpus.classes == [*CLASSES]
    assert splits(corpus, "fold")["demo.wav"] is None
    assert "in no folder of the folds fold1, fold2" in corpus.notes[0]


def test_a_stray_below_the_class_has_its_label(tmp_path):
    names = below("{label}/{split}/{name}")
    corpus = open_corpus(fill(tmp_path, *names, "dog/x.wav"))
    assert dict(zip(ids(corpus), labels(corpus)))["dog/x.wav"] == "dog"
    assert splits(corpus)["dog/x.wav"] is None
    assert "dog/x.wav" in corpus.notes[0]
    # It may be a copy of one to be tested with.
    with pytest.raises(LMACError, match="dog/x.wav: has no split"):
        list_clips(corpus)


def test_a_stray_beside_a_plain_folder(tmp_path):
    corpus = open_corpus(fill(tmp_path, "audio/dog/a.wav", "demo.wav"))
    assert labels(corpus) == ["dog", None]


@pytest.mark.parametrize(
    "names",
    [
        ["train/a.wav", "train/b.wav", "train/c.wav", "bus/d.wav"],
        ["test/a.wav", "train/b.wav", "x/c.wav", "y/d.wav", "z/e.wav"],
    ],
)
def test_classes_that_are_called_as_splits(tmp_path, names):
    """One among others, as of vehicles, or few clips of many."""
    corpus = open_corpus(fill(tmp_path, *names))
    assert corpus.classes == sorted({name.split("/")[0] for name in names})
    assert corpus.columns == []


def told(folder, column, values, *more):
    """Five sounds of a class, and a table that tells their splits."""
    names = [f"dog/{i}.wav" for i in range(len(values))]
    fill(folder, *names)
    rows = "".join(
        f"{x},{value},{i}\n" for i, (x, value) in enumerate(zip(names, values))
    )
    (folder / "t.csv").write_text(f"file,{column},number\n{rows}")
    return open_corpus(folder)


SPLITS = ["train", "Test", "valid", "training", "test"]
AS_FOLDS = [1, 5, 4, 2, 5]


@pytest.mark.parametrize(
    "column",
    [
        *("split", "Split", "SPLIT", "Fold", "subset", "set", "partition"),
        *("data_split", "Subset"),
    ],
)
@pytest.mark.parametrize(
    "values, wanted",
    [
        (SPLITS, AS_FOLDS),
        (["1", "2", "7", "5", "1"], [1, 2, 7, 5, 1]),
        (["1.0", "2.0", "7.0", "5.0", "1.0"], [1, 2, 7, 5, 1]),
        (["fold1", "fold2", "Fold 7", "fold_5", "fold1"], [1, 2, 7, 5, 1]),
    ],
)
def test_columns_of_splits_or_folds(tmp_path, caplog, column, values, wanted):
    corpus = told(tmp_path, column, values)
    with caplog.at_level(logging.WARNING):
        assert [*folds(corpus).values()] == wanted
    is_said = f"by the column '{column}'" in caplog.text
    assert is_said == (column != "split")


@pytest.mark.parametrize(
    "column, values, message",
    [
        ("fold", ["1", "x", "1"], "1.wav: fold is 'x', expected a whole"),
        ("Fold", ["a", "b", "b"], "0.wav: fold is 'a', expected a whole"),
        ("fold", ["1", "", "1"], "1.wav: fold is '', expected a whole"),
        ("split", ["train", "x", "test"], "found the split 'x', expected tr"),
        ("Split", ["a", "b", "b"], "found the split 'a', expected train, v"),
        ("subset", ["train", "", "test"], "1.wav: has no split, expected tr"),
        ("fold", ["1", "test", "2"], "1.wav: fold is 'test', expected a who"),
    ],
)
def test_values_that_are_no_splits(tmp_path, column, values, message):
    with pytest.raises(LMACError, match=message):
        list_clips(told(tmp_path, column, values))


@pytest.mark.parametrize(
    "column, values, said",
    [
        ("set", ["a", "b", "a"], "'set' looks like one of splits, found a, b"),
        ("role", ["train", "test", "dev"], "'role' looks like one of splits"),
        ("site", ["a", "train", "test"], ""),
        ("note", ["train", "train", "train"], ""),
    ],
)
def test_folds_that_are_dealt_out_beside_a_column(
    tmp_path, caplog, column, values, said
):
    corpus = told(tmp_path, column, values)
    with caplog.at_level(logging.WARNING):
        assert [*folds(corpus).values()] == [1, 2, 3]
    assert (said and "folds are dealt out, though") in caplog.text
    assert said in caplog.text and bool(caplog.text) == bool(said)


def test_folds_come_before_splits(tmp_path):
    corpus = told(tmp_path, "Split,fold", ["train,7", "test,8"])
    assert [*folds(corpus).values()] == [7, 8]
