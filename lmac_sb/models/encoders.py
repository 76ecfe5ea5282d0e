"""Small encoders for CPUs, and a function that calls any encoder."""

import math

import torch
from speechbrain.lobes.models.Cnn14 import ConvBlock
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

__all__ = ["AttentionEmbedding", "ConvEmbedding", "embed"]


class ConvEmbedding(torch.nn.Module):
    """CNN14-style encoder of any width and depth.

    The blocks are SpeechBrain's `ConvBlock`; all but the last halve time and
    frequency. Time is pooled to the sum of maximum and mean, as in CNN14 (Kong
    et al., arXiv 1912.10211).

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

    SAFE_IN_YAML = True  # of a model folder of unknown origin

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
                f"{len(channels) - 1} blocks, expected at least "
                f"{self.min_frames}"
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

    Each patch of frames and bands is one token. Sines and cosines encode its
    position in time, as in the Transformer (arXiv 1706.03762), for clips of
    any length; a learned vector encodes its band. Every token attends to all
    others in each block. The embedding is the mean of the tokens.

    Each block outputs a map [batch, dim, time, freq] of its tokens, which a
    decoder can read, see `FrozenClassifier`.

    Arguments
    ---------
    n_mels : int
        Number of mel bands of the input.
    dim : int
        Size of a token, and of the embedding.
    n_blocks : int
        Number of blocks.
    n_heads : int
        Attention heads of a block; `dim` must be a multiple of this and of 2.
    patch : list of int
        Frames and bands of a patch. An incomplete last patch is filled with
        silence.
    dropout : float
        Dropout on the output of each layer, in training.
    stem : list of int
        Channels of convolutions before the tokens are made, each of which
        halves time and frequency (Xiao et al., arXiv 2106.14881). A token
        covers the same patch with any stem, and knows a little of what is
        around it. None by default: a token is a linear map of its patch.

    Raises
    ------
    LMACError
        If `n_mels` is not a multiple of the bands of a patch, `dim` is not a
        multiple of `n_heads` and 2, or the stem cannot halve a patch so often.

    Example
    -------
    >>> model = AttentionEmbedding(n_mels=80, dim=16, n_blocks=2, n_heads=2)
    >>> model(torch.rand(2, 87, 80)).shape
    torch.Size([2, 16])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        n_mels=80,
        dim=128,
        n_blocks=4,
        n_heads=4,
        patch=(8, 16),
        dropout=0.0,
        stem=(),
    ):
        super().__init__()
        self.patch = tuple(patch)
        if any(size % 2 ** len(stem) for size in self.patch):
            raise LMACError(
                f"stem: {len(stem)} convolutions cannot halve a patch of "
                f"{list(self.patch)}, expected multiples of {2 ** len(stem)}"
            )
        if n_mels % self.patch[1]:
            raise LMACError(
                f"patch: {self.patch[1]} bands do not divide n_mels {n_mels}"
            )
        if dim % n_heads or dim % 2:
            raise LMACError(
                f"dim: {dim} is not a multiple of n_heads {n_heads} and of 2"
            )
        self.norm = torch.nn.BatchNorm1d(n_mels)
        self.tokens = _Tokens(dim, self.patch, n_mels // self.patch[1], stem)
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
    """Makes a token for each patch, with its position and its band."""

    def __init__(self, dim, patch, n_bands, stem):
        super().__init__()
        channels = [1, *stem]
        self.stem = torch.nn.Sequential(
            *(_halve(*pair) for pair in zip(channels, stem))
        )
        rest = [size // 2 ** len(stem) for size in patch]
        self.conv = torch.nn.Conv2d(channels[-1], dim, rest, rest)
        self.band = torch.nn.Parameter(0.02 * torch.randn(dim, 1, n_bands))

    def forward(self, x):
        """Tokens [batch, dim, time, freq] of features [batch, 1, time, mel]."""
        h = self.conv(self.stem(x))
        return h + _places(h.shape[2], h.shape[1]).to(h) + self.band


def _halve(n_in, n_out):
    """Layer of the stem, from [batch, n_in, time, freq] to half of both."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(n_in, n_out, 3, 2, padding=1),
        torch.nn.BatchNorm2d(n_out),
        torch.nn.GELU(),
    )


class _AttentionBlock(torch.nn.Module):
    """Attention among the cells of a map, then layers for each cell.

    PyTorch's own layer uses other code for calls without gradient, which
    rounds differently: the same sound would have two probabilities.
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
        """Transform tokens [batch, dim, time, freq]; the shape stays."""
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
    """Sines and cosines that encode positions in time, [dim, time, 1]."""
    rates = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000) / dim))
    angles = rates[:, None] * torch.arange(n_frames)
    return torch.cat([angles.sin(), angles.cos()]).unsqueeze(2)


def embed(embedding_model, features):
    """Embeddings of any SpeechBrain-style encoder.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        Takes features [batch, time, mel] and returns embeddings [batch, dim]
        or [batch, 1, dim], or a map [batch, dim, time, freq] such as that of
        `Conv2dEncoder_v2`, which is averaged. The first item of a tuple counts.
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
