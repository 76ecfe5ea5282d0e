"""Tests of the tests: against slow loops over all cases."""

import itertools
import math
import random

import pytest

from lmac_sb.audit.significance import (
    difference,
    fdr,
    joined,
    larger,
    more_often,
    sign_test,
    wilson,
)


def slow_fdr(ps):
    """Straight from the paper: the least level at which each is rejected."""
    found = []
    for p in ps:
        levels = []
        for other in ps:
            if other >= p:
                rank = sum(x <= other for x in ps)
                levels.append(other * len(ps) / rank)
        found.append(min(1.0, *levels, 1.0))
    return found


def test_fdr():
    rng = random.Random(0)
    for n in (1, 2, 9, 30):
        ps = [round(rng.random() ** 3, 2) for _ in range(n)]
        assert fdr(ps) == pytest.approx(slow_fdr(ps))
    assert fdr([]) == []


def test_sign_test():
    for n, above in ((1, 1), (6, 6), (8, 3), (9, 7)):
        values = [1.0] * above + [-1.0] * (n - above) + [0.0] * 3
        cases = itertools.product((0, 1), repeat=n)
        expected = sum(sum(case) >= above for case in cases) / 2**n
        assert sign_test(values) == pytest.approx(expected)
    assert sign_test([]) == sign_test([0.0]) == 1.0


def test_more_often():
    count, n, other, m = 5, 6, 2, 7
    picks = itertools.combinations(range(n + m), count + other)
    shares = [sum(i < n for i in pick) for pick in picks]
    expected = sum(share >= count for share in shares) / len(shares)
    assert more_often(count, n, other, m) == pytest.approx(expected)


def test_larger():
    values, others = [3.0, 5.0, 6.0], [1.0, 2.0, 4.0]
    all_values = [*values, *others]
    sums = [
        sum(a > b for a in pick for b in set(all_values) - set(pick))
        for pick in itertools.combinations(all_values, 3)
    ]
    found = sum(a > b for a in values for b in others)
    expected = sum(value >= found for value in sums) / len(sums)
    assert larger(values, others) == pytest.approx(expected)
    assert larger([], others) == larger(values, []) == 1.0


def test_joined():
    assert joined([0.3]) == pytest.approx(0.3)
    # Of two, in closed form.
    product = 0.02 * 0.5
    expected = product * (1 - math.log(product))
    assert joined([0.02, 0.5]) == pytest.approx(expected)
    assert joined([0.0, 0.5]) < 1e-200


def test_intervals():
    """So wide that a share at its ends is just not unlikely."""
    for count, n in ((0, 5), (3, 10), (10, 10)):
        low, high = wilson(count, n)
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9:
                spread = math.sqrt(end * (1 - end) / n)
                assert abs(count / n - end) == pytest.approx(
                    1.96 * spread, 1e-3
                )
    assert wilson(0, 0) == (0.0, 1.0)
    mean, low, high = difference(9, 10, 2, 10)
    assert mean == pytest.approx(0.7) and 0.2 < low < 0.7 < high < 0.95
    flipped = difference(2, 10, 9, 10)
    assert flipped == pytest.approx((-mean, -high, -low))
