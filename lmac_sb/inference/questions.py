"""What a user asks, in names or numbers of classes, as a `Question`."""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmac_sb.models.question import RUNNER_UP, Question
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["answer_names", "class_number", "make_question"]

_LISTED = 20  # names in a message
_NEAR = 3  # of them, those that may be meant


def make_question(
    target: Any,
    against: Any,
    classes: Sequence[str],
    n_clips: int,
    ids: Sequence[str] | None = None,
) -> Question | None:
    """The question that a user asks about some clips.

    Arguments
    ---------
    target : str, int, set, list, array or callable
        A class, by name or number; several of which one is asked for, as a
        set, for one clip as a list, or as a mask [classes] or [clips,
        classes]; one of these for each clip, as a list;
        a function from the model's outputs to a score of each clip; None for
        the decision.
    against : str, int, set or list
        What the target is compared with, in the same form, or
        ``"runner-up"``; None for all other classes.
    classes : list of str
        Names of the classes.
    n_clips : int
        Number of clips.
    ids : list of str
        Another name of each class, such as AudioSet's id.

    Returns
    -------
    Question
        None for the decision.

    Raises
    ------
    LMACError
        If a class is not known, or there are more or fewer than clips.

    Example
    -------
    >>> question = make_question("dog", {"cat", 1}, ["cat", "cow", "dog"], 1)
    >>> question.target, question.against
    (tensor([2]), tensor([[ True,  True, False]]))
    >>> make_question("cat", "runner-up", ["cat", "cow"], 1).against
    'runner-up'
    """
    if isinstance(target, Question):
        return target
    if callable(target):
        return Question(score=target, against=against)
    if target is None and against is None:
        return None
    is_word = isinstance(against, str) and against == RUNNER_UP
    if is_word and RUNNER_UP not in classes:
        found: Any = against
    else:
        found = _classes("against", against, classes, n_clips, ids)
    return Question(_classes("target", target, classes, n_clips, ids), found)


def _classes(
    key: str,
    asked: Any,
    classes: Sequence[str],
    n_clips: int,
    ids: Sequence[str] | None,
) -> Tensor | None:
    """Class of each clip [n_clips], or a mask [n_clips, classes], or None."""
    if asked is None:
        return None
    asked = _listed(asked, classes)
    if isinstance(asked, (set, frozenset)):
        asked = [asked] * n_clips
    elif not isinstance(asked, (list, tuple)):
        asked = [asked] * n_clips
    elif n_clips == 1 and len(asked) > 1:
        asked = [asked]
    elif len(asked) == 1:
        asked = list(asked) * n_clips
    if len(asked) != n_clips:
        raise LMACError(f"{key}: {len(asked)} classes for {n_clips} clips")
    several = [
        item if isinstance(item, (set, frozenset, list, tuple)) else [item]
        for item in asked
    ]
    numbers = [
        [class_number(name, classes, key, ids) for name in item]
        for item in several
    ]
    if all(len(item) == 1 for item in numbers):
        return torch.tensor([item[0] for item in numbers])
    mask = torch.zeros(n_clips, len(classes), dtype=torch.bool)
    for row, item in zip(mask, numbers):
        if not item:
            raise LMACError(f"{key}: found no class, expected at least one")
        row[item] = True
    return mask


def _listed(asked: Any, classes: Sequence[str]) -> Any:
    """An array as a list; a mask [classes] or [clips, classes] as sets."""
    if not isinstance(asked, (Tensor, np.ndarray)):
        return asked
    listed = asked.tolist()
    if asked.dtype not in (torch.bool, np.dtype(bool)):
        return listed
    rows = listed if asked.ndim == 2 else [listed]
    if asked.ndim not in (1, 2) or asked.shape[-1] != len(classes):
        return listed
    return [{c for c, chosen in enumerate(row) if chosen} for row in rows]


def class_number(
    name: Any,
    classes: Sequence[str],
    key: str = "target",
    ids: Sequence[str] | None = None,
) -> int:
    """Number of a class that is given by name, id or number.

    Arguments
    ---------
    name : str or int
        The class. Small and capital letters may differ, if one class alone
        has the name then.
    classes : list of str
        Names of all.
    key : str
        What was asked for, for the message.
    ids : list of str
        Another name of each class, such as AudioSet's id.

    Returns
    -------
    int

    Raises
    ------
    LMACError
        If there is no such class, or several; names the nearest.

    Example
    -------
    >>> class_number("cow", ["cat", "cow", "dog"])
    1
    >>> class_number("/m/0bt9lr", ["Cat", "Dog"], ids=["/m/01yrx", "/m/0bt9lr"])
    1
    """
    is_number = isinstance(name, numbers.Integral)
    if is_number and not isinstance(name, bool) and 0 <= name < len(classes):
        return int(name)
    for same in (_is_same, _is_like) if isinstance(name, str) else ():
        found = [number for number, x in enumerate(classes) if same(x, name)]
        if not found and ids is not None:
            found = [number for number, x in enumerate(ids) if same(x, name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise LMACError(
                f"{key}: {shown(name)} is the name of {len(found)} classes, "
                f"expected one of their numbers, {', '.join(map(str, found))}"
            )
    near = _near(str(name), classes)
    hint = f"did you mean {near}? " if near else ""
    listed = ", ".join(classes[:_LISTED])
    if len(classes) > _LISTED:
        listed += ", ..."
    raise LMACError(
        f"{key}: {shown(name)} is no class; {hint}there are {listed} "
        f"(0 to {len(classes) - 1})"
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two names are one."""
    return one == other


def _is_like(one: str, other: str) -> bool:
    """Whether two names differ in small and capital letters at most."""
    return one.casefold() == other.casefold()


def _near(name: str, classes: Sequence[str]) -> str:
    """Names that may be meant, in quotes: those that hold it, or the like."""
    folded = {}
    for item in classes:
        folded.setdefault(item.casefold(), item)
    word = re.compile(rf"\b{re.escape(name.casefold())}")
    found = [item for key, item in folded.items() if name and word.search(key)]
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    found += [folded[key] for key in close if folded[key] not in found]
    return " or ".join(f"'{item}'" for item in found[:_NEAR])


def answer_names(
    question: Question | None, decision: Tensor, classes: Sequence[str]
) -> list[str]:
    """What is explained of each clip, in words.

    Arguments
    ---------
    question : Question
        What was asked, settled; None for one class among all.
    decision : torch.Tensor
        Explained class, [batch].
    classes : list of str
        Names of the classes.

    Returns
    -------
    list of str

    Example
    -------
    >>> asked = Question(torch.tensor([0]), torch.tensor([2]))
    >>> answer_names(asked, asked.decision, ["cat", "cow", "dog"])
    ['cat rather than dog']
    """
    if question is None or question.target is None:
        return [classes[c] for c in decision.tolist()]
    names = _joined(question.target, classes)
    if not isinstance(question.against, Tensor):
        return names
    others = _joined(question.against, classes)
    return [f"{a} rather than {b}" for a, b in zip(names, others)]


def _joined(chosen: Tensor, classes: Sequence[str]) -> list[str]:
    """Name of the class of each clip, or those of several."""
    if chosen.dim() == 1:
        return [classes[c] for c in chosen.tolist()]
    return [
        " or ".join(classes[c] for c in row.nonzero()[:, 0].tolist())
        for row in chosen
    ]
