"""Tests of the metrics, each against a second writing with plain loops.

Authors
 * The lmac-sb authors 2026
"""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch

from lmac_sb import metrics
from lmac_sb.errors import LMACError
from lmac_sb.metrics import METRICS, evaluate

SEEDS = [0, 1, 2]
PAIRED = ["AI", "AD", "AG", "FF", "Fid-In"]


def tensor(*rows):
    """A batch of probabilities, written row by row."""
    return torch.tensor(rows, dtype=torch.float32)


def probabilities(seed, clips=8, classes=5, sharp=2.0):
    """Two batches of random probabilities."""
    torch.manual_seed(seed)
    logits = sharp * torch.randn(2, clips, classes)
    return logits.softmax(-1).unbind()


def masks(seed, clips=8):
    """Masks with ties, exact zeros and exact ones."""
    torch.manual_seed(seed)
    values = torch.rand(clips, 6, 5)
    values[values < 0.2] = 0
    values[values > 0.9] = 1
    return values


def events(seed, clips=8):
    """Known events that leave a rest."""
    torch.manual_seed(seed + 100)
    ideal = (torch.rand(clips, 6, 5) < 0.3).float()
    ideal[:, 0, 0], ideal[:, 0, 1] = 1, 0
    return ideal


def cells(mask):
    """All values of one clip's mask as a list of floats."""
    return [float(v) for row in mask for v in row]


# The second writing: one clip, plain Python.


def slow_ai(p, q, c):
    """100 if the class gains more than rounding."""
    return 100.0 if q[c] - p[c] > 1e-6 else 0.0


def slow_ad(p, q, c):
    """Lost share of the probability, in %."""
    return 100.0 * max(0.0, p[c] - q[c]) / p[c]


def slow_ag(p, q, c):
    """Won share of the missing probability, in %."""
    return 100.0 * max(0.0, q[c] - p[c]) / (1.0 - p[c])


def slow_ff(p, q, c):
    """Probability lost."""
    return p[c] - q[c]


def slow_fid(p, q, c):
    """1 if the class wins in q."""
    return 1.0 if all(q[c] >= other for other in q) else 0.0


def slow_gini(mask):
    """Gini index as half the mean difference over the mean."""
    v = cells(mask)
    total = sum(abs(a - b) for a in v for b in v)
    return total / (2 * len(v) ** 2 * (sum(v) / len(v)))


def slow_entropy(mask):
    """Entropy of the shares, in nats."""
    v = cells(mask)
    return -sum(x / sum(v) * math.log(x / sum(v)) for x in v if x > 0)


def slow_area(mask):
    """Mean."""
    return sum(cells(mask)) / len(cells(mask))


def slow_mass(mask, ideal):
    """Share of the mask on the event."""
    pairs = list(zip(cells(mask), cells(ideal)))
    return sum(m for m, e in pairs if e) / sum(m for m, _ in pairs)


def slow_auc(mask, ideal):
    """Share of the pairs (event, rest) in the right order, ties half."""
    pairs = list(zip(cells(mask), cells(ideal)))
    inside = [m for m, e in pairs if e]
    rest = [m for m, e in pairs if not e]
    won = sum((a > b) + 0.5 * (a == b) for a in inside for b in rest)
    return won / (len(inside) * len(rest))


SLOW = {
    "AI": slow_ai,
    "AD": slow_ad,
    "AG": slow_ag,
    "FF": slow_ff,
    "Fid-In": slow_fid,
    "SPS": slow_gini,
    "COMP": slow_entropy,
    "area": slow_area,
    "event_mass": slow_mass,
    "event_auc": slow_auc,
}


def batch(name, seed=0, clips=8):
    """Random arguments of a metric."""
    needs = METRICS[name].needs
    if needs in ("in", "out"):
        return probabilities(seed, clips)
    if needs == "mask":
        return (masks(seed, clips),)
    return masks(seed, clips), events(seed, clips)


