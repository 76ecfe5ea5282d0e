"""Tests of the second look: one step that hears the kept part alone."""

import pytest
import torch
from torch.nn import functional as F

from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner
from lmac_sb.methods.registry import make_case, make_methods, passes
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.question import Question
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError

N_CLASSES = 3
AREA = 4.0


class Waves(torch.nn.Module):
    """A classifier of waveforms, [batch, samples] to [batch, classes]."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(
            torch.randn(N_CLASSES, 1, 64, generator=generator)
        )

    def forward(self, wavs, lengths=None):
        """Logits [batch, classes]."""
        return F.conv1d(wavs[:, None], self.weight).square().mean(2)


def make(refiner=True, multilabel=False, domain="linear", **more):
    """Explainer with small random models."""
    torch.manual_seed(3)
    embedding = ConvEmbedding(40, [4, 4, 8, 8, 16])
    with torch.no_grad():
        embedding(3 * torch.rand(8, 32, 40))
    frozen = FrozenClassifier(
        embedding,
        torch.nn.Linear(16, N_CLASSES),
        ["blocks.4", "blocks.2"],
        16,
        evidence=False,
        multilabel=multilabel,
    )
    loss = LMACLoss(12, 8, "probability", AREA)
    return Explainer(
        SpectralFeatures(n_fft=512, n_mels=40),
        frozen,
        MaskDecoder([16, 8], n_mels=40, n_fft=512, width=8),
        domain,
        Refiner(loss, lr=0.7, smooth_w=0.1) if refiner else None,
        **more,
    )


def hearing_sound():
    """Explainer of a classifier that hears the sound itself."""
    frozen = FrozenClassifier(
        Waves(), torch.nn.Identity(), latent_layers=[], evidence=False
    )
    return Explainer(
        SoundFeatures(16000),
        frozen,
        Level(),
        "linear",
        Refiner(LMACLoss(1, 1, "probability", AREA), lr=0.7),
    )


class Level(torch.nn.Module):
    """Decoder that follows the level."""

    def forward(self, latents, log_magnitude):
        """Mask logits [batch, time, freq]."""
        return log_magnitude - log_magnitude.mean((1, 2), keepdim=True)


def clips(n_clips=3):
    """Noise with a tone of its own for each clip."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(8000) / 16000
    hertz = 300.0 * torch.arange(1, n_clips + 1)[:, None]
    noise = torch.randn(n_clips, 8000, generator=generator)
    return 0.3 * torch.sin(2 * torch.pi * hertz * time) + 0.1 * noise


