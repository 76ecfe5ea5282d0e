"""Where in a clip its sound is, and choosing clips."""

import csv
from pathlib import Path

from lmac_sb.utils.errors import LMACError

__all__ = ["read_regions", "thin_out"]


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
            f"{path}: needed are the columns filename, onset and offset in "
            f"seconds ({error!r})"
        ) from error


def thin_out(dataset, n_clips):
    """Keep some of the clips, evenly spread over their order.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`; changed in place.
    n_clips : int
        How many; None for all.

    Raises
    ------
    LMACError
        If it is less than one.

    Example
    -------
    >>> thin_out(dataset, 40)  # doctest: +SKIP
    """
    n_all = len(dataset.data_ids)
    if n_clips is None or n_clips >= n_all:
        return
    if n_clips < 1:
        raise LMACError(f"n_clips: {n_clips}, needed is 1 or more, or null")
    places = [n_all * i // n_clips for i in range(n_clips)]
    dataset.n_samples = [dataset.n_samples[place] for place in places]
    dataset.data_ids = [dataset.data_ids[place] for place in places]
