"""Tests of the lock of an output folder."""

import errno
import logging
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lmac_sb.utils import lock
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import host, no_link
from lmac_sb.utils.lock import STALE_S, Claim, lock_folder

# Whatever the umask of those who run the tests.
HOLDER = """
import os
import sys
os.umask(0o022)
from lmac_sb.utils.lock import lock_folder
with lock_folder(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(recipe, tmp_path):
    """Another process that holds the folder until it is told to end."""
    process = recipe.copy(["-c", HOLDER, tmp_path], asked=True)
    process.wait_for("held\n")
    yield process
    process.kill()
    process.communicate()


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
    holder.tell("\n")
    assert holder.communicate() == ["held\n", ""] and holder.returncode == 0
    assert not path.exists()
    with lock_folder(tmp_path):
        assert f"process {os.getpid()} on " in path.read_text()


def test_killed_holder(holder, tmp_path):
    """The lock file of a killed process does not count."""
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
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


def test_folder_held_by_another_user(recipe, shared):
    """A run that lives keeps off others; what a killed one left does not."""
    holder = recipe.copy(["-c", HOLDER, shared.folder], asked=True)
    holder.wait_for("held\n")
    with shared.by_another(), pytest.raises(LMACError) as caught:
        with lock_folder(shared.folder):
            pytest.fail("two runs in one folder")
    assert f"is in use by another run (process {holder.pid}" in str(
        caught.value
    )
    holder.kill()
    holder.communicate()
    with shared.by_another():
        assert not os.access(shared.folder / "run.lock", os.W_OK)
        with lock_folder(shared.folder):
            os.seteuid(0)
            done = recipe.command(["-c", HOLDER, shared.folder])
            assert "is in use by another run" in done.err
    assert list(shared.folder.iterdir()) == []


def test_folder_held_for_a_moment_by_another_user(recipe, shared):
    """What was left by a killed process does not switch off the lock."""
    (shared.folder / ".folder.lock").touch(0o644)
    code = "import os, sys; from lmac_sb.utils import lock; os.umask(18)\n"
    code += "with lock.wait_for_folder(sys.argv[1]): print('in', flush=True)"
    with shared.by_another(), lock.wait_for_folder(shared.folder):
        os.seteuid(0)
        other = recipe.copy(["-c", code, shared.folder])
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=2)
    assert other.communicate()[0] == "in\n"
    assert list(shared.folder.iterdir()) == []


def test_a_folder_of_another_user(shared):
    """The message is that of any folder that cannot be written to."""
    closed = shared.folder / "closed"
    closed.mkdir()
    with shared.by_another():
        with pytest.raises(LMACError, match="closed: cannot be made or writ"):
            with lock_folder(closed):
                pytest.fail("nothing can be written there")


# ------------------------------------------------------------------- claims

CLAIMER = """
import os
import sys
os.umask(0o022)
from lmac_sb.utils.lock import Claim
assert Claim(sys.argv[1]).take()
print("held", flush=True)
sys.stdin.read()
"""


def taken(path):
    """Whether a claim can be taken now; leaves it."""
    claim = Claim(path)
    if not claim.take():
        return False
    claim.release()
    assert not Path(path).exists()
    return True


def test_a_claim_of_a_process_that_is_killed(recipe, tmp_path):
    """It is free at once."""
    path = tmp_path / "part"
    holder = recipe.copy(["-c", CLAIMER, path], asked=True)
    holder.wait_for("held\n")
    assert not taken(path)
    # However long it says nothing.
    os.utime(path, (0, 0))
    assert not taken(path)
    holder.kill()
    holder.communicate()
    assert path.exists() and taken(path)


TAKER = """
import os, sys
from lmac_sb.utils.lock import Claim
os.seteuid(int(sys.argv[2]))
sys.exit(Claim(sys.argv[1]).take())
"""


def test_a_claim_of_another_user(recipe, shared):
    """It counts while its process lives, and is free afterwards."""
    path = shared.folder / "part"
    holder = recipe.copy(["-c", CLAIMER, path], asked=True)
    holder.wait_for("held\n")
    with shared.by_another():
        assert not taken(path)
    holder.kill()
    holder.communicate()
    claim = Claim(path)
    with shared.by_another():
        assert path.exists() and not os.access(path, os.W_OK)
        assert claim.take()
    # Kept off are its own user, and others who may not write either.
    for user in (0, 45002):
        assert recipe.command(["-c", TAKER, path, user]).code == 0
    with shared.by_another():
        claim.release()
        assert taken(path)


def test_a_claim_in_a_folder_where_each_deletes_his_own(shared):
    """It can be taken, though not deleted."""
    path = shared.folder / "part"
    path.touch(0o644)
    shared.folder.chmod(0o1777)
    with shared.by_another():
        for _ in range(2):
            claim = Claim(path)
            assert claim.take()
            claim.release()


def test_another_user_removes_a_lock_meanwhile(shared, monkeypatch):
    """It is made anew; a claim is taken the next time."""
    path = shared.folder / "part"

    def removed(name, flags):
        if flags & os.O_ACCMODE == os.O_RDONLY:
            os.unlink(name)
        return no_link(name, flags)

    monkeypatch.setattr(lock, "no_link", removed)
    for name in ("part", "run.lock", ".folder.lock"):
        (shared.folder / name).touch(0o644)
    with shared.by_another():
        claim = Claim(path)
        assert not claim.take()
        assert claim.take()
        claim.release()
        with lock_folder(shared.folder):
            assert os.access(shared.folder / "run.lock", os.W_OK)
            with lock.wait_for_folder(shared.folder):
                assert os.access(shared.folder / ".folder.lock", os.W_OK)
    assert list(shared.folder.iterdir()) == []


def test_a_claim_of_this_process(recipe, tmp_path):
    """Also by another object, which must not free the lock."""
    path = tmp_path / "part"
    claim = Claim(path)
    assert claim.take() and not taken(path)
    code = "import sys; from lmac_sb.utils.lock import Claim;"
    code += "sys.exit(Claim(sys.argv[1]).take())"
    assert recipe.command(["-c", code, path]).code == 0
    claim.release()
    assert taken(path)


GONE, HERE, THERE = 1 << 30, host(), "01234567"


@pytest.mark.parametrize(
    ("text", "age", "locks", "expected"),
    [
        (f"{GONE} {HERE}", 0, True, True),
        (f"{os.getppid()} {HERE}", 0, True, True),  # a number used again
        (f"{GONE} {THERE}", 0, True, False),
        (f"{os.getppid()} {THERE}", 2 * STALE_S, True, True),
        ("", 0, True, True),
        ("no number", 0, True, True),
        (f"{GONE} {HERE}", 0, False, True),
        (f"{os.getppid()} {HERE}", 0, False, False),
        (f"{os.getppid()} {THERE}", 0, False, False),
        (f"{os.getppid()} {THERE}", 2 * STALE_S, False, True),
        ("", 0, False, False),  # it may be about to say who it is
        ("", 2 * STALE_S, False, True),
    ],
)
def test_claims_that_nobody_seems_to_hold(
    tmp_path, monkeypatch, text, age, locks, expected
):
    """On a file system with locks, or without."""
    if not locks:
        monkeypatch.setattr("lmac_sb.utils.lock.fcntl", None)
    path = tmp_path / "part"
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    assert taken(path) == expected
    assert expected or path.read_text() == text


def test_a_claim_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("lmac_sb.utils.lock._BEAT_S", 0.01)
    claim = Claim(tmp_path / "part")
    assert claim.take()
    os.utime(claim.path, (0, 0))
    began = time.monotonic()
    while claim.path.stat().st_mtime == 0:
        assert time.monotonic() - began < 10
        time.sleep(0.01)
    claim.release()


def test_a_claim_on_a_full_disk(tmp_path, monkeypatch):
    """It leaves nothing, and names the file."""

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmac_sb.utils.lock.host", full)
    with pytest.raises(OSError, match="No space left.*part'"):
        Claim(tmp_path / "part").take()
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_no_link(tmp_path):
    (tmp_path / "mine").write_text("text")
    (tmp_path / "part").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        Claim(tmp_path / "part").take()
    assert (tmp_path / "mine").read_text() == "text"
