"""Tests of the attributions that L-MAC is compared with."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lmac_sb import LMACInterpreter
from lmac_sb.lmac.explainer import Analysis, Explainer
from lmac_sb.methods.attribution import PASS
from lmac_sb.methods.gradients import ATTRIBUTIONS
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError

captum = pytest.importorskip("captum.attr", reason="captum is not installed")

NAMES = [
    "saliency",
    "input_x_gradient",
    "smoothgrad",
    "integrated_gradients",
    "guided_backprop",
    "gradcam",
    "guided_gradcam",
    "gradient_shap",
    "deeplift_shap",
    "occlusion",
]
NOT_NEGATIVE = {"saliency", "smoothgrad", "gradcam"}
OF_CAPTUM = ["saliency", "input_x_gradient", "integrated_gradients"]
MIN_FRAMES = 16


class Toy:
    """Explainer of a network on log1p magnitudes [n, t, f]."""

    def __init__(self, network):
        self.network = network

    def classify(self, magnitude, analysis):
        """Logits [n, classes]."""
        return self.network(torch.log1p(magnitude))


def analysis_of(magnitude):
    """Analysis of magnitudes, for methods that need no more."""
    return Analysis(magnitude, magnitude, magnitude, [], 0)


def attribute(name, network, x, target=0):
    """Scores of a toy network."""
    targets = torch.full([len(x)], target)
    return ATTRIBUTIONS[name](
        Toy(network), analysis_of(torch.expm1(x)), targets
    )


def conv_explainer():
    """Small random CNN14-style classifier with varied statistics."""
    torch.manual_seed(10)
    embedding = ConvEmbedding(40, [4, 8, 8, 16, 32])
    with torch.no_grad():
        for _ in range(30):
            embedding(3 * torch.rand(8, 32, 40) * torch.rand(8, 32, 1))
    linear = torch.nn.Linear(32, 3)
    frozen = FrozenClassifier(embedding, linear, ["blocks.4"], MIN_FRAMES)
    features = SpectralFeatures(n_fft=512, n_mels=40)
    return Explainer(features, frozen, torch.nn.Identity())


def clips(n_samples=8000):
    """Two clips of noise with different tones."""
    time = torch.arange(n_samples) / 16000
    hertz = torch.tensor([[300.0], [600.0]])
    tones = torch.sin(2 * torch.pi * hertz * time)
    return 0.3 * tones + 0.1 * torch.randn(2, n_samples)


@pytest.fixture(scope="module")
def explainer():
    """The small classifier."""
    return conv_explainer()


@pytest.fixture(scope="module")
def found(explainer):
    """Analysis of two clips, target classes, and the scores by name."""
    torch.manual_seed(4)
    analysis = explainer.analyze(clips())
    target = torch.tensor([1, 2])
    scores = {
        name: method(explainer, analysis, target)
        for name, method in ATTRIBUTIONS.items()
    }
    return analysis, target, scores


def one_clip(analysis, i):
    """Analysis of one clip of a batch."""
    return analysis[i : i + 1]


def logit(explainer, x, target):
    """The explained quantity, of log1p magnitudes."""
    return explainer.classify(torch.expm1(x))[:, target]


def gradient(explainer, x, target):
    """Its gradient at one clip [time, freq]."""
    x = x[None].clone().requires_grad_()
    return torch.autograd.grad(logit(explainer, x, target), x)[0][0]


# ------------------------------------------------------------ all methods


def test_names():
    """The registry holds what the evaluation grid names."""
    assert list(ATTRIBUTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_a_batch(found, name):
    """One score a bin, detached, of both signs where so documented."""
    analysis, _, scores = found
    scores = scores[name]
    assert scores.shape == analysis.magnitude.shape
    assert scores.dtype == torch.float32
    assert not scores.requires_grad
    assert scores.isfinite().all()
    assert (scores > 0).any(2).any(1).all()
    assert (scores.min() < 0) == (name not in NOT_NEGATIVE)


@pytest.mark.parametrize("name", NAMES)
def test_no_clip_depends_on_the_batch(explainer, found, name):
    """A clip alone has the same scores, after other random draws too."""
    analysis, target, scores = found
    for i in range(2):
        torch.rand(7)
        np.random.rand(7)
        alone = ATTRIBUTIONS[name](
            explainer, one_clip(analysis, i), target[i : i + 1]
        )
        largest = scores[name].abs().max()
        assert (alone[0] - scores[name][i]).abs().max() <= 1e-5 * largest


def test_nothing_is_left_behind(explainer, found):
    """Random state, magnitude, hooks, weights and logits stay as they were."""
    analysis, target, _ = found
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    magnitude = analysis.magnitude.clone()
    hooks = [
        (len(m._forward_hooks), len(m._backward_hooks))
        for m in explainer.classifier.modules()
    ]
    for method in ATTRIBUTIONS.values():
        method(explainer, one_clip(analysis, 1), target[1:])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(analysis.magnitude, magnitude)
    assert hooks == [
        (len(m._forward_hooks), len(m._backward_hooks))
        for m in explainer.classifier.modules()
    ]
    assert all(p.grad is None for p in explainer.classifier.parameters())
    assert torch.equal(explainer.classify(magnitude), analysis.logits)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_works_where_gradients_are_off(explainer, found, name, context):
    """The evaluation's own loop keeps no graph."""
    analysis, target, scores = found
    with context():
        inside = ATTRIBUTIONS[name](
            explainer, one_clip(analysis, 0), target[:1]
        )
    largest = scores[name].abs().max()
    assert (inside[0] - scores[name][0]).abs().max() <= 1e-5 * largest


