"""Files that appear complete or not at all, and their checksums."""

import csv
import hashlib
import json
import os
from pathlib import Path

from lmac_sb.utils.errors import LMACError

__all__ = [
    "file_sha256",
    "first_line",
    "is_write_error",
    "read_json",
    "write_csv",
    "write_in_one_step",
    "write_json",
]


def write_csv(path, rows):
    """Write rows to a csv file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    rows : list of dict
        At least one; all with the same keys.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> write_csv(path, [{"id": "a", "AI": 100.0}])
    >>> print(path.read_text())
    id,AI
    a,100.0
    <BLANKLINE>
    """

    def write(file):
        """Write the table to an open file."""
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

    write_in_one_step(path, write)


def read_json(path):
    """Content of a JSON file.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    object

    Raises
    ------
    LMACError
        If the file holds something else.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> _ = path.write_text("{")
    >>> read_json(path)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x.json: not JSON (...)
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LMACError(f"{path}: not JSON ({error})") from error


def write_json(path, content):
    """Write JSON to a file in one step.

    Arguments
    ---------
    path : str or Path
        The file; only a complete one ever has this name.
    content : object
        What to write.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> write_json(path, [1])
    >>> json.loads(path.read_text())
    [1]
    """
    write_in_one_step(path, lambda file: json.dump(content, file, indent=1))


def write_in_one_step(path, write, binary=False):
    """Write a file of which only a complete one ever has its name.

    Arguments
    ---------
    path : str or Path
        The file.
    write : callable
        Gets an open file and writes to it.
    binary : bool
        Whether that file takes bytes.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.txt"
    >>> write_in_one_step(path, lambda file: print("all", file=file))
    >>> path.read_text()
    'all\\n'
    """
    part = Path(f"{path}.part")
    text = {} if binary else {"encoding": "utf-8", "newline": ""}
    try:
        with open(part, "wb" if binary else "w", **text) as file:
            write(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_sha256(path):
    """Checksum of a file of any size.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    str
        Hexadecimal.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def is_write_error(error):
    """Whether a file could not be written, rather than anything else.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    bool
    """
    # PyTorch's own writer raises no OSError; nor do lost processes.
    return isinstance(error, OSError) or "inline_container" in str(error)


def first_line(error):
    """What an error says, in short.

    Arguments
    ---------
    error : Exception
        Any.

    Returns
    -------
    str
        The first line of its text, or the name of its class.
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
