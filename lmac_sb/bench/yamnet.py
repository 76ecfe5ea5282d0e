"""YAMNet in the bench: its own classes, or a linear layer on its embedding.

YAMNet has 521 classes, several of which may be true. The bench asks it for
the class that means the same as a clip's label, where it gives that more than
`KNOWN`: its most probable class is often a parent of that, or *Speech*.
"""

import torch
from torch.nn import functional as F

__all__ = ["KNOWN", "MEANS", "fit_layer", "mean_embedding"]

KNOWN = 0.3  # a class is asked for where it gets more than this
# The AudioSet class that means the same as a class of ESC-10.
MEANS = {
    "dog": "Dog",
    "rain": "Rain",
    "sea_waves": "Ocean",
    "crying_baby": "Crying, sobbing",
    "clock_tick": "Tick",
    "sneezing": "Sneeze",
    "helicopter": "Helicopter",
    "chainsaw": "Chainsaw",
    "rooster": "Crowing, cock-a-doodle-doo",
    "crackling_fire": "Crackle",
}


def fit_layer(embeddings, labels, steps=300, seed=0):
    """Train a linear layer on embeddings.

    Arguments
    ---------
    embeddings : torch.Tensor
        [clips, dimensions].
    labels : torch.Tensor
        Their classes, [clips].
    steps : int
        Of Adam, on all clips.
    seed : int
        Of the first weights.

    Returns
    -------
    torch.nn.Linear
        Its weights are frozen.

    Example
    -------
    >>> levels = torch.tensor([[0.1], [0.2], [0.8], [0.9]])
    >>> layer = fit_layer(levels, torch.tensor([0, 0, 1, 1]), 2000)
    >>> layer(levels).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    mean, spread = embeddings.mean(0), embeddings.std(0) + 0.1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = torch.nn.Linear(len(mean), int(labels.max()) + 1)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3, weight_decay=1e-2)
    inputs = (embeddings - mean) / spread
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(layer(inputs), labels).backward()
        optimizer.step()
    with torch.no_grad():
        # So that it reads embeddings as they are.
        layer.weight /= spread
        layer.bias -= layer.weight @ mean
    return layer.requires_grad_(False)


@torch.no_grad()
def mean_embedding(listener, wav):
    """Mean of the embeddings of a clip's patches.

    The mean of a linear layer's logits of the patches is its logit of that
    mean.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        YAMNet, see `lmac_sb.adapters.yamnet.load_yamnet`.
    wav : torch.Tensor
        Waveform, [samples].

    Returns
    -------
    torch.Tensor
        [1024].

    Example
    -------
    >>> from lmac_sb.adapters.yamnet import load_yamnet
    >>> mean_embedding(load_yamnet(), torch.rand(32000)).shape
    torch.Size([1024])
    """
    return listener.model.embed(listener.features(wav[None])).mean(0)
