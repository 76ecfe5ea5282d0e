"""From gradient steps to a decoder that explains in one pass."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from lmac_sb.adapters.layered import LayeredClassifier
from lmac_sb.adapters.layers import find_layers
from lmac_sb.data.audio import MIN_LENGTH_S
from lmac_sb.data.clips import Clips
from lmac_sb.inference.adopt import tried
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.weights import single_precision
from lmac_sb.training.fitting import Fitting, fit_decoder
from lmac_sb.utils.errors import LMACError, is_number, is_whole, kind_of, shown

__all__ = ["fit", "make_trainable"]

BANDS = 40  # of the decoder's own coarse grid


@torch.inference_mode(False)  # whose tensors have no gradient ever after
def fit(
    interpreter: LMACInterpreter,
    sounds: Any,
    epochs: int = 20,
    layers: Sequence[str] | None = None,
    **options: Any,
) -> LMACInterpreter:
    """Train a decoder, which explains a sound in one pass.

    It learns to explain the classifier's own decisions, so the sounds need no
    labels; of a classifier that decides each class on its own, the most
    probable class. The layers that it reads are found by dry runs: the
    deepest maps of distinct sizes, see `lmac_sb.adapters.layers.find_layers`.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        From `from_classifier`; stays as it is. One that `fit` returned is
        trained further.
    sounds : str, Path, list, torch.utils.data.Dataset or iterable
        What the classifier is made for: a folder, files, or a data set of
        waveforms, see `lmac_sb.data.clips.Clips`. Longer ones than a window
        (`LMACInterpreter.window`) are cut to its length.
    epochs : int
        Passes over the sounds, at most.
    layers : list of str
        Names of the layers to read, the deepest first, which gives the
        evidence; default those found.
    **options
        See `lmac_sb.training.fitting.Fitting`: `valid`, `batch_size`, `lr`,
        `patience`, `seed`, `width`, `rate`, `loss` and `progress`.

    Returns
    -------
    lmac_sb.LMACInterpreter
        Another one of the same classifier, which takes no gradient steps
        unless asked to (`refine_steps`). Its `history` lists loss and
        metrics of the held-out sounds for each epoch.

    Raises
    ------
    LMACError
        If an option is not known, the interpreter was not made by
        `from_classifier`, no layer can be read, or there are too few sounds.

    Example
    -------
    >>> import torch, lmac_sb
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Unflatten(1, (1, -1)),
    ...     torch.nn.Conv1d(1, 8, 400, 160),
    ...     torch.nn.ReLU(),
    ...     torch.nn.AdaptiveMaxPool1d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(8, 3),
    ... )
    >>> steps = lmac_sb.LMACInterpreter.from_classifier(net, 16000)
    >>> sounds = [torch.randn(8000) for _ in range(4)]
    >>> mine = lmac_sb.fit(steps, sounds, epochs=1, width=4, progress=False)
    >>> mine.explainer.refine_steps, sorted(mine.history[0])[:3]
    (0, ['AD', 'AD-2softmax', 'AG'])
    """
    how = _settings(options)
    if not is_whole(epochs) or epochs < 1:
        raise LMACError(
            f"epochs: found {shown(epochs)}, expected a whole number from 1"
        )
    if not isinstance(interpreter, LMACInterpreter):
        raise LMACError(
            f"interpreter: found {kind_of(interpreter)}, expected what "
            "LMACInterpreter.from_classifier gives of a classifier"
        )
    listener = interpreter.listener
    if listener is None:
        raise LMACError(
            "interpreter: found one whose decoder came with it, expected one "
            "of LMACInterpreter.from_classifier"
        )
    train, valid = _split(interpreter, sounds, how)
    if not any(bool(train[i].any()) for i in range(len(train))):
        raise LMACError(
            f"sounds: found {len(train)} to train on, all of them silent, "
            "expected some that can be heard"
        )
    device = interpreter.device
    explainer = interpreter.explainer
    if layers is not None or not isinstance(
        explainer.classifier, LayeredClassifier
    ):
        wavs = train[0][None].to(device)
        with single_precision():
            explainer = _with_decoder(explainer, wavs, layers, how)
    else:
        explainer = explainer.starting_from(_copy(explainer.decoder))
        explainer.refine_steps = 0
    explainer.to(device)
    history = fit_decoder(explainer, train, valid, epochs, how)
    trained = LMACInterpreter(
        {"explainer": explainer},
        dict(vars(interpreter.hparams)),
        run_opts={"device": str(device)},
    )
    trained.history = history
    return trained


def make_trainable(
    model: Any,
    layers: Sequence[str] | None = None,
    width: int = 32,
    seed: int = 1234,
    trusted: bool = False,
    **options: Any,
) -> LMACInterpreter:
    """An interpreter with a decoder that is still to be trained.

    For the recipe, whose Brain trains it: `fit` needs no such thing.

    Arguments
    ---------
    model : str, Path or object
        See `lmac_sb.LMACInterpreter.from_classifier`.
    layers : list of str
        See `fit`. The dry runs are made on noise.
    width, seed : int
        Channels of the decoder, and of its first weights.
    trusted : bool
        Whether code that comes with the model may run.
    **options
        `refiner`, `refine_steps` and `second_look` of `lmac_sb.Explainer`;
        the others are those of `from_classifier`, such as `signal_length_s`.

    Returns
    -------
    lmac_sb.LMACInterpreter
        It has, besides, `label_encoder`.

    Raises
    ------
    LMACError
        If there is no model, it cannot be loaded, or has no such layers.
    """
    if model is None:
        raise LMACError(
            "model: null, expected the hub id or folder of a classifier, or "
            "package.module:function: --model name/repository"
        )
    refiner = options.pop("refiner", None)
    n_steps = options.pop("refine_steps", 0)
    second_look = options.pop("second_look", False)
    if trusted:
        options["trusted"] = True
    steps = LMACInterpreter.from_classifier(model, **options)
    listener = steps.listener
    if listener is None:  # a function may return what explains already
        raise LMACError(
            f"{model}: has a decoder already, expected a classifier without one"
        )
    explainer = _with_decoder(
        steps.explainer,
        tried(listener, None, steps.preprocess).to(steps.device),
        layers,
        Fitting(width=width, seed=seed),
    )
    explainer.refiner = refiner or explainer.refiner
    explainer.check_refinement(n_steps, second_look)
    explainer.refine_steps = n_steps
    explainer.second_look = second_look
    made = LMACInterpreter(
        {"explainer": explainer},
        dict(vars(steps.hparams)),
        run_opts={"device": str(steps.device)},
    )
    # SpeechBrain's interface freezes all that it gets.
    explainer.decoder.requires_grad_(True)
    made.label_encoder = made.hparams.label_encoder
    return made


def _settings(options: dict[str, Any]) -> Fitting:
    """The options, checked."""
    known = [field.name for field in dataclasses.fields(Fitting)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise LMACError(
            f"{unknown[0]}: no such option, expected one of {', '.join(known)}"
        )
    return Fitting(**options)


def _copy(decoder: torch.nn.Module) -> torch.nn.Module:
    """A decoder of one's own, with the same weights."""
    return copy.deepcopy(decoder).requires_grad_(True)


