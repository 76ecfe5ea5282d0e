"""Probabilities told from logits, and made logits."""

import pytest
import torch

from lmac_sb.listener.scales import LastActivation, guess_scale, to_logits


def test_scales_are_undone():
    logits = torch.randn(4, 3, dtype=torch.double)
    assert to_logits(logits, "logits") is logits
    soft = to_logits(logits.softmax(1), "softmax")
    torch.testing.assert_close(soft, logits.log_softmax(1))
    torch.testing.assert_close(to_logits(logits.sigmoid(), "sigmoid"), logits)
    logs = torch.nn.functional.logsigmoid(logits)
    torch.testing.assert_close(to_logits(logs, "log_sigmoid"), logits)


@pytest.mark.parametrize("scale", ["softmax", "sigmoid"])
def test_certain_probabilities_are_finite(scale):
    scores = torch.tensor([0.0, 1.0], requires_grad=True)
    logits = to_logits(scores, scale)
    logits.sum().backward()
    assert logits.isfinite().all() and scores.grad.isfinite().all()
    assert to_logits(torch.tensor([0.0]), "log_sigmoid").isfinite().all()


def test_scales_are_guessed():
    torch.manual_seed(0)
    x = torch.randn(6, 8)
    weight = torch.randn(8, 3, requires_grad=True)
    logits = x @ weight
    assert guess_scale(logits, False) == "logits"
    assert guess_scale(logits.log_softmax(1), False) == "logits"
    assert guess_scale(logits.softmax(1), False) == "softmax"
    assert guess_scale(logits.softmax(1), True) == "sigmoid"
    assert guess_scale(logits.sigmoid(), False) == "sigmoid"
    assert guess_scale(logits[:, :1].sigmoid(), True) == "sigmoid"
    assert guess_scale(logits[:, :1].softmax(1), True) == "sigmoid"
    assert guess_scale(logits.sigmoid().half(), True) == "sigmoid"
    # Between 0 and 1 by chance, with a linear end.
    small = (x @ (weight / 1000) + 0.5)[:, None].mean(1)
    assert 0 < small.min() and small.max() < 1
    assert guess_scale(small, False) == "logits"
    assert guess_scale(small.sigmoid().detach(), False) == "sigmoid"
    assert guess_scale(torch.tensor([[float("nan"), 0.5]]), False) == "logits"


@pytest.mark.parametrize(
    "last",
    [
        torch.nn.Softmax(1),
        torch.nn.Sigmoid(),
        torch.sigmoid,
        lambda x: x.sigmoid(),
        lambda x: x.softmax(1),
        lambda x: torch.softmax(x, dim=1),
        lambda x: torch.nn.functional.softmax(input=x, dim=1),
        torch.special.expit,
        torch.nn.functional.sigmoid,
    ],
)
def test_the_last_activation_is_left_out(last):
    x = torch.randn(2, 3)
    with LastActivation(skip=1) as activations:
        assert last(torch.sigmoid(x)) is not None
        assert activations.count == 2
    with LastActivation(skip=0) as activations:
        assert last(x) is x
