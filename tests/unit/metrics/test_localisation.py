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


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_a_mask_needs_its_clips_axis(name):
    """Frames of one clip are not taken for clips."""
    with pytest.raises(LMACError, match=r"\(4, 3\).*\[batch, time, freq\]"):
        call(name, torch.rand(4, 3), torch.ones(4, 3))


@pytest.mark.parametrize("name", BINS + FRAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.bool])
def test_other_types_of_a_mask(name, dtype):
    """Sums of many bins do not overflow."""
    mask = (torch.rand(2, 300, 400) > 0.3).to(dtype)
    _, known = batch(name)
    known = torch.rand(2, *mask.shape[1 : known.dim()]) < 0.4
    expected = call(name, mask.double(), known)
    assert call(name, mask, known).tolist() == pytest.approx(
        expected.tolist(), rel=1e-4
    )


@pytest.mark.parametrize("name", BINS + FRAMES)
def test_no_clips(name):
    mask, known = batch(name)
    assert call(name, mask[:0], known[:0]).shape == (0,)


# What is heard: mask times magnitude.

KEPT_BINS = ["kept_event_mass", "kept_event_topk", "kept_event_auc"]
KEPT_FRAMES = ["kept_time_mass", "kept_time_auc"]
KEPT_KNOWN = ["time_iou", "time_f1", "pointing"]  # of bins or of frames
KEPT = KEPT_BINS + KEPT_FRAMES + KEPT_KNOWN


def sound(seed=0):
    """Mask and magnitude, with ties, silent bins and a silent frame."""
    mask, _ = batch("event_mass", seed)
    magnitude = torch.rand(8, 6, 5) ** 3
    magnitude[:, :, 4] = 0
    magnitude[:, 5] = 0
    magnitude[:, 3] = magnitude[:, 2].flip(-1)
    # Twice the loudest bin.
    magnitude[0, 0, :2], mask[0, 0, :2] = 2, 1
    return mask, magnitude


def event_of(name, seed=0):
    """A known event, in bins or in frames."""
    kind = "time_mass" if name in KEPT_FRAMES else "event_mass"
    return batch(kind, seed + 7)[1]


def slow_iou(found, wanted):
    """Frames in both, over those in either."""
    found, wanted = set(found), set(wanted)
    return len(found & wanted) / len(found | wanted)


def slow_f1(found, wanted):
    """Harmonic mean of precision and recall."""
    hits = [frame for frame in found if frame in wanted]
    if not hits:
        return 0.0
    precision, recall = len(hits) / len(found), len(hits) / len(wanted)
    return 2 / (1 / precision + 1 / recall)


def slow_active(magnitude):
    """Places of the frames at least a fifth as loud as the loudest."""
    frames = [math.fsum(frame) for frame in magnitude]
    loudest = max(frames)
    return [i for i, x in enumerate(frames) if x > 0 and x >= loudest / 5]


def slow_kept(name, mask, magnitude, known):
    """Value of one clip, from lists of bins [time][freq]."""
    if known.dim() == 1:
        known = [[bool(inside)] * 5 for inside in known]
    else:
        known = (known > 0).tolist()
    mask, magnitude = mask.tolist(), magnitude.tolist()
    frames = range(6)
    bins = list(itertools.product(frames, range(5)))
    kept = [[mask[t][f] * magnitude[t][f] for f in range(5)] for t in frames]
    event = [
        [bool(known[t][f]) and magnitude[t][f] > 0 for f in range(5)]
        for t in frames
    ]
    if name in KEPT_FRAMES:
        pairs = [(math.fsum(kept[t]), any(event[t])) for t in frames]
        return SLOW[name.removeprefix("kept_")](pairs)
    if name in KEPT_BINS:
        pairs = [(kept[t][f], event[t][f]) for t, f in bins]
        return SLOW[name.removeprefix("kept_")](pairs)
    if name == "pointing":
        loudest = max(kept[t][f] for t, f in bins)
        points = [event[t][f] for t, f in bins if kept[t][f] == loudest]
        return sum(points) / len(points)
    alone = [[magnitude[t][f] * event[t][f] for f in range(5)] for t in frames]
    slow = slow_iou if name == "time_iou" else slow_f1
    return slow(slow_active(kept), slow_active(alone))


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KEPT)
def test_kept_slowly(name, seed, frames):
    """The values agree with plain loops, for known bins and frames."""
    mask, magnitude = sound(seed)
    known = event_of(name, seed)
    if frames and name in KEPT_KNOWN:
        known = event_of("kept_time_mass", seed)
    expected = [slow_kept(name, *clip) for clip in zip(mask, magnitude, known)]
    found = call(name, mask, magnitude, known)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > (1 if name == "pointing" else 3)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KEPT)
def test_kept_of_the_ideal_mask_is_one(name, seed, frames):
    """Also where a frame of the event is far under its loudest, or silent."""
    _, magnitude = sound(seed)
    known = event_of(name, seed)
    if frames and name in KEPT_KNOWN:
        known = event_of("kept_time_mass", seed)
    magnitude[:, 1:3] *= 1e-5
    ideal = known if known.dim() == 3 else known[..., None].expand(8, 6, 5)
    found = call(name, ideal.float(), magnitude, known)
    assert found.tolist() == pytest.approx([1] * 8)


