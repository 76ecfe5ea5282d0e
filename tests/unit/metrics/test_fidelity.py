"""Tests of the metrics, each against a version with plain loops."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lmac_sb import metrics
from lmac_sb.metrics import localisation
from lmac_sb.metrics.registry import (
    METRICS,
    Metric,
    direction,
    evaluate,
    shown_in,
)
from lmac_sb.metrics.sound import si_sdr
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.utils.errors import LMACError

SEEDS = [0, 1, 2]
PAIRED = ["AI", "AD", "AG", "FF", "Fid-In", "AD-2softmax"]
# Metrics of masks; those of masks and events are in test_localisation.py.
SHAPES = ["SPS", "COMP", "area"]


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


def cells(mask):
    """All values of one clip's mask as a list of floats."""
    return [float(v) for row in mask for v in row]


# Second implementation: one clip, plain Python.


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


def slow_ad2(p, q, c):
    """Lost share of a softmax of the probabilities, in %."""
    twice = [math.exp(x[c]) / sum(math.exp(v) for v in x) for x in (p, q)]
    return slow_ad({c: twice[0]}, {c: twice[1]}, c)


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


SLOW = {
    "AI": slow_ai,
    "AD": slow_ad,
    "AG": slow_ag,
    "FF": slow_ff,
    "FF-logit": slow_ff,
    "Fid-In": slow_fid,
    "AD-2softmax": slow_ad2,
    "SPS": slow_gini,
    "COMP": slow_entropy,
    "area": slow_area,
}


def batch(name, seed=0, clips=8):
    """Random arguments of a metric."""
    if name == "FF-logit":
        torch.manual_seed(seed)
        return (3 * torch.randn(2, clips, 5)).unbind()
    if name in PAIRED:
        return probabilities(seed, clips)
    return (masks(seed, clips),)


def test_table_is_complete():
    """The table holds each metric that is offered, and each is compared."""
    functions = {metric.function for metric in METRICS.values()}
    tools = {"direction", "evaluate", "shown_in", "unguarded"}
    tools |= set(metrics.verdict.__all__)  # what a verdict rests on
    for module in (metrics, localisation):
        for name in (
            set(module.__all__) - tools - {"METRICS", "Metric", "GUARDS"}
        ):
            assert getattr(module, name) in functions, name
    plain = ("in", "out", "logits", "mask")
    own = {n for n, metric in METRICS.items() if metric.needs in plain}
    assert set(SLOW) == own


def test_short_tables_keep_their_columns():
    """Those that the docs have: of the mask, and of what is heard."""
    assert shown_in("table") == [
        *("AI", "AD", "AG", "FF", "Fid-In", "SPS", "COMP", "area"),
        *("event_mass", "event_auc", "kept_event_mass", "kept_event_auc"),
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", [*PAIRED, "FF-logit"])
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
@pytest.mark.parametrize("name", SHAPES)
def test_masks_slowly(name, seed):
    """The values agree with plain loops."""
    (values,) = batch(name, seed)
    expected = [SLOW[name](mask) for mask in values]
    found = METRICS[name].function(values)
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
    "before, inside, classes, drop",
    [
        # From certain to certain of another class: 1 - 1/e, for any number.
        ([1], [0, 1], 50, 63.2121),
        ([1], [0, 1], 2, 63.2121),
        # To nothing, with the rest spread evenly.
        ([1], [0] + [1 / 49] * 49, 50, 62.702),
        ([0.5, 0.5], [0.25, 0.75], 50, 22.277),
    ],
)
def test_second_softmax_by_hand(before, inside, classes, drop):
    """A second softmax shrinks the drop; `average_drop` does not use one."""
    p, q = torch.zeros(2, 1, classes)
    p[0, : len(before)] = torch.tensor(before)
    q[0, : len(inside)] = torch.tensor(inside)
    target = torch.tensor([0])
    found = metrics.average_drop_second_softmax(p, q, target)
    assert found.item() == pytest.approx(drop, abs=1e-3)
    right = 100 * (1 - inside[0] / before[0])
    assert metrics.average_drop(p, q, target).item() == pytest.approx(right)


def test_second_softmax_turns_a_ranking_round():
    """Why it is no metric: the better explainer comes out as the worse."""
    p = tensor([0.9, 0.1], [0.1, 0.9])
    target = torch.tensor([0, 0])
    # One loses half of a high probability, the other all of a low one.
    half, all_gone = tensor([0.45, 0.55]), tensor([0.0, 1.0])
    for function, worse in (
        (metrics.average_drop, 1),
        (metrics.average_drop_second_softmax, 0),
    ):
        found = function(p, torch.cat((half, all_gone)), target)
        assert found.argmax() == worse