def test_table_is_complete():
    """The table holds each metric that is offered, and each is compared."""
    offered = {
        getattr(metrics, name)
        for name in metrics.__all__
        if callable(getattr(metrics, name)) and name != "evaluate"
    }
    assert {metric.function for metric in METRICS.values()} == offered
    assert set(SLOW) == set(METRICS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", PAIRED)
def test_probabilities_slowly(name, seed):
    """Agrees with loops, for the decision and for another class."""
    p, q = batch(name, seed)
    other = torch.randint(5, (8,))
    for target in (None, other):
        classes = p.argmax(1) if target is None else target
        expected = [
            SLOW[name](p[i].tolist(), q[i].tolist(), int(classes[i]))
            for i in range(8)
        ]
        found = METRICS[name].function(p, q, target=target)
        assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", sorted(set(METRICS) - set(PAIRED)))
def test_masks_slowly(name, seed):
    """Agrees with loops."""
    inputs = batch(name, seed)
    expected = [SLOW[name](*clip) for clip in zip(*inputs)]
    found = METRICS[name].function(*inputs)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    "before, inside, drop",
    [(1.0, 0.0, 100), (0.5, 0.25, 50), (0.9, 0.1, 800 / 9), (0.6, 0.8, 0)],
)
def test_drop_by_hand(before, inside, drop):
    """One softmax only: complete failure is 100, half is 50."""
    p = tensor([before, 1 - before])
    q = tensor([inside, 1 - inside])
    target = torch.tensor([0])
    found = metrics.average_drop(p, q, target)
    assert found.item() == pytest.approx(drop, abs=1e-4)


@pytest.mark.parametrize(
    "before, inside, gain", [(0.6, 0.8, 50), (0.5, 1.0, 100), (0.8, 0.6, 0)]
)
def test_gain_by_hand(before, inside, gain):
    """Share of what was missing."""
    p = tensor([before, 1 - before])
    q = tensor([inside, 1 - inside])
    found = metrics.average_gain(p, q)
    assert found.item() == pytest.approx(gain, abs=1e-3)


def test_rounding_is_no_gain():
    """A rise of one rounding error near 1 is neither AI nor AG."""
    p = tensor([1 - 6e-8, 6e-8], [0.5, 0.5])
    q = tensor([1.0, 0.0], [0.5 + 6e-8, 0.5])
    assert (q[:, 0] > p[:, 0]).all()
    assert metrics.average_increase(p, q).tolist() == [0, 0]
    assert metrics.average_gain(p, q).tolist() == [0, 0]


def test_identity_is_no_success():
    """A mask of ones changes nothing: no increase, drop or gain."""
    p, _ = probabilities(0, sharp=20)
    assert p.max() == 1
    for name in ("AI", "AD", "AG", "FF"):
        assert METRICS[name].function(p, p).tolist() == [0] * 8
    assert metrics.input_fidelity(p, p).tolist() == [1] * 8


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sharp", [0.1, 3, 50])
def test_ranges(seed, sharp):
    """AI, AD and AG are percentages, FF and Fid-In fractions."""
    p, q = probabilities(seed, 64, sharp=sharp)
    target = torch.randint(5, (64,))
    for name in PAIRED:
        found = METRICS[name].function(p, q, target=target)
        low = -1 if name == "FF" else 0
        high = 100 if name in ("AI", "AD", "AG") else 1
        assert found.min() >= low and found.max() <= high


def test_target_is_another_class():
    """The target's probability counts, not the decision's."""
    p, q = tensor([0.8, 0.2]), tensor([0.4, 0.6])
    one = torch.tensor([1])
    assert metrics.average_drop(p, q).item() == pytest.approx(50)
    assert metrics.average_drop(p, q, target=one).item() == 0
    assert metrics.average_increase(p, q).item() == 0
    assert metrics.average_increase(p, q, target=one).item() == 100
    assert metrics.average_gain(p, q, target=one).item() == pytest.approx(50)
    assert metrics.faithfulness(p, q).item() == pytest.approx(0.4)
    assert metrics.faithfulness(p, q, target=one).item() == pytest.approx(-0.4)
    assert metrics.input_fidelity(p, q).item() == 0
    assert metrics.input_fidelity(p, q, target=one).item() == 1


@pytest.mark.parametrize("place", [0, 1], ids=["p", "masked"])
@pytest.mark.parametrize("name", PAIRED)
def test_nan_stays_with_its_clip(name, place):
    """A NaN probability makes this clip's value NaN and no other's."""
    inputs = [x.clone() for x in batch(name)]
    clean = METRICS[name].function(*inputs)
    inputs[place][3, 2] = math.nan
    found = METRICS[name].function(*inputs)
    assert found.isnan().tolist() == [i == 3 for i in range(8)]
    rest = torch.arange(8) != 3
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", sorted(set(METRICS) - set(PAIRED)))
def test_nan_mask_stays_with_its_clip(name):
    """A NaN in a mask makes this clip's value NaN and no other's."""
    inputs = [x.clone() for x in batch(name)]
    clean = METRICS[name].function(*inputs)
    inputs[0][3, 2, 1] = math.nan
    found = METRICS[name].function(*inputs)
    assert found.isnan().tolist() == [i == 3 for i in range(8)]
    rest = torch.arange(8) != 3
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", PAIRED)
def test_logits_refused(name):
    """Logits, before or after the mask, are named as such."""
    p, _ = probabilities(0)
    logits = torch.tensor([[3.0, -1.0, 0.0, 0.5, 0.1]]).expand(8, 5)
    for pair in ((p, logits), (logits, p)):
        with pytest.raises(LMACError, match="probabilities, not logits"):
            METRICS[name].function(*pair)


