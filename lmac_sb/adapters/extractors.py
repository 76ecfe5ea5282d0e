"""The front ends of transformers' feature extractors, differentiable.

An extractor of transformers works in numpy, clip by clip, and passes no
gradient. Each module here gives the same tensors for a batch of waveforms
of one length, as ``extractor(wav, sampling_rate=..., return_tensors="pt")``
gives for each of them.
"""

import warnings

import numpy as np
import torch

from lmac_sb.adapters.front_ends import KaldiFbank, preemphasise
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line

__all__ = [
    "FRONT_ENDS",
    "AstFrontEnd",
    "ByName",
    "ExtractorFrontEnd",
    "FilterbankFrontEnd",
    "InputOfExtractor",
    "WaveformFrontEnd",
    "WhisperFrontEnd",
    "compare_inputs",
    "front_end_of",
]

_TOLERANCE = 1e-3  # of inputs of the order of 1; 1e-4 is usual
_FLOOR = torch.finfo(torch.float32).eps  # of an energy, as in Kaldi


class ExtractorFrontEnd(torch.nn.Module):
    """What the front ends share: their rate and the lengths they take.

    Arguments
    ---------
    extractor : transformers.FeatureExtractionMixin
        Its settings are read, it is not kept.

    Attributes
    ----------
    sample_rate : int
        Rate in Hz of the waveforms.
    n_samples : int or None
        Longest sound that the model hears at once. What comes later is cut
        off, as the extractor does, with a warning. None: any length.
    min_samples : int
        Shortest sound that the model takes. A shorter one is an error.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> class Plain(ExtractorFrontEnd):
    ...     def inputs(self, wavs):
    ...         return {"input_values": wavs}
    >>> plain = Plain(SimpleNamespace(sampling_rate=8000, padding_value=0.0))
    >>> plain(torch.rand(2, 4000))["input_values"].shape
    torch.Size([2, 4000])
    """

    def __init__(self, extractor):
        super().__init__()
        self.sample_rate = int(extractor.sampling_rate)
        self.padding_value = float(extractor.padding_value)
        self.padding_side = getattr(extractor, "padding_side", "right")
        self.n_samples = None
        self.min_samples = 1

    def forward(self, wavs):
        """Inputs of the model.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of one length, [batch, samples].

        Returns
        -------
        dict of str to torch.Tensor
            Named as the extractor names them.

        Raises
        ------
        LMACError
            If the sound is too short for the model.
        """
        if wavs.dim() != 2:
            raise LMACError(
                f"waveforms: found shape {list(wavs.shape)}, expected "
                "[batch, samples]"
            )
        length = wavs.shape[1]
        if length < self.min_samples:
            raise LMACError(
                f"sound: found {length} samples, expected at least "
                f"{self.min_samples} at {self.sample_rate} Hz, the fewest "
                "that this model takes"
            )
        if self.n_samples is not None and length > self.n_samples:
            warnings.warn(
                f"sound of {length / self.sample_rate:.2f} s: this model "
                f"hears the first {self.n_samples / self.sample_rate:.2f} s "
                "alone; cut longer sounds into windows of that length",
                stacklevel=2,
            )
        return self.inputs(wavs.float())

    def _pad(self, x, size):
        """Pad the second axis of [batch, length, ...] as the extractor."""
        missing = size - x.shape[1]
        if missing <= 0:
            return x
        pads = (0, 0) * (x.dim() - 2)
        pads += (missing, 0) if self.padding_side == "left" else (0, missing)
        return torch.nn.functional.pad(x, pads, value=self.padding_value)


class WaveformFrontEnd(ExtractorFrontEnd):
    """Front end of `Wav2Vec2FeatureExtractor`: the waveform itself.

    With ``do_normalize`` each clip gets mean 0 and variance 1.

    Arguments
    ---------
    extractor : transformers.Wav2Vec2FeatureExtractor
        Its settings are read, it is not kept.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> front_end = WaveformFrontEnd(SimpleNamespace(
    ...     sampling_rate=16000, padding_value=0.0, do_normalize=True,
    ...     return_attention_mask=True,
    ... ))
    >>> inputs = front_end(torch.tensor([[1.0, 3.0]]))
    >>> inputs["input_values"], inputs["attention_mask"].dtype
    (tensor([[-1.,  1.]]), torch.int32)
    """

    def __init__(self, extractor):
        super().__init__(extractor)
        self.do_normalize = extractor.do_normalize
        self.return_attention_mask = extractor.return_attention_mask

    def inputs(self, wavs):
        """See `forward`."""
        values = wavs
        if self.do_normalize:
            mean = wavs.mean(1, keepdim=True)
            variance = wavs.var(1, keepdim=True, unbiased=False)
            values = (wavs - mean) / (variance + 1e-7).sqrt()
        if not self.return_attention_mask:
            return {"input_values": values}
        mask = torch.ones_like(values, dtype=torch.int32)
        return {"input_values": values, "attention_mask": mask}


