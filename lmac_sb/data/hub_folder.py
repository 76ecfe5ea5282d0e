"""The files of a data set of Hugging Face."""

import json
import os
import re
from pathlib import Path

from lmac_sb.data.folders import find_files
from lmac_sb.data.listing import known_split
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["find_tables"]

_TABLES = (".parquet", ".arrow")
_NUMBERED = re.compile(r"(?:.*-)?([A-Za-z_]\w*)-\d+-of-\d+.*")
# What a file of JSON may be the cause of.
_WRONG = (OSError, ValueError, LookupError, TypeError, RecursionError)


def find_tables(where):
    """The tables of a data set, and the split of each.

    Arguments
    ---------
    where : str or Path
        What `save_to_disk` wrote, a folder with Parquet or Arrow files, one of
        them, or the name of a split behind such a folder.

    Returns
    -------
    folder : pathlib.Path
        Of the data set.
    tables : dict
        Path of each table below it to its split, None for none; empty if it
        is no such data set.

    Raises
    ------
    LMACError
        If files are missing, there is no such split, or there are several
        configurations.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for name in ("train-00000-of-00001", "test-00000-of-00001"):
    ...     (folder / f"{name}.parquet").touch()
    >>> list(find_tables(folder)[1].values())
    ['test', 'train']
    >>> find_tables(folder / "test")[1]
    {'test-00000-of-00001.parquet': 'test'}
    """
    where = Path(where)
    if where.is_dir():
        return where, _in_folder(where)
    if where.is_file():
        is_table = where.suffix.lower() in _TABLES
        return where.parent, {where.name: None} if is_table else {}
    # A name that is wrong is no reason to search a disk.
    near = [*where.parent.glob("*"), *where.parent.glob("data/*")]
    if not any(path.suffix.lower() in _TABLES for path in near):
        return where, {}
    tables = _in_folder(where.parent)
    found = {x: split for x, split in tables.items() if split == where.name}
    if not found:
        splits = sorted({split for split in tables.values() if split})
        raise LMACError(
            f"{where}: no such file or split, found the splits "
            f"{', '.join(splits) or 'none'}"
        )
    return where.parent, found


def _in_folder(folder):
    """Tables in a folder, with their splits."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        tables = {}
        for split in _read(splits, "splits"):
            for name in _saved(folder / _plain(splits, split)):
                tables[f"{split}/{name}"] = split
        return tables
    if (folder / "state.json").is_file():
        return dict.fromkeys(_saved(folder))
    names = [
        name
        for name in find_files(folder)
        if name.lower().endswith(_TABLES)
        and not os.path.basename(name).startswith("cache-")
    ]
    _check_one_configuration(folder, names)
    return {name: _split_of(name) for name in names}


def _saved(folder):
    """Tables of a data set that was saved, in their order."""
    state = folder / "state.json"
    found = _read(state, "_data_files")
    names = [_plain(state, file.get("filename")) for file in found]
    for name in names:
        if not (folder / name).is_file():
            raise LMACError(f"{folder / name}: missing, {state} lists it")
    return names


def _read(path, key):
    """A list in a JSON file."""
    try:
        found = json.loads(path.read_text("utf-8"))[key]
        if isinstance(found, list):
            return found
    except _WRONG:
        pass
    raise LMACError(f"{path}: has no list {key!r}, which save_to_disk writes")


def _plain(path, name):
    """A name of a file or folder that a JSON file lists."""
    if isinstance(name, str) and name == os.path.basename(name) != "..":
        return name
    raise LMACError(f"{path}: found {shown(name)}, expected a plain name")


def _split_of(name):
    """The split that a table's path tells; None for none."""
    parts = re.split(r"[\W\d_]+", name)
    known = next((part for part in parts if known_split(part)), None)
    numbered = _NUMBERED.fullmatch(os.path.basename(name))
    if known or not numbered or numbered[1] == "data":
        return known
    return numbered[1]


def _check_one_configuration(folder, names):
    """Refuse tables of several data sets in one folder."""
    above = set()
    for name in names:
        parts = name.split("/")[:-1]
        above.add("/".join(x for x in parts if not known_split(x)))
    if len(above) > 1:
        raise LMACError(
            f"{folder}: holds tables of several configurations, in "
            f"{', '.join(sorted(above))}; name one folder of them"
        )
