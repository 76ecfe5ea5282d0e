"""The adapter that freezes a classifier and reads its layers.

Some layers of a frozen classifier, which need no gradient of their weights,
become others that compute the same with less time and memory.
"""

import contextlib
import functools

import torch
from speechbrain.lobes.models.Cnn14 import ConvBlock
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from lmac_sb.models.encoders import ConvEmbedding, embed
from lmac_sb.models.question import as_question
from lmac_sb.utils.errors import LMACError

__all__ = [
    "FrozenClassifier",
    "channels_last",
    "derivable",
    "fix",
    "folded",
    "is_recurrent",
]

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class FrozenClassifier(torch.nn.Module):
    """Adapter that gives the logits and latents of a SpeechBrain classifier.

    The wrapped modules always stay in evaluation mode, even if `train` is
    called, as `Brain.fit` does in each epoch. Their weights get no gradient,
    but gradients still reach the input.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Turns features [batch, time, mel] into embeddings, see `embed`.
    classifier : torch.nn.Module
        Turns embeddings into logits, [batch, classes] or [batch, 1, classes].
    latent_layers : list of str
        Names of the submodules of `embedding_model` whose outputs the decoder
        reads, the deepest first; none if it reads none, and no evidence.
    min_frames : int
        Shortest input that the model can pool; `Explainer` pads to it.
    channels_last : bool
        Whether outputs of three axes are [batch, time, channels], as between
        SpeechBrain's layers, or [batch, channels, time], as in ECAPA-TDNN.
    evidence : bool
        Whether `trace` puts the evidence before the latents: each activation
        of the deepest layer times its gradient, which is its share in the
        log-odds of the explained class. The evidence shows the decoder which
        class to explain. It costs one backward pass through the layers after
        the deepest one.
    evidence_layers : list of str
        Those of `latent_layers` of which there is evidence, each before its
        latent; by default the deepest. After a block of a Transformer each
        token knows of the whole sound; evidence from before the first block
        says where it lies (docs/attention.md). The backward pass, still one,
        reaches down to the shallowest of them.
    multilabel : bool
        Whether each class is decided on its own, by a sigmoid, instead of one
        class among all, by a softmax; see
        `lmac_sb.models.question.Question`.

    Raises
    ------
    LMACError
        If a layer does not exist; the message lists those that do.

    Example
    -------
    >>> from lmac_sb.models.encoders import ConvEmbedding
    >>> embedding = ConvEmbedding(n_mels=40, channels=[4, 8, 16])
    >>> frozen = FrozenClassifier(
    ...     embedding, torch.nn.Linear(16, 3), ["blocks.2", "blocks.1"], 4
    ... )
    >>> logits, latents = frozen(torch.rand(2, 87, 40))
    >>> logits.shape, [tuple(h.shape) for h in latents]
    (torch.Size([2, 3]), [(2, 16, 21, 10), (2, 8, 21, 10)])
    >>> frozen.train().training
    False
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        embedding_model,
        classifier,
        latent_layers,
        min_frames=1,
        channels_last=True,
        evidence=True,
        multilabel=False,
        evidence_layers=None,
    ):
        super().__init__()
        self.embedding_model = embedding_model
        self.classifier = classifier
        self.latent_layers = list(latent_layers)
        self.min_frames = min_frames
        self.channels_last = channels_last
        self.evidence = evidence
        self.multilabel = multilabel
        self.requires_grad_(False)
        self.train(False)
        fix(self)
        if evidence_layers is None:
            evidence_layers = self.latent_layers[:1]
        self.evidence_layers = list(evidence_layers)
        self._latents = {}
        self._traced = {}
        self._tracing = False
        self.traced_embedding = None
        if evidence and not self.latent_layers:
            raise LMACError(
                "latent_layers: empty, expected at least one, or no evidence"
            )
        if evidence and not self.evidence_layers:
            raise LMACError(
                "evidence_layers: empty, expected at least one, or no evidence"
            )
        for name in self.evidence_layers:
            if name not in self.latent_layers:
                raise LMACError(
                    f"evidence_layers: found '{name}', expected some of the "
                    f"latent_layers {', '.join(self.latent_layers)}"
                )
        known = dict(embedding_model.named_modules())
        for name in self.latent_layers:
            if not name or name not in known:
                raise LMACError(
                    f"latent_layers: no layer '{name}' in "
                    f"{type(embedding_model).__name__}; it has "
                    f"{', '.join(n for n in known if n)}"
                )
            # A partial, unlike a lambda, can be copied and pickled.
            hook = functools.partial(self._keep, name)
            known[name].register_forward_hook(hook)

    def _keep(self, name, module, inputs, output):
        """Hook that keeps a layer's output, while tracing in the graph."""
        latent = output[0] if isinstance(output, (tuple, list)) else output
        self._latents[name] = latent.detach() if self._tracing else latent
        if not self._tracing or name not in self.evidence_layers:
            return None
        if not torch.is_grad_enabled():
            # From here on autograd keeps a graph.
            torch.set_grad_enabled(True)
            latent = latent.detach().clone().requires_grad_()
        self._traced[name] = latent
        # Later layers may change the clone in place, but not what is kept.
        follows = latent.clone()
        if isinstance(output, (tuple, list)):
            return type(output)([follows, *output[1:]])
        return follows

    def train(self, mode=True):
        """Stay in evaluation mode: the explained classifier never changes."""
        return super().train(False)

    def folded(self):
        """Context of many passes, see `folded`."""
        return folded(self)

    def forward(self, features):
        """Classify, and return what the decoder reads.

        Arguments
        ---------
        features : torch.Tensor
            [batch, time, mel], at least `min_frames` frames.

        Returns
        -------
        logits : torch.Tensor
            [batch, classes].
        latents : list of torch.Tensor
            One tensor [batch, channels, time, freq] for each of
            `latent_layers`, in order. Layers without a frequency axis have
            one band.
        """
        with derivable(self):
            embeddings = embed(self.embedding_model, features)
            logits = self.classifier(embeddings).flatten(1)
        if self._tracing:
            self.traced_embedding = embeddings.detach().flatten(1)
        # The dict is cleared, so that no graph outlives the call.
        latents = [self.to_map(self._latents[n]) for n in self.latent_layers]
        self._latents.clear()
        return logits, latents

    def logits_and_embedding(self, features):
        """Classify, and return what the head reads.

        Arguments
        ---------
        features : torch.Tensor
            As in `forward`.

        Returns
        -------
        logits : torch.Tensor
            [batch, classes].
        embedding : torch.Tensor
            Output of the embedding model, [batch, dimensions]; if that has
            this method itself, what it gives.
        """
        with derivable(self):
            if hasattr(self.embedding_model, "logits_and_embedding"):
                model = self.embedding_model
                logits, embedding = model.logits_and_embedding(features)
            else:
                embedding = embed(self.embedding_model, features)
                logits = self.classifier(embedding)
        self._latents.clear()
        return logits.flatten(1), embedding.flatten(1)

    def trace(self, features, target=None):
        """Classify once, and return the evidence and the latents.

        Arguments
        ---------
        features : torch.Tensor
            [batch, time, mel]; no gradient reaches them.
        target : torch.Tensor or lmac_sb.models.question.Question
            Class to explain, [batch], or what else is asked; by default the
            decision.

        Returns
        -------
        logits : torch.Tensor
            [batch, classes].
        latents : list of torch.Tensor
            As from `forward`. If `evidence` is on, that of each of the
            `evidence_layers` comes before its latent and has its shape.

        What the head has read, [batch, dimensions], is `traced_embedding`
        until the next call; None where latents are read without evidence.
        """
        self.traced_embedding = None
        with torch.inference_mode(False), torch.no_grad():
            if not self.evidence:
                if self.latent_layers:
                    return self(features)
                logits, embedding = self.logits_and_embedding(features)
                self.traced_embedding = embedding
                return logits, []
            self._tracing = True
            try:
                logits, latents = self(features)
            finally:
                self._tracing = False
                traced, self._traced = self._traced, {}
            question = as_question(target, self.multilabel).settle(logits)
            log_odds = question.log_odds(logits).sum()
            gradients = torch.autograd.grad(log_odds, list(traced.values()))
        shares = {
            name: self.to_map(gradient * traced[name].detach())
            for name, gradient in zip(traced, gradients)
        }
        found = []
        for name, latent in zip(self.latent_layers, latents):
            if name in shares:
                # Pooling divides a gradient by the number of cells.
                cells = shares[name][0, 0].numel()
                found.append(shares[name] * cells)
            found.append(latent)
        return logits.detach(), found

    def to_map(self, latent):
        """Reshape a layer's latent to a map.

        Arguments
        ---------
        latent : torch.Tensor
            [batch, channels], [batch, channels, time],
            [batch, time, channels] with ``channels_last``, or a map.

        Returns
        -------
        torch.Tensor
            [batch, channels, time, freq].
        """
        if latent.dim() == 2:
            return latent[:, :, None, None]
        if latent.dim() == 3:
            if self.channels_last:
                latent = latent.transpose(1, 2)
            return latent.unsqueeze(3)
        return latent


