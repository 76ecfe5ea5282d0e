"""From whatever a user has to a `Listener`."""

import os

from lmac_sb.adapters.front_ends import per_clip
from lmac_sb.adapters.hugging_face import (
    from_hugging_face,
    is_hugging_face,
    load_hugging_face,
)
from lmac_sb.adapters.listener import Listener
from lmac_sb.adapters.speechbrain_folder import load_speechbrain
from lmac_sb.utils.errors import LMACError

__all__ = ["FeatureListener", "as_listener", "find_paths", "freeze"]

# Files by which the folder of a classifier is told.
FOLDERS = {
    "config.json": load_hugging_face,
    "hyperparams.yaml": load_speechbrain,
}


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
        A `Listener`; a module or function from waveforms [batch, samples], or
        from what `features` returns, to logits; a model or pipeline of
        transformers, or an interface of SpeechBrain; a folder or hub id of
        one.
    sample_rate : int
        Rate in Hz of the sounds that it hears. By default the one that the
        folder, the front end or a module of the model names.
    labels : list of str
        Names of the classes; by default the folder's, or their numbers.
    features : torch.nn.Module, callable or list
        Front end from waveforms to the model's input; of a list, each is
        called with what the one before returns.
    trusted : bool
        Whether code that comes with a folder may run.
    **options
        Further options of `Listener`, such as `pool`, `at` and `windows`.

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
    listener = _loaded(model, sample_rate, features, trusted)
    if listener is not None:
        if labels is not None:
            options["labels"] = labels
        return listener.with_options(**options) if options else listener
    front_end = None if features is None else per_clip(features)
    if sample_rate is None:
        sample_rate = _rate_of(model, front_end)
    multilabel = options.pop("multilabel", False)
    return Listener(
        model, sample_rate, labels, multilabel, front_end, **options
    )


def _loaded(model, sample_rate, features, trusted):
    """Listener of what brings its own front end, or None."""
    listener = None
    if isinstance(model, Listener):
        listener = model
    elif isinstance(model, (str, os.PathLike)):
        listener = _load_folder(model, features, trusted)
    elif is_hugging_face(model):
        listener = from_hugging_face(model, features=features)
    elif hasattr(model, "mods") and hasattr(model, "hparams"):
        listener = load_speechbrain(model, trusted)
    if listener is not None and sample_rate not in (None, listener.sample_rate):
        raise LMACError(
            f"sample_rate: found {sample_rate} Hz, but the model is made for "
            f"{listener.sample_rate} Hz"
        )
    return listener
