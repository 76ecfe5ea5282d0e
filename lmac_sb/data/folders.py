"""Clips in a folder of files, whose sub-folders may be classes."""

import os
import re
from collections import Counter
from pathlib import Path

from lmac_sb.data.columns import listed
from lmac_sb.data.listing import Listing, known_split
from lmac_sb.data.names import is_audio, is_hidden
from lmac_sb.data.texts import Labels, Texts
from lmac_sb.utils.errors import LMACError

__all__ = ["Files", "find_files"]

# Folders whose name says nothing of their sounds.
_PLAIN = {
    *("audio", "audios", "wav", "wavs", "flac", "mp3", "ogg", "clips"),
    *("clip", "data", "sounds", "sound", "recordings", "files", "samples"),
}
_TABLES = (".csv", ".tsv", ".jsonl")
_OTHERS = (".tar", ".parquet", ".arrow", ".zip")
# Of sounds whose names have no ending.
_STARTS = b"fLaC", b"OggS", b"ID3", b"RF64"
_FORMS = b"WAVE", b"AIFF", b"AIFC"
# In a folder with the sounds of an explanation, as in
# `lmac_sb.inference.clip_folder`, which this package does not know.
EXPLANATION = "explanation.json"
_FOLD = re.compile(r"fold[ _-]?(\d+)", re.IGNORECASE)