def is_recurrent(module):
    """Whether cuDNN runs a layer that it cannot derive in evaluation mode.

    Arguments
    ---------
    module : torch.nn.Module
        A layer, which may be compiled to TorchScript.

    Returns
    -------
    bool

    Example
    -------
    >>> is_recurrent(torch.nn.GRU(1, 1)), is_recurrent(torch.nn.Linear(1, 1))
    (True, False)
    """
    name = getattr(module, "original_name", type(module).__name__)
    return isinstance(module, torch.nn.RNNBase) or name in (
        "GRU",
        "LSTM",
        "RNN",
    )


def derivable(*modules):
    """Context in which outputs of modules in evaluation mode have gradients.

    Recurrent layers run without cuDNN, which gives none then ("cudnn RNN
    backward can only be called in training mode"). What counts is how the
    outputs were made; the backward pass itself may be outside.

    Arguments
    ---------
    *modules : torch.nn.Module
        Those that will be called.

    Returns
    -------
    context manager

    Example
    -------
    >>> with derivable(torch.nn.GRU(1, 1)):
    ...     torch.backends.cudnn.enabled
    False
    """
    parts = (part for module in modules for part in module.modules())
    if any(map(is_recurrent, parts)):
        return torch.backends.cudnn.flags(enabled=False)
    return contextlib.nullcontext()


