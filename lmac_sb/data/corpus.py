"""Any corpus as a sequence of clips, whatever holds it.

A folder, a table, a manifest, WebDataset shards and data sets of Hugging Face
are read in place: nothing is unpacked, copied or decoded before it is asked
for, and a clip costs some tens of bytes of memory.
"""

import functools
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lmac_sb.data.columns import (
    LABEL,
    check_column,
    find_column,
    find_segment,
    listed,
)
from lmac_sb.data.fingerprint import fingerprint
from lmac_sb.data.folders import Files
from lmac_sb.data.hub_folder import find_tables
from lmac_sb.data.hugging_face import HuggingFace
from lmac_sb.data.join import Join, Matcher
from lmac_sb.data.listed import Listed, ManifestClips
from lmac_sb.data.names import is_audio, plain_path, plain_text
from lmac_sb.data.pieces import check_path
from lmac_sb.data.rows import TABLES, open_rows
from lmac_sb.data.shards import SHARD, Shards, find_shards
from lmac_sb.data.texts import Labels
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Clip", "Corpus", "open_corpus"]

logger = logging.getLogger(__name__)

_FITS = 0.5  # of a table's rows must name clips, if nobody asked for it


class Clip(NamedTuple):
    """A sound of a corpus, which is read when asked for.

    Arguments
    ---------
    id : str
        Its name, which no other clip of the corpus has: its path below the
        folder, or in an archive ``shard.tar/key``.
    place : str, or a place of `lmac_sb.data.places`
        Where it is; messages name it so.
    label : str or None
        Its class; several are joined by a plus.
    columns : dict
        What the user's own columns say, text or None.

    Example
    -------
    >>> Clip("dog/a.wav", str(path), "dog", {"site": "north"}).read(8000).shape
    torch.Size([8000])
    """

    id: str
    place: object
    label: str | None
    columns: dict

    def read(self, rate):
        """Read the sound.

        Arguments
        ---------
        rate : int
            Wanted rate in Hz.

        Returns
        -------
        torch.Tensor
            Mono, [samples].

        Raises
        ------
        LMACError
            If it cannot be read; names the place.
        """
        # Here, as what a corpus holds is known without torch.
        from lmac_sb.data.streaming import read_signal

        if isinstance(self.place, str):
            # Of a pipe, another command would wait for ever.
            check_path(self.place)
        return read_signal(self.place, rate)


