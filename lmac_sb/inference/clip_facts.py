"""What the ``explanation.json`` of a clip holds, and what each value may be."""

import json

from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.training.kinds import Kind, flag, number, optional, whole
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import open_regular

__all__ = [
    "INFO",
    "WINDOW",
    "agrees",
    "answer_of",
    "decision_of",
    "is_right",
    "most_probable",
    "read_facts",
    "read_object",
]

# Days of windows. What JSON becomes in memory is up to thirty times as large.
_MOST_BYTES = 6 << 20
_N_TOP = 5  # classes that are reported

_text = Kind("a text", lambda value: isinstance(value, str))


def _list_of(what, kind):
    """Lists of values of a kind."""
    return Kind(
        f"a list of {what}",
        lambda value: isinstance(value, list) and all(map(kind.holds, value)),
    )


_probabilities = _list_of(
    "probabilities or null", optional(number(-1e-4, 1 + 1e-4))
)

_verdict = Kind(
    f"one of {', '.join(map(repr, VERDICTS))}",
    lambda value: isinstance(value, str) and value in VERDICTS,
)
_numbers = Kind(
    "names with numbers or null",
    lambda value: (
        isinstance(value, dict)
        and all(map(optional(number()).holds, value.values()))
    ),
)

# What is known of each window of a long clip.
WINDOW = {
    "start": number(),
    "end": number(),
    "decision": _text,
    **dict.fromkeys(PROBABILITIES, optional(number())),
    "verdict": _verdict,
}

# What is explained, in words, and its probabilities.
ANSWER = {
    "name": _text,
    **dict.fromkeys(PROBABILITIES, optional(number(-1e-4, 1 + 1e-4))),
}

# What made an explanation: the model, the versions that ran it, and the day.
MADE = {
    **dict.fromkeys(("model", "checksum", "date"), optional(_text)),
    **dict.fromkeys(("lmac_sb", "torch", "speechbrain"), _text),
}

# What `lmac explain` was asked, by which it knows its own clips again: the
# sound by its content and by where it lay, as checksums, and the options.
ASKED = {
    "sound": optional(_text),
    "place": _text,
    "options": Kind("an object", lambda value: isinstance(value, dict)),
}

# Those that some clips lack.
_OPTIONAL = (
    *("answer", "windows", "parents", "kin", "notes", "made", "asked"),
    "second_look",
)


def _object_of(kinds):
    """Objects with these keys, of these kinds."""
    return Kind(
        f"an object of {', '.join(kinds)}",
        lambda value: (
            isinstance(value, dict)
            and all(kind.holds(value.get(key)) for key, kind in kinds.items())
        ),
    )


# Keys of `explanation.json`, and what each may be.
INFO = {
    "id": _text,
    "file": optional(_text),
    "label": optional(_text),
    # Of several classes that are asked for, the first.
    "decision": _text,
    "classes": Kind(
        "a list of names",
        lambda value: (
            isinstance(value, list) and value and all(map(_text.holds, value))
        ),
    ),
    **dict.fromkeys(PROBABILITIES, _probabilities),
    "verdict": _verdict,
    # Null, and no names, where nobody asked.
    "stable": optional(flag),
    "agreement": _numbers,
    "metrics": _numbers,
    "sample_rate": whole(1),
    "n_samples": whole(1),
    "hop_samples": whole(1),
    "n_bins": whole(1),
    "gain": number(above=0),
    "threshold": optional(number()),
    "refine_steps": whole(0),
    # Only where the decoder's mask got one.
    "second_look": flag,
    # The classes that contain the explained one, where some do.
    "parents": _text,
    # Those that contain the label, or that it contains: they are right too.
    "kin": _list_of("names", _text),
    # What else a person should know, if there is something.
    "notes": _list_of("sentences", _text),
    # Only where more than one class among all is asked for.
    "answer": _object_of(ANSWER),
    "made": _object_of(MADE),
    "asked": _object_of(ASKED),
    # Of long clips only.
    "windows": _list_of(", ".join(WINDOW), _object_of(WINDOW)),
}


