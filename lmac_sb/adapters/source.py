"""From whatever a user has to a `Listener`, and from that to an explainer."""

import copy
import inspect
import os
from functools import partial
from pathlib import Path

import torch

from lmac_sb.adapters.extractors import ByName, InputOfExtractor
from lmac_sb.adapters.front_ends import fast_path, per_clip
from lmac_sb.adapters.hugging_face import (
    from_hugging_face,
    is_hugging_face,
    load_hugging_face,
)
from lmac_sb.adapters.named import is_named, load_named
from lmac_sb.adapters.speechbrain_folder import load_speechbrain
from lmac_sb.listener.calling import private_copy
from lmac_sb.listener.checks import find_sample_rate
from lmac_sb.listener.listener import Listener, check_callable
from lmac_sb.models.source import (
    HPARAMS,
    cached_file,
    is_local,
    not_fetched,
    on_hub,
)
from lmac_sb.utils.errors import LMACError

__all__ = ["FeatureListener", "as_listener", "on_features", "own_listener"]

CONFIG = "config.json"
# The file by which a folder or repository of a kind is told, and its loader.
LOADERS = {
    HPARAMS: load_speechbrain,
    CONFIG: load_hugging_face,
}
# Of a classifier that the recipe trained; models of Hugging Face have none.
_WEIGHTS = "embedding_model.ckpt"


def as_listener(
    model,
    sample_rate=None,
    labels=None,
    features=None,
    trusted=False,
    **options,
):
    """Any classifier as a `Listener`.

    Arguments
    ---------
    model : torch.nn.Module, callable, str or Path
        A module or function from waveforms [batch, samples], or from what
        `features` returns, to logits; a model or pipeline of transformers; an
        interface of SpeechBrain; the folder or hub id of one; a name, see
        `lmac_sb.adapters.named`; a `Listener`.
    sample_rate : int
        Rate in Hz of the sounds that it hears. By default the one that the
        folder, the front end or a module of the model names.
    labels : list of str
        Names of the classes; by default the folder's, those that the model
        has as its `labels`, or their numbers.
    features : torch.nn.Module, callable or list
        Front end from waveforms to the model's input; of a list, each is
        called with what the one before returns. Of a model of transformers,
        or of one's own on an encoder of it, its feature extractor or
        processor.
    trusted : bool
        Whether code that comes with a folder may run.
    **options
        Further options of `Listener`, such as `pool`, `at` and `windows`; of
        a name, those of its loader too.

    Returns
    -------
    Listener

    Raises
    ------
    LMACError
        If it is none of these, the rate is not known, or a folder cannot be
        read.

    Example
    -------
    >>> as_listener(torch.nn.Linear(8, 3), sample_rate=16000).sample_rate
    16000
    """
    model = _as_written(model)
    if is_named(model):
        listener = load_named(model, options)
    else:
        listener = _loaded(model, features, trusted)
    if listener is None:
        check_callable("model", model)
        if labels is None:
            labels = _labels_of(model)
        first = None
        if features is not None:
            model, features, first = _with_copies(model, features)
        front_end = None if features is None else per_clip(features)
        if sample_rate is None:
            sample_rate = _rate_of(model, front_end)
        multilabel = options.pop("multilabel", False)
        listener = Listener(model, sample_rate, labels, multilabel, front_end)
        if first is not None:
            listener.n_samples = first.n_samples
            listener.min_samples = first.min_samples
        return listener.with_options(**options) if options else listener
    if features is not None and not is_hugging_face(model):
        raise LMACError(
            "features: found some, but the model brings its own front end; "
            "expected none, or the model's network as a module"
        )
    if sample_rate not in (None, listener.sample_rate):
        raise LMACError(
            f"sample_rate: found {sample_rate} Hz, but the model hears "
            f"{listener.sample_rate} Hz"
        )
    if labels is not None:
        options["labels"] = labels
    return listener.with_options(**options) if options else listener


def _as_written(model):
    """A module without what torch.compile has put around it.

    Hooks and steps would make it compile again and again.
    """
    if isinstance(model, torch.nn.Module):
        return getattr(model, "_orig_mod", model)
    return model