class Corpus(Sequence):
    """Clips of a collection, sorted by their ids.

    Can be sent to other processes.

    Arguments
    ---------
    name : str
        What it is called.
    listing : lmac_sb.data.listing.Listing
        The collection.
    joins : list of lmac_sb.data.join.Join
        Tables beside it; the first with a row for a clip counts.
    unused : list of str
        Tables beside it that tell nothing of its clips, a line each.
    label_column : str
        The column with labels; by default the tables' one, if they have one of
        a usual name, and else what the collection tells.

    Attributes
    ----------
    columns : list of str
        Names of the user's own columns.
    classes : list of str
        All labels, sorted; empty without labels.
    ids : sequence of str
        Of all clips, without anything else of them.
    notes, lost : list of str
        What is odd; and where clips are missing whose number is not known. A
        line each.

    Raises
    ------
    LMACError
        If it holds no clips, or there is no such column.

    Example
    -------
    >>> from lmac_sb.data.folders import Files
    >>> corpus = Corpus("mine", Files(path.parent))
    >>> len(corpus) > 0, corpus[0].read(16000).dim()
    (True, 1)
    """

    def __init__(self, name, listing, joins=(), label_column=None, unused=()):
        if not len(listing):
            raise LMACError(f"{name}: holds no sounds")
        self.name = name
        self._listing, self._joins = listing, list(joins)
        self._unused = list(unused)
        self.notes, self.lost = [], list(listing.lost)
        self._sort()
        self._find_labels(label_column)
        self.notes[:0] = listing.notes
        for join in self._joins:
            self.notes += join.notes
        self._count_fitted()
        self._look_for_segments()

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        row = self._row(int(self._order[place]))
        return Clip(
            self.ids[place],
            self.place(place),
            self.label(place),
            {name: row.get(name) for name in self.columns},
        )

    def label(self, place):
        """Label of a clip, without its columns, which lie on disk.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str or None
        """
        return self._labels[place] if self._labels else None

    def why_no_label(self, place):
        """Why a clip has no label, for messages.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str
            Names the table that lacks it, and the column or the line.
        """
        if self._unused and not self._joins:
            return "; ".join(self._unused)
        i, column = int(self._order[place]), self._label_column
        for join in self._joins:
            path, line = join.rows.path, join.line(i)
            if column is None:
                found = listed(join.rows.columns)
                return f"{path}: has no column of labels, found {found}"
            if line is not None and column in join.columns:
                return (
                    f"{path}, line {line}: has no label of {self.ids[place]} "
                    f"in the column {shown(column)}"
                )
        return f"{self.place(place)}: has no label"

    def place(self, place):
        """Where a clip's sound is.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str, or a place of `lmac_sb.data.places`
        """
        return _plain(self._listing.sound(int(self._order[place])))

    def stem(self, place):
        """Where the labelled event of a clip is alone.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str, a place of `lmac_sb.data.places`, or None
            None if it is not known.
        """
        return _plain(self._listing.stem(int(self._order[place])))

    @functools.cached_property
    def identity(self):
        """What makes it the same corpus, see `fingerprint`."""
        return fingerprint(self)

    def _sort(self):
        """Sort by id; those that are there twice get a number."""
        names = list(map(plain_path, self._listing.names))
        order = sorted(range(len(names)), key=names.__getitem__)
        taken, times, renamed, name = set(names), {}, {}, None
        for i in order:
            if names[i] != name:
                name = names[i]
                continue
            while names[i] in taken:
                times[name] = times.get(name, 1) + 1
                names[i] = f"{name}#{times[name]}"
            taken.add(names[i])
            renamed[i] = names[i]
        self._is_repeated = bool(renamed)
        if renamed:
            order.sort(key=names.__getitem__)
            self.notes.append(
                f"{self.name}: clips with the name of another one, which get "
                f"a number: {len(renamed)}"
            )
        self._order = np.array(order, np.uint32)
        self.ids = _Ids(self._listing.names, self._order, renamed)

    def _find_labels(self, column):
        """Labels of all clips, and the other columns."""
        listing, joins = self._listing, self._joins
        columns = dict.fromkeys(listing.columns)
        for join in joins:
            columns.update(dict.fromkeys(join.columns))
        check_column(column, list(columns), f"label_column: {self.name}")
        for join in joins if column is None else ():
            column = column or find_column(join.columns, LABEL)
        found = listing.labels
        if column is None:
            column = listing.label_column
        else:
            is_own = column in listing.columns
            found = listing.labels_in(column) if is_own else None
        self._label_column = column
        labels = (self._find_label(int(i), column, found) for i in self._order)
        plain = functools.lru_cache(plain_text)  # of few labels
        self._labels = Labels(x and plain(x) for x in labels)
        self.classes = sorted(self._labels.names)
        self.columns = [name for name in columns if name != column]

    def _find_label(self, i, column, own):
        """Label of a clip of the listing, whose own ones are given."""
        for join in self._joins:
            if column in join.columns and join.line(i) is not None:
                return join.label(i, column)
        return own[i] if own else None

    def _row(self, i):
        """All columns of a clip of the listing."""
        row = self._listing.row(i)
        for join in reversed(self._joins):
            row.update(join.row(i) or {})
        return row

    def _look_for_segments(self):
        """Say that parts of files are not told apart."""
        several = any(join.is_repeated for join in self._joins)
        found = find_segment(self.columns, several or self._is_repeated)
        if found:
            self.notes.append(
                f"{self.name}: the columns {listed(found)} are not taken as "
                "times: each row stands for its whole file; cut the files "
                "into these parts first"
            )

    def _count_fitted(self):
        """Say how many clips have no row in any table."""
        if not self._joins:
            return
        fitted = np.any([join.fitted() for join in self._joins], axis=0)
        missing = np.flatnonzero(~fitted[self._order])
        if len(missing):
            names = ", ".join(str(join.rows.path) for join in self._joins)
            self.notes.append(
                f"{self.name}: {len(missing)} of {len(self)} clips have no "
                f"row in {names}, such as {self.ids[missing[0]]}"
            )


def _plain(place):
    """A place, paths as text."""
    return os.fspath(place) if isinstance(place, Path) else place


class _Ids(Sequence):
    """Ids of a corpus: names in their order, but for some."""

    def __init__(self, names, order, renamed):
        self._names, self._order, self._renamed = names, order, renamed

    def __len__(self):
        return len(self._order)

    def __getitem__(self, place):
        i = int(self._order[place])
        return self._renamed.get(i) or plain_path(self._names[i])


