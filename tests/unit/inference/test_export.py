"""Tests of the export of a run, and of its upload."""

import errno
import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml

from lmac_sb import LMACInterpreter
from lmac_sb.inference.export import export_run, load_interpreter, push
from lmac_sb.metrics.summary import markdown_table
from lmac_sb.models.weights import load_strict
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.utils.checksums import check_sums
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_json
from lmac_sb.utils.seal import seal
from lmac_sb.utils.yaml_safety import safe_yaml

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def run_copy(run_folder, tmp_path):
    """A copy of a run that a test may change."""
    folder = tmp_path / "runs" / "run"
    shutil.copytree(run_folder, folder)
    return folder


def test_round_trip(run_folder, interpreter, sounds):
    """The loaded folder explains as the run's own objects do."""
    text = (run_folder / "hyperparams.yaml").read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text)
    best = best_checkpoint(run_folder / "save", "loss")
    load_strict(hparams["decoder"], best.paramfiles["decoder"])
    model = run_folder.parent / "model"
    for name in ("embedding_model", "classifier"):
        load_strict(hparams[name], model / f"{name}.ckpt")
    with torch.no_grad():
        expected = hparams["explainer"](sounds)
        found = interpreter.explainer(sounds)
    assert torch.allclose(found.logits, expected.logits, atol=1e-4)
    assert torch.allclose(found.mask, expected.mask, atol=1e-5)
    assert torch.allclose(found.waveform, expected.waveform, atol=1e-5)
    assert interpreter.preprocess.signal_length_s is None


def test_refining_works_in_the_exported_folder(run_folder, bundle, sounds):
    """An exported model refines as in the run."""
    hparams = load_hyperpyyaml(
        (run_folder / "hyperparams.yaml").read_text(encoding="utf-8")
    )
    interpreter = LMACInterpreter.from_hparams(bundle)
    refiner, expected = interpreter.explainer.refiner, hparams["refiner"]
    assert vars(refiner.loss) == vars(expected.loss)
    for key in ("lr", "resolution", "smooth_w", "tolerance"):
        assert getattr(refiner, key) == getattr(expected, key)
    assert (refiner.loss.l_in_w, refiner.lr, refiner.resolution) == (12, 1.0, 4)
    best = best_checkpoint(run_folder / "save", "loss")
    load_strict(hparams["decoder"], best.paramfiles["decoder"])
    model = run_folder.parent / "model"
    for name in ("embedding_model", "classifier"):
        load_strict(hparams[name], model / f"{name}.ckpt")
    wavs = sounds[:, :8000]
    found = [
        explainer(wavs, refine_steps=3)
        for explainer in (interpreter.explainer, hparams["explainer"])
    ]
    assert torch.allclose(found[0].mask, found[1].mask, atol=1e-4)
    start = interpreter.explainer(wavs)
    assert (found[0].mask - start.mask).abs().max() > 0.1
    batch = interpreter.explain_batch(wavs, refine_steps=3)
    assert batch.refine_steps == 3
    assert all(p.grad is None for p in interpreter.mods.parameters())


def test_files(bundle):
    names = check_sums(bundle)
    on_disk = {
        path.relative_to(bundle).as_posix()
        for path in bundle.rglob("*")
        if path.is_file()
    }
    assert set(names) == on_disk - {"SHA256SUMS"}
    assert {
        "README.md",
        "classifier.safetensors",
        "config.json",
        "decoder.safetensors",
        "embedding_model.safetensors",
        "example/clip/interpretation.wav",
        "example/clip/original.wav",
        "hyperparams.yaml",
        "label_encoder.txt",
    } <= set(names)
    siblings = {path.name for path in bundle.parent.iterdir()}
    assert siblings == {"run", "model", "bundle"}


def test_yaml_holds_the_model_alone(bundle):
    """No training key, seed, placeholder or path; safe classes only."""
    text = (bundle / "hyperparams.yaml").read_text(encoding="utf-8")
    safe_yaml(text, "hyperparams.yaml")
    keys = yaml.load(text, Loader=yaml.BaseLoader)
    assert list(keys) == [
        "preprocess",
        "features",
        "embedding_model",
        "classifier",
        "frozen_classifier",
        "decoder",
        "lmac_loss",
        "refiner",
        "explainer",
        "label_encoder",
        "modules",
        "pretrainer",
    ]
    assert list(keys["pretrainer"]) == ["loadables"]
    for gone in ("!apply", "seed", "PLACEHOLDER", "paths", str(bundle.parent)):
        assert gone not in text