def _loaded(model, features, trusted):
    """Listener of what brings its own front end, or None."""
    if isinstance(model, Listener):
        return model
    if is_hugging_face(model):
        return _of_hugging_face(model, features)
    if isinstance(model, (str, os.PathLike)):
        return _load(model, trusted)
    if hasattr(model, "mods") and hasattr(model, "hparams"):
        return load_speechbrain(model, trusted)
    return None


def _of_hugging_face(model, features):
    """Listener of a model or pipeline, which stays as it is."""
    extractor = None
    if not isinstance(model, torch.nn.Module):
        model, extractor = model.model, model.feature_extractor
    # A feature extractor, or a processor that holds one.
    if hasattr(features, "sampling_rate") or hasattr(
        features, "feature_extractor"
    ):
        extractor, features = features, None
    return from_hugging_face(private_copy(model), extractor, features)


def _with_copies(model, features):
    """Features with differentiable copies of transformers' extractors.

    Also the model, as a function of their output, and the copy that hears the
    waveform, or None.
    """
    parts = (
        list(features) if isinstance(features, (list, tuple)) else [features]
    )
    if not any(map(InputOfExtractor.takes, parts)):
        return model, features, None
    parts = [
        InputOfExtractor(part) if InputOfExtractor.takes(part) else part
        for part in parts
    ]
    first, last = parts[0], parts[-1]
    if isinstance(last, InputOfExtractor) and _is_later(model, last.name):
        model = ByName(model, last.name)
    hears = isinstance(first, InputOfExtractor)
    return model, parts, first.front_end if hears else None


def _is_later(model, name):
    """Whether a model has an argument of a name that is not its first."""
    is_module = isinstance(model, torch.nn.Module)
    try:
        call = model.forward if is_module else model
        return name in list(inspect.signature(call).parameters)[1:]
    except (TypeError, ValueError):  # of TorchScript, or built in
        return False


def _load(source, trusted):
    """Listener of a folder or a hub repository."""
    if Path(source).is_file() and str(source).endswith((".yaml", ".yml")):
        return load_speechbrain(source, trusted)
    if is_local(source):
        if Path(source).is_file():
            raise LMACError(
                f"{source}: found a file, expected a folder; of weights "
                "alone, build their module, load them and pass the module"
            )
        if not Path(source).is_dir():
            raise LMACError(f"{source}: no such folder, expected a model")
        found = [x for x in LOADERS if (Path(source) / x).is_file()]
        if found == [CONFIG] and (Path(source) / _WEIGHTS).is_file():
            raise LMACError(
                f"{source}: found a classifier that train_classifier.py "
                "wrote, expected the run of a decoder for it; train one with "
                f"--classifier_folder {source}"
            )
        if found:
            return LOADERS[found[0]](source, trusted=trusted)
        raise LMACError(
            f"{source}: found neither {' nor '.join(LOADERS)}, expected the "
            "folder of a SpeechBrain or Hugging Face classifier; a module of "
            "your own is passed as an object"
        )
    return LOADERS[_kind_on_hub(source)](str(source), trusted=trusted)


def _kind_on_hub(source):
    """The file that tells what kind of model a hub repository holds."""
    from huggingface_hub import file_exists

    for name in LOADERS:
        if cached_file(source, name) is not None:
            return name
    repository, revision = on_hub(source)
    try:
        for name in LOADERS:
            if file_exists(repository, name, revision=revision):
                return name
    except Exception as error:
        raise not_fetched(source, error) from error
    raise LMACError(
        f"{source}: found neither {' nor '.join(LOADERS)} on the hub, expected "
        "a SpeechBrain or Hugging Face classifier"
    )


def _rate_of(model, front_end):
    """Rate that a front end or a model names."""
    for part in (front_end, model):
        rate = None if part is None else find_sample_rate(part)
        if rate is not None:
            return rate
    raise LMACError(
        "sample_rate: found none, and the model does not name one; expected "
        "the rate in Hz of the sounds that it was trained on, or an attribute "
        "sample_rate of the model"
    )


