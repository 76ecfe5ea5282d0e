"""Tests of the way from a waveform to its explanation."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from speechbrain.lobes.models.Cnn14 import CNN14PSI_stft

from lmac_sb.lmac.explainer import Explainer, Explanation
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.psi import PSIAdapter
from lmac_sb.utils.errors import LMACError

RATE = 16000
N_CLASSES = 3
MIN_FRAMES = 16
TENSORS = [
    f.name
    for f in fields(Explanation)
    if f.name not in ("question", "unrefined")
]


class Constant(torch.nn.Module):
    """Decoder that gives the same logit for each bin."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, latents, log_magnitude):
        """Mask logits [batch, time, freq]."""
        return torch.full_like(log_magnitude, self.logit)


def make(decoder=None, mask_domain="log1p", **more):
    """Explainer with small random models and varied statistics."""
    torch.manual_seed(3)
    embedding = ConvEmbedding(40, [4, 4, 8, 8, 16])
    with torch.no_grad():
        embedding(3 * torch.rand(8, 32, 40))
    linear = torch.nn.Linear(16, N_CLASSES)
    frozen = FrozenClassifier(
        embedding, linear, ["blocks.4", "blocks.2"], MIN_FRAMES
    )
    if decoder is None:
        decoder = MaskDecoder([16, 16, 8], n_mels=40, n_fft=512, width=8)
    features = SpectralFeatures(n_fft=512, n_mels=40)
    return Explainer(features, frozen, decoder, mask_domain, **more)


def make_refined(**more):
    """Explainer that can refine."""
    loss = LMACLoss(12, 8, "probability", 4)
    return make(mask_domain="linear", refiner=Refiner(loss), **more)


@pytest.fixture(scope="module")
def explainer():
    """Random classifier and decoder."""
    return make()


def clips(n_clips=2, n_samples=8000):
    """Noise with a tone of its own for each clip."""
    time = torch.arange(n_samples) / RATE
    hertz = 300.0 * torch.arange(1, n_clips + 1)[:, None]
    tones = torch.sin(2 * torch.pi * hertz * time)
    return 0.3 * tones + 0.1 * torch.randn(n_clips, n_samples)


def snr_db(reference, estimate):
    """Ratio of a signal's energy to that of the error, in dB."""
    error = (reference - estimate).square().sum()
    return float(10 * torch.log10(reference.square().sum() / error))


def same(explanation, row, alone, n_samples, n_frames, tolerance=1e-5):
    """Compare a clip of a batch with the same clip explained alone."""
    for name in TENSORS:
        whole, part = getattr(explanation, name), getattr(alone, name)
        if name == "embedding" and whole is None:
            assert part is None  # the classifier's pass tells of none
            continue
        length = None
        if name in ("waveform", "residual"):
            length = n_samples
        elif name in ("mask", "magnitude"):
            length = n_frames
        value = whole[row]
        if length is not None:
            assert part.shape[1] == length
            assert not value[length:].any(), f"padding of {name}"
            value = value[:length]
        assert torch.allclose(value, part[0], atol=tolerance), name


@pytest.mark.parametrize(
    "n_samples", [1, 100, 1600, 2400, 4000, 5000, 8000, 12345, 16000, 32000]
)
def test_shapes_for_any_length(explainer, n_samples):
    """Clips of any length are explained to the last frame and sample."""
    wavs = clips(2, n_samples)
    explanation = explainer(wavs)
    n_frames = explainer.features.stft(wavs).shape[1]
    assert explainer.features.n_frames(n_samples) == n_frames
    assert explanation.waveform.shape == (2, n_samples)
    assert explanation.residual.shape == (2, n_samples)
    assert explanation.mask.shape == (2, n_frames, 257)
    assert explanation.magnitude.shape == (2, n_frames, 257)
    for logits in ("logits", "logits_in", "logits_out"):
        assert getattr(explanation, logits).shape == (2, N_CLASSES)
    assert explanation.decision.shape == (2,)
    for name in TENSORS:
        assert getattr(explanation, name).isfinite().all(), name
    assert 0 <= explanation.mask.min() <= explanation.mask.max() <= 1


def test_short_clips_are_classified_with_silence_behind(explainer):
    """Below the shortest input the classifier gets frames of silence."""
    wavs = clips(2, 1600)
    features = explainer.features
    mel = features.mel(features.magnitude(features.stft(wavs)))
    assert mel.shape[1] == 9 < MIN_FRAMES
    padded = torch.nn.functional.pad(mel, (0, 0, 0, MIN_FRAMES - 9))
    expected = explainer.classifier(padded)[0]
    assert torch.allclose(explainer(wavs).logits, expected, atol=1e-5)