def test_config(bundle, results):
    config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
    assert config["classes"] == ["cat", "dog", "Käfer"]
    assert config["sample_rate"] == 16000
    assert config["provenance"] == results["provenance"]
    assert config["results"] == results["summary"]
    assert config["classifier"]["frontend"]["n_mels"] == 80


def test_model_card(bundle, results):
    """The card has the results of the run."""
    card = (bundle / "README.md").read_text(encoding="utf-8")
    front, body = re.fullmatch(r"---\n(.*?)---\n(.*)", card, re.S).groups()
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert markdown_table(results["summary"]) in body
    command = results["provenance"]["command"]
    assert command in body
    assert "ESC-10: 2 train, 2 valid, 2 test clips. Test folds: [5]" in body
    assert "Accuracy of the classifier: 87.5 %" in body
    assert "cat, dog, Käfer" in body
    assert results["provenance"]["data_folder"] not in body
    assert 'from_hparams("bundle")' in body
    assert "{" not in body


def test_the_card_follows_the_results(run_copy, results, tmp_path):
    results["summary"]["lmac"]["AI"]["mean"] = 43.21
    write_json(run_copy / "results.json", results)
    out = export_run(run_copy, tmp_path / "out", "cc-by-4.0", "me/model")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| 43.2 ±" in card
    assert "license: cc-by-4.0" in card
    assert 'from_hparams("me/model")' in card


def test_an_encoder_classifier(make_run, sounds, tmp_path):
    """SpeechBrain's Fbank and ECAPA-TDNN, loaded in safe mode."""
    run = make_run(
        tmp_path / "run",
        "lmac_encoder.yaml",
        data_folder="data",
        emb_dim=8,
        embedding_model={"channels": [16] * 4 + [48], "attention_channels": 4},
        latent_channels=[48, 48, 16, 16, 16],
    )
    found = LMACInterpreter.from_hparams(export_run(run, tmp_path / "out"))
    explanation = found.explain_batch(sounds)
    assert torch.allclose(
        explanation.waveform + explanation.residual, sounds, atol=1e-4
    )


def test_other_classes(run_copy, tmp_path):
    """A class that is not allowed needs trust, here and as the card says."""
    path = run_copy / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("!new:torch.nn.Linear", "!new:torch.nn.modules.Linear")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LMACError, match="'!new:torch.nn.modules.Linear' is"):
        export_run(run_copy, tmp_path / "out")
    out = export_run(run_copy, tmp_path / "out", trusted=True)
    assert "trusted=True" in (out / "README.md").read_text(encoding="utf-8")
    with pytest.raises(LMACError, match="'!new:torch.nn.modules.Linear' is"):
        LMACInterpreter.from_hparams(out)
    assert LMACInterpreter.from_hparams(out, trusted=True).classes[1] == "dog"


def test_relative_classifier(run_copy, run_folder, tmp_path):
    """A relative classifier is found from any working folder."""
    path = run_copy / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace(str(run_folder), "runs/run")
    text = text.replace(str(run_folder.parent / "model"), "./runs/model")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        LMACError,
        match=f"classifier_folder: ./runs/model does not exist, looked at "
        f"{tmp_path / 'runs' / 'model'}, .*relative to where the run was",
    ):
        export_run(run_copy, tmp_path / "out")
    shutil.copytree(run_folder.parent / "model", tmp_path / "runs" / "model")
    export_run(run_copy, tmp_path / "out")


def spoil_classifier(run):
    """Replace the classifier that the run explained."""
    write_json(
        run / "experiment.json", {"classifier_folder": {"sha256": "0" * 64}}
    )


