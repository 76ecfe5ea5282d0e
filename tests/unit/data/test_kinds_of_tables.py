"""Tables of any kind: as rows, and what is read of them."""

import datetime
import decimal
import json
import pickle

import pytest
from test_corpus import fill, ids, labels

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.rows import open_rows
from lmac_sb.data.table import read_table
from lmac_sb.utils.errors import LMACError

NAMES = ["dog1.wav", "dog2.wav", "rain1.wav"]
WANTED = {"dog1": "dog", "dog2": "dog", "rain1": "rain"}


def both_ways(folder, text, name="t.csv", **how):
    """Labels by the table alone, and beside the folder of the sounds."""
    fill(folder, *NAMES)
    for where, more in (
        (folder, {"table": folder / name}),
        (folder / name, {}),
    ):
        (folder / name).write_text(text)
        corpus = open_corpus(where, **more, **how)
        yield {clip.id.split(".")[0]: clip.label for clip in corpus}


@pytest.mark.parametrize(
    "text",
    [
        "dog1,dog\ndog2,dog\nrain1,rain\n",
        "dog;dog1\ndog;dog2\nrain;rain1\n",
        "dog1.wav,dog\ndog2.wav,dog\nrain1.wav,rain\n",
        "DOG1,dog\ndog2,dog\nrain1,rain\n",
    ],
)
def test_tables_without_a_header(tmp_path, text):
    """Also where names have no ending: the first row names a sound."""
    column = "column 1" if text.startswith("dog;") else "column 2"
    for found in both_ways(tmp_path / "c", text, label_column=column):
        assert {x.lower(): label for x, label in found.items()} == WANTED


@pytest.mark.parametrize(
    "header, sounds",
    [
        ("file,dog", ["dog.wav", "cat.wav"]),
        ("name,label", ["label.wav", "name.wav"]),
        (",dog", ["dog.wav", "0.wav"]),
        ("0,1", ["0.wav", "1.wav"]),
    ],
)
def test_headers_that_sounds_are_called_as(tmp_path, header, sounds):
    fill(tmp_path, *sounds)
    (tmp_path / "t.csv").write_text(f"{header}\n{sounds[0]},x\n{sounds[1]},y\n")
    corpus = open_corpus(tmp_path / "t.csv")
    assert sorted(ids(corpus)) == sorted(sounds) and corpus.notes == []


@pytest.mark.parametrize("separator", ",;\t|")
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_the_line_of_excel_about_the_separator(
    tmp_path, separator, end, encoding
):
    fill(tmp_path, "a.wav", "b.wav")
    lines = [
        *(f"sep={separator}", separator.join(["file", "label", "note"])),
        *(separator.join(["a", "dog", "é"]), separator.join(["b", "cow", ""])),
    ]
    path = tmp_path / "t.csv"
    path.write_bytes("".join(x + end for x in lines).encode(encoding))
    corpus = open_corpus(path)
    assert labels(corpus) == ["dog", "cow"] and corpus.columns == ["note"]
    assert open_rows(path).line(0) == 3
    if separator != "|":
        rows = read_table(path, ["file", "label"])
        assert [line for line, _ in rows] == [3, 4]
        assert rows[0][1] == {"file": "a", "label": "dog", "note": "é"}


def test_a_column_called_sep(tmp_path):
    fill(tmp_path, "a.wav")
    (tmp_path / "t.csv").write_text("sep,file\n1,a\n")
    assert open_corpus(tmp_path / "t.csv").columns == ["sep"]


def test_long_fields(tmp_path):
    fill(tmp_path, "a.wav")
    long = "x" * 200_000
    path = tmp_path / "t.csv"
    path.write_text(f"file,label,note\na.wav,dog,{long}\n")
    (clip,) = pickle.loads(pickle.dumps(open_corpus(path)))
    assert clip.columns["note"] == long
    assert read_table(path, ["file"])[0][1]["note"] == long