class TwoBands(torch.nn.Module):
    """Two channels: the lower and the upper half of the mel bands."""

    def __init__(self):
        super().__init__()
        self.low = torch.nn.Identity()
        self.latent = torch.nn.Identity()

    def forward(self, mel):
        """Mean level of each half, [batch, 2]."""
        low = torch.arange(mel.shape[2]) < mel.shape[2] // 2
        maps = F.relu(torch.stack((mel * low, mel * ~low), 1))
        return self.latent(maps).mean((2, 3))


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_relevance_lands_on_what_counts(name, target):
    """Relevance lies on the half of the bands that counts."""
    features = SpectralFeatures(n_fft=512, n_mels=40)
    frozen = FrozenClassifier(TwoBands(), torch.nn.Identity(), ["latent"])
    explainer = Explainer(features, frozen, torch.nn.Identity())
    magnitude = torch.full([1, 30, 257], 1e-4)
    magnitude[:, 5:12, 5:30] = 3.0  # two sounds, one below the middle band
    magnitude[:, 18:25, 150:200] = 2.0  # and one above it
    scores = ATTRIBUTIONS[name](
        explainer,
        analysis_of(magnitude),
        torch.tensor([target]),
    )
    middle = int((features.fbank_matrix[:, :20].sum(1) > 0).nonzero().max())
    positive = scores[0].clamp(min=0)
    parts = positive[:, :middle].sum(), positive[:, middle:].sum()
    assert parts[target] > 0.9 * positive.sum() > 0


# ------------------------------------------- captum's own, worked out by hand

WEIGHT = torch.tensor([[1.0, -2.0], [3.0, 1.0], [-1.0, -1.0]])
READ = torch.tensor([2.0, -1.0, 5.0])


class Functional(torch.nn.Module):
    """Two inputs, three hidden ReLUs, one logit."""

    def __init__(self, relu):
        super().__init__()
        self.relu = relu

    def forward(self, x):
        """Logits [n, 1] of [n, 1, 2]."""
        return self.relu(x.flatten(1) @ WEIGHT.T) @ READ[:, None]


def discarded(x):
    """In-place ReLU whose result is not used but whose effect is."""
    F.relu_(x)
    return x


