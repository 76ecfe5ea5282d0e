"""`lmac explain` that is killed, or finds a full disk, or is not alone."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.inference.collection import clip_folders

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
BROKEN = str(Path(__file__).with_name("broken.py"))
MAIN = str(ROOT / "lmac_sb" / "__main__.py")
NAMES = ["a", "b", "c"]


@pytest.fixture
def files(tmp_path):
    """Three sounds of a second."""
    rng = np.random.default_rng(0)
    paths = []
    for name in NAMES:
        paths.append(str(tmp_path / f"{name}.wav"))
        sf.write(paths[-1], rng.standard_normal(16000) / 8, 16000)
    return paths


@pytest.fixture
def arguments(model, files, tmp_path):
    """Of a call that explains them."""
    out = str(tmp_path / "out")
    return ["explain", *files, "--model", str(model), "--out", out]


@pytest.fixture
def lmac(recipe, broken):
    """Run the command, with a fault if there is one."""

    def lmac(arguments, fault=None):
        start = [MAIN] if fault is None else [BROKEN, fault, MAIN]
        return recipe.command([*start, *map(str, arguments)])

    return lmac


def whole(out, names=NAMES):
    """There are these clips, all whole, and nothing else."""
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    for name in names:
        folders = clip_folders(out / name)
        assert folders
        for folder in folders:
            read_clip(folder)
            hidden = [path for path in folder.iterdir() if path.name[0] == "."]
            assert hidden == []


def shown(out):
    """Those that are there under their names are whole."""
    names = [path.name for path in out.iterdir() if path.name[0] != "."]
    for name in names:
        for folder in clip_folders(out / name) or [out / name]:
            read_clip(folder)
    return names


@pytest.mark.parametrize(
    ("fault", "n_kept"),
    [
        ("kill_picture:1", 0),
        ("kill_replace:c:1", 2),
    ],
    ids=["half a clip", "before its name"],
)
def test_killed(lmac, arguments, tmp_path, fault, n_kept):
    """The same command goes on where it stopped, and tidies up."""
    done = lmac(arguments, fault)
    assert done.code == -signal.SIGKILL, done.err
    out = tmp_path / "out"
    assert len(shown(out)) == n_kept
    done = lmac(arguments)
    assert done.code == 0, done.err
    assert done.out.count("kept from an earlier call") == n_kept
    whole(out)


@pytest.mark.parametrize(
    "fault", ["kill_replace:b:1", "kill_replace:b.former:1"]
)
def test_killed_while_a_clip_is_replaced(lmac, arguments, tmp_path, fault):
    """Either the former one is there, or it comes back."""
    out = tmp_path / "out"
    assert lmac(arguments).code == 0
    (out / "b" / "notes.txt").write_text("mine")
    other = [*arguments, "--threshold", "0.5"]
    assert lmac(other, fault).code == -signal.SIGKILL
    done = lmac(["report", out])
    assert done.code == 0, done.err
    assert "left out" not in done.err
    (out / "report.html").unlink()
    done = lmac(other)
    assert done.out.count("kept from an earlier call") == 1
    whole(out)
    assert (out / "b" / "notes.txt").read_text() == "mine"


def test_killed_in_the_middle_of_the_classes(lmac, arguments, tmp_path):
    """A folder of several classes is one."""
    more = [*arguments, "--targets", "all", "--min-p", "0.1"]
    assert lmac(more, "kill_picture:2").code == -signal.SIGKILL
    out = tmp_path / "out"
    assert shown(out) == []
    done = lmac(more)
    assert done.code == 0, done.err
    whole(out)
    assert len(clip_folders(out / "a")) > 1


@pytest.mark.parametrize(
    ("n_bytes", "ending"), [(3000, "wav"), (20_000, "flac"), (60_000, "wav")]
)
def test_full(lmac, arguments, tmp_path, n_bytes, ending):
    """One line names the file and its folder; nothing half is left."""
    arguments = [*arguments, "--format", ending]
    done = lmac(arguments, f"full_disk:{n_bytes}")
    assert done.code == 1
    assert "Traceback" not in done.err + done.out
    errors = [x for x in done.err.splitlines() if x.startswith("error: ")]
    (error,) = errors
    assert str(tmp_path / "a.wav") in error
    assert str(tmp_path / "out" / "a") in error
    assert "File too large" in error and "free some space" in error
    assert "1 of 1 files failed:" in done.out
    assert f"  {tmp_path / 'a.wav'}: the disk is full\n" in done.out
    assert "File too large" not in done.out  # the error says that, once
    assert not (tmp_path / "out").exists()
    done = lmac(arguments)
    assert done.code == 0, done.err
    whole(tmp_path / "out")


def test_full_in_between(lmac, arguments, files, tmp_path):
    """What went before is kept, and what failed before is listed."""
    bad = tmp_path / "bad.wav"
    bad.write_text("no sound")
    # The picture of a constant is short, but not six seconds of sound.
    sf.write(files[0], np.zeros(16_000) + 0.1, 16000)
    sf.write(files[1], np.zeros(96_000) + 0.1, 16000)
    arguments.insert(1, str(bad))
    done = lmac(arguments, "full_disk:250000")
    assert done.code == 1
    assert "2 of 3 files failed:" in done.out
    assert f"{bad}: cannot be read" in done.out
    assert shown(tmp_path / "out") == ["a"]


def test_two_at_once(recipe, lmac, arguments, files, tmp_path):
    """They share the work, and both end with all of it."""
    more = [str(tmp_path / f"{number}.wav") for number in range(5)]
    for path in more:
        sf.write(path, np.random.default_rng(1).standard_normal(16000), 16000)
    arguments[1:4] = [*files, *more]
    words = [MAIN, *arguments, "--json"]
    processes = [recipe.copy(words, tmp_path) for _ in range(2)]
    rows = []
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        found = json.loads(out)["results"]
        assert len(found) == len(files) + len(more)
        rows += found
    written = [row["file"] for row in rows if not row["kept"]]
    assert sorted(written) == sorted([*files, *more])
    whole(tmp_path / "out", [*NAMES, *map(str, range(5))])
    assert len({os.path.basename(row["folder"]) for row in rows}) == 8