@pytest.mark.parametrize("name", PAIRED)
def test_shapes_refused(name):
    """The message has both shapes."""
    p = torch.full((4, 5), 0.2)
    for other in (torch.full((4, 6), 0.1), torch.full((1, 5), 0.2)):
        with pytest.raises(LMACError) as error:
            METRICS[name].function(p, other)
        assert "(4, 5)" in str(error.value)
        assert str(tuple(other.shape)) in str(error.value)
    with pytest.raises(LMACError, match=r"\(5,\)"):
        METRICS[name].function(p[0], p[0])


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1)])
def test_target_shape_refused(name, shape):
    """One class a clip, never one that is spread over the batch."""
    p = torch.full((4, 5), 0.2)
    with pytest.raises(LMACError, match="target: .* 4 clips"):
        target = torch.zeros(shape, dtype=torch.long)
        METRICS[name].function(p, p, target=target)


@pytest.mark.parametrize("name", ["event_mass", "event_auc"])
def test_event_shape_refused(name):
    """One event for a whole batch would be compared with its first clip."""
    with pytest.raises(LMACError) as error:
        METRICS[name].function(torch.rand(4, 3, 2), torch.ones(1, 3, 2))
    assert "(4, 3, 2)" in str(error.value)
    assert "(1, 3, 2)" in str(error.value)


@pytest.mark.parametrize("name", list(METRICS))
def test_batch_mates_do_not_matter(name):
    """A clip alone has the value that it has among seven others."""
    inputs = batch(name)
    function = METRICS[name].function
    together = function(*inputs)
    assert together.shape == (8,)
    for i in range(8):
        alone = function(*(x[i : i + 1] for x in inputs))
        assert alone.tolist() == pytest.approx([together[i].item()], abs=1e-6)


def test_saturated_batch_mates_do_not_matter():
    """Neither do mates that are all ones or all zeros."""
    values = masks(0, 3)
    mates = torch.stack((torch.ones(6, 5), torch.zeros(6, 5), values[0]))
    for function in (metrics.sparseness, metrics.complexity):
        assert function(mates)[2] == function(values)[0]


@pytest.mark.parametrize(
    "fill, gini, entropy",
    [
        ("ones", 0, math.log(12)),
        ("zeros", 0, math.log(12)),
        ("half", 0, math.log(12)),
        ("one bin", 11 / 12, 0),
    ],
)
def test_saturated_masks(fill, gini, entropy):
    """Constant, empty and one-bin masks have their limit values."""
    mask = {
        "ones": torch.ones(1, 3, 4),
        "zeros": torch.zeros(1, 3, 4),
        "half": torch.full((1, 3, 4), 0.5),
        "one bin": torch.eye(12)[7].view(1, 3, 4),
    }[fill]
    sparse = metrics.sparseness(mask).item()
    assert sparse == pytest.approx(gini, abs=1e-5)
    assert metrics.complexity(mask).item() == pytest.approx(entropy, abs=1e-5)


@pytest.mark.parametrize("name", ["Sparseness", "Complexity"])
def test_quantus(name):
    """Agrees with Quantus clip by clip, saturated masks included."""
    reason = "quantus cannot be imported"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip(
            "quantus", reason=reason, exc_type=ImportError
        )
        oracle = getattr(quantus, name)(normalise=False, disable_warnings=True)
    values = masks(0)
    values[1] = 1
    values[2] = torch.eye(30)[4].view(6, 5)
    # Quantus has no entropy for an empty mask.
    if name == "Sparseness":
        values[3] = 0
    # It works in place, so each clip is handed over as a copy.
    expected = [
        float(oracle.evaluate_batch(x_batch=None, a_batch=clip.numpy())[0])
        for clip in values.double()[:, None]
    ]
    found = METRICS[{"Sparseness": "SPS", "Complexity": "COMP"}[name]]
    assert found.function(values).tolist() == pytest.approx(expected, abs=1e-5)


