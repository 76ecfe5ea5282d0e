"""Tests of the verdicts on cases that are known to be each of them."""

import math

import numpy as np
import pytest
import torch

from lmac_sb.data import audio
from lmac_sb.metrics import verdict
from lmac_sb.metrics.verdict import (
    VERDICTS,
    Evidence,
    agreement,
    energy_share,
    heard_area,
    level_db,
    verdicts,
)
from lmac_sb.utils.errors import LMACError

REST = "unfaithful: the rest decides the same"
KEPT = "unfaithful: the kept part does not decide so"


def evidence(p, inside, outside, top=(True, True, True), **sound):
    """What is known of one clip; an ordinary sound and mask by default."""
    sound = {"level": -20.0, "area": 0.2, "energy": 0.5, **sound}
    numbers = [torch.tensor([float(x)]) for x in (p, inside, outside)]
    flags = [torch.tensor([x]) for x in top]
    values = {name: torch.tensor([x]) for name, x in sound.items()}
    return Evidence(*numbers, *flags, **values)


def of(*arguments, **sound):
    """The verdict on one clip."""
    (found,) = verdicts(evidence(*arguments, **sound))
    return found


def of_softmax(before, inside, outside, target=None, **sound):
    """The verdict from all classes' probabilities on the three sounds."""
    target = int(np.argmax(before)) if target is None else target
    sides = (before, inside, outside)
    top = [int(np.argmax(p)) == target for p in sides]
    return of(*(p[target] for p in sides), top, **sound)


ALL, IN, OUT, NONE = (
    (True, True, True),
    (True, True, False),
    (True, False, True),
    (True, False, False),
)
# Explained class that is not the most probable one on the whole.
OTHER = (False, False, False)


@pytest.mark.parametrize(
    ("p", "inside", "outside", "top", "expected"),
    [
        # White noise of the issue: the mask misses what decides.
        (1.0, 0.490, 1.000, (True, False, True), REST),
        (0.999, 0.490, 1.000, ALL, REST),
        # Good ones.
        (0.99, 0.97, 0.02, IN, "faithful"),
        (0.7, 0.99, 0.1, IN, "faithful"),
        # Neither part matters: a constant mask, or redundant evidence.
        (0.99, 0.99, 0.99, ALL, REST),
        (0.99, 0.99, 0.60, ALL, REST),
        (0.999, 0.999, 0.97, ALL, REST),
        # Only the whole decides so.
        (0.9, 0.1, 0.1, NONE, KEPT),
        (0.9, 0.44, 0.1, IN, KEPT),
        # An unsure decision of ten classes: the drop counts, not the level.
        (0.35, 0.30, 0.05, IN, "faithful"),
        (0.35, 0.20, 0.05, IN, "faithful"),
        (0.35, 0.20, 0.05, NONE, KEPT),
        (0.35, 0.30, 0.20, IN, "faithful"),
        (0.35, 0.30, 0.20, ALL, REST),
        (0.35, 0.34, 0.33, IN, REST),
        # Two classes: the decision turns at .5.
        (0.6, 0.6, 0.4, IN, "faithful"),
        (0.6, 0.4, 0.4, NONE, KEPT),
        (0.51, 0.51, 0.49, IN, REST),
        # A class that is not the decision, or true with p = .3 (sigmoid).
        (0.3, 0.25, 0.05, OTHER, "faithful"),
        (0.3, 0.9, 0.05, (False, True, False), "faithful"),
        (0.3, 0.25, 0.2, OTHER, REST),
        (0.3, 0.1, 0.05, OTHER, KEPT),
        (0.02, 0.6, 0.001, (False, True, False), "faithful"),
        # Nothing speaks for it anywhere.
        (1e-6, 1e-6, 1e-9, OTHER, KEPT),
        (0.0, 0.0, 0.0, OTHER, KEPT),
        # The most probable one of thousands.
        (0.004, 0.004, 0.0001, IN, "faithful"),
        (0.004, 0.004, 0.0039, IN, REST),
    ],
)
def test_what_is_faithful(p, inside, outside, top, expected):
    assert of(p, inside, outside, top) == expected


@pytest.mark.parametrize("p", [0.02, 0.3, 0.8, 1.0])
def test_bounds_of_what_decides_the_same(p):
    """A little more and a little less than each bound."""
    half, most = p / 2, 0.9 * p
    step = 1e-4 * p
    for top, bound in ((NONE, most), (IN, half)):
        assert of(p, bound + step, 0, top) == "faithful"
        assert of(p, bound, 0, top) == "faithful"  # the bound itself is in
        assert of(p, bound - step - 2e-6, 0, top) == KEPT
    for top, bound in ((IN, most), (ALL, half)):
        assert of(p, p, bound + step, top) == REST
        assert of(p, p, bound, top) == REST
        assert of(p, p, bound - step - 2e-6, top) == "faithful"


def test_the_least_probability():
    """Below it nothing speaks for a class that is not the decision."""
    assert of(0.011, 0.0101, 0, OTHER) == "faithful"
    assert of(0.011, 0.0099, 0, OTHER) == KEPT
    # The decision among thousands of classes may be as low.
    assert of(0.011, 0.0099, 0, IN) == "faithful"


