"""``lmac app``: a page on which sounds are explained."""

import click
from click.core import ParameterSource

from lmac_sb.cli.checked import check_explained, check_model
from lmac_sb.cli.usage import MODEL, NUMBER, PLACE, WHOLE, Command
from lmac_sb.utils.errors import LMACError

__all__ = ["app"]

HELP = """\
Explain sounds on a page of this machine.

Drop or record a sound, choose what to ask, and hear and see the answer. The
page is at this machine alone, unless --host says otherwise; Ctrl-C ends it.

With --explained it needs no model: the page lists clips that were explained,
however many there are, to be searched, seen and heard."""

_OF_MODELS = ("model", "max_mb", "max_seconds", "trust")


@click.command("app", cls=Command, help=HELP)
@click.option(
    "--model",
    metavar="MODEL",
    type=MODEL,
    help="as of lmac explain; default: as there",
)
@click.option(
    "--explained",
    metavar="DIR",
    type=PLACE,
    help="look through what lmac explain or lmac audit wrote to this folder, "
    "in place of explaining sounds",
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
@click.pass_context
def app(ctx, model, explained, **options):
    """Serve the page until it is stopped.

    Arguments
    ---------
    ctx : click.Context
        Knows which options were given.
    model : str or None
        What explains.
    explained : str or None
        Folder of what is looked through.
    **options
        Of `lmac_sb.app.serve`.

    Returns
    -------
    int
        Exit code.
    """
    if explained is None:
        check_model(model)

        from lmac_sb.app import serve

        serve(model, **options)
        return 0
    for name in _OF_MODELS:
        if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = f"--{name.replace('_', '-')}"
            raise LMACError(f"{option}: expected without --explained")
    check_explained(explained)

    from lmac_sb.app import serve_explained

    serve_explained(explained, host=options["host"], port=options["port"])
    return 0
