"""Soundscapes: real recordings whose explanation is known.

Clips of known classes are placed as events into ambient recordings, together
with distractors: sounds of other classes that decide nothing, one of them
louder than every event. So the loudest bins are no explanation. Each sound is
also stored alone, which gives the ideal mask, onset and offset.
`make_soundscapes` writes the layout of `lmac_sb.data.scene_folder`, and::

    rest/<fold>-<number>-A-<target>.wav   ambient sound and distractors, a
                                          channel each; with the stems they add
                                          up to the scene
    rest/parts.csv                        what the channels of stems, then of
                                          rest, are: source, time, level, gain
    meta/active_regions.csv               onset and offset of scenes with one
                                          event

See `lmac_sb.data.mixing` for what is drawn, and `lmac_sb.data.stock` for how
sounds get their folds: no recording is in two of them.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from lmac_sb.data.mixing import draw_soundscape, longest_share
from lmac_sb.data.scene_folder import (
    COLUMNS,
    PLUS,
    REGIONS,
    Maker,
    check_integer,
    check_number,
    make_once,
    name_of,
    write_info,
    write_table,
    write_wav,
)
from lmac_sb.data.stock import list_stock
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.given import show_size

__all__ = ["DEFAULTS", "make_soundscapes"]

# Increase the version when the same settings give different sounds.
_MAKER = Maker("make_soundscapes", version=2)
# What a scene holds, unless it is said otherwise.
DEFAULTS = {
    "clips_per_class": 25,
    "folds": None,
    "duration_s": 5.0,
    "sample_rate": 16000,
    "n_events": (1,),
    "snr_db": (-5.0, 20.0),
    "loud_db": (3.0, 12.0),
    "skip_bad_clips": False,
}
_SHORTEST_S = 0.2  # that an event may have as its longest
_MOST_REST = 4  # channels
_PARTS = (
    *("filename", "folder", "channel", "role", "category", "source"),
    *("start", "onset", "offset", "level_db", "gain"),
)


def make_soundscapes(
    folder, foregrounds, ambients, *, distractors, seed=0, **contents
):
    """Write soundscapes, or find them already written.

    The same sounds and settings give the same bytes. The folder appears
    complete or not at all.

    Arguments
    ---------
    folder : str or Path
        Where to write. It must be missing, empty, or made before with the
        same sounds and settings.
    foregrounds : str, Path or list
        Folder, or several, of clips with labels: in the layout of ESC-50, or
        any corpus with labels.
    ambients : str, Path or list
        Folder of ambient recordings, each as long as a scene or longer; maybe
        in the layout of WHAM!.
    distractors : str, Path or list
        Folders of sounds of other classes. Where they have labels, those of
        the events' classes are left out.
    seed : int
        Of all random draws.
    **contents
        What a scene holds, see `DEFAULTS`. `clips_per_class`: number of
        scenes that are counted for a class in a fold. `folds`: those of the
        foregrounds to use. `duration_s`, `sample_rate`. `n_events`: a list of
        numbers of events, of which one is drawn for each scene. `snr_db`:
        lowest and highest level of an event over the rest. `loud_db`: of the
        loud distractor over the loudest event. `skip_bad_clips`: whether to
        go on without sounds that cannot be used.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LMACError
        If an argument is out of range, sounds cannot be used or are too few,
        or the folder cannot be written or holds something else.

    Example
    -------
    >>> make_soundscapes("out", "nowhere", "nowhere", distractors=[])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: distractors: found none, expected at least one folder
    """
    places = {
        "foregrounds": foregrounds,
        "ambients": ambients,
        "distractors": distractors,
    }
    places = {role: _check_places(role, x) for role, x in places.items()}
    target = Path(os.path.realpath(folder))
    _check_apart(target, places)
    settings = _check_settings(seed, contents)
    listed = list_stock(places, settings["folds"])
    settings.update(folds=listed.folds, **listed.identity)
    _check_counts(settings, listed)

    def write(part):
        """Write all of it."""
        _check_room(target, settings, listed)
        stock = listed.checked(
            settings["sample_rate"],
            round(settings["duration_s"] * settings["sample_rate"]),
            settings["skip_bad_clips"],
        )
        _write(part, stock, settings)

    make_once(target, _MAKER, settings, write)
    return Path(folder)


def _check_places(role, places):
    """The folders of a role as a list."""
    if isinstance(places, (str, os.PathLike)):
        places = [places]
    if not places or "" in places:
        raise LMACError(f"{role}: found none, expected at least one folder")
    return [os.fspath(place) for place in places]


def _check_apart(folder, places):
    """Refuse to write where sounds are read, or the other way round."""
    for role, found in places.items():
        for place in found:
            source = Path(os.path.realpath(place))
            inside = source == folder or source in folder.parents
            if inside or folder in source.parents:
                raise LMACError(
                    f"{folder}: {'lies in' if inside else 'holds'} the folder "
                    f"of {role}, {place}; expected one apart from it"
                )


def _check_settings(seed, contents):
    """The settings as plain values, or an error that names the wrong one."""
    unknown = contents.keys() - DEFAULTS.keys()
    if unknown:
        raise LMACError(
            f"soundscapes: found {', '.join(sorted(unknown))}, expected "
            f"{', '.join(DEFAULTS)}"
        )
    given = {**DEFAULTS, **contents}
    folds = given["folds"]
    if not isinstance(given["skip_bad_clips"], bool):
        raise LMACError(
            f"skip_bad_clips: found {shown(given['skip_bad_clips'])}, expected "
            "True or False"
        )
    return {
        "seed": check_integer("seed", seed, 0, 2**32 - 1),
        "clips_per_class": check_integer(
            "clips_per_class", given["clips_per_class"], 1, 9999
        ),
        "folds": None if folds is None else _integers("folds", folds, 0, 10**9),
        "duration_s": check_number("duration_s", given["duration_s"], 1, 60),
        "sample_rate": check_integer(
            "sample_rate", given["sample_rate"], 4000, 192_000
        ),
        "n_events": _integers("n_events", given["n_events"], 1, 99),
        "snr_db": _levels("snr_db", given["snr_db"]),
        "loud_db": _levels("loud_db", given["loud_db"]),
        "skip_bad_clips": given["skip_bad_clips"],
    }


def _integers(key, values, low, high):
    """A list of whole numbers, each once."""
    if not isinstance(values, (list, tuple)) or not values:
        raise LMACError(
            f"{key}: found {shown(values)}, expected a list of whole numbers"
        )
    found = [check_integer(key, value, low, high) for value in values]
    return sorted(set(found))


def _levels(key, values):
    """The lowest and the highest level in dB."""
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise LMACError(
            f"{key}: found {shown(values)}, expected the lowest and the "
            "highest level in dB"
        )
    low, high = (check_number(key, value, -40, 40) for value in values)
    if low > high:
        raise LMACError(
            f"{key}: found {low} to {high} dB, expected the lower one first"
        )
    return [low, high]


def _check_counts(settings, listed):
    """Refuse more events than there are classes, or than a scene has room."""
    most = max(settings["n_events"])
    if most > len(listed.classes):
        raise LMACError(
            f"n_events: found {most}, expected at most {len(listed.classes)}, "
            "the number of classes, as the events of a scene differ"
        )
    longest = longest_share(most) * settings["duration_s"]
    if longest < _SHORTEST_S:
        raise LMACError(
            f"n_events: found {most} in {settings['duration_s']} s, where "
            f"each has {longest:.2f} s, expected {_SHORTEST_S} s or more; make "
            "the scenes longer"
        )


def _check_room(folder, settings, listed):
    """Refuse to fill a disk: scenes take more place than one expects."""
    n_scenes = len(_places(settings, listed.classes))
    n_samples = settings["duration_s"] * settings["sample_rate"]
    n_channels = 1 + max(settings["n_events"]) + _MOST_REST
    needed = int(2 * n_samples * n_channels * n_scenes)
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise LMACError(
            f"{folder}: found {show_size(free)} of free disk space, expected "
            f"{show_size(needed)} for {n_scenes} scenes; make fewer or shorter "
            "ones, or name a folder elsewhere"
        )


def _places(settings, classes):
    """Fold, number of the class, and index of each scene."""
    return [
        (fold, target, index)
        for fold in settings["folds"]
        for target in range(len(classes))
        for index in range(settings["clips_per_class"])
    ]


def _write(folder, stock, settings):
    """Write all scenes and tables to an empty folder."""
    for name in ("audio", "stems", "rest", "meta"):
        (folder / name).mkdir()
    rate, rows, regions, parts = settings["sample_rate"], [], [], []
    for place in progress(_places(settings, stock.classes), unit="scene"):
        scene = draw_soundscape(stock, place, settings)
        events = [part for part in scene.parts if part.role == "event"]
        names = [part.sound.category for part in events]
        targets = list(map(stock.classes.index, names))
        number, name = name_of(targets, place[0], place[2])
        stems, rest = np.split(scene.tracks, [len(events)], axis=1)
        write_wav(folder / "audio" / name, scene.mixture, rate)
        write_wav(folder / "stems" / name, stems, rate)
        write_wav(folder / "rest" / name, rest, rate)
        label, category = PLUS.join(map(str, targets)), PLUS.join(names)
        row = (name, place[0], label, category, False, number, "A")
        # The ambient recording comes after the events, at its own level.
        rows.append((*row, scene.parts[len(events)].gain))
        parts += [
            (name, *_row_of(number, part, len(events), rate))
            for number, part in enumerate(scene.parts)
        ]
        if len(events) == 1:
            regions.append((name, *_seconds(events[0], rate)))
    write_table(folder / "meta" / "esc50.csv", (*COLUMNS, "gain"), rows)
    header = ("filename", "onset", "offset")
    write_table(folder / "meta" / REGIONS, header, regions)
    write_table(folder / "rest" / "parts.csv", _PARTS, parts)
    write_info(folder, _MAKER, settings)


def _row_of(number, part, n_events, rate):
    """What parts.csv says of a sound, after the name of the scene."""
    is_event = number < n_events
    return (
        "stems" if is_event else "rest",
        number if is_event else number - n_events,
        part.role,
        part.sound.category,
        part.sound.name,
        part.start / rate,
        *_seconds(part, rate),
        part.level_db,
        part.gain,
    )


def _seconds(part, rate):
    """Onset and offset of a sound in the scene."""
    return part.span.start / rate, part.span.stop / rate
