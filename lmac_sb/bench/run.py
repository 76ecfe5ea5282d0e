"""A bench from end to end: data, training, cells, figures, tables, plots."""

import json
from pathlib import Path
from typing import NamedTuple, Optional

from lmac_sb.bench.cells import Cell, evaluate, load
from lmac_sb.bench.classifiers import CLASSIFIERS, Classifier, Setup
from lmac_sb.bench.data import DATA, Data, prepare, safe
from lmac_sb.bench.entries import code_of, find_entry
from lmac_sb.bench.methods import DEFAULT, base, check_methods
from lmac_sb.bench.plots import draw_bench
from lmac_sb.bench.results import differences, figures, losses, told
from lmac_sb.bench.tables import markdown
from lmac_sb.jobs.job import JOB, Chunk, Job
from lmac_sb.jobs.processes import is_first
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.extra import needed
from lmac_sb.utils.io import write_csv, write_in_one_step, write_json
from lmac_sb.utils.provenance import provenance
from lmac_sb.utils.user import help_torch

__all__ = ["BENCH", "Options", "run_bench"]

BENCH = "bench.json"
STEPS = "steps"  # folder of the jobs
COLUMNS = ("data", "classifier", "method", "keep", "measure")
FIGURE = ("mean", "low", "high", "n")


class Options(NamedTuple):
    """What a bench compares, and how.

    Arguments
    ---------
    data, classifiers, methods : tuple of str
        Names of entries, or ``package.module:name``; None for all that there
        are, and for `lmac_sb.bench.methods.DEFAULT`.
    clips : int
        Of each test fold, evenly spread.
    seeds : int
        Explainers of each kind, trained from so many seeds.
    draws : int
        Of the noise that nobody hears.
    epochs : int
        Of each training; None for what its yaml file says.
    seed : int
        The first seed.

    Example
    -------
    >>> Options(clips=5).seeds
    2
    """

    data: Optional[tuple] = None
    classifiers: Optional[tuple] = None
    methods: Optional[tuple] = None
    clips: int = 15
    seeds: int = 2
    draws: int = 3
    epochs: Optional[int] = None
    seed: int = 1234


def run_bench(out, options=None, trained=None, real=None, progress=None):
    """Compare methods on classifiers and data, and write what was found.

    Several processes may do the same at once: each takes its share. What an
    earlier call with the same options has done is kept.

    Arguments
    ---------
    out : str or Path
        Folder of the bench.
    options : Options
        What and how.
    trained : str or Path
        Folder of trained models, which are made there where they are missing;
        by default in `out`.
    real : str or Path
        See `lmac_sb.bench.data.prepare`.
    progress : callable
        Called with a text before each part of the work.

    Returns
    -------
    dict
        The content of ``bench.json``.

    Raises
    ------
    LMACError
        If an option is wrong, the folder holds another bench, data that was
        asked for is missing, or a model cannot be used.
    """
    needed("pyarrow")
    help_torch()
    options, out = options or Options(), Path(out)
    tell = progress or (lambda text: None)
    data, classifiers = _entries(options)
    plan = _plan(options, data, classifiers)
    # As it is now: in the hours until it is called, its files may change.
    names = options.methods or DEFAULT
    code = code_of([*data, *classifiers, *names])
    tell("preparing the data")
    prepared, notes = _prepare(data, out, real, options, plan)
    trained = Path(trained) if trained else out / "trained"
    cells, unfit = _cells(prepared, classifiers, trained, options)
    notes += unfit
    if not cells:
        raise LMACError(
            f"bench: no classifier is left on any data; {'; '.join(notes)}"
        )
    _train(cells, out, plan, tell)
    found = {"cells": [], "figures": [], "differences": []}
    for cell in cells:
        place = f"{cell.setup.prepared.name}, {cell.name}"
        tell(place)
        folder = out / STEPS / "cells" / safe(place)
        try:
            loaded = load(cell)
            rows, facts = evaluate(cell, loaded, names, options, folder, code)
        except LMACError as error:
            raise LMACError(f"{place}: {error}") from error
        facts.update(told(rows))
        found["cells"].append(facts)
        found["figures"] += figures(facts, rows)
        found["differences"] += differences(facts, rows)
    found["losses"] = losses(found["differences"])
    found["notes"] = notes
    if is_first():
        _write(out, found, options)
    return found