RELUS = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "Tensor.relu": torch.Tensor.relu,
    "F.relu_": F.relu_,
    "Tensor.relu_": torch.Tensor.relu_,
    "inplace=True": lambda x: F.relu(x, inplace=True),
    "positional": lambda x: F.relu(x, True),
    "input=": lambda x: F.relu(input=x),
    "discarded": discarded,
    "module": torch.nn.ReLU(),
    "in-place module": torch.nn.ReLU(inplace=True),
}
POINT = torch.tensor([[[3.0, 1.0]]])  # hidden layer: 1, 10, -4


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_gradients_by_hand(relu):
    """Hidden units 1 and 2 are on: 2 (1, -2) - 1 (3, 1) = (-1, -5)."""
    network = Functional(relu)
    for name, expected in {
        "saliency": [1.0, 5.0],
        "input_x_gradient": [-3.0, -5.0],
        # Unit 2 would pass a negative gradient, so only 2 (1, -2) is left.
        "guided_backprop": [2.0, -4.0],
    }.items():
        scores = attribute(name, network, POINT)
        assert torch.allclose(scores, torch.tensor([[expected]])), name


def test_hooks_would_not_guide():
    """captum's class gives the plain gradient of a functional ReLU."""
    results = {}
    for name in ("F.relu", "F.relu_", "module"):
        method = captum.GuidedBackprop(Functional(RELUS[name]))
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            x = POINT.clone().requires_grad_()
            results[name] = method.attribute(x, target=0).flatten().tolist()
    assert results["F.relu"] == results["F.relu_"] == [-1.0, -5.0]
    assert results["module"] == [2.0, -4.0]


class Rewritten(torch.nn.Module):
    """The small classifier with its ReLUs as modules."""

    def __init__(self, explainer):
        super().__init__()
        self.bank = explainer.features.fbank_matrix
        self.embedding = explainer.classifier.embedding_model
        self.head = explainer.classifier.classifier
        self.relus = torch.nn.ModuleList(
            torch.nn.ReLU() for _ in range(2 * len(self.embedding.blocks))
        )

    def forward(self, x):
        """Logits of log1p magnitudes."""
        h = torch.log1p(torch.expm1(x) @ self.bank)
        h = self.embedding.norm(h.transpose(1, 2)).transpose(1, 2)[:, None]
        for i, block in enumerate(self.embedding.blocks):
            h = self.relus[2 * i](block.norm1(block.conv1(h)))
            h = self.relus[2 * i + 1](block.norm2(block.conv2(h)))
            if i < len(self.embedding.blocks) - 1:
                h = F.avg_pool2d(h, 2)
        h = h.mean(3)
        return self.head(h.amax(2) + h.mean(2))


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_backprop_guides_cnn14(explainer, found):
    """Guided backpropagation of CNN14 equals captum's with modules."""
    analysis, target, scores = found
    x = torch.log1p(analysis.magnitude).requires_grad_()
    network = Rewritten(explainer)
    assert torch.allclose(network(x), analysis.logits, atol=1e-5)
    expected = captum.GuidedBackprop(network).attribute(x, target=target)
    ours, largest = scores["guided_backprop"], expected.abs().max()
    assert (ours - expected).abs().max() < 1e-4 * largest
    # Hooks on SpeechBrain's blocks would see nothing.
    plain = captum.GuidedBackprop(explainer.classifier)
    mel = torch.rand(1, 32, 40).requires_grad_()
    plain.forward_func = lambda values: explainer.classifier(values)[0]
    (slope,) = torch.autograd.grad(plain.forward_func(mel)[0, 0], mel)
    assert torch.equal(plain.attribute(mel, target=0), slope)


def test_guided_backprop_needs_a_relu():
    """Guided backpropagation without a ReLU is refused."""
    with pytest.raises(LMACError, match="guided_backprop: .* no ReLU"):
        attribute("guided_backprop", Functional(torch.tanh), POINT)


# ---------------------------------------------------------------- averages


def test_integrated_gradients_are_complete(explainer, found):
    """The scores add up to the rise of the logit, to 5 %."""
    analysis, target, scores = found
    x = torch.log1p(analysis.magnitude)
    for i in range(2):
        ends = torch.stack((x[i], torch.zeros_like(x[i])))
        whole, silence = logit(explainer, ends, target[i]).tolist()
        total = scores["integrated_gradients"][i].sum().item()
        assert abs(whole - silence) > 1
        assert total == pytest.approx(whole - silence, rel=0.05)


