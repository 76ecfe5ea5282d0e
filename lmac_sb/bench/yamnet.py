"""YAMNet in the bench: its own classes, or a linear layer on its embedding.

YAMNet has 521 classes, several of which may be true. The bench asks it for
the class that means the same as a clip's label, where it gives that more than
`KNOWN`: its most probable class is often a parent of that, or *Speech*.
"""

import torch
from torch.nn import functional as F

__all__ = ["KNOWN", "MEANS", "OnEmbedding", "fit_linear"]

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


class OnEmbedding(torch.nn.Module):
    """A linear layer on the embedding of a listener, from waveforms.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        One that names its ``head``, such as YAMNet.
    n_inputs, n_classes : int
        Dimensions of its embedding, and of the answer.

    Example
    -------
    >>> from lmac_sb.adapters.yamnet import YAMNet, LogMel, PATCH_SAMPLES
    >>> from lmac_sb.listener.listener import Listener
    >>> from lmac_sb.listener.windows import Windows
    >>> listener = Listener(YAMNet(), 16000, front_end=LogMel(), pool="max",
    ...     windows=Windows(PATCH_SAMPLES, 7680), multilabel=True, head="head")
    >>> OnEmbedding(listener, 1024, 10)(torch.rand(2, 16000)).shape
    torch.Size([2, 10])
    """

    def __init__(self, listener, n_inputs, n_classes):
        super().__init__()
        # Not a part of it, whose weights would be written with it.
        object.__setattr__(self, "listener", listener)
        self.layer = torch.nn.Linear(n_inputs, n_classes)
        self.register_buffer("mean", torch.zeros(n_inputs))
        self.register_buffer("spread", torch.ones(n_inputs))

    def embed(self, wavs):
        """The largest of all patches, [batch, dimensions]."""
        return self.listener.logits_and_embedding(wavs)[1]

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        return self.layer((self.embed(wavs) - self.mean) / self.spread)


def fit_linear(listener, wavs, labels, steps=300, seed=0):
    """Train a linear layer on the embedding of a listener.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        See `OnEmbedding`.
    wavs : list of torch.Tensor
        Waveforms, [samples] each.
    labels : torch.Tensor
        Their classes, [clips].
    steps : int
        Of Adam, on all clips.
    seed : int
        Of the first weights.

    Returns
    -------
    OnEmbedding
        In evaluation mode.

    Example
    -------
    >>> class Levels(torch.nn.Module):
    ...     def logits_and_embedding(self, wavs):
    ...         return None, wavs.abs().mean(1, keepdim=True)
    >>> wavs = [torch.full((8,), level) for level in (0.1, 0.2, 0.8, 0.9)]
    >>> net = fit_linear(Levels(), wavs, torch.tensor([0, 0, 1, 1]), 2000)
    >>> net(torch.stack(wavs)).argmax(1).tolist()
    [0, 0, 1, 1]
    """
    with torch.no_grad():
        parts = [listener.logits_and_embedding(wav[None])[1] for wav in wavs]
    inputs = torch.cat(parts)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = OnEmbedding(listener, inputs.shape[1], int(labels.max()) + 1)
    net.mean, net.spread = inputs.mean(0), inputs.std(0) + 0.1
    inputs = (inputs - net.mean) / net.spread
    optimizer = torch.optim.Adam(
        net.layer.parameters(), 1e-3, weight_decay=1e-2
    )
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net.layer(inputs), labels).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)
