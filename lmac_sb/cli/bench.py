"""``lmac bench``: the leaderboard."""

from types import SimpleNamespace

import click

from lmac_sb.cli.processes import PROCESSES, check_processes, shared
from lmac_sb.cli.said import printable
from lmac_sb.cli.usage import PLACE, WHOLE, Command
from lmac_sb.jobs.processes import is_first
from lmac_sb.utils.console import Loudness, choose_loudness, say
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import check_folder

__all__ = ["bench"]

HELP = """\
Compare methods that explain, on several classifiers and data sets.

What is missing is trained first, by the scripts of the recipe. All is judged
on clips that no model was trained on: faithfulness (as each method is, and at
equal area), localisation where the answer is known, what is heard, what
another classifier says, agreement between seeds, robustness, seconds and
passes. Tables, plots and a page go to DIR. The same command again goes on
where an earlier one stopped."""


def _names(ctx, param, value):
    """Names that commas separate; None where none is given."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if "" in names:
        raise click.BadParameter("has an empty name", ctx, param)
    for name in names:
        if names.count(name) > 1:
            raise click.BadParameter(f"'{name}' is given twice", ctx, param)
    return tuple(names)


def _listed(option, default):
    """An option that takes names."""
    return click.option(
        option,
        metavar="NAME,...",
        callback=_names,
        help=f"{default}; package.module:name is one of your own",
    )


@click.command("bench", cls=Command, help=HELP)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=PLACE,
    help="folder for the results",
)
@_listed(
    "--methods",
    "such as lmac, lmac+5, optimised+20, l2i, gradcam, occlusion, "
    "integrated_gradients, loudest (default: these and more)",
)
@_listed(
    "--classifiers",
    "cnn, transformer, conv2d, multilabel, waveform, yamnet, yamnet_linear "
    "(default: all)",
)
@_listed(
    "--data",
    "scenes, multilabel, soundscapes, esc10, digits (default: all that are "
    "there)",
)
@click.option(
    "--clips",
    type=WHOLE,
    metavar="N",
    default=15,
    help="test clips of each data set, evenly spread (default: 15)",
)
@click.option(
    "--seeds",
    type=WHOLE,
    metavar="N",
    default=2,
    help="decoders, trained from so many seeds, whose masks are compared "
    "(default: 2)",
)
@click.option(
    "--draws",
    type=WHOLE,
    metavar="N",
    default=3,
    help="draws of noise 40 dB below the sound (default: 3)",
)
@click.option(
    "--epochs",
    type=WHOLE,
    metavar="N",
    help="of each training; default: what its yaml file says",
)
@click.option(
    "--trained",
    metavar="DIR",
    type=PLACE,
    help="folder of trained models, DIR/data/classifier/run; what it lacks is "
    "trained there (default: in the folder for the results)",
)
@click.option(
    "--real",
    metavar="DIR",
    type=PLACE,
    help="folder that holds esc10, fsdd, noise and speech (default: that in "
    "the environment, "
    "LMAC_SB_DATA)",
)
@PROCESSES
@click.option("--quiet", is_flag=True, help="print where the page is, no more")
@click.option("--verbose", is_flag=True, help="print notes as well")
def bench(**options):
    """Run the bench, and write tables, plots and page.

    Returns
    -------
    int
        Exit code.
    """
    options = SimpleNamespace(**options)
    for name, least in (
        ("clips", 1),
        ("seeds", 1),
        ("draws", 0),
        ("epochs", 1),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise LMACError(
                f"--{name}: {value}, expected a whole number from {least}"
            )
    check_folder(options.out, "--out")
    if options.trained is not None:
        check_folder(options.trained, "--trained")
    check_processes(options.processes)
    choose_loudness(options.quiet, options.verbose)
    return shared(options.processes, lambda: _bench(options))


def _bench(options):
    """Run it in this process, which may be one of several."""
    from lmac_sb.bench.run import Options, run_bench
    from lmac_sb.bench.tables import remarks
    from lmac_sb.pages.bench import write_bench_page

    how = Options(
        **{name: getattr(options, name) for name in Options._fields[:-1]}
    )
    found = run_bench(options.out, how, options.trained, options.real, say)
    if is_first():
        page = write_bench_page(options.out)
        for note in found["notes"]:
            say(printable(f"not in it: {note}"))
        for facts in found["cells"]:
            place = f"{facts['data']}, {facts['classifier']}"
            for text in remarks(facts):
                say(printable(f"{place}: {text}"))
        say(printable(f"tables: {options.out}/bench.md"))
        say(printable(f"page: {page}"), Loudness.QUIET)
    return 0
