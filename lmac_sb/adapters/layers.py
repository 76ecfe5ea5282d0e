"""Which layers of a classifier a decoder reads, and where they lie."""

import contextlib
import dataclasses
import math

import torch
from torch.nn import functional as F

from lmac_sb.adapters.tokens import token_maps
from lmac_sb.listener.calling import modules_of
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Layer", "find_layers", "layer_modules"]

_MOST = 4  # layers that are chosen
_FEWEST = 3  # if there are so many, of one size or not
_RATIO = 1.5  # of sizes that count as distinct
_SHIFT = 0.1  # of an axis, by which a change that moves in time moves there
_EXTRA_TOKENS = 2  # before those of the patches: for the class, at most


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's output, and how it becomes a map.

    Arguments
    ---------
    name : str
        Of the layer, see `layer_modules`.
    channels : int
        Of the map.
    axes : str
        A letter for each axis of the output: ``b`` batch, ``c`` channels,
        ``t`` time, ``f`` frequency, ``T`` batch and time in one (frames or
        patches of a clip after each other), ``.`` to be averaged over.
    step : int
        Cells of time that become one, where the layer is finer than masks.
    tokens : str
        ``tf`` or ``ft`` if the cells of time are tokens of a grid, by the
        order of its axes.
    bands : int
        Of that grid.
    extra : int
        Tokens before those of the grid.

    Example
    -------
    >>> layer = Layer("blocks.1", 16, "bcft")
    >>> layer.to_map(torch.rand(2, 16, 40, 25), 2).shape
    torch.Size([2, 16, 25, 40])
    >>> layer = Layer("encoder", 8, "btc", tokens="ft", bands=4, extra=1)
    >>> layer.to_map(torch.rand(2, 1 + 4 * 25, 8), 2).shape
    torch.Size([2, 8, 25, 4])
    """

    name: str
    channels: int
    axes: str
    step: int = 1
    tokens: str = None
    bands: int = 1
    extra: int = 0

    def to_map(self, output, batch):
        """Map of what the layer gave.

        Arguments
        ---------
        output : torch.Tensor
            Its axes are `axes`.
        batch : int
            Clips in it.

        Returns
        -------
        torch.Tensor
            [batch, channels, time, freq].
        """
        axes = self.axes
        if "T" in axes:
            place = axes.index("T")
            output = output.unflatten(place, (batch, -1))
            axes = axes.replace("T", "bt")
        averaged = [i for i, axis in enumerate(axes) if axis == "."]
        if averaged:
            output = output.mean(averaged)
            axes = axes.replace(".", "")
        for axis in "bf":
            if axis not in axes:
                output, axes = output.unsqueeze(-1), axes + axis
        output = output.permute([axes.index(axis) for axis in "bctf"])
        if self.tokens is not None:
            output = self._on_grid(output[..., 0])
        if self.step > 1:
            pool = (self.step, 1)
            output = F.avg_pool2d(output, pool, ceil_mode=True)
        return output

    def _on_grid(self, tokens):
        """Map [batch, channels, time, freq] of tokens [batch, channels, n]."""
        tokens = tokens[:, :, self.extra :]
        if self.tokens == "tf":
            return tokens.unflatten(2, (-1, self.bands))
        return tokens.unflatten(2, (self.bands, -1)).transpose(2, 3)


def layer_modules(listener):
    """Modules of a classifier by name.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        The classifier. Its front end does not count.

    Returns
    -------
    dict
        The names are those of the user's module, which itself is ``model``.
        Modules that a function calls have their number before it, if there
        are several.

    Example
    -------
    >>> from lmac_sb.listener.listener import Listener
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 3))
    >>> list(layer_modules(Listener(net, 16000)))
    ['model', '0']
    >>> list(layer_modules(Listener(lambda wavs: net(wavs), 16000)))
    ['model', '0']
    """
    found = modules_of(listener.model)
    known = {}
    for number, module in enumerate(found):
        for name, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                continue  # takes no hooks
            if len(found) > 1:
                name = f"{number}.{name}" if name else str(number)
            known[name or "model"] = part
    return known


def find_layers(listener, wavs, names=None, call=None, longest=None):
    """The deepest layers of distinct sizes, found by dry runs.

    A layer counts if its output has an axis of time and reaches the outputs
    of the classifier. The axis of the batch is told by batches of two sizes,
    that of time by two lengths; where the length is fixed, by where the
    output changes with the start and with the end of the sound. Tokens are
    laid back on the grid of the map that they were made of.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        The classifier.
    wavs : torch.Tensor
        Sounds as they are explained, [batch, samples].
    names : list of str
        Layers to take instead, the deepest first; see `layer_modules`. The
        end of a name is enough if only one ends so.
    call : callable
        How the classifier is run: from waveforms to logits, by default the
        listener itself.
    longest : int
        Cells of time that a mask has for these sounds; finer layers are
        averaged to no more.

    Returns
    -------
    list of Layer
        The deepest first.

    Raises
    ------
    LMACError
        If there is no such layer, or a named one cannot be used.

    Example
    -------
    >>> from lmac_sb.listener.listener import Listener
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Unflatten(1, (1, -1)),
    ...     torch.nn.Conv1d(1, 4, 400, 160),
    ...     torch.nn.Conv1d(4, 8, 4, 4),
    ...     torch.nn.AdaptiveMaxPool1d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(8, 3),
    ... )
    >>> for layer in find_layers(Listener(net, 16000), torch.rand(1, 16000)):
    ...     print(layer)
    Layer(name='2', channels=8, axes='bct', ...)
    Layer(name='1', channels=4, axes='bct', ...)
    """
    runs = _Runs(listener, wavs, call or listener)
    found = runs.layers(longest or wavs.shape[1])
    if names is not None:
        if isinstance(names, str) or len(names) == 0:
            raise LMACError(
                f"layers: found {shown(names)}, expected a list of names, the "
                "deepest layer first"
            )
        return [_named(name, found, runs) for name in names]
    if not found:
        raise LMACError(
            f"layers: found none of {_kind(listener)} with an axis of time "
            "through which its outputs can be traced, expected at least one "
            "for a decoder to read; name some with layers=, or explain with "
            "gradient steps alone, which need none"
        )
    return _choose(found, runs.inner())


def _kind(listener):
    """What the model is, in a word."""
    return getattr(type(listener.model), "__name__", "the model")


def _named(name, found, runs):
    """The layer of a name, or of its end."""
    known = list(runs.modules)
    fits = [n for n in known if n == name]
    fits = fits or [n for n in known if n.endswith(f".{name}")]
    if len(fits) != 1:
        listed = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
        raise LMACError(
            f"layers: found {shown(name)}, which names {len(fits)} of the "
            f"model's layers, expected one of {listed}"
        )
    for layer, _ in found:
        if layer.name == fits[0]:
            return layer
    raise LMACError(f"layers: found {fits[0]}, {runs.why_not(fits[0])}")


def _choose(found, inner):
    """The deepest of distinct sizes, or of one size in distinct depths."""
    inner = [pair for pair in found if pair[0].name in inner] or found
    chosen = []
    for layer, size in reversed(inner):
        if all(_distinct(size, other) for _, other in chosen):
            chosen.append((layer, size))
    chosen = chosen[:_MOST]
    missing = min(_FEWEST, len(inner)) - len(chosen)
    if missing > 0:
        names = {layer.name for layer, _ in chosen}
        rest = [pair for pair in inner if pair[0].name not in names]
        steps = range(missing, 0, -1)
        places = [len(rest) * i // (missing + 1) for i in steps]
        chosen += [rest[place] for place in dict.fromkeys(places)]
    order = [layer.name for layer, _ in inner]
    chosen.sort(key=lambda pair: -order.index(pair[0].name))
    return [layer for layer, _ in chosen]


def _distinct(one, two):
    """Whether two sizes differ by more than what rounding does."""
    return any(max(a, b) >= _RATIO * min(a, b) for a, b in zip(one, two))


class _Runs:
    """Dry runs of a classifier, and what its layers gave."""

    def __init__(self, listener, wavs, call):
        self.listener, self.call = listener, call
        self.modules = layer_modules(listener)
        if listener.windows is not None:
            # One window: the axes of all are the same.
            size = listener.windows.size
            wavs = wavs.repeat(1, -(-size // wavs.shape[1]))[:, :size]
        listener.settle(wavs)
        self.alone = listener.found.form.one_by_one
        self.wavs = wavs[:1].detach().float()
        # Of what the model hears; the rest are zeros.
        hears = getattr(listener, "n_samples", None)
        self.share = wavs.shape[1] / hears if hears else 1.0
        self.outputs, self.order, self.n_calls = {}, [], {}
        self.gradients = self._first()

    def layers(self, longest):
        """Pairs of a layer and its size in time and frequency, in order."""
        tokens = self._transformers()
        names = [n for n in self.gradients if tokens is None or n in tokens]
        shapes = {n: self.outputs[n].shape for n in names}
        batches = self._shapes(self.wavs.repeat(3, 1), names)
        lengths = self._other_length(names)
        moved, maps, found = None, [], []
        for name in names:
            axes, more = None, {}
            if tokens is not None:
                axes, more = tokens[name]
            else:
                axes = self._axes(name, batches, lengths)
            if axes is None and tokens is None and lengths is None:
                moved = self._moved(names) if moved is None else moved
                axes = self._axes_by_change(name, batches, moved)
            if axes is None:
                continue
            if not more:
                more = _grid(axes, shapes[name], maps)
            layer = Layer(name, shapes[name][axes.index("c")], axes, **more)
            n_time, n_freq = self._size(layer)
            if n_time * n_freq < 2:
                continue
            if len(axes) == 4 and "t" in axes and n_freq > 1:
                maps.append(_grid_of(axes, n_time, n_freq))
            step = max(1, math.ceil(n_time * self.share / longest))
            layer = dataclasses.replace(layer, step=step)
            found.append((layer, self._size(layer)))
        return found

    def _size(self, layer):
        """Cells of time and frequency of a layer's map."""
        batch = 1 if self.alone else 2
        return tuple(layer.to_map(self.outputs[layer.name], batch).shape[2:])

    @property
    def two_clips(self):
        """The clip twice, as the first run gets it."""
        return self.wavs.repeat(2, 1)

    def _first(self):
        """Run with gradients; returns layers that reach the outputs."""
        started = self._run(self.two_clips, self.modules, keep=True)
        candidates = [
            name
            for name in self.order
            if name in self.outputs and self.outputs[name].requires_grad
        ]
        scores = started.double()
        generator = torch.Generator().manual_seed(0)
        weights = torch.rand(scores.shape, generator=generator).to(scores)
        tensors = [self.outputs[name] for name in candidates]
        if not tensors or not scores.requires_grad:
            return []
        found = torch.autograd.grad(
            (weights * scores).sum(), tensors, allow_unused=True
        )
        self.outputs = {n: t.detach() for n, t in self.outputs.items()}
        return [
            name
            for name, gradient in zip(candidates, found)
            if gradient is not None and gradient.abs().amax() > 0
        ]

    def _run(self, wavs, names, keep=False):
        """Run once; notes outputs, the order of layers, and their calls."""
        self.outputs, self.order, self.n_calls = {}, [], {}
        hooks = [
            self.modules[name].register_forward_hook(self._note(name))
            for name in names
        ]
        wavs = wavs.clone().requires_grad_(keep)
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(keep):
                return self.call(wavs)
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, name):
        """Hook that notes an output."""

        def note(module, inputs, output):
            self.n_calls[name] = self.n_calls.get(name, 0) + 1
            if isinstance(output, (tuple, list)) and output:
                output = output[0]
            is_tensor = isinstance(output, torch.Tensor)
            if not is_tensor or not output.is_floating_point():
                return
            if name not in self.outputs:
                self.order.append(name)
                self.outputs[name] = output

        return note

    def _usable(self, name, rows):
        """Whether a layer runs once for a batch, or once for each clip."""
        return self.n_calls.get(name) == (rows if self.alone else 1)

    def _shapes(self, wavs, names):
        """Shapes of outputs for other sounds."""
        first, order, calls = self.outputs, self.order, self.n_calls
        try:
            self._run(wavs, names)
            return {name: t.shape for name, t in self.outputs.items()}
        finally:
            self.outputs, self.order, self.n_calls = first, order, calls

    def _other_length(self, names):
        """The same for sounds of another length; None if it is fixed."""
        if self.listener.windows is not None:
            return None
        n_samples = self.wavs.shape[1]
        for length in (n_samples // 2, 2 * n_samples):
            wavs = self.two_clips.repeat(1, 2)[:, :length]
            with contextlib.suppress(Exception):  # whatever a model raises
                return self._shapes(wavs, names)
        return None

    def _axes(self, name, batches, lengths):
        """Letters of the axes; None if lengths do not tell them."""
        if lengths is None or not self._usable(name, 2):
            return None
        shape, longer = self.outputs[name].shape, lengths.get(name, ())
        if len(longer) != len(shape):
            return None
        differ = [i for i, n in enumerate(shape) if longer[i] != n]
        if len(differ) != 1:
            return None
        return self._letters(name, batches, differ[0])

    def _letters(self, name, batches, time):
        """Letters of the axes, where that of time is known."""
        shape = self.outputs[name].shape
        batch = self._batch_axis(shape, batches.get(name, ()))
        if batch is None and not self.alone:
            return None
        axes = ["."] * len(shape)
        if batch is not None:
            axes[batch] = "b"
        axes[time] = "T" if time == batch else "t"
        if self.alone and time == 0 and shape[0] > 1 and len(shape) != 3:
            axes[0] = "T"
        rest = [i for i, axis in enumerate(axes) if axis == "."]
        if not rest or len(rest) > 3 or "T" not in axes and len(rest) > 2:
            return None
        # Of a map, channels stand before its cells, or after them.
        channel = rest[-1] if 0 < time < rest[0] else rest[0]
        axes[channel] = "c"
        rest.remove(channel)
        if "T" not in axes and rest:
            axes[rest[0]] = "f"
        return "".join(axes)

    def _batch_axis(self, shape, others):
        """Axis that three clips make longer than two do."""
        if self.alone:
            return 0 if shape[0] == 1 else None
        if len(others) != len(shape):
            return None
        grown = [i for i, n in enumerate(shape) if 2 * others[i] == 3 * n]
        return grown[0] if len(grown) == 1 else None

    def _moved(self, names):
        """Where outputs change with the start and the end of the sound."""
        first, order, calls = self.outputs, self.order, self.n_calls
        n_samples = self.wavs.shape[1]
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(n_samples, generator=generator)
        noise = noise * self.wavs.std().clamp(min=1e-3).cpu()
        third, changes = n_samples // 3, []
        try:
            for part in (slice(0, third), slice(n_samples - third, None)):
                wavs = self.two_clips
                wavs[:, part] = noise[part].to(wavs)
                self._run(wavs, names)
                changes.append(self.outputs)
        finally:
            self.outputs, self.order, self.n_calls = first, order, calls
        moved = {}
        for name in names:
            sides = [side.get(name, first[name]) for side in changes]
            if all(side.shape == first[name].shape for side in sides):
                moved[name] = _centres(first[name], *sides)
        return moved

    def _axes_by_change(self, name, batches, moved):
        """Letters of the axes by where an output changes."""
        if name not in moved or not self._usable(name, 2):
            return None
        shape = self.outputs[name].shape
        batch = self._batch_axis(shape, batches.get(name, ()))
        shifts = [
            0.0 if i == batch or n < 2 else float(moved[name][i])
            for i, n in enumerate(shape)
        ]
        time = max(range(len(shape)), key=shifts.__getitem__)
        if shifts[time] < _SHIFT:
            return None
        axes = self._letters(name, batches, time)
        # One channel: what moved were channels, and time is gone.
        if axes is None or shape[axes.index("c")] == 1:
            return None
        return axes

    def _transformers(self):
        """Layers of a model of transformers: axes, and the grid of tokens."""
        inner = getattr(self.listener.model, "model", None)
        kinds = {kind.__module__ for kind in type(inner).__mro__}
        if not any(kind.startswith("transformers.") for kind in kinds):
            return None
        layers = {}
        for name, to_map in token_maps(self.listener).items():
            name = name[len("model.") :]
            options = to_map.keywords
            if options["is_channels"]:
                layers[name] = "bct", {}
            elif options["grid"] is None:
                layers[name] = "btc", {}
            elif name in self.outputs:
                bands, n_time = options["grid"]
                extra = self.outputs[name].shape[1] - bands * n_time
                more = {"tokens": "ft", "bands": bands, "extra": extra}
                layers[name] = "btc", more
        return layers

    def inner(self):
        """Names of the layers between the first and the last weights.

        Before lies a front end, and after that the answer itself.
        """
        weighted = [
            name
            for name in self.order
            if next(self.modules[name].parameters(recurse=False), None)
            is not None
        ]
        if not weighted:
            return set()
        first, last = (self.order.index(weighted[i]) for i in (0, -1))
        return set(self.order[first:last])

    def why_not(self, name):
        """Why a layer cannot be read."""
        calls = self.n_calls.get(name, 0)
        if not calls:
            return "which does not run, expected one that does"
        if not self._usable(name, 2):
            return (
                f"which runs {calls} times for 2 clips, expected "
                f"{'once for each' if self.alone else 'once'}"
            )
        if name not in self.gradients:
            return (
                "from which no gradient of the outputs can be taken, expected "
                "a layer on the way to them"
            )
        shape = list(self.outputs[name].shape)
        return (
            f"whose output {shape} has no axis of time that could be told, "
            "expected [batch, channels, time, freq], [batch, time, channels] "
            "or [batch, channels, time]"
        )


def _grid_of(axes, n_time, n_freq):
    """The grid of a map, of which tokens may be made: its order and size."""
    order = "tf" if axes.index("t") < axes.index("f") else "ft"
    return order, n_time, n_freq


def _grid(axes, shape, maps):
    """The grid on which tokens [batch, time, channels] lie, if on one."""
    if len(shape) != 3 or "t" not in axes:
        return {}
    n_tokens = shape[axes.index("t")]
    for order, n_time, n_freq in reversed(maps):
        extra = n_tokens - n_time * n_freq
        if 0 <= extra <= _EXTRA_TOKENS:
            return {"tokens": order, "bands": n_freq, "extra": extra}
    return {}


def _centres(first, start, end):
    """By how much the centre of a change moves along each axis."""
    centres = []
    for other in (start, end):
        change = (other - first).abs().double()
        if not change.any():
            return [0.0] * first.dim()
        places = []
        for axis, size in enumerate(first.shape):
            others = [i for i in range(first.dim()) if i != axis]
            profile = change.sum(others) if others else change
            steps = torch.linspace(0, 1, size).to(profile)
            places.append(float((profile * steps).sum() / profile.sum()))
        centres.append(places)
    return [after - before for before, after in zip(*centres)]