def test_integrated_gradients_are_the_integral():
    """The scores equal a slow sum over 500 points."""
    first, second = torch.randn(12, 9), torch.randn(9, 2)

    def network(x):
        return torch.tanh(x.flatten(1) @ first) @ second

    x = torch.rand(1, 3, 4)
    expected = torch.zeros_like(x)
    for step in range(500):
        point = ((step + 0.5) / 500 * x).requires_grad_()
        (slope,) = torch.autograd.grad(network(point)[0, 1], point)
        expected += slope * x / 500
    ours = attribute("integrated_gradients", network, x, target=1)
    assert torch.allclose(ours, expected, atol=1e-4)


def test_integrated_gradients_take_more_steps_where_needed():
    """32 points are enough for a curve, not for a narrow slope."""
    sizes = []

    def network(x):
        sizes.append(len(x))
        return torch.sigmoid(400 * (x.sum((1, 2)) - 1.03))[:, None] * 5

    x = torch.full([1, 2, 2], 0.5)
    total = attribute("integrated_gradients", network, x).sum().item()
    assert total == pytest.approx(5, rel=0.051)
    assert 32 + 2 + 64 + 2 < sum(sizes) <= 992 + 10
    assert max(sizes) <= PASS

    def cliff(x):
        return network(1e4 * (x - 0.3))

    message = "^integrated_gradients: the scores add up to .* after 512 steps"
    with pytest.raises(LMACError, match=message):
        attribute("integrated_gradients", cliff, x)


def noisy(x):
    """Noisy versions: noise of 15 % of the range, with its own seed."""
    draws = torch.Generator().manual_seed(0)
    scale = 0.15 * (x.max() - x.min())
    noise = torch.randn(24, *x.shape, generator=draws)
    return [(x + scale * part).clamp(min=0) for part in noise]


def test_smoothgrad_is_the_mean_gradient(explainer, found):
    """SmoothGrad equals a slow mean over noisy versions."""
    analysis, target, scores = found
    x = torch.log1p(analysis.magnitude[1])
    versions = noisy(x)
    expected = torch.zeros_like(x)
    for version in versions:
        expected += gradient(explainer, version, target[1]) / len(versions)
    ours = scores["smoothgrad"][1]
    assert torch.allclose(ours, expected.abs(), atol=1e-3 * float(ours.max()))
    assert not torch.allclose(ours, scores["saliency"][1], rtol=0.1)


def test_gradient_shap_is_the_expected_gradient():
    """For a logit w x the expectation is w x, and for w x² it is w x²."""
    x = 3 + 2 * torch.rand(1, 4, 5)
    weight = torch.randn(4, 5)
    ends = torch.stack(noisy(x[0]))
    linear = attribute(
        "gradient_shap", lambda v: (v * weight).sum((1, 2))[:, None], x
    )
    assert torch.allclose(linear[0], weight * ends.mean(0), atol=1e-4)
    square = attribute(
        "gradient_shap", lambda v: (v.square() * weight).sum((1, 2))[:, None], x
    )
    # Standard error of the mean of 24 factors 2 U(0, 1): 0.12.
    ratio = square[0] / (weight * ends.square().mean(0))
    assert ((ratio - 1).abs() < 0.35).all()
    # The factors are random, not all the same.
    assert ratio.std() > 1e-4


# -------------------------------------------------------------------- maps


def interpolate(grid, rows, columns):
    """Bilinear interpolation, cell centres aligned, by loops."""
    n, m = grid.shape
    result = torch.zeros(rows, columns)
    for i in range(rows):
        y = min(max((i + 0.5) * n / rows - 0.5, 0), n - 1)
        for j in range(columns):
            x = min(max((j + 0.5) * m / columns - 0.5, 0), m - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, n - 1), min(b + 1, m - 1)
            v, w = y - a, x - b
            result[i, j] = (1 - v) * (
                (1 - w) * grid[a, b] + w * grid[a, d]
            ) + v * ((1 - w) * grid[c, b] + w * grid[c, d])
    return result


