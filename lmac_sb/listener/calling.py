"""How a classifier is called: on which clips, and left as it was found."""

import collections.abc
import contextlib
import copy
import functools
import inspect
import itertools
import types

import torch

from lmac_sb.models.frozen import derivable
from lmac_sb.utils.errors import LMACError

__all__ = [
    "FORMS",
    "Form",
    "as_needed",
    "copies_for_gradient",
    "modules_of",
    "place_of",
    "private_copy",
]

_MOST_VALUES = 1000  # that are looked at for modules


class Form(
    collections.namedtuple(
        "Form",
        ["one_by_one", "flat", "wave_axis", "feature_axis"],
        defaults=[False, False, None, False],
    )
):
    """The shape in which a classifier takes waveforms [batch, samples].

    Arguments
    ---------
    one_by_one : bool
        Whether it gets each clip alone, since it takes no other, or since
        other clips of a batch change its outputs.
    flat : bool
        Whether a clip alone is [samples] instead of [1, samples].
    wave_axis : int
        Where waveforms get an axis for the channel: 1 or 2, or nowhere.
    feature_axis : bool
        Whether features do, after the batch axis.

    Example
    -------
    >>> form = Form(wave_axis=1)
    >>> form.waves(torch.rand(2, 16000)).shape
    torch.Size([2, 1, 16000])
    """

    def waves(self, wavs):
        """Waveforms [batch, samples] as they are taken."""
        if self.flat:
            return wavs[0]
        return (
            wavs if self.wave_axis is None else wavs.unsqueeze(self.wave_axis)
        )

    def features(self, features):
        """Features as they are taken."""
        return features.unsqueeze(1) if self.feature_axis else features

    def __str__(self):
        """The form in words, such as ``[batch, 1, samples]``."""
        if self.flat:
            return "[samples]"
        axes = ["1" if self.one_by_one else "batch", "samples"]
        if self.wave_axis is not None:
            axes.insert(self.wave_axis, "1")
        text = f"[{', '.join(axes)}]"
        return f"{text}, features with a channel" if self.feature_axis else text


# In the order in which they are tried.
FORMS = (
    Form(),
    Form(wave_axis=1),
    Form(wave_axis=2),
    Form(one_by_one=True),
    Form(one_by_one=True, flat=True),
    Form(one_by_one=True, wave_axis=1),
    Form(one_by_one=True, wave_axis=2),
)


def modules_of(function):
    """Modules that a callable calls, as far as they can be seen.

    Arguments
    ---------
    function : callable
        A module, a partial, a function, whose closure, defaults and globals
        are looked at, or an object or its method. Lists, dicts and objects of
        the same package are looked into.

    Returns
    -------
    list of torch.nn.Module

    Example
    -------
    >>> net = torch.nn.Linear(2, 2)
    >>> modules_of(lambda wavs: net(wavs)) == [net]
    True
    """
    found, seen, left = [], set(), [function]
    # What is one's own is followed, not what is of libraries.
    home = _package(inspect.unwrap(getattr(function, "__func__", function)))
    while left and len(seen) < _MOST_VALUES:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            found.append(value)
        elif isinstance(value, functools.partial):
            left += [value.func, *value.args, *value.keywords.values()]
        elif inspect.ismethod(value):
            left += [value.__self__, value.__func__]
        elif inspect.isfunction(value):
            if home in (None, _package(value)):
                home = _package(value)
                left += _used_by(value)
        elif isinstance(value, (list, tuple)):
            left += _some_that_may_hold(value)
        elif isinstance(value, collections.abc.Mapping):
            left += _some_that_may_hold(value.values())
        elif value is function or _package(type(value)) == home:
            home = home or _package(type(value))
            left += _some_that_may_hold(getattr(value, "__dict__", {}).values())
    return found


def _package(value):
    """Package that a function or class is defined in; None of other objects."""
    if not inspect.isfunction(value) and not isinstance(value, type):
        return None
    return (value.__module__ or "").partition(".")[0]


def _some_that_may_hold(values):
    """Those of the first values that may hold modules."""
    return list(filter(_may_hold, itertools.islice(values, 100)))


def _used_by(function):
    """What a function finds outside itself."""
    function = inspect.unwrap(function)
    code, values = function.__code__, list(function.__defaults__ or ())
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            values.append(cell.cell_contents)
    known = function.__globals__
    values += [known[name] for name in code.co_names if name in known]
    return [value for value in values if _may_hold(value)]


def _may_hold(value):
    """Whether to look for modules in a value."""
    if isinstance(value, (type, types.ModuleType, torch.Tensor)):
        return False
    return (
        isinstance(value, (list, tuple, collections.abc.Mapping))
        or inspect.isroutine(value)
        or hasattr(value, "__dict__")
    )


