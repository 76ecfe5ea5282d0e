"""A run that loses one of its processes ends, and can be resumed."""

import time

import pytest

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("rank", [0, 1])
def test_lost_process(broken, recipe, helpers, halves, two, tmp_path, rank):
    """The other process does not wait for the lost one."""
    began = time.monotonic()
    done = broken(
        f"kill_step:6:{rank}",
        helpers.two_processes,
        output_folder=tmp_path,
        **halves,
    )
    assert done.code != 0
    assert time.monotonic() - began < 110, "about 15 s on an idle machine"
    assert helpers.last(tmp_path).meta["epoch"] == 1
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        helpers.two_processes,
        output_folder=tmp_path,
        **halves,
    )
    assert done.code == 0, done.err
    helpers.same(tmp_path, two)
