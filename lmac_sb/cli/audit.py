"""``lmac audit``: what a classifier listens to, over a whole corpus."""

import sys
from pathlib import Path
from types import SimpleNamespace

import click

from lmac_sb.cli.checked import check_model
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
from lmac_sb.cli.said import command_line, printable, say_next
from lmac_sb.cli.usage import PLACE, WHOLE, Command
from lmac_sb.jobs.processes import is_first
from lmac_sb.utils.console import Loudness, choose_loudness, progress, say
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import check_folder
from lmac_sb.utils.memory import keep_memory

__all__ = ["audit"]

_MOST_PRINTED = 5  # alarms, and failed clips

HELP = """\
Find what a model listens to, on all clips of a corpus.

DATA is a folder, a csv or JSON table, a manifest, WebDataset shards or a data
set of Hugging Face. Each clip is explained; the page and the tables in the
folder say for each class where in frequency and time its decisions lie, which
explanations are alike, what spoke for wrong decisions, and which shortcuts
they may rest on (alarms), with clips to hear. The same command again goes on
where an earlier one stopped; several at once, also on several machines, or
under torchrun, share the work. Clips that cannot be used are listed and
counted."""

_TABLE = (
    click.option(
        "--labels",
        metavar="TABLE",
        type=PLACE,
        help="csv, JSON or Parquet of your own, with a column of file names: "
        "labels, and columns such as site or device, on which decisions "
        "should not depend",
    ),
    click.option(
        "--label-column",
        metavar="NAME",
        help="column with the labels; default: one of a usual name",
    ),
    click.option(
        "--file-column",
        metavar="NAME",
        help="column with the files; default: the one that fits",
    ),
    click.option(
        "--classes-map",
        metavar="TABLE",
        type=PLACE,
        help="csv with the columns label and class: which class of the model "
        "a label is, where the names differ by more than capital letters",
    ),
)
_WORK = (
    click.option(
        "--limit",
        type=WHOLE,
        metavar="N",
        help="look at N clips alone, drawn by the seed; default: all",
    ),
    click.option(
        "--seed",
        type=WHOLE,
        metavar="N",
        default=0,
        help="seed of all random draws (default: 0)",
    ),
    click.option(
        "--refine",
        type=WHOLE,
        metavar="K",
        help="gradient steps of each mask, as of lmac explain; default: the "
        "model's setting",
    ),
    click.option(
        "--no-interventions",
        is_flag=True,
        help="do not try decisions with parts of the sound removed: faster, "
        "but without most alarms",
    ),
    click.option(
        "--examples",
        type=WHOLE,
        metavar="N",
        default=100,
        help="most clips to hear (default: 100)",
    ),
)


@click.command("audit", cls=Command, help=HELP)
@click.argument("data", metavar="DATA", type=PLACE)
@MODEL_OPTION
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=PLACE,
    help="folder for the results",
)
@with_options(_TABLE)
@with_options(LISTENER)
@with_options(_WORK)
@PROCESSES
@click.option("--quiet", is_flag=True, help="print the page and alarms alone")
@click.option("--verbose", is_flag=True, help="print notes as well")
@TRUST
def audit(**options):
    """Explain a corpus, and write page and tables.

    Returns
    -------
    int
        Exit code.
    """
    options = SimpleNamespace(**options)
    _check(options)
    return shared(options.processes, lambda: _audit(options))


def _audit(options):
    """Audit the corpus in this process, which may be one of several."""
    # First what needs no torch: a corpus may be none.
    from lmac_sb.data.corpus import open_corpus

    corpus = open_corpus(
        options.data,
        table=options.labels,
        label_column=options.label_column,
        file_column=options.file_column,
    )

    from lmac_sb.audit.labels import read_classes_map
    from lmac_sb.audit.run import Options, run_audit
    from lmac_sb.inference.load import default_model, load_interpreter
    from lmac_sb.pages.audit import write_audit_page

    how = Options(
        limit=options.limit,
        seed=options.seed,
        refine_steps=options.refine,
        interventions=not options.no_interventions,
        examples=options.examples,
        classes_map=options.classes_map
        and read_classes_map(options.classes_map),
        pool=options.pool,
    )
    model = options.model or default_model()
    interpreter = load_interpreter(model, options.trust, **listened(options))
    n_clips = min(len(corpus), options.limit or len(corpus))
    say_if_alone(options.processes, n_clips)
    keep_memory()
    with progress(total=n_clips, unit="clip", disable=not is_first()) as bar:
        found = run_audit(corpus, interpreter, options.out, how, bar.update)
    if is_first():
        _tell(options.out, found, write_audit_page(options.out))
    return 0


def _check(options):
    """Refuse what can be refused before torch is imported."""
    for name, least in (("limit", 1), ("refine", 0), ("examples", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise LMACError(
                f"--{name}: {value}, expected a whole number from {least}"
            )
    if options.seed < 0:
        raise LMACError(f"--seed: {options.seed}, expected one from 0")
    for name in ("labels", "classes_map"):
        value = getattr(options, name)
        if value is not None and not Path(value).is_file():
            raise LMACError(f"{value}: no such file")
    data = Path(options.data)
    is_pattern = any(x in options.data for x in "{*?[")
    # A split of a data set of Hugging Face is no folder of its own.
    is_split = data.parent != Path() and data.parent.is_dir()
    if not (data.exists() or is_pattern or is_split):
        raise LMACError(f"{data}: no such file or folder")
    check_model(options.model, **listened(options))
    check_folder(options.out, "--out")
    check_processes(options.processes)
    choose_loudness(options.quiet, options.verbose)


def _tell(out, found, page):
    """Print what was found, and where it is."""
    from lmac_sb.audit.alarms import LEAST_CLIPS

    corpus, failed = found["corpus"], found["failed"]
    if failed:
        n_failed = corpus["n_failed"]
        print(
            f"warning: {n_failed} of {corpus['n_clips']} clips failed:",
            file=sys.stderr,
        )
        for row in failed[:_MOST_PRINTED]:
            print(f"  {printable(row['error'])}", file=sys.stderr)
        if n_failed > _MOST_PRINTED:
            table = Path(out, "tables", "clips.csv")
            print(f"  ... (all: {table}, column error)", file=sys.stderr)
    for note in found["notes"]:
        say(printable(f"note: {note}"), Loudness.VERBOSE)
    alarms = found["alarms"]
    n = len(alarms)
    said = f"{n or 'no'} alarm{'' if n == 1 else 's'}"
    said += f" in {found['n_tests']} tests"
    if not found["n_tests"]:
        said = "no alarms, but no test could be made: a test compares two "
        said += "classes that were decided for, and needs at least "
        said += f"{LEAST_CLIPS} clips with more than their loud event"
    say(f"{said}{':' if n else ''}", Loudness.QUIET)
    for alarm in alarms[:_MOST_PRINTED]:
        say(printable(f"  {alarm['text']}"), Loudness.QUIET)
    if n > _MOST_PRINTED:
        say(f"  ... ({n - _MOST_PRINTED} more on the page)", Loudness.QUIET)
    say(printable(f"tables: {Path(out, 'tables')}"))
    say(printable(f"page: {page}"), Loudness.QUIET)
    say(f"open it in a browser: {Path(page).resolve().as_uri()}")
    say_next(command_line("app", "--explained", out))
