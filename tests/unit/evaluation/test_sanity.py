"""Cascading randomisation, and remove and retrain."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lmac_sb.evaluation.filling import FILLS
from lmac_sb.evaluation.sanity import (
    check_removable,
    check_retrainable,
    correlation,
    randomised,
    remove,
    retrain,
    roar_lines,
    similarity,
    stages,
)
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.methods.registry import make_methods
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return FrozenClassifier(
        ConvEmbedding(20, [4, 8, 8]), torch.nn.Linear(8, 3), ["blocks.2"], 4
    )


def test_stages_go_from_the_output_down(classifier):
    assert stages(classifier) == [
        "classifier",
        "embedding_model.blocks.2",
        "embedding_model.blocks.1",
        "embedding_model.blocks.0",
        "embedding_model.norm",
    ]


def changed_parts(classifier, before):
    """Names of the parts whose weights differ."""
    return {
        stage
        for stage in stages(classifier)
        for name, value in classifier.get_submodule(stage).state_dict().items()
        if value.is_floating_point()
        and not torch.equal(value, before[f"{stage}.{name}"])
    }


def test_more_and_more_is_random(classifier):
    # Statistics as after training, so that a reset is noticed.
    for module in classifier.modules():
        if hasattr(module, "running_mean"):
            module.running_mean.add_(1)
            module.weight.mul_(2)
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    seen = []
    for stage in randomised(classifier):
        seen.append(stage)
        assert changed_parts(classifier, before) == set(seen)
    assert seen == stages(classifier)
    assert changed_parts(classifier, before) == set()


def test_weights_come_back_after_a_break(classifier):
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    loop = randomised(classifier)
    next(loop)
    loop.close()
    assert changed_parts(classifier, before) == set()


def test_randomness_is_its_own(classifier):
    def weights(seed):
        for _ in randomised(classifier, seed):
            pass_ = classifier.classifier.weight.clone()
            return pass_

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = weights(1)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_correlation_is_pearsons():
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 9, 11)
    expected = [
        np.corrcoef(x.flatten().numpy(), y.flatten().numpy())[0, 1]
        for x, y in zip(a, b)
    ]
    assert np.allclose(correlation(a, b).numpy(), expected, atol=1e-6)
    assert correlation(a, torch.ones_like(a)).isnan().all()


def slow_similarity(a, b, window=7):
    """SSIM window by window."""
    values = []
    for i in range(a.shape[0] - window + 1):
        for j in range(a.shape[1] - window + 1):
            x = a[i : i + window, j : j + window].ravel()
            y = b[i : i + window, j : j + window].ravel()
            (var_x, both), (_, var_y) = np.cov(x, y)
            c1, c2 = 0.01**2, 0.03**2
            values.append(
                (2 * x.mean() * y.mean() + c1)
                * (2 * both + c2)
                / (x.mean() ** 2 + y.mean() ** 2 + c1)
                / (var_x + var_y + c2)
            )
    return np.mean(values)


def test_similarity_is_ssim():
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 12, 15)
    expected = [
        slow_similarity(x.double().numpy(), y.double().numpy())
        for x, y in zip(a, b)
    ]
    assert np.allclose(similarity(a, b).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("window", [3, 7])
def test_similarity_of_torchmetrics(window):
    """Agrees with theirs on windows that lie within the masks.

    Theirs also takes windows over the edges, mirrored there, which are left
    out here, and the variance of the window instead of a sample's. To scale
    the constant beside it by the same factor comes to the same.
    """
    image = pytest.importorskip("torchmetrics.functional.image")
    torch.manual_seed(0)
    a = torch.rand(3, 1, 20, 30).double()
    b = (a + 0.4 * torch.randn_like(a)).clamp(0, 1)
    n = window**2
    options = {"gaussian_kernel": False, "kernel_size": window}
    _, full = image.structural_similarity_index_measure(
        a,
        b,
        data_range=1.0,
        k2=0.03 * ((n - 1) / n) ** 0.5,
        return_full_image=True,
        reduction="none",
        **options,
    )
    edge = window // 2
    expected = full[:, 0, edge:-edge, edge:-edge].mean((1, 2))
    found = similarity(a[:, 0], b[:, 0], window)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert expected.max() < 0.95


def test_similarity_needs_a_window():
    with pytest.raises(LMACError, match="at least 7 frames and bins"):
        similarity(torch.rand(1, 6, 20), torch.rand(1, 6, 20))


def test_remove_silences_the_top_share(interpreter, sounds):
    explainer = interpreter.explainer
    methods = make_methods(["loudest", "saliency"], {})
    inputs = remove(explainer, methods, [0.0, 0.1, 1.0], sounds)
    features = explainer.features
    magnitude = features.magnitude(features.stft(sounds))
    for name in methods:
        assert torch.equal(inputs[name, 0.0], features.mel(magnitude))
        assert (inputs[name, 1.0] == 0).all()
    # By hand for the loudest: bins at the threshold are removed.
    n_cut = round(0.1 * magnitude[0].numel())
    for i in range(len(sounds)):
        order = magnitude[i].flatten().argsort(descending=True)
        rest = magnitude[i].flatten().clone()
        rest[order[:n_cut]] = 0
        mel = features.mel(rest.view_as(magnitude[i])[None])[0]
        assert torch.allclose(inputs["loudest", 0.1][i], mel, atol=1e-6)


def test_remove_needs_an_order(interpreter, sounds):
    with pytest.raises(LMACError, match="'ones' has no order of bins"):
        remove(interpreter.explainer, make_methods(["ones"], {}), [0.1], sounds)


def test_what_roar_cannot_do_is_known_before_it_starts():
    """Clips of several lengths, and a method that marks all bins."""
    alike = SimpleNamespace(n_samples=[5, 5])
    check_removable({"random": None}, {"train": alike, "test": alike})
    with pytest.raises(LMACError, match="'ones' has no order of bins"):
        check_removable({"random": None, "ones": None}, {"train": alike})
    other = SimpleNamespace(n_samples=[5, 6])
    with pytest.raises(LMACError, match="^test: clips of several lengths"):
        check_removable({"random": None}, {"train": alike, "test": other})


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((80, 8, 3), None),
        # Too many classes would train as well, on labels that never come.
        ((80, 8, 4), r"^n_classes: found 4, expected the 3 classes .*3$"),
        ((80, 8, 2), r"^n_classes: found 2, expected the 3 classes .*3$"),
        ((40, 8, 3), r"^n_mels, channels, emb_dim: .* 80 mel bands"),
        ((80, 9, 3), r"^n_mels, channels, emb_dim: .* 80 mel bands"),
    ],
)
def test_what_roar_trains_fits_what_is_explained(interpreter, sizes, expected):
    """A classifier of other classes or features is known before it starts."""
    n_mels, emb_dim, n_classes = sizes

    def make():
        encoder = ConvEmbedding(n_mels=n_mels, channels=[4, 8])
        return torch.nn.Sequential(encoder, torch.nn.Linear(emb_dim, n_classes))

    before = torch.get_rng_state()
    if expected is None:
        check_retrainable(interpreter, make, 16000)
    else:
        with pytest.raises(LMACError, match=expected):
            check_retrainable(interpreter, make, 16000)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("fill", FILLS)
def test_remove_fills_alike(interpreter, sounds, fill):
    """Every method's hole is filled in the same way; a clip has its noise."""
    explainer = interpreter.explainer
    features = explainer.features
    methods = make_methods(["loudest", "random"], {})
    items = [{"id": str(i)} for i in range(len(sounds))]
    inputs = remove(explainer, methods, [0.0, 0.3], sounds, fill, items)
    magnitude = features.magnitude(features.stft(sounds))
    for name in methods:
        assert torch.equal(inputs[name, 0.0], features.mel(magnitude))
        assert not torch.equal(inputs[name, 0.3], features.mel(magnitude))
    alone = remove(explainer, methods, [0.3], sounds[1:2], fill, items[1:2])
    for name in methods:
        found = inputs[name, 0.3][1:2]
        assert torch.allclose(alone[name, 0.3], found, atol=1e-5)


