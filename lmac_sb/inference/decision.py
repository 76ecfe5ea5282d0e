"""What is explained of a decision: some classes say nothing of what is there.

A classifier of a `Listener` may have classes that contain each other, such as
*Animal* and *Dog*: why one and not the other cannot be asked. And it may have
classes for what is missing, such as *Silence*: where one of them wins, the
next class is explained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from lmac_sb.models.question import Question
from lmac_sb.utils.errors import LMACError

__all__ = ["asked_of_all", "check_kin", "needs_a_pass", "settle"]


def needs_a_pass(question: Question | None, listener: Any) -> bool:
    """Whether what is asked depends on what the classifier decides.

    Arguments
    ---------
    question : lmac_sb.models.question.Question
        What is asked; None for the decision.
    listener : lmac_sb.listener.listener.Listener
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
    listener : lmac_sb.listener.listener.Listener
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
    >>> from lmac_sb.listener.listener import Listener
    >>> names = ["silence", "dog"]
    >>> listener = Listener(len, 16000, names, absences=[0])
    >>> import torch
    >>> found, notes = settle(None, torch.tensor([[2.0, 1.0]]), listener, names)
    >>> found.target, notes
    (tensor([1]), [['decided is silence, which nothing that is there explains; \
explained is the next class, dog']])
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
                f"decided is {classes[decided[row]]}, which nothing that is "
                "there explains; explained is the next class, "
                f"{classes[target[row]]}"
            )
        if question is None and not skipped.any():
            return None, notes
    question = replace(question or Question(), target=target)
    if isinstance(question.against, str) and listener.families is not None:
        against = _runner_up(target, logits, listener)
        question = replace(question, against=against)
    check_kin(question, listener, classes)
    return question, notes


def _without(logits: Tensor, numbers: Sequence[int]) -> Tensor:
    """Logits in which some classes never win."""
    left = logits.clone()
    left[:, list(numbers)] = -math.inf
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
    listener : lmac_sb.listener.listener.Listener
        The classifier; None for one without families.
    classes : list of str
        Names of the classes.

    Raises
    ------
    LMACError
        If one class contains the other.

    Example
    -------
    >>> from lmac_sb.listener.families import Families
    >>> from lmac_sb.listener.listener import Listener
    >>> names = ["animal", "dog"]
    >>> listener = Listener(len, 16000, names, families=Families([[], [0]]))
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
    listener : lmac_sb.listener.listener.Listener
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
        f"{classes[c]} (p {float(p[c]):.3f}) is not explained, since nothing "
        "that is there explains it"
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
