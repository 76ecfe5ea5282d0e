"""From the table of clips to alarms.

For each class, and each band, each place and all of what is not the loud event
(see `lmac_sb.audit.evidence`), there are two tests of clips that got that part
from another clip:

- *leaves*: of the clips of the class, how many decisions leave it, more than
  with the same part of another clip of the class?
- *moves*: of the clips of other classes, how many decisions move to the class
  when the part is from a clip of it, more than when it is from others?

Another test is of the clips without their loud event: are those of the class
still decided so, more often than others are?

`tests_of` does all tests, and `find_alarms` says which of them matter: those
that stay after the correction for all tests (Benjamini and Hochberg), and
whose effect is large enough to change decisions.
"""

from collections import defaultdict

from lmac_sb.audit.alarm import Alarm, ranked
from lmac_sb.audit.evidence import N_BANDS, N_DONORS, PLACES, band_edges
from lmac_sb.audit.significance import difference, fdr, more_often, sign_test

__all__ = [
    "LEAST_CLIPS",
    "LEAST_EFFECT",
    "LEAST_LOW",
    "MOST_Q",
    "alarms_among",
    "find_alarms",
    "tests_of",
]

MOST_Q = 0.01  # false discovery rate of all alarms
LEAST_EFFECT = 0.15  # share of the decisions; less changes few of them
LEAST_LOW = 0.05  # that the effect's interval reaches down to, at least
LEAST_CLIPS = 5  # of a class, for a test; fewer cannot be significant
N_EXAMPLES = 6
_EXPLAINED = 0.7  # of the effect of all of the rest, by one part of it

_LEAVES = "decisions that leave the class, beyond those that leave it anyway"
_MOVES = "decisions that move to the class, beyond those that move anyway"
_STAYS = "decisions that stay without the loud event, beyond chance"


def find_alarms(frame, more=()):
    """What the decisions of each class rest on, and should perhaps not.

    Arguments
    ---------
    frame : pandas.DataFrame
        A row a clip: ``id``, and the columns of
        `lmac_sb.audit.evidence.EVIDENCE`.
    more : list of Alarm
        Further tests that were done on the same clips, each as an alarm,
        whatever came out.

    Returns
    -------
    list of Alarm
        Those that matter, the largest effect first. How many tests were done
        is ``len(tests_of(frame)) + len(more)``.

    Example
    -------
    >>> import pandas as pd
    >>> from lmac_sb.audit.evidence import EVIDENCE
    >>> find_alarms(pd.DataFrame(columns=["id", *EVIDENCE]))
    []
    """
    return alarms_among([*tests_of(frame), *more])


def alarms_among(tests):
    """Those of all tests that matter.

    Arguments
    ---------
    tests : list of Alarm
        Every test that was done, whatever came out.

    Returns
    -------
    list of Alarm
        See `find_alarms`.

    Example
    -------
    >>> alarms_among([])
    []
    """
    qs = fdr([test.p for test in tests])
    tests = [test._replace(q=q) for test, q in zip(tests, qs)]
    matter = [
        test
        for test in tests
        if test.q <= MOST_Q
        and test.effect[0] >= LEAST_EFFECT
        and test.effect[1] >= LEAST_LOW
    ]
    return ranked(_without_repeats(matter))


def tests_of(frame):
    """All tests that can be done on a table of clips.

    Arguments
    ---------
    frame : pandas.DataFrame
        See `find_alarms`.

    Returns
    -------
    list of Alarm
        With ``q`` not corrected yet; none of a class that has fewer than
        `LEAST_CLIPS` clips.
    """
    clips = _Clips(frame)
    found = []
    for name in clips.classes:
        found += _survival(clips, name)
        for part in clips.parts:
            found += _leaving(clips, name, part)
            found += _moving(clips, name, part)
    return found


class _Clips:
    """The columns of the table that the tests read, as lists."""

    def __init__(self, frame):
        frame = frame[frame["heard"].notna()]
        self.ids = frame["id"].tolist()
        self.heard = frame["heard"].tolist()
        self.rest = _texts(frame["rest_decision"])
        self.donors = [_texts(frame[f"donor_{k}"]) for k in range(N_DONORS)]
        nyquist = frame["nyquist"].max() if len(frame) else 1.0
        self.parts = _parts(float(nyquist))
        self.after = {
            part: [_texts(frame[f"{part}_{k}"]) for k in range(N_DONORS)]
            for part in self.parts
        }
        self.drops = {
            part: frame[f"drop_{part}"].tolist() for part in self.parts
        }
        # Places of the clips of each class, and of those that got a part from
        # a clip of it: each test looks at these alone, out of a million.
        self.of, self.getting = defaultdict(list), defaultdict(list)
        for i, heard in enumerate(self.heard):
            self.of[heard].append(i)
            for donor in {donor[i] for donor in self.donors} - {heard}:
                self.getting[donor].append(i)
        self.classes = sorted(
            name for name, of in self.of.items() if len(of) >= LEAST_CLIPS
        )

    def outcomes(self, part, i):
        """Class of each donor of a clip, and class with its part."""
        pairs = zip(self.donors, self.after[part])
        pairs = [(donor[i], after[i]) for donor, after in pairs]
        return [(d, a) for d, a in pairs if d is not None and a is not None]


def _texts(column):
    """Values of a column, None where there is none."""
    return [value if isinstance(value, str) else None for value in column]


def _parts(nyquist):
    """What each part is, by name: kind, words, Hz and time."""
    edges = band_edges(nyquist)
    found = {}
    for i in range(N_BANDS):
        low, high = edges[i], edges[i + 1]
        found[f"band_{i:02d}"] = ("band", _hertz(low, high), (low, high), None)
    for name, time in PLACES.items():
        found[name] = ("place", f"at the {name}", None, time)
    found["all"] = ("background", "outside of the loud event", None, None)
    return found