def test_logit_does_not_saturate():
    """The logit shows a drop that the probability hardly shows."""
    logits = tensor([40, 0])
    half, none = tensor([20, 0]), tensor([0, 0])
    found = [
        metrics.faithfulness_logit(logits, out).item() for out in (half, none)
    ]
    assert found == [20, 40]
    p, p_half = logits.softmax(1), half.softmax(1)
    assert metrics.faithfulness(p, p_half).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "before, inside, gain", [(0.6, 0.8, 50), (0.5, 1.0, 100), (0.8, 0.6, 0)]
)
def test_gain_by_hand(before, inside, gain):
    """The gain is a share of the missing probability."""
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
        high = 1 if name in ("FF", "Fid-In") else 100
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
@pytest.mark.parametrize("name", [*PAIRED, "FF-logit"])
def test_nan_stays_with_its_clip(name, place):
    """A NaN probability makes this clip's value NaN and no other's."""
    inputs = [x.clone() for x in batch(name)]
    clean = METRICS[name].function(*inputs)
    inputs[place][3, 2] = math.nan
    found = METRICS[name].function(*inputs)
    assert found.isnan().tolist() == [i == 3 for i in range(8)]
    rest = torch.arange(8) != 3
    assert torch.equal(found[rest], clean[rest])


@pytest.mark.parametrize("name", SHAPES)
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


@pytest.mark.parametrize("name", [*PAIRED, "FF-logit"])
def test_shapes_refused(name):
    """The message names both shapes."""
    p = torch.full((4, 5), 0.2)
    for other in (torch.full((4, 6), 0.1), torch.full((1, 5), 0.2)):
        with pytest.raises(LMACError) as error:
            METRICS[name].function(p, other)
        assert "(4, 5)" in str(error.value)
        assert str(tuple(other.shape)) in str(error.value)
    with pytest.raises(LMACError, match=r"\(5,\)"):
        METRICS[name].function(p[0], p[0])


@pytest.mark.parametrize("name", [*PAIRED, "FF-logit"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1)])
def test_target_shape_refused(name, shape):
    """One class a clip, never one that is spread over the batch."""
    p = torch.full((4, 5), 0.2)
    with pytest.raises(LMACError, match="target: .* 4 clips"):
        target = torch.zeros(shape, dtype=torch.long)
        METRICS[name].function(p, p, target=target)


@pytest.mark.parametrize("name", list(SLOW))
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
    """All-ones or all-zeros masks in the batch do not matter."""
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
    # Quantus works in place, so it gets a copy of each clip.
    expected = [
        float(oracle.evaluate_batch(x_batch=None, a_batch=clip.numpy())[0])
        for clip in values.double()[:, None]
    ]
    found = METRICS[{"Sparseness": "SPS", "Complexity": "COMP"}[name]]
    assert found.function(values).tolist() == pytest.approx(expected, abs=1e-5)


def test_directions():
    """The better explanation wins by the signs in the table."""
    p = tensor([0.7, 0.3])
    found, lost = tensor([0.9, 0.1]), tensor([0.2, 0.8])
    event = torch.zeros(1, 3, 4)
    event[0, 1, 1:3] = 1
    narrow, wide = 0.9 * event, 1 - 0.5 * event
    level = 1 + torch.arange(12.0).view(event.shape).flip(1)
    clean, noise = torch.randn(2, 1, 100)
    pairs = {
        "in": ((p, found), (p, lost)),
        "out": ((p, lost), (p, found)),
        "logits": ((p, lost), (p, found)),
        "mask": ((narrow,), (wide,)),
        "event": ((narrow, event), (wide, event)),
        "others": ((1 - event, event), (narrow, event)),
        "frames": ((narrow, event.any(-1)), (wide, event.any(-1))),
        "kept event": ((narrow, level, event), (wide, level, event)),
        "kept others": ((1 - event, level, event), (narrow, level, event)),
        "kept frames": (
            (narrow, level, event.any(-1)),
            (wide, level, event.any(-1)),
        ),
        "kept known": ((narrow, level, event), (wide, level, event)),
        "sound": ((clean + 0.1 * noise, clean), (clean + noise, clean)),
    }
    for name, metric in METRICS.items():
        if metric.function is None:
            continue
        good, bad = (metric.function(*x).item() for x in pairs[metric.needs])
        assert good != bad, name
        if name == "area":
            assert metric.direction == 0
        else:
            assert metric.direction == (1 if good > bad else -1), name


