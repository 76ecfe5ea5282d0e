"""`lmac explain` in several processes, some of which are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.utils.io import read_json

pytestmark = [pytest.mark.faults, pytest.mark.slow]

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
N_SOUNDS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Twelve sounds, of which some share a name and one is none."""
    folder = tmp_path_factory.mktemp("corpus") / "in"
    rng = np.random.default_rng(0)
    for i in range(N_SOUNDS):
        place = folder / f"{i % 3}" / f"{i // 3}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        sf.write(place, rng.standard_normal(16000) / 8, 16000)
    (folder / "1" / "2.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def alone(recipe, model, corpus, tmp_path_factory):
    """Folder of what one process writes, and what it prints, by the form."""
    base, found = tmp_path_factory.mktemp("alone"), {}

    def alone(write):
        if write not in found:
            words = command(model, corpus, write)
            found[write] = recipe.command(words, cwd=base)
            assert found[write].code == 0, found[write].err
        return base / write, found[write].out

    return alone


def command(model, corpus, write, *more, launcher=("-m",)):
    """Words that explain the sounds into a folder called as the form."""
    sounds = [str(corpus)]
    if write == "folders":  # of which several have the same name
        sounds = sorted(map(str, corpus.rglob("*.wav")))
    options = ["--model", str(model), "--out", write, "--write", write]
    return [*launcher, "lmac_sb", "explain", *sounds, *options, *more]


def same(folder, other):
    """What is in two folders, but for the day."""
    names = [
        sorted(str(path.relative_to(top)) for path in top.rglob("*"))
        for top in (folder, other)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        paths = folder / name, other / name
        if name.endswith("explanation.json"):
            facts = [read_json(path) for path in paths]
            for fact in facts:
                fact["made"].pop("date")
            assert facts[0] == facts[1]
        elif paths[0].is_file():
            assert paths[0].read_bytes() == paths[1].read_bytes(), name


@pytest.mark.parametrize("write", ["shards", "folders"])
def test_torchrun(recipe, model, corpus, alone, tmp_path, write):
    """The same files, and the same lines in the same order."""
    launcher = (*TORCHRUN, "-m")
    words = command(model, corpus, write, launcher=launcher)
    done = recipe.command(words, cwd=tmp_path)
    assert done.code == 0, done.err
    folder, out = alone(write)
    assert done.out == out
    assert done.err.count("warning: 1 of 12 files failed") == 1
    same(tmp_path / write, folder)


def children(process):
    """Numbers of the processes that it has started, the first one first."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, path.read_text().split()))


def wait_for_parts(folder, n_parts):
    """Wait until that many chunks are done."""
    began = time.monotonic()
    while len(list(folder.glob("rows/part*"))) < n_parts:
        assert time.monotonic() - began < 120
        time.sleep(0.02)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_is_killed(recipe, model, corpus, alone, tmp_path, rank):
    """Others do its work; without the first nobody tells of it."""
    words = command(model, corpus, "shards", "--processes", "2")
    process = recipe.copy(words, tmp_path)
    wait_for_parts(tmp_path / "shards", 3)
    os.kill(children(process)[rank], signal.SIGKILL)
    out, err = process.communicate(timeout=200)
    folder, expected = alone("shards")
    assert "Traceback" not in err
    if rank == 0:
        assert process.returncode == 1 and err.count("error: ") == 1
        assert "the first of 2 processes was killed by signal 9" in err
        done = recipe.command(words, cwd=tmp_path)
        assert done.code == 0, done.err
        out = done.out
    else:
        assert process.returncode == 0, err
    assert out == expected
    same(tmp_path / "shards", folder)


def test_their_parent_is_killed(recipe, model, corpus, tmp_path):
    """They end, too; a run that goes on finds nothing of theirs."""
    words = command(model, corpus, "folders", "--processes", "2")
    process = recipe.copy(words, tmp_path)
    while len(list(tmp_path.glob("folders/[0-9]*"))) < 2:
        time.sleep(0.02)
    numbers = children(process)
    process.kill()
    process.communicate()
    wait_for_end(numbers)
    done = recipe.command(words[:-2], cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.count("kept from an earlier call") >= 2
    folders = sorted((tmp_path / "folders").iterdir())
    assert len(folders) == N_SOUNDS - 1
    for folder in folders:
        read_clip(folder)


def wait_for_end(numbers):
    """Wait until these processes have ended."""
    began = time.monotonic()
    while any(map(is_alive, numbers)):
        assert time.monotonic() - began < 60
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_their_parent_ends_before_they_have_begun(
    recipe, model, corpus, tmp_path, number
):
    words = command(model, corpus, "folders", "--processes", "2")
    words = [*words, "--refine", "1000"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=tmp_path, env=recipe.environment
    )
    while len(numbers := children(process)) < 2:
        time.sleep(0.001)
    process.send_signal(number)
    process.wait()
    if number == signal.SIGTERM:
        assert process.returncode == 128 + number
        assert not any(map(is_alive, numbers))
    wait_for_end(numbers)


def is_alive(number):
    """Whether a process has not ended."""
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--threshold", "2"], "--threshold: 2.0 is not in (0, 1]"),
        (["--processes", "2"], "--processes: expected without torchrun"),
        (["--exprot"], "unknown option --exprot"),
    ],
)
def test_a_mistake_is_told_once(recipe, model, corpus, tmp_path, more, message):
    words = command(model, corpus, "rows", *more, launcher=(*TORCHRUN, "-m"))
    done = recipe.command(words, cwd=tmp_path)
    assert done.code != 0
    assert done.err.count("error: ") == 1, done.err
    assert message in done.err
    assert not (tmp_path / "rows").exists()


def test_a_mistake_before_the_processes(recipe, model, corpus, tmp_path):
    """Also one that only the model tells."""
    for more, message in [
        (["--processes", "0"], "--processes: 0, expected a whole number"),
        (
            ["--processes", "2", "--target", "cow?"],
            "target: 'cow?' is no class",
        ),
    ]:
        words = command(model, corpus, "rows", *more)
        done = recipe.command(words, cwd=tmp_path)
        assert (done.code, done.out) == (1, "")
        assert len(done.err.splitlines()) == 1 and message in done.err
