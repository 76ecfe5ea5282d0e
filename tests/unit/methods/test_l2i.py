"""Tests of L2I: dictionary, relevance, mask and objective."""

import math

import pytest
import torch

from lmac_sb.methods.l2i import (
    Decomposition,
    DictionaryLearner,
    L2IDecoder,
    L2ILoss,
    _over_frames,
)
from lmac_sb.utils.errors import LMACError

CHANNELS = [16, 8]


class Fixed(torch.nn.Module):
    """Network that always gives the same activations."""

    def __init__(self, activations):
        super().__init__()
        self.activations = activations

    def forward(self, latents, n_frames):
        """Activations [batch, components, time]."""
        return self.activations


def make(n_components=6, n_classes=3, n_fft=32, relevance_th=0.2):
    """Small decoder with random weights."""
    torch.manual_seed(5)
    return L2IDecoder(
        CHANNELS, n_classes, n_components, n_fft, 16, relevance_th
    ).eval()


def latents(n_clips=3, n_frames=40):
    """Two latents of different clips, like those of a CNN."""
    torch.manual_seed(6)
    return [
        torch.rand(n_clips, 16, n_frames // 8, 3),
        torch.rand(n_clips, 8, n_frames // 4, 6),
    ]


# ------------------------------------------------------------ the dictionary


def test_planted_patterns_are_found():
    """The learner finds the patterns that frames were made of."""
    torch.manual_seed(0)
    patterns = torch.zeros(4, 20)
    for k in range(4):
        patterns[k, 5 * k : 5 * k + 5] = torch.rand(5) + 0.2
    amounts = torch.rand(300, 4) * (torch.rand(300, 4) < 0.4)
    W = DictionaryLearner(4, sparsity=0.01).learn(amounts @ patterns)
    likeness = torch.nn.functional.normalize(patterns) @ W
    assert likeness.amax(1).min() > 0.99
    assert sorted(likeness.argmax(1).tolist()) == [0, 1, 2, 3]


def slow_dictionary(frames, n_components, sparsity, n_iterations, seed):
    """The updates of the paper, element by element."""
    generator = torch.Generator().manual_seed(seed)
    n_frames, n_bins = frames.shape
    W = torch.rand(n_bins, n_components, generator=generator).tolist()
    H = torch.rand(n_components, n_frames, generator=generator).tolist()
    X = frames.T.tolist()
    bins, frames, parts = range(n_bins), range(n_frames), range(n_components)

    def normalise():
        for k in parts:
            length = math.sqrt(sum(W[f][k] ** 2 for f in bins))
            for f in bins:
                W[f][k] /= length

    def rebuild():
        return [
            [sum(W[f][k] * H[k][t] for k in parts) for t in frames]
            for f in bins
        ]

    normalise()
    for _ in range(n_iterations):
        Y = rebuild()
        H = [
            [
                H[k][t]
                * sum(W[f][k] * X[f][t] for f in bins)
                / (sum(W[f][k] * Y[f][t] for f in bins) + sparsity)
                for t in frames
            ]
            for k in parts
        ]
        Y, old = rebuild(), [row[:] for row in W]
        for k in parts:
            up = [sum(X[f][t] * H[k][t] for t in frames) for f in bins]
            down = [sum(Y[f][t] * H[k][t] for t in frames) for f in bins]
            more = sum(down[f] * old[f][k] for f in bins)
            less = sum(up[f] * old[f][k] for f in bins)
            for f in bins:
                w = old[f][k]
                W[f][k] = w * (up[f] + w * more) / (down[f] + w * less)
        normalise()
    return torch.tensor(W)


def test_updates_agree_with_loops():
    frames = torch.rand(7, 5)
    learner = DictionaryLearner(3, sparsity=0.3, n_iterations=3, seed=4)
    found = learner.learn(frames)
    expected = slow_dictionary(frames, 3, 0.3, 3, 4)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_dictionary_is_of_unit_patterns_and_of_its_seed():
    """The dictionary depends only on its seed."""
    frames = torch.rand(50, 12)
    learner = DictionaryLearner(5, n_iterations=10, seed=1)
    W = learner.learn(frames)
    assert W.shape == (12, 5)
    assert (W >= 0).all()
    torch.testing.assert_close(W.norm(dim=0), torch.ones(5))
    torch.manual_seed(99)
    assert torch.equal(W, learner.learn(frames))
    other = DictionaryLearner(5, n_iterations=10, seed=2).learn(frames)
    assert not torch.equal(W, other)


def test_silence_gives_a_finite_dictionary():
    W = DictionaryLearner(3, n_iterations=5).learn(torch.zeros(9, 4))
    assert W.isfinite().all()


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(0, 4), "no training frames"),
        (torch.full((2, 4), math.nan), "NaN, infinite or negative"),
        (-torch.ones(2, 4), "NaN, infinite or negative"),
    ],
)
def test_bad_frames(frames, message):
    with pytest.raises(LMACError, match=message):
        DictionaryLearner(2).learn(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 0}, "n_components: 0, expected 1 or more"),
        ({"n_frames": 0}, "nmf_frames: 0, expected 1 or more"),
        ({"n_iterations": 0}, "nmf_iterations: 0, expected 1 or more"),
        ({"sparsity": -0.1}, "nmf_sparsity: -0.1, a weight is 0 or more"),
        ({"sparsity": math.nan}, "nmf_sparsity: nan, a weight is 0 or more"),
    ],
)
def test_bad_learner(change, message):
    with pytest.raises(LMACError, match=message):
        DictionaryLearner(**change)


