"""What soundscapes are made of: events, ambient recordings and distractors.

Each is a corpus of the user's, of whatever kind and rate (see
`lmac_sb.data.corpus`). Every sound belongs to one fold: that of a column
`fold`, or by the splits of a column `split` or of folders as in WHAM! (tr, cv,
tt), where the last fold is for tests, the one before for validation and the
others for training, or in turn. A sound that is there twice counts once.
"""

import hashlib
import json
import logging
import re
from typing import NamedTuple

from lmac_sb.data.columns import place_among
from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.exact import read_whole
from lmac_sb.data.folds import known_fold, list_clips, split_columns
from lmac_sb.data.listing import known_split
from lmac_sb.data.pieces import opened
from lmac_sb.utils.checksums import stream_sha256
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["ROLES", "Reader", "Sound", "Stock", "list_stock"]

logger = logging.getLogger(__name__)

ROLES = ("foregrounds", "ambients", "distractors")
_SPLITS = {"tr": "train", "cv": "valid", "tt": "test"}  # folders of WHAM!
_KEPT = 1 << 28  # samples held in memory, 1 GB
_SHOWN = 10  # bad sounds that a message lists


class Sound(NamedTuple):
    """A sound that can be used, and where it belongs.

    Arguments
    ---------
    name : str
        In its corpus.
    place : str, or a place of `lmac_sb.data.places`
        Where it is.
    fold : int
        Of the scenes in which it may be.
    category : str or None
        Its class, if it has one.
    corpus : int
        Number of its corpus among those of its role.

    Example
    -------
    >>> Sound("a.wav", "x/a.wav", 1, "dog", 0).fold
    1
    """

    name: str
    place: object
    fold: int
    category: str
    corpus: int


class Reader:
    """Reads sounds as whole numbers, and keeps up to 1 GB of them.

    Arguments
    ---------
    rate : int
        Wanted rate in Hz.

    Example
    -------
    >>> reader = Reader(16000)
    >>> reader(path) is reader(path)
    True
    """

    def __init__(self, rate):
        self.rate = rate
        self._kept, self._room = {}, _KEPT

    def __call__(self, place):
        """The sound at a place, see `lmac_sb.data.exact.read_whole`."""
        if place not in self._kept:
            sound = read_whole(place, self.rate)
            if len(sound.samples) > self._room:
                self._kept, self._room = {}, _KEPT
            self._kept[place] = sound
            self._room -= len(sound.samples)
        return self._kept[place]


class Stock:
    """All sounds by their fold, once they have been looked at.

    Arguments
    ---------
    sounds : dict
        Role to a list of `Sound`.
    classes : list of str
        Of the foregrounds.
    reader : Reader
        Reads them.

    Example
    -------
    >>> stock = Stock(
    ...     {role: [Sound("a", path, 1, "dog", 0)] for role in ROLES},
    ...     ["dog"],
    ...     Reader(16000),
    ... )
    >>> stock.events(1, "dog")[0].name, len(stock.distractors(1))
    ('a', 1)
    """

    def __init__(self, sounds, classes, reader):
        self.classes, self.read = classes, reader
        self._events, self._ambients, self._distractors = {}, {}, {}
        for sound in sounds["foregrounds"]:
            key = sound.fold, sound.category
            self._events.setdefault(key, []).append(sound)
        for sound in sounds["ambients"]:
            self._ambients.setdefault(sound.fold, []).append(sound)
        for sound in sounds["distractors"]:
            corpora = self._distractors.setdefault(sound.fold, {})
            corpora.setdefault(sound.corpus, []).append(sound)

    def events(self, fold, category):
        """Foregrounds of a class in a fold."""
        return self._events.get((fold, category), [])

    def ambients(self, fold):
        """Ambient recordings of a fold."""
        return self._ambients.get(fold, [])

    def distractors(self, fold):
        """Distractors of a fold, a list for each of their corpora."""
        return list(self._distractors.get(fold, {}).values())


class Listed(NamedTuple):
    """The sounds that were found, unread.

    Arguments
    ---------
    sounds : dict
        Role to a list of `Sound`.
    classes : list of str
        Of the foregrounds.
    folds : list of int
        Those of the foregrounds that are used.
    identity : dict
        Role to a checksum of what was found.

    Example
    -------
    >>> Listed({}, ["dog"], [1], {}).folds
    [1]
    """

    sounds: dict
    classes: list
    folds: list
    identity: dict

    def checked(self, rate, n_samples, skip_bad_clips=False):
        """Read all sounds once.

        Arguments
        ---------
        rate : int
            Wanted rate in Hz.
        n_samples : int
            That an ambient recording must have, at that rate.
        skip_bad_clips : bool
            Whether to leave out sounds that cannot be used, with a warning.

        Returns
        -------
        Stock

        Raises
        ------
        LMACError
            If a sound cannot be used; lists them.
        LMACError
            If a fold lacks a class, ambient recordings or distractors.
        """
        reader, bad, seen, twice = Reader(rate), [], {}, []
        good = {role: [] for role in ROLES}
        every = [(r, sound) for r in ROLES for sound in self.sounds[r]]
        for role, sound in progress(every, unit="sound"):
            try:
                _check(role, sound, reader, n_samples)
                first_role = _first_role(role, sound, seen)
                if first_role is None:
                    good[role].append(sound)
                else:
                    twice.append((role, first_role, sound))
            except LMACError as error:
                bad.append((sound, error))
        if bad:
            errors = [error for _, error in bad]
            _tell(errors, len(every), skip_bad_clips)
        if twice:
            logger.warning(
                "%d sounds are there twice, and count once", len(twice)
            )
        stock = Stock(good, self.classes, reader)
        for fold in self.folds:
            _check_fold(stock, fold, bad, twice)
        return stock


