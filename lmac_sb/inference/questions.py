"""What a user asks, in names or numbers of classes, as a `Question`.

A classifier of a `Listener` may have classes that contain each other, such as
*Animal* and *Dog*: why one and not the other cannot be asked. And it may have
classes for what is missing, such as *Silence*: where one of them wins, the
next class is explained.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmac_sb.models.question import RUNNER_UP, Question
from lmac_sb.utils.errors import LMACError, is_whole, shown

__all__ = [
    "answer_names",
    "asked_of_all",
    "check_kin",
    "class_number",
    "make_question",
    "needs_a_pass",
    "settle",
]

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
    asked = _classes("target", target, classes, n_clips, ids)
    question = Question(asked, found, classes=classes)
    if asked is not None and isinstance(found, Tensor):
        question.check_apart(asked, found, len(classes))
    return question


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
    if is_whole(name) and 0 <= name < len(classes):
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


def needs_a_pass(question: Question | None, listener: Any) -> bool:
    """Whether what is asked depends on what the classifier decides.

    Arguments
    ---------
    question : lmac_sb.models.question.Question
        What is asked; None for the decision.
    listener : Listener
        The classifier; None for one that has neither families nor absences.

    Returns
    -------
    bool
    """
    if listener is None or (question and question.score is not None):
        return False
    if question is None or question.target is None:
        if listener.absences:
            return True
        return question is not None and listener.families is not None
    return isinstance(question.against, str) and listener.families is not None


def settle(
    question: Question | None,
    logits: Tensor,
    listener: Any,
    classes: Sequence[str],
) -> tuple[Question | None, list[list[str]]]:
    """The question with the classes that a decision stands for.

    Arguments
    ---------
    question : lmac_sb.models.question.Question
        See `needs_a_pass`.
    logits : torch.Tensor
        The classifier's on the whole sounds, [batch, classes].
    listener : Listener
        The classifier.
    classes : list of str
        Names of the classes.

    Returns
    -------
    question : lmac_sb.models.question.Question
        None still, where the decision is what is explained.
    notes : list of list of str
        For each clip, what is to be said of it.

    Raises
    ------
    LMACError
        If what is compared contains each other.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> names = ["silence", "dog"]
    >>> listener = SimpleNamespace(absences=[0], families=None)
    >>> import torch
    >>> found, notes = settle(None, torch.tensor([[2.0, 1.0]]), listener, names)
    >>> found.target, notes
    (tensor([1]), [['the decision is silence, which no part of the sound \
explains; the next class, dog, is explained instead']])
    """
    notes: list[list[str]] = [[] for _ in logits]
    if not needs_a_pass(question, listener):
        return question, notes
    target = None if question is None else question.target
    if target is None:
        decided = logits.argmax(1)
        target = _without(logits, listener.absences).argmax(1)
        skipped = decided != target
        for row in skipped.nonzero()[:, 0].tolist():
            notes[row].append(
                f"the decision is {classes[decided[row]]}, which no part of "
                f"the sound explains; the next class, {classes[target[row]]}, "
                "is explained instead"
            )
        if question is None and not skipped.any():
            return None, notes
    question = replace(question or Question(classes=classes), target=target)
    if isinstance(question.against, str) and listener.families is not None:
        against = _runner_up(target, logits, listener)
        question = replace(question, against=against)
    check_kin(question, listener, classes)
    return question, notes


def _without(logits: Tensor, left_out: Sequence[int]) -> Tensor:
    """Logits in which some classes never win."""
    left = logits.clone()
    left[:, list(left_out)] = -math.inf
    return left


def _runner_up(target: Tensor, logits: Tensor, listener: Any) -> Tensor:
    """The most probable class that is no relative of what is asked."""
    left = _without(logits, listener.absences)
    for row, asked in zip(left, _numbers(target)):
        kin = [
            number
            for number in range(len(row))
            if any(listener.families.related(number, c) for c in asked)
        ]
        row[kin] = -math.inf
    if left.isinf().all(1).any():
        raise LMACError(
            "against: there is no other class than the one asked for and its "
            "parents and children"
        )
    return left.argmax(1)


def _numbers(classes: Tensor) -> list[list[int]]:
    """Numbers of the classes of each clip, of [batch] or a mask."""
    if classes.dim() == 1:
        return [[number] for number in classes.tolist()]
    return [row.nonzero()[:, 0].tolist() for row in classes]


def check_kin(
    question: Question | None, listener: Any, classes: Sequence[str]
) -> None:
    """Refuse to compare a class with what contains it.

    Arguments
    ---------
    question : lmac_sb.models.question.Question
        With a target.
    listener : Listener
        The classifier; None for one without families.
    classes : list of str
        Names of the classes.

    Raises
    ------
    LMACError
        If one class contains the other.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> names = ["animal", "dog"]
    >>> families = SimpleNamespace(
    ...     related=lambda one, other: True, above=lambda one: [0]
    ... )
    >>> listener = SimpleNamespace(families=families)
    >>> import torch
    >>> asked = Question(torch.tensor([1]), torch.tensor([0]))
    >>> check_kin(asked, listener, names)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: against: found animal, which contains dog, expected a \
class that can be there without it
    """
    families = getattr(listener, "families", None)
    if families is None or question is None:
        return
    target, against = question.target, question.against
    if target is None or not isinstance(against, Tensor):
        return
    for asked, others in zip(_numbers(target), _numbers(against)):
        for one in asked:
            for other in others:
                if one == other or not families.related(one, other):
                    continue  # the same class twice is refused elsewhere
                above = other in families.above(one)
                how = "contains" if above else "is contained in"
                raise LMACError(
                    f"against: found {classes[other]}, which {how} "
                    f"{classes[one]}, expected a class that can be there "
                    "without it"
                )


def asked_of_all(
    p: Tensor, min_p: float, listener: Any, classes: Sequence[str]
) -> tuple[list[int], list[str]]:
    """The classes that are heard in a clip, the most probable one first.

    Arguments
    ---------
    p : torch.Tensor
        Probabilities, [classes].
    min_p : float
        The least probability.
    listener : Listener
        The classifier, whose absences are left out; or None.
    classes : list of str
        Names of the classes.

    Returns
    -------
    numbers : list of int
    notes : list of str
        What was left out.

    Raises
    ------
    LMACError
        If no class is as probable.

    Example
    -------
    >>> import torch
    >>> asked_of_all(torch.tensor([0.2, 0.6, 0.8]), 0.5, None, "abc")
    ([2, 1], [])
    """
    absences = list(getattr(listener, "absences", ()))
    order = p.argsort(descending=True).tolist()
    heard = [c for c in order if p[c] >= min_p]
    found = [c for c in heard if c not in absences]
    notes = [
        f"{classes[c]} (p {float(p[c]):.3f}) is not explained, since no part "
        "of the sound explains it"
        for c in heard
        if c in absences
    ]
    if not found:
        best = next(c for c in order if c not in absences)
        raise LMACError(
            f"targets: found no class to explain with a probability of "
            f"{min_p:g}, the highest is {float(p[best]):.3g} of "
            f"{classes[best]}; expected a lower min_p (--min-p)"
        )
    return found, notes
