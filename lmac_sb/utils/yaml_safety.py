"""Check that a model's yaml makes only objects of known classes.

A hyperpyyaml file can run any code: ``!apply:`` calls any function, ``!new:``
and ``!name:`` reach any class or function of any installed package,
``!include:`` reads any file, a reference ``<a.b>`` reads any attribute, and a
value that begins with a bracket goes to a loader that makes any object.
`safe_yaml` refuses all of these, except for a list of classes. References that
join texts, as paths do, are replaced by the text that they make, so that
hyperpyyaml sees none of them.

A short file can also make a lot of work, by lists in lists and by copies of
copies. So the text is bounded in its length, depth and number of values, and
objects that nothing needs are left out.
"""

import re
from importlib import import_module

import yaml

from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "ACTIVATIONS",
    "BY_OPTION",
    "OTHERS",
    "compose_bounded",
    "is_safe",
    "one_line",
    "safe_yaml",
]

# Ten times what the longest of the recipes has; hyperpyyaml takes a second for
# so many values.
_LONGEST = 200_000  # characters
_MOST = 3000  # values, with each copy
_DEEPEST = 30  # lists in lists
_LARGEST = 2.0**32  # number

# Modules whose classes may say that they are safe, by an attribute of their
# own: `SAFE_IN_YAML = True`.
_OURS = re.compile(r"lmac_sb\.(adapters|data|lmac|methods|models)\.[a-z0-9_]+")

# Classes that may also be named, by `!name:`, for others to make: networks ask
# for their activations in this way. Whoever calls one gets a module.
ACTIVATIONS = (
    "speechbrain.nnet.activations.Swish",
    "torch.nn.ELU",
    "torch.nn.GELU",
    "torch.nn.Hardswish",
    "torch.nn.Identity",
    "torch.nn.LeakyReLU",
    "torch.nn.Mish",
    "torch.nn.PReLU",
    "torch.nn.ReLU",
    "torch.nn.SELU",
    "torch.nn.SiLU",
    "torch.nn.Sigmoid",
    "torch.nn.Softplus",
    "torch.nn.Tanh",
)

# Classes of others that the yaml of a folder which nobody vouches for may
# make. Full names only: below a module or a class lies all that it imported.
OTHERS = (
    *ACTIVATIONS,
    "speechbrain.dataio.encoder.CategoricalEncoder",
    "speechbrain.dataio.preprocess.AudioNormalizer",
    "speechbrain.lobes.features.Fbank",
    "speechbrain.lobes.features.Leaf",
    "speechbrain.lobes.features.MFCC",
    "speechbrain.lobes.models.Cnn14.CNN14PSI",
    "speechbrain.lobes.models.Cnn14.CNN14PSI_stft",
    "speechbrain.lobes.models.Cnn14.Cnn14",
    "speechbrain.lobes.models.ECAPA_TDNN.Classifier",
    "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
    "speechbrain.lobes.models.PIQ.Conv2dEncoder_v2",
    "speechbrain.lobes.models.ResNet.Classifier",
    "speechbrain.lobes.models.ResNet.ResNet",
    "speechbrain.lobes.models.Xvector.Classifier",
    "speechbrain.lobes.models.Xvector.Xvector",
    "speechbrain.nnet.activations.Softmax",
    "speechbrain.nnet.linear.Linear",
    "speechbrain.nnet.pooling.StatisticsPooling",
    "speechbrain.processing.features.Filterbank",
    "speechbrain.processing.features.ISTFT",
    "speechbrain.processing.features.InputNormalization",
    "speechbrain.processing.features.STFT",
    "speechbrain.utils.parameter_transfer.Pretrainer",
    "torch.nn.BatchNorm1d",
    "torch.nn.Dropout",
    "torch.nn.Flatten",
    "torch.nn.Linear",
    "torch.nn.LogSoftmax",
    "torch.nn.ModuleList",
    "torch.nn.Sequential",
    "torch.nn.Softmax",
)

# How trust is given there, for messages.
BY_OPTION = (
    "(on the command line: --trust; where options are the keys of a yaml file: "
    "--trusted True)"
)

# A reference that joins texts, as `<folder>/model.ckpt` does, and the texts
# that it may join: no quotes and brackets, and no operator but those that
# occur in names.
_JOIN = re.compile(r"(?:<[^\W\d]\w*>|[\w./@+-])+")
_TEXT = re.compile(r"[\w ./@+:~-]*")
_NUMBER = re.compile(r"0|[1-9][0-9]*")
_LONGEST_JOIN = 1000
_DEEPEST_JOIN = 20
# A word that is no number. hyperpyyaml computes `1/2`, and leaves `a/2`.
_WORD = re.compile(r"(?<![\w.])(?!(?:True|False|None)\b)[^\W\d]")


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


