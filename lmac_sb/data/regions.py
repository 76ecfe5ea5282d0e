"""Where in a clip its sound is, if that is known."""

import csv
from pathlib import Path

from lmac_sb.utils.errors import LMACError

__all__ = ["read_regions"]


def read_regions(data_folder):
    """Where in time the sound of a clip is, if `active_regions.csv` tells.

    Arguments
    ---------
    data_folder : str or Path
        In the layout of ESC-50.

    Returns
    -------
    dict
        Clip to (onset, offset) in seconds; empty without the file.

    Raises
    ------
    LMACError
        If the file lacks a column or holds no numbers.

    Example
    -------
    >>> read_regions("/no/such/folder")
    {}
    """
    path = Path(data_folder) / "meta" / "active_regions.csv"
    if not path.is_file():
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {
                Path(row["filename"]).stem: (
                    float(row["onset"]),
                    float(row["offset"]),
                )
                for row in csv.DictReader(file)
            }
    except (KeyError, TypeError, ValueError) as error:
        raise LMACError(
            f"{path}: expected the columns filename, onset and offset in "
            f"seconds ({error!r})"
        ) from error
