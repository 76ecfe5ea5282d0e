"""A folder of explained clips: which are there, whose they are, what is next.

Several processes may fill one folder at once, and one that was killed is
followed by the same command, which goes on where it stopped. So each clip is
claimed before it is explained, by a temporary folder in ``.parts``; names are
chosen, and finished clips get them, while the folder is held.
"""

import functools
import hashlib
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lmac_sb.data.pieces import opened
from lmac_sb.inference.clip_facts import read_facts
from lmac_sb.inference.clip_folder import (
    FACTS,
    FILES,
    UNREFINED,
    folder_names,
    name_key,
    read_clip,
)
from lmac_sb.jobs.job import JOB
from lmac_sb.utils.checksums import file_sha256, stream_sha256
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import (
    is_leftover,
    make_folder,
    make_inner,
    naming,
    part_folder,
    parts_of,
    remove_parts,
    replace_folder,
    restore_folder,
)
from lmac_sb.utils.lock import Claim, hold, is_held, wait_for_folder

__all__ = [
    "PARTS",
    "Busy",
    "Collection",
    "Task",
    "clip_folders",
    "inner_folders",
]

PARTS = ".parts"  # folder of what is being written
_RUN, _LIVES = ".run-", "lives"  # folder of a run, and its file
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
    name : str
        What its folder may be called.
    asked : dict
        See `lmac_sb.inference.clip_facts.ASKED`.
    facts : dict
        Further values that ``explanation.json`` of the same explanation has.
    planned : str
        Name of its folder, if that is settled, see `Collection.plan`.

    Example
    -------
    >>> task = Task.of(path, interpreter, {"target": "dog"})
    >>> len(task.asked["sound"]), task.facts["made"]["model"] == model.name
    (64, True)
    """

    file: str
    name: str
    asked: dict
    facts: dict
    planned: str | None = None

    @classmethod
    def of(cls, file, interpreter, options, **facts):
        """The task of a file.

        Arguments
        ---------
        file : str, Path or lmac_sb.data.pieces.Place
            The file, or a sound in another one, see `lmac_sb.data.pieces`.
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
        asked = {
            "sound": _sound_sha256(file),
            "place": _number_of(file),
            "options": options,
        }
        name = Path(file).stem
        made = {**facts, "made": interpreter.made}
        return cls(os.fspath(file), name, asked, made)

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


def _sound_sha256(file):
    """Checksum of a sound; None for one that cannot be read, or only once."""
    if not hasattr(file, "opened"):
        return file_sha256(file) if os.path.isfile(file) else None
    with suppress(LMACError, OSError), opened(file) as sound:
        return stream_sha256(sound)
    return None


