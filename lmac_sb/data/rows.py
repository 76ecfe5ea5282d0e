"""Rows of a table of any length, which stay on disk.

A table of a million rows would take a gigabyte of each process; here a file
is read once, and only the place of each row is kept.
"""

import bisect
import codecs
import contextlib
import csv
import io
import itertools
import json
import logging
import os
from array import array
from collections.abc import Sequence
from pathlib import Path

from lmac_sb.data import columnar
from lmac_sb.data.columns import (
    FILE,
    LABEL,
    SPLIT,
    label_of,
    listed,
    place_among,
)
from lmac_sb.data.hub_features import class_names, features_of, named
from lmac_sb.data.manifest import file_state
from lmac_sb.data.names import is_audio
from lmac_sb.data.pieces import open_file
from lmac_sb.data.table import csv_rows, decode_table, find_separator
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["TABLES", "Rows", "as_text", "open_rows", "some_of"]

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson")
_COLUMNAR = (".parquet", ".arrow")
_SEPARATORS = ",;\t|"
_LOOKED_AT = 20  # rows that tell which separator it is
# What pandas takes for a missing value, as most tables come from there.
_MISSING = {
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan"),
    *("1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a"),
    *("nan", "null"),
}


class Rows(Sequence):
    """Rows of a table in a file, as dicts that are read when asked for.

    Costs 12 bytes of memory a row. A file that changes meanwhile is refused.

    Arguments
    ---------
    path : str or Path
        The file.

    Attributes
    ----------
    columns : list of str
        Their names.
    notes : list of str
        What is odd about the table, a line each.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.jsonl"
    >>> _ = path.write_text('{"file": "a.wav", "n": 1}')
    >>> list(open_rows(path))
    [{'file': 'a.wav', 'n': '1'}]
    """

    def __init__(self, path):
        self.path = Path(path)
        self.columns, self.notes = [], []
        self._starts, self._lines = array("q"), array("I")
        self._end = 0
        with self._opened() as file:
            self._state = file_state(file)
            self._read(file)

    @contextlib.contextmanager
    def _opened(self):
        """The file for reading; errors name it."""
        try:
            with open_file(self.path) as file:
                yield file
        except OSError as error:
            raise LMACError(f"{self.path}: cannot be read ({error})") from error

    def _read(self, file):
        """Find the rows and the columns."""
        self._index(file.read())

    def _index(self, content):
        """Find them in what the file holds."""
        raise NotImplementedError

    def _parse(self, content):
        """Values by column of a row's bytes."""
        raise NotImplementedError

    def __len__(self):
        return len(self._starts)

    def __getitem__(self, place):
        if not 0 <= place < len(self):
            raise IndexError(place)
        return next(self._from(place))

    def __iter__(self):
        return self._from(0)

    def _from(self, place):
        """The rows from a place on."""
        for found in self._values(place):
            yield {name: as_text(found.get(name)) for name in self.columns}

    def _values(self, place):
        """Values by column of the rows from a place on."""
        if place == len(self):
            return
        with self._unchanged() as file:
            file.seek(self._starts[place])
            for i in range(place, len(self)):
                last = i + 1 == len(self)
                end = self._end if last else self._starts[i + 1]
                yield self._parse(file.read(end - self._starts[i]))

    @contextlib.contextmanager
    def _unchanged(self):
        """The file for reading, if it is the one whose rows are known."""
        with self._opened() as file:
            if file_state(file) != self._state:
                raise LMACError(
                    f"{self.path}: was changed while it was in use; start again"
                )
            yield file

    def labels(self, column):
        """What a column says as labels, see `lmac_sb.data.columns.label_of`.

        Arguments
        ---------
        column : str
            Its name.

        Yields
        ------
        str or None
            Of each row.

        Returns
        -------
        generator
        """
        for found in self._values(0):
            yield _label_of(found.get(column))

    def label(self, place, column):
        """What a column says as the label of one row.

        Arguments
        ---------
        place : int
            Of the row.
        column : str
            Its name.

        Returns
        -------
        str or None
        """
        return _label_of(next(self._values(place)).get(column))

    def line(self, place):
        """Number of a row's line, for messages.

        Arguments
        ---------
        place : int
            Of the row.

        Returns
        -------
        int
        """
        return self._lines[place]


