"""Whatever a table can hold is read back: labels, names, tables."""

import csv
import io
import tempfile
import unicodedata
from pathlib import Path

import pytest
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.importutils import LazyModule

# See test_fuzz.py.
LazyModule.__file__ = None

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lmac_sb.data.dataset import MultilabelEncoder  # noqa: E402
from lmac_sb.data.manifest import (  # noqa: E402
    labels_of,
    read_entries,
    to_lines,
)
from lmac_sb.data.names import Names  # noqa: E402
from lmac_sb.data.table import read_table  # noqa: E402
from lmac_sb.models.classifier_folder import (  # noqa: E402
    load_labels,
    save_labels,
)
from lmac_sb.utils.errors import LMACError  # noqa: E402

often = settings(max_examples=200, deadline=None)
pieces = st.sampled_from(
    [
        *(" => ", "=>", "= >", "=", ">", "x3d", "\\", "'", '"', " ", "+"),
        *(
            "================\n",
            "\n",
            "\r",
            "\x85",
            "\u2028",
            "\0",
            "#",
            "<unk>",
        ),
        *("1", "True", "None", "e\u0301", "\u00e9", "\U0001f415", "\ud800"),
    ]
)
labels = st.lists(pieces | st.text(max_size=3), max_size=6).map("".join)


def written_and_read(encoder, kind):
    """An encoder from the file of another one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label_encoder.txt"
        save_labels(encoder, path)
        read = kind()
        load_labels(read, path)
        return read


@often
@given(st.lists(labels, min_size=1, unique=True))
def test_labels_survive_their_file(names):
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(names)
    before = dict(encoder.lab2ind)
    read = written_and_read(encoder, CategoricalEncoder)
    assert read.lab2ind == encoder.lab2ind == before
    assert read.ind2lab == encoder.ind2lab
    for name in names:
        assert read.encode_label(name) == before[name]


@often
@given(st.lists(labels, min_size=1, unique=True))
def test_several_labels_survive_their_file(names):
    encoder = MultilabelEncoder()
    encoder.update_from_iterable(names)
    read = written_and_read(encoder, MultilabelEncoder)
    assert read.lab2ind == encoder.lab2ind
    for name in names:
        found = read.encode_label_torch(name)
        assert found.sum() == len(set(labels_of(name)))


@often
@given(st.dictionaries(labels, labels))
def test_manifests_keep_any_text(entries):
    entries = {name: {"class_string": x} for name, x in entries.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        path.write_text(to_lines(entries), encoding="utf-8")
        assert dict(read_entries(path)) == entries


cells = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8
).map(lambda text: text.strip() or "x")


@often
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=5),
    st.sampled_from(",;\t"),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_tables_of_any_program(rows, separator, encoding, end, quoting):
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, lineterminator=end, quoting=quoting
    )
    writer.writerows([("filename", "category"), *rows])
    content = text.getvalue().encode(encoding)
    found = read_table("x.csv", ["filename", "category"], content)
    assert [tuple(row.values()) for _, row in found] == rows


@often
@given(st.binary(max_size=60))
def test_any_bytes_are_a_table_or_one_line(content):
    try:
        read_table("x.csv", ["a"], b"a,b\n" + content)
        read_table("x.csv", ["a"], content)
    except LMACError as error:
        assert "\n" not in str(error)


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"),
    min_size=1,
    max_size=12,
).filter(lambda name: name.strip() and name.strip(".") and name != "\0")


@settings(max_examples=100, deadline=None)
@given(
    names,
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from([str, str.upper, str.lower, str.swapcase]),
)
def test_a_name_in_any_form_finds_its_file(name, on_disk, in_table, case):
    kept = unicodedata.normalize(on_disk, name)
    asked = case(unicodedata.normalize(in_table, name))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / kept).touch()
        found = Names(Path(folder)).find([asked.strip()])
    # Some letters have no way back from another case.
    if asked.casefold() == name.casefold() or case is str:
        assert found is not None and found.name == kept


@pytest.mark.parametrize("name", ["\u00df", "\u0130", "\ufb01"])
def test_letters_without_a_way_back(name, tmp_path):
    """They are found by their own name at least."""
    (tmp_path / name).touch()
    assert Names(tmp_path).find([name]).name == name
