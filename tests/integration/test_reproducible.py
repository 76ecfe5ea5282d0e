"""The same seed gives the same decoder, to the bit."""

import json

import pytest
import torch

from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.identity import data_identity
from lmac_sb.utils.portable import portable


@pytest.mark.parametrize("n_workers", [0, 2])
def test_same_seed(recipe, noisy, whole, helpers, tmp_path, n_workers):
    """Separate processes with and without workers give the same weights."""
    done = recipe.process(
        "train_lmac",
        "lmac.yaml",
        # One of a new Python, whose hashes differ too.
        start=recipe.command if n_workers else recipe.python,
        output_folder=tmp_path,
        dataloader_options=f"{{num_workers: {n_workers}}}",
        **noisy,
    )
    assert done.code == 0, done.err
    helpers.same(tmp_path, whole)
    found, expected = (
        torch.load(helpers.last(folder).paramfiles["decoder"])
        for folder in (tmp_path, whole)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    results = [(f / "results.csv").read_text() for f in (tmp_path, whole)]
    assert results[0] == results[1]


def test_provenance(whole, helpers):
    """The results include everything needed to reproduce them."""
    results = json.loads((whole / "results.json").read_text())
    found = results["provenance"]
    text = (whole / "hyperparams.yaml").read_text()
    assert found["hyperparams"] == portable(text)
    # Of paths only the last name, as everywhere in results.
    assert str(whole.parent) in text
    assert str(whole.parent) not in json.dumps(results)
    assert "snr_db: 3.0" in found["hyperparams"]
    splits = ("train", "valid", "test")
    manifests = {s: whole / "manifests" / f"{s}.jsonl" for s in splits}
    assert found["data_sha256"] == data_identity(manifests, "")["sha256"]
    assert found["seed"] == 1234
    best = best_checkpoint(whole / "save", "loss")
    assert found["epoch"] == best.meta["epoch"]
    assert {"command", "commit", "torch", "speechbrain"} <= set(found)