SAME, LOST, LEAST = 0.9, 0.5, 0.01


def slow(p, part, top_before, top_part):
    """The rule in words, by cases; None within rounding of a bound."""
    for bound in (SAME * p, LOST * p, LEAST):
        if abs(part - bound) < 1e-5:
            return None
    if part < LEAST and not top_part and not top_before:
        return False
    if part >= SAME * p:
        return True
    if part < LOST * p:
        return False
    return top_part if top_before else True


def test_the_rule_by_cases():
    """A second writing of it, on random probabilities of four classes."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(3000):
        rows = rng.dirichlet([0.4] * 4, size=3)
        target = int(rng.integers(4))
        tops = [int(row.argmax()) == target for row in rows]
        p, p_in, p_out = rows[:, target]
        inside = slow(p, p_in, tops[0], tops[1])
        outside = slow(p, p_out, tops[0], tops[2])
        if None in (inside, outside):
            continue
        expected = REST if outside else "faithful" if inside else KEPT
        assert of_softmax(*rows, target) == expected
        seen.add(expected)
    assert seen == {REST, KEPT, "faithful"}


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        ({"level": -math.inf}, "silent"),
        ({"level": -90.0}, "silent"),
        ({"level": -79.9}, "faithful"),
        ({"area": 0.0, "energy": 0.0}, "nothing kept"),
        ({"area": 0.0049, "energy": 9e-4}, "nothing kept"),
        # A whistle: one bin of hundreds, but it is heard.
        ({"area": 0.002, "energy": 0.3}, "faithful"),
        # A faint hiss: many bins.
        ({"area": 0.2, "energy": 1e-5}, "faithful"),
        ({"area": 0.0051, "energy": 9e-4}, "faithful"),
        ({"area": 1.0, "energy": 1.0}, "everything kept"),
        ({"area": 0.9, "energy": 0.99}, "everything kept"),
        ({"area": 0.899, "energy": 1.0}, "faithful"),
        ({"area": math.nan}, "unknown"),
        ({"energy": math.nan}, "unknown"),
        # Silence comes before all else.
        ({"level": -math.inf, "area": 0.0, "energy": 0.0}, "silent"),
        ({"level": -math.inf, "area": 1.0}, "silent"),
    ],
)
def test_whether_there_is_something_to_judge(sound, expected):
    assert of(0.9, 0.9, 0.1, IN, **sound) == expected


@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_number_is_never_good(place):
    p = [0.9, 0.9, 0.1]
    p[place] = math.nan
    assert of(*p, IN) == "unknown"
    assert of(*p, IN, level=-math.inf) == "silent"


def test_a_batch():
    """Each clip by itself, in order; an empty batch has none."""
    cases = [
        evidence(0.9, 0.9, 0.1, IN),
        evidence(0.9, 0.9, 0.9, ALL),
        evidence(0.9, 0.1, 0.1, NONE),
        evidence(0.9, 0.9, 0.1, IN, level=-math.inf),
        evidence(math.nan, 0.9, 0.1, IN),
        evidence(0.9, 0.9, 0.1, IN, area=1.0),
        evidence(0.9, 0.1, 0.9, OUT, area=0.0, energy=0.0),
    ]
    batch = Evidence(*(torch.cat(values) for values in zip(*cases)))
    found = verdicts(batch)
    assert found == [verdicts(case)[0] for case in cases]
    # There is a case of each.
    assert sorted(found) == sorted(VERDICTS)
    assert verdicts(Evidence(*(values[:0] for values in batch))) == []


def test_bad_evidence():
    good = evidence(0.9, 0.9, 0.1)
    with pytest.raises(LMACError, match=r"p_inside: found values outside \[0"):
        verdicts(good._replace(p_inside=torch.tensor([7.0])))
    with pytest.raises(LMACError, match=r"area: found shape \(2,\), expected"):
        verdicts(good._replace(area=torch.zeros(2)))
    with pytest.raises(LMACError, match=r"p_before: found shape \(1, 1\)"):
        verdicts(good._replace(p_before=torch.zeros(1, 1)))


# --------------------------------------------------- what a verdict rests on


@pytest.mark.parametrize(
    ("wav", "silent"),
    [
        (np.zeros(1000), True),
        (np.full(1000, 0.25), True),  # an offset is no sound
        (np.full(1000, -0.5) + np.resize([1e-5, -1e-5], 1000), True),
        (np.resize([0, 1, 0, -1], 1000) / 32768, True),  # dither
        (np.resize([2, -2], 1000) / 32768, False),  # quiet, but a tone
        (np.resize([1e-4, -1e-4], 1000), False),  # so is one at -80 dB
        (np.eye(1, 1000)[0], False),  # a click
        (0.4 + np.resize([1e-3, -1e-3], 1000), False),
    ],
)
def test_silence(wav, silent):
    level = level_db(torch.tensor(wav[None], dtype=torch.float32))
    swing = (wav.max() - wav.min()) / 2
    expected = 20 * math.log10(swing) if swing > 0 else -math.inf
    assert float(level) == pytest.approx(expected, abs=0.1)
    assert (of(0.9, 0.9, 0.1, IN, level=float(level)) == "silent") == silent
    assert audio.is_silent(torch.tensor(wav)) == silent
    assert audio.SILENT_DB == verdict.SILENT_DB


def test_area_where_there_is_sound():
    """Against loops; empty bins do not count, whatever the mask is there."""
    torch.manual_seed(0)
    mask = torch.rand(3, 5, 8)
    magnitude = 10 ** (-4 * torch.rand(3, 5, 8))
    magnitude[:, :, 6:] = 0
    for i, value in enumerate(heard_area(mask, magnitude)):
        top = float(magnitude[i].max())
        kept = [
            float(m)
            for m, x in zip(mask[i].flatten(), magnitude[i].flatten())
            if x >= 10**-2.5 * top
        ]
        assert 0 < len(kept) < 30
        assert float(value) == pytest.approx(sum(kept) / len(kept))
    everything = torch.ones(1, 5, 8)
    everything[:, :, 6:] = 0
    assert heard_area(everything, magnitude[:1]) == 1
    assert heard_area(1 - everything, magnitude[:1]) == 0
    # Without any sound, all bins are alike.
    assert heard_area(everything, 0 * everything) == 0.75
    with pytest.raises(LMACError, match=r"found shape \(1, 5, 8\), expected"):
        heard_area(everything, magnitude[:1, :4])


@pytest.mark.parametrize("block", [1 << 18, 7])
def test_share_of_the_energy(block, monkeypatch):
    monkeypatch.setattr(verdict, "_BLOCK", block)
    torch.manual_seed(0)
    kept, rest = torch.randn(2, 3, 100)
    kept[1], kept[2], rest[2] = 0, 0, 0
    found = energy_share(kept, rest).tolist()
    a, b = (sum(x**2 for x in side[0].tolist()) for side in (kept, rest))
    assert found == pytest.approx([a / (a + b), 0, 0])


# ---------------------------------------------------------------- agreement


def slow_agreement(mask, other, magnitude):
    """Pearson's correlation by numpy, over the bins that sound."""
    heard = magnitude >= 10**-2.5 * magnitude.max()
    return np.corrcoef(mask[heard], other[heard])[0, 1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agreement(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, 4, 6, 9))
    masks[1] = 0.5 * masks[0] + 0.5 * masks[1]
    magnitude = 10 ** (-4 * rng.random((4, 6, 9)))
    a, b, loud = (torch.tensor(x).float() for x in (*masks, magnitude))
    expected = [slow_agreement(*x) for x in zip(*masks, magnitude)]
    assert agreement(a, b, loud).tolist() == pytest.approx(expected, abs=1e-5)
    everywhere = [slow_agreement(*x, np.ones((6, 9))) for x in zip(*masks)]
    assert agreement(a, b).tolist() == pytest.approx(everywhere, abs=1e-5)
    assert torch.equal(agreement(a, b), agreement(b, a))


