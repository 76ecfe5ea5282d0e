"""Where in a clip its sound is, if that is known."""

import hashlib
import math
from pathlib import Path

from lmac_sb.data.scene_folder import REGIONS
from lmac_sb.data.table import read_table
from lmac_sb.utils.errors import LMACError

__all__ = ["read_regions", "regions_identity"]


def read_regions(data_folder):
    """Where in time the sound of a clip is, if `active_regions.csv` tells.

    A clip that has several rows, such as of a dog that barks twice, sounds in
    all of them.

    Arguments
    ---------
    data_folder : str or Path
        In the layout of ESC-50.

    Returns
    -------
    dict
        Clip to a list of (onset, offset) in seconds; empty without the file.

    Raises
    ------
    LMACError
        If the file lacks a column, or tells no onset before an offset.

    Example
    -------
    >>> read_regions("/no/such/folder")
    {}
    """
    path = Path(data_folder) / "meta" / REGIONS
    if not path.is_file():
        return {}
    rows = read_table(path, ["filename", "onset", "offset"])
    regions = {}
    for line, row in rows:
        try:
            region = float(row["onset"]), float(row["offset"])
        except ValueError as error:
            raise LMACError(
                f"{path}, line {line}: expected onset and offset in seconds "
                f"({error})"
            ) from error
        onset, offset = region
        if not 0 <= onset < offset < math.inf:
            raise LMACError(
                f"{path}, line {line}: found onset {onset:g} and offset "
                f"{offset:g}, expected 0 <= onset < offset"
            )
        regions.setdefault(Path(row["filename"]).stem, []).append(region)
    return regions


def regions_identity(regions):
    """The regions as a part of what a run is.

    Arguments
    ---------
    regions : dict
        From `read_regions`.

    Returns
    -------
    dict
        ``sha256``, and ``what``, a description.

    Example
    -------
    >>> regions_identity({"a": [(0.0, 1.5), (2.0, 2.5)]})["what"]
    'known regions of 1 clips'
    """
    digest = hashlib.sha256(repr(sorted(regions.items())).encode()).hexdigest()
    return {"sha256": digest, "what": f"known regions of {len(regions)} clips"}
