"""Groups of alike explanations, each in plain words, with clips to hear."""

import math

import numpy as np

from lmac_sb.audit.describe import BANDS, N_BANDS, TIMES

__all__ = ["Group", "MOST_CLIPS", "find_groups", "in_words"]

MOST_CLIPS = 5000  # of a class that are grouped; of more, a seeded draw
FEWEST_CLIPS = 12  # that can be told to be groups
MOST_GROUPS = 6
N_EXAMPLES = 3  # to hear, of each group
N_OUTLIERS = 3  # of a class
_CHOSEN_FROM = 1000  # clips from which the number of groups is chosen
_LEAST_SILHOUETTE = 0.35  # of what is worth to be called groups
_N_NULL = 19  # clouds without groups, for a test at 5 %
_SAME = 1e-6  # standard deviation of equal values
_N_AXES = 5  # of the descriptors, on which groups are looked for
_LEAST_SHARE = 0.05  # of the clips, in a group
_FEWEST_PULSES = 4  # in a clip, to be called so
_FENCE = 3.0  # an outlier is so many quartile distances beyond the quartile


class Group:
    """Clips whose explanations are alike.

    Arguments
    ---------
    ids : list of str
        Of its clips, the most typical one first.
    text : str
        What its explanations have in common.

    Example
    -------
    >>> Group(["b", "a"], "below 500 Hz").examples
    ['b', 'a']
    """

    def __init__(self, ids, text):
        self.ids = ids
        self.text = text

    @property
    def examples(self):
        """Ids of the clips to hear: the medoid and its nearest."""
        return self.ids[:N_EXAMPLES]


def find_groups(frame, edges_hz, seed=0):
    """Groups of alike explanations, and those that are like no other.

    Descriptors (square roots of the shares over bands and times, flatness,
    modulation, logarithm of the duration, level) are standardised and turned
    to their five main axes. k-means makes 2 to 6 groups. The number with the
    best mean silhouette counts if that is at least 0.35, larger than of 19
    clouds without groups (normal, of the same variances, grouped likewise),
    and no group has less than 5 % of the clips; else there is one group.

    Arguments
    ---------
    frame : pandas.DataFrame
        A row a clip, with ``id`` and the columns of `describe`. Of more than
        `MOST_CLIPS`, a draw of as many is grouped. Clips of which nothing is
        kept belong to no group.
    edges_hz : list of float
        Of the bands.
    seed : int
        Of all draws.

    Returns
    -------
    groups : list of Group
        The largest first; none without clips.
    outliers : list of str
        Ids of up to three clips, the farthest first.
    n_grouped : int
        Clips that were looked at.

    Example
    -------
    >>> import pandas
    >>> row = dict.fromkeys([*BANDS, *TIMES], 1 / 16)
    >>> row |= {"seconds": 1.0, "kept_s": 1.0, "flatness": 0.9}
    >>> row |= {"level_db": 3.0, "modulation_hz": 2.0, "modulation_depth": 0.1}
    >>> frame = pandas.DataFrame([{"id": "a", **row}, {"id": "b", **row}])
    >>> (group,), outliers, n = find_groups(frame, [500 * i for i in range(17)])
    >>> group.ids, outliers, n
    (['a', 'b'], [], 2)
    """
    frame = frame[frame[BANDS[0]].notna()].sort_values("id", kind="stable")
    if len(frame) > MOST_CLIPS:
        frame = frame.sample(MOST_CLIPS, random_state=seed).sort_index()
    frame = frame.reset_index(drop=True)
    if not len(frame):
        return [], [], 0
    points = _points(frame)
    labels = _grouped(points, seed)
    groups, distances = [], np.zeros(len(frame))
    for label in range(labels.max() + 1):
        rows = np.flatnonzero(labels == label)
        order, far = _from_medoid(points[rows], seed)
        distances[rows] = far
        ids = frame["id"].iloc[rows[order]].tolist()
        groups.append(Group(ids, in_words(frame.iloc[rows], edges_hz)))
    groups.sort(key=lambda group: (-len(group.ids), group.ids[0]))
    return groups, _outliers(frame["id"], distances), len(frame)


def _points(frame):
    """Standardised descriptors on their main axes, [clips, axes]."""
    n_shares = len(BANDS + TIMES)
    columns = [
        # Square roots of shares: their distances are Hellinger's.
        *(np.sqrt(frame[name].to_numpy(float)) for name in BANDS + TIMES),
        frame["flatness"].to_numpy(float),
        frame["modulation_depth"].fillna(0).to_numpy(float),
        np.log2(frame["modulation_hz"].fillna(1).to_numpy(float).clip(0.1)),
        np.log2(frame["kept_s"].to_numpy(float).clip(0.01)),
        frame["level_db"].fillna(0).to_numpy(float) / 10,
    ]
    points = np.stack(columns, 1)
    points -= points.mean(0)
    # The shares have one scale in common: a band that is nearly always empty
    # must not count as much as one that tells clips apart.
    scale = points.std(0)
    scale[:N_BANDS] = scale[:N_BANDS].max()
    scale[N_BANDS:n_shares] = scale[N_BANDS:n_shares].max()
    points /= np.where(scale > _SAME, scale, 1)
    # The main axes, as of a principal component analysis.
    turned, lengths, _ = np.linalg.svd(points, full_matrices=False)
    return (turned * lengths)[:, :_N_AXES]