def list_stock(places, folds=None):
    """Find the sounds of all roles, and give each its fold.

    Arguments
    ---------
    places : dict
        Role to a list of corpora, see `lmac_sb.data.corpus.open_corpus`.
    folds : list of int
        Those of the foregrounds to use; None for all.

    Returns
    -------
    Listed

    Raises
    ------
    LMACError
        If there are no sounds, classes or folds; says what is missing.

    Example
    -------
    >>> list_stock({"foregrounds": ["nowhere"]})
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: ...
    """
    sounds, identity = {}, {}
    for role in ROLES:
        corpora = [open_corpus(place) for place in places[role]]
        identity[role] = _identity(corpora)
        if role == "foregrounds":
            sounds[role] = _foregrounds(corpora)
            folds = _check_folds(folds, sounds[role], places[role])
            sounds[role] = [x for x in sounds[role] if x.fold in folds]
            classes = _classes(sounds[role], places[role], corpora)
            continue
        sounds[role] = [
            sound
            for number, corpus in enumerate(corpora)
            for sound in _others(corpus, number, folds, classes)
        ]
        if not sounds[role]:
            raise LMACError(
                f"{role}: found no sounds of other classes than the events "
                f"in {', '.join(map(str, places[role])) or 'no folder'}, "
                "expected at least one folder of them"
            )
    return Listed(sounds, classes, folds, identity)