def test_logits_are_the_classifiers(explainer):
    """The logits equal the classifier's, computed step by step."""
    wavs = clips()
    explanation = explainer(wavs)
    features, classifier = explainer.features, explainer.classifier
    magnitude = features.magnitude(features.stft(wavs))
    assert torch.equal(explanation.magnitude, magnitude)
    for logits, mask in (
        (explanation.logits, torch.ones_like(magnitude)),
        (explanation.logits_in, explanation.mask),
        (explanation.logits_out, 1 - explanation.mask),
    ):
        masked = torch.exp(mask * torch.log(1 + magnitude)) - 1
        expected = classifier(features.mel(masked))[0]
        assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.equal(explanation.decision, explanation.logits.argmax(1))


@pytest.mark.parametrize("domain", ["log1p", "linear"])
@pytest.mark.parametrize("n_samples", [1600, 8000, 12345])
def test_mask_of_ones_changes_nothing(domain, n_samples):
    """The sound and the logits are those of the input."""
    explainer = make(Constant(100.0), domain)
    wavs = clips(2, n_samples)
    explanation = explainer(wavs)
    assert (explanation.mask == 1).all()
    assert snr_db(wavs, explanation.waveform) > 60
    assert explanation.residual.abs().max() < 1e-4
    assert torch.allclose(explanation.logits_in, explanation.logits, atol=1e-4)


@pytest.mark.parametrize("domain", ["log1p", "linear"])
def test_mask_of_zeros_is_silence(domain):
    """With a mask of zeros, the rest is the input."""
    explainer = make(Constant(-1000.0), domain)
    wavs = clips()
    explanation = explainer(wavs)
    assert (explanation.mask == 0).all()
    assert explanation.waveform.abs().max() < 1e-4
    assert snr_db(wavs, explanation.residual) > 60
    assert torch.allclose(explanation.logits_out, explanation.logits, atol=1e-4)


def test_any_mask_can_be_completed(explainer):
    """`complete` takes masks from elsewhere."""
    analysis = explainer.analyze(clips())
    ones = torch.ones_like(analysis.magnitude)
    explanation = explainer.complete(analysis, ones)
    assert torch.allclose(explanation.logits_in, analysis.logits, atol=1e-4)
    for wanted in ({}, {"check": False}, {"sounds": False}):
        with pytest.raises(LMACError, match=r"mask: shape \(2, 5, 257\)"):
            explainer.complete(analysis, ones[:, :5], **wanted)


def test_in_and_out_add_up_in_the_linear_domain():
    """The two sounds add up to the input, for any mask."""
    explainer = make(mask_domain="linear")
    wavs = clips(2, 12345)
    explanation = explainer(wavs)
    assert explanation.mask.std() > 0.01
    whole = explanation.waveform + explanation.residual
    assert torch.allclose(whole, wavs, atol=1e-5)


@pytest.mark.parametrize("domain, inverses", [("linear", 2), ("log1p", 4)])
def test_the_sounds_are_those_of_each_side(domain, inverses, monkeypatch):
    """Sides that add up take one inverse STFT, and both are as from two."""
    explainer = make(mask_domain=domain)
    features, wavs = explainer.features, clips(2, 12345)
    rows, inverse = [], features.istft

    def counting(stft, n_samples):
        rows.append(len(stft))
        return inverse(stft, n_samples)

    monkeypatch.setattr(features, "istft", counting)
    found = explainer(wavs, check=False)
    assert sum(rows) == inverses
    stft = features.stft(wavs)
    for sound, mask in (
        (found.waveform, found.mask),
        (found.residual, 1 - found.mask),
    ):
        gain = mask
        if domain == "log1p":
            gain = found.magnitude.log1p().mul(mask).expm1() / found.magnitude
        expected = inverse(stft * gain[..., None], 12345)
        torch.testing.assert_close(sound, expected, rtol=0, atol=1e-5)


def test_unknown_mask_domain():
    """The message lists the known domains."""
    with pytest.raises(LMACError, match="'log' is none of .*log1p.*linear"):
        make(mask_domain="log")


