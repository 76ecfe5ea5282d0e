"""Figures of classes, counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from lmac_sb.audit.classes import (
    class_rows,
    find_classes,
    mean_interval,
    wilson,
)
from lmac_sb.audit.describe import BANDS, TIMES, band_edges

EDGES = band_edges(16000)


def row(decision, label=None, verdict="faithful", band=0, **more):
    """A clip that keeps one band and the start."""
    found = dict.fromkeys([*BANDS, *TIMES], 0.0)
    found |= {BANDS[band]: 1.0, TIMES[0]: 1.0, "decision": decision}
    found |= {"label": label, "verdict": verdict, "area": 0.25, "AI": 100.0}
    found["right"] = None if label is None else label == decision
    return {**found, **more}


@pytest.mark.parametrize(("count", "n"), [(0, 5), (3, 7), (7, 7), (40, 90)])
def test_wilson_is_scipys(count, n):
    other = binomtest(count, n).proportion_ci(method="wilson")
    assert wilson(count, n) == pytest.approx([count / n, *other], abs=1e-12)
    assert all(map(math.isnan, wilson(0, 0)))


def test_intervals_meet_where_the_bootstrap_ends():
    values = np.random.default_rng(0).normal(size=2000)
    below, above = mean_interval(values[:1000]), mean_interval(values[:1001])
    assert above == pytest.approx(below, abs=0.01)
    assert mean_interval([1.0, math.nan, 3.0])[0] == 2
    assert mean_interval(values) == mean_interval(values[::-1])
    assert all(map(math.isnan, mean_interval([math.nan])))


def test_classes_by_decision_and_label():
    frame = pd.DataFrame(
        [
            row("dog", "dog", band=3),
            row("dog", "cat", "nothing kept", band=5, area=0.75),
            row("cat", "cat"),
            row("dog", None),
            row("owl", "emu"),
        ]
    )
    found = {x["name"]: x for x in find_classes(frame, EDGES)}
    assert list(found) == ["cat", "dog", "emu", "owl"]
    dog = found["dog"]
    assert (dog["n"], dog["n_wrong"]) == (3, 1)
    assert dog["verdicts"]["nothing kept"] == wilson(1, 3)
    assert dog["area"][0] == pytest.approx(1.25 / 3)
    assert dog["fidelity"] == {"AI": [100.0, 100.0, 100.0]}
    assert dog["bands"]["mean"][3] == pytest.approx(1 / 3)
    assert dog["bands"]["low"][3] <= 1 / 3 <= dog["bands"]["high"][3]
    cat = found["cat"]["labelled"]
    assert (cat["n"], cat["n_missed"], cat["bands"]["mean"][5]) == (2, 1, 0.5)
    emu = found["emu"]
    assert (emu["n"], emu["n_wrong"], emu["labelled"]["n_missed"]) == (0, 0, 1)
    assert math.isnan(emu["area"][0])
    table = pd.DataFrame(class_rows(list(found.values())))
    assert len(table) == 8
    (line,) = table[
        (table["class"] == "dog") & (table["by"] == "decision")
    ].iloc
    assert line["n_wrong"] == 1
    assert line["verdict nothing kept"] == pytest.approx(1 / 3)
    assert line["verdict silent"] == 0
    assert line["band_03 high"] == dog["bands"]["high"][3]


def test_without_labels_there_are_no_wrong_decisions():
    (found,) = find_classes(pd.DataFrame([row("dog")]), EDGES)
    assert found["n_wrong"] is None and found["labelled"] is None
    assert len(class_rows([found])) == 1
