"""Clips in WebDataset shards: tar archives whose members share a key.

Nothing is unpacked: of each member, the place in its archive is kept.
"""

import contextlib
import json
import os
import re
from array import array
from pathlib import Path

from lmac_sb.data.columns import LABEL, find_column, label_of
from lmac_sb.data.folders import find_files
from lmac_sb.data.listing import Listing, known_split
from lmac_sb.data.names import is_audio, is_hidden, plain_path
from lmac_sb.data.pieces import Place, open_file
from lmac_sb.data.places import Lost
from lmac_sb.data.rows import as_text
from lmac_sb.data.tar import read_members
from lmac_sb.data.texts import Labels, Texts
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["SHARD", "Shards", "find_shards"]

SHARD = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_TEXTS = ("cls", "json", "txt")  # endings of members that tell a label
_MOST = 1 << 20  # bytes of such a member that are read
_LONGEST = 200  # characters of a label; a longer text is none
_MOST_SHARDS = 1 << 20
# Beside the shards: what the numbers of classes stand for.
_CLASSES = ("classes", "classnames", "class_names", "labels", "names")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_STEM = re.compile(r"(.*\.)?stem\.[^.]+")


class Shards(Listing):
    """A clip for each sound of some shards.

    Members with one key are one clip, wherever they stand in their shard; of
    a key and an ending that are there again, a new one begins. Its label is in
    the member ``cls``, under a usual name in ``json``, or in ``txt``; a number
    is that of a class in a file beside the shards, such as `classes.txt`, if
    there is one. What ``json`` holds are columns. A sound ``stem.wav``, or of
    another kind, is the labelled event of the clip alone.

    Arguments
    ---------
    paths : list of str or Path
        Of the shards, see `find_shards`.

    Raises
    ------
    LMACError
        If one is no archive.

    Example
    -------
    >>> import io, tarfile
    >>> path = getfixture("tmp_path") / "a.tar"
    >>> with tarfile.open(path, "w") as archive:
    ...     for name, content in ("1.wav", b"RIFF"), ("1.cls", b"dog"):
    ...         member = tarfile.TarInfo(name)
    ...         member.size = len(content)
    ...         archive.addfile(member, io.BytesIO(content))
    >>> shards = Shards([path])
    >>> list(shards.names), list(shards.labels), shards.sound(0).offset
    (['a.tar/1'], ['dog'], 512)
    """

    def __init__(self, paths):
        super().__init__()
        paths = [os.path.abspath(path) for path in paths]
        self._paths = paths
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])
        self._folder = folder
        # As ids name them.
        self._shards = [
            plain_path(os.path.relpath(path, folder)) for path in paths
        ]
        # Of a clip: its shard, its sound, and the members of its group.
        self._shard, self._own = array("I"), array("I")
        self._first, self._last = array("I"), array("I")
        # Of a member: place, size (below zero if it is no file), ending.
        self._offsets, self._sizes = array("q"), array("q")
        self._endings = Labels()
        self._labels = {kind: Labels() for kind in _TEXTS}
        self._keys, self._odd = {}, {}
        self.names = Texts(self._read_all())
        self._choose_labels()
        self._find_splits()
        for text, (n_keys, first) in self._odd.items():
            self.notes.append(
                f"{self._folder}: {n_keys} {text}, such as {first}"
            )
        del self._labels, self._keys, self._odd

    def sound(self, place):
        """Place of its member, see `Listing`."""
        return self._place(place, self._own[place])

    def stem(self, place):
        """Place of the member ``stem``, see `Listing`."""
        for member in range(self._first[place], self._last[place]):
            if _STEM.fullmatch(self._endings[member]):
                return self._place(place, member)
        return None

    def row(self, place):
        """What is in its ``json``, see `Listing`."""
        row = self._values(place)
        return {name: as_text(value) for name, value in row.items()}

    def labels_in(self, column):
        """Those of a column, numbers of classes by name, see `Listing`."""
        if column == self.label_column:
            return self.labels
        values = (self._values(i).get(column) for i in range(len(self)))
        return self._name_classes(Labels(map(_short_label, values)))

    def _values(self, place):
        """Values by column of a clip."""
        with self._opened(self._shard[place]) as file:
            row = _object(self._text(file, place, "json")) or {}
            if "txt" in self.columns and "txt" not in row:
                row["txt"] = self._text(file, place, "txt")
        if "split" in self.columns and "split" not in row:
            row["split"] = _split_of(self._shard_of(place))
        return row

    def _shard_of(self, place):
        """Name of a clip's shard."""
        return self._shards[self._shard[place]]

    def _place(self, place, member):
        """Where a member of a clip is."""
        file = self._paths[self._shard[place]]
        key = self.names[place].removeprefix(f"{self._shard_of(place)}/")
        ending = f".{self._endings[member]}"
        name = key.removesuffix(ending) + ending
        if self._sizes[member] < 0:
            return Lost(
                f"{file}/{name}",
                "is a link, a device or a sparse file in its archive, expected "
                "a plain file",
            )
        return Place(file, self._offsets[member], self._sizes[member], name)

    def _read_all(self):
        """Index all shards; the names of the clips."""
        for number in range(len(self._shards)):
            with self._opened(number) as file:
                for key, members in self._groups(number).items():
                    yield from self._add(number, key[0], members, file)

    @contextlib.contextmanager
    def _opened(self, number):
        """A shard for reading; errors name it."""
        path = self._paths[number]
        try:
            with open_file(path) as file:
                yield file
        except OSError as error:
            raise LMACError(f"{path}: cannot be read ({error})") from error

    def _groups(self, number):
        """Members of a shard by key, those that there are twice apart."""
        groups, times, latest = {}, {}, {}
        before = None
        for member in read_members(self._paths[number], self.lost):
            key, ending = _split_name(member.name)
            kind = ending.rpartition(".")[2]
            if kind not in _TEXTS and not is_audio(f"x.{kind}"):
                continue
            n = max(times.get((key, ending), 0), latest.get(key, 0))
            times[key, ending], latest[key] = n + 1, n
            if (key, n) in groups and before != (key, n):
                self._note("keys are not in one piece", number, key)
            before = key, n
            size = member.size if member.is_file else -1
            groups.setdefault((key, n), []).append(
                (ending, member.offset, size)
            )
        return groups

    def _add(self, number, key, members, file):
        """Add the clips of a group; their names."""
        endings = [member[0] for member in members]
        sounds = [
            i
            for i, ending in enumerate(endings)
            if is_audio(f"x.{ending}") and not _STEM.fullmatch(ending)
        ]
        shard = self._shards[number]
        if not sounds:
            self._note("keys have no sound", number, key)
            return
        first = len(self._offsets)
        for ending, offset, size in members:
            self._endings.append(ending)
            self._offsets.append(offset)
            self._sizes.append(size)
        for i in sounds:
            place = len(self._shard)
            self._shard.append(number)
            self._own.append(first + i)
            self._first.append(first)
            self._last.append(first + len(members))
            self._add_labels(file, place, number, key)
            name = f"{shard}/{key}" + (f".{endings[i]}" if sounds[1:] else "")
            yield plain_path(name)

    def _add_labels(self, file, place, number, key):
        """What each kind of member says of a clip's label."""
        text = self._text(file, place, "json")
        found = _object(text)
        if text is not None and found is None:
            self._note("members json cannot be read", number, key)
        found = found or {}
        self._keys.update(dict.fromkeys(found))
        texts = {
            "cls": self._text(file, place, "cls"),
            "json": found.get(find_column(found, LABEL)),
            "txt": self._text(file, place, "txt"),
        }
        for kind, text in texts.items():
            self._labels[kind].append(_short_label(text))

    def _text(self, file, place, kind):
        """What the member of an ending holds for a clip; None for nothing."""
        own = self._endings[self._own[place]]
        # Of b.mic.wav, b.mic.json counts more than b.json.
        wanted = [own.rpartition(".")[0] + f".{kind}", kind]
        members = range(self._first[place], self._last[place])
        found = {self._endings[member]: member for member in members}
        member = next((found[name] for name in wanted if name in found), None)
        if member is None or not 0 <= self._sizes[member] <= _MOST:
            return None
        file.seek(self._offsets[member])
        content = file.read(self._sizes[member])
        return content.decode("utf-8-sig", "backslashreplace").strip()

    def _choose_labels(self):
        """Take the labels of the first kind of member that tells any."""
        kinds = [kind for kind in _TEXTS if self._labels[kind].names]
        self.columns = list(self._keys)
        if "txt" in kinds[1:] and "txt" not in self.columns:
            self.columns.append("txt")
        if not kinds:
            return
        self.labels = self._name_classes(self._labels[kinds[0]])
        if kinds[0] == "json":
            self.label_column = find_column(self._keys, LABEL)

    def _name_classes(self, labels):
        """Labels with the names of classes for numbers, if a file has these."""
        names, path = _find_classes(Path(self._folder))
        found = labels.names
        if not (names and found and all(map(str.isdecimal, found))):
            return labels
        if max(map(int, found)) < len(names):
            labels.names = [names[int(label)] for label in found]
        else:
            self.notes.append(
                f"{path}: has {len(names)} classes, but clips are of class "
                f"{max(map(int, found))}; not used"
            )
        return labels

    def _find_splits(self):
        """Take the splits from the names of the shards, if these differ."""
        splits = {_split_of(shard) for shard in self._shards}
        if len(splits) > 1 and "split" not in self.columns:
            self.columns.append("split")

    def _note(self, text, number, key):
        """Note what is odd about a key of a shard."""
        shard = self._shards[number]
        n_keys, first = self._odd.get(text, (0, f"{shard}/{key}"))
        self._odd[text] = n_keys + 1, first


