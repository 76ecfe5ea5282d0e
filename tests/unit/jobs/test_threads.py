"""Tests of threads that work at the same time."""

import threading
import time

import pytest
import torch

from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.threads import crew, n_at_once, stop_if_interrupted


@pytest.fixture
def n_threads():
    """Set the threads that torch would take."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_as_many_as_torch_would_take(n_threads):
    for given, expected in ((1, 1), (3, 3), (64, 4)):
        n_threads(given)
        assert n_at_once() == expected


def test_one_thread_is_this_one():
    with crew(1) as hands:
        assert hands.submit(threading.get_ident).result() == (
            threading.get_ident()
        )


@pytest.mark.parametrize("number", [1, 3])
def test_an_error_is_that_of_one_call(number):
    with crew(number) as hands:
        futures = [hands.submit(divmod, 1, x) for x in (1, 0, 2)]
        assert futures[0].result() == (1, 0)
        with pytest.raises(ZeroDivisionError):
            futures[1].result()
        assert futures[2].result() == (0, 1)


def test_they_work_at_the_same_time(n_threads):
    """Each waits for the others, and each is one thread of torch."""
    n_threads(2)
    barrier = threading.Barrier(3)

    def work():
        barrier.wait(20)
        return torch.get_num_threads()

    with crew(3) as hands:
        futures = [hands.submit(work) for _ in range(3)]
        assert [future.result() for future in futures] == [1, 1, 1]


def test_at_the_end_what_has_begun_is_finished():
    begun, done = threading.Event(), []

    def work():
        begun.set()
        time.sleep(0.2)
        done.append(1)

    with crew(2) as hands:
        futures = [hands.submit(work) for _ in range(9)]
        begun.wait(20)
    assert 1 <= len(done) <= 3
    assert sum(future.cancelled() for future in futures) == 9 - len(done)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_after_an_error_they_clean_up_at_once(error):
    begun, cleaned, went_on = threading.Barrier(3), [], []

    def work():
        try:
            begun.wait(20)
            for _ in range(1000):
                stop_if_interrupted()
                time.sleep(0.02)
            went_on.append(1)
        finally:
            cleaned.append(1)

    start = time.monotonic()
    with pytest.raises(error):
        with crew(2) as hands:
            futures = [hands.submit(work) for _ in range(5)]
            begun.wait(20)
            raise error
    assert time.monotonic() - start < 10
    assert (cleaned, went_on) == ([1, 1], [])
    assert [future.cancelled() for future in futures[2:]] == [True] * 3
    for future in futures[:2]:
        assert isinstance(future.exception(), KeyboardInterrupt)


def lengths(folder, at_once, work=None, **more):
    """A job of nine chunks."""
    job = Job(folder, 9, {"what": "squares"}, chunk=1)

    def square(items):
        files = [(f"{i}.a.txt", str(i).encode()) for i in items]
        return Chunk([{"x": i, "square": i * i} for i in items], files)

    job.run(work or square, at_once=at_once, **more)
    return job


def content(folder):
    """Bytes of all files of a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_job_is_the_same(tmp_path):
    told = []
    lengths(tmp_path / "one", 1)
    lengths(tmp_path / "three", 3, progress=told.append)
    assert content(tmp_path / "one") == content(tmp_path / "three")
    assert told == list(range(9))


def test_chunks_of_a_job_at_the_same_time(tmp_path):
    barrier = threading.Barrier(3)

    def work(items):
        barrier.wait(20)
        return Chunk([{"x": i} for i in items])

    job = lengths(tmp_path, 3, work)
    assert job.frame()["x"].tolist() == list(range(9))


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "full")])
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_job_that_is_stopped_holds_nothing(tmp_path, error, at_once):
    """And the same job goes on where it was."""

    def work(items):
        if items[0] == 4 and not isinstance(error, type):
            raise error
        time.sleep(0.01)
        return Chunk([{"x": i} for i in items])

    def progress(index):
        if index == 4:
            raise error

    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind):
        lengths(tmp_path, at_once, work, progress=progress)
    left = [path.name for path in (tmp_path / "rows").glob(".*")]
    assert left == []
    assert not lengths(tmp_path, at_once).missing()