class _CsvRows(Rows):
    """Of a csv table, with any usual separator, in the encodings of `table`."""

    def __init__(self, path, names_clip):
        self._names_clip = names_clip
        super().__init__(path)
        del self._names_clip, self._some

    def _index(self, content):
        text, encoding, self._codec = decode_table(self.path, content)
        if not text.strip():
            raise LMACError(f"{self.path}: is empty")
        if encoding != "UTF-8":
            logger.warning(
                "%s: found %s, expected UTF-8; read so", self.path, encoding
            )
        separator, named = find_separator(text)
        self._first, text = 1 + bool(named), text[len(named) :]
        self._separator = separator or _separator_of(text)
        # The rest are the bytes that mark the encoding, or the separator.
        self._end = len(content) - len(text.encode(self._codec))
        self._used, self._n_short, self._header = set(), 0, None
        self._some = _first_rows(text, self._separator)
        try:
            for line, start, fields in self._records(text):
                self._add(line, start, fields)
        except csv.Error as error:
            raise LMACError(f"{self.path}: is no csv table ({error})") from None
        if self._header is None:
            raise LMACError(f"{self.path}: is empty")
        self._name_columns()
        if self._n_short:
            self.notes.append(
                f"{self.path}: {self._n_short} rows have fewer fields than the "
                "header, the others count as missing"
            )

    def _records(self, text):
        """Line, first byte and fields of each row that is not blank."""
        lines = io.StringIO(text, newline="")
        reader = csv_rows(map(self._count, lines), self._separator, True)
        start, line = self._end, self._first
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield line, start, fields
            start, line = self._end, self._first + reader.line_num

    def _count(self, line):
        """The line; its bytes are counted."""
        self._end += len(line.encode(self._codec))
        return line

    def _add(self, line, start, fields):
        """Note where a row is; the first one may be the header."""
        if self._header is None:
            self._header = fields
            if self._is_header(fields):
                return
            self._header = [""] * len(fields)
            self.notes.append(
                f"{self.path}: has no header; its columns are numbered"
            )
        n_fields = len(self._header)
        if any(fields[n_fields:]):
            raise LMACError(
                f"{self.path}, line {line}: expected {n_fields} fields, as in "
                f"the header, found {len(fields)}"
            )
        self._n_short += len(fields) < n_fields
        self._used |= {i for i, field in enumerate(fields) if field}
        self._starts.append(start)
        self._lines.append(line)

    def _is_header(self, fields):
        """Whether the first row names columns, and no sound."""
        if any(map(is_audio, fields)):
            return False
        usual = (*FILE, *LABEL, *SPLIT)
        if (
            self._names_clip is None
            # As pandas writes above an index, and columns without names.
            or not fields[0]
            or fields == list(map(str, range(len(fields))))
            or any(place_among(field, usual) is not None for field in fields)
        ):
            return True
        return not any(self._have_clips(i) for i in range(len(fields)))

    def _have_clips(self, column):
        """Whether the first row names a clip, and half of the next ones do."""
        texts = [row[column] for row in self._some if row[column:]]
        named = [bool(text and self._names_clip(text)) for text in texts]
        return named[0] and 2 * sum(named[1:]) >= len(named[1:])

    def _name_columns(self):
        """Names for those without; what has neither name nor value goes."""
        self._kept = [
            i for i, name in enumerate(self._header) if name or i in self._used
        ]
        self.columns = [
            self._header[i] or f"column {i + 1}" for i in self._kept
        ]
        for name in self.columns:
            if self.columns.count(name) > 1:
                raise LMACError(
                    f"{self.path}: has the column {shown(name)} twice"
                )

    def _parse(self, content):
        text = io.StringIO(content.decode(self._codec), newline="")
        fields = next(csv_rows(text, self._separator), [])
        fields += [""] * (len(self._header) - len(fields))
        return {name: fields[i] for name, i in zip(self.columns, self._kept)}


