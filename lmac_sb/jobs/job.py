"""Work on many items in chunks, by any number of processes and machines.

All processes of all machines that work on a folder do the same: each takes a
chunk that is neither done nor held by another, works on it and writes what it
has found, until all chunks are done. Nothing else ties them together, so any
of them may be killed, and the same command goes on later. What is written
depends on the items alone: the same bytes, whoever did which chunk and when.

A job's folder holds ``job.json``, and a part for each chunk:
``rows/part-00000.parquet`` and, if there are files, the shard
``clips/part-00000.tar``. The table comes last, so that a chunk is done when
that is there.
"""

import json
import logging
import time
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

from lmac_sb.jobs.processes import is_first, one_thread, processes
from lmac_sb.jobs.rows import (
    common_schema,
    fit,
    read_about,
    read_rows,
    read_schema,
    table_of,
    write_table,
)
from lmac_sb.jobs.shards import write_shard
from lmac_sb.jobs.threads import crew
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.extra import needed
from lmac_sb.utils.io import (
    make_inner,
    naming,
    not_written,
    read_json,
    remove_parts,
    write_json,
)
from lmac_sb.utils.lock import Claim, remove_abandoned, wait_for_folder

__all__ = ["CLIPS", "JOB", "ROWS", "Chunk", "Job"]

logger = logging.getLogger(__name__)

JOB = "job.json"
ROWS, CLIPS = "rows", "clips"  # folders of the parts
_PARTS = 256  # that a job has, if its chunks are not too large for that
_MOST_ITEMS = 256  # of a chunk
_SHORTEST_S, _LONGEST_S = 0.05, 2.0  # until others are looked at again
_MOST_SHOWN = 3  # differences of two jobs


class Chunk(NamedTuple):
    """What the work on a chunk has found.

    Arguments
    ---------
    rows : list of dict
        See `lmac_sb.jobs.rows`. Read after the files, so that a generator of
        these may fill it.
    files : iterable
        (name, content) each, for a shard; see
        `lmac_sb.jobs.shards.write_shard`.

    Example
    -------
    >>> Chunk([{"id": "a", "p": 0.5}]).files
    ()
    """

    rows: list
    files: object = ()