def read_facts(path):
    """Read and check an ``explanation.json``.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict
        See `INFO`.

    Raises
    ------
    LMACError
        If it is missing, no regular file, too large, or holds something else.

    Example
    -------
    >>> read_facts("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such file, a clip needs it
    """
    try:
        info = read_object(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    for key, kind in INFO.items():
        if key not in info:
            if key in _OPTIONAL:
                continue
            raise LMACError(f"{path}: the key {key!r} is missing")
        if not kind.holds(info[key]):
            raise LMACError(
                f"{path}: {key}: found {shown(info[key])}, expected {kind.name}"
            )
    for key in PROBABILITIES:
        if len(info[key]) != len(info["classes"]):
            raise LMACError(
                f"{path}: {key}: found {len(info[key])} values for "
                f"{len(info['classes'])} classes"
            )
    if info["decision"] not in info["classes"]:
        raise LMACError(
            f"{path}: decision: found {shown(info['decision'])}, which is "
            "not among the classes"
        )
    return info


def read_object(path, most):
    """Read a JSON object from somebody's folder.

    Arguments
    ---------
    path : str or Path
        The file.
    most : int
        The largest size in bytes.

    Returns
    -------
    dict
        Its values are not checked, except that numbers are finite.

    Raises
    ------
    FileNotFoundError
        If there is none.
    LMACError
        If it is no regular file, too large, or holds something else.

    Example
    -------
    >>> path = getfixture("tmp_path") / "x.json"
    >>> _ = path.write_text("[NaN]")
    >>> read_object(path, 100)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../x.json: cannot be read as JSON (NaN is no JSON, ...)
    """
    try:
        with open_regular(path, most) as file:
            text = file.read().decode("utf-8")
        info = json.loads(text, parse_constant=_no_constant)
    except (LMACError, FileNotFoundError):
        raise
    except OSError as error:
        raise LMACError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise LMACError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(info, dict):
        raise LMACError(f"{path}: holds no JSON object, expected one")
    return info


def _no_constant(name):
    """Refuse NaN and the like, which Python reads but JSON lacks."""
    raise ValueError(f"{name} is no JSON, expected null")


def decision_of(info):
    """The decision of a clip: the most probable class.

    Arguments
    ---------
    info : dict
        From `read_facts`.

    Returns
    -------
    str
        The class that is explained, where no probability is known.

    Example
    -------
    >>> decision_of({"classes": ["a", "b"], "p": [0.2, 0.8], "decision": "a"})
    'b'
    """
    p = info[PROBABILITIES[0]]
    best = max(range(len(p)), key=lambda c: p[c] or 0)
    return info["decision"] if p[best] is None else info["classes"][best]


def most_probable(info):
    """The classes of a clip that are reported, the most probable first.

    Arguments
    ---------
    info : dict
        From `read_facts`, or as it is going to be written.

    Returns
    -------
    list of (str, float)
        Name and probability; None where that is not known.

    Example
    -------
    >>> most_probable({"classes": ["a", "b"], "p": [0.2, 0.8]})
    [('b', 0.8), ('a', 0.2)]
    """
    known = zip(info["classes"], info[PROBABILITIES[0]])
    return sorted(known, key=lambda pair: -(pair[1] or 0))[:_N_TOP]


def agrees(label, decision, classes=None):
    """Whether a decision is what a label says, as in an audit.

    Arguments
    ---------
    label : str
        Of the clip, or None.
    decision : str
        A class of the model.
    classes : iterable of str
        Names of all, if they are known.

    Returns
    -------
    bool or None
        Small and capital letters do not matter. None without a label, or
        with one that is no class: the decision is neither right nor wrong.

    Example
    -------
    >>> agrees("Dog", "dog", ["cat", "dog"])
    True
    >>> agrees("monday", "dog", ["cat", "dog"])
    """
    if label is None:
        return None
    label = label.casefold()
    if label == decision.casefold():
        return True
    is_known = classes is None or label in (x.casefold() for x in classes)
    return False if is_known else None


def is_right(info):
    """Whether the decision of a clip agrees with its label, see `agrees`.

    Arguments
    ---------
    info : dict
        From `read_facts`.

    Returns
    -------
    bool or None

    Example
    -------
    >>> info = {"classes": ["a", "b"], "p": [0.2, 0.8], "decision": "a"}
    >>> is_right({**info, "label": "b"})
    True
    """
    decision = decision_of(info)
    if decision in info.get("kin", []):
        return True
    return agrees(info["label"], decision, info["classes"])


def answer_of(info):
    """What is explained, in words, and its probabilities.

    Arguments
    ---------
    info : dict
        From `read_facts`.

    Returns
    -------
    dict
        ``name``, ``p``, ``p_in`` and ``p_out``.

    Example
    -------
    >>> p = {"p": [0.9, 0.1], "p_in": [0.8, 0.2], "p_out": [0.3, 0.7]}
    >>> answer_of({"classes": ["a", "b"], "decision": "a", **p})["p_out"]
    0.3
    """
    number = info["classes"].index(info["decision"])
    return info.get("answer") or {
        "name": info["decision"],
        **{name: info[name][number] for name in PROBABILITIES},
    }
