"""Tests of the identity of a run, and of messages about changes."""

import re
from pathlib import Path

import pytest
import torch

import lmac_sb
from lmac_sb.data.manifest import to_lines
from lmac_sb.training import identity
from lmac_sb.training.hparams import load_hparams
from lmac_sb.training.identity import (
    NEUTRAL,
    Claim,
    changes,
    data_identity,
    list_recordings,
    recordings_identity,
    weights_identity,
)
from lmac_sb.training.keys import KEYS
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import read_json, write_json

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "ESC50" / "interpret"
LMAC = RECIPE / "hparams" / "lmac.yaml"


def claim(folder, *options, file=LMAC, neutral=()):
    """The claim of a run in this folder."""
    hparams = load_hparams([str(file), f"--output_folder={folder}", *options])
    return Claim(hparams, neutral)


@pytest.fixture
def run(tmp_path):
    """Folder of a run that has kept a checkpoint."""
    claim(tmp_path).take()
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    return tmp_path


def refused(other, **parts):
    """Message with which another run is refused."""
    before = other.path.read_bytes()
    with pytest.raises(LMACError) as caught:
        other.check(**parts)
    assert other.path.read_bytes() == before
    message = str(caught.value)
    assert message.startswith(f"output_folder: the run in {other.folder} has ")
    assert "choose another --experiment_name or --output_folder" in message
    return message.split(" has ", 1)[1].split("; choose")[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--reg_w_l1=99"], "reg_w_l1 4, now it is 99"),
        (
            ["--reg_w_l1=99", "--l_out_type=ce"],
            "l_out_type probability, now it is ce; reg_w_l1 4, now it is 99",
        ),
        (["--seed=7"], "seed 1234, now it is 7"),
        (["--n_classes=50"], "n_classes 10, now it is 50"),
        (["--lr=3e-3"], "lr 0.002, now it is 0.003"),
        (["--batch_size=5"], "batch_size 4, now it is 5"),
        (["--train_fold_nums=[1]"], "train_fold_nums [1, 2, 3], now it is [1]"),
        (["--signal_length_s=2"], "signal_length_s null, now it is 2"),
        (["--mask_domain=log1p"], "mask_domain linear, now it is log1p"),
        (["--precision=bf16"], "--precision fp32, now it is bf16"),
        (["--max_grad_norm=1"], "--max_grad_norm 5.0, now it is 1.0"),
        # Within an object, where no plain key differs.
        (
            ["--decoder={width: 16}"],
            "decoder.width 32, now it is 16",
        ),
        (
            ["--frozen_classifier={evidence: False}"],
            "frozen_classifier.evidence true, now it is false",
        ),
        (["--dataloader_options={drop_last: True}"], None),
        (["--training={number_of_epochs: 99}"], "training.number_of_epochs"),
        (["--sounds={snr_db: 9}"], "snr_db 0.0, now it is 9"),
    ],
)
def test_what_changes_a_result(run, options, told):
    """The message names the key, the old value and the new one."""
    found = refused(claim(run, *options))
    assert told is None or told in found


@pytest.mark.parametrize(
    "option",
    [
        "experiment_name=other",
        "save_clips=0",
        "interpret_period=1",
        "use_tensorboard=True",
        "train_log=elsewhere.txt",
        "audio_cache=cache",
        "data_folder=moved",
        "classifier_folder=moved",
        "skip_bad_clips=True",
        "dataloader_options={num_workers: 2, pin_memory: True}",
        "noprogressbar",
        "ckpt_interval_steps=1",
        "test_only",
        "number_of_epochs=16",
    ],
)
def test_what_changes_no_result(run, option):
    """A change that affects no result is accepted."""
    claim(run, f"--{option}").check()


OWN_CLASSIFIER = """
import torch

def load():
    layers = torch.nn.Conv1d(1, 4, 400, 160), torch.nn.AdaptiveMaxPool1d(1)
    head = torch.nn.Flatten(), torch.nn.Linear(4, 3)
    net = torch.nn.Sequential(torch.nn.Unflatten(1, (1, -1)), *layers, *head)
    return {"model": net, "sample_rate": 16000}
"""


def test_every_key_either_counts_or_is_neutral(tmp_path, monkeypatch):
    """Every key is either compared or declared neutral."""
    (tmp_path / "own_classifier.py").write_text(OWN_CLASSIFIER)
    monkeypatch.syspath_prepend(tmp_path)
    for file in sorted(RECIPE.glob("hparams/**/*.yaml")):
        options = [str(file), f"--data_folder={tmp_path}"]
        if file.name == "lmac_any.yaml":
            options += ["--model=own_classifier:load", "--trusted=True"]
        hparams = load_hparams(options)
        counted = Claim(hparams).identity
        assert set(hparams) - set(counted) <= set(NEUTRAL), file
    assert set(NEUTRAL) - set(KEYS) == {
        "num_workers",
        "pin_memory",
        "prefetch_factor",
        "persistent_workers",
    }


def test_many_differences(run):
    """The message names only some of many differences."""
    write_json(run / "experiment.json", {"seed": 1})
    told = refused(claim(run))
    assert told.startswith(f"lmac_sb null, now it is {lmac_sb.__version__}; ")
    assert re.search(r"; and \d\d more keys differ$", told)


def test_fewer_epochs(run):
    """Fewer epochs are refused if the run has gone further."""
    assert refused(claim(run, "--number_of_epochs=3")) == (
        "number_of_epochs 15, now it is 3 (a run can be continued only with "
        "more epochs)"
    )


@pytest.mark.parametrize("text", ["{", "[]"])
def test_identity_that_cannot_be_read(run, text):
    """The message says what to do, as that of another run does."""
    (run / "experiment.json").write_text(text)
    with pytest.raises(LMACError) as caught:
        claim(run).check()
    told = str(caught.value)
    assert told.startswith(f"{run / 'experiment.json'}: ")
    assert told.endswith(
        "; choose another --experiment_name or --output_folder, or delete it"
    )


