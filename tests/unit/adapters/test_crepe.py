"""CREPE as a listener hears what its package's own functions hear."""

import math
import sys

import pytest
import soundfile as sf
import torch

torchcrepe = pytest.importorskip("torchcrepe", reason="no torchcrepe here")

from lmac_sb.adapters.crepe import (  # noqa: E402
    PitchFrames,
    load_crepe,
    pitch_class,
)
from lmac_sb.utils.errors import LMACError  # noqa: E402

RATE = 16000


@pytest.fixture(scope="module")
def tiny():
    """The small network."""
    return load_crepe("tiny")


def note(frequency, seconds=0.5):
    """A steady note of four harmonics, [samples]."""
    time = torch.arange(int(seconds * RATE)) / RATE
    return sum(
        torch.sin(2 * math.pi * n * frequency * time) / n for n in range(1, 5)
    )


def frames_heard(listener, wavs):
    """Logits of all frames, [batch, time, 360]."""
    return listener.model(listener.front_end(wavs))


def speech(real_data, start=1.0, seconds=0.5):
    """A part of a recorded sentence, [1, samples]."""
    path = real_data / "speech" / "ljspeech" / "LJ001-0001.flac"
    wav, _ = sf.read(path, dtype="float32")
    first = int(start * RATE)
    return torch.from_numpy(wav[first : first + int(seconds * RATE)])[None]


def frames_of(wav, hop):
    """Frames of one clip in plain loops, as lists."""
    values, frames = wav.double().tolist(), []
    for centre in range(0, len(values) + 1, hop):
        frame = [
            values[i] if 0 <= i < len(values) else 0.0
            for i in range(centre - 512, centre + 512)
        ]
        mean = sum(frame) / 1024
        std = math.sqrt(sum((v - mean) ** 2 for v in frame) / 1023)
        frames.append([(v - mean) / max(std, 1e-10) for v in frame])
    return torch.tensor(frames, dtype=torch.float64)


# ------------------------------------------------------------------- framing


@pytest.mark.parametrize("n_samples", [1, 159, 160, 1024, 2000])
@pytest.mark.parametrize("hop", [160, 1024])
def test_frames_in_loops(n_samples, hop):
    wavs = torch.randn(2, n_samples)
    frames = PitchFrames(hop)(wavs)
    for wav, found in zip(wavs, frames):
        torch.testing.assert_close(
            found.double(), frames_of(wav, hop), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("hop", [80, 160, 500])
def test_frames_are_the_packages(real_data, hop):
    wav = speech(real_data)
    (expected,) = torchcrepe.preprocess(wav, RATE, hop)
    torch.testing.assert_close(
        PitchFrames(hop)(wav)[0], expected, atol=1e-5, rtol=1e-5
    )


def test_gradient_of_the_frames():
    wavs = torch.randn(1, 40, dtype=torch.float64, requires_grad=True)
    # Against differences of the values; each frame's 1024 are summed up with
    # fixed weights, since most are padding.
    weights = torch.randn(1024, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: PitchFrames(20)(x) @ weights, wavs
    )


# ------------------------------------------------------------------- network


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_probabilities_are_the_packages(real_data, size):
    wav = torch.cat((speech(real_data, seconds=0.1), note(220, 0.1)[None]), 1)
    frames = torch.cat(list(torchcrepe.preprocess(wav, RATE, 320)))
    with torch.no_grad():
        expected = torchcrepe.infer(frames, size)
        logits = frames_heard(load_crepe(size, hop=320), wav)
    assert logits.shape == (1, len(frames), 360)
    torch.testing.assert_close(logits[0].sigmoid(), expected, atol=1e-4, rtol=0)
    assert expected.max() > 0.5  # there is something to be the same


def test_each_clip_has_its_own_frames(tiny):
    wavs = torch.stack((note(220), note(330), torch.randn(8000)))
    with torch.no_grad():
        together = frames_heard(tiny, wavs)
        alone = [frames_heard(tiny, wav[None])[0] for wav in wavs]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("frequency", [55.0, 110.0, 233.0, 440.0, 880.0])
def test_notes_get_their_own_class(tiny, frequency):
    """Within a quarter of a semitone: one class more or less."""
    with torch.no_grad():
        logits = tiny(note(frequency)[None])
    assert abs(int(logits.argmax()) - pitch_class(frequency)) <= 1


def test_gradients_reach_the_sound(tiny):
    """Of two clips, one of them silent at first; all are numbers."""
    wavs = torch.stack((note(220), note(330)))
    wavs[1, :4000] = 0
    wavs.requires_grad_()
    (gradient,) = torch.autograd.grad(tiny(wavs)[:, 168].sum(), wavs)
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(1) > 0).all()


def test_a_step_along_the_gradient_raises_the_class(tiny):
    wav = (note(220) + 0.5 * torch.randn(8000))[None].requires_grad_()
    number = pitch_class(220)
    before = tiny(wav)[0, number]
    (gradient,) = torch.autograd.grad(before, wav)
    with torch.no_grad():
        # The change is the slope times the step, for a small step.
        step = 1e-3 * gradient / gradient.norm()
        after = tiny(wav + step)[0, number]
    expected = 1e-3 * float(gradient.norm())
    assert float(after - before.detach()) == pytest.approx(expected, rel=0.1)


def test_a_time_and_a_range(tiny):
    """Two notes after each other, each heard where it is."""
    wavs = torch.cat((note(220), note(330)))[None]
    with torch.no_grad():
        frames = frames_heard(tiny, wavs)
        for at, frequency in ((0.25, 220), ((0.6, 0.9), 330)):
            logits = tiny.with_options(at=at)(wavs)
            assert abs(int(logits.argmax()) - pitch_class(frequency)) <= 1
        loudest = tiny.with_options(pool="max")(wavs)
    torch.testing.assert_close(loudest, frames.amax(1))


def test_its_weights_stay_and_the_packages_model_too(tiny):
    """No weight takes gradients, and `torchcrepe.infer` keeps its model."""
    assert not any(p.requires_grad for p in tiny.parameters())
    assert not any(module.training for module in tiny.model.modules())
    torchcrepe.load.model("cpu", "tiny")
    before = torchcrepe.infer.model
    load_crepe("tiny")
    assert torchcrepe.infer.model is before


# -------------------------------------------------------------------- labels


def test_labels_are_the_packages_frequencies(tiny, monkeypatch):
    # Its own conversion adds noise.
    monkeypatch.setattr(torchcrepe.convert, "dither", lambda cents: cents)
    expected = torchcrepe.convert.bins_to_frequency(torch.arange(360).double())
    assert tiny.labels == [f"{float(hz):.1f} Hz" for hz in expected]
    assert len(set(tiny.labels)) == 360
    assert (tiny.sample_rate, tiny.multilabel) == (RATE, True)
    for number in (0, 168, 359):
        assert pitch_class(float(expected[number])) == number


# ----------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_crepe("large"), r"size: found 'large', expected one of"),
        (lambda: load_crepe("tiny", hop=0), "hop: found 0, expected a whole"),
        (lambda: load_crepe("tiny", hop=1.5), "hop: found 1.5, expected"),
        (lambda: pitch_class(20), "found 20 Hz, expected 31.7 to 2005.5"),
        (lambda: pitch_class(-1), "found -1 Hz, expected 31.7"),
        (lambda: pitch_class(math.nan), "found nan Hz, expected 31.7"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(LMACError, match=message):
        call()


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcrepe", None)
    with pytest.raises(LMACError, match=r"install \"lmac-sb\[crepe\]\""):
        load_crepe()
