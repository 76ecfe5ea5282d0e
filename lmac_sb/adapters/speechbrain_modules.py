"""What lies between the modules of a SpeechBrain classifier's folder."""

import inspect
from functools import partial

import torch
from speechbrain.nnet.pooling import StatisticsPooling
from speechbrain.processing.features import spectral_magnitude

__all__ = ["Encoded", "Normalized", "Spectra", "without_noise"]


class Normalized(torch.nn.Module):
    """A normaliser of features, for clips without padding.

    It stays in evaluation mode, so stored statistics are never updated, and
    moves with the module that holds it (by themselves, SpeechBrain's
    statistics stay on the CPU).

    Arguments
    ---------
    normalizer : torch.nn.Module
        Called with features [batch, time, features] and relative lengths
        [batch], as SpeechBrain's `InputNormalization`.

    Example
    -------
    >>> from speechbrain.processing.features import InputNormalization
    >>> normalized = Normalized(InputNormalization(norm_type="sentence"))
    >>> feats = normalized(torch.rand(2, 50, 4))
    >>> bool(feats.mean(1).abs().max() < 1e-5)
    True
    """

    STATISTICS = ("glob_mean", "glob_std")  # no buffers in SpeechBrain

    def __init__(self, normalizer):
        super().__init__()
        self.normalizer = normalizer
        self.eval()

    def forward(self, feats):
        """Normalised features of features [batch, time, features]."""
        lengths = torch.ones(len(feats), device=feats.device)
        return self.normalizer(feats, lengths)

    def train(self, mode=True):
        """Nothing: training would change the statistics."""
        return super().train(False)

    def _apply(self, fn, *args, **kwargs):
        """Move the statistics too."""
        super()._apply(fn, *args, **kwargs)
        for name in self.STATISTICS:
            value = getattr(self.normalizer, name, None)
            if isinstance(value, torch.Tensor):
                setattr(self.normalizer, name, fn(value))
        return self


class Spectra(torch.nn.Module):
    """The input of SpeechBrain's `AudioClassifier`.

    Arguments
    ---------
    compute_stft : speechbrain.processing.features.STFT
        From waveforms [batch, samples].
    compute_fbank : torch.nn.Module
        From spectra [batch, time, freq]; without it, the spectra's `log1p` is
        the input.
    power : float
        Of the spectra: 1 is the power, 0.5 the magnitude.

    Example
    -------
    >>> from speechbrain.processing.features import STFT
    >>> Spectra(STFT(16000), power=0.5)(torch.rand(2, 16000)).shape
    torch.Size([2, 101, 201])
    """

    def __init__(self, compute_stft, compute_fbank=None, power=1):
        super().__init__()
        self.compute_stft = compute_stft
        self.compute_fbank = compute_fbank
        self.power = power

    def forward(self, wavs):
        """Features [batch, time, features] of waveforms [batch, samples]."""
        spectra = spectral_magnitude(self.compute_stft(wavs), power=self.power)
        if self.compute_fbank is None:
            return torch.log1p(spectra)
        return self.compute_fbank(spectra)


class Encoded(torch.nn.Module):
    """Embedding of features, and the classifier on it.

    Arguments
    ---------
    embedding_model : torch.nn.Module
        From features [batch, time, features]. None if the classifier gets
        the features.
    classifier : torch.nn.Module
        From embeddings; by default the embedding is the output.
    lengths : bool
        Whether relative lengths [batch], all of them one, go with the
        features, as `EncoderClassifier` gives them to what takes them.
        `AudioClassifier` does not, and averages maps of two dimensions.

    Example
    -------
    >>> from speechbrain.lobes.models.Xvector import Xvector
    >>> model = Encoded(Xvector(in_channels=4), torch.nn.Linear(512, 3))
    >>> model(torch.rand(2, 50, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, embedding_model, classifier=None, lengths=True):
        super().__init__()
        self.embedding_model = embedding_model
        self.classifier = classifier
        self.lengths = lengths

    def forward(self, feats):
        """Logits [batch, classes], or embeddings [batch, size]."""
        parts = [self.embedding_model, self.classifier]
        first, *others = [part for part in parts if part is not None]
        out = _with_lengths(first, feats) if self.lengths else first(feats)
        if not self.lengths and out.dim() == 4:
            out = out.mean((-1, -2))
        for part in others:
            out = part(out)
        return out.squeeze(1) if out.dim() == 3 else out


def _with_lengths(module, feats):
    """Call a module with relative lengths of one, if it takes lengths."""
    try:
        inspect.signature(module.forward).bind(feats, None)
    except TypeError:
        return module(feats)
    return module(feats, torch.ones(len(feats), device=feats.device))


def without_noise(module):
    """Take the noise out of SpeechBrain's statistics pooling.

    x-vectors add noise of 1e-5 to 9e-5 to their means in each call, in
    evaluation too, so no two calls agree. Instead the middle is added.

    Arguments
    ---------
    module : torch.nn.Module
        Changed in place, with all that is in it.

    Returns
    -------
    torch.nn.Module
        The same.

    Example
    -------
    >>> pool = without_noise(StatisticsPooling())
    >>> feats = torch.rand(2, 50, 4)
    >>> torch.equal(pool(feats), pool(feats))
    True
    """
    for part in module.modules():
        if isinstance(part, StatisticsPooling):
            part._get_gauss_noise = partial(_middle, 5 * part.eps)
    return module


def _middle(value, shape, device="cpu"):
    """What stands for the noise of this shape."""
    return torch.full(shape, value, device=device)
