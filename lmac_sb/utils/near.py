"""The nearest word to one that is unknown."""

import difflib

__all__ = ["near"]


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
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean '{found[0]}'?" if found else ""
