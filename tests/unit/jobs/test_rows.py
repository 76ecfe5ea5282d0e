"""Tests of tables that come in parts."""

import math
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lmac_sb.jobs.rows import (
    common_schema,
    fit,
    read_about,
    read_rows,
    read_schema,
    table_of,
    write_table,
)
from lmac_sb.utils.errors import LMACError


def kind(*values):
    """Type of a column with these values."""
    return table_of([{"x": value} for value in values]).schema.field("x").type


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], pa.null()),
        ([None, True], pa.bool_()),
        ([True, 2], pa.int64()),
        ([1, None, 2.5], pa.float64()),
        ([1, "a"], pa.string()),
        ([[], None], pa.list_(pa.null())),
        ([[], [None, 1], [2.5]], pa.list_(pa.float64())),
        ([["a"], [1]], pa.list_(pa.string())),
        ([[[1]], [[None]]], pa.list_(pa.list_(pa.int64()))),
        ([["a"], 1], pa.string()),
        ([1, 1 << 60], pa.string()),
        ([1 << 80], pa.string()),
        ([np.float32(0.5), torch.tensor(1)], pa.float64()),
        ([np.zeros(2), torch.zeros(2)], pa.list_(pa.float64())),
        ([np.int8(1), np.bool_(True)], pa.int64()),
    ],
)
def test_kinds(values, expected):
    """What a column holds, in whatever order its values come."""
    assert kind(*values) == expected
    assert kind(*reversed(values)) == expected


def test_what_is_put_in_comes_out():
    rows = [
        {"id": "a", "p": 0.1, "n": 1 << 53, "ok": True, "bands": [1.5, None]},
        {"id": "Käfer\n", "p": math.nan, "n": -1, "ok": None, "bands": []},
        {"id": "", "p": None, "n": None, "ok": False, "bands": None},
        {"id": "d", "p": -math.inf, "n": 0, "ok": False, "bands": [math.inf]},
    ]
    found = table_of(rows).to_pylist()
    assert repr(found) == repr(rows)


def test_nan_is_not_null():
    column = table_of([{"x": math.nan}, {"x": None}, {}]).column("x")
    assert column.null_count == 2
    assert math.isnan(column[0].as_py())


def test_a_name_that_is_no_text():
    """Two names of files stay two."""
    names = [os.fsdecode(name) for name in (b"dog\xe9", b"dog\xe8")]
    found = table_of([{"id": name} for name in names]).column("id").to_pylist()
    assert len(set(found)) == 2 and all(name.isascii() for name in found)


def test_what_no_column_holds():
    with pytest.raises(LMACError, match="column 'x': found {'a': 1}, expected"):
        table_of([{"x": {"a": 1}}])


def schema_of(rows):
    """Schema of a table of rows."""
    return table_of(rows).schema


def test_later_tables_fit():
    """The first knows neither all columns nor what is in them."""
    parts = [
        [{"id": "a", "error": None, "n": 1, "x": None, "list": []}],
        [],
        [{"id": "b", "error": "bad", "n": 2.5, "x": [None], "list": [0.5]}],
        [{"late": True, "id": "c", "n": True, "x": ["t"], "list": None}],
        [{"id": 7, "late": 2, "list": [1]}],
    ]
    schema = pa.schema([])
    for part in parts:
        schema = common_schema(schema, schema_of(part))
    assert schema.names == ["id", "error", "n", "x", "list", "late"]
    tables = [fit(table_of(part), schema) for part in parts]
    assert {table.schema for table in tables} == {schema}
    whole = pa.concat_tables(tables).to_pydict()
    assert whole["id"] == ["a", "b", "c", "7"]
    assert whole["error"] == [None, "bad", None, None]
    assert whole["n"] == [1.0, 2.5, 1.0, None]
    assert whole["x"] == [None, [None], ["t"], None]
    assert whole["list"] == [[], [0.5], None, [1.0]]
    assert whole["late"] == [None, None, 1, 2]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    """Also after it was read, and in another process on another day."""
    rows = [{"id": str(i), "p": i / 7, "x": None} for i in range(50)]
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    write_table(paths[0], table_of(rows), {"b": 1, "a": 2})
    write_table(paths[1], read_rows(paths[0]), {"a": 2, "b": 1})
    code = (
        "import sys; from lmac_sb.jobs.rows import *;"
        "rows = [{'id': str(i), 'p': i / 7, 'x': None} for i in range(50)];"
        "write_table(sys.argv[1], table_of(rows), {'a': 2, 'b': 1})"
    )
    subprocess.run([sys.executable, "-c", code, paths[2]], check=True)
    assert len({path.read_bytes() for path in paths}) == 1
    assert read_about(paths[0]) == {"a": 2, "b": 1}
    assert pq.read_table(paths[0]).to_pylist() == rows


def test_tables_without_rows_or_columns(tmp_path):
    path = tmp_path / "x.parquet"
    for rows in ([], [{}, {}]):
        write_table(path, table_of(rows))
        assert read_schema(path).names == []
    wide = table_of([{"x": 1}]).slice(0, 0)
    write_table(path, wide)
    assert read_rows(path) == wide


@pytest.mark.parametrize("read", [read_rows, read_schema, read_about])
def test_files_that_are_none(tmp_path, read):
    path = tmp_path / "x.parquet"
    with pytest.raises(LMACError, match="x.parquet: no such file"):
        read(path)
    for content in (b"", b"text" * 100):
        path.write_bytes(content)
        with pytest.raises(LMACError, match="x.parquet: cannot be read as Par"):
            read(path)
    write_table(path, table_of([{"x": 0.5}] * 1000))
    os.truncate(path, path.stat().st_size - 9)
    with pytest.raises(LMACError, match="x.parquet: cannot be read as Par"):
        read(path)


def test_a_changed_value_is_noticed(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(path, table_of([{"x": str(i * 7919)} for i in range(999)]))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(LMACError, match="x.parquet: cannot be read"):
        read_rows(path)


def test_columns_that_are_asked_for(tmp_path):
    path = tmp_path / "x.parquet"
    write_table(path, table_of([{"a": 1, "b": 2}]))
    assert read_rows(path, ["b", "c"]).to_pylist() == [{"b": 2}]


@pytest.mark.parametrize("name", ["pyarrow", "pandas"])
def test_a_missing_package(monkeypatch, name):
    from lmac_sb.utils.extra import needed

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LMACError, match=rf'{name}: .*"lmac-sb\[corpus\]"'):
        needed(name)
