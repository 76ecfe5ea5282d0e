"""Tests of the provenance of results."""

import json
import subprocess

from lmac_sb.utils import provenance as provenance_module
from lmac_sb.utils.provenance import provenance


def test_provenance(monkeypatch):
    """Provenance has versions, command and the script's values."""
    monkeypatch.setattr(provenance_module.sys, "argv", ["train.py", "x.yaml"])
    found = provenance(seed=7, fold=[4])
    assert set(found) == {
        "command",
        "commit",
        "python",
        "torch",
        "torchaudio",
        "speechbrain",
        "machine",
        "cpus",
        "seed",
        "fold",
    }
    assert found["command"] == "train.py x.yaml"
    assert (found["seed"], found["fold"]) == (7, [4])
    assert all(value for value in found.values())
    json.dumps(found)


def test_commit_is_unknown_without_git(monkeypatch):
    """Neither a missing git nor a folder outside a clone stops a result."""

    def missing(*args, **kwargs):
        raise FileNotFoundError("git")

    def outside(*args, **kwargs):
        return subprocess.CompletedProcess(args, 128, "", "not a repository")

    for run in (missing, outside):
        monkeypatch.setattr(provenance_module.subprocess, "run", run)
        assert provenance()["commit"] == "unknown"


def test_commit_is_this_code(monkeypatch, tmp_path):
    """The clone of the code counts, not the folder of the caller."""
    expected = provenance()["commit"]
    monkeypatch.chdir(tmp_path)
    assert provenance()["commit"] == expected
