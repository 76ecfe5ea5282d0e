"""The command ``lmac``: explain sounds, train, show and share the results.

Imports everything else, but only when a command runs: ``--help``, errors of
usage and completion must not wait for torch.

**One more command** is a module with a click command of the class
`lmac_sb.cli.usage.Command`, whose function imports what it needs and returns
the exit code, and a name in a section of `lmac_sb.cli.main`.

>>> import click
>>> from lmac_sb.cli.main import lmac
>>> from lmac_sb.cli.usage import Command
>>> @click.command("hello", cls=Command, help="Greet.")
... def hello():
...     print("hello")
>>> lmac.add_command(hello)
>>> main(["hello"])
hello
0
>>> del lmac.commands["hello"]
"""

from lmac_sb.cli.main import main

__all__ = ["main"]
