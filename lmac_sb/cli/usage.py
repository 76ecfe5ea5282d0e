"""Commands whose errors of usage are one clear line.

An unknown command or option proposes the nearest one; an option that is given
twice or has no value is refused.
"""

import os

import click
from click.shell_completion import CompletionItem

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.near import near, nearest

__all__ = [
    "MODEL",
    "MODELS",
    "NUMBER",
    "PLACE",
    "WHOLE",
    "Choice",
    "Command",
    "Group",
    "usage_line",
]


class Command(click.Command):
    """A command that refuses what is given twice or has no value.

    Arguments
    ---------
    *args, **kwargs
        Of `click.Command`.

    Example
    -------
    >>> command = Command("x", params=[click.Option(["--out"])])
    >>> command.main(["--out="], standalone_mode=False)
    Traceback (most recent call last):
    ...
    click.exceptions.BadParameter: has no value
    """

    def parse_args(self, ctx, args):
        """Look for mistakes that click lets pass, then parse."""
        try:
            if not ctx.resilient_parsing:
                self._check(ctx, list(args))
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx):
        """Run it, where there is a place for that."""
        try:
            os.getcwd()
        except FileNotFoundError as error:
            # Of torch's libraries, one would end the process.
            raise LMACError(
                "the folder in which the command runs was deleted, expected "
                "one that is there; go to another one (cd)"
            ) from error
        return super().invoke(ctx)

    def _check(self, ctx, args):
        """Refuse repeated options, words without a value, and extra words."""
        values, extra, order = self.make_parser(ctx).parse_args(args)
        if extra and not ctx.allow_extra_args:
            ctx.fail(f"found '{extra[0]}', expected no more")
        for param in self.get_params(ctx):
            is_option = isinstance(param, click.Option)
            if is_option and not param.multiple and order.count(param) > 1:
                raise click.BadParameter("is given twice", ctx, param)
            value = values.get(param.name)
            if not isinstance(value, str) or param.type in (WHOLE, NUMBER):
                continue
            # `--model --out x` would take --out for the model.
            if not value or (is_option and value.startswith("--")):
                raise click.BadParameter("has no value", ctx, param)

    def collect_usage_pieces(self, ctx):
        """What it is given, with the options that it must have."""
        needed = [
            f"{param.opts[0]} {param.metavar}"
            for param in self.params
            if isinstance(param, click.Option) and param.required
        ]
        return [*super().collect_usage_pieces(ctx), *needed]

    def format_usage(self, ctx, formatter):
        """The line that shows how it is called."""
        _write_usage(self, ctx, formatter)


class Group(click.Group):
    """Commands in the order in which they were added, in sections.

    Arguments
    ---------
    *args, **kwargs
        Of `click.Group`.

    Example
    -------
    >>> group = Group("x")
    >>> group.add_section("First", Command("b"), Command("a"))
    >>> group.list_commands(None)
    ['b', 'a']
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.sections = {}

    def add_section(self, title, *commands):
        """Add commands under a title."""
        self.sections[title] = commands
        for command in commands:
            self.add_command(command)

    def list_commands(self, ctx):
        """Names in the order of `add_section`."""
        return list(self.commands)

    def parse_args(self, ctx, args):
        """Ask for a command if there is none."""
        if not args and not ctx.resilient_parsing:
            names = ", ".join(self.commands)
            ctx.fail(f"found no command, expected one of {names}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx, args):
        """The command of that name, or a proposal."""
        name = args[0]
        if name not in self.commands and not ctx.resilient_parsing:
            hint = near(name, {*self.commands, "--help"})
            known = "" if hint else f"; expected {', '.join(self.commands)}"
            ctx.fail(f"unknown command '{name}'{hint}{known}")
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx, formatter):
        """The line that shows how it is called."""
        _write_usage(self, ctx, formatter)

    def format_commands(self, ctx, formatter):
        """The commands, each with a line."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(x.name, x.get_short_help_str(60)) for x in commands]
                )


