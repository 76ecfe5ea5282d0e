"""Tests of the steps from the decoder's mask.

The judges here are two small classifiers of masks; tests of `Explainer` put
the real one in their place.
"""

import copy
import itertools
import logging
import math
import random
import re

import pytest
import torch
from torch.nn import functional as F

from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner, check_steps
from lmac_sb.utils.errors import LMACError

N_CLASSES = 3
FRAMES, BINS = 11, 9  # not a multiple of the default resolution
LOSS = {"l_in_w": 3, "l_out_w": 2, "l_out_type": "probability", "reg_w_l1": 1}


class Judge:
    """A smooth random classifier of masked random spectrograms.

    `passes` counts what it classified, forward and backward.
    """

    def __init__(self, n_clips, shape=(FRAMES, BINS), seed=0):
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1]
        self.clips = torch.rand(n_clips, *shape, generator=generator)
        self.weight = torch.randn(size, N_CLASSES, generator=generator)
        self.passes, self.calls = 0, []

    def __call__(self, mask, rows):
        """Logits of the masked-in and masked-out input."""
        self.calls.append(rows.tolist())
        sides = (self.classify(x * self.clips[rows]) for x in (mask, 1 - mask))
        return tuple(sides)

    def classify(self, spectrogram):
        """Logits [batch, classes]."""
        self.count(spectrogram)
        if spectrogram.requires_grad:
            spectrogram.register_hook(self.count)
        return torch.tanh(spectrogram.flatten(1) @ self.weight)

    def count(self, spectrogram):
        """Count a pass of this many clips."""
        self.passes += len(spectrogram)

    def alone(self, row):
        """The same judge for one clip."""
        other = Judge(0, self.clips.shape[1:])
        other.clips = self.clips[row : row + 1]
        other.weight = self.weight
        return other


