"""``lmac explain``: explain the decisions on sound files."""

import sys
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import click

from lmac_sb.cli.checked import check_model, missing_sounds
from lmac_sb.cli.explained import Told
from lmac_sb.cli.model_options import (
    LISTENER,
    MODEL_OPTION,
    TRUST,
    listened,
    with_options,
)
from lmac_sb.cli.processes import (
    PROCESSES,
    check_processes,
    say_if_alone,
    shared,
)
from lmac_sb.cli.said import command_line, say_next
from lmac_sb.cli.usage import NUMBER, PLACE, WHOLE, Choice, Command
from lmac_sb.jobs.processes import (
    be_one_of_many,
    is_first,
    one_thread,
    processes,
)
from lmac_sb.jobs.threads import n_at_once
from lmac_sb.utils.console import choose_loudness, progress
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import check_folder
from lmac_sb.utils.memory import keep_memory

__all__ = ["explain"]

_NOT_FAITHFUL = 3  # exit code on request; 1 and 2 are errors

HELP = """\
Explain the decision of a model on each file.

A FILE is a sound, or a corpus: a folder, a table (csv) or manifest that names
sounds, WebDataset shards. Each sound gets a folder with sounds (what the
decision rests on, and the rest), a picture, metrics and a verdict: whether the
explanation is faithful. Files that cannot be used are listed at the end; they
do not hold up the others, nor `lmac explain ... && lmac report ...`: the exit
code is 1 only if no file could be explained, or with --strict. A full disk
stops at once. The same command again goes on where an earlier one stopped: it
keeps what is there of the same sounds, model and options, and says so."""

_AT = click.option(
    "--at",
    metavar="TIME",
    help="explain only this time of each sound in seconds, or a range, as "
    "in 1.5 or 1.0:2.5",
)
_QUESTION = (
    click.option(
        "--threshold",
        type=NUMBER,
        metavar="T",
        help="make the mask 0 or 1 at this value in (0, 1]; default: as it is",
    ),
    click.option(
        "--target",
        metavar="CLASS",
        help="class to explain, by name, AudioSet id or number; default: the "
        "decision",
    ),
    click.option(
        "--targets",
        type=Choice(["all"]),
        help="explain all classes that are heard, each on its own, in a "
        "folder of its name",
    ),
    click.option(
        "--min-p",
        type=NUMBER,
        metavar="P",
        help="with --targets all: the least probability of these classes "
        "(default: 0.3)",
    ),
    click.option(
        "--against",
        metavar="CLASS",
        help="explain why it is the target and not this class, or "
        "'runner-up' for the next one; default: against all others",
    ),
    click.option(
        "--refine",
        type=WHOLE,
        metavar="K",
        help="improve each mask by up to K gradient steps, which takes "
        "4 K + 2 passes of the classifier in addition to the usual 3; the "
        "decoder's own explanation goes to `unrefined` in the clip's folder, "
        "and the report compares both; default: the model's setting, "
        "usually 0, or 10 (YAMNet: 20) for a classifier without a "
        "decoder",
    ),
    click.option(
        "--second-look",
        is_flag=True,
        help="let the classifier hear what the decoder's mask keeps, and "
        "change the mask by what its gradient says: two more passes of the "
        "classifier, and what --refine 1 gains",
    ),
)
_CHECKS = (
    click.option(
        "--stable",
        is_flag=True,
        help="say as well whether the mask is stable: explain each file once "
        "more, a little later and with noise 30 dB below it, which doubles "
        "the time",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="exit code 1 if any file could not be explained, and "
        f"{_NOT_FAITHFUL} if an explanation is not faithful, or, with "
        "--stable, not stable",
    ),
)


@click.command("explain", cls=Command, help=HELP)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=PLACE)
@MODEL_OPTION
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=PLACE,
    help="folder for the results",
)
@with_options(LISTENER)
@_AT
@with_options(_QUESTION)
@with_options(_CHECKS)
@click.option(
    "--format",
    default="wav",
    metavar="FORMAT",
    type=Choice(["wav", "flac"]),
    help="format of the written sounds, wav or flac (default: wav)",
)
@click.option(
    "--write",
    default="folders",
    metavar="FORM",
    type=Choice(["folders", "shards", "rows"]),
    help="folders: a folder of sounds and pictures for each file (default); "
    "rows: a table in Parquet files, without sounds; shards: that table, and "
    "sounds and masks in tar files; rows and shards are for many files",
)
@PROCESSES
@click.option("--json", is_flag=True, help="print the results as JSON")
@click.option(
    "--quiet", is_flag=True, help="print the verdicts and what failed alone"
)
@click.option(
    "--verbose",
    is_flag=True,
    help="print a line for each result, however many there are",
)
@TRUST
def explain(**options):
    """Explain files one by one.

    Returns
    -------
    int
        Exit code.
    """
    options = SimpleNamespace(**options)
    _check(options)
    missing = missing_sounds(options.files)
    if missing:
        return _tell_missing(missing, options.json)
    return shared(options.processes, lambda: _explain(options))


def _tell_missing(missing, as_json):
    """Tell of files of which none is there, as if each had been tried."""
    with be_one_of_many(), Told(as_json) as told:
        for file, error in missing.items():
            row = {"file": file, "results": [], "error": error}
            told.add(SimpleNamespace(**row, is_full=False))
        if is_first():
            told.finish()
    return 1