@pytest.mark.parametrize("sounds", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_padded_clips_get_what_they_get_alone(explainer, threshold, sounds):
    """Three lengths in one batch; padding changes nothing and stays zero."""
    samples = [3000, 8000, 1600, 8000]
    wavs = clips(4)
    for row, n_samples in enumerate(samples):
        wavs[row, n_samples:] = 0
    lengths = torch.tensor(samples) / 8000
    options = {"threshold": threshold, "sounds": sounds}
    explanation = explainer(wavs, lengths, **options)
    names = [n for n in TENSORS if n not in ("waveform", "residual")]
    if not sounds:
        assert explanation.waveform is None
        assert explanation.residual is None
    for row, n_samples in enumerate(samples):
        alone = explainer(wavs[row : row + 1, :n_samples], **options)
        n_frames = explainer.features.n_frames(n_samples)
        if sounds:
            same(explanation, row, alone, n_samples, n_frames)
            continue
        for name in names:
            value = getattr(explanation, name)[row]
            part = getattr(alone, name)[0]
            value = value[:n_frames] if value.dim() == 2 else value
            assert torch.allclose(value, part, atol=1e-5), name


def test_padding_is_never_read(explainer):
    """Samples after the end of a clip do not matter."""
    lengths = torch.tensor([0.5, 1.0])
    quiet = clips()
    quiet[0, 4000:] = 0
    loud = quiet.clone()
    loud[0, 4000:] = 5.0
    a, b = explainer(quiet, lengths), explainer(loud, lengths)
    for name in TENSORS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_independent_of_batch_mates(explainer):
    """No threshold or statistic depends on the rest of the batch."""
    wavs = clips(3)
    wavs[1] *= 50
    wavs[2] = 0
    explanation = explainer(wavs)
    for row in range(3):
        alone = explainer(wavs[row : row + 1])
        same(explanation, row, alone, 8000, 44, tolerance=1e-3)


def test_silence_is_explained_without_nan(explainer):
    """A silent clip gives finite results, and silence."""
    explanation = explainer(torch.zeros(1, 8000))
    for name in TENSORS:
        assert getattr(explanation, name).isfinite().all(), name
    assert explanation.waveform.abs().max() < 1e-6


def test_target(explainer):
    """Any class can be explained, from its own evidence."""
    wavs = clips()
    default = explainer(wavs)
    target = (default.decision + 1) % N_CLASSES
    other = explainer(wavs, target=target)
    assert torch.equal(other.decision, target)
    assert torch.equal(other.logits, default.logits)
    assert (other.mask - default.mask).abs().max() > 1e-3
    evidence = explainer.analyze(wavs).latents[0]
    for_target = explainer.analyze(wavs, target).latents[0]
    assert (evidence - for_target).abs().max() > 1e-4
    same_class = explainer(wavs, target=default.decision)
    assert torch.equal(same_class.mask, default.mask)


@pytest.mark.parametrize(
    "target",
    [1, np.int64(1), [1, 1], np.array([1, 1]), torch.tensor([1, 1]).int()],
)
@pytest.mark.parametrize("lengths", [None, torch.tensor([1.0, 0.5])])
def test_a_target_by_number(explainer, target, lengths):
    """One for all clips, or one for each, of any type."""
    wavs = clips()
    expected = explainer(wavs, lengths, torch.tensor([1, 1]))
    found = explainer(wavs, lengths, target)
    assert torch.equal(found.decision, expected.decision)
    assert torch.equal(found.mask, expected.mask)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("dog", "target: found 'dog', expected the number of a class, or one"),
        (True, "target: found True"),
        (1.0, "target: found 1.0"),
        ([0.0, 1.0], r"target: found \[0.0, 1.0\]"),
        (torch.tensor([0, 1, 2]), "target: found .*one for each of 2 clips"),
        ([0, 9], "target: found class 9, expected one from 0 to"),
        (-1, "target: found class -1"),
        (torch.zeros(2, 9, dtype=torch.bool), "target: found a mask of 9"),
    ],
)
def test_no_target(explainer, target, message):
    analysis = explainer.analyze(clips())
    for given in ({"wavs": clips()}, {"analysis": analysis}):
        with pytest.raises(LMACError, match=message):
            explainer(**given, target=target)


def test_target_of_padded_clips(explainer):
    """Each clip keeps its own target when lengths differ."""
    wavs, lengths = clips(3), torch.tensor([1.0, 0.5, 0.25])
    target = torch.tensor([2, 0, 1])
    explanation = explainer(wavs, lengths, target)
    assert torch.equal(explanation.decision, target)
    for row, n_samples in enumerate((8000, 4000, 2000)):
        alone = explainer(
            wavs[row : row + 1, :n_samples], target=target[row : row + 1]
        )
        n_frames = explainer.features.n_frames(n_samples)
        same(explanation, row, alone, n_samples, n_frames)


def test_threshold_makes_the_mask_binary(explainer):
    """The mask is 1 where the continuous one reaches the threshold."""
    wavs = clips()
    soft = explainer(wavs).mask.detach()
    threshold = float(soft.median())
    hard = explainer(wavs, threshold=threshold).mask
    assert torch.equal(hard, (soft >= threshold).float())
    assert 0 < hard.mean() < 1
    with pytest.raises(LMACError, match="threshold: 0"):
        explainer(wavs, threshold=0)


def test_gradient_reaches_the_decoder_and_nothing_else():
    """The gradient reaches the decoder's weights and nothing else."""
    explainer = make()
    analysis = explainer.analyze(clips().requires_grad_())
    assert not analysis.logits.requires_grad
    assert not any(h.requires_grad for h in analysis.latents)
    assert not analysis.magnitude.requires_grad
    explanation = explainer(clips(), sounds=False)
    assert explanation.mask.requires_grad
    loss = torch.nn.functional.cross_entropy(
        explanation.logits_in, explanation.decision
    )
    loss.backward()
    for name, parameter in explainer.decoder.named_parameters():
        if not name.startswith("grow.0"):  # no doubling between equal sizes
            assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in explainer.classifier.parameters())


