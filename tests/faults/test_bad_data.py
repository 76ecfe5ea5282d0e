"""Unexpected data: NaN, silence, one class, one clip."""

import json
import math
import shutil

import pytest
import soundfile as sf
import torch

from lmac_sb.training.checkpoints import SafeCheckpointer

pytestmark = pytest.mark.faults


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the scenes to change."""
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    return folder


def finite(folder):
    """Weights and results of a run are finite."""
    found = SafeCheckpointer(folder / "save").find_checkpoint()
    for value in torch.load(found.paramfiles["decoder"]).values():
        assert value.isfinite().all()
    assert all(math.isfinite(value) for value in found.meta.values())
    results = json.loads((folder / "results.json").read_text())
    assert math.isfinite(results["summary"]["lmac"]["AI"]["mean"])


def test_poisoned_clip(broken, noisy, scenes, tmp_path):
    """The steps with this clip are skipped, and the log names it."""
    clip = sorted((scenes / "audio").glob("1-*.wav"))[3].stem
    done = broken(f"poison:{clip}", output_folder=tmp_path, **noisy)
    assert done.code == 0, done.err
    warning = f"loss is not finite, step skipped; clips: {clip}\n"
    assert done.out.count(warning) == 3, done.out
    finite(tmp_path)


def test_poison_everywhere(broken, resumed, noisy, tmp_path):
    """Too many such clips end the run; the last checkpoint is intact."""
    # Epoch 1 takes 30 clips to train and 10 to validate.
    done = broken("poison:^[123]-:41", output_folder=tmp_path, **noisy)
    assert done.code == 1
    assert done.err.count("error: loss: not finite in 4 steps in a row") == 1
    assert "Traceback" not in done.err
    found = SafeCheckpointer(tmp_path / "save").find_checkpoint()
    assert found.meta["epoch"] == 1
    resumed(tmp_path, **noisy)


def silence(path, n_samples):
    """Silence the beginning of a clip."""
    wav, rate = sf.read(path)
    wav[:n_samples] = 0
    sf.write(path, wav, rate)


def test_silent_after_the_cut(recipe, tiny, data, tmp_path):
    """Clips with sound, but only after the part that is used."""
    for fold in (1, 4, 5):
        clip = sorted((data / "audio").glob(f"{fold}-*.wav"))[0]
        silence(clip, 8000)
        silence(data / "stems" / clip.name, 8000)
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        signal_length_s=0.5,
        **{**tiny, "data_folder": data},
    )
    assert done.code == 0, done.err
    assert "not finite" not in done.out
    finite(tmp_path / "run")


def test_batch_of_one(recipe, tiny, tmp_path):
    """Nothing in the training needs a second clip."""
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path,
        **{**tiny, "batch_size": 1, "number_of_epochs": 1},
    )
    assert done.code == 0, done.err
    finite(tmp_path)


def test_one_class(recipe, tiny, data, tmp_path):
    """With one class the decision is certain, but both scripts finish."""
    table = data / "meta" / "esc50.csv"
    head, *rows = table.read_text().splitlines()
    rows = [row for row in rows if "trill" in row]
    table.write_text("\n".join([head, *rows]) + "\n")
    common = {"data_folder": data, "n_classes": 1, "number_of_epochs": 1}
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        output_folder=tmp_path / "classifier",
        batch_size=2,
        **common,
    )
    assert done.code == 0, done.err
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        output_folder=tmp_path / "run",
        **{
            **tiny,
            **common,
            "classifier_folder": tmp_path / "classifier" / "model",
            "batch_size": 2,
        },
    )
    assert done.code == 0, done.err
    finite(tmp_path / "run")
