"""Any classifier with its layers, as a decoder reads them."""

import math

import torch

from lmac_sb.adapters.layers import layer_modules
from lmac_sb.listener.windows import overlap_add
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import as_question
from lmac_sb.utils.errors import LMACError

__all__ = ["LayeredClassifier"]

_FINE = 12  # cells of a window, at least
_SCALE = 0.2  # of shares before the logarithm


class LayeredClassifier(FrozenClassifier):
    """A listener whose layers are read while it is traced, and only then.

    Nothing stays at the layers in between, so a model may be that of the
    user. Clips that the listener hears one by one, and the windows that it
    cuts them into, are put together again. Each window has the evidence of
    its own answer, whichever of them decides.

    With `relevance`, a decoder reads of every layer what speaks for the
    question and what against it: its activations times their gradients, the
    positive and the negative ones summed over the channels. Whatever is asked,
    these two maps mean the same, so a decoder that reads them serves for
    classes that it was not trained on. This costs a backward pass down to the
    shallowest layer.

    Arguments
    ---------
    heard : torch.nn.Module
        `lmac_sb.listener.listener.Listener`, or the
        `lmac_sb.adapters.source.FeatureListener` around one.
    layers : list of lmac_sb.adapters.layers.Layer
        The deepest first.
    multilabel : bool
        See `lmac_sb.models.frozen.FrozenClassifier`.
    relevance : bool
        Whether `trace` gives [batch, 2, time, freq] of each layer after the
        evidence, in place of the latents.

    Example
    -------
    >>> from lmac_sb.adapters.layers import find_layers
    >>> from lmac_sb.listener.listener import Listener
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Unflatten(1, (1, -1)),
    ...     torch.nn.Conv1d(1, 4, 400, 160),
    ...     torch.nn.AdaptiveMaxPool1d(1),
    ...     torch.nn.Flatten(),
    ...     torch.nn.Linear(4, 3),
    ... )
    >>> listener, wavs = Listener(net, 16000), torch.rand(2, 16000)
    >>> layers = find_layers(listener, wavs)
    >>> logits, (evidence, latent) = LayeredClassifier(listener, layers).trace(
    ...     wavs
    ... )
    >>> evidence.shape, latent.shape
    (torch.Size([2, 4, 98, 1]), torch.Size([2, 4, 98, 1]))
    """

    def __init__(self, heard, layers, multilabel=False, relevance=False):
        super().__init__(
            heard,
            torch.nn.Identity(),
            latent_layers=[],
            evidence=False,
            multilabel=multilabel,
        )
        self.layers = list(layers)
        self.relevance = relevance

    @property
    def channels(self):
        """Channels of each map that `trace` gives."""
        deepest = self.layers[0].channels
        if self.relevance:
            return [deepest, *(2 for _ in self.layers)]
        return [deepest, *(layer.channels for layer in self.layers)]

    @property
    def listener(self):
        """The classifier without the front end of the fast path."""
        return getattr(self.embedding_model, "listener", self.embedding_model)

    def trace(self, features, target=None):
        """See `lmac_sb.models.frozen.FrozenClassifier.trace`."""
        known, calls, hooks = layer_modules(self.listener), {}, []
        # Gradients are wanted from here on; weights take none.
        first = len(self.layers) - 1 if self.relevance else 0
        with torch.inference_mode(False), torch.enable_grad():
            features = features.detach().clone()
            for place, layer in enumerate(self.layers):
                outputs = calls.setdefault(layer.name, [])
                keep = _Keep(outputs, place == first, self.relevance)
                hook = known[layer.name].register_forward_hook(keep)
                hooks.append(hook)
            try:
                with self.listener.watching_head() as read:
                    logits, log_odds = self._answer(features, target)
            finally:
                for hook in hooks:
                    hook.remove()
            asked = self.layers if self.relevance else self.layers[:1]
            shares = self._shares(log_odds, [calls[x.name] for x in asked])
        # As `logits_and_embedding` says it, which is a pass more.
        embedding = logits
        if read and self.listener is self.embedding_model:
            embedding = self.listener.embedding_of(read, len(features))
        self.traced_embedding = embedding.detach().to(logits.dtype)
        deepest, n_samples = self.layers[0], self._n_samples(features)
        evidence = self._map(
            deepest, shares[0], features, n_samples, _times_cells
        )
        change, outputs = None, [calls[layer.name] for layer in self.layers]
        if self.relevance:
            change, outputs = _for_and_against, shares
        maps = [
            self._map(layer, output, features, n_samples, change)
            for layer, output in zip(self.layers, outputs)
        ]
        return logits.detach(), [evidence, *maps]

    def _answer(self, features, target):
        """Logits [batch, classes], and the log-odds that are explained."""
        question = as_question(target, self.multilabel)
        listener = self.listener
        if listener.windows is None or listener.at is not None:
            logits, _ = self(features)
            question = question.settle(logits.detach())
            return logits, question.log_odds(logits)
        frames = listener.frames(features)
        logits = listener.pooled(frames, len(features), features.shape[1])
        question = question.settle(logits.detach())
        n_frames = frames.shape[1]
        each = question.each(lambda x: x.repeat_interleave(n_frames, 0))
        return logits, each.log_odds(frames.flatten(0, 1))

    def _shares(self, log_odds, outputs):
        """Activations times gradients, for the outputs of each layer."""
        every = [output for calls in outputs for output in calls]
        if not all(outputs) or not log_odds.requires_grad:
            name = self.layers[0].name
            raise LMACError(
                f"layers: no gradient of the outputs reaches '{name}', "
                "expected a layer on the way to them"
            )
        gradients = iter(torch.autograd.grad(log_odds.sum(), every))
        return [
            [next(gradients) * output.detach() for output in calls]
            for calls in outputs
        ]

    def _n_samples(self, features):
        """Length of the clips."""
        if features.dim() == 2:
            return features.shape[1]
        return features.shape[1] * self.embedding_model.hop_samples

    def _map(self, layer, outputs, features, n_samples, change=None):
        """Map [batch, channels, time, freq] of a layer's outputs.

        `change` is a function of the maps of windows, if there is one.
        """
        listener, batch = self.listener, len(features)
        windows = listener.windows
        count = 1 if windows is None else windows.count(n_samples)
        alone = listener.found.form.one_by_one
        rows = batch * count
        if len(outputs) != (rows if alone else 1):
            raise LMACError(
                f"layers: '{layer.name}' ran {len(outputs)} times for {rows} "
                f"{'clips' if windows is None else 'windows'}, expected "
                f"{'once for each' if alone else 'once for all'}"
            )
        each = 1 if alone else rows
        maps = [layer.to_map(x.detach().float(), each) for x in outputs]
        whole = torch.cat(maps) if alone else maps[0]
        if change is not None:
            whole = change(whole)
        n_time, covered = whole.shape[2], getattr(listener, "n_samples", None)
        if windows is not None:
            # Cells so fine that windows hardly move where they are rounded.
            split = max(1, math.ceil(_FINE / n_time))
            whole = whole.repeat_interleave(split, 2)
            n_time = whole.shape[2]
            hop = n_time * windows.hop / windows.size
            whole = overlap_add(whole, count, min(hop, n_time))
            first = round(n_time * windows.padding / windows.size)
            whole = whole[:, :, min(first, whole.shape[2] - 1) :]
            covered = windows.size
        if covered:
            # Not the zeros with which a clip is filled up.
            kept = math.ceil(n_time * n_samples / covered)
            whole = whole[:, :, : max(1, kept)]
        return whole


