"""Whether decisions depend on a column of the user's own table."""

import math

import numpy as np

from lmac_sb.audit.alarm import Alarm
from lmac_sb.audit.describe import BANDS
from lmac_sb.metrics.summary import N_DRAWS

__all__ = ["COLUMN", "column_tests", "levels_of"]

COLUMN = "column:"  # before the names of the user's columns in the table
MISSING = "(no value)"
FEWEST = 5  # clips with a value, for it to be compared
_MOST_LEVELS = 12  # numbers of more different values are cut into quarters
_DIFFERENT = 0.8  # share of different values from which it is an identifier
_MOST_DRAWN = 1000  # values of which an interval is drawn
N_EXAMPLES = 3


def levels_of(values):
    """A column of text as the few values that can be compared.

    Arguments
    ---------
    values : pandas.Series
        Text, or None where there is no value.

    Returns
    -------
    levels : pandas.Series or None
        The values, ``(no value)`` for none; of a number with more than 12
        different values, the quarter it lies in. None if they cannot be
        compared.
    why : str
        Then the reason; else empty.

    Example
    -------
    >>> import pandas
    >>> levels_of(pandas.Series(["a", "b", "a", None]))[0].tolist()
    ['a', 'b', 'a', '(no value)']
    >>> levels_of(pandas.Series([f"file {i}" for i in range(20)]))[1]
    'an identifier: 20 different values in 20 clips'
    """
    import pandas as pd

    text = values.where(values.notna(), "").astype(str).str.strip()
    numbers = _numbers(text)
    if numbers[text != ""].notna().all():
        # Infinite ones, as of a division by 0, say nothing.
        text[np.isinf(numbers)] = ""
    given = text[text != ""]
    n_different = given.nunique()
    if n_different + (len(given) < len(text)) < 2:
        return None, "the same value everywhere"
    numbers = numbers[given.index]
    # Coordinates are numbers, however different they are; so are not 1, 2, 3,
    # ..., of which each clip has its own.
    whole = bool((numbers % 1 == 0).all())
    is_number = bool(np.isfinite(numbers).all())
    different = n_different > max(FEWEST, _DIFFERENT * len(given))
    if different and (whole or not is_number):
        return None, (
            f"an identifier: {n_different} different values in {len(given)} "
            "clips"
        )
    levels = pd.Series(MISSING, index=text.index)
    if is_number and n_different > _MOST_LEVELS:
        edges = numbers.quantile([0.25, 0.5, 0.75])
        # Whole numbers are on the same side of the whole one below.
        edges = np.unique(np.floor(edges) if whole else edges)
        names = _quarters(_edge_texts(edges))
        places = np.searchsorted(edges, numbers)
        levels[given.index] = [names[place] for place in places]
    else:
        levels[given.index] = given
    return levels, ""


def _numbers(text):
    """The numbers of a column, also with decimal commas; NaN for others."""
    import pandas as pd

    commas = text[text.str.fullmatch(r"[+-]?\d+,\d+")]
    # With points, or three digits behind each, they may be of thousands.
    if (
        commas.str.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}").all()
        or text.str.contains(".", regex=False).any()
    ):
        return pd.to_numeric(text, errors="coerce")
    points = text.copy()
    points[commas.index] = commas.str.replace(",", ".", regex=False)
    return pd.to_numeric(points, errors="coerce")


def _edge_texts(edges):
    """Numbers with as many digits as tell them apart, four at least."""
    for digits in range(4, 18):
        texts = [_number(edge, digits) for edge in edges]
        if len(set(texts)) == len(texts):
            break
    return texts


def _number(number, digits):
    """A number with some digits; all that are before the point."""
    if number % 1 == 0:
        return f"{number:.0f}"
    before = len(f"{abs(number):.0f}")
    return f"{number:.{max(digits, before)}g}"


def _quarters(edges):
    """What the quarters between some edges are called."""
    between = [f"{low} to {high}" for low, high in zip(edges, edges[1:])]
    return [f"up to {edges[0]}", *between, f"above {edges[-1]}"]


def column_tests(frame, edges_hz, seed=0):
    """All tests of the user's columns: one a class, column and question.

    Within the clips of one label (without labels, of one decision), each
    value that five clips or more have is compared with all others: are more
    or fewer decisions wrong (Fisher's exact test), and does another band hold
    more of what is kept (Mann and Whitney's)? The smallest p-value counts,
    multiplied by the number of comparisons.

    Arguments
    ---------
    frame : pandas.DataFrame
        A row for each explained clip: ``id``, ``label``, ``decision``,
        ``right``, the bands of `lmac_sb.audit.describe.describe`, and the
        user's columns, whose names begin with ``column:``.
    edges_hz : list of float
        Of the bands.
    seed : int
        Of the intervals.

    Returns
    -------
    tests : list of lmac_sb.audit.alarm.Alarm
        Not yet corrected for their number: most of them are none.
    notes : list of str
        Which columns were left out, and why.

    Example
    -------
    >>> import pandas
    >>> frame = pandas.DataFrame({"column:id": ["x", "x"], "right": [None] * 2})
    >>> column_tests(frame, [])
    ([], ['column id: not compared, the same value everywhere'])
    """
    labelled = frame["right"].notna().any()
    given = "label" if labelled else "decision"
    tests, notes = [], []
    for column in [name for name in frame if name.startswith(COLUMN)]:
        name = column[len(COLUMN) :]
        levels, why = levels_of(frame[column])
        if levels is None:
            notes.append(f"column {name}: not compared, {why}")
            continue
        rows = frame.assign(level=levels)
        if labelled:
            rows = rows[rows["right"].notna()]
        for label, clips in rows.groupby(given):
            counts = clips["level"].value_counts()
            values = sorted(
                value
                for value, n in counts.items()
                if FEWEST <= n <= len(clips) - FEWEST
            )
            if not values:
                continue
            asked = (name, str(label), values, clips)
            if labelled:
                tests.append(_errors(*asked))
            tests.append(_bands(*asked, edges_hz))
    return [_with_interval(*test, seed) for test in tests], notes


