"""Explained sounds with names and numbers, for people."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import soundfile as sf
import torch
from torch import Tensor

from lmac_sb.inference.clip_folder import (
    check_format,
    common_gain,
    folder_names,
    gain_in_words,
    new_clip,
    save_clip,
    write_clip,
)
from lmac_sb.inference.questions import answer_names
from lmac_sb.inference.spectra import draw_clip, input_of
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.verdict import (
    STABLE,
    Evidence,
    energy_share,
    heard_area,
    level_db,
    verdicts,
)
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import as_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Self

__all__ = ["AudioExplanation", "numbers", "verdict", "window"]

_PLAYED_S = 60  # longer sounds are not put into a notebook


# Attributes that hold one entry a clip and are no tensors.
_LISTS = (
    "n_samples",
    "files",
    "windows",
    "metrics",
    "verdicts",
    "agreement",
    "notes",
)

# Those that all clips have in common.
_COMMON = (
    "classes",
    "features",
    "threshold",
    "refine_steps",
    "second_look",
    "mask_domain",
    "families",
    "by_class",
    "made",
)


@dataclass
class AudioExplanation(Explanation):
    """Explanation of sounds, as `lmac_sb.LMACInterpreter` returns it.

    All tensors are on the CPU. Clips shorter than the longest of the batch
    end in zeros. Of clips longer than a window, the logits are those of the
    windows' mean probabilities, weighted by their shares of the clip, the mask
    has half precision, mask and sounds lie on disk, and `magnitude` is None.

    Arguments
    ---------
    waveform, residual, mask, logits, logits_in, logits_out : torch.Tensor
        See `lmac_sb.Explanation`. The sounds have the level of the input.
    decision, magnitude : torch.Tensor
        See `lmac_sb.Explanation`.
    wavs : torch.Tensor
        The input at the model's sampling rate, [batch, samples].
    n_samples : list of int
        Length of each clip.
    classes : list of str
        Names of the classes.
    features : lmac_sb.models.features.SpectralFeatures
        The model's front end.
    files : list of str
        Where each clip comes from, or None.
    threshold : float
        At which the masks were made binary, or None.
    refine_steps : int
        Gradient steps that were allowed from the decoder's masks.
    second_look : bool
        Whether the decoder's masks got a second look before the steps.
    mask_domain : str
        Where the masks act, see `lmac_sb.lmac.masking`.
    windows : list
        For each clip the list of its windows, each a dict with start and end
        in seconds, decision, p, p_in, p_out and verdict of that window.
    metrics : list of dict
        Name to number for each clip, see `lmac_sb.metrics`.
    verdicts : list of str
        What to make of each clip's explanation: one of
        `lmac_sb.metrics.verdict.VERDICTS`.
    agreement : list of dict
        For each clip how well the mask agrees with others of the same sound:
        name of the check to correlation; empty where nobody asked.
    notes : list of list of str
        For each clip what else is to be known of it: what was not heard, or
        not explained.
    families : Families
        Which classes contain which, where some do; else None.
    by_class : bool
        Whether all are one clip, each with another class explained.
    made : dict
        What made the explanations: name and checksum of the model, versions
        of the packages, and the day; empty where nothing tells it.
    unrefined : AudioExplanation
        The same clips with the decoder's own masks, to compare with, where
        steps were taken and it was asked for; else None.

    Example
    -------
    >>> explanation = interpreter.explain_file(path)
    >>> explanation.labels[0] in interpreter.classes
    True
    >>> (folder,) = explanation.save(getfixture("tmp_path") / "why")
    >>> sorted(file.name for file in folder.glob("*.wav"))
    ['interpretation.wav', 'original.wav', 'residual.wav']
    """

    waveform: Tensor
    residual: Tensor
    mask: Tensor
    logits_in: Tensor
    logits_out: Tensor
    wavs: Tensor = field(kw_only=True)
    n_samples: list[int] = field(kw_only=True)
    classes: list[str] = field(kw_only=True)
    features: SpectralFeatures = field(kw_only=True)
    files: list[str | None] = field(kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    refine_steps: int = field(default=0, kw_only=True)
    second_look: bool = field(default=False, kw_only=True)
    mask_domain: str = field(default="linear", kw_only=True)
    windows: list[list[dict[str, Any]]] = field(kw_only=True)
    metrics: list[dict[str, float]] = field(kw_only=True)
    verdicts: list[str] = field(kw_only=True)
    agreement: list[dict[str, float]] = field(kw_only=True)
    notes: list[list[str]] = field(kw_only=True)
    families: Any = field(default=None, kw_only=True)
    by_class: bool = field(default=False, kw_only=True)
    made: dict[str, str | None] = field(default_factory=dict, kw_only=True)

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        wavs: Tensor,
        features: SpectralFeatures,
        classes: Mapping[int, str] | Sequence[str],
        **more: Any,
    ) -> AudioExplanation:
        """Add names, windows, metrics and verdicts to an explanation.

        Arguments
        ---------
        explanation : lmac_sb.lmac.explainer.Explanation
            On the CPU, with sounds, and both sides classified.
        wavs : torch.Tensor
            What was explained, at the level of the sounds, [batch, samples].
        features : lmac_sb.models.features.SpectralFeatures
            The model's front end.
        classes : list of str
            Names of the classes.
        **more
            Other attributes; windows, metrics and verdicts are computed
            unless given.

        Returns
        -------
        AudioExplanation

        Example
        -------
        >>> explanation = explainer(wavs)
        >>> classes = ["cat", "cow", "dog"]
        >>> features = explainer.features
        >>> named = AudioExplanation.of(explanation, wavs, features, classes)
        >>> named[1].labels[0] in classes
        True
        """
        n_clips, n_samples = wavs.shape
        classes = [classes[c] for c in range(len(classes))]
        if explanation.question and explanation.question.score is not None:
            name = getattr(explanation.question.score, "__name__", "score")
            name = "score" if name == "<lambda>" else name
            classes = [name, f"{name} of silence"]
        parts = [explanation[i] for i in range(n_clips)]
        given: dict[str, Any] = {
            "n_samples": [n_samples] * n_clips,
            "files": [None] * n_clips,
            "agreement": [{} for _ in parts],
            "notes": [[] for _ in parts],
        }
        if "windows" not in more:
            end = n_samples / features.sample_rate
            given["windows"] = [[window(x, classes, 0.0, end)] for x in parts]
        if "metrics" not in more:
            given["metrics"] = [numbers(part) for part in parts]
        if "verdicts" not in more:
            lengths = {**given, **more}["n_samples"]
            given["verdicts"] = [
                verdict(_with_magnitude(part, wav[:n], features), wav[:n])
                for part, wav, n in zip(parts, wavs, lengths)
            ]
        named = cls(
            **{**vars(explanation), **given, **more, "unrefined": None},
            wavs=wavs,
            features=features,
            classes=classes,
        )
        if explanation.unrefined is not None:
            named.unrefined = cls.of(
                explanation.unrefined,
                wavs,
                features,
                classes,
                mask_domain=named.mask_domain,
                families=named.families,
                made=named.made,
            )
        return named

    SOUNDS: ClassVar[tuple[str, ...]] = (*Explanation.SOUNDS, "wavs")

    def fit(self, n_samples: int, n_frames: int) -> Self:
        """Cut the end, or append silence, see `lmac_sb.Explanation`."""
        lengths = [min(length, n_samples) for length in self.n_samples]
        return replace(super().fit(n_samples, n_frames), n_samples=lengths)

    def __getitem__(self, rows: int | slice | list[int] | Tensor) -> Self:
        """Some of the clips, see `lmac_sb.Explanation`."""
        chosen = self._chosen(rows)
        places = torch.arange(len(self))[chosen].tolist()
        lists: dict[str, Any] = {
            name: [getattr(self, name)[place] for place in places]
            for name in _LISTS
        }
        if self.unrefined is not None:
            lists["unrefined"] = self.unrefined[chosen]
        return replace(super().__getitem__(chosen), **lists)

    @classmethod
    def _join(cls, name: str, values: list[Any]) -> Any:
        """One attribute of several parts."""
        if name in _LISTS:
            return [item for value in values for item in value]
        if name in _COMMON:
            return values[0]
        return super()._join(name, values)

    def __repr__(self) -> str:
        """One line a clip, and one for each note."""
        lines = []
        for label, p, p_in, p_out, judged, notes in zip(
            self.titles,
            self.p_before,
            self.p_inside,
            self.p_outside,
            self.judged,
            self.notes,
        ):
            lines.append(
                f"AudioExplanation({label!r}: p = {p:.3f}, inside {p_in:.3f}, "
                f"outside {p_out:.3f}; {judged})"
            )
            lines += [f"  note: {note}" for note in notes]
        return "\n".join(lines)

    @property
    def stable(self) -> list[bool | None]:
        """Whether the masks of each clip agree; None if nobody asked."""
        return [
            all(value >= STABLE for value in found.values()) if found else None
            for found in self.agreement
        ]

    @property
    def judged(self) -> list[str]:
        """Each clip's verdict, and its stability if it is known, in words."""
        words = {None: "", True: ", stable", False: ", not stable"}
        return [
            verdict + words[stable]
            for verdict, stable in zip(self.verdicts, self.stable)
        ]

    @property
    def sample_rate(self) -> int:
        """Sampling rate of the sounds in Hz."""
        return self.features.sample_rate

    @property
    def labels(self) -> list[str]:
        """Name of the explained class of each clip."""
        return answer_names(self.question, self.decision, self.classes)

    @property
    def parents(self) -> list[str]:
        """The classes that contain that of each clip; empty for none."""
        families = self.families
        if families is None or len(families) != len(self.classes):
            return ["" for _ in self.labels]
        return [
            families.describe(number, self.classes)
            if label == self.classes[number]
            else ""
            for number, label in zip(self.decision.tolist(), self.labels)
        ]

    @property
    def titles(self) -> list[str]:
        """The labels, with the classes that contain them."""
        return [
            f"{label} ({above})" if above else label
            for label, above in zip(self.labels, self.parents)
        ]

    @property
    def probabilities(self) -> Tensor:
        """Probabilities of all classes on the input, [batch, classes]."""
        return self.distribution(self.logits)

    def top(self, k: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of each clip.

        Arguments
        ---------
        k : int
            How many.

        Returns
        -------
        list
            For each clip a list of (name, probability), best first.
        """
        found = self.probabilities.topk(min(k, len(self.classes)), dim=1)
        return [
            [(self.classes[c], p) for p, c in zip(ps, cs)]
            for ps, cs in zip(found.values.tolist(), found.indices.tolist())
        ]

    def save(
        self,
        folder: str | bytes | Path,
        audio_format: str = "wav",
        truth: Sequence[str] | None = None,
    ) -> list[Path]:
        """Write sounds, picture, maps and numbers.

        Arguments
        ---------
        folder : str, bytes or Path
            Created if it does not exist. Holds one clip, or several in
            sub-folders ``clip_0``, ``clip_1``, ..., or, if several classes of
            one clip were asked for, in sub-folders of the classes' names.
        audio_format : str
            ``wav`` or ``flac``.
        truth : list of str
            Label of each clip, if it is known.

        Returns
        -------
        list of pathlib.Path
            The folder of each clip, see `save_clip`. With `unrefined`, it
            holds a folder of that name, and the report shows both on one card.
        """
        check_format(audio_format)
        place: Path = as_path("folder", folder)
        truths = [None] * len(self) if truth is None else truth
        if self.by_class:
            names = folder_names(self.labels)
            with new_clip(place) as part:
                for i, name in enumerate(names):
                    write_clip(
                        part / name, self[i], name, truths[i], audio_format
                    )
            return [place / name for name in names]
        folders = [place]
        if len(self) > 1:
            folders = [place / f"clip_{i}" for i in range(len(self))]
        for i, path in enumerate(folders):
            save_clip(path, self[i], truths[i], audio_format)
        return folders

    def plot(self, index: int = 0) -> Figure:
        """Spectrograms and mask of one clip.

        Arguments
        ---------
        index : int
            Which clip.

        Returns
        -------
        matplotlib.figure.Figure
        """
        return draw_clip(self[index])

    def _sound(self, sounds: Tensor, index: int) -> Tensor:
        """One clip's sound at its own length."""
        return sounds[index, : self.n_samples[index]]

    def _repr_html_(self) -> str:
        """Picture, probabilities and players, for a notebook."""
        return "\n".join(self._clip_html(i) for i in range(len(self)))

    def _clip_html(self, index: int) -> str:
        """One clip for a notebook."""
        label = html.escape(self.titles[index])
        picture = io.BytesIO()
        self.plot(index).savefig(picture, dpi=70, format="png")
        parts = [
            f"<h4>{label}</h4>",
            f"<p><strong>{html.escape(self.judged[index])}</strong></p>",
            *(f"<p>{html.escape(note)}</p>" for note in self.notes[index]),
            f'<img alt="spectrograms and mask, explained class {label}" '
            f'src="data:image/png;base64,{_base64(picture.getvalue())}">',
        ]
        gain = common_gain(
            self._sound(sounds, index)
            for sounds in (self.wavs, self.waveform, self.residual)
        )
        if gain_in_words(gain):
            parts.append(f"<p>{gain_in_words(gain)}</p>")
        for name, p, sounds in (
            ("input", self.p_before, self.wavs),
            ("interpretation", self.p_inside, self.waveform),
            ("residual", self.p_outside, self.residual),
        ):
            parts.append(f"<p>{name}, p = {float(p[index]):.3f}<br>")
            if self.n_samples[index] > _PLAYED_S * self.sample_rate:
                parts.append("too long to play here, see <code>save</code></p>")
                continue
            sound = io.BytesIO()
            wav = self._sound(sounds, index).double() * gain
            sf.write(sound, wav.numpy(), self.sample_rate, format="FLAC")
            parts.append(
                '<audio controls src="data:audio/flac;base64,'
                f'{_base64(sound.getvalue())}"></audio></p>'
            )
        return "\n".join(parts)


def _base64(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def numbers(explanation: Explanation) -> dict[str, float]:
    """Metrics of one clip.

    Arguments
    ---------
    explanation : lmac_sb.lmac.explainer.Explanation
        Of one clip.

    Returns
    -------
    dict
        Name to number.

    Example
    -------
    >>> numbers(explainer(wavs)[0])["area"] > 0
    True
    """
    found = evaluate(explanation.asked())
    return {name: float(value) for name, value in found.items()}


def window(
    explanation: Explanation, classes: Sequence[str], start: float, end: float
) -> dict[str, Any]:
    """The decision in one window of a clip.

    Arguments
    ---------
    explanation : lmac_sb.lmac.explainer.Explanation
        Of the window.
    classes : list of str
        Names of the classes.
    start, end : float
        Its place in seconds.

    Returns
    -------
    dict
        ``start``, ``end``, ``decision``, the probabilities of that class on
        the window, its masked-in and its masked-out part, and ``verdict``.

    Example
    -------
    >>> found = window(explainer(wavs)[0], ["cat", "cow", "dog"], 0.0, 1.0)
    >>> list(found)
    ['start', 'end', 'decision', 'p', 'p_in', 'p_out', 'verdict']
    """
    return {
        "start": start,
        "end": end,
        "decision": answer_names(
            explanation.question, explanation.decision, classes
        )[0],
        "p": float(explanation.p_before[0]),
        "p_in": float(explanation.p_inside[0]),
        "p_out": float(explanation.p_outside[0]),
        "verdict": verdict(explanation),
    }


def verdict(explanation: Explanation, wav: Tensor | None = None) -> str:
    """What to make of an explanation of one clip.

    Arguments
    ---------
    explanation : lmac_sb.lmac.explainer.Explanation
        Of one clip, with sounds and magnitude, and both sides classified.
    wav : torch.Tensor
        What was explained, [samples]; by default, its two parts together.

    Returns
    -------
    str
        One of `lmac_sb.metrics.verdict.VERDICTS`.

    Example
    -------
    >>> explanation = explainer(torch.zeros(1, 16000))
    >>> verdict(explanation)
    'silent'
    """
    kept, rest = explanation.waveform, explanation.residual
    mask, magnitude = explanation.mask, explanation.magnitude
    if kept is None or rest is None or mask is None or magnitude is None:
        raise LMACError(
            "explanation: found no sounds, mask or magnitude, expected all "
            "for a verdict"
        )

    asked = explanation.asked()

    def top(logits: Any) -> Tensor:
        """Whether the explained answer is the most probable one, [batch]."""
        return logits.argmax(1) == asked.decision

    evidence = Evidence(
        p_before=explanation.p_before,
        p_inside=explanation.p_inside,
        p_outside=explanation.p_outside,
        top_before=top(asked.logits),
        top_inside=top(asked.logits_in),
        top_outside=top(asked.logits_out),
        level=level_db(kept + rest if wav is None else wav[None]),
        area=heard_area(mask, magnitude),
        energy=energy_share(kept, rest),
    )
    return verdicts(Evidence(*(value.cpu() for value in evidence)))[0]


def _with_magnitude(
    explanation: Explanation, wav: Tensor, features: SpectralFeatures
) -> Explanation:
    """An explanation of one clip, with the magnitude that long clips lack."""
    if explanation.magnitude is not None or explanation.mask is None:
        return explanation
    mask, magnitude = input_of(wav, explanation.mask[0], features)
    return replace(explanation, mask=mask[None], magnitude=magnitude[None])
