"""``lmac recipe``: the scripts and yaml files that come with the package."""

import shlex

import click

from lmac_sb.cli.said import command_line, say_next
from lmac_sb.cli.usage import PLACE, Command, Group
from lmac_sb.utils.recipe import copy_recipe

__all__ = ["recipe"]

COPY = """\
Copy the recipe's scripts and yaml files to a folder, to change them there.

The folder must be new or empty. The scripts run from there: python
train_lmac.py hparams/lmac.yaml."""


@click.group(
    "recipe",
    cls=Group,
    help="Copy the recipe's scripts and yaml files.",
    subcommand_metavar="COMMAND ...",
)
def recipe():
    """Run one of the commands.

    Returns
    -------
    int
        Exit code.
    """


@click.command("copy", cls=Command, help=COPY)
@click.argument("folder", metavar="FOLDER", type=PLACE)
def copy(folder):
    """Copy the recipe.

    Arguments
    ---------
    folder : str
        A new or empty one.

    Returns
    -------
    int
        Exit code.
    """
    found = copy_recipe(folder)
    print(f"recipe: {found}")
    say_next(
        command_line("train", found / "hparams" / "lmac.yaml"),
        f"cd {shlex.quote(str(found))} && python train_lmac.py "
        "hparams/lmac.yaml",
    )
    return 0


recipe.add_section("commands", copy)
