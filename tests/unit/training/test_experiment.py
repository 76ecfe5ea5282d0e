"""Tests of the checks of a run's data and classifier."""

import os
import shutil
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.lobes.models.Cnn14 import Cnn14

from lmac_sb.data.audio import Preprocessor
from lmac_sb.models.classifier_folder import load_classifier, save_classifier
from lmac_sb.training import experiment
from lmac_sb.training.experiment import (
    check_frontend,
    check_sizes,
    frontend,
    open_run,
)
from lmac_sb.training.hparams import Hparams, load_hparams
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "ESC50" / "interpret"
HPARAMS = RECIPE / "hparams"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in another folder, since objects may make folders."""
    monkeypatch.chdir(tmp_path)


def test_frontend():
    """The front end has all settings of a classifier's input."""
    hparams = load_hparams([str(HPARAMS / "lmac.yaml"), "--n_mels=64"])
    found = frontend(hparams)
    assert found == {
        "sample_rate": 16000,
        "n_fft": 1024,
        "win_length": 23.2199,
        "hop_length": 11.6099,
        "n_mels": 64,
    }
    check_frontend(found, hparams, "model")
    check_frontend({}, hparams, "model")


@pytest.mark.parametrize(
    "key, value",
    [
        ("sample_rate", 8000),
        ("n_fft", 512),
        ("win_length", 25.0),
        ("hop_length", 10.0),
        ("n_mels", 40),
    ],
)
def test_other_frontend(key, value):
    """The message names the setting and both values."""
    hparams = Hparams(
        {
            "sample_rate": 16000,
            "n_fft": 1024,
            "win_length": 23.2199,
            "hop_length": 11.6099,
            "n_mels": 80,
        },
        "x.yaml",
    )
    with pytest.raises(LMACError) as caught:
        check_frontend({**hparams, key: value}, hparams, "my/model")
    message = str(caught.value)
    assert message.startswith("my/model: ")
    assert f"{key} {value}," in message
    assert message.endswith(f"{key} {hparams[key]}")


def test_paper_settings(tmp_path):
    """`lmac_cnn14.yaml` has CNN14 and the paper's values."""
    text = (HPARAMS / "lmac_cnn14.yaml").read_text(encoding="utf-8")
    hparams = load_hyperpyyaml(text, {"data_folder": str(tmp_path)})
    assert isinstance(hparams["embedding_model"], Cnn14)
    assert hparams["sample_rate"] == 16000
    assert hparams["signal_length_s"] == 5
    assert hparams["preprocess"].n_samples == 80000
    assert hparams["n_fft"] == 1024 and hparams["n_mels"] == 80
    assert hparams["classifier"].out_features == 50
    assert [
        hparams[f"{split}_fold_nums"] for split in ("train", "valid", "test")
    ] == [[1, 2, 3], [4], [5]]
    assert hparams["snr_db"] == 0
    # The public code sums over its batch of 16; here all terms are means.
    loss = hparams["lmac_loss"]
    assert (loss.l_in_w, loss.l_out_w, loss.l_out_type) == (4, 0.2, "ce")
    assert loss.reg_w_l1 == pytest.approx(0.4 * 16)
    assert loss.reg_w_tv == 0
    assert hparams["explainer"].mask_domain == "log1p"
    optimizer = hparams["opt_class"]([torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 0.0002
    assert optimizer.defaults["weight_decay"] == 0.000002
    assert hparams["epoch_counter"].limit == 200
    assert hparams["batch_size"] == 16
    # The classifier is frozen; the decoder fits its latents.
    trained = {
        id(p)
        for p in hparams["frozen_classifier"].parameters()
        if p.requires_grad
    }
    assert not trained
    explainer = hparams["explainer"]
    with torch.no_grad():
        explanation = explainer(torch.randn(1, 16000))
    assert explanation.mask.shape[2] == 513
    assert explanation.logits_in.shape == (1, 50)
    assert explanation.waveform.shape == (1, 16000)


def test_a_refused_run_leaves_no_folder(tmp_path):
    """Of those above it, none that it made."""
    folder = tmp_path / "new" / "run"
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={folder}"]
    )
    assert not folder.parent.exists()
    with pytest.raises(LMACError), open_run(hparams):
        (folder / "manifests").mkdir()
        (folder / "manifests" / "train.jsonl").touch()
        raise LMACError("n_classes: found 3")
    assert not folder.parent.exists()
    # What was there before stays, and so does a run that began.
    (folder / "mine").mkdir(parents=True)
    with pytest.raises(LMACError), open_run(hparams):
        raise LMACError("n_classes: found 3")
    assert (folder / "mine").is_dir()
    shutil.rmtree(folder.parent)
    with pytest.raises(LMACError), open_run(hparams) as claim:
        claim.take()
        raise LMACError("a checkpoint cannot be written")
    assert (folder / "experiment.json").is_file()


@pytest.mark.parametrize(
    "file", ["classifier_conv.yaml", "classifier_multilabel.yaml"]
)
def test_batch_norm_of_several_processes_on_cpus(tmp_path, monkeypatch, file):
    """PyTorch cannot train it; it is refused before there is a folder."""
    folder = tmp_path / "run"
    options = ["--device=cpu", f"--output_folder={folder}"]
    hparams = load_hparams([str(HPARAMS / file), *options])
    frozen = load_hparams([str(HPARAMS / "lmac.yaml"), *options])
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(LMACError) as caught, open_run(hparams):
        pass
    assert str(caught.value) == (
        "embedding_model: on CPUs, several processes cannot train batch "
        "normalisation; run it in one process, without torchrun"
    )
    assert not folder.exists()
    # What is frozen is not trained.
    with open_run(frozen):
        pass


@pytest.mark.parametrize(
    "file", ["classifier_conv.yaml", "lmac.yaml", "l2i.yaml"]
)
def test_nothing_to_test(tmp_path, file):
    """A new folder is not made; a run without a checkpoint is not changed."""
    folder = tmp_path / "run"
    options = ["--test_only", f"--output_folder={folder}"]
    hparams = load_hparams([str(HPARAMS / file), *options])
    for empty in (True, False):
        with pytest.raises(LMACError) as caught, open_run(hparams):
            pass
        assert str(caught.value) == (
            f"{folder}/save: no checkpoint with '{hparams['select_key']}' to "
            "test; train first"
        )
        assert folder.exists() != empty
        (folder / "save").mkdir(parents=True, exist_ok=True)


def test_compiled_modules_are_there(tmp_path):
    """SpeechBrain would say so in the midst of the work."""
    folder = tmp_path / "run"
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={folder}"]
        + ["--compile", "--compile_module_keys", "explainr"]
    )
    with pytest.raises(LMACError) as caught, open_run(hparams):
        pass
    assert str(caught.value) == (
        "compile_module_keys: found 'explainr', expected some of explainer"
    )
    assert not folder.exists()


