"""Tests of train_classifier.py with its yaml."""

import json
import os

import pytest
import torch
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.data.scenes import CLASSES
from lmac_sb.models.classifier_folder import load_classifier
from lmac_sb.models.encoders import ConvEmbedding


def test_model_folder(classifier, tmp_path):
    """The folder holds exactly the files that L-MAC loads."""
    folder = classifier / "model"
    assert sorted(os.listdir(folder)) == [
        "classifier.ckpt",
        "config.json",
        "embedding_model.ckpt",
        "label_encoder.txt",
    ]
    labels = CategoricalEncoder()
    modules = {
        "embedding_model": ConvEmbedding(),
        "classifier": torch.nn.Linear(256, 10),
    }
    config = load_classifier(folder, modules, labels, tmp_path)
    # Sorted, so that the index of a class does not depend on the folds.
    assert [labels.ind2lab[i] for i in range(10)] == sorted(CLASSES)
    assert config["frontend"]["sample_rate"] == 16000
    results = config["results"]
    assert results["test_folds"] == [5]
    # It has learnt something about ten classes.
    assert results["test"]["accuracy"] >= 0.3
    assert results["valid"]["accuracy"] >= 0.3


def test_best_epoch_is_written(classifier):
    """The weights are those of the best checkpoint, not the last."""
    results = json.loads((classifier / "model" / "config.json").read_text())
    epoch = results["results"]["epoch"]
    log = (classifier / "train_log.txt").read_text().splitlines()
    losses = [
        float(line.split("valid loss: ")[1].split(",")[0])
        for line in log
        if "valid loss" in line
    ]
    assert len(losses) == 12
    assert losses[int(epoch) - 1] == min(losses)
    for path in (classifier / "save").glob("CKPT*"):
        if f"epoch: {epoch}" in (path / "CKPT.yaml").read_text():
            kept = torch.load(path / "classifier.ckpt")
    written = torch.load(classifier / "model" / "classifier.ckpt")
    assert torch.equal(kept["weight"], written["weight"])


def test_console_is_short(classifier):
    """The console has a line for each epoch, the test and the folder."""
    lines = (classifier / "console.txt").read_text().splitlines()
    assert len(lines) == 12 + 2
    assert [line.split(" | ")[0] for line in lines[:12]] == [
        f"epoch {epoch}" for epoch in range(1, 13)
    ]
    assert "test: accuracy" in lines[12]
    assert lines[13] == f"classifier: {classifier / 'model'}"


def test_the_former_model_stays_when_training_fails(
    recipe, scenes, classifier, helpers, tmp_path
):
    """Only a finished run replaces the model folder."""
    before = helpers.digest(classifier / "model")
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        data_folder=scenes,
        output_folder=tmp_path / "run",
        model_folder=classifier / "model",
        number_of_epochs=1,
        select_key="nonsense",
    )
    assert done.code == 1
    assert "select_key: 'nonsense' is none of" in done.err
    assert helpers.digest(classifier / "model") == before


@pytest.mark.parametrize("n_classes", [9, 50])
def test_other_number_of_classes(recipe, scenes, tmp_path, n_classes):
    """The message names both numbers and the option to use."""
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        data_folder=scenes,
        output_folder=tmp_path,
        n_classes=n_classes,
    )
    assert done.code == 1
    assert done.err.startswith(f"error: n_classes: found {n_classes}, ")
    assert "10 classes" in done.err and "--n_classes 10" in done.err
    assert not (tmp_path / "model").exists()
