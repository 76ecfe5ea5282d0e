"""Explained clips, as folders or in shards: which there are, and one of them.

A folder of ``lmac explain`` holds a folder for each clip, see
`lmac_sb.inference.clip_folder`. A job's folder (`lmac_sb.jobs.job`) holds rows
in ``rows`` and the same files in shards in ``clips``; the column `KEY` of a row
names its sample there. The folder of an audit has rows of all clips, and
folders of those to hear.
"""

import re
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Optional

from lmac_sb.audit.files import AUDIT, EXAMPLES
from lmac_sb.inference.clip_facts import (
    agrees,
    decision_of,
    is_right,
    read_facts,
)
from lmac_sb.inference.clip_folder import FACTS
from lmac_sb.inference.collection import clip_folders, inner_folders
from lmac_sb.inference.packed import unpack
from lmac_sb.jobs.job import JOB, ROWS, Job
from lmac_sb.jobs.rows import read_rows
from lmac_sb.jobs.shards import Shard
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.audit_facts import read_audit
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import check_is_folder, restore_folder

__all__ = ["KEY", "Listed", "Wanted", "open_explained"]

KEY = "sample"
_COLUMNS = ["id", "label", "decision", "verdict", "right", "error", KEY]


class Listed(NamedTuple):
    """An explained clip, before its files are read.

    Arguments
    ---------
    id : str
        Its name for people.
    place : str
        Where it is, for `Folders.opened` or `Shards.opened`; None where its
        sounds were not kept.
    label : str
        None where it is not known.
    decision : str
        What the classifier decides.
    verdict : str
        On its explanation.
    right : bool
        Whether the decision is the label; None without one.

    Example
    -------
    >>> Listed("dog.wav", "dog", "dog", "cat", "faithful", False).decision
    'cat'
    """

    id: str
    place: Optional[str]
    label: Optional[str]
    decision: str
    verdict: str
    right: Optional[bool]


class Wanted(NamedTuple):
    """Which clips are asked for.

    Arguments
    ---------
    names : tuple of str
        Ids of clips, or names of their folders; none for all.
    name_of_class : str
        The label or the decision; None for any.
    verdict : str
        How the verdict begins.
    wrong : bool
        Whether only those whose decision differs from the label.
    most : int
        How many at most.

    Example
    -------
    >>> clip = Listed("dog.wav", "dog", "dog", "cat", "faithful", False)
    >>> Wanted(wrong=True, name_of_class="Cat").holds(clip)
    True
    """

    names: tuple = ()
    name_of_class: Optional[str] = None
    verdict: str = ""
    wrong: bool = False
    most: int = 500

    def holds(self, clip):
        """Whether a clip is asked for."""
        return (
            (not self.names or bool(self.named(clip)))
            and self._is_of_class(clip)
            and clip.verdict.startswith(self.verdict)
            and (not self.wrong or clip.right is False)
        )

    def _is_of_class(self, clip):
        """Whether a clip is labelled or decided as asked, in any case."""
        if self.name_of_class is None:
            return True
        names = (x.casefold() for x in (clip.label, clip.decision) if x)
        return self.name_of_class.casefold() in names

    def named(self, clip):
        """Which of the names are those of a clip."""
        place = clip.place or ""
        return {clip.id, place, place.split("/")[-1]} & set(self.names)

    def check(self):
        """Refuse what no clip can be.

        Raises
        ------
        LMACError
            If there is no such verdict, or no clip may be shown.
        """
        if self.most < 1:
            raise LMACError(f"--most: found {self.most}, expected at least 1")
        if not any(name.startswith(self.verdict) for name in VERDICTS):
            raise LMACError(
                f"--verdict: found {shown(self.verdict)}, expected the "
                f"beginning of one of {', '.join(map(repr, VERDICTS))}"
            )

    def in_words(self):
        """What is asked for, for a person; empty for all clips."""
        parts = (
            [f"named {', '.join(map(shown, self.names))}"] if self.names else []
        )
        if self.name_of_class is not None:
            parts.append(f"label or decision {shown(self.name_of_class)}")
        if self.verdict:
            parts.append(f"verdict {self.verdict}")
        if self.wrong:
            parts.append("decided wrongly")
        return "; ".join(parts)


