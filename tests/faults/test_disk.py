"""A full disk gives one message, and no earlier file is lost."""

import pytest

from lmac_sb.training.checkpoints import SafeCheckpointer

pytestmark = pytest.mark.faults


def told(done, *parts):
    """The only message has these parts."""
    assert done.code == 1, done.err
    assert done.err.count("error: ") == 1, done.err
    assert "Traceback" not in done.err + done.out
    for part in parts:
        assert str(part) in done.err


def test_full_at_a_checkpoint(broken, resumed, noisy, tmp_path):
    """The earlier checkpoint is kept, and no incomplete one."""
    done = broken("full_save:3", output_folder=tmp_path, **noisy)
    told(done, tmp_path / "save", "a checkpoint cannot be written")
    (folder,) = (tmp_path / "save").glob("CKPT*")
    found = SafeCheckpointer(tmp_path / "save").find_checkpoint()
    assert found.path == folder and found.meta["epoch"] == 1
    resumed(tmp_path, **noisy)


def test_full_at_the_results(broken, resumed, noisy, tmp_path):
    """The next run only has to repeat the test."""
    done = broken("full_results:1", output_folder=tmp_path, **noisy)
    told(done, "File too large", "free some space")
    assert not list(tmp_path.glob("results.*"))
    done = resumed(tmp_path, **noisy)
    assert "all 3 epochs are already done" in done.out


def test_full_at_the_preparation(broken, resumed, noisy, tmp_path):
    """No incomplete manifest is left."""
    done = broken("full_disk:3000", output_folder=tmp_path, **noisy)
    told(done, tmp_path / "manifests", "cannot be written")
    assert not list((tmp_path / "manifests").iterdir())
    resumed(tmp_path, **noisy)


def test_full_at_the_scenes(broken, tmp_path):
    """No truncated sounds are left."""
    folder = tmp_path / "scenes"
    done = broken(
        "full_disk:20000",
        script="train_classifier",
        yaml="classifier_conv.yaml",
        scenes_folder=folder,
        output_folder=tmp_path / "run",
    )
    told(done, folder, "cannot be written")
    assert not any(tmp_path.iterdir())
