"""All commands, and what becomes of their errors."""

import sys

import click

import lmac_sb
from lmac_sb.cli.app import app
from lmac_sb.cli.audit import audit
from lmac_sb.cli.bench import bench
from lmac_sb.cli.cache import cache
from lmac_sb.cli.completion import completion
from lmac_sb.cli.doctor import doctor
from lmac_sb.cli.evaluate import evaluate, listen, sanity, score
from lmac_sb.cli.example import example
from lmac_sb.cli.explain import explain
from lmac_sb.cli.export import export
from lmac_sb.cli.models import models
from lmac_sb.cli.recipe import recipe
from lmac_sb.cli.report import report
from lmac_sb.cli.scenes import scenes
from lmac_sb.cli.train import finetune, train
from lmac_sb.cli.usage import Group, usage_line
from lmac_sb.utils.console import get_loudness, set_loudness
from lmac_sb.utils.errors import (
    LMACError,
    exit_on_user_error,
    is_full,
    leave_it_to_the_first,
)

__all__ = ["lmac", "main"]

EXAMPLES = """\
\b
examples:
  lmac try
  lmac explain *.wav --model my_classifier --out explained
  lmac explain *.wav --model yamnet --targets all --out explained
  lmac report explained
  lmac audit recordings --model my_classifier --out audit
  lmac app
  lmac models
  lmac train lmac_any --model name/repository --data_folder sounds
  lmac eval results/lmac/1234
  lmac export results/lmac/1234 results/bundle
  lmac cache /fast/disk/cache --prune
  lmac doctor
"""


@click.group(
    "lmac",
    cls=Group,
    help="Hear and see why a sound classifier decided.",
    epilog=EXAMPLES,
    subcommand_metavar="COMMAND ...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(lmac_sb.__version__, message="%(prog)s %(version)s")
def lmac():
    """Run one of the commands.

    Returns
    -------
    int
        Exit code.
    """


lmac.add_section("explain", example, explain, audit, report, app, models)
lmac.add_section("train and share", scenes, train, finetune, export, recipe)
lmac.add_section("evaluate", evaluate, bench, sanity, listen, score)
lmac.add_section("this installation", doctor, cache, completion)


@exit_on_user_error
def main(argv=None):
    """Run the command line.

    Arguments
    ---------
    argv : list of str
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0, or 1 if something could not be done, 2 for an error of
        usage, or 3 if an explanation is not faithful and that was asked for.

    Example
    -------
    >>> main(["--version"]), main(["exprot"])
    lmac ...
    (0, 2)
    """
    loudness = get_loudness()
    try:
        # `obj`: for who starts the same command in several processes.
        return (
            lmac.main(argv, prog_name="lmac", standalone_mode=False, obj=argv)
            or 0
        )
    except click.UsageError as error:
        leave_it_to_the_first()
        print(f"error: {usage_line(error)}", file=sys.stderr)
        return 2
    except click.Abort:
        # What click makes of Ctrl-C.
        raise KeyboardInterrupt from None
    except OSError as error:
        # A disk that cannot be written to is nothing to look for in the code.
        if is_full(error) or isinstance(error, PermissionError):
            raise
        raise LMACError(str(error)) from error
    finally:
        set_loudness(loudness)
