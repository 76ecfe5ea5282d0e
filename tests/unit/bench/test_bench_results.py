"""From rows to means, differences and losses."""

import math

import pytest

from lmac_sb.bench.results import (
    EQUAL,
    better,
    differences,
    figures,
    losses,
    measures,
    told,
)
from lmac_sb.bench.tables import groups, markdown, remarks

FACTS = {
    "data": "scenes",
    "classifier": "cnn",
    "judge": "another",
    "reference": "lmac",
    "left_out": ["l2i"],
    "clips": 5,
    "several": False,
    "tested": 80,
    "accuracy": 0.8,
    "folds": {"train": [1], "valid": [2], "test": [3]},
    "errors": [{"method": "x|y", "n": 2, "error": "a\n<b>"}],
    "warnings": [{"method": "mine:neg", "n": 1, "warning": "a <b>"}],
}
VALUES = {
    "lmac": [10.0, 20.0, 30.0, 40.0, 50.0],
    "lmac+5": [0.0] * 5,
    "lmac_look": [0.0] * 5,
    "lmac_binary": [0.0] * 5,
    "loudest": [20.0, 31.0, 39.0, 50.0, 61.0],
    "better": [9.0, 18.0, 28.0, 39.0, 48.0],
    "mixed": [1.0, 40.0, 3.0, 90.0, 50.0],
    "ideal": [0.0] * 5,
}


def rows_of(values=VALUES, measure="AD", keep="own"):
    """A row a clip and method."""
    return [
        {"id": str(i), "method": method, "keep": keep, measure: value}
        for method, column in values.items()
        for i, value in enumerate(column)
    ]


def line_of(found, method, **wanted):
    """The only line of a method."""
    (line,) = [
        x
        for x in found
        if x["method"] == method and all(x[k] == v for k, v in wanted.items())
    ]
    return line


def test_figures():
    equal = rows_of(keep="area of lmac")
    found = figures(FACTS, rows_of() + equal)
    line = line_of(found, "lmac", keep="own")
    assert list(line) == [
        *("data", "classifier", "method", "keep", "measure"),
        *("mean", "low", "high", "n"),
    ]
    assert (line["mean"], line["n"]) == (30.0, 5)
    assert line["low"] < 30 < line["high"]
    assert line_of(found, "lmac", keep=EQUAL)["mean"] == 30.0


def test_clips_without_a_value():
    values = {"lmac": [1.0, math.nan], "loudest": [math.nan, math.nan]}
    found = figures(FACTS, rows_of(values))
    assert line_of(found, "lmac")["n"] == 1
    assert line_of(found, "loudest")["mean"] is None


def test_failed_clips_are_counted():
    rows = rows_of({"lmac": [1.0, 2.0], "mine": [1.0]})
    rows.append({"id": "1", "method": "mine", "keep": "own", "error": "no"})
    found = figures(FACTS, rows)
    assert line_of(found, "mine", measure="failed")["mean"] == 0.5
    assert line_of(found, "mine", measure="AD")["n"] == 1
    assert line_of(found, "lmac", measure="failed")["mean"] == 0


def test_differences_are_paired():
    found = differences(FACTS, rows_of())
    line = line_of(found, "better", minus="lmac")
    pairs = [x - y for x, y in zip(VALUES["better"], VALUES["lmac"])]
    assert line["mean"] == pytest.approx(sum(pairs) / 5)
    assert min(pairs) <= line["low"] <= line["high"] <= max(pairs)
    assert line_of(found, "lmac", minus="loudest")["mean"] == pytest.approx(
        -10.2
    )
    # A clip that one of the two lacks is no pair.
    rows = [x for x in rows_of() if (x["method"], x["id"]) != ("better", "0")]
    assert line_of(differences(FACTS, rows), "better", minus="lmac")["n"] == 4


@pytest.mark.parametrize(
    ("measure", "losing"),
    [
        ("AD", {"better"}),
        ("AI", {"loudest"}),
        ("passes", {"better"}),
        ("area", set()),  # no direction is better
        ("AD-2softmax", set()),  # the same as AD, done wrongly
    ],
)
def test_where_lmac_loses(measure, losing):
    """Interval and direction decide; its own forms are no others."""
    lost = losses(differences(FACTS, rows_of(measure=measure)))
    assert {line["method"] for line in lost} == losing
    for line in lost:
        near = line["low"] if better(measure) > 0 else line["high"]
        assert better(measure) * near > 0


def test_few_clips_are_no_claim():
    """The interval of one clip, or of some that are alike, has no width."""
    values = {"lmac": [9.0] * 4, "better": [1.0] * 4}
    assert losses(differences(FACTS, rows_of(values))) == []


def test_nothing_is_lost_without_a_decoder():
    values = {k: v for k, v in VALUES.items() if k != "lmac"}
    facts = {**FACTS, "reference": "optimised+20"}
    assert losses(differences(facts, rows_of(values))) == []
    text = markdown([facts], figures(facts, rows_of(values)), [], [])
    assert "has a decoder" in text


def test_markdown():
    rows = rows_of() + rows_of(keep="area of lmac")
    lost = losses(differences(FACTS, rows))
    text = markdown([FACTS], figures(FACTS, rows), lost, ["esc10: not there"])
    assert "- esc10: not there" in text
    assert "- scenes, cnn, equal area: `better`: AD -1.6 [" in text
    assert "| lmac | 30.00 [" in text
    assert "folds: train [1], valid [2], test [3]" in text
    assert "`x\\|y` failed on 2 clips: a &lt;b>." in text
    assert " `mine:neg`: a &lt;b> on 1 clip." in text
    assert "Accuracy on these clips: 80.0 %." in text


def test_what_rows_say_is_told_by_method():
    """Each fault once, each warning once; of the own mask alone."""
    rows = [
        {"id": str(clip), "method": "x", "keep": keep, "warning": warning}
        for keep in ("own", "area of lmac")
        for clip, warning in enumerate(["flat", "none", "flat", None])
    ]
    rows += [
        {"id": clip, "method": "y", "keep": "own", "error": f"error {clip}"}
        for clip in "ab"
    ]
    assert told(rows) == {
        "errors": [{"method": "y", "n": 2, "error": "error a"}],
        "warnings": [
            {"method": "x", "n": 2, "warning": "flat"},
            {"method": "x", "n": 1, "warning": "none"},
        ],
    }
    assert remarks(FACTS) == [
        "`x|y` failed on 2 clips: a\n<b>",
        "`mine:neg`: a <b> on 1 clip",
    ]


def test_markdown_of_several_classes():
    facts = {**FACTS, "several": True, "explained": 12}
    text = markdown([facts], figures(facts, rows_of()), [], [])
    assert "12 classes are decided for in them" in text
    assert "80.0 % of them are right." in text
    assert "Accuracy" not in text


def test_measures_have_groups():
    names = ["passes", "heard AI", "kept_event_auc", "FF", "FF-logit", "AI"]
    assert measures(names) == [
        *("AI", "FF", "FF-logit", "kept_event_auc", "heard AI", "passes")
    ]
    assert list(groups(names).values()) == [
        ["AI", "FF"],
        ["kept_event_auc"],
        ["heard AI"],
        ["passes"],
    ]
