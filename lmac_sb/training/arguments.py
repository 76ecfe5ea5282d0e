"""Read the command line of a script, and check it before torch is imported."""

import importlib.util
import os
import re
from pathlib import Path
from typing import NamedTuple

import yaml

from lmac_sb.training.key_help import key_help
from lmac_sb.training.keys import KEYS, check_values
from lmac_sb.training.run_options import FLAGS, LISTS, RUN_OPTIONS
from lmac_sb.utils.console import choose_loudness
from lmac_sb.utils.errors import LMACError, let_out, shown
from lmac_sb.utils.near import near
from lmac_sb.utils.recipe import recipe_folder

__all__ = [
    "DEFAULT_YAML",
    "SCRIPTS",
    "Arguments",
    "read_arguments",
    "script_of",
]

# A key that identifies the yaml files of a script; the first match counts.
SCRIPTS = {
    "n_events": "train_multilabel.py",
    "optimised_steps": "eval.py",
    "roar_methods": "sanity.py",
    "interventions": "audit.py",
    "interpreters": "make_listening_test.py",
    "l2i_loss": "train_l2i.py",
    "lmac_loss": "train_lmac.py",
    "mask_share": "train_classifier.py",
}
# The yaml file of which --help tells, where none is given.
DEFAULT_YAML = {
    "train_multilabel.py": "lmac_multilabel.yaml",
    "eval.py": "eval.yaml",
    "sanity.py": "sanity.yaml",
    "audit.py": "audit.yaml",
    "make_listening_test.py": "listening.yaml",
    "train_l2i.py": "l2i.yaml",
    "train_lmac.py": "lmac.yaml",
    "train_classifier.py": "classifier_conv.yaml",
}


class Arguments(NamedTuple):
    """A command line, read and checked; no object has been made.

    Arguments
    ---------
    file : str
        The yaml file.
    text : str
        Its content.
    run_options : list of str
        Arguments for SpeechBrain.
    changed : dict
        Keys that the command line overrides, to their values as given.
    resolved : dict
        The file's content as plain values, with overrides applied and
        references resolved; an object is a dict with its tag.

    Example
    -------
    >>> Arguments("x.yaml", "seed: 1", [], {"seed": "2"}, {}).overrides
    'seed: 2'
    """

    file: str
    text: str
    run_options: list
    changed: dict
    resolved: dict

    @property
    def overrides(self):
        """Keys that the command line overrides, as yaml."""
        return _as_yaml(self.changed)


def read_arguments(argv, script=None):
    """Read and check a command line.

    Arguments
    ---------
    argv : list of str
        Arguments of a script: a yaml file, then run options and overrides,
        and ``--quiet`` or ``--verbose``.
    script : str or None
        Path of the script, to refuse a yaml file of another script.

    Returns
    -------
    Arguments

    Raises
    ------
    LMACError
        If the file cannot be read or belongs to another script, an option is
        unknown, given twice or has no value, or a value is out of range.
    SystemExit
        After ``--help``.

    Example
    -------
    >>> read_arguments(["lmac.yaml", "--seed=1", "--seed=2"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: command line: --seed is given twice
    """
    if {"-h", "--help"} & {*argv}:
        file = _file_of_help(argv, script)
        usage = f"python {_name(script)} YAML [--key value ...]"
        # Here, where it is caught if nobody reads it.
        print(key_help(_read(file) if file else "", usage), flush=True)
        raise SystemExit(0)
    file, run_options, changed = _split(_take_loudness(argv))
    text = _read(file)
    own = _top_keys(text, file)
    _check_keys(file, text, own)
    _check_overrides(own, changed)
    _check_script(file, own, script)
    for key, value in changed.items():
        _check_yaml(key, value)
    resolved, plain = _resolve(file, text, _as_yaml(changed))
    given = {key: plain[key] for key in changed if key in plain}
    check_values(given, "command line", "--")
    check_values(plain, file)
    _check_extras(plain)
    return Arguments(file, text, run_options, changed, resolved)


