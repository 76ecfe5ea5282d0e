"""One soundscape: which sounds are in it, where, and how loud.

Events and one loud distractor sound one at a time, each within its own part of
the scene. Below them are an ambient recording and up to two more distractors,
at any time. Levels are ratios of mean powers, in the time in which a sound is
there: that of an event over all the rest, that of a quiet distractor over the
ambient recording, and that of the loud one over the loudest event.

Only `random` of Python draws, whose numbers never change, and no sum depends
on its order, see `lmac_sb.data.exact`.
"""

import math
import random
from typing import NamedTuple

import numpy as np

from lmac_sb.data.active import active_part, loud_place, widened
from lmac_sb.data.audio import MIN_LENGTH_S
from lmac_sb.data.exact import power, power_ratio
from lmac_sb.utils.errors import LMACError

__all__ = ["Part", "Soundscape", "draw_soundscape", "longest_share"]

_FILLED = 0.8  # of a scene, at most, by what sounds one at a time
_MARGIN_S = 0.1  # between that and the ends of the scene
_FADE_S = 0.01
_MOST_QUIET = 2  # distractors
_PEAK = 0.9  # of the scene or of a stem, so that none clips
_FULL = 1 << 15  # 16 bits
_FAINT = 32  # steps of 16 bits that the peak of a sound must have
_HOLE = 100  # where an event is, the ambient recording has no less than 20 dB
_ATTEMPTS = 50  # excerpts


class Part(NamedTuple):
    """A sound of a soundscape.

    Arguments
    ---------
    role : str
        ``event``, ``distractor``, ``loud`` (a distractor too) or ``ambient``.
    sound : lmac_sb.data.stock.Sound
        Where it comes from.
    start : int
        Its first sample there, at the rate of the scene.
    onset : int
        And in the scene.
    samples : np.ndarray
        With faded ends, [samples].
    step : float
        See `lmac_sb.data.exact.Whole`.
    level_db : float or None
        See the module; None of the ambient recording.
    gain : float or None
        What the file's samples are multiplied by in the scene.

    Example
    -------
    >>> Part("event", None, 0, 8, np.zeros(4), 1.0, -5.0).span
    slice(8, 12, None)
    """

    role: str
    sound: object
    start: int
    onset: int
    samples: np.ndarray
    step: float
    level_db: float = None
    gain: float = None

    @property
    def span(self):
        """Where it is in the scene."""
        return slice(self.onset, self.onset + len(self.samples))


class Soundscape(NamedTuple):
    """A finished scene.

    Arguments
    ---------
    mixture : np.ndarray
        Of 16 bits, as parts of one, [samples].
    tracks : np.ndarray
        Each sound alone; their sum is the mixture, [samples, sounds].
    parts : list of Part
        What they are, events first.

    Example
    -------
    >>> Soundscape(np.zeros(2), np.zeros((2, 1)), []).mixture.shape
    (2,)
    """

    mixture: np.ndarray
    tracks: np.ndarray
    parts: list


def longest_share(n_events):
    """Longest sound of those that sound one at a time, as a share of a scene.

    Arguments
    ---------
    n_events : int
        In the scene.

    Returns
    -------
    float

    Example
    -------
    >>> longest_share(1), longest_share(3)
    (0.4, 0.2)
    """
    return _FILLED / (n_events + 1)


def draw_soundscape(stock, place, settings):
    """Draw a scene.

    Arguments
    ---------
    stock : lmac_sb.data.stock.Stock
        The sounds.
    place : tuple of int
        Fold, number of the class that it is counted for, and index.
    settings : dict
        Of `lmac_sb.data.soundscapes.make_soundscapes`.

    Returns
    -------
    Soundscape

    Raises
    ------
    LMACError
        If no ambient recording sounds where the events are, or the levels are
        too far apart for 16 bits.
    """
    draws = _Draws(stock, place, settings)
    *events, loud = draws.alone()
    quiet = draws.quiet()
    silent = []
    for _ in range(_ATTEMPTS):
        ambient = draws.ambient()
        if not _sounds_throughout(ambient, [*quiet, *events]):
            silent.append(ambient)
            continue
        found = _written(*_mix(ambient, quiet, events, loud))
        if found is not None:
            return found
    n_faint = _ATTEMPTS - len(silent)
    reason = _silent(silent) if len(silent) > n_faint else None
    raise LMACError(f"fold {place[0]}: {reason or _faint(n_faint, settings)}")


def _silent(excerpts):
    """What is wrong with ambient recordings that are silent at events."""
    return (
        f"{len(excerpts)} excerpts of ambient recordings are silent where the "
        "events are, expected recordings that sound throughout; the last is "
        f"of {excerpts[-1].sound.place}"
    )


def _faint(n_tries, settings):
    """What is wrong with levels that 16 bits do not hold."""
    levels = (
        f"{key} from {settings[key][0]} to {settings[key][1]} dB"
        for key in ("snr_db", "loud_db")
    )
    return (
        f"in {n_tries} tries a sound is next to nothing in 16 bits beside "
        "the loudest one; expected levels that lie closer together, found "
        + " and ".join(levels)
    )


