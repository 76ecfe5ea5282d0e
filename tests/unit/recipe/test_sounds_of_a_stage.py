"""Tests of the folders of sounds that a training writes."""

from types import SimpleNamespace

import pytest
import speechbrain as sb


@pytest.mark.parametrize(
    "stage, name", [(sb.Stage.TEST, "test"), (sb.Stage.VALID, "epoch_003")]
)
def test_sounds_of_an_earlier_checkpoint_go(recipe, tmp_path, stage, name):
    """Those of other epochs stay, and so do all others in the folder."""
    recipe.script("train_lmac")
    brain_class = recipe.script("lmac_brain").LMACBrain
    brain = brain_class.__new__(brain_class)
    brain.make_comparison = lambda: None
    counter = SimpleNamespace(current=3)
    brain.hparams = SimpleNamespace(
        output_folder=tmp_path, epoch_counter=counter
    )
    sounds = tmp_path / "interpretations"
    for folder in ("test", "epoch_003", "epoch_001"):
        (sounds / folder / "clip").mkdir(parents=True)
    brain.on_stage_start(sb.Stage.TRAIN, 3)
    assert len(list(sounds.iterdir())) == 3
    brain.on_stage_start(stage, 3)
    left = {"test", "epoch_003", "epoch_001"} - {name}
    assert {path.name for path in sounds.iterdir()} == left
