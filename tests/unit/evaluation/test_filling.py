"""What stands in place of removed bins."""

import math

import pytest
import torch

from lmac_sb.evaluation.filling import FILLS, inpainted, noise, silence


@pytest.fixture
def magnitude():
    torch.manual_seed(0)
    return torch.rand(2, 13, 17) + 0.1


@pytest.fixture(params=["few", "block", "most", "one kept"])
def hole(request):
    torch.manual_seed(1)
    hole = torch.zeros(2, 13, 17)
    if request.param == "few":
        return (torch.rand(2, 13, 17) < 0.1).float()
    if request.param == "block":
        hole[0, 2:12, 3:15] = 1
        hole[1, :, :9] = 1
        return hole
    if request.param == "most":
        return (torch.rand(2, 13, 17) < 0.97).float()
    hole = torch.ones(2, 13, 17)
    hole[:, 0, 16] = 0
    return hole


def slow_inpainted(magnitude, hole):
    """Bin by bin, for one clip."""
    n_frames, n_bins = magnitude.shape
    filled = magnitude.clone()
    for t in range(n_frames):
        for f in range(n_bins):
            half = 0 if hole[t, f] == 0 else 1
            while True:
                around = [
                    magnitude[i, j].item()
                    for i in range(t - half, t + half + 1)
                    for j in range(f - half, f + half + 1)
                    if 0 <= i < n_frames and 0 <= j < n_bins
                    if hole[i, j] == 0
                ]
                if around:
                    break
                half = 2 * half + 1
            filled[t, f] = sum(around) / len(around)
    return filled


def test_inpainted_is_the_mean_of_the_nearest(magnitude, hole):
    expected = torch.stack(
        [slow_inpainted(*clip) for clip in zip(magnitude, hole)]
    )
    found = inpainted(magnitude, hole)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", FILLS)
def test_what_was_kept_stays(magnitude, hole, name):
    filled = FILLS[name](magnitude, hole, [0, 1])
    assert torch.equal(filled[hole == 0], magnitude[hole == 0])
    assert filled.isfinite().all() and (filled >= 0).all()


@pytest.mark.parametrize("name", FILLS)
def test_a_hole_of_nothing(magnitude, name):
    none = torch.zeros_like(magnitude)
    assert torch.equal(FILLS[name](magnitude, none, [0, 1]), magnitude)


@pytest.mark.parametrize("name", FILLS)
def test_nothing_kept_is_silence(magnitude, name):
    hole = torch.zeros_like(magnitude)
    hole[0] = 1
    filled = FILLS[name](magnitude, hole, [0, 1])
    assert (filled[0] == 0).all() and torch.equal(filled[1], magnitude[1])


def test_a_constant_stays_one(hole):
    constant = torch.full(hole.shape, 3.7)
    assert torch.allclose(inpainted(constant, hole), constant)
    assert torch.equal(silence(constant, hole), 3.7 * (1 - hole))


def test_a_clip_does_not_depend_on_its_batch(magnitude, hole):
    for name, fill in FILLS.items():
        both = fill(magnitude, hole, [5, 6])
        alone = fill(magnitude[1:], hole[1:], [6])
        assert torch.equal(both[1:], alone), name


def test_noise_has_the_level_and_spread_of_noise():
    """Of Rayleigh's distribution, whose deviation is .52 of its mean."""
    hole = torch.zeros(2, 200, 200)
    hole[:, 20:180, 20:180] = 1
    magnitude = torch.tensor([[[1.0]], [[5.0]]]).expand_as(hole)
    first, second = (
        clip[inside > 0]
        for clip, inside in zip(noise(magnitude, hole, [0, 1]), hole)
    )
    spread = math.sqrt(4 / math.pi - 1)
    for found, level in ((first, 1), (second, 5)):
        assert found.mean().item() == pytest.approx(level, rel=0.02)
        assert (found.std() / level).item() == pytest.approx(spread, rel=0.02)
    # Each clip has its own draw, always the same.
    drawn = torch.stack((first, second))
    assert torch.corrcoef(drawn)[0, 1].abs() < 0.05
    assert torch.equal(noise(magnitude, hole, [0, 1])[0][hole[0] > 0], first)
