"""`lmac explain` by several threads: the same files, also if it is stopped."""

import json
import signal
import time
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.inference.collection import clip_folders

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
BROKEN = str(Path(__file__).with_name("broken.py"))
MAIN = str(ROOT / "lmac_sb" / "__main__.py")
BAD = "1/b.wav"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Nine sounds with three names; one is none, and one is long."""
    folder = tmp_path_factory.mktemp("corpus") / "in"
    rng = np.random.default_rng(0)
    for i in range(9):
        place = folder / f"{i // 3}" / f"{'abc'[i % 3]}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        seconds = 25 if i == 2 else 1
        sf.write(place, rng.standard_normal(seconds * 16000) / 8, 16000)
    (folder / BAD).write_text("no sound")
    return folder


def words(model, corpus, write, out, *more):
    """The command, as a list."""
    files = [str(corpus)]
    if write == "folders":  # of which several have the same name
        files = sorted(map(str, corpus.rglob("*.wav")))
    options = ["--model", str(model), "--out", str(out), "--write", write]
    return ["explain", *files, *options, *more]


def begin(recipe, arguments, n_threads, fault=None):
    """Start it, maybe with a fault; it explains so many sounds at once."""
    start = [MAIN] if fault is None else [BROKEN, fault, MAIN]
    environment = {**recipe.environment, "OMP_NUM_THREADS": str(n_threads)}
    return recipe.copy([*start, *arguments], environment=environment)


def run(recipe, *how):
    """Run it, and wait for its end."""
    process = begin(recipe, *how)
    out, err = process.communicate(timeout=300)
    return CompletedProcess(how, process.returncode, out, err)


def content(folder):
    """All files of a folder, without the day of each explanation."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "explanation.json":
                data = json.loads(data)
                data["made"].pop("date")
            found[str(path.relative_to(folder))] = data
    return found


@pytest.mark.parametrize(
    ("write", "more"),
    [
        ("folders", ()),
        ("folders", ("--targets", "all", "--min-p", "0.05", "--json")),
        ("shards", ("--refine", "2")),
        ("rows", ("--quiet",)),
    ],
)
def test_in_series_and_at_once(recipe, model, corpus, tmp_path, write, more):
    """Byte for byte, and line for line."""
    done = {}
    for n_threads in (1, 3):
        (tmp_path / f"{n_threads}").mkdir()
        out = tmp_path / f"{n_threads}" / "out"
        arguments = words(model, corpus, write, out, *more)
        done[n_threads] = run(recipe, arguments, n_threads)
        assert done[n_threads].returncode == 0, done[n_threads].stderr
    one, other = (content(tmp_path / f"{n}") for n in (1, 3))
    assert len(one) > 2 and one == other
    for name in ("stdout", "stderr"):
        one, other = (
            getattr(done[n], name).replace(f"/{n}/out", "/out") for n in (1, 3)
        )
        assert one == other
    assert BAD in done[3].stdout
    assert "warning: 1 of 9 files failed" in done[3].stderr


@pytest.mark.parametrize("write", ["folders", "shards"])
def test_ctrl_c(recipe, model, corpus, tmp_path, write):
    """It ends soon and says so, and the same command goes on."""
    out = tmp_path / "out"
    arguments = words(model, corpus, write, out)
    process = begin(recipe, arguments, 3)
    pattern = "*/explanation.json" if write == "folders" else "rows/part*"
    began = time.monotonic()
    while not list(out.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < 300
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "stopped" and "Traceback" not in err
    assert list(out.rglob(".*")) == []
    for folder in out.glob("*") if write == "folders" else ():
        assert [read_clip(path) for path in clip_folders(folder)]
    done = run(recipe, arguments, 3)
    assert done.returncode == 0, done.stderr
    whole = run(recipe, words(model, corpus, write, tmp_path / "whole"), 1)
    assert whole.returncode == 0
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("write", ["folders", "shards"])
def test_a_full_disk(recipe, model, corpus, tmp_path, write):
    """One line, and nothing half is left, whoever finds it first."""
    out = tmp_path / "out"
    arguments = words(model, corpus, write, out)
    # Several threads find at once that there is no room for a second.
    done = run(recipe, arguments, 3, "full_disk:40000")
    assert done.returncode == 1
    errors = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    assert "free some space" in errors[0] and str(out) in errors[0]
    assert list(out.rglob(".*")) == []
    done = run(recipe, arguments, 3)
    assert done.returncode == 0, done.stderr


def test_two_commands_at_once(recipe, model, corpus, tmp_path):
    """Each by several threads: they share the work, and name the same."""
    arguments = words(model, corpus, "folders", tmp_path / "out", "--json")
    processes = [begin(recipe, arguments, 2) for _ in range(2)]
    rows = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        rows += json.loads(out)["results"]
    assert len(rows) == 16
    assert sorted(row["kept"] for row in rows) == [False] * 8 + [True] * 8
    assert len({row["folder"] for row in rows}) == 8