def to_bins(bands, bank):
    """Mean over the bands of a bin, by their weights, by loops."""
    result = torch.zeros(len(bands), len(bank))
    for k, weights in enumerate(bank):
        if weights.sum() > 0:
            for band, weight in enumerate(weights):
                result[:, k] += weight * bands[:, band] / weights.sum()
    return result


def test_gradcam_is_that_of_captum(explainer, found):
    """GradCAM equals captum's map, slowly stretched to bins."""
    analysis, target, scores = found
    layer = explainer.classifier.embedding_model.blocks[4]
    method = captum.LayerGradCam(explainer.classify, layer)
    grids = method.attribute(
        analysis.magnitude, target=target, relu_attributions=True
    ).detach()
    bank = explainer.features.fbank_matrix
    n_frames = analysis.magnitude.shape[1]
    for grid, ours in zip(grids, scores["gradcam"]):
        assert grid.shape == (1, 2, 2)
        expected = to_bins(interpolate(grid[0], n_frames, 40), bank)
        assert torch.allclose(ours, expected, atol=1e-6)
        assert not ours[:, bank.sum(1) == 0].any()


def test_gradcam_of_a_short_clip(explainer):
    """Frames of padding are cut off again."""
    analysis = explainer.analyze(clips(1600)[:1])
    assert analysis.magnitude.shape[1] == 9 < MIN_FRAMES
    target = analysis.logits.argmax(1)
    padded = F.pad(analysis.magnitude, (0, 0, 0, MIN_FRAMES - 9))
    short, long = (
        ATTRIBUTIONS["gradcam"](explainer, analysis_of(magnitude), target)
        for magnitude in (analysis.magnitude, padded)
    )
    assert long.any()
    assert torch.equal(short, long[:, :9])


class Steps(torch.nn.Module):
    """A layer of two channels over time, in any layout."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.latent = torch.nn.Identity()

    def forward(self, mel):
        """Channel 0 less a third of channel 1, averaged over time."""
        steps = mel.mean(2)
        maps = torch.stack((steps, steps.flip(1)), 1)  # [b, channels, time]
        if self.layout == "btc":
            kept = self.latent((maps.transpose(1, 2), None))[0]
            kept = kept.transpose(1, 2)
        elif self.layout == "bct":
            kept = self.latent(maps)
        else:
            kept = self.latent(maps[..., None])[..., 0]
        # In place, which must not change the layer's own output.
        return kept.mul_(2).mean(2)


class Difference(torch.nn.Module):
    """Logit of two channels."""

    def forward(self, means):
        """[batch, 1]."""
        return means[:, :1] - means[:, 1:] / 3


@pytest.mark.parametrize("layout", ["btc", "bct", "bctf"])
def test_gradcam_of_any_layout(layout):
    """Channel weights 2 / T and -2 / (3 T), whatever the axes' order."""
    features = SpectralFeatures(n_fft=512, n_mels=40)
    frozen = FrozenClassifier(
        Steps(layout), Difference(), ["latent"], channels_last=layout == "btc"
    )
    explainer = Explainer(features, frozen, torch.nn.Identity())
    magnitude = torch.rand(1, 6, 257)
    scores = ATTRIBUTIONS["gradcam"](
        explainer, analysis_of(magnitude), torch.tensor([0])
    )[0]
    steps = features.mel(magnitude)[0].mean(1)
    expected = (2 / 6 * steps - 2 / 18 * steps.flip(0)).clamp(min=0)
    inside = features.fbank_matrix.sum(1) > 0
    assert expected.sum() > 0
    assert torch.allclose(
        scores[:, inside], expected[:, None].expand(-1, inside.sum())
    )


