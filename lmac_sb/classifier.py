"""Classifiers: a small one for CPUs, and the adapter that freezes any.

Authors
 * The lmac-sb authors 2026
"""

import math

import torch
from speechbrain.lobes.models.Cnn14 import ConvBlock

from lmac_sb.errors import LMACError

__all__ = ["ConvEmbedding", "FrozenClassifier"]


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


class FrozenClassifier(torch.nn.Module):
    """Adapter from a SpeechBrain-style classifier to logits and latents.

    The wrapped modules stay in evaluation mode whatever `train` is called
    (`Brain.fit` calls it on all modules at each epoch) and their weights take
    no gradient, while gradients still reach the input.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Features [batch, time, mel] to embeddings [batch, dim] or
        [batch, 1, dim]; if it returns a tuple, its first item counts.
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
    ):
        super().__init__()
        self.embedding_model = embedding_model
        self.classifier = classifier
        self.latent_layers = list(latent_layers)
        self.min_frames = min_frames
        self.channels_last = channels_last
        self.evidence = evidence
        self.requires_grad_(False)
        self.train(False)
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
            known[name].register_forward_hook(self._keep(name))

    def _keep(self, name):
        """Hook that keeps the output of one layer for the current call."""

        def hook(module, inputs, output):
            latent = output[0] if isinstance(output, (tuple, list)) else output
            self._latents[name] = latent
            if not self._tracing or name != self.latent_layers[0]:
                return None
            # From here on a graph is kept. The clone may be changed in
            # place by what follows, the leaf may not.
            torch.set_grad_enabled(True)
            self._deepest = latent.detach().clone().requires_grad_()
            follows = self._deepest.clone()
            if isinstance(output, (tuple, list)):
                return type(output)([follows, *output[1:]])
            return follows

        return hook

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
        embeddings = self.embedding_model(features)
        if isinstance(embeddings, (tuple, list)):
            embeddings = embeddings[0]
        logits = self.classifier(embeddings).flatten(1)
        # Taken out of the dict, so that no graph outlives the call.
        latents = [self._to_map(self._latents[n]) for n in self.latent_layers]
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
            others = logits.scatter(1, chosen[:, None], -math.inf)
            log_odds = logits.gather(1, chosen[:, None])[:, 0]
            log_odds = log_odds - others.logsumexp(1)
            (gradient,) = torch.autograd.grad(log_odds.sum(), self._deepest)
            evidence = self._to_map(gradient * self._deepest.detach())
            # Pooling divides a gradient by the number of cells.
            evidence = evidence * evidence[0, 0].numel()
            self._deepest = None
        return logits.detach(), [evidence, *latents]

    def _to_map(self, latent):
        """Latent of any rank as a map [batch, channels, time, freq]."""
        if latent.dim() == 2:
            return latent[:, :, None, None]
        if latent.dim() == 3:
            if self.channels_last:
                latent = latent.transpose(1, 2)
            return latent.unsqueeze(3)
        return latent
