"""``lmac report``: a web page of explanations."""

import sys
from pathlib import Path

import click

from lmac_sb.cli.checked import check_explained
from lmac_sb.cli.said import printable
from lmac_sb.cli.usage import PLACE, WHOLE, Command

__all__ = ["report"]

HELP = """\
Make a web page from a folder of explanations.

It is one HTML page, which works offline, of the results of `lmac explain
--out DIR`, in folders or in shards, or of the examples of an audit. Clips that
are not whole are left out, and named here and on the page, as is how many more
there are."""


@click.command("report", cls=Command, help=HELP)
@click.argument("folder", metavar="DIR", type=PLACE)
@click.option(
    "--clip",
    "names",
    metavar="NAME",
    multiple=True,
    help="only the clip of this name, or of the folder of this name; may be "
    "given several times",
)
@click.option(
    "--class",
    "name_of_class",
    metavar="CLASS",
    help="only clips whose label or decision is this class",
)
@click.option(
    "--verdict",
    metavar="VERDICT",
    default="",
    help="only clips whose verdict begins so, as with 'unfaithful'",
)
@click.option(
    "--wrong",
    is_flag=True,
    help="only clips whose decision differs from their label",
)
@click.option(
    "--most",
    type=WHOLE,
    metavar="N",
    default=500,
    help="clips in the page, at most (default: 500)",
)
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
def report(folder, mix_models, link_sounds, **wanted):
    """Write the page and print its path.

    Arguments
    ---------
    folder : str
        Folder of explanations.
    mix_models : bool
        Whether different models may have explained them.
    link_sounds : bool
        Whether the sounds stay outside the page.
    **wanted
        Of `lmac_sb.pages.explained.Wanted`.

    Returns
    -------
    int
        Exit code.
    """
    check_explained(folder)

    from lmac_sb.pages.explained import Wanted
    from lmac_sb.pages.report import write_report

    left_out = []
    page = write_report(
        folder,
        embed=not link_sounds,
        mixed=mix_models,
        left_out=left_out,
        wanted=Wanted(**wanted),
    )
    for error in left_out:
        print(f"left out: {printable(str(error))}", file=sys.stderr)
    print(printable(f"report: {page}"))
    print(f"open it in a browser: {Path(page).resolve().as_uri()}")
    return 0
