"""Tests of explanations whose classifier hears the sound itself."""

import pytest
import torch
from test_explainer import N_CLASSES, RATE, TENSORS, clips, same

from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import Question
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError


class Ears(torch.nn.Module):
    """Waveforms to logits: the level of each of a few random filters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.filters = torch.nn.Conv1d(1, N_CLASSES, 64, 16, bias=False)

    def forward(self, wavs):
        """Logits [batch, classes]."""
        return self.filters(wavs[:, None]).square().mean(2).add(1e-5).log()


def make_hearing(**more):
    """Explainer of a classifier of waveforms; the mask acts on magnitudes."""
    frozen = FrozenClassifier(Ears(), torch.nn.Identity(), [], evidence=False)
    loss = LMACLoss(12, 8, "probability", 4)
    options = {"mask_domain": "linear", "refiner": Refiner(loss, 0.5, 8)}
    return Explainer(
        SoundFeatures(RATE, 512), frozen, LevelDecoder(), **{**options, **more}
    )


@pytest.mark.parametrize("domain", ["linear", "log1p"])
@pytest.mark.parametrize("n_samples", [300, 8000, 8191])
def test_mask_of_ones_is_the_sound(n_samples, domain):
    """The same logits, and the same waveform."""
    explainer = make_hearing(mask_domain=domain)
    wavs = clips(2, n_samples)
    analysis = explainer.analyze(wavs)
    assert torch.equal(analysis.logits, explainer.classifier(wavs)[0])
    ones = torch.ones_like(analysis.magnitude)
    found = explainer.complete(analysis, ones)
    assert torch.allclose(found.logits_in, analysis.logits, atol=1e-5)
    assert torch.allclose(found.waveform, wavs, atol=1e-5)
    assert found.residual.abs().max() < 1e-5


def test_both_sides_add_up_to_the_sound():
    explainer, wavs = make_hearing(), clips(2, 8191)
    found = explainer(wavs)
    assert torch.allclose(found.waveform + found.residual, wavs, atol=1e-5)


@pytest.mark.parametrize("domain", ["linear", "log1p"])
def test_what_is_judged_is_what_is_heard(domain):
    """The logits of a side are the classifier's on the returned waveform."""
    explainer, wavs = make_hearing(mask_domain=domain), clips(3)
    found = explainer(wavs, refine_steps=4, unrefined=True)
    ears = Ears()
    for part in (found, found.unrefined):
        for wav, logits in (
            (part.waveform, part.logits_in),
            (part.residual, part.logits_out),
        ):
            assert torch.allclose(ears(wav), logits, atol=1e-5)
            assert torch.allclose(
                explainer.classify_sounds(wav), logits, atol=1e-5
            )


def test_sound_of_a_mask_slowly():
    """The masked magnitude with the sound's own phase, bin by bin."""
    explainer, wavs = make_hearing(), clips(1, 4000)
    features = explainer.features
    stft = features.stft(wavs)
    mask = torch.rand(stft.shape[:3])
    analysis = explainer.analyze(wavs)
    found = explainer.complete(analysis, mask)
    phase = torch.atan2(stft[..., 1], stft[..., 0])
    kept = mask * stft.norm(dim=-1)
    masked = torch.stack((kept * phase.cos(), kept * phase.sin()), -1)
    expected = features.istft(masked, 4000)
    assert torch.allclose(found.waveform, expected, atol=1e-5)


def test_gradient_through_the_sound():
    """Against differences of the logits, for some bins of the mask."""
    explainer, wavs = make_hearing(), clips(2, 4000)
    analysis = explainer.analyze(wavs)
    mask = torch.rand_like(analysis.magnitude).requires_grad_()

    def score(mask):
        """A logit of each clip."""
        kept = explainer.let_through(analysis.magnitude, mask)
        logits = explainer.classify(kept, analysis)
        return logits[0, 1] + 2 * logits[1, 2]

    (gradient,) = torch.autograd.grad(score(mask), mask)
    assert gradient.isfinite().all()
    for place in gradient.flatten().abs().topk(5).indices.tolist():
        step = torch.zeros(mask.numel())
        step[place] = 0.05
        step = step.view_as(mask)
        with torch.no_grad():
            slope = (score(mask + step) - score(mask - step)) / 0.1
        assert float(gradient.flatten()[place]) == pytest.approx(
            float(slope), rel=0.05
        )


def test_refined_clips_are_those_alone():
    """Neither the order of a batch nor its other clips matter."""
    explainer, wavs = make_hearing(), clips(3)
    whole = explainer(wavs, refine_steps=3)
    for i in range(3):
        alone = explainer(wavs[i : i + 1], refine_steps=3)
        same(whole, i, alone, 8000, explainer.features.n_frames(8000), 1e-4)


def test_clips_of_several_lengths_that_are_heard():
    """Each is heard at its own length."""
    explainer, wavs = make_hearing(), clips(3)
    lengths = torch.tensor([1.0, 0.5, 0.731])
    whole = explainer(wavs, lengths, refine_steps=2)
    for i, length in enumerate((8000, 4000, 5848)):
        alone = explainer(wavs[i : i + 1, :length], refine_steps=2)
        n_frames = explainer.features.n_frames(length)
        same(whole, i, alone, length, n_frames, 1e-4)


def test_a_magnitude_needs_its_phase():
    with pytest.raises(LMACError, match="analysis: found none, expected that"):
        make_hearing().classify(torch.rand(1, 4, 257))