def _errors(name, label, values, clips):
    """Whether more decisions are wrong at one value: an alarm, two samples."""
    from scipy.stats import fisher_exact

    wrong = ~clips["right"].to_numpy(bool)
    found = []
    for value in values:
        at = (clips["level"] == value).to_numpy()
        table = [
            [int((wrong & at).sum()), int((~wrong & at).sum())],
            [int((wrong & ~at).sum()), int((~wrong & ~at).sum())],
        ]
        found.append((fisher_exact(table)[1], value))
    p, value = min(found)
    at = (clips["level"] == value).to_numpy()
    more = wrong[at].mean() >= wrong[~at].mean()
    alarm = Alarm(
        kind="column",
        name=label,
        where=f"{name} = {value}",
        effect=(),
        effect_of=f"{'more' if more else 'fewer'} wrong decisions than "
        "elsewhere, as a share of the clips",
        p=min(1.0, float(p) * len(values)),
        n=len(clips),
        text=(
            f"Of the clips of {label} where {name} is {value}, "
            f"{wrong[at].mean():.0%} are decided otherwise; of the others, "
            f"{wrong[~at].mean():.0%} are."
        ),
        examples=_ids(clips[wrong & (at if more else ~at)]),
        column=name,
    )
    return alarm, wrong[at].astype(float), wrong[~at].astype(float)


def _bands(name, label, values, clips, edges_hz):
    """Whether another band counts at one value: an alarm, two samples."""
    from scipy.stats import mannwhitneyu

    clips = clips[clips[BANDS[0]].notna()]
    shares = clips[BANDS].to_numpy(float)
    # Energy next to nothing has an order too, which is none of the mask.
    shares = np.round(shares, 4)
    best = (1.0, values[0], 0)
    for value in values:
        at = (clips["level"] == value).to_numpy()
        if min(at.sum(), (~at).sum()) < FEWEST:
            continue
        p = mannwhitneyu(shares[at], shares[~at], axis=0).pvalue
        band = int(np.nanargmin(np.where(np.isnan(p), 1, p)))
        best = min(best, (float(p[band]), value, band))
    p, value, band = best
    at = (clips["level"] == value).to_numpy()
    low, high = edges_hz[band], edges_hz[band + 1]
    one, other = shares[at, band], shares[~at, band]
    where = f"{low:.0f} to {high:.0f} Hz"
    more = np.sum(one) * len(other) >= np.sum(other) * len(one)
    order = np.argsort(-one if more else -other, kind="stable")
    alarm = Alarm(
        kind="column",
        name=label,
        where=f"{name} = {value}",
        effect=(),
        effect_of=f"difference in the share of what is kept at {where}",
        p=min(1.0, p * len(values) * len(BANDS)),
        n=len(clips),
        text=(
            f"For clips of {label} where {name} is {value}, {where} "
            f"holds {_mean(one):.0%} of what is kept; "
            f"for the others, {_mean(other):.0%}."
        ),
        examples=_ids(clips[at if more else ~at].iloc[order]),
        band_hz=(float(low), float(high)),
        column=name,
    )
    return alarm, one, other


def _mean(values):
    """Mean, 0 of none."""
    return float(values.mean()) if len(values) else 0.0


def _ids(clips):
    """Ids of the first clips."""
    return tuple(clips["id"].iloc[:N_EXAMPLES])


def _with_interval(alarm, one, other, seed):
    """The alarm with the difference of two means, and its interval."""
    if not len(one) or not len(other):
        return alarm._replace(effect=(0.0, 0.0, 0.0))
    difference = float(one.mean() - other.mean())
    rng = np.random.default_rng(seed)
    spread = np.percentile(
        _draw(one, rng) - _draw(other, rng), [2.5, 97.5]
    ).tolist()
    if difference < 0:
        difference, spread = -difference, [-spread[1], -spread[0]]
    low, high = min(spread[0], difference), max(spread[1], difference)
    return alarm._replace(effect=(difference, low, high))


def _draw(values, rng):
    """Means of resampled values; of many, of the normal distribution."""
    n = len(values)
    if n > _MOST_DRAWN:
        spread = values.std(ddof=1) / math.sqrt(n)
        return values.mean() + spread * rng.normal(size=N_DRAWS)
    return values[rng.integers(n, size=(N_DRAWS, n))].mean(1)
