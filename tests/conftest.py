"""Fixtures shared by all tests.

Authors
 * The lmac-sb authors 2026
"""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data():
    """Folder with real recordings, or a skip that says where it was sought."""
    places = [os.environ.get("LMAC_SB_DATA"), ROOT.parent / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "esc10" / "meta" / "esc50.csv").is_file():
            return Path(place)
    pytest.skip(f"no real data: LMAC_SB_DATA unset, nothing in {places[1]}")
