"""The labels of a corpus as classes of a model."""

from lmac_sb.data.names import alike
from lmac_sb.data.table import read_table
from lmac_sb.inference.questions import class_number
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
        Label, in small or capital letters, to the name or number of a class,
        for those that have another name, see `read_classes_map`.

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
        self._interpreter, self._mapping = interpreter, mapping or {}
        self._numbers, self._alike = {}, {}
        lines = getattr(mapping, "lines", {})
        for label, name in self._mapping.items():
            place = lines.get(label, f"classes map, label {shown(label)}")
            number = self._mapped(name, place)
            self._numbers[label] = number
            self._alike.setdefault(alike(label), set()).add(number)

    def _mapped(self, name, place):
        """Number of the class that a row of the map names."""
        classes, ids = self._interpreter.classes, self._interpreter.class_ids
        # A class may be called by a number that is another's.
        if str(name).isdecimal() and name not in classes:
            name = int(name) if int(name) < len(classes) else name
        return class_number(name, classes, place, ids)

    def _number(self, label):
        """Number of the class that a label is, or None."""
        if label not in self._numbers:
            self._numbers[label] = self._look(label)
        return self._numbers[label]

    def _look(self, label):
        """The same, of a label that is not in the map as it is."""
        mapped = self._alike.get(alike(label), ())
        if mapped:
            return min(mapped) if len(mapped) == 1 else None
        try:
            return self._interpreter.class_number(label)
        except LMACError:
            return None

    def unused(self, labels):
        """Rows of the map that fit none of some labels.

        Arguments
        ---------
        labels : list of str
            Of the corpus.

        Returns
        -------
        unused : list of str
            What these rows call a label.
        n_rows : int
            How many rows there are.
        """
        found = set(map(alike, labels))
        unused = [x for x in self._mapping if alike(x) not in found]
        return unused, len(self._mapping)

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


class _ClassesMap(dict):
    """Label to class; `lines` has where each label is, for messages."""

    def __init__(self):
        super().__init__()
        self.lines = {}


def read_classes_map(path):
    r"""A table that says which class of the model each label is.

    Arguments
    ---------
    path : str or Path
        A csv file with the columns ``label`` and ``class``, a name or number.

    Returns
    -------
    dict
        Label to class.

    Raises
    ------
    LMACError
        If it is no such table, names a label twice, or lacks one or a class.

    Example
    -------
    >>> path = getfixture("tmp_path") / "map.csv"
    >>> _ = path.write_text("label,class\ncrying_baby,Baby cry\n")
    >>> read_classes_map(path)
    {'crying_baby': 'Baby cry'}
    """
    found = _ClassesMap()
    for line, row in read_table(path, ["label", "class"]):
        label, name = row["label"], row["class"]
        for column in ("label", "class"):
            if not row[column]:
                raise LMACError(
                    f"{path}, line {line}: has no {column}, expected a label "
                    "and a class of the model"
                )
        if label in found:
            raise LMACError(
                f"{path}: line {line}: the label {shown(label)} is there "
                "twice, expected once"
            )
        found[label], found.lines[label] = name, f"{path}, line {line}"
    return found