def slow_look(explainer, wav, question, lr):
    """One clip, cell by cell, by the definition."""
    analysis = explainer.analyze(wav[None])
    question = question.settle(analysis.logits)
    with torch.no_grad():
        mask = explainer.mask(analysis).double()
    start = torch.logit(mask, eps=1e-12).float()
    _, n_frames, n_bins = start.shape
    n = explainer.refiner.resolution
    cells = -(-n_frames // n), -(-n_bins // n)
    shift = torch.zeros(1, 1, *cells, requires_grad=True)

    def shifted(values):
        whole = F.interpolate(values, scale_factor=n, mode="bilinear")
        return torch.sigmoid(start + whole[:, 0, :n_frames, :n_bins])

    kept = shifted(shift)
    logits = explainer.complete(analysis, kept, sounds=False).logits_in
    if question.multilabel:
        odds = logits[0, question.decision[0]]
    else:
        p = logits[0].double().softmax(0)[question.decision[0]]
        odds = torch.log(p) - torch.log1p(-p)
    (AREA * kept.mean() - odds).backward()
    return shifted(-lr * shift.grad.sign()).detach()[0]


@pytest.mark.parametrize("domain", ["linear", "log1p"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_it_is_one_step_by_the_sign(multilabel, domain):
    """The mask is that of the definition, clip by clip."""
    explainer = make(multilabel=multilabel, domain=domain)
    wavs = clips()
    target = torch.tensor([0, 2, 1])
    found = explainer(wavs, target=target, second_look=True).mask
    before = explainer(wavs, target=target).mask
    for row, wav in enumerate(wavs):
        question = Question(target[row : row + 1], multilabel=multilabel)
        expected = slow_look(explainer, wav, question, 0.7)
        # A gradient that is all but zero may have either sign.
        same = (found[row] - expected).abs() < 1e-4
        assert same.float().mean() > 0.999
        assert (found[row] - before[row]).abs().max() > 0.1


def test_it_brings_the_decision_back():
    """More of the decision is kept than by the decoder's mask."""
    explainer = make()
    wavs = clips()
    explainer.refiner.loss.reg_w_l1 = 0
    first, second = explainer(wavs), explainer(wavs, second_look=True)
    odds = [Question(x.decision).log_odds(x.logits_in) for x in (first, second)]
    assert (odds[1] > odds[0] + 1e-3).all()


def test_of_a_classifier_that_hears_sound():
    explainer = hearing_sound()
    found = explainer(clips(), second_look=True)
    for row, wav in enumerate(clips()):
        question = Question(found.decision[row : row + 1])
        expected = slow_look(explainer, wav, question, 0.7)
        same = (found.mask[row] - expected).abs() < 1e-4
        assert same.float().mean() > 0.99


def test_three_passes():
    """One to decide, one forward on what is kept, and one back."""
    explainer = make()
    count = []

    def seen(module, inputs):
        count.append(len(inputs[0]))
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda x: count.append(len(x)))

    explainer.classifier.embedding_model.register_forward_pre_hook(seen)
    explainer(clips(), second_look=True, check=False)
    assert count == [3, 3, 3]
    method = make_methods(["lmac_look"], {"lmac": explainer})["lmac_look"]
    assert passes(method) == 3


def test_the_default_is_the_constructors():
    wavs = clips()
    one, other = make(), make(second_look=True)
    looked = one(wavs, second_look=True)
    assert torch.equal(other(wavs).mask, looked.mask)
    assert torch.equal(other(wavs, second_look=False).mask, one(wavs).mask)
    assert torch.equal(
        other.starting_from(other.decoder)(wavs).mask, looked.mask
    )


def test_steps_go_on_from_it():
    """The decoder's own mask is what is kept for comparison."""
    explainer = make()
    wavs = clips()
    found = explainer(wavs, second_look=True, refine_steps=2, unrefined=True)
    analysis = explainer.analyze(wavs)
    with torch.no_grad():
        mask = explainer.mask(analysis)
    looked = explainer.look_again(analysis, mask)
    assert torch.equal(found.mask, explainer.refine(analysis, looked, 2))
    assert torch.equal(found.unrefined.mask, mask)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(mode):
    explainer, wavs = make(), clips()
    expected = explainer(wavs, second_look=True).mask
    with mode():
        found = explainer(wavs * 1.0, second_look=True).mask
    assert torch.equal(found, expected) and not expected.requires_grad


def test_padded_clips_get_what_they_get_alone():
    explainer, wavs = make(), clips()
    found = explainer(wavs, torch.tensor([1, 0.5, 1]), second_look=True)
    alone = explainer(wavs[1:2, :4000], second_look=True)
    n_frames = alone.mask.shape[1]
    close = (found.mask[1, :n_frames] - alone.mask[0]).abs() < 1e-4
    assert close.float().mean() > 0.999


def test_without_a_refiner():
    explainer = make(refiner=False)
    with pytest.raises(LMACError, match="second_look: True, but .* no refiner"):
        explainer(clips(), second_look=True)
    with pytest.raises(LMACError, match="second_look: True, but .* no refiner"):
        make(refiner=False, second_look=True)


@pytest.mark.parametrize("value", [1, "yes", 0])
def test_neither_true_nor_false(value):
    with pytest.raises(LMACError, match="second_look: .*, expected True or"):
        make()(clips(), second_look=value)


def test_no_gradient():
    """A classifier without gradients gives a clear error."""
    explainer = hearing_sound()
    net = explainer.classifier.embedding_model
    net.forward = lambda wavs, lengths=None: Waves.forward(net, wavs.detach())
    with pytest.raises(LMACError, match="needs a differentiable classifier"):
        explainer(clips(), second_look=True)


def test_a_gradient_that_is_no_number():
    """The mask stays where the gradient has no direction."""
    explainer = hearing_sound()
    net = explainer.classifier.embedding_model
    net.forward = lambda wavs, lengths=None: (
        Waves.forward(net, wavs) * torch.sqrt(wavs.sum() * 0)
    )
    found = explainer(clips(), second_look=True)
    assert torch.allclose(found.mask, explainer(clips()).mask, atol=1e-5)


def test_as_a_method():
    """`lmac_look` is a row of any table."""
    explainer, wavs = make(), clips(2)
    items = [{"id": x} for x in "ab"]
    case = make_case(explainer, wavs, [1.0, 1.0], items)
    method = make_methods(["lmac_look"], {"lmac": explainer})["lmac_look"]
    expected = explainer(wavs, second_look=True).mask
    assert torch.allclose(method.function(case), expected, atol=1e-6)
