"""Audio classifiers of transformers, each as a `Listener`."""

import functools
import warnings

import numpy as np
import torch

from lmac_sb.adapters.extractors import compare_inputs, front_end_of
from lmac_sb.adapters.hugging_face_folder import read_hugging_face
from lmac_sb.listener.listener import Listener
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line

__all__ = [
    "from_hugging_face",
    "is_hugging_face",
    "load_hugging_face",
    "own_call",
]

_LONGEST_START = 1 << 17  # samples; no model needs more to say anything


def load_hugging_face(source, revision=None, trusted=False, **options):
    """Load an audio classifier of transformers.

    Arguments
    ---------
    source : str or Path
        Folder written by `save_pretrained` (of the model and of its feature
        extractor), or the id of a hub repository, ``name/repository`` or
        ``name/repository@revision``.
    revision : str
        Branch, tag or commit of the hub repository.
    trusted : bool
        Whether code that lies beside the weights may be run.
    **options
        Passed to `from_hugging_face`.

    Returns
    -------
    Listener

    Raises
    ------
    LMACError
        If transformers is missing, the hub does not answer, a file is
        missing or unreadable, or the weights are not those of an audio
        classifier with a trained head.

    Example
    -------
    >>> load_hugging_face("./nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ./nowhere: no such folder, expected a folder written ...
    """
    model, extractor = read_hugging_face(source, revision, trusted)
    return from_hugging_face(model, extractor, **options)


def from_hugging_face(
    model,
    feature_extractor=None,
    features=None,
    labels=None,
    multilabel=None,
    scores=False,
):
    """Make a listener of an audio classifier of transformers.

    Arguments
    ---------
    model : transformers.PreTrainedModel or transformers.Pipeline
        Kept, not copied: it goes to evaluation mode, and its weights get no
        gradient. Of an audio classification pipeline, its model.
    feature_extractor : transformers.FeatureExtractionMixin
        What the owner of the model calls before it, or the processor that
        holds it; by default the pipeline's.
    features : callable
        Differentiable front end from waveforms [batch, samples] to the
        model's input, a tensor or a dict of tensors. By default the one that
        gives what `feature_extractor` gives, see
        `lmac_sb.adapters.extractors`.
    labels : list of str
        Names of the classes; by default those of ``config.id2label``.
    multilabel : bool
        Whether each class is decided on its own, by a sigmoid; by default
        whether ``config.problem_type`` says so.
    scores : bool
        Whether the outputs may be numbers that are no classes (a regression).

    Returns
    -------
    Listener
        In evaluation mode. It has, besides, ``min_samples`` and ``n_samples``
        (the shortest sound that it takes, and the longest that it hears at
        once, or None), and ``own_call``, the logits of one waveform as the
        model's owner computes them. Of an x-vector model the "logits" are
        the embeddings.

    Raises
    ------
    LMACError
        If the model is not such a model, its extractor is not known and there
        are no `features`, one does not fit the other, the names are of
        another number than the outputs, or the outputs are no classes.

    Example
    -------
    >>> from_hugging_face(torch.nn.Linear(8, 3))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: found Linear, expected an audio classifier ...
    """
    if is_hugging_face(model) and not isinstance(model, torch.nn.Module):
        feature_extractor = feature_extractor or model.feature_extractor
        model = model.model
    extractor = getattr(
        feature_extractor, "feature_extractor", feature_extractor
    )
    _check_kind(model, extractor)
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = False
    front_end = front_end_of(extractor) if features is None else features
    if isinstance(front_end, torch.nn.Module):
        front_end.to(model.device)
    if features is not None:
        compare_inputs(front_end, extractor, model.device)
    rate = int(extractor.sampling_rate)
    problem = getattr(model.config, "problem_type", None)
    if multilabel is None:
        multilabel = problem == "multi_label_classification"
    listener = Listener(_Logits(model), rate, None, bool(multilabel), front_end)
    listener.requires_grad_(False).eval()
    listener.n_samples = getattr(front_end, "n_samples", None)
    listener.min_samples, n_outputs = _try(listener)
    if features is None:
        front_end.min_samples = listener.min_samples
    listener.labels = _labels(labels, model, n_outputs)
    is_score = problem == "regression" or (n_outputs == 1 and not multilabel)
    if is_score and not scores:
        raise LMACError(
            f"{type(model).__name__}: found a regression ({n_outputs} "
            "outputs), expected classes; to explain its numbers pass "
            "scores=True, and a function of them as target"
        )
    listener.own_call = functools.partial(
        own_call, model, extractor, sample_rate=rate
    )
    return listener


def is_hugging_face(model):
    """Whether an object is a model or pipeline of transformers.

    Arguments
    ---------
    model : object

    Returns
    -------
    bool

    Example
    -------
    >>> is_hugging_face(torch.nn.Linear(2, 2))
    False
    """
    names = {
        kind.__name__
        for kind in type(model).__mro__
        if kind.__module__.startswith("transformers.")
    }
    return bool(names & {"PreTrainedModel", "Pipeline"})