def safe_yaml(text, name, needed=None):
    """Check that a hyperpyyaml text makes only objects of known classes.

    Arguments
    ---------
    text : str
        Content of the file.
    name : str or Path
        Name of the file, for messages.
    needed : tuple of str
        Keys whose objects are needed, with what they refer to: objects of
        others are left out, so that none is made for nothing. By default all
        are kept.

    Returns
    -------
    str
        The same content, serialised again, so that every parser reads it in
        the same way.

    Raises
    ------
    LMACError
        If something is not allowed, or there is too much of it; the message
        names the line.

    Example
    -------
    >>> print(safe_yaml("a: !new:torch.nn.Linear [1, 2]", "x.yaml"), end="")
    a: !new:torch.nn.Linear [1, 2]
    >>> safe_yaml("a: !apply:os.system [ls]", "x.yaml")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml, line 1: '!apply:os.system' is ...
    """
    root = compose_bounded(text, name, aliases=False)
    _replace_joins(root)
    _check_node(root, name)
    references = _References(root, name)
    if needed is not None:
        kept = references.kept(needed)
        root.value = [item for item in root.value if item[0].value in kept]
    return yaml.serialize(root, allow_unicode=True, width=80)


def compose_bounded(text, name, aliases=True):
    """The nodes of a yaml text of bounded size, of which nothing is made.

    Arguments
    ---------
    text : str
        Content of the file.
    name : str or Path
        Name of the file, for messages.
    aliases : bool
        Whether a node may stand in several places, as an anchor and aliases.

    Returns
    -------
    yaml.MappingNode

    Raises
    ------
    LMACError
        If it is no yaml with keys, is too long or deep, holds too many
        values, or a node that holds itself.

    Example
    -------
    >>> root = compose_bounded("a: [1, 2]", "x.yaml")
    >>> [key.value for key, _ in root.value]
    ['a']
    """
    if len(text) > _LONGEST:
        raise LMACError(
            f"{name}: {len(text)} characters, expected at most {_LONGEST}"
        )
    try:
        _check_events(text, name, aliases)
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
    if aliases:
        _check_expanded(root, name)
    return root


