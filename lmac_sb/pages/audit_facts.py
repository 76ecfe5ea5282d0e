"""What the ``audit.json`` of an audit holds, and what each value may be."""

from pathlib import Path

from lmac_sb.audit.files import AUDIT
from lmac_sb.inference.clip_facts import read_object
from lmac_sb.training.kinds import Kind, flag, number, optional, whole
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["examples_of", "read_audit"]

# Thousands of classes, each with its groups.
_MOST_BYTES = 64 << 20


def _is(kind):
    """A check that refuses values of another kind."""

    def check(where, value):
        """Refuse a value."""
        if not kind.holds(value):
            raise LMACError(
                f"{where}: found {shown(value)}, expected {kind.name}"
            )

    return check


def _object(**checks):
    """A check of objects that have these keys, and maybe more."""

    def check(where, value):
        """Refuse a value, or one of its own."""
        _is(Kind("an object", lambda x: isinstance(x, dict)))(where, value)
        for key, inner in checks.items():
            place = f"{where}{'.' if where[-1:] != ' ' else ''}{key}"
            if key not in value:
                raise LMACError(f"{place}: is missing")
            inner(place, value[key])

    return check


def _each(inner, n=None):
    """A check of lists, and of each item."""

    def check(where, value):
        """Refuse a value, or one of its own."""
        name = "a list" if n is None else f"a list of {n}"
        _is(Kind(name, lambda x: isinstance(x, list) and n in (None, len(x))))(
            where, value
        )
        for i, item in enumerate(value):
            inner(f"{where}[{i}]", item)

    return check


def _named(inner):
    """A check of objects with any keys, and of each value."""

    def check(where, value):
        """Refuse a value, or one of its own."""
        _object()(where, value)
        for key, item in value.items():
            inner(f"{where}[{shown(key)}]", item)

    return check


def _or_null(inner):
    """A check that lets null pass."""

    def check(where, value):
        """Refuse a value."""
        if value is not None:
            inner(where, value)

    return check


def _profile(edges):
    """A check of means over parts of an axis, with intervals."""
    values = _each(_is(optional(number())))

    def check(where, value):
        """Refuse a value, or one of its own."""
        _object(
            **{edges: _each(_is(number(0))), "mean": values},
            **dict.fromkeys(("low", "high"), values),
        )(where, value)
        places = value[edges]
        if len(places) < 2 or any(a >= b for a, b in zip(places, places[1:])):
            raise LMACError(
                f"{where}.{edges}: found {shown(places)}, expected two or "
                "more rising numbers"
            )
        for key in ("mean", "low", "high"):
            if len(value[key]) != len(places) - 1:
                raise LMACError(
                    f"{where}.{key}: found {len(value[key])} values between "
                    f"{len(places)} {edges}, expected {len(places) - 1}"
                )

    return check


_text = _is(Kind("a text", lambda value: isinstance(value, str)))
_count = _is(whole(0))
_interval = _each(_is(optional(number())), 3)  # mean, low, high
_folder = Kind(
    "the name of a folder",
    lambda value: (
        isinstance(value, str)
        and value not in ("", ".", "..")
        and not set(value) & set("/\\\0")
    ),
)
_examples = _each(_is(_folder))
_file = _is(
    Kind(
        "a file in the audit's folder",
        lambda value: (
            isinstance(value, str)
            and value
            and all(
                map(_folder.holds, value.split("/")),
            )
            and ":" not in value
        ),
    )
)
_GROUP = _object(
    name=_text, n=_count, share=_interval, text=_text, examples=_examples
)
_CLASS = _object(
    name=_text,
    n=_count,
    n_wrong=_or_null(_count),
    labelled=_or_null(_object(n=_count, n_missed=_count)),
    verdicts=_named(_interval),
    area=_interval,
    fidelity=_named(_interval),
    bands=_profile("edges_hz"),
    times=_profile("edges"),
    prototypes=_examples,
    outliers=_examples,
    groups=_each(_GROUP),
)
_ALARM = _object(
    **dict.fromkeys(("kind", "class", "where", "effect_of", "text"), _text),
    band_hz=_or_null(_each(_is(number(0)), 2)),
    time=_or_null(_each(_is(number(0, 1)), 2)),
    column=_or_null(_text),
    effect=_interval,
    **dict.fromkeys("pq", _is(number(0, 1))),
    n=_count,
    examples=_examples,
)
_CHECK = _object(
    made=_object(),
    corpus=_object(
        name=_text,
        n_clips=_count,
        n_failed=_count,
        labels=_is(flag),
        columns=_each(_text),
    ),
    failed=_each(_object(id=_text, error=_text)),
    classes=_each(_CLASS),
    alarms=_each(_ALARM),
    n_tests=_count,
    confusions=_each(
        _object(
            label=_text,
            decision=_text,
            n=_count,
            text=_text,
            groups=_each(_GROUP),
        )
    ),
    examples=_named(_object(id=_text, label=_or_null(_text), decision=_text)),
    plots=_each(_object(file=_file, text=_text)),
    notes=_each(_text),
)


def read_audit(folder):
    """Read and check the ``audit.json`` of a folder.

    Arguments
    ---------
    folder : str or Path
        As ``lmac audit`` writes it.

    Returns
    -------
    dict
        Every example that it names is among its ``examples``.

    Raises
    ------
    LMACError
        If there is none, or a value is of another kind; names the key.

    Example
    -------
    >>> read_audit("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere/audit.json: no such file, expected the folder \
of an audit
    """
    path = Path(folder) / AUDIT
    try:
        audit = read_object(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise LMACError(
            f"{path}: no such file, expected the folder of an audit"
        ) from error
    _CHECK(f"{path}: ", audit)
    # Audits of earlier versions do not have it.
    unknown = audit["corpus"].setdefault("unknown_labels", [])
    _each(_text)(f"{path}: corpus.unknown_labels", unknown)
    for name in audit["examples"]:
        _is(_folder)(f"{path}: examples", name)
    for name in examples_of(audit):
        if name not in audit["examples"]:
            raise LMACError(
                f"{path}: examples: {shown(name)} is missing, which an alarm, "
                "a class or a confusion names"
            )
    return audit


def examples_of(audit):
    """Names of the examples that an audit shows, the most important first.

    Arguments
    ---------
    audit : dict
        From `read_audit`.

    Returns
    -------
    list of str
        Those of the alarms, then of wrong decisions, then the first of each
        list of each class, then the second ones, and so on.

    Example
    -------
    >>> groups = [{"examples": ["c", "b"]}]
    >>> one = {"prototypes": ["a", "b"], "outliers": [], "groups": groups}
    >>> examples_of({"alarms": [], "confusions": [], "classes": [one]})
    ['a', 'c', 'b']
    """
    first = [alarm["examples"] for alarm in audit["alarms"]]
    for pair in audit["confusions"]:
        first += [group["examples"] for group in pair["groups"]]
    last = []
    for found in audit["classes"]:
        last += [found["prototypes"], found["outliers"]]
        last += [group["examples"] for group in found["groups"]]
    names = [name for names in first for name in names]
    for place in range(max(map(len, last), default=0)):
        names += [names_[place] for names_ in last if place < len(names_)]
    return list(dict.fromkeys(names))
