"""Kinds of values that a key may have, each with a name for messages."""

import sys
from typing import Callable, NamedTuple

from lmac_sb.utils.errors import is_number, is_whole

__all__ = [
    "Kind",
    "choice",
    "either",
    "listing",
    "number",
    "optional",
    "whole",
]


class Kind(NamedTuple):
    """A set of values, and how to name it in a message.

    Arguments
    ---------
    name : str
        Name of the set, such as ``a number above 0``.
    holds : callable
        Takes a value and returns whether it is in the set.

    Example
    -------
    >>> number(above=0).holds(0.1), number(above=0).holds(True)
    (True, False)
    """

    name: str
    holds: Callable


def number(low=None, high=None, above=None, whole=False):
    """Finite numbers in a range, without booleans.

    Arguments
    ---------
    low, high : float
        Smallest and largest number, or None.
    above : float
        Number that they must exceed, or None.
    whole : bool
        Whether only whole numbers count.

    Returns
    -------
    Kind
    """
    name = "a whole number" if whole else "a number"
    if above is not None:
        name += f" above {above}"
    if low is not None:
        name += f" of at least {low}"
    if high is not None:
        name += f" and at most {high}"

    def holds(value):
        """Whether a value is one of these numbers."""
        if not (is_whole(value) if whole else is_number(value)):
            return False
        # NaN compares as false; a whole number may be too large for a float.
        return (
            abs(value) <= sys.float_info.max
            and (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
        )

    return Kind(name, holds)


def whole(low, high=None):
    """Whole numbers in a range.

    Arguments
    ---------
    low, high : int
        Smallest and largest number, or None.

    Returns
    -------
    Kind
    """
    return number(low, high, whole=True)


def choice(*values):
    """One of some words.

    Arguments
    ---------
    *values : str
        The words.

    Returns
    -------
    Kind
    """
    return Kind(
        f"one of {', '.join(values)}",
        lambda value: isinstance(value, str) and value in values,
    )


def listing(kind, at_least=1):
    """Lists whose items are all of one kind.

    Arguments
    ---------
    kind : Kind
        Kind of each item.
    at_least : int
        Minimum length.

    Returns
    -------
    Kind
    """
    article = "a non-empty" if at_least else "a"
    return Kind(
        f"{article} list in which each item is {kind.name}",
        lambda value: (
            isinstance(value, list)
            and len(value) >= at_least
            and all(map(kind.holds, value))
        ),
    )


def either(first, second):
    """Values of one kind or another.

    Arguments
    ---------
    first, second : Kind
        The two kinds.

    Returns
    -------
    Kind
    """
    return Kind(
        f"{first.name} or {second.name}",
        lambda value: first.holds(value) or second.holds(value),
    )


def optional(kind):
    """Values of a kind, or null.

    Arguments
    ---------
    kind : Kind
        Kind of the values that are not null.

    Returns
    -------
    Kind

    Example
    -------
    >>> optional(number(above=0)).name
    'a number above 0 or null'
    """
    return either(kind, Kind("null", lambda value: value is None))


flag = Kind("True or False", lambda value: isinstance(value, bool))
text = Kind("a text", lambda value: isinstance(value, str) and value.strip())
path = Kind("a path", text.holds)
table = Kind("names with values", lambda value: isinstance(value, dict))
positive = number(above=0)
weight = number(low=0)
share = number(low=0, high=1)
folds = Kind(
    "the number of a fold or a non-empty list of such numbers",
    either(whole(0), listing(whole(0))).holds,
)
names = either(text, listing(text))
split = choice("train", "valid", "test")
model = optional(path)
