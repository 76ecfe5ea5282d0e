"""Front ends against the extractors of transformers that they stand for."""

import math

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.adapters.extractors import compare_inputs, front_end_of
from lmac_sb.adapters.source import as_listener
from lmac_sb.utils.errors import LMACError

transformers = pytest.importorskip("transformers")

SETTINGS = [
    ("AST", {}),
    ("AST", {"num_mel_bins": 40, "max_length": 64, "do_normalize": False}),
    ("AST", {"max_length": 50, "mean": 1.5, "std": 0.3}),
    ("AST", {"sampling_rate": 22050, "max_length": 200}),
    ("AST", {"sampling_rate": 8000, "max_length": 200, "num_mel_bins": 23}),
    ("Wav2Vec2", {}),
    ("Wav2Vec2", {"do_normalize": False}),
    ("Wav2Vec2", {"return_attention_mask": True, "sampling_rate": 8000}),
    ("Whisper", {"chunk_length": 1}),
    ("Whisper", {"chunk_length": 2, "feature_size": 128}),
    ("Whisper", {"chunk_length": 1, "return_attention_mask": True}),
    ("Whisper", {"chunk_length": 1, "padding_value": 0.1}),
    (
        "Whisper",
        {
            "chunk_length": 1,
            "padding_side": "left",
            "return_attention_mask": True,
        },
    ),
    ("Whisper", {"chunk_length": 1, "hop_length": 100, "n_fft": 512}),
    ("SeamlessM4T", {}),
    ("SeamlessM4T", {"num_mel_bins": 40, "padding_value": 1.0}),
    ("SeamlessM4T", {"padding_value": 2.0, "padding_side": "left"}),
    ("SeamlessM4T", {"stride": 3}),
    ("SeamlessM4T", {"return_attention_mask": False}),
]
# An odd and an even number of frames, a remainder, longer than Whisper's 1 s.
LENGTHS = [3000, 3160, 9999, 40000]


def extractor_of(name, settings):
    return getattr(transformers, f"{name}FeatureExtractor")(**settings)


