"""L-MAC on classifiers and data other than those of lmac.yaml."""

import json
from functools import partial

import numpy as np
import pytest
import soundfile as sf

from lmac_sb import LMACInterpreter
from lmac_sb.data.manifest import read_entries
from lmac_sb.data.scenes import make_scenes
from lmac_sb.inference.export import export_run

SMALL = {"number_of_epochs": 1, "batch_size": 8}
# Overrides that make classifier and decoder of each yaml file small.
CASES = {
    "conv2d": (
        {"emb_dim": 8},
        {"latent_channels": "[8, 8, 8, 8, 8]"},
    ),
    "attention": (
        {"emb_dim": 8, "n_heads": 2, "stem": "[4, 4, 4]"},
        {"latent_channels": "[8, 8, 8, 4, 4, 4, 4]"},
    ),
    "fsdd": (
        {"channels": "[4, 4, 8, 8]", "emb_dim": 8, "n_classes": 2},
        {"latent_channels": "[8, 8, 8, 4]"},
    ),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Two spoken digits: short clips of many lengths, at 8 kHz."""
    folder = tmp_path_factory.mktemp("digits")
    (folder / "recordings").mkdir()
    rng = np.random.default_rng(0)
    for count in range(15):
        for digit, hertz in ((3, 300), (8, 2000)):
            time = np.arange(1500 + 500 * count) / 8000
            wav = 0.5 * np.sin(2 * np.pi * hertz * time)
            wav += 0.01 * rng.standard_normal(len(wav))
            name = f"{digit}_jackson_{count}.wav"
            sf.write(folder / "recordings" / name, wav, 8000)
    return folder


@pytest.fixture(scope="module", params=CASES)
def finished(request, recipe, scenes, digits, tmp_path_factory):
    """Name, data and finished run of L-MAC on each kind of classifier."""
    name = request.param
    model, decoder = CASES[name]
    data = digits if name == "fsdd" else scenes
    folder = tmp_path_factory.mktemp(name)
    done = recipe.main(
        "train_classifier",
        f"classifier_{name}.yaml",
        data_folder=data,
        output_folder=folder / "classifier",
        **SMALL,
        **model,
    )
    assert done.code == 0, done.err
    done = recipe.main(
        "train_lmac",
        f"lmac_{name}.yaml",
        data_folder=data,
        classifier_folder=folder / "classifier" / "model",
        output_folder=folder / "lmac",
        save_clips=1,
        decoder_width=4,
        **SMALL,
        **model,
        **decoder,
    )
    assert done.code == 0, done.err
    return name, data, folder / "lmac"


def test_its_masks_are_judged(finished, helpers):
    """Every test clip has a mask, and ones change nothing."""
    name, _, run = finished
    rows = helpers.read_rows(run)
    clips = {row["id"] for row in rows}
    assert len(clips) == 10
    if name == "fsdd":
        assert clips == {f"{d}_jackson_{n}" for d in (3, 8) for n in range(5)}
        assert {row["label"] for row in rows} == {"three", "eight"}
    for row in rows:
        if row["method"] == "ones":
            assert row["AI"] == 0
            assert (row["AD"], row["AG"]) == pytest.approx((0, 0), abs=1e-3)
        if row["method"] == "lmac":
            assert 0 < row["area"] < 1


def test_its_export_is_safe_and_explains_alike(finished, tmp_path):
    """The untrusted folder loads, and decides as the run did."""
    name, data, run = finished
    export_run(run, tmp_path / "model")
    model = LMACInterpreter.from_hparams(tmp_path / "model")
    (clip,) = (run / "interpretations" / "test").iterdir()
    facts = json.loads((clip / "explanation.json").read_text("utf-8"))
    audio = data / ("recordings" if name == "fsdd" else "audio")
    _, label, rate = model.interpret_file(audio / f"{facts['id']}.wav")
    assert label == facts["decision"]
    assert rate == (8000 if name == "fsdd" else 16000)


@pytest.mark.parametrize("name", CASES)
def test_a_missing_classifier_is_told_how_to_train(
    recipe, scenes, tmp_path, name
):
    """The command in the message names the matching yaml."""
    done = recipe.main(
        "train_lmac",
        f"lmac_{name}.yaml",
        data_folder=scenes,
        classifier_folder=tmp_path / "classifier" / "model",
        output_folder=tmp_path / "lmac",
    )
    assert done.code != 0
    assert f"hparams/variants/classifier_{name}.yaml" in done.err
    assert not (tmp_path / "classifier").exists()


@pytest.mark.parametrize("asked", ["[1, 2, 3]", "3"])
def test_more_scenes_are_trained_on(recipe, monkeypatch, tmp_path, asked):
    """Extra folds are made and trained on; the others stay what they are."""
    made = make_scenes(tmp_path / "five", clips_per_class=1)
    preparation = recipe.script("preparation")
    monkeypatch.setattr(
        preparation, "make_scenes", partial(make_scenes, clips_per_class=1)
    )
    done = recipe.main(
        "train_classifier",
        "classifier_attention.yaml",
        scenes_folder=tmp_path / "more",
        extra_scene_folds=2,
        train_fold_nums=asked,
        output_folder=tmp_path / "run",
        **SMALL,
        **CASES["attention"][0],
    )
    assert done.code == 0, done.err
    folds = {}
    for split in ("train", "valid", "test"):
        manifest = tmp_path / "run" / "manifests" / f"{split}.jsonl"
        folds[split] = {name[0] for name in dict(read_entries(manifest))}
    first = {"3"} if asked == "3" else {"1", "2", "3"}
    assert folds == {"train": first | {"6", "7"}, "valid": {"4"}, "test": {"5"}}
    for path in (made / "audio").iterdir():
        same = tmp_path / "more" / "audio" / path.name
        assert same.read_bytes() == path.read_bytes()