def open_corpus(where, *, table=None, label_column=None, file_column=None):
    """Open a corpus.

    What is odd about it is said in warnings, a line each, and kept in its
    `notes`; a clip that cannot be read is one that fails when it is read.

    Arguments
    ---------
    where : str or Path
        A folder of sounds, with classes as sub-folders or a table in it (as
        of ESC-50, or `metadata.csv`); a table (csv or JSON) with a column of
        files; a manifest of the recipe; a WebDataset shard, a folder
        of them or a pattern such as ``train-{0000..0012}.tar``; a data set of
        Hugging Face: what `save_to_disk` wrote, or a folder with Parquet
        files, maybe with a split, as in ``folder/test``.
    table : str or Path
        The user's own columns, joined by the names of the files: csv, JSON,
        Parquet or Arrow.
    label_column : str
        The column with labels; by default one of a usual name.
    file_column : str
        The one that names files, of `table` or, without it, of `where`; by
        default the one that fits.

    Returns
    -------
    Corpus

    Raises
    ------
    LMACError
        If it cannot be opened, in one line.

    Example
    -------
    >>> corpus = open_corpus(path.parent)
    >>> corpus[0].label is None, corpus.columns
    (True, [])
    """
    if isinstance(where, Corpus):
        return where
    where = os.fspath(where)
    listing = _listing(where, None if table else file_column)
    if not len(listing):
        # By its path; a corpus knows its name alone.
        notes = "".join(f"; {x}" for x in [*listing.lost, *listing.notes])
        raise LMACError(f"{where}: holds no sounds{notes}")
    joins, unused = _joins(listing, where, table, file_column)
    name = os.path.basename(os.path.abspath(where))
    corpus = Corpus(name, listing, joins, label_column, unused)
    for note in [*corpus.lost, *corpus.notes]:
        logger.warning(note)
    return corpus


def _listing(where, file_column):
    """The clips of whatever kind of collection it is."""
    path = Path(where)
    ending = path.suffix.lower()
    if not path.exists() and "{" in where or where.lower().endswith(SHARD):
        return Shards(find_shards(where))
    # What is no file may be a split of a data set, but none with an ending.
    if not path.exists() and (ending in TABLES or is_audio(where)):
        raise LMACError(f"{where}: no such file or folder")
    is_sound = path.is_file() and is_audio(where)
    files = Files(path) if path.is_dir() or is_sound else ()
    if len(files):
        return files
    folder, tables = find_tables(path)
    if tables:
        return HuggingFace(folder, tables, file_column)
    if path.is_dir():
        shards = find_shards(where)
        return Shards(shards) if shards else files
    if not path.is_file():
        raise LMACError(f"{where}: no such file or folder")
    if ending == ".jsonl" and _is_manifest(path):
        return ManifestClips(path)
    if ending in TABLES:
        return Listed(path, file_column)
    raise LMACError(
        f"{where}: found a file of no known kind, expected a folder, a table, "
        "a manifest, shards (.tar), or a data set of Hugging Face"
    )


def _is_manifest(path):
    """Whether a file of JSON lines is a manifest of the recipe."""
    return {"id", "wav"} <= set(open_rows(path).columns)


def _joins(listing, where, table, file_column):
    """The user's table, those in a folder, and why others are not used."""
    matcher, n_clips = Matcher(listing.names), len(listing)
    joins, unused, columns = [], [], {}
    if table is not None:
        rows = open_rows(table, matcher.names)
        join = Join(rows, matcher, n_clips, file_column)
        if not join.share:
            raise LMACError(_misfit(join, listing))
        join.fit()
        joins.append(join)
    for path in getattr(listing, "tables", ()):
        if table is not None and os.path.samefile(path, table):
            continue
        below = path.parent.relative_to(listing.folder).as_posix().strip(".")
        try:
            rows = open_rows(
                path, functools.partial(matcher.names, below=below)
            )
            columns.update(dict.fromkeys(rows.columns))
            # Of several tables, those that have the column.
            asked = file_column if file_column in rows.columns else None
            join = Join(rows, matcher, n_clips, asked, below)
        except LMACError as error:
            listing.notes.append(f"{error}; not used")
            continue
        if join.share >= _FITS:
            join.fit()
            if join.is_repeated:
                listing.notes.append(
                    f"{path}: has several rows a clip, not used"
                )
            else:
                joins.append(join)
        else:
            unused.append(_misfit(join, listing))
    # The other kinds of collection have looked for it themselves.
    if table is None and not isinstance(listing, (Listed, HuggingFace)):
        _check_file_column(file_column, list(columns), where)
    return joins, unused


def _check_file_column(column, columns, where):
    """Refuse a column of files that none of the tables in a folder has."""
    if column is not None and not columns:
        raise LMACError(
            f"file_column: {where}: has no column {shown(column)}, found no "
            "table"
        )
    check_column(column, columns, f"file_column: {where}")


def _misfit(join, listing):
    """What a table lacks, of which few rows name clips."""
    if join.share:
        return (
            f"{join.rows.path}: only {join.share:.0%} of its rows name a clip "
            f"in the column {shown(join.column)}"
        )
    return (
        f"{join.rows.path}: no column names the clips; found "
        f"{listed(join.rows.columns)}, expected one with names such as "
        f"{listing.names[0] if len(listing) else 'a.wav'}"
    )
