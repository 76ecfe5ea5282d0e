"""Cost, agreement and robustness of masks."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from lmac_sb.bench.measured import (
    MEASURES,
    NOISE_DB,
    Measured,
    Passes,
    overlap,
)
from lmac_sb.evaluation.judge import Judge, white_noise
from lmac_sb.methods.registry import Method, make_case, make_methods, passes

CLASSES = ["cat", "cow", "dog"]
ITEMS = [{"id": x, "class_string": "dog"} for x in "ab"]


@pytest.fixture
def case(explainer, wavs):
    """Two clips."""
    return make_case(explainer, wavs, [1.0, 1.0], ITEMS)


@pytest.fixture
def wavs():
    """Two noises."""
    return torch.randn(2, 16000) / 8


@pytest.fixture(scope="module")
def explainer(interpreter):
    """Of the tiny model."""
    return interpreter.explainer


def rows_of(explainer, case, methods, others=(), draws=2):
    """Rows of masks as they are, by method and clip."""
    comparison = Measured(Judge(explainer), methods, CLASSES, others, draws)
    rows, _ = comparison(case, ITEMS)
    return {
        (row["method"], row["id"]): row for row in rows if row["keep"] == "own"
    }


def slow_overlap(one, other, area):
    """Bin by bin."""
    keep = max(1, round(area * one.numel()))
    sets = []
    for mask in (one, other):
        flat = mask.flatten().tolist()
        order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
        sets.append(set(order[:keep]))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_overlap():
    one, other = torch.rand(2, 3, 7, 5)
    area = torch.tensor([0.1, 0.5, 1.0])
    found = overlap(one, other, area)
    for i in range(3):
        expected = slow_overlap(one[i], other[i], area[i].item())
        assert found[i].item() == pytest.approx(expected)
    assert overlap(one, one, area).tolist() == [1, 1, 1]
    assert overlap(one, other, torch.zeros(3)).isnan().all()


def test_passes_are_those_of_the_formula(explainer, case):
    names = ["lmac", "lmac+3", "optimised+2", "saliency", "loudest"]
    methods = make_methods(names, {"lmac": explainer})
    rows = rows_of(explainer, case, methods, draws=0)
    for name in ("lmac", "lmac+3", "optimised+2"):
        assert rows[name, "a"]["passes"] == passes(methods[name])
    # Another explainer, even of the same classifier, reads the clip anew.
    other = copy.deepcopy(explainer)
    comparison = Measured(
        Judge(explainer),
        make_methods(["lmac", "mine"], {"lmac": explainer, "mine": other}),
        CLASSES,
        draws=0,
        explainers=[other],
    )
    found, _ = comparison(case, ITEMS)
    counts = {row["method"]: row["passes"] for row in found if "passes" in row}
    assert counts == {"lmac": 1, "mine": 2}  # with the evidence's way back
    assert rows["saliency", "a"]["passes"] == 2  # forward and backward
    assert rows["loudest", "b"]["passes"] == 0
    assert all(row["seconds"] >= 0 for row in rows.values())


def test_passes_of_other_modules_do_not_count():
    net, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with Passes(lambda module: module is net, 4) as counted:
        other(torch.zeros(4, 1))
        with torch.no_grad():
            net(torch.zeros(2, 1))
    assert counted.count == 0.5
    net(torch.zeros(4, 1))
    assert counted.count == 0.5


def test_noise_is_40_db_below():
    def made(wav, name):
        return white_noise(wav[None], [name], NOISE_DB)[0]

    wav = torch.randn(16000)
    noise = made(wav, "a 0")
    ratio = wav.square().mean() / noise.square().mean()
    assert 10 * ratio.log10() == pytest.approx(NOISE_DB, abs=0.1)
    assert torch.equal(noise, made(wav, "a 0"))
    assert not torch.equal(noise, made(wav, "a 1"))
    assert not made(torch.zeros(9), "a").any()


def correlation(one, other):
    """Of two masks, bin by bin."""
    a, b = (x.flatten().double() - x.double().mean() for x in (one, other))
    return float((a * b).sum() / (a.norm() * b.norm()))


def test_change_of_a_mask(explainer, case):
    """One minus the correlation, mean over the draws."""
    masks = {}

    def unsteady(some):
        """Another mask for other sounds."""
        found = torch.rand(some.analysis.magnitude.shape)
        for i, clip in enumerate(some.ids):
            masks.setdefault(clip, []).append(found[i])
        return found

    # All bins sound as much, so that all count.
    flat = torch.ones_like(case.analysis.magnitude)
    case = replace(case, analysis=replace(case.analysis, magnitude=flat))
    methods = make_methods(["lmac"], {"lmac": explainer})
    methods["steady"] = Method("mask", lambda some: flat * masks["a"][0])
    methods = {"lmac": methods["lmac"], "mine": Method("mask", unsteady)} | {
        "steady": methods["steady"]
    }
    rows = rows_of(explainer, case, methods, draws=2)
    first, *others = masks["a"]
    expected = sum(1 - correlation(first, x) for x in others) / 2
    assert rows["mine", "a"]["mask change"] == pytest.approx(expected, abs=1e-4)
    assert rows["steady", "a"]["mask change"] == pytest.approx(0, abs=1e-6)
    changes = {row["decision change"] for row in rows.values()}
    assert len(changes) == 2  # one a clip, the same for all methods


def test_a_draw_that_changes_the_decision_does_not_count(
    explainer, case, monkeypatch
):
    """Where none is left, the mask's change is NaN, the decision's is not."""
    analyze = type(explainer).analyze

    def turned(self, wavs, target=None):
        """Another class is decided for."""
        found = analyze(self, wavs, target)
        found.logits = torch.tensor([[0, 9.0, 0], [9.0, 0, 0]])
        return found

    monkeypatch.setattr(type(explainer), "analyze", turned)
    case.analysis.logits = torch.tensor([[9.0, 0, 0], [0, 0, 9.0]])
    case.target = torch.tensor([0, 2])
    methods = make_methods(["lmac"], {"lmac": explainer})
    rows = rows_of(explainer, case, methods, draws=1)
    assert math.isnan(rows["lmac", "a"]["mask change"])
    assert rows["lmac", "a"]["decision change"] > 0.5


def test_a_method_that_fails_on_noise(explainer, case):
    """It has no change, the others do."""
    wavs = case.wavs

    def once(some):
        """Fails on other sounds."""
        if not torch.equal(some.wavs, wavs):
            raise ValueError("noisy")
        return torch.rand_like(some.analysis.magnitude)

    methods = make_methods(["lmac"], {"lmac": explainer})
    rows = rows_of(
        explainer, case, {**methods, "mine": Method("mask", once)}, draws=1
    )
    assert math.isnan(rows["mine", "a"]["mask change"])
    assert not math.isnan(rows["lmac", "a"]["mask change"])


def test_agreement_of_seeds(explainer, case):
    """Of explainers alone; the same one agrees with itself."""
    methods = make_methods(["lmac", "lmac+1", "loudest"], {"lmac": explainer})
    opposite = {
        "lmac": Method(
            "mask", lambda some: 1 - methods["lmac"].function(some), 0, 1
        )
    }
    rows = rows_of(explainer, case, methods, [methods, opposite], draws=0)
    assert rows["lmac", "a"]["agreement"] == pytest.approx(0, abs=1e-5)
    assert rows["lmac+1", "a"]["agreement"] == pytest.approx(1, abs=1e-5)
    assert rows["lmac+1", "a"]["agreement IoU"] == 1
    rows = rows_of(explainer, case, methods, [opposite], draws=0)
    assert rows["lmac", "b"]["agreement"] == pytest.approx(-1, abs=1e-5)
    assert "agreement" not in rows["loudest", "a"]


def test_rows_of_failed_methods_have_no_measures(explainer, case):
    def fails(some):
        """A shape that fits nothing."""
        return some.analysis.magnitude[:, 1:]

    methods = make_methods(["lmac", "loudest"], {"lmac": explainer})
    rows = rows_of(
        explainer, case, {**methods, "mine": Method("scores", fails)}
    )
    assert "expected (1, 87, 513)" in rows["mine", "a"]["error"]
    assert not set(MEASURES) & set(rows["mine", "a"])
    assert "mask change" in rows["loudest", "a"]
