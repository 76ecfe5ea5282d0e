"""Any classifier with its layers, as a decoder reads them."""

import math

import torch

from lmac_sb.adapters.layers import layer_modules
from lmac_sb.listener.windows import overlap_add
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import as_question
from lmac_sb.utils.errors import LMACError

__all__ = ["LayeredClassifier"]


class LayeredClassifier(FrozenClassifier):
    """A listener whose layers are read while it is traced, and only then.

    Nothing stays at the layers in between, so a model may be that of the
    user. Clips that the listener hears one by one, and the windows that it
    cuts them into, are put together again.

    Arguments
    ---------
    heard : torch.nn.Module
        `lmac_sb.listener.listener.Listener`, or the
        `lmac_sb.adapters.source.FeatureListener` around one.
    layers : list of lmac_sb.adapters.layers.Layer
        The deepest first.
    multilabel : bool
        See `lmac_sb.models.frozen.FrozenClassifier`.

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

    def __init__(self, heard, layers, multilabel=False):
        super().__init__(
            heard,
            torch.nn.Identity(),
            latent_layers=[],
            evidence=False,
            multilabel=multilabel,
        )
        self.layers = list(layers)

    @property
    def listener(self):
        """The classifier without the front end of the fast path."""
        return getattr(self.embedding_model, "listener", self.embedding_model)

    def trace(self, features, target=None):
        """See `lmac_sb.models.frozen.FrozenClassifier.trace`."""
        known, calls, hooks = layer_modules(self.listener), {}, []
        # Weights take no gradient, so none is kept before the deepest layer.
        with torch.inference_mode(False), torch.enable_grad():
            features = features.detach().clone()
            for place, layer in enumerate(self.layers):
                keep = _Keep(calls.setdefault(layer.name, []), not place)
                hook = known[layer.name].register_forward_hook(keep)
                hooks.append(hook)
            try:
                logits, _ = self(features)
            finally:
                for hook in hooks:
                    hook.remove()
            question = as_question(target, self.multilabel)
            question = question.settle(logits.detach())
            deepest = calls[self.layers[0].name]
            gradients = self._gradients(question.log_odds(logits), deepest)
        n_samples = self._n_samples(features)
        evidence = [g * a.detach() for g, a in zip(gradients, deepest)]
        evidence = self._map(self.layers[0], evidence, features, n_samples)
        # Pooling divides a gradient by the number of cells.
        evidence = evidence * evidence[0, 0].numel()
        latents = [
            self._map(layer, calls[layer.name], features, n_samples)
            for layer in self.layers
        ]
        return logits.detach(), [evidence, *latents]

    def _gradients(self, log_odds, deepest):
        """Gradients of the evidence's log-odds to the deepest layer."""
        name = self.layers[0].name
        if not deepest or not log_odds.requires_grad:
            raise LMACError(
                f"layers: no gradient of the outputs reaches '{name}', "
                "expected a layer on the way to them"
            )
        return torch.autograd.grad(log_odds.sum(), deepest)

    def _n_samples(self, features):
        """Length of the clips."""
        if features.dim() == 2:
            return features.shape[1]
        return features.shape[1] * self.embedding_model.hop_samples

    def _map(self, layer, outputs, features, n_samples):
        """Map [batch, channels, time, freq] of a layer's outputs."""
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
        whole = torch.cat(maps)
        n_time, covered = whole.shape[2], getattr(listener, "n_samples", None)
        if windows is not None:
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
    """Hook that keeps outputs, of the deepest layer as leaves."""

    def __init__(self, kept, is_deepest):
        self.kept, self.is_deepest = kept, is_deepest

    def __call__(self, module, inputs, output):
        """Keep the output; that of the deepest layer is replaced."""
        is_several = isinstance(output, (tuple, list))
        latent = output[0] if is_several else output
        if not self.is_deepest:
            self.kept.append(latent)
            return None
        leaf = latent.detach().clone().requires_grad_()
        self.kept.append(leaf)
        # Later layers may change the clone in place, but not the leaf.
        follows = leaf.clone()
        return type(output)([follows, *output[1:]]) if is_several else follows