def spoil_epoch(run):
    """Make the results those of another checkpoint."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results["provenance"]["epoch"] = 1.0
    write_json(run / "results.json", results)


def spoil_key(run):
    """Rename a key, as in a run of another recipe."""
    path = run / "hyperparams.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("frozen_classifier:", "frozen:"), "utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), "no such run folder"),
        (
            lambda run: (run / "hyperparams.yaml").unlink(),
            ".yaml: no such file",
        ),
        (lambda run: (run / "hyperparams.yaml").write_text("["), "not yaml"),
        (lambda run: (run / "hyperparams.yaml").write_text("a"), "no keys"),
        (spoil_key, "key 'frozen_classifier' is missing"),
        (lambda run: shutil.rmtree(run / "save"), "no intact checkpoint"),
        (lambda run: (run / "results.json").unlink(), "run is not finished"),
        (lambda run: (run / "results.json").write_text("{"), "not JSON"),
        (lambda run: (run / "results.json").write_text("{}"), "provenance"),
        (spoil_classifier, ": not the classifier that"),
        (spoil_epoch, "epoch 1, but the best checkpoint is of epoch 2"),
        (lambda run: (run / "manifests" / "test.jsonl").unlink(), "test.jsonl"),
    ],
)
def test_a_run_that_cannot_be_exported(run_copy, spoil, message, tmp_path):
    """The message names the fault, and nothing is left behind."""
    spoil(run_copy)
    with pytest.raises(LMACError, match=message):
        export_run(run_copy, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_an_existing_folder_is_not_touched(run_folder, tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(LMACError, match="already exists"):
        export_run(run_folder, tmp_path)
    with pytest.raises(LMACError, match="already exists"):
        export_run(run_folder, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "keep"


def test_no_example(run_copy, tmp_path):
    """A run without sounds can be exported."""
    shutil.rmtree(run_copy / "interpretations")
    out = export_run(run_copy, tmp_path / "out")
    assert not (out / "example").exists()
    assert "example" not in (out / "README.md").read_text(encoding="utf-8")


def test_the_command(recipe, run_folder, tmp_path):
    """The command `lmac export` exports and uploads."""
    done = recipe.command(
        ["-m", "lmac_sb", "export", run_folder, tmp_path / "out"]
    )
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == f"exported: {tmp_path / 'out'}"
    check_sums(tmp_path / "out")


class FakeHub:
    """Stands for `huggingface_hub.HfApi`."""

    calls = []

    def create_repo(self, repo_id, exist_ok=False):
        """Record the call."""
        if repo_id == "me/forbidden":
            raise OSError("401")
        self.calls.append(("create_repo", repo_id, exist_ok))

    def upload_folder(self, repo_id, folder_path, commit_message):
        """Record the call."""
        names = sorted(path.name for path in Path(folder_path).iterdir())
        self.calls.append(("upload_folder", repo_id, names))
        return f"https://hub.invalid/{repo_id}"


def test_push(bundle, monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "calls", [])
    assert push(bundle, "me/model") == "https://hub.invalid/me/model"
    names = sorted(path.name for path in bundle.iterdir())
    assert FakeHub.calls == [
        ("create_repo", "me/model", True),
        ("upload_folder", "me/model", names),
    ]
    with pytest.raises(LMACError, match="me/forbidden: cannot be pushed.*401"):
        push(bundle, "me/forbidden")
    shutil.copytree(bundle, tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_text("{}")
    with pytest.raises(LMACError, match="config.json: truncated or changed"):
        push(tmp_path / "changed", "me/model")
    assert len(FakeHub.calls) == 2


def searched(folder, *words):
    """Files of a folder, and members of archives, that hold a word."""
    found = set()
    for path in folder.rglob("*"):
        texts = [path.relative_to(folder).as_posix().encode()]
        if path.is_file():
            texts.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    texts += map(archive.read, archive.namelist())
                    texts += [name.encode() for name in archive.namelist()]
        if any(word.encode() in text for word in words for text in texts):
            found.add(path.relative_to(folder).as_posix())
    return found


def test_nothing_tells_of_the_maker(make_run, tmp_path, monkeypatch):
    """No path, user or host, in any file of the folder."""
    home = tmp_path / "home" / "jane-doe" / "my work"
    home.mkdir(parents=True)
    monkeypatch.setattr("getpass.getuser", lambda: "jane-doe")
    monkeypatch.setattr("socket.gethostname", lambda: "secret-host")
    arguments = [f"{home}/train_lmac.py", f"--data_folder={home}/ESC-10"]
    monkeypatch.setattr("sys.argv", arguments)
    run = make_run(home / "run")
    results = json.loads((run / "results.json").read_text("utf-8"))
    results["provenance"].update(
        # As an earlier release wrote them.
        command=f"{home}/train.py ~/x.yaml --output_folder={home}/run",
        data_folder=f"{home}/ESC-10",
        hyperparams=(run / "hyperparams.yaml").read_text("utf-8"),
    )
    write_json(run / "results.json", results)
    model = home / "model" / "config.json"
    config = json.loads(model.read_text("utf-8"))
    config["results"]["hyperparams"] = f"# of {home}\nfolder: {home}/x\n"
    write_json(model, config)
    out = export_run(run, home / "out")
    words = "jane-doe", "my work", "secret-host", str(tmp_path)
    assert searched(run, *words)
    assert searched(out, *words) == set()
    card = (out / "README.md").read_text("utf-8")
    assert ".../run" in card and "ESC-10: 2 train" in card


def sealed(run, **changes):
    """Seal the results of a run, and then change them by hand."""
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    results = seal(results, "results.json")
    write_json(run / "results.json", {**results, **changes})


def test_changed_figures_are_not_exported(run_copy, results, tmp_path):
    results["summary"]["lmac"]["AI"]["mean"] = 99.9
    sealed(run_copy, summary=results["summary"])
    with pytest.raises(LMACError, match="results.json was changed since"):
        export_run(run_copy, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_card_says_whether_its_figures_are_vouched_for(
    run_copy, run_folder, tmp_path, caplog
):
    """Those of an earlier release have no checksum."""
    model = tmp_path / "runs" / "model"
    shutil.copytree(run_folder.parent / "model", model)
    path = run_copy / "hyperparams.yaml"
    text = path.read_text("utf-8").replace(
        str(run_folder.parent / "model"), str(model)
    )
    path.write_text(text, "utf-8")
    config = json.loads((model / "config.json").read_text("utf-8"))
    note = "These figures have no checksum"
    for name, prepare in (
        ("neither", lambda: None),
        ("one", lambda: sealed(run_copy)),
        (
            "both",
            lambda: write_json(
                model / "config.json",
                {**config, "results": seal(config["results"], "config.json")},
            ),
        ),
    ):
        prepare()
        caplog.clear()
        out = export_run(run_copy, tmp_path / name)
        card = (out / "README.md").read_text("utf-8")
        assert (note in card) == (name != "both"), name
        assert ("has no checksum" in caplog.text) == (name != "both")
        found = json.loads((out / "config.json").read_text("utf-8"))
        assert found["classifier"]["results"] == config["results"]
    changed = {**config["results"], "test": {"accuracy": 1.0}, "sha256": "0"}
    write_json(model / "config.json", {**config, "results": changed})
    with pytest.raises(LMACError, match="config.json was changed"):
        export_run(run_copy, tmp_path / "out")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_disk_that_cannot_be_written(
    run_folder, tmp_path, monkeypatch, number
):
    """One line that names the folder, and nothing is left."""

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("lmac_sb.inference.export.write_weights", fail)
    with pytest.raises(LMACError, match="out: cannot be written .*") as caught:
        export_run(run_folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("os.mkdir", fail)
    with pytest.raises(LMACError, match="new/out: cannot be written .*"):
        export_run(run_folder, tmp_path / "new" / "out")


KILLED = """
import os, signal, sys
import lmac_sb.inference.export as export