def own_call(model, extractor, wav, sample_rate):
    """Logits of one sound as the owner of a model computes them.

    Arguments
    ---------
    model : transformers.PreTrainedModel
    extractor : transformers.FeatureExtractionMixin
    wav : torch.Tensor or np.ndarray
        [samples].
    sample_rate : int
        Its rate in Hz.

    Returns
    -------
    torch.Tensor
        What the model gives, [1, classes] or [1, time, classes].

    Raises
    ------
    LMACError
        If the rate is not the extractor's.
    """
    if sample_rate != extractor.sampling_rate:
        raise LMACError(
            f"sound: found {sample_rate} Hz, expected "
            f"{extractor.sampling_rate} Hz, the feature extractor's rate"
        )
    if isinstance(wav, torch.Tensor):
        wav = wav.detach().cpu().numpy()
    inputs = extractor(
        np.asarray(wav, dtype=np.float32),
        sampling_rate=sample_rate,
        return_tensors="pt",
    )
    with torch.no_grad():
        return _Logits(model).eval()(dict(inputs))


class _NoLogits(LMACError):
    """A model of another kind: a longer sound does not help."""


class _Logits(torch.nn.Module):
    """A model of transformers, from its inputs to its logits alone."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        is_embedding = type(model).__name__.endswith("XVector")
        self.output = "embeddings" if is_embedding else "logits"

    def train(self, mode=True):
        """Stay in evaluation mode: an explained model does not change."""
        return super().train(False)

    def forward(self, inputs):
        """Logits of a tensor or of a dict of tensors."""
        if isinstance(inputs, torch.Tensor):
            inputs = {self.model.main_input_name: inputs}
        place, dtype = self.model.device, self.model.dtype
        inputs = {
            name: value.to(place, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        output = self.model(**inputs, return_dict=True)
        if self.output not in output:
            raise _NoLogits(
                f"{type(self.model).__name__}: found no '{self.output}' in "
                f"its output ({', '.join(output)}), expected an audio "
                "classifier"
            )
        return output[self.output].float()


def _check_kind(model, extractor):
    """Refuse what is no model of transformers with its extractor."""
    if not is_hugging_face(model) or not isinstance(model, torch.nn.Module):
        raise LMACError(
            f"model: found {type(model).__name__}, expected an audio "
            "classifier of transformers, or a pipeline that holds one"
        )
    if not hasattr(extractor, "sampling_rate"):
        raise LMACError(
            f"feature_extractor: found {type(extractor).__name__}, expected "
            f"the feature extractor of {type(model).__name__}, which knows "
            "its rate: features=AutoFeatureExtractor.from_pretrained(...); "
            "with a front end of your own, pass a function from its output "
            "to logits as the model: lambda x: model(x).logits"
        )


def _try(listener):
    """Fewest samples that a listener takes, and how many outputs it has."""
    start = getattr(listener.front_end, "min_samples", 1)
    longest = listener.n_samples or max(start, _LONGEST_START)
    works, size = None, start
    too_short = start - 1
    while works is None:
        try:
            n_outputs = _n_outputs(listener, size)
            works = size
        except _NoLogits:
            raise
        except Exception as error:
            if size == longest:
                raise LMACError(
                    f"{type(listener.model.model).__name__}: fails on the "
                    "output of its feature extractor "
                    f"({type(error).__name__}: {first_line(error)})"
                ) from error
            too_short, size = size, min(2 * size, longest)
    while works - too_short > 1:
        middle = (works + too_short) // 2
        try:
            _n_outputs(listener, middle)
            works = middle
        except Exception:
            too_short = middle
    return works, n_outputs


def _n_outputs(listener, n_samples):
    """Number of outputs; an error if the sound is too short for them.

    Which length would do is what `_try` finds out.
    """
    generator = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(1, n_samples, generator=generator)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a statistic of one frame
        noise = noise.to(listener.model.model.device)
        listener.settle(noise, advise=False)
        logits = listener(noise)
    if not (logits.numel() and torch.isfinite(logits).all()):
        raise ValueError("its outputs are NaN, infinite or none")
    return logits.shape[-1]


def _labels(labels, model, n_outputs):
    """Names of the outputs, in order; None where they are no classes."""
    if type(model).__name__.endswith("XVector") and labels is None:
        return None
    if labels is None:
        table = model.config.id2label or {}
        # Json has no integer keys.
        table = {int(index): str(name) for index, name in table.items()}
        labels = [table[index] for index in sorted(table)]
        origin = "config.id2label"
        is_complete = sorted(table) == list(range(n_outputs))
        if not is_complete and len(labels) == n_outputs:
            raise LMACError(
                f"{origin}: found names for {sorted(table)}, expected them "
                f"for 0 to {n_outputs - 1}, the outputs of "
                f"{type(model).__name__}"
            )
    else:
        labels, origin = [str(label) for label in labels], "labels"
        is_complete = len(labels) == n_outputs
    if not is_complete:
        raise LMACError(
            f"{origin}: found {len(labels)} names, expected {n_outputs}, one "
            f"for each output of {type(model).__name__}"
        )
    return labels