def _entries(options):
    """Data and classifiers by name; refuses unknown ones, and methods too."""
    data = {
        name: find_entry("data", name, DATA, Data)
        for name in options.data or DATA
    }
    classifiers = {
        name: find_entry("classifiers", name, CLASSIFIERS, Classifier)
        for name in options.classifiers or CLASSIFIERS
    }
    explainers = {x for one in classifiers.values() for x in one.explainers}
    check_methods(list(options.methods or DEFAULT), explainers)
    return data, classifiers


def _plan(options, data, classifiers):
    """What makes it the same bench."""
    return {
        "data": list(data),
        "classifiers": list(classifiers),
        "methods": list(options.methods or DEFAULT),
        **{
            key: getattr(options, key)
            for key in ("clips", "seeds", "draws", "epochs", "seed")
        },
    }


def _prepare(data, out, real, options, plan):
    """Data sets that are there, and notes on those that are not."""
    entries = list(data.items())

    def find(item):
        """A data set, or why there is none."""
        name, entry = entries[item]
        try:
            return prepare(name, entry, out, real)
        except LMACError as error:
            # Of what was asked for by name, nothing is left out.
            if options.data is not None:
                raise
            return f"{name}: {str(error).removeprefix(f'{name}: ')}"

    def work(items):
        """Make one: by one process alone."""
        for item in items:
            find(item)
        return Chunk([{"data": entries[item][0]} for item in items])

    _step(out, "data", len(entries), plan).run(work)
    # They are looked at in each run: they may have changed.
    found = [find(item) for item in range(len(entries))]
    notes = [one for one in found if isinstance(one, str)]
    return [one for one in found if not isinstance(one, str)], notes


def _cells(prepared, classifiers, trained, options):
    """Cells that there are, and notes on those that there cannot be."""
    seeds = [options.seed + i for i in range(options.seeds)]
    wanted = tuple(map(base, options.methods or DEFAULT))
    cells, notes = [], []
    for some in prepared:
        left_out = {}
        for name, classifier in classifiers.items():
            why = classifier.misfit(some.data)
            if why is not None:
                left_out.setdefault(why, []).append(name)
                continue
            folder = trained / safe(some.name) / safe(name)
            setup = Setup(some, folder, seeds, options.epochs, wanted)
            cells.append(Cell(name, classifier, setup))
        for why, names in left_out.items():
            notes.append(f"{', '.join([some.name, *names])}: {why}")
    return cells, notes


def _train(cells, out, plan, tell):
    """Train what is missing, one process a data set."""
    by_data = {}
    for cell in cells:
        by_data.setdefault(cell.setup.prepared.name, []).append(cell)
    groups = list(by_data.values())

    def work(items):
        """Load all cells of a data set, which trains what they lack."""
        (item,) = items
        for cell in groups[item]:
            tell(f"models: {cell.setup.prepared.name}, {cell.name}")
            load(cell)
        return Chunk([{"data": groups[item][0].setup.prepared.name}])

    _step(out, "trained", len(groups), plan).run(work)


def _step(out, name, n_items, plan):
    """A job before the cells; until one has begun, options may change."""
    begun = any((out / STEPS / "cells").glob(f"*/{JOB}"))
    return Job(out / STEPS / name, n_items, plan, chunk=1, replace=not begun)


def _write(out, found, options):
    """Write tables and plots, and all as JSON, which comes last."""
    write_csv(out / "bench.csv", found["figures"], [*COLUMNS, *FIGURE])
    names = ["data", "classifier", "method", "minus", "keep", "measure"]
    write_csv(out / "differences.csv", found["differences"], [*names, *FIGURE])
    parts = (found[x] for x in ("cells", "figures", "losses", "notes"))
    text = markdown(*parts)
    write_in_one_step(out / "bench.md", lambda file: file.write(text))
    (out / "plots").mkdir(exist_ok=True)
    found["plots"] = draw_bench(out / "plots", found["cells"], found["figures"])
    made = provenance(options=options._asdict())
    found["made"] = json.loads(json.dumps(made, default=str))
    write_json(out / BENCH, found)