export.write_sums = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
export.export_run(*sys.argv[1:])
"""


def test_the_next_export_deletes_what_a_killed_one_left(
    recipe, run_folder, tmp_path
):
    """Under any name, and of another machine after a day."""
    done = recipe.command(["-c", KILLED, run_folder, tmp_path / "first"])
    assert done.code == -9, done.err
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".first.") and any(left.iterdir())
    mine = tmp_path / ".mine.part"
    young, old = (
        tmp_path / f".x.1@another.{name}.part" for name in ("young", "old")
    )
    for folder in (mine, young, old):
        folder.mkdir()
    two_days_ago = time.time() - 2 * 24 * 3600
    for folder in (mine, old):
        os.utime(folder, (two_days_ago, two_days_ago))
    export_run(run_folder, tmp_path / "second")
    assert set(tmp_path.iterdir()) == {mine, young, tmp_path / "second"}


@pytest.mark.parametrize(
    "key, script",
    [("mask_share", "train_classifier"), ("roar_methods", "sanity")],
)
def test_a_run_of_another_script_is_called_so(tmp_path, key, script):
    run = tmp_path / "run"
    run.mkdir()
    (run / "hyperparams.yaml").write_text(f"{key}: 1\nclassifier: 2\n")
    (run / "experiment.json").write_text("{}")
    for load in (
        lambda: export_run(run, tmp_path / "out"),
        lambda: load_interpreter(run),
    ):
        with pytest.raises(LMACError) as found:
            load()
        said = str(found.value)
        assert said.startswith(f"{run}: found a run of {script}.py, expected")
        assert "one with a decoder, as of train_lmac.py" in said
        is_classifier = script == "train_classifier"
        assert ("--classifier_folder" in said) == is_classifier
    assert not (tmp_path / "out").exists()


def test_what_can_be_loaded_already_needs_no_export(tmp_path, bundle):
    for place in ("classifier.json", "interpreter/classifier.json"):
        folder = tmp_path / place.replace("/", "_")
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_text("{}")
        (folder / "hyperparams.yaml").write_text("decoder: 1\n")
        message = f"{(folder / place).parent}: found a model that can be loaded"
        with pytest.raises(LMACError, match=re.escape(message)):
            export_run(folder, tmp_path / "out")
    with pytest.raises(LMACError, match="found a model that can be loaded as"):
        export_run(bundle, tmp_path / "out")
