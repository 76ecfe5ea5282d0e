"""The loud event of a clip, and the rest.

Without a label the event is where the clip is loud. The background is what
stays: its power in each bin is exceeded for 70 % of the time. Stretches of
time whose energy above it is at least a tenth of that of the strongest one are
the event, within gaps of a quarter of a second, such as those between clicks.
Within them, bins well above the background belong to the event, and the
others to the rest: a hum goes on below a bark.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["MOST", "Event", "find_event", "without_event"]

MOST = (
    0.85  # of a clip, that an event may last: of a longer one no rest is left
)

_QUIET = 0.3  # of the time is as quiet as the background, or quieter
_ABOVE = 20.0  # 13 dB: noise has that much more power once in a thousand bins
_EDGE = 0.05  # of the highest energy of a stretch, where it begins and ends
_SHARE = 0.1  # of the energy of the strongest stretch, of those that count
_GAP_S = 0.25  # that an event is not interrupted by
_SMOOTH_S = 0.05  # over which the energy is smoothed
_MARGIN_S = 0.05  # around an event: its onset, and the window's width


class Event(NamedTuple):
    """Where the event of a clip is.

    Arguments
    ---------
    frames : torch.Tensor
        Whether there is some of it, boolean, [time].
    mask : torch.Tensor
        1 in the bins of the event, else 0, [time, freq].

    Example
    -------
    >>> from lmac_sb.models.sound import SoundFeatures
    >>> wav = torch.zeros(16000)
    >>> wav[8000:10000] = 1.0
    >>> event = find_event(wav, SoundFeatures(16000))
    >>> 0.1 < event.share < 0.3
    True
    """

    frames: Tensor
    mask: Tensor

    @property
    def share(self):
        """Share of the clip's time that the event takes."""
        return float(self.frames.float().mean())


def find_event(wav, features, region=None):
    """Find the loud event of a clip, or take the labelled one.

    Arguments
    ---------
    wav : torch.Tensor
        The clip, [samples].
    features : lmac_sb.models.sound.SoundFeatures
        Spectrogram of the mask.
    region : tuple of float
        Start and end of the event in seconds, if they are known.

    Returns
    -------
    Event
    """
    stft = features.stft(wav[None])[0]
    power = stft.square().sum(-1)
    background = power.quantile(_QUIET, 0)
    above = (power - _ABOVE * background).clamp(min=0)
    rate = features.sample_rate / features.hop_samples  # frames a second
    if region is None:
        frames = _loud(above.sum(1), rate)
    else:
        times = torch.arange(len(power)) / rate
        frames = (times >= region[0]) & (times <= region[1])
    frames = _widen(frames, _MARGIN_S * rate)
    # A bin's neighbours hold what the window leaks from it.
    bins = F.max_pool2d((above > 0).float()[None], 3, 1, 1)[0]
    return Event(frames, bins * frames[:, None])


def _loud(energy, rate):
    """Frames of the stretches with much energy, boolean, [time]."""
    if energy.max() <= 0:
        return torch.zeros(len(energy), dtype=torch.bool)
    width = 2 * round(_SMOOTH_S * rate / 2) + 1
    smooth = F.avg_pool1d(energy[None], width, 1, width // 2)[0]
    # What is far below the loudest stretch may be the edge of a softer one.
    frames = smooth > _EDGE * _SHARE * smooth.max()
    frames = _close(frames, _GAP_S * rate)
    stretches = list(_stretches(frames))
    sums = [energy[start:end].sum() for start, end in stretches]
    loud = torch.zeros_like(frames)
    for (start, end), total in zip(stretches, sums):
        if total >= _SHARE * max(sums):
            part = smooth[start:end]
            inside = (part > _EDGE * part.max()).nonzero().flatten()
            loud[start + inside[0] : start + inside[-1] + 1] = True
    return loud


def _stretches(frames):
    """Start and end of each run of frames."""
    edges = F.pad(frames.int(), (1, 1)).diff()
    starts, ends = ((edges == sign).nonzero().flatten() for sign in (1, -1))
    return zip(starts.tolist(), ends.tolist())


def _widen(frames, n):
    """Frames, and those at most `n` before or after one of them."""
    n = round(n)
    found = F.max_pool1d(frames.float()[None], 2 * n + 1, 1, n)[0]
    return found > 0


def _close(frames, gap):
    """Frames, and the gaps between them that are at most so long."""
    closed = frames.clone()
    last = None
    for start, end in _stretches(frames):
        if last is not None and start - last <= gap:
            closed[last:start] = True
        last = end
    return closed


def without_event(wav, event, features):
    """A clip whose event is replaced by what is heard at other times.

    Arguments
    ---------
    wav : torch.Tensor
        The clip, [samples].
    event : Event
        Of it.
    features : lmac_sb.models.sound.SoundFeatures
        With which it was found.

    Returns
    -------
    torch.Tensor
        [samples]; None if the event lasts longer than `MOST` of the clip.
    """
    if event.share > MOST:
        return None
    if not event.frames.any():
        return wav.clone()
    fade = features.hop_samples
    # Frame t lies around sample t * hop; a fade ends where the event begins.
    wide = _widen(event.frames, 1).float()
    weight = F.interpolate(
        wide[None, None],
        size=(len(wide) - 1) * fade + 1,
        mode="linear",
        align_corners=True,
    )[0, 0, : len(wav)]
    rest = wav[weight == 0]
    if len(rest) == 0:
        return None
    return wav * (1 - weight) + _loop(rest, len(wav), fade) * weight


def _loop(wav, n_samples, fade):
    """A sound, again and again, cross-faded, of so many samples."""
    fade = min(fade, len(wav) // 2)
    if fade:
        ramp = (torch.arange(fade) + 0.5) / fade
        joined = wav[:-fade].clone()
        joined[:fade] = wav[:fade] * ramp + wav[-fade:] * (1 - ramp)
        wav = joined
    return wav.repeat(-(-n_samples // len(wav)))[:n_samples]
