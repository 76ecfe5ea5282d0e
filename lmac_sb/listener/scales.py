"""Logits, probabilities or their logarithms: told apart, made logits."""

import torch
from torch.overrides import TorchFunctionMode

__all__ = [
    "LastActivation",
    "at_least_single",
    "guess_scale",
    "is_scaled_activation",
    "to_logits",
]

ACTIVATIONS = ("sigmoid", "sigmoid_", "special_expit", "softmax")
# What ends a model that gives logits, by the names in autograd's graph.
LINEAR = (
    "Add",
    "BatchNorm",
    "Bmm",
    "Convolution",
    "LayerNorm",
    "LeakyRelu",
    "Mm",
    "Mv",
    "Relu",
)
# These change neither the order of scores nor their scale.
PASSING = (
    "Adaptive",
    "Alias",
    "Amax",
    "Avg",
    "Cat",
    "Clone",
    "Expand",
    "Index",
    "Max",
    "Mean",
    "Permute",
    "Reshape",
    "Select",
    "Slice",
    "Squeeze",
    "Stack",
    "TBackward",
    "ToCopy",
    "Transpose",
    "Unsafe",
    "Unsqueeze",
    "View",
)


def to_logits(scores, scale):
    """Logits from scores of a known scale.

    Arguments
    ---------
    scores : torch.Tensor
        Any shape.
    scale : str
        ``"logits"``, unchanged, as are the logarithms of a softmax;
        ``"softmax"``, probabilities of one class among all;
        ``"sigmoid"``, probabilities of each class; ``"log_sigmoid"``, their
        logarithms.

    Returns
    -------
    torch.Tensor
        Logits; finite for probabilities of 0 and 1, where they have no
        gradient.

    Example
    -------
    >>> to_logits(torch.tensor([0.5, 1.0]), "sigmoid")
    tensor([ 0.0000, 15.9424])
    """
    if scale == "logits":
        return scores
    limits = torch.finfo(scores.dtype)
    if scale == "softmax":
        return scores.clamp_min(limits.tiny).log()
    if scale == "sigmoid":
        own = scores.clamp_min(limits.tiny).log()
        return own - torch.log1p(-scores.clamp_max(1 - limits.eps))
    below = scores.clamp_max(-limits.eps)
    return scores - torch.log(-torch.expm1(below))


def guess_scale(scores, multilabel):
    """Scale of a model's scores, judged by its answers to several sounds.

    Arguments
    ---------
    scores : torch.Tensor
        Scores of some sounds, [rows, classes], with autograd's graph where
        the model has one.
    multilabel : bool
        Whether each class is decided on its own.

    Returns
    -------
    str
        See `to_logits`. Rows within 0 and 1 that sum to one are
        probabilities. Those which do not are, unless the model ends with a
        linear layer, whose outputs are there by chance.

    Example
    -------
    >>> guess_scale(torch.tensor([[0.2, 0.8], [0.5, 0.5]]), False)
    'softmax'
    >>> guess_scale(torch.tensor([[-2.0, 0.8], [0.5, 0.5]]), False)
    'logits'
    """
    values = scores.detach()
    if not values.isfinite().all() or values.min() < 0 or values.max() > 1:
        return "logits"
    error = 1e-2 if values.dtype.itemsize < 4 else 1e-4
    sums = values.double().sum(1)
    if values.shape[1] > 1 and ((sums - 1).abs() < error).all():
        return "sigmoid" if multilabel else "softmax"
    return "logits" if _ends_linear(scores.grad_fn) else "sigmoid"


def _ends_linear(node):
    """Whether autograd's graph tells that the last step is linear."""
    while node is not None:
        name = type(node).__name__
        if name.startswith(LINEAR):
            return True
        if not name.startswith(PASSING):
            return False
        node = node.next_functions[0][0] if node.next_functions else None
    return False


def is_scaled_activation(scores):
    """Whether scores are a sigmoid's or softmax's times a constant.

    Arguments
    ---------
    scores : torch.Tensor
        With autograd's graph, where the model has one.

    Returns
    -------
    bool
        True for percentages; False where autograd does not tell.

    Example
    -------
    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> is_scaled_activation(100 * x.sigmoid())
    True
    >>> is_scaled_activation(x * x.sigmoid())
    False
    """
    node, scaled = scores.grad_fn, False
    while node is not None:
        name = type(node).__name__
        if name.startswith(("Sigmoid", "Softmax")):
            return scaled
        before = [found for found, _ in node.next_functions if found]
        if name.startswith(("Mul", "Div")) and len(before) == 1:
            scaled = True
        elif not name.startswith(PASSING):
            return False
        node = before[0] if before else None
    return False


def at_least_single(scores):
    """Scores in single precision, if they come in half.

    Arguments
    ---------
    scores : torch.Tensor
        Any shape.

    Returns
    -------
    torch.Tensor
        The same, of 32 bits or more.
    """
    return scores.float() if scores.dtype.itemsize < 4 else scores


class LastActivation(TorchFunctionMode):
    """Count a model's sigmoids and softmaxes, and leave one out.

    Where the last one of them is the model's last step, its input is the
    logits, whose gradient does not vanish where a probability rounds to one.

    Arguments
    ---------
    skip : int
        Index of the one to leave out, from 0.

    Example
    -------
    >>> with LastActivation(skip=1) as activations:
    ...     _ = torch.sigmoid(torch.zeros(1))
    ...     logits = torch.softmax(torch.tensor([3.0, 4.0]), 0)
    >>> logits, activations.count
    (tensor([3., 4.]), 2)
    """

    def __init__(self, skip=None):
        super().__init__()
        self.skip = skip
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call what PyTorch was asked for, or leave it out."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ACTIVATIONS:
            self.count += 1
            if self.count - 1 == self.skip:
                return args[0] if args else kwargs["input"]
        return func(*args, **kwargs)
