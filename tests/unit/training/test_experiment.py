"""Tests of what the scripts do with the command line and the yaml."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.models.Cnn14 import Cnn14

from lmac_sb.training.experiment import (
    Hparams,
    check_frontend,
    frontend,
    load_hparams,
)
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "ESC50" / "interpret"
HPARAMS = RECIPE / "hparams"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Objects of the yaml may make folders."""
    monkeypatch.chdir(tmp_path)


def load(file, *overrides):
    """Load a yaml file as the scripts do."""
    return load_hparams([str(file), *overrides], RECIPE)


def refused(file, *overrides):
    """The one message of a refused command line."""
    with pytest.raises(LMACError) as caught:
        load(file, *overrides)
    return str(caught.value)


def user_yaml(tmp_path, old="", new="", name="lmac.yaml"):
    """A user's own file: a shipped one with a change."""
    text = (HPARAMS / name).read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_overrides(tmp_path):
    """They replace values, also within others, and reach the objects."""
    file, hparams, run_opts, overrides = load(
        HPARAMS / "lmac.yaml",
        "--seed=7",
        "--lr",
        "0.5",
        "--dataloader_options={num_workers: 1}",
        "--device=cpu",
    )
    assert file == str(HPARAMS / "lmac.yaml")
    assert hparams["seed"] == 7
    assert hparams["lr_annealing"].lr == 0.5
    assert hparams["output_folder"].endswith("/7")
    # What an override does not name stays.
    assert hparams["dataloader_options"] == {
        "batch_size": hparams["batch_size"],
        "num_workers": 1,
        "pin_memory": False,
    }
    assert run_opts["device"] == "cpu"
    assert "seed: 7" in overrides


def test_object_as_override():
    """SpeechBrain's tags work on the command line too."""
    _, hparams, _, _ = load(
        HPARAMS / "lmac.yaml",
        "--classifier=!new:torch.nn.Linear {in_features: 256, out_features: 3}",
    )
    assert hparams["classifier"].out_features == 3


@pytest.mark.parametrize("file", sorted(p.name for p in HPARAMS.glob("*.yaml")))
@pytest.mark.parametrize(
    "key, near",
    [
        ("experiment_nam", "experiment_name"),
        ("outputfolder", "output_folder"),
        ("data-folder", "data_folder"),
    ],
)
def test_unknown_key_on_the_command_line(file, key, near):
    """Misspelt keys are told, with the one that was meant."""
    assert refused(HPARAMS / file, f"--{key}=3") == (
        f"command line: unknown key '{key}'; did you mean '{near}'?"
    )


def test_unknown_key_like_no_other():
    """Then there is nothing to propose."""
    message = refused(HPARAMS / "lmac.yaml", "--qqqq=3")
    assert message == "command line: unknown key 'qqqq'"


@pytest.mark.parametrize("key", ["reg_w_l2", "reg-w-l1"])
def test_unknown_key_in_a_yaml(tmp_path, key):
    """A user's file is read as strictly."""
    path = user_yaml(tmp_path, "\nreg_w_l1:", f"\n{key}: 1\nreg_w_l1:")
    message = refused(path)
    assert message.startswith(f"{path}: unknown key '{key}'; did you mean")
    assert "'reg_w_l1'" in message


def test_own_key_that_is_used(tmp_path):
    """A key of the user's own is fine where something refers to it."""
    path = user_yaml(
        tmp_path,
        "\nexperiment_name: lmac",
        "\nmine: a\nexperiment_name: !ref x_<mine>",
    )
    assert load(path, "--mine=b")[1]["experiment_name"] == "x_b"


def test_missing_yaml(tmp_path):
    """The file and what it is."""
    path = tmp_path / "nowhere.yaml"
    assert refused(path) == f"{path}: no such file, a yaml file is needed"


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2\nb: 3\n",
        "seed: 1\nseed: 2\n",
        "seed: !ref <nowhere>\n",
        "lr: !new:nowhere.Thing\n",
        "lr: !new:lmac_sb.training.brain.OneCyle\n",
        "lr: !new:lmac_sb.training.brain.OneCycle\n    rate: 3\n",
        "lr: !new:lmac_sb.training.brain.OneCycle\n    lr: -1\n",
        "lr: !wrong 3\n",
        "- seed\n- lr\n",
        "just text\n",
        "",
        "seed: 1\n\tlr: 2\n",
        b"\xff\xfe\x00seed: 1",
    ],
)
def test_broken_yaml(tmp_path, text):
    """One message that names the file."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refused(path)
    assert message.startswith(f"{path}: ") or message.startswith("lr, warmup")
    assert message.split(": ", 1)[1].strip()


@pytest.mark.parametrize("override", ["--lr=[1, 2", "--lr={a", "--lr='x"])
def test_broken_override(override):
    """No yaml on the command line."""
    assert refused(HPARAMS / "lmac.yaml", override).startswith("command line")


def test_placeholder():
    """A value that must be given is named."""
    message = refused(HPARAMS / "lmac_cnn14.yaml")
    assert message.startswith(f"{HPARAMS / 'lmac_cnn14.yaml'}: ")
    assert "data_folder" in message and "PLACEHOLDER" in message


def test_bad_value_in_an_object():
    """The message of the library's own check comes through."""
    message = refused(HPARAMS / "lmac.yaml", "--l_out_type=probabilities")
    assert "l_out_type: 'probabilities' is none of" in message


def test_missing_key(tmp_path):
    """Told when it is needed, with the file."""
    path = user_yaml(tmp_path, "\nwham_folder: null", "\n#")
    _, hparams, _, _ = load(path)
    with pytest.raises(LMACError) as caught:
        hparams["wham_folder"]
    assert str(caught.value) == f"{path}: key 'wham_folder' is missing"


def test_frontend():
    """All that changes a classifier's input, and nothing else."""
    _, hparams, _, _ = load(HPARAMS / "lmac.yaml", "--n_mels=64")
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
    """The setting and both values are named."""
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
    # The public code sums over its batch of 16, here all are means.
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
