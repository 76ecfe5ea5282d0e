"""The fold of each clip of a corpus.

WebDataset shards, data sets of Hugging Face, folders of classes and tables, as
`lmac_sb.data.corpus` reads them, get a fold for each clip: that of their own
column `fold`, or one by their splits.
"""

import logging
import re
from collections import Counter

from lmac_sb.data.columns import SPLIT, listed, place_among
from lmac_sb.data.listing import known_split
from lmac_sb.data.names import bare_path
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["known_fold", "list_clips", "split_columns"]

logger = logging.getLogger(__name__)

_FOLD = re.compile(r"(?:fold[ _-]?)?(\d{1,9})(?:\.0)?", re.IGNORECASE)
_VALID, _TEST = 4, 5  # folds of these splits; train gets the others in turn


def list_clips(corpus):
    """Rows of its clips, sorted by their ids.

    An id is the clip's name without folders and ending, or if others have the
    same name, all of its path with `_` between the folders. The order depends
    on these ids alone, and so is the same for files and for shards of them.

    Arguments
    ---------
    corpus : lmac_sb.data.corpus.Corpus
        With labels.

    Returns
    -------
    list of dict
        Each with ``id``, ``filename``, ``fold``, ``category``, and where the
        sound and its event are: ``wav`` and ``stem``. One that has no label
        has a ``problem``.

    Raises
    ------
    LMACError
        If a clip has no fold or split, or ids are the same.

    Example
    -------
    >>> import shutil
    >>> from lmac_sb.data.corpus import open_corpus
    >>> folder = getfixture("tmp_path")
    >>> for name in ("fold1/dog", "fold2/cat"):
    ...     (folder / name).mkdir(parents=True)
    ...     _ = shutil.copy(path, folder / name / f"{name[-3:]}.wav")
    >>> [(x["id"], x["category"], x["fold"]) for x in list_clips(
    ...     open_corpus(folder))]
    [('cat', 'cat', 2), ('dog', 'dog', 1)]
    """
    ids = _ids(corpus)
    order = sorted(range(len(corpus)), key=ids.__getitem__)
    rows, folds = [], _Folds(corpus)
    for i in order:
        clip = corpus[i]
        row = {
            "id": ids[i],
            "filename": clip.id,
            "category": clip.label,
            "told": folds.told(clip),
            "wav": clip.place,
            "stem": corpus.stem(i),
        }
        if clip.label is None:
            row["problem"] = f"{clip.place}: has no label"
        rows.append(row)
    folds.give(rows)
    return rows


def split_columns(columns):
    """Columns that may tell folds or splits, the surest first.

    Arguments
    ---------
    columns : iterable of str
        Of a corpus.

    Returns
    -------
    list of str

    Example
    -------
    >>> split_columns(["site", "Subset", "fold"])
    ['fold', 'Subset']
    """
    found = [x for x in columns if place_among(x, SPLIT) is not None]
    return sorted(found, key=lambda name: place_among(name, SPLIT))


def known_fold(text):
    """The number of a fold, as columns have it.

    Arguments
    ---------
    text : str
        Such as ``3``, ``fold3``, or ``3.0``, which tables with missing values
        have.

    Returns
    -------
    int or None
        None if it is none.

    Example
    -------
    >>> known_fold("3.0"), known_fold("Fold 2"), known_fold("train")
    (3, 2, None)
    """
    found = _FOLD.fullmatch(text)
    return int(found[1]) if found else None


def _ids(corpus):
    """Plain names of the clips, as ids become names of folders."""
    paths = [bare_path(clip_id) for clip_id in corpus.ids]
    names = [path.rpartition("/")[2] for path in paths]
    if len(set(names)) < len(names):
        names = paths
    if len(set(names)) < len(names):
        names = corpus.ids
    names = [re.sub(r'[/\\:"]', "_", name).lstrip(".") for name in names]
    name, times = Counter(names).most_common(1)[0]
    if times > 1 or not all(names):
        raise LMACError(
            f"{corpus.name}: {times} clips have the id {shown(name)}, expected "
            "names of files that differ"
        )
    return names


class _Folds:
    """The fold of each clip: by a column of folds or splits, or in turn."""

    def __init__(self, corpus):
        self._name, self._columns = corpus.name, split_columns(corpus.columns)
        # Other columns that have known splits alone, with these.
        others = set(corpus.columns) - set(self._columns)
        self._others = {name: set() for name in sorted(others)}

    def told(self, clip):
        """What its columns of folds or splits say."""
        for name in [*self._others]:
            split = known_split(clip.columns[name] or "")
            if split is None:
                del self._others[name]
            else:
                self._others[name].add(split)
        return [clip.columns[name] for name in self._columns]

    def give(self, rows):
        """Give each row its fold; see `_spread`."""
        told = [row.pop("told") for row in rows]
        column, parse = self._choose(told)
        for row, values in zip(rows, told):
            value = "" if column is None else values[column] or ""
            # One that has no label is not used.
            if column is None or (not value and "problem" in row):
                row["fold"] = "train"
            else:
                row["fold"] = parse(value, row["wav"])
        _spread(rows)

    def _choose(self, told):
        """Number of the column that tells folds or splits, and what reads it.

        None for none.
        """
        odd = {}
        for number, name in enumerate(self._columns):
            given = {values[number] for values in told} - {None}
            folds = {x for x in given if known_fold(x) is not None}
            splits = {x for x in given if known_split(x)}
            by_name = place_among(name, ("fold", "split"))
            if by_name is None and given not in (folds, splits):
                odd[name] = f", found {listed(sorted(given))}"
                continue
            is_fold = bool(folds) or (by_name == 0 and not splits)
            if name not in ("fold", "split"):
                logger.warning(
                    "%s: folds are given by the column %s",
                    self._name,
                    shown(name),
                )
            return number, _parse_fold if is_fold else _parse_split
        odd.update(
            (x, "") for x, found in self._others.items() if len(found) > 1
        )
        for name, found in odd.items():
            logger.warning(
                "%s: folds are dealt out, though the column %s looks like one "
                "of splits%s; a column `split` has train, valid and test, and "
                "`fold` whole numbers",
                self._name,
                shown(name),
                found,
            )
        return None, None


def _parse_fold(text, place):
    """Number of a fold."""
    fold = known_fold(text)
    if fold is None:
        raise LMACError(
            f"{place}: fold is {shown(text)}, expected a whole number"
        )
    return fold


def _parse_split(text, place):
    """Name of a split."""
    split = known_split(text)
    if split is None:
        found = f"found the split {shown(text)}" if text else "has no split"
        raise LMACError(f"{place}: {found}, expected train, valid or test")
    return split


def _spread(rows):
    """Give those of splits a fold; those of train get the free ones in turn."""
    splits = {row["fold"] for row in rows}
    free = [1, 2, 3]
    free += [_VALID] if "valid" not in splits else []
    free += [_TEST] if "test" not in splits else []
    times = Counter()
    for row in rows:
        fold = row["fold"]
        if fold == "train":
            n_before = times[row["category"]]
            times[row["category"]] += 1
            fold = free[n_before % len(free)]
        row["fold"] = {"valid": _VALID, "test": _TEST}.get(fold, fold)