def test_gradcam_needs_a_time_axis():
    """A layer without a time axis is refused."""
    frozen = FrozenClassifier(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(80, 4)),
        torch.nn.Identity(),
        ["1"],
    )
    features = SpectralFeatures(n_fft=512, n_mels=40)
    explainer = Explainer(features, frozen, torch.nn.Identity())
    analysis = analysis_of(torch.rand(1, 2, 257))
    with pytest.raises(LMACError, match="gradcam: layer '1' gives 2 axes"):
        ATTRIBUTIONS["gradcam"](explainer, analysis, torch.tensor([0]))


def test_guided_gradcam_is_the_product(found):
    """Guided GradCAM is the product of the two methods."""
    scores = found[2]
    expected = scores["guided_backprop"] * scores["gradcam"]
    assert torch.allclose(scores["guided_gradcam"], expected, atol=0)


# ---------------------------------------------------------------- DeepLIFT


def test_deeplift_by_hand():
    """Hidden units at silence and at the clip: (-1, 2) and (2, -3).

    Rescaled slopes 2 / 3 and 2 / 5 (the gradient is 1 and 0).
    """

    def network(x):
        h = x.flatten(1) @ torch.tensor([[1.0, -1.0], [1.0, -2.0]])
        return F.relu_(h + torch.tensor([-1.0, 2.0])).sum(1, keepdim=True)

    x = torch.tensor([[[1.0, 2.0]]])
    expected = [2 / 3 * 1 - 2 / 5 * 1, 2 / 3 * 2 - 2 / 5 * 2 * 2]
    scores = attribute("deeplift_shap", network, x)
    assert scores.flatten().tolist() == pytest.approx(expected)
    assert scores.sum().item() == pytest.approx(2 - 2, abs=1e-6)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_deeplift_is_that_of_captum():
    """DeepLIFT equals captum's if non-linearities are modules."""
    network = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(12, 9),
        torch.nn.ReLU(),
        torch.nn.Linear(9, 7),
        torch.nn.Tanh(),
        torch.nn.Linear(7, 5),
        torch.nn.LeakyReLU(0.2),
        torch.nn.Linear(5, 2),
    )
    x = 3 * torch.rand(2, 3, 4)
    expected = captum.DeepLift(network).attribute(
        x.clone().requires_grad_(), torch.zeros_like(x), target=1
    )
    ours = attribute("deeplift_shap", network, x, target=1)
    assert torch.allclose(ours, expected.detach(), atol=1e-5)


def test_deeplift_is_complete(explainer, found):
    """DeepLIFT is complete for functional ReLUs, unlike captum's."""
    analysis, target, scores = found
    x = torch.log1p(analysis.magnitude)
    for i in range(2):
        ends = torch.stack((x[i], torch.zeros_like(x[i])))
        whole, silence = logit(explainer, ends, target[i]).tolist()
        total = scores["deeplift_shap"][i].sum().item()
        assert total == pytest.approx(whole - silence, abs=1e-3)
        plain = scores["input_x_gradient"][i].sum().item()
        assert abs(plain - (whole - silence)) > 0.1


@pytest.mark.parametrize(
    ("one", "two"),
    [
        # Rises from 1.5 (place 1) to 4 (place 2): all of it is of place 2.
        ([2.0, 0.5, 4.0], [0.0, 0.0, 2.5]),
        # Falls from 1.5 to 1: all of it is of place 1, where silence has it.
        ([0.5, -3.0, 1.0], [0.0, -0.5, 0.0]),
        # Stays.
        ([1.5, 1.0, 1.0], [0.0, 0.0, 0.0]),
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.amax(2),
        lambda x: torch.amax(x, 2, True).squeeze(2),
        lambda x: x.max(dim=2)[0],
        lambda x: torch.max(x, 2, keepdim=True).values.squeeze(2),
    ],
)
def test_deeplift_of_a_maximum(function, one, two):
    """At silence the three places have 0, 1.5 and 0."""
    offset = torch.tensor([0.0, 1.5, 0.0])
    scores = attribute(
        "deeplift_shap",
        lambda x: function(x + offset),
        torch.tensor([[one]]) - offset,
    )
    assert scores.flatten().tolist() == pytest.approx(two)


