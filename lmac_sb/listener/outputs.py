"""What a model returns: which part holds the scores, and on which axes."""

import collections.abc
import dataclasses
import numbers

import numpy as np
import torch

from lmac_sb.utils.errors import LMACError, is_whole, shown

__all__ = ["by_frames", "class_axis_of", "find_output", "without_ones"]

# Names of the scores, from the surest to the least sure. Of one row at most
# one name may occur.
NAMES = (
    ("logits",),
    ("clipwise_logits",),
    ("clipwise_output",),
    (
        "logit",
        "out",
        "output",
        "outputs",
        "pred",
        "prediction",
        "predictions",
        "preds",
        "probabilities",
        "probs",
        "scores",
        "y_hat",
        "y_pred",
    ),
    ("framewise_logits",),
    ("framewise_output",),
)
# Never scores of classes, unless they are asked for by name.
OTHERS = (
    "attention",
    "embedding",
    "feature",
    "hidden",
    "latent",
    "loss",
    "state",
)
HOW = "choose by output=, a name, an index or a function of what it returns"


def find_output(returned, output=None, n_classes=None):
    """The tensor of scores in what a model returns.

    A tensor is taken as it is. Of a dict, a dataclass, a named tuple or an
    object with attributes, the first name of `NAMES` that it has is taken,
    else its only tensor that is no embedding, hidden state or loss. Of a
    tuple or list, its only tensor of floats with two or three axes; of
    several, the only one with an axis as long as there are classes; of
    several such, the only one with two axes, since the classes of the clip
    go before those of its frames. All else must be chosen by `output`.

    Arguments
    ---------
    returned : object
        What the model returned.
    output : str or int or callable
        Name or index of the scores, or a function that gets `returned` and
        gives them.
    n_classes : int
        Number of classes, where it is known.

    Returns
    -------
    torch.Tensor
        Scores as real numbers.

    Raises
    ------
    LMACError
        If no tensor, or none for sure, holds scores; the message lists what
        was found.

    Example
    -------
    >>> scores = {"embedding": torch.rand(2, 64), "logits": torch.rand(2, 3)}
    >>> find_output(scores).shape
    torch.Size([2, 3])
    >>> find_output((torch.rand(2, 64), torch.rand(2, 3)), output=1).shape
    torch.Size([2, 3])
    >>> find_output((torch.rand(2, 64), torch.rand(2, 3)))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: output: the model returns 0: tensor [2, 64]; 1: tensor \
[2, 3], and which holds its classes is not clear; choose by output=, a name, \
an index or a function of what it returns
    """
    if output is not None:
        returned = _choose(returned, output)
    if not isinstance(returned, torch.Tensor):
        items = _items(returned)
        if items is None:
            _refuse(returned)
        names = isinstance(next(iter(items), None), str)
        found = _by_name(items) if names else _by_shape(items, n_classes)
        if found is None:
            raise LMACError(
                f"output: the model returns {_list(items)}, and which holds "
                f"its classes is not clear; {HOW}"
            )
        returned = found
    if returned.is_floating_point():
        return returned
    raise LMACError(
        f"output: found {_describe(returned)} of {returned.dtype}, expected "
        "floating-point scores; class numbers have no gradient, so return "
        "the logits"
    )


def class_axis_of(shape, n_classes):
    """Axis of the classes in scores of three axes, if the count tells it.

    Arguments
    ---------
    shape : tuple of int
        [batch, time, classes] or [batch, classes, time].
    n_classes : int
        Number of classes.

    Returns
    -------
    int or None
        1 or 2; None if both or neither may be.

    Example
    -------
    >>> class_axis_of((2, 100, 5), 5), class_axis_of((2, 5, 5), 5)
    (2, None)
    """
    axes = [axis for axis in (1, 2) if shape[axis] == n_classes]
    return axes[0] if len(axes) == 1 else None


def by_frames(scores, n_clips, class_axis=None, one_class=False):
    """Scores of any number of axes as [clips, frames, classes].

    Rows of the batch axis beyond the number of clips are windows of a clip
    that follow each other; they become frames.

    Arguments
    ---------
    scores : torch.Tensor
        [classes] or [time, classes] of one clip; [batch], [batch, classes],
        [batch, time, classes] or [batch, classes, time] of any number.
        Further axes, wherever they stand, must have length one.
    n_clips : int
        Number of clips that the model was given.
    class_axis : int
        Axis of the classes in scores of three axes, 1 or 2.
    one_class : bool
        Whether scores of two axes are [batch, time] of one class, and those
        of one axis its [time].

    Returns
    -------
    torch.Tensor
        [clips, frames, classes].

    Raises
    ------
    LMACError
        If the axes are not these.

    Example
    -------
    >>> by_frames(torch.rand(2, 5, 100), 2, class_axis=1).shape
    torch.Size([2, 100, 5])
    >>> by_frames(torch.rand(6, 5), 2).shape
    torch.Size([2, 3, 5])
    """
    found = list(scores.shape)
    scores = without_ones(scores)
    if scores.dim() < 2:
        # One row for each clip, or the classes or frames of one clip.
        shape = (n_clips, -1, 1) if one_class else (n_clips, 1, -1)
        scores = scores.reshape(shape)
    elif scores.dim() == 2:
        axis = 2 if one_class else 1
        scores = scores.unsqueeze(axis)
    elif scores.dim() == 3 and class_axis == 1:
        scores = scores.transpose(1, 2)
    if scores.dim() != 3 or scores.shape[0] % n_clips:
        raise LMACError(
            f"output: found scores of shape {found} for {n_clips} clips, "
            "expected [batch, classes], [batch, time, classes] or [batch, "
            f"classes, time]; {HOW}"
        )
    return scores.reshape(n_clips, -1, scores.shape[2])