class _Keep:
    """Hook that keeps outputs, of one layer as leaves.

    Arguments
    ---------
    kept : list
        Of outputs.
    is_leaf : bool
        Whether the gradient ends here.
    follow : bool
        Whether others have a gradient as well.
    """

    def __init__(self, kept, is_leaf, follow):
        self.kept, self.is_leaf, self.follow = kept, is_leaf, follow

    def __call__(self, module, inputs, output):
        """Keep the output; a leaf, and what has a gradient, is replaced."""
        is_several = isinstance(output, (tuple, list))
        latent = output[0] if is_several else output
        if self.is_leaf:
            latent = latent.detach().clone().requires_grad_()
        self.kept.append(latent)
        if not (self.is_leaf or self.follow):
            return None
        # Later layers may change the clone in place, but not what is kept.
        follows = latent.clone()
        return type(output)([follows, *output[1:]]) if is_several else follows


def _times_cells(evidence):
    """Evidence [rows, channels, time, freq] times the number of cells.

    Pooling has divided its gradient by them.
    """
    return evidence * evidence[0, 0].numel()


def _for_and_against(shares):
    """Sums over channels of positive and of negative shares, on a log scale.

    Arguments
    ---------
    shares : torch.Tensor
        [rows, channels, time, freq], which add up to about the log-odds.

    Returns
    -------
    torch.Tensor
        [rows, 2, time, freq], 0 or more: log(1 + share of the cell times a
        fifth of the number of cells).
    """
    # One after the other, so that each is summed while it is in the cache.
    gains, losses = shares.clamp(min=0).sum(1), shares.clamp(max=0).sum(1)
    sides = torch.stack((gains, losses.neg_()), 1)
    return sides.mul_(_SCALE * shares[0, 0].numel()).log1p_()