def open_explained(folder):
    """The explained clips of a folder, whatever keeps them.

    Arguments
    ---------
    folder : str or Path
        Of ``lmac explain``, of a job, or of an audit.

    Returns
    -------
    Folders or Shards

    Raises
    ------
    LMACError
        If it holds none.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = interpreter.explain_file(path).save(folder / "dog")
    >>> (clip,) = open_explained(folder)
    >>> clip.place
    'dog'
    """
    folder = Path(folder)
    check_is_folder(folder, "explanations")
    is_job = (folder / JOB).is_file() and (folder / ROWS).is_dir()
    if (folder / AUDIT).is_file():
        return Audited(folder) if is_job else Folders(folder, EXAMPLES)
    return Shards(folder) if is_job else Folders(folder)


class Folders:
    """Clips that have a folder each.

    Arguments
    ---------
    folder : Path
        Their places are named from here.
    inner : str
        The folder in there that holds their folders, or folders of those; by
        default the folder itself.

    Raises
    ------
    LMACError
        If it holds no folder, or is itself one clip.

    Example
    -------
    >>> Folders(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ...: holds no explained clips, expected one ...
    """

    has_files = True  # that a page may play
    more_sounds = ""  # how to keep those of clips that have none
    notes = ()

    def __init__(self, folder, inner=""):
        self.folder = folder
        folder = folder / inner
        if (folder / FACTS).is_file():
            raise LMACError(
                f"{folder}: is itself one clip, expected the folder above it"
            )
        for former in folder.glob("*.former"):
            # Nothing can be done where nothing can be written.
            with suppress(OSError):
                restore_folder(former.with_suffix(""))
        paths = sorted(_paths(folder), key=_natural)
        self.places = [path.relative_to(self.folder) for path in paths]
        if not self.places:
            raise LMACError(
                f"{folder}: holds no explained clips, expected one sub-folder "
                "for each clip"
            )

    def __iter__(self):
        """Each clip as `Listed`, or as the `LMACError` of what is none."""
        for place in self.places:
            try:
                yield self._listed(place)
            except LMACError as error:
                yield error

    def _listed(self, place):
        """A clip, from its facts alone."""
        path = self.folder / place
        if path.is_symlink():
            raise LMACError(f"{path}: is a link, expected a clip's folder")
        info = read_facts(path / FACTS)
        return Listed(
            info["id"],
            place.as_posix(),
            info["label"],
            decision_of(info),
            info["verdict"],
            is_right(info),
        )

    @contextmanager
    def opened(self, place):
        """A folder with the files of a clip, and the folder above.

        Arguments
        ---------
        place : str
            Of a `Listed`.

        Returns
        -------
        context manager
            Gives both Paths.
        """
        yield self.folder, self.folder / place


def _paths(folder):
    """Folders of clips, and those of no clip, in a folder."""
    for found in inner_folders(folder):
        if found.suffix == ".former" and found.with_suffix("").is_dir():
            continue
        yield from ([] if found.is_symlink() else clip_folders(found)) or [
            found
        ]


def _natural(path):
    """Sort key that puts clip 9 before clip 10."""
    parts = re.split(r"([0-9]+)", f"{path.parent.name}/{path.name}")
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


