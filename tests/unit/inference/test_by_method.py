"""Tests of explanations by other methods."""

import pytest
import soundfile as sf
import torch

from lmac_sb import LMACError
from lmac_sb.inference.by_method import by_method
from lmac_sb.lmac.masking import top_share
from lmac_sb.methods.gradients import ATTRIBUTIONS


@pytest.mark.parametrize("name", ["gradcam", "smoothgrad", "random"])
@pytest.mark.parametrize("area", [0.0, 0.05, 0.3, 1.0])
def test_as_much_is_kept_as_is_asked(interpreter, sounds, name, area):
    found = by_method(interpreter, name, area).explain_batch(sounds)
    assert set(found.mask.unique().tolist()) <= {0.0, 1.0}
    kept = found.mask.mean((1, 2))
    torch.testing.assert_close(
        kept, torch.full_like(kept, area), atol=1e-3, rtol=0
    )
    whole = found.waveform + found.residual
    torch.testing.assert_close(whole, found.wavs, atol=1e-4, rtol=0)


def test_the_loudest_bins_are_the_loudest(interpreter, sounds):
    found = by_method(interpreter, "loudest", 0.1).explain_batch(sounds[:1])
    assert torch.equal(found.mask, top_share(found.magnitude, 0.1))


def test_the_method_is_that_of_the_registry(interpreter, sounds):
    explainer = interpreter.explainer
    wavs = interpreter.preprocess.process(sounds[0], 16000)[0][None]
    target = torch.tensor([1])
    scores = ATTRIBUTIONS["gradcam"](explainer, explainer.analyze(wavs), target)
    found = by_method(interpreter, "gradcam", 0.2).explain_batch(
        sounds[:1], target=1
    )
    inside, outside = scores[found.mask == 1], scores[found.mask == 0]
    assert inside.min() >= outside.max()


def test_a_long_sound_is_explained_in_windows(interpreter, sounds, tmp_path):
    path = tmp_path / "long.wav"
    n_windows = 3
    sf.write(path, sounds.flatten().repeat(8)[: 16000 * 22].numpy(), 16000)
    found = by_method(interpreter, "loudest", 0.1).explain_file(path)
    assert len(found.windows[0]) >= n_windows
    assert 0.08 < float(found.mask.float().mean()) < 0.15


def test_the_interpreter_stays_as_it_is(interpreter, sounds):
    before = interpreter.explain_batch(sounds).mask
    other = by_method(interpreter, "loudest", 0.1)
    assert other.classes == interpreter.classes
    assert torch.equal(interpreter.explain_batch(sounds).mask, before)


@pytest.mark.parametrize("name", ["ideal", "ones", "lmac", "optimised+5"])
def test_a_method_has_to_rank_bins(interpreter, name):
    with pytest.raises(LMACError, match="^methods?: "):
        by_method(interpreter, name, 0.1)
