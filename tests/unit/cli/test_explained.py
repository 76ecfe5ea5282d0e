"""Tests of what `lmac explain` says of many sounds."""

import json
import tracemalloc

import pytest

from lmac_sb.cli.explained import Told
from lmac_sb.inference.order import Outcome


def result(number, **changes):
    """What is reported of an explanation."""
    return {
        "file": f"{number}.wav",
        "folder": f"out/{number}",
        "kept": False,
        "class": "Käfer",
        "parents": "",
        "p": 0.5,
        "p_inside": None,
        "p_outside": 0.25,
        "verdict": "faithful",
        "stable": None,
        "notes": [],
        **changes,
    }


@pytest.mark.parametrize("n_sounds", [0, 1, 3])
def test_json(capsys, n_sounds):
    """All of it, in the order in which it came, as one object."""
    results = [result(i, stable=i != 1) for i in range(n_sounds)]
    with Told(as_json=True) as told:
        for i in range(n_sounds):
            told.add(Outcome(f"{i}.wav", [results[i]]))
            told.add(Outcome(f"bad{i}", [], f"bad{i}: \udce9\n"))
        assert capsys.readouterr().out == ""
        told.finish()
    out = capsys.readouterr().out
    assert out.isascii()
    content = json.loads(out)
    assert content["results"] == results
    errors = [
        {"file": f"bad{i}", "error": f"bad{i}: \udce9\n"}
        for i in range(n_sounds)
    ]
    assert content["errors"] == errors
    counts = {0: {}, 1: {"faithful": 1}, 3: {"faithful": 3, "not stable": 1}}
    assert content["verdicts"] == counts[n_sounds]
    assert (told.n_sounds, told.n_failed) == (2 * n_sounds, n_sounds)
    assert told.n_good == n_sounds - (n_sounds == 3)


@pytest.mark.parametrize("as_json", [True, False])
def test_memory_does_not_grow(as_json):
    """Whatever becomes of the sounds."""
    peaks = []
    for n_sounds in (2000, 20_000):
        tracemalloc.start()
        with Told(as_json) as told:
            for i in range(n_sounds):
                told.add(Outcome(f"{i}.wav", [result(i)]))
                told.add(Outcome(f"bad{i}", [], f"bad{i}: {'x' * 100}"))
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (3 << 20)