class Job:
    """Work on items that several processes share.

    Arguments
    ---------
    folder : str or Path
        Made if need be.
    n_items : int
        How many there are.
    identity : dict
        What makes it the same job, as JSON has it: of another one, nothing in
        the folder is of use.
    chunk : int
        Items of a chunk; by default such that there are about 256 chunks, of
        256 items at most. A job that has begun keeps what it began with.
    replace : bool
        Whether another job that the folder holds is deleted, if nobody works
        on it.

    Raises
    ------
    LMACError
        If the folder holds another job, cannot be written to, or pyarrow is
        missing.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "squares"
    >>> def work(items):
    ...     return Chunk([{"x": x, "square": x * x} for x in items])
    >>> job = Job(folder, 5, {"what": "squares"}, chunk=2)
    >>> job.run(work)
    >>> job.frame()["square"].tolist()
    [0, 1, 4, 9, 16]
    >>> Job(folder, 5, {"what": "cubes"})
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../squares: holds another job: what: there 'squares', \
here 'cubes'; give the same options, or choose another folder
    """

    def __init__(self, folder, n_items, identity, chunk=None, replace=False):
        needed("pyarrow")
        self.folder = Path(folder)
        self.n_items = n_items
        # As it is after reading: keys are texts, and tuples are lists.
        self.identity = json.loads(json.dumps(identity))
        self.chunk = chunk or min(max(1, -(-n_items // _PARTS)), _MOST_ITEMS)
        self._done = set()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            make_inner(self.folder / ROWS)
            with wait_for_folder(self.folder):
                self._begin(replace)
        except OSError as error:
            raise not_written(folder, error.strerror) from error

    @classmethod
    def open(cls, folder):
        """The job that a folder holds, to read what has been found.

        Arguments
        ---------
        folder : str or Path
            Of a job; nothing is written to it.

        Returns
        -------
        Job

        Raises
        ------
        LMACError
            If it holds none.
        """
        needed("pyarrow")
        job = cls.__new__(cls)
        job.folder, job._done = Path(folder), set()
        job._take(_read_job(job.folder / JOB))
        return job

    @property
    def n_chunks(self):
        """How many chunks there are."""
        return -(-self.n_items // self.chunk)

    def items(self, index):
        """Items of a chunk."""
        first = index * self.chunk
        return range(first, min(first + self.chunk, self.n_items))

    def rows_file(self, index):
        """The file with the rows of a chunk."""
        return self.folder / ROWS / f"part-{index:05d}.parquet"

    def shard_file(self, index):
        """The shard of a chunk, if it has one."""
        return self.folder / CLIPS / f"part-{index:05d}.tar"

    def missing(self):
        """Numbers of the chunks that are not done."""
        return [i for i in range(self.n_chunks) if not self.is_done(i)]

    def is_done(self, index):
        """Whether the parts of a chunk are there, and whole."""
        if index not in self._done:
            if not self.rows_file(index).exists() or self._fault(index):
                return False
            self._done.add(index)
        return True

    def run(self, work, progress=None, at_once=1):
        """Work until all chunks are done, by this process or by others.

        Computes in one thread, unless there is but one item.

        Arguments
        ---------
        work : callable
            Gets a range of items and returns a `Chunk`, the same one whenever
            and wherever it is called. If it fails, so does this, and another
            process may try the same chunk.
        progress : callable
            Called with the number of each chunk, in their order, as soon as it
            and all before it are done.
        at_once : int
            How many chunks this process works on at the same time, by as many
            threads, in which `work` is called then.

        Raises
        ------
        OSError
            If the disk is full; nothing half is left.
        """
        try:
            with nullcontext() if self.n_items == 1 else one_thread():
                self._run(work, progress, at_once)
        except (LMACError, OSError):
            # The first process may have read all of it, and deleted it.
            if is_first() or (self.folder / JOB).exists():
                raise

    def tables(self, columns=None):
        """Rows, chunk by chunk, in the order of the items.

        Arguments
        ---------
        columns : list of str
            Those to read; by default all.

        Yields
        ------
        pyarrow.Table
            All of one schema.

        Raises
        ------
        LMACError
            If a chunk is not done, or its file is damaged.
        """
        schema, _ = self._schema()
        if columns is not None:
            found = set(schema.names)
            for name in columns:
                if name not in found:
                    raise LMACError(f"{self.folder}: no column {shown(name)}")
            schema = needed("pyarrow").schema(
                [schema.field(x) for x in columns]
            )
        for index in range(self.n_chunks):
            yield fit(read_rows(self.rows_file(index), columns), schema)

    def rows(self, index):
        """Rows of one chunk, as a list of dicts."""
        return read_rows(self.rows_file(index)).to_pylist()

    def frame(self, columns=None):
        """All rows as a data frame of pandas, in which null is NaN.

        Arguments
        ---------
        columns : list of str
            Those to read; by default all.

        Returns
        -------
        pandas.DataFrame
        """
        needed("pandas")
        tables = list(self.tables(columns)) or [table_of([])]
        return needed("pyarrow").concat_tables(tables).to_pandas()

    # ----------------------------------------------------------- the folder

    def _begin(self, replace):
        """Write what job it is, or compare it with what is there."""
        remove_parts(self.folder)
        for name in (ROWS, CLIPS):
            remove_parts(self.folder / name)
        path = self.folder / JOB
        if path.exists():
            try:
                self._check(_read_job(path))
                return
            except LMACError:
                if not replace or self._is_held():
                    raise
            for name in (ROWS, CLIPS):
                for part in (self.folder / name).glob("part-*"):
                    part.unlink()
        elif any((self.folder / ROWS).glob("part-*")):
            raise LMACError(
                f"{self.folder}: holds rows, but no {JOB} that says of what; "
                "choose another folder"
            )
        content = {
            "items": self.n_items,
            "chunk": self.chunk,
            "identity": self.identity,
        }
        write_json(path, content)

    def _is_held(self):
        """Whether a process works on a chunk, of whatever job."""
        for path in (self.folder / ROWS).glob(".*.claim"):
            claim = Claim(path)
            if not claim.take():
                return True
            claim.release()
        return False

    def _check(self, there):
        """Refuse another job, and say what makes it another."""
        here = {"items": self.n_items, **_flat(self.identity)}
        found = {"items": there["items"], **_flat(there["identity"])}
        unlike = [
            f"{name}: there {shown(found.get(name))}, here "
            f"{shown(here.get(name))}"
            for name in {**found, **here}
            # As text, in which NaN equals itself.
            if repr(found.get(name)) != repr(here.get(name))
        ]
        if unlike:
            more = len(unlike) - _MOST_SHOWN
            text = "; ".join(unlike[:_MOST_SHOWN])
            text += f"; and {more} more" if more > 0 else ""
            raise LMACError(
                f"{self.folder}: holds another job: {text}; give the same "
                "options, or choose another folder"
            )
        self._take(there)

    def _take(self, there):
        """Be the job that a folder holds."""
        self.n_items, self.chunk = there["items"], there["chunk"]
        self.identity = there["identity"]

    # ------------------------------------------------------------- the work

    def _run(self, work, progress, at_once):
        """Take chunk after chunk, and wait for those that others hold."""
        told, pause = 0, _SHORTEST_S
        missing = list(processes().order(self.n_chunks))
        begun = {}  # what is being done here, to the right to do it
        try:
            with crew(at_once) as hands:
                while missing:
                    before, missing = missing, []
                    for index in before:
                        if not self._begun(index, work, hands, begun):
                            missing.append(index)
                        if index == before[-1]:
                            self._settle(begun, len(begun))
                        elif len(begun) == at_once:
                            self._settle(begun, 1)
                        told = self._tell(progress, told)
                    if len(missing) < len(before):
                        pause = _SHORTEST_S
                    else:
                        time.sleep(pause)
                        pause = min(2 * pause, _LONGEST_S)
        finally:
            for claim in begun.values():
                claim.release()
        self._finish()

    def _begun(self, index, work, hands, begun):
        """Whether a chunk is done, or begun now, since nobody else holds it."""
        if self.is_done(index):
            return True
        claim = self._claim(self.rows_file(index).stem)
        try:
            if not claim.take():
                return False
        except PermissionError as error:
            raise not_written(self.folder, error.strerror) from error
        try:
            begun[hands.submit(self._do, index, work)] = claim
        except BaseException:
            claim.release()
            raise
        return True

    def _settle(self, begun, n_chunks):
        """Wait for some chunks of those that are begun."""
        goal = len(begun) - n_chunks
        while len(begun) > goal:
            for done in wait(begun, return_when=FIRST_COMPLETED).done:
                done.result()  # raises what went wrong
                # Released first: Ctrl-C in between would leave the claim.
                begun[done].release()
                del begun[done]

    def _tell(self, progress, told):
        """Tell of chunks that are done, in their order; how many are told."""
        while progress and told < self.n_chunks and self.is_done(told):
            progress(told)
            told += 1
        return told

    def _claim(self, name):
        """The right to write what has this name."""
        return Claim(self.folder / ROWS / f".{name}.claim")

    def _do(self, index, work):
        """Do a chunk that nobody else holds."""
        # Its former holder may just have finished it.
        if not self.is_done(index):
            if self.rows_file(index).exists():
                logger.warning("%s; made again", self._fault(index))
            self._write(index, work(self.items(index)))

    def _write(self, index, chunk):
        """Write the parts of a chunk, the table last."""
        items = self.items(index)
        about = {"first": items.start, "stop": items.stop}
        files = iter(chunk.files)
        try:
            first = next(files, None)
            shard = self.shard_file(index)
            if first is not None:
                with naming(shard.parent):
                    make_inner(shard.parent)
                about["shard_bytes"] = write_shard(shard, _joined(first, files))
        finally:
            # What it has half made goes now, and not when it is forgotten.
            if hasattr(files, "close"):
                files.close()
        write_table(self.rows_file(index), table_of(chunk.rows), about)
        self._done.add(index)

    def _fault(self, index):
        """What is wrong with the parts of a chunk, in words; None if nothing.

        That they are whole is seen from their ends and sizes; what they hold
        is checked when it is read.
        """
        items, shard = self.items(index), self.shard_file(index)
        path = self.rows_file(index)
        try:
            about = read_about(path)
        except LMACError as error:
            return str(error)
        n_bytes = about.pop("shard_bytes", None)
        if about != {"first": items.start, "stop": items.stop}:
            return f"{path}: is of other items"
        if n_bytes is not None:
            if not shard.exists():
                return f"{shard}: no such shard"
            if shard.stat().st_size != n_bytes:
                return f"{shard}: truncated or changed"
        return None

    # -------------------------------------------------------------- the end

    def _schema(self):
        """The schema of all chunks, and the chunks that have another one."""
        common, kinds, kind_of = needed("pyarrow").schema([]), [], []
        for index in range(self.n_chunks):
            schema = read_schema(self.rows_file(index))
            if schema not in kinds:
                kinds.append(schema)
                common = common_schema(common, schema)
            kind_of.append(kinds.index(schema))
        other = [i for i, kind in enumerate(kind_of) if kinds[kind] != common]
        return common, other

    def _finish(self):
        """Bring all chunks to one schema, which only the last one tells."""
        claim = self._claim("schema")
        while True:
            common, other = self._schema()
            if not other:
                break
            if not claim.take():
                time.sleep(_LONGEST_S)
                continue
            try:
                for index in other:
                    path = self.rows_file(index)
                    table = fit(read_rows(path), common)
                    write_table(path, table, read_about(path))
            finally:
                claim.release()
        self._tidy()

    def _tidy(self):
        """Delete what killed processes have left, on any machine."""
        for path in (self.folder / ROWS).glob(".*.claim"):
            claim = Claim(path)
            if claim.take():
                claim.release()
        for name in (ROWS, CLIPS):
            remove_parts(self.folder / name)
            remove_abandoned(self.folder / name)


def _joined(first, rest):
    """An iterator whose first value has been looked at, whole again."""
    yield first
    yield from rest


def _flat(content, above=""):
    """Values of dicts in dicts by their names, joined by dots."""
    found = {}
    for name, value in content.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{above}{name}."))
        else:
            found[f"{above}{name}"] = value
    return found


def _read_job(path):
    """What a job's file says, checked."""
    if not path.exists():
        raise LMACError(f"{path}: no such file, a job has one")
    there = read_json(path)
    kinds = {"items": int, "chunk": int, "identity": dict}
    if (
        not isinstance(there, dict)
        or not all(isinstance(there.get(x), kinds[x]) for x in kinds)
        or there["items"] < 0
        or there["chunk"] < 1
    ):
        raise LMACError(
            f"{path}: found {shown(there)}, expected items, chunk and identity "
            "of a job"
        )
    return there