def start_of(n_clips, shape=(FRAMES, BINS), seed=1):
    """Logits of a mask, and classes to explain."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_clips, *shape, generator=generator)
    return logits, torch.arange(n_clips) % N_CLASSES


def objective(refiner, judge, mask, target):
    """The objective without the smoothness, [batch]."""
    logits_in, logits_out = judge(mask, torch.arange(len(mask)))
    return refiner.loss(mask, logits_in, logits_out, target)[0]


def by_torch(refiner, logits, judge, target, steps):
    """All masks of one clip under torch's Adam, and the best."""
    size = refiner.resolution
    cells = [-(-n // size) for n in logits.shape[1:]]
    correction = torch.zeros(1, 1, *cells, requires_grad=True)
    adam = torch.optim.Adam(
        [correction], lr=refiner.lr, betas=tuple(refiner.betas)
    )
    masks, losses = [], []
    for step in range(steps + 1):
        spread = F.interpolate(
            correction,
            size=[n * size for n in cells],
            mode="bilinear",
            align_corners=False,
        )[:, 0, : logits.shape[1], : logits.shape[2]]
        mask = torch.sigmoid(logits + spread)
        loss = objective(refiner, judge, mask, target)
        terms = []
        for a, b in (
            (correction[..., 1:, :], correction[..., :-1, :]),
            (correction[..., 1:], correction[..., :-1]),
        ):
            if a.numel():
                terms.append(((a - b) ** 2).mean())
        loss = loss + refiner.smooth_w * sum(terms)
        masks.append(mask.detach())
        losses.append(loss.item())
        if step < steps:
            adam.zero_grad()
            loss.backward()
            adam.step()
    return masks, losses, masks[losses.index(min(losses))]


@pytest.mark.parametrize("shape", [(FRAMES, BINS), (1, 1), (2, 8), (3, 40)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": 1},
        {"resolution": 3, "lr": 0.3, "smooth_w": 0.5},
        {"resolution": 100, "smooth_w": 2.0},
        {"lr": 2.0},
        {"betas": (0.2, 0.6)},
        {"lr": 0.2, "betas": [0.0, 0.5]},
    ],
)
def test_the_steps_are_adams(options, shape):
    """The steps equal those of torch's optimiser for each clip."""
    refiner = Refiner(LMACLoss(**LOSS), tolerance=0, **options)
    judge = Judge(3, shape)
    logits, target = start_of(3, shape)
    found = refiner(logits, judge, target, 6)
    moved = 0
    for row in range(3):
        one = slice(row, row + 1)
        masks, losses, best = by_torch(
            refiner, logits[one], judge.alone(row), target[one], 6
        )
        assert torch.allclose(found[one], best, atol=1e-5)
        moved += losses.index(min(losses)) > 0
        # Far enough apart to distinguish one step from the next.
        steps = [float((a - b).abs().max()) for a, b in zip(masks, masks[1:])]
        assert min(steps) > 1e-4
    assert moved >= 2


# ---------------------------------------------------- following the level


def by_hand(logits, coefficients, level, size):
    """Mask of one clip, bin by bin, from coefficients [n][cells][cells]."""
    frames, bins = logits.shape
    mask = torch.empty(frames, bins, dtype=torch.double)
    for t, f in itertools.product(range(frames), range(bins)):
        total = float(logits[t, f])
        for grid, basis in zip(coefficients, (1.0, float(level[t, f]))):
            total += basis * bilinear(grid, (t + 0.5) / size, (f + 0.5) / size)
        mask[t, f] = 1 / (1 + math.exp(-total))
    return mask


def bilinear(grid, y, x):
    """Value between the centres of cells, which end the grid at its edges."""
    weights = []
    for place, cells in ((y, len(grid)), (x, len(grid[0]))):
        place = min(max(place - 0.5, 0), cells - 1)
        low = min(int(place), cells - 1)
        high = min(low + 1, cells - 1)
        weights.append(((low, 1 - (place - low)), (high, place - low)))
    return sum(a * b * grid[i][j] for i, a in weights[0] for j, b in weights[1])


def test_one_step_with_gain_by_hand():
    """Adam's first step is the step size against each sign."""
    shape, size, lr = (4, 6), 2, 0.3
    judge = Judge(1, shape)
    logits, target = start_of(1, shape)
    level = torch.randn(1, *shape)
    refiner = Refiner(LMACLoss(**LOSS), lr, size, gain=True)

    def loss(coefficients):
        """The objective for coefficients, in loops."""
        mask = by_hand(logits[0], coefficients, level[0], size)
        return float(objective(refiner, judge, mask[None].float(), target))

    grid = [[[0.0] * 3 for _ in range(2)] for _ in range(2)]
    stepped = copy.deepcopy(grid)
    for n, i, j in itertools.product(range(2), range(2), range(3)):
        sides = []
        for shift in (1e-2, -1e-2):
            other = copy.deepcopy(grid)
            other[n][i][j] = shift
            sides.append(loss(other))
        assert abs(sides[0] - sides[1]) > 1e-5, "no clear sign"
        stepped[n][i][j] = -lr if sides[0] > sides[1] else lr
    expected = by_hand(logits[0], stepped, level[0], size)
    assert loss(stepped) < loss(grid)
    found = refiner(logits, judge, target, 1, level)
    assert torch.allclose(found[0].double(), expected, atol=1e-5)


def test_following_the_level_wins():
    """Loud and quiet bins in turn, of which only the loud ones decide."""
    level = torch.ones(1, 16, 16)
    level[:, ::2] = -1

    def judge(mask, rows):
        """Classes: the loud bins, and the quiet ones."""
        sides = []
        for part in (mask, 1 - mask):
            loud = part[:, 1::2].mean((1, 2))
            quiet = part[:, ::2].mean((1, 2))
            sides.append(6 * torch.stack((loud, quiet), 1))
        return tuple(sides)

    start, target = torch.zeros(1, 16, 16), torch.tensor([0])
    masks, losses = [], []
    for gain in (False, True):
        refiner = Refiner(LMACLoss(**LOSS), 0.5, 8, gain=gain)
        masks.append(refiner(start, judge, target, 20, level))
        losses.append(float(objective(refiner, judge, masks[-1], target)))
    assert losses[1] < losses[0] - 1
    assert masks[1][:, 1::2].min() > masks[1][:, ::2].max() + 0.3


def test_without_gain_nothing_changes():
    """Offsets alone are the same to the bit, whatever the level."""
    logits, target = start_of(3)
    plain = Refiner(LMACLoss(**LOSS))
    expected = plain(logits, Judge(3), target, 5)
    level = torch.randn_like(logits)
    assert torch.equal(plain(logits, Judge(3), target, 5, level), expected)
    following = Refiner(LMACLoss(**LOSS), gain=True)
    flat = torch.zeros_like(logits)
    assert torch.equal(following(logits, Judge(3), target, 5, flat), expected)
    found = following(logits, Judge(3), target, 5, level)
    assert not torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    "level, found",
    [(None, "none"), (torch.zeros(2, FRAMES), r"shape \(2, 11\)")],
)
def test_gain_needs_the_level(level, found):
    logits, target = start_of(2)
    refiner = Refiner(LMACLoss(**LOSS), gain=True)
    with pytest.raises(LMACError, match=f"level: found {found}, expected"):
        refiner(logits, Judge(2), target, 1, level)


@pytest.mark.parametrize("seed", range(40))
def test_never_worse_than_the_start(seed):
    """With any step size, the result is a mask and no worse."""
    rng = random.Random(seed)
    lr = 10 ** rng.uniform(-3, 2)
    resolution, steps = rng.randint(1, 12), rng.randint(0, 6)
    smooth_w, scale = rng.choice([0.0, 1.0]), rng.choice([0.1, 3.0, 40.0])
    l_out_type = rng.choice(["ce", "probability"])
    loss = LMACLoss(**{**LOSS, "l_out_type": l_out_type, "reg_w_tv": 1})
    refiner = Refiner(loss, lr, resolution, smooth_w)
    judge = Judge(2, seed=seed)
    logits, target = start_of(2, seed=seed)
    logits = scale * logits
    mask = refiner(logits, judge, target, steps)
    assert mask.shape == logits.shape
    assert 0 <= mask.min() <= mask.max() <= 1
    before = objective(refiner, judge, logits.sigmoid(), target)
    after = objective(refiner, judge, mask, target)
    assert (after <= before + 1e-6).all()


def test_more_steps_are_never_worse():
    refiner, judge = Refiner(LMACLoss(**LOSS)), Judge(3)
    logits, target = start_of(3)
    losses = [
        objective(refiner, judge, refiner(logits, judge, target, k), target)
        for k in range(8)
    ]
    for a, b in zip(losses, losses[1:]):
        assert (b <= a + 1e-6).all()
    assert (losses[5] < losses[0] - 0.1).all()


def test_an_overshoot_is_given_back():
    """If no step helps, the mask stays the same, to the bit."""
    refiner = Refiner(LMACLoss(l_in_w=0, l_out_w=1, l_out_type="probability"))
    centre = torch.rand(1, FRAMES, BINS)

    def judge(mask, rows):
        far = (mask - centre).square().sum((1, 2))
        logits = torch.stack((1e3 * far, torch.zeros_like(far)), 1)
        return logits, logits

    logits = torch.logit(centre, eps=1e-6)
    refiner.lr = 50.0
    refiner.loss.reg_w_l1 = 0.01
    found = refiner(logits, judge, torch.tensor([0]), 4)
    assert torch.equal(found, logits.sigmoid())


def test_a_clip_does_not_depend_on_its_batch():
    """A clip is refined as it is alone."""
    refiner = Refiner(LMACLoss(**LOSS))
    judge = Judge(4)
    logits, target = start_of(4)
    logits[1] = 40.0  # saturated: nothing moves
    judge.clips[2] *= 30  # much larger gradients
    found = refiner(logits, judge, target, 5)
    assert judge.calls[:3] == [[0, 1, 2, 3]] * 2 + [[0, 2, 3]]
    for row in range(4):
        one = slice(row, row + 1)
        alone = refiner(logits[one], judge.alone(row), target[one], 5)
        assert torch.allclose(found[one], alone, atol=1e-6)
    assert torch.equal(found[1], logits[1].sigmoid())
    order = torch.tensor([3, 1, 0, 2])
    turned = Judge(4)
    turned.clips = judge.clips[order]
    found = found[order]
    again = refiner(logits[order], turned, target[order], 5)
    assert torch.allclose(found, again, atol=1e-6)


def test_deterministic():
    """Refining neither uses nor changes random numbers."""
    refiner = Refiner(LMACLoss(**LOSS))
    logits, target = start_of(3)
    masks, states = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        masks.append(refiner(logits, Judge(3), target, 5))
        states.append(torch.equal(state, torch.get_rng_state()))
    assert torch.equal(*masks)
    assert states == [True, True]


def test_what_it_costs():
    """K = 5 takes 20 passes for the steps, and 2 for the result."""
    refiner = Refiner(LMACLoss(**LOSS), tolerance=0)
    logits, target = start_of(1)
    for steps, passes in ((0, 0), (1, 6), (5, 22)):
        judge = Judge(1)
        refiner(logits, judge, target, steps)
        assert judge.passes == passes == (4 * steps + 2) * (steps > 0)


@pytest.mark.parametrize(
    ("tolerance", "n_calls"), [(0, 8), (1e-4, 8), (0.03, 4), (10.0, 2)]
)
def test_what_no_longer_moves_is_left_alone(tolerance, n_calls):
    """A step that moves neither probability nor area is the last one."""
    refiner = Refiner(LMACLoss(**LOSS), tolerance=tolerance)
    judge, steps = Judge(1), 7
    logits, target = start_of(1)
    masks, _, _ = by_torch(refiner, logits, judge.alone(0), target, steps)
    states = []
    for mask in masks:
        p = judge.classify(mask * judge.clips).softmax(1)[0, target[0]]
        states.append(torch.stack((p, mask.mean())))
    quiet = [
        bool(((a - b).abs() <= tolerance).all())
        for a, b in zip(states, states[1:])
    ]
    assert n_calls == (quiet.index(True) + 2 if True in quiet else steps + 1)
    refiner(logits, judge, target, steps)
    assert len(judge.calls) == n_calls


def test_area_alone_counts_as_moving():
    """A shrinking mask goes on even if the probability stays 1."""
    refiner = Refiner(LMACLoss(l_in_w=1, l_out_w=0, reg_w_l1=1))
    calls = []

    def judge(mask, rows):
        calls.append(rows)
        sure = 50 + 0 * mask.mean((1, 2))
        return [torch.stack((sure, -sure), dim=1)] * 2

    refiner(torch.zeros(1, 8, 8), judge, torch.tensor([0]), 5)
    assert len(calls) == 6


class Broken(Judge):
    """Judge that gives clip 1 wrong values from a certain call on."""

    def __init__(self, n_clips, call, value, gradient_alone=False):
        super().__init__(n_clips)
        self.call, self.value = call, value
        self.gradient_alone = gradient_alone

    def __call__(self, mask, rows):
        """Logits of the masked-in and masked-out input."""
        if len(self.calls) < self.call:
            return super().__call__(mask, rows)
        wrong = rows == 1
        if self.gradient_alone and mask.requires_grad:
            mask = mask * 1
            mask.register_hook(
                lambda x: torch.where(wrong[:, None, None], self.value, x)
            )
        sides = super().__call__(mask, rows)
        if self.gradient_alone:
            return sides
        return [torch.where(wrong[:, None], self.value, x) for x in sides]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("call", [0, 1, 3, 5])
def test_an_objective_that_is_no_number(caplog, value, call):
    """A clip whose objective is NaN keeps its best mask so far."""
    refiner = Refiner(LMACLoss(**LOSS), tolerance=0)
    judge = Broken(3, call, value)
    logits, target = start_of(3)
    with caplog.at_level(logging.WARNING):
        found = refiner(logits, judge, target, 5)
    (message,) = caplog.messages
    assert "the objective is not finite for 1 clips" in message
    assert found.isfinite().all()
    sound = Judge(3)
    expected = refiner(logits, sound, target, 5)
    best = refiner(logits, sound, target, max(call - 1, 0))
    assert torch.allclose(found[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert torch.allclose(found[1], best[1], atol=1e-6)
    if call == 0:
        assert torch.equal(found[1], logits[1].sigmoid())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number(caplog, value):
    """A NaN gradient is handled like a NaN objective."""
    refiner = Refiner(LMACLoss(**LOSS), tolerance=0)
    judge = Broken(3, 0, value, gradient_alone=True)
    logits, target = start_of(3)
    found = refiner(logits, judge, target, 3)
    assert len(caplog.messages) == 1
    assert torch.equal(found[1], logits[1].sigmoid())
    expected = refiner(logits, Judge(3), target, 3)
    assert torch.allclose(found[[0, 2]], expected[[0, 2]], atol=1e-6)


def test_no_warning_where_all_is_well(caplog):
    logits, target = start_of(2)
    Refiner(LMACLoss(**LOSS))(logits, Judge(2), target, 3)
    assert caplog.messages == []


def steps_of(judge, steps=3):
    """Refine with a judge."""
    logits, target = start_of(2)
    return Refiner(LMACLoss(**LOSS))(logits, judge, target, steps)


class Hard(torch.autograd.Function):
    """An operation without a backward pass."""

    @staticmethod
    def forward(context, x):
        """The same."""
        return x.clone()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.detach(), "its logits hold none"),
        (lambda x: (x > 0).float(), "its logits hold none"),
        (Hard.apply, "backward"),
    ],
)
def test_a_classifier_that_is_not_differentiable(spoil, message):
    """A classifier that cannot be differentiated is refused."""
    judge = Judge(2)

    def spoilt(mask, rows):
        return [spoil(logits) for logits in judge(mask, rows)]

    with pytest.raises(LMACError, match=message) as caught:
        steps_of(spoilt)
    text = str(caught.value)
    assert text.startswith("refine_steps: no gradient of the classifier")
    assert "needs a differentiable classifier" in text
    assert len(text.splitlines()) == 1
    assert steps_of(spoilt, 0).isfinite().all()


