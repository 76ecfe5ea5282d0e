"""How strange a sound is: against the formula, and its edges."""

import math

import pytest
import torch

from lmac_sb import LMACError
from lmac_sb.models import familiarity
from lmac_sb.models.familiarity import Familiarity
from lmac_sb.models.weights import load_strict, write_weights


def clips(n, dim=6, n_classes=3, seed=0):
    """Embeddings around one place a class, their labels and logits."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % n_classes
    found = 4 * torch.eye(dim)[labels]
    found = found + torch.randn(n, dim, generator=generator)
    return found, labels, torch.randn(n, n_classes, generator=generator)


@pytest.fixture
def known():
    embeddings, labels, _ = clips(60)
    held_out, _, logits = clips(40, seed=1)
    return Familiarity(3, 6).fit(embeddings, labels, held_out, logits)


def by_hand(embeddings, labels, sound, logits):
    """Distance times doubt, with loops, as the formula says it."""
    unit = [x / math.sqrt(float(x @ x)) for x in embeddings.double()]
    sound = sound.double() / math.sqrt(float(sound @ sound))
    means = [
        sum(x for x, y in zip(unit, labels) if y == label)
        / int((labels == label).sum())
        for label in range(3)
    ]
    covariance = sum(
        torch.outer(x - means[y], x - means[y]) for x, y in zip(unit, labels)
    ) / len(unit)
    sphere = float(covariance.diagonal().mean()) * torch.eye(len(sound))
    inverse = torch.linalg.inv(0.9 * covariance + 0.1 * sphere.double())
    distance = min(
        math.sqrt(float((sound - mean) @ inverse @ (sound - mean)))
        for mean in means
    )
    p = [math.exp(x) for x in logits.tolist()]
    p = [x / sum(p) for x in p]
    return distance * (1 - sum(x * math.log(x) for x in p))


def test_formula(known):
    """As the loops say, in units of the median of what was held out."""
    embeddings, labels, _ = clips(60)
    held_out, _, logits = clips(40, seed=1)
    expected = torch.tensor(
        [by_hand(embeddings, labels, *pair) for pair in zip(held_out, logits)]
    )
    expected = expected / expected.median()
    found = known(held_out, logits)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert float(found.median()) == pytest.approx(1, abs=1e-4)
    assert (found > known.limit).sum() == 2  # 5 % of 40


def test_few_axes_are_close_to_all(known, monkeypatch):
    """The rest of the covariance is a sphere."""
    embeddings, labels, _ = clips(60)
    held_out, _, logits = clips(40, seed=1)
    monkeypatch.setattr(familiarity, "_RANK", 4)
    few = Familiarity(3, 6).fit(embeddings, labels, held_out, logits)
    assert few.axes.shape == (4, 6)
    ratio = few(held_out, logits) / known(held_out, logits)
    assert (ratio - 1).abs().max() < 0.4


def test_far_and_doubtful_is_strange(known):
    near = 4 * torch.eye(6)[:1]
    sure, doubt = torch.tensor([[20.0, 0, 0]]), torch.zeros(1, 3)
    assert known(near, sure) < known(near, doubt)
    assert known(near, doubt) == pytest.approx(
        float(known(near, sure)) * (1 + math.log(3)), rel=1e-4
    )
    assert known(-near, sure) > known(near, sure)
    assert known(-near, doubt) > known.limit


def test_one_clip_a_class_gives_numbers():
    embeddings, labels, logits = clips(3)
    known = Familiarity(3, 6).fit(embeddings, labels, embeddings, logits)
    for tensor in known.state_dict().values():
        assert tensor.isfinite().all()
    assert known(embeddings, logits).isfinite().all()


def test_it_is_kept(known, tmp_path):
    write_weights(tmp_path / "x.safetensors", known)
    again = Familiarity(3, 6)
    load_strict(again, tmp_path / "x.safetensors")
    embeddings, _, logits = clips(5, seed=2)
    assert torch.equal(again(embeddings, logits), known(embeddings, logits))


def test_of_another_classifier(known):
    with pytest.raises(LMACError, match="of 4 numbers, expected 6"):
        known(torch.rand(1, 4), torch.rand(1, 3))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0.5], None),
        ([2.5], "this sound is unlike those"),
        # One window in twenty is strange anyway.
        ([0.5] * 9 + [2.5], None),
        ([0.5] * 3 + [2.5, 3.5], "in 2 of 5 windows this sound is unlike"),
    ],
)
def test_note(found, said):
    note = Familiarity(2, 4).note(torch.tensor(found))
    assert note is said or note.startswith(said)
    if len(found) > 1 and note:
        assert "distance up to 3.5" in note and "at most 1.0" in note