def batch(length, rate):
    """Noise, a quiet tone with a pause, a loud chirp; [3, length]."""
    time = torch.arange(length) / rate
    tone = 0.01 * torch.sin(2 * math.pi * 440 * time)
    tone[length // 2 :] = 0
    chirp = 0.9 * torch.sin(2 * math.pi * 800 * time.square() * 10)
    return torch.stack((0.1 * torch.randn(length), tone, chirp + 0.05))


def assert_same(front_end, extractor, wavs):
    """Each row of a batch gets what the extractor gives for it alone."""
    found = front_end(wavs)
    for row, wav in enumerate(wavs):
        right = extractor(
            wav.numpy(),
            sampling_rate=extractor.sampling_rate,
            return_tensors="pt",
        )
        assert set(found) == set(right)
        for name, value in right.items():
            assert found[name].dtype == value.dtype
            torch.testing.assert_close(
                found[name][row], value[0], atol=1e-4, rtol=1e-4
            )


@pytest.mark.filterwarnings("ignore:sound of")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_gives_what_the_extractor_gives(name, settings, length):
    extractor = extractor_of(name, settings)
    wavs = batch(length, extractor.sampling_rate)
    if name == "SeamlessM4T":
        # The extractor divides digital silence, whose bands are constant, by
        # almost nothing; what comes out is the rounding of its means.
        wavs = wavs + 1e-4 * torch.randn(wavs.shape)
    assert_same(front_end_of(extractor), extractor, wavs)


def test_ast_without_torchaudio(monkeypatch):
    module = (
        "transformers.models.audio_spectrogram_transformer."
        "feature_extraction_audio_spectrogram_transformer"
    )
    monkeypatch.setattr(f"{module}.is_speech_available", lambda: False)
    extractor = extractor_of("AST", {"max_length": 100, "num_mel_bins": 64})
    assert hasattr(extractor, "mel_filters")
    assert_same(front_end_of(extractor), extractor, batch(9999, 16000))


@pytest.mark.parametrize("name", ["AST", "Wav2Vec2", "Whisper", "SeamlessM4T"])
def test_real_clips(name, real_data):
    extractor = extractor_of(name, {})
    front_end = front_end_of(extractor)
    files = sorted((real_data / "fsdd" / "recordings").glob("*.flac"))
    for file in files[:: len(files) // 4]:
        wav = torch.from_numpy(sf.read(file, dtype="float32")[0])
        assert_same(front_end, extractor, wav[None])


@pytest.mark.parametrize("name", ["AST", "Wav2Vec2", "Whisper", "SeamlessM4T"])
def test_gradient_is_that_of_differences(name):
    settings = {"AST": {"max_length": 20}, "Whisper": {"chunk_length": 1}}
    front_end = front_end_of(extractor_of(name, settings.get(name, {})))
    wav = 0.1 * torch.randn(1, 2000)
    weight = torch.randn(next(iter(front_end(wav).values())).shape)

    def score(x):
        return (next(iter(front_end(x).values())) * weight).sum()

    x = wav.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(x), x)
    # Along the gradient, where a difference is the largest.
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        difference = (score(wav + step) - score(wav - step)) / 2
    expected = (gradient * step).sum()
    torch.testing.assert_close(difference, expected, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("name", ["AST", "Wav2Vec2", "Whisper", "SeamlessM4T"])
def test_silence_has_a_finite_gradient(name):
    front_end = front_end_of(extractor_of(name, {}))
    x = torch.zeros(1, 4000, requires_grad=True)
    total = next(iter(front_end(x).values())).square().sum()
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.isfinite(total) and torch.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("name", "settings", "longest"),
    [("AST", {"max_length": 10}, 400 + 9 * 160), ("Whisper", {}, 480000)],
)
def test_longest_sound(name, settings, longest, recwarn):
    front_end = front_end_of(extractor_of(name, settings))
    assert front_end.n_samples == longest
    wav = 0.1 * torch.randn(1, longest)
    whole = next(iter(front_end(wav).values()))
    # Up to the last sample, everything is heard.
    assert not recwarn.list
    changed = wav.clone()
    changed[:, -1] += 100
    assert not torch.equal(next(iter(front_end(changed).values())), whole)
    with pytest.warns(UserWarning, match="hears the first .* cut longer"):
        front_end(torch.cat((wav, wav[:, :500]), 1))


@pytest.mark.parametrize("name", ["AST", "SeamlessM4T", "Wav2Vec2"])
def test_too_short(name):
    front_end = front_end_of(extractor_of(name, {}))
    shortest = torch.randn(1, front_end.min_samples)
    for value in front_end(shortest).values():
        assert torch.isfinite(value).all()
    with pytest.raises(LMACError, match=f"found {shortest.shape[1] - 1} sam"):
        front_end(shortest[:, 1:])


def test_shape():
    front_end = front_end_of(extractor_of("Wav2Vec2", {}))
    with pytest.raises(LMACError, match=r"found shape \[5\], expected \[bat"):
        front_end(torch.rand(5))


def test_dither_is_left_out():
    extractor = extractor_of("Whisper", {"chunk_length": 1, "dither": 1e-6})
    with pytest.warns(UserWarning, match="dither of 1e-06"):
        front_end = front_end_of(extractor)
    wav = torch.randn(1, 500)
    first, again = front_end(wav), front_end(wav)
    assert torch.equal(first["input_features"], again["input_features"])


@pytest.mark.parametrize("rate", [None, "16k"])
def test_settings_that_are_none(rate):
    extractor = extractor_of("Wav2Vec2", {})
    extractor.sampling_rate = rate
    with pytest.raises(LMACError, match="Wav2Vec2FeatureExtractor fails with"):
        front_end_of(extractor)


def test_unknown_extractor():
    extractor = extractor_of("Clap", {})
    with pytest.raises(LMACError) as error:
        front_end_of(extractor)
    text = str(error.value)
    assert text.startswith("feature extractor: found ClapFeatureExtractor")
    assert "WhisperFeatureExtractor" in text and "features=" in text


class Louder(transformers.Wav2Vec2FeatureExtractor):
    """Gives something else than the class it is derived from."""

    def __call__(self, raw_speech, **settings):
        return super().__call__(2 * np.asarray(raw_speech) + 1, **settings)


def test_derived_class():
    extractor = Louder(do_normalize=True)
    # Of which the normalisation leaves nothing, where the sound is loud.
    wavs = batch(4000, 16000)[:1]
    assert_same(front_end_of(extractor), extractor, wavs)
    with pytest.raises(LMACError, match="differs by up to .* most at"):
        front_end_of(Louder(do_normalize=False))


def test_front_end_of_ones_own():
    extractor = extractor_of("Wav2Vec2", {"do_normalize": False})
    compare_inputs(lambda wavs: wavs, extractor)
    with pytest.raises(LMACError, match="'input_values' differs by up to 0.4"):
        compare_inputs(lambda wavs: 2 * wavs, extractor)
    with pytest.raises(LMACError, match=r"shape \[1, 8000\], expected \[1, 1"):
        compare_inputs(lambda wavs: wavs[:, ::2], extractor)
    with pytest.raises(LMACError, match="'input_values' of shape None"):
        compare_inputs(lambda wavs: {"other": wavs}, extractor)


class Head(torch.nn.Module):
    """A model of one's own on what an extractor gives."""

    def forward(self, input_values):
        return input_values.flatten(1)[:, :400].unflatten(1, (4, 100)).sum(2)


class NamedHead(Head):
    """One whose first argument is another."""

    def forward(self, mask=None, input_values=None, input_features=None):
        assert mask is None
        found = input_values if input_features is None else input_features
        return super().forward(found)


class Processor(transformers.ProcessorMixin):
    """Holds an extractor, as those of models that write text do."""

    def __init__(self, feature_extractor):
        self.feature_extractor = feature_extractor


@pytest.mark.parametrize("head", [Head, NamedHead])
@pytest.mark.parametrize("name", ["AST", "Wav2Vec2", "Whisper"])
def test_a_model_of_ones_own(name, head, recwarn, caplog):
    settings = {"Whisper": {"chunk_length": 1}, "AST": {"max_length": 128}}
    extractor = extractor_of(name, settings.get(name, {}))
    wavs = batch(16000, 16000)
    right = extractor(
        list(wavs.numpy()), sampling_rate=16000, return_tensors="pt"
    )
    right = Head()(right[extractor.model_input_names[0]])
    for features in (extractor, [extractor], Processor(extractor)):
        listener = as_listener(head(), features=features)
        assert listener.sample_rate == 16000  # the extractor's
        leaf = wavs.clone().requires_grad_()
        logits = listener(leaf)
        torch.testing.assert_close(logits, right, atol=1e-2, rtol=1e-3)
        logits[:, 0].sum().backward()
        assert leaf.grad.any()
    assert not recwarn.list and "sampling_rate" not in caplog.text


def test_an_extractor_without_a_copy_is_not_tried(caplog):
    with pytest.raises(LMACError, match="features: found ClapFeatureExtractor"):
        as_listener(Head(), 48000, features=extractor_of("Clap", {}))
    assert not caplog.text
