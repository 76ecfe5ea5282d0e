"""SpeechBrain's interface of a trained model: from a file to an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.run_opts import RunOptions
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lmac_sb.data.audio import MIN_LENGTH_S, Preprocessor, fit_length
from lmac_sb.data.streaming import mapped, read_signal
from lmac_sb.inference.bundle import find_bundle, load_weights
from lmac_sb.inference.explanation import AudioExplanation, numbers, window
from lmac_sb.lmac.explainer import Explainer, Explanation, check_batch
from lmac_sb.metrics.registry import METRICS
from lmac_sb.models.source import HPARAMS, read_hparams
from lmac_sb.utils.errors import LMACError

__all__ = ["LMACInterpreter"]

# A class, by name or number.
Target = str | int

WINDOW_S = 10.0  # of models that were trained on clips of any length


class LMACInterpreter(Pretrained):
    """A classifier with its L-MAC decoder, ready to explain sounds.

    Arguments
    ---------
    modules : dict
        ``explainer``.
    hparams : dict
        ``preprocess`` and ``label_encoder``.
    **kwargs
        See `speechbrain.inference.interfaces.Pretrained`.

    Raises
    ------
    LMACError
        If something is missing or does not fit together.

    Example
    -------
    >>> interpreter = LMACInterpreter.from_hparams(model)
    >>> interpreter.classes
    ['cat', 'cow', 'dog']
    >>> explanation = interpreter.explain_file(path)
    >>> explanation.waveform.shape
    torch.Size([1, 16000])
    """

    MODULES_NEEDED = ["explainer"]
    HPARAMS_NEEDED = ["preprocess", "label_encoder"]

    def __init__(
        self,
        modules: dict[str, Any] | None = None,
        hparams: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        modules, hparams = modules or {}, hparams or {}
        self._check_parts(modules, hparams)
        super().__init__(modules, hparams, **kwargs)
        self.explainer = modules["explainer"]
        if self.explainer.classifier.multilabel:
            raise LMACError(
                "explainer: its classifier is multi-label, expected one that "
                "decides one class; train_multilabel.py explains the others"
            )
        self.preprocess = hparams["preprocess"]
        features = self.explainer.features
        if self.preprocess.sample_rate != features.sample_rate:
            raise LMACError(
                f"preprocess: sample_rate {self.preprocess.sample_rate}, but "
                f"the features have {features.sample_rate}"
            )
        self.sample_rate = features.sample_rate
        self.classes = self._check_classes(hparams["label_encoder"])
        hop = features.hop_samples
        window = self.preprocess.n_samples or WINDOW_S * self.sample_rate
        # Windows begin on frames, and no three of them overlap.
        self.window = max(4, int(window) // hop) * hop
        self.overlap = self.window // hop // 4 * hop

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        trusted: bool = False,
        **kwargs: Any,
    ) -> LMACInterpreter:
        """Load a model folder that `lmac export` wrote.

        Arguments
        ---------
        source : str or Path
            A folder, which is read where it lies, or the id of a hub
            repository.
        savedir : str or Path
            Where a copy of the folder is kept, if one is wanted.
        trusted : bool
            Whether the folder's yaml may make any object and call any
            function; by default only classes that are known to be safe, see
            `lmac_sb.utils.yaml_safety`.
        **kwargs
            ``run_opts`` and ``freeze_params``, see SpeechBrain's
            `Pretrained`.

        Returns
        -------
        LMACInterpreter

        Raises
        ------
        LMACError
            If a file is missing, changed or broken, weights do not fit, or
            the yaml asks for what is not allowed.
        """
        folder = find_bundle(source, savedir)
        hparams = read_hparams(folder / HPARAMS, trusted)
        try:
            cls._check_parts(hparams["modules"], hparams)
            load_weights(hparams, folder)
            return cls(hparams["modules"], hparams, **kwargs)
        except LMACError as error:
            if str(folder) in str(error):
                raise
            raise LMACError(f"{folder}: {error}") from error

    @classmethod
    def _check_parts(
        cls, modules: dict[str, Any], hparams: dict[str, Any]
    ) -> None:
        """Refuse what is missing, or is something else than its name says."""
        for kind, needed, found in (
            ("modules", cls.MODULES_NEEDED, modules),
            ("hyperparameters", cls.HPARAMS_NEEDED, hparams),
        ):
            missing = [name for name in needed if name not in found]
            if missing:
                raise LMACError(
                    f"{kind}: {', '.join(missing)} missing, expected "
                    f"{', '.join(needed)}"
                )
        wrong = sorted(set(hparams) & set(RunOptions().as_dict()))
        if wrong:
            raise LMACError(
                f"hyperparameters: '{wrong[0]}' is the name of a run option, "
                "rename it, or give it as run_opts"
            )
        parts = [
            ("modules.explainer", modules["explainer"], Explainer),
            ("preprocess", hparams["preprocess"], Preprocessor),
            ("label_encoder", hparams["label_encoder"], CategoricalEncoder),
        ]
        for name, part, kind in parts:
            if not isinstance(part, kind):
                raise LMACError(
                    f"{name}: is a {type(part).__name__}, expected a "
                    f"{kind.__name__}"
                )

    def _check_classes(self, label_encoder: CategoricalEncoder) -> list[str]:
        """Names of the classes, as many as the classifier has outputs."""
        names = label_encoder.ind2lab
        n_samples = round(MIN_LENGTH_S * self.sample_rate)
        silence = torch.zeros(1, n_samples, device=self.device)
        try:
            found = self.explainer(silence, refine_steps=0)
        except Exception as error:
            # Layers of the wrong size fail in many ways.
            raise LMACError(
                f"modules: do not fit together ({' '.join(str(error).split())})"
            ) from error
        n_classes = found.logits.shape[1]
        if sorted(names) != list(range(n_classes)):
            raise LMACError(
                f"label_encoder: holds {len(names)} classes, but the "
                f"classifier has {n_classes} outputs"
            )
        return [str(names[c]) for c in range(n_classes)]

    def train(self, mode: bool = True) -> LMACInterpreter:
        """Stay in evaluation mode, batch norm and dropout included."""
        return super().train(False)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> AudioExplanation:
        """Explain a batch, see `explain_batch`."""
        return self.explain_batch(wavs, wav_lens)

    def load_audio(self, path: str | Path) -> Tensor:
        """Read a file as the model's front end wants it.

        Arguments
        ---------
        path : str or Path
            Any rate, number of channels and length from 0.1 s.

        Returns
        -------
        torch.Tensor
            Mono, at the model's rate and at its own level, [samples].
        """
        return read_signal(path, self.sample_rate)

    def interpret_file(self, path: str | Path) -> tuple[Tensor, str, int]:
        """Decision and what it rests on, as SpeechBrain's PIQ returns them.

        Arguments
        ---------
        path : str or Path
            An audio file.

        Returns
        -------
        waveform : torch.Tensor
            Masked-in sound, [1, samples].
        label : str
            The decision.
        sample_rate : int
            Of the waveform, in Hz.
        """
        explanation = self.explain_file(path)
        return explanation.waveform, explanation.labels[0], self.sample_rate

    def explain_file(
        self,
        path: str | Path,
        target: str | int | None = None,
        threshold: float | None = None,
        refine_steps: int | None = None,
        unrefined: bool = False,
    ) -> AudioExplanation:
        """Explain the decision on a file of any length.

        A file longer than a window (the length of the training clips, or 10 s
        where that was free) is explained in windows that overlap by a quarter
        and are cross-faded. Each window has a decision of its own; the whole
        has the mean of their probabilities. The sounds of long files lie on
        disk.

        Arguments
        ---------
        path : str or Path
            An audio file.
        target : str or int
            Class to explain, by name or number; default the decision.
        threshold : float
            Make the mask binary at this value; default continuous.
        refine_steps : int
            Gradient steps from the decoder's mask, see `Refiner`;
            default those of the model.
        unrefined : bool
            Whether to keep the explanation by the decoder's own mask as well,
            where steps are taken.

        Returns
        -------
        lmac_sb.inference.explanation.AudioExplanation
            Of one clip.
        """
        targets = self._targets(target, 1)
        wav = self.load_audio(path)
        how = self._how(threshold, refine_steps, unrefined)
        return self._explain([wav], targets, how, [str(path)])

    def explain_batch(
        self,
        wavs: Tensor,
        lengths: Tensor | None = None,
        target: Target | Sequence[Target] | Tensor | None = None,
        threshold: float | None = None,
        refine_steps: int | None = None,
        unrefined: bool = False,
    ) -> AudioExplanation:
        """Explain waveforms in memory.

        Arguments
        ---------
        wavs : torch.Tensor
            At the model's sampling rate, [batch, samples].
        lengths : torch.Tensor
            Relative lengths of padded clips, [batch], in (0, 1]; no clip's
            result depends on its padding or on the other clips.
        target : str or int or list
            Class to explain, or one a clip, by name or number.
        threshold : float
            Make the masks binary at this value; default continuous.
        refine_steps : int
            Gradient steps from the decoder's masks; default those of the
            model.
        unrefined : bool
            See `explain_file`.

        Returns
        -------
        lmac_sb.inference.explanation.AudioExplanation
        """
        check_batch(wavs, lengths)
        n_samples = [wavs.shape[1]] * len(wavs)
        if lengths is not None:
            n_samples = (lengths * wavs.shape[1]).round().long().tolist()
        clips = [
            wav[:n].detach().float().cpu() for wav, n in zip(wavs, n_samples)
        ]
        for i, clip in enumerate(clips):
            if len(clip) < MIN_LENGTH_S * self.sample_rate:
                raise LMACError(
                    f"wavs: clip {i} is {len(clip) / self.sample_rate:.4f} s "
                    f"long, expected at least {MIN_LENGTH_S} s"
                )
            if not clip.isfinite().all():
                raise LMACError(f"wavs: NaN or infinite samples in clip {i}")
        targets = self._targets(target, len(clips))
        how = self._how(threshold, refine_steps, unrefined)
        return self._explain(clips, targets, how, [None] * len(clips))

    def _how(
        self, threshold: float | None, refine_steps: int | None, unrefined: bool
    ) -> dict[str, Any]:
        """What the explainer is asked for, checked before the work starts."""
        if refine_steps is None:
            refine_steps = self.explainer.refine_steps
        self.explainer.check_refinement(refine_steps)
        return {
            "threshold": threshold,
            "refine_steps": refine_steps,
            "unrefined": unrefined,
        }

    def _targets(
        self,
        target: Target | Sequence[Target] | Tensor | None,
        n_clips: int,
    ) -> list[int] | None:
        """Class numbers, one a clip, or None."""
        if target is None:
            return None
        if isinstance(target, Tensor):
            target = target.tolist()
        targets: list[Any] = (
            list(target) if isinstance(target, (list, tuple)) else [target]
        )
        if len(targets) == 1:
            targets = targets * n_clips
        if len(targets) != n_clips:
            raise LMACError(
                f"target: {len(targets)} classes for {n_clips} clips"
            )
        return [self.class_number(name) for name in targets]

    def class_number(self, name: Target) -> int:
        """Number of a class that is given by name or number.

        Arguments
        ---------
        name : str or int
            The class.

        Returns
        -------
        int
        """
        if name in self.classes:
            return self.classes.index(name)
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        raise LMACError(
            f"target: '{name}' is no class; there are "
            f"{', '.join(self.classes)} (0 to {len(self.classes) - 1})"
        )

    def _explain(
        self,
        clips: list[Tensor],
        targets: list[int] | None,
        how: dict[str, Any],
        files: list[str | None],
    ) -> AudioExplanation:
        """Explain clips of any length."""
        longest = max(self.window, self.preprocess.n_samples or 0)
        short = [i for i, clip in enumerate(clips) if len(clip) <= longest]
        parts: list[Any] = [None] * len(clips)
        if short:
            chosen = None if targets is None else [targets[i] for i in short]
            batch = [clips[i] for i in short]
            for i, part in zip(short, self._explain_short(batch, chosen, how)):
                parts[i] = self._named(part, clips[i])
        for i, clip in enumerate(clips):
            if parts[i] is None:
                target = None if targets is None else [targets[i]]
                parts[i] = self._explain_long(clip, target, how)
        whole = AudioExplanation.join(parts)
        whole.files, whole.threshold = files, how["threshold"]
        whole.refine_steps = how["refine_steps"]
        if whole.unrefined is not None:
            whole.unrefined.files = files
            whole.unrefined.threshold = how["threshold"]
        return whole

    @torch.no_grad()
    def _explain_short(
        self,
        clips: list[Tensor],
        targets: list[int] | None,
        how: dict[str, Any],
    ) -> list[Explanation]:
        """Explain clips of at most a window; one explanation a clip."""
        shortest = round(MIN_LENGTH_S * self.sample_rate)
        ready, gains = [], []
        for clip in clips:
            clip = fit_length(clip, max(len(clip), shortest))
            wav, gain = self.preprocess.process(clip, self.sample_rate)
            ready.append(wav)
            gains.append(gain)
        wavs = pad_sequence(ready, batch_first=True)
        lengths = torch.tensor([len(wav) for wav in ready]) / wavs.shape[1]
        target = None
        if targets is not None:
            target = torch.tensor(targets, device=self.device)
        found = self.explainer(
            wavs.to(self.device), lengths.to(self.device), target, **how
        )
        # Back to the input's level, which preprocessing has taken away.
        found = found.cpu().scale(1 / torch.tensor(gains))
        n_frames = self.explainer.features.n_frames
        return [
            found[i].fit(len(clip), n_frames(len(clip)))
            for i, clip in enumerate(clips)
        ]

    def _explain_long(
        self, wav: Tensor, target: list[int] | None, how: dict[str, Any]
    ) -> AudioExplanation:
        """Explain overlapping windows of one clip and cross-fade them."""
        n_samples = len(wav)
        stride = self.window - self.overlap
        # The last window is longer than an overlap.
        starts = range(0, n_samples - self.overlap, stride)
        whole, unrefined = _Whole(self, n_samples), None
        for start in starts:
            stop = min(start + self.window, n_samples)
            (part,) = self._explain_short([wav[start:stop]], target, how)
            edges = (start > 0, start != starts[-1])
            whole.add(part, start, stop, edges)
            if part.unrefined is not None:
                unrefined = unrefined or _Whole(self, n_samples)
                unrefined.add(part.unrefined, start, stop, edges)
        explained = whole.finish(wav, target)
        if unrefined is not None:
            explained.unrefined = unrefined.finish(wav, target)
        return explained

    def _named(
        self, part: Explanation, wav: Tensor, **more: Any
    ) -> AudioExplanation:
        """An explanation of one clip, with what people want to know of it."""
        return AudioExplanation.of(
            part,
            wav[None],
            self.explainer.features,
            self.classes,
            **more,
        )

    def fade(self, places: Tensor, fades_in: bool, fades_out: bool) -> Tensor:
        """Weight of a window of a long clip.

        Arguments
        ---------
        places : torch.Tensor
            In samples from its start, [places].
        fades_in, fades_out : bool
            Whether another window comes before and after it.

        Returns
        -------
        torch.Tensor
            In [0, 1], [places]; those of two windows add up to 1.
        """
        weight = torch.ones(len(places))
        if fades_in:
            weight = weight * (places / self.overlap).clamp(max=1)
        if fades_out:
            begin = self.window - self.overlap
            gone = (places - begin) / self.overlap
            weight = weight * (1 - gone.clamp(0, 1))
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
        self.metrics: list[dict[str, float]] = []
        self.windows: list[dict[str, Any]] = []
        names = ("logits", "logits_in", "logits_out")
        self.sums: dict[str, Any] = dict.fromkeys(names, 0)

    def add(
        self,
        part: Any,
        start: int,
        stop: int,
        edges: tuple[bool, bool],
    ) -> None:
        """Add a window, faded where others overlap with it."""
        fade = self.interpreter.fade(torch.arange(stop - start), *edges)
        self.waveform[0, start:stop] += fade * part.waveform[0]
        self.residual[0, start:stop] += fade * part.residual[0]
        n_frames = part.mask.shape[1]
        rows = slice(start // self.hop, start // self.hop + n_frames)
        places = torch.arange(n_frames) * self.hop
        frames = self.interpreter.fade(places, *edges)
        self.mask[0, rows] += (frames[:, None] * part.mask[0]).half()
        share = float(fade.sum()) / self.n_samples
        self.shares.append(share)
        for name in self.sums:
            p = getattr(part, name).softmax(1)
            self.sums[name] = self.sums[name] + share * p.double()
        self.metrics.append(numbers(part))
        rate, classes = self.interpreter.sample_rate, self.interpreter.classes
        self.windows.append(window(part, classes, start / rate, stop / rate))

    def finish(self, wav: Tensor, target: list[int] | None) -> AudioExplanation:
        """The explanation, with the windows' mean probabilities."""
        logits = {
            name: total.clamp_min(1e-30).log().float()
            for name, total in self.sums.items()
        }
        decision = logits["logits"].argmax(1)
        if target is not None:
            decision = torch.tensor(target)
        whole = Explanation(
            waveform=self.waveform,
            residual=self.residual,
            mask=None,
            magnitude=None,
            decision=decision,
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
        return self.interpreter._named(
            replace(whole, mask=self.mask),
            wav,
            windows=[self.windows],
            metrics=[{name: found[name] for name in METRICS if name in found}],
        )
