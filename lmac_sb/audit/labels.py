"""The labels of a corpus as classes of a model."""

from lmac_sb.data.table import read_table
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Labels", "read_classes_map"]


class Labels:
    """Which class of a model each label is, and whether a decision is right.

    A label is a class of the model by its name, in small or capital letters,
    by its id (as of AudioSet), or by a table of the user's; else it is
    unknown, and nothing is right or wrong of its clips.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Of the model.
    mapping : dict
        Label to class, for those that have another name, see
        `read_classes_map`.

    Raises
    ------
    LMACError
        If the mapping names what is no class of the model.

    Example
    -------
    >>> labels = Labels(interpreter, {"kitten": "cat"})
    >>> labels.name("Dog"), labels.name("kitten"), labels.name("rain")
    ('dog', 'cat', None)
    >>> labels.right("dog", "cow"), labels.right("rain", "cow")
    (False, None)
    """

    def __init__(self, interpreter, mapping=None):
        self._interpreter = interpreter
        self._numbers = {}
        for label, name in (mapping or {}).items():
            try:
                self._numbers[label] = interpreter.class_number(name)
            except LMACError as error:
                raise LMACError(
                    f"classes map: {shown(label)}: {error}"
                ) from None

    def _number(self, label):
        """Number of the class that a label is, or None."""
        if label not in self._numbers:
            try:
                number = self._interpreter.class_number(label)
            except LMACError:
                number = None
            self._numbers[label] = number
        return self._numbers[label]

    def name(self, label):
        """What the model calls a label.

        Arguments
        ---------
        label : str
            Of the corpus, or None.

        Returns
        -------
        str or None
            None if it does not know it.
        """
        number = None if label is None else self._number(label)
        return None if number is None else self._interpreter.classes[number]

    def right(self, label, decision):
        """Whether a decision is right, as reports have it.

        Arguments
        ---------
        label : str
            Of the corpus, or None.
        decision : str
            A class of the model.

        Returns
        -------
        bool or None
            A class that contains the label, or that the label contains, is
            right too. None if the label is unknown.
        """
        if self.name(label) is None:
            return None
        number, families = self._number(label), self._interpreter.families
        other = self._interpreter.classes.index(decision)
        if families is not None and len(families) == len(
            self._interpreter.classes
        ):
            return families.related(number, other)
        return number == other


def read_classes_map(path):
    r"""A table that says which class of the model each label is.

    Arguments
    ---------
    path : str or Path
        A csv file with the columns ``label`` and ``class``.

    Returns
    -------
    dict
        Label to class.

    Raises
    ------
    LMACError
        If it is no such table, or names a label twice.

    Example
    -------
    >>> path = getfixture("tmp_path") / "map.csv"
    >>> _ = path.write_text("label,class\ncrying_baby,Baby cry\n")
    >>> read_classes_map(path)
    {'crying_baby': 'Baby cry'}
    """
    found = {}
    for line, row in read_table(path, ["label", "class"]):
        if row["label"] in found:
            raise LMACError(
                f"{path}: line {line}: the label {shown(row['label'])} is "
                "there twice, expected once"
            )
        found[row["label"]] = row["class"]
    return found
