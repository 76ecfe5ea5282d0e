"""Read the ratings of a listening test, and score its methods."""

import math
import os
import unicodedata
from pathlib import Path

import numpy as np

from lmac_sb.metrics.summary import N_DRAWS
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import (
    make_folder,
    read_json,
    write_csv,
    write_in_one_step,
)

__all__ = [
    "rating_files",
    "read_key",
    "read_ratings",
    "score",
    "who_listened",
    "write_scores",
]

QUESTIONS = ("fit", "quality")
LOWEST, HIGHEST = 1, 100  # ends of a slider
ALL = "all"  # name for all settings together
# What the page says of each sound: how often it was played to its end, and the
# seconds from the first time to the last answer.
HEARD = ("plays", "seconds")
_FACTS = ("listener", "id", "setting", "method", "place")
_MARGIN = 0.1  # seconds that a browser's clocks may differ


def read_key(path):
    """The key of a listening test.

    Arguments
    ---------
    path : str or Path
        ``key.json``, written with the page.

    Returns
    -------
    dict
        ``test``, and ``trials``: code of a trial to its description.

    Raises
    ------
    LMACError
        If the file is missing or is not a key.

    Example
    -------
    >>> read_key("key.json")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: key.json: no such file, expected the key.json ...
    """
    expected = "expected the key.json that was written with the test's page"
    content = _read_object(path, expected)
    trials = content.get("trials")
    good = (
        isinstance(content.get("test"), str)
        and isinstance(trials, dict)
        and trials
        and all(
            isinstance(trial, dict)
            and isinstance(trial.get("id"), str)
            and isinstance(trial.get("setting"), str)
            and _is_number(trial.get("seconds", 0))
            and isinstance(trial.get("sounds"), dict)
            and all(isinstance(x, str) for x in trial["sounds"].values())
            for trial in trials.values()
        )
    )
    if not good:
        raise LMACError(f"{path}: not the key of a listening test, {expected}")
    return content


def _is_number(value):
    """Whether a value from JSON is a number that is not negative."""
    return type(value) in (int, float) and 0 <= value < math.inf


def rating_files(places, key_file):
    """Paths of the files with ratings.

    Arguments
    ---------
    places : list of str or Path
        Files and folders. All JSON files in a folder are taken, except the
        key.
    key_file : str or Path
        The key.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    LMACError
        If a folder holds no such file.
    """
    files = []
    for place in map(Path, places):
        if place.is_dir():
            found = [
                path
                for path in sorted(place.glob("*.json"))
                if path.resolve() != Path(key_file).resolve()
            ]
            if not found:
                raise LMACError(f"{place}: holds no JSON files with ratings")
            files += found
        else:
            files.append(place)
    return files


def read_ratings(files, key):
    """Ratings of all listeners, with methods instead of codes.

    Arguments
    ---------
    files : list of str or Path
        JSON files that the page saved, one for each listener.
    key : dict
        From `read_key`.

    Returns
    -------
    list of dict
        One for each listener and sound: ``listener, id, setting, method,
        place, fit, quality``. `place` is the position, from 1, at which the
        listener saw the explanation in its trial. Where the page noted it,
        ``plays``, how often the sound was played to its end, and ``seconds``
        from its first play to the last answer; and ``lasts``, the seconds of
        the sound, where the key has them.

    Raises
    ------
    LMACError
        If a file belongs to another test, is incomplete, or holds unknown
        codes or impossible values, or if a listener has two files. The
        message names the file.
    """
    rows, known = [], {}
    for path in files:
        content = _read_object(path, "expected a file that the page saved")
        listener = _check_listener(path, content, key)
        name = unicodedata.normalize("NFKC", listener).casefold()
        if name in known:
            raise LMACError(
                f"{path}: is by the listener {shown(listener)}, as is "
                f"{known[name]}, expected one file for each listener"
            )
        known[name] = path
        rows += [
            {"listener": listener, **row}
            for row in _rows(path, content.get("trials"), key["trials"])
        ]
    if not rows:
        raise LMACError("found no ratings, expected at least one file")
    return rows


def _read_object(path, expected):
    """Content of a JSON file that holds an object."""
    if not os.path.exists(path):
        raise LMACError(f"{path}: no such file, {expected}")
    try:
        content = read_json(path)
    except (OSError, RecursionError) as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise LMACError(f"{path}: holds no JSON object, {expected}")
    return content


def _check_listener(path, content, key):
    """Name of the listener, once the file is known to rate this test."""
    for name in ("test", "listener", "trials"):
        if name not in content:
            raise LMACError(
                f"{path}: holds no ratings of a listening test, the key "
                f"'{name}' is missing"
            )
    if content["test"] != key["test"]:
        raise LMACError(
            f"{path}: found ratings of the test {shown(content['test'])}, "
            f"expected {shown(key['test'])} as in the key"
        )
    listener = content["listener"]
    if not isinstance(listener, str) or not listener.strip():
        raise LMACError(
            f"{path}: listener: found {shown(listener)}, expected a name"
        )
    return listener.strip()


