"""Clips in data sets of Hugging Face, read without the package `datasets`.

What `save_to_disk` wrote is mapped into memory; Parquet files are read a group
of rows at a time.
"""

import itertools
import os
from array import array

from lmac_sb.data import columnar
from lmac_sb.data.columns import (
    FILE,
    LABEL,
    check_column,
    find_column,
    label_of,
    listed,
)
from lmac_sb.data.hub_features import class_names, features_of, named
from lmac_sb.data.listing import Listing
from lmac_sb.data.names import plain_path
from lmac_sb.data.pieces import Place
from lmac_sb.data.places import Cell
from lmac_sb.data.rows import as_text
from lmac_sb.data.texts import Texts
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.extra import needed

__all__ = ["HuggingFace"]


class HuggingFace(Listing):
    """A clip for each row of the tables of a data set.

    Sounds are in the column that the data set calls so, or in one that holds
    bytes, samples with their rate, or paths; names of classes are those of
    the data set. With several splits, a column tells which.

    Arguments
    ---------
    folder : str or Path
        The data set's; no sound outside of it is read.
    tables : dict
        Path of each table below it to its split, see
        `lmac_sb.data.hub_folder.find_tables`.
    column : str
        The one with sounds; by default the one that fits.

    Raises
    ------
    LMACError
        If no table can be read, or one has no sounds.

    Example
    -------
    >>> import pyarrow, pyarrow.parquet
    >>> rows = pyarrow.table({"bytes": [b"RIFF"], "label": ["dog"]})
    >>> folder = getfixture("tmp_path")
    >>> pyarrow.parquet.write_table(rows, folder / "a.parquet")
    >>> clips = HuggingFace(folder, {"a.parquet": None})
    >>> list(clips.names), list(clips.labels)
    (['a.parquet/0'], ['dog'])
    """

    def __init__(self, folder, tables, column=None):
        super().__init__()
        self._folder = os.fspath(folder)
        self._tables, self._splits = list(tables), list(tables.values())
        self._schemas = [None] * len(tables)
        # Of a clip: its table, the group in it, and the row in that. Where
        # its bytes are in the file, if they lie there as such.
        self._of = [array("I") for _ in range(3)]
        self._offset, self._size = array("q"), array("q")
        paths = []
        for number in range(len(tables)):
            file = self._file(number)
            try:
                self._schemas[number] = self._learn(file, column)
                self._read(number, file, paths)
            except columnar.Damaged as error:
                self.lost.append(f"{error}; its clips are missing")
        if not paths and self.lost:
            raise LMACError(self.lost[0])
        self.names = Texts(self._name(paths))
        if len(set(self._splits)) > 1 and "split" not in self.columns:
            self.columns.append("split")

    def sound(self, place):
        """Place of its bytes, or of its row, see `Listing`."""
        number, group, row = (found[place] for found in self._of)
        file, size = self._file(number), self._size[place]
        name = self.names[place].removeprefix(f"{self._tables[number]}/")
        if size >= 0:
            return Place(file, self._offset[place], size, name)
        column = self._schemas[number].sound
        return Cell(file, group, row, column, name, self._folder)

    def row(self, place):
        """The other columns of its row, see `Listing`."""
        number = self._of[0][place]
        classes, values = self._schemas[number].classes, self._values(place)
        row = {
            name: as_text(named(values.get(name), classes.get(name)))
            for name in self.columns
        }
        if "split" not in values and "split" in row:
            row["split"] = self._splits[number]
        return row

    def _values_in(self, column):
        groups = itertools.groupby(zip(*self._of[:2]))
        for (number, group), clips in groups:
            known, n_rows = self._schemas[number], sum(1 for _ in clips)
            values = [None] * n_rows
            if column in known.others:
                values = columnar.values_of(self._file(number), group, column)
            elif column == "split":
                values = [self._splits[number]] * n_rows
            for value in values[:n_rows]:
                yield named(value, known.classes.get(column))

    def _file(self, number):
        """Path of a table."""
        return os.path.join(self._folder, self._tables[number])

    def _learn(self, file, column):
        """What the columns of a table are."""
        schema, parts = columnar.schema_of(file)
        features = features_of(schema, self._folder)
        check_column(column, list(parts), file)
        found = _Columns(schema, parts, features, column, file)
        known = dict.fromkeys(self.columns)
        self.columns = list({**known, **dict.fromkeys(found.others)})
        self.label_column = self.label_column or found.label
        return found

    def _read(self, number, file, paths):
        """Index a table; the paths of its sounds are added."""
        known = self._schemas[number]
        classes = known.classes.get(known.label)
        for group, n_rows in enumerate(columnar.count_rows(file)):
            labels = found = [None] * n_rows
            if known.label:
                labels = columnar.values_of(file, group, known.label)
            if known.path:
                found = columnar.values_of(file, group, *known.path)
            for label in labels:
                self.labels.append(label_of(named(label, classes)))
            paths.extend(found)
            spans = columnar.spans_of(file, group, known.sound)
            self._of[0].extend([number] * n_rows)
            self._of[1].extend([group] * n_rows)
            self._of[2].extend(range(n_rows))
            for kept, found in zip((self._offset, self._size), spans):
                kept.extend(found.tolist())

    def _name(self, paths):
        """Names of the clips: those of their files, if these differ."""
        below, has_splits = [], len(set(self._splits)) > 1
        for number, path in zip(self._of[0], paths):
            if not isinstance(path, str) or not path:
                break
            name = os.path.basename(path) if os.path.isabs(path) else path
            split = f"{self._splits[number]}/" if has_splits else ""
            below.append(plain_path(split + name))
        if len(set(below)) == len(paths):
            return below
        return self._name_by_row()

    def _name_by_row(self):
        """Names of the clips by the numbers of their rows in their table."""
        first = {}
        for place, number in enumerate(self._of[0]):
            first.setdefault(number, place)
        ends = [*list(first.values())[1:], len(self._of[0])]
        for (number, start), end in zip(first.items(), ends):
            width = len(str(end - start - 1))
            for row in range(end - start):
                yield f"{self._tables[number]}/{row:0{width}d}"

    def _values(self, place):
        """What a clip's row has in its small columns."""
        number, group, row = (found[place] for found in self._of)
        columns = self._schemas[number].others
        return columnar.read_row(self._file(number), group, row, columns)


