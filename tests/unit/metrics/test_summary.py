"""Tests of the tables of results."""

import math
import random
import statistics

import pytest

from lmac_sb.metrics import summary as results
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.summary import (
    bootstrap,
    check_unique,
    markdown_table,
    marked_cells,
    summarize,
    tellable,
)
from lmac_sb.utils.errors import LMACError

NAN = float("nan")


def draw(seed, n=30):
    """Random values of one metric."""
    generator = random.Random(seed)
    return [generator.gauss(50, 20) for _ in range(n)]


def table(seed=0, n=12):
    """Rows of two methods on the same clips."""
    generator = random.Random(seed)
    return [
        {
            "id": f"clip{i}",
            "method": method,
            "AI": generator.choice([0.0, 100.0]),
            "AD": generator.uniform(0, 30),
            "FF": generator.uniform(0, 1),
            "area": generator.random(),
        }
        for method in ("lmac", "ones")
        for i in range(n)
    ]


def slow_bootstrap(values, seed, n_draws=4000):
    """Percentiles of the means of samples with replacement."""
    generator = random.Random(seed)
    means = sorted(
        statistics.fmean(generator.choices(values, k=len(values)))
        for _ in range(n_draws)
    )
    return means[int(0.025 * n_draws)], means[int(0.975 * n_draws)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bootstrap_slowly(seed):
    """Agrees with plain resampling up to its randomness."""
    values = draw(seed)
    found = bootstrap(values, seed=seed)
    low, high = slow_bootstrap(values, seed + 100)
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert found["mean"] == pytest.approx(statistics.fmean(values))
    assert found["low"] == pytest.approx(low, abs=0.25 * error)
    assert found["high"] == pytest.approx(high, abs=0.25 * error)
    # A 95 % interval of a mean is about four of its standard errors wide.
    assert 3 * error < found["high"] - found["low"] < 4.5 * error


def same(found, expected):
    """Whether two results of `bootstrap` are the same up to rounding."""
    return found.keys() == expected.keys() and all(
        found[key] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)
        for key, value in expected.items()
    )


@pytest.mark.parametrize("value", [0.1, 0.3, 1e-9, 99.9])
@pytest.mark.parametrize("n", [1, 7, 80])
def test_bootstrap_of_equal_values(value, n):
    """Rounding puts no mean outside its interval, nor widens it."""
    found = bootstrap([value] * n)
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["high"] - found["low"] < 1e-12


@pytest.mark.parametrize(
    ("values", "n_draws", "said"),
    [
        ([1, math.inf], 9, "values: found inf, expected finite ones"),
        ([[1, 2]], 9, r"values: found shape (1, 2), expected one a clip"),
        ([1, 2], 0, "n_draws: found 0, expected a whole number from 1"),
    ],
)
def test_bootstrap_of_what_has_no_interval(values, n_draws, said):
    with pytest.raises(LMACError) as caught:
        bootstrap(values, n_draws)
    assert said in str(caught.value)


def test_bootstrap_draws_each_value_as_often():
    """Each resampling has as many values as there are, and all count."""
    draws = results._draws(6, 2000, 0)
    assert (draws.sum(1) == 6).all()
    assert draws.min() == 0 and draws.max() > 3
    assert draws.mean(0) == pytest.approx([1] * 6, abs=0.1)


def test_bootstrap_is_deterministic():
    """The same values and seed give the same interval, another seed not."""
    values = draw(0)
    assert bootstrap(values) == bootstrap(list(values))
    assert bootstrap(values) != bootstrap(values, seed=1)


@pytest.mark.parametrize("n_nan", [0, 1, 7])
def test_bootstrap_counts_nan(n_nan):
    """NaN values are left out and counted, and change nothing else."""
    values = draw(0)
    clean = bootstrap(values)
    found = bootstrap([NAN] * n_nan + values)
    assert found.pop("n_nan") == n_nan
    assert clean.pop("n_nan") == 0
    assert found == clean
    assert clean["n"] == 30


@pytest.mark.parametrize("values", [[], [NAN, NAN]])
def test_bootstrap_of_nothing(values):
    """Without a valid value the figures are NaN, the counts right."""
    found = bootstrap(values)
    assert all(math.isnan(found[name]) for name in ("mean", "low", "high"))
    assert (found["n"], found["n_nan"]) == (0, len(values))