@contextlib.contextmanager
def as_needed(modules, wavs):
    """While a classifier is called: evaluation mode, weights without gradient.

    Afterwards each of its modules and weights is as it was found. Nothing of
    the user's object changes lastingly. Recurrent layers run without cuDNN,
    which gives no gradient in evaluation mode.

    Arguments
    ---------
    modules : list of torch.nn.Module
        Those of the classifier and of its front end.
    wavs : torch.Tensor
        What it will be called with.

    Example
    -------
    >>> net = torch.nn.Linear(2, 2)
    >>> with as_needed([net], torch.rand(1, 2)):
    ...     print(net.training, net.weight.requires_grad)
    False False
    >>> net.training, net.weight.requires_grad
    (True, True)
    """
    parts = [part for module in modules for part in module.modules()]
    training = [p for p in parts if getattr(p, "training", False)]
    trained = [
        weight
        for module in modules
        for weight in module.parameters()
        if weight.requires_grad and weight.is_leaf
    ]
    with derivable(*modules):
        try:
            for part in training:
                part.training = False
            for weight in trained:
                weight.requires_grad = False
            yield
        finally:
            for part in training:
                part.training = True
            for weight in trained:
                weight.requires_grad = True


def copies_for_gradient(modules):
    """Context in which autograd keeps copies of all but weights.

    So a model may change in place what its gradient needs, as ``wavs /=
    wavs.abs().max()`` does.

    Arguments
    ---------
    modules : list of torch.nn.Module
        Those of the classifier, whose weights and buffers are not copied.

    Example
    -------
    >>> wavs = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> with copies_for_gradient([]):
    ...     changed = wavs.clone()
    ...     changed *= changed.abs().sum()
    >>> torch.autograd.grad(changed.sum(), wavs)
    (tensor([2., 4.]),)
    """
    kept = {
        tensor.untyped_storage().data_ptr()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }

    def keep(tensor):
        """The tensor if it is a weight, or else a copy."""
        if tensor.untyped_storage().data_ptr() in kept:
            return tensor
        return tensor.detach().clone()

    hooks = torch.autograd.graph.saved_tensors_hooks
    return hooks(keep, lambda tensor: tensor)


def _first_weight(module):
    """Its first weight of floats, or else its first buffer, or None."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((t for t in tensors if t.is_floating_point()), None)


def place_of(modules):
    """Device and precision that modules work in.

    Arguments
    ---------
    modules : list of torch.nn.Module
        The first weight of each tells it, or the first buffer.

    Returns
    -------
    dict
        For `torch.Tensor.to`; without what they do not agree in.

    Example
    -------
    >>> place_of([torch.nn.Linear(2, 2).double()])["dtype"]
    torch.float64
    """
    tensors = [t for t in map(_first_weight, modules) if t is not None]
    places = {tensor.device for tensor in tensors}
    # Quantised weights are of eight bits, their input is not.
    types = {tensor.dtype for tensor in tensors if tensor.dtype.itemsize > 1}
    place = {"device": places.pop()} if len(places) == 1 else {}
    return {**place, "dtype": types.pop()} if len(types) == 1 else place


def private_copy(module):
    """A module of one's own that shares its weights with the original.

    What is done to the copy leaves the original alone: hooks, training mode,
    `requires_grad`, other classes of its layers. It takes no memory, since
    its weights and buffers are views of the same values; only TorchScript
    clones them.

    Arguments
    ---------
    module : torch.nn.Module
        The user's object.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    LMACError
        If a part cannot be copied.

    Example
    -------
    >>> net = torch.nn.Linear(2, 2)
    >>> own = private_copy(net).eval().requires_grad_(False)
    >>> net.training, net.weight.requires_grad
    (True, True)
    >>> own.weight.data_ptr() == net.weight.data_ptr()
    True
    """
    memo = {}
    for part in module.modules():
        values = [*part.__dict__.values(), *part._buffers.values()]
        for value in values:  # older weight norm keeps tensors as attributes
            if isinstance(value, torch.Tensor):
                memo[id(value)] = value.detach()
        for weight in part._parameters.values():
            if weight is not None:
                memo[id(weight)] = torch.nn.Parameter(
                    weight.detach(), weight.requires_grad
                )
    try:
        # Of TorchScript the weights are cloned: these have to be leaves.
        with torch.no_grad():
            return copy.deepcopy(module, memo)
    except Exception as error:
        raise LMACError(
            f"model: {type(module).__name__} cannot be copied "
            f"({type(error).__name__}: {error})"
        ) from error