def test_silence_that_is_heard():
    """No NaN from the gain of empty bins."""
    found = make_hearing()(torch.zeros(1, 4000), refine_steps=2)
    for name in TENSORS:
        assert getattr(found, name).isfinite().all(), name
    assert not found.waveform.any()


def test_a_score_is_compared_with_silence():
    """Its log-odds are 3 for the sound and -3 for silence, to the bit."""
    explainer, wavs = make_hearing(), clips(2)
    question = Question(score=lambda logits: logits[:, 2])
    found = explainer(wavs, target=question, refine_steps=2)
    silence = Ears()(torch.zeros(1, 8000))[0, 2]
    whole = Ears()(wavs)[:, 2]
    assert torch.allclose(found.question.low, silence.expand(2), atol=1e-5)
    assert torch.allclose(found.question.high, whole, atol=1e-5)
    kept = Ears()(found.waveform)[:, 2]
    share = (kept - silence) / (whole - silence)
    expected = (6 * share - 3).sigmoid()
    assert torch.allclose(found.p_inside, expected, atol=1e-4)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("score", [False, True])
def test_passes_of_the_classifier(score, threshold):
    """One for the sound, 4 a step and 2 for its result.

    That is the check as well, unless the mask is changed after the steps.
    """
    explainer, heard = make_hearing(), []
    refiner = explainer.refiner
    refiner.tolerance = 0
    ears = explainer.classifier.embedding_model

    def count(module, inputs, output):
        """Clips forward, and backward if there will be a gradient."""
        heard.append(len(output) * (2 if output.requires_grad else 1))

    ears.register_forward_hook(count)
    target = Question(score=lambda x: x[:, 0]) if score else None
    explainer(clips(1), target=target, refine_steps=5, threshold=threshold)
    again = 0 if threshold is None else 2
    assert sum(heard) == 1 + (4 * 5 + 2) + again + score


def test_rounding_is_no_rest():
    """A classifier that does not know levels hears nothing in the rest."""
    explainer = make_hearing()
    analysis = explainer.analyze(clips(2, 4096))
    ones = torch.ones_like(analysis.magnitude)
    assert not explainer.complete(analysis, ones).residual.any()


class Wide(torch.nn.Module):
    """Waveforms to an embedding of more than the classes need."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.filters = torch.nn.Conv1d(1, 12, 64, 16, bias=False)

    def forward(self, wavs):
        """Embeddings [batch, 12]."""
        return 9 * self.filters(wavs[:, None]).square().mean(2).add(1e-6).sqrt()


def make_wide(**weights):
    """Explainer of such a classifier, with gain, and the loss's weights."""
    frozen = FrozenClassifier(
        Wide(), torch.nn.Linear(12, N_CLASSES), [], evidence=False
    )
    loss = LMACLoss(12, 8, "probability", **{"reg_w_l1": 4, **weights})
    return Explainer(
        SoundFeatures(RATE, 512),
        frozen,
        LevelDecoder(),
        mask_domain="linear",
        refiner=Refiner(loss, 0.5, 8, gain=True),
        refine_steps=10,
    )


def test_both_sides_are_what_the_classifier_makes_of_the_sounds():
    explainer, wavs = make_wide(), clips(2, 4000)
    question = Question(torch.tensor([1, 0]))
    analysis = explainer.analyze(wavs)
    mask = torch.rand_like(analysis.magnitude)
    whole = explainer.embedding(analysis)
    found = explainer.both_sides(analysis, mask, question, whole)
    sounds = explainer.complete(analysis, mask, question)
    net = explainer.classifier.embedding_model
    for answers, embedding, sound in (
        (found[0], found[2].inside, sounds.waveform),
        (found[1], found[2].outside, sounds.residual),
    ):
        torch.testing.assert_close(embedding, net(sound))
        expected = explainer.classifier.classifier(net(sound))
        torch.testing.assert_close(answers, expected)
    torch.testing.assert_close(whole, net(wavs))
    assert len(explainer.both_sides(analysis, mask, question)) == 2


def test_the_embedding_of_the_whole_takes_no_pass_more():
    """The pass that decides has it: 1, then 4 a step and 2 for its result."""
    explainer, heard = make_wide(e_in_w=20, e_out_w=10), []
    explainer.refiner.tolerance = 0
    explainer.classifier.embedding_model.register_forward_hook(
        lambda module, inputs, output: heard.append(
            len(output) * (2 if output.requires_grad else 1)
        )
    )
    explainer(clips(1, 4000), refine_steps=5)
    assert sum(heard) == 1 + (4 * 5 + 2)


@pytest.mark.parametrize("key", ["e_in_w", "e_out_w"])
def test_steps_keep_or_lose_the_embedding(key):
    """What the weight is put on becomes better than without it."""
    wavs = clips(3, 4000)
    reached = {}
    for weight in (0, 100):
        explainer = make_wide(**{key: weight})
        found = explainer(wavs)
        net = explainer.classifier.embedding_model
        part = found.waveform if key == "e_in_w" else found.residual
        cosine = torch.cosine_similarity(net(part), net(wavs), dim=1)
        cosine = float(cosine.mean())
        reached[weight] = 1 - cosine if key == "e_in_w" else cosine
    assert reached[100] < 0.95 * reached[0]


def test_embeddings_do_not_depend_on_the_batch():
    """Also where some clips are done before the others."""
    explainer = make_wide(e_in_w=20, e_out_w=10)
    explainer.refiner.tolerance = 1e-2
    wavs = clips(3, 4000)
    together = explainer(wavs).mask
    for i in range(3):
        alone = explainer(wavs[i : i + 1]).mask[0]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)
