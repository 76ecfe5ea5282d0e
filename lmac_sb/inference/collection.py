"""A folder of explained clips: which are there, whose they are, what is next.

Several processes may fill one folder at once, and one that was killed is
followed by the same command, which goes on where it stopped. So each clip is
claimed before it is explained, by a temporary folder beside its place; names
are chosen, and finished clips get them, while the folder is held.
"""

import errno
import hashlib
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lmac_sb.inference.clip_facts import read_facts
from lmac_sb.inference.clip_folder import (
    FACTS,
    FILES,
    UNREFINED,
    folder_names,
    name_key,
    read_clip,
)
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import (
    is_leftover,
    naming,
    part_folder,
    parts_of,
    remove_parts,
    replace_folder,
    restore_folder,
)
from lmac_sb.utils.lock import hold, is_held, wait_for_folder

__all__ = ["Busy", "Collection", "Task", "clip_folders", "inner_folders"]

_FORMER = ".former"  # ending of a folder that is being replaced
_PLACE_DIGITS = 16


class Busy(Exception):
    """Another process is about to explain the same clip.

    Example
    -------
    >>> raise Busy("out/dog")
    Traceback (most recent call last):
    ...
    lmac_sb.inference.collection.Busy: out/dog
    """


class Task(NamedTuple):
    """A file that is to be explained, and how.

    Arguments
    ---------
    file : str
        The file.
    asked : dict
        See `lmac_sb.inference.clip_facts.ASKED`.
    facts : dict
        Further values that ``explanation.json`` of the same explanation has.

    Example
    -------
    >>> task = Task.of(path, interpreter, {"target": "dog"})
    >>> len(task.asked["sound"]), task.facts["made"]["model"] == model.name
    (64, True)
    """

    file: str
    asked: dict
    facts: dict

    @classmethod
    def of(cls, file, interpreter, options, **facts):
        """The task of a file.

        Arguments
        ---------
        file : str or Path
            The file.
        interpreter : lmac_sb.LMACInterpreter
            Explains it.
        options : dict
            What is asked of it, in plain values.
        **facts
            See `Task`.

        Returns
        -------
        Task
        """
        place = os.fsencode(os.path.realpath(file))
        asked = {
            # A pipe can be read only once.
            "sound": file_sha256(file) if os.path.isfile(file) else None,
            # Tells apart what lies in two folders, but not where they are.
            "place": hashlib.sha256(place).hexdigest()[:_PLACE_DIGITS],
            "options": options,
        }
        return cls(str(file), asked, {**facts, "made": interpreter.made})

    def is_place_of(self, facts):
        """Whether facts are of what lay where this file lies."""
        if "asked" not in facts:  # of a former version, or of `save`
            return facts["file"] == self.file
        return facts["asked"]["place"] == self.asked["place"]

    def is_done_by(self, facts):
        """Whether facts are of the explanation that this task asks for."""
        made = {**facts.get("made", {})}
        made.pop("date", None)
        found = {**facts, "made": made}
        return (
            self.asked["sound"] is not None
            and made.get("checksum") is not None
            and facts.get("asked") == self.asked
            and all(found[key] == value for key, value in self.facts.items())
        )


class Collection:
    """A folder of explained clips, which several processes may fill at once.

    Arguments
    ---------
    folder : str or Path
        Made if need be. What killed processes left is tidied up.

    Raises
    ------
    LMACError
        If it cannot be made.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "explained"
    >>> task = Task.of(path, interpreter, {})
    >>> with Collection(folder).clip(task) as (place, part):
    ...     (part / "a").touch()
    >>> place.name == path.stem, (place / "a").exists()
    (True, True)
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self._given = set()  # names for the files so far
        self._facts = {}  # by path and time of the file
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with wait_for_folder(self.folder):
                self._tidy()
            if not os.access(self.folder, os.W_OK):
                raise PermissionError(errno.EACCES, "it is read-only")
        except OSError as error:
            raise LMACError(
                f"--out: {folder} cannot be made or written to "
                f"({error.strerror})"
            ) from error

    def _tidy(self):
        """Finish or undo what killed processes have begun."""
        remove_parts(self.folder)
        for former in self.folder.glob(f"*{_FORMER}"):
            place = former.with_name(former.name[: -len(_FORMER)])
            restore_folder(place)
            if former.is_dir() and clip_folders(former):
                shutil.rmtree(former, ignore_errors=True)

    @contextmanager
    def clip(self, task):
        """The place of a file, and a folder to write its explanation to.

        Arguments
        ---------
        task : Task
            What is to be explained.

        Returns
        -------
        context manager
            Gives the Path of the place, and of an empty folder, which gets
            that name at the end; None in its stead if the explanation is
            there already. After an error, all is as before.

        Raises
        ------
        Busy
            If another process is about to write there.
        OSError
            Names the place, whatever could not be written.
        """
        with ExitStack() as stack:
            with wait_for_folder(self.folder):
                place = self._choose(task)
                part = None
                if not self._is_done(place, task):
                    with naming(place):
                        part = stack.enter_context(part_folder(place))
                    stack.enter_context(hold(part))
            self._given.add(name_key(place.name))
            yield place, part
            if part is not None:
                with wait_for_folder(self.folder), naming(place):
                    _carry_over(place, part)
                    replace_folder(part, place)

    def _choose(self, task):
        """Where the explanation is, or shall be."""
        (stem,) = folder_names([Path(task.file).stem])
        free = re.compile(rf"{re.escape(name_key(stem))}(_[0-9]+)?")
        present = {}
        for name in sorted(os.listdir(self.folder), key=lambda n: (len(n), n)):
            key = name_key(name)
            if free.fullmatch(key) and key not in self._given:
                present[key] = self.folder / name
        for place in present.values():
            facts = self._facts_of(place)
            if facts is not None and task.is_place_of(facts):
                return self._not_busy(place)
        name, number = stem, 1
        while True:
            place = present.get(name_key(name))
            if name_key(name) not in self._given:
                if place is None:
                    return self._not_busy(self.folder / name)
                if self._facts_of(place) is None and _is_unfinished(place):
                    return self._not_busy(place)
            number += 1
            name = f"{stem}_{number}"

    def _not_busy(self, place):
        """A place, unless another process is at it."""
        if any(map(is_held, parts_of(place))):
            raise Busy(str(place))
        return place

    def _facts_of(self, place):
        """Facts of the clip in a folder, or of one of its classes."""
        if place.is_symlink():
            return None
        for folder in clip_folders(place):
            path = folder / FACTS
            with suppress(LMACError, OSError):
                key = path, path.lstat().st_mtime_ns
                if key not in self._facts:
                    self._facts[key] = read_facts(path)
                return self._facts[key]
        return None

    def _is_done(self, place, task):
        """Whether a place holds all that a task asks for, whole."""
        folders = clip_folders(place)
        try:
            for folder in folders:
                if not task.is_done_by(read_clip(folder).info):
                    return False
                if os.path.lexists(folder / UNREFINED):
                    read_clip(folder / UNREFINED)
        except LMACError:
            return False
        return bool(folders)


def _carry_over(place, part):
    """Copy what a user has put into a clip's folder that is replaced."""
    if not place.is_dir():
        return
    for path in place.iterdir():
        if path.name in FILES | {UNREFINED} or is_leftover(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            if not (path / FACTS).exists():
                shutil.copytree(path, part / path.name, symlinks=True)
        else:
            shutil.copy2(path, part / path.name, follow_symlinks=False)


def _is_unfinished(place):
    """Whether a folder holds but parts of a clip, as a killed process does."""
    return (
        place.is_dir()
        and not place.is_symlink()
        and all(
            is_leftover(path.name)
            or (path.name in FILES and not path.is_dir())
            or (path.name == UNREFINED and _is_unfinished(path))
            for path in place.iterdir()
        )
    )


def clip_folders(folder):
    """The folders of explanations in that of a file.

    Arguments
    ---------
    folder : str or Path
        Holds one explanation, or a folder for each class.

    Returns
    -------
    list of Path
        The folder itself, or those in it; empty if it holds no explanation.

    Example
    -------
    >>> clip_folders(getfixture("tmp_path"))
    []
    """
    folder = Path(folder)
    if os.path.lexists(folder / FACTS):
        return [folder]
    return [
        path for path in inner_folders(folder) if os.path.lexists(path / FACTS)
    ]


def inner_folders(folder):
    """The sub-folders of a folder, by name, without hidden ones.

    Arguments
    ---------
    folder : str or Path
        May not exist.

    Returns
    -------
    list of Path

    Example
    -------
    >>> inner_folders("nowhere")
    []
    """
    try:
        paths = sorted(Path(folder).iterdir())
    except OSError:  # none, or none that may be read
        return []
    return [
        path
        for path in paths
        if path.is_dir() and not path.name.startswith(".")
    ]
