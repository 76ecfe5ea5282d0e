"""How a classifier is called: on which clips, and left as it was found."""

import collections.abc
import contextlib
import copy
import functools
import inspect
import itertools
import threading
import types

import torch
from torch.nn.parameter import is_lazy

from lmac_sb.models.frozen import derivable
from lmac_sb.utils.errors import LMACError

__all__ = [
    "FORMS",
    "FirstCalls",
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


_LOCK = threading.Lock()
# What is set to False while it is called: by its owner's id and the name of
# the attribute, the owner and the number of calls that need it so.
_HELD = {}


def _hold(owners, name):
    """Set an attribute to False where it is true; returns what to release."""
    held = []
    with _LOCK:
        for owner in owners:
            key = id(owner), name
            if key not in _HELD:
                if not getattr(owner, name, False):
                    continue
                setattr(owner, name, False)
                _HELD[key] = [owner, 0]
            _HELD[key][1] += 1
            held.append(key)
    return held


def _release(held):
    """Set it to True again, once no other call needs it."""
    with _LOCK:
        for key in held:
            entry = _HELD[key]
            entry[1] -= 1
            if not entry[1]:
                del _HELD[key]
                setattr(entry[0], key[1], True)


@contextlib.contextmanager
def as_needed(modules, wavs, changing=()):
    """While a classifier is called: evaluation mode, weights without gradient.

    Afterwards each of its modules and weights is as it was found, or as soon
    as the last of several threads that call it is done. Nothing of the user's
    object changes lastingly. Recurrent layers run without cuDNN, which gives
    no gradient in evaluation mode; TorchScript without its own formulas of
    gradients, of which some fail where those of PyTorch do not, such as that
    of the absolute value of complex numbers.

    Arguments
    ---------
    modules : list of torch.nn.Module
        Those of the classifier and of its front end.
    wavs : torch.Tensor
        What it will be called with.
    changing : list of torch.nn.Module
        Those of whose buffers a call changes some, see `FirstCalls`.

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
    weights = [
        weight
        for module in modules
        for weight in module.parameters()
        # Those made in inference mode could not be set back.
        if weight.is_leaf and not weight.is_inference()
    ]
    buffers = [buffer for part in changing for buffer in _buffers(part)]
    with derivable(*modules), torch.jit.optimized_execution(False):
        held = _hold(parts, "training")
        try:
            held += _hold(weights, "requires_grad")
            yield
        finally:
            _release(held)
            for buffer in buffers:
                buffer.restore()


def _buffers(module):
    """A module's own buffers, with their values."""
    if isinstance(module, torch.jit.ScriptModule):
        return []  # gives other tensors each time
    return [
        _Buffer(module, name)
        for name, tensor in module._buffers.items()
        if tensor is not None and _has_values(tensor)
    ]


def _has_values(tensor):
    """Whether a tensor has values, which can be set back."""
    return not (is_lazy(tensor) or tensor.is_meta or tensor.is_inference())


class _Buffer:
    """A buffer of a module, and the values that it has now.

    Arguments
    ---------
    module : torch.nn.Module
        Whose it is.
    name : str
        As in ``module.named_buffers(recurse=False)``.
    """

    def __init__(self, module, name):
        self.place = module, name
        self.tensor = module._buffers[name]
        self.values = self.tensor.detach().clone()

    def has_changed(self):
        """Whether there is another tensor now, or other values."""
        module, name = self.place
        if module._buffers[name] is not self.tensor:
            return True
        # Not its version: batch norm in training counts none.
        return not torch.equal(self.tensor, self.values)

    def restore(self):
        """The same tensor with the same values again."""
        module, name = self.place
        if module._buffers[name] is not self.tensor:
            module._buffers[name] = self.tensor
        # Past autograd, which may have kept the tensor for a gradient.
        self.tensor.data.copy_(self.values)


class _Modules(list):
    """Modules that somebody else has; a copy has those that were copied."""

    def __deepcopy__(self, memo):
        """The copies that were made, and what was not copied."""
        return _Modules(memo.get(id(module), module) for module in self)


class FirstCalls:
    """Context of a classifier's first calls, by which it is found out.

    A function, or an object, may call modules that nobody sees in it. They
    are noted as they run, and are in evaluation mode from then on; so are
    buffers that a call changes. Afterwards all is as it was.

    Arguments
    ---------
    modules : list of torch.nn.Module
        Those that are seen.

    Example
    -------
    >>> class Hidden:
    ...     __slots__ = ("net",)
    >>> hidden = Hidden()
    >>> hidden.net = torch.nn.Dropout()
    >>> with FirstCalls([]) as first:
    ...     hidden.net(torch.ones(3))
    tensor([1., 1., 1.])
    >>> first.modules, hidden.net.training
    ([Dropout(p=0.5, inplace=False)], True)
    """

    def __init__(self, modules):
        self.modules, self.changing = _Modules(), _Modules()
        self.has_trained = False
        self._known, self._buffers, self._held = set(), [], []
        self._thread = threading.get_ident()
        for module in modules:
            self._look_at(module)

    def _look_at(self, module):
        """Remember a module's parts, and the values of their buffers."""
        for part in module.modules():
            if id(part) in self._known:
                continue
            self._known.add(id(part))
            self.has_trained |= getattr(part, "training", False)
            self._buffers += _buffers(part)

    def _note(self, module, inputs):
        """Hook of each module that runs."""
        if threading.get_ident() != self._thread or id(module) in self._known:
            return
        self.modules.append(module)
        self._look_at(module)
        self._held += _hold(module.modules(), "training")

    def __enter__(self):
        """Look at each module that runs from here on."""
        hooks = torch.nn.modules.module
        self._hook = hooks.register_module_forward_pre_hook(self._note)
        return self

    def __exit__(self, *error):
        """Leave all as it was, and say what has changed."""
        self._hook.remove()
        _release(self._held)
        for buffer in self._buffers:
            if buffer.has_changed():
                self.changing.append(buffer.place[0])
                buffer.restore()
        self._known, self._buffers = set(), []


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
