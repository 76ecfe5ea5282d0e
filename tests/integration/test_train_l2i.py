"""Tests of train_l2i.py with l2i.yaml."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.data.manifest import read_entries
from lmac_sb.inference.export import export_run
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.training.checkpoints import best_checkpoint

METHODS = ["l2i", "l2i_binary", *TRIVIAL_MASKS]


@pytest.fixture(scope="module")
def small(tiny):
    """Overrides for a small dictionary that is learnt quickly."""
    return {
        **tiny,
        "n_components": 20,
        "nmf_frames": 800,
        "nmf_iterations": 20,
        "decoder_width": 32,
    }


@pytest.fixture(scope="module")
def l2i_run(once, recipe, small):
    """Folder of a finished run."""

    def make(folder):
        done = recipe.main(
            "train_l2i", "l2i.yaml", output_folder=folder, **small
        )
        assert done.code == 0, done.err
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("l2i", make)


def logged(folder, name):
    """Values of a figure in the log, such as `valid fidelity`."""
    text = (folder / "train_log.txt").read_text()
    return [float(x) for x in re.findall(rf"{name}: ([\d.e+-]+)", text)]


def saved_dictionary(folder):
    """The dictionary that the run learnt before the training."""
    return torch.load(folder / "save" / "dictionary.ckpt")["W"]


def test_results_by_clip(l2i_run, helpers):
    """The results have each clip, method and metric, as with L-MAC."""
    rows = helpers.read_rows(l2i_run)
    manifest = dict(read_entries(l2i_run / "manifests" / "test.jsonl"))
    assert [(row["id"], row["method"]) for row in rows] == [
        (clip, method) for clip in sorted(manifest) for method in METHODS
    ]
    for row in rows:
        assert set(row) == set(helpers.COLUMNS)
        assert 0 <= row["area"] <= 1
    results = json.loads((l2i_run / "results.json").read_text())
    assert list(results["summary"]) == METHODS
    # Each other method is compared with this one.
    assert "difference" in results["summary"]["ones"]["AI"]
    assert "difference" not in results["summary"]["l2i"]["AI"]
    (sounds,) = (l2i_run / "interpretations" / "test").iterdir()
    assert (sounds / "interpretation.wav").is_file()


def test_trivial_masks_have_the_same_area(l2i_run, helpers):
    table = {(r["id"], r["method"]): r for r in helpers.read_rows(l2i_run)}
    for (clip, method), row in table.items():
        if method in ("random", "loudest"):
            area = table[clip, "l2i"]["area"]
            assert row["area"] == pytest.approx(area, abs=1e-4)


def test_it_learns(l2i_run):
    """The reconstruction improves, and all statistics are logged."""
    for stage in ("train", "valid"):
        errors = logged(l2i_run, f"{stage} reconstruction")
        assert len(errors) == 2
        assert errors[1] < errors[0]
    for name in ("loss", "imitation", "sparsity", "fidelity", "accuracy"):
        assert len(logged(l2i_run, f"valid {name}")) == 2, name
    assert all(0 <= x <= 1 for x in logged(l2i_run, "valid fidelity"))
    console = (l2i_run / "console.txt").read_text()
    assert "learning 20 spectral patterns" in console
    assert "fidelity" in console


def test_dictionary_is_kept(l2i_run):
    """Training does not change the dictionary, and checkpoints hold it."""
    W = saved_dictionary(l2i_run)
    assert W.shape == (513, 20) and (W >= 0).all()
    best = best_checkpoint(l2i_run / "save", "loss")
    state = torch.load(best.paramfiles["decoder"])
    assert torch.equal(state["dictionary.W"], W)
    assert state["theta.weight"].shape == (10, 20)


def test_the_same_again(recipe, small, l2i_run, helpers, tmp_path):
    """A run in another folder gives the same dictionary and results."""
    done = recipe.main("train_l2i", "l2i.yaml", output_folder=tmp_path, **small)
    assert done.code == 0, done.err
    assert torch.equal(saved_dictionary(tmp_path), saved_dictionary(l2i_run))
    # As text, since NaN, for a mask of zeros, is not equal to itself.
    assert str(helpers.read_rows(tmp_path)) == str(helpers.read_rows(l2i_run))


def test_resume(recipe, small, l2i_run, helpers, tmp_path):
    """A finished run is tested again; its dictionary is not relearnt."""
    folder = tmp_path / "run"
    shutil.copytree(l2i_run, folder)
    before = (folder / "save" / "dictionary.ckpt").stat().st_mtime_ns
    done = recipe.main("train_l2i", "l2i.yaml", output_folder=folder, **small)
    assert done.code == 0, done.err
    assert "epochs are already done" in done.out
    assert "learning" not in done.out
    assert (folder / "save" / "dictionary.ckpt").stat().st_mtime_ns == before
    assert str(helpers.read_rows(folder)) == str(helpers.read_rows(l2i_run))


def test_a_kill_while_the_dictionary_is_written(
    recipe, small, l2i_run, monkeypatch, tmp_path
):
    """A kill leaves no file that a later run would use as dictionary."""
    replace = os.replace

    def kill(part, path):
        if Path(path).name == "dictionary.ckpt":
            assert Path(part).is_file()
            raise KeyboardInterrupt
        replace(part, path)

    monkeypatch.setattr(os, "replace", kill)
    killed = recipe.main(
        "train_l2i", "l2i.yaml", output_folder=tmp_path, **small
    )
    assert (killed.code, killed.err) == (130, "stopped\n")
    monkeypatch.undo()
    assert not (tmp_path / "save" / "dictionary.ckpt").exists()
    options = {**small, "number_of_epochs": 1}
    done = recipe.main(
        "train_l2i", "l2i.yaml", output_folder=tmp_path, **options
    )
    assert done.code == 0, done.err
    assert torch.equal(saved_dictionary(tmp_path), saved_dictionary(l2i_run))
    names = {path.name for path in (tmp_path / "save").iterdir()}
    assert not [name for name in names if name.endswith(".part")]


def test_exported_folder_explains_any_class(l2i_run, scenes, tmp_path):
    """The untrusted folder has the same dictionary and masks by class."""
    folder = export_run(l2i_run, tmp_path / "model")
    interpreter = LMACInterpreter.from_hparams(folder)
    decoder = interpreter.explainer.decoder
    assert torch.equal(decoder.dictionary.W, saved_dictionary(l2i_run))
    assert not interpreter.explainer.classifier.evidence
    path = next((scenes / "audio").glob("5-*"))
    wav, _ = interpreter.preprocess(path)
    masks = []
    for c in range(10):
        target = torch.tensor([c])
        with torch.no_grad():
            masks.append(interpreter.explainer(wav[None], target=target).mask)
    assert all(0 <= m.min() <= m.max() <= 1 for m in masks)
    assert max(float((m - masks[0]).abs().max()) for m in masks) > 0.1


def test_another_dictionary_in_the_same_folder(recipe, small, l2i_run, helpers):
    """Another dictionary is refused, and only the run's log changes."""
    before = helpers.digest(l2i_run / "save")
    done = recipe.main(
        "train_l2i",
        "l2i.yaml",
        output_folder=l2i_run,
        **{**small, "nmf_sparsity": 0.1},
    )
    assert done.code == 1
    assert "has nmf_sparsity 0.8, now it is 0.1" in done.err
    assert helpers.digest(l2i_run / "save") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 0}, "n_components is 0, expected a whole number of"),
        (
            {"reconstruction_w": -1},
            "reconstruction_w is -1, expected a number",
        ),
        ({"sparsity_w": -0.5}, "sparsity_w is -0.5, expected a number of"),
        ({"relevance_th": 2}, "relevance_th is 2, expected a number of"),
        ({"nmf_frames": 0}, "nmf_frames is 0, expected a whole number of"),
        ({"nmf_iterations": 0}, "nmf_iterations is 0, expected a whole number"),
        ({"nmf_sparsity": -1}, "nmf_sparsity is -1, expected a number of"),
        ({"train_fold_nums": []}, "train_fold_nums"),
    ],
)
def test_bad_settings(recipe, small, tmp_path, change, message):
    """The message names the key, and the folder stays free."""
    done = recipe.main(
        "train_l2i",
        "l2i.yaml",
        output_folder=tmp_path / "run",
        **{**small, **change},
    )
    assert done.code == 1
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("experiment.json"))
