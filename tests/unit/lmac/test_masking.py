"""Tests of what a mask lets through."""

import math

import pytest
import torch

from lmac_sb.lmac.masking import (
    MASK_DOMAINS,
    apply_mask,
    binarize,
    both_parts,
    convert_mask,
    scale_stft,
    top_share,
)
from lmac_sb.utils.errors import LMACError

SEEDS = [0, 1, 2]


def magnitudes(seed=0):
    """Magnitudes from the floor of silence to loud."""
    torch.manual_seed(seed)
    return 10 ** (torch.rand(3, 7, 5) * 10 - 7)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("domain", MASK_DOMAINS)
def test_slowly(domain, seed):
    """The values agree with plain loops."""
    magnitude = magnitudes(seed)
    mask = torch.rand(3, 7, 5)
    found = apply_mask(magnitude, mask, domain)
    assert found.shape == magnitude.shape
    pairs = zip(magnitude.flatten().tolist(), mask.flatten().tolist())
    expected = [
        m * x if domain == "linear" else (1 + x) ** m - 1 for x, m in pairs
    ]
    assert found.flatten().tolist() == pytest.approx(
        expected, rel=1e-4, abs=1e-12
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("domain", MASK_DOMAINS)
def test_both_parts_are_those_of_two_masks(domain, seed):
    """Up to the rounding of the whole, with the same gradient."""
    magnitude = magnitudes(seed)
    mask = torch.rand(3, 7, 5, requires_grad=True)
    each = [apply_mask(magnitude, x, domain) for x in (mask, 1 - mask)]
    expected, found = torch.cat(each), both_parts(magnitude, mask, domain)
    rounding = 1e-5 * torch.cat((magnitude, magnitude))
    assert ((found - expected).abs() <= rounding).all()
    weights = torch.rand_like(found)
    gradients = [
        torch.autograd.grad((weights * x).sum(), mask)[0]
        for x in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("domain", MASK_DOMAINS)
def test_of_all_or_nothing_no_rounding_is_left(domain):
    magnitude = magnitudes()
    kept, rest = both_parts(
        magnitude, torch.ones_like(magnitude), domain
    ).chunk(2)
    assert not rest.any()
    none, whole = both_parts(
        magnitude, torch.zeros_like(magnitude), domain
    ).chunk(2)
    assert not none.any() and torch.equal(whole, kept)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("several", [(), (2,)])
def test_scaled_bins_are_those_of_two_products(several, seed):
    torch.manual_seed(seed)
    stft = torch.randn(3, 7, 5, 2)
    gain = torch.rand(*several, 3, 7, 5, requires_grad=True)
    found = scale_stft(stft, gain)
    expected = torch.stack((stft[..., 0] * gain, stft[..., 1] * gain), -1)
    assert torch.equal(found, expected)
    weights = torch.rand_like(found)
    gradients = [
        torch.autograd.grad((weights * x).sum(), gain)[0]
        for x in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 7, 1), (5,)])
def test_one_gain_does_not_serve_several_bins(shape):
    with pytest.raises(LMACError, match=r"^mask: shape .* has \(3, 7, 5\)$"):
        scale_stft(torch.randn(3, 7, 5, 2), torch.ones(shape))


def test_both_parts_refuse_what_a_mask_cannot_be():
    with pytest.raises(LMACError, match=r"mask: shape \(1, 2, 3\)"):
        both_parts(torch.ones(1, 2, 4), torch.ones(1, 2, 3))
    with pytest.raises(LMACError, match="mask_domain: 'dB'"):
        both_parts(torch.ones(1, 2, 3), torch.ones(1, 2, 3), "dB")


@pytest.mark.parametrize("domain", MASK_DOMAINS)
def test_ones_and_zeros(domain):
    """Ones keep all, zeros keep nothing."""
    magnitude = magnitudes()
    kept = apply_mask(magnitude, torch.ones_like(magnitude), domain)
    if domain == "linear":
        assert torch.equal(kept, magnitude)
    assert torch.allclose(kept, magnitude, rtol=1e-6, atol=0)
    empty = apply_mask(magnitude, torch.zeros_like(magnitude), domain)
    assert torch.equal(empty, torch.zeros_like(magnitude))


