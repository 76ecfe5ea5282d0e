"""Checksums inside of JSON files."""

import json
import math

import pytest

from lmac_sb.utils.seal import SEAL, is_sealed, seal

CONTENT = {
    "rows": [{"AI": math.nan, "id": "K\u00e4fer", "n": 1}, {"x": 0.1 + 0.2}],
    "seconds": (1, 2.0, None, True),
    "inf": -math.inf,
    1: "a number as a key",
}


def test_survives_a_file():
    text = json.dumps(seal(CONTENT, "a.json"))
    assert is_sealed(json.loads(text), "a.json")
    assert is_sealed(json.loads(text), "a.json")
    assert not is_sealed(json.loads(text), "b.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x["rows"].pop(),
        lambda x: x["rows"].reverse(),
        lambda x: x["rows"][0].update(n=1.0),
        lambda x: x["rows"][0].update(AI=0),
        lambda x: x.update(more=1),
        lambda x: x.pop("inf"),
        lambda x: x.pop(SEAL),
        lambda x: x.update({SEAL: None}),
    ],
)
def test_a_change_is_found(change):
    content = json.loads(json.dumps(seal(CONTENT, "a.json")))
    change(content)
    assert not is_sealed(content, "a.json")


@pytest.mark.parametrize("other", [[], None, 1, "x", {}])
def test_something_else(other):
    assert not is_sealed(other, "a.json")
