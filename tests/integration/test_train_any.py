"""L-MAC for a classifier that the recipe did not make, by the real script."""

import csv
import json
import sys

import pytest
import soundfile as sf

from lmac_sb import LMACInterpreter
from lmac_sb.cli import main
from lmac_sb.evaluation.models import load_interpreters
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.recipe import recipe_folder

MODULE = """
import torch


def load():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 8, 400, 160),
        torch.nn.ReLU(),
        torch.nn.Conv1d(8, 8, 4, 2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    )
    return {
        "model": net.eval(),
        "sample_rate": 8000,
        "labels": ["trill", "vibrato", "of no scene"],
    }


def bare():
    return load()["model"]
"""
SMALL = {
    "number_of_epochs": 1,
    "batch_size": 8,
    "decoder_width": 4,
    "save_clips": 1,
}


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A module of the user's own, which can be imported."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "users_model.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield "users_model:load"
    sys.path.remove(str(folder))
    sys.modules.pop("users_model", None)


@pytest.fixture(scope="module")
def run(recipe, scenes, code, tmp_path_factory):
    """A finished run, and what it said."""
    folder = tmp_path_factory.mktemp("any") / "run"
    done = recipe.main(
        "train_lmac",
        "lmac_any.yaml",
        data_folder=scenes,
        output_folder=folder,
        model=code,
        trusted=True,
        refine_steps=1,
        second_look=True,
        **SMALL,
    )
    assert done.code == 0, done.err
    return folder, done


def test_its_results(run):
    folder, done = run
    results = json.loads((folder / "results.json").read_text())
    methods = {"lmac", "lmac_binary", "lmac_look", "lmac+1", "ones"}
    assert methods <= set(results["summary"])
    assert (folder / "interpreter" / "decoder.safetensors").is_file()
    assert list((folder / "interpretations" / "test").iterdir())
    assert "interpreter:" in done.out


def rights(folder):
    """Label and whether the decision is right, of each test clip."""
    with open(folder / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "lmac"]
    return [(row["label"], row["right"]) for row in rows]


def test_clips_of_unknown_classes_are_neither_right_nor_wrong(run):
    folder, done = run
    found = rights(folder)
    assert {right for label, right in found if label == "trill"} <= {"0", "1"}
    assert {right for label, right in found if label == "bounce"} == {""}
    assert "model: lacks 8 of the 10 classes of the data (bounce," in done.out


def test_no_class_in_common(recipe, scenes, code, tmp_path):
    """A module without names: its classes are numbers."""
    done = recipe.main(
        "train_lmac",
        "lmac_any.yaml",
        data_folder=scenes,
        output_folder=tmp_path,
        model="users_model:bare",
        trusted=True,
        sample_rate=8000,
        **SMALL,
    )
    assert done.code == 0, done.err
    assert "model: lacks 10 of the 10 classes of the data (" in done.out
    assert "), it has 0, 1, 2; no decision" in done.out
    assert {right for _, right in rights(tmp_path)} == {""}
    assert "accuracy" not in done.out
    assert "accuracy" not in (tmp_path / "train_log.txt").read_text()


def test_rate_and_classes_are_named(code):
    options = ["model=users_model:bare", "trusted=True", "sample_rate=8000"]
    options += ["class_names=[a, b, c]"]
    file = str(recipe_folder() / "hparams" / "lmac_any.yaml")
    made = load_hparams([file, *(f"--{option}" for option in options)])
    assert list(made["label_encoder"].lab2ind) == ["a", "b", "c"]
    assert made["preprocess"].sample_rate == 8000


def test_its_decoder_is_the_one_that_was_tested(run):
    """Weights of the folder are those of the best checkpoint."""
    import torch
    from safetensors.torch import load_file

    folder, _ = run
    (path,) = (folder / "save").glob("CKPT*/decoder.ckpt")
    kept = load_file(folder / "interpreter" / "decoder.safetensors")
    state = torch.load(path, weights_only=True)
    assert set(kept) == set(state)
    assert all(torch.equal(kept[name], state[name]) for name in kept)


def test_its_folder_explains(run, tmp_path):
    folder, _ = run
    loaded = LMACInterpreter.from_hparams(folder / "interpreter", trusted=True)
    assert loaded.classes == ["trill", "vibrato", "of no scene"]
    assert loaded.sample_rate == 8000
    sound = next((folder / "interpretations" / "test").glob("*/original.*"))
    for model in (folder, folder / "interpreter"):
        out = str(tmp_path / "out")
        options = ["--model", str(model), "--out", out, "--trust"]
        assert main(["explain", str(sound), *options]) == 0
    wav, rate = sf.read(tmp_path / "out" / sound.stem / "original.wav")
    assert rate == 8000 and len(wav) == 8000


def test_it_is_loaded_for_an_evaluation(run):
    folder, _ = run
    assert "any" in load_interpreters({"any": folder}, trusted=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "model: null, expected the hub id or folder"),
        ({"model": "users_model:load"}, "runs code, expected trusted=True"),
        ({"model": "./nowhere"}, "nowhere: no such folder"),
        (
            {"model": "users_model:bare", "trusted": True},
            "sample_rate: found none, and the model does not name one",
        ),
        (
            {
                "model": "users_model:load",
                "trusted": True,
                "layers": "[nowhere]",
            },
            "layers: found 'nowhere', which names 0 of",
        ),
    ],
)
def test_a_model_that_cannot_be_used(
    recipe, scenes, code, tmp_path, options, message
):
    done = recipe.main(
        "train_lmac",
        "lmac_any.yaml",
        data_folder=scenes,
        output_folder=tmp_path / "run",
        **SMALL,
        **options,
    )
    assert done.code == 1
    assert message in done.err
    assert not (tmp_path / "run").exists()
