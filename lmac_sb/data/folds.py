"""The fold of each clip of a corpus.

WebDataset shards, data sets of Hugging Face, folders of classes and tables, as
`lmac_sb.data.corpus` reads them, get a fold for each clip: that of their own
column `fold`, or one by their splits.
"""

import re
from collections import Counter

from lmac_sb.data.listing import known_split
from lmac_sb.data.names import bare_path
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["list_clips"]

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
    rows, folds = [], _Folds(corpus.columns)
    for i in order:
        clip = corpus[i]
        row = {
            "id": ids[i],
            "filename": clip.id,
            "category": clip.label,
            "split": folds.split(clip),
            "wav": clip.place,
            "stem": corpus.stem(i),
        }
        if clip.label is None:
            row["problem"] = f"{clip.place}: has no label"
        rows.append(row)
    folds.spread(rows)
    return rows


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
    """The fold of each clip: by a column `fold`, or by splits."""

    def __init__(self, columns):
        self._column = next(
            (name for name in ("fold", "split") if name in columns), None
        )

    def split(self, clip):
        """Its fold, or which split it belongs to; train if there is none."""
        if self._column is None:
            return "train"
        found = clip.columns[self._column] or ""
        if self._column == "split":
            split = known_split(found)
            if split is None and clip.label is None:
                return "train"  # it is not used, see `list_clips`
            if not found:
                raise LMACError(
                    f"{clip.place}: has no split, expected train, valid or "
                    "test, as others have"
                )
            if split is None:
                raise LMACError(
                    f"{clip.place}: found the split {shown(found)}, expected "
                    "train, valid or test"
                )
            return split
        # Tables with missing values have floats.
        found = found.removesuffix(".0")
        if not found.isdecimal() or len(found) > 9:
            raise LMACError(
                f"{clip.place}: fold is {shown(found)}, expected a whole number"
            )
        return int(found)

    def spread(self, rows):
        """Give each row its fold; those of train get the free ones in turn."""
        splits = {row["split"] for row in rows}
        free = [1, 2, 3]
        free += [_VALID] if "valid" not in splits else []
        free += [_TEST] if "test" not in splits else []
        times = Counter()
        for row in rows:
            fold = row.pop("split")
            if fold == "train":
                n_before = times[row["category"]]
                times[row["category"]] += 1
                fold = free[n_before % len(free)]
            row["fold"] = {"valid": _VALID, "test": _TEST}.get(fold, fold)
