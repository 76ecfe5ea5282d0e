"""Windows of a clip, and maps of windows laid back on it."""

import pytest
import torch

from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows, overlap_add
from lmac_sb.utils.errors import LMACError


def cut_slowly(wav, windows):
    """Windows of one clip, sample by sample."""
    zeros = [0.0] * windows.padding
    samples = zeros + wav.tolist() + zeros
    samples += [0.0] * (windows.size - len(samples))
    cut, start = [], 0
    while start < len(samples):
        part = samples[start : start + windows.size]
        whole = len(part) == windows.size
        reached = start + windows.size - windows.hop >= len(samples)
        if whole or (windows.last == "pad" and not reached):
            cut.append(part + [0.0] * (windows.size - len(part)))
        start += windows.hop
    return torch.tensor(cut)


@pytest.mark.parametrize("last", ["pad", "drop"])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("hop", [1, 2, 3, 5])
def test_windows_equal_slow_ones(hop, padding, last):
    windows = Windows(5, hop, last, padding)
    for n_samples in range(1, 24):
        wavs = torch.rand(2, n_samples)
        expected = torch.cat([cut_slowly(wav, windows) for wav in wavs])
        found = windows.cut(wavs)
        assert torch.equal(found, expected), n_samples
        assert len(found) == 2 * windows.count(n_samples)
        starts = windows.starts(n_samples)
        assert len(starts) == windows.count(n_samples)
        assert starts[0] == -padding


def test_windows_share_no_memory():
    wavs = torch.rand(1, 8)
    before = wavs.clone()
    Windows(4, 2).cut(wavs).zero_()
    assert torch.equal(wavs, before)


def test_gradients_count_the_windows_of_a_sample():
    wavs = torch.rand(1, 8, requires_grad=True)
    Windows(4, 2).cut(wavs).sum().backward()
    assert wavs.grad.tolist() == [[1, 1, 2, 2, 2, 2, 1, 1]]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 0},
        {"size": 1.5},
        {"size": 4, "hop": 0},
        {"size": 4, "last": "keep"},
        {"size": 4, "padding": -1},
        {"size": True},
    ],
)
def test_wrong_windows_are_refused(options):
    with pytest.raises(LMACError, match="windows: found"):
        Windows(**options)


def add_slowly(maps, n_windows, hop):
    """Overlap-add by loops."""
    rows, channels, time, freq = maps.shape
    starts = [int(k * hop + 0.5) for k in range(n_windows)]
    length = starts[-1] + time
    out = torch.zeros(rows // n_windows, channels, length, freq)
    for clip in range(len(out)):
        for cell in range(length):
            total = 0
            for k, start in enumerate(starts):
                i = cell - start
                if 0 <= i < time:
                    weight = min(i + 1, time - i)
                    value = maps[clip * n_windows + k, :, i]
                    out[clip, :, cell] += weight * value
                    total += weight
            out[clip, :, cell] /= total
    return out


@pytest.mark.parametrize("hop", [1, 2, 2.5, 3, 4, 5])
def test_overlap_add_equals_loops(hop):
    maps = torch.rand(2 * 4, 3, 5, 2)
    added = overlap_add(maps, 4, hop)
    torch.testing.assert_close(added, add_slowly(maps, 4, hop))
    ones = overlap_add(torch.ones_like(maps), 4, hop)
    torch.testing.assert_close(ones, torch.ones_like(ones))


def test_windows_of_one_map_give_the_map():
    clip = torch.rand(2, 3, 11, 2)
    parts = clip.unfold(2, 5, 3).permute(0, 2, 1, 4, 3).flatten(0, 1)
    torch.testing.assert_close(overlap_add(parts, 3, 3), clip)


def test_no_seams():
    """A step from window to window is spread over the overlap."""
    maps = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1).expand(2, 1, 10, 1)
    steps = overlap_add(maps, 2, 5)[0, 0, :, 0].diff()
    # From 0 to 1 over five cells: six equal steps.
    torch.testing.assert_close(steps[4:10], torch.full([6], 1 / 6))


def test_wrong_maps_are_refused():
    with pytest.raises(LMACError, match="found 5 rows"):
        overlap_add(torch.rand(5, 1, 4, 1), 2, 2)
    with pytest.raises(LMACError, match="gaps"):
        overlap_add(torch.rand(4, 1, 4, 1), 2, 5)


def test_the_gradient_of_few_windows_is_that_of_all():
    """Only the windows that decide are run again; the gradient is the same."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 4, 9, 4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )
    listener = Listener(
        network,
        16000,
        multilabel=True,
        scale="logits",
        pool="max",
        windows=Windows(800, 400),
    )
    wavs = torch.randn(2, 4000, requires_grad=True)
    sizes = []

    def gradient():
        loss = listener(wavs)[:, 1].sigmoid().sum()
        return torch.autograd.grad(loss, wavs)[0]

    listener(wavs.detach())
    found_of = listener._of_rows
    listener._of_rows = lambda rows: sizes.append(len(rows)) or found_of(rows)
    few = gradient()
    assert sizes == [18, 2]
    # Who listens at a layer gets the gradients of all.
    hook = network[1].register_forward_hook(lambda *_: None)
    everything = gradient()
    hook.remove()
    assert sizes == [18, 2, 18]
    assert few.abs().max() > 0
    torch.testing.assert_close(few, everything, atol=1e-7, rtol=1e-4)
