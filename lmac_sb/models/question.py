"""What is asked about a classifier's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError, kind_of, shown

__all__ = ["RUNNER_UP", "Question", "are_whole", "as_question", "as_target"]

RUNNER_UP = "runner-up"
# Log-odds of the sound's own score; those of silence's are minus this.
_SCORE_ODDS = 3.0
# Sum of softplus from which one of several classes is worth the exact formula.
_LEAST = 1e-6


@dataclass
class Question:
    """Why this class, one of several, this and not that, or this score?

    Every question has answers, which are logits: their softmax gives the
    probability of the explained answer. The default asks for the decision.

    - One class: the answers are all classes. A multi-label classifier decides
      each class on its own: there, the answers are the class and its absence,
      since the softmax of (z, 0) is (sigmoid(z), 1 - sigmoid(z)).
    - Several classes: the answers are that it is one of them, and that it is
      none.
    - `against`: the answers are the one side and the other; the log-odds of
      two classes are the difference of their logits.
    - `score`: the log-odds grow linearly with the score, from -3 at the score
      of silence to 3 at that of the whole sound.

    Arguments
    ---------
    target : torch.Tensor
        Explained class, [batch], or a mask of several, boolean [batch,
        classes]. None stands for the decision.
    against : torch.Tensor or str
        What it is compared with, in the same form; ``"runner-up"`` is the
        most probable class that is not asked for. None stands for all others.
    score : callable
        From outputs [clips, ...] to one number a clip [clips]. Excludes the
        other two.
    multilabel : bool
        Whether each class is decided on its own.
    low, high : torch.Tensor
        Score of silence, from `from_silence`, and of the whole sound, from
        `settle`, [batch].
    classes : list of str
        Names of the classes, for messages.

    Example
    -------
    >>> logits = torch.tensor([[2.0, 1.0, 0.0]])
    >>> Question().settle(logits).probability(logits)
    tensor([0.6652])
    >>> why = Question(against="runner-up").settle(logits)
    >>> why.against, why.probability(logits)  # sigmoid(2 - 1)
    (tensor([1]), tensor([0.7311]))
    """

    target: Tensor | None = None
    against: Tensor | str | None = None
    score: Callable[[Tensor], Tensor] | None = None
    multilabel: bool = False
    low: Tensor | None = None
    high: Tensor | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be asked at once."""
        if self.score is not None and not (
            self.target is None and self.against is None
        ):
            raise LMACError(
                "target: found a function together with classes, expected "
                "one of them"
            )
        if isinstance(self.against, str) and self.against != RUNNER_UP:
            raise LMACError(
                f"against: found '{self.against}', expected classes or "
                f"'{RUNNER_UP}'"
            )

    def __getitem__(self, rows: Any) -> Question:
        """The same, about some of the clips."""
        return self.each(lambda value: value[rows])

    def each(self, function: Callable[[Tensor], Tensor]) -> Question:
        """Another question, with each tensor changed by a function."""
        changed = {
            name: function(value)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **changed)

    @classmethod
    def join(cls, parts: list[Question]) -> Question:
        """One question about the clips of several of the same form."""
        joined = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name, value in vars(parts[0]).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(parts[0], **joined)

    def from_silence(self, outputs: Tensor) -> Question:
        """The same with the score of silence; only a score needs it.

        Arguments
        ---------
        outputs : torch.Tensor
            The model's outputs on silence, [batch, ...].

        Returns
        -------
        Question
        """
        if self.score is None:
            return self
        return replace(self, low=self._scores(outputs.detach()))

    def settle(self, logits: Tensor) -> Question:
        """Fill in what depends on the classifier's own answer.

        Arguments
        ---------
        logits : torch.Tensor
            The model's outputs on the whole sound, [batch, classes].

        Returns
        -------
        Question
            With a target, or with the score of the whole sound.

        Raises
        ------
        LMACError
            If the score is not one finite number a clip, or is that of
            silence already, there is no such class, or the classes leave
            nothing to compare with.
        """
        if self.score is not None:
            high = self._scores(logits.detach())
            same = (high - self.low).abs() <= 1e-6 * high.abs().clamp(min=1e-6)
            if same.any():
                i = int(same.nonzero()[0, 0])
                raise LMACError(
                    f"target: the score of clip {i} is {float(high[i]):.4g}, "
                    "the same as for silence: there is nothing to explain"
                )
            return replace(self, high=high)
        target = as_target(self.target, logits, logits.shape[1])
        target = logits.argmax(1) if target is None else target
        against = self.against
        if isinstance(against, str):
            asked = _mask(target, logits.shape[1])
            if asked.shape[1] < 2 or asked.all(1).any():
                raise LMACError(
                    "against: there is no other class than the one asked for"
                )
            against = logits.masked_fill(asked, -math.inf).argmax(1)
        if against is not None:
            self.check_apart(target, against, logits.shape[1])
        elif target.dim() == 2 and not self.multilabel and target.all(1).any():
            raise LMACError(
                "target: all classes are asked for, expected to leave one to "
                "compare with"
            )
        return replace(self, target=target, against=against)

    def check_apart(
        self, target: Tensor, against: Tensor, n_classes: int
    ) -> None:
        """Refuse to compare a class with itself.

        Arguments
        ---------
        target, against : torch.Tensor
            Of this question, as they are known by now.
        n_classes : int
            Of the classifier.

        Raises
        ------
        LMACError
            If a class is on both sides; names it.
        """
        both = _mask(target, n_classes) & _mask(against, n_classes)
        if both.any():
            number = int(both.nonzero()[0, 1])
            name = f", '{self.classes[number]}'" if self.classes else ""
            raise LMACError(
                f"against: class {number} is the one that is asked for{name} "
                "(without a target, the decision), expected another"
            )

    @property
    def decision(self) -> Tensor:
        """Explained class, [batch]: of several the first; 0 of a score."""
        if self.score is not None:
            return torch.zeros_like(self.high, dtype=torch.long)
        if self.target.dim() == 2:
            return self.target.long().argmax(1)
        return self.target

    @property
    def is_plain(self) -> bool:
        """Whether it is about one class among all."""
        return (
            self.score is None
            and self.against is None
            and not self.multilabel
            and (self.target is None or self.target.dim() == 1)
        )

    def answers(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the answers.

        Arguments
        ---------
        logits : torch.Tensor
            The model's outputs, [batch, classes].

        Returns
        -------
        answers : torch.Tensor
            [batch, answers].
        chosen : torch.Tensor
            Index of the explained answer, [batch].
        """
        if self.is_plain:
            return logits, self.target
        odds = self._log_odds(logits)
        # The asked answer comes first, so it wins if both are equally likely.
        answers = torch.stack((odds, torch.zeros_like(odds)), dim=1)
        return answers, odds.new_zeros(len(odds), dtype=torch.long)

    def probability(self, logits: Tensor) -> Tensor:
        """Probability of the explained answer, [batch]."""
        answers, chosen = self.answers(logits)
        return answers.softmax(1).gather(1, chosen[:, None])[:, 0]

    def log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of the explained answer against the others, [batch]."""
        answers, chosen = self.answers(logits)
        others = answers.scatter(1, chosen[:, None], -math.inf)
        odds = answers.gather(1, chosen[:, None])[:, 0]
        return odds - others.logsumexp(1)

    def _log_odds(self, logits: Tensor) -> Tensor:
        """Log-odds of what has two answers, [batch]."""
        if self.score is not None:
            share = (self._scores(logits) - self.low) / (self.high - self.low)
            return _SCORE_ODDS * (2 * share - 1)
        asked = _mask(self.target, logits.shape[1])
        if self.against is not None:
            other = _mask(self.against, logits.shape[1])
            return self._one_of(asked, logits) - self._one_of(other, logits)
        if not self.multilabel:
            return self._one_of(asked, logits) - self._one_of(~asked, logits)
        if self.target.dim() == 1:
            return logits.gather(1, self.target[:, None])[:, 0]
        return self._one_of(asked, logits)

    def _one_of(self, chosen: Tensor, logits: Tensor) -> Tensor:
        """Logit of one of the chosen classes, [batch]."""
        if not self.multilabel:
            return logits.masked_fill(~chosen, -math.inf).logsumexp(1)
        # 1 - p is the product of sigmoid(-z), so the log-odds of p are
        # log(expm1(sum of softplus(z))).
        total = (F.softplus(logits) * chosen).sum(1)
        odds = total + torch.log(-torch.expm1(-total.clamp(min=_LEAST)))
        # Where all are improbable their odds add up; softplus would round.
        few = logits.masked_fill(~chosen, -math.inf).logsumexp(1)
        return torch.where(total > _LEAST, odds, few)

    def _scores(self, outputs: Tensor) -> Tensor:
        """Scores [clips] of outputs."""
        try:
            scores = self.score(outputs)
        except (IndexError, TypeError, ValueError, RuntimeError) as error:
            raise LMACError(
                "target: the function fails for outputs of shape "
                f"{list(outputs.shape)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(scores, torch.Tensor):
            raise LMACError(
                f"target: the function returned {kind_of(scores)}, "
                "expected a tensor [clips] that keeps its gradient"
            )
        if scores.shape == (len(outputs), 1):
            scores = scores[:, 0]
        if scores.shape != (len(outputs),):
            raise LMACError(
                f"target: the function returned shape {tuple(scores.shape)} "
                f"for {len(outputs)} clips, expected one number a clip"
            )
        if not scores.isfinite().all():
            raise LMACError("target: the function returned NaN or infinity")
        return scores.float()


def as_question(target: Any, multilabel: bool = False) -> Question:
    """The question that a target stands for.

    Arguments
    ---------
    target : int, list, array, torch.Tensor, Question or None
        See `as_target`; None for the decision.
    multilabel : bool
        Whether the classifier decides each class on its own.

    Returns
    -------
    Question

    Example
    -------
    >>> as_question(torch.tensor([1])).target
    tensor([1])
    """
    if not isinstance(target, Question):
        target = Question(target)
    return replace(target, multilabel=multilabel)


def as_target(target: Any, clips: Tensor, n_classes: int | None = None) -> Any:
    """What is explained of each clip, as a tensor.

    Arguments
    ---------
    target : int, list, array, torch.Tensor, Question or None
        A class by number, or one for each clip, or a mask of several, boolean
        [batch, classes]. A question stays as it is, and so does None.
    clips : torch.Tensor
        Anything of these clips, [batch, ...].
    n_classes : int
        Number of classes, if it is known.

    Returns
    -------
    torch.Tensor, Question or None
        [batch], or a mask, where the clips are.

    Raises
    ------
    LMACError
        If there is no such class, or not one for each clip.

    Example
    -------
    >>> as_target(1, torch.zeros(2, 16000))
    tensor([1, 1])
    """
    if target is None or isinstance(target, Question):
        return target
    try:
        found = torch.as_tensor(target, device=clips.device)
    except (TypeError, ValueError, RuntimeError):
        found = clips.new_empty(0)  # of a word, for one
    if found.dim() == 0:
        found = found.expand(len(clips))
    is_mask = found.dim() == 2 and found.dtype == torch.bool
    is_class = found.dim() == 1 and are_whole(found)
    if not (is_mask or is_class) or len(found) != len(clips):
        raise LMACError(
            f"target: found {shown(target)}, expected the number of a class, "
            f"or one for each of {len(clips)} clips"
        )
    if is_mask:
        if n_classes not in (None, found.shape[1]):
            raise LMACError(
                f"target: found a mask of {found.shape[1]} classes, expected "
                f"one of {n_classes}"
            )
        return found
    if n_classes is not None:
        wrong = found[(found < 0) | (found >= n_classes)]
        if len(wrong):
            raise LMACError(
                f"target: found class {int(wrong[0])}, expected one from 0 to "
                f"{n_classes - 1}"
            )
    return found.long()


def are_whole(values: Tensor) -> bool:
    """Whether a tensor holds whole numbers; truth values are none.

    Arguments
    ---------
    values : torch.Tensor
        Any.

    Returns
    -------
    bool

    Example
    -------
    >>> are_whole(torch.tensor([1])), are_whole(torch.tensor([True]))
    (True, False)
    """
    kind = values.dtype
    return not (kind.is_floating_point or kind.is_complex or kind == torch.bool)


def _mask(classes: Tensor, n_classes: int) -> Tensor:
    """Boolean [batch, classes] of class numbers [batch], or of such a mask."""
    if classes.dim() == 2:
        return classes
    return F.one_hot(classes, n_classes).bool()