@pytest.mark.parametrize("value", [1e-3, 0.25, 1.0])
@pytest.mark.parametrize("name", KEPT)
def test_a_constant_mask_scores_as_the_magnitude(name, value):
    """Which the metrics of a mask alone do not see."""
    _, magnitude = sound()
    known = event_of(name)
    ones = torch.ones_like(magnitude)
    expected = [slow_kept(name, *clip) for clip in zip(ones, magnitude, known)]
    found = call(name, value * ones, magnitude, known)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("gain", [1e-30, 1e-6, 0.5, 1e20])
@pytest.mark.parametrize("name", KEPT)
def test_kept_of_a_quiet_clip_as_of_a_loud_one(name, gain):
    """The level of the whole clip does not matter."""
    mask, magnitude = sound()
    known = event_of(name)
    expected = call(name, mask, magnitude, known)
    found = call(name, mask, magnitude * gain, known)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", KEPT)
def test_kept_where_nothing_is_masked_does_not_matter(name):
    """A mask over silence is not heard."""
    mask, magnitude = sound()
    known = event_of(name)
    expected = call(name, mask, magnitude, known)
    mask[magnitude == 0] = 1
    assert torch.equal(call(name, mask, magnitude, known), expected)


@pytest.mark.parametrize("name", KEPT)
def test_kept_of_nothing(name):
    """Silence has no event; a mask of zeros knows nothing."""
    mask, magnitude = sound()
    known = event_of(name)
    clean = call(name, mask, magnitude, known)
    silent = magnitude.clone()
    silent[2] = 0
    found = call(name, mask, silent, known)
    assert found.isnan().tolist() == [i == 2 for i in range(8)]
    rest = torch.arange(8) != 2
    assert torch.equal(found[rest], clean[rest])
    nothing = call(name, torch.zeros_like(mask), magnitude, known)
    if name.endswith("mass"):
        assert nothing.isnan().all()
    elif name in ("time_iou", "time_f1"):
        assert nothing.tolist() == [0] * 8
    elif name.endswith("auc"):
        assert nothing.tolist() == [0.5] * 8
    else:
        share = ((known > 0) & (magnitude > 0)).flatten(1).float().mean(1)
        assert nothing.tolist() == pytest.approx(share.tolist())


@pytest.mark.parametrize("what", ["event", "mask", "magnitude"])
@pytest.mark.parametrize("name", KEPT)
def test_kept_nan_stays_with_its_clip(name, what):
    """Without an event, or with NaN, the value is NaN, of this clip only."""
    mask, magnitude = sound()
    known = event_of(name)
    clean = call(name, mask, magnitude, known)
    if what == "event":
        known[3] = 0
    else:
        {"mask": mask, "magnitude": magnitude}[what][3, 2, 1] = math.nan
    found = call(name, mask, magnitude, known)
    assert found.isnan().tolist() == [i == 3 for i in range(8)]
    rest = torch.arange(8) != 3
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", KEPT)
def test_kept_of_an_event_everywhere(name):
    """What could not be missed is NaN, but for shares of the whole."""
    mask, magnitude = sound()
    known = torch.ones_like(event_of(name))
    found = call(name, mask, magnitude + 0.1, known)
    if name.endswith(("mass", "topk")):
        assert found.tolist() == pytest.approx([1] * 8)
    else:
        assert found.isnan().all()


def test_pointing_shares_ties():
    """Two of three loudest bins lie on the event."""
    mask, magnitude = torch.full((1, 2, 2), 0.5), torch.ones(1, 2, 2)
    magnitude[0, 1, 1] = 0.5
    ideal = torch.tensor([[[1, 1], [0, 1]]])
    found = localisation.pointing(mask, magnitude, ideal)
    assert found.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "levels, iou, f1",
    [
        # Known are the first three of five, and the third is a pause.
        ([1, 1, 1, 0, 0], 1, 1),
        ([1, 1, 0, 0, 0], 1, 1),
        ([1, 0.19, 1, 0, 0], 1 / 2, 2 / 3),
        ([1, 0.2, 1, 0, 0], 1, 1),
        ([0, 0, 0, 1, 1], 0, 0),
        ([1, 1, 1, 1, 1], 1 / 2, 2 / 3),
    ],
)
def test_activity_by_hand(levels, iou, f1):
    """A frame counts from a fifth of the loudest on."""
    magnitude = torch.tensor([1, 1, 0.1, 1, 1]).view(1, 5, 1)
    mask = torch.tensor(levels).view(1, 5, 1)
    known = torch.tensor([[1, 1, 1, 0, 0]])
    for known_as in (known, known[..., None]):
        inputs = mask, magnitude, known_as
        assert localisation.time_iou(*inputs).item() == pytest.approx(iou)
        assert localisation.time_f1(*inputs).item() == pytest.approx(f1)


@pytest.mark.parametrize("name", KEPT)
def test_kept_of_no_clips(name):
    mask, magnitude = sound()
    found = call(name, mask[:0], magnitude[:0], event_of(name)[:0])
    assert found.shape == (0,)


@pytest.mark.parametrize("name", KEPT)
def test_kept_shapes_refused(name):
    """The message has both shapes."""
    mask, magnitude = sound()
    known = event_of(name)
    with pytest.raises(LMACError, match=r"magnitude: shape \(8, 6, 4\)"):
        call(name, mask, magnitude[..., :4], known)
    with pytest.raises(LMACError, match=r"shape \(1, 6.*\(8, 6"):
        call(name, mask, magnitude, known[:1])
    with pytest.raises(LMACError, match=r"mask: .*\[batch, time, freq\]"):
        call(name, mask[0], magnitude[0], known)
