"""Make the parts of an interpreter for a classifier that others made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor

from lmac_sb.adapters.source import on_features, own_listener
from lmac_sb.data.audio import Preprocessor, fit_length
from lmac_sb.data.streaming import signal_of
from lmac_sb.listener.calling import place_of
from lmac_sb.listener.checks import check_listener
from lmac_sb.listener.listener import Listener
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner, check_steps
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.models.weights import single_precision
from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "ADOPTED",
    "adopt",
    "make_refiner",
    "tried",
]

# Options of `adopt` in `from_classifier`; the others are the listener's.
ADOPTED = ("steps", "signal_length_s", "spectrogram", "own")
STEPS = 10
HEAD_STEPS = 14  # of a classifier that names its head
WINDOW_S = 30.0  # of models that hear any length at once
HEAD_START = -1.5, 2.0  # offset and gain of `LevelDecoder` with a head


def adopt(
    listener: Listener,
    sound: Any = None,
    steps: int | None = None,
    signal_length_s: float | None = None,
    spectrogram: SoundFeatures | None = None,
    own: Any = None,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What `lmac_sb.LMACInterpreter` is made of, see its `from_classifier`.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        The classifier.
    sound : str, Path, numpy.ndarray, torch.Tensor or tuple
        On which it is tried, see `signal_of`; default noise.
    steps : int
        Gradient steps of each explanation; by default `STEPS`, or `HEAD_STEPS`
        of a listener that names its head.
    signal_length_s : float
        Seconds to which each sound is cut or padded.
    spectrogram : lmac_sb.models.sound.SoundFeatures
        On which the mask acts; by default that of the front end, if it is
        an STFT.
    own : callable or torch.Tensor
        The user's own call, or its outputs for the sound.

    Returns
    -------
    modules : dict
        ``explainer``.
    hparams : dict
        ``preprocess``, ``label_encoder``, ``listener`` and ``window_s``.
    run_opts : dict
        The device of the model.

    Raises
    ------
    LMACError
        If the classifier cannot be explained.

    Example
    -------
    >>> net = torch.nn.Linear(16000, 3)
    >>> modules, hparams, _ = adopt(Listener(net, 16000))
    >>> hparams["label_encoder"].decode_ndim(2)
    '2'
    """
    if steps is not None:
        check_steps(steps, "steps")
    rate = listener.sample_rate
    _check_spectrogram(spectrogram, rate)
    preprocess = Preprocessor(rate, signal_length_s, normalize=False)
    wavs = tried(listener, sound, preprocess)
    if own is None:
        own = getattr(listener, "own_call", None)
    check_listener(listener, wavs, own)
    listener = own_listener(listener)
    if listener.labels is None:  # of embeddings, which have numbers alone
        n_outputs = listener.found.n_outputs
        listener.labels = [str(number) for number in range(n_outputs)]
    with single_precision():
        fast = None if spectrogram else on_features(listener, wavs)
        if fast is None:
            fast = (spectrogram or SoundFeatures(rate), listener)
    classifier = FrozenClassifier(
        fast[1],
        torch.nn.Identity(),
        latent_layers=[],
        evidence=False,
        multilabel=listener.multilabel,
    )
    explainer = Explainer(
        fast[0],
        classifier,
        LevelDecoder() if listener.head is None else LevelDecoder(*HEAD_START),
        mask_domain="linear",
        refiner=make_refiner(listener),
        refine_steps=_steps(listener) if steps is None else steps,
    )
    longest = getattr(listener, "n_samples", None)
    hparams = {
        "preprocess": preprocess,
        "label_encoder": _encoder(listener.labels),
        "listener": listener,
        "window_s": longest / rate if longest else WINDOW_S,
    }
    place = place_of(listener.called())
    run_opts = {"device": str(place["device"])} if "device" in place else {}
    return {"explainer": explainer}, hparams, run_opts


def _steps(listener: Listener) -> int:
    """Steps from nothing, where nobody asks for a number."""
    return STEPS if listener.head is None else HEAD_STEPS


def make_refiner(listener: Listener | None = None) -> Refiner:
    """Steps from nothing, with which any classifier is explained.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        The classifier. If it names its `head`, the part inside keeps all that
        the head reads, and the part outside loses it.

    Returns
    -------
    Refiner
    """
    # Measured on a small CNN and on YAMNet, see docs/refinement_any.md; those
    # with a head on YAMNet, see docs/yamnet.md.
    weights = {"reg_w_l1": 4.0}
    if listener is not None and listener.head is not None:
        weights = {"reg_w_l1": 80.0, "e_in_w": 20.0, "e_out_w": 10.0}
    loss = LMACLoss(l_in_w=12, l_out_w=8, l_out_type="probability", **weights)
    # With a short memory, ten steps of a small CNN and 14 of YAMNet find what
    # twenty with Adam's usual one found, or more, see docs/cost.md.
    steps: dict[str, Any] = {"lr": 0.7, "betas": (0.2, 0.6)}
    if listener is not None and listener.head is not None:
        steps = {"lr": 0.5, "betas": (0.3, 0.8)}
    return Refiner(loss, resolution=4, gain=True, **steps)


def tried(listener: Listener, sound: Any, preprocess: Preprocessor) -> Tensor:
    """A sound on which a classifier is tried.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        The classifier.
    sound : object
        See `signal_of`; None for a noise of one second, or of what the
        classifier takes.
    preprocess : lmac_sb.data.audio.Preprocessor
        Its length, if it has one, is that of the result.

    Returns
    -------
    torch.Tensor
        [1, samples].
    """
    rate = listener.sample_rate
    if sound is None:
        wav = _noise(max(rate, getattr(listener, "min_samples", None) or 0))
    else:
        longest = getattr(listener, "n_samples", None) or WINDOW_S * rate
        wav = signal_of(sound, rate)[: int(longest)]
        if not wav.any():
            # Silence may have no gradient, which is no fault of the model.
            wav = _noise(len(wav))
    if preprocess.n_samples is not None:
        wav = fit_length(wav, preprocess.n_samples)
    return wav[None]


def _noise(n_samples: int) -> Tensor:
    """The same noise in each call, [samples]."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(n_samples, generator=generator)


def _check_spectrogram(spectrogram: Any, sample_rate: int) -> None:
    """Refuse one that is none, or has another rate than the model."""
    if spectrogram is None:
        return
    if not isinstance(spectrogram, SoundFeatures):
        raise LMACError(
            f"spectrogram: found {shown(spectrogram)}, expected a "
            "SoundFeatures of lmac_sb.models.sound"
        )
    if spectrogram.sample_rate != sample_rate:
        raise LMACError(
            f"spectrogram: found {spectrogram.sample_rate} Hz, but the model "
            f"hears {sample_rate} Hz"
        )


def _encoder(labels: Sequence[str]) -> CategoricalEncoder:
    """Names of the classes, as SpeechBrain keeps them."""
    counts = Counter(labels)
    twice = sorted(name for name in counts if counts[name] > 1)
    if twice:
        raise LMACError(
            f"labels: found '{twice[0]}' twice, expected one name for each "
            "class"
        )
    encoder = CategoricalEncoder()
    # As `update_from_iterable` does, which looks for a free number each time.
    encoder.lab2ind = {name: number for number, name in enumerate(labels)}
    encoder.ind2lab = dict(enumerate(labels))
    return encoder
