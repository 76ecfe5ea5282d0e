"""Silero VAD, a detector of speech whose weights its package brings.

The 16 kHz network of the package `silero-vad` (MIT) in plain torch: the
package's own copies are TorchScript and ONNX, which keep the state of one
sound between calls. Each chunk of 512 samples is heard with the 64 before it
as four frames of an STFT (a convolution), then by four convolutions, then by
an LSTM that has heard all chunks before.
"""

import importlib.util
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from lmac_sb.listener.listener import Listener
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["SpeechDetector", "load_silero"]

SAMPLE_RATE = 16000
FILES = ("silero_vad.jit", "silero_vad_16k.safetensors")
_CHUNK = 512  # samples for one decision
_CONTEXT = 64  # samples before the chunk that are heard with it
_N_FFT = 256
_STRIDE = 128
_REFLECTED = 64  # samples after the chunk, its end turned round
_N_BINS = _N_FFT // 2 + 1
_INSTALL = 'install it with pip install "lmac-sb[silero]"'


def load_silero(file="silero_vad.jit", **options):
    """Silero's detector of speech as a listener.

    Arguments
    ---------
    file : str
        Which of the package's files the weights come from. By default those
        of `silero_vad.load_silero_vad()`, the model that people use.
        ``"silero_vad_16k.safetensors"`` (in the package from version 6.2.1)
        holds another training of the same network, whose probabilities
        differ by up to .33 on a sentence.
    **options
        Of `Listener`: `pool` and `at` say how the chunks become one answer.

    Returns
    -------
    Listener
        From waveforms [batch, samples] at 16 kHz to logits [batch, 2] of the
        classes speech and no speech. ``listener.model(wavs)`` gives those of
        each chunk of 32 ms, [batch, time, 2], whose softmax is the package's
        probability of speech.

    Raises
    ------
    LMACError
        If the file is none of these, the package is missing, or too old to
        hold the file.

    Example
    -------
    >>> listener = load_silero()
    >>> silence = torch.zeros(1, 16000)
    >>> listener.labels[int(listener(silence).argmax())]
    'no speech'
    >>> listener.model(silence).shape
    torch.Size([1, 32, 2])
    """
    if file not in FILES:
        raise LMACError(f"file: found {shown(file)}, expected one of {FILES}")
    path = _data_folder() / file
    if not path.is_file():
        raise LMACError(
            f"{path}: no such file, expected the package silero-vad as it is "
            f"from version 6.2.1; {_INSTALL}"
        )
    detector = SpeechDetector()
    detector.load_state_dict(_weights(path))
    detector.eval().requires_grad_(False)
    labels = ["speech", "no speech"]
    return Listener(detector, SAMPLE_RATE, labels, **options)


def _data_folder():
    """Folder with the weights; the package is found, but not imported.

    Its import would set the number of torch's threads to one.
    """
    found = importlib.util.find_spec("silero_vad")
    if found is None or not found.submodule_search_locations:
        raise LMACError(
            "silero_vad: no such package, expected the one that holds the "
            f"detector's weights; {_INSTALL}"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _weights(path):
    """Weights in a file, by their names in `SpeechDetector`."""
    if path.suffix == ".safetensors":
        lstm, weights = "lstm_cell", load_file(path)
    else:
        lstm, weights = "decoder.rnn", _scripted_weights(path)
    # Theirs is one step of an LSTM, ours a layer that takes all steps.
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"lstm.{name}_l0"] = weights.pop(f"{lstm}.{name}")
    return weights


def _scripted_weights(path):
    """Those of the 16 kHz network in the TorchScript file."""
    with warnings.catch_warnings():
        # TorchScript is deprecated, but here only holds tensors.
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.load(path, map_location="cpu")
    names = {
        "stft.forward_basis_buffer": "stft_conv.weight",
        "decoder.decoder.2": "final_conv",
        **{f"encoder.{n}.reparam_conv": f"conv{n + 1}" for n in range(4)},
    }
    weights = {}
    for name, value in scripted._model.state_dict().items():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        weights[name] = value
    return weights


class SpeechDetector(torch.nn.Module):
    """Speech or not, for each chunk of 512 samples at 16 kHz.

    The last chunk is filled up with zeros. Each clip starts with 64 zeros and
    an empty state; nothing is kept from one call to the next.

    The LSTM runs without cuDNN where gradients are wanted: cuDNN's refuses
    the backward pass in evaluation mode ("cudnn RNN backward can only be
    called in training mode"), and training mode is no way out for a
    classifier that has dropout or batch normalisation.

    Example
    -------
    >>> SpeechDetector()(torch.rand(2, 1600)).shape
    torch.Size([2, 4, 2])
    """

    def __init__(self):
        super().__init__()
        conv = torch.nn.Conv1d
        self.stft_conv = conv(1, 2 * _N_BINS, _N_FFT, _STRIDE, bias=False)
        self.conv1 = conv(_N_BINS, 128, 3, padding=1)
        self.conv2 = conv(128, 64, 3, stride=2, padding=1)
        self.conv3 = conv(64, 64, 3, stride=2, padding=1)
        self.conv4 = conv(64, 128, 3, padding=1)
        self.lstm = torch.nn.LSTM(128, 128, batch_first=True)
        self.final_conv = conv(128, 1, 1)

    def forward(self, wavs):
        """Logits [batch, time, 2] of waveforms [batch, samples].

        The first class is speech; the second one's logit is always zero, so
        the first is the log-odds of speech.
        """
        missing = -wavs.shape[1] % _CHUNK
        padded = torch.nn.functional.pad(wavs, (_CONTEXT, missing))
        chunks = padded.unfold(1, _CONTEXT + _CHUNK, _CHUNK)
        vectors = self._encode(chunks.flatten(0, 1))
        states = self._listen(vectors.unflatten(0, chunks.shape[:2]))
        odds = self.final_conv(states.relu().transpose(1, 2))[:, 0]
        return torch.stack((odds, torch.zeros_like(odds)), dim=2)

    def _encode(self, chunks):
        """Vectors [chunks, 128] of chunks with their context."""
        padded = torch.nn.functional.pad(chunks, (0, _REFLECTED), "reflect")
        parts = self.stft_conv(padded[:, None]).unflatten(1, (2, _N_BINS))
        # The norm has gradient zero in silence, where that of a root of the
        # sum of squares is not a number.
        maps = torch.linalg.vector_norm(parts, dim=1)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            maps = layer(maps).relu()
        return maps[..., 0]  # two strides have left one frame of four

    def _listen(self, vectors):
        """States of the LSTM, [batch, time, 128]."""
        if self.training or not vectors.requires_grad:
            return self.lstm(vectors)[0]
        with torch.backends.cudnn.flags(enabled=False):
            return self.lstm(vectors)[0]
