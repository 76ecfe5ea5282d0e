"""``lmac models``: the classifiers that have a name."""

import click

from lmac_sb.cli.usage import Command

__all__ = ["models"]

HELP = """\
List the classifiers that are known by a name.

It says what those that --model takes by a name know, the licence of their
weights, their size, and whether they are installed, or how to get them.
Folders and hub ids of other classifiers work as well."""


@click.command("models", cls=Command, help=HELP)
def models():
    """Print a table of the known classifiers.

    Returns
    -------
    int
        Exit code.
    """
    from lmac_sb.adapters.named import NAMED

    print(f"{'name':8} {'knows':32} {'licence':10} {'size':>6}  installed")
    for name, known in sorted(NAMED.items()):
        state = "yes" if known.is_here else f"no: {known.install}"
        size = f"{known.size_mb} MB"
        print(
            f"{name:8} {known.classes:32} {known.licence:10} {size:>6}  {state}"
        )
    print("\nlmac explain FILE --model NAME --out DIR explains by one of them.")
    return 0
