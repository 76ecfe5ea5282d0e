"""Dependence on the user's columns: found where it is, and only there."""

import numpy as np
import pandas as pd
import pytest

from lmac_sb.audit.columns import column_tests, levels_of
from lmac_sb.audit.describe import BANDS, band_edges

EDGES = band_edges(16000)


def clips(n, columns, seed=0, wrong=0.2):
    """Clips of two labels whose errors and bands depend on nothing."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(16, 0.5), size=n)
    frame = pd.DataFrame(shares, columns=BANDS)
    frame["id"] = [f"clip {i}" for i in range(n)]
    frame["label"] = np.where(rng.random(n) < 0.5, "cat", "dog")
    frame["right"] = pd.Series(rng.random(n) >= wrong, dtype=object)
    frame["decision"] = frame["label"]
    for name, values in columns.items():
        frame[f"column:{name}"] = rng.choice(values, size=n)
    return frame


def best(frame):
    """The test with the smallest p."""
    return min(column_tests(frame, EDGES)[0], key=lambda test: test.p)


def test_chance_alone_is_seldom_significant():
    found = [
        test.p
        for seed in range(30)
        for test in column_tests(
            clips(120, {"site": list("abc"), "day": list("mtw")}, seed), EDGES
        )[0]
    ]
    assert len(found) == 240
    assert np.mean(np.array(found) < 0.05) < 0.06
    assert min(found) > 1e-4


def test_errors_at_one_site_are_found():
    frame = clips(200, {"site": list("abc")})
    there = (frame["label"] == "dog") & (frame["column:site"] == "b")
    frame.loc[there, "right"] = False
    found = best(frame)
    assert (found.name, found.where) == ("dog", "site = b")
    assert found.column == "site" and found.band_hz is None
    assert found.p < 1e-8 and found.effect[1] > 0.5
    assert found.effect[1] <= found.effect[0] <= found.effect[2]
    assert "100% are decided otherwise" in found.text
    shown = frame.set_index("id").loc[list(found.examples)]
    assert set(shown["column:site"]) == {"b"} and not shown["right"].any()


def test_a_band_of_one_device_is_found():
    frame = clips(200, {"device": list("xy"), "site": list("abc")})
    there = (frame["label"] == "cat") & (frame["column:device"] == "y")
    frame.loc[there, BANDS[1:]] *= 0.3
    frame.loc[there, BANDS[0]] = 1 - frame.loc[there, BANDS[1:]].sum(axis=1)
    found = best(frame)
    assert found.name == "cat" and "device" in found.where
    assert found.band_hz == (0.0, EDGES[1])
    assert found.p < 1e-6 and found.effect[1] > 0.3


def test_without_labels_bands_are_compared_within_decisions():
    frame = clips(80, {"site": list("ab")})
    frame["right"], frame["label"] = None, None
    tests, _ = column_tests(frame, EDGES)
    assert len(tests) == 2
    assert all(test.band_hz is not None for test in tests)


def test_few_clips_are_not_compared():
    frame = clips(8, {"site": list("ab")})
    assert column_tests(frame, EDGES)[0] == []


def test_nothing_kept_anywhere_is_no_finding():
    frame = clips(60, {"site": list("ab")})
    frame[BANDS] = np.nan
    tests, _ = column_tests(frame, EDGES)
    assert [x.p for x in tests if x.band_hz is not None] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([f"{i}.wav" for i in range(40)], "an identifier: 40 different"),
        ([str(i) for i in range(40)], "an identifier: 40 different"),
        (["x"] * 40, "the same value everywhere"),
        ([None] * 40, "the same value everywhere"),
        (["  "] * 40, "the same value everywhere"),
    ],
)
def test_columns_that_cannot_be_compared(values, why):
    levels, said = levels_of(pd.Series(values))
    assert levels is None and said.startswith(why)


def test_numbers_are_cut_into_quarters_and_few_are_kept():
    levels, _ = levels_of(pd.Series([f"{i / 7:.3f}" for i in range(40)]))
    assert levels.value_counts().tolist() == [10] * 4
    assert levels[0] == "up to 1.393" and levels[39].startswith("above")
    folds, _ = levels_of(pd.Series([str(i % 5) for i in range(40)]))
    assert set(folds) == set("01234")


def test_missing_values_are_a_value():
    levels, _ = levels_of(pd.Series(["a", None, "", "a"]))
    assert levels.tolist() == ["a", "(no value)", "(no value)", "a"]


@pytest.mark.parametrize(
    "values",
    [
        52.52 + np.arange(40) * 1e-6,
        [1_700_000_000 + i // 2 for i in range(40)],
        [f"202401{1 + i // 2:02d}" for i in range(40)],
        np.arange(40) // 2 * 1e7,
        np.arange(40) * 1e-9 + 1e-7,
        np.arange(40) * 1e-15 + 1.0,
        np.arange(-20, 20) * 12345.25,
        [12_345_678.25 + i // 2 for i in range(40)],
    ],
)
def test_quarters_have_the_digits_that_tell_them_apart(values):
    levels, why = levels_of(pd.Series([str(x) for x in values]))
    assert why == "" and len(set(levels)) == 4
    counts = levels.value_counts()
    assert counts.min() >= 8 and counts.max() <= 12
    edges = {x for name in set(levels) for x in name.split() if x[0].isdigit()}
    if all(float(x) % 1 == 0 for x in values):
        assert all(edge.isdecimal() for edge in edges)
    # What a name says is so.
    for value, level in zip(map(float, values), levels):
        words = level.split()
        numbers = [float(x) for x in words if x not in ("up", "to", "above")]
        near = abs(numbers[0]) * 1e-3
        if words[0] == "above":
            assert value > numbers[0] - near
        elif words[0] == "up":
            assert value <= numbers[0] + near
        else:
            assert numbers[0] - near < value <= numbers[1] + near


def test_few_digits_are_enough_where_they_tell_quarters_apart():
    levels, _ = levels_of(pd.Series([str(x / 7) for x in range(40)]))
    assert set(levels) == {
        *("up to 1.393", "1.393 to 2.786", "2.786 to 4.179", "above 4.179")
    }


@pytest.mark.parametrize("odd", ["inf", "-inf", "Infinity"])
def test_a_number_that_is_none_is_no_reason_against_a_column(odd):
    values = [str(x / 7) for x in range(40)]
    levels, why = levels_of(pd.Series([*values, odd]))
    assert why == "" and levels[40] == "(no value)"
    assert levels[:40].nunique() == 4


def test_numbers_with_decimal_commas():
    points = [str(x / 7) for x in range(40)]
    levels, why = levels_of(pd.Series([x.replace(".", ",") for x in points]))
    assert why == ""
    assert levels.tolist() == levels_of(pd.Series(points))[0].tolist()
    # Thousands are no decimals, nor are lists.
    for text in ("1,234,{}", "a,{}", "1,2,{}", "12,1{:02d}", "1.{},5"):
        values = pd.Series([text.format(i) for i in range(40)])
        assert "identifier" in levels_of(values)[1]


def test_a_text_that_is_called_as_a_number_is_kept():
    levels, _ = levels_of(pd.Series(["inf", "zero"] * 20))
    assert set(levels) == {"inf", "zero"}
