"""Arrow and Parquet files, read group by group."""

import contextlib
import functools
import os

import numpy as np

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.extra import needed
from lmac_sb.utils.io import first_line

__all__ = [
    "Damaged",
    "count_rows",
    "file_columns",
    "read_batches",
    "read_row",
    "schema_of",
    "spans_of",
    "values_of",
]

_ROWS = 16  # of sounds that are read at a time


class Damaged(LMACError):
    """A table that cannot be read.

    Example
    -------
    >>> schema_of("nowhere.parquet")
    Traceback (most recent call last):
    ...
    lmac_sb.data.columnar.Damaged: nowhere.parquet: cannot be read (...)
    """


@contextlib.contextmanager
def _naming(file):
    """Say of an error which file it is about."""
    try:
        yield
    except (OSError, UnicodeError, needed("pyarrow").ArrowException) as error:
        raise Damaged(
            f"{file}: cannot be read ({first_line(error)})"
        ) from error


def schema_of(file):
    """Columns of a file, and what its maker says of them.

    Arguments
    ---------
    file : str
        Arrow's, by its ending, or Parquet.

    Returns
    -------
    schema : pyarrow.Schema
        The columns and their types.
    parts : dict
        Column to the names of its parts; None if it has none.
    """
    with _naming(file):
        if _is_arrow(file):
            found = _open_arrow(file)[0]
        else:
            with needed("pyarrow").parquet.ParquetFile(file) as opened:
                found = opened.schema_arrow
        # Here it fails if names are no text.
        return found, {field.name: _parts(field.type) for field in found}


def _parts(kind):
    """Names of what a type of several parts consists of."""
    if not needed("pyarrow").types.is_struct(kind):
        return None
    return {kind.field(i).name for i in range(kind.num_fields)}


def file_columns(schema, parts):
    """Columns that hold sounds, or files of other kinds.

    Arguments
    ---------
    schema : pyarrow.Schema
        The columns and their types.
    parts : dict
        See `schema_of`.

    Returns
    -------
    list of str
    """
    types = needed("pyarrow").types
    return [
        name
        for name, kind in zip(parts, schema.types)
        if (parts[name] and parts[name] & {"bytes", "array"})
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    ]


def count_rows(file):
    """Rows in each group of a file.

    Arguments
    ---------
    file : str
        See `schema_of`.

    Returns
    -------
    list of int
    """
    with _naming(file):
        if _is_arrow(file):
            return [len(batch) for batch in _open_arrow(file)[1]]
        with needed("pyarrow").parquet.ParquetFile(file) as opened:
            found = opened.metadata
            numbers = range(found.num_row_groups)
            return [found.row_group(i).num_rows for i in numbers]


def read_batches(file, group, columns):
    """Rows of a group, some at a time, in memory that does not grow.

    Arguments
    ---------
    file : str
        See `schema_of`.
    group : int
        Number of the group.
    columns : list of str
        Which are read.

    Yields
    ------
    pyarrow.RecordBatch

    Returns
    -------
    generator
    """
    if _is_arrow(file):
        yield _open_arrow(file)[1][group].select(columns)
        return
    # Without a buffer for the whole group.
    with needed("pyarrow").parquet.ParquetFile(
        file, pre_buffer=False
    ) as opened:
        yield from opened.iter_batches(_ROWS, [group], columns)


@functools.lru_cache(maxsize=2)
def _read_group(file, state, group, columns):
    """Some columns of a group of a file, which is another in another state."""
    if _is_arrow(file):
        return _open_arrow(file)[1][group].select(columns)
    with needed("pyarrow").parquet.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns)


def read_row(file, group, row, columns):
    """Small columns of a row; the last groups are remembered.

    Arguments
    ---------
    file : str
        See `schema_of`.
    group, row : int
        Number of the group, and of the row in it.
    columns : sequence of str
        Which are read.

    Returns
    -------
    dict
        Column to value.
    """
    with _naming(file):
        state = os.stat(file).st_mtime_ns
        found = _read_group(file, state, group, tuple(columns))
        return {name: found.column(name)[row].as_py() for name in columns}


def values_of(file, group, column, part=None):
    """All values of a small column in a group.

    Arguments
    ---------
    file : str
        See `schema_of`.
    group : int
        Number of the group.
    column : str
        The column.
    part : str
        The part of it, such as ``path``, if it has some.

    Returns
    -------
    list
    """
    import pyarrow.compute

    wanted = f"{column}.{part}" if part else column
    with _naming(file):
        if _is_arrow(file):
            found = _open_arrow(file)[1][group].column(column)
        else:
            with needed("pyarrow").parquet.ParquetFile(file) as opened:
                found = opened.read_row_group(group, [wanted]).column(column)
        if part:
            found = pyarrow.compute.struct_field(found, part)
        return found.to_pylist()


def spans_of(file, group, column):
    """Where the sounds of a group are in the file, if they lie there as such.

    Arguments
    ---------
    file : str
        See `schema_of`.
    group : int
        Number of the group.
    column : str
        The one with sounds.

    Returns
    -------
    offsets, sizes : numpy.ndarray
        In bytes; a size below zero if that sound has to be read by its row.
    """
    if not _is_arrow(file):
        unknown = np.full(count_rows(file)[group], -1)
        return unknown, unknown
    _, batches, address = _open_arrow(file)
    values = batches[group].column(column)
    unknown = np.full(len(values), -1)
    types = needed("pyarrow").types
    if "bytes" in (_parts(values.type) or ()):
        values = values.field("bytes")
    wide = types.is_large_binary(values.type)
    if not wide and not types.is_binary(values.type):
        return unknown, unknown
    _, ends, content = values.buffers()
    ends = np.frombuffer(ends, np.int64 if wide else np.int32)
    ends = ends[values.offset : values.offset + len(values) + 1].astype("i8")
    start = content.address - address if content else -1
    if not 0 <= start <= os.path.getsize(file) - int(ends[-1]):
        return unknown, unknown  # compressed, so elsewhere in memory
    sizes = np.diff(ends)
    sizes[values.is_null().to_numpy(zero_copy_only=False)] = -1
    return start + ends[:-1], sizes


def _is_arrow(file):
    """Whether it is no Parquet file."""
    return file.endswith(".arrow")


def _open_arrow(file):
    """Schema, batches and place in memory of an Arrow file."""
    return _map_arrow(file, os.stat(file).st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _map_arrow(file, state):
    """Map a file, which is another in another state."""
    pa = needed("pyarrow")
    mapped = pa.memory_map(file)
    address = mapped.read_buffer().address
    mapped.seek(0)
    try:
        found = pa.ipc.open_stream(mapped)
        batches = list(found)
    except pa.ArrowInvalid:
        mapped.seek(0)
        found = pa.ipc.open_file(mapped)
        numbers = range(found.num_record_batches)
        batches = [found.get_batch(i) for i in numbers]
    for batch in batches:
        # Else places of a hostile file would be read wherever they lead.
        batch.validate(full=True)
    return found.schema, batches, address