class _LogFilterbank(torch.nn.Module):
    """Kaldi's log filterbank, without its dither.

    Per frame: mean taken off, pre-emphasis of .97, window, power spectrum,
    filters, logarithm (kaldi-asr.org, `compute-fbank-feats`).

    Arguments
    ---------
    window : torch.Tensor
        As long as a frame.
    hop : int
        Samples from frame to frame.
    filters : torch.Tensor
        [bins, bands]; the number of bins tells the FFT's size.
    scale : float
        What the waveform is multiplied by; Kaldi's samples are integers.
    """

    def __init__(self, window, hop, filters, scale=1.0):
        super().__init__()
        self.hop, self.scale = hop, scale
        self.n_fft = 2 * (len(filters) - 1)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wavs):
        """Bands [batch, frames, bands] of waveforms [batch, samples]."""
        # As in numpy. It matters where a band holds a millionth of the
        # frame's energy, which drowns in the rounding of single precision.
        window, filters = self.window.double(), self.filters.double()
        wavs = wavs.double() * self.scale
        frames = wavs.unfold(1, len(window), self.hop)
        frames = frames - frames.mean(2, keepdim=True)
        frames = preemphasise(frames, 0.97) * window
        spectrum = torch.fft.rfft(frames, self.n_fft)
        power = spectrum.real.square() + spectrum.imag.square()
        return (power @ filters).clamp(min=_FLOOR).log().float()


class AstFrontEnd(ExtractorFrontEnd):
    """Front end of `ASTFeatureExtractor`: Kaldi bands of a fixed length.

    Arguments
    ---------
    extractor : transformers.ASTFeatureExtractor
        Its settings are read, it is not kept. It has ``mel_filters`` where it
        works without torchaudio, by other frames and filters.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> front_end = AstFrontEnd(SimpleNamespace(
    ...     sampling_rate=16000, padding_value=0.0, do_normalize=False,
    ...     num_mel_bins=40, max_length=120,
    ... ))
    >>> front_end(torch.rand(2, 16000))["input_values"].shape
    torch.Size([2, 120, 40])
    """

    def __init__(self, extractor):
        super().__init__(extractor)
        self.max_length = extractor.max_length
        # Kept apart from the division, which the extractor does in one step.
        self.mean = extractor.mean if extractor.do_normalize else 0.0
        self.divisor = 2 * extractor.std if extractor.do_normalize else 1.0
        filters = getattr(extractor, "mel_filters", None)
        if filters is None:
            self.bands = KaldiFbank(
                float(self.sample_rate),
                num_mel_bins=extractor.num_mel_bins,
                window_type="hanning",
            )
            size, hop = self.bands.length, self.bands.hop
        else:
            size, hop = 400, 160
            window = torch.hann_window(
                size, periodic=False, dtype=torch.float64
            )
            filters = torch.as_tensor(np.asarray(filters))
            self.bands = _LogFilterbank(window, hop, filters)
        self.min_samples = size
        self.n_samples = size + hop * (self.max_length - 1)

    def inputs(self, wavs):
        """See `forward`."""
        bands = self.bands(wavs.float())[:, : self.max_length]
        missing = self.max_length - bands.shape[1]
        bands = torch.nn.functional.pad(bands, (0, 0, 0, missing))
        return {"input_values": (bands - self.mean) / self.divisor}


class FilterbankFrontEnd(ExtractorFrontEnd):
    """Front end of `SeamlessM4TFeatureExtractor`: Kaldi bands, stacked.

    Each band gets mean 0 and variance 1 over the clip; then ``stride`` frames
    are stacked to one. An odd frame is padded, and masked.

    Arguments
    ---------
    extractor : transformers.SeamlessM4TFeatureExtractor
        Its settings are read, it is not kept.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> front_end = FilterbankFrontEnd(SimpleNamespace(
    ...     sampling_rate=16000, padding_value=0.0, stride=2,
    ...     window=torch.hann_window(400), mel_filters=torch.rand(257, 40),
    ...     return_attention_mask=False,
    ... ))
    >>> front_end(torch.rand(2, 16000))["input_features"].shape
    torch.Size([2, 49, 80])
    """

    def __init__(self, extractor):
        super().__init__(extractor)
        self.stride = extractor.stride
        self.return_attention_mask = extractor.return_attention_mask
        self.bands = _LogFilterbank(
            torch.as_tensor(np.asarray(extractor.window)),
            160,
            torch.as_tensor(np.asarray(extractor.mel_filters)),
            scale=2.0**15,
        )
        # The variance of one frame is not defined.
        self.min_samples = 400 + 160

    def inputs(self, wavs):
        """See `forward`."""
        bands = self.bands(wavs)
        mean = bands.mean(1, keepdim=True)
        variance = bands.var(1, keepdim=True)
        bands = (bands - mean) / (variance + 1e-7).sqrt()
        n_frames = bands.shape[1]
        bands = self._pad(bands, n_frames + n_frames % 2)
        n_stacked = bands.shape[1] // self.stride
        bands = bands[:, : n_stacked * self.stride]
        stacked = bands.reshape(len(bands), n_stacked, -1)
        if not self.return_attention_mask:
            return {"input_features": stacked}
        index = torch.arange(n_stacked * self.stride, device=wavs.device)
        is_frame = index < n_frames
        if self.padding_side == "left":
            is_frame = index >= n_frames % 2
        # A stack counts if its second frame does.
        mask = is_frame[index % self.stride == 1].to(torch.int32)
        return {
            "input_features": stacked,
            "attention_mask": mask.expand(len(wavs), -1),
        }


