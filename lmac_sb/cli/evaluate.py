"""``lmac eval``, ``sanity``, ``listen`` and ``score``: judge explanations."""

import click

from lmac_sb.cli.checked import check_model
from lmac_sb.cli.said import command_line
from lmac_sb.cli.scripts import ScriptCommand, is_yaml, run_script
from lmac_sb.cli.usage import PLACE, Command
from lmac_sb.utils.recipe import find_yaml, load_script

__all__ = ["evaluate", "listen", "sanity", "score"]

WORDS = "[RUN] [YAML]"


def _run(ctx, words):
    """Run the script of a command on a run, or on that of its yaml file."""
    default = ctx.command.default
    run, file = None, find_yaml(default)
    while words and not words[0].startswith("-"):
        word, *words = words
        if not word:
            ctx.fail("argument RUN: has no value")
        if is_yaml(word):
            file = find_yaml(word)
        elif run is None:
            run = word
        else:
            ctx.fail(f"found '{word}', expected no more")
    if run is not None:
        check_model(run)
        words = [f"--interpreter={run}", *words]
    return run_script(ctx.command.name, file, words)


def _judging(name, text):
    """A command that runs a script, and says nothing of its own."""

    @click.command(
        name, cls=ScriptCommand, help=text, default=name, words=WORDS
    )
    @click.pass_context
    def command(ctx, words):
        """Run it, on a run or on that of its yaml file."""
        _run(ctx, words)
        return 0

    return command


evaluate = _judging(
    "eval", "Evaluate explanations: every method in every setting."
)
sanity = _judging("sanity", "Check that masks follow the classifier.")


@click.command(
    "listen",
    cls=ScriptCommand,
    help="Make a blinded listening test.",
    default="listening",
    words=WORDS,
)
@click.pass_context
def listen(ctx, words):
    """Make the page of a listening test, and its key.

    Arguments
    ---------
    ctx : click.Context
        For errors of usage.
    words : list of str
        Perhaps folder of a run and a yaml file, then keys with values.

    Returns
    -------
    int
        Exit code.
    """
    given = _run(ctx, words)
    key = f"{given.resolved['output_folder']}/key.json"
    line = command_line("score", "ratings", "--key", key)
    print(f"when the listeners' files are in ratings/: {line}")
    return 0


@click.command(
    "score", cls=Command, help="Score a listening test, from its ratings."
)
@click.argument(
    "ratings",
    nargs=-1,
    required=True,
    metavar="RATINGS...",
    type=PLACE,
)
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    type=PLACE,
    help="key.json, written with the page",
)
@click.option(
    "--output_folder",
    metavar="DIR",
    type=PLACE,
    help="folder for the scores (default: the key's)",
)
def score(ratings, key, output_folder):
    """Read the ratings, and write and print the scores.

    Arguments
    ---------
    ratings : tuple of str
        The listeners' files, or folders of them.
    key : str
        The key of the test.
    output_folder : str or None
        Where the scores go.

    Returns
    -------
    int
        Exit code.
    """
    words = [f"--key={key}"]
    if output_folder is not None:
        words.append(f"--output_folder={output_folder}")
    load_script("score_listening_test.py").main([*words, "--", *ratings])
    return 0