def _write_usage(command, ctx, formatter):
    """Write how a command is called, in small letters as other tools do."""
    words = " ".join(command.collect_usage_pieces(ctx))
    formatter.write_usage(ctx.command_path, words, prefix="usage: ")


class Choice(click.Choice):
    """One of several words.

    Arguments
    ---------
    *args, **kwargs
        Of `click.Choice`.

    Example
    -------
    >>> Choice(["mean", "max"]).convert("men", None, None)
    Traceback (most recent call last):
    ...
    click.exceptions.BadParameter: found 'men', expected mean or max; did you \
mean 'mean'?
    """

    def convert(self, value, param, ctx):
        """The word, if it is one of them."""
        if value in self.choices:
            return value
        *most, last = self.choices
        known = f"{', '.join(most)} or {last}" if most else last
        hint = near(value, self.choices)
        self.fail(f"found '{value}', expected {known}{hint}", param, ctx)


class _Number(click.ParamType):
    """A number of a kind, by its name in Python and for people."""

    def __init__(self, kind, text):
        self.kind, self.text, self.name = kind, text, kind.__name__

    def convert(self, value, param, ctx):
        """The number that a text stands for."""
        try:
            return self.kind(value)
        except ValueError:
            self.fail(
                f"invalid {self.name} value: '{value}', expected {self.text}",
                param,
                ctx,
            )


class _Place(click.ParamType):
    """A path, which a shell completes; `click.Path` would look at it first."""

    name = "path"

    def shell_complete(self, ctx, param, incomplete):
        """Let the shell complete it."""
        return [CompletionItem(incomplete, type="file")]


class _Model(click.ParamType):
    """A model: a name, a hub id or a folder."""

    name = "model"

    def shell_complete(self, ctx, param, incomplete):
        """The names that there are, else let the shell complete it."""
        found = [x for x in MODELS if x.startswith(incomplete)]
        if not found:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(name) for name in found]


# Those of `lmac_sb.adapters.named`, which imports torch.
MODELS = ("crepe", "esc10", "silero", "yamnet")

MODEL = _Model()
PLACE = _Place()
WHOLE = _Number(int, "a whole number")
NUMBER = _Number(float, "a number")


def usage_line(error):
    """An error of usage on one line.

    Arguments
    ---------
    error : click.UsageError
        What click raised.

    Returns
    -------
    str
        What is wrong, the nearest option, and how the command is called.

    Example
    -------
    >>> command = Command("x", params=[click.Option(["--out"])])
    >>> try:
    ...     command.main(["--ou=1"], prog_name="x", standalone_mode=False)
    ... except click.UsageError as error:
    ...     print(usage_line(error))
    unknown option --ou; did you mean '--out'? (usage: x [OPTIONS])
    """
    ctx = error.ctx
    if isinstance(error, click.NoSuchOption):
        options = {
            name.lstrip("-"): name
            for param in ctx.command.get_params(ctx)
            if isinstance(param, click.Option)
            for name in param.opts
        }
        # All dashes are alike.
        found = nearest(error.option_name.lstrip("-"), options)
        hint = f"; did you mean '{options[found]}'?" if found else ""
        text = f"unknown option {error.option_name}{hint}"
    elif isinstance(error, click.BadOptionUsage):
        takes = "takes no value" if "not take" in error.message else ""
        text = f"argument {error.option_name}: {takes or 'has no value'}"
    elif isinstance(error, click.BadParameter):
        name = error.param.opts[0]
        if isinstance(error.param, click.Argument):
            name = (error.param.metavar or error.param.name).strip(".")
        missing = isinstance(error, click.MissingParameter)
        text = f"argument {name}: {'is missing' if missing else error.message}"
    else:
        text = error.message
    usage = " ".join(ctx.get_usage().split()) if ctx else "usage: lmac"
    return f"{text} ({usage})"