class _JsonRows(Rows):
    """Of a file of JSON: an object a line, or a list of objects."""

    def _index(self, content):
        columns, row, self._is_list = {}, {}, False
        text = content.removeprefix(codecs.BOM_UTF8).lstrip()
        if not text:
            raise LMACError(f"{self.path}: is empty")
        is_list = text.startswith(b"[")
        read = self._read_list if is_list else self._read_lines
        for line, start, row in read(content):
            columns.update(dict.fromkeys(row))
            self._starts.append(start)
            self._lines.append(line)
        self.columns = list(columns)
        if (
            len(self) == 1
            and row
            and all(isinstance(x, dict) for x in row.values())
        ):
            raise LMACError(
                f"{self.path}: found an object of objects, expected a list of "
                "objects (in pandas, orient='records'), or one a line"
            )

    def _read_lines(self, content):
        """Line, first byte and object of each row, which is a line."""
        start = 0
        for line, text in enumerate(io.BytesIO(content), 1):
            if text.strip():
                yield line, start, self._load(text, line)
            start += len(text)
            self._end = start

    def _load(self, text, line):
        """The object of a line."""
        try:
            found = json.loads(str(text, "utf-8-sig"))
        except (ValueError, RecursionError) as error:
            problem = f"not JSON ({getattr(error, 'msg', error)})"
        else:
            if isinstance(found, dict):
                return found
            problem = f"found {shown(found)}"
        raise LMACError(
            f"{self.path}: line {line}: {problem}, expected one JSON object a "
            "line"
        )

    def _read_list(self, content):
        """Line, first byte and object of each row, which is one of a list."""
        try:
            text = str(content, "utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise self._no_list(line, error.reason) from None
        self._is_list, self._end = True, len(content)
        line, start, before = 1, len(content) - len(text.encode()), 0
        place = _blanks_end(text, text.index("[") + 1)
        ended = text.startswith("]", place)
        while not ended:
            line += text.count("\n", before, place)
            start += len(text[before:place].encode())
            before = place
            row, place = self._row_at(text, place, line)
            yield line, start, row
            place = _blanks_end(text, place)
            ended = text.startswith("]", place)
            if not ended and not text.startswith(",", place):
                line = 1 + text.count("\n", 0, place)
                raise self._no_list(line, "found neither comma nor bracket")
            place = _blanks_end(text, place + (not ended))
        if text[place + 1 :].strip():
            line = 1 + text.count("\n", 0, place)
            raise self._no_list(line, "found more behind the list")

    def _row_at(self, text, place, line):
        """The object at a place of a list, and the place behind it."""
        try:
            row, place = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", line)
            raise self._no_list(line, getattr(error, "msg", error)) from None
        if isinstance(row, dict):
            return row, place
        raise LMACError(
            f"{self.path}: line {line}: found {shown(row)}, expected an "
            "object for each row"
        )

    def _no_list(self, line, problem):
        """That a list ends otherwise than in JSON."""
        return LMACError(
            f"{self.path}: line {line}: not JSON ({problem}), expected a list "
            "of objects"
        )

    def _parse(self, content):
        if self._is_list:
            return json.JSONDecoder().raw_decode(str(content, "utf-8"))[0]
        return self._load(content.split(b"\n")[0], "?")


class _ColumnarRows(Rows):
    """Of a Parquet or Arrow file, without what is no text or number.

    Numbers of classes are their names, where the data set has these.
    """

    def _read(self, file):
        name = os.fspath(self.path)
        schema, parts = columnar.schema_of(name)
        files = columnar.file_columns(schema, parts)
        self.columns = [x for x in parts if x not in files]
        features = features_of(schema, self.path.parent)
        self._classes = {x: class_names(features.get(x)) for x in self.columns}
        sizes = columnar.count_rows(name)
        self._ends = list(itertools.accumulate(sizes))
        self._lines = array("I", range(1, sum(sizes) + 1))

    def __len__(self):
        return len(self._lines)

    def _values(self, place):
        with self._unchanged():
            for i in range(place, len(self)):
                group = bisect.bisect_right(self._ends, i)
                row = i - (self._ends[group - 1] if group else 0)
                found = columnar.read_row(
                    os.fspath(self.path), group, row, self.columns
                )
                yield {x: named(found[x], self._classes[x]) for x in found}


def open_rows(path, names_clip=None):
    r"""Open a table: csv with any usual separator, JSON, Parquet or Arrow.

    The first row of a csv names the columns, unless it names a sound. What
    pandas takes for a missing value is one.

    Arguments
    ---------
    path : str or Path
        The file.
    names_clip : callable
        Whether a text names a clip: a first row that names one without its
        ending is no header either.

    Returns
    -------
    Rows

    Raises
    ------
    LMACError
        If it is no such table; names the file and the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> _ = path.write_bytes(b"file;site\n\na.wav;caf\xe9\nb.wav;NA\n")
    >>> rows = open_rows(path)
    >>> rows.columns, rows[0], rows[1]["site"], rows.line(1)
    (['file', 'site'], {'file': 'a.wav', 'site': 'café'}, None, 4)
    """
    ending = Path(path).suffix.lower()
    if ending in _COLUMNAR:
        rows = _ColumnarRows(path)
    elif ending in (".jsonl", ".ndjson", ".json"):
        rows = _JsonRows(path)
    else:
        rows = _CsvRows(path, names_clip)
    if not len(rows):
        raise LMACError(
            f"{path}: has no rows, expected one for each clip"
            + (f" below {listed(rows.columns)}" if rows.columns else "")
        )
    return rows


def some_of(rows, most):
    """Rows spread over a table, by which a column is found.

    Arguments
    ---------
    rows : Rows
        Of the table.
    most : int
        About how many; less than twice as many.

    Returns
    -------
    list of dict

    Example
    -------
    >>> len(some_of(list(range(1000)), 100))
    100
    """
    step = max(1, len(rows) // most)
    return [rows[i] for i in range(0, len(rows), step)]


def as_text(value):
    """A value of JSON as the text of a column.

    Arguments
    ---------
    value : object
        Text, number, truth value, list or dict, or a date, as in Parquet.

    Returns
    -------
    str or None
        None for a missing value.

    Example
    -------
    >>> as_text(1.5), as_text(True), as_text(["a", 1]), as_text(float("nan"))
    ('1.5', 'true', '["a", 1]', None)
    """
    if value is None or isinstance(value, (bool, int, float, list, dict)):
        value = json.dumps(value, ensure_ascii=False, default=str)
    value = str(value)  # such as a date
    # Half of a letter, which JSON allows, cannot be written to other files.
    value = value.encode("utf-8", "backslashreplace").decode()
    return _or_missing(value.strip())


def _blanks_end(text, place):
    """The first place from one on that is not blank."""
    while text[place : place + 1].isspace():
        place += 1
    return place


def _label_of(value):
    """A value as a label; None for a missing one."""
    label = label_of(value)
    return None if label is None else _or_missing(label)


def _or_missing(text):
    """The text, or None for one that stands for nothing."""
    return None if text in _MISSING else text


def _separator_of(text):
    """What divides the first rows into the most fields, as many in each."""

    def fit(separator):
        widths = list(map(len, _first_rows(text, separator)))
        if not widths:
            return False, 0, 0
        n_fields = widths[0]
        alike = sum(width == n_fields for width in widths) / len(widths)
        return n_fields > 1, alike, n_fields

    return max(_SEPARATORS, key=fit)


def _first_rows(text, separator):
    """Fields of the first rows that are not blank."""
    rows = []
    try:
        for fields in csv_rows(io.StringIO(text, newline=""), separator):
            fields = [field.strip() for field in fields]
            if any(fields):
                rows.append(fields)
            if len(rows) == _LOOKED_AT:
                break
    except csv.Error:
        pass  # said when it is read
    return rows
