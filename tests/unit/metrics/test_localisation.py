"""Tests of the localisation metrics, each against plain loops."""

import itertools
import math
import warnings

import pytest
import torch

from lmac_sb.metrics import localisation
from lmac_sb.utils.errors import LMACError

SEEDS = [0, 1, 2]
BINS = ["event_mass", "event_topk", "event_auc"]
FRAMES = ["time_mass", "time_auc"]


def batch(name, seed=0):
    """Masks with ties, exact zeros and ones, and events that leave a rest."""
    torch.manual_seed(seed)
    mask = torch.rand(8, 6, 5)
    mask[mask < 0.3] = 0
    mask[mask > 0.8] = 1
    # Two equal frames, for ties in time.
    mask[:, 3] = mask[:, 2].flip(-1)
    if name in FRAMES:
        active = torch.rand(8, 6) < 0.4
        active[:, 0], active[:, 1] = True, False
        return mask, active
    ideal = (torch.rand(8, 6, 5) < 0.3).float()
    ideal[:, 0, 0], ideal[:, 0, 1] = 1, 0
    return mask, ideal


def call(name, *inputs):
    """Value of a metric."""
    return getattr(localisation, name)(*inputs)


# The second writing: one clip as pairs (score, whether of the event).


def slow_mass(pairs):
    """Share of the scores in the event."""
    return sum(m for m, e in pairs if e) / sum(m for m, _ in pairs)


def slow_auc(pairs):
    """Share of the pairs (event, rest) in the right order, ties half."""
    inside = [m for m, e in pairs if e]
    rest = [m for m, e in pairs if not e]
    won = sum((a > b) + 0.5 * (a == b) for a in inside for b in rest)
    return won / (len(inside) * len(rest))


def slow_topk(pairs):
    """Chance of each bin to be among the k highest, over those of the event.

    A bin has the places that the higher ones leave, shared with its equals.
    """
    k = sum(e for _, e in pairs)
    total = 0
    for m, e in pairs:
        higher = sum(other > m for other, _ in pairs)
        equal = sum(other == m for other, _ in pairs)
        total += e * min(1, max(0, (k - higher) / equal))
    return total / k


SLOW = {
    "event_mass": slow_mass,
    "event_topk": slow_topk,
    "event_auc": slow_auc,
    "time_mass": slow_mass,
    "time_auc": slow_auc,
}


def clip_pairs(name, mask, event):
    """Bins, or frames with the sum over their bins."""
    if name in FRAMES:
        sums = [math.fsum(frame) for frame in mask.tolist()]
        return list(zip(sums, event.tolist()))
    flat = zip(mask.flatten().tolist(), event.flatten().tolist())
    return [(score, bool(inside)) for score, inside in flat]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", BINS + FRAMES)
def test_slowly(name, seed):
    """The values agree with plain loops."""
    inputs = batch(name, seed)
    expected = [SLOW[name](clip_pairs(name, *clip)) for clip in zip(*inputs)]
    found = call(name, *inputs)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 4


