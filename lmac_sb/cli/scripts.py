"""Commands that call a script of the recipe, with the keys of its yaml file."""

from pathlib import Path

from click.shell_completion import CompletionItem

from lmac_sb.cli.usage import Command
from lmac_sb.training.arguments import read_arguments, script_of
from lmac_sb.training.key_help import key_help, read_sections
from lmac_sb.training.run_options import RUN_OPTIONS
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.recipe import find_yaml, load_script, yaml_names

__all__ = ["ScriptCommand", "is_yaml", "run_script"]

# The command of each script.
COMMANDS = {
    "train_lmac.py": "train",
    "train_l2i.py": "train",
    "train_multilabel.py": "train",
    "train_classifier.py": "train",
    "eval.py": "eval",
    "sanity.py": "sanity",
    "audit.py": "audit",
    "make_listening_test.py": "listen",
}


class ScriptCommand(Command):
    """A command whose options are the keys of a yaml file.

    The function gets all words: what the keys are is known once the file is.

    Arguments
    ---------
    *args, **kwargs
        Of `click.Command`.
    default : str
        The yaml file where none is given, of those of the recipe.
    words : str
        What may stand before the keys, for the usage.

    Example
    -------
    >>> command = ScriptCommand("x", default="lmac", words="[YAML]")
    >>> command.usage
    'lmac x [YAML] [--key value ...]'
    """

    def __init__(self, *args, default, words, **kwargs):
        super().__init__(*args, **kwargs)
        self.default = default
        self.usage = f"lmac {self.name} {words} [--key value ...]"

    def parse_args(self, ctx, args):
        """Keep all words."""
        ctx.params["words"] = list(args)
        ctx.args = []
        return []

    def invoke(self, ctx):
        """Print the help of the yaml file, or call the function."""
        words = ctx.params["words"]
        if {"-h", "--help"} & {*words}:
            text = self.yaml_of(words).read_text("utf-8")
            print(key_help(text, self.usage))
            if self.name == "train":
                names = ", ".join(yaml_names())
                print(f"\nYAML is a file, or one of the recipe: {names}.")
            return 0
        return super().invoke(ctx)

    def yaml_of(self, words):
        """The yaml file that stands among the words before the keys."""
        for word in _before_keys(words):
            if self.name == "train" or is_yaml(word):
                return find_yaml(word)
        return find_yaml(self.default)

    def get_usage(self, ctx):
        """How it is called."""
        return f"usage: {self.usage}"

    def shell_complete(self, ctx, incomplete):
        """Keys of the yaml file, or names of yaml files."""
        words = ctx.params.get("words", [])
        if incomplete.startswith("-"):
            text = self.yaml_of(words).read_text("utf-8")
            _, sections = read_sections(text)
            known = {
                entry.key: entry.meaning
                for section in sections
                for entry in section.entries
            }
            known |= dict.fromkeys(sorted(RUN_OPTIONS), "")
            return [
                CompletionItem(f"--{key}", help=meaning)
                for key, meaning in known.items()
                if f"--{key}".startswith(incomplete)
            ]
        if self.name == "train" and not words:
            names = [x for x in yaml_names() if x.startswith(incomplete)]
            if names:
                return [CompletionItem(x) for x in names]
        return [CompletionItem(incomplete, type="file")]


def is_yaml(word):
    """Whether a word of a command line names a yaml file.

    Arguments
    ---------
    word : str
        Any.

    Returns
    -------
    bool

    Example
    -------
    >>> is_yaml("mine.yaml"), is_yaml("results/lmac/1234")
    (True, False)
    """
    return Path(word).suffix in (".yaml", ".yml")


def run_script(command, file, arguments):
    """Run the script that a yaml file belongs to.

    Arguments
    ---------
    command : str
        The command that the user gave.
    file : Path
        The yaml file.
    arguments : list of str
        Keys with values, and run options.

    Returns
    -------
    lmac_sb.training.arguments.Arguments
        What it was run with.

    Raises
    ------
    LMACError
        If something is wrong with the file or the arguments.
    SystemExit
        If the script ended with an error.
    """
    script = script_of(file)
    owner = COMMANDS.get(script)
    if owner is None:
        raise LMACError(f"{file}: found a yaml file of no command")
    if owner != command:
        raise LMACError(
            f"{file}: is a yaml file for lmac {owner}, not for lmac {command}"
        )
    argv = [str(file), *arguments]
    # Mistakes are found before torch is imported.
    given = read_arguments(argv, script)
    load_script(script).main(argv)
    return given


def _before_keys(words):
    """The words before the first key."""
    found = []
    for word in words:
        if word.startswith("-"):
            break
        found.append(word)
    return found