def test_explainer_on_a_cpu_is_not_compiled(tmp_path):
    """It ended in an error of PyTorch's compiler, after a minute."""
    folder = tmp_path / "run"
    options = ["--compile", "--device=cpu", f"--output_folder={folder}"]
    hparams = load_hparams([str(HPARAMS / "lmac.yaml"), *options])
    with pytest.raises(LMACError) as caught, open_run(hparams):
        pass
    assert str(caught.value) == (
        "compile: on a CPU, PyTorch cannot compile the backward pass of an "
        "explainer; leave --compile out"
    )
    assert not folder.exists()
    hparams = load_hparams([str(HPARAMS / "classifier_conv.yaml"), *options])
    with open_run(hparams):
        pass


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_that_is_terminated(tmp_path, capsys, taken):
    """It says so and leaves no lock; its loaders' workers say nothing."""
    folder = tmp_path / "run"
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={folder}"]
    )
    with pytest.raises(SystemExit) as stop, open_run(hparams) as claim:
        if taken:
            claim.take()
        context = get_context("fork")
        runs = context.Event()
        worker = context.Process(target=lambda: (runs.set(), time.sleep(60)))
        worker.start()
        assert runs.wait(60)  # a signal at the very fork would be lost
        worker.terminate()
        worker.join()
        assert worker.exitcode == -signal.SIGTERM
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err.splitlines()[-1] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert [x.name for x in folder.glob("*")] == ["experiment.json"] * taken


def test_processes_of_a_launcher_are_terminated_at_once(tmp_path, monkeypatch):
    """They may wait for each other, and would not hear."""
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={tmp_path / 'run'}"]
    )
    monkeypatch.setenv("RANK", "0")
    with open_run(hparams):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_lengths_that_share_no_batch(caplog):
    """Of a single clip there is nothing to say."""
    experiment._warn_of_lengths("train.jsonl", [8000])
    assert not caplog.records
    experiment._warn_of_lengths("train.jsonl", [8000, 9000])
    assert "2 clips have 2 different lengths" in caplog.text


def test_a_folder_that_cannot_be_made():
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), "--output_folder=/proc/x"]
    )
    with pytest.raises(LMACError, match="^/proc/x: cannot be made or"):
        with open_run(hparams):
            pass


def test_a_copy_of_a_script_of_a_package_that_is_read_only(tmp_path):
    """Its mode is copied too; the run must be able to replace it later."""
    copy = tmp_path / "run" / "train_lmac.py"
    copy.parent.mkdir()
    copy.touch()
    copy.chmod(0o444)  # `touch` would leave out what the umask does
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={copy.parent}"]
    )
    with open_run(hparams):
        assert copy.stat().st_mode & 0o777 == 0o644


def test_a_run_of_another_user(shared, monkeypatch):
    """It goes on where the folder can be written to; other files stay."""
    monkeypatch.chdir(shared.folder)
    run = shared.folder / "run"
    run.mkdir()
    run.chmod(0o777)
    for name in ("hyperparams.yaml", "log.txt", "train_lmac.py", "mine.py"):
        (run / name).write_text(name)
        (run / name).chmod(0o444)
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={run}"]
    )
    with shared.by_another():
        with open_run(hparams):
            for path in run.glob("*[!k]"):  # not the lock
                is_own = path.name != "mine.py"
                assert os.access(path, os.W_OK) == is_own
                assert path.read_text() == path.name
    assert (run / "mine.py").stat().st_mode & 0o777 == 0o444