def _rows(path, trials, key):
    """Ratings of one file, a row for each sound of the test."""
    given = {}  # (trial, code) to the rating
    for trial in trials if isinstance(trials, list) else [trials]:
        try:
            code, ratings = trial["trial"], list(trial["ratings"])
            found = [(rating["code"], rating) for rating in ratings]
        except (KeyError, TypeError) as error:
            raise LMACError(
                f"{path}: trials: expected a list of trials, with ratings "
                f"that have a code ({error!r})"
            ) from error
        for place, (sound, rating) in enumerate(found, 1):
            about = key.get(code) if isinstance(code, str) else None
            sounds = about["sounds"] if about else {}
            if not isinstance(sound, str) or sound not in sounds:
                raise LMACError(
                    f"{path}: unknown code {shown(sound)} in trial "
                    f"{shown(code)}"
                )
            if (code, sound) in given:
                raise LMACError(f"{path}: rates the code {shown(sound)} twice")
            given[code, sound] = {
                "place": place,
                **_check_values(path, sound, rating),
                **_check_heard(path, sound, rating),
            }
    wanted = [(code, x) for code, trial in key.items() for x in trial["sounds"]]
    if len(given) < len(wanted):
        raise LMACError(
            f"{path}: incomplete, rates {len(given)} of {len(wanted)} sounds"
        )
    return [
        {
            "id": key[code]["id"],
            "setting": key[code]["setting"],
            "method": key[code]["sounds"][sound],
            **given[code, sound],
            **(
                {"lasts": key[code]["seconds"]}
                if "seconds" in key[code]
                else {}
            ),
        }
        for code, sound in wanted
    ]


def _check_values(path, sound, rating):
    """Answers to the questions about a sound, each a value of the slider."""
    values = {name: rating.get(name) for name in QUESTIONS}
    for name, value in values.items():
        if type(value) is not int or not LOWEST <= value <= HIGHEST:
            raise LMACError(
                f"{path}: {name} of the code {shown(sound)}: found "
                f"{shown(value)}, expected a whole number from {LOWEST} to "
                f"{HIGHEST}"
            )
    return values


def _check_heard(path, sound, rating):
    """How a sound was listened to; empty if an older page did not note it."""
    found = {name: rating[name] for name in HEARD if name in rating}
    if not found:
        return {}
    plays = found.get("plays")
    for name, good, expected in (
        ("plays", type(plays) is int and plays >= 0, "a whole number from 0"),
        ("seconds", _is_number(found.get("seconds")), "a number from 0"),
    ):
        if not good:
            raise LMACError(
                f"{path}: {name} of the code {shown(sound)}: found "
                f"{shown(found.get(name))}, expected {expected}"
            )
    return found


def who_listened(rows):
    """Which listeners can have listened to what they rated.

    Somebody cannot have if a sound was never played to its end, or was rated
    in less time than it lasts. One such sound is enough: the page allows none.

    Arguments
    ---------
    rows : list of dict
        From `read_ratings`.

    Returns
    -------
    left_out : dict
        Each listener who cannot have listened, to the reason.
    unknown : list of str
        Listeners whose files do not say what was played.

    Example
    -------
    >>> row = {"listener": "x", "plays": 1, "seconds": 2.0, "lasts": 5.0}
    >>> who_listened([row, {"listener": "y"}])
    ({'x': '1 of 1 sounds rated in less time than they last'}, ['y'])
    """
    left_out, unknown = {}, []
    for listener in dict.fromkeys(row["listener"] for row in rows):
        own = [row for row in rows if row["listener"] == listener]
        known = [row for row in own if "plays" in row]
        silent = sum(row["plays"] == 0 for row in known)
        hurried = sum(
            row["plays"] > 0 and row["seconds"] < row.get("lasts", 0) - _MARGIN
            for row in known
        )
        reasons = [
            f"{count} of {len(own)} sounds {what}"
            for count, what in (
                (silent, "not played to their end"),
                (hurried, "rated in less time than they last"),
            )
            if count
        ]
        if reasons:
            left_out[listener] = ", ".join(reasons)
        elif len(known) < len(own):
            unknown.append(listener)
    return left_out, unknown


