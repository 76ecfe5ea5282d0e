"""An output folder belongs to one run, and to one experiment."""

import os
import socket

import pytest

pytestmark = pytest.mark.faults


def test_second_run(recipe, start, noisy, whole, helpers, tmp_path):
    """The second run is refused with one message; the first continues."""
    first = start("pause", output_folder=tmp_path, **noisy)
    first.wait_for("PAUSED\n")
    before = helpers.digest(tmp_path)
    second = recipe.process(
        "train_lmac",
        "lmac.yaml",
        helpers.two_processes,
        distributed_backend="gloo",
        output_folder=tmp_path,
        **noisy,
    )
    assert helpers.digest(tmp_path) == before
    first.tell("\n")
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    assert "Traceback" not in out + err
    helpers.same(tmp_path, whole)
    assert not (tmp_path / "run.lock").exists()

    assert second.code != 0
    assert second.err.count("error: ") == 1, second.err
    assert f"output_folder: {tmp_path} is in use by another run" in second.err
    assert f"process {first.pid} on {socket.gethostname()}" in second.err
    # The second process prints nothing.
    assert "broadcast" not in second.err
    assert "train_lmac.py" not in second.err.split("error: ")[0]


@pytest.mark.parametrize(
    "more, what",
    [
        ({"seed": 7}, "seed 1234, now it is 7"),
        ({"train_fold_nums": "[1,2]"}, "train_fold_nums [1, 2, 3], now it is"),
        ({"reg_w_l1": 99}, "reg_w_l1 4, now it is 99"),
        ({"wham_folder": "null"}, "another wham_folder ("),
    ],
)
def test_refused_run_changes_nothing(recipe, noisy, whole, helpers, more, what):
    """No file of the folder's experiment changes, nor its manifests."""
    before = helpers.digest(whole)
    times = {p: os.stat(p).st_mtime_ns for p in whole.rglob("*")}
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=whole, **{**noisy, **more}
    )
    assert done.code == 1
    assert f"output_folder: the run in {whole} has {what}" in done.err
    assert helpers.digest(whole) == before
    assert {p: os.stat(p).st_mtime_ns for p in whole.rglob("*")} == times


def test_checkpoints_of_another_run(recipe, noisy, whole, tmp_path):
    """A save folder of another run is refused, so its counter is not read."""
    done = recipe.main(
        "train_lmac",
        "lmac_ft.yaml",
        output_folder=tmp_path,
        save_folder=whole / "save",
        pretrained_interpreter=whole,
        **noisy,
    )
    assert done.code == 1
    assert f"save_folder: {whole / 'save'} holds checkpoints" in done.err


def test_test_without_a_checkpoint(recipe, helpers, noisy, tmp_path):
    """Without a checkpoint there is nothing to test."""
    script = recipe.script("train_lmac").__file__
    options = {**noisy, "output_folder": tmp_path}
    done = recipe.command(
        [script, *helpers.arguments("lmac.yaml", options), "--test_only"]
    )
    assert done.code == 1
    assert f"error: {tmp_path / 'save'}: no checkpoint with 'loss'" in done.err
    assert not (tmp_path / "results.json").exists()
