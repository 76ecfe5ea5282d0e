"""Which column of a table names the clips."""

import pytest
from test_corpus import fill, ids, labels

from lmac_sb.data.corpus import open_corpus
from lmac_sb.utils.errors import LMACError

# As pandas writes it with its index; the last clip is not there.
INDEXED = (
    "{index},filename,label\n"
    "0,3.wav,rain\n1,2.wav,dog\n2,1.wav,cow\n3,0.wav,hen\n4,9.wav,cat\n"
)
LABELS = ["hen", "cow", "dog", "rain"]


def numbered(folder, text, place="t.csv"):
    """Clips 0.wav to 3.wav, and a table."""
    fill(folder, *(f"{i}.wav" for i in range(4)))
    path = folder / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def known(corpus):
    """Labels of the four clips that are there."""
    return [clip.label for clip in corpus if not clip.id.startswith("9")]


@pytest.mark.parametrize(
    "index", ["", "Unnamed: 0", "index", "id", "level_0", "number"]
)
@pytest.mark.parametrize("file", ["filename", "File", "path", "wav"])
def test_an_index_is_not_taken_for_the_files(tmp_path, index, file):
    text = INDEXED.format(index=index).replace("filename", file)
    table = numbered(tmp_path / "c", text, "meta/t.csv")
    beside = numbered(tmp_path / "c", text, "../t.csv")
    assert labels(open_corpus(tmp_path / "c")) == LABELS
    table.unlink()
    assert labels(open_corpus(tmp_path / "c", table=beside)) == LABELS
    table.write_text(text)
    assert known(open_corpus(table)) == LABELS


def test_an_index_that_was_filtered_is_not_taken_either(tmp_path):
    text = "Unnamed: 0,filename,label\n3,1.wav,dog\n1,3.wav,cow\n0,9.wav,x\n"
    table = numbered(tmp_path, text)
    assert known(open_corpus(table)) == ["dog", "cow"]
    assert labels(open_corpus(tmp_path)) == [None, "dog", None, "cow"]


def test_which_column_was_taken_is_said_where_two_disagree(tmp_path):
    table = numbered(tmp_path, INDEXED.format(index="id"))
    wanted = "t.csv: the columns 'filename' and 'id' name different clips; "
    for corpus in open_corpus(table), open_corpus(tmp_path, table=table):
        (note,) = [x for x in corpus.notes if "different clips" in x]
        assert wanted in note and "'filename' is taken" in note
        assert "file_column" in note


def test_nothing_is_said_where_columns_name_the_same(tmp_path):
    text = "id,filename,label\n0,0.wav,a\n1,1.wav,b\n2,2.wav,c\n3,3.wav,d\n"
    table = numbered(tmp_path, text)
    assert open_corpus(table).notes == []
    assert open_corpus(tmp_path).notes == []


@pytest.mark.parametrize(
    "text",
    [
        "id,label\n0,hen\n1,cow\n2,dog\n3,rain\n",
        ",label\n0,hen\n1,cow\n2,dog\n3,rain\n",
        ",label\n0.wav,hen\n1.wav,cow\n2.wav,dog\n3.wav,rain\n",
        "target,key,label\n0,0,hen\n1,1,cow\n0,2,dog\n1,3,rain\n",
        "length,key,label\n3,0,hen\n1,1,cow\n2,2,dog\n0,3,rain\n",
    ],
)
def test_a_counter_counts_where_nothing_else_names_clips(tmp_path, text):
    table = numbered(tmp_path, text)
    assert labels(open_corpus(tmp_path)) == LABELS
    assert labels(open_corpus(table)) == LABELS


def test_more_rows_than_clips(tmp_path):
    """Of a large table, most clips are named, though few rows do."""
    rows = "".join(f"{i},{99 - i}.wav,label {99 - i}\n" for i in range(100))
    numbered(tmp_path, ",filename,label\n" + rows, "../t.csv")
    corpus = open_corpus(tmp_path, table=tmp_path.parent / "t.csv")
    assert labels(corpus) == [f"label {i}" for i in range(4)]


def test_a_column_that_is_named_is_taken_in_all_tables(tmp_path):
    text = "filename,other,label\n0.wav,3.wav,a\n1.wav,2.wav,b\n"
    for place in ("meta/t.csv", "t.csv", "../t.csv"):
        table = numbered(tmp_path / "c", text, place)
        asked = {"file_column": "other"}
        if place == "../t.csv":
            corpus = open_corpus(tmp_path / "c", table=table, **asked)
        else:
            corpus = open_corpus(tmp_path / "c", **asked)
        assert labels(corpus) == [None, None, "b", "a"]
        corpus = open_corpus(tmp_path / "c", table=table, **asked)
        assert labels(corpus) == [None, None, "b", "a"]
        table.unlink()


def test_tables_of_which_one_has_the_column(tmp_path):
    numbered(tmp_path, "other,label\n0.wav,a\n3.wav,b\n", "meta/a.csv")
    numbered(
        tmp_path, "filename,site\n0.wav,north\n3.wav,south\n", "meta/b.csv"
    )
    corpus = open_corpus(tmp_path, file_column="other")
    assert labels(corpus) == ["a", None, None, "b"]
    assert corpus[0].columns == {"site": "north"}


@pytest.mark.parametrize("text", [None, "filename,label\n0.wav,a\n"])
def test_a_column_that_no_table_has(tmp_path, text):
    table = numbered(tmp_path, text or "")
    if text is None:
        table.unlink()
    found = "found filename, label" if text else "found no table"
    with pytest.raises(LMACError, match=f"no column 'foo', {found}"):
        open_corpus(tmp_path, file_column="foo")


def test_numbers_with_a_point_are_those_of_pandas(tmp_path):
    """Where some are missing, pandas makes floats of whole numbers."""
    text = "id,label\n0.0,hen\n1.0,cow\n,x\n2.0,dog\n3.0,rain\n"
    table = numbered(tmp_path, text)
    assert labels(open_corpus(tmp_path)) == LABELS
    clips = [clip for clip in open_corpus(table) if clip.label != "x"]
    assert [clip.label for clip in clips] == LABELS
    assert all(len(clip.read(8000)) == 4000 for clip in clips)


def test_a_name_with_a_point_comes_first(tmp_path):
    fill(tmp_path, "1.0.wav", "1.wav")
    (tmp_path / "t.csv").write_text("id,label\n1.0,a\n1,b\n")
    corpus = open_corpus(tmp_path)
    assert dict(zip(ids(corpus), labels(corpus))) == {
        "1.0.wav": "a",
        "1.wav": "b",
    }