def test_agreement_of_known_masks():
    torch.manual_seed(0)
    mask = (torch.rand(1, 40, 50) < 0.2).float()
    assert agreement(mask, mask) == pytest.approx(1)
    assert agreement(mask, 1 - mask) == pytest.approx(-1)
    # The same bins, kept half as much.
    assert agreement(mask, mask / 2) == pytest.approx(1)
    # Places drawn at random have nothing in common.
    assert abs(agreement(mask, (torch.rand(1, 40, 50) < 0.2).float())) < 0.1
    # A rank of mostly the same bins is stable, half of them is not.
    most, half = mask.clone(), mask.clone()
    places = mask.nonzero()
    for other, n in ((most, len(places) // 5), (half, len(places) // 2)):
        for i, t, f in places[:n]:
            other[i, t, f] = 0
            other[i, t, (f + 1) % 50] = 1
    assert agreement(mask, most) > verdict.STABLE
    assert agreement(mask, half) < verdict.STABLE


@pytest.mark.parametrize("level", [0.0, 0.1, 1.0])
def test_agreement_of_constant_masks(level):
    mask = torch.full((1, 5, 6), level)
    other = torch.rand(1, 5, 6)
    assert agreement(mask, mask + 1e-8) == 1
    assert agreement(mask, 0.5 + 0 * mask) == 0
    assert agreement(mask, other) == agreement(other, mask) == 0
    # Bins without sound do not make it less constant.
    loud = torch.ones(1, 5, 6)
    loud[0, 0, 0] = 0
    changed = mask.clone()
    changed[0, 0, 0] = 0.3
    assert agreement(mask, changed, loud) == 1


def test_agreement_of_what_cannot_be_compared():
    mask = torch.rand(2, 5, 6)
    broken = mask.clone()
    broken[0, 0, 0] = math.nan
    found = agreement(mask, broken)
    assert found[0].isnan()
    assert found[1] == pytest.approx(1)
    with pytest.raises(LMACError, match=r"\(2, 5, 6\) and \(2, 5, 5\)"):
        agreement(mask, mask[:, :, :5])
