"""A process of a job, which can be told to die at some moment.

python worker.py FOLDER [MOMENT[:RANK]]
"""

import os
import signal
import sys
import time

from lmac_sb.jobs import rows, shards
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import processes

N_ITEMS, CHUNK, DEADLY = 24, 2, 5
IDENTITY = {"what": "squares"}


def kill(*args):
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def half(module, ending):
    """Die in the middle of the file of a chunk."""
    write = module.write_in_one_step

    def write_half(path, writer, binary):
        if f"{DEADLY:05d}.{ending}" in str(path):

            def writer(file):
                file.write(b"half")
                file.flush()
                kill()

        write(path, writer, binary)

    module.write_in_one_step = write_half


def before_name(ending, number=1):
    """Die when a file is whole, but has no name yet."""
    replace, seen = os.replace, []

    def killed(source, target):
        if str(target).endswith(f"{DEADLY:05d}.{ending}"):
            seen.append(target)
            if len(seen) == number:
                kill()
        replace(source, target)

    os.replace = killed


MOMENTS = {
    "": lambda: None,
    "work": lambda: None,
    "half a table": lambda: half(rows, "parquet"),
    "half a shard": lambda: half(shards, "tar"),
    "before a table": lambda: before_name("parquet"),
    "before a shard": lambda: before_name("tar"),
    "one schema": lambda: before_name("parquet", 2),
}


def main(folder, fault=""):
    """Do the job."""
    moment, _, rank = fault.partition(":")
    if rank not in ("", str(processes().rank)):
        moment = ""
    MOMENTS[moment]()

    def work(items):
        if moment == "work" and items.start == DEADLY * CHUNK:
            kill()
        time.sleep(0.05)
        found = [{"id": x, "late": None if x < 20 else x / 2} for x in items]
        return Chunk(found, [(f"{x:03d}.txt", b"%d" % x) for x in items])

    Job(folder, N_ITEMS, IDENTITY, CHUNK).run(work)
    print(f"done by {processes().rank}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