def test_another_version(run, monkeypatch):
    """Another version is refused, since results may depend on it."""
    old = lmac_sb.__version__
    monkeypatch.setattr(lmac_sb, "__version__", "99.0")
    assert refused(claim(run)) == f"lmac_sb {old}, now it is 99.0"


def test_parts(tmp_path):
    """Data and weights are compared by content."""
    run = tmp_path
    mine = claim(run)
    mine.take(data={"sha256": "a", "what": "3 train clips of x"})
    (run / "save" / "CKPT+1").mkdir(parents=True)
    claim(run).check(data={"sha256": "a", "what": "3 train clips of y"})
    other = {"sha256": "b", "what": "4 train clips of y"}
    assert refused(claim(run), data=other) == (
        "another data (3 train clips of x), now it is 4 train clips of y"
    )
    changed = {"sha256": "b", "what": "3 train clips of x"}
    assert refused(claim(run), data=changed) == (
        "another data: the content of 3 train clips of x has changed since"
    )
    # An earlier run, in which it was not known.
    assert "another judge_folder (unknown), now it is m" in refused(
        claim(run), judge_folder={"sha256": "c", "what": "m"}
    )
    assert claim(run).compared["seed"] == 1234
    assert mine.compared["data"] == "a"


def test_first_attempt_that_failed_claims_nothing(tmp_path):
    """Without results, the next run may have other settings."""
    claim(tmp_path).take()
    other = claim(tmp_path, "--lr=1")
    other.take()
    assert read_json(other.path)["lr"] == 1
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    assert refused(claim(tmp_path)) == "lr 1, now it is 0.002"


@pytest.mark.parametrize(
    "kept", ["save/dictionary.ckpt", "rows/a.jsonl", "roar.csv", "key.json"]
)
def test_what_makes_a_folder_taken(tmp_path, kept):
    """Results and checkpoints make a folder taken."""
    claim(tmp_path).take()
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).write_text("")
    refused(claim(tmp_path, "--lr=1"))


def test_checkpoints_of_nobody(tmp_path):
    """Checkpoints of another run are refused."""
    save = tmp_path / "other"
    (save / "CKPT+1").mkdir(parents=True)
    mine = claim(tmp_path / "run", f"--save_folder={save}")
    with pytest.raises(LMACError, match=f"save_folder: {save} holds checkpo"):
        mine.check()


def test_keys_of_one_script(tmp_path):
    """A script may declare more keys neutral."""
    mine = claim(tmp_path, neutral=["batch_size"])
    mine.take()
    (tmp_path / "results.csv").write_text("")
    claim(tmp_path, "--batch_size=9", neutral=["batch_size"]).check()
    write_json(mine.path, {**mine.identity, "seed": 1})
    refused(claim(tmp_path, neutral=["batch_size"]))


def test_data():
    """Class, length, rate and split count; order and place do not."""
    clip = {"num_samples": 5, "sample_rate": 8, "class_string": "dog"}
    one = {"train": {"a": clip, "b": clip}, "test": {"c": clip}}
    found = data_identity(one, "x")
    assert found["what"] == "2 train, 1 test clips of x"
    same = {"test": {"c": clip}, "train": {"b": clip, "a": clip}}
    assert data_identity(same, "y")["sha256"] == found["sha256"]
    for key, value in (
        ("num_samples", 6),
        ("sample_rate", 9),
        ("class_string", "cat"),
    ):
        other = {**one, "test": {"c": {**clip, key: value}}}
        assert data_identity(other, "x")["sha256"] != found["sha256"]
    swapped = {"train": one["test"], "test": one["train"]}
    assert data_identity(swapped, "x")["sha256"] != found["sha256"]


def recordings(folder):
    """Identity of a folder of recordings."""
    return recordings_identity(list_recordings(folder, "nowhere"), folder)


def test_recordings(tmp_path):
    """Names and contents of sounds count, in any folder."""
    for base in ("a", "b"):
        (tmp_path / base / "tr").mkdir(parents=True)
        (tmp_path / base / "tr" / "1.WAV").write_bytes(b"123")
    (tmp_path / "b" / "notes.txt").write_text("no sound")
    first, second = (recordings(tmp_path / base) for base in "ab")
    assert first["sha256"] == second["sha256"]
    assert second["what"] == f"1 recordings of {tmp_path / 'b'}"
    (tmp_path / "b" / "tr" / "2.flac").write_bytes(b"1")
    assert recordings(tmp_path / "b")["sha256"] != first["sha256"]
    assert recordings(None) == {"sha256": None, "what": "none"}
    (tmp_path / "a" / "tr" / "1.WAV").write_bytes(b"321")
    assert recordings(tmp_path / "a")["sha256"] != first["sha256"]


def test_recordings_are_read_again_only_where_they_moved(tmp_path, monkeypatch):
    read = []

    def spy(path):
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(identity, "file_sha256", spy)
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(b"123")
    known = tmp_path / "known.jsonl"
    known.write_text(to_lines(list_recordings(tmp_path, known)))
    assert read == ["a.wav", "b.wav"]
    (tmp_path / "b.wav").write_bytes(b"321")
    found = list_recordings(tmp_path, known)
    assert read == ["a.wav", "b.wav", "b.wav"]
    assert changes(known, found) == ["b.wav"]


def test_weights():
    """All modules count, in order."""
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    found = weights_identity("m", first, second)
    assert found["what"] == "m"
    assert found["sha256"] == weights_identity("n", first, second)["sha256"]
    assert found["sha256"] != weights_identity("m", second, first)["sha256"]