def find_shards(where):
    """Shards by a pattern, in a folder, or one.

    Arguments
    ---------
    where : str
        A tar file, a folder with some, or a pattern with ``{000..012}`` or
        ``{a,b}``.

    Returns
    -------
    list of str
        Their paths.

    Raises
    ------
    LMACError
        If a shard of the pattern is missing.

    Example
    -------
    >>> find_shards("train-{0..1}.tar")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: train-{0..1}.tar: 2 of 2 shards are missing, such as ...
    """
    if os.path.isdir(where):
        return [
            os.path.join(where, name)
            for name in find_files(where)
            if name.lower().endswith(SHARD)
        ]
    paths = _expand(where)
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise LMACError(
            f"{where}: {len(missing)} of {len(paths)} shards are missing, such "
            f"as {missing[0]}; restore them, or give a pattern without them"
        )
    return paths


def _expand(pattern):
    """What a pattern with braces stands for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    bounds = _RANGE.fullmatch(found[1])
    if bounds:
        low, high = int(bounds[1]), int(bounds[2])
        if not low <= high < low + _MOST_SHARDS:
            raise LMACError(
                f"{pattern}: {found[0]} is no range of at most "
                f"{_MOST_SHARDS} numbers"
            )
        width = len(bounds[1]) if bounds[1][0] == "0" else 0
        options = [f"{i:0{width}d}" for i in range(low, high + 1)]
    else:
        options = found[1].split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [x for option in options for x in _expand(f"{head}{option}{tail}")]


def _split_name(name):
    """Key and ending of a member, as WebDataset has them; "" for none."""
    parts = [x for x in name.split("/") if x not in ("", ".", "..")]
    is_meta = name.startswith("__") and name.endswith("__")
    if not parts or is_meta or any(map(is_hidden, parts)):
        return "", ""
    key, _, ending = parts.pop().partition(".")
    return "/".join([*parts, key]), ending.lower()


def _short_label(value):
    """A value as a label; None for a longer text."""
    label = label_of(value)
    is_long = label and (len(label) > _LONGEST or "\n" in label)
    return None if is_long else label


def _object(text):
    """What a JSON text holds, if that is an object."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _split_of(shard):
    """The split that a shard's name tells; None for none."""
    parts = re.split(r"[\W\d_]+", shard)
    return next((part for part in parts if known_split(part)), None)


def _find_classes(folder):
    """Names of the classes by their numbers, and the file that tells them."""
    for stem in _CLASSES:
        for ending in (".txt", ".json"):
            path = folder / f"{stem}{ending}"
            if path.is_file():
                return _read_classes(path), path
    return [], None


def _read_classes(path):
    """Names of classes: a line each, or as JSON: a list, or with numbers."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix == ".txt":
            return [line.strip() for line in text.splitlines() if line.strip()]
        found = json.loads(text)
        if isinstance(found, dict):
            pairs = found.items()
            if all(isinstance(value, int) for value in found.values()):
                pairs = [(value, key) for key, value in pairs]
            found = dict(sorted((int(key), value) for key, value in pairs))
            if list(found) != list(range(len(found))):
                raise ValueError("numbers are missing")
            found = found.values()
        return [str(name) for name in found]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise LMACError(
            f"{path}: found {shown(str(error))}, expected the names of the "
            "classes, a line each"
        ) from error
