"""Rows of a table in Parquet files, of which all get one schema.

A row is a dict of texts, numbers, truth values, nothing (null), or lists of
these. What a column holds is found from its values, and may be another thing
in another file: `common_schema` is what holds all of them, and `fit` brings a
table to it. NaN is a number, and not the same as null.
"""

import functools
import io
import json

from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.extra import needed
from lmac_sb.utils.io import first_line, write_in_one_step

__all__ = [
    "common_schema",
    "fit",
    "read_about",
    "read_rows",
    "read_schema",
    "table_of",
    "write_table",
]

_ABOUT = b"lmac_sb"  # key of what a file says of itself
_LARGEST = 1 << 53  # whole number that a floating-point one holds exactly


def table_of(rows):
    """A table of rows, whose columns come in the order of their first value.

    Arguments
    ---------
    rows : list of dict
        Column to value; one that is missing is null.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    LMACError
        If a value is none that a column can hold.

    Example
    -------
    >>> table = table_of([{"id": "a"}, {"id": "b", "p": 0.5}])
    >>> table.to_pylist()
    [{'id': 'a', 'p': None}, {'id': 'b', 'p': 0.5}]
    """
    pa = needed("pyarrow")
    rows = [
        {_text(name): _plain(value) for name, value in row.items()}
        for row in rows
    ]
    kinds = {}
    for row in rows:
        for name, value in row.items():
            kind = kinds.get(name, pa.null())
            kinds[name] = _wider(kind, _kind_of(value, name))
    arrays = [
        _array([row.get(name) for row in rows], kind)
        for name, kind in kinds.items()
    ]
    return pa.table(arrays, pa.schema(kinds.items()))


def common_schema(one, other):
    """The schema that holds what two tables hold.

    Nothing gives way to anything, a truth value to a number, a whole number
    to any number, and all to a text.

    Arguments
    ---------
    one, other : pyarrow.Schema
        Of the first table, whose columns come first, and of the next.

    Returns
    -------
    pyarrow.Schema

    Example
    -------
    >>> one = table_of([{"id": "a", "x": None}]).schema
    >>> other = table_of([{"x": 1.5, "id": "b", "y": 1}]).schema
    >>> common_schema(one, other).names
    ['id', 'x', 'y']
    >>> common_schema(one, other).field("x").type
    DataType(double)
    """
    kinds = {field.name: field.type for field in one}
    for field in other:
        kind = kinds.get(field.name, needed("pyarrow").null())
        kinds[field.name] = _wider(kind, field.type)
    return needed("pyarrow").schema(kinds.items())


def fit(table, schema):
    """A table with the columns of a schema that holds what it holds.

    Arguments
    ---------
    table : pyarrow.Table
        The table.
    schema : pyarrow.Schema
        From `common_schema`.

    Returns
    -------
    pyarrow.Table

    Example
    -------
    >>> schema = table_of([{"x": 1.5, "y": "a"}]).schema
    >>> fit(table_of([{"x": 1}]), schema).to_pylist()
    [{'x': 1.0, 'y': None}]
    """
    pa = needed("pyarrow")
    arrays = []
    for field in schema:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(len(table), field.type))
        elif table.schema.field(field.name).type == field.type:
            arrays.append(table.column(field.name))
        else:
            values = table.column(field.name).to_pylist()
            arrays.append(_array(values, field.type))
    return pa.table(arrays, schema)