def _identity(corpora):
    """A checksum of corpora, wherever they lie."""
    text = json.dumps([corpus.identity for corpus in corpora], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _foregrounds(corpora):
    """The labelled sounds of corpora."""
    return [
        Sound(row["filename"], row["wav"], row["fold"], row["category"], number)
        for number, corpus in enumerate(corpora)
        for row in list_clips(corpus)
    ]


def _check_folds(folds, sounds, places):
    """The folds to use, sorted; each must be there."""
    present = sorted({sound.fold for sound in sounds})
    where = ", ".join(map(str, places))
    if folds is None:
        return present
    for fold in folds:
        if fold not in present:
            raise LMACError(
                f"folds: found {fold}, expected those of {where}: "
                f"{', '.join(map(str, present))}"
            )
    return sorted(folds)


def _classes(sounds, places, corpora):
    """Names of the classes, sorted; several, each of one sound."""
    classes = sorted({x.category for x in sounds if x.category is not None})
    where = ", ".join(map(str, places))
    for name in classes:
        if "+" in name:
            raise LMACError(
                f"{where}: found the class {shown(name)}, expected sounds of "
                "one class each, without a plus"
            )
    _check_no_lists(classes, where)
    if len(classes) < 2:
        raise LMACError(
            f"{where}: found {', '.join(classes) or 'no classes'}, expected "
            f"sounds of at least two classes{_first_unlabelled(corpora)}"
        )
    return classes


def _check_no_lists(classes, where):
    """Refuse labels that share one of several, as those of FSD50K do."""
    first = {}
    for name in classes:
        for part in {part.strip() for part in re.split("[,;|]", name)}:
            other = first.setdefault(part, name)
            if other != name:
                raise LMACError(
                    f"{where}: found the classes {shown(other)} and "
                    f"{shown(name)}, which share {shown(part)}, expected "
                    "sounds of one class each"
                )


def _first_unlabelled(corpora):
    """Why the first clip without a label has none, for a message."""
    for corpus in corpora:
        for i in range(len(corpus)):
            if corpus.label(i) is None:
                return f"; {corpus.why_no_label(i)}"
    return ""


def _others(corpus, number, folds, classes):
    """The sounds of a corpus that are of none of the classes."""
    known = {name.casefold() for name in classes}
    found = [
        i
        for i in range(len(corpus))
        if (corpus.label(i) or "").casefold() not in known
    ]
    if len(found) < len(corpus):
        logger.warning(
            "%s: %d sounds are of the events' classes, and left out",
            corpus.name,
            len(corpus) - len(found),
        )
    place_of = _Folds(corpus, folds)
    sounds = []
    for i in found:
        fold = place_of(corpus[i])
        if fold is not None:
            name, place = corpus.ids[i], corpus.place(i)
            sounds.append(Sound(name, place, fold, corpus.label(i), number))
    return sounds


class _Folds:
    """Gives each sound of a corpus its fold, in the corpus' order."""

    def __init__(self, corpus, folds):
        self._folds, self._times = folds, {}
        self._parts = dict.fromkeys(("train", "valid", "test"), folds)
        if len(folds) > 1:
            *train, last = folds
            valid = [train.pop()] if len(train) > 1 else [last]
            self._parts = {"train": train, "valid": valid, "test": [last]}
        self._columns = split_columns(corpus.columns)
        names = ("fold", "split")  # others may have numbers of something else
        self._numbered = [
            x for x in self._columns if place_among(x, names) is not None
        ]
        first = {name.partition("/")[0] for name in corpus.ids}
        self._wham = first <= set(_SPLITS)

    def __call__(self, clip):
        """The fold of a clip; None for one that is in none of them."""
        told = {x: clip.columns[x] or "" for x in self._columns}
        for name in self._numbered:
            fold = known_fold(told[name])
            if fold is not None:
                return fold if fold in self._folds else None
        part = next(filter(None, map(known_split, told.values())), None)
        if part is None and self._wham:
            part = _SPLITS[clip.id.partition("/")[0]]
        # Without a part, all folds in turn.
        folds = self._parts.get(part, self._folds)
        n_before = self._times.get(part, 0)
        self._times[part] = n_before + 1
        return folds[n_before % len(folds)]


class _Short(LMACError):
    """An ambient recording that is shorter than the scenes."""


def _check(role, sound, reader, n_samples):
    """Refuse a sound that cannot be used in its role."""
    if role == "foregrounds" and sound.category is None:
        raise LMACError(f"{sound.place}: has no label")
    found = len(reader(sound.place).samples)
    if role == "ambients" and found < n_samples:
        raise _Short(
            f"{sound.place}: {found / reader.rate:.2f} s long, expected an "
            f"ambient recording of at least {n_samples / reader.rate:.2f} s, "
            "as long as the scenes"
        )


def _first_role(role, sound, seen):
    """Role in which the same sound was before; two folds may not share one."""
    with opened(sound.place) as file:
        content = stream_sha256(file)
    first_role, first = seen.setdefault(content, (role, sound))
    if first is sound:
        return None
    if (role, first_role) == ("foregrounds", "foregrounds"):
        if (first.fold, first.category) != (sound.fold, sound.category):
            raise LMACError(
                f"{sound.place}: the same sound as {first.place}, expected "
                "one in one fold and class"
            )
    return first_role


def _tell(bad, total, skip):
    """Say which sounds cannot be used; refuse them unless they are skipped."""
    lines = [f"soundscapes: {len(bad)} of {total} sounds cannot be used"]
    lines += [f"  {reason}" for reason in (bad if skip else bad[:_SHOWN])]
    if skip:
        logger.warning("%s\nThey are skipped", "\n".join(lines))
        return
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN} more")
    if len(bad) == 1:
        raise LMACError(f"{bad[0]}; {_remedy(bad, 'it')}")
    remedy = _remedy(bad, "them")
    lines.append(remedy[0].upper() + remedy[1:])
    raise LMACError("\n".join(lines))


def _remedy(bad, them):
    """What can be done about sounds that cannot be used."""
    is_short = [isinstance(error, _Short) for error in bad]
    ways = [] if all(is_short) else [f"repair {them}"]
    if any(is_short):
        ways.append(f"make the scenes shorter with {_option('duration_s')}")
    skip = f"leave {them} out with {_option('skip_bad_clips')}"
    return f"{', '.join(ways)}, or {skip}"


def _option(key):
    """What a setting is called, in Python and on the command line."""
    return f"`{key}` (on the command line: --{key})"


def _check_fold(stock, fold, bad, twice):
    """Refuse a fold that lacks something."""
    missing = [x for x in stock.classes if not stock.events(fold, x)]
    if missing:
        gone = [
            f"{sound.place} is skipped"
            for sound, _ in bad
            if sound.fold == fold and sound.category in missing
        ]
        raise LMACError(
            f"fold {fold}: found no usable clip of {', '.join(missing)}"
            f"{f' ({gone[0]})' if gone else ''}, "
            "expected one of each class in each fold; name the folds that "
            f"have them in {_option('folds')}"
        )
    for role, what, found in (
        ("ambients", "ambient recording", stock.ambients(fold)),
        ("distractors", "distractor", stock.distractors(fold)),
    ):
        if not found:
            _check_taken(role, what, fold, twice)
            raise LMACError(
                f"fold {fold}: found no {what} that no other fold has, "
                "expected one; add some, or name fewer folds in "
                f"{_option('folds')}"
            )


def _check_taken(role, what, fold, twice):
    """Say so if sounds of a role in a fold have another role already."""
    taken = [
        (first, sound.place)
        for own, first, sound in twice
        if (own, sound.fold) == (role, fold) and first != role
    ]
    if taken:
        first, place = taken[0]
        raise LMACError(
            f"fold {fold}: found no {what}, as {place} "
            f"{'is' if len(taken) == 1 else 'and others are'} among the "
            f"{first} already, expected one that is nothing else; add some"
        )