def score(rows, n_draws=N_DRAWS, seed=0):
    """Mean opinion score of each method in each setting, with intervals.

    The 95 % intervals come from a bootstrap over listeners and clips: both
    are resampled with replacement, independently, and all ratings of a drawn
    clip by a drawn listener count. So the intervals hold for other listeners
    and other clips, and tend to be too wide rather than too narrow. With a
    single listener or clip they say nothing about others.

    Arguments
    ---------
    rows : list of dict
        From `read_ratings`: each listener rated each sound.
    n_draws : int
        Number of resamplings.
    seed : int
        Seed of the resampling.

    Returns
    -------
    list of dict
        ``setting, method, listeners, clips``, and for each question
        ``<question>, <question> low, <question> high``. If there are several
        settings, ``all`` comes first: the mean over the settings.

    Example
    -------
    >>> row = {"listener": "x", "id": "a", "setting": "clean", "method": "m"}
    >>> score([{**row, "fit": 60, "quality": 20}])[0]["fit low"]
    60.0
    """
    # Sorted, so that the order of the files does not matter.
    listeners, clips = (
        sorted({r[k] for r in rows}) for k in ("listener", "id")
    )
    rng = np.random.default_rng(seed)
    # How often each listener, and each clip, is in each resampling.
    draws = [
        rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=n_draws)
        for x in (listeners, clips)
    ]
    return [
        {
            "setting": setting,
            "method": method,
            "listeners": len(listeners),
            "clips": len(clips),
            **_means(part, listeners, clips, draws),
        }
        for setting, method, part in _cells(rows)
    ]


def _means(rows, listeners, clips, draws):
    """Mean and interval of each question, over some of the rows."""
    found = {}
    for question in QUESTIONS:
        sums = np.zeros((len(listeners), len(clips)))
        for row in rows:
            place = listeners.index(row["listener"])
            sums[place, clips.index(row["id"])] += row[question]
        means = sums * sums.size / len(rows)
        drawn = np.einsum("dl,lc,dc->d", draws[0], means, draws[1])
        low, high = np.percentile(drawn / sums.size, [2.5, 97.5])
        found[question] = float(means.mean())
        found[f"{question} low"] = float(low)
        found[f"{question} high"] = float(high)
    return found


def _cells(rows):
    """Setting, method and rows of each line of the table of scores."""
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for setting in ([ALL] if len(settings) > 1 else []) + settings:
        for method in methods:
            yield (
                setting,
                method,
                [
                    row
                    for row in rows
                    if row["method"] == method
                    and setting in (ALL, row["setting"])
                ],
            )


def write_scores(folder, rows):
    """Write the ratings, and the scores as csv and Markdown.

    Listeners who cannot have listened are left out of the scores, see
    `who_listened`. The table names them, and those of whom it is not known.

    Arguments
    ---------
    folder : str or Path
        Folder for ``ratings.csv``, ``scores.csv`` and ``scores.md``.
    rows : list of dict
        From `read_ratings`.

    Returns
    -------
    str
        The table in ``scores.md``.

    Raises
    ------
    LMACError
        If no listener is left, or the folder cannot be made.
    """
    left_out, unknown = who_listened(rows)
    heard = [row for row in rows if row["listener"] not in left_out]
    if not heard:
        listener, reason = next(iter(left_out.items()))
        raise LMACError(
            "found no listener who can have listened, not even "
            f"{shown(listener)}: {reason}; expected at least one"
        )
    table = score(heard)
    lines = [
        "| setting | method | fits the decision ↑ | sounds good ↑ |",
        "|---|---|---|---|",
    ]
    for scores in table:
        cells = [scores["setting"], scores["method"].replace("|", "\\|")]
        for name in QUESTIONS:
            mean, low, high = (
                f"{scores[name + end]:.1f}" for end in ("", " low", " high")
            )
            cells.append(f"{mean} [{low}, {high}]")
        lines.append(f"| {' | '.join(cells)} |")
    n_listeners, n_clips = table[0]["listeners"], table[0]["clips"]
    lines += [
        "",
        f"Mean opinions from {LOWEST} to {HIGHEST} and their 95 % intervals, "
        f"bootstrapped over listeners ({n_listeners}) and clips ({n_clips}).",
    ]
    lines += _footnotes(left_out, unknown, n_listeners)
    text = "\n".join(lines) + "\n"
    folder = Path(folder)
    make_folder(folder)
    write_csv(
        folder / "ratings.csv",
        [
            {
                **{
                    name: row.get(name)
                    for name in (*_FACTS, *QUESTIONS, *HEARD)
                },
                "counts": row["listener"] not in left_out,
            }
            for row in rows
        ],
    )
    write_csv(folder / "scores.csv", table)
    write_in_one_step(folder / "scores.md", lambda file: file.write(text))
    return text


def _footnotes(left_out, unknown, n_scored):
    """Lines on listeners who do not count, and on those of unknown hearing."""
    lines = []
    if left_out:
        names = (f"{shown(name)} ({why})" for name, why in left_out.items())
        lines += [
            "",
            f"Left out: {len(left_out)} of {n_scored + len(left_out)} "
            f"listeners, who cannot have listened: {'; '.join(names)}.",
        ]
    if unknown:
        lines += [
            "",
            f"Not known what was played, but counted: {len(unknown)} of "
            f"{n_scored} listeners, whose files are of an older page: "
            f"{', '.join(map(shown, unknown))}.",
        ]
    return lines
