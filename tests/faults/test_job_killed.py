"""Jobs whose processes are killed, each of them and at any moment."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from worker import IDENTITY, MOMENTS, N_ITEMS, main

from lmac_sb.jobs.job import Job

pytestmark = pytest.mark.faults

WORKER = str(Path(__file__).with_name("worker.py"))
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node")


# Copies of this process, which need not import anything again.
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, helpers):
    """What one process leaves that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    ended(start(folder))
    return helpers.digest(folder)


def start(folder, rank=0, world=1, fault=""):
    """Start one of some processes, without a launcher."""
    process = FORK.Process(target=run, args=(folder, rank, world, fault))
    process.start()
    return process


def run(folder, rank, world, fault):
    """What such a process does."""
    os.environ.update(RANK=f"{rank}", WORLD_SIZE=f"{world}")
    main(folder, fault)


def ended(process, code=0):
    """A process ends as it should."""
    process.join(100)
    assert process.exitcode == code


def complete(folder):
    """Every item has one row, in its place."""
    frame = Job(folder, N_ITEMS, IDENTITY).frame()
    assert frame["id"].tolist() == list(range(N_ITEMS))


@pytest.mark.parametrize("moment", [m for m in MOMENTS if m])
def test_killed_alone(tmp_path, helpers, whole, moment):
    """The same command goes on, and ends like an undisturbed one."""
    ended(start(tmp_path, fault=moment), -signal.SIGKILL)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("rows/part*")}
    assert 5 <= len(before) <= 12
    ended(start(tmp_path))
    assert helpers.digest(tmp_path) == whole
    complete(tmp_path)
    if moment != "one schema":
        # What was there needs no more than the column that came late.
        assert len(before) == 5


@pytest.mark.parametrize("moment", ["work", "half a table", "before a shard"])
def test_killed_beside_another(tmp_path, helpers, whole, moment):
    """The other one does all that is missing, at once."""
    began = time.monotonic()
    processes = [
        start(tmp_path, rank, 2, f"{moment}:1" if rank else "")
        for rank in range(2)
    ]
    ended(processes[1], -signal.SIGKILL)
    ended(processes[0])
    assert time.monotonic() - began < 60, "a dead one's claim is waited for"
    assert helpers.digest(tmp_path) == whole


def test_any_of_several_at_any_time(tmp_path, helpers, whole):
    """Until one is left, and then it too."""
    processes = [start(tmp_path, rank, 3) for rank in range(3)]
    for n_parts, process in zip((2, 5, 7), processes):
        while len(list(tmp_path.glob("rows/part*"))) < n_parts:
            time.sleep(0.01)
        process.kill()
        process.join()
    assert len(list(tmp_path.glob("rows/part*"))) < 12
    ended(start(tmp_path))
    assert helpers.digest(tmp_path) == whole


@pytest.mark.parametrize("world", [2, 3, 20])
def test_several(tmp_path, helpers, whole, world):
    """Also more than there are chunks."""
    for process in [start(tmp_path, rank, world) for rank in range(world)]:
        ended(process)
    assert helpers.digest(tmp_path) == whole


def test_torchrun(recipe, tmp_path, helpers, whole):
    """It ends the others, and the next run goes on.

    Which of them comes to the deadly chunk is chance.
    """
    done = recipe.command([*TORCHRUN, "2", WORKER, str(tmp_path), "work"])
    assert done.code != 0
    assert 1 <= len(list(tmp_path.glob("rows/part*"))) < 12
    done = recipe.command([*TORCHRUN, "2", WORKER, str(tmp_path)])
    assert done.code == 0, done.err
    assert sorted(done.out.split()) == sorted("done by 0 done by 1".split())
    assert helpers.digest(tmp_path) == whole


def test_two_jobs_on_one_folder(tmp_path, helpers, whole):
    """Started by two people, who do not know of each other."""
    processes = [start(tmp_path) for _ in range(2)]
    for process in processes:
        ended(process)
    assert helpers.digest(tmp_path) == whole
