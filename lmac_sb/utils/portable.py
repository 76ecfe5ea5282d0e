"""Texts for others: without paths, user and host of the maker's machine."""

import re
import shlex
import socket
from pathlib import Path, PureWindowsPath

import yaml

from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.user import home_name, user_name
from lmac_sb.utils.yaml_safety import compose_bounded

__all__ = ["portable", "portable_command"]

# The start of an absolute path, and a word that may hold a path.
_ABSOLUTE = re.compile(r"file:/|~[A-Za-z_/]|/[^\s/]|\\\\|[A-Za-z]:[\\/]")
_WORD = re.compile(r"""[^\s=,;'"(){}\[\]]+""")


def portable(value):
    r"""A value of a file for others.

    Of a path outside the folder in which a command was run, only the last
    name stays, after three dots.

    Arguments
    ---------
    value : object
        A text, such as a path or a yaml file; or a list or dict of values.

    Returns
    -------
    object
        The value, with such texts replaced.

    Example
    -------
    >>> portable({"data_folder": "/home/jane doe/ESC-50", "seed": 1})
    {'data_folder': '.../ESC-50', 'seed': 1}
    >>> portable("device: cpu # mine\nsave: !ref /data/jane/x\n")
    "device: cpu\nsave: !ref '.../x'\n"
    """
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return value
    if "\n" in value or value[:1] in ("[", "{"):
        return _of_yaml(value)
    if _ABSOLUTE.match(value):
        return _last(value)
    return _WORD.sub(lambda word: _of_word(word[0]), value)


def portable_command(arguments):
    """A command line for others.

    Arguments
    ---------
    arguments : list of str
        As of `sys.argv`.

    Returns
    -------
    str
        To be read by a shell.

    Example
    -------
    >>> portable_command(["/a b/train.py", "x.yaml", "--data_folder=/a b/ESC"])
    '.../train.py x.yaml --data_folder=.../ESC'
    """
    made = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument.startswith("-") and equals:
            made.append(f"{key}={portable(value)}")
        else:
            made.append(portable(argument))
    return shlex.join(made)


def _of_yaml(text):
    """A yaml text, without its comments; of another one, each word."""
    in_line = "\n" not in text
    try:
        root = compose_bounded(f"x: {text}" if in_line else text, "a text")
    except LMACError:
        return _WORD.sub(lambda word: _of_word(word[0]), text)
    root = root.value[0][1] if in_line else root
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            node.value = portable(node.value)
        else:
            for item in node.value:
                nodes += item if isinstance(item, tuple) else (item,)
    made = yaml.serialize(root, allow_unicode=True, width=1 << 20)
    return made.strip() if in_line else made


def _of_word(word):
    """A word, shortened if it is a path that tells of the machine."""
    parts = re.split(r"[/\\]", word)
    telling = ".." in parts or (len(parts) > 1 and _private(parts))
    return _last(word) if telling or _ABSOLUTE.match(word) else word


def _last(path):
    """The last name of a path, unless that is the user's or the host's."""
    name = PureWindowsPath(path).name  # splits at both slashes
    return (
        "..."
        if not name or _private([name, name.lstrip("~")])
        else f".../{name}"
    )


def _private(names):
    """Whether one of these names is that of the user or the host."""
    host = socket.gethostname()
    own = {user_name(), home_name(), host, host.partition(".")[0]} - {None, ""}
    return not own.isdisjoint(names)
