"""What a collection of clips holds, before it is put into order."""

from lmac_sb.data.columns import label_of
from lmac_sb.data.texts import Labels, Texts

__all__ = ["Listing", "known_split"]

_SPLITS = {
    "train": ("train", "training"),
    "valid": ("valid", "validation", "val", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}


class Listing:
    """Clips of a collection, each by its number.

    One more kind of collection is a class like this, and a line in
    `lmac_sb.data.corpus.open_corpus`.

    Arguments
    ---------
    names : lmac_sb.data.texts.Texts
        What each is called, below the collection's own place.
    labels : sequence of str or None
        Of each clip, or empty.

    Attributes
    ----------
    columns : list of str
        Names of what `row` gives.
    label_column : str or None
        That of the labels, if they are one of these.
    notes : list of str
        What is odd, a line each.
    lost : list of str
        Where clips are missing whose number is not known, a line each.

    Example
    -------
    >>> from lmac_sb.data.corpus import Corpus
    >>> class Twice(Listing):
    ...     def sound(self, place):
    ...         return path
    >>> [clip.id for clip in Corpus("twice", Twice(["b", "a"]))]
    ['a', 'b']
    """

    def __init__(self, names=(), labels=()):
        self.names = names if isinstance(names, Texts) else Texts(names)
        self.labels = labels if isinstance(labels, Labels) else Labels(labels)
        self.columns, self.label_column = [], None
        self.notes, self.lost = [], []

    def __len__(self):
        return len(self.names)

    def sound(self, place):
        """Where the sound of a clip is.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str, Path, or a place of `lmac_sb.data.places`
        """
        raise NotImplementedError

    def stem(self, place):
        """Where the labelled event of a clip is alone, if it is known.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        str, Path, a place of `lmac_sb.data.places`, or None
        """
        return None

    def row(self, place):
        """What else is known of a clip.

        Arguments
        ---------
        place : int
            Number of the clip.

        Returns
        -------
        dict
            Column to text or None.
        """
        return {}

    def labels_in(self, column):
        """What a column says as labels, by the rule of its own ones.

        Arguments
        ---------
        column : str
            One of its columns.

        Returns
        -------
        lmac_sb.data.texts.Labels
            Of each clip.
        """
        if column == self.label_column:
            return self.labels
        return Labels(map(label_of, self._values_in(column)))

    def _values_in(self, column):
        """What a column has for each clip; by default texts."""
        for place in range(len(self)):
            yield self.row(place).get(column)


def known_split(name):
    """Which split a name stands for.

    Arguments
    ---------
    name : str
        Of a folder or in a table.

    Returns
    -------
    str or None
        ``train``, ``valid`` or ``test``; None for another name.

    Example
    -------
    >>> known_split("Validation"), known_split("dog")
    ('valid', None)
    """
    for split, names in _SPLITS.items():
        if name.casefold() in names:
            return split
    return None
