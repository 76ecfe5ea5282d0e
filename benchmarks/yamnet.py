"""YAMNet as the benchmarks hear it: whole patches only, its embeddings.

The model is that of `lmac_sb.adapters.yamnet`, with ``last="drop"``: samples
behind the last whole patch are not heard, as in the tables of docs/.
"""

import torch

from lmac_sb.adapters.yamnet import load_yamnet as load_listener
from lmac_sb.utils.errors import LMACError

SAMPLE_RATE = 16000


class YAMNet(torch.nn.Module):
    """From waveforms at 16 kHz to logits, the highest of all patches.

    Arguments
    ---------
    listener : lmac_sb.listener.listener.Listener
        From `lmac_sb.adapters.yamnet.load_yamnet`.
    """

    def __init__(self, listener):
        super().__init__()
        self.listener = listener
        self.network = listener.model
        self.front_end = listener.front_end
        self.windows = listener.windows

    @property
    def head(self):
        """Linear layer from embeddings to logits."""
        return self.network.head

    def patches(self, wavs):
        """Log-mel patches [batch, patches, 96, 64] of waveforms."""
        levels = self.front_end(self.windows.cut(wavs))
        return levels.unflatten(0, (len(wavs), -1))

    def embed(self, wavs):
        """Embeddings [batch, patches, 1024] of waveforms [batch, samples]."""
        patches = self.patches(wavs)
        vectors = self.network.embed(patches.flatten(0, 1))
        return vectors.unflatten(0, patches.shape[:2])

    def forward(self, wavs):
        """Logits [batch, 521] of waveforms [batch, samples]."""
        return self.head(self.embed(wavs)).amax(1)


class Highest(torch.nn.Module):
    """Logit [batch, 1] of one class in the patch where it is highest.

    Of the other patches none has a gradient, so that one alone is passed with
    it: this costs about half of what the whole does.

    Arguments
    ---------
    model : YAMNet
        The model.
    label : int
        The class.
    """

    def __init__(self, model, label):
        super().__init__()
        self.model = model
        self.label = label

    def forward(self, wavs):
        """The logits of waveforms [batch, samples]."""
        head = self.model.head
        weight, bias = head.weight[self.label], head.bias[self.label]
        with torch.no_grad():
            best = (self.model.embed(wavs) @ weight).argmax(1)
        patches = self.model.patches(wavs)[torch.arange(len(wavs)), best]
        embedding = self.model.network.embed(patches)
        return (embedding @ weight + bias)[:, None]


def load_yamnet():
    """YAMNet and the names of its classes.

    Returns
    -------
    model : YAMNet
        In evaluation mode, without gradients to its weights.
    labels : list of str
        Names of its 521 classes.

    Raises
    ------
    LMACError
        If the package with its weights is not installed.
    """
    listener = load_listener(last="drop")
    return YAMNet(listener).eval(), listener.labels


def check_yamnet(model, labels):
    """The original's three checks: its class is among the first ten."""
    generator = torch.Generator().manual_seed(0)
    n_samples = 3 * SAMPLE_RATE
    times = torch.arange(n_samples) / SAMPLE_RATE
    sounds = {
        "Silence": torch.zeros(n_samples),
        "White noise": torch.rand(n_samples, generator=generator) * 2 - 1,
        "Sine wave": torch.sin(2 * torch.pi * 440 * times),
    }
    for label, sound in sounds.items():
        best = model(sound[None])[0].topk(10).indices.tolist()
        found = [labels[c] for c in best]
        if label not in found:
            raise LMACError(
                f"yamnet: found {', '.join(found)}, expected {label}"
            )