def _explain(options):
    """Explain them in this process, which may be one of several."""
    # First what needs no torch: a corpus may be none.
    from lmac_sb.inference.sounds import Sounds

    sounds = Sounds(options.files)

    from lmac_sb.inference.load import default_model, load_interpreter
    from lmac_sb.inference.turns import may_have_twins

    model = options.model or default_model()
    interpreter = load_interpreter(model, options.trust, **_listened(options))
    order = _order(options, interpreter)
    at_once = _at_once(sounds)
    n_used = at_once if may_have_twins(interpreter) else 1
    say_if_alone(options.processes, len(sounds), n_used)
    if len(sounds) > 1:
        keep_memory()
    full = None
    with Told(options.json) as told:
        with progress(total=len(sounds), unit="file") as bar:

            def tell(outcome):
                """Note what became of a sound."""
                nonlocal full
                bar.update()
                told.add(outcome)
                full = outcome.error if outcome.is_full else None

            write = (
                _write_folders if options.write == "folders" else _write_rows
            )
            write(interpreter, sounds, order, options, at_once, tell)
        if not is_first():
            return 0
        told.finish()
    # A page is of sounds.
    if told.n_results and not options.json and options.write != "rows":
        say_next(command_line("report", options.out))
    if full is not None:
        raise LMACError(f"{full}; free some space, then start again")
    return _exit_code(told, options.strict)


def _write_folders(interpreter, sounds, order, options, at_once, tell):
    """Write a folder for each sound."""
    from lmac_sb.inference.collection import Collection
    from lmac_sb.inference.many import explain_sounds, share_sounds

    if processes().world > 1:
        collection = Collection(options.out)
        share_sounds(interpreter, sounds, collection, order, tell)
        return
    # As many processes would; one sound is one process's, whatever there are.
    threads = nullcontext() if len(sounds) == 1 else one_thread()
    with _no_empty_folder(options.out), threads:
        collection = Collection(options.out)
        for outcome in explain_sounds(
            interpreter, sounds, collection, order, at_once=at_once
        ):
            tell(outcome)


@contextmanager
def _no_empty_folder(folder):
    """Leave no folder that is made for results, if there are none."""
    folder = Path(folder)
    made = [x for x in (folder, *folder.parents) if not x.exists()]
    try:
        yield
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty, or not there
                path.rmdir()


def _write_rows(interpreter, sounds, order, options, at_once, tell):
    """Write tables, and shards if they are wanted."""
    from lmac_sb.inference.in_rows import RowWriter, outcomes_of

    shards = options.write == "shards"
    writer = RowWriter(interpreter, sounds, order, options.out, shards, at_once)

    def progress(index):
        """Tell what a chunk's rows say."""
        for outcome in outcomes_of(writer.job.rows(index), options.out):
            tell(outcome)

    writer.job.run(writer.work, progress if is_first() else None, at_once)


def _at_once(sounds):
    """How many sounds this process explains at the same time."""
    if len(sounds) == 1 or processes().world > 1:
        return 1
    return n_at_once()


def _exit_code(told, strict):
    """What the shell is told, and a warning if it may look like success."""
    n_failed, n_sounds = told.n_failed, told.n_sounds
    if n_failed and (strict or n_failed == n_sounds):
        return 1
    if n_failed:
        print(
            f"warning: {n_failed} of {n_sounds} files failed, the others are "
            "explained (exit code 0; 1 with --strict)",
            file=sys.stderr,
        )
    return _NOT_FAITHFUL if strict and told.n_good < told.n_results else 0


def _check(options):
    """Refuse what can be refused before torch is imported."""
    if options.threshold is not None and not 0 < options.threshold <= 1:
        raise LMACError(f"--threshold: {options.threshold} is not in (0, 1]")
    if options.refine is not None and options.refine < 0:
        raise LMACError(
            f"--refine: {options.refine}, expected a whole number from 0"
        )
    check_processes(options.processes)
    choose_loudness(options.quiet, options.verbose)
    check_model(options.model, **_listened(options))
    check_folder(options.out, "--out")
    _several(options)


def _order(options, interpreter):
    """What is wanted of each file, checked before the first."""
    from lmac_sb.inference.order import Order

    target, against = (
        _class_of(name, interpreter)
        for name in (options.target, options.against)
    )
    # An unknown class is wrong for all files: refuse it before the first.
    interpreter.check_question(target, against)
    asked = {"against": against, **_several(options)}
    if options.targets is None:
        asked["target"] = target
    how = {
        "threshold": options.threshold,
        "refine_steps": options.refine,
        "unrefined": interpreter.has_decoder,
        "stable": options.stable,
    }
    if options.second_look:
        how["second_look"] = True
    explainer = interpreter.explainer
    explainer.check_refinement(options.refine or 0, options.second_look)
    return Order(asked, how, _heard(options), options.format)


def _heard(options):
    """Options on how a classifier of others is heard, as they were given."""
    return {"at": options.at, "pool": options.pool}


def _listened(options):
    """Options of `from_classifier` that were given."""
    found = listened(options)
    if options.at is not None:
        times = options.at.split(":")
        try:
            times = tuple(float(time) for time in times)
        except ValueError:
            times = ()
        if len(times) not in (1, 2):
            raise LMACError(
                f"--at: found {options.at!r}, expected seconds, or a range "
                "such as 1.0:2.5"
            )
        found["at"] = times if len(times) == 2 else times[0]
    return found


def _several(options):
    """Options of an explanation of several classes, if that is asked."""
    if options.targets is None:
        if options.min_p is not None:
            raise LMACError("--min-p: expected only with --targets all")
        return {}
    if options.target is not None:
        raise LMACError("--targets: expected without --target")
    several = {"targets": options.targets}
    if options.min_p is not None:
        if not 0 < options.min_p <= 1:
            raise LMACError(f"--min-p: {options.min_p} is not in (0, 1]")
        several["min_p"] = options.min_p
    return several


def _class_of(name, interpreter):
    """A class of the command line: its name, or its number."""
    if name in interpreter.classes or not (name or "").isdecimal():
        return name
    return int(name)
