"""A folder of scenes: its layout, and how it is written once.

Whatever makes scenes writes::

    audio/<fold>-<number>-A-<target>.wav     a scene, 16 bit, mono
    stems/<fold>-<number>-A-<target>.wav     its events alone, same scale
    meta/esc50.csv                           filename, fold, target, ...
    scenes.json                              settings, version and checksum

A scene of several events has one target, one category and one stem channel
for each event, in the same order; a plus joins the targets and categories.
"""

import csv
import hashlib
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from lmac_sb.utils.errors import LMACError, is_number, is_whole, shown
from lmac_sb.utils.io import folder_in_one_step

__all__ = [
    "COLUMNS",
    "INFO",
    "PLUS",
    "REGIONS",
    "Maker",
    "check_integer",
    "check_number",
    "checksum",
    "make_once",
    "name_of",
    "write_info",
    "write_table",
    "write_wav",
]

COLUMNS = (
    "filename",
    "fold",
    "target",
    "category",
    "esc10",
    "src_file",
    "take",
)
INFO = "scenes.json"
REGIONS = "active_regions.csv"  # where in time the sounds of clips are
PLUS = "+"  # joins the classes of a scene of several events
_REMEDY = "delete it or name another folder"


class Maker(NamedTuple):
    """What makes a folder of scenes.

    Arguments
    ---------
    name : str
        Of the function, for messages.
    version : int
        Increased when the same settings give different sounds.
    unwritten : dict
        Settings that are not in the folder where they have these values.

    Example
    -------
    >>> Maker("make_scenes", 1).version
    1
    """

    name: str
    version: int
    unwritten: dict = {}


def make_once(folder, maker, settings, write):
    """Write a folder of scenes, or find it already written.

    It is written under a temporary name next to `folder` and renamed at the
    end. So the folder is always complete, even when two processes make it at
    once.

    Arguments
    ---------
    folder : str or Path
        It must be missing, empty, or made before with the same settings.
    maker : Maker
        What makes it.
    settings : dict
        Plain values, by which a finished folder is known.
    write : callable
        Called with an empty folder; writes all of it, see `write_info`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LMACError
        If it cannot be written, or holds other files, scenes with other
        settings (the message names the setting), or scenes that were changed.

    Example
    -------
    >>> def write(part):
    ...     for name in ("audio", "meta"):
    ...         (part / name).mkdir()
    ...     write_table(part / "meta" / "esc50.csv", COLUMNS, [])
    ...     write_info(part, maker, {"seed": 0})
    >>> maker, folder = Maker("mine", 1), getfixture("tmp_path") / "x"
    >>> make_once(folder, maker, {"seed": 0}, write) == folder
    True
    >>> make_once(folder, maker, {"seed": 1}, write)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x: found scenes made with seed=0, expected seed=1; \
delete it or name another folder
    """
    target = Path(os.path.realpath(folder))
    if not _is_made(target, maker, settings):
        try:
            with _without_traces(target), folder_in_one_step(target) as part:
                write(part)
        except (OSError, sf.LibsndfileError) as error:
            # The rename fails if another process has just finished.
            if not _is_made(target, maker, settings):
                raise LMACError(
                    f"{target}: cannot be written ({error}), expected a folder "
                    "that can be made"
                ) from error
    return Path(folder)


@contextmanager
def _without_traces(folder):
    """Remove the folders above one that were made for it in vain."""
    missing = [above for above in folder.parents if not above.exists()]
    try:
        yield
    except BaseException:
        for above in missing:
            with suppress(OSError):
                above.rmdir()
        raise


