"""``lmac report``: a web page of explanations."""

import sys
from pathlib import Path

import click

from lmac_sb.cli.said import printable
from lmac_sb.cli.usage import PLACE, Command

__all__ = ["report"]

HELP = """\
Make a web page from a folder of explanations.

It is one HTML page, which works offline, of the results of `lmac explain
--out DIR`. Clips that are not whole are left out, and named here and on the
page."""


@click.command("report", cls=Command, help=HELP)
@click.argument("folder", metavar="DIR", type=PLACE)
@click.option(
    "--mix-models",
    is_flag=True,
    help="allow clips that different models explain; each then names its own",
)
@click.option(
    "--link-sounds",
    is_flag=True,
    help="link the sound files instead of embedding them in the page",
)
def report(folder, mix_models, link_sounds):
    """Write the page and print its path.

    Arguments
    ---------
    folder : str
        Folder of explanations.
    mix_models : bool
        Whether different models may have explained them.
    link_sounds : bool
        Whether the sounds stay outside the page.

    Returns
    -------
    int
        Exit code.
    """
    from lmac_sb.pages.report import write_report

    left_out = []
    page = write_report(
        folder, embed=not link_sounds, mixed=mix_models, left_out=left_out
    )
    for error in left_out:
        print(f"left out: {printable(str(error))}", file=sys.stderr)
    print(printable(f"report: {page}"))
    print(f"open it in a browser: {Path(page).resolve().as_uri()}")
    return 0