class Shards:
    """Clips of a job's rows, whose files are in its shards.

    Arguments
    ---------
    folder : Path
        Of the job.

    Raises
    ------
    LMACError
        If it is no job's, or nothing is done yet.

    Example
    -------
    >>> Shards(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../job.json: no such file, a job has one
    """

    has_files = False
    more_sounds = ""

    def __init__(self, folder):
        self.folder = folder
        self.job = Job.open(folder)
        self.done = [i for i in range(self.job.n_chunks) if self.job.is_done(i)]
        if not self.done:
            raise LMACError(f"{folder}: no part of the job is done, or whole")
        self.n_failed = 0
        self._shard = None  # the one that was opened last, and its part

    def __iter__(self):
        """Each clip as `Listed`, or as the `LMACError` of a row of none."""
        n_failed = 0
        for part in self.done:
            table = read_rows(self.job.rows_file(part), _COLUMNS)
            for row in table.to_pylist():
                if row.get("error") is not None:
                    n_failed += 1
                    continue
                try:
                    self._check(part, row)
                except LMACError as error:
                    yield error
                    continue
                for place in self._places(part, row):
                    yield _listed(row, place)
        self.n_failed = n_failed

    @property
    def notes(self):
        """What a person should know of them; all of it once all were seen."""
        found, missing = [], self.job.n_chunks - len(self.done)
        if missing:
            found.append(
                f"not done, or not whole: {missing} of {self.job.n_chunks} "
                "parts of the job; run the same command again"
            )
        if self.n_failed:
            found.append(
                f"not explained: {self.n_failed}; the column error of the rows "
                "says why"
            )
        return found

    def _check(self, part, row):
        """Refuse a row that says something else."""
        for name in ("id", "decision", "verdict", "label", KEY):
            value = row.get(name)
            is_known = name in ("id", "decision", "verdict")
            if not isinstance(value, str) and (is_known or value is not None):
                raise LMACError(
                    f"{self.job.rows_file(part)}: {name}: found "
                    f"{shown(value)}, expected a text"
                )

    def _places(self, part, row):
        """Where the files of a row's clip are; None where they are not."""
        key = row.get(KEY)
        return [None if key is None else f"{part}/{key}"]

    @contextmanager
    def opened(self, place):
        """A folder with the files of a clip, and the folder above.

        Arguments
        ---------
        place : str
            Of a `Listed`.

        Returns
        -------
        context manager
            Gives both Paths; what lies there is deleted at the end.
        """
        part, _, key = place.partition("/")
        shard = self._open(int(part))
        with tempfile.TemporaryDirectory(prefix="lmac_clip_") as above:
            # Keys are those of files; a page's address may hold anything.
            folder = Path(above) / re.sub(r"[^\w.-]", "_", f"{part}-{key}")
            unpack(shard, key, folder)
            try:
                yield Path(above), folder
            except LMACError as error:
                # Nobody knows the temporary folder.
                text = str(error).replace(str(folder), f"{shard.path}: {key}")
                raise LMACError(text) from error

    def _open(self, part):
        """The shard of a part, of which the last one stays open."""
        kept = self._shard  # another thread may change it
        if kept is None or kept[0] != part:
            kept = self._shard = part, Shard(self.job.shard_file(part))
        return kept[1]


def _listed(row, place):
    """A clip from its row, which does not name the model's classes."""
    label, decision = row.get("label"), row["decision"]
    right = row["right"] if "right" in row else agrees(label, decision)
    return Listed(row["id"], place, label, decision, row["verdict"], right)


class Audited(Shards):
    """Clips of an audit's rows, of which some have a folder to hear.

    Arguments
    ---------
    folder : Path
        Of the audit.

    Raises
    ------
    LMACError
        If it is no audit's.

    Example
    -------
    >>> Audited(getfixture("tmp_path"))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../job.json: no such file, a job has one
    """

    has_files = True
    more_sounds = (
        " (the audit keeps those of its examples; `--examples N` keeps more)"
    )

    def __init__(self, folder):
        super().__init__(folder)
        self._names = {}  # of the folders, by the clip's id
        for name, facts in read_audit(folder)["examples"].items():
            self._names.setdefault(facts["id"], []).append(name)

    def _places(self, part, row):
        """Where the folders of a row's clip are; None where there is none."""
        names = self._names.get(row["id"], ())
        return [f"{EXAMPLES}/{name}" for name in names] or [None]

    @contextmanager
    def opened(self, place):
        """See `Folders.opened`."""
        yield self.folder, self.folder / place
