"""A user whom the system knows by a number alone, as in many containers."""

import subprocess
import sys
from pathlib import Path

from lmac_sb.utils.portable import portable
from lmac_sb.utils.user import home_name, user_name

# In a process of its own, since torch asks once.
PROGRAM = """
import getpass
import torch
from lmac_sb.utils.user import help_torch

def unknown():
    raise KeyError("getpwuid(): uid not found: 45001")

getpass.getuser = unknown
help_torch()
torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
"""


def test_names_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("LOGNAME", "anna")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert (user_name(), home_name()) == ("anna", "ann")


def test_neither_a_name_nor_a_home_is_needed(monkeypatch):
    def unknown():
        raise KeyError("getpwuid(): uid not found: 45001")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setattr(Path, "home", homeless)
    assert (user_name(), home_name()) == (None, None)
    assert portable("/x/y.wav") == ".../y.wav"


def test_torch_makes_an_optimizer_for_a_user_without_a_name(monkeypatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
