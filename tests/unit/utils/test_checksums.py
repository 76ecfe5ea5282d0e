"""Tests of the checksums of a folder's files."""

import shutil
import subprocess

import pytest

from lmac_sb.utils.checksums import SUMS, check_sums, read_sums, write_sums
from lmac_sb.utils.errors import LMACError

NAMES = ["a b.txt", "model.yaml", "sub/ü.wav"]


@pytest.fixture
def folder(tmp_path):
    """A small folder with sums."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(name)
    assert write_sums(folder) == folder / SUMS
    return folder


@pytest.mark.parametrize("complete", [True, False])
def test_sums_hold(folder, complete):
    """Of all files, in their order; written again they are the same."""
    assert check_sums(folder, complete) == NAMES
    before = (folder / SUMS).read_bytes()
    write_sums(folder)
    assert (folder / SUMS).read_bytes() == before


def test_line_ends_that_git_has_changed_are_named(folder):
    """A checkout may turn them to those of Windows, and back."""
    path = folder / "model.yaml"
    path.write_bytes(b"a: 1\nb: 2\n")
    write_sums(folder)
    for name in (path, folder / SUMS):
        name.write_bytes(name.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(LMACError, match="yaml: its line ends were changed, as"):
        check_sums(folder)
    path.write_bytes(b"a: 1\r\nb: 3\r\n")
    with pytest.raises(LMACError, match="yaml: truncated or changed"):
        check_sums(folder)


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum")
def test_sha256sum_agrees(folder):
    """It checks what we write, and we read what it writes."""
    command = ["sha256sum", "--check", "--strict", SUMS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{name}: OK\n" for name in NAMES)
    found = subprocess.run(
        ["sha256sum", *NAMES], cwd=folder, capture_output=True
    ).stdout
    assert found == (folder / SUMS).read_bytes()
    (folder / NAMES[0]).write_text("other")
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert done.returncode == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["", "other"])
def test_a_changed_file_is_named(folder, name, content):
    """Whether it is cut short or another one."""
    (folder / name).write_text(content)
    with pytest.raises(LMACError, match=f"{name}: truncated or changed"):
        check_sums(folder)


def test_a_missing_file_is_named(folder):
    """In a folder of the folder too."""
    (folder / "sub" / "ü.wav").unlink()
    with pytest.raises(LMACError, match="names .sub/ü.wav., which does not"):
        check_sums(folder)


def test_another_file(folder):
    """It is refused where the sums must be complete."""
    (folder / "sub" / "more").touch()
    assert check_sums(folder) == NAMES
    with pytest.raises(LMACError, match="sub/more: is not in SHA256SUMS"):
        check_sums(folder, complete=True)


@pytest.mark.parametrize("size", range(0, 220, 7))
def test_sums_cut_short(folder, size):
    """They vouch for less than all files."""
    content = (folder / SUMS).read_bytes()
    assert len(content) > 220
    (folder / SUMS).write_bytes(content[:size])
    with pytest.raises(LMACError):
        check_sums(folder, complete=True)


def test_no_sums(folder):
    """A folder without them is refused, and so is what is no text."""
    (folder / SUMS).write_bytes(b"\xff")
    with pytest.raises(LMACError, match=f"{SUMS}: is no text"):
        check_sums(folder)
    (folder / SUMS).unlink()
    with pytest.raises(LMACError, match=f"{SUMS}: no such file"):
        read_sums(folder)


@pytest.mark.parametrize("name", ["/etc/hostname", "../x", "sub/../../x", ""])
def test_no_outer_file(folder, name):
    """No name leads out of the folder."""
    with open(folder / SUMS, "a", encoding="utf-8") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(LMACError, match="names no file of this folder"):
        check_sums(folder)