def test_sounds_carry_no_graph(explainer):
    """Sounds are detached from the graph."""
    explanation = explainer(clips())
    assert not explanation.waveform.requires_grad
    assert not explanation.residual.requires_grad


class PerClass(torch.nn.Module):
    """Decoder that wants the class, and outputs its number."""

    wants_target = True

    def forward(self, latents, log_magnitude, target):
        """Mask logits [batch, time, freq], 0 for class 0, 1 for class 1 ..."""
        return target[:, None, None].expand_as(log_magnitude).float()


def classes_told(explanation, n_frames=None):
    """Class that each clip's mask shows, read from its first frames."""
    values = explanation.mask[:, :n_frames].flatten(1)
    assert torch.equal(values.amin(1), values.amax(1))
    return torch.logit(values[:, 0]).round().long()


def test_decoder_that_wants_the_class_gets_it():
    """The decoder gets the decision by default, else the target."""
    explainer = make(PerClass())
    wavs = clips(3)
    default = explainer(wavs)
    assert torch.equal(classes_told(default), default.logits.argmax(1))
    target = torch.tensor([2, 0, 1])
    assert torch.equal(classes_told(explainer(wavs, target=target)), target)
    analysis = explainer.analyze(wavs, target)
    mask = explainer.mask(analysis, target)
    assert torch.equal(mask, explainer(wavs, target=target).mask)
    assert torch.equal(explainer.mask(analysis), default.mask)
    lengths = torch.tensor([1.0, 0.5, 0.25])
    padded = explainer(wavs, lengths, target)
    assert torch.equal(classes_told(padded, 10), target)


@pytest.mark.parametrize("sounds", [True, False])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_no_pass_is_wasted(sounds, threshold):
    """An explanation takes one STFT, two classifications, one decoding."""
    explainer = make()
    calls = {"stft": [], "istft": [], "classifier": [], "decoder": []}
    for name, module in (
        ("stft", explainer.features.compute_stft),
        ("istft", explainer.features.compute_istft),
        ("classifier", explainer.classifier.embedding_model),
        ("decoder", explainer.decoder.coefficients),
    ):
        module.register_forward_pre_hook(
            lambda m, inputs, name=name: calls[name].append(len(inputs[0]))
        )
    explainer(clips(3), sounds=sounds, threshold=threshold)
    assert calls["stft"] == [3]
    assert calls["classifier"] == [3, 6]
    assert calls["decoder"] == [3]
    assert calls["istft"] == ([6] if sounds else [])