def _is_made(folder, maker, settings):
    """Whether `folder` holds these scenes; raises if it holds others."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise LMACError(f"{folder}: found a file, expected a folder for scenes")
    if not any(folder.iterdir()):
        return False
    if not (folder / INFO).is_file():
        raise LMACError(
            f"{folder}: found files but no {INFO}, expected a missing or "
            f"empty folder, or one made by {maker.name}"
        )
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        found = {**maker.unwritten, **info["settings"]}
        found["version"] = info["version"]
        expected = info["sha256"]
    except (ValueError, KeyError, TypeError):
        raise LMACError(
            f"{folder / INFO}: found no settings, version and sha256, "
            f"expected the file that {maker.name} wrote; {_REMEDY}"
        ) from None
    for key, value in {**settings, "version": maker.version}.items():
        if found.get(key) != value:
            raise LMACError(
                f"{folder}: found scenes made with {key}={found.get(key)}, "
                f"expected {key}={value}; {_REMEDY}"
            )
    try:
        intact = checksum(folder) == expected
    except FileNotFoundError:
        intact = False
    if not intact:
        raise LMACError(
            f"{folder}: found sounds or a csv changed since they were made, "
            f"expected those of {INFO}; {_REMEDY}"
        )
    return True


def checksum(folder):
    """SHA-256 over names and bytes of all sounds and tables.

    Arguments
    ---------
    folder : Path
        With scenes.

    Returns
    -------
    str
        Hexadecimal.

    Raises
    ------
    FileNotFoundError
        Without the table.
    """
    digest = hashlib.sha256()
    files = [folder / "meta" / "esc50.csv"]
    if (folder / "meta" / REGIONS).exists():
        files.append(folder / "meta" / REGIONS)
    for name in ("audio", "stems", "noise"):
        files += (folder / name).rglob("*.wav")
    if (folder / "rest").is_dir():  # of soundscapes, with a table
        files += (folder / "rest").iterdir()
    for path in sorted(path.relative_to(folder).as_posix() for path in files):
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest()


def name_of(targets, fold, index):
    """The number and the name of a scene.

    Arguments
    ---------
    targets : list of int
        Classes of its events; the first is the one that it is counted for.
    fold, index : int
        Its fold, and its number in fold and class.

    Returns
    -------
    number, name : str

    Example
    -------
    >>> name_of([0, 3], 1, 7)
    ('1010007', '1-1010007-A-0+3.wav')
    """
    number = f"{targets[0] + 1}{fold:02d}{index:04d}"
    return number, f"{fold}-{number}-A-{PLUS.join(map(str, targets))}.wav"


def write_wav(path, x, rate):
    """Write a signal as 16-bit PCM.

    Arguments
    ---------
    path : Path
        The file.
    x : np.ndarray
        Within -1 and 1, [samples] or [samples, channels].
    rate : int
        In Hz.

    Example
    -------
    >>> write_wav(getfixture("tmp_path") / "x.wav", np.zeros(8), 16000)
    """
    sf.write(str(path), np.rint(32768 * x).astype(np.int16), rate)


def write_table(path, columns, rows):
    """Write a csv table.

    Arguments
    ---------
    path : Path
        The file.
    columns : sequence of str
        Its header.
    rows : iterable of sequence
        Its lines.

    Example
    -------
    >>> write_table(getfixture("tmp_path") / "x.csv", ["a"], [[1]])
    """
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_info(folder, maker, settings):
    """Write what the scenes are; the last file of a folder.

    Arguments
    ---------
    folder : Path
        With all sounds and tables.
    maker : Maker
        What made it.
    settings : dict
        Plain values.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "meta").mkdir()
    >>> write_table(folder / "meta" / "esc50.csv", COLUMNS, [])
    >>> write_info(folder, Maker("mine", 1), {"seed": 0})
    >>> (folder / INFO).is_file()
    True
    """
    info = {"version": maker.version, "settings": settings}
    info["sha256"] = checksum(folder)
    text = json.dumps(info, indent=2, sort_keys=True) + "\n"
    (folder / INFO).write_text(text, encoding="utf-8")


def check_number(key, value, low, high):
    """A number as a float, or the error that names its key.

    Arguments
    ---------
    key : str
        What the user called it.
    value : object
        What was given.
    low, high : float
        The range, both ends within it.

    Returns
    -------
    float

    Raises
    ------
    LMACError
        If it is no number of that range.

    Example
    -------
    >>> check_number("duration_s", 5, 1, 60)
    5.0
    """
    if not is_number(value) or not low <= value <= high:
        raise LMACError(
            f"{key}: found {shown(value)}, expected a number from {low} to "
            f"{high}"
        )
    return float(value)


def check_integer(key, value, low, high):
    """A whole number as an int, or the error that names its key.

    Arguments
    ---------
    key : str
        What the user called it.
    value : object
        What was given.
    low, high : int
        The range, both ends within it.

    Returns
    -------
    int

    Raises
    ------
    LMACError
        If it is no whole number of that range.

    Example
    -------
    >>> check_integer("seed", 3, 0, 9)
    3
    """
    if not is_whole(value) or not low <= value <= high:
        raise LMACError(
            f"{key}: found {shown(value)}, expected an integer from {low} to "
            f"{high}"
        )
    return int(value)
