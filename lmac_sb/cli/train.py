"""``lmac train`` and ``lmac finetune``: the training scripts of the recipe."""

from pathlib import Path

import click

from lmac_sb.cli.next_steps import after_training
from lmac_sb.cli.said import say_next
from lmac_sb.cli.scripts import ScriptCommand, run_script
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.recipe import find_yaml

__all__ = ["finetune", "train"]

TRAIN = """\
Train L-MAC, another explainer or a classifier.

YAML is a file, or a name of one of the recipe, such as lmac, lmac_any or
classifier_conv; it decides which script runs."""


def _train(name, words, *more):
    """Train by the yaml file that comes first, or by that of a name."""
    if words and not words[0].startswith("-"):
        name, *words = words
    given = run_script("train", find_yaml(name), [*more, *words])
    say_next(*after_training(given))
    return 0


@click.command(
    "train", cls=ScriptCommand, help=TRAIN, default="lmac", words="[YAML]"
)
def train(words):
    """Train by the script that the yaml file belongs to.

    Arguments
    ---------
    words : list of str
        A yaml file, then keys with values.

    Returns
    -------
    int
        Exit code.
    """
    return _train("lmac", words)


@click.command(
    "finetune",
    cls=ScriptCommand,
    help="Guide the decoder of a run towards clean sounds.",
    default="lmac_ft",
    words="RUN [YAML]",
)
@click.pass_context
def finetune(ctx, words):
    """Fine-tune the decoder of a run.

    Arguments
    ---------
    ctx : click.Context
        For errors of usage.
    words : list of str
        Folder of the run, perhaps a yaml file, then keys with values.

    Returns
    -------
    int
        Exit code.
    """
    if not words or words[0].startswith("-") or not words[0]:
        ctx.fail("argument RUN: is missing")
    run, *words = words
    if not Path(run).is_dir():
        raise LMACError(f"{run}: no such run folder")
    return _train("lmac_ft", words, f"--pretrained_interpreter={run}")
