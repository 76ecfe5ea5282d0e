"""From the table of clips to alarms.

For each class, and each band, each place and all of what is not the loud event
(see `lmac_sb.audit.evidence`), two questions are asked of the clips that got
that part from another clip, and answered by one test together:

- *moves*: of the clips of other classes, how many decisions move to the class
  when the part is from a clip of it, more than when it is from others?
- *leaves*: of the clips of the class, how many decisions leave it, more than
  with the same part of another clip of the class? Clips of a class to which
  decisions move are not among the donors here.

Another test is of the clips without their loud event: are those of the class
still decided so, more often than others are?

`tests_of` does all tests, and `find_alarms` says which of them matter: those
that stay after the correction for all tests (Benjamini and Hochberg), and
whose effect is large enough to change decisions.
"""

from collections import Counter
from typing import NamedTuple

from lmac_sb.audit.alarm import Alarm, ranked
from lmac_sb.audit.evidence import N_BANDS, N_DONORS, PLACES, band_edges
from lmac_sb.audit.significance import (
    difference,
    fdr,
    joined,
    larger,
    more_often,
    sign_test,
)

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

_FALLS = ("drop", "same")  # columns of the odds, without the part
_LEAVES = "decisions that leave the class, beyond those that leave it anyway"
_MOVES = "decisions that move to the class, beyond those that move anyway"
_STAYS = "decisions that stay without the loud event, beyond chance"
_IN_WORDS = {
    "band": "what lies {} outside of the loud event",
    "place": "what lies {} of the clip, outside of the loud event,",
    "background": "all that is not the loud event",
}
# With the share of the decisions, and the one that it is compared with.
_TEXTS = {
    _LEAVES: (
        "For {name}, {share:.0%} of the decisions fall when {where} is from a "
        "clip of another class ({other:.0%} when it is from another clip of "
        "{name})."
    ),
    _MOVES: (
        "{share:.0%} of the decisions for other classes turn to {name} when "
        "{where} is from a clip of {name} ({other:.0%} when it is not)."
    ),
    _STAYS: (
        "For {name}, {share:.0%} of the decisions stay when the loud event is "
        "removed ({other:.0%} of the other clips without it are taken for "
        "{name})."
    ),
}
# What it may be; by the lower end in Hz of bands, the highest that fits.
_MAY_BE = {
    0.0: "A constant offset, or rumble?",
    20.0: "A hum?",
    400.0: "A second sound, or noise?",
    "start": "A click, a fade or silence at the start?",
    "end": "A click, a fade or silence at the end?",
    "background": "The room, the recorder, or another noise?",
}


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
        moving = clips.moving(part)
        moves = {
            name: _moves(clips, moving.get(name, [])) for name in clips.classes
        }
        strong = {name for name, found in moves.items() if _is_clear(found)}
        leaving = clips.leaving(part, strong)
        for name in clips.classes:
            answers = [*_leaves(clips, leaving.get(name, [])), *moves[name]]
            found += _exchange(clips, name, part, answers)
    return found


class _Clips:
    """What the tests read of the table."""

    def __init__(self, frame):
        self.frame = frame = frame[frame["heard"].notna()]
        self.ids = frame["id"].tolist()
        self.heard = frame["heard"].tolist()
        self.rest = _texts(frame["rest_decision"])
        self.donors = [_texts(frame[f"donor_{k}"]) for k in range(N_DONORS)]
        self.nyquist = float(frame["nyquist"].max()) if len(frame) else 1.0
        self.parts = _parts(self.nyquist)
        self.n = Counter(self.heard)
        self.classes = sorted(
            name for name, n in self.n.items() if n >= LEAST_CLIPS
        )

    def outcomes(self, part):
        """For each clip: class of each donor, and class with its part."""
        after = [_texts(self.frame[f"{part}_{k}"]) for k in range(N_DONORS)]
        for i in range(len(self.ids)):
            pairs = [(d[i], a[i]) for d, a in zip(self.donors, after)]
            yield [(d, a) for d, a in pairs if d is not None and a is not None]

    def leaving(self, part, strong):
        """Of each class the clips that got the part of others.

        Donors of the `strong` classes do not count: that they draw decisions
        to their class says something of that one.
        Each is its number; by whether the donor is of the same class: share of
        the decisions that leave; and the falls of the odds.
        """
        falls = [self.frame[f"{key}_{part}"].tolist() for key in _FALLS]
        found = {}
        for i, pairs in enumerate(self.outcomes(part)):
            name = self.heard[i]
            pairs = [(d, a) for d, a in pairs if d not in strong - {name}]
            shares = [
                _share([a != name for d, a in pairs if (d == name) == is_own])
                for is_own in (False, True)
            ]
            clip = i, shares, [fall[i] for fall in falls]
            found.setdefault(name, []).append(clip)
        return found

    def moving(self, part):
        """Of each class the clips of others that got the part of it.

        Each is its number, and the shares of the decisions that move to the
        class with its part, and with that of a third class.
        """
        found = {}
        for i, pairs in enumerate(self.outcomes(part)):
            for name in sorted({d for d, _ in pairs} - {self.heard[i]}):
                shares = [
                    _share([a == name for d, a in pairs if (d == name) == own])
                    for own in (True, False)
                ]
                if None not in shares:
                    found.setdefault(name, []).append((i, *shares))
        return found

    def best(self, gains):
        """Ids of the clips with the largest gains, of (gain, number)."""
        gains = sorted(gains, key=lambda pair: -pair[0])[:N_EXAMPLES]
        return tuple(self.ids[i] for gain, i in gains if gain > 0)