def write_table(path, table, about=None):
    """Write a table to a Parquet file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    table : pyarrow.Table
        The same table gives the same bytes.
    about : dict
        What the file says of itself, for `read_about`.

    Raises
    ------
    OSError
        Names the file, if it could not be written.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.parquet"
    >>> write_table(path, table_of([{"p": 0.5}]), {"part": 1})
    >>> read_rows(path).to_pylist(), read_about(path)
    ([{'p': 0.5}], {'part': 1})
    """
    pa = needed("pyarrow")
    text = json.dumps(about or {}, sort_keys=True)
    table = table.replace_schema_metadata({_ABOUT: text.encode()})
    # In memory first: an error of the disk then names the disk's fault.
    buffer = io.BytesIO()
    pa.parquet.write_table(
        table.combine_chunks(),
        buffer,
        row_group_size=max(1, len(table)),
        compression="zstd",
        write_page_checksum=True,
    )
    write_in_one_step(
        path, lambda file: file.write(buffer.getbuffer()), binary=True
    )


def _reading(read):
    """Let a function that reads a file name what is wrong with it."""

    @functools.wraps(read)
    def wrapper(path, *more):
        """Call it."""
        pa = needed("pyarrow")
        try:
            return read(path, *more)
        except FileNotFoundError as error:
            raise LMACError(f"{path}: no such file") from error
        except (OSError, ValueError, pa.ArrowException) as error:
            raise LMACError(
                f"{path}: cannot be read as Parquet ({first_line(error)})"
            ) from error

    return wrapper


@_reading
def read_rows(path, columns=None):
    """Read the table of a Parquet file, with its checksums.

    Arguments
    ---------
    path : str or Path
        The file.
    columns : list of str
        Those to read; by default all. A name that it lacks is left out.

    Returns
    -------
    pyarrow.Table

    Raises
    ------
    LMACError
        If it is missing, truncated or damaged.

    Example
    -------
    >>> read_rows("gone.parquet")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: gone.parquet: no such file
    """
    with needed("pyarrow").parquet.ParquetFile(
        path, page_checksum_verification=True
    ) as file:
        if columns is not None:
            known = file.schema_arrow.names
            columns = [name for name in columns if name in known]
        return file.read(columns).replace_schema_metadata()


@_reading
def read_schema(path):
    """Columns of a Parquet file.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    pyarrow.Schema

    Raises
    ------
    LMACError
        If it is missing or truncated.
    """
    return needed("pyarrow").parquet.read_schema(path).remove_metadata()


@_reading
def read_about(path):
    """What a file of `write_table` says of itself.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    LMACError
        If it is missing or truncated, or says nothing.
    """
    said = needed("pyarrow").parquet.read_schema(path).metadata or {}
    return json.loads(said.get(_ABOUT, b""))


def _plain(value):
    """A value without the types of numpy and torch, and with valid text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    return value


def _text(value):
    """Text that can be encoded; names of files may hold other bytes."""
    return value.encode("utf-8", "backslashreplace").decode()


def _kind_of(value, name):
    """Type of a column that holds a value."""
    pa = needed("pyarrow")
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        # As in JSON: larger ones are names, and must not lose a digit.
        return pa.int64() if abs(value) <= _LARGEST else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list):
        kinds = (_kind_of(item, name) for item in value)
        return pa.list_(functools.reduce(_wider, kinds, pa.null()))
    raise LMACError(
        f"column {shown(name)}: found {shown(value)}, expected a text, a "
        "number, true or false, null, or a list of these"
    )


def _wider(one, other):
    """Type that holds the values of both types."""
    pa = needed("pyarrow")
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_wider(one.value_type, other.value_type))
    numbers = [pa.bool_(), pa.int64(), pa.float64()]
    if one in numbers and other in numbers:
        return numbers[max(numbers.index(one), numbers.index(other))]
    return pa.string()


def _array(values, kind):
    """Values as a column of a type that holds them."""
    return needed("pyarrow").array([_as(value, kind) for value in values], kind)


def _as(value, kind):
    """A value as one of a type that holds it."""
    types = needed("pyarrow").types
    if value is None:
        return None
    if types.is_list(kind):
        return [_as(item, kind.value_type) for item in value]
    if types.is_string(kind):
        return value if isinstance(value, str) else json.dumps(value)
    if types.is_floating(kind):
        return float(value)
    return int(value) if types.is_integer(kind) else value