def _number_of(file):
    """Tells apart what lies in two folders, but not where they are."""
    place = os.fsencode(os.path.realpath(file))
    return hashlib.sha256(place).hexdigest()[:_PLACE_DIGITS]


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
        # Apart, so that they are found without a look at all clips.
        self._parts = self.folder / PARTS
        self._given = set()  # keys of the names of the files so far
        self._next = {}  # the first number that may be free, by stem
        self._known = {}  # what explanations there are, by stem
        make_folder(self.folder, "--out")
        with wait_for_folder(self.folder):
            self._tidy()

    def _tidy(self):
        """Finish or undo what killed processes have begun."""
        for folder in (self.folder, self._parts):
            remove_parts(folder)
        with suppress(OSError):
            self._parts.rmdir()
        for former in self.folder.glob(f"*{_FORMER}"):
            place = former.with_name(former.name[: -len(_FORMER)])
            with suppress(OSError):  # another user's
                restore_folder(place)
            if former.is_dir() and clip_folders(former):
                shutil.rmtree(former, ignore_errors=True)
        for run in self.folder.glob(f"{_RUN}*"):
            claim = Claim(run / _LIVES)
            # One that was killed, if nobody holds it.
            with suppress(OSError):  # another user's
                if run.is_dir() and claim.take():
                    claim.release()
                    shutil.rmtree(run, ignore_errors=True)

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
                place = self._place_of(task)
                part = None
                if not self._is_done(place, task):
                    stack.callback(self._leave_parts)
                    with naming(place):
                        make_inner(self._parts)
                        part = part_folder(self._parts / place.name)
                        part = stack.enter_context(part)
                    stack.enter_context(hold(part))
            self._give(place.name)
            yield place, part
            if part is not None:
                with wait_for_folder(self.folder), naming(place):
                    _give_name(part, place)

    def _leave_parts(self):
        """Remove the folder of what is being written, if that is nothing."""
        with wait_for_folder(self.folder), suppress(OSError):
            self._parts.rmdir()

    def run_folder(self, run):
        """Where the processes of a run may share what they know.

        Arguments
        ---------
        run : str
            Its name.

        Returns
        -------
        pathlib.Path
        """
        return self.folder / f"{_RUN}{run}"

    @contextmanager
    def leading(self, run):
        """Make the folder of a run, and delete it at the end.

        Arguments
        ---------
        run : str
            Its name.

        Returns
        -------
        context manager
            Gives the Path of the folder.
        """
        folder = self.run_folder(run)
        claim = Claim(folder / _LIVES)
        with naming(folder), wait_for_folder(self.folder):
            folder.mkdir()
            claim.take()
        try:
            yield folder
        finally:
            # First what says that there is a job, for those that look for it.
            (folder / JOB).unlink(missing_ok=True)
            claim.release()
            shutil.rmtree(folder, ignore_errors=True)

    def plan(self, sounds):
        """Names for the folders of sounds, in their order.

        Arguments
        ---------
        sounds : iterable of lmac_sb.inference.sounds.Sound
            What several processes are going to explain: who is first does not
            change the names.

        Yields
        ------
        str
        """
        for sound in sounds:
            file = os.fspath(sound.place)
            name = self._choose(sound.name, _number_of(file), file)
            self._give(name)
            yield name

    def follow(self, names):
        """Use the names of a plan.

        Arguments
        ---------
        names : iterable of str
            Those of all sounds.
        """
        self._given.update(map(name_key, names))

    def _give(self, name):
        """Note that a name is of a file of this call."""
        self._given.add(name_key(name))

    def _place_of(self, task):
        """Where the explanation is, or shall be."""
        number = task.asked["place"]
        if task.planned is not None:
            place = self.folder / task.planned
            if self._is_free(place, number, task.file):
                return self._not_busy(place)
        name = self._choose(task.name, number, task.file)
        try:
            return self._not_busy(self.folder / name)
        except Busy:
            # When that is done, it will be known.
            self._known.pop(_stem_of(task.name), None)
            self._next.pop(_stem_of(task.name), None)
            raise

    def _choose(self, name, number, file):
        """Name of the folder of what has this number, or lay at this path."""
        stem = _stem_of(name)
        key = name_key(stem)
        present, known = self._explained(stem)
        for place in (number, file):
            if place in known and name_key(known[place]) not in self._given:
                return known[place]
        count = self._next.get(stem, 1)
        while True:
            name, key = _numbered(stem, count), _numbered(name_key(stem), count)
            name = present.get(key, name)
            place = self.folder / name
            if key not in self._given and self._is_free(place, number, file):
                if count > 1:
                    self._next[stem] = count
                return name
            count += 1

    def _explained(self, stem):
        """Names that begin with a stem, by key; and by what lies there."""
        names = self._names.get(name_key(stem), [])
        if names and stem not in self._known:
            known = {}
            for name in names:
                facts = self._facts_of(self.folder / name)
                if facts is not None:
                    known.setdefault(_place_in(facts), name)
            present = {name_key(name): name for name in names}
            self._known[stem] = present, known
        return self._known.get(stem, ({}, {}))

    @functools.cached_property
    def _names(self):
        """Names that are there, by the stems that they may be of."""
        found = {}
        for name in sorted(os.listdir(self.folder), key=lambda n: (len(n), n)):
            key = name_key(name)
            found.setdefault(key, []).append(name)
            numbered = re.fullmatch(r"(.+)_[0-9]+", key, re.DOTALL)
            if numbered:
                found.setdefault(numbered[1], []).append(name)
        return found

    def _is_free(self, place, number, file):
        """Whether a place is empty, unfinished, or of the same file."""
        if not os.path.lexists(place):
            return True
        facts = self._facts_of(place)
        if facts is None:
            return _is_unfinished(place)
        return _place_in(facts) in (number, file)

    def _not_busy(self, place):
        """A place, unless another process is at it."""
        if self._parts.is_dir():
            if any(map(is_held, parts_of(self._parts / place.name))):
                raise Busy(str(place))
        return place

    def _facts_of(self, place):
        """Facts of the clip in a folder, or of one of its classes."""
        if place.is_symlink():
            return None
        for folder in clip_folders(place):
            with suppress(LMACError, OSError):
                return read_facts(folder / FACTS)
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
        except (LMACError, PermissionError):
            return False
        return bool(folders)


def _stem_of(name):
    """What the names of a file's folder may begin with."""
    (stem,) = folder_names([name])
    return stem


def _numbered(stem, count):
    """The name with a number, of which the first has none."""
    return stem if count == 1 else f"{stem}_{count}"


def _place_in(facts):
    """The number of the place of what is explained, or its path."""
    if "asked" not in facts:  # of a former version, or of `save`
        return facts["file"]
    return facts["asked"]["place"]


def _give_name(part, place):
    """Put what is finished in its place."""
    try:
        _carry_over(place, part)
        replace_folder(part, place)
    except PermissionError as error:
        raise LMACError(
            f"{place}: cannot be replaced ({error.strerror}), such as by "
            "another user than its owner; choose another --out"
        ) from error


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
    try:
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
    except PermissionError:  # it may hold anything
        return False


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
        if os.path.isdir(path) and not path.name.startswith(".")
    ]