def _check_extras(values):
    """Refuse what needs an extra that is not installed."""
    missing = importlib.util.find_spec("tensorboard") is None
    if values.get("use_tensorboard") and missing:
        raise LMACError(
            "use_tensorboard: TensorBoard is not installed, expected it; "
            'run: pip install "lmac-sb[tensorboard]"'
        )


def _as_yaml(changed):
    """Overrides as SpeechBrain takes them."""
    return "\n".join(f"{key}: {value}" for key, value in changed.items())


def script_of(file):
    """The script that a yaml file belongs to.

    Arguments
    ---------
    file : str or Path
        The yaml file.

    Returns
    -------
    str or None
        Its name, such as ``train_lmac.py``; None if no script reads it.

    Raises
    ------
    LMACError
        If the file cannot be read.
    """
    return _owner(_top_keys(_read(file), file))


def _take_loudness(argv):
    """Print as much as is asked for; the arguments without that."""
    flags = "--quiet", "--verbose"
    choose_loudness(*(flag in argv for flag in flags))
    return [argument for argument in argv if argument not in flags]


def _name(script):
    """Name of a script, for its help."""
    return Path(script).name if script else "SCRIPT"


def _file_of_help(argv, script):
    """The yaml file of which the help tells: that given, or the script's."""
    values = iter(x for x in argv if x not in ("-h", "--help"))
    for word in values:
        if not word.startswith("-"):
            return word
        if "=" not in word and word[2:] not in FLAGS | {"quiet", "verbose"}:
            next(values, None)
    default = DEFAULT_YAML.get(_name(script))
    return default and Path(script).parent / "hparams" / default


def _split(argv):
    """The yaml file, arguments for SpeechBrain, and overrides by key."""
    files, run_options, overrides = [], [], {}
    seen, waits = set(), None
    for argument in [*argv, "--"]:
        is_option = argument.startswith("--")
        if waits is not None:
            value = "" if is_option else argument
            if waits not in RUN_OPTIONS:
                overrides[waits] = value
            elif value:
                run_options.append(f"--{waits}={value}")
            else:
                raise _no_value(waits)
            waits = None
            if not is_option:
                continue
        if not is_option:
            (run_options if seen & LISTS else files).append(argument)
            continue
        name, equals, value = argument[2:].partition("=")
        if name in seen:
            raise LMACError(f"command line: --{name} is given twice")
        if equals and not value and name in RUN_OPTIONS:
            raise _no_value(name)
        seen.add(name)
        if name in FLAGS | LISTS:
            run_options.append(argument)
        elif not equals:
            waits = name or None
        elif name in RUN_OPTIONS:
            run_options.append(argument)
        else:
            overrides[name] = value
    if len(files) > 1:
        raise LMACError(
            f"command line: {shown(files[1])} is not an option; options begin "
            "with -- and follow the yaml file"
        )
    if not files:
        raise LMACError("command line: expected a yaml file first")
    for key, value in overrides.items():
        if value.startswith("~/"):  # no shell replaces it in --key=~/x
            overrides[key] = os.path.expanduser(value)
    return files[0], run_options, overrides


