r"""Tests, intervals, and the correction for many tests.

All tests are one-sided, and none assumes how values are distributed.
"""

import math

from scipy.stats import binomtest, chi2, fisher_exact, mannwhitneyu

__all__ = [
    "Z",
    "difference",
    "fdr",
    "joined",
    "larger",
    "more_often",
    "sign_test",
    "wilson",
]

Z = 1.959963984540054  # of a 95 % interval


def wilson(count, n):
    """Interval of a share (Wilson, 1927), 95 %.

    Arguments
    ---------
    count : float
        How many; the mean of several tries of one clip may be no integer.
    n : int
        Of how many.

    Returns
    -------
    low, high : float
        Within 0 and 1; all of it without a clip.

    Example
    -------
    >>> [round(end, 3) for end in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = count / n, Z**2 / n
    middle = share + z2 / 2
    half = Z * math.sqrt(share * (1 - share) / n + z2 / n / 4)
    low, high = ((middle + sign * half) / (1 + z2) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def difference(count, n, other, m):
    """Difference of two shares, with its interval (Newcombe, 1998), 95 %.

    Arguments
    ---------
    count, n : float
        The first share: how many of how many.
    other, m : float
        The second one, which is subtracted.

    Returns
    -------
    mean, low, high : float

    Example
    -------
    >>> [round(value, 2) for value in difference(8, 10, 1, 10)]
    [0.7, 0.27, 0.87]
    """
    (low, high), (low2, high2) = wilson(count, n), wilson(other, m)
    one, two = count / max(n, 1), other / max(m, 1)
    mean = one - two
    return (
        mean,
        mean - math.hypot(one - low, high2 - two),
        mean + math.hypot(high - one, two - low2),
    )


def sign_test(values):
    """Whether more of the values are above zero than below: p.

    Arguments
    ---------
    values : list of float
        One a clip: the difference of two ways to treat it. Zeros tell nothing.

    Returns
    -------
    float

    Example
    -------
    >>> sign_test([1, 1, 0.5, 0, 0])
    0.125
    """
    above = sum(value > 0 for value in values)
    n = above + sum(value < 0 for value in values)
    if n == 0:
        return 1.0
    return float(binomtest(above, n, alternative="greater").pvalue)


def larger(values, others):
    """Whether the values are larger than the others: p (Mann and Whitney).

    Arguments
    ---------
    values, others : list of float
        One a clip.

    Returns
    -------
    float
        1 where one of the lists is empty.

    Example
    -------
    >>> round(larger([2, 3, 4, 5], [0, 1, 1, 0]), 3)
    0.014
    """
    if not values or not others:
        return 1.0
    return float(mannwhitneyu(values, others, alternative="greater").pvalue)


def joined(ps):
    """One p of several independent tests (Fisher's method).

    Arguments
    ---------
    ps : list of float
        At least one.

    Returns
    -------
    float

    Example
    -------
    >>> round(joined([0.01, 0.02]), 4)
    0.0019
    """
    logs = [math.log(max(p, 1e-300)) for p in ps]
    return float(chi2.sf(-2 * sum(logs), 2 * len(ps)))


def more_often(count, n, other, m):
    """Whether the first share is larger: p of Fisher's exact test.

    Arguments
    ---------
    count, n : int
        The first share: how many of how many.
    other, m : int
        The second one, of other clips.

    Returns
    -------
    float

    Example
    -------
    >>> round(more_often(8, 10, 1, 10), 4)
    0.0027
    """
    table = [[count, n - count], [other, m - other]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def fdr(ps):
    """False discovery rates (Benjamini and Hochberg, 1995).

    Arguments
    ---------
    ps : list of float
        p of all tests that were done.

    Returns
    -------
    list of float
        q of each: the share of false ones to expect among all tests whose q is
        not larger.

    Example
    -------
    >>> fdr([0.01, 0.5, 0.02, 0.9])
    [0.04, 0.6666666666666666, 0.04, 0.9]
    """
    found, least = [1.0] * len(ps), 1.0
    order = sorted(range(len(ps)), key=ps.__getitem__, reverse=True)
    for rank, i in zip(range(len(ps), 0, -1), order):
        least = min(least, ps[i] * len(ps) / rank)
        found[i] = least
    return found
