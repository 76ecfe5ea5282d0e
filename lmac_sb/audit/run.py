"""An audit from end to end: clips, rows, tables, plots, clips to hear."""

import json
import logging
import random
from pathlib import Path
from typing import NamedTuple, Optional

from lmac_sb.audit.confusions import choose_confused
from lmac_sb.audit.describe import band_edges
from lmac_sb.audit.files import AUDIT
from lmac_sb.audit.labels import Labels
from lmac_sb.audit.plots import draw_audit
from lmac_sb.audit.results import choose_examples, find_results, plain
from lmac_sb.audit.rows import Explained
from lmac_sb.audit.tables import table_rows, write_clips, write_table
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import is_first
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.extra import needed
from lmac_sb.utils.io import write_json
from lmac_sb.utils.portable import portable

__all__ = ["Options", "run_audit"]

logger = logging.getLogger(__name__)

STEPS = "steps"  # folder of what follows the rows
_SHOWN = 5  # labels that are no classes


class Options(NamedTuple):
    """How a corpus is audited.

    Arguments
    ---------
    limit : int
        Clips, drawn by the seed; None for all.
    seed : int
        Of all random draws.
    refine_steps : int
        See `lmac_sb.LMACInterpreter.explain_file`; None for the model's own.
    interventions : bool
        Whether decisions are tried with parts of the sound removed, which
        takes further passes of the classifier, and which most alarms need.
    examples : int
        Most clips to hear.
    classes_map : dict
        See `lmac_sb.audit.labels.Labels`.
    pool : str
        How the model was told to make one answer of several; the audit but
        remembers it.

    Example
    -------
    >>> Options(limit=100).seed
    0
    """

    limit: Optional[int] = None
    seed: int = 0
    refine_steps: Optional[int] = None
    interventions: bool = True
    examples: int = 100
    classes_map: Optional[dict] = None
    pool: Optional[str] = None


def run_audit(corpus, interpreter, out, options=None, progress=None):
    """Explain the clips of a corpus, and find what the classifier listens to.

    Several processes may do the same at once: each takes its share. What
    another call with the same arguments has done already is kept.

    Arguments
    ---------
    corpus : lmac_sb.data.corpus.Corpus
        The clips.
    interpreter : lmac_sb.LMACInterpreter
        Of the classifier.
    out : str or Path
        Folder of the results.
    options : Options
        How; by default as they are.
    progress : callable
        Called with the number of clips that are done since the last call.

    Returns
    -------
    dict
        The content of ``audit.json``.

    Raises
    ------
    LMACError
        If no clip can be explained, or the folder holds something else.
    """
    for name in ("pandas", "sklearn"):
        needed(name)  # missed only after hours of work
    options = options or Options()
    out, places = Path(out), _places(corpus, options)
    labels = Labels(interpreter, options.classes_map)
    how = (options.refine_steps, options.interventions, options.seed)
    work = Explained(corpus, places, interpreter, labels, *how)
    identity = _identity(corpus, interpreter, options)
    job = Job(out, len(places), identity)
    odd = _label_notes(corpus, labels)
    for note in odd:
        logger.warning(note)  # before hours of work, which may be in vain
    tell = progress and (lambda index: progress(len(job.items(index))))
    job.run(work.rows, tell)
    _check(corpus, job.frame(["id", "error"]))
    # Of a long table, the one process that analyses it needs all columns.
    decided = job.frame(["id", "label", "decision", "right"])
    chosen = choose_confused(decided, options.seed)
    against = _step(job, "against", len(chosen))
    against.run(work.against(chosen))

    def analyse(items):
        """Find all: done by one of the processes, and the others wait."""
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        frame = job.frame()
        others = against.frame() if len(chosen) else chosen.assign(error=None)
        edges = band_edges(interpreter.sample_rate)
        # As many threads everywhere, so that sums are the same to the bit.
        with threadpool_limits(1):
            results = find_results(frame, others, edges, options.seed)
        choose_examples(results, frame, options.examples)
        results["made"] = {**identity["made"], **identity["options"]}
        said = map(portable, [*corpus.lost, *corpus.notes])
        results["notes"][:0] = [*said, *odd]
        results["corpus"] = {
            "name": corpus.name,
            "n_clips": len(frame),
            "n_failed": results.pop("n_failed"),
            "labels": results.pop("labels"),
            "unknown_labels": _unknown(corpus, labels)[:_SHOWN],
            "columns": list(corpus.columns),
        }
        return Chunk([{"results": json.dumps(plain(results))}])

    analysis = _step(job, "analysis", 1)
    analysis.run(analyse)
    results = json.loads(analysis.frame()["results"][0])
    examples = _step(job, "examples", len(results["examples"]))
    examples.run(work.examples(out, results["examples"]))
    if is_first():
        _write(job, results)
    return results


def _places(corpus, options):
    """Which clips are looked at, in their order."""
    places = range(len(corpus))
    if options.limit is not None and options.limit < len(corpus):
        drawn = random.Random(options.seed).sample(places, options.limit)
        return sorted(drawn)
    if not places:
        raise LMACError(f"{corpus.name}: found no clips, expected some")
    return places


def _identity(corpus, interpreter, options):
    """What makes it the same audit."""
    return {
        "corpus": corpus.identity,
        "made": interpreter.made,
        "options": options._asdict(),
    }


def _step(job, name, n_items):
    """A job that follows that of the rows."""
    return Job(job.folder / STEPS / name, n_items, job.identity)


def _check(corpus, frame):
    """Refuse an audit of nothing."""
    errors = frame["error"].dropna()
    if len(errors) == len(frame):
        raise LMACError(
            f"{corpus.name}: none of the {len(frame)} clips could be "
            f"explained; the first: {errors.iloc[0]}; when that is mended, "
            "start again with another folder"
        )


def _label_notes(corpus, labels):
    """What is to be said of the labels."""
    if not corpus.classes:
        return [
            "no labels: wrong decisions, confusions and all tests within a "
            "label are left out"
        ]
    notes = []
    unknown = _unknown(corpus, labels)
    if unknown:
        notes.append(
            f"{len(unknown)} of {len(corpus.classes)} labels are no classes of "
            f"the model, and count as unknown: {_some(unknown)}; --classes-map "
            "may say which classes they are"
        )
    unused, n_rows = labels.unused(corpus.classes)
    if unused:
        notes.append(
            f"{len(unused)} of {n_rows} rows of the classes map fit no label: "
            f"{_some(unused)}"
        )
    return notes


def _unknown(corpus, labels):
    """Labels of the corpus that are no classes of the model."""
    return [name for name in corpus.classes if labels.name(name) is None]


def _some(names):
    """The first of some names, in quotes."""
    return ", ".join(map(repr, names[:_SHOWN])) + (
        ", ..." if len(names) > _SHOWN else ""
    )


def _write(job, results):
    """Write tables, plots, and all as JSON, which comes last."""
    for name in ("tables", "plots"):
        (job.folder / name).mkdir(exist_ok=True)
    write_clips(job, job.folder / "tables")
    for name, (columns, rows) in table_rows(results).items():
        write_table(job.folder / "tables" / name, columns, rows)
    plots = draw_audit(
        job.folder / "plots", results["classes"], results["alarms"]
    )
    for plot in plots:
        plot["file"] = f"plots/{plot['file']}"
    results["plots"] = plots
    write_json(job.folder / AUDIT, results)