class WhisperFrontEnd(ExtractorFrontEnd):
    """Front end of `WhisperFeatureExtractor`: log-mel of a padded clip.

    Power spectrum, mel filters, logarithm to base 10, at most 8 below the
    clip's maximum, then (x + 4) / 4.

    Arguments
    ---------
    extractor : transformers.WhisperFeatureExtractor
        Its settings are read, it is not kept. Its dither, random noise, is
        left out with a warning.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> front_end = WhisperFrontEnd(SimpleNamespace(
    ...     sampling_rate=16000, padding_value=0.0, n_fft=400, hop_length=160,
    ...     n_samples=32000, mel_filters=torch.rand(201, 80),
    ...     return_attention_mask=False,
    ... ))
    >>> front_end(torch.rand(2, 16000))["input_features"].shape
    torch.Size([2, 80, 200])
    """

    def __init__(self, extractor):
        super().__init__(extractor)
        self.n_fft = extractor.n_fft
        self.hop = extractor.hop_length
        self.n_samples = extractor.n_samples
        self.return_attention_mask = extractor.return_attention_mask
        if getattr(extractor, "dither", 0.0) != 0.0:
            warnings.warn(
                f"feature extractor: its dither of {extractor.dither}, "
                "random noise, is left out, so that an explanation can be "
                "repeated",
                stacklevel=2,
            )
        filters = torch.as_tensor(np.asarray(extractor.mel_filters)).float()
        window = torch.hann_window(self.n_fft)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", window, persistent=False)

    def inputs(self, wavs):
        """See `forward`."""
        n_heard = min(wavs.shape[1], self.n_samples)
        padded = self._pad(wavs[:, : self.n_samples], self.n_samples)
        spectrum = torch.stft(
            padded,
            self.n_fft,
            self.hop,
            window=self.window,
            return_complex=True,
        )[..., :-1]
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (self.filters.T @ power).clamp(min=1e-10).log10()
        mel = torch.maximum(mel, mel.amax((1, 2), keepdim=True) - 8.0)
        inputs = {"input_features": (mel + 4.0) / 4.0}
        if self.return_attention_mask:
            index = torch.arange(self.n_samples, device=wavs.device)
            mask = index < n_heard
            if self.padding_side == "left":
                mask = mask.flip(0)
            # Of samples, not frames: so the extractor gives it where it is
            # not asked for at the call.
            mask = mask.to(torch.int32).expand(len(wavs), -1)
            inputs["attention_mask"] = mask
        return inputs


FRONT_ENDS = {
    "ASTFeatureExtractor": AstFrontEnd,
    "SeamlessM4TFeatureExtractor": FilterbankFrontEnd,
    "Wav2Vec2FeatureExtractor": WaveformFrontEnd,
    "WhisperFeatureExtractor": WhisperFrontEnd,
}


def front_end_of(extractor, key="feature extractor"):
    """Front end that gives what a feature extractor gives.

    It is compared with the extractor on noise before it is returned.

    Arguments
    ---------
    extractor : transformers.FeatureExtractionMixin
        Of a class in `FRONT_ENDS`, or derived from one.
    key : str
        What it is called in the message, if it is of no such class.

    Returns
    -------
    ExtractorFrontEnd

    Raises
    ------
    LMACError
        If the class is not known, its settings are not its own, or its
        output is another.

    Example
    -------
    >>> front_end_of(print)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: feature extractor: found builtin_function_or_method, ...
    """
    for kind in type(extractor).__mro__:
        if kind.__name__ in FRONT_ENDS:
            try:
                front_end = FRONT_ENDS[kind.__name__](extractor)
                compare_inputs(front_end, extractor)
            except LMACError:
                raise
            except Exception as error:
                # Settings come from a file, and can be those of another one.
                raise LMACError(
                    f"feature extractor: {type(extractor).__name__} fails "
                    f"with its settings ({type(error).__name__}: "
                    f"{first_line(error)}), expected those that belong to it "
                    "in preprocessor_config.json"
                ) from error
            return front_end
    raise LMACError(
        f"{key}: found {type(extractor).__name__}, expected "
        f"{', '.join(FRONT_ENDS)}; for another one pass features=, a "
        "differentiable function from waveforms [batch, samples] to the "
        "model's input"
    )