def test_bootstrap_can_be_written():
    """Plain Python numbers, as JSON needs them."""
    found = bootstrap([1.0, 2.0, NAN])
    types = {name: type(value) for name, value in found.items()}
    assert types == {
        "mean": float,
        "low": float,
        "high": float,
        "n": int,
        "n_nan": int,
    }


def test_summarize():
    """Each method's metrics, in the table's order, and nothing else."""
    rows = table()
    summary = summarize(rows)
    assert list(summary) == ["lmac", "ones"]
    for method, metrics in summary.items():
        assert list(metrics) == ["AI", "AD", "FF", "area"]
        for name, found in metrics.items():
            values = [row[name] for row in rows if row["method"] == method]
            assert same(found, bootstrap(values))


def test_difference_is_paired_by_clip():
    """Reference minus method for the same clip, wherever its row stands."""
    rows = table()
    by_id = {(row["method"], row["id"]): row for row in rows}
    summary = summarize(rows, reference="lmac")
    assert "difference" not in summary["lmac"]["AI"]
    for name in ("AI", "AD", "FF", "area"):
        expected = bootstrap(
            [
                by_id["lmac", f"clip{i}"][name]
                - by_id["ones", f"clip{i}"][name]
                for i in range(12)
            ]
        )
        assert same(summary["ones"][name]["difference"], expected)

    # A reference that differs by 1 from each clip's value differs by exactly
    # 1, only if each clip is compared with itself.
    rows = [
        {"id": str(i), "method": method, "FF": i + (method == "lmac")}
        for i in range(9)
        for method in ("lmac", "other")
    ]
    random.Random(1).shuffle(rows)
    found = summarize(rows, reference="lmac")["other"]["FF"]["difference"]
    assert (found["mean"], found["low"], found["high"]) == (1, 1, 1)


def test_shuffled_rows():
    """The order of the rows changes nothing, not even an interval."""
    rows = table()
    shuffled = list(rows)
    random.Random(0).shuffle(shuffled)
    assert [r["id"] for r in shuffled] != [r["id"] for r in rows]
    expected = summarize(rows, reference="lmac")
    assert summarize(shuffled, reference="lmac") == expected


def test_nan_pairs_are_counted():
    """A clip with a NaN on either side is not a pair."""
    rows = table()
    rows[0]["AD"] = NAN
    rows[-1]["AD"] = NAN
    found = summarize(rows, reference="lmac")["ones"]["AD"]
    assert (found["n"], found["n_nan"]) == (11, 1)
    assert found["difference"]["n"] == 10
    assert found["difference"]["n_nan"] == 2


def test_missing_values_are_counted():
    """A metric that some rows lack is not left out, nor are the rows."""
    rows = table()
    for row in rows[:3]:
        del row["AD"]
    for row in rows[12:]:
        del row["FF"]
    summary = summarize(rows, reference="lmac")
    found = summary["lmac"]["AD"]
    assert (found["n"], found["n_nan"]) == (9, 3)
    kept = [row["AD"] for row in rows[3:12]]
    assert found["mean"] == pytest.approx(statistics.fmean(kept))
    assert "FF" not in summary["ones"]
    # Nor is a clip of which the reference has no row.
    found = summarize(rows[1:], reference="lmac")["ones"]["AI"]["difference"]
    assert (found["n"], found["n_nan"]) == (11, 1)


def test_nan_of_one_metric_leaves_the_others():
    """Metrics with different numbers of values have each their interval."""
    rows = table()
    for place, row in enumerate(rows):
        if place % 3 == 0:
            row["AD"] = NAN
    for name in ("AI", "AD", "FF", "area"):
        values = [row[name] for row in rows if row["method"] == "ones"]
        found = summarize(rows)["ones"][name]
        assert same(found, bootstrap(values)), name


def test_two_rows_of_a_clip_are_refused():
    """Two rows of a clip and method are refused."""
    rows = [*table(), {**table()[3], "AI": 7.0}]
    with pytest.raises(LMACError, match="id 'clip3', method 'lmac'"):
        summarize(rows)
    check_unique(rows, ["id", "method", "AI"])


def test_a_row_without_a_name_is_refused():
    """The message names the row and the missing key."""
    rows = [{"id": "a", "method": "m"}, {"id": "b"}]
    with pytest.raises(LMACError, match="row 2 has no method; .* id, method"):
        check_unique(rows, ["id", "method"])