def _labels_of(model):
    """Names of the classes that a model has as its `labels`, or None."""
    try:
        found = getattr(model, "labels", None)
    except Exception:  # a property of the user's
        return None
    is_names = isinstance(found, (list, tuple)) and found
    if is_names and all(isinstance(name, str) for name in found):
        return list(found)
    return None


def own_listener(listener):
    """A listener of one's own, whose changes do not reach the user's model.

    Arguments
    ---------
    listener : Listener
        That of the user. The weights are shared.

    Returns
    -------
    Listener

    Example
    -------
    >>> net = torch.nn.Linear(8, 3)
    >>> own = own_listener(Listener(net, 16000)).requires_grad_(False)
    >>> net.weight.requires_grad
    True
    """
    try:
        return private_copy(listener)
    except LMACError:
        # As a partial, its modules are seen by nobody who would change them.
        hidden = copy.copy(listener)  # that has heard a sound
        hidden._modules = dict(listener._modules)
        for name in ("model", "front_end"):
            part = getattr(listener, name)
            if part is not None:
                # A module's place takes nothing else, so it goes first.
                delattr(hidden, name)
                setattr(hidden, name, partial(part))
        return hidden


class FeatureListener(torch.nn.Module):
    """A listener that gets the levels of its front end's bands.

    Arguments
    ---------
    listener : Listener
        One that has heard a sound.
    features : lmac_sb.models.features.SpectralFeatures
        The front end up to those levels.
    layout : torch.nn.Module
        From levels [batch, time, bands] to what the front end gives.

    Example
    -------
    >>> import torchaudio
    >>> mel = torchaudio.transforms.MelSpectrogram(16000, 512, n_mels=40)
    >>> pooled = torch.nn.AdaptiveAvgPool2d((1, 5)), torch.nn.Flatten()
    >>> net = torch.nn.Sequential(*pooled, torch.nn.Linear(5, 3))
    >>> listener = Listener(net, 16000, front_end=mel)
    >>> wavs = torch.rand(2, 16000)
    >>> features, fast = on_features(listener, wavs)
    >>> levels = features.mel(features.magnitude(features.stft(wavs)))
    >>> torch.allclose(fast(levels), listener(wavs), atol=1e-4)
    True
    """

    def __init__(self, listener, features, layout):
        super().__init__()
        self.listener = listener
        self.layout = layout
        self.hop_samples = features.hop_samples
        # Frames tell the length of a clip up to a window and a hop.
        self.within = features.n_fft + features.hop_samples

    def forward(self, levels):
        """Logits [batch, classes] of levels [batch, time, bands]."""
        n_samples = levels.shape[1] * self.hop_samples
        form = self.listener.found.form
        with self.listener.naming_length(n_samples, self.within):
            inputs = form.features(self.layout(levels))
            return self.listener.classify(inputs, n_samples)


def on_features(listener, wavs):
    """The way that needs no inverse STFT, where there is one.

    Arguments
    ---------
    listener : Listener
        Any classifier.
    wavs : torch.Tensor
        A sound for which both ways have to agree, [batch, samples].

    Returns
    -------
    features : lmac_sb.models.features.SpectralFeatures
        On its spectrogram a mask can act.
    classifier : FeatureListener
        From the levels of its bands to logits; None instead of both if the
        front end is no STFT, the model gets windows of the sound, or a
        time in it is asked for.
    """
    if listener.front_end is None or listener.windows is not None:
        return None
    if listener.at is not None:
        # Levels do not tell the clip's length to the sample, nor so the times
        # of its frames.
        return None
    found = fast_path(listener.front_end, listener.sample_rate)
    if found is None:
        return None
    features, layout = found
    with torch.no_grad():
        expected = listener(wavs)
        classifier = FeatureListener(listener, features, layout)
        levels = features.mel(features.magnitude(features.stft(wavs)))
        logits = classifier(levels)
    spread = (expected.amax() - expected.amin()).clamp(min=1e-6)
    if (logits - expected).abs().amax() > 1e-3 * spread:
        return None
    return features, classifier