def test_frames_come_from_all_clips():
    """Each clip gives the same number of frames, drawn by the seed."""
    clips = [torch.rand(30, 4) for _ in range(5)]
    frames = DictionaryLearner(n_frames=50, seed=3).sample(clips.__getitem__, 5)
    assert frames.shape == (50, 4)
    for clip in clips:
        same = (frames[:, None] == clip).all(2)
        assert same.sum() == 10
        assert same.sum(0).max() == 1
    for seed in (3, 4):
        again = DictionaryLearner(n_frames=50, seed=seed).sample(
            clips.__getitem__, 5
        )
        assert torch.equal(again, frames) == (seed == 3)


def test_not_all_of_a_large_corpus_is_read():
    read = []

    def clip(number):
        read.append(number)
        return torch.rand(100, 4)

    frames = DictionaryLearner(n_frames=80).sample(clip, 100_000)
    assert len(frames) == 80
    assert len(read) == len(set(read)) == 10


def test_short_clips_give_all_their_frames():
    clips = [torch.rand(20, 4), torch.rand(5, 4)]
    frames = DictionaryLearner(n_frames=24).sample(clips.__getitem__, 2)
    assert len(frames) == 12 + 5


def test_no_clips():
    with pytest.raises(LMACError, match="no training clips"):
        DictionaryLearner().sample([].__getitem__, 0)


# --------------------------------------------------------------- the decoder


def test_mask_by_hand():
    """The mask equals one that is computed bin by bin."""
    decoder = make(n_components=4, n_classes=2, n_fft=6)
    torch.manual_seed(1)
    H = torch.rand(2, 4, 5)
    decoder.activate = Fixed(H)
    with torch.no_grad():
        decoder.theta.weight.copy_(
            torch.tensor([[1.0, -1.0, 0.05, 0.6], [-2.0, 0.5, 1.0, 0.0]])
        )
        target = torch.tensor([0, 1])
        logits = decoder([], torch.zeros(2, 5, 4), target)
        parts = decoder([], torch.zeros(2, 5, 4))
    W, mask = decoder.dictionary.W, torch.sigmoid(logits)
    n_chosen = []
    for clip, c in enumerate(target.tolist()):
        weights = decoder.theta.weight[c].tolist()
        speaks = [parts.pooled[clip, k].item() * weights[k] for k in range(4)]
        largest = max(abs(x) for x in speaks)
        chosen = [k for k in range(4) if speaks[k] / largest > 0.2]
        n_chosen.append(len(chosen))
        for t in range(5):
            for f in range(4):
                share = [(W[f, k] * H[clip, k, t]).item() for k in range(4)]
                expected = sum(share[k] for k in chosen) / sum(share)
                assert mask[clip, t, f].item() == pytest.approx(
                    expected, abs=1e-5
                )
                assert parts.reconstruction[clip, t, f].item() == (
                    pytest.approx(sum(share), rel=1e-5)
                )
    assert n_chosen == [2, 2]