def test_a_run_that_another_user_cannot_write_to(shared, monkeypatch):
    """The line is that of any such folder, or names what is in the way."""
    monkeypatch.chdir(shared.folder)
    run = shared.folder / "run"
    run.mkdir()
    (run / "log.txt").touch()
    hparams = load_hparams(
        [str(HPARAMS / "lmac.yaml"), f"--output_folder={run}"]
    )

    def refused(message):
        with shared.by_another(), pytest.raises(LMACError, match=message):
            with open_run(hparams):
                pytest.fail("nothing can be written there")

    refused("^.*/run: cannot be made or written to ")
    run.chmod(0o1777)
    refused("^output_folder: .*log.txt is another user's and cannot be rep")
    run.chmod(0o777)
    (run / "save").mkdir()
    refused("^.*/run/save: cannot be made or written to ")


@pytest.mark.parametrize("found", [3, [], "n_mels", None])
def test_a_frontend_that_is_none(found):
    """The message names the folder, what it holds and what is needed."""
    with pytest.raises(LMACError, match="^my/model: frontend in config.json"):
        check_frontend(found, {"n_mels": 80}, "my/model")


def test_a_classifier_that_does_not_tell_its_frontend(caplog):
    """One line warns that nobody can check it."""
    settings = dict.fromkeys(experiment.FRONTEND, 1)
    check_frontend(settings, settings, "my/model")
    assert not caplog.records
    check_frontend({**settings, "more": 3}, settings, "my/model")
    assert not caplog.records
    check_frontend({}, settings, "my/model")
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("my/model: no config.json tells sample_rate, ")
    assert "\n" not in message


TRAINED = sorted(
    path
    for path in HPARAMS.rglob("*.yaml")
    if "emb_dim" in path.read_text("utf-8")
    and path.stem not in ("eval", "sanity")
)


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_sizes_of_all_files_fit(path):
    """The check changes no weight, mode or draw."""
    hparams = load_hparams([str(path), "--data_folder=nowhere"])
    modules = torch.nn.ModuleList(hparams["modules"].values())
    before = {k: v.clone() for k, v in modules.state_dict().items()}
    modes = [part.training for part in modules.modules()]
    state = torch.get_rng_state()
    check_sizes(hparams)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in modules.modules()]
    for name, value in modules.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize(
    "name, option, said",
    [
        (
            "classifier_conv",
            "--channels=[8,16]",
            "emb_dim: 256, but the embedding has 16 values",
        ),
        (
            "lmac",
            "--emb_dim=128",
            "emb_dim: 128, but the embedding has 256 values",
        ),
        (
            "lmac",
            "--latent_channels=[256,128,64,32]",
            "latent_channels: found [256, 128, 64, 32], but the layers and "
            "evidence have [256, 256, 128, 64, 32]",
        ),
        (
            "lmac",
            "--latent_channels=[256,256]",
            "latent_channels: found [256, 256], but the layers and "
            "evidence have [256, 256, 128, 64, 32]",
        ),
        (
            "l2i",
            "--latent_channels=[1,2]",
            "latent_channels: found [1, 2], but the layers have "
            "[256, 128, 64, 32]",
        ),
        ("variants/lmac_psi", "--emb_dim=128", "emb_dim: 128, but the"),
        (
            "lmac",
            "--dataloader_options={drop_last: True}",
            "dataloader_options: drop_last is True, expected False",
        ),
    ],
)
def test_what_does_not_fit(tmp_path, name, option, said):
    """A run is refused before it has a folder."""
    argv = [str(HPARAMS / f"{name}.yaml"), option, "--output_folder=run"]
    with pytest.raises(LMACError) as error:
        with open_run(load_hparams(argv)):
            pass
    assert str(error.value).startswith(said)
    assert not (tmp_path / "run").exists()


def test_noise_that_is_not_there(tmp_path):
    """The message names the key."""
    sounds = experiment.Sounds(
        Preprocessor(sample_rate=8000), None, tmp_path / "no", 0.0, ["train"]
    )
    with pytest.raises(LMACError, match=r"^wham_folder: .*no: no such noise"):
        experiment.make_datasets(tmp_path, sounds, None, 0)


def test_a_classifier_of_other_classes(tmp_path):
    """The message names the key and both numbers; a run's folder is told."""
    encoder = CategoricalEncoder()
    encoder.update_from_iterable("abc")
    folder = tmp_path / "run" / "model"
    three = {"classifier": torch.nn.Linear(2, 3)}
    save_classifier(folder, three, encoder, {})
    with pytest.raises(LMACError) as error:
        load_classifier(
            folder, {"classifier": torch.nn.Linear(2, 4)}, encoder, tmp_path
        )
    said = str(error.value)
    assert said.startswith(f"classifier_folder: {folder}")
    assert said.endswith("has 3 classes, but n_classes is 4: use --n_classes 3")
    with pytest.raises(LMACError, match=f"did you mean {folder}\\?"):
        load_classifier(folder.parent, three, encoder, tmp_path)