def test_too_little_memory_is_not_the_classifiers_fault():
    class Large(torch.autograd.Function):
        """An operation whose backward pass runs out of memory."""

        @staticmethod
        def forward(context, x):
            """The same."""
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            """Raise the error that CUDA raises."""
            raise torch.OutOfMemoryError("out of memory")

    judge = Judge(2)
    with pytest.raises(torch.OutOfMemoryError):
        steps_of(lambda *x: [Large.apply(logits) for logits in judge(*x)])


@pytest.mark.parametrize(
    "steps", [-1, 2.5, 5.0, True, False, None, "5", float("nan")]
)
def test_no_number_of_steps(steps):
    message = r"^refine_steps: .*, expected a whole number from 0$"
    with pytest.raises(LMACError, match=message) as caught:
        check_steps(steps)
    assert repr(steps) in str(caught.value)
    judge = Judge(2)
    with pytest.raises(LMACError, match=message):
        steps_of(judge, steps)
    assert judge.calls == []


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("lr", 0, "a number above 0"),
        ("lr", -1.0, "a number above 0"),
        ("lr", float("nan"), "a number above 0"),
        ("lr", float("inf"), "a number above 0"),
        ("resolution", 0, "a whole number from 1"),
        ("resolution", -4, "a whole number from 1"),
        ("resolution", 2.5, "a whole number from 1"),
        ("resolution", True, "a whole number from 1"),
        ("smooth_w", -0.1, "0 or more"),
        ("smooth_w", float("nan"), "0 or more"),
        ("tolerance", -1e-9, "0 or more"),
        ("tolerance", float("nan"), "0 or more"),
        ("betas", [0.9], "two numbers in [0, 1)"),
        ("betas", [0.9, 1], "two numbers in [0, 1)"),
        ("betas", [-0.1, 0.9], "two numbers in [0, 1)"),
        ("betas", [0.9, float("nan")], "two numbers in [0, 1)"),
        ("betas", 0.9, "two numbers in [0, 1)"),
        ("betas", "ab", "two numbers in [0, 1)"),
    ],
)
def test_settings_out_of_range(key, value, needed):
    message = re.escape(f"refiner: {key}: {value}, expected {needed}")
    with pytest.raises(LMACError, match=f"^{message}$"):
        Refiner(LMACLoss(), **{key: value})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_off(mode):
    """With gradients off, the mask is the same and the mode stays."""
    refiner = Refiner(LMACLoss(**LOSS))
    logits, target = start_of(2)
    judge = Judge(2)
    expected = refiner(logits, judge, target, 4)
    with mode():
        inputs = logits * 1.0, target + 0  # made in this mode
        found = refiner(inputs[0], judge, inputs[1], 4)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert not found.is_inference()


