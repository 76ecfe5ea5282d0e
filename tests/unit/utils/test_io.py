"""Tests of files that appear complete or not at all."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmac_sb.utils import io
from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.io import (
    check_folder,
    check_readable,
    folder_in_one_step,
    is_leftover,
    no_link,
    open_regular,
    part_folder,
    remove_leftovers,
    restore_folder,
    write_csv,
    write_in_one_step,
    write_json,
)

NAN = float("nan")


def test_csv_round_trip(tmp_path):
    """A csv is read as it was written, with quotes."""
    path = tmp_path / "results.csv"
    rows = [{"id": 'a,"b"', "AI": 100.0}, {"id": "ü", "AI": NAN}]
    write_csv(path, rows)
    assert path.read_bytes().startswith(b"id,AI\n")
    with open(path, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ['a,"b"', "ü"]
    assert found[0]["AI"] == "100.0" and math.isnan(float(found[1]["AI"]))
    assert list(tmp_path.iterdir()) == [path]


def test_json_round_trip(tmp_path):
    """JSON is read as it was written."""
    content = {"summary": {"lmac": {"AI": [0.1, 2]}}, "command": "ü x.py"}
    path = tmp_path / "results.json"
    write_json(str(path), content)
    assert json.loads(path.read_text(encoding="utf-8")) == content
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_in_one_step(tmp_path):
    """Bytes are written as they are, lines with their ends."""
    path = tmp_path / "x"
    write_in_one_step(path, lambda file: file.write(b"\r\n\xff"), binary=True)
    assert path.read_bytes() == b"\r\n\xff"
    write_in_one_step(path, lambda file: file.write("ü\n"))
    assert path.read_bytes() == "ü\n".encode()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    "write, content",
    [
        (write_csv, [{"a": 1}, {"a": 2, "b": 3}]),
        (write_csv, []),
        (write_json, {"a": 1, "b": object()}),
    ],
    ids=["csv", "no rows", "json"],
)
def test_failed_write_leaves_nothing(tmp_path, write, content, old):
    """The old file stays as it was, and no part of the new one."""
    path = tmp_path / "results"
    if old:
        path.write_text("old")
    with pytest.raises((ValueError, TypeError, IndexError)):
        write(path, content)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * old


def test_name_is_only_given_to_a_complete_file(tmp_path, monkeypatch):
    """While it is written, the file has another name in the same folder."""
    path = tmp_path / "results.json"
    path.write_text("old")
    seen = []
    replace = io.os.replace

    def watched(part, target):
        seen.append((part.parent, json.loads(part.read_text())))
        assert path.read_text() == "old"
        replace(part, target)

    monkeypatch.setattr(io.os, "replace", watched)
    write_json(path, {"a": 1})
    assert seen == [(tmp_path, {"a": 1})]
    assert json.loads(path.read_text()) == {"a": 1}


ROOT = Path(__file__).resolve().parents[3]

# Writes a text in two halves, and waits in between to be told to go on.
SLOW_WRITER = """
import sys
from lmac_sb.utils.io import write_in_one_step

def write(file):
    file.write(sys.argv[2])
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(sys.argv[2])

write_in_one_step(sys.argv[1], write)
"""


@pytest.fixture
def slow_writer():
    """Start a process that has written half of a file."""
    started = []

    def start(path, text):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW_WRITER, str(path), text],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "half\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_write_one_file(slow_writer, tmp_path):
    """Each writes a whole one; the last one's stays."""
    path = tmp_path / "x.txt"
    first = slow_writer(path, "a")
    second = slow_writer(path, "b")
    for process, text in ((second, "bb"), (first, "aa")):
        process.communicate("\n")
        assert process.returncode == 0
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_the_usual_ones(tmp_path):
    """Others may read what they may read of any file."""
    former = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", 1)
        with folder_in_one_step(tmp_path / "folder"):
            pass
    finally:
        os.umask(former)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_what_a_kill_leaves(slow_writer, tmp_path):
    """One file with a name of its own, deleted when it is written again."""
    path, other = tmp_path / "x.txt", tmp_path / "y.txt"
    process = slow_writer(path, "a")
    running = slow_writer(other, "b")
    process.kill()
    process.wait()
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 2
    for name, written in zip(names, ("x.txt", "y.txt")):
        assert re.fullmatch(rf"\.{written}\.\d+@.+\.[0-9a-f]+\.part", name)
    write_in_one_step(other, lambda file: file.write("c"))
    write_in_one_step(path, lambda file: file.write("d"))
    assert {p.name for p in tmp_path.iterdir()} == {*names[1:], path.name} | {
        other.name
    }
    running.communicate("\n")
    assert running.returncode == 0 and other.read_text() == "bb"