def test_directions_of_columns():
    """Variants have the direction of their metric; unknown columns none."""
    for name, metric in METRICS.items():
        assert direction(name) == metric.direction
        assert direction(f"noisy {name}") == metric.direction
    assert direction("SI-SDR") == direction("insertion AUC") == 1
    assert direction("deletion AUC") == -1
    assert direction("seconds") == direction("louder AI") == 0


def explanation(**changed):
    """A random explained batch."""
    torch.manual_seed(0)
    logits, logits_in, logits_out = 2 * torch.randn(3, 8, 5)
    parts = {
        "mask": masks(0).requires_grad_(),
        "logits": logits.requires_grad_(),
        "logits_in": logits_in,
        "logits_out": logits_out,
        "decision": torch.randint(5, (8,)),
        "magnitude": torch.rand(8, 6, 5),
    }
    return SimpleNamespace(waveform=None, **{**parts, **changed})


MASK_ALONE = (
    *("event_mass", "event_topk", "event_auc"),
    *("time_mass", "time_auc"),
)


def localisation_of(kind):
    """Names of an event's or of a time's, first those of the mask alone."""
    own = [name for name in MASK_ALONE if name.startswith(kind)]
    return [*own, *(f"kept_{name}" for name in own)]


@pytest.mark.parametrize("domain", ["linear", "another"])
@pytest.mark.parametrize("known", ["nothing", "event", "frames", "both"])
def test_evaluate(known, domain):
    """`evaluate` equals the single functions."""
    given = explanation()
    mask, decision = given.mask.detach(), given.decision
    event = (torch.rand(8, 6, 5) < 0.3).float() * (torch.rand(8, 6, 1) < 0.5)
    event[:, 0, 0] = 1
    frames = torch.rand(8, 6) < 0.5
    frames[:, 0], frames[:, 1] = True, False
    inputs = {
        "nothing": {},
        "event": {"event": event},
        "frames": {"frames": frames},
        "both": {"event": event, "frames": frames},
    }[known]
    factor = mask if domain == "linear" else mask**2
    values = evaluate(
        given, **inputs, linear_mask=None if domain == "linear" else factor
    )
    logits = [given.logits.detach(), given.logits_in, given.logits_out]
    p, p_in, p_out = (torch.softmax(x, 1) for x in logits)
    expected = {
        "AI": metrics.average_increase(p, p_in, decision),
        "AD": metrics.average_drop(p, p_in, decision),
        "AG": metrics.average_gain(p, p_in, decision),
        "FF": metrics.faithfulness(p, p_out, decision),
        "FF-logit": metrics.faithfulness_logit(logits[0], logits[2], decision),
        "Fid-In": metrics.input_fidelity(p, p_in, decision),
        "SPS": metrics.sparseness(mask),
        "COMP": metrics.complexity(mask),
        "area": metrics.mask_area(mask),
        "AD-2softmax": metrics.average_drop_second_softmax(p, p_in, decision),
    }
    heard = factor, given.magnitude

    def add(names, *known):
        """Values of the mask, and of what is kept."""
        for name in names:
            inputs = known if name in MASK_ALONE else (*heard, *known[1:])
            expected[name] = getattr(localisation, name)(*inputs)

    if "event" in inputs:
        add(localisation_of("event"), mask, event)
    if inputs:
        # A frame is active if any of its bins is the event's.
        active = inputs.get("frames", event.sum(-1) > 0)
        add(localisation_of("time"), mask, active)
        known = inputs.get("event", active)
        add(["time_iou", "time_f1", "pointing"], mask, known)
    assert list(values) == list(expected)
    for name, value in values.items():
        assert not value.requires_grad
        assert torch.equal(value, expected[name]), name


def test_evaluate_without_a_mask():
    """Without a mask, only metrics of probabilities are computed."""
    values = evaluate(explanation(mask=None), torch.ones(8, 6, 5))
    assert list(values) == [
        name
        for name, metric in METRICS.items()
        if metric.needs in ("in", "out", "logits")
    ]


def test_evaluate_half_precision():
    """Logits of a bf16 evaluation are taken in single precision."""
    torch.manual_seed(0)
    logits = (2 * torch.randn(8, 5)).bfloat16()
    values = evaluate(
        SimpleNamespace(
            waveform=None,
            mask=masks(0),
            magnitude=masks(1),
            logits=logits,
            logits_in=logits,
            logits_out=-logits,
            decision=logits.argmax(1),
        )
    )
    assert values["AD"].tolist() == [0] * 8
    assert all(value.dtype == torch.float32 for value in values.values())