class InputOfExtractor(torch.nn.Module):
    """What a model of one's own is given of a feature extractor's output.

    Arguments
    ---------
    extractor : transformers.FeatureExtractionMixin or ProcessorMixin
        Of a class in `FRONT_ENDS`, or what holds one.

    Attributes
    ----------
    name : str
        Of that input, such as ``input_values``.
    front_end : ExtractorFrontEnd
        Gives it, and maybe a mask.

    Raises
    ------
    LMACError
        See `front_end_of`.

    Example
    -------
    >>> from transformers import Wav2Vec2FeatureExtractor
    >>> InputOfExtractor(Wav2Vec2FeatureExtractor())(torch.rand(2, 9)).shape
    torch.Size([2, 9])
    """

    def __init__(self, extractor):
        super().__init__()
        extractor = getattr(extractor, "feature_extractor", extractor)
        self.front_end = front_end_of(extractor, "features")
        self.name = extractor.model_input_names[0]

    @staticmethod
    def takes(features):
        """Whether it is for these features: those of transformers.

        Arguments
        ---------
        features : object
            Any front end.

        Returns
        -------
        bool
        """
        names = {
            kind.__name__
            for kind in type(features).__mro__
            if kind.__module__.startswith("transformers.")
        }
        return "FeatureExtractionMixin" in names or (
            "ProcessorMixin" in names and hasattr(features, "feature_extractor")
        )

    def forward(self, wavs):
        """The input of waveforms [batch, samples]."""
        return self.front_end(wavs)[self.name]


class ByName(torch.nn.Module):
    """A model whose input has a name, as a function of that input alone.

    Arguments
    ---------
    model : callable
        The model.
    name : str
        Of the argument that it takes the input as.

    Example
    -------
    >>> ByName(lambda mask=None, x=None: x, "x")(3)
    3
    """

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, value):
        """What the model returns."""
        return self.model(**{self.name: value})


def compare_inputs(front_end, extractor, device="cpu"):
    """Check that a front end gives what a feature extractor gives.

    Arguments
    ---------
    front_end : callable
        From waveforms [batch, samples] to a tensor or a dict of them.
    extractor : transformers.FeatureExtractionMixin
        Gets a second of noise, or as much as `front_end` takes.
    device : torch.device or str
        Where `front_end` is.

    Raises
    ------
    LMACError
        If an input is missing, or has another shape or other values.

    Example
    -------
    >>> class Extractor:
    ...     sampling_rate = 16000
    ...     model_input_names = ["input_values"]
    ...     def __call__(self, wav, sampling_rate, return_tensors):
    ...         return {"input_values": torch.as_tensor(wav)[None]}
    >>> compare_inputs(lambda wavs: wavs[:, 1:], Extractor())
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: front end: found 'input_values' of shape [1, 15999], ...
    """
    rate = int(extractor.sampling_rate)
    length = max(rate, getattr(front_end, "min_samples", 1))
    length = min(length, getattr(front_end, "n_samples", None) or length)
    generator = torch.Generator().manual_seed(0)
    wavs = 0.1 * torch.randn(1, length, generator=generator)
    expected = extractor(
        wavs[0].numpy(), sampling_rate=rate, return_tensors="pt"
    )
    with torch.no_grad():
        found = front_end(wavs.to(device))
    if isinstance(found, torch.Tensor):
        # Of the clip alone there is nothing to mask.
        name = extractor.model_input_names[0]
        found, expected = {name: found}, {name: expected[name]}
    for name, right in expected.items():
        _compare(name, found.get(name), right, type(extractor).__name__)


def _compare(name, found, right, owner):
    """Raise an error that says where two inputs part."""
    if found is None or found.shape != right.shape:
        shape = None if found is None else list(found.shape)
        raise LMACError(
            f"front end: found '{name}' of shape {shape}, expected "
            f"{list(right.shape)}, as {owner} gives it"
        )
    difference = (found.cpu().double() - right.double()).abs()
    if not difference.max() <= _TOLERANCE:
        place = np.unravel_index(int(difference.argmax()), right.shape)
        raise LMACError(
            f"front end: '{name}' differs by up to {difference.max():.2g} "
            f"from what {owner} gives, most at {[int(i) for i in place]}"
        )