def _grouped(points, seed):
    """Number of the group of each clip; all 0 if there are none."""
    one = np.zeros(len(points), int)
    rng = np.random.default_rng(seed)
    some = points
    if len(points) > _CHOSEN_FROM:
        some = points[rng.choice(len(points), _CHOSEN_FROM, replace=False)]
    if len(some) < FEWEST_CLIPS or points.std(0).max() < _SAME:
        return one
    best, k = _best(some, seed)
    if best < _LEAST_SILHOUETTE:
        return one
    spread = some.std(0)
    for _ in range(_N_NULL):
        cloud = rng.normal(size=some.shape) * spread
        if _best(cloud, seed)[0] >= best:
            return one
    return _kmeans(points, k, seed)


def _kmeans(points, k, seed):
    """Number of each point's group of k."""
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=4, random_state=seed).fit_predict(points)


def _best(points, seed):
    """Largest mean silhouette, and the number of groups that has it."""
    from sklearn.metrics import silhouette_score

    least = max(2, math.ceil(_LEAST_SHARE * len(points)))
    found = (-1.0, 1)
    for k in range(2, MOST_GROUPS + 1):
        labels = _kmeans(points, k, seed)
        counts = np.bincount(labels)
        if len(counts) < 2 or counts.min() < least:
            continue
        found = max(found, (float(silhouette_score(points, labels)), k))
    return found


def _from_medoid(points, seed):
    """Order of points by their distance to the medoid, and the distances."""
    some = points
    if len(points) > _CHOSEN_FROM:
        rng = np.random.default_rng(seed)
        some = points[rng.choice(len(points), _CHOSEN_FROM, replace=False)]
    between = np.linalg.norm(some[:, None] - some[None], axis=-1)
    medoid = some[between.sum(1).argmin()]
    distances = np.linalg.norm(points - medoid, axis=1)
    return distances.argsort(kind="stable"), distances


def _outliers(ids, distances):
    """Ids of the clips that lie far outside, the farthest first."""
    low, high = np.percentile(distances, [25, 75])
    fence = high + _FENCE * (high - low)
    far = np.flatnonzero(distances > fence) if high > low else []
    order = sorted(far, key=lambda row: -distances[row])
    return [ids.iloc[row] for row in order[:N_OUTLIERS]]


def in_words(frame, edges_hz):
    """What explanations have in common, in plain words.

    Arguments
    ---------
    frame : pandas.DataFrame
        See `find_groups`; at least one row.
    edges_hz : list of float
        Of the bands.

    Returns
    -------
    str
        Duration, bands, time, pulses, kind of sound; what is not clear is
        left out.

    Example
    -------
    >>> import pandas
    >>> row = dict.fromkeys([*BANDS, *TIMES], 0.0)
    >>> row |= {"band_15": 1.0, "time_00": 1.0, "seconds": 4.0, "kept_s": 0.2}
    >>> row |= {"flatness": 0.9, "modulation_hz": 2.0, "modulation_depth": 0.1}
    >>> in_words(pandas.DataFrame([row]), [500 * i for i in range(17)])
    'short (0.2 s), above 7.5 kHz, at the start, noise-like'
    """
    mean = frame.mean(numeric_only=True)
    share = float((frame["kept_s"] / frame["seconds"]).median())
    seconds = float(frame["kept_s"].median())
    words = []
    if share < 0.25:
        words.append(f"short ({seconds:.2g} s)")
    elif share > 0.75:
        words.append("nearly all the time")
    words.append(_bands_in_words(mean[BANDS].to_numpy(float), edges_hz))
    words.append(_times_in_words(mean[TIMES].to_numpy(float)))
    rates, depth = frame["modulation_hz"], frame["modulation_depth"].median()
    # A single event looks like the slowest of all rates.
    n_pulses = float((rates * frame["seconds"]).median())
    if depth > 0.6 and n_pulses >= _FEWEST_PULSES and share >= 0.25:
        words.append(f"pulsed at about {float(rates.median()):.2g} Hz")
    flatness = float(frame["flatness"].median())
    if flatness < 0.03:
        words.append("of few tones")
    elif flatness > 0.4:
        words.append("noise-like")
    return ", ".join(word for word in words if word)


def _bands_in_words(shares, edges_hz):
    """The fewest neighbouring bands with four fifths of what is kept."""
    first, last = _densest(shares, 0.8)
    low, high = edges_hz[first], edges_hz[last + 1]
    if last - first + 1 > 0.75 * len(shares):
        return "at all frequencies"
    if first == 0:
        return f"below {_hertz(high)}"
    if last == len(shares) - 1:
        return f"above {_hertz(low)}"
    return f"{_hertz(low)} to {_hertz(high)}"


def _times_in_words(shares):
    """Where in the clip most of what is kept is; empty for no place."""
    first, last = _densest(shares, 0.75)
    if last - first + 1 > len(shares) / 2:
        return ""
    middle = (first + last + 1) / 2 / len(shares)
    if middle < 1 / 3:
        return "at the start"
    return "at the end" if middle > 2 / 3 else "in the middle"


def _densest(shares, most):
    """First and last of the fewest neighbours that hold so much."""
    sums = np.concatenate([[0], np.cumsum(shares)])
    n = len(shares)
    for width in range(1, n + 1):
        held = sums[width:] - sums[:-width]
        if held.max() >= most * sums[-1]:
            first = int(held.argmax())
            return first, first + width - 1
    return 0, n - 1


def _hertz(value):
    """A frequency as people write it."""
    if value >= 1000:
        return f"{value / 1000:.2g} kHz"
    return f"{value:.2g} Hz" if value < 100 else f"{round(value, -1):.0f} Hz"
