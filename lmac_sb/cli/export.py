"""``lmac export``: a run becomes a folder that anyone can load."""

from pathlib import Path

import click

from lmac_sb.cli.said import command_line, say_next
from lmac_sb.cli.usage import PLACE, Command
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import is_free

__all__ = ["export"]

HELP = """\
Turn a run into a folder that anyone can load.

It gets the model, class names, checksums and a model card of a finished run of
train_lmac.py."""


@click.command("export", cls=Command, help=HELP)
@click.argument("run_folder", metavar="RUN", type=PLACE)
@click.argument("out_folder", metavar="OUT", type=PLACE)
@click.option(
    "--license",
    default="apache-2.0",
    metavar="ID",
    help="licence of the model, for its card (default: apache-2.0)",
)
@click.option(
    "--push",
    metavar="REPOSITORY",
    help="upload it to the Hugging Face hub as name/repository",
)
@click.option(
    "--trust",
    is_flag=True,
    help="let the run's yaml run any code: only if you know its author",
)
def export(run_folder, out_folder, license, push, trust):
    """Export a run, and upload it if requested.

    Arguments
    ---------
    run_folder, out_folder : str
        The run, and the new folder.
    license : str
        For the card.
    push : str or None
        Repository to upload to.
    trust : bool
        Whether the run's yaml may run code.

    Returns
    -------
    int
        Exit code.
    """
    # What needs no torch to be seen.
    if not Path(run_folder).is_dir():
        raise LMACError(f"{run_folder}: no such run folder")
    if not is_free(out_folder):
        raise LMACError(f"{out_folder}: already exists; choose another folder")

    from lmac_sb.inference import export as exporting

    folder = exporting.export_run(run_folder, out_folder, license, push, trust)
    print(f"exported: {folder}")
    if push:
        print(f"pushed: {exporting.push(folder, push)}")
    # A clip of the run's test comes along, if there is one.
    sound = next(Path(folder).glob("example/*/original.*"), "FILE")
    words = [sound, "--model", out_folder, "--out", "explained"]
    say_next(command_line("explain", *words))
    return 0
