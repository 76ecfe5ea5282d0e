"""A sound to try things on, made here, so that nobody's licence is needed."""

import torch

__all__ = ["siren_and_clock"]

_PITCH, _SWING, _RATE = 900.0, 400.0, 0.5  # Hz, of the siren and its wail
_FIRST_S, _EVERY_S, _FADE_S = 0.2, 0.5, 0.0025  # of the clock's ticks


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
