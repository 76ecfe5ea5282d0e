"""Rows of a table to the clips that they are about."""

import os
import posixpath
from functools import partial

import numpy as np

from lmac_sb.data.columns import check_column
from lmac_sb.data.file_column import choose_column, say_rivals, whole_number
from lmac_sb.data.names import alike, bare_path, plain_path
from lmac_sb.data.rows import some_of
from lmac_sb.data.texts import hash64, hash64_all

__all__ = ["Join", "Matcher"]

_LOOKED_AT = 200  # rows by which the column with names is found


class Matcher:
    """Finds clips by what a table calls them.

    That may be the path, the name or the name without ending, in any Unicode
    form and, where nothing else fits, in other case, or 7.0 for 7; of all
    clips just one must fit.

    Arguments
    ---------
    names : sequence of str
        What the clips are called.

    Example
    -------
    >>> matcher = Matcher(["dog/a.wav", "cat/a.wav", "cat/B.wav"])
    >>> matcher.find("dog/a.wav"), matcher.find("b"), matcher.find("a.wav")
    (0, 2, None)
    """

    def __init__(self, names):
        self._names, self._made = names, {}

    def find(self, text, below=""):
        """The clip that a text stands for.

        Arguments
        ---------
        text : str
            What a table has.
        below : str
            Folder that the table's paths start from.

        Returns
        -------
        int or None
            Number of the clip; None for none or several.
        """
        path = _path_of(text)
        ways = [(path, _same)] if not below else []
        ways.insert(0, (posixpath.join(below, path), _same))
        base = os.path.basename(path)
        ways += [(bare_path(path), bare_path), (base, os.path.basename)]
        ways.append((bare_path(base), _bare_base))
        for form in (_same, alike):
            for wanted, key in ways:
                found = self._look(form(wanted), key, form)
                if found is not None:
                    return found
        whole = whole_number(text)
        return None if whole == text else self.find(whole, below)

    def names(self, text, below=""):
        """Whether a text stands for a clip, see `find`.

        Arguments
        ---------
        text : str
            What a table has.
        below : str
            Folder that the table's paths start from.

        Returns
        -------
        bool
        """
        return self.find(text, below) is not None

    def _look(self, wanted, key, form):
        """The only clip of which this is the key."""
        if (key, form) not in self._made:
            found = hash64_all(form(key(_path_of(x))) for x in self._names)
            order = found.argsort(kind="stable")
            self._made[key, form] = found[order], order.astype(np.uint32)
        found, order = self._made[key, form]
        wanted = np.uint64(hash64(wanted))
        low = np.searchsorted(found, wanted)
        high = np.searchsorted(found, wanted, side="right")
        return int(order[low]) if high - low == 1 else None


class Join:
    r"""A table beside a collection.

    Arguments
    ---------
    rows : lmac_sb.data.rows.Rows
        The table.
    matcher : Matcher
        Of the collection's clips.
    n_clips : int
        How many there are.
    column : str
        The one that names clips; by default the one that fits, see
        `lmac_sb.data.file_column.choose_column`.
    below : str
        Folder that its paths start from.

    Attributes
    ----------
    columns : list of str
        The others.
    share : float
        Of some rows, how many name a clip.
    is_repeated : bool
        Whether clips have several rows, once it was fitted.
    notes : list of str
        What does not fit, a line each.

    Raises
    ------
    LMACError
        If the table has no such column.

    Example
    -------
    >>> from lmac_sb.data.rows import open_rows
    >>> path = getfixture("tmp_path") / "x.csv"
    >>> _ = path.write_text("site,name\nnorth,b\n")
    >>> names = ["a.wav", "b.wav"]
    >>> join = Join(open_rows(path), Matcher(names), len(names))
    >>> join.fit()
    >>> join.column, join.row(0), join.row(1)["site"]
    ('name', None, 'north')
    """

    def __init__(self, rows, matcher, n_clips, column=None, below=""):
        self.rows, self.notes = rows, list(rows.notes)
        check_column(column, rows.columns, rows.path)
        self._find = partial(matcher.find, below=below)
        self.column, self.share = self._choose(column, n_clips)
        self.columns = [name for name in rows.columns if name != self.column]
        self._row_of = np.full(n_clips, -1, np.int32)
        self.is_repeated = False

    def _choose(self, column, n_clips):
        """The column that names clips, and the share of rows that it does."""
        some = some_of(self.rows, _LOOKED_AT)
        texts, found = {}, {}
        for name in [column] if column else self.rows.columns:
            texts[name] = [row[name] for row in some]
            found[name] = [text and self._find(text) for text in texts[name]]
        share_of_clips = min(1.0, n_clips / max(1, len(self.rows)))
        best, rivals = choose_column(texts, found, share_of_clips)
        self.notes += say_rivals(self.rows.path, best, rivals)
        if best is None:
            return column or next(iter(found), None), 0.0
        return best, len(set(found[best]) - {None}) / len(some)

    def fit(self):
        """Find the clip of each row; see `notes` for what is left over."""
        unknown, twice = [], []
        for place, row in enumerate(self.rows):
            text = row[self.column]
            clip = None if text is None else self._find(text)
            if clip is None:
                unknown.append(self.rows.line(place))
            elif self._row_of[clip] >= 0:
                twice.append(self.rows.line(place))
            else:
                self._row_of[clip] = place
        path, n_rows = self.rows.path, len(self.rows)
        if unknown:
            self.notes.append(
                f"{path}: {len(unknown)} of {n_rows} rows name no clip, or "
                f"several, such as that in line {unknown[0]}"
            )
        self.is_repeated = bool(twice)
        if twice:
            self.notes.append(
                f"{path}: {len(twice)} rows are of clips that have one, such "
                f"as that in line {twice[0]}; the first counts"
            )

    def row(self, clip):
        """The row of a clip.

        Arguments
        ---------
        clip : int
            Number of the clip.

        Returns
        -------
        dict or None
            Column to text or None; None if it has no row.
        """
        place = int(self._row_of[clip])
        return None if place < 0 else self.rows[place]

    def label(self, clip, column):
        """What a column says as the label of a clip that has a row.

        Arguments
        ---------
        clip : int
            Number of the clip.
        column : str
            One of the columns.

        Returns
        -------
        str or None
        """
        return self.rows.label(int(self._row_of[clip]), column)

    def line(self, clip):
        """Number of the line of a clip's row, for messages.

        Arguments
        ---------
        clip : int
            Number of the clip.

        Returns
        -------
        int or None
            None if it has no row.
        """
        place = int(self._row_of[clip])
        return None if place < 0 else self.rows.line(place)

    def fitted(self):
        """Whether each clip has a row.

        Returns
        -------
        numpy.ndarray
            Of truth values, [clips].
        """
        return self._row_of >= 0


def _path_of(text):
    """A path with the slashes of all systems but one."""
    return plain_path(text.replace("\\", "/"))


def _same(text):
    """The text."""
    return text


def _bare_base(path):
    """The name alone, without the ending of a sound."""
    return bare_path(os.path.basename(path))