def _hertz(low, high):
    """A band in words."""
    if low == 0:
        return f"below {high:.0f} Hz"
    return f"from {low:.0f} to {high:.0f} Hz"


def _share(values):
    """Mean of some truth values; None without any."""
    return sum(values) / len(values) if values else None


def _leaving(clips, name, part):
    """Do decisions leave the class with another class's part?"""
    pairs = []
    for i in clips.of[name]:
        found = clips.outcomes(part, i)
        own = _share([a != name for d, a in found if d == name])
        other = _share([a != name for d, a in found if d != name])
        pairs.append((i, other, own))
    found = _paired(clips, name, part, pairs, _LEAVES)
    # The odds tell more than the decisions, of which most stay as they are.
    drops = [clips.drops[part][i] for i, *pair in pairs if None not in pair]
    return [alarm._replace(p=sign_test(drops)) for alarm in found]


def _moving(clips, name, part):
    """Do decisions on other clips move to the class with its part?"""
    pairs = []
    for i in clips.getting[name]:
        found = clips.outcomes(part, i)
        own = _share([a == name for d, a in found if d == name])
        other = _share([a == name for d, a in found if d != name])
        pairs.append((i, own, other))
    return _paired(clips, name, part, pairs, _MOVES)


def _paired(clips, name, part, pairs, effect_of):
    """A test of clips each of which was changed in two ways."""
    pairs = [pair for pair in pairs if None not in pair]
    if len(pairs) < LEAST_CLIPS:
        return []
    places, changed, control = zip(*pairs)
    n = len(pairs)
    gains = [one - two for one, two in zip(changed, control)]
    kind, where, band_hz, time = clips.parts[part]
    effect = difference(sum(changed), n, sum(control), n)
    best = sorted(range(n), key=lambda j: -gains[j])
    examples = [clips.ids[places[j]] for j in best if gains[j] > 0]
    text = _TEXTS[effect_of].format(
        name=name, share=effect[0], where=_IN_WORDS[kind].format(where)
    )
    return [
        Alarm(
            kind,
            name,
            where,
            effect,
            effect_of,
            sign_test(gains),
            n,
            text,
            tuple(examples[:N_EXAMPLES]),
            band_hz=band_hz,
            time=time,
        )
    ]


_IN_WORDS = {
    "band": "what lies {} outside of the loud event",
    "place": "what lies {} of the clip, outside of the loud event,",
    "background": "all that is not the loud event",
}
_TEXTS = {
    _LEAVES: (
        "For {name}, {share:.0%} of the decisions fall when {where} is from a "
        "clip of another class."
    ),
    _MOVES: (
        "{share:.0%} of the decisions for other classes turn to {name} when "
        "{where} is from a clip of {name}."
    ),
    _STAYS: (
        "For {name}, {share:.0%} of the decisions stay when the loud event is "
        "removed."
    ),
}


def _survival(clips, name):
    """Do decisions stay without the loud event?"""
    own = [i for i in clips.of[name] if clips.rest[i] is not None]
    others = [
        i
        for i, heard in enumerate(clips.heard)
        if heard != name and clips.rest[i] is not None
    ]
    if len(own) < LEAST_CLIPS or len(others) < LEAST_CLIPS:
        return []
    stay = [i for i in own if clips.rest[i] == name]
    count = len(stay), len(own)
    other = sum(clips.rest[i] == name for i in others), len(others)
    effect = difference(*count, *other)
    return [
        Alarm(
            "survives",
            name,
            "without the loud event",
            effect,
            _STAYS,
            more_often(*count, *other),
            len(own),
            _TEXTS[_STAYS].format(name=name, share=effect[0]),
            tuple(clips.ids[i] for i in stay[:N_EXAMPLES]),
        )
    ]


def _without_repeats(alarms):
    """One alarm for what is one thing.

    Both tests of one part are one, and so are bands side by side; what a band
    or a place explains is not told again of all of the rest.
    """
    found = {}
    for alarm in ranked(alarms):
        key = alarm.kind, alarm.name, alarm.where
        first = found.setdefault(key, alarm)
        if first is not alarm:
            text = f"{first.text} {alarm.text}"
            found[key] = first._replace(text=text)
    found = _joined_bands(list(found.values()))
    special = {}
    for alarm in found:
        if alarm.kind in ("band", "place"):
            least = special.get(alarm.name, 0.0)
            special[alarm.name] = max(least, alarm.effect[0])
    return [
        alarm
        for alarm in found
        if alarm.kind != "background"
        or special.get(alarm.name, 0.0) < _EXPLAINED * alarm.effect[0]
    ]


def _joined_bands(alarms):
    """The alarms, with bands of a class that touch each other in one.

    It has the numbers and the words of the clearest one, and says so.
    """
    bands = [alarm for alarm in alarms if alarm.kind == "band"]
    bands.sort(key=lambda alarm: (alarm.name, alarm.band_hz))
    groups = []
    for alarm in bands:
        last = groups[-1][-1] if groups else None
        if last and (last.name, last.band_hz[1]) == (
            alarm.name,
            alarm.band_hz[0],
        ):
            groups[-1].append(alarm)
        else:
            groups.append([alarm])
    joined = []
    for group in groups:
        best = ranked(group)[0]
        if len(group) > 1:
            ends = group[0].band_hz[0], group[-1].band_hz[1]
            text = f"{best.text} So it is, less, {_hertz(*ends)}."
            best = best._replace(where=_hertz(*ends), band_hz=ends, text=text)
        joined.append(best)
    return [alarm for alarm in alarms if alarm.kind != "band"] + joined
