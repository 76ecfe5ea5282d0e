"""``lmac app``: a page on which sounds are explained."""

import click

from lmac_sb.cli.usage import MODEL, NUMBER, WHOLE, Command

__all__ = ["app"]

HELP = """\
Explain sounds on a page of this machine.

Drop or record a sound, choose what to ask, and hear and see the answer. The
page is at this machine alone, unless --host says otherwise; Ctrl-C ends it."""


@click.command("app", cls=Command, help=HELP)
@click.option(
    "--model",
    metavar="MODEL",
    type=MODEL,
    help="as of lmac explain; default: as there",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    help="address to listen on (default: 127.0.0.1, this machine alone)",
)
@click.option(
    "--port",
    metavar="N",
    type=WHOLE,
    default=7860,
    help="port to listen on, 0 for any that is free (default: 7860)",
)
@click.option(
    "--max-mb",
    metavar="MB",
    type=NUMBER,
    default=50,
    help="largest file that is taken, in megabytes (default: 50)",
)
@click.option(
    "--max-seconds",
    metavar="S",
    type=NUMBER,
    default=600,
    help="longest sound that is taken, in seconds (default: 600)",
)
@click.option(
    "--trust",
    is_flag=True,
    help="let the model's yaml run any code: only if you know its author",
)
def app(model, **options):
    """Serve the page until it is stopped.

    Arguments
    ---------
    model : str or None
        What explains.
    **options
        Of `lmac_sb.app.serve`.

    Returns
    -------
    int
        Exit code.
    """
    from lmac_sb.app import serve

    serve(model, **options)
    return 0
