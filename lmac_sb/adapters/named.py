"""Classifiers that are loaded by a name, since a package brings their weights.

>>> sorted(NAMED)
['crepe', 'silero', 'yamnet']
"""

import difflib
import inspect

from lmac_sb.adapters.crepe import load_crepe
from lmac_sb.adapters.silero import load_silero
from lmac_sb.adapters.yamnet import load_yamnet
from lmac_sb.listener.listener import Listener
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["NAMED", "check_name", "is_named", "load_named"]

# Each takes options of its own, and those of `Listener`.
NAMED = {"crepe": load_crepe, "silero": load_silero, "yamnet": load_yamnet}


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
    lmac_sb.LMACError: name: found 'yamet', expected one of crepe, silero, \
yamnet; did you mean 'yamnet'? Folders and hub ids go to from_hparams or \
from_classifier
    """
    if is_named(name):
        return
    near = difflib.get_close_matches(str(name), NAMED, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise LMACError(
        f"name: found {shown(name)}, expected one of {', '.join(NAMED)}; "
        f"{hint}Folders and hub ids go to from_hparams or from_classifier"
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
        If an option is not one of the loader's nor the listener's, or a
        package is missing.

    Example
    -------
    >>> options = {"size": "tiny", "pool": "max"}
    >>> load_named("crepe", options).sample_rate, options
    (16000, {'pool': 'max'})
    """
    load = NAMED[name]
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