def test_default_domain():
    """The default domain is log1p, as in the paper's code."""
    magnitude, mask = magnitudes(), torch.rand(3, 7, 5)
    default = apply_mask(magnitude, mask)
    assert torch.equal(default, apply_mask(magnitude, mask, "log1p"))


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_add_up_in_their_domain(seed):
    """The two parts add up only in the domain of the mask."""
    magnitude = magnitudes(seed)
    mask = torch.rand(3, 7, 5)
    inside, outside = (apply_mask(magnitude, m) for m in (mask, 1 - mask))
    whole = torch.log1p(inside) + torch.log1p(outside)
    assert torch.allclose(whole, torch.log1p(magnitude), atol=1e-6)
    assert not torch.allclose(inside + outside, magnitude, rtol=0.01)

    inside, outside = (
        apply_mask(magnitude, m, "linear") for m in (mask, 1 - mask)
    )
    assert torch.allclose(inside + outside, magnitude, rtol=1e-5)


def test_binary_masks_mean_the_same():
    """The domains differ only for values between 0 and 1."""
    magnitude = magnitudes()
    mask = (torch.rand(3, 7, 5) > 0.5).float()
    log, linear = (apply_mask(magnitude, mask, d) for d in MASK_DOMAINS)
    assert torch.allclose(log, linear, rtol=1e-6, atol=0)


def test_half_is_level_dependent_in_log1p_only():
    """A mask of 0.5 removes 6 dB from quiet bins, more from loud ones."""
    magnitude = torch.tensor([[[1e-3, 1e3]]])
    half = torch.full_like(magnitude, 0.5)

    def decibel(domain):
        kept = apply_mask(magnitude, half, domain)
        return (20 * torch.log10(kept / magnitude)).flatten().tolist()

    assert decibel("linear") == pytest.approx([-6.02, -6.02], abs=0.01)
    quiet, loud = decibel("log1p")
    assert quiet == pytest.approx(-6.02, abs=0.01)
    assert loud < -25


@pytest.mark.parametrize("domain", MASK_DOMAINS)
def test_gradient(domain):
    """The gradient is finite for masks of 0 and 1, and at silence."""
    magnitude = magnitudes()
    magnitude[0] = 0
    for fill in (0.0, 0.5, 1.0):
        mask = torch.full_like(magnitude, fill, requires_grad=True)
        apply_mask(magnitude, mask, domain).sum().backward()
        assert mask.grad.isfinite().all()
        assert (mask.grad[1:] > 0).all()


@pytest.mark.parametrize("shape", [(3, 7, 4), (1, 7, 5), (7, 5)])
def test_shapes_refused(shape):
    """The message has both shapes; nothing is broadcast."""
    with pytest.raises(LMACError) as error:
        apply_mask(magnitudes(), torch.ones(shape))
    assert "(3, 7, 5)" in str(error.value)
    assert str(shape) in str(error.value)


def test_unknown_domain():
    """The message names what was found and what is known."""
    with pytest.raises(LMACError, match="'power' is none of .*log1p.*linear"):
        apply_mask(magnitudes(), magnitudes(), "power")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_binarize(dtype):
    """Values at the threshold become 1, and the type is kept."""
    mask = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]], dtype=dtype)
    for threshold, kept in ((0.5, 3), (0.51, 2), (1, 1), (1e-6, 4)):
        found = binarize(mask, threshold)
        assert found.dtype == dtype
        assert found.tolist() == [[0.0] * (5 - kept) + [1.0] * kept]


@pytest.mark.parametrize(
    "threshold", [0, -0.1, 1.01, math.nan, "half", "0.5", True]
)
def test_threshold_refused(threshold):
    """A threshold of 0 would keep everything, one above 1 nothing."""
    with pytest.raises(LMACError, match=f"threshold: {threshold!r} .*0, 1"):
        binarize(torch.rand(2, 3, 4), threshold)