FUNCTIONS = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu(x, True),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3, True),
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh_,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": lambda x: (x + 9).log(),
    "log1p": lambda x: torch.log1p(x + 9),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_deeplift_knows(function):
    """DeepLIFT handles each listed function, also repeated."""
    first, second = torch.randn(12, 6), torch.randn(6, 1)

    def network(x):
        return function(function(x.flatten(1) @ first - 1) * 0.5) @ second

    x = torch.rand(2, 3, 4)
    difference = network(x) - network(torch.zeros_like(x))
    total = attribute("deeplift_shap", network, x).sum((1, 2))
    assert torch.allclose(total, difference[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    "network",
    [
        lambda x: 9 * (x.flatten(1) ** 2).sum(1, keepdim=True).sin(),
        lambda x: x.flatten(1).prod(1, keepdim=True) * 9,
        # Clip and silence are no longer the halves of the first axis.
        lambda x: 9 * F.relu(x.flatten(1).T[:3] - 0.5).T.sum(1, keepdim=True),
        lambda x: (
            9
            * (x.flatten(1)[:, :3] + torch.tensor([0.5, 0, 0.4])).T.amax(0)[
                :, None
            ]
        ),
    ],
    ids=["unknown function", "product", "other axes", "other axes, max"],
)
def test_deeplift_refuses_what_it_does_not_know(network):
    """DeepLIFT refuses unknown functions."""
    x = torch.linspace(0.8, 1.2, 6).view(1, 2, 3)
    message = r"deeplift_shap: .* add up to .* does not allow it; .* relu, "
    with pytest.raises(LMACError, match=message):
        attribute("deeplift_shap", network, x)


# --------------------------------------------------------------- occlusion


def test_occlusion_is_the_fall_of_the_logit(explainer, found):
    """Occlusion equals a slow loop over patches."""
    analysis, target, scores = found
    magnitude = analysis.magnitude[0]
    n_frames, n_bins = magnitude.shape
    tall, wide = math.ceil(n_frames / 10), math.ceil(n_bins / 8)
    whole = explainer.classify(magnitude[None])[0, target[0]]
    total, count = torch.zeros_like(magnitude), torch.zeros_like(magnitude)
    n_passes = 1
    top = 0
    while True:
        left = 0
        while True:
            place = slice(top, top + tall), slice(left, left + wide)
            silenced = magnitude.clone()
            silenced[place] = 0
            fall = whole - explainer.classify(silenced[None])[0, target[0]]
            total[place] += fall
            count[place] += 1
            n_passes += 1
            if left + wide >= n_bins:
                break
            left += math.ceil(wide / 2)
        if top + tall >= n_frames:
            break
        top += math.ceil(tall / 2)
    assert n_passes <= 286
    ours = scores["occlusion"][0]
    assert torch.allclose(ours, total / count, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 9), (2, 65), (501, 20), (43, 513)])
def test_occlusion_has_a_bounded_cost(shape):
    """The number of passes of occlusion is bounded."""
    sizes = []

    def network(x):
        sizes.append(len(x))
        return x.sum((1, 2))[:, None]

    x = torch.rand(1, *shape)
    scores = attribute("occlusion", network, x)
    assert sum(sizes) <= 286
    assert max(sizes) <= PASS
    assert scores.shape == x.shape


def test_occlusion_needs_no_gradient():
    """A classifier that cannot be differentiated can be occluded."""
    network = lambda x: (x.detach() > 0.5).float().sum((1, 2))[:, None]  # noqa: E731
    x = torch.zeros(1, 20, 16)
    x[:, :10] = 1
    scores = attribute("occlusion", network, x)
    assert (scores[:, :9] > 0).all()
    assert not scores[:, 11:].any()


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name != "occlusion"]
)
def test_a_classifier_without_a_gradient_is_refused(explainer, found, name):
    """The message names the method."""
    analysis, target, _ = found

    class Broken(Explainer):
        def classify(self, magnitude, analysis):
            """Logits without a gradient."""
            return super().classify(magnitude.detach())

    broken = Broken(explainer.features, explainer.classifier, explainer.decoder)
    with pytest.raises(LMACError, match=f"^{name}: .* no gradient"):
        ATTRIBUTIONS[name](broken, analysis, target)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_an_error(explainer, found, name):
    """NaN in the second clip only: the message names method and clip."""
    analysis, target, _ = found

    class Broken(Explainer):
        def classify(self, magnitude, analysis):
            """Logits that are NaN for loud clips."""
            logits = super().classify(magnitude)
            return logits * torch.where(
                magnitude.amax((1, 2)) > 1e6, math.nan, 1.0
            ).view(-1, 1)

    broken = Broken(explainer.features, explainer.classifier, explainer.decoder)
    magnitude = analysis.magnitude.clone()
    magnitude[1, 3, 3] = 1e9
    loud = analysis_of(magnitude)
    with pytest.raises(LMACError, match=f"^{name}: .*finite"):
        ATTRIBUTIONS[name](broken, loud, target)