def test_no_graph_and_no_gradient_is_left():
    """No graph and no gradient is left in decoder and judge."""
    logits, target = start_of(2)
    logits.requires_grad_()
    judge = Judge(2)
    found = Refiner(LMACLoss(**LOSS))(2 * logits, judge, target, 3)
    assert not found.requires_grad
    assert logits.grad is None
    assert judge.weight.grad is None


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_no_steps_are_the_start(scale):
    logits, target = start_of(2)
    logits = scale * logits
    judge = Judge(2)
    found = Refiner(LMACLoss(**LOSS))(logits, judge, target, 0)
    assert torch.equal(found, logits.sigmoid())
    assert judge.calls == []


def roughness(mask, logits):
    """Mean squared step between neighbours of the correction."""
    correction = torch.logit(mask, eps=1e-6) - logits
    steps = [correction.diff(dim=dim).square().mean() for dim in (1, 2)]
    return float(sum(steps))


def test_smoothness():
    """More smoothness makes neighbours differ less."""
    logits, target = start_of(2)
    found = []
    for smooth_w in (0.0, 0.03, 0.3, 3.0):
        refiner = Refiner(LMACLoss(**LOSS), 0.3, 1, smooth_w)
        mask = refiner(logits, Judge(2), target, 20)
        found.append(roughness(mask, logits))
    assert found[0] > 2 * found[1] > 4 * found[2] > 0
    assert found[3] <= found[2]


def test_a_correction_is_smooth():
    """No bin jumps by more than a cell's share of the largest correction."""
    logits, target = start_of(2)
    jumps = []
    for resolution in (1, 4):
        refiner = Refiner(LMACLoss(**LOSS), resolution=resolution)
        mask = refiner(logits, Judge(2), target, 1)
        correction = torch.logit(mask, eps=1e-6) - logits
        assert correction.abs().max() == pytest.approx(1, abs=1e-3)
        jumps.append(float(correction.diff(dim=2).abs().max()))
    assert jumps[0] == pytest.approx(2, abs=1e-3)
    assert jumps[1] <= 2 / 4 + 1e-3


def test_half_precision():
    """Mixed precision of the judge leaves the mask in single precision."""
    logits, target = start_of(2)
    refiner = Refiner(LMACLoss(**LOSS))
    expected = refiner(logits, Judge(2), target, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = refiner(logits, Judge(2), target, 3)
    assert found.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05