def fix(module):
    """Let the layers of a frozen module do what is needed, and no more.

    Arguments
    ---------
    module : torch.nn.Module
        Its batch norms, and the blocks of a `ConvEmbedding`, become fixed
        ones. Layers of a class derived from these stay, since they may do
        more.

    Example
    -------
    >>> model, mel = ConvEmbedding(40, [4, 8]).eval(), torch.rand(2, 20, 40)
    >>> expected = model(mel)
    >>> fix(model.requires_grad_(False))
    >>> torch.allclose(model(mel), expected, atol=1e-6)
    True
    """
    for part in module.modules():
        if type(part) in BATCH_NORMS and _is_fixed(part):
            part.__class__ = _FixedNorm
    # Between its blocks nothing depends on how a map lies in memory, as it
    # may in others. CNN14 has so many weights that it does not get faster.
    for model in module.modules():
        if type(model) is ConvEmbedding:
            for part in model.blocks:
                if type(part) is ConvBlock:
                    part.__class__ = _FixedBlock


def channels_last(x):
    """A map whose channels are neighbours in memory, where that is faster.

    Arguments
    ---------
    x : torch.Tensor
        [batch, channels, time, freq].

    Returns
    -------
    torch.Tensor
        The same values; a view, if there is one channel. On a GPU, or without
        oneDNN's convolutions, `x` itself.

    Example
    -------
    >>> channels_last(torch.rand(2, 3, 4, 5)).shape
    torch.Size([2, 3, 4, 5])
    """
    if x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return x
    if x.shape[1] == 1:
        # Both layouts are one: the strides tell the next layer which is meant.
        return x[:, 0].contiguous().unsqueeze(3).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


