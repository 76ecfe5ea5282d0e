"""The explanation of a classifier's decision, from waveform to waveform.

The only place that knows the order of the steps; training, evaluation and
inference call it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Union

import torch
from torch import Tensor

from lmac_sb.lmac.losses import Embeddings
from lmac_sb.lmac.masking import (
    MASK_DOMAINS,
    apply_mask,
    binarize,
    both_parts,
    convert_mask,
    scale_stft,
)
from lmac_sb.lmac.refine import Refiner, check_steps
from lmac_sb.models.decoder import standard_level, usual_order
from lmac_sb.models.psi import as_mask_decoder
from lmac_sb.models.question import (
    Question,
    are_whole,
    as_question,
    as_target,
)
from lmac_sb.utils.errors import LMACError, kind_of, shown

if TYPE_CHECKING:
    from typing_extensions import Self

    from lmac_sb.models.features import SpectralFeatures
    from lmac_sb.models.frozen import FrozenClassifier

__all__ = ["Analysis", "Explainer", "Explanation", "check_batch"]

_MANY = 8  # clips, from which folding the norms for two passes pays
_ROUNDING = 1e-6  # of a sound's peak: 120 dB below it

# What is explained: a class of each clip [batch], a question, or the decision.
Asked = Union[Tensor, Question, None]


@dataclass
class Analysis:
    """What the classifier saw and decided, before any mask.

    Arguments
    ---------
    stft : torch.Tensor
        [batch, time, freq, 2].
    magnitude : torch.Tensor
        Linear, [batch, time, freq].
    logits : torch.Tensor
        [batch, classes].
    latents : list of torch.Tensor
        What the decoder reads, deepest first.
    n_samples : int
        Length of the waveforms.
    wavs : torch.Tensor
        They themselves, [batch, samples].
    embedding : torch.Tensor
        What the classifier's head read of them, [batch, dimensions], where
        the pass tells.
    unseen : torch.Tensor
        What of them lies in no frame of the STFT, [batch, samples], if that
        leaves some out, as behind the last whole frame without padding.

    Example
    -------
    >>> real, imaginary = torch.full((1, 2, 3), 3.0), torch.full((1, 2, 3), 4.0)
    >>> stft, magnitude = torch.stack((real, imaginary), -1), real.new_tensor(5)
    >>> analysis = Analysis(
    ...     stft, magnitude.expand(1, 2, 3), torch.zeros(1, 4), [real], 512
    ... )
    >>> torch.equal(analysis.stft.norm(dim=-1), analysis.magnitude)
    True
    """

    stft: Tensor
    magnitude: Tensor
    logits: Tensor
    latents: list[Tensor]
    n_samples: int
    wavs: Tensor | None = None
    embedding: Tensor | None = None
    unseen: Tensor | None = None

    def __getitem__(self, rows: slice | list[int] | Tensor) -> Analysis:
        """Some of the clips: those of a slice, a list or a tensor."""
        return Analysis(
            self.stft[rows],
            self.magnitude[rows],
            self.logits[rows],
            [latent[rows] for latent in self.latents],
            self.n_samples,
            None if self.wavs is None else self.wavs[rows],
            None if self.embedding is None else self.embedding[rows],
            None if self.unseen is None else self.unseen[rows],
        )


@dataclass
class Explanation:
    """An explained batch; ``explanation[0]`` is a batch of its first clip.

    Arguments
    ---------
    waveform : torch.Tensor
        Masked-in sound, [batch, samples]: what the decision rests on.
        None where it was not asked for.
    residual : torch.Tensor
        Masked-out sound, [batch, samples], or None.
    mask : torch.Tensor
        [batch, time, freq], in [0, 1].
    logits, logits_in, logits_out : torch.Tensor
        Classifier's logits on the whole, masked-in and masked-out input,
        [batch, classes]; the last two None where no check was asked for.
    decision : torch.Tensor
        Explained class, [batch].
    magnitude : torch.Tensor
        Linear magnitude of the input, [batch, time, freq].
    question : lmac_sb.models.question.Question
        What is explained, if it is more than one class among all.
    unrefined : Explanation
        The same with the decoder's own mask, where steps were taken and it
        was asked for; else None.
    embedding : torch.Tensor
        What the classifier's head read of the input, [batch, dimensions], or
        None where nobody looked.

    Example
    -------
    >>> logits, mask = torch.tensor([[2.0, 0.0]]), torch.ones(1, 2, 3)
    >>> explanation = Explanation(
    ...     waveform=None,
    ...     residual=None,
    ...     mask=mask,
    ...     logits=logits,
    ...     logits_in=logits,
    ...     logits_out=-logits,
    ...     decision=logits.argmax(1),
    ...     magnitude=mask,
    ... )
    >>> explanation.logits_out.softmax(1)[0, explanation.decision] < 0.5
    tensor([True])
    """

    waveform: Tensor | None
    residual: Tensor | None
    mask: Tensor | None
    logits: Tensor
    logits_in: Tensor | None
    logits_out: Tensor | None
    decision: Tensor
    magnitude: Tensor | None
    question: Question | None = field(default=None, kw_only=True)
    unrefined: Self | None = field(default=None, kw_only=True)
    embedding: Tensor | None = field(default=None, kw_only=True)

    # Fields of shape [batch, samples].
    SOUNDS: ClassVar[tuple[str, ...]] = ("waveform", "residual")

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.decision)

    def __getitem__(self, rows: int | slice | list[int] | Tensor) -> Self:
        """Some of the clips: one (a number, still a batch), or several."""
        chosen = self._chosen(rows)
        return self._each(lambda name, value: value[chosen])

    def _chosen(self, rows: Any) -> slice | Tensor:
        """The clips that are meant, as a slice or by their numbers."""
        if isinstance(rows, slice):
            return rows
        try:
            places = torch.as_tensor(rows)
        except (TypeError, ValueError, RuntimeError):
            places = torch.empty(0, 0)  # of a word, or nothing
        if places.shape == (0,):
            places = places.long()
        is_mask = places.dtype == torch.bool and places.shape == (len(self),)
        if not is_mask and (places.dim() > 1 or not are_whole(places)):
            raise LMACError(
                f"index: found {shown(rows)}, expected the number of a clip, "
                f"a list or slice of them, or a mask of {len(self)}"
            )
        if places.dim() == 0:
            place = range(len(self))[int(places)]  # raises IndexError
            return slice(place, place + 1)
        places = places if is_mask else places.long()
        return torch.arange(len(self), device=places.device)[places]

    @property
    def p_before(self) -> Tensor:
        """Probability of the explained answer on the input, [batch]."""
        return self._asked.probability(self.logits)

    @property
    def p_inside(self) -> Tensor:
        """The same on the masked-in part."""
        return self._asked.probability(_checked(self.logits_in))

    @property
    def p_outside(self) -> Tensor:
        """The same on the masked-out part."""
        return self._asked.probability(_checked(self.logits_out))

    def distribution(self, logits: Tensor) -> Tensor:
        """Probabilities of all classes; of a score, those of its answers.

        Arguments
        ---------
        logits : torch.Tensor
            The classifier's, [batch, classes].

        Returns
        -------
        torch.Tensor
            [batch, classes], or [batch, 2]. Where each class is decided on
            its own, they do not sum to one.
        """
        question = self._asked
        if question.score is not None:
            return question.answers(logits)[0].softmax(1)
        return logits.sigmoid() if question.multilabel else logits.softmax(1)

    @property
    def _asked(self) -> Question:
        """What is explained."""
        return self.question or Question(self.decision)

    def asked(self) -> Self:
        """The same explanation, as losses and metrics take it.

        Returns
        -------
        Explanation
            Its logits and its decision are those of the answers to what is
            explained, see `lmac_sb.models.question.Question`; of one class
            among all they are what they were.
        """
        if self.question is None:
            return self
        answers, chosen = self.question.answers(self.logits)
        sides: dict[str, Any] = {
            name: self.question.answers(getattr(self, name))[0]
            for name in ("logits_in", "logits_out")
            if getattr(self, name) is not None
        }
        return replace(
            self, logits=answers, decision=chosen, question=None, **sides
        )

    def fit(self, n_samples: int, n_frames: int) -> Self:
        """Cut the end, or append silence.

        Arguments
        ---------
        n_samples : int
            Wanted length of the sounds.
        n_frames : int
            Wanted length of mask and magnitude.

        Returns
        -------
        Explanation
        """
        sizes = {
            **dict.fromkeys(self.SOUNDS, n_samples),
            **dict.fromkeys(("mask", "magnitude"), n_frames),
        }
        return self._each(lambda name, value: _fit(value, sizes.get(name)))

    def scale(self, gain: Tensor) -> Self:
        """The same at another level.

        Arguments
        ---------
        gain : torch.Tensor
            What the sounds and the magnitude of each clip are multiplied by,
            [batch].

        Returns
        -------
        Explanation
        """

        def multiply(name: str, value: Tensor) -> Tensor:
            """One tensor."""
            if name not in (*self.SOUNDS, "magnitude"):
                return value
            return value * gain.view(-1, *[1] * (value.dim() - 1))

        return self._each(multiply)

    def cpu(self) -> Self:
        """The same on the CPU, without gradients, in single precision."""

        def move(name: str, value: Tensor) -> Tensor:
            """One tensor."""
            value = value.detach().cpu()
            return value.float() if value.is_floating_point() else value

        return self._each(move)

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """One batch out of several; shorter ones end in silence.

        Arguments
        ---------
        parts : list of Explanation
            At least one. A part that is None in one of them is None in the
            result.

        Returns
        -------
        Explanation

        Raises
        ------
        LMACError
            If there is none.
        """
        if not parts:
            raise LMACError("parts: found none, expected at least one")
        if len(parts) == 1:
            return parts[0]
        joined = {}
        for name in (entry.name for entry in fields(cls)):
            values = [getattr(part, name) for part in parts]
            joined[name] = cls._join(name, values)
        return cls(**joined)

    @classmethod
    def _join(cls, name: str, values: list[Any]) -> Any:
        """One field of several parts."""
        if any(value is None for value in values):
            return None
        if isinstance(values[0], Question):
            return Question.join(values)
        if isinstance(values[0], Explanation):
            return cls.join(values)
        if values[0].dim() > 1:
            longest = max(value.shape[1] for value in values)
            values = [_fit(value, longest) for value in values]
        return torch.cat(values)

    def _each(self, function: Callable[[str, Tensor], Tensor]) -> Self:
        """Another explanation, of each tensor that `function` returns."""
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                changed[name] = function(name, value)
            elif isinstance(value, Explanation):
                changed[name] = value._each(function)
            elif isinstance(value, Question):
                changed[name] = value.each(partial(function, name))
        return replace(self, **changed)


class _BothLogits:
    """Logits of both sides of the best masks so far, while steps are taken.

    Arguments
    ---------
    n_clips : int
        Size of the batch.
    """

    latest: Tensor  # of the masks that were classified last, [2 * clips, ...]
    inside: Tensor  # [batch, classes]
    outside: Tensor

    def __init__(self, n_clips: int) -> None:
        self.missing = set(range(n_clips))

    def keep(self, clips: Tensor, places: Tensor) -> None:
        """Keep the latest of some clips, by their places among them."""
        sides = self.latest.chunk(2)
        if not hasattr(self, "inside"):
            shape = len(self.missing), *self.latest.shape[1:]
            self.inside = self.latest.new_empty(shape)
            self.outside = self.latest.new_empty(shape)
        self.inside[clips] = sides[0][places]
        self.outside[clips] = sides[1][places]
        if self.missing:
            self.missing.difference_update(clips.tolist())


class Explainer(torch.nn.Module):
    """Explains a frozen classifier with a mask decoder.

    Arguments
    ---------
    features : lmac_sb.models.features.SpectralFeatures
        The classifier's front end; or one whose ``IS_SOUND`` is true,
        if the classifier gets the sound itself.
    classifier : lmac_sb.models.frozen.FrozenClassifier
        The classifier to explain.
    decoder : torch.nn.Module
        `MaskDecoder`, SpeechBrain's `CNN14PSI_stft`, or any module that turns
        (latents, log1p magnitude) into mask logits [batch, time, freq]. One
        with a true attribute ``wants_target`` gets the explained class
        [batch] after them.
    mask_domain : str
        Where the mask acts, see `lmac_sb.lmac.masking`.
    refiner : lmac_sb.lmac.refine.Refiner
        Improves the decoder's masks where steps are asked for.
    refine_steps : int
        Steps of the refiner, where a call does not say otherwise.
    second_look : bool
        Whether the decoder's masks get a second look, see `look_again`, where
        a call does not say otherwise.

    Example
    -------
    >>> from lmac_sb.models.encoders import ConvEmbedding
    >>> from lmac_sb.models.frozen import FrozenClassifier
    >>> from lmac_sb.models.decoder import MaskDecoder
    >>> from lmac_sb.models.features import SpectralFeatures
    >>> explainer = Explainer(
    ...     SpectralFeatures(n_mels=40),
    ...     FrozenClassifier(
    ...         ConvEmbedding(40, [4, 8, 16]),
    ...         torch.nn.Linear(16, 3),
    ...         ["blocks.2", "blocks.1"],
    ...         min_frames=4,
    ...     ),
    ...     MaskDecoder([16, 16, 8], n_mels=40, width=8),
    ... )
    >>> explanation = explainer(torch.rand(2, 16000))
    >>> explanation.waveform.shape, explanation.mask.shape
    (torch.Size([2, 16000]), torch.Size([2, 87, 513]))
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        features: SpectralFeatures | Any,
        classifier: FrozenClassifier,
        decoder: torch.nn.Module,
        mask_domain: str = "log1p",
        refiner: Refiner | None = None,
        refine_steps: int = 0,
        second_look: bool = False,
    ) -> None:
        if mask_domain not in MASK_DOMAINS:
            raise LMACError(
                f"mask_domain: '{mask_domain}' is none of {MASK_DOMAINS}"
            )
        super().__init__()
        self.features = features
        self.classifier = classifier
        self.decoder = as_mask_decoder(decoder)
        self.mask_domain = mask_domain
        self.refiner = refiner
        self.refine_steps = refine_steps
        self.second_look = second_look
        self.check_refinement(refine_steps, second_look)

    def forward(
        self,
        wavs: Tensor | None = None,
        lengths: Tensor | None = None,
        target: Asked = None,
        threshold: float | None = None,
        sounds: bool = True,
        check: bool = True,
        refine_steps: int | None = None,
        unrefined: bool = False,
        second_look: bool | None = None,
        analysis: Analysis | None = None,
    ) -> Explanation:
        """Explain a batch of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples], at the features' sampling rate.
        lengths : torch.Tensor
            Relative lengths of padded clips, [batch], in (0, 1]. Clips of
            different lengths are explained apart, so that no clip's result
            depends on the padding; the results are padded with zeros.
        target : torch.Tensor or lmac_sb.models.question.Question
            Class to explain, [batch], or one number for all clips, or what
            else is asked; default the classifier's decision.
        threshold : float
            Make the mask binary at this value; default continuous.
        sounds : bool
            Whether to resynthesise `waveform` and `residual`.
        check : bool
            Whether to classify what is masked in and out, which costs two
            more passes of the classifier.
        refine_steps : int
            Steps of the refiner; default those of the constructor.
        unrefined : bool
            Whether to keep the explanation by the decoder's own mask as well,
            where steps are taken; it has the analysis and the mask in common.
        second_look : bool
            Whether the decoder's mask gets a second look, before the steps;
            default that of the constructor.
        analysis : Analysis
            In place of the waveforms and their lengths, if it has been
            computed already.

        Returns
        -------
        Explanation

        Raises
        ------
        LMACError
            If the waveforms are not [batch, samples], are empty, no floating
            point or hold NaN, a length is out of range, there is no such
            class, the decoder is not in single precision, or the steps cannot
            be made.
        """
        if refine_steps is None:
            refine_steps = self.refine_steps
        if second_look is None:
            second_look = self.second_look
        self.check_refinement(refine_steps, second_look)
        self._check_precision()
        options: dict[str, Any] = {
            "second_look": second_look,
            "threshold": threshold,
            "sounds": sounds,
            "check": check,
            "refine_steps": refine_steps,
            "unrefined": unrefined,
        }
        if analysis is not None:
            if wavs is not None:
                raise LMACError(
                    "analysis: found wavs too, expected one of them"
                )
            return self._explain(analysis, target, **options)
        if wavs is None:
            raise LMACError("wavs: None, expected waveforms or an analysis")
        check_batch(wavs, lengths)
        target = as_target(target, wavs)
        if not wavs.isfinite().all():
            bad = (~wavs.isfinite()).any(1).nonzero()[:, 0].tolist()
            raise LMACError(f"wavs: NaN or infinite samples in clips {bad}")
        if lengths is None or (lengths == 1).all():
            analysis = self.analyze(wavs, target)
            return self._explain(analysis, target, **options)
        samples = (lengths * wavs.shape[1]).round().long().clamp(min=1)
        n_samples = wavs.shape[1]
        n_frames = self.features.n_frames(n_samples)
        parts, places = [], []
        for length in samples.unique().tolist():
            rows = (samples == length).nonzero()[:, 0].to(wavs.device)
            chosen = None if target is None else target[rows]
            analysis = self.analyze(wavs[rows, :length], chosen)
            part = self._explain(analysis, chosen, **options)
            parts.append(part.fit(n_samples, n_frames))
            places.append(rows)
        return Explanation.join(parts)[torch.cat(places).argsort()]

    def _explain(
        self,
        analysis: Analysis,
        target: Asked,
        second_look: bool,
        refine_steps: int,
        unrefined: bool,
        **options: Any,
    ) -> Explanation:
        """Explain clips of one length."""
        target = self._ask(analysis, target)
        mask = better = self.mask(analysis, target)
        if second_look:
            better = self.look_again(analysis, mask, target)
        if not refine_steps:
            return self._finish(analysis, better, target, **options)
        better, known = self._refine(analysis, better, refine_steps, target)
        explanation = self._finish(
            analysis, better, target, known=known, **options
        )
        if unrefined:
            explanation.unrefined = self._finish(
                analysis, mask, target, **options
            )
        return explanation

    def _finish(
        self,
        analysis: Analysis,
        mask: Tensor,
        target: Asked,
        threshold: float | None,
        known: _BothLogits | None = None,
        **options: bool,
    ) -> Explanation:
        """Make a mask binary if asked to, and classify both sides."""
        if threshold is not None:
            mask, known = binarize(mask, threshold), None
        if known is None or not options["check"]:
            return self.complete(analysis, mask, target, **options)
        # The last time that the steps classified these sides was enough.
        options["check"] = False
        found = self.complete(analysis, mask, target, **options)
        return replace(found, logits_in=known.inside, logits_out=known.outside)

    def starting_from(self, decoder: torch.nn.Module) -> Explainer:
        """Another explainer of the same classifier.

        Arguments
        ---------
        decoder : torch.nn.Module
            Its decoder, see the class.

        Returns
        -------
        Explainer
            It shares everything else.
        """
        return Explainer(
            self.features,
            self.classifier,
            decoder,
            self.mask_domain,
            self.refiner,
            self.refine_steps,
            self.second_look,
        )

    def analyze(self, wavs: Tensor, target: Asked = None) -> Analysis:
        """Features, decision and latents; no gradient is kept.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples].
        target : torch.Tensor
            Class to explain, [batch], or a question; default the decision.

        Returns
        -------
        Analysis
        """
        with torch.no_grad():
            # STFT in single precision whatever the autocast.
            stft = self.features.stft(wavs.float())
            magnitude = self.features.magnitude(stft)
            analysis = Analysis(
                stft, magnitude, stft.new_zeros(len(wavs), 0), [], wavs.shape[1]
            )
            inverse = getattr(self.features, "compute_istft", None)
            if not getattr(inverse, "is_whole", True):
                seen = self.features.istft(stft, wavs.shape[1])
                analysis.unseen = wavs.float() - seen
            # Only the evidence needs the question now.
            if isinstance(target, Question) and self.classifier.evidence:
                target = self._hear_silence(analysis, target)
            analysis.wavs = wavs.float()
            inputs = (
                analysis.wavs if self._hears_sound else self._mel(magnitude)
            )
            analysis.logits, latents = self.classifier.trace(inputs, target)
            analysis.embedding = self.classifier.traced_embedding
            # Any decoder may read them, not our own alone.
            analysis.latents = [usual_order(latent) for latent in latents]
        return analysis

    def _ask(self, analysis: Analysis, target: Asked) -> Question:
        """The question that is asked about analysed clips."""
        question = as_question(target, self.classifier.multilabel)
        return self._hear_silence(analysis, question).settle(analysis.logits)

    @torch.no_grad()
    def _hear_silence(self, analysis: Analysis, question: Question) -> Question:
        """The same question; of a score, with that of silence."""
        if question.score is None or question.low is not None:
            return question
        silence = self.classify(torch.zeros_like(analysis.magnitude), analysis)
        return question.from_silence(silence)

    def mask(self, analysis: Analysis, target: Asked = None) -> Tensor:
        """The decoder's mask.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.
        target : torch.Tensor
            Class or question, as given to `analyze`; default the decision.
            Most decoders read it from the evidence alone.

        Returns
        -------
        torch.Tensor
            [batch, time, freq], in [0, 1].
        """
        log_magnitude = torch.log1p(analysis.magnitude)
        n_frames = log_magnitude.shape[1]
        # Frames that the classifier was padded with have latents too.
        inputs = [analysis.latents, self.pad(log_magnitude)]
        if getattr(self.decoder, "wants_target", False):
            inputs.append(self._ask(analysis, target).decision)
        logits = self.decoder(*inputs)
        # Half precision would round the mask to steps of 1/256 or more.
        return torch.sigmoid(logits[:, :n_frames].float())

    def look_again(
        self, analysis: Analysis, mask: Tensor, target: Asked = None
    ) -> Tensor:
        """Masks after a second look, see `lmac_sb.lmac.refine.Refiner.look`.

        The classifier hears what the mask keeps, and its gradient says what
        should be let through as well and what is not needed: a pass forward
        and one back.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.
        mask : torch.Tensor
            The decoder's, [batch, time, freq].
        target : torch.Tensor
            Class to explain, [batch], or a question; default the decision.

        Returns
        -------
        torch.Tensor
            [batch, time, freq], in [0, 1].

        Raises
        ------
        LMACError
            If this explainer has no refiner, or no gradient of the classifier
            reaches the mask.
        """
        self.check_refinement(0, True)
        question = self._ask(analysis, target)
        bare = replace(analysis, latents=[])

        def log_odds(part: Tensor) -> Tensor:
            """Of the answer, on what the mask lets through."""
            # Copies: what was made in inference mode takes no gradient.
            inside = self.let_through(analysis.magnitude.clone(), part)
            asked = question.each(torch.clone)
            return asked.log_odds(self.classify(inside, bare))

        refiner: Any = self.refiner  # there, as was checked above
        return refiner.look(_logits(mask), log_odds)

    def refine(
        self,
        analysis: Analysis,
        mask: Tensor,
        steps: int,
        target: Asked = None,
    ) -> Tensor:
        """Better masks for these clips, see `lmac_sb.lmac.refine`.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.
        mask : torch.Tensor
            Where to start, [batch, time, freq].
        steps : int
            At most so many.
        target : torch.Tensor
            Class to explain, [batch], or a question; default the decision.

        Returns
        -------
        torch.Tensor
            [batch, time, freq], in [0, 1].

        Raises
        ------
        LMACError
            If this explainer has no refiner, or the steps are no number.
        """
        return self._refine(analysis, mask, steps, target)[0]

    def _refine(
        self,
        analysis: Analysis,
        mask: Tensor,
        steps: int,
        target: Asked = None,
    ) -> tuple[Tensor, _BothLogits | None]:
        """Better masks, and the logits of both their sides, if there are."""
        self.check_refinement(steps)
        if steps == 0:
            return mask, None
        question = self._ask(analysis, target)
        refiner: Any = self.refiner  # there, as was checked above
        # The decoder has read the latents; each step would copy them.
        bare = replace(analysis, latents=[])
        wants_embeddings = refiner.loss.wants_embeddings
        kept = _BothLogits(len(analysis.magnitude))
        answer = question.answers(analysis.logits)[1]
        level = standard_level(analysis.magnitude) if refiner.gain else None
        with self.classifier.folded():
            whole = self.embedding(bare) if wants_embeddings else None

            def classify(part: Tensor, rows: Tensor) -> tuple[Any, ...]:
                """What the loss needs of both sides of the mask."""
                parts = bare, question, whole
                if len(rows) < len(analysis.magnitude):  # others are done
                    parts = (
                        bare[rows],
                        question[rows],
                        None if whole is None else whole[rows],
                    )
                logits, embeddings = self._both_logits(parts[0], part, parts[2])
                kept.latest = logits.detach()
                answers = (parts[1].answers(x)[0] for x in logits.chunk(2))
                return *answers, *embeddings

            found = refiner(
                _logits(mask), classify, answer, steps, level, kept.keep
            )
        # Of a clip whose objective was never finite, none are known.
        return found, None if kept.missing else kept

    def check_refinement(self, steps: int, second_look: bool = False) -> None:
        """Refuse what cannot be made of a decoder's mask.

        Arguments
        ---------
        steps : int
            From 0; more than 0 only if there is a refiner.
        second_look : bool
            Whether there is one, which needs the refiner too.

        Raises
        ------
        LMACError
            Says what was found and what is needed.
        """
        check_steps(steps)
        if not isinstance(second_look, bool):
            raise LMACError(
                f"second_look: {shown(second_look)}, expected True or False"
            )
        if (steps or second_look) and self.refiner is None:
            asked = f"refine_steps: {steps}" if steps else "second_look: True"
            raise LMACError(
                f"{asked}, but this model has no refiner; its "
                "yaml needs `refiner: !ref <refiner>` in the explainer, as in "
                "hparams/lmac.yaml"
            )

    def _check_precision(self) -> None:
        """Refuse a decoder that cannot read what it is given."""
        for weights in self.decoder.parameters():
            if weights.dtype != torch.float32:
                raise LMACError(
                    f"decoder: found weights of {weights.dtype}, expected "
                    "torch.float32, as .float() makes them; torch.autocast "
                    "explains in half precision"
                )

    def embedding(self, analysis: Analysis) -> Tensor:
        """What the classifier's head reads of the whole sounds.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.

        Returns
        -------
        torch.Tensor
            [batch, dimensions], without gradient; see
            `lmac_sb.models.frozen.FrozenClassifier.logits_and_embedding`.
        """
        if analysis.embedding is not None:
            return analysis.embedding
        with torch.no_grad():
            inputs: Any = analysis.wavs  # there, if it hears sound
            if not self._hears_sound:
                inputs = self._mel(analysis.magnitude)
            return self.classifier.logits_and_embedding(inputs)[1]

    def hear(self, wavs: Tensor) -> tuple[Tensor, Tensor]:
        """What the classifier makes of sounds, in one pass.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples].

        Returns
        -------
        tuple of torch.Tensor
            Logits [batch, classes] and what the head reads, [batch,
            dimensions], without gradient.
        """
        with torch.no_grad():
            heard = wavs = wavs.float()
            if not self._hears_sound:
                heard = self.features.magnitude(self.features.stft(wavs))
            return self.classifier.logits_and_embedding(self._inputs(heard))

    def both_sides(
        self,
        analysis: Analysis,
        mask: Tensor,
        question: Question,
        whole: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """What a loss needs of both sides of a mask, with a gradient to it.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.
        mask : torch.Tensor
            [batch, time, freq].
        question : lmac_sb.models.question.Question
            What is asked, settled.
        whole : torch.Tensor
            From `embedding`, if the loss wants embeddings.

        Returns
        -------
        answers_in, answers_out : torch.Tensor
            Logits of the answers to the question, [batch, answers].
        embeddings : lmac_sb.lmac.losses.Embeddings
            Only if `whole` is given.
        """
        logits, embeddings = self._both_logits(analysis, mask, whole)
        answers = (question.answers(side)[0] for side in logits.chunk(2))
        return *answers, *embeddings

    def _both_logits(
        self, analysis: Analysis, mask: Tensor, whole: Tensor | None
    ) -> tuple[Tensor, tuple[Embeddings, ...]]:
        """Logits [2 * batch, classes] of both sides; embeddings if wanted."""
        inputs = self._inputs(self._sides(analysis, mask))
        if whole is None:
            return self.classifier(inputs)[0], ()
        logits, found = self.classifier.logits_and_embedding(inputs)
        return logits, (Embeddings(whole, *found.chunk(2)),)

    def complete(
        self,
        analysis: Analysis,
        mask: Tensor,
        target: Asked = None,
        sounds: bool = True,
        check: bool = True,
    ) -> Explanation:
        """Classify both sides of any mask.

        Masked-in and masked-out go through the classifier as one batch.

        Arguments
        ---------
        analysis : Analysis
            From `analyze`.
        mask : torch.Tensor
            [batch, time, freq], from the decoder or from elsewhere.
        target : torch.Tensor
            Class to explain, [batch], or a question; default the decision.
        sounds : bool
            Whether to resynthesise the sounds.
        check : bool
            Whether to classify both sides.

        Returns
        -------
        Explanation
        """
        needed = check or sounds and self._hears_sound
        sides: Any = self._sides(analysis, mask) if needed else None
        logits_in = logits_out = None
        if check:
            many = len(mask) >= _MANY
            with self.classifier.folded() if many else nullcontext():
                logits = self.classifier(self._inputs(sides))[0]
            logits_in, logits_out = logits.chunk(2)
        waveform = residual = None
        if sounds:
            if not self._hears_sound:
                known = None if sides is None else sides.detach()
                sides = self._sounds(analysis, mask.detach(), known)
            waveform, residual = sides.detach().chunk(2)
        question = self._ask(analysis, target)
        return Explanation(
            waveform=waveform,
            residual=residual,
            mask=mask,
            logits=analysis.logits,
            logits_in=logits_in,
            logits_out=logits_out,
            decision=question.decision,
            magnitude=analysis.magnitude,
            question=None if question.is_plain else question,
            embedding=analysis.embedding,
        )

    def classify(
        self, magnitude: Tensor, analysis: Analysis | None = None
    ) -> Tensor:
        """Logits of any magnitude, with a gradient to it.

        Arguments
        ---------
        magnitude : torch.Tensor
            Linear, [batch, time, freq].
        analysis : Analysis
            Of the clips whose phase it has, where the classifier hears sound;
            the batch may be that of the clips several times over.

        Returns
        -------
        torch.Tensor
            [batch, classes].
        """
        if not self._hears_sound:
            return self.classifier(self._mel(magnitude))[0]
        if analysis is None:
            raise LMACError(
                "analysis: found none, expected that of the clips: this "
                "classifier hears sound, which needs their phase"
            )
        return self.classifier(self._sound(analysis, magnitude))[0]

    def classify_sounds(self, wavs: Tensor) -> Tensor:
        """Logits of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            [batch, samples].

        Returns
        -------
        torch.Tensor
            [batch, classes].
        """
        if self._hears_sound:
            return self.classifier(wavs)[0]
        return self.classify(self.features.magnitude(self.features.stft(wavs)))

    def let_through(self, magnitude: Tensor, mask: Tensor) -> Tensor:
        """What a mask lets through, see `apply_mask`."""
        return apply_mask(magnitude, mask, self.mask_domain)

    def linear_mask(self, magnitude: Tensor, mask: Tensor) -> Tensor:
        """A mask as the factor on the magnitude, see `convert_mask`."""
        return convert_mask(magnitude, mask, self.mask_domain, "linear")

    @property
    def _hears_sound(self) -> bool:
        """Whether the classifier gets waveforms, not features."""
        return self.features.IS_SOUND

    def _sides(self, analysis: Analysis, mask: Tensor) -> Tensor:
        """Both sides as sounds or as magnitudes, [2 * batch, ...]."""
        if self._hears_sound:
            return self._sounds(analysis, mask)
        return self._magnitudes(analysis, mask)

    def _magnitudes(self, analysis: Analysis, mask: Tensor) -> Tensor:
        """Both sides as magnitudes, [2 * batch, time, freq]."""
        magnitude = _fit_for_gradient(analysis.magnitude)
        return both_parts(magnitude, mask, self.mask_domain)

    def _sounds(
        self, analysis: Analysis, mask: Tensor, sides: Tensor | None = None
    ) -> Tensor:
        """Both sides as sounds, [2 * batch, samples].

        Their magnitudes may be known.
        """
        if self.mask_domain == "linear":
            # They add up to the whole, so one inverse STFT is enough.
            stft = scale_stft(_fit_for_gradient(analysis.stft), mask)
            inside = self.features.istft(stft, analysis.n_samples)
            whole: Any = analysis.wavs  # there, since `analyze` made it
            outside = whole - inside
            # Of what is let through as a whole, rounding is left: a
            # classifier that does not know levels would hear it.
            peak = whole.abs().amax(1, keepdim=True)
            outside = outside * (outside.abs() > _ROUNDING * peak)
            return torch.cat((inside, outside))
        if sides is None:
            sides = self._magnitudes(analysis, mask)
        sounds = self._sound(analysis, sides)
        if analysis.unseen is None:
            return sounds
        # So both add up to the sound.
        inside, outside = sounds.chunk(2)
        return torch.cat((inside, outside + analysis.unseen))

    def _sound(self, analysis: Analysis, magnitude: Tensor) -> Tensor:
        """Waveform of another magnitude with the input's phase."""
        # The clips once or several times over.
        gain = magnitude.unflatten(0, (-1, len(analysis.magnitude)))
        gain = gain / analysis.magnitude
        stft = scale_stft(analysis.stft, gain).flatten(0, 1)
        return self.features.istft(stft, analysis.n_samples)

    def _inputs(self, sides: Tensor) -> Tensor:
        """Classifier's input of what `_sides` gives."""
        return sides if self._hears_sound else self._mel(sides)

    def _mel(self, magnitude: Tensor) -> Tensor:
        """Classifier's input, padded with silence to its shortest."""
        features: Any = self.features  # those that have bands
        return features.mel(self.pad(magnitude))

    def pad(self, frames: Tensor) -> Tensor:
        """At least as many frames [batch, time, ...] as can be classified."""
        missing = self.classifier.min_frames - frames.shape[1]
        if missing <= 0:
            return frames
        return torch.nn.functional.pad(frames, (0, 0, 0, missing))


def check_batch(wavs: Tensor, lengths: Tensor | None) -> None:
    """Refuse what is no batch of waveforms.

    Arguments
    ---------
    wavs : torch.Tensor
        Should be [batch, samples].
    lengths : torch.Tensor or None
        Should be relative lengths, [batch], in (0, 1].

    Raises
    ------
    LMACError
        Says what was found and what is needed.

    Example
    -------
    >>> check_batch(torch.rand(2, 0), None)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: wavs: shape (2, 0), expected [batch, samples] ...
    """
    if not isinstance(wavs, Tensor):
        raise LMACError(
            f"wavs: found {kind_of(wavs)}, expected a tensor [batch, "
            "samples]; torch.as_tensor makes one"
        )
    if wavs.dim() != 2 or 0 in wavs.shape:
        raise LMACError(
            f"wavs: shape {tuple(wavs.shape)}, expected [batch, samples] "
            "with at least one sample"
        )
    if not wavs.is_floating_point():
        raise LMACError(
            f"wavs: found {wavs.dtype}, expected floating point from -1 to 1, "
            "such as wavs / 32768 of samples of 16 bits"
        )
    if wavs.layout != torch.strided or wavs.is_meta:
        raise LMACError(
            f"wavs: found a tensor of {wavs.layout} on {wavs.device}, "
            "expected a dense one with samples"
        )
    if lengths is not None and not isinstance(lengths, Tensor):
        raise LMACError(
            f"lengths: found {kind_of(lengths)}, expected a tensor [batch]; "
            "torch.as_tensor makes one"
        )
    if lengths is not None and (
        lengths.shape != wavs.shape[:1]
        or not ((lengths > 0) & (lengths <= 1)).all()
    ):
        raise LMACError(
            f"lengths: {lengths.tolist()}, expected one number in (0, 1] "
            f"for each of {len(wavs)} clips"
        )


def _logits(mask: Tensor) -> Tensor:
    """Logits of a mask."""
    # Most bins are all but 0, and their order tells a detector something.
    return torch.logit(mask.double(), eps=1e-12).to(mask)


def _fit_for_gradient(values: Tensor) -> Tensor:
    """The same values: what was made in inference mode takes no gradient."""
    return values.clone() if values.is_inference() else values


def _checked(logits: Tensor | None) -> Tensor:
    """Logits of one side, which are there only after a check."""
    if logits is None:
        raise LMACError(
            "explanation: its sides were not classified, expected check=True"
        )
    return logits


def _fit(values: Tensor, size: int | None) -> Tensor:
    """Values [batch, time, ...] cut or padded with zeros to a length."""
    if size is None or values.shape[1] == size:
        return values
    if values.shape[1] > size:
        return values[:, :size]
    whole = values.new_zeros([len(values), size, *values.shape[2:]])
    whole[:, : values.shape[1]] = values
    return whole