def test_topk_is_what_random_ties_give():
    """The mean over all orders of the equal bins, for a small mask."""
    scores = [0.9, 0.5, 0.5, 0.5, 0.1]
    event = [1, 1, 0, 1, 0]
    hits = []
    for order in itertools.permutations(range(5)):
        # Stable: equal bins stay in this order.
        ranked = sorted(order, key=lambda i: -scores[i])
        hits.append(sum(event[i] for i in ranked[:3]) / 3)
    found = localisation.event_topk(
        torch.tensor([[scores]]), torch.tensor([[event]])
    )
    assert found.item() == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize(
    "name, oracle",
    [
        ("event_topk", "RelevanceRankAccuracy"),
        ("event_mass", "RelevanceMassAccuracy"),
        ("event_auc", "AUC"),
    ],
)
def test_quantus(name, oracle):
    """Agrees with Quantus, where no two bins are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip(
            "quantus",
            reason="quantus cannot be imported",
            exc_type=ImportError,
        )
        metric = getattr(quantus, oracle)(
            abs=False, normalise=False, disable_warnings=True
        )
        _, ideal = batch(name)
        mask = torch.rand(8, 6, 5).double()
        expected = metric.evaluate_batch(
            a_batch=mask[:, None].numpy(), s_batch=ideal[:, None].numpy()
        )
    found = call(name, mask, ideal)
    expected = [float(value) for value in expected]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["event_auc", "time_auc"])
def test_auc_of_torchmetrics(name, seed):
    """Agrees with their ROC, in which ties count half as well.

    Theirs puts scores outside of [0, 1] through a sigmoid, so that it gets
    means and not sums over frequency; without an event it says 0, not NaN.
    """
    theirs = pytest.importorskip(
        "torchmetrics.functional.classification"
    ).binary_auroc
    mask, event = batch(name, seed)
    scores = mask.double().mean(-1) if name in FRAMES else mask
    assert any(len(clip.unique()) < clip.numel() for clip in scores)
    expected = [
        theirs(clip, inside.long()).item()
        for clip, inside in zip(scores, event)
    ]
    found = call(name, mask, event)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert min(expected) < 0.5 < max(expected)


def test_by_hand():
    """Small masks."""
    ideal = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    mask = torch.tensor([[[0.6, 0.2], [0.2, 0.0]]])
    assert localisation.event_mass(mask, ideal).item() == pytest.approx(0.8)
    # Pairs: .6 beats both, .2 ties with .2 and beats 0.
    auc = localisation.event_auc
    assert auc(mask, ideal).item() == pytest.approx(3.5 / 4)
    assert auc(1 - mask, ideal).item() == pytest.approx(0.5 / 4)
    # .6 is one of two hits; one of the two .2 is the other.
    assert localisation.event_topk(mask, ideal).item() == 0.75
    # Frames .8 and .2; the event is all of the first.
    active = torch.tensor([[True, False]])
    assert localisation.time_mass(mask, active).item() == pytest.approx(0.8)
    assert localisation.time_auc(mask, active).item() == 1
    assert localisation.time_auc(1 - mask, active).item() == 0


@pytest.mark.parametrize("value", [0.1, 0.3, 1.0])
def test_a_constant_mask_knows_nothing(value):
    """A constant mask has the value of chance."""
    ideal = torch.zeros(1, 20, 513)
    ideal[0, :5, :100] = 1
    mask = torch.full_like(ideal, value)
    share = 5 * 100 / (20 * 513)
    for order in (mask, mask.transpose(1, 2).contiguous().transpose(1, 2)):
        for name in ("event_mass", "event_topk"):
            assert call(name, order, ideal).item() == pytest.approx(share)
        assert localisation.event_auc(order, ideal).item() == 0.5
        active = ideal.any(-1)
        found = localisation.time_mass(order, active)
        assert found.item() == pytest.approx(0.25)
        assert localisation.time_auc(order, active).item() == 0.5


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_perfect_and_inverted(name):
    """The ideal mask has 1, and its inverse 0."""
    _, event = batch(name)
    ideal = event if name in BINS else event[..., None].expand(8, 6, 5).float()
    assert call(name, ideal, event).tolist() == [1] * 8
    # If the rest is smaller than the event, not all highest bins are in it.
    few = event.flatten(1).float().mean(1) < 0.5
    assert few.sum() > 3
    assert call(name, 1 - ideal, event)[few].eq(0).all()


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_only_the_time_counts(name):
    """Metrics in time ignore the frequency; those in bins do not."""
    mask, event = batch(name)
    torch.manual_seed(1)
    moved = mask[:, :, torch.randperm(5)]
    same = torch.equal(call(name, mask, event), call(name, moved, event))
    assert same == (name in FRAMES)


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_no_event_is_nan(name):
    """Without an event the value is NaN, for this clip only."""
    mask, event = batch(name)
    clean = call(name, mask, event)
    event[2] = 0
    found = call(name, mask, event)
    assert found.isnan().tolist() == [i == 2 for i in range(8)]
    rest = torch.arange(8) != 2
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_nan_mask_stays_with_its_clip(name):
    """A NaN in a mask makes this clip's value NaN and no other's."""
    mask, event = batch(name)
    clean = call(name, mask, event)
    mask[3, 2, 1] = math.nan
    found = call(name, mask, event)
    assert found.isnan().tolist() == [i == 3 for i in range(8)]
    rest = torch.arange(8) != 3
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_batch_mates_do_not_matter(name):
    """A clip alone has the value that it has among seven others."""
    inputs = batch(name)
    together = call(name, *inputs)
    for i in range(8):
        alone = call(name, *(x[i : i + 1] for x in inputs))
        assert alone.item() == pytest.approx(together[i].item(), abs=1e-6)


def test_nothing_to_compare_is_nan():
    """Without a mask or a rest the value is NaN."""
    ones, zeros = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    all_frames = torch.ones(1, 2, dtype=torch.bool)
    assert localisation.event_mass(zeros, ones).isnan().all()
    assert localisation.time_mass(zeros, all_frames).isnan().all()
    assert localisation.event_auc(torch.rand(1, 2, 2), ones).isnan().all()
    assert localisation.time_auc(torch.rand(1, 2, 2), all_frames).isnan().all()


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_shapes_refused(name):
    """One event for a whole batch is refused."""
    shapes = [(1, 3, 2), (4, 3)] if name in BINS else [(1, 3), (4, 3, 2)]
    for shape in shapes:
        with pytest.raises(LMACError) as error:
            call(name, torch.rand(4, 3, 2), torch.ones(shape))
        assert str(shape) in str(error.value)
        expected = "(4, 3, 2)" if name in BINS else "(4, 3)"
        assert f"mask has {expected}" in str(error.value)


@pytest.mark.parametrize("name", FRAMES)
def test_frames_need_a_mask_with_frequency(name):
    """A mask without a frequency axis is refused."""
    with pytest.raises(LMACError, match=r"\(4, 3\).*\[batch, time, freq\]"):
        call(name, torch.rand(4, 3), torch.ones(4, 3))
