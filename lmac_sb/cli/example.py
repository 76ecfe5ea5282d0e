"""``lmac try``: explain a sound that comes with the package."""

from pathlib import Path

import click

from lmac_sb.cli.checked import check_model
from lmac_sb.cli.explain import explain
from lmac_sb.cli.report import report
from lmac_sb.cli.said import command_line
from lmac_sb.cli.usage import MODEL, PLACE, Command
from lmac_sb.utils.io import check_folder

__all__ = ["example"]

HELP = """\
Explain a sound that is made here.

A page is made to look at and listen to. It takes seconds, and needs nothing
else."""


@click.command("try", cls=Command, help=HELP)
@click.option(
    "--model",
    metavar="MODEL",
    type=MODEL,
    help="as of lmac explain; default: yamnet, where it is installed, else "
    "esc10",
)
@click.option(
    "--sound",
    metavar="NAME",
    help="baby_in_rain, helicopter or siren_and_clock; default: one that the "
    "model knows",
)
@click.option(
    "--out",
    metavar="DIR",
    default="lmac_try",
    type=PLACE,
    help="folder for the sound and its explanation (default: lmac_try)",
)
def example(model, sound, out):
    """Explain an example by the commands that a user would give next.

    Arguments
    ---------
    model : str
        As of `lmac explain`; None for what is there.
    sound : str
        Name of an example; None for one that the model knows.
    out : str
        Folder for the sound and its explanation.

    Returns
    -------
    int
        Exit code.
    """
    check_model(model)
    check_folder(out, "--out")

    from lmac_sb.adapters.named import default_name
    from lmac_sb.data.example import write_example

    out = Path(out)
    if model is None:
        model, why = default_name()
        print(why)
    file, what = write_example(out, sound, model)
    explained = out / "explained"
    print(f"the sound, {what}: {file}")
    for command, words in (
        (explain, [file, "--model", model, "--out", explained]),
        (report, [explained]),
    ):
        words = [str(word) for word in words]
        print(f"$ {command_line(command.name, *words)}", flush=True)
        status = command.main(words, command.name, standalone_mode=False)
        if status:
            return status
    print("then, with a sound of yours:")
    for words in (
        ("explain", "SOUND", "--model", model, "--out", "explained"),
        ("report", "explained"),
    ):
        print(f"  {command_line(*words)}")
    return 0