def _split(
    interpreter: LMACInterpreter, sounds: Any, how: Fitting
) -> tuple[Clips, Any]:
    """Sounds to train on and to validate with."""
    preprocess = interpreter.preprocess
    listener = interpreter.listener
    rate = interpreter.sample_rate
    shortest = max(
        round(MIN_LENGTH_S * rate), getattr(listener, "min_samples", None) or 0
    )

    def clips(some: Any, key: str = "sounds") -> Clips:
        """Sounds of any kind, as the classifier is given them."""
        return Clips(
            some,
            rate,
            how.rate,
            preprocess.n_samples,
            shortest,
            interpreter.window,
            key,
        )

    found = clips(sounds)
    if not is_number(how.valid):
        return found, clips(how.valid, "valid")
    if len(found) < 2:
        raise LMACError(
            "sounds: found 1, expected at least 2, one of which is held out, "
            "or valid= with other sounds"
        )
    generator = torch.Generator().manual_seed(how.seed)
    order = torch.randperm(len(found), generator=generator).tolist()
    n_valid = min(max(1, round(how.valid * len(found))), len(found) - 1)
    return found.some(order[n_valid:]), found.some(order[:n_valid])


def _with_decoder(
    explainer: Explainer,
    wavs: torch.Tensor,
    layers: Sequence[str] | None,
    how: Fitting,
) -> Explainer:
    """The explainer with layers to read and a decoder of random weights."""
    features, heard = explainer.features, explainer.classifier.embedding_model
    multilabel = explainer.classifier.multilabel
    listener = getattr(heard, "listener", heard)

    def call(sounds: torch.Tensor) -> torch.Tensor:
        """Logits of waveforms."""
        if features.IS_SOUND:
            return heard(sounds)
        return heard(features.mel(features.magnitude(features.stft(sounds))))

    with listener.all_times():
        found = find_layers(
            listener, wavs, layers, call, features.n_frames(wavs.shape[1])
        )
    classifier = LayeredClassifier(heard, found, multilabel)
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        decoder = MaskDecoder(
            classifier.channels,
            BANDS,
            features.n_fft,
            features.sample_rate,
            how.width,
            standard=True,
        )
    return Explainer(
        features,
        classifier,
        decoder,
        explainer.mask_domain,
        explainer.refiner,
    )
