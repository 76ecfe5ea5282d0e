"""A clip longer than a window: explained in windows, put together again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lmac_sb.data.streaming import mapped
from lmac_sb.inference.explanation import AudioExplanation, numbers, window
from lmac_sb.inference.questions import settle
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.metrics.registry import METRICS
from lmac_sb.models.question import Question, as_question

if TYPE_CHECKING:
    from lmac_sb.inference.interpreter import LMACInterpreter

__all__ = ["explain_long", "fade"]


def explain_long(
    interpreter: LMACInterpreter,
    wav: Tensor,
    question: Question | None,
    how: dict[str, Any],
) -> AudioExplanation:
    """Explain overlapping windows of one clip and cross-fade them.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains each window.
    wav : torch.Tensor
        Longer than a window, [samples].
    question : lmac_sb.models.question.Question
        What is asked of each window; None for its decision.
    how : dict
        Further arguments of `lmac_sb.lmac.explainer.Explainer`.

    Returns
    -------
    AudioExplanation
        Of one clip.
    """
    n_samples = len(wav)
    starts = _starts(interpreter, n_samples)
    if question and question.target is None and question.against is not None:
        # Why the decision on the whole and not that, in each window.
        p = mean_probabilities(interpreter, wav)
        logits = _logits(p, interpreter.explainer.classifier.multilabel)
        listener, classes = interpreter.listener, interpreter.classes
        question, _ = settle(question, logits, listener, classes)
        if question.target is None:
            question = replace(question, target=p.argmax(1))
    whole, unrefined = _Whole(interpreter, n_samples), None
    for start, after in zip(starts, [*starts[1:], None]):
        piece = [wav[start : start + interpreter.window]]
        asked, said = interpreter.settled(piece, question)
        (part,) = interpreter.explain_short(piece, asked, how)
        whole.add(part, start, after)
        whole.n_skipped += bool(said[0])
        if part.unrefined is not None:
            unrefined = unrefined or _Whole(interpreter, n_samples)
            unrefined.add(part.unrefined, start, after)
    explained = whole.finish(wav, question)
    if unrefined is not None:
        explained.unrefined = unrefined.finish(wav, question)
    return explained


def _starts(interpreter: LMACInterpreter, n_samples: int) -> list[int]:
    """First samples of the windows, which spread evenly over the clip.

    So no window is a short rest, on which a classifier decides badly: they
    overlap by more where they must.
    """
    hop = interpreter.explainer.features.hop_samples
    stride = interpreter.window - interpreter.overlap
    room = n_samples - interpreter.window
    n_steps = math.ceil(room / stride)
    # Rounded up in whole numbers: the last window reaches the end.
    return [-(-i * room // (n_steps * hop)) * hop for i in range(n_steps + 1)]


def mean_probabilities(interpreter: LMACInterpreter, wav: Tensor) -> Tensor:
    """Mean over the windows of a long clip of all classes' probabilities.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Hears each window, and explains none.
    wav : torch.Tensor
        Longer than a window, [samples].

    Returns
    -------
    torch.Tensor
        [1, classes].
    """
    total: Any = 0
    starts = _starts(interpreter, len(wav))
    for start, after in zip(starts, [*starts[1:], None]):
        piece = wav[start : start + interpreter.window]
        places = torch.arange(start, start + len(piece))
        share = fade(places, start, after, interpreter.overlap)
        share = share.sum() / len(wav)
        p = interpreter.probabilities(interpreter.heard([piece]))
        total = total + share * p
    return total


def fade(places: Tensor, start: int, after: int | None, overlap: int) -> Tensor:
    """Weight of a window of a long clip.

    Arguments
    ---------
    places : torch.Tensor
        In samples from the start of the clip, [places].
    start : int
        Where the window begins; it fades in, unless that is the clip's start.
    after : int
        Where the next window begins, and this fades out; None for the last.
    overlap : int
        Samples of a fade.

    Returns
    -------
    torch.Tensor
        In [0, 1], [places]; those of two windows add up to 1.

    Example
    -------
    >>> fade(torch.arange(8, 12), start=8, after=None, overlap=2)
    tensor([0.0000, 0.5000, 1.0000, 1.0000])
    """
    weight = torch.ones(len(places))
    if start > 0:
        weight = weight * ((places - start) / overlap).clamp(max=1)
    if after is not None:
        weight = weight * (1 - ((places - after) / overlap).clamp(0, 1))
    return weight


class _Whole:
    """A long clip, put together of its windows; its sounds lie on disk."""

    def __init__(self, interpreter: LMACInterpreter, n_samples: int) -> None:
        self.interpreter = interpreter
        self.n_samples = n_samples
        features = interpreter.explainer.features
        self.hop = features.hop_samples
        shape = (1, features.n_frames(n_samples), features.n_bins)
        self.waveform = mapped((1, n_samples))
        self.residual = mapped((1, n_samples))
        self.mask = mapped(shape, torch.half)
        self.shares: list[float] = []
        self.heard: list[Any] = []  # what far_notes needs of each window
        self.n_skipped = 0  # windows whose decision is not explained
        self.metrics: list[dict[str, float]] = []
        self.windows: list[dict[str, Any]] = []
        names = ("logits", "logits_in", "logits_out")
        self.sums: dict[str, Any] = dict.fromkeys(names, 0)

    def add(
        self,
        part: Any,
        start: int,
        after: int | None,
    ) -> None:
        """Add a window, faded where others overlap with it."""
        overlap = self.interpreter.overlap
        stop = start + part.waveform.shape[1]
        weight = fade(torch.arange(start, stop), start, after, overlap)
        self.waveform[0, start:stop] += weight * part.waveform[0]
        self.residual[0, start:stop] += weight * part.residual[0]
        n_frames = part.mask.shape[1]
        rows = slice(start // self.hop, start // self.hop + n_frames)
        places = start + torch.arange(n_frames) * self.hop
        frames = fade(places, start, after, overlap)
        self.mask[0, rows] += (frames[:, None] * part.mask[0]).half()
        share = float(weight.sum()) / self.n_samples
        self.shares.append(share)
        for name in self.sums:
            p = part.distribution(getattr(part, name))
            self.sums[name] = self.sums[name] + share * p.double()
        self.metrics.append(numbers(part))
        # Of a window, its sounds and its mask are too large to be kept.
        empty = dict.fromkeys(("waveform", "residual", "mask", "magnitude"))
        self.heard.append(replace(part, unrefined=None, **empty))
        rate, classes = self.interpreter.sample_rate, self.interpreter.classes
        self.windows.append(window(part, classes, start / rate, stop / rate))

    def finish(
        self, wav: Tensor, question: Question | None
    ) -> AudioExplanation:
        """The explanation; each window counts by its share of the sound."""
        multilabel = self.interpreter.explainer.classifier.multilabel
        logits = {
            name: _logits(total, multilabel)
            for name, total in self.sums.items()
        }
        classes = self.interpreter.classes
        question, said = settle(
            question, logits["logits"], self.interpreter.listener, classes
        )
        question = as_question(question, multilabel).settle(logits["logits"])
        whole = Explanation(
            waveform=self.waveform,
            residual=self.residual,
            mask=None,
            magnitude=None,
            decision=question.decision,
            question=None if question.is_plain else question,
            **logits,
        )
        # What the classifier says is that of the whole; of the mask, whose
        # windows overlap, the mean of the windows.
        found = numbers(whole)
        for name, metric in METRICS.items():
            if metric.needs == "mask":
                found[name] = sum(
                    share * row[name]
                    for share, row in zip(self.shares, self.metrics)
                )
        return self.interpreter.named(
            replace(whole, mask=self.mask),
            wav,
            windows=[self.windows],
            notes=[[*said[0], *self._notes(wav)]],
            metrics=[{name: found[name] for name in METRICS if name in found}],
        )

    def _notes(self, wav: Tensor) -> list[str]:
        """What is to be known of the windows."""
        found = []
        if self.n_skipped:
            found.append(
                f"in {self.n_skipped} of {len(self.windows)} windows the next "
                "class is explained instead of the decision, which no part of "
                "the sound explains"
            )
        starts = _starts(self.interpreter, len(wav))
        found += self.interpreter.length_notes(len(wav) - starts[-1])
        pieces = [
            wav[start : start + self.interpreter.window] for start in starts
        ]
        return found + self.interpreter.far_notes(pieces, self.heard)


def _logits(p: Tensor, multilabel: bool) -> Tensor:
    """Logits that have these probabilities, [1, classes]."""
    if not multilabel:
        return p.clamp_min(1e-30).log().float()
    return torch.logit(p, eps=1e-12).float()
