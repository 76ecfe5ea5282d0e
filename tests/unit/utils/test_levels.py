"""Tests of the one definition of silence."""

import pytest
import torch

from lmac_sb.utils.levels import is_silent


@pytest.mark.parametrize("offset", [0.0, 0.25, -0.9])
@pytest.mark.parametrize(
    ("swing", "silent"), [(0.0, True), (2**-15, True), (1e-4, False)]
)
def test_swing_decides(offset, swing, silent):
    wav = offset + swing * torch.tensor([0.0, 1.0, 0.0, -1.0])
    assert is_silent(wav) == silent
