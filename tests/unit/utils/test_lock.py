"""Tests of the lock of an output folder."""

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest

from lmac_sb.utils import lock
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.lock import lock_folder

HOLDER = """
import sys
from lmac_sb.utils.lock import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_held_folder(holder, tmp_path):
    """The message names folder and holder; nothing changes."""
    path = tmp_path / "run.lock"
    before = path.read_text()
    for _ in range(2):
        with pytest.raises(LMACError) as caught:
            with lock_folder(tmp_path):
                pytest.fail("two runs in one folder")
        assert f"output_folder: {tmp_path} is in use" in str(caught.value)
        assert f"process {holder.pid} on " in str(caught.value)
    assert path.read_text() == before
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.wait() == 0
    assert not path.exists()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on " in path.read_text()


def test_killed_holder(holder, tmp_path):
    """The lock file of a killed process does not count."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run.lock").exists()
    with lock_folder(tmp_path):
        text = (tmp_path / "run.lock").read_text()
        assert f"process {os.getpid()} on " in text and text.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_released_by_an_error(tmp_path):
    """A run that fails leaves no lock; its folder is made."""
    folder = tmp_path / "a" / "b"
    with pytest.raises(KeyboardInterrupt):
        with lock_folder(folder):
            raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_file_removed_meanwhile(tmp_path, monkeypatch):
    """A lock file that is removed while it is opened is handled."""
    path = tmp_path / "run.lock"
    original, seen = lock._is_same, []

    def removed(file, place):
        if not seen:
            path.unlink()
        seen.append(original(file, place))
        return seen[-1]

    monkeypatch.setattr(lock, "_is_same", removed)
    with lock_folder(tmp_path):
        assert seen == [False, True]
        assert path.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_file_system_without_locks(tmp_path, monkeypatch, caplog, code):
    """A warning, and the run goes on."""

    def lockf(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    with caplog.at_level(logging.WARNING), lock_folder(tmp_path):
        pass
    (record,) = caplog.records
    assert str(tmp_path) in record.getMessage()
    assert "cannot be locked" in record.getMessage()


def test_only_the_main_process_locks(holder, tmp_path, monkeypatch):
    """Other processes of the same run may pass."""
    monkeypatch.setattr(lock, "if_main_process", lambda: False)
    with lock_folder(tmp_path):
        pass