def _texts(column):
    """Values of a column, None where there is none."""
    return [value if isinstance(value, str) else None for value in column]


def _share(values):
    """Mean of truth values; None without any."""
    return sum(values) / len(values) if values else None


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


class _Answer(NamedTuple):
    """What the clips say to one question."""

    shares: tuple  # of the decisions, and what it is compared with
    effect: tuple
    effect_of: str
    p: float
    n: int
    examples: tuple


def _is_clear(answers):
    """Whether there is an answer that could be an alarm."""
    return any(
        answer.p <= MOST_Q
        and answer.effect[0] >= LEAST_EFFECT
        and answer.effect[1] >= LEAST_LOW
        for answer in answers
    )


def _leaves(clips, found):
    """Do decisions leave the class with another class's part?"""
    other = [(i, x[0], fall[0]) for i, x, fall in found if x[0] is not None]
    own = [(i, x[1], fall[1]) for i, x, fall in found if x[1] is not None]
    if min(len(other), len(own)) < LEAST_CLIPS:
        return []
    sums = [sum(share for _, share, _ in group) for group in (other, own)]
    anyway = {i: share for i, share, _ in own}
    return [
        _Answer(
            (sums[0] / len(other), sums[1] / len(own)),
            difference(sums[0], len(other), sums[1], len(own)),
            _LEAVES,
            # The odds tell more than the decisions, of which most stay.
            larger(*([fall for *_, fall in group] for group in (other, own))),
            len(other),
            clips.best([(x - anyway.get(i, 0.0), i) for i, x, _ in other]),
        )
    ]


def _moves(clips, found):
    """Do decisions on other clips move to the class with its part?"""
    if len(found) < LEAST_CLIPS:
        return []
    n = len(found)
    gains = [(own - other, i) for i, own, other in found]
    _, own, other = zip(*found)
    return [
        _Answer(
            (sum(own) / n, sum(other) / n),
            difference(sum(own), n, sum(other), n),
            _MOVES,
            sign_test([gain for gain, _ in gains]),
            n,
            clips.best(gains),
        )
    ]


def _exchange(clips, name, part, answers):
    """The test of one part for one class; none without answers.

    Its p is that of both answers together, its effect the clearer one.
    """
    if not answers:
        return []
    kind, where, band_hz, time = clips.parts[part]
    answers = sorted(answers, key=lambda answer: -answer.effect[1])
    best = answers[0]
    texts = [
        _TEXTS[answer.effect_of].format(
            name=name,
            share=answer.shares[0],
            other=answer.shares[1],
            where=_IN_WORDS[kind].format(where),
        )
        for answer in answers
        if answer is best or answer.effect[1] >= LEAST_LOW
    ]
    texts.append(_may_be(clips, kind, part, band_hz))
    return [
        Alarm(
            kind,
            name,
            where,
            best.effect,
            best.effect_of,
            joined([answer.p for answer in answers]),
            best.n,
            " ".join(texts),
            best.examples,
            band_hz=band_hz,
            time=time,
        )
    ]


def _may_be(clips, kind, part, band_hz):
    """A question that helps to find out what it is."""
    if kind != "band":
        return _MAY_BE[kind if kind == "background" else part]
    if band_hz[1] > 0.99 * clips.nyquist:
        return "Where a codec or a microphone ends?"
    ends = [x for x in _MAY_BE if isinstance(x, float) and x <= band_hz[0]]
    return _MAY_BE[max(ends)]


def _survival(clips, name):
    """Do decisions stay without the loud event?"""
    known = [i for i, rest in enumerate(clips.rest) if rest is not None]
    own = [i for i in known if clips.heard[i] == name]
    n_others = len(known) - len(own)
    if min(len(own), n_others) < LEAST_CLIPS:
        return []
    stay = [i for i in own if clips.rest[i] == name]
    others = sum(clips.rest[i] == name for i in known) - len(stay)
    counts = len(stay), len(own), others, n_others
    effect = difference(*counts)
    return [
        Alarm(
            "survives",
            name,
            "without the loud event",
            effect,
            _STAYS,
            more_often(*counts),
            len(own),
            _TEXTS[_STAYS].format(
                name=name, share=len(stay) / len(own), other=others / n_others
            ),
            tuple(clips.ids[i] for i in stay[:N_EXAMPLES]),
        )
    ]


def _without_repeats(alarms):
    """One alarm for what is one thing.

    Bands side by side are one; what a band or a place explains is not told
    again of all of the rest.
    """
    found = _joined_bands(alarms)
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
            text = (
                f"{best.text} The bands beside it count too: {_hertz(*ends)}."
            )
            best = best._replace(where=_hertz(*ends), band_hz=ends, text=text)
        joined.append(best)
    return [alarm for alarm in alarms if alarm.kind != "band"] + joined