class _Columns:
    """What the columns of a table are.

    `sound` is the one with sounds, `path` that with their paths (or a part of
    the first), `label` that with labels; `others` are all that hold no sounds,
    and `classes` the names of the classes of those with numbers.
    """

    def __init__(self, schema, parts, features, column, file):
        types = needed("pyarrow").types
        kinds = dict(zip(parts, schema.types))
        files = columnar.file_columns(schema, parts)
        texts = [
            name
            for name, kind in kinds.items()
            if types.is_string(kind) or types.is_large_string(kind)
        ]
        self.sound = (
            column
            or _find_audio(features, kinds)
            or find_column(files, FILE)
            or next(iter(files), None)
            or find_column(texts, FILE)
        )
        if self.sound is None:
            raise LMACError(
                f"{file}: found the columns {listed(list(kinds))}, expected "
                "one with sounds: bytes, samples with their sampling_rate, or "
                "paths; name it as file_column"
            )
        self.path = None
        if "path" in (parts[self.sound] or ()):
            self.path = self.sound, "path"
        elif self.sound in texts:
            self.path = (self.sound,)
        elif find_column(texts, FILE):
            self.path = (find_column(texts, FILE),)
        self.others = [x for x in kinds if x not in {self.sound, *files}]
        self.label = find_column(self.others, LABEL)
        self.classes = {
            name: class_names(features.get(name)) for name in self.others
        }


def _find_audio(features, fields):
    """The column that the data set calls one of sounds, if it does."""
    for name, feature in features.items():
        is_known = isinstance(feature, dict) and name in fields
        if is_known and feature.get("_type") == "Audio":
            return name
    return None