def _read(file):
    """Text of a yaml file."""
    path = Path(file)
    if not path.is_file():
        below = sorted(path.parent.glob(f"*/{path.name}"))
        hint = f"; did you mean {below[0]}?" if below else ""
        raise LMACError(f"{file}: no such file, expected a yaml file{hint}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LMACError(f"{file}: cannot be read ({error})") from error


def _check_keys(file, text, own):
    """Refuse keys of a file that nothing reads, such as misspelt ones."""
    # A user's own key is fine if another key refers to it.
    referred = set(re.findall(r"<(\w+)>", text))
    for key in own:
        if key not in KEYS and key not in referred:
            known = {*own, *_keys_of_its_kind(own)} | referred
            known.discard(key)
            raise LMACError(f"{file}: unknown key '{key}'{near(key, known)}")


def _keys_of_its_kind(own):
    """Keys of the shipped file that the same script reads."""
    owner = _owner(own)
    if owner is None:
        return []
    file = recipe_folder() / "hparams" / DEFAULT_YAML[owner]
    return _top_keys(_read(file), file)


def _check_overrides(own, overrides):
    """Refuse options that are neither keys of the file nor SpeechBrain's.

    And those without a value, as a name that is none would be.
    """
    for key, value in overrides.items():
        if key not in own:
            hint = near(key, RUN_OPTIONS | {*own})
            raise LMACError(f"command line: unknown key '{key}'{hint}")
        if not value:
            raise _no_value(key)


def _no_value(name):
    """The error for an option that needs a value and has none."""
    return LMACError(f"command line: --{name} has no value")


def _check_yaml(key, value):
    """Refuse the value of an option that is no yaml."""
    try:
        content = yaml.load(f"{key}: {value}", Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        content = None
    if not isinstance(content, dict) or list(content) != [key]:
        raise LMACError(
            f"command line: --{key} is {shown(value)}, expected a value in "
            "yaml, such as 5, [1, 2] or {a: 1}"
        )


def _check_script(file, keys, script):
    """Refuse a yaml file that belongs to another script."""
    name = Path(script).name if script else None
    if name not in SCRIPTS.values():
        return
    owner = _owner(keys)
    if owner is None:
        wanted, *_ = [key for key, owner in SCRIPTS.items() if owner == name]
        raise LMACError(
            f"{file}: key '{wanted}' is missing, which {name} needs"
        )
    if owner != name:
        raise LMACError(f"{file}: is a yaml file for {owner}, not for {name}")


def _owner(keys):
    """The script whose yaml files have these keys, or None."""
    owners = [owner for key, owner in SCRIPTS.items() if key in keys]
    return owners[0] if owners else None


def _top_keys(text, place):
    """Top-level keys of a hyperpyyaml text."""
    try:
        # This loader ignores tags, whose objects are made later.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise LMACError(f"{place}: not yaml ({_one_line(error)})") from error
    if not isinstance(content, dict):
        raise LMACError(f"{place}: holds no keys, expected 'key: value'")
    return list(content)


def _resolve(file, text, overrides):
    """All content as plain values, and the values of keys without objects."""
    # Here, since all commands import this module.
    from hyperpyyaml import load_hyperpyyaml, resolve_references

    try:
        resolved = resolve_references(text, overrides).read()
        root = yaml.compose(resolved, Loader=yaml.SafeLoader)
    except Exception as error:
        let_out(error)
        cause = error.__cause__ or error
        raise LMACError(f"{file}: {_one_line(cause)}") from error
    plain = [item for item in root.value if not _has_object(item[1])]
    node = yaml.MappingNode(root.tag, plain)
    values = load_hyperpyyaml(yaml.serialize(node)) if plain else {}
    content = {key.value: _content(value) for key, value in root.value}
    return {**content, **values}, values


def _has_object(node):
    """Whether a yaml node holds a tag, that is, an object to make."""
    if node.tag.startswith("!"):
        return True
    if isinstance(node, yaml.ScalarNode):
        return False
    return any(
        _has_object(part)
        for item in node.value
        for part in (item if isinstance(item, tuple) else (item,))
    )


def _content(node):
    """A yaml node as plain values."""
    if isinstance(node, yaml.ScalarNode):
        value = node.value
    elif isinstance(node, yaml.SequenceNode):
        value = [_content(item) for item in node.value]
    else:
        value = {_content(k): _content(v) for k, v in node.value}
    return {node.tag: value} if node.tag.startswith("!") else value


def _one_line(error):
    """An error's text on one line."""
    return " ".join(str(error).split())