def test_event_by_hand():
    """Mass and area under the curve of small masks."""
    ideal = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    mask = torch.tensor([[[0.6, 0.2], [0.2, 0.0]]])
    assert metrics.event_mass(mask, ideal).item() == pytest.approx(0.8)
    # Pairs: .6 beats both, .2 ties with .2 and beats 0.
    assert metrics.event_auc(mask, ideal).item() == pytest.approx(3.5 / 4)
    assert metrics.event_auc(1 - mask, ideal).item() == pytest.approx(0.5 / 4)
    constant = torch.full_like(mask, 0.3)
    assert metrics.event_auc(constant, ideal).item() == 0.5
    assert metrics.event_mass(constant, ideal).item() == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["event_mass", "event_auc"])
def test_no_event_is_nan(name):
    """Without an event there is nothing to find, and mates are untouched."""
    mask, ideal = masks(0), events(0)
    clean = METRICS[name].function(mask, ideal)
    ideal[2] = 0
    found = METRICS[name].function(mask, ideal)
    assert found.isnan().tolist() == [i == 2 for i in range(8)]
    rest = torch.arange(8) != 2
    assert torch.equal(found[rest], clean[rest])


def test_nothing_to_compare_is_nan():
    """No mass without a mask, no curve without a rest."""
    ones, zeros = torch.ones(1, 2, 2), torch.zeros(1, 2, 2)
    assert metrics.event_mass(zeros, ones).isnan().all()
    assert metrics.event_auc(torch.rand(1, 2, 2), ones).isnan().all()


def test_directions():
    """By the table's signs, the better explanation wins."""
    p = tensor([0.7, 0.3])
    found, lost = tensor([0.9, 0.1]), tensor([0.2, 0.8])
    event = torch.zeros(1, 3, 4)
    event[0, 1, 1:3] = 1
    narrow, wide = 0.9 * event, 1 - 0.5 * event
    pairs = {
        "in": ((p, found), (p, lost)),
        "out": ((p, lost), (p, found)),
        "mask": ((narrow,), (wide,)),
        "event": ((narrow, event), (wide, event)),
    }
    for name, metric in METRICS.items():
        good, bad = (metric.function(*x).item() for x in pairs[metric.needs])
        assert good != bad, name
        if name == "area":
            assert metric.direction == 0
        else:
            assert metric.direction == (1 if good > bad else -1), name


@pytest.mark.parametrize("with_event", [False, True])
def test_evaluate(with_event):
    """The same as the single functions, on one softmax of the logits."""
    torch.manual_seed(0)
    logits, logits_in, logits_out = 2 * torch.randn(3, 8, 5)
    decision = torch.randint(5, (8,))
    mask = masks(0).requires_grad_()
    event = events(0) if with_event else None
    values = evaluate(
        SimpleNamespace(
            mask=mask,
            logits=logits.requires_grad_(),
            logits_in=logits_in,
            logits_out=logits_out,
            decision=decision,
        ),
        event,
    )
    p, p_in, p_out = (
        torch.softmax(x, 1) for x in (logits.detach(), logits_in, logits_out)
    )
    expected = {
        "AI": metrics.average_increase(p, p_in, decision),
        "AD": metrics.average_drop(p, p_in, decision),
        "AG": metrics.average_gain(p, p_in, decision),
        "FF": metrics.faithfulness(p, p_out, decision),
        "Fid-In": metrics.input_fidelity(p, p_in, decision),
        "SPS": metrics.sparseness(mask),
        "COMP": metrics.complexity(mask),
        "area": metrics.mask_area(mask),
    }
    if with_event:
        expected["event_mass"] = metrics.event_mass(mask, event)
        expected["event_auc"] = metrics.event_auc(mask, event)
    assert list(values) == list(expected)
    for name, value in values.items():
        assert not value.requires_grad
        assert torch.equal(value, expected[name]), name


def test_evaluate_half_precision():
    """Logits of a bf16 evaluation are taken in single precision."""
    torch.manual_seed(0)
    logits = (2 * torch.randn(8, 5)).bfloat16()
    values = evaluate(
        SimpleNamespace(
            mask=masks(0),
            logits=logits,
            logits_in=logits,
            logits_out=-logits,
            decision=logits.argmax(1),
        )
    )
    assert values["AD"].tolist() == [0] * 8
    assert all(value.dtype == torch.float32 for value in values.values())
