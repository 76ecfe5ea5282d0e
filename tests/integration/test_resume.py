"""An interrupted run ends with the numbers of an uninterrupted one."""

import signal
import time

import pytest

N_EPOCHS = 3
STEPS = 4  # 30 clips in batches of 8


class Killed(BaseException):
    """An exception that no script catches."""


def test_noise_is_heard(whole, lmac_run, helpers):
    """The runs use noise; without it these tests would show less."""
    assert helpers.last(whole).meta["AD"] != helpers.last(lmac_run).meta["AD"]


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
    recipe, noisy, whole, helpers, monkeypatch, tmp_path, n_steps, more
):
    """Running the same command again ends like an uninterrupted run."""
    options = {**noisy, **more, "output_folder": tmp_path}
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
    # It resumed from the last checkpoint, and did not start again.
    interval = more.get("ckpt_interval_steps", STEPS)
    n_saved = n_steps - n_steps % STEPS % interval
    assert len(count) == N_EPOCHS * STEPS - n_saved
    helpers.same(tmp_path, whole)


def test_two_interruptions(
    recipe, noisy, whole, helpers, monkeypatch, tmp_path
):
    """Two interruptions within an epoch change nothing."""
    options = {
        **noisy,
        "ckpt_interval_steps": 1,
        "output_folder": tmp_path,
    }
    interrupt(recipe, monkeypatch, 1, options)
    interrupt(recipe, monkeypatch, STEPS + 1, options)
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    assert done.code == 0, done.err
    helpers.same(tmp_path, whole)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_process(recipe, noisy, whole, helpers, tmp_path, how):
    """A process that is stopped at any moment can be resumed.

    By the system, or by Ctrl-C, which it answers in one line.
    """
    arguments = helpers.arguments(
        "lmac.yaml", {**noisy, "output_folder": tmp_path}
    )
    script = recipe.script("train_lmac").__file__
    log = tmp_path / "train_log.txt"
    process = recipe.copy([script, *arguments])
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1] == "stopped" and "Traceback" not in err
    else:
        assert process.returncode == -how
    assert not (tmp_path / "results.json").exists()
    done = recipe.main(
        "train_lmac", "lmac.yaml", output_folder=tmp_path, **noisy
    )
    assert done.code == 0, done.err
    helpers.same(tmp_path, whole)
