"""Tests of files that appear complete or not at all."""

import csv
import json
import math

import pytest

from lmac_sb.utils import io
from lmac_sb.utils.io import write_csv, write_in_one_step, write_json

NAN = float("nan")


def test_csv_round_trip(tmp_path):
    """A csv is read as it was written, with quotes."""
    path = tmp_path / "results.csv"
    rows = [{"id": 'a,"b"', "AI": 100.0}, {"id": "ü", "AI": NAN}]
    write_csv(path, rows)
    assert path.read_bytes().startswith(b"id,AI\n")
    with open(path, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ['a,"b"', "ü"]
    assert found[0]["AI"] == "100.0" and math.isnan(float(found[1]["AI"]))
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip(tmp_path):
    """JSON is read as it was written."""
    content = {"summary": {"lmac": {"AI": [0.1, 2]}}, "command": "ü x.py"}
    path = tmp_path / "results.json"
    write_json(str(path), content)
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_in_one_step(tmp_path):
    """Bytes are written as they are, lines with their ends."""
    path = tmp_path / "x"
    write_in_one_step(path, lambda file: file.write(b"\r\n\xff"), binary=True)
    assert path.read_bytes() == b"\r\n\xff"
    write_in_one_step(path, lambda file: file.write("ü\n"))
    assert path.read_bytes() == "ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "write, content",
    [
        (write_csv, [{"a": 1}, {"a": 2, "b": 3}]),
        (write_csv, []),
        (write_json, {"a": 1, "b": object()}),
    ],
    ids=["csv", "no rows", "json"],
)
def test_failed_write_leaves_nothing(tmp_path, write, content, old):
    """The old file stays as it was, and no part of the new one."""
    path = tmp_path / "results"
    if old:
        path.write_text("old")
    with pytest.raises((ValueError, TypeError, IndexError)):
        write(path, content)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * old


def test_name_is_only_given_to_a_complete_file(tmp_path, monkeypatch):
    """While it is written, the file has another name in the same folder."""
    path = tmp_path / "results.json"
    path.write_text("old")
    seen = []
    replace = io.os.replace

    def watched(part, target):
        seen.append((part.parent, json.loads(part.read_text())))
        assert path.read_text() == "old"
        replace(part, target)

    monkeypatch.setattr(io.os, "replace", watched)
    write_json(path, {"a": 1})
    assert seen == [(tmp_path, {"a": 1})]
    assert json.loads(path.read_text()) == {"a": 1}
