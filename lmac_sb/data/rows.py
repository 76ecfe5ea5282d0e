"""Rows of a table of any length, which stay on disk.

A table of a million rows would take a gigabyte of each process; here a file
is read once, and only the place of each row is kept.
"""

import contextlib
import csv
import io
import json
import logging
from array import array
from collections.abc import Sequence
from pathlib import Path

from lmac_sb.data.manifest import file_state
from lmac_sb.data.names import is_audio
from lmac_sb.data.table import decode_table
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["TABLES", "Rows", "as_text", "open_rows", "some_of"]

logger = logging.getLogger(__name__)

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson")
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
            content = file.read()
        self._index(content)

    @contextlib.contextmanager
    def _opened(self):
        """The file for reading; errors name it."""
        try:
            with open(self.path, "rb") as file:
                yield file
        except OSError as error:
            raise LMACError(f"{self.path}: cannot be read ({error})") from error

    def _index(self, content):
        """Find the rows and the columns."""
        raise NotImplementedError

    def _parse(self, content):
        """Fields by column of a row's bytes."""
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
        if place == len(self):
            return
        with self._opened() as file:
            if file_state(file) != self._state:
                raise LMACError(
                    f"{self.path}: was changed while it was in use; start again"
                )
            file.seek(self._starts[place])
            for i in range(place, len(self)):
                last = i + 1 == len(self)
                end = self._end if last else self._starts[i + 1]
                yield self._parse(file.read(end - self._starts[i]))

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

    def _index(self, content):
        text, encoding, self._codec = decode_table(self.path, content)
        if not text.strip():
            raise LMACError(f"{self.path}: is empty")
        if encoding != "UTF-8":
            logger.warning(
                "%s: found %s, expected UTF-8; read so", self.path, encoding
            )
        self._separator = _separator_of(text)
        # The rest are the bytes that mark the encoding.
        self._end = len(content) - len(text.encode(self._codec))
        self._used, self._n_short, self._header = set(), 0, None
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
        reader = csv.reader(
            map(self._count, lines), delimiter=self._separator, strict=True
        )
        start, line = self._end, 1
        for fields in reader:
            fields = [field.strip() for field in fields]
            if any(fields):
                yield line, start, fields
            start, line = self._end, reader.line_num + 1

    def _count(self, line):
        """The line; its bytes are counted."""
        self._end += len(line.encode(self._codec))
        return line

    def _add(self, line, start, fields):
        """Note where a row is; the first one may be the header."""
        if self._header is None:
            self._header = fields
            if not any(map(is_audio, fields)):
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
        fields = next(csv.reader(text, delimiter=self._separator), [])
        fields += [""] * (len(self._header) - len(fields))
        return {
            name: _or_missing(fields[i].strip())
            for name, i in zip(self.columns, self._kept)
        }


class _JsonRows(Rows):
    """Of a file of JSON lines."""

    def _index(self, content):
        columns = {}
        start = 0
        for line, text in enumerate(io.BytesIO(content), 1):
            if text.strip():
                columns.update(dict.fromkeys(self._load(text, line)))
                self._starts.append(start)
                self._lines.append(line)
            start += len(text)
        self._end = start
        self.columns = list(columns)

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

    def _parse(self, content):
        found = self._load(content.split(b"\n")[0], "?")
        return {name: as_text(found.get(name)) for name in self.columns}


def open_rows(path):
    r"""Open a table: csv with any usual separator, or JSON lines.

    The first row of a csv names the columns, unless it names a sound. What
    pandas takes for a missing value is one.

    Arguments
    ---------
    path : str or Path
        The file.

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
    is_json = Path(path).suffix.lower() in (".jsonl", ".ndjson", ".json")
    return (_JsonRows if is_json else _CsvRows)(path)


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
        Text, number, truth value, list or dict.

    Returns
    -------
    str or None
        None for a missing value.

    Example
    -------
    >>> as_text(1.5), as_text(True), as_text(["a", 1]), as_text(float("nan"))
    ('1.5', 'true', '["a", 1]', None)
    """
    if not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False, default=str)
    # Half of a letter, which JSON allows, cannot be written to other files.
    value = value.encode("utf-8", "backslashreplace").decode()
    return _or_missing(value.strip())


def _or_missing(text):
    """The text, or None for one that stands for nothing."""
    return None if text in _MISSING else text


def _separator_of(text):
    """What divides the first rows into the most fields, as many in each."""

    def fit(separator):
        lines = io.StringIO(text, newline="")
        widths = []
        try:
            for fields in csv.reader(lines, delimiter=separator):
                if any(fields):
                    widths.append(len(fields))
                if len(widths) == _LOOKED_AT:
                    break
        except csv.Error:
            pass  # said when it is read
        if not widths:
            return False, 0, 0
        n_fields = widths[0]
        alike = sum(width == n_fields for width in widths) / len(widths)
        return n_fields > 1, alike, n_fields

    return max(_SEPARATORS, key=fit)
