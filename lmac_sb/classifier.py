"""Classifiers: small ones for CPUs, and the adapter that freezes any.

Authors
 * The lmac-sb authors 2026
"""

import functools
import math

import torch
from speechbrain.lobes.models.Cnn14 import ConvBlock
from torch.nn import functional as F

from lmac_sb.errors import LMACError

__all__ = ["AttentionEmbedding", "ConvEmbedding", "FrozenClassifier", "embed"]

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)


class ConvEmbedding(torch.nn.Module):
    """CNN14-style encoder of any width and depth.

    The blocks are SpeechBrain's `ConvBlock`; each but the last halves time
    and frequency. Time is pooled by its maximum plus its mean, as in CNN14
    (Kong et al., arXiv 1912.10211).

    Arguments
    ---------
    n_mels : int
        Number of mel bands of the input.
    channels : list of int
        Channels of each block. CNN14 is (64, 128, 256, 512, 1024, 2048).
    dropout : float
        Dropout between the blocks, in training.

    Example
    -------
    >>> model = ConvEmbedding(n_mels=40, channels=[4, 8, 16])
    >>> model(torch.rand(2, 87, 40)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self, n_mels=80, channels=(8, 16, 32, 64, 128, 256), dropout=0.2
    ):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(n_mels)
        self.blocks = torch.nn.ModuleList(
            ConvBlock(n_in, n_out, "bn")
            for n_in, n_out in zip([1, *channels[:-1]], channels)
        )
        self.dropout = torch.nn.Dropout(dropout)
        self.min_frames = 2 ** (len(channels) - 1)
        if n_mels < self.min_frames:
            raise LMACError(
                f"n_mels: {n_mels} bands cannot be halved by "
                f"{len(channels) - 1} blocks, at least {self.min_frames} "
                "are needed"
            )

    def forward(self, features):
        """Embeddings [batch, channels[-1]] of features [batch, time, mel]."""
        h = self.norm(features.transpose(1, 2)).transpose(1, 2).unsqueeze(1)
        for block in self.blocks[:-1]:
            h = self.dropout(block(h, pool_size=(2, 2)))
        h = self.dropout(self.blocks[-1](h, pool_size=(1, 1)))
        h = h.mean(dim=3)
        return h.amax(dim=2) + h.mean(dim=2)


class AttentionEmbedding(torch.nn.Module):
    """Small Transformer on patches of the log-mel spectrogram.

    Each patch of frames and bands is one token. A token's place in time is
    told by sines and cosines, as in the Transformer (arXiv 1706.03762), and
    so for clips of any length; its band by a learned vector. Every token
    attends to all others in each block; the embedding is their mean.

    A block's output is a map [batch, dim, time, freq] of its tokens, and so
    what a decoder reads, see `FrozenClassifier`.

    Arguments
    ---------
    n_mels : int
        Number of mel bands of the input.
    dim : int
        Size of a token, and of the embedding.
    n_blocks : int
        Number of blocks.
    n_heads : int
        Attention heads of a block; `dim` must be a multiple of it, and of 2.
    patch : list of int
        Frames and bands of a patch. What is missing to a whole number of
        frames is filled with silence.
    dropout : float
        Dropout on what each block adds, in training.

    Raises
    ------
    LMACError
        If `n_mels` is no multiple of the bands of a patch, or `dim` cannot be
        split.

    Example
    -------
    >>> model = AttentionEmbedding(n_mels=80, dim=16, n_blocks=2, n_heads=2)
    >>> model(torch.rand(2, 87, 80)).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        n_mels=80,
        dim=128,
        n_blocks=4,
        n_heads=4,
        patch=(8, 16),
        dropout=0.0,
    ):
        super().__init__()
        self.patch = tuple(patch)
        if n_mels % self.patch[1]:
            raise LMACError(
                f"patch: {self.patch[1]} bands do not divide n_mels {n_mels}"
            )
        if dim % n_heads or dim % 2:
            raise LMACError(
                f"dim: {dim} is no multiple of n_heads {n_heads} and of 2"
            )
        self.norm = torch.nn.BatchNorm1d(n_mels)
        self.tokens = _Tokens(dim, self.patch, n_mels // self.patch[1])
        self.blocks = torch.nn.ModuleList(
            _AttentionBlock(dim, n_heads, dropout) for _ in range(n_blocks)
        )
        self.last_norm = torch.nn.LayerNorm(dim)

    def forward(self, features):
        """Embeddings [batch, dim] of features [batch, time, mel]."""
        missing = -features.shape[1] % self.patch[0]
        h = self.norm(F.pad(features, (0, 0, 0, missing)).transpose(1, 2))
        h = self.tokens(h.transpose(1, 2).unsqueeze(1))
        for block in self.blocks:
            h = block(h)
        return self.last_norm(h.flatten(2).transpose(1, 2)).mean(1)


class _Tokens(torch.nn.Module):
    """A token for each patch, with its place in time and its band."""

    def __init__(self, dim, patch, n_bands):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, dim, patch, patch)
        self.band = torch.nn.Parameter(0.02 * torch.randn(dim, 1, n_bands))

    def forward(self, x):
        """From [batch, 1, time, mel] to [batch, dim, time, freq]."""
        h = self.conv(x)
        return h + _places(h.shape[2], h.shape[1]).to(h) + self.band


