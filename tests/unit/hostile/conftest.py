"""Fixtures: what a hostile folder may cost at the most."""

import resource
import shutil
import sys
import time

import pytest
from folders import CANARY

from lmac_sb.utils.errors import LMACError

SECONDS = 4  # of a processor; twice what is promised, for slow machines
BYTES = 200 << 20


@pytest.fixture
def copied(tmp_path):
    """A copy of a folder that a test may change."""

    def copy(folder):
        return shutil.copytree(folder, tmp_path / "given" / folder.name)

    return copy


def highest():
    """Most memory that this process has ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture
def outcome(tmp_path, monkeypatch, capfd):
    """Call something: its error in one line, or None, within the limits."""
    monkeypatch.chdir(tmp_path)

    def call(function, *args):
        before, start, message = highest(), time.process_time(), None
        try:
            function(*args)
        except LMACError as error:
            message = str(error)
        except SystemExit as stop:
            lines = capfd.readouterr().err.strip().splitlines()
            message = lines[-1] if stop.code else None
            assert not stop.code or message.startswith("error: ")
        took = time.process_time() - start
        assert not (tmp_path / CANARY).exists(), "code of the folder was run"
        assert took < SECONDS, f"took {took:.1f} s"
        assert highest() - before < BYTES
        if message is not None:
            assert "\n" not in message
            assert len(message) < 1500
        return message

    return call
