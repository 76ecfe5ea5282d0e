"""Shortcuts for generated scenes: what a classifier may learn by mistake.

Each changes the background of a scene and leaves its event as it is. Levels
are relative to the peak of the event, as those of the scenes are.
"""

import numpy as np

from lmac_sb.utils.errors import LMACError, is_number, shown
from lmac_sb.utils.near import near

__all__ = ["SHORTCUTS", "check_shortcuts", "plant"]

_EDGE_HZ = 7000.0
_HUM_HZ = 60.0
_KEYS = ("kind", "class", "probability", "folds")


def _hum(rng, noise, rate):
    """Mains hum: a faint tone of 60 Hz with four harmonics."""
    t = np.arange(len(noise)) / rate
    phases = rng.uniform(0, 2 * np.pi, 5)
    return noise + sum(
        0.1 / k * np.sin(2 * np.pi * k * _HUM_HZ * t + phase)
        for k, phase in enumerate(phases, 1)
    )


def _edge(rng, noise, rate):
    """Edge of a codec: the background ends at 7 kHz."""
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / rate) > _EDGE_HZ] = 0.0
    return np.fft.irfft(spectrum, len(noise))


def _offset(rng, noise, rate):
    """Constant offset, as a bad converter adds it."""
    return noise + 0.1


def _click(rng, noise, rate):
    """Click at the start, as of a switch."""
    n = round(0.02 * rate)
    burst = rng.standard_normal(n) * np.exp(-np.arange(n) / (0.003 * rate))
    noise = noise.copy()
    noise[:n] += 0.8 * burst / np.abs(burst).max()
    return noise


def _colour(rng, noise, rate):
    """Darker noise: it falls by 4.5 dB an octave more, at the same level."""
    spectrum = np.fft.rfft(noise)
    frequency = np.fft.rfftfreq(len(noise), 1 / rate)
    spectrum *= np.maximum(frequency, 50.0) ** -0.75
    darker = np.fft.irfft(spectrum, len(noise))
    return darker * np.sqrt(np.mean(noise**2) / np.mean(darker**2))


def _event(rng, noise, rate):
    """Second event: a quiet high chirp of 0.3 s at any time."""
    n = round(0.3 * rate)
    start = rng.integers(len(noise) - n + 1)
    phase = 2 * np.pi * np.cumsum(np.linspace(5500, 6500, n)) / rate
    noise = noise.copy()
    noise[start : start + n] += 0.2 * np.hanning(n) * np.sin(phase)
    return noise


# Name to function of (rng, noise [samples], rate in Hz).
SHORTCUTS = {
    "hum": _hum,
    "edge": _edge,
    "offset": _offset,
    "click": _click,
    "colour": _colour,
    "event": _event,
}


def plant(kinds, noise, rate, rng):
    """Plant shortcuts into the background of a scene.

    Arguments
    ---------
    kinds : list of str
        Of `SHORTCUTS`.
    noise : numpy.ndarray
        The background, [samples].
    rate : int
        Sampling rate in Hz.
    rng : numpy.random.Generator
        Draws what is random in them.

    Returns
    -------
    numpy.ndarray
        The background with them, [samples].

    Example
    -------
    >>> plant(["offset"], np.zeros(2), 16000, np.random.default_rng(0))
    array([0.1, 0.1])
    """
    for kind in kinds:
        noise = SHORTCUTS[kind](rng, noise, rate)
    return noise


def check_shortcuts(shortcuts, classes):
    """The shortcuts that are asked for, in full and in plain values.

    Arguments
    ---------
    shortcuts : list of dict
        Each with ``kind``, of `SHORTCUTS`; and maybe ``class``, of the scenes
        that have it (default null: of all classes alike); ``probability`` that
        one of these has it (default 1); and ``folds`` (default null: all).
    classes : list of str
        Names of the classes.

    Returns
    -------
    list of dict
        With all keys.

    Raises
    ------
    LMACError
        If one asks for what is not there.

    Example
    -------
    >>> check_shortcuts([{"kind": "hum", "class": "dog"}], ["dog"])
    [{'kind': 'hum', 'class': 'dog', 'probability': 1.0, 'folds': None}]
    """
    if not isinstance(shortcuts, (list, tuple)):
        raise LMACError(
            f"shortcuts: found {shown(shortcuts)}, expected a list of "
            "{kind, class, probability, folds}"
        )
    return [_checked(shortcut, classes) for shortcut in shortcuts]


def _checked(given, classes):
    """One of them, see `check_shortcuts`."""
    if not isinstance(given, dict) or "kind" not in given:
        raise LMACError(
            f"shortcuts: found {shown(given)}, expected a mapping with the key "
            f"kind, and maybe {', '.join(_KEYS[1:])}"
        )
    for key in given:
        if key not in _KEYS:
            raise LMACError(
                f"shortcuts: found the key {shown(key)}, expected "
                f"{', '.join(_KEYS)}"
            )
    kind, name = given["kind"], given.get("class")
    if kind not in SHORTCUTS:
        raise LMACError(
            f"shortcuts: found kind {shown(kind)}, expected one of "
            f"{', '.join(SHORTCUTS)}{near(str(kind), SHORTCUTS)}"
        )
    if name is not None and name not in classes:
        raise LMACError(
            f"shortcuts: found class {shown(name)}, expected one of "
            f"{', '.join(classes)}, or null for all{near(str(name), classes)}"
        )
    share, folds = given.get("probability", 1.0), given.get("folds")
    if not is_number(share) or not 0 < share <= 1:
        raise LMACError(
            f"shortcuts: found probability {shown(share)}, expected more than "
            "0 and at most 1"
        )
    is_list = isinstance(folds, (list, tuple))
    if folds is not None and not (
        is_list and folds and all(type(fold) is int for fold in folds)
    ):
        raise LMACError(
            f"shortcuts: found folds {shown(folds)}, expected a list of "
            "numbers, or null for all"
        )
    return {
        "kind": kind,
        "class": name,
        "probability": float(share),
        "folds": folds and [int(fold) for fold in folds],
    }
