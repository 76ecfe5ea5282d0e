"""Sounds to try things on, made here, so that nobody's licence is needed.

>>> sorted(EXAMPLES)
['baby_in_rain', 'helicopter', 'siren_and_clock']
"""

from pathlib import Path
from typing import Callable, NamedTuple

import soundfile as sf
import torch

from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import make_folder, write_in_one_step

__all__ = [
    "EXAMPLES",
    "Example",
    "baby_in_rain",
    "helicopter",
    "siren_and_clock",
    "write_example",
]

_PITCH, _SWING, _RATE = 900.0, 400.0, 0.5  # Hz, of the siren and its wail
_FIRST_S, _EVERY_S, _FADE_S = 0.2, 0.5, 0.0025  # of the clock's ticks
_CRY_S, _CRIES_S = 0.9, 1.2  # of a cry, and from one to the next
# Hz, width in Hz and gain of what the baby's mouth lets through.
_FORMANTS = ((1100, 200, 1.0), (1700, 300, 0.7), (3500, 500, 0.5))
_DROPS = 150  # of rain, in a second
_BLADES = 14  # of the helicopter, that pass in a second


def siren_and_clock(sample_rate=16000, seconds=4.0):
    """A siren that wails while a clock ticks, louder than the siren.

    Arguments
    ---------
    sample_rate : int
        Of the sound, in Hz.
    seconds : float
        Its length.

    Returns
    -------
    torch.Tensor
        [samples], the same in each call.

    Example
    -------
    >>> siren_and_clock(seconds=2.0).shape
    torch.Size([32000])
    """
    times = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = _PITCH + _SWING * torch.sin(2 * torch.pi * _RATE * times)
    phase = 2 * torch.pi * torch.cumsum(pitch.double() / sample_rate, 0)
    sound = 0.1 * sum(torch.sin(k * phase) / k for k in range(1, 6)).float()
    length = round(5 * _FADE_S * sample_rate)
    fade = torch.exp(-torch.arange(length) / (_FADE_S * sample_rate))
    generator = torch.Generator().manual_seed(0)
    for start in torch.arange(_FIRST_S, seconds - 0.1, _EVERY_S):
        n = round(start.item() * sample_rate)
        noise = torch.randn(length, generator=generator)
        sound[n : n + length] += 0.8 * noise * fade
    return sound


def baby_in_rain(sample_rate=16000, seconds=5.0):
    """A baby that cries in the rain.

    Arguments
    ---------
    sample_rate : int
        Of the sound, in Hz.
    seconds : float
        Its length.

    Returns
    -------
    torch.Tensor
        [samples], the same in each call.

    Example
    -------
    >>> baby_in_rain(seconds=2.0).shape
    torch.Size([32000])
    """
    generator = torch.Generator().manual_seed(1)
    sound = _rain(round(seconds * sample_rate), sample_rate, generator)
    cry = 0.15 * _cry(sample_rate)
    for start in torch.arange(0.2, seconds - 1, _CRIES_S):
        n = round(start.item() * sample_rate)
        sound[n : n + len(cry)] += cry
    return sound


def helicopter(sample_rate=16000, seconds=5.0):
    """A helicopter: low noise that beats as the blades pass.

    Arguments
    ---------
    sample_rate : int
        Of the sound, in Hz.
    seconds : float
        Its length.

    Returns
    -------
    torch.Tensor
        [samples], the same in each call.

    Example
    -------
    >>> helicopter(seconds=2.0).shape
    torch.Size([32000])
    """
    n_samples = round(seconds * sample_rate)
    generator = torch.Generator().manual_seed(6)
    beats, air = torch.randn(2, n_samples, generator=generator)
    since = (torch.arange(n_samples) / sample_rate * _BLADES) % 1
    swell = torch.exp(-4 * since) + 0.3
    low = _filtered(beats, sample_rate, lambda f: 1 / (1 + (f / 600) ** 4))
    wind = _filtered(air, sample_rate, lambda f: 1 / (1 + (f / 2000) ** 2))
    return 0.6 * low * swell + 0.02 * wind


def _rain(n_samples, rate, generator):
    """Drops near by, on the noise of those far away."""
    noise = torch.randn(n_samples, generator=generator)
    sound = _filtered(noise, rate, lambda f: f**2 / (500**2 + f**2))
    times = torch.arange(round(0.012 * rate)) / rate
    for _ in range(round(_DROPS * n_samples / rate)):
        place, pitch, loud = torch.rand(3, generator=generator).tolist()
        n = round(place * (n_samples - len(times)))
        tone = torch.sin(2 * torch.pi * (1500 + 3000 * pitch) * times)
        sound[n : n + len(times)] += 2 * loud * tone * torch.exp(-times / 0.002)
    return 0.02 * sound


def _filtered(noise, rate, power):
    """Noise with a power at each frequency."""
    spectrum = torch.fft.rfft(noise)
    gain = power(torch.fft.rfftfreq(len(noise), 1 / rate)).sqrt()
    return torch.fft.irfft(spectrum * gain, len(noise))


def _cry(rate):
    """One cry of a baby: harmonics of a voice that rises and falls."""
    place = torch.arange(round(_CRY_S * rate)) / (_CRY_S * rate)
    trembling = 8 * torch.sin(2 * torch.pi * 7 * _CRY_S * place)
    pitch = 380 + 180 * torch.sin(torch.pi * place**0.7) + trembling
    phase = 2 * torch.pi * torch.cumsum(pitch.double() / rate, 0)
    cry = torch.zeros(len(place))
    for k in range(1, 40):
        frequency = k * pitch
        mouth = sum(
            gain / (1 + ((frequency - peak) / width) ** 2)
            for peak, width, gain in _FORMANTS
        )
        audible = frequency < rate / 2 - 200
        cry += mouth / k**0.3 * torch.sin(k * phase).float() * audible
    fade_in, fade_out = (8 * place).clamp(max=1), (5 - 5 * place).clamp(max=1)
    return cry * fade_in * fade_out


class Example(NamedTuple):
    """A sound with a name.

    Arguments
    ---------
    make : callable
        Returns it at a rate, [samples].
    what : str
        What is to be heard, as a noun.

    Example
    -------
    >>> EXAMPLES["helicopter"].make(16000).shape
    torch.Size([80000])
    """

    make: Callable
    what: str


EXAMPLES = {
    "baby_in_rain": Example(baby_in_rain, "a baby that cries in the rain"),
    "helicopter": Example(helicopter, "a helicopter"),
    "siren_and_clock": Example(siren_and_clock, "a siren and a clock"),
}
# What a model is tried on; YAMNet knows sirens.
_BEST = {"yamnet": "siren_and_clock"}


def write_example(folder, name=None, model=None):
    """Write a sound to a folder.

    Arguments
    ---------
    folder : str or Path
        Made if it is missing.
    name : str
        One of `EXAMPLES`; by default one that the model knows.
    model : str
        Name of the model.

    Returns
    -------
    path : pathlib.Path
        The file.
    what : str
        What is to be heard.

    Raises
    ------
    LMACError
        If there is no sound of that name, or the folder cannot be made.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> path, what = write_example(folder, model="esc10")
    >>> path.name, what
    ('baby_in_rain.wav', 'a baby that cries in the rain')
    >>> write_example(folder, "bark")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: sound: found 'bark', expected one of baby_in_rain, \
helicopter, siren_and_clock
    """
    name = name or _BEST.get(model, "baby_in_rain")
    if name not in EXAMPLES:
        raise LMACError(
            f"sound: found {shown(name)}, expected one of {', '.join(EXAMPLES)}"
        )
    folder = Path(folder)
    make_folder(folder)
    path, wav = folder / f"{name}.wav", EXAMPLES[name].make(16000).numpy()
    write_in_one_step(
        path, lambda file: sf.write(file, wav, 16000, format="WAV"), True
    )
    return path, EXAMPLES[name].what
