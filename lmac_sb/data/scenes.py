"""Embedded data: sound scenes whose explanation is known.

A scene is coloured background noise with one event that defines the class
(a sweep, a trill, a click train, ...) and, at another time, distractors (a
plain beep, a knock). Distractors are drawn in the same way for every class,
so they explain nothing. The event is also stored alone, which gives the ideal
time-frequency mask. `make_scenes` writes the layout of
`lmac_sb.data.scene_folder`, with noise in the layout of WHAM! beside it, in
noise/tr, noise/cv and noise/tt.

On request the background has shortcuts, see `lmac_sb.data.shortcuts`: then
meta/esc50.csv has one more column, ``shortcuts``, with those of each clip.

Each clip has its own random generator, seeded by seed, target, fold and
index, so it stays the same whatever else is made with it.
"""

import numpy as np

from lmac_sb.data.scene_folder import (
    COLUMNS,
    PLUS,
    Maker,
    check_integer,
    check_number,
    make_once,
    name_of,
    write_info,
    write_table,
    write_wav,
)
from lmac_sb.data.shortcuts import check_shortcuts, plant
from lmac_sb.utils.errors import LMACError

__all__ = ["CLASSES", "NOISE_SPLITS", "make_scenes"]

VERSION = 1  # increase it when the same settings give different sounds


NOISE_SPLITS = {"tr": 6, "cv": 3, "tt": 3}  # split: number of recordings


_SHORTCUTS = "shortcuts"  # one more column, where scenes have them


_SAMPLE_RATE = 16000


_FADE_S = 0.01


_MARGIN_S = 0.1  # between an event and the ends of the clip


def _log_uniform(rng, low, high):
    """Draw a number uniformly on a logarithmic scale."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _fade(x, rate):
    """Fade in the start and fade out the end, to avoid clicks."""
    n = round(_FADE_S * rate)
    ramp = np.sin(0.5 * np.pi * (np.arange(n) + 0.5) / n) ** 2
    x = x.copy()
    x[:n] *= ramp
    x[-n:] *= ramp[::-1]
    return x


def _tone(frequency, rate, rng):
    """Sine that follows `frequency` [samples] in Hz, from a random phase."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    return np.sin(phase + rng.uniform(0, 2 * np.pi))


