"""An interrupted run ends with the numbers of an uninterrupted one.

Authors
 * The lmac-sb authors 2026
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from lmac_sb.checkpoints import SafeCheckpointer
from lmac_sb.metrics import METRICS

N_EPOCHS = 3
STEPS = 4  # 30 clips in batches of 8


class Killed(BaseException):
    """Nothing in the scripts catches it."""


@pytest.fixture(scope="module")
def options(tiny, scenes):
    """Noise that is new in each epoch, and no sounds to write."""
    return {
        **tiny,
        "number_of_epochs": N_EPOCHS,
        "save_clips": 0,
        "wham_folder": scenes / "noise",
        "snr_db": 3.0,
        "noisy_splits": "[train,valid,test]",
    }


def last(folder):
    """Newest checkpoint of a run."""
    return SafeCheckpointer(folder / "save").find_checkpoint()


def values_of(folder):
    """Meta data of the newest checkpoint, but for the time."""
    meta = last(folder).meta
    return {k: v for k, v in meta.items() if k != "unixtime"}


def same(found, expected, helpers):
    """Two runs have the same end: metrics, weights, optimiser."""
    assert values_of(found) == pytest.approx(
        values_of(expected), rel=1e-6, abs=1e-9
    )
    rows = [helpers.read_rows(folder) for folder in (found, expected)]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows):
        assert (one["id"], one["method"]) == (other["id"], other["method"])
        for name in METRICS:
            assert one[name] == pytest.approx(
                other[name], rel=1e-6, abs=1e-6
            ), (one["id"], one["method"], name)
    decoders, optimizers = (
        [
            torch.load(last(folder).paramfiles[name])
            for folder in (found, expected)
        ]
        for name in ("decoder", "optimizer")
    )
    for name, value in decoders[1].items():
        torch.testing.assert_close(
            decoders[0][name], value, atol=1e-7, rtol=1e-6
        )
    for index, state in optimizers[1]["state"].items():
        torch.testing.assert_close(
            optimizers[0]["state"][index]["exp_avg_sq"],
            state["exp_avg_sq"],
            atol=1e-9,
            rtol=1e-5,
        )


@pytest.fixture(scope="module")
def whole(once, recipe, options):
    """Run that nothing interrupted."""

    def make(folder):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **options
        )
        assert done.code == 0, done.err

    return once("whole", make)


def test_noise_is_heard(whole, lmac_run):
    """Else these tests would show less than they say."""
    assert values_of(whole)["AD"] != values_of(lmac_run)["AD"]


def interrupt(recipe, monkeypatch, n_steps, options):
    """Run until a kill in the middle of a step."""
    brain = recipe.script("train_lmac").LMACBrain
    fit_batch, count = brain.fit_batch, []

    def killed(self, batch):
        if len(count) == n_steps:
            raise Killed
        count.append(1)
        return fit_batch(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(brain, "fit_batch", killed)
        with pytest.raises(Killed):
            recipe.main("train_lmac", "lmac.yaml", **options)
    return count


@pytest.mark.parametrize(
    "n_steps, more",
    [
        (STEPS, {}),
        (STEPS + 3, {"ckpt_interval_steps": 2}),
        (
            2,
            {
                "ckpt_interval_steps": 1,
                "dataloader_options": "{num_workers: 1}",
            },
        ),
    ],
    ids=["after an epoch", "in an epoch", "with a worker"],
)
def test_resumed_run(
    recipe, options, whole, helpers, monkeypatch, tmp_path, n_steps, more
):
    """The same command again ends as if nothing had happened (41)."""
    options = {**options, **more, "output_folder": tmp_path}
    interrupt(recipe, monkeypatch, n_steps, options)
    brain = recipe.script("train_lmac").LMACBrain
    fit_batch, count = brain.fit_batch, []

    def counted(self, batch):
        count.append(1)
        return fit_batch(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(brain, "fit_batch", counted)
        done = recipe.main("train_lmac", "lmac.yaml", **options)
    assert done.code == 0, done.err
    # It went on from the last checkpoint, and did not start anew.
    interval = more.get("ckpt_interval_steps", STEPS)
    n_saved = n_steps - n_steps % STEPS % interval
    assert len(count) == N_EPOCHS * STEPS - n_saved
    same(tmp_path, whole, helpers)


def test_two_interruptions(
    recipe, options, whole, helpers, monkeypatch, tmp_path
):
    """One after the other, both within an epoch."""
    options = {
        **options,
        "ckpt_interval_steps": 1,
        "output_folder": tmp_path,
    }
    interrupt(recipe, monkeypatch, 1, options)
    interrupt(recipe, monkeypatch, STEPS + 1, options)
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    assert done.code == 0, done.err
    same(tmp_path, whole, helpers)


def test_resumed_after_damage(recipe, options, whole, helpers, tmp_path):
    """A newest checkpoint that is cut is passed over (defect 40)."""
    short = {**options, "output_folder": tmp_path}
    done = recipe.main("train_lmac", "lmac.yaml", **short)
    assert done.code == 0, done.err
    path = last(tmp_path).paramfiles["decoder"]
    path.write_bytes(path.read_bytes()[:1000])
    done = recipe.main("train_lmac", "lmac.yaml", **short)
    assert done.code == 0, done.err
    assert "decoder.ckpt is truncated or changed" in done.out
    same(tmp_path, whole, helpers)


def test_workers_change_nothing(recipe, options, whole, helpers, tmp_path):
    """The noise does not depend on who draws it."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path,
        dataloader_options="{num_workers: 2}",
        **options,
    )
    assert done.code == 0, done.err
    same(tmp_path, whole, helpers)


def test_killed_process(recipe, options, whole, helpers, tmp_path):
    """Killed as the system does it, at whatever it was about."""
    arguments = helpers.arguments(
        "lmac.yaml", {**options, "output_folder": tmp_path}
    )
    script = recipe.script("train_lmac").__file__
    log = tmp_path / "train_log.txt"
    with subprocess.Popen(
        [sys.executable, script, *arguments],
        cwd=recipe.cwd,
        env=recipe.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not log.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "results.json").exists()
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=tmp_path, **options
    )
    assert done.code == 0, done.err
    same(tmp_path, whole, helpers)
