"""Tables of clips as csv, whatever program wrote them."""

import codecs
import csv
import io
import logging
import re
from pathlib import Path

from lmac_sb.utils.errors import LMACError, shown

__all__ = ["csv_rows", "decode_table", "find_separator", "read_table"]

logger = logging.getLogger(__name__)

_SEPARATORS = ",;\t"
_LONGEST = (1 << 31) - 1  # characters of a field; Python's own limit is short
# The first line that Excel writes or asks for.
_SEP = re.compile(r'"?sep=([^\w"\r\n])"?(\r\n|\r|\n)', re.IGNORECASE)
# What speaks against Latin-1: bytes that are no letter of it, and two in a row,
# which are more often text in an encoding of another script.
_NOT_LATIN = re.compile(rb"[\x80-\xbf\xd7\xf7]|[\x80-\xff]{2}")


def read_table(path, columns, content=None):
    r"""Rows of a csv table with a header.

    Commas, semicolons or tabs separate its fields. It is in UTF-8, in UTF-16,
    or in Latin-1 where no other encoding makes sense; of one that is not in
    UTF-8, a warning says what was found. Blank lines are left out.

    Arguments
    ---------
    path : str or Path
        The file.
    columns : list of str
        Those that it must have, in any case; it may have more.
    content : bytes
        Of the file, if it has been read.

    Returns
    -------
    list of (int, dict)
        Number of the line, and its fields by column, without blanks around
        them.

    Raises
    ------
    LMACError
        If it is no such table; names the file and the line.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> _ = path.write_bytes(b'clip;class\n\n"a;b";caf\xe9\n')
    >>> read_table(path, ["clip", "class"])
    [(3, {'clip': 'a;b', 'class': 'café'})]
    """
    try:
        content = Path(path).read_bytes() if content is None else content
    except OSError as error:
        raise LMACError(f"{path}: cannot be read ({error})") from error
    text, encoding, _ = decode_table(path, content)
    if not text.strip():
        raise LMACError(f"{path}: is empty")
    try:
        header, rows = _parse(text, columns)
    except csv.Error as error:
        raise LMACError(f"{path}: is not a csv file ({error})") from error
    missing = [name for name in columns if name not in header]
    if missing and encoding != "UTF-8":
        raise LMACError(f"{path}: is not a csv file (no text in {encoding})")
    if missing:
        raise LMACError(
            f"{path}: has no column {missing[0]!r}, found {shown(header)}, "
            f"expected {', '.join(columns)}"
        )
    if encoding != "UTF-8":
        logger.warning("%s: found %s, expected UTF-8; read so", path, encoding)
    for name in columns:
        if header.count(name) > 1:
            raise LMACError(f"{path}: has the column {name!r} twice")
    for line, row in rows:
        if len(row) != len(header):
            raise LMACError(
                f"{path}, line {line}: expected {len(header)} fields, as in "
                f"the header, found {len(row)}"
            )
    return [(line, dict(zip(header, row))) for line, row in rows]


def decode_table(path, content):
    r"""Text of a table in UTF-8, UTF-16 or Latin-1.

    Arguments
    ---------
    path : str or Path
        The file, for messages.
    content : bytes
        What is in it.

    Returns
    -------
    text : str
        Without the mark that may stand before it.
    name : str
        Of the encoding, for messages.
    codec : str
        The same for Python; it makes no mark.

    Raises
    ------
    LMACError
        If no encoding makes sense; names the line.

    Example
    -------
    >>> decode_table("x.csv", b"caf\xe9")
    ('café', 'Latin-1', 'latin-1')
    """
    name, codec, mark = "UTF-8", "utf-8", codecs.BOM_UTF8
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        mark = content[:2]
        low_first = mark == codecs.BOM_UTF16_LE
        name, codec = "UTF-16", "utf-16-le" if low_first else "utf-16-be"
    elif b"\0" in content[:2]:  # one of the two bytes of its first letter
        low_first = content[1:2] == b"\0"
        name, codec = "UTF-16", "utf-16-le" if low_first else "utf-16-be"
    try:
        return content.removeprefix(mark).decode(codec), name, codec
    except UnicodeDecodeError as error:
        if name == "UTF-8" and not _NOT_LATIN.search(content):
            return content.decode("latin-1"), "Latin-1", "latin-1"
        line = content.count(b"\n", 0, error.start) + 1
        raise LMACError(
            f"{path}: is not a csv file in {name} (line {line}: "
            f"{error.reason}), nor clear in another encoding; save it as UTF-8"
        ) from error


def csv_rows(lines, separator, strict=False):
    """A reader of csv whose fields may be of any length.

    Arguments
    ---------
    lines : iterable of str
        The table.
    separator : str
        Between its fields.
    strict : bool
        Whether wrong quotes are refused.

    Returns
    -------
    reader
        Of the package csv.

    Example
    -------
    >>> len(next(csv_rows(["x" * 200_000], ","))[0])
    200000
    """
    if csv.field_size_limit() < _LONGEST:
        csv.field_size_limit(_LONGEST)
    return csv.reader(lines, delimiter=separator, strict=strict)


def find_separator(text):
    r"""The separator that a table names in its first line, as Excel does.

    Arguments
    ---------
    text : str
        The table.

    Returns
    -------
    separator : str or None
        None if it names none.
    line : str
        The line that does; else empty.

    Example
    -------
    >>> find_separator("sep=;\na;b\n"), find_separator("sep;a\n")
    ((';', 'sep=;\n'), (None, ''))
    """
    found = _SEP.match(text)
    return (found[1], found[0]) if found else (None, "")


def _parse(text, columns):
    """The header, and line number and fields of each other row."""
    separator, named = find_separator(text)
    text = text[len(named) :]
    separator = separator or next(
        (
            x
            for x in _SEPARATORS
            if set(columns) <= set(_header(text, x, columns))
        ),
        ",",
    )
    rows = list(_rows(text, separator, strict=True))
    rows = [(line + bool(named), fields) for line, fields in rows]
    return _as_wanted(rows[0][1] if rows else [], columns), rows[1:]


def _header(text, separator, columns):
    """The header, if its fields are separated in this way."""
    fields = next(_rows(text, separator, strict=False), (1, []))[1]
    return _as_wanted(fields, columns)


def _as_wanted(header, columns):
    """A header with the wanted columns in their case, where they are not so."""
    wanted = {x.casefold(): x for x in columns if x not in header}
    return [wanted.get(name.casefold(), name) for name in header]


def _rows(text, separator, strict):
    """Line number and fields of each row that is not blank."""
    lines = io.StringIO(text, newline="")
    reader = csv_rows(lines, separator, strict)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields
