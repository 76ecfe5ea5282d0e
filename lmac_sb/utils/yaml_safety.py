"""Check that a model's yaml makes only objects of known classes.

A hyperpyyaml file can run any code: ``!apply:`` calls any function, ``!new:``
and ``!name:`` reach any class or function of any installed package,
``!include:`` reads any file, a reference ``<a.b>`` reads any attribute, and a
value that begins with a bracket goes to a loader that makes any object.
`safe_yaml` refuses all of these, except for a list of classes.
"""

import re
from importlib import import_module

import yaml

from lmac_sb.utils.errors import LMACError, shown

__all__ = ["OTHERS", "is_safe", "one_line", "safe_yaml"]

# Modules whose classes may say that they are safe, by an attribute of their
# own: `SAFE_IN_YAML = True`.
_OURS = re.compile(r"lmac_sb\.(data|lmac|methods|models)\.[a-z0-9_]+")

# Classes of others that the yaml of a folder which nobody vouches for may
# make. Full names only: below a module or a class lies all that it imported.
OTHERS = (
    "speechbrain.dataio.encoder.CategoricalEncoder",
    "speechbrain.lobes.features.Fbank",
    "speechbrain.lobes.models.Cnn14.CNN14PSI",
    "speechbrain.lobes.models.Cnn14.CNN14PSI_stft",
    "speechbrain.lobes.models.Cnn14.Cnn14",
    "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    "speechbrain.lobes.models.PIQ.Conv2dEncoder_v2",
    "speechbrain.lobes.models.Xvector.Classifier",
    "speechbrain.lobes.models.Xvector.Xvector",
    "speechbrain.processing.features.Filterbank",
    "speechbrain.processing.features.ISTFT",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.processing.features.STFT",
    "speechbrain.utils.parameter_transfer.Pretrainer",
    "torch.nn.Linear",
)


def is_safe(name):
    """Whether a model folder that nobody vouches for may make this class.

    Arguments
    ---------
    name : str
        Full name of the class.

    Returns
    -------
    bool

    Example
    -------
    >>> is_safe("lmac_sb.models.decoder.MaskDecoder"), is_safe("os.system")
    (True, False)
    """
    if name in OTHERS:
        return True
    module, _, last = name.rpartition(".")
    if not _OURS.fullmatch(module):
        return False
    try:
        found = vars(import_module(module)).get(last)
    except ImportError:
        return False
    # Of the class itself: not of one that is derived, or only imported there.
    return (
        isinstance(found, type)
        and found.__module__ == module
        and vars(found).get("SAFE_IN_YAML") is True
    )


def safe_yaml(text, name):
    """Check that a hyperpyyaml text makes only objects of known classes.

    Arguments
    ---------
    text : str
        Content of the file.
    name : str or Path
        Name of the file, for messages.

    Returns
    -------
    str
        The same content, serialised again, so that every parser reads it in
        the same way.

    Raises
    ------
    LMACError
        If something is not allowed; the message names the line.

    Example
    -------
    >>> print(safe_yaml("a: !new:torch.nn.Linear [1, 2]", "x.yaml"), end="")
    a: !new:torch.nn.Linear [1, 2]
    >>> safe_yaml("a: !apply:os.system [ls]", "x.yaml")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml, line 1: '!apply:os.system' is ...
    """
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise _unsafe(name, event, "an alias '*'")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except LMACError:
        raise
    # ValueError, OverflowError: an escape or a version that is out of range.
    except (
        yaml.YAMLError,
        RecursionError,
        ValueError,
        OverflowError,
    ) as error:
        raise LMACError(f"{name}: not yaml ({one_line(error)})") from error
    if not isinstance(root, yaml.MappingNode):
        raise LMACError(f"{name}: holds no keys, expected 'key: value'")
    _check_node(root, name)
    return yaml.serialize(root, allow_unicode=True, width=80)


def _check_node(node, name):
    """Refuse a yaml node that is neither data nor an allowed object."""
    tag = node.tag
    if isinstance(node, yaml.ScalarNode) and tag in ("!ref", "!copy"):
        # Only whole objects: references can also compute and read attributes.
        key = node.value[1:-1]
        if node.value != f"<{key}>" or not key.isidentifier():
            raise _unsafe(name, node, f"the reference {shown(node.value)}")
        return
    if tag.startswith("!new:"):
        if not is_safe(tag[len("!new:") :]):
            raise _unsafe(name, node, shown(tag))
    elif tag not in _DATA_TAGS:
        raise _unsafe(name, node, shown(tag))
    if isinstance(node, yaml.ScalarNode):
        # hyperpyyaml loads (...) with a loader that makes any object, and
        # also resolves references inside a text that it refers to.
        if node.value.lstrip().startswith("(") or "<" in node.value:
            raise _unsafe(name, node, f"the value {shown(node.value)}")
        if tag == "tag:yaml.org,2002:null":
            # An empty value would be written as '' with a tag.
            node.value = "null"
        return
    for item in node.value:
        for part in item if isinstance(item, tuple) else (item,):
            _check_node(part, name)


_DATA_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "seq", "map")
}


def one_line(error):
    """The text of an error, which may quote a file, on one line.

    Arguments
    ---------
    error : Exception
        Any exception.

    Returns
    -------
    str
        One line of printable characters.
    """
    text = " ".join(str(error).split())
    return text if text.isprintable() and len(text) < 1000 else shown(text)


def _unsafe(name, place, what):
    """The error for a line of a yaml file that is not allowed."""
    line = place.start_mark.line + 1
    return LMACError(
        f"{name}, line {line}: {what} is not allowed in a model folder that "
        "is not trusted; if you know its author, load it with trusted=True "
        "(on the command line: --trust)"
    )