def test_leftovers_of_the_living_stay(slow_writer, tmp_path):
    """Only what a dead process left is removed, folders too."""
    holder = slow_writer(tmp_path / "x", "a")
    (tmp_path / f".a.{holder.pid}.x").mkdir()
    dead = tmp_path / f".a.{1 << 30}.x"
    dead.mkdir()
    (dead / "file").touch()
    (tmp_path / ".a.none.x").touch()
    remove_leftovers(tmp_path, r"\.a\.(\d+)\.x")
    holder.communicate("\n")
    names = {path.name for path in tmp_path.iterdir()} - {"x"}
    assert names == {f".a.{holder.pid}.x", ".a.none.x"}
    remove_leftovers(tmp_path / "nowhere", r"(\d+)")


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="no /proc on this system"
)
def test_a_process_that_nobody_has_asked_about_has_ended(tmp_path):
    """Whose parent was killed too may wait a while until somebody asks."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1)
    path = tmp_path / f"a.{process.pid}.tmp"
    path.touch()
    remove_leftovers(tmp_path, r"a\.(\d+)\.tmp")
    assert path.exists() and io.is_running(process.pid)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not io.is_running(process.pid)
    remove_leftovers(tmp_path, r"a\.(\d+)\.tmp")
    assert not path.exists()
    process.wait()


def test_folder_in_one_step(tmp_path):
    """It has its name once it is whole; folders above it are made."""
    folder = tmp_path / "deep" / "x"
    with folder_in_one_step(folder) as part:
        assert part.parent == folder.parent and not folder.exists()
        (part / "a").write_text("a")
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("old", [None, "empty", "full"])
def test_folder_that_fails(tmp_path, old, replace):
    """What was there stays, and nothing of the new one."""
    folder = tmp_path / "x"
    if old:
        folder.mkdir()
    if old == "full":
        (folder / "old").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        with folder_in_one_step(folder, replace) as part:
            (part / "new").touch()
            raise KeyboardInterrupt
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("replace", [True, False])
def test_folder_that_is_there(tmp_path, replace):
    """An empty one is replaced, another one only if that is asked for."""
    folder = tmp_path / "x"
    folder.mkdir()
    with folder_in_one_step(folder, replace) as part:
        (part / "old").touch()
    try:
        with folder_in_one_step(folder, replace) as part:
            (part / "new").touch()
        assert replace
    except OSError:
        assert not replace
    names = [path.name for path in folder.iterdir()]
    assert names == ["new" if replace else "old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_folder_behind_a_link(tmp_path):
    """The link stays one, as the folder may lie on another disk."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with folder_in_one_step(tmp_path / "link", replace=True) as part:
        (part / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").exists()


def test_folder_that_cannot_get_its_name(tmp_path, monkeypatch):
    """The former one gets its name back."""
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "old").touch()
    replace = os.replace

    def refused(source, target):
        if source.name.endswith(".part"):
            raise OSError("refused")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="refused"):
        with folder_in_one_step(folder, replace=True):
            pass
    assert list(folder.iterdir()) == [folder / "old"]
    assert list(tmp_path.iterdir()) == [folder]


