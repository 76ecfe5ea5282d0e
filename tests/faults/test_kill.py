"""A run that was killed at any moment resumes with the same command."""

import signal

import pytest

from lmac_sb.data.scenes import make_scenes

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    "fault, more",
    [
        ("kill_step:2", {}),
        ("kill_step:7", {}),
        ("kill_step:7", {"ckpt_interval_steps": 1}),
        ("kill_save:3", {}),
        ("kill_save:4", {}),
        ("kill_replace:SHA256SUMS:2", {}),
        # Possibly no checkpoint is deleted, if the best is the first.
        ("kill_delete:1", {"ckpt_interval_steps": 1}),
        ("kill_picture:1", {"save_clips": 1}),
        ("kill_replace:results.json:1", {}),
    ],
    ids=[
        "first epoch",
        "second epoch",
        "with checkpoints in the epoch",
        "half a decoder",
        "half an optimizer",
        "before the seal",
        "half deleted",
        "half the sounds",
        "before the results",
    ],
)
def test_killed_run(broken, resumed, noisy, tmp_path, fault, more):
    """Metrics, weights and optimiser are those of an uninterrupted run."""
    options = {**noisy, **more}
    done = broken(fault, output_folder=tmp_path, **options)
    assert done.code == -signal.SIGKILL, done.err
    assert not (tmp_path / "results.json").exists()
    resumed(tmp_path, **options)


def test_killed_preparation(broken, resumed, noisy, tmp_path):
    """The preparation is killed four times, each time a little later."""
    for fault in (
        "kill_decode:7",
        "kill_replace:valid.jsonl:1",
        "kill_replace:prepared.json:1",
        "kill_replace:experiment.json:1",
    ):
        done = broken(fault, output_folder=tmp_path, **noisy)
        assert done.code == -signal.SIGKILL, done.err
        assert not (tmp_path / "hyperparams.yaml").exists()
    resumed(tmp_path, **noisy)


def test_killed_scenes(broken, scenes, helpers, tmp_path):
    """Incomplete scenes are not used, and are removed."""
    folder = tmp_path / "data" / "scenes"
    done = broken(
        "kill_sound:30",
        script="train_classifier",
        yaml="classifier_conv.yaml",
        scenes_folder=folder,
        output_folder=tmp_path / "run",
    )
    assert done.code == -signal.SIGKILL, done.err
    assert not folder.exists()
    assert len(list(folder.parent.iterdir())) == 1
    make_scenes(folder, clips_per_class=1, duration_s=1.0)
    assert list(folder.parent.iterdir()) == [folder]
    assert helpers.digest(folder) == helpers.digest(scenes)


def test_killed_classifier(broken, recipe, scenes, helpers, tmp_path):
    """The folder holds the former classifier or the new one, complete."""
    options = {
        "data_folder": scenes,
        "number_of_epochs": 1,
        "batch_size": 8,
        "output_folder": tmp_path / "run",
    }
    done = broken(
        "kill_replace:model:1",
        script="train_classifier",
        yaml="classifier_conv.yaml",
        **options,
    )
    assert done.code == -signal.SIGKILL, done.err
    assert not (tmp_path / "run" / "model").exists()
    done = recipe.main("train_classifier", "classifier_conv.yaml", **options)
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "model" in names
    assert not [name for name in names if name.endswith((".part", ".former"))]


def test_killed_between_two_classifiers(recipe, tmp_path):
    """The next run takes the former one, and does not train another."""
    (tmp_path / "model.former").mkdir()
    (tmp_path / "model.former" / "config.json").touch()
    find = recipe.script("training_steps").find_classifier
    find({}, tmp_path / "model", "classifier_conv.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "config.json").exists()