class _Draws:
    """The random draws of one scene."""

    def __init__(self, stock, place, settings):
        self.stock, self.settings = stock, settings
        self.fold, self.target, _ = place
        seed = " ".join(map(str, (settings["seed"], *place)))
        # Its other methods may change with the version of Python.
        self._random = random.Random(seed).random
        self.rate = settings["sample_rate"]
        self.n_samples = round(settings["duration_s"] * self.rate)
        n_events = self._one_of(settings["n_events"])
        self._targets = self._draw_targets(n_events)
        share = longest_share(n_events) * self._between(0.5, 1)
        self._longest = int(share * self.n_samples)

    def alone(self):
        """The events and the loud distractor, one at a time, in any order."""
        parts = [self._event(target) for target in self._targets]
        level = self._level("loud_db")
        parts.append(self._distractor("loud")._replace(level_db=level))
        order = self._shuffled(range(len(parts)))
        margin = round(_MARGIN_S * self.rate)
        used = sum(len(part.samples) for part in parts)
        free = self.n_samples - 2 * margin - used
        gaps = sorted(self._below(free + 1) for _ in parts)
        before = margin
        for place, gap in zip(order, gaps):
            part = parts[place]
            parts[place] = part._replace(onset=before + gap)
            before += len(part.samples)
        return parts

    def quiet(self):
        """Some distractors at any time."""
        parts = []
        for _ in range(self._below(_MOST_QUIET + 1)):
            part, level = self._distractor("distractor"), self._level("snr_db")
            onset = self._below(self.n_samples - len(part.samples) + 1)
            parts.append(part._replace(onset=onset, level_db=level))
        return parts

    def ambient(self):
        """An excerpt of an ambient recording."""
        sound = self._one_of(self.stock.ambients(self.fold))
        samples, step = self.stock.read(sound.place)
        start = self._below(len(samples) - self.n_samples + 1)
        samples = samples[start : start + self.n_samples].astype(np.float64)
        return Part("ambient", sound, start, 0, samples, step)

    def _draw_targets(self, n_events):
        """Classes of the events: the given one, and others."""
        others = [x for x in range(len(self.stock.classes)) if x != self.target]
        return [self.target, *self._shuffled(others)[: n_events - 1]]

    def _event(self, target):
        """An event of a class."""
        name = self.stock.classes[target]
        sound = self._one_of(self.stock.events(self.fold, name))
        part = self._excerpt("event", sound)
        return part._replace(level_db=self._level("snr_db"))

    def _distractor(self, role):
        """A distractor; each corpus is as likely as the others."""
        sounds = self._one_of(self.stock.distractors(self.fold))
        return self._excerpt(role, self._one_of(sounds))

    def _excerpt(self, role, sound):
        """The active part of a sound, or some of it around a loud frame."""
        samples, step = self.stock.read(sound.place)
        least = round(MIN_LENGTH_S * self.rate)
        start, stop = active_part(samples, self.rate)
        if stop - start > self._longest:
            first = start + loud_place(
                samples[start:stop], self.rate, self._random()
            )
            first = max(start, first - self._longest // 2)
            start = min(first, stop - self._longest)
            stop = start + self._longest
            inner = active_part(samples[start:stop], self.rate)
            start, stop = start + inner[0], start + inner[1]
        start, stop = widened((start, stop), least, len(samples))
        faded = _faded(samples[start:stop].astype(np.float64), self.rate)
        return Part(role, sound, start, 0, faded, step)

    def _level(self, key):
        """A level in dB, in hundredths."""
        return round(self._between(*self.settings[key]), 2)

    def _between(self, low, high):
        """A number in a range."""
        return low + (high - low) * self._random()

    def _below(self, n):
        """A whole number from 0 to n - 1."""
        return int(self._random() * n)

    def _one_of(self, items):
        """One of some items."""
        return items[self._below(len(items))]

    def _shuffled(self, items):
        """The items in another order."""
        items, found = list(items), []
        while items:
            found.append(items.pop(self._below(len(items))))
        return found


def _faded(samples, rate):
    """Samples without clicks at the ends."""
    n = min(round(_FADE_S * rate), len(samples) // 2)
    t = (np.arange(n) + 0.5) / n
    ramp = t * t * (3 - 2 * t)
    samples[:n] *= ramp
    samples[len(samples) - n :] *= ramp[::-1]
    return samples


def _sounds_throughout(ambient, parts):
    """Whether an ambient recording is silent at none of the other sounds."""
    least = power(ambient.samples) / _HOLE
    return min(power(ambient.samples[part.span]) for part in parts) > least


def _mix(ambient, quiet, events, loud):
    """All sounds of a scene, and what brings each to its level."""
    rest = ambient.samples.copy()
    gains = [1.0]
    for part in quiet:
        gains.append(_gain(part, power(ambient.samples[part.span])))
    for part, gain in zip(quiet, gains[1:]):
        rest[part.span] += gain * part.samples
    event_gains = [_gain(part, power(rest[part.span])) for part in events]
    loudest = max(
        gain * gain * power(part.samples)
        for part, gain in zip(events, event_gains)
    )
    gains = [*event_gains, *gains, _gain(loud, loudest)]
    return [*events, ambient, *quiet, loud], gains


def _gain(part, reference):
    """What brings a sound to its level over a mean power."""
    ratio = power_ratio(part.level_db) * reference / power(part.samples)
    return math.sqrt(ratio)


def _written(parts, gains):
    """The scene in 16 bits; None if a sound is next to nothing in it."""
    n_samples = max(part.span.stop for part in parts)
    tracks = np.zeros((n_samples, len(parts)))
    for track, part, gain in zip(tracks.T, parts, gains):
        track[part.span] = gain * part.samples
    peak = max(np.abs(tracks).max(), np.abs(sum(tracks.T)).max())
    scale = _PEAK / peak
    tracks = np.rint(_FULL * (scale * tracks))
    if np.abs(tracks).max(0).min() < _FAINT:
        return None
    parts = [
        part._replace(gain=scale * gain / part.step)
        for part, gain in zip(parts, gains)
    ]
    tracks /= _FULL
    return Soundscape(sum(tracks.T), tracks, parts)