def test_remove_takes_no_more_than_the_ideal_mask(interpreter, sounds):
    """The loudest bins of the event first, then nothing more."""
    explainer = interpreter.explainer
    features = explainer.features
    torch.manual_seed(0)
    events = [0.7 * sound for sound in sounds]
    wavs = torch.stack(events) + 0.01 * torch.randn_like(sounds)
    items = [{"id": str(i), "event": x} for i, x in enumerate(events)]
    methods = make_methods(["ideal"], {})
    inputs = remove(explainer, methods, [0.001, 1.0], wavs, items=items)
    stft = features.stft(wavs)
    magnitude = features.magnitude(stft)
    ideal = ideal_mask(features.stft(torch.stack(events)), stft)
    assert 0 < ideal.mean() < 1
    for i in range(len(wavs)):
        rest = magnitude[i] * (1 - ideal[i])
        expected = features.mel(rest[None])[0]
        assert torch.allclose(inputs["ideal", 1.0][i], expected, atol=1e-6)
        bins = (magnitude[i] * ideal[i]).flatten().argsort(descending=True)
        rest = magnitude[i].flatten().clone()
        rest[bins[: round(0.001 * rest.numel())]] = 0
        expected = features.mel(rest.view_as(magnitude[i])[None])[0]
        assert torch.allclose(inputs["ideal", 0.001][i], expected, atol=1e-6)


def test_lines_of_roar_count_a_clip_once():
    """Runs of a clip are averaged before the interval is taken."""
    rows = [
        {
            "id": clip,
            "fill": fill,
            "method": method,
            "share": 0.1,
            "accuracy": 100.0 * (clip == "a" or run == 0),
            "run": run,
        }
        for clip in "ab"
        for fill in FILLS
        for method in ("lmac", "ideal")
        for run in range(4)
    ]
    lines = roar_lines(rows)
    assert list(lines) == ["lmac", "ideal"]
    for ((share, values),) in lines.values():
        assert share == 0.1
        assert list(values) == [f"accuracy, {fill}" for fill in FILLS]
        for figure in values.values():
            assert figure["n"] == 2 and figure["mean"] == 62.5
            # Both clips drawn twice.
            assert (figure["low"], figure["high"]) == (25, 100)


def test_retrain_learns_and_repeats():
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    inputs = torch.rand(30, 16, 20)
    for i, c in enumerate(labels):
        inputs[i, :, 6 * c : 6 * c + 6] += 1

    def train():
        torch.manual_seed(1)
        model = torch.nn.Sequential(
            ConvEmbedding(20, [4, 8], dropout=0), torch.nn.Linear(8, 3)
        )
        return retrain(model, inputs, labels, epochs=20, lr=0.02)

    model = train()
    assert not model.training
    with torch.no_grad():
        logits = model(inputs)
    assert (logits.argmax(1) == labels).float().mean() > 0.9
    with torch.no_grad():
        assert torch.equal(train()(inputs), logits)