def slow_si_sdr(estimate, reference):
    """In dB, one clip, in the order of the definition."""
    estimate, reference = (
        sound - sound.mean() for sound in map(np.array, (estimate, reference))
    )
    scale = np.dot(estimate, reference) / np.dot(reference, reference)
    target = scale * reference
    noise = estimate - target
    return 10 * np.log10(np.dot(target, target) / np.dot(noise, noise))


@pytest.mark.parametrize("seed", SEEDS)
def test_si_sdr_slowly(seed):
    """Agrees with numpy, at any level, with any mean and any sign."""
    torch.manual_seed(seed)
    reference = torch.randn(6, 500)
    noise = torch.randn(6, 500) * 10 ** torch.linspace(-3, 1, 6)[:, None]
    estimate = -0.01 * (reference + noise) + 3
    pair = (estimate.tolist(), (reference + 2).tolist())
    expected = [slow_si_sdr(*clip) for clip in zip(*pair)]
    assert min(expected) < -10 and max(expected) > 40
    found = si_sdr(estimate, reference + 2)
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_si_sdr_of_torchmetrics(seed):
    """Agrees where theirs frees both sounds of their mean, too.

    Theirs does so only when asked, knows no limits of 100 dB, and gives a
    silent reference a number; none of that is compared here.
    """
    audio = pytest.importorskip("torchmetrics.functional.audio")
    torch.manual_seed(seed)
    reference = torch.randn(6, 500).double() + 2
    noise = torch.randn(6, 500) * 10 ** torch.linspace(-3, 1, 6)[:, None]
    estimate = -0.01 * (reference + noise) + 3
    theirs = audio.scale_invariant_signal_distortion_ratio
    expected = theirs(estimate, reference, zero_mean=True)
    assert expected.abs().max() < 90
    found = si_sdr(estimate, reference)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    with_mean = theirs(estimate, reference)
    assert (with_mean - expected).abs().min() > 1


def test_si_sdr_by_hand():
    """Orthogonal noise of a tenth of the amplitude is 20 dB below."""
    reference = tensor([1, -1, 1, -1])
    noise = tensor([1, 1, -1, -1])
    for scale in (0.001, 1, 1000):
        found = si_sdr(scale * (reference + 0.1 * noise + 5), reference)
        assert found.item() == pytest.approx(20, abs=1e-2)
    assert si_sdr(reference + noise, reference).item() == pytest.approx(0)


def test_si_sdr_at_its_limits():
    """Finite for each estimate of a sound, NaN only without one."""
    reference = tensor([1, -1, 1, -1]).expand(5, 4).clone()
    noise = tensor([1, 1, -1, -1])
    estimate = torch.cat(
        (reference[:1], 0 * noise, noise, 0.1 + 0 * noise, noise)
    )
    reference[4] = 0.1
    found = si_sdr(estimate, reference).tolist()
    assert found[:4] == [100, -100, -100, -100]
    assert math.isnan(found[4])
    # Neither silence nor NaN affects other clips in the batch.
    estimate[1, 2] = math.nan
    found = si_sdr(estimate, reference)
    assert found.isnan().tolist() == [False, True, False, False, True]


def test_si_sdr_shapes_refused():
    """Shapes that differ are refused, not broadcast."""
    for shape in ((1, 9), (4, 8), (9,)):
        with pytest.raises(LMACError) as error:
            si_sdr(torch.rand(4, 9), torch.rand(shape))
        assert "(4, 9)" in str(error.value)
        assert str(shape) in str(error.value)


def test_a_new_metric_is_one_entry(monkeypatch):
    """From one entry come its value, its decimals, and where it is shown."""
    shy = Metric(
        lambda p, p_in, decision: p_in[:, 0], "in", -1, 2, "", ("table",), True
    )
    monkeypatch.setitem(METRICS, "shyness", shy)
    given = explanation()
    value = evaluate(given)["shyness"]
    torch.testing.assert_close(value, given.logits_in.softmax(1)[:, 0])
    assert direction("heard shyness") == -1
    assert shown_in("table")[-1] == "shyness"
    table = markdown_table(
        summarize([{"id": "a", "method": "m", "shyness": 0.5}])
    )
    assert table.splitlines()[0] == "| method | shyness ↓ |"
    assert table.splitlines()[-1] == "| m | 0.50 ± 0.00 |"


def test_what_needs_a_mask_cannot_be_repeated():
    """Guards have other sounds, but the same mask."""
    with pytest.raises(ValueError, match="needs 'mask', expected"):
        Metric(None, "mask", 1, repeated=True)
