"""Which column of a table names the files or clips."""

import re

from lmac_sb.data.columns import FILE, LABEL, place_among
from lmac_sb.data.names import is_audio
from lmac_sb.utils.errors import shown

__all__ = ["choose_column", "say_rivals", "whole_number"]

_MOST = 0.5  # share that a column has to name, to be one of names
# What programs call a column that had no name.
_UNNAMED = re.compile(
    r"(unnamed:|column|level_|__index_level_) ?\d+(__)?|index"
)
_WHOLE = re.compile(r"(0|[1-9]\d*)(\.0+)?")  # also as pandas has it


def choose_column(texts, found, share_of_clips=1.0):
    """The column that names the clips, and others that might.

    A usual name counts, as long as most clips are named. Plain numbers, as of
    an index, name clips only where no other column does: any table has them,
    and clips that are called 0.wav, 1.wav, ... fit them by chance.

    Arguments
    ---------
    texts : dict
        Column to its texts in some rows, None for a missing one.
    found : dict
        Column to what these rows name by it, None for nothing.
    share_of_clips : float
        How many of all clips one for each row would be, at most 1; for tables
        that are of more clips than there are.

    Returns
    -------
    column : str or None
        None if no column names anything.
    rivals : list of str
        Others that name most clips, but in some row another one.

    Example
    -------
    >>> texts = {"id": ["0", "1", "2"], "file": ["1.wav", "0.wav", "7.wav"]}
    >>> choose_column(texts, {"id": [0, 1, 2], "file": [1, 0, None]})
    ('file', ['id'])
    """
    ranks, rivals = {}, []
    for name, clips in found.items():
        n_found = len(set(clips) - {None})
        if n_found:
            most = n_found >= _MOST * share_of_clips * len(clips)
            ranks[name] = _rank(name, texts[name], n_found, most)
            if most and place_among(name, LABEL) is None:
                rivals.append(name)
    if not ranks:
        return None, []
    best = max(ranks, key=ranks.get)
    return best, [x for x in rivals if _differ(found[x], found[best])]


def _rank(name, texts, n_found, most):
    """How well a column does, to be compared."""
    texts = [text for text in texts if text is not None]
    place = place_among(name, FILE)
    usual = (place is not None, -(place or 0))
    is_text = not all(map(_WHOLE.fullmatch, texts))
    is_weak = (
        _UNNAMED.fullmatch(name.casefold())
        or place_among(name, LABEL) is not None
        or not (is_text or usual[0])
        or _is_counter(texts)
    )
    if most and not is_weak:
        return 2, usual[0], is_text, n_found, usual
    is_sound = 2 * sum(map(is_audio, texts)) > len(texts)
    return int(is_sound and not is_weak), n_found, usual


def _is_counter(texts):
    """Whether these are whole numbers that go up, each once."""
    if not all(map(_WHOLE.fullmatch, texts)):
        return False
    numbers = [int(text.partition(".")[0]) for text in texts]
    return all(low < high for low, high in zip(numbers, numbers[1:]))


def _differ(clips, others):
    """Whether a row names a clip that it does not name by the others."""
    return any(
        clip is not None and clip != other for clip, other in zip(clips, others)
    )


def say_rivals(path, column, rivals):
    """Which column was taken, where others name other clips.

    Arguments
    ---------
    path : str or Path
        Of the table.
    column : str
        The one that was taken.
    rivals : list of str
        See `choose_column`.

    Returns
    -------
    list of str
        A line, or none.

    Example
    -------
    >>> say_rivals("x.csv", "file", [])
    []
    """
    if not rivals:
        return []
    return [
        f"{path}: the columns {', '.join(map(shown, [column, *rivals[:-1]]))} "
        f"and {shown(rivals[-1])} name different clips; {shown(column)} is "
        "taken, file_column can name another"
    ]


def whole_number(text):
    """A whole number without the point that pandas gives it among missing ones.

    Arguments
    ---------
    text : str
        Of a table.

    Returns
    -------
    str
        Another text as it is.

    Example
    -------
    >>> whole_number("7.0"), whole_number("7.5"), whole_number("a.0")
    ('7', '7.5', 'a.0')
    """
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text
