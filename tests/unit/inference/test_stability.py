"""Tests of whether masks survive a shift, noise and another start."""

from functools import partial

import pytest
import torch

from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.inference.stability import check_stability, disturbed
from lmac_sb.lmac.explainer import Explanation
from lmac_sb.models.features import SpectralFeatures

RATE = 8000
NAME = "shift and noise"


@pytest.fixture(scope="module")
def features():
    """Front end at a low rate."""
    return SpectralFeatures(RATE, n_fft=256, n_mels=20)


def explain(features, make_mask, wavs, target=None, threshold=None, **how):
    """An explanation with masks of a magnitude, as `explain_batch` makes it."""
    magnitude = features.magnitude(features.stft(wavs))
    mask = make_mask(magnitude)
    if threshold is not None:
        mask = (mask >= threshold).float()
    logits = torch.tensor([[2.0, 0.0]]).expand(len(wavs), -1)
    explanation = Explanation(
        waveform=wavs / 2,
        residual=wavs / 2,
        mask=mask,
        logits=logits,
        logits_in=logits,
        logits_out=-logits,
        decision=torch.tensor(target or [0] * len(wavs)),
        magnitude=magnitude,
    )
    more = {
        "threshold": threshold,
        "refine_steps": how.get("refine_steps", 0),
        "second_look": how.get("second_look", False),
    }
    return AudioExplanation.of(explanation, wavs, features, ["a", "b"], **more)


def loud(magnitude):
    """A mask that follows the sound."""
    return torch.sigmoid(magnitude.clamp_min(1e-5).log() + 1)


def fixed(magnitude):
    """A mask that lies at the same place, wherever the sound is."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(magnitude.shape, generator=generator)


def bursts(n_samples=RATE):
    """Noise that comes and goes, and a tone, [1, samples]."""
    generator = torch.Generator().manual_seed(1)
    time = torch.arange(n_samples) / RATE
    swell = (torch.sin(2 * torch.pi * 5 * time) > 0.5).float()
    noise = torch.randn(n_samples, generator=generator)
    return (swell * noise / 8 + torch.sin(2000 * time) / 8)[None]


def test_a_mask_that_follows_the_sound_is_stable(features):
    method = partial(explain, features, loud)
    found = method(bursts())
    assert (found.agreement, found.stable) == ([{}], [None])
    checked = check_stability(method, found)
    assert list(checked.agreement[0]) == [NAME]
    assert checked.agreement[0][NAME] > 0.9
    assert checked.stable == [True]
    assert checked.judged == [f"{found.verdicts[0]}, stable"]
    assert "stable" not in repr(found)
    assert repr(checked).endswith(", stable)")
    # The given one stays as it is.
    assert found.agreement == [{}]


def test_a_mask_that_does_not_is_not(features):
    method = partial(explain, features, fixed)
    checked = check_stability(method, method(bursts()))
    assert abs(checked.agreement[0][NAME]) < 0.2
    assert checked.stable == [False]
    assert repr(checked).endswith(", not stable)")


def test_masks_are_compared_where_the_sound_is(features):
    """Moved as the sound is: a mask of single frames agrees exactly."""

    def steps(magnitude):
        """Every third frame, counted from the first one with sound."""
        first = int((magnitude[0].amax(1) > 0.1).nonzero()[0])
        places = (torch.arange(magnitude.shape[1]) - first) % 3 == 0
        return places[None, :, None].expand(magnitude.shape).float()

    wavs = bursts()
    wavs[:, :3000] = 0
    method = partial(explain, features, steps)
    checked = check_stability(method, method(wavs))
    assert checked.agreement[0][NAME] == pytest.approx(1)


def test_another_start(features):
    """Each way to a mask has to agree."""
    method = partial(explain, features, loud)
    others = {"same": method, "random": partial(explain, features, fixed)}
    checked = check_stability(method, method(bursts()), others)
    found = checked.agreement[0]
    assert list(found) == [NAME, "same", "random"]
    assert found["same"] == pytest.approx(1)
    assert abs(found["random"]) < 0.2
    assert checked.stable == [False]
    del others["random"]
    assert check_stability(method, method(bursts()), others).stable == [True]


def test_explained_in_the_same_way(features):
    calls = []

    def method(wavs, **how):
        """Remembers what it is asked for."""
        calls.append({"shape": wavs.shape, **how})
        return explain(features, loud, wavs, **how)

    how = {"refine_steps": 3, "second_look": True}
    found = method(bursts(), target=[1], threshold=0.25, **how)
    check_stability(method, found, {"again": method})
    assert calls[0] == calls[1] == calls[2]


def test_each_clip_of_a_batch(features):
    """At its own length, as alone."""
    method = partial(explain, features, loud)
    wavs = torch.cat([bursts(), bursts().flip(1)])
    wavs[1, 5000:] = 0
    found = AudioExplanation.join([method(wavs[:1]), method(wavs[1:, :5000])])
    checked = check_stability(method, found)
    for i, n_samples in enumerate((RATE, 5000)):
        wav = wavs[i : i + 1, :n_samples]
        alone = check_stability(method, method(wav))
        assert checked.agreement[i] == pytest.approx(alone.agreement[0])
    assert checked[1].agreement == checked.agreement[1:]


@pytest.mark.parametrize("n_samples", [64, 300, 800])
def test_short_sounds(features, n_samples):
    method = partial(explain, features, loud)
    checked = check_stability(method, method(bursts(n_samples)))
    assert -1 <= checked.agreement[0][NAME] <= 1


def test_silence(features):
    method = partial(explain, features, loud)
    checked = check_stability(method, method(torch.zeros(1, RATE)))
    assert checked.judged == ["silent, stable"]


def test_what_is_done_to_a_sound():
    """As one sample after the other; the same each time."""
    wav = bursts()[0]
    found = disturbed(wav, 37)
    assert torch.equal(found, disturbed(wav, 37))
    noise = [
        float(found[i]) - (float(wav[i - 37]) if i >= 37 else 0.0)
        for i in range(len(wav))
    ]
    power = sum(x**2 for x in noise) / sum(x**2 for x in wav.tolist())
    assert power == pytest.approx(1e-3, rel=0.05)
    assert not disturbed(torch.zeros(100), 3).any()


def test_a_model_and_a_long_sound(interpreter, sounds):
    """Masks of long files lie on disk, without their magnitude."""
    interpreter.window, before = 8184, interpreter.window
    interpreter.overlap, overlap = 2046, interpreter.overlap
    try:
        long = interpreter.explain_batch(sounds[:1].repeat(1, 2))
        assert long.magnitude is None
        found = check_stability(interpreter.explain_batch, long)
    finally:
        interpreter.window, interpreter.overlap = before, overlap
    assert -1 <= found.agreement[0][NAME] <= 1
    assert found.stable[0] in (True, False)