def without_ones(scores):
    """Scores without axes of length one, the last ones first, down to three.

    Arguments
    ---------
    scores : torch.Tensor
        [batch, ...].

    Returns
    -------
    torch.Tensor
        With no more axes than three, or else those that are longer.

    Example
    -------
    >>> without_ones(torch.rand(2, 5, 1, 1)).shape
    torch.Size([2, 5, 1])
    >>> without_ones(torch.rand(2, 1, 100, 5)).shape
    torch.Size([2, 100, 5])
    """
    for axis in reversed(range(1, scores.dim())):
        if scores.dim() > 3 and scores.shape[axis] == 1:
            scores = scores.squeeze(axis)
    return scores


def _choose(returned, output):
    """The part of the model's output that the user names."""
    if callable(output):
        return output(returned)
    items = _items(returned)
    named = items is not None and output in items
    if is_whole(output) and items is not None and not named:
        values = list(items.values())
        if -len(values) <= output < len(values):
            return values[output]
    if named:
        return items[output]
    if isinstance(output, str) and hasattr(returned, output):
        return getattr(returned, output)
    raise LMACError(
        f"output: found {shown(output)}, but the model returns "
        f"{_describe(returned) if items is None else _list(items)}"
    )


def _items(returned):
    """Parts of a container by name or index; None if it is none."""
    if isinstance(returned, collections.abc.Mapping):
        return dict(returned)
    if dataclasses.is_dataclass(returned) and not isinstance(returned, type):
        fields = (field.name for field in dataclasses.fields(returned))
        return {name: getattr(returned, name) for name in fields}
    if hasattr(returned, "_asdict"):  # a named tuple
        return returned._asdict()
    if isinstance(returned, (tuple, list)):
        return dict(enumerate(returned))
    if isinstance(returned, (torch.Tensor, np.ndarray)):
        return None
    if hasattr(returned, "__dict__"):
        return {
            name: value
            for name, value in vars(returned).items()
            if not name.startswith("_")
        } or None
    return None


def _is_scores(value):
    """Whether a value may be scores."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _by_name(items):
    """Scores among parts with names, or None."""
    tensors = {name: v for name, v in items.items() if _is_scores(v)}
    for names in NAMES:
        known = [v for name, v in tensors.items() if name.lower() in names]
        if len(known) == 1:
            return known[0]
        if known:
            return None
    left = [
        value
        for name, value in tensors.items()
        if not any(word in name.lower() for word in OTHERS)
    ]
    return left[0] if len(left) == 1 else None


def _by_shape(items, n_classes):
    """Scores among parts without names, or None."""
    tensors = [value for value in items.values() if _is_scores(value)]
    if len(items) == 1 and tensors:
        return tensors[0]
    found = [value for value in tensors if value.dim() in (2, 3)] or tensors
    if len(found) > 1 and n_classes:
        found = [value for value in found if n_classes in value.shape[1:]]
        if len(found) > 1:
            found = [value for value in found if value.dim() == 2]
    return found[0] if len(found) == 1 else None


def _refuse(returned):
    """Say what is wrong with an output that holds no tensor."""
    if isinstance(returned, (np.ndarray, np.generic, numbers.Number)):
        raise LMACError(
            f"model: returns {_describe(returned)}, expected a tensor: what "
            "numpy computes has no gradient; keep to PyTorch from the "
            "waveform to the logits"
        )
    raise LMACError(
        f"model: returns {_describe(returned)}, expected a tensor of logits, "
        "or a tuple, dict or dataclass that holds it"
    )


def _describe(value):
    """One part of an output, in a few words."""
    if isinstance(value, torch.Tensor):
        return f"tensor {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"numpy array {list(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__


def _list(items):
    """The parts of an output, in one line."""
    parts = [f"{name}: {_describe(value)}" for name, value in items.items()]
    return "; ".join(parts) if parts else "nothing"