def test_infinite_gradient_names_the_clip():
    """An infinite gradient is an error that names the clip."""
    x = torch.tensor([[[1.0, 2.0]], [[0.0, 2.0]]])
    network = lambda v: v.sqrt().sum((1, 2))[:, None]  # noqa: E731
    with pytest.raises(LMACError, match=r"^saliency: NaN .* clips \[1\]"):
        attribute("saliency", network, x)


@pytest.mark.parametrize("name", [*OF_CAPTUM, "occlusion"])
def test_captum_is_missing(monkeypatch, name):
    """Without captum, the message says how to install it."""
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    network = Functional(F.relu)
    with pytest.raises(
        LMACError, match=r'^captum: .* pip install "lmac-sb\[eval\]"'
    ):
        attribute(name, network, POINT)
    attribute("deeplift_shap", network, POINT)


class Hears(torch.nn.Module):
    """Two classes of a waveform: its energy, and that of its differences."""

    def forward(self, wavs):
        energies = [x.square().mean(1) for x in (wavs, wavs.diff(dim=1))]
        return 20 * torch.stack(energies, 1) - 4


def of_sound():
    """Explainer of a classifier that hears sound, and its analysed clips."""
    interpreter = LMACInterpreter.from_classifier(Hears(), 16000, ["a", "b"])
    explainer = interpreter.explainer
    generator = torch.Generator().manual_seed(0)
    wavs = torch.rand(2, 8000, generator=generator) - 0.5
    return explainer, explainer.analyze(wavs)


def test_a_classifier_that_hears_sound_is_asked_with_its_clips_phase():
    """The gradient is that through the inverse STFT, clip by clip."""
    explainer, analysis = of_sound()
    targets = torch.tensor([1, 0])
    found = ATTRIBUTIONS["input_x_gradient"](explainer, analysis, targets)
    features = explainer.features
    for i, target in enumerate(targets):
        stft = torch.view_as_complex(analysis.stft[i : i + 1])
        level = torch.log1p(stft.abs()).requires_grad_()
        heard = torch.polar(torch.expm1(level), stft.angle())
        wav = features.istft(torch.view_as_real(heard), 8000)
        logit = Hears()(wav)[0, target]
        (gradient,) = torch.autograd.grad(logit, level)
        expected = (level * gradient)[0].detach()
        torch.testing.assert_close(found[i], expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize(
    "name", ["saliency", "smoothgrad", "gradient_shap", "occlusion"]
)
def test_methods_without_layers_take_any_classifier(name):
    explainer, analysis = of_sound()
    targets = torch.tensor([1, 0])
    found = ATTRIBUTIONS[name](explainer, analysis, targets)
    assert found.shape == analysis.magnitude.shape
    alone = ATTRIBUTIONS[name](explainer, analysis[1:], targets[1:])
    torch.testing.assert_close(found[1:], alone)


@pytest.mark.parametrize("name", ["gradcam", "guided_gradcam"])
def test_gradcam_says_that_it_needs_maps_of_the_classifier(name):
    explainer, analysis = of_sound()
    with pytest.raises(LMACError, match="gradcam: found a classifier that h"):
        ATTRIBUTIONS[name](explainer, analysis, torch.tensor([1, 0]))