@contextlib.contextmanager
def folded(module):
    """Within `with`, fixed norms are part of the convolutions before them.

    This multiplies all weights once, and saves a pass over each map.

    Arguments
    ---------
    module : torch.nn.Module
        Its weights must not change within; what `fix` has not changed stays.

    Example
    -------
    >>> model, mel = ConvEmbedding(40, [4, 8]).eval(), torch.rand(2, 20, 40)
    >>> fix(model.requires_grad_(False))
    >>> with folded(model):
    ...     inside = model(mel)
    >>> torch.allclose(model(mel), inside, atol=1e-6)
    True
    """
    blocks = [
        part
        for part in module.modules()
        if isinstance(part, _FixedBlock) and part.can_fold()
    ]
    try:
        for block in blocks:
            block.fold()
        yield
    finally:
        for block in blocks:
            block.unfold()


def _is_fixed(norm):
    """Whether a batch norm, once it is frozen, is a scale and a shift."""
    return norm.affine and norm.track_running_stats


class _FixedNorm(_NormBase):
    """Batch normalisation by fixed statistics, without keeping its input.

    PyTorch's own keeps it for the gradient of its weights, which are frozen:
    a quarter of the memory of a training step. Nor do several processes turn
    this class into one that trains its statistics.
    """

    def _check_input_dim(self, x):
        """The same is done for any number of axes."""

    def factors(self):
        """What the input is multiplied by, and what is added, [channels]."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x):
        """Normalise [batch, channels] with any further axes."""
        # Whoever wrapped the classifier may train it later.
        if self.training or x.dtype != self.weight.dtype:
            return _BatchNorm.forward(self, x)
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale, shift = self.factors()
        return torch.addcmul(shift.view(shape), x, scale.view(shape))


class _FixedBlock(ConvBlock):
    """SpeechBrain's block of two convolutions, with channels as last axis."""

    # Within `folded`: weight and bias of both convolutions.
    _layers = None

    def can_fold(self):
        """Whether nobody looks between a convolution and its norm."""
        parts = self.conv1, self.norm1, self.conv2, self.norm2
        return (
            self._layers is None
            and not self.training
            and all(isinstance(x, _FixedNorm) for x in parts[1::2])
            and not any(_is_watched(x) for x in parts)
        )

    def fold(self):
        """Multiply the weights, until `unfold`."""
        layers = []
        with torch.inference_mode(False), torch.no_grad():
            for conv, norm in (
                (self.conv1, self.norm1),
                (self.conv2, self.norm2),
            ):
                scale, shift = norm.factors()
                weight = conv.weight * scale[:, None, None, None]
                layers.append((channels_last(weight), shift))
        self._layers = layers

    def unfold(self):
        """Use the layers themselves again."""
        self._layers = None

    def forward(self, x, pool_size=(2, 2), pool_type="avg"):
        """See SpeechBrain's `ConvBlock`."""
        if self.training:
            return super().forward(x, pool_size, pool_type)
        x = channels_last(x)
        in_half = torch.is_autocast_enabled(x.device.type)
        if self._layers is None or in_half or pool_type != "avg":
            return super().forward(x, pool_size, pool_type)
        for weight, bias in self._layers:
            x = F.relu_(F.conv2d(x, weight, bias, padding=1))
        return F.avg_pool2d(x, pool_size)


def _is_watched(module):
    """Whether somebody gets what goes into a module, or comes out."""
    return any(
        getattr(module, name)
        for name in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_backward_hooks",
            "_backward_pre_hooks",
        )
    )