@pytest.mark.parametrize(
    "wavs, message",
    [
        (torch.zeros(100), r"wavs: shape \(100,\), expected \[batch, samp"),
        (torch.zeros(2, 0), r"wavs: shape \(2, 0\).* at least one sample"),
        (torch.zeros(0, 100), r"wavs: shape \(0, 100\)"),
        (torch.zeros(1, 2, 100), r"wavs: shape \(1, 2, 100\)"),
        (torch.zeros(1, 9, dtype=torch.int16), "wavs: found torch.int16"),
        (torch.ones(1, 9, dtype=torch.bool), "wavs: found torch.bool"),
        (torch.zeros(1, 9, dtype=torch.cfloat), "wavs: found torch.complex"),
        (torch.ones(1, 9).to_sparse(), "wavs: found a tensor of torch.sparse"),
        (torch.zeros(1, 9, device="meta"), "wavs: .*on meta, expected a dense"),
    ],
)
def test_wrong_shapes(explainer, wavs, message):
    """The message names what was found and what is expected."""
    with pytest.raises(LMACError, match=message):
        explainer(wavs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_samples(explainer, bad):
    """The message names the clips."""
    wavs = clips(4)
    wavs[1, 7] = wavs[3, 0] = bad
    with pytest.raises(LMACError, match=r"NaN or infinite .* clips \[1, 3\]"):
        explainer(wavs)


@pytest.mark.parametrize(
    "lengths", [[0.0, 1.0], [0.5, 1.1], [1.0], [float("nan"), 1.0]]
)
def test_bad_lengths(explainer, lengths):
    """Lengths out of range, or of another number, are refused."""
    with pytest.raises(LMACError, match=r"lengths: \[.* each of 2 clips"):
        explainer(clips(), torch.tensor(lengths))


@pytest.mark.parametrize("kind", [list, np.array])
def test_lengths_that_are_no_tensor(explainer, kind):
    with pytest.raises(LMACError, match="lengths: found an? (list|ndarray)"):
        explainer(clips(), kind([1.0, 0.5]))


def test_autocast_gives_a_float_mask(explainer):
    """Mixed precision works, and does not round the mask."""
    wavs = clips()
    expected = explainer(wavs)
    with torch.autocast("cpu", torch.bfloat16):
        explanation = explainer(wavs)
    assert explanation.mask.dtype == torch.float32
    assert explanation.waveform.dtype == torch.float32
    # bfloat16 holds 8 bits.
    assert (explanation.mask - expected.mask).abs().mean() < 0.03
    assert torch.equal(explanation.magnitude, expected.magnitude)
    for name in TENSORS:
        assert getattr(explanation, name).isfinite().all(), name


def test_gradient_in_autocast():
    """A step of mixed-precision training."""
    explainer = make()
    with torch.autocast("cpu", torch.bfloat16):
        explanation = explainer(clips(), sounds=False)
        loss = explanation.logits_in.float().square().mean()
    loss.backward()
    assert explainer.decoder.coefficients.weight.grad.abs().sum() > 0
    assert explainer.decoder.coefficients.weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_are_converted(explainer, dtype):
    """Inputs of other precisions are converted."""
    wavs = clips().to(dtype)
    explanation, expected = explainer(wavs), explainer(wavs.float())
    for name in TENSORS:
        value = getattr(explanation, name)
        assert torch.equal(value, getattr(expected, name)), name


@pytest.mark.parametrize("kind", ["double", "half", "bfloat16"])
def test_a_decoder_of_another_precision(kind):
    explainer = getattr(make(), kind)()
    with pytest.raises(LMACError, match="decoder: found weights of torch"):
        explainer(clips())
    explainer.float()(clips())


def test_no_gradient_mode_gives_the_same(explainer):
    """Explanations are the same with and without gradients."""
    wavs = clips()
    expected = explainer(wavs)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            explanation = explainer(wavs)
        for name in TENSORS:
            assert torch.equal(
                getattr(explanation, name), getattr(expected, name)
            ), name
        assert not explanation.mask.requires_grad


def test_speechbrains_decoder_is_adapted():
    """SpeechBrain's decoder is wrapped in its adapter."""
    explainer = make(CNN14PSI_stft(dim=32))
    assert isinstance(explainer.decoder, PSIAdapter)


def test_without_check_one_pass_is_enough(explainer):
    """Without the check, sounds and mask stay the same."""
    wavs = clips()
    passes = []
    hook = explainer.classifier.classifier.register_forward_hook(
        lambda *args: passes.append(1)
    )
    quick = explainer(wavs, check=False)
    assert len(passes) == 1
    hook.remove()
    assert quick.logits_in is None and quick.logits_out is None
    checked = explainer(wavs)
    assert torch.equal(quick.mask, checked.mask)
    assert torch.equal(quick.waveform, checked.waveform)
    lengths = torch.tensor([0.5, 1.0])
    assert explainer(wavs, lengths, check=False).logits_in is None


# ------------------------------------------------------------- refinement


def test_unrefined_is_kept_when_asked_for(monkeypatch):
    """The unrefined explanation equals one without any step."""
    explainer = make_refined()
    wavs, lengths = torch.rand(3, 8000) - 0.5, torch.tensor([1.0, 0.5, 1.0])
    plain = explainer(wavs, lengths)
    assert explainer(wavs, lengths, refine_steps=2).unrefined is None
    assert explainer(wavs, lengths, unrefined=True).unrefined is None
    analyses, analyze = [], explainer.analyze
    monkeypatch.setattr(
        explainer,
        "analyze",
        lambda *a: analyses.append(len(a[0])) or analyze(*a),
    )
    found = explainer(wavs, lengths, refine_steps=2, unrefined=True)
    assert sum(analyses) == 3
    for name in TENSORS:
        assert torch.equal(getattr(found.unrefined, name), getattr(plain, name))
    assert not torch.equal(found.mask, plain.mask)


@pytest.fixture(scope="module")
def refining():
    """Explainer that refines only on request."""
    return make_refined()


def objective(explainer, explanation):
    """The objective that the refiner minimises, [batch]."""
    return explainer.refiner.loss(
        explanation.mask,
        explanation.logits_in,
        explanation.logits_out,
        explanation.decision,
    )[0].detach()


@pytest.mark.parametrize("domain", ["log1p", "linear"])
def test_refined_masks_are_better(refining, domain):
    """More steps give masks with a better objective."""
    explainer = make(mask_domain=domain, refiner=refining.refiner)
    wavs = clips(3)
    found = [explainer(wavs, refine_steps=k) for k in (0, 1, 5)]
    losses = [objective(explainer, x) for x in found]
    assert (losses[1] < losses[0] - 1e-3).all()
    assert (losses[2] < losses[1] - 1e-3).all()
    assert torch.equal(found[0].mask, explainer(wavs).mask)
    for explanation in found[1:]:
        assert (explanation.mask - found[0].mask).abs().max() > 0.1
        assert torch.equal(explanation.decision, found[0].decision)
        assert torch.equal(explanation.logits, found[0].logits)
    # The sounds are those of the refined mask.
    whole = explainer.complete(explainer.analyze(wavs), found[2].mask)
    assert torch.equal(whole.waveform, found[2].waveform)


def test_steps_of_the_constructor(refining):
    """The constructor sets the default number of steps of a call."""
    explainer = make_refined(refine_steps=2)
    wavs = clips()
    two = refining(wavs, refine_steps=2)
    assert torch.equal(explainer(wavs).mask, two.mask)
    assert torch.equal(explainer(wavs, refine_steps=2).mask, two.mask)
    none = explainer(wavs, refine_steps=0)
    assert torch.equal(none.mask, refining(wavs).mask)
    assert not torch.equal(none.mask, two.mask)


def test_refining_starts_at_the_mask(refining):
    """Without a step the mask stays; a step without effect keeps it."""
    analysis = refining.analyze(clips())
    mask = torch.rand_like(analysis.magnitude)
    mask[:, 0], mask[:, 1] = 0, 1
    assert torch.equal(refining.refine(analysis, mask, 0), mask)
    loss = LMACLoss(0, 0, reg_w_l1=0)  # wants nothing
    explainer = make(refiner=Refiner(loss))
    found = explainer.refine(analysis, mask, 1)
    assert torch.allclose(found, mask, atol=2e-6)


def test_refining_keeps_the_order_of_small_values(refining):
    """Refining keeps the order of very small values of a mask."""
    analysis = refining.analyze(clips())
    mask = torch.logspace(-11, -1, analysis.magnitude.numel())
    explainer = make(refiner=Refiner(LMACLoss(0, 0, reg_w_l1=0)))
    found = explainer.refine(
        analysis, mask.view_as(analysis.magnitude), 1
    ).flatten()
    assert torch.allclose(found, mask, rtol=1e-3, atol=0)


def test_refined_padded_clips_get_what_they_get_alone(refining):
    """Padded clips are refined as they are alone."""
    samples = [3000, 8000, 1600, 8000]
    wavs = clips(4)
    wavs[3] = 0
    lengths = torch.tensor(samples) / 8000
    found = refining(wavs, lengths, refine_steps=3)
    for row, n_samples in enumerate(samples):
        alone = refining(wavs[row : row + 1, :n_samples], refine_steps=3)
        n_frames = refining.features.n_frames(n_samples)
        same(found, row, alone, n_samples, n_frames, tolerance=1e-4)


def test_refining_for_a_target():
    """Refining is for the target, not the decision."""
    loss = LMACLoss(1, 0, reg_w_l1=0)  # depends only on the class
    explainer = make(refiner=Refiner(loss))
    wavs, lengths = clips(3), torch.tensor([1.0, 0.5, 1.0])
    target = (explainer(wavs, lengths).decision + 1) % N_CLASSES
    found = [
        explainer(wavs, lengths, target, refine_steps=k).logits_in.softmax(1)
        for k in (0, 5)
    ]
    p = [x.gather(1, target[:, None]) for x in found]
    assert (p[1] > p[0] + 2e-4).all()


def test_a_refined_mask_is_made_binary_at_last(refining):
    wavs = clips()
    soft = refining(wavs, refine_steps=3)
    hard = refining(wavs, threshold=0.5, refine_steps=3)
    assert torch.equal(hard.mask, (soft.mask >= 0.5).float())


def test_refining_leaves_no_graph_and_no_gradient():
    """Refining leaves no graph and no gradient anywhere."""
    explainer = make_refined()
    explanation = explainer(clips(), refine_steps=2)
    for name in TENSORS:
        assert not getattr(explanation, name).requires_grad, name
    for module in (explainer.classifier, explainer.decoder):
        assert all(p.grad is None for p in module.parameters())
    assert not any(p.requires_grad for p in explainer.classifier.parameters())
    # A decoder in training can still be trained.
    explainer(clips(), sounds=False).logits_in.sum().backward()
    assert explainer.decoder.coefficients.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_refining_where_gradients_are_off(refining, mode):
    wavs = clips()
    expected = refining(wavs, refine_steps=2)
    with mode():
        found = refining(wavs * 1.0, refine_steps=2)
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_passes_of_five_steps():
    """23 a clip, forward and backward: 1 to decide, 22 to refine.

    Without the evidence's way back through the last layers.
    """
    explainer = make_refined()
    explainer.refiner.tolerance = 0
    passes = []

    def count(module, inputs):
        passes.append(len(inputs[0]))
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda x: passes.append(len(x)))

    explainer.classifier.embedding_model.register_forward_pre_hook(count)
    explainer(clips(3), refine_steps=5)
    assert sum(passes) == 3 * 23


