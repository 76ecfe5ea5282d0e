"""Runs of strangers: their yaml is no more trusted than any other."""

import json
import os

import pytest
import torch
import yaml
from folders import CODE, YAML, Trap, added, bomb, replaced

from lmac_sb.inference.export import export_run
from lmac_sb.inference.load import load_interpreter
from lmac_sb.utils.checksums import write_sums

# In a run the yaml may have aliases, and whatever training needs.
BOMBS = {
    "aliases": "label_encoder: &a [1]\n".replace("label_encoder", "zz")
    + "\n".join(f"z{i}: &z{i} [*z{i - 1}, *z{i - 1}]" for i in range(1, 28)),
    "brackets": "z: " + "[" * 40_000,
    "list": "z: [" + "1, " * 350_000 + "1]",
    "itself": "z: &z [*z]",
    "dangling alias": "z: *nothing",
    "no keys": "\n- 1",
}
SETTINGS = {
    "reference": ("min_frames: 32", "min_frames: !ref <nothing>"),
    "alias": ("min_frames: 32", "min_frames: *nothing"),
    "copies": ("min_frames: 32", "min_frames: !copy <explainer>"),
    "number": ("min_frames: 32", "min_frames: 1.0e+300"),
    "outputs": ("out_features: 3", "out_features: 1000000000"),
    "select": ("select_key: loss", "select_key: [loss]"),
    "another key": ("select_key: loss", "select_key: nothing"),
}


@pytest.fixture(autouse=True, scope="module")
def warm(run_folder):
    """What is imported on the way counts for no folder."""
    load_interpreter(run_folder)


@pytest.fixture
def run(run_folder, copied):
    """A copy of a good run."""
    return copied(run_folder)


@pytest.mark.parametrize("name", CODE)
def test_code_in_a_run(run, outcome, tmp_path, name):
    """Neither an explanation nor an export runs it."""
    replaced("min_frames: 32", f"min_frames: {CODE[name]}")(run)
    assert outcome(load_interpreter, run) is not None
    assert outcome(export_run, run, tmp_path / "out") is not None
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CODE)
def test_code_beside_the_model(run, outcome, name):
    """What training alone needs is not read, as always."""
    added(f"z: {CODE[name]}")(run)
    assert outcome(load_interpreter, run) is None


def test_trust_runs_it(run, tmp_path, monkeypatch):
    """The yaml of these tests would leave the canary."""
    monkeypatch.chdir(tmp_path)
    change = (
        "min_frames: !apply:pathlib.Path.mkdir [!new:pathlib.Path [CANARY]]"
    )
    replaced("min_frames: 32", change)(run)
    with pytest.raises(Exception):  # noqa: B017
        load_interpreter(run, trusted=True)
    assert (tmp_path / "CANARY").exists()


@pytest.mark.parametrize("name", BOMBS)
def test_much_work_in_a_run(run, outcome, name):
    added(BOMBS[name])(run)
    assert outcome(load_interpreter, run) is not None


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_a_run(run, outcome, name):
    replaced(*SETTINGS[name])(run)
    assert outcome(load_interpreter, run) is not None


def checkpoint(run):
    """Folder of the run's checkpoint."""
    (found,) = (run / "save").glob("CKPT*")
    return found


METAS = {
    "code": "loss: !!python/object/apply:os.mkdir [CANARY]",
    "brackets": "loss: " + "[" * 40_000,
    "aliases": "z0: &z0 [1]\n"
    + "\n".join(f"z{i}: &z{i} [*z{i - 1}, *z{i - 1}]" for i in range(1, 28)),
    "text": "loss: low\nepoch: 2.0\nunixtime: 1",
    "list": "loss: [1]\nepoch: 2.0\nunixtime: 1",
    "no time": "loss: 1.0\nepoch: 2.0",
    "time": "loss: 1.0\nepoch: 2.0\nunixtime: then",
    "no epoch": "loss: 1.0\nunixtime: 1",
    "dangling alias": "loss: *nothing",
    "nothing": "",
    "number": "1",
    "bytes": "\x00",
    "date": "loss: 2001-01-01\nunixtime: 1",
    "digits": "loss: " + "9" * 9999,
    "tag": "loss: !ref <loss>",
    "long": "loss: 1.0\nz: " + "x" * 3_000_000,
}


@pytest.mark.parametrize("name", METAS)
def test_metadata_of_a_checkpoint(run, outcome, name):
    """Of a run that is explained, or that fine-tuning starts from."""
    (checkpoint(run) / "CKPT.yaml").write_text(METAS[name])
    write_sums(checkpoint(run))
    assert outcome(load_interpreter, run) is not None


def spoil(name, content):
    """Write to a file of a run."""

    def change(run):
        (run / name).write_bytes(content)

    return change


def weights(change):
    """Change the decoder's weights."""

    def spoiled(run):
        change(checkpoint(run) / "decoder.ckpt")
        write_sums(checkpoint(run))

    return spoiled


def fifo(path):
    """A pipe in place of a file."""
    path.unlink()
    os.mkfifo(path)


def linked(path):
    """A link out of the folder in place of a file."""
    target = path.parents[path.parts[::-1].index("given")] / path.name
    path.rename(target)
    path.symlink_to(target)


def hole(path):
    """A file of a terabyte, of which nothing is there."""
    with open(path, "ab") as file:
        file.truncate(10**12)


FILES = {
    "experiment {}": spoil("experiment.json", b"{}"),
    "experiment []": spoil("experiment.json", b"[]"),
    "experiment [[[": spoil("experiment.json", b"[" * 100_000),
    "experiment number": spoil(
        "experiment.json", b'{"classifier_folder": {"sha256": 1}}'
    ),
    "results []": spoil("results.json", b"[]"),
    "results null": spoil("results.json", b"null"),
    "results epoch": spoil(
        "results.json", b'{"provenance": {"epoch": "x"}, "summary": {"a": 1}}'
    ),
    "results bytes": spoil("results.json", b"\xff"),
    "weights with code": weights(lambda path: torch.save({"a": Trap()}, path)),
    "weights as a bomb": weights(lambda path: path.write_bytes(bomb())),
    "weights elsewhere": weights(linked),
    **{
        f"{name} {what.__name__}": lambda run, n=name, f=what: f(run / n)
        for name in (YAML, "results.json", "experiment.json")
        for what in (fifo, linked, hole)
    },
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_run(run, outcome, tmp_path, name):
    """Neither believed nor waited for."""
    FILES[name](run)
    assert outcome(export_run, run, tmp_path / "out") is not None
    assert not (tmp_path / "out").exists()


def test_its_own_yaml_is_not_changed(run, run_folder):
    """Reading a run writes nothing to it."""
    load_interpreter(run)
    for path in run.rglob("*"):
        if path.is_file():
            kept = run_folder / path.relative_to(run)
            assert path.read_bytes() == kept.read_bytes()
    assert yaml.safe_load((run / "results.json").read_text())
    assert json.loads((run / "experiment.json").read_text())
