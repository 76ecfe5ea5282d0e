"""The nearest word to one that is unknown."""

import difflib

__all__ = ["near", "nearest"]


def near(word, known):
    """A hint at the word that was meant.

    Arguments
    ---------
    word : str
        What was found.
    known : iterable of str
        What could have been meant.

    Returns
    -------
    str
        To be put after a message; empty if nothing is similar.

    Example
    -------
    >>> near("exprot", ["explain", "export"]), near("x", ["explain"])
    ("; did you mean 'export'?", '')
    """
    found = nearest(word, known)
    return "" if found is None else f"; did you mean '{found}'?"


def nearest(word, known):
    """The known word that is most like one that is unknown.

    Arguments
    ---------
    word : str
        What was found.
    known : iterable of str
        What could have been meant.

    Returns
    -------
    str or None
        None if nothing is similar.

    Example
    -------
    >>> nearest("exprot", ["explain", "export"]), nearest("x", ["explain"])
    ('export', None)
    """
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return found[0] if found else None
