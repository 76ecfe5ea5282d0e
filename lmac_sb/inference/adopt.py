"""Make the parts of an interpreter for a classifier that others made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import Tensor

from lmac_sb.adapters.calling import place_of
from lmac_sb.adapters.checks import check_listener
from lmac_sb.adapters.listener import Listener
from lmac_sb.adapters.source import as_listener, on_features, own_listener
from lmac_sb.data.audio import Preprocessor, as_signal, fit_length
from lmac_sb.data.streaming import read_signal
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError

__all__ = ["OTHER_START", "adopt", "make_refiner", "signal_of", "tried"]

STEPS = 20
WINDOW_S = 30.0  # of models that hear any length at once
# Where steps start that should lead to the same mask.
OTHER_START = LevelDecoder(offset=-1.0, gain=1.0)


def adopt(
    model: Any,
    sample_rate: int | None,
    labels: Sequence[str] | None,
    features: Any,
    sound: Any,
    *,
    steps: int = STEPS,
    signal_length_s: float | None = None,
    spectrogram: SoundFeatures | None = None,
    own: Any = None,
    **options: Any,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What `lmac_sb.LMACInterpreter` is made of, see its `from_classifier`.

    Arguments
    ---------
    model, sample_rate, labels, features, sound
        See `lmac_sb.LMACInterpreter.from_classifier`.
    steps, signal_length_s, spectrogram, own
        See the same.
    **options
        Of `lmac_sb.adapters.source.as_listener`.

    Returns
    -------
    modules : dict
        ``explainer``.
    hparams : dict
        ``preprocess``, ``label_encoder``, ``listener`` and ``window_s``.
    run_opts : dict
        The device of the model.
    """
    listener = as_listener(model, sample_rate, labels, features, **options)
    rate = listener.sample_rate
    preprocess = Preprocessor(rate, signal_length_s, normalize=False)
    wavs = tried(listener, sound, preprocess)
    check_listener(listener, wavs, own or getattr(listener, "own_call", None))
    listener = own_listener(listener)
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
        LevelDecoder(),
        mask_domain="linear",
        refiner=make_refiner(),
        refine_steps=steps,
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


def make_refiner() -> Refiner:
    """Steps from nothing, with which any classifier is explained.

    Returns
    -------
    Refiner
    """
    loss = LMACLoss(l_in_w=12, l_out_w=8, l_out_type="probability", reg_w_l1=4)
    return Refiner(loss, lr=0.5, resolution=8, gain=True)


def signal_of(sound: Any, sample_rate: int) -> Tensor:
    """A sound from anywhere as a mono signal at the wanted rate.

    Arguments
    ---------
    sound : str, Path, numpy.ndarray, torch.Tensor or tuple
        A file, samples at the wanted rate, or samples with their rate.
    sample_rate : int
        Wanted rate in Hz.

    Returns
    -------
    torch.Tensor
        [samples].

    Raises
    ------
    LMACError
        If it is no sound.

    Example
    -------
    >>> signal_of((torch.rand(2, 44100), 44100), 16000).shape
    torch.Size([16000])
    """
    if isinstance(sound, (str, Path)):
        return read_signal(sound, sample_rate)
    if isinstance(sound, tuple) and len(sound) == 2:
        samples, rate = sound
        return as_signal(samples, rate, sample_rate)
    return as_signal(sound, sample_rate, sample_rate)


def tried(listener: Listener, sound: Any, preprocess: Preprocessor) -> Tensor:
    """A sound on which a classifier is tried.

    Arguments
    ---------
    listener : lmac_sb.adapters.listener.Listener
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
    if sound is not None:
        wav = signal_of(sound, rate)
        longest = getattr(listener, "n_samples", None) or WINDOW_S * rate
        wav = wav[: int(longest)]
    else:
        n_samples = max(rate, getattr(listener, "min_samples", None) or 0)
        generator = torch.Generator().manual_seed(0)
        wav = 0.1 * torch.randn(n_samples, generator=generator)
    if preprocess.n_samples is not None:
        wav = fit_length(wav, preprocess.n_samples)
    return wav[None]


def _encoder(labels: Sequence[str]) -> CategoricalEncoder:
    """Names of the classes, as SpeechBrain keeps them."""
    twice = sorted({name for name in labels if list(labels).count(name) > 1})
    if twice:
        raise LMACError(
            f"labels: found '{twice[0]}' twice, expected one name for each "
            "class"
        )
    encoder = CategoricalEncoder()
    encoder.update_from_iterable(labels)
    return encoder
