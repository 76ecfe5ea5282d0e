"""Classes that contain each other: which are parents of which."""

from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Families"]

_WAYS = 2  # of several, those that are shown


class Families:
    """The parents of each class, and the names in use elsewhere.

    A class may have several parents, as *Growling* has (dogs and cats growl).

    Arguments
    ---------
    parents : list of list of int
        Numbers of each class's parents, the nearest ones only.
    ids : list of str
        A further name of each class, such as AudioSet's ``/m/0bt9lr``.

    Raises
    ------
    LMACError
        If a parent is no class, or a class would be its own ancestor.

    Example
    -------
    >>> names = ["animal", "pet", "dog", "music"]
    >>> families = Families([[], [0], [1], []])
    >>> families.title(2, names)
    'dog (animal > pet)'
    >>> families.related(2, 0), families.related(2, 3)
    (True, False)
    """

    def __init__(self, parents, ids=None):
        self.parents = [list(row) for row in parents]
        self.ids = None if ids is None else list(ids)
        if self.ids is not None and len(self.ids) != len(self.parents):
            raise LMACError(
                f"families: found {len(self.ids)} ids, expected one for each "
                f"of the {len(self.parents)} classes"
            )
        for number, row in enumerate(self.parents):
            for parent in row:
                if not 0 <= parent < len(self.parents):
                    raise LMACError(
                        f"families: found {shown(parent)} as a parent of "
                        f"class {number}, expected 0 to "
                        f"{len(self.parents) - 1}"
                    )
        self._above = [self._find_above(n) for n in range(len(self))]

    def __len__(self):
        """Number of classes."""
        return len(self.parents)

    def _find_above(self, number):
        """All ancestors of a class."""
        found, left = set(), list(self.parents[number])
        while left:
            parent = left.pop()
            if parent == number:
                raise LMACError(
                    f"families: found class {number} among its own "
                    "ancestors, expected none to be"
                )
            if parent not in found:
                found.add(parent)
                left += self.parents[parent]
        return frozenset(found)

    def above(self, number):
        """Ancestors of a class.

        Arguments
        ---------
        number : int
            The class.

        Returns
        -------
        frozenset of int
        """
        return self._above[number]

    def related(self, one, other):
        """Whether one of two classes contains the other, or is it.

        Arguments
        ---------
        one, other : int
            Two classes.

        Returns
        -------
        bool
        """
        return (
            one == other
            or other in self._above[one]
            or one in self._above[other]
        )

    def lines(self, number):
        """The ways from the outermost classes down to a class's parents.

        Arguments
        ---------
        number : int
            The class.

        Returns
        -------
        list of list of int
            One for each way; empty if the class has no parents.

        Example
        -------
        >>> Families([[], [0], [], [1, 2]]).lines(3)
        [[0, 1], [2]]
        """
        found = []
        for parent in self.parents[number]:
            found += [[*way, parent] for way in self.lines(parent) or [[]]]
        return found

    def title(self, number, names):
        """A class with its parents, for people.

        Arguments
        ---------
        number : int
            The class.
        names : list of str
            Names of all.

        Returns
        -------
        str
            The name alone, if it has no parents.

        Example
        -------
        >>> names = ["cat", "dog", "growling"]
        >>> Families([[], [], [0, 1]]).title(2, names)
        'growling (cat; dog)'
        """
        above = self.describe(number, names)
        return f"{names[number]} ({above})" if above else names[number]

    def describe(self, number, names):
        """The parents of a class, for people; empty if it has none.

        Arguments
        ---------
        number : int
            The class.
        names : list of str
            Names of all.

        Returns
        -------
        str
            The outermost first. Of several ways the first two, parted by a
            semicolon.
        """
        ways = self.lines(number)
        shown_ways = [" > ".join(names[c] for c in w) for w in ways[:_WAYS]]
        if len(ways) > _WAYS:
            shown_ways.append("...")
        return "; ".join(shown_ways)