def _check_events(text, name, aliases):
    """Stop at the first value that is too deep, or one too many."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) and not aliases:
            raise _unsafe(name, event, "an alias '*'")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST or count > 3 * _MOST:
            raise _too_much(name, event)


def _check_expanded(root, name):
    """Refuse what is too much if each alias is a copy."""
    waiting, count = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > _DEEPEST or count > 3 * _MOST:
            raise _too_much(name, node)
        waiting += [(part, depth + 1) for part in _parts(node)]


def _parts(node):
    """The nodes in a node: items, or keys and values."""
    if isinstance(node, yaml.ScalarNode):
        return []
    return [
        part
        for item in node.value
        for part in (item if isinstance(item, tuple) else (item,))
    ]


def _too_much(name, place):
    """The error for a file that would make too much work."""
    return LMACError(
        f"{name}: not yaml of a model: more than {_MOST} values, or lists in "
        f"lists more than {_DEEPEST} deep, at line {place.start_mark.line + 1}"
    )


def _replace_joins(root):
    """Write texts for the references that join texts, wherever they are."""
    made = {}
    values = {
        key.value: value
        for key, value in root.value
        if isinstance(key, yaml.ScalarNode)
        and isinstance(value, yaml.ScalarNode)
    }
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, yaml.ScalarNode):
            waiting += _parts(node)
        elif node.tag == "!ref" and not _KEY.fullmatch(node.value):
            text = _joined(node, values, made)
            if text is not None and _WORD.search(text):
                node.tag, node.value = _STR, text


def _joined(node, values, made, depth=0):
    """The text of a scalar with its references replaced, None if there is none.

    Arguments
    ---------
    node : yaml.ScalarNode
        A text, a whole number, or a reference to such.
    values : dict
        Top-level key to its scalar.
    made : dict
        Top-level key to its text, None while it is being made: what refers
        to itself has none. Filled here, so each is made once.
    depth : int
        Number of references that led here.
    """
    if node.tag == _INT:
        return node.value if _NUMBER.fullmatch(node.value) else None
    if node.tag == _STR:
        # Not '1e5', which some parsers take for a number.
        is_text = _WORD.search(node.value) or not re.search(r"\d", node.value)
        return node.value if is_text and _TEXT.fullmatch(node.value) else None
    if node.tag != "!ref" or not _JOIN.fullmatch(node.value):
        return None
    if depth > _DEEPEST_JOIN:
        return None
    parts = []
    for i, part in enumerate(re.split("[<>]", node.value)):
        if i % 2:
            if part not in made:
                made[part] = None
                if part in values:
                    made[part] = _joined(values[part], values, made, depth + 1)
            part = made[part]
        if part is None:
            return None
        parts.append(part)
    text = "".join(parts)
    return text if len(text) <= _LONGEST_JOIN else None


def _check_node(node, name):
    """Refuse a yaml node that is neither data nor an allowed object."""
    tag = node.tag
    if isinstance(node, yaml.ScalarNode) and tag in ("!ref", "!copy"):
        # Only whole objects: references can also compute and read attributes.
        if not _KEY.fullmatch(node.value):
            raise _unsafe(name, node, f"the reference {shown(node.value)}")
        return
    if tag.startswith("!new:"):
        if not is_safe(tag[len("!new:") :]):
            raise _unsafe(name, node, shown(tag))
    elif tag.startswith("!name:"):
        if tag[len("!name:") :] not in ACTIVATIONS:
            raise _unsafe(name, node, shown(tag))
    elif tag not in _DATA_TAGS:
        raise _unsafe(name, node, shown(tag))
    if isinstance(node, yaml.ScalarNode):
        # hyperpyyaml loads (...) with a loader that makes any object, and
        # also resolves references inside a text that it refers to.
        if node.value.lstrip().startswith("(") or "<" in node.value:
            raise _unsafe(name, node, f"the value {shown(node.value)}")
        if not _size_of(node.value) <= _LARGEST:
            raise LMACError(
                f"{name}, line {node.start_mark.line + 1}: the number "
                f"{shown(node.value)}, expected one of at most {_LARGEST:.0f}"
            )
        if tag == "tag:yaml.org,2002:null":
            # An empty value would be written as '' with a tag.
            node.value = "null"
        return
    for part in _parts(node):
        _check_node(part, name)


def _size_of(text):
    """How large a number is; zero for what is none.

    Parsers disagree on what is one, so a text like one counts too.
    """
    if not re.match(r"[-+]?[\d.]", text):
        return 0
    text = text.replace("_", "")
    for read in (float, lambda number: int(number, 0)):
        try:
            return abs(read(text))
        except ValueError:
            continue
        except OverflowError:
            return float("inf")
    return 0


class _References:
    """What the top-level keys of a yaml refer to.

    Arguments
    ---------
    root : yaml.MappingNode
        Checked by `_check_node`.
    name : str or Path
        Name of the file, for messages.
    """

    def __init__(self, root, name):
        self.name = name
        self.nodes = {key.value: value for key, value in root.value}
        self.sizes = {}  # key to its values, with those that it refers to
        self.makes = {}  # key to whether an object is made for it
        self.to = {}  # key to the keys that it refers to
        self.total = 0
        for key, node in root.value:
            self._follow(key.value, node)

    def kept(self, needed):
        """Keys that are needed, and those that make no object."""
        kept = {key for key, makes in self.makes.items() if not makes}
        waiting = [key for key in needed if key in self.nodes]
        while waiting:
            key = waiting.pop()
            kept.add(key)
            waiting += self.to[key] - kept
        return kept

    def _follow(self, key, place, path=()):
        """See what a key refers to; returns the number of its values."""
        if key in self.sizes:
            return self.sizes[key]
        if key not in self.nodes:
            raise self._wrong(place, f"<{key}>, which is no key of the file")
        if key in path:
            raise self._wrong(place, f"<{key}>, which refers to itself")
        if len(path) > _DEEPEST:
            raise _too_much(self.name, place)
        size, makes, to = 0, False, set()
        waiting = [self.nodes[key]]
        while waiting:
            node = waiting.pop()
            size += 1
            self.total += 1
            makes |= node.tag.startswith(("!new:", "!name:"))
            waiting += _parts(node)
            if node.tag in ("!ref", "!copy"):
                other = node.value[1:-1]
                found = self._follow(other, node, (*path, key))
                # A copy of this one copies that too.
                size += found
                self.total += found if node.tag == "!copy" else 0
                makes |= self.makes[other]
                to.add(other)
            if max(size, self.total) > _MOST:
                raise _too_much(self.name, node)
        self.sizes[key], self.makes[key], self.to[key] = size, makes, to
        return size

    def _wrong(self, place, what):
        """The error for a reference that cannot be followed."""
        line = place.start_mark.line + 1
        return LMACError(f"{self.name}, line {line}: refers to {what}")


_DATA_TAGS = {
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "seq", "map")
}
_STR, _INT = "tag:yaml.org,2002:str", "tag:yaml.org,2002:int"
_KEY = re.compile(r"<[^\W\d]\w*>")


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
        f"{BY_OPTION}"
    )