def test_columns_of_ones_own():
    """The result has exactly the requested columns."""
    rows = [{"id": "a", "method": "m", "AI": 1.0, "seconds": 2.0}]
    summary = summarize(rows, columns=["seconds", "heard AI"])
    assert list(summary["m"]) == ["seconds"]


def test_summarize_by_another_key():
    """Any column can name the method."""
    rows = [{"id": "a", "snr": 0, "AI": 0.0}, {"id": "a", "snr": 9, "AI": 1.0}]
    summary = summarize(rows, by="snr", reference=9)
    assert list(summary) == [0, 9]
    assert summary[0]["AI"]["difference"]["mean"] == 1


def test_markdown():
    """Arrows of the better direction, decimals, and a dash for nothing."""
    figure = {"mean": 12.346, "low": 10.0, "high": 14.0}
    summary = {
        "lmac": dict.fromkeys(METRICS, figure),
        "ones": {"AI": figure},
    }
    head, rule, *body = markdown_table(summary).splitlines()
    assert head == (
        "| method | AI ↑ | AD ↓ | AG ↑ | FF ↑ | Fid-In ↑ | SPS ↑ | COMP ↓ "
        "| area | event_mass ↑ | event_auc ↑ | kept_event_mass ↑ "
        "| kept_event_auc ↑ |"
    )
    assert rule == "|---" * 13 + "|"
    # Metrics that are not for short tables are absent.
    assert len(METRICS) > 10
    three = " | 12.346 ± 2.000"
    lmac = "| lmac | 12.3 ± 2.0 | 12.35 ± 2.00 | 12.3 ± 2.0" + three * 9 + " |"
    assert body[0] == lmac
    assert body[1] == "| ones | 12.3 ± 2.0" + " | –" * 11 + " |"


def test_markdown_of_nan():
    """A metric that no clip has is shown as such, not as a number."""
    summary = summarize([{"id": "a", "method": "m", "event_auc": NAN}])
    assert markdown_table(summary).endswith("| m | nan ± nan |")


def test_a_table_tells_no_interval_of_one_clip():
    """Nor a figure of none; of two, both are told, and the csv has all."""
    rows = [
        {"id": "a", "method": "m", "AI": 1.0, "AD": NAN, "FF": 0.5},
        {"id": "b", "method": "m", "AI": NAN, "AD": NAN, "FF": 0.5},
    ]
    summary = summarize(rows)
    table = markdown_table(tellable(summary), ["AI", "AD", "FF"], mark=True)
    assert table.endswith("| m | **1.0** | – | **0.500 ± 0.000** |")
    assert summary["m"]["AI"]["low"] == 1.0


def figures(**means):
    """Methods with one metric each of a certain mean."""
    return {
        method: {"AD": {"mean": mean, "low": mean - 1, "high": mean + 1}}
        for method, mean in means.items()
    }


@pytest.mark.parametrize(
    "column, marked",
    [("AI", ["c"]), ("AD", ["a", "b"]), ("area", []), ("heard AI", ["c"])],
)
def test_best_is_marked(column, marked):
    """The best value is marked; equal ones are marked too."""
    summary = {
        method: {column: {"mean": mean, "low": 0, "high": 1}}
        for method, mean in zip("abcd", [1.0001, 1.0004, 3, NAN])
    }
    cells = marked_cells({**summary, "e": {}}, [column])
    assert cells["e"] == [None]
    found = [m for m, (cell,) in cells.items() if cell and cell[2]]
    assert found == marked


def test_bold_in_markdown():
    """Bold is used only on request."""
    summary = figures(a=1.0, b=2.0)
    assert "**" not in markdown_table(summary)
    body = markdown_table(summary, mark=True).splitlines()[2:]
    assert body == ["| a | **1.00 ± 1.00** |", "| b | 2.00 ± 1.00 |"]


def test_markdown_of_other_columns():
    """The table has the requested columns, in order."""
    rows = [{"id": "a", "method": "m|n", "heard AD": 0.5, "AI": 1, "x": -0.0}]
    names = ["x", "heard AD"]
    text = markdown_table(summarize(rows, columns=names), columns=names)
    assert text.splitlines() == [
        "| method | x | heard AD ↓ |",
        "|---|---|---|",
        "| m\\|n | 0.000 ± 0.000 | 0.50 ± 0.00 |",
    ]