def _coloured_noise(rng, n, rate, slope, low=50.0, high=None):
    """Noise of power 1/f^slope, flat below 50 Hz, cut to a band, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / rate)
    spectrum *= np.maximum(frequency, 50.0) ** (-slope / 2)
    if high is not None:
        spectrum[(frequency < low) | (frequency > high)] = 0.0
    spectrum[0] = 0.0
    x = np.fft.irfft(spectrum, n)
    return x / np.sqrt(np.mean(x**2))


def _sweep_up(rng, n, rate):
    """Tone whose pitch rises by two octaves or a little more."""
    start = _log_uniform(rng, 300, 1000)
    ratio = rng.uniform(4, 6)
    return _tone(start * ratio ** (np.arange(n) / n), rate, rng)


def _sweep_down(rng, n, rate):
    """Tone whose pitch falls by two octaves or a little more."""
    end = _log_uniform(rng, 300, 1000)
    ratio = rng.uniform(4, 6)
    return _tone(end * ratio ** (1 - np.arange(n) / n), rate, rng)


def _harmonic_stack(rng, n, rate):
    """Steady pitch with twelve harmonics."""
    pitch = np.full(n, _log_uniform(rng, 150, 400))
    return sum(_tone(k * pitch, rate, rng) / k**0.7 for k in range(1, 13))


def _vibrato(rng, n, rate):
    """Tone whose pitch goes up and down smoothly."""
    centre = _log_uniform(rng, 700, 2500)
    depth = rng.uniform(0.12, 0.2)
    wave = _tone(np.full(n, rng.uniform(5, 8)), rate, rng)
    return _tone(centre * (1 + depth * wave), rate, rng)


def _tremolo(rng, n, rate):
    """Tone of steady pitch whose level goes up and down quickly."""
    centre = np.full(n, _log_uniform(rng, 500, 3000))
    wave = _tone(np.full(n, rng.uniform(10, 18)), rate, rng)
    return _tone(centre, rate, rng) * (0.5 + 0.5 * wave)


def _low_band(rng, n, rate):
    """Steady noise in a band of one octave and a half, below 1 kHz."""
    low = _log_uniform(rng, 150, 350)
    return _coloured_noise(rng, n, rate, 0.0, low, 2.8 * low)


def _high_band(rng, n, rate):
    """Steady noise in a band 2 kHz wide, above 3.5 kHz."""
    low = rng.uniform(3500, 5000)
    return _coloured_noise(rng, n, rate, 0.0, low, low + 2000)


def _clicks(rng, n, rate, times, levels):
    """Damped bursts of one pitch at `times`, in seconds."""
    pitch = _log_uniform(rng, 1500, 4500)
    t = np.arange(round(0.03 * rate)) / rate
    burst = np.exp(-t / 0.008) * np.sin(2 * np.pi * pitch * t)
    x = np.zeros(n + len(t))
    for time, level in zip(times, levels):
        start = round(time * rate)
        x[start : start + len(t)] += level * burst
    return x[:n]


def _click_train(rng, n, rate):
    """Clicks at equal intervals."""
    times = np.arange(_FADE_S, n / rate - 0.02, 1 / rng.uniform(12, 22))
    return _clicks(rng, n, rate, times, np.ones(len(times)))


def _bounce(rng, n, rate):
    """Clicks that get faster and softer, like a bouncing ball."""
    shrink = rng.uniform(0.72, 0.8)
    seconds = n / rate - 2 * _FADE_S
    gaps = seconds * (1 - shrink) * shrink ** np.arange(30)
    gaps = gaps[gaps > 0.012]
    times = _FADE_S + np.concatenate([[0.0], np.cumsum(gaps)])
    return _clicks(rng, n, rate, times, 0.93 ** np.arange(len(times)))


def _trill(rng, n, rate):
    """Two alternating pitches."""
    low = _log_uniform(rng, 500, 1700)
    wave = _tone(np.full(n, rng.uniform(4, 7)), rate, rng)
    return _tone(
        np.where(wave > 0, low * rng.uniform(1.5, 1.8), low), rate, rng
    )


_EVENTS = (
    ("sweep_up", _sweep_up),
    ("sweep_down", _sweep_down),
    ("harmonic_stack", _harmonic_stack),
    ("vibrato", _vibrato),
    ("tremolo", _tremolo),
    ("low_band", _low_band),
    ("high_band", _high_band),
    ("click_train", _click_train),
    ("bounce", _bounce),
    ("trill", _trill),
)


CLASSES = tuple(name for name, _ in _EVENTS)


def _beep(rng, n, rate):
    """Distractor: a short plain tone of steady pitch."""
    return _tone(np.full(n, _log_uniform(rng, 400, 4000)), rate, rng)


def _knock(rng, n, rate):
    """Distractor: one decaying burst of noise over all frequencies."""
    return rng.standard_normal(n) * np.exp(-np.arange(n) / (0.02 * rate))


def _distractors(rng, n, rate, onset, length):
    """A beep and a knock, each with a chance of one half.

    Their centre is never within the event, so at most half of one overlaps
    it. Nothing here depends on the class.
    """
    x = np.zeros(n)
    for make in (_beep, _knock):
        size = round(rng.uniform(0.08, 0.16) * rate)
        level = rng.uniform(0.3, 0.8)
        centre = size // 2 + round(rng.uniform() * (n - size - length))
        if centre >= onset:
            centre += length
        sound = _fade(make(rng, size, rate), rate)
        if rng.uniform() < 0.5:
            start = centre - size // 2
            sound *= level / np.abs(sound).max()
            x[start : start + size] += sound
    return x


def _make_clip(place, duration_s, sample_rate, seed, shortcuts=()):
    """Draw one scene.

    Levels are relative to the peak of the event, not to its power. So neither
    the level of the rest nor the peak of the mixture gives away the class.

    Arguments
    ---------
    place : tuple of int
        Target, fold and index, which seed the random draws.
    duration_s : float
        Length in seconds.
    sample_rate : int
        Rate in Hz.
    seed : int
        Of the data set.
    shortcuts : list of str
        What is planted into the background.

    Returns
    -------
    mixture, stem : np.ndarray
        Two signals [samples] on the same scale, within -1 and 1.
    """
    target, fold, index = place
    rng = np.random.Generator(np.random.PCG64([seed, *place]))
    n = round(duration_s * sample_rate)
    seconds = rng.uniform(0.4, min(1.0, 0.5 * duration_s))
    onset_s = rng.uniform(_MARGIN_S, duration_s - seconds - _MARGIN_S)
    length, onset = round(seconds * sample_rate), round(onset_s * sample_rate)
    peak = rng.uniform(0.45, 0.7)
    noise_level = 10 ** (-rng.uniform(18, 26) / 20)
    slope = rng.uniform(0, 2)
    rest = noise_level * _coloured_noise(rng, n, sample_rate, slope)
    if shortcuts:
        own = [seed, 4000 + target, fold, index]
        own = np.random.Generator(np.random.PCG64(own))
        rest = plant(shortcuts, rest, sample_rate, own)
    rest += _distractors(rng, n, sample_rate, onset, length)

    event = _fade(_EVENTS[target][1](rng, length, sample_rate), sample_rate)
    stem = np.zeros(n)
    stem[onset : onset + length] = event / np.abs(event).max()
    # Lower than the drawn peak only where peaks add up, to avoid clipping.
    scale = min(peak, 0.95 / np.abs(rest + stem).max())
    return scale * (rest + stem), scale * stem


def _make_scene(targets, place, settings, shortcuts):
    """Draw a scene of one or more events, on the background of the first.

    `place` is its fold and index.

    Returns
    -------
    mixture, stems : np.ndarray
        The signal [samples] and its events [samples, events].
    """
    fold, index = place
    if len(targets) > 1:
        # Draw sounds that no other scene has.
        index += 10000 * (1 + targets[0])
    how = [settings[key] for key in ("duration_s", "sample_rate", "seed")]
    clips = [
        _make_clip((target, fold, index), *how, shortcuts) for target in targets
    ]
    stems = np.stack([stem for _, stem in clips], axis=1)
    mixture = clips[0][0] + stems[:, 1:].sum(1)
    peak = np.abs(mixture).max()
    # A single clip stays below this peak; a sum of several may exceed it.
    scale = 0.95 / peak if peak > 0.96 else 1.0
    return scale * mixture, scale * stems


def _draw_targets(target, fold, index, n_events, seed):
    """Classes of a scene: the given one, and a random number of others."""
    rng = np.random.Generator(
        np.random.PCG64([seed, 2000 + target, fold, index])
    )
    others = [other for other in range(len(CLASSES)) if other != target]
    count = int(rng.choice(n_events)) - 1
    return [target, *rng.choice(others, count, replace=False).tolist()]


def _draw_shortcuts(shortcuts, targets, fold, index, seed):
    """Kinds of the shortcuts that a scene has.

    Each scene has draws of its own, so that the others do not depend on it.
    """
    rng = np.random.Generator(
        np.random.PCG64([seed, 3000 + targets[0], fold, index])
    )
    names = [None, *(CLASSES[target] for target in targets)]
    return [
        shortcut["kind"]
        for shortcut, drawn in zip(shortcuts, rng.uniform(size=len(shortcuts)))
        if shortcut["class"] in names
        and (shortcut["folds"] is None or fold in shortcut["folds"])
        and drawn < shortcut["probability"]
    ]


def _make_noise(split, index, sample_rate, seed):
    """Draw a noise recording of about ten seconds: pink, brown or a band.

    The second word of the seed differs from that of every clip.
    """
    word = 1000 + list(NOISE_SPLITS).index(split)
    rng = np.random.Generator(np.random.PCG64([seed, word, 0, index]))
    # Whole tenths of a second give a length whose FFT is fast.
    n = round(round(rng.uniform(9, 11), 1) * sample_rate)
    low, high = 50.0, None
    if index % 3 == 2:
        low = _log_uniform(rng, 150, 1500)
        high = low * rng.uniform(3, 5)
    slope = (1.0, 2.0, 0.5)[index % 3] + rng.uniform(-0.3, 0.3)
    x = _coloured_noise(rng, n, sample_rate, slope, low, high)
    wave = _tone(np.full(n, rng.uniform(0.1, 1.0)), sample_rate, rng)
    x *= 1 + rng.uniform(0.2, 0.7) * wave
    return rng.uniform(0.3, 0.7) * x / np.abs(x).max()


def _write(folder, settings):
    """Write the whole data set into `folder`, which exists and is empty."""
    rate, seed = settings["sample_rate"], settings["seed"]
    shortcuts = settings[_SHORTCUTS]
    for name in ("audio", "stems", "meta", "noise"):
        (folder / name).mkdir()
    rows = []
    for fold in range(1, settings["n_folds"] + 1):
        for target in range(len(CLASSES)):
            for index in range(settings["clips_per_class"]):
                targets = _draw_targets(
                    target, fold, index, settings["n_events"], seed
                )
                number, name = name_of(targets, fold, index)
                label = PLUS.join(map(str, targets))
                category = PLUS.join(CLASSES[target] for target in targets)
                planted = _draw_shortcuts(shortcuts, targets, fold, index, seed)
                mixture, stems = _make_scene(
                    targets, (fold, index), settings, planted
                )
                write_wav(folder / "audio" / name, mixture, rate)
                write_wav(folder / "stems" / name, stems, rate)
                row = (name, fold, label, category, True, number, "A")
                rows.append((*row, PLUS.join(planted)))
    for split, count in NOISE_SPLITS.items():
        (folder / "noise" / split).mkdir()
        for index in range(count):
            write_wav(
                folder / "noise" / split / f"{split}{index:02d}.wav",
                _make_noise(split, index, rate, seed),
                rate,
            )
    _write_tables(folder, settings, rows)


def _write_tables(folder, settings, rows):
    """Write what is known of the clips, and of all of them together.

    Without shortcuts the files are those of former versions, to the byte.
    """
    columns = (*COLUMNS, _SHORTCUTS)
    if not settings[_SHORTCUTS]:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
        settings = {k: v for k, v in settings.items() if k != _SHORTCUTS}
    write_table(folder / "meta" / "esc50.csv", columns, rows)
    write_info(folder, _maker(), settings)


def _maker():
    """What these scenes are made by."""
    # Not written: n_events by older versions, and no shortcuts.
    return Maker("make_scenes", VERSION, {"n_events": [1], _SHORTCUTS: []})


def _check_settings(
    clips_per_class, n_folds, duration_s, seed, n_events=(1,), shortcuts=()
):
    """The settings as plain values, or an error that names the wrong one."""
    duration_s = check_number("duration_s", duration_s, 1, 60)
    if not isinstance(n_events, (list, tuple)) or not n_events:
        raise LMACError(
            f"n_events: found {n_events!r}, expected a list of numbers of "
            "events"
        )
    return {
        "clips_per_class": check_integer(
            "clips_per_class", clips_per_class, 1, 9999
        ),
        "n_folds": check_integer("n_folds", n_folds, 1, 99),
        "duration_s": duration_s,
        "sample_rate": _SAMPLE_RATE,
        "seed": check_integer("seed", seed, 0, 2**32 - 1),
        "n_events": [
            check_integer("n_events", count, 1, len(CLASSES))
            for count in n_events
        ],
        _SHORTCUTS: check_shortcuts(shortcuts, CLASSES),
    }


def make_scenes(
    folder,
    clips_per_class=8,
    n_folds=5,
    duration_s=2.0,
    seed=0,
    **contents,
):
    """Write the embedded data set, or find it already written.

    The same settings give the same bytes. The data set is written under a
    temporary name next to `folder` and renamed at the end. So the folder is
    always complete, even when two processes make it at once.

    Arguments
    ---------
    folder : str or Path
        Where to write. It must be missing, empty, or made before with the
        same settings.
    clips_per_class : int
        Number of clips of each class in each fold. A clip of several events
        counts for the class that it names first.
    n_folds : int
        Number of folds, counted from 1.
    duration_s : float
        Length of a clip in seconds, at least 1.
    seed : int
        Seed of all random draws.
    **contents
        What else a scene holds. `n_events`, a list: how many events a clip
        may have, all of different classes, of which one is drawn for each
        clip (default one). `shortcuts`, a list of dicts: what is planted into
        the background, see `lmac_sb.data.shortcuts.check_shortcuts` (default
        nothing). The clips that get none are the same without them.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    LMACError
        If an argument is out of range, or if `folder` cannot be written or
        holds other files, scenes with other settings (the message names the
        setting), or scenes that were changed.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as tmp:
    ...     folder = make_scenes(f"{tmp}/scenes", clips_per_class=1, n_folds=1)
    ...     len(list((folder / "audio").iterdir()))
    10
    """
    unknown = contents.keys() - {"n_events", _SHORTCUTS}
    if unknown:
        raise LMACError(
            f"scenes: found {', '.join(sorted(unknown))}, expected n_events or "
            f"{_SHORTCUTS}"
        )
    settings = _check_settings(
        clips_per_class, n_folds, duration_s, seed, **contents
    )
    return make_once(
        folder, _maker(), settings, lambda part: _write(part, settings)
    )