def test_pooling_is_a_mean_over_time():
    """Pooling constant activations gives the same activations."""
    decoder = make()
    levels = torch.rand(2, 6, 1)
    decoder.activate = Fixed(levels.expand(2, 6, 9))
    parts = decoder([], torch.zeros(2, 9, 17))
    torch.testing.assert_close(parts.pooled, levels[:, :, 0])
    expected = levels[:, :, 0] @ decoder.theta.weight.T
    torch.testing.assert_close(parts.logits, expected)


def test_relevance():
    """Relevance is relative to the largest absolute product."""
    decoder = make(n_components=3, n_classes=1)
    with torch.no_grad():
        decoder.theta.weight.copy_(torch.tensor([[1.0, -4.0, 0.5]]))
    pooled = torch.tensor([[2.0, 1.0, 4.0], [0.0, 0.0, 0.0]])
    found = decoder.relevance(pooled, torch.tensor([0, 0]))
    assert found.tolist() == [[0.5, -1.0, 0.5], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("n_frames", [1, 3, 40, 47])
def test_shapes_of_any_length(n_frames):
    decoder = make()
    log_magnitude = torch.zeros(3, n_frames, 17)
    inputs = latents(3, max(n_frames, 8))
    mask = torch.sigmoid(
        decoder(inputs, log_magnitude, torch.tensor([0, 1, 2]))
    )
    assert mask.shape == (3, n_frames, 17)
    assert 0 <= mask.min() < mask.max() <= 1
    parts = decoder(inputs, log_magnitude)
    assert parts.activations.shape == (3, 6, n_frames)
    assert parts.activations.min() >= 0
    assert parts.reconstruction.shape == (3, n_frames, 17)
    assert parts.logits.shape == (3, 3)


def test_independent_of_batch_mates():
    decoder, inputs = make(), latents()
    log_magnitude, target = torch.zeros(3, 40, 17), torch.tensor([2, 0, 1])
    whole = decoder(inputs, log_magnitude, target)
    for row in range(3):
        alone = decoder(
            [latent[row : row + 1] for latent in inputs],
            log_magnitude[:1],
            target[row : row + 1],
        )
        assert torch.allclose(
            whole[row].sigmoid(), alone[0].sigmoid(), atol=1e-5
        )


def test_classes_have_masks_of_their_own():
    """The mask depends on the explained class."""
    decoder, inputs = make(), latents(1)
    masks = [
        decoder(inputs, torch.zeros(1, 40, 17), torch.tensor([c])).sigmoid()
        for c in range(3)
    ]
    assert (masks[0] - masks[1]).abs().max() > 0.1
    assert (masks[0] - masks[2]).abs().max() > 0.1


def test_no_activation_is_no_mask():
    """Without activations the mask is empty, and its logits finite."""
    decoder = make()
    decoder.activate = Fixed(torch.zeros(1, 6, 5))
    logits = decoder([], torch.zeros(1, 5, 17), torch.tensor([0]))
    assert logits.isfinite().all()
    assert logits.sigmoid().max() < 1e-5


def test_all_relevant_is_everything():
    decoder = make(relevance_th=0)
    decoder.activate = Fixed(torch.rand(1, 6, 5) + 0.1)
    with torch.no_grad():
        decoder.theta.weight.fill_(1)
    logits = decoder([], torch.zeros(1, 5, 17), torch.tensor([0]))
    assert logits.isfinite().all()
    assert logits.sigmoid().min() > 1 - 1e-5


@pytest.mark.parametrize("n_frames", [32, 44, 63, 95, 127, 173, 431])
@pytest.mark.parametrize("size", [1, 4, 32])
def test_cells_lie_over_their_frames(n_frames, size):
    """Cells lie over the frames that they came from."""
    n_cells = n_frames // size
    cells = torch.arange(float(n_cells)).view(1, 1, -1)
    found = _over_frames(cells, n_frames)[0, 0]
    for frame in range(n_frames):
        place = (frame + 0.5) / size - 0.5
        expected = min(max(place, 0), n_cells - 1)
        assert found[frame].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("n_cells", "n_frames"), [(6, 43), (10, 100), (9, 4)])
