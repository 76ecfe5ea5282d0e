"""The Free Spoken Digit Dataset, as a table like that of ESC-50.

https://github.com/Jakobovski/free-spoken-digit-dataset holds one folder of
recordings, whose names consist of the digit, the speaker and a count, such as
``recordings/7_jackson_32.wav``. Its own test split is the counts 0 to 4.
"""

import os
import re
from pathlib import Path

from lmac_sb.utils.errors import LMACError

__all__ = ["RECORDINGS", "digits_table"]

RECORDINGS = "recordings"
DIGITS = "zero one two three four five six seven eight nine".split()
NAME = re.compile(r"([0-9])_([A-Za-z]+)_([0-9]+)\.(wav|flac|ogg)")


def digits_table(data_folder):
    """Table of all recordings, with a fold for each.

    Fold 5 is the data's own test split, counts 0 to 4. Fold 4 holds the counts
    5 to 9. The others go to folds 1 to 3 in turn.

    Arguments
    ---------
    data_folder : str or Path
        Folder that may hold `recordings/`.

    Returns
    -------
    bytes or None
        A csv table with the columns of ESC-50's table; None if the folder has
        no `recordings/`, or a table of its own.

    Raises
    ------
    LMACError
        If the name of a file in `recordings/` has another form.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "recordings").mkdir()
    >>> (folder / "recordings" / "7_jackson_32.wav").touch()
    >>> print(digits_table(folder).decode(), end="")
    filename,fold,target,category
    7_jackson_32.wav,3,7,seven
    """
    data_folder = Path(data_folder)
    recordings = data_folder / RECORDINGS
    if (data_folder / "meta").exists() or not recordings.is_dir():
        return None
    lines = ["filename,fold,target,category"]
    for name in sorted(os.listdir(recordings)):
        if name.startswith("."):
            continue
        found = NAME.fullmatch(name)
        if found is None:
            raise LMACError(
                f"{recordings / name}: is no recording of a digit, expected a "
                "name such as 7_jackson_32.wav"
            )
        digit, count = int(found[1]), int(found[3])
        fold = 5 if count < 5 else 4 if count < 10 else 1 + count % 3
        lines.append(f"{name},{fold},{digit},{DIGITS[digit]}")
    return "".join(f"{line}\n" for line in lines).encode()