class _AttentionBlock(torch.nn.Module):
    """Attention among the cells of a map, then a layer for each cell.

    Own code, as PyTorch's layer has other code for calls without gradient,
    which rounds otherwise: the same sound would have two probabilities.
    """

    def __init__(self, dim, n_heads, dropout):
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = torch.nn.LayerNorm(dim)
        self.attention = torch.nn.Linear(dim, 3 * dim)
        self.merge = torch.nn.Linear(dim, dim)
        self.cell = torch.nn.Sequential(
            torch.nn.LayerNorm(dim),
            torch.nn.Linear(dim, 2 * dim),
            torch.nn.GELU(),
            torch.nn.Linear(2 * dim, dim),
        )
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, x):
        """From and to [batch, dim, time, freq]."""
        h = x.flatten(2).transpose(1, 2)
        parts = self.attention(self.attention_norm(h))
        parts = parts.unflatten(2, (3, self.n_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).flatten(2)
        h = h + self.dropout(self.merge(mixed))
        h = h + self.dropout(self.cell(h))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])


def _places(n_frames, dim):
    """Sines and cosines that tell a place in time, [dim, time, 1]."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000) / dim))
    angles = rates[:, None] * torch.arange(n_frames)
    return torch.cat([angles.sin(), angles.cos()]).unsqueeze(2)


def embed(embedding_model, features):
    """Embeddings of any SpeechBrain-style encoder.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Features [batch, time, mel] to embeddings [batch, dim] or
        [batch, 1, dim], or to a map [batch, dim, time, freq] whose mean they
        are, as of `Conv2dEncoder_v2`; if it returns a tuple, its first item.
    features : torch.Tensor
        [batch, time, mel].

    Returns
    -------
    torch.Tensor
        [batch, dim] or [batch, 1, dim].

    Example
    -------
    >>> embed(torch.nn.Conv2d(1, 6, 4), torch.rand(1, 9, 9)[:, None]).shape
    torch.Size([1, 6])
    """
    embeddings = embedding_model(features)
    if isinstance(embeddings, (tuple, list)):
        embeddings = embeddings[0]
    return embeddings.mean((2, 3)) if embeddings.dim() == 4 else embeddings


class FrozenClassifier(torch.nn.Module):
    """Adapter from a SpeechBrain-style classifier to logits and latents.

    The wrapped modules stay in evaluation mode whatever `train` is called
    (`Brain.fit` calls it on all modules at each epoch) and their weights take
    no gradient, while gradients still reach the input.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Features [batch, time, mel] to embeddings, see `embed`.
    classifier : torch.nn.Module
        Embeddings to logits, [batch, classes] or [batch, 1, classes].
    latent_layers : list of str
        Names of the submodules of `embedding_model` whose outputs the decoder
        reads, deepest first.
    min_frames : int
        Shortest input that the model can pool; `Explainer` pads up to it.
    channels_last : bool
        Whether outputs of three axes are [batch, time, channels], as between
        SpeechBrain's layers, or [batch, channels, time], as in ECAPA-TDNN.
    evidence : bool
        Whether `trace` puts the evidence before the latents: each activation
        of the deepest layer times its gradient, so its share in the log-odds
        of the explained class. It tells the decoder which class to explain,
        and costs one pass back through what follows that layer.
    multilabel : bool
        Whether each class is decided for itself, by a sigmoid, and not one
        among all, by a softmax; see `question`.

    Raises
    ------
    LMACError
        If a layer name does not exist (the message lists those that do).

    Example
    -------
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

    def __init__(
        self,
        embedding_model,
        classifier,
        latent_layers,
        min_frames=1,
        channels_last=True,
        evidence=True,
        multilabel=False,
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
        for module in self.modules():
            if isinstance(module, BATCH_NORMS):
                module.forward = functools.partial(_normalize, module)
        self._latents = {}
        self._deepest = None
        self._tracing = False
        if not self.latent_layers:
            raise LMACError("latent_layers: empty, at least one is needed")
        known = dict(embedding_model.named_modules())
        for name in self.latent_layers:
            if not name or name not in known:
                raise LMACError(
                    f"latent_layers: no layer '{name}' in "
                    f"{type(embedding_model).__name__}; it has "
                    f"{', '.join(n for n in known if n)}"
                )
            # A partial can be copied and sent to other processes.
            hook = functools.partial(self._keep, name)
            known[name].register_forward_hook(hook)

    def _keep(self, name, module, inputs, output):
        """Hook: keep a layer's output, as a new leaf while tracing."""
        latent = output[0] if isinstance(output, (tuple, list)) else output
        self._latents[name] = latent
        if not self._tracing or name != self.latent_layers[0]:
            return None
        # From here on a graph is kept. The clone may be changed in place by
        # what follows, the leaf may not.
        torch.set_grad_enabled(True)
        self._deepest = latent.detach().clone().requires_grad_()
        follows = self._deepest.clone()
        if isinstance(output, (tuple, list)):
            return type(output)([follows, *output[1:]])
        return follows

    def train(self, mode=True):
        """Stay in evaluation mode: the explained classifier never changes."""
        return super().train(False)

    def forward(self, features):
        """Classify, and keep what the decoder reads.

        Arguments
        ---------
        features : torch.Tensor
            [batch, time, mel], at least `min_frames` frames.

        Returns
        -------
        logits : torch.Tensor
            [batch, classes].
        latents : list of torch.Tensor
            One tensor [batch, channels, time, freq] a layer in
            `latent_layers`, in that order. Layers without a frequency axis
            count as one band.
        """
        embeddings = embed(self.embedding_model, features)
        logits = self.classifier(embeddings).flatten(1)
        # Taken out of the dict, so that no graph outlives the call.
        latents = [self.to_map(self._latents[n]) for n in self.latent_layers]
        self._latents.clear()
        return logits, latents

    def trace(self, features, target=None):
        """Classify once, and give all that the decoder reads.

        Arguments
        ---------
        features : torch.Tensor
            [batch, time, mel]; no gradient reaches them.
        target : torch.Tensor
            Class to explain, [batch]; default the decision.

        Returns
        -------
        logits : torch.Tensor
            [batch, classes].
        latents : list of torch.Tensor
            As of `forward`; before them the evidence, with the shape of the
            first, if it is switched on.
        """
        with torch.inference_mode(False), torch.no_grad():
            if not self.evidence:
                return self(features)
            self._tracing = True
            try:
                logits, latents = self(features)
            finally:
                self._tracing = False
            chosen = logits.argmax(1) if target is None else target
            answers, chosen = self.question(logits, chosen)
            others = answers.scatter(1, chosen[:, None], -math.inf)
            log_odds = answers.gather(1, chosen[:, None])[:, 0]
            log_odds = log_odds - others.logsumexp(1)
            (gradient,) = torch.autograd.grad(log_odds.sum(), self._deepest)
            evidence = self.to_map(gradient * self._deepest.detach())
            # Pooling divides a gradient by the number of cells.
            evidence = evidence * evidence[0, 0].numel()
            self._deepest = None
        return logits.detach(), [evidence, *latents]

    def question(self, logits, target):
        """What was decided, as logits whose softmax are the probabilities.

        All that asks for the probability of the explained class asks here.
        A multi-label classifier decides each class for itself: the answers
        are that class and its absence, whose logit is 0, since the softmax
        of (z, 0) is (sigmoid(z), 1 - sigmoid(z)).

        Arguments
        ---------
        logits : torch.Tensor
            [batch, classes].
        target : torch.Tensor
            Explained class, [batch].

        Returns
        -------
        logits : torch.Tensor
            Of the answers, [batch, answers]: the classes, or, of a
            multi-label classifier, the explained class and its absence.
        target : torch.Tensor
            The explained one of these answers, [batch].
        """
        if not self.multilabel:
            return logits, target
        own = logits.gather(1, target[:, None])
        # The class comes first: where both are as likely, it is decided.
        answers = torch.cat((own, torch.zeros_like(own)), dim=1)
        return answers, torch.zeros_like(target)

    def to_map(self, latent):
        """Latent of a layer as a map.

        Arguments
        ---------
        latent : torch.Tensor
            [batch, channels], [batch, channels, time], or
            [batch, time, channels] with ``channels_last``; or a map already.

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


def _normalize(norm, x):
    """Batch normalisation by fixed statistics, without keeping its input.

    PyTorch's own keeps it for the gradient of its weights, which are frozen:
    a quarter of the memory of a training step.
    """
    plain = norm.training or not norm.track_running_stats or not norm.affine
    if plain or x.dtype != norm.weight.dtype:
        return type(norm).forward(norm, x)
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return torch.addcmul(shift.view(shape), x, scale.view(shape))