def slow_top(clip, keep):
    """The highest scores of one clip, by repeated maximum."""
    left = clip.flatten().tolist()
    kept = []
    for _ in range(keep):
        best = max(left)
        kept.append(best)
        left.remove(best)
    return kept


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.77, 1.0])
def test_top_share(seed, ties, share):
    """Exactly the highest bins are kept, even with ties."""
    torch.manual_seed(seed)
    scores = torch.randn(3, 7, 5)
    if ties:
        scores = scores.round()
    found = top_share(scores, share)
    assert found.shape == scores.shape and found.dtype == scores.dtype
    keep = round(share * 35)
    for clip, kept in zip(scores, found):
        assert set(kept.flatten().tolist()) <= {0.0, 1.0}
        best = sorted(clip[kept > 0].tolist(), reverse=True)
        assert best == slow_top(clip, keep)


@pytest.mark.parametrize("fill", [0.0, 1.0, -3.0])
def test_equal_scores(fill):
    """The area is kept even if no bin is better than another."""
    found = top_share(torch.full((2, 6, 5), fill), 0.3)
    assert found.sum((1, 2)).tolist() == [9, 9]


@pytest.mark.parametrize("axis", [1, 2], ids=["time", "frequency"])
def test_equal_scores_favour_no_place(axis):
    """Of two equal blocks, neither is kept for standing first in memory."""
    scores = torch.zeros(1, 100, 80)
    scores.narrow(axis, 10, 10).fill_(1)
    scores.narrow(axis, 60, 10).fill_(1)
    kept = top_share(scores, scores.mean().item() / 2)
    first = kept.narrow(axis, 10, 10).sum() / kept.sum()
    assert 0.4 < first < 0.6
    assert kept[scores == 0].sum() == 0
    some = top_share(torch.full((3, 100, 80), 0.5), 0.1)
    assert torch.equal(some[0], some[2])
    halves = some[0].narrow(axis - 1, 0, 40).sum() / some[0].sum()
    assert abs(halves - 40 / some.shape[axis]) < 0.05


def test_each_clip_has_its_share():
    """Each clip has its share, whatever the rest of the batch."""
    scores = torch.rand(4, 10, 10)
    shares = torch.tensor([0.0, 0.07, 0.5, 1.0])
    found = top_share(scores, shares)
    assert found.sum((1, 2)).tolist() == [0, 7, 50, 100]
    for i in range(4):
        alone = top_share(scores[i : i + 1], shares[i : i + 1])
        assert torch.equal(alone[0], found[i])


def test_at_least_one_bin():
    """A share of less than half a bin still keeps one, none keeps none."""
    found = top_share(torch.rand(2, 5, 4), torch.tensor([1e-6, 0.0]))
    assert found.sum((1, 2)).tolist() == [1, 0]


@pytest.mark.parametrize("share", [-0.1, 20, torch.tensor([0.5, 1.5])], ids=str)
def test_share_refused(share):
    """A share out of range, such as a percentage, is refused."""
    with pytest.raises(LMACError, match=r"share: \[.*expected .* \[0, 1\]"):
        top_share(torch.rand(2, 3, 4), share)


@pytest.mark.parametrize("found", MASK_DOMAINS)
@pytest.mark.parametrize("wanted", MASK_DOMAINS)
def test_converted_masks_let_the_same_through(found, wanted):
    magnitude = torch.rand(2, 5, 6) * torch.logspace(-6, 2, 6)
    magnitude[0, 0, 0] = 0
    mask = torch.rand(2, 5, 6)
    mask[1, 1], mask[1, 2] = 0, 1
    other = convert_mask(magnitude, mask, found, wanted)
    assert ((other >= 0) & (other <= 1)).all()
    assert torch.allclose(
        apply_mask(magnitude, other, wanted),
        apply_mask(magnitude, mask, found),
        rtol=1e-3,
        atol=1e-7,
    )