@pytest.mark.parametrize("n_clips, steps", [(1, 5), (3, 1), (9, 2)])
def test_the_steps_have_checked_their_masks(n_clips, steps):
    """What they found of the masks that are returned is the check."""
    explainer, wavs = make_refined(), clips(n_clips)
    found = explainer(wavs, refine_steps=steps)
    analysis = explainer.analyze(wavs)
    again = explainer.complete(analysis, found.mask)
    torch.testing.assert_close(found.logits_in, again.logits_in)
    torch.testing.assert_close(found.logits_out, again.logits_out)


def test_a_clip_without_an_objective_is_checked_all_the_same():
    """Of its mask the steps know nothing."""
    explainer, wavs = make_refined(), clips(2)
    loss = explainer.refiner.loss

    class Never:
        """Not finite for the first clip."""

        wants_embeddings = False

        def __call__(self, mask, *others):
            """The objective."""
            total, terms = loss(mask, *others)
            return total * torch.tensor([torch.nan, 1.0])[-len(total) :], terms

    explainer.refiner.loss = Never()
    found = explainer(wavs, refine_steps=2)
    plain = explainer(wavs)
    torch.testing.assert_close(found.mask[0], plain.mask[0])
    torch.testing.assert_close(found.logits_in[0], plain.logits_in[0])
    assert found.logits_out.isfinite().all()