RECORDS = [
    {"file": "dog1.wav", "label": "dog", "site": "a\nü]"},
    {"file": "dog2.wav", "label": "dog", "n": [1, {"x": 2}]},
    {"file": "rain1.wav", "label": "rain", "site": None},
]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2, ensure_ascii=False),
        "\ufeff\n "
        + json.dumps(RECORDS, indent=4, ensure_ascii=False)
        + "\n\n",
        "".join(json.dumps(row) + "\n" for row in RECORDS),
    ],
)
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_tables_of_json(tmp_path, text, name):
    for found in both_ways(tmp_path / "c", text, name):
        assert found == WANTED
    corpus = open_corpus(tmp_path / "c" / name)
    assert [clip.columns for clip in corpus] == [
        {"site": "a\nü]", "n": None},
        {"site": None, "n": '[1, {"x": 2}]'},
        {"site": None, "n": None},
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ('[{"file": "a"},\n7]', "line 2: found 7, expected an object for each"),
        (
            '[{"file": "a"}\n{"file": "b"}]',
            "line 2: not JSON .*a list of objects",
        ),
        ('[{"file": "a"}', "line 1: not JSON .*a list of objects"),
        ('[{"file": "a"}] x', "line 1: not JSON .*a list of objects"),
        ("[" * 100_000, "line 1: not JSON .*a list of objects"),
        (
            '{"file": {"0": "a"}, "label": {"0": "b"}}',
            "found an .*orient='records'",
        ),
        ("", "is empty"),
        ("[]", "has no rows"),
        ('{\n"file": "a"}', "line 1: not JSON.*expected one JSON object a"),
    ],
)
def test_bad_tables_of_json(tmp_path, text, message):
    fill(tmp_path, "a.wav")
    (tmp_path / "t.json").write_text(text)
    for how in {}, {"table": tmp_path / "t.json"}:
        where = tmp_path if how else tmp_path / "t.json"
        with pytest.raises(LMACError, match=f"t.json: {message}"):
            open_corpus(where, **how)


@pytest.mark.parametrize("header", ["file,label\n", "file;label", "file\n\n"])
def test_tables_without_rows(tmp_path, header):
    fill(tmp_path, "a.wav")
    path = tmp_path / "t.csv"
    path.write_text(header)
    for where, how in ((path, {}), (tmp_path, {"table": path})):
        with pytest.raises(LMACError, match="t.csv: has no rows, expected one"):
            open_corpus(where, **how)
    (note,) = open_corpus(tmp_path).notes
    assert "t.csv: has no rows" in note and "not used" in note


@pytest.mark.parametrize("ending", ["parquet", "PARQUET", "arrow"])
def test_parquet_tables_beside_a_folder(tmp_path, ending):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    day = datetime.datetime(2024, 1, 1)
    rows = pa.table(
        {
            "bytes": [b"RIFF", None, None],
            "file": [*reversed(NAMES)],
            "label": [["rain"], ["dog"], ["dog", "cat"]],
            "day": [day, None, day],
            "date": [day.date()] * 3,
            "n": [1, 2, None],
            "price": [decimal.Decimal("1.50")] * 3,
        }
    )
    path = tmp_path / f"own.{ending}"
    if ending == "arrow":
        with pa.OSFile(str(path), "wb") as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows, max_chunksize=2)
    else:
        pq.write_table(rows, path, row_group_size=2)
    corpus = open_corpus(fill(tmp_path / "c", *NAMES), table=path)
    corpus = pickle.loads(pickle.dumps(corpus))
    assert labels(corpus) == ["dog+cat", "dog", "rain"]
    assert corpus.columns == ["day", "date", "n", "price"]
    assert [clip.columns["day"] for clip in corpus] == [
        *("2024-01-01 00:00:00", None, "2024-01-01 00:00:00")
    ]
    assert [clip.columns["n"] for clip in corpus] == [None, "2", "1"]
    assert corpus[0].columns["date"] == "2024-01-01"
    assert corpus[0].columns["price"] == "1.50"


def test_bad_parquet_tables(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path / "c", *NAMES)
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"file": pa.array([], pa.string())}), path)
    with pytest.raises(LMACError, match="own.parquet: has no rows"):
        open_corpus(tmp_path / "c", table=path)
    pq.write_table(pa.table({"site": ["a", "b"]}), path)
    with pytest.raises(LMACError, match="own.parquet: no column names"):
        open_corpus(tmp_path / "c", table=path)
    path.write_bytes(b"PAR1")
    with pytest.raises(LMACError, match="own.parquet: cannot be read"):
        open_corpus(tmp_path / "c", table=path)
    path.unlink()
    with pytest.raises(LMACError, match="own.parquet: cannot be read"):
        open_corpus(tmp_path / "c", table=path)


def test_a_parquet_table_that_changes_meanwhile(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "own.parquet"
    pq.write_table(pa.table({"file": NAMES, "site": [*"abc"]}), path)
    corpus = open_corpus(fill(tmp_path / "c", *NAMES), table=path)
    pq.write_table(pa.table({"file": NAMES[:2], "site": [*"xy"]}), path)
    with pytest.raises(LMACError, match="was changed while it was in use"):
        corpus[0]