def test_restored_only_where_it_is_missing(tmp_path):
    """What was left of a replacement that went through is not wanted."""
    folder, former = tmp_path / "x", tmp_path / "x.former"
    restore_folder(folder)
    assert not folder.exists()
    for path in (folder, former):
        path.mkdir()
        (path / path.name).touch()
    restore_folder(folder)
    assert list(folder.iterdir()) == [folder / "x"]
    with folder_in_one_step(folder, replace=True) as part:
        (part / "new").touch()
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_another_user_is_replaced(shared, caplog):
    """Again and again; what cannot be deleted is told, and its owner does."""
    folder = shared.folder / "x"
    (shared.folder / "x.former").mkdir()
    for path in (folder, folder.with_name("x.former")):
        path.mkdir(exist_ok=True)
        (path / "old").touch()
    with shared.by_another():
        for name in ("a", "b"):
            with folder_in_one_step(folder, replace=True) as part:
                (part / name).touch()
            assert [path.name for path in folder.iterdir()] == [name]
    parts = [x for x in shared.folder.iterdir() if is_leftover(x.name)]
    assert len(parts) == len(caplog.messages) == 2
    for part in parts:
        assert any(x.startswith(f"{part}: cannot be") for x in caplog.messages)
        gone = re.sub(r"(\.x\.)\d+(@.*)", rf"\g<1>{1 << 30}\2", part.name)
        part.rename(part.with_name(gone))
    with folder_in_one_step(folder, replace=True) as part:
        (part / "c").touch()
    assert list(shared.folder.iterdir()) == [folder]


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_that_may_not_be_read(shared, mode):
    """Nor may what lies in it; a file is not looked at."""
    folder = shared.folder / "x"
    folder.mkdir()
    (folder / "y").mkdir()
    folder.chmod(mode)
    with shared.without_rights():
        for path in (folder, folder / "y")[: 1 + (mode != 0o111)]:
            with pytest.raises(LMACError) as caught:
                check_readable(path, "--x")
            told = f"--x: {path} cannot be read (Permission denied)"
            assert str(caught.value) == told
    folder.chmod(0o700)
    (shared.folder / "file").touch(0)
    with shared.without_rights():
        check_readable(shared.folder / "file", "--x")


@pytest.mark.parametrize("name", ["x", "x/y", "x/y/z"])
def test_results_where_a_user_may_not_go(shared, name):
    """Nothing is made, and the line is that of any such folder."""
    (shared.folder / "x").mkdir(0o700)
    (shared.folder / "x").chmod(0)
    with shared.without_rights(), pytest.raises(LMACError) as caught:
        check_folder(shared.folder / name, "--out")
    (shared.folder / "x").chmod(0o700)
    assert str(caught.value) == (
        f"--out: {shared.folder / name} cannot be made or written to "
        "(Permission denied)"
    )


def test_links_give_way(tmp_path):
    """What they lead to stays as it is."""
    mine, path = tmp_path / "mine", tmp_path / "x.json"
    mine.write_text("mine")
    path.symlink_to(mine)
    write_json(path, 1)
    assert mine.read_text() == "mine" and path.read_text() == "1"
    path.unlink()
    path.symlink_to(mine)
    with pytest.raises(LMACError, match="x.json: is a link"):
        open_regular(path, 100)
    with pytest.raises(OSError):
        open(path, "a", opener=no_link)


def test_what_is_no_regular_file(tmp_path):
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(LMACError, match="is no regular file"):
            open_regular(path, 1 << 40)


def test_errors_of_writing_name_the_file(tmp_path):
    """Whatever the system says, and of each kind."""
    path = tmp_path / "x" / "a.json"
    with pytest.raises(FileNotFoundError, match=r"x/a\.json'$"):
        write_json(path, 1)

    def full(file):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"device: '.*b\.json'$") as caught:
        write_in_one_step(tmp_path / "b.json", full)
    assert is_full(caught.value)


def test_temporary_names_tell_nothing_and_fit(tmp_path, monkeypatch):
    """Neither the name of the machine, nor more than a name may hold."""
    monkeypatch.setattr(io.socket, "gethostname", lambda: "h" * 64)
    path = tmp_path / ("ü" * 127)
    with part_folder(path) as part:
        assert "hhh" not in part.name and is_leftover(part.name)
        assert io.parts_of(path) == [part]
    write_json(path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["ü" * 127]


def test_parts_of_the_dead(slow_writer, tmp_path):
    """They are told from those of others, and all removed at once."""
    processes = [slow_writer(tmp_path / name, "a") for name in "xy"]
    (part,) = io.parts_of(tmp_path / "x")
    processes[0].kill()
    processes[0].wait()
    io.remove_parts(tmp_path)
    assert not part.exists()
    assert list(tmp_path.iterdir()) == io.parts_of(tmp_path / "y")


def test_part_folder(tmp_path):
    """Each is another one, and gone in the end."""
    with part_folder(tmp_path / "x") as a, part_folder(tmp_path / "x") as b:
        assert a != b and a.parent == b.parent == tmp_path
        (a / "file").touch()
    assert list(tmp_path.iterdir()) == []