def test_a_classifier_without_gradients():
    """A classifier without gradients gives a clear error."""

    class Detached(ConvEmbedding):
        """Encoder whose output is detached, as in some wrappers."""

        def forward(self, features):
            """Embeddings without a graph."""
            return super().forward(features).detach()

    embedding = Detached(40, [4, 4, 8, 8, 16])
    other = make_refined()
    frozen = FrozenClassifier(
        embedding,
        torch.nn.Linear(16, N_CLASSES),
        ["blocks.4", "blocks.2"],
        MIN_FRAMES,
        evidence=False,
    )
    decoder = Constant(0.0)
    explainer = Explainer(
        other.features, frozen, decoder, "linear", other.refiner
    )
    assert explainer(clips()).mask.isfinite().all()
    with pytest.raises(LMACError, match="needs a differentiable classifier"):
        explainer(clips(), refine_steps=1)


@pytest.mark.parametrize("steps", [-1, 1.0, True, False, "5"])
def test_no_number_of_steps(refining, steps):
    message = "refine_steps: .*, expected a whole number from 0"
    with pytest.raises(LMACError, match=message):
        refining(clips(), refine_steps=steps)
    with pytest.raises(LMACError, match=message):
        make_refined(refine_steps=steps)
    analysis = refining.analyze(clips())
    with pytest.raises(LMACError, match=message):
        refining.refine(analysis, refining.mask(analysis), steps)


def test_without_a_refiner(explainer):
    """Refining without a refiner is an error, also in the constructor."""
    message = "refine_steps: 2, but this model has no refiner; its yaml needs"
    with pytest.raises(LMACError, match=message):
        explainer(clips(), refine_steps=2)
    with pytest.raises(LMACError, match=message):
        make(refine_steps=2)
    analysis = explainer.analyze(clips())
    mask = explainer.mask(analysis)
    with pytest.raises(LMACError, match=message):
        explainer.refine(analysis, mask, 2)
    assert explainer(clips(), refine_steps=0).mask.isfinite().all()


def test_refining_in_half_precision(refining):
    """The mask stays in single precision, and is a mask."""
    with torch.autocast("cpu", torch.bfloat16):
        found = refining(clips(), refine_steps=2)
        start = refining(clips())
    assert found.mask.dtype == torch.float32
    assert 0 <= found.mask.min() <= found.mask.max() <= 1
    assert (objective(refining, found) < objective(refining, start)).all()


# ------------------------------------------------------------------ a module


def test_it_is_a_module():
    """One move, one list of weights; the classifier stays frozen."""
    explainer = make()
    explainer.double().train()
    assert explainer.decoder.training
    assert not explainer.classifier.training
    weights = dict(explainer.named_parameters())
    assert {x.dtype for x in weights.values()} == {torch.float64}
    trained = {name for name, x in weights.items() if x.requires_grad}
    assert trained == {n for n in weights if n.startswith("decoder.")}
    other = make()
    other.load_state_dict(explainer.state_dict())


def test_an_analysis_in_place_of_waveforms(explainer):
    """The classifier has heard the clips already: it hears them once."""
    wavs, target = clips(), torch.tensor([2, 0])
    analysis = explainer.analyze(wavs, target)
    found = explainer(analysis=analysis, target=target)
    expected = explainer(wavs, target=target)
    for name in TENSORS:
        assert torch.equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("cells", [None, 1], ids=["maps", "one cell"])
def test_latents_are_what_any_decoder_can_read(explainer, monkeypatch, cells):
    """Some layers crash on channels-last maps that need no gradient."""
    trace = explainer.classifier.trace

    def cut(features, target=None):
        logits, latents = trace(features, target)
        return logits, [x[:, :, :cells, :cells] for x in latents]

    def spread(features, target=None):
        logits, latents = cut(features, target)
        order = torch.channels_last
        return logits, [x.contiguous(memory_format=order) for x in latents]

    wavs = clips()
    monkeypatch.setattr(explainer.classifier, "trace", cut)
    expected = explainer.analyze(wavs).latents
    monkeypatch.setattr(explainer.classifier, "trace", spread)
    found = explainer.analyze(wavs).latents
    for one, other in zip(found, expected, strict=True):
        assert one.stride() == torch.empty(one.shape).stride()
        assert torch.equal(one, other)
        norm = torch.nn.GroupNorm(1, one.shape[1])
        norm(one).square().sum().backward()
        assert norm.weight.grad.isfinite().all()


