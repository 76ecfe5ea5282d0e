"""``lmac completion``: what makes a shell complete commands and options."""

import click
from click.shell_completion import get_completion_class

from lmac_sb.cli.usage import Choice, Command

__all__ = ["completion"]

HELP = """\
Print what makes a shell complete commands, options, models and keys.

\b
bash: eval "$(lmac completion bash)"   in ~/.bashrc
zsh:  eval "$(lmac completion zsh)"    in ~/.zshrc
fish: lmac completion fish | source    in ~/.config/fish/config.fish"""


@click.command("completion", cls=Command, help=HELP)
@click.argument(
    "shell", metavar="bash|zsh|fish", type=Choice(["bash", "zsh", "fish"])
)
@click.pass_context
def completion(ctx, shell):
    """Print click's script for a shell.

    Arguments
    ---------
    ctx : click.Context
        Of the whole command.
    shell : str
        Name of the shell.

    Returns
    -------
    int
        Exit code.
    """
    command = ctx.find_root().command
    script = get_completion_class(shell)(command, {}, "lmac", "_LMAC_COMPLETE")
    print(script.source())
    return 0
