"""Which explained clips there are: an index on disk, read page by page.

However many clips there are, memory holds those of one page.
"""

import shutil
import sqlite3
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from lmac_sb.inference.clip_folder import PICTURE, read_clip
from lmac_sb.pages.explained import Listed
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import open_regular

__all__ = ["OUTCOMES", "Query", "Shelf"]

# What a clip's label says, as one is chosen on the page, and as it is kept.
OUTCOMES = {"wrong": 0, "right": 1, "no label": None}
_MOST_TEXT = 200  # characters that are searched for
_MOST_BYTES = 1 << 28  # of a file that is shown
_MANY = 1000  # clips that are written at a time
_TABLE = """
create table clips (
    number integer primary key, id text, place text, label text,
    decision text, verdict text, is_right integer, words text
)"""
_SELECT = (
    "select number, id, place, label, decision, verdict, is_right from clips"
)
_CONDITIONS = {
    "text": "instr(words, ?)",
    "name_of_class": "? in (ifnull(label, decision), decision)",
    "verdict": "verdict = ?",
    "outcome": "is_right is ?",
}


class Query(NamedTuple):
    """Which clips a page lists.

    Arguments
    ---------
    text : str
        Part of the id, the label or the decision, in any case.
    name_of_class : str
        The label or the decision.
    verdict : str
        The verdict.
    outcome : str
        One of `OUTCOMES`. Each is None, or empty, for any.

    Example
    -------
    >>> Query(" Dog", outcome="wrong").condition()
    (' where instr(words, ?) and is_right is ?', ['dog', 0])
    """

    text: str = ""
    name_of_class: str = ""
    verdict: str = ""
    outcome: str = ""

    def condition(self):
        """The condition in SQL, and its values.

        Raises
        ------
        LMACError
            If one is no text.
        """
        found = self._asdict()
        for name, value in found.items():
            if not isinstance(value, (str, type(None))):
                raise LMACError(
                    f"{name}: found {shown(value)}, expected a text"
                )
        if self.outcome and self.outcome not in OUTCOMES:
            raise LMACError(
                f"outcome: found {shown(self.outcome)}, expected one of "
                f"{', '.join(OUTCOMES)}"
            )
        found["text"] = _folded((self.text or "").strip()[:_MOST_TEXT])
        asked = {name: value for name, value in found.items() if value}
        parts = [_CONDITIONS[name] for name in asked]
        if self.outcome:
            asked["outcome"] = OUTCOMES[self.outcome]
        values = [
            _valid(x) if isinstance(x, str) else x for x in asked.values()
        ]
        return f" where {' and '.join(parts)}" if parts else "", values


class Shelf:
    """The explained clips of a folder, in an index.

    Arguments
    ---------
    explained : lmac_sb.pages.explained.Folders or Shards
        The clips; looked at once, here.
    file : str or Path
        Where the index is written; must not exist.
    clips : iterable
        The same clips, if someone counts them meanwhile.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = interpreter.explain_file(path).save(folder / "dog")
    >>> from lmac_sb.pages.explained import open_explained
    >>> shelf = Shelf(open_explained(folder), folder / "index.db")
    >>> [clip.place for _, clip in shelf.page(Query("DOG"), 0, 10)]
    ['dog']
    """

    def __init__(self, explained, file, clips=None):
        self.explained = explained
        self.file = Path(file)
        self.n_broken = 0
        with self._connected() as index:
            index.execute(_TABLE)
            many = []
            for clip in explained if clips is None else clips:
                if isinstance(clip, LMACError):
                    self.n_broken += 1
                    continue
                many.append(_row(clip))
                if len(many) == _MANY:
                    _add(index, many)
                    many = []
            _add(index, many)
            index.commit()
        self.n = self.count(Query())
        if not self.n:
            raise LMACError(f"{explained.folder}: holds no explained clip")

    @contextmanager
    def _connected(self):
        """The index, opened for one question, whatever thread asks."""
        with closing(sqlite3.connect(self.file)) as index:
            yield index

    def _ask(self, question, values=()):
        """Rows that answer a question."""
        with self._connected() as index:
            return index.execute(question, values).fetchall()

    def count(self, query):
        """How many clips a query finds."""
        condition, values = query.condition()
        question = f"select count(*) from clips{condition}"
        return self._ask(question, values)[0][0]

    def page(self, query, number, size):
        """Some of the clips that a query finds, in their order.

        Arguments
        ---------
        query : Query
            The query.
        number : int
            Of the page, from 0.
        size : int
            Clips of a page.

        Returns
        -------
        list of tuple
            Number of the clip and `lmac_sb.pages.explained.Listed`.
        """
        condition, values = query.condition()
        question = f"{_SELECT}{condition} order by number limit ? offset ?"
        rows = self._ask(question, [*values, size, number * size])
        return [(number, _clip(row)) for number, *row in rows]

    def clip(self, number):
        """A clip by its number.

        Raises
        ------
        LMACError
            If there is none.
        """
        for _, *row in self._ask(f"{_SELECT} where number = ?", [number]):
            return _clip(row)
        raise LMACError(f"clip: found {number}, expected one of the list")

    def names(self, column):
        """The values of a column, ``verdict`` or the classes of all clips."""
        if column == "verdict":
            question = "select distinct verdict from clips order by 1"
        else:
            question = (
                "select label from clips where label is not null "
                "union select decision from clips order by 1"
            )
        return [name for (name,) in self._ask(question)]

    def copy(self, place, folder):
        """Copy what is heard and seen of a clip to a folder of the page.

        Arguments
        ---------
        place : str
            Of a clip.
        folder : pathlib.Path
            Empty.

        Returns
        -------
        dict
            The clip's facts, see `lmac_sb.inference.clip_facts.INFO`.

        Raises
        ------
        LMACError
            If the clip is not whole, or too large to be sent.
        """
        with self.explained.opened(place) as (_, source):
            if source.is_symlink():
                raise LMACError(f"{source}: is a link, expected a folder")
            clip = read_clip(source)
            for path in clip.files.values():
                _copy(path, folder)
            with suppress(FileNotFoundError):
                _copy(source / PICTURE, folder)
        return clip.info


def _copy(path, folder):
    """Copy a regular file of a clip."""
    with open_regular(path, _MOST_BYTES) as source:
        with open(folder / path.name, "xb") as copy:
            shutil.copyfileobj(source, copy)


def _folded(text):
    """Text in which upper and lower case are the same."""
    return text.casefold()


def _valid(text):
    """Text that a database takes; names of files may hold other bytes."""
    return text and text.encode("utf-8", "replace").decode()


def _row(clip):
    """Values of a clip in the index."""
    words = "\n".join(filter(None, (clip.id, clip.label, clip.decision)))
    *texts, right = clip
    return (*map(_valid, texts), right, _valid(_folded(words)))


def _clip(row):
    """A clip from the index."""
    *texts, right = row
    return Listed(*texts, None if right is None else bool(right))


def _add(index, many):
    """Write clips to the index."""
    index.executemany(
        "insert into clips (id, place, label, decision, verdict, is_right, "
        "words) values (?, ?, ?, ?, ?, ?, ?)",
        many,
    )
