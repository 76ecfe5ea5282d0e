"""Tests of work in chunks, within one process."""

import errno
import hashlib
import json
import math
import os
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.shards import Shard
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.lock import Claim

IDENTITY = {"what": "squares", "options": {"threshold": None, "n": [1, 2]}}


def squares(items):
    """Rows of which the first know little, and files of the odd items."""
    rows = [
        {
            "id": f"{x}",
            "square": x * x if x < 4 else x * x / 2,
            "late": None if x < 6 else f"{x}",
            "nan": math.nan if x % 3 else None,
        }
        for x in items
    ]
    return Chunk(rows, [(f"{x:03d}.txt", b"%d" % x) for x in items if x % 2])


def digest(folder):
    """Name and checksum of each file of a job."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture
def whole(tmp_path):
    """What the job leaves that ran without trouble."""
    Job(tmp_path / "whole", 11, IDENTITY, chunk=2).run(squares)
    return digest(tmp_path / "whole")


@pytest.fixture
def job(tmp_path):
    """The same job before it runs."""
    return Job(tmp_path / "job", 11, IDENTITY, chunk=2)


def test_all_rows_in_order(job, whole):
    job.run(squares)
    assert digest(job.folder) == whole
    frame = job.frame()
    assert frame["id"].tolist() == [str(x) for x in range(11)]
    assert frame["square"].tolist() == [
        float(x * x) if x < 4 else x * x / 2 for x in range(11)
    ]
    assert list(frame.columns) == ["id", "square", "late", "nan"]
    assert job.frame(["late", "id"]).columns.tolist() == ["late", "id"]
    assert len({table.schema for table in job.tables()}) == 1
    shards = [Shard(path) for path in sorted(job.folder.glob("clips/*.tar"))]
    assert [key for shard in shards for key in shard.keys] == [
        "001",
        "003",
        "005",
        "007",
        "009",
    ]


def test_the_folder_is_a_table_for_others(job):
    """Of one schema, though the first chunks have nulls alone."""
    job.run(squares)
    table = pq.read_table(job.folder / "rows")
    assert len(table) == 11
    assert table.column("late").to_pylist() == [None] * 6 + list("6789") + [
        "10"
    ]
    assert table.column("nan").null_count == 4
    schemas = {pq.read_schema(p) for p in job.folder.glob("rows/*.parquet")}
    assert len({schema.remove_metadata() for schema in schemas}) == 1


def test_nothing_but_its_parts_is_left(job):
    job.run(squares)
    assert sorted(p.name for p in job.folder.iterdir()) == [
        "clips",
        "job.json",
        "rows",
    ]
    assert sorted(p.name for p in (job.folder / "rows").iterdir()) == [
        f"part-{i:05d}.parquet" for i in range(6)
    ]
    text = (job.folder / "job.json").read_text()
    assert json.loads(text) == {"items": 11, "chunk": 2, "identity": IDENTITY}


def test_no_work_is_done_twice(job):
    done = []

    def work(items):
        done.extend(items)
        return squares(items)

    job.run(work)
    job.run(work)
    Job(job.folder, 11, IDENTITY).run(work)
    assert done == list(range(11))


def test_progress_is_in_order(job):
    """Of all chunks, also those that were there."""
    told = []
    job._write(3, squares(job.items(3)))
    job.run(squares, told.append)
    assert told == list(range(6))
    told.clear()
    Job.open(job.folder).run(squares, told.append)
    assert told == list(range(6))


@pytest.mark.parametrize("n_items", [0, 1])
def test_few_items(tmp_path, n_items):
    job = Job(tmp_path, n_items, IDENTITY)
    job.run(squares)
    assert len(job.frame()) == n_items
    assert len(list(job.tables())) == n_items


def test_chunks_of_their_own_size(tmp_path):
    """Few files for many items, and many for few."""
    for n_items, chunk in [(5, 1), (2000, 8), (100_000, 256), (10**6, 256)]:
        job = Job(tmp_path / f"{n_items}", n_items, {})
        assert job.chunk == chunk
    assert job.items(job.n_chunks - 1) == range(10**6 - 64, 10**6)


def test_one_thread(job, monkeypatch):
    found = []

    def work(items):
        found.append(torch.get_num_threads())
        return squares(items)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        job.run(work)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(found) == {1}


def test_rows_that_come_with_the_files(tmp_path):
    """Which are made one after the other."""

    def work(items):
        rows = []

        def files():
            for x in items:
                rows.append({"x": x})
                if x == 3:
                    yield "3.txt", b"3"

        return Chunk(rows, files())

    job = Job(tmp_path, 6, {}, chunk=2)
    job.run(work)
    assert job.frame()["x"].tolist() == list(range(6))
    assert [p.name for p in tmp_path.glob("clips/*")] == ["part-00001.tar"]


# ------------------------------------------------------------ another job


@pytest.mark.parametrize(
    ("n_items", "identity", "message"),
    [
        (12, IDENTITY, "items: there 11, here 12"),
        (11, {**IDENTITY, "what": "cubes"}, "what: there 'squares', here 'cub"),
        (
            11,
            {"what": "squares", "options": {"threshold": 0.5, "n": [1, 2]}},
            "options.threshold: there None, here 0.5",
        ),
        (11, {**IDENTITY, "more": 1}, "more: there None, here 1"),
        (
            12,
            {"a": 1, "b": 2, "c": 3},
            "items: .*; what: .*; options.n: .*; and 3 more",
        ),
    ],
)
def test_another_job_is_refused(job, n_items, identity, message):
    job.run(squares)
    before = digest(job.folder)
    with pytest.raises(LMACError, match=message) as error:
        Job(job.folder, n_items, identity)
    assert str(error.value).startswith(f"{job.folder}: holds another job: ")
    assert "\n" not in str(error.value)
    assert digest(job.folder) == before


def test_another_job_that_may_be_replaced(job):
    """Not while anybody works on it; what it has found is gone then."""
    job._write(1, squares(job.items(1)))
    claim = job._claim("part-00000")
    assert claim.take()
    with pytest.raises(LMACError, match="holds another job: items"):
        Job(job.folder, 4, IDENTITY, chunk=2, replace=True)
    claim.release()
    (job.folder / "rows" / ".part-00002.claim").touch()  # of a killed one
    Job(job.folder, 11, IDENTITY, replace=True)
    assert job.rows_file(1).exists()  # the same job
    other = Job(job.folder, 4, IDENTITY, chunk=2, replace=True)
    assert other.missing() == [0, 1]
    other.run(squares)
    assert len(other.frame()) == 4
    assert len(list(other.folder.glob("clips/*"))) == 2


def test_what_json_makes_of_an_identity(tmp_path):
    identity = {"n": (1, 2), "x": math.nan, 3: "a"}
    Job(tmp_path, 1, identity)
    Job(tmp_path, 1, identity)


def test_rows_of_nobody(job):
    job.run(squares)
    (job.folder / "job.json").unlink()
    with pytest.raises(LMACError, match="holds rows, but no job.json"):
        Job(job.folder, 11, IDENTITY)


@pytest.mark.parametrize("text", ["", "[1]", '{"items": -1}', '{"items": "1"}'])
def test_a_damaged_job_file(job, text):
    (job.folder / "job.json").write_text(text)
    for open_it in (
        lambda: Job(job.folder, 11, IDENTITY),
        lambda: Job.open(job.folder),
    ):
        with pytest.raises(LMACError, match="job.json: "):
            open_it()


def test_a_folder_without_a_job(tmp_path):
    with pytest.raises(LMACError, match="job.json: no such file"):
        Job.open(tmp_path)
    with pytest.raises(LMACError, match="file/x: cannot be made or written"):
        (tmp_path / "file").touch()
        Job(tmp_path / "file" / "x", 1, {})


def test_what_is_there_of_a_job_that_goes_on(job):
    job._write(1, squares(job.items(1)))
    reader = Job.open(job.folder)
    assert reader.missing() == [0, 2, 3, 4, 5]
    assert (reader.n_items, reader.chunk, reader.identity) == (11, 2, IDENTITY)
    with pytest.raises(LMACError, match="part-00000.parquet: no such file"):
        reader.frame()


def test_an_unknown_column(job):
    job.run(squares)
    with pytest.raises(LMACError, match="job: no column 'sqare'"):
        job.frame(["sqare"])


# ---------------------------------------------------------------- trouble


@pytest.mark.parametrize(
    "damage",
    [
        lambda job: os.truncate(job.rows_file(2), 50),
        lambda job: job.rows_file(2).write_text("no table"),
        lambda job: job.rows_file(2).unlink(),
        lambda job: job.shard_file(2).unlink(),
        lambda job: os.truncate(job.shard_file(2), 512),
        lambda job: os.replace(job.rows_file(1), job.rows_file(2)),
    ],
)
def test_damaged_parts_are_made_again(job, whole, damage, caplog):
    """With a warning that names the file."""
    job.run(squares)
    before = job.rows_file(2).exists()
    damage(job)
    done = []

    def work(items):
        done.append(items.start)
        return squares(items)

    Job(job.folder, 11, IDENTITY).run(work)
    assert 4 in done and len(done) <= 2
    assert digest(job.folder) == whole
    warned = [r.message for r in caplog.records]
    assert len(warned) <= 1
    if before and job.rows_file(2).exists() and warned:
        assert "part-0000" in warned[0] and "made again" in warned[0]


def test_an_error_of_the_work(job, whole):
    """It ends the job, and the chunk is free at once."""

    def work(items):
        if 4 in items:
            raise LMACError("4: no such thing")
        return squares(items)

    with pytest.raises(LMACError, match="4: no such thing"):
        job.run(work)
    assert job.missing() == [2, 3, 4, 5]
    assert list(job.folder.glob("rows/.*")) == []
    job.run(squares)
    assert digest(job.folder) == whole


@pytest.mark.parametrize("place", ["rows", "shards"])
def test_a_full_disk(job, whole, monkeypatch, place):
    """An error that names the file; nothing half is left."""
    from lmac_sb.jobs import rows, shards

    module = {"rows": rows, "shards": shards}[place]
    write = module.write_in_one_step

    def full(path, writer, binary):
        if "part-00002" in str(path):

            def writer(file):
                file.write(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")

        write(path, writer, binary)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_in_one_step", full)
        with pytest.raises(OSError, match="part-00002") as error:
            job.run(squares)
        assert error.value.errno == errno.ENOSPC
    assert job.missing() == [2, 3, 4, 5]
    assert list(job.folder.rglob(".*")) == []
    job.run(squares)
    assert digest(job.folder) == whole


def test_killed_while_the_schema_is_made_one(job, whole, monkeypatch):
    from lmac_sb.jobs import job as module

    write, calls = module.write_table, []

    def killed(path, table, about):
        calls.append(path)
        if len(calls) == 8:  # the second that is written again
            raise KeyboardInterrupt
        write(path, table, about)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_table", killed)
        with pytest.raises(KeyboardInterrupt):
            job.run(squares)
    assert job.missing() == []
    assert digest(job.folder) != whole
    # Each table can be read before, too.
    assert [len(table) for table in job.tables()] == [2, 2, 2, 2, 2, 1]
    Job(job.folder, 11, IDENTITY).run(squares)
    assert digest(job.folder) == whole


def test_stopped_while_a_claim_is_released(job, whole, monkeypatch):
    """Ctrl-C just when a chunk is done leaves no claim; and it goes on."""
    release, stops = Claim.release, [KeyboardInterrupt]

    def stopped(claim):
        if stops:
            raise stops.pop()
        release(claim)

    monkeypatch.setattr(Claim, "release", stopped)
    with pytest.raises(KeyboardInterrupt):
        job.run(squares)
    assert not stops and list(job.folder.rglob(".*")) == []
    job.run(squares)
    assert digest(job.folder) == whole


def test_a_chunk_that_another_holds_is_waited_for(job, whole, recipe):
    """The others are done meanwhile."""
    claim = job._claim("part-00001").path.resolve()
    other = recipe.copy(["-c", HOLDER, claim], asked=True)
    other.wait_for("held\n")
    thread = threading.Thread(target=job.run, args=[squares])
    thread.start()
    while job.missing() != [1]:
        pass
    assert thread.is_alive()
    other.kill()
    thread.join(20)
    assert not thread.is_alive()
    other.communicate()
    assert digest(job.folder) == whole


def test_a_job_of_another_user(recipe, shared, whole):
    """What he left is done; where nothing can be written, that is said."""
    job = Job(shared.folder / "job", 11, IDENTITY, chunk=2)
    (job.folder / "rows" / ".part-00001.claim").touch(0o644)
    with shared.by_another():
        with pytest.raises(LMACError, match="job: cannot be made or written"):
            job.run(squares)
    for folder in (job.folder, job.folder / "rows"):
        folder.chmod(0o777)
    with shared.by_another():
        Job(job.folder, 11, IDENTITY, chunk=2).run(squares)
    assert digest(job.folder) == whole


def test_who_may_write_to_the_folder_may_write_to_those_in_it(shared):
    shared.folder.chmod(0o777)
    Job(shared.folder, 11, IDENTITY, chunk=2).run(squares)
    for name in ("rows", "clips"):
        assert (shared.folder / name).stat().st_mode & 0o777 == 0o777


HOLDER = """
import sys
from lmac_sb.utils.lock import Claim
assert Claim(sys.argv[1]).take()
print("held", flush=True)
sys.stdin.read()
"""


def test_claims_and_parts_that_the_dead_have_left(job, whole):
    """Of this machine at once, of another one when they are old."""
    for name in ("part-00001", "part-00002"):
        job._claim(name).path.write_text(f"{1 << 30} 01234567")
        os.utime(job._claim(name).path, (0, 0))
    job._claim("part-00003").path.write_text("")
    for folder in ("rows", "clips"):
        (job.folder / folder).mkdir(exist_ok=True)
        part = job.folder / folder / ".part-00001.parquet.7@another.0.part"
        part.write_text("half")
        os.utime(part, (0, 0))
    job.run(squares)
    assert digest(job.folder) == whole


def test_a_claim_of_another_machine(tmp_path):
    """It counts while its holder gives signs of life."""
    path = tmp_path / "part"
    path.write_text("1 01234567")
    assert not Claim(path).take()
    assert path.read_text() == "1 01234567"
    os.utime(path, (0, 0))
    claim = Claim(path)
    assert claim.take()
    claim.release()
    assert not path.exists()


def test_the_first_process_may_delete_what_all_have_done(job, monkeypatch):
    """Another one that is still waiting takes that for the end."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")

    def work(items):
        import shutil

        shutil.rmtree(job.folder)
        return squares(items)

    job.run(work)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises((OSError, LMACError)):
        job.run(work)
