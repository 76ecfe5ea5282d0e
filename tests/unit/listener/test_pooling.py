"""From frames to a clip, a time or a range."""

import pytest
import torch

from lmac_sb.listener.pooling import frames_at, pool_frames
from lmac_sb.utils.errors import LMACError


def test_the_mean_is_that_of_probabilities():
    torch.manual_seed(0)
    logits = 5 * torch.randn(2, 7, 3)
    several = pool_frames(logits, "mean", multilabel=True)
    torch.testing.assert_close(several.sigmoid(), logits.sigmoid().mean(1))
    single = pool_frames(logits, "mean", multilabel=False)
    torch.testing.assert_close(single.softmax(1), logits.softmax(2).mean(1))


def test_the_mean_is_finite_where_probabilities_round():
    logits = torch.tensor([[[200.0], [-200.0]], [[300.0], [300.0]]])
    logits.requires_grad_()
    pooled = pool_frames(logits, "mean", multilabel=True)
    torch.testing.assert_close(pooled, torch.tensor([[0.0], [300.0]]))
    pooled.sum().backward()
    assert logits.grad.isfinite().all() and logits.grad[1].sum() > 0.9


def test_other_pools():
    logits = torch.randn(2, 7, 3)
    for multilabel in (True, False):
        largest = pool_frames(logits, "max", multilabel)
        assert torch.equal(largest, logits.max(1).values)
        mean = pool_frames(logits, "mean_logits", multilabel)
        torch.testing.assert_close(mean, logits.mean(1))
    last = pool_frames(logits, lambda frames: frames[:, -1], True)
    assert torch.equal(last, logits[:, -1])
    with pytest.raises(LMACError, match=r"pool: gave shape \[2, 7\]"):
        pool_frames(logits, lambda frames: frames.sum(2), True)


def test_one_frame_stays_as_it_is():
    logits = torch.randn(2, 1, 3)
    assert torch.equal(pool_frames(logits, "mean", False), logits[:, 0])


@pytest.mark.parametrize(
    ("at", "frames"),
    [
        (0, [0]),
        (0.49, [0]),
        (0.5, [1]),
        (2.0, [3]),
        ((0.5, 1.0), [1]),
        ((0.4, 1.1), [0, 1, 2]),
        ([0, 2.0], [0, 1, 2, 3]),
    ],
)
def test_frames_of_a_time(at, frames):
    starts = torch.arange(4) * 0.5
    assert frames_at(at, starts, starts + 0.5, 2.0).tolist() == frames


def test_all_windows_that_overlap_are_heard():
    starts = torch.arange(4) * 0.5
    assert frames_at(1.2, starts, starts + 1, 2.5).tolist() == [1, 2]


@pytest.mark.parametrize(
    "at", [-1, 2.1, (1, 3), (1.5, 1), (1, 1), "1", (1,), True, float("nan")]
)
def test_times_outside_the_clip_are_refused(at):
    starts = torch.arange(4) * 0.5
    with pytest.raises(LMACError, match="at: found .* 0 to 2"):
        frames_at(at, starts, starts + 0.5, 2.0)