def test_waveforms_or_an_analysis(explainer):
    """One of them says what is explained."""
    with pytest.raises(LMACError, match="wavs: None, expected"):
        explainer()
    wavs = clips()
    with pytest.raises(LMACError, match="found wavs too, expected one"):
        explainer(wavs, analysis=explainer.analyze(wavs))


# --------------------------------------------------------- batches of clips


@pytest.fixture(scope="module")
def three(refining):
    """Three clips with both masks."""
    with torch.no_grad():
        return refining(clips(3), refine_steps=1, unrefined=True)


def equal(a, b):
    """Whether two explanations hold the same."""
    same = all(torch.equal(getattr(a, n), getattr(b, n)) for n in TENSORS)
    if a.unrefined is None:
        return same and b.unrefined is None
    return same and equal(a.unrefined, b.unrefined)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (torch.tensor([2, 1]), [2, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
        (np.int64(1), [1]),
        (torch.tensor(-1), [2]),
        (np.array([1, 0], np.uint8), [1, 0]),
        (np.array([True, False, True]), [0, 2]),
        ([True, False, True], [0, 2]),
        ((0, 1), [0, 1]),
        ([], []),
    ],
)
def test_some_of_the_clips(three, rows, expected):
    part = three[rows]
    assert len(part) == len(expected)
    for name in TENSORS:
        for source, found in (
            (three, part),
            (three.unrefined, part.unrefined),
        ):
            values = getattr(source, name)[torch.tensor(expected).long()]
            assert torch.equal(getattr(found, name), values), name


@pytest.mark.parametrize(
    "rows", ["a", None, 1.0, True, [True], [0.5], [[0]], {}, {0}]
)
def test_no_clips(three, rows):
    """The message names what was given, and is no warning of torch."""
    with pytest.raises(LMACError, match="index: found .* or a mask of 3"):
        three[rows]


def test_one_clip_after_the_other(three):
    """A loop ends, and what is apart can be put together."""
    parts = list(three)
    assert [len(part) for part in parts] == [1, 1, 1]
    assert equal(Explanation.join(parts), three)
    with pytest.raises(IndexError):
        three[3]


def test_nothing_is_not_joined():
    with pytest.raises(LMACError, match="parts: found none"):
        Explanation.join([])


def test_joined_clips_end_in_silence(three):
    """What one of the parts lacks, the whole lacks."""
    short = three[:1].fit(4000, 40)
    assert short.waveform.shape == (1, 4000)
    assert short.mask.shape[:2] == (1, 40)
    whole = Explanation.join([short, three[1:]])
    assert not whole.waveform[0, 4000:].any()
    assert not whole.mask[0, 40:].any()
    assert torch.equal(whole.mask[0, :40], three.mask[0, :40])
    assert torch.equal(whole[1:].residual, three[1:].residual)
    assert torch.equal(whole.logits, three.logits)
    deaf = Explanation(**{**vars(three), "waveform": None})
    assert Explanation.join([deaf, three]).waveform is None


def test_fit_cuts_and_pads(three):
    n_samples, n_frames = three.waveform.shape[1], three.mask.shape[1]
    longer = three.fit(n_samples + 7, n_frames + 3)
    assert longer.unrefined.mask.shape[1] == n_frames + 3
    assert equal(longer.fit(n_samples, n_frames), three)


def test_another_level(three):
    """Sounds and magnitude follow; mask and decision stay."""
    gain = torch.tensor([0.5, 1.0, 2.0])
    loud = three.scale(gain)
    torch.testing.assert_close(loud.residual[2], 2 * three.residual[2])
    torch.testing.assert_close(loud.magnitude[0], three.magnitude[0] / 2)
    assert torch.equal(loud.mask, three.mask)
    assert torch.equal(loud.logits_in, three.logits_in)
    torch.testing.assert_close(
        loud.unrefined.waveform, gain[:, None] * three.unrefined.waveform
    )


@pytest.mark.parametrize("n_samples", [16000, 800])
def test_hearing_is_an_analysis_without_evidence(explainer, n_samples):
    """The same logits and embedding, also of a sound that is padded."""
    wavs = torch.rand(2, n_samples) - 0.5
    analysis = explainer.analyze(wavs)
    logits, embedding = explainer.hear(wavs)
    assert torch.allclose(logits, analysis.logits, atol=1e-6)
    assert torch.equal(embedding, explainer.embedding(analysis))
    assert not logits.requires_grad