def test_other_ratios_are_spread_evenly(n_cells, n_frames):
    cells = torch.arange(float(n_cells)).view(1, 1, -1)
    found = _over_frames(cells, n_frames)[0, 0]
    assert len(found) == n_frames
    middle = found[n_frames // 4 : 3 * n_frames // 4].diff()
    assert torch.allclose(middle, torch.tensor(n_cells / n_frames), atol=1e-4)


def test_training_reaches_all_but_the_dictionary():
    decoder = make()
    parts = decoder(latents(), torch.rand(3, 40, 17))
    losses, _ = L2ILoss()(parts, torch.rand(3, 40, 17), torch.randn(3, 3))
    losses.mean().backward()
    for name, parameter in decoder.named_parameters():
        if name == "dictionary.W":
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().sum() > 0, name


def test_state_holds_everything():
    """The state includes the dictionary."""
    decoder, other = make(), make(relevance_th=0.2)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    inputs = latents(), torch.zeros(3, 40, 17), torch.tensor([0, 1, 2])
    assert not torch.allclose(decoder(*inputs), other(*inputs))
    assert "dictionary.W" in decoder.state_dict()
    other.load_state_dict(decoder.state_dict())
    assert torch.equal(decoder(*inputs), other(*inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 0}, "n_components: 0, expected 1 or more"),
        ({"n_classes": 0}, "n_classes: 0, expected 1 or more"),
        ({"width": 0}, "decoder_width: 0, expected 1 or more"),
        ({"relevance_th": 1}, r"relevance_th: 1 is not in \[0, 1\)"),
        ({"relevance_th": -0.1}, "relevance_th: -0.1 is not in"),
    ],
)
def test_bad_decoder(change, message):
    with pytest.raises(LMACError, match=message):
        L2IDecoder(CHANNELS, **{"n_classes": 3, **change})


# ------------------------------------------------------------- the objective


def test_loss_agrees_with_loops():
    torch.manual_seed(2)
    parts = Decomposition(
        torch.rand(2, 4, 3),
        torch.rand(2, 4),
        torch.randn(2, 5),
        torch.rand(2, 3, 6),
    )
    target, logits = torch.rand(2, 3, 6), torch.randn(2, 5)
    total, terms = L2ILoss(7, 0.3)(parts, target, logits)
    for clip in range(2):
        p, q = (
            [math.exp(x) for x in row.tolist()]
            for row in (logits[clip], parts.logits[clip])
        )
        p, q = ([x / sum(row) for x in row] for row in (p, q))
        imitation = -sum(a * math.log(b) for a, b in zip(p, q))
        error = (parts.reconstruction[clip] - target[clip]).flatten().tolist()
        squared = sum(x * x for x in error) / 18
        level = sum(parts.activations[clip].flatten().tolist()) / 12
        for name, expected in (
            ("imitation", imitation),
            ("reconstruction", squared),
            ("sparsity", level),
        ):
            assert terms[name][clip].item() == pytest.approx(expected, rel=1e-4)
        expected = imitation + 7 * squared + 0.3 * level
        assert total[clip].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("key", ["reconstruction_w", "sparsity_w"])
@pytest.mark.parametrize("weight", [-1, math.nan])
def test_bad_weights(key, weight):
    with pytest.raises(LMACError, match=f"{key}: {weight}, a weight is 0"):
        L2ILoss(**{key: weight})