class Files(Listing):
    """The sounds in a folder and its sub-folders, sorted by their paths.

    Sub-folders are classes, but for those that are named as splits or folds,
    above or below the classes, which are columns, and one that has a plain
    name such as `audio`. Links are followed.

    Arguments
    ---------
    folder : str or Path
        The folder, or a file alone.

    Attributes
    ----------
    tables : list of pathlib.Path
        Tables in the folder, `meta/` or `metadata/`, and those that are
        called metadata anywhere.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("train/dog/a.wav", "test/cat/b.wav"):
    ...     (folder / name).parent.mkdir(parents=True)
    ...     (folder / name).touch()
    >>> files = Files(folder)
    >>> list(files.names), list(files.labels), files.row(0)
    (['test/cat/b.wav', 'train/dog/a.wav'], ['cat', 'dog'], {'split': 'test'})
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        explained, unread = [], []
        if self.folder.is_dir():
            found = find_files(self.folder, explained, unread)
        else:  # a file alone
            self.folder, found = self.folder.parent, [self.folder.name]
        tables = [name for name in found if name.lower().endswith(_TABLES)]
        names = [name for name in found if self._is_sound(name)]
        names, n_left = _chosen(self.folder, names)
        levels, level = _levels(Counter(map(os.path.dirname, names)))
        labels = (_label(name, level, levels) for name in names)
        super().__init__(Texts(names), Labels(labels))
        if not self.labels.names:
            self.labels = Labels()
        self.lost += [f"{error}; its sounds are missing" for error in unread]
        self._levels = levels
        self.columns = list(levels)
        for column in levels:
            self._note_strays(column, names)
        self.tables = [self.folder / name for name in tables if _near(name)]
        if n_left:
            self.notes.append(
                f"{folder}: {n_left} sounds beside audio/ are left out"
            )
        if explained:
            self.notes.append(
                f"{folder}: explanations are left out, those of "
                f"{len(explained)} sounds, such as {min(explained)}"
            )
        others = [name for name in found if name.lower().endswith(_OTHERS)]
        if names and others:
            self.notes.append(
                f"{folder}: {len(others)} tables or archives of sounds beside "
                f"files are left out, such as {others[0]}"
            )

    def _is_sound(self, name):
        """Whether a file is a sound: by its ending, or as its bytes start."""
        if os.path.splitext(name)[1]:
            return is_audio(name)
        path = self.folder / name
        if not path.is_file():  # a pipe would be waited for
            return False
        try:
            with open(path, "rb") as file:
                start = file.read(12)
        except OSError:
            return False
        return start.startswith(_STARTS) or start[8:] in _FORMS

    def sound(self, place):
        """Its path, see `Listing`."""
        return os.path.join(self.folder, self.names[place])

    def stem(self, place):
        """Its file in `stems/` beside `audio/`, see `Listing`."""
        folder, _, name = self.names[place].partition("/")
        path = self.folder / "stems" / name
        return path if folder == "audio" and path.is_file() else None

    def row(self, place):
        """Its split or fold, see `Listing`."""
        name = self.names[place]
        return {
            column: _KINDS[column](_part(name, level))
            for column, level in self._levels.items()
        }

    def _note_strays(self, column, names):
        """Note which sounds are in none of the folders of splits or folds."""
        level, value_of = self._levels[column], _KINDS[column]
        strays = [name for name in names if not value_of(_part(name, level))]
        if strays:
            others = {_part(name, level) for name in names}
            others = sorted(x for x in others if value_of(x))
            self.notes.append(
                f"{self.folder}: {len(strays)} of {len(names)} sounds are in "
                f"no folder of the {column}s {listed(others)}: "
                f"{listed(strays)}"
            )


def find_files(folder, explained=None, unread=None):
    """All files below a folder but hidden ones, sorted; links are followed.

    Arguments
    ---------
    folder : str or Path
        The folder.
    explained : list
        Gets the folders below it that hold an explanation, whose files, such
        as the part that was kept, are left out then.
    unread : list
        Gets an error for each folder below it that cannot be read.

    Returns
    -------
    list of str
        Paths below it, with slashes.

    Raises
    ------
    LMACError
        If it cannot be read; without `unread`, also if a folder below it
        cannot.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("b.wav", "a.wav", ".DS_Store", "._a.wav"):
    ...     (folder / name).touch()
    >>> find_files(folder)
    ['a.wav', 'b.wav']
    """
    return sorted(_walk(os.fspath(folder), "", (), explained, unread))


def _walk(folder, below, above, explained, unread):
    """Paths of files; `above` are the folders that a loop would lead to."""
    try:
        info = os.stat(folder)
        if (info.st_dev, info.st_ino) in above:
            return
        above = (*above, (info.st_dev, info.st_ino))
        with os.scandir(folder) as entries:
            entries = [entry for entry in entries if not is_hidden(entry.name)]
        names = {entry.name for entry in entries}
        if below and explained is not None and EXPLANATION in names:
            explained.append(below[:-1])
            return
        for entry in entries:
            if os.path.isdir(entry.path):
                inner = f"{below}{entry.name}/"
                yield from _walk(entry.path, inner, above, explained, unread)
            else:
                yield f"{below}{entry.name}"
    except OSError as error:
        lost = LMACError(f"{folder}: cannot be read ({error})")
        if not below or unread is None:
            raise lost from error
        unread.append(lost)


def _chosen(folder, names):
    """In the layout of ESC-50, clips are in audio/ alone."""
    if not ((folder / "audio").is_dir() and (folder / "meta").is_dir()):
        return names, 0
    clips = [name for name in names if name.startswith("audio/")]
    # Our own scenes have the event of each clip, and the rest, there.
    parts = sum(name.startswith(("stems/", "rest/")) for name in names)
    return clips, len(names) - len(clips) - parts


def _levels(folders):
    """Level of each column, and of the labels; None if there are none.

    `folders` has the number of sounds in each.
    """
    columns, label, level = {}, None, 0
    while True:
        sizes = Counter()
        for folder, size in folders.items():
            sizes[_part(f"{folder}/", level) or ""] += size
        names = set(sizes) - {""}
        column = _column(sizes)
        if not names:
            return columns, label
        if column and column not in columns:
            columns[column] = level
            # What is beside these folders tells nothing of others.
            folders = {
                folder: size
                for folder, size in folders.items()
                if _KINDS[column](_part(f"{folder}/", level))
            }
        elif len(names) > 1 or min(names).casefold() not in _PLAIN:
            if label is not None:
                return columns, label
            label = level
        level += 1


def _column(sizes):
    """Whether folders are splits or folds, by their sizes; None if neither.

    Without the sounds beside folders, all are, or several that hold most: a
    class may be called `train`.
    """
    inside = {name: size for name, size in sizes.items() if name}
    for column, value_of in _KINDS.items():
        known = {name: value_of(name) for name in inside if value_of(name)}
        most = sum(inside[x] for x in known) > sum(sizes.values()) / 2
        if known and (
            len(known) == len(inside) or (len({*known.values()}) > 1 and most)
        ):
            return column
    return None


def _split(part):
    """The name of a folder, if it is that of a split."""
    return part if part and known_split(part) else None


def _fold(part):
    """The number of a fold that a folder is named as."""
    fold = part and _FOLD.fullmatch(part)
    return fold[1] if fold else None


# Columns that folders may be, and what they say in these.
_KINDS = {"split": _split, "fold": _fold}


def _label(name, level, columns):
    """Label of a sound; None if it is beside the folders of splits."""
    for column, above in columns.items():
        if level is not None and above < level:
            if _KINDS[column](_part(name, above)) is None:
                return None
    return _part(name, level)


def _part(name, level):
    """A folder of a path; None if it has none at that level."""
    parts = name.split("/")[:-1]
    return None if level is None or level >= len(parts) else parts[level]


def _near(name):
    """Whether a table is where tables about clips are."""
    folder, name = os.path.split(name)
    usual = folder.casefold() in ("", "meta", "metadata")
    return usual or name.casefold().startswith("metadata.")
