"""Tests of the masks that know nothing of the classifier."""

import pytest
import torch

from lmac_sb.methods.trivial import TRIVIAL_MASKS

AREAS = torch.tensor([0.0, 0.1, 0.33, 0.5, 1.0])


def magnitudes():
    """Random magnitudes, with a silent clip."""
    values = torch.rand(5, 20, 10)
    values[1] = 1e-7
    return values


def test_names():
    """The trivial masks are those in the tables."""
    names = ["ones", "random", "loudest", "loudest_frames"]
    assert list(TRIVIAL_MASKS) == names


@pytest.mark.parametrize("name", list(TRIVIAL_MASKS))
def test_zeros_and_ones(name):
    """Binary, of the magnitude's shape."""
    magnitude = magnitudes()
    mask = TRIVIAL_MASKS[name](magnitude, AREAS)
    assert mask.shape == magnitude.shape
    assert ((mask == 0) | (mask == 1)).all()


@pytest.mark.parametrize("name", ["random", "loudest"])
def test_areas(name):
    """Each clip keeps exactly its area, the silent one too."""
    mask = TRIVIAL_MASKS[name](magnitudes(), AREAS)
    assert mask.sum((1, 2)).tolist() == [0, 20, 66, 100, 200]


def test_ones_keep_all():
    """Whatever the area is."""
    mask = TRIVIAL_MASKS["ones"](magnitudes(), AREAS)
    assert mask.min() == 1


@pytest.mark.parametrize("name", list(TRIVIAL_MASKS))
def test_place_in_the_batch_does_not_matter(name):
    """A clip alone, or elsewhere in a batch, has the same mask."""
    magnitude = magnitudes()
    together = TRIVIAL_MASKS[name](magnitude, AREAS, seed=3)
    for order in ([2], [4, 3, 2, 1, 0], [3, 3, 1]):
        found = TRIVIAL_MASKS[name](magnitude[order], AREAS[order], seed=3)
        assert torch.equal(found, together[order])


def test_random_is_seeded():
    """By its own seed only, without touching the global generator."""
    magnitude, area = magnitudes()[:1], torch.tensor([0.5])
    random = TRIVIAL_MASKS["random"]
    state = torch.get_rng_state()
    first = random(magnitude, area, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert torch.equal(random(magnitude, area, seed=1), first)
    assert not torch.equal(random(magnitude, area, seed=2), first)


def test_random_ignores_the_sound():
    """A random mask is equally dense in loud and quiet parts."""
    magnitude = torch.ones(1, 100, 100)
    magnitude[:, :50] = 100
    mask = TRIVIAL_MASKS["random"](magnitude, torch.tensor([0.3]))
    # With 5000 bins in each half, the standard deviation is 0.005.
    assert mask[:, :50].mean().item() == pytest.approx(0.3, abs=0.02)
    assert mask[:, :, :50].mean().item() == pytest.approx(0.3, abs=0.02)


def test_loudest_is_loudest():
    """No bin that was left is louder than one that was kept."""
    magnitude = magnitudes()
    mask = TRIVIAL_MASKS["loudest"](magnitude, AREAS)
    for i in (2, 3):
        kept = magnitude[i][mask[i] == 1]
        left = magnitude[i][mask[i] == 0]
        assert kept.min() > left.max()


def test_loudest_frames_are_whole_and_loudest():
    """Whole frames are kept by energy, as many as the area gives."""
    magnitude = magnitudes()
    # By energy, one loud bin outweighs a frame of many.
    magnitude[2] = 0.3
    magnitude[2, 7] = torch.eye(10)[4] * 2
    mask = TRIVIAL_MASKS["loudest_frames"](magnitude, AREAS)
    assert torch.equal(mask, mask[:, :, :1].expand_as(mask))
    frames = mask[:, :, 0]
    assert frames.sum(1).tolist() == [0, 2, 7, 10, 20]
    assert frames[2, 7] == 1
    for i in (2, 3):
        energy = [
            sum(float(value) ** 2 for value in frame) for frame in magnitude[i]
        ]
        kept = [e for e, keep in zip(energy, frames[i].tolist()) if keep]
        left = [e for e, keep in zip(energy, frames[i].tolist()) if not keep]
        assert min(kept) >= max(left) - 1e-5


def test_loudest_frames_keep_at_least_one():
    """Below half a frame too, but none at an area of zero."""
    area = torch.tensor([0.0, 0.01])
    mask = TRIVIAL_MASKS["loudest_frames"](torch.rand(2, 20, 10), area)
    assert mask.sum((1, 2)).tolist() == [0, 10]
