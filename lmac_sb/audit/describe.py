"""What an explanation keeps, as a few flat numbers that can be compared."""

import math

import torch

from lmac_sb.inference.spectra import input_of

__all__ = [
    "BANDS",
    "OF_BANDS",
    "TIMES",
    "band_edges",
    "describe",
    "describe_map",
    "time_edges",
]

N_BANDS = 16
N_TIMES = 16
# Names of the columns: shares of all that is kept, and the share of each
# band's own energy that is.
BANDS = [f"band_{i:02}" for i in range(N_BANDS)]
TIMES = [f"time_{i:02}" for i in range(N_TIMES)]
OF_BANDS = [f"of_band_{i:02}" for i in range(N_BANDS)]
_RANGE_DB = 20  # below the loudest kept frame, what still belongs to it
_MOST_DB = 60  # of a level against the rest: one of the two is nothing
_FASTEST_HZ = 20  # of a modulation; what is faster is heard as a tone
_LEAST_PERIODS = 2  # in a clip, for it to be a rate


def band_edges(sample_rate):
    """Where the mel bands begin and end.

    Equally wide on the mel scale of O'Shaughnessy, from 0 to half the rate.

    Arguments
    ---------
    sample_rate : int
        Of the model, in Hz.

    Returns
    -------
    list of float
        In Hz, one more than bands.

    Example
    -------
    >>> edges = band_edges(16000)
    >>> len(edges), edges[0], round(edges[1]), round(edges[-1])
    (17, 0.0, 119, 8000)
    """
    top = math.log1p(sample_rate / 2 / 700)
    return [700 * math.expm1(top * i / N_BANDS) for i in range(N_BANDS + 1)]


def time_edges():
    """Where the parts of a clip begin and end.

    Returns
    -------
    list of float
        As shares of the clip's length, one more than parts.

    Example
    -------
    >>> time_edges()[:3]
    [0.0, 0.0625, 0.125]
    """
    return [i / N_TIMES for i in range(N_TIMES + 1)]


def describe(clip):
    """Descriptors of the explanation of one clip of any length.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip; of a long one, the mask is that of its windows together.
        What another mask than a linear one keeps of a bin depends on the
        level, so the sounds of both parts tell.

    Returns
    -------
    dict
        ``seconds``, and what `describe_map` finds.

    Example
    -------
    >>> found = describe(interpreter.explain_file(path))
    >>> found["seconds"], abs(sum(found[name] for name in BANDS) - 1) < 1e-6
    (1.0, True)
    """
    n_samples, features = clip.n_samples[0], clip.features
    wav = clip.wavs[0, :n_samples]
    found = input_of(wav, clip.mask[0], features)
    mask, whole = (x.double() for x in found)
    if clip.mask_domain == "linear":
        kept, rest = mask * whole, (1 - mask) * whole
    else:
        kept, rest = (
            input_of(sound[0, :n_samples], clip.mask[0], features)[1]
            for sound in (clip.waveform, clip.residual)
        )
    # Long clips are pooled: a frame then stands for several.
    pool = -(-features.n_frames(n_samples) // len(whole))
    hop = pool * features.hop_samples
    middle = features.frame_start + features.n_fft / 2
    middle += (pool - 1) / 2 * features.hop_samples
    times = (torch.arange(len(whole)) * hop + middle) / n_samples
    seconds = n_samples / clip.sample_rate
    found = describe_map((kept, rest, whole), times, seconds, clip.sample_rate)
    return {"seconds": seconds, **found}


def describe_map(parts, times, seconds, sample_rate):
    """Descriptors of what is kept of a spectrogram.

    Arguments
    ---------
    parts : tuple of torch.Tensor
        Linear magnitudes of what is kept, of the rest and of the whole; bins
        from 0 to half the rate, [time, freq] each.
    times : torch.Tensor
        Middle of each frame as a share of the clip, evenly spaced, [time].
    seconds : float
        Length of the clip.
    sample_rate : int
        In Hz.

    Returns
    -------
    dict
        ``band_00`` to ``band_15`` and ``time_00`` to ``time_15``: share of
        the kept energy in each mel band and each sixteenth of the clip.
        ``of_band_00`` ...: share of the band's energy that is kept, and
        ``kept_energy`` of all. ``kept_s``: seconds of the frames within 20 dB
        of the loudest kept one, and ``kept_from``: where the first of them
        is, as a share of the clip. ``level_db``: kept against the rest, at
        most 60 either way. ``centroid_hz``, and ``flatness`` from 0 for a
        tone to 1 for white noise: the exponential of the kept spectrum's
        entropy as a share of the bins. ``modulation_hz`` and
        ``modulation_depth``: rate of the strongest periodic change of the
        kept amplitude up to 20 Hz, and its amplitude relative to the mean.
        NaN for what is not known, such as all shares where nothing is kept.

    Example
    -------
    >>> ones, times = torch.ones(4, 9), (torch.arange(4) + 0.5) / 4
    >>> found = describe_map((ones, 0 * ones, ones), times, 1.0, 16000)
    >>> found["kept_energy"], found["centroid_hz"], found["level_db"]
    (1.0, 4000.0, 60.0)
    """
    kept, rest, whole = (x.double() ** 2 for x in parts)
    freqs = torch.linspace(0, sample_rate / 2, kept.shape[1]).double()
    inner = torch.tensor(band_edges(sample_rate)[1:-1]).double()
    band = torch.bucketize(freqs, inner, right=True)
    part = (times.double() * N_TIMES).long().clamp(0, N_TIMES - 1)
    spectrum, level = kept.sum(0), kept.sum(1)
    of_bands = _sums(spectrum, band, N_BANDS)
    total = spectrum.sum()
    found = {
        **_named(BANDS, of_bands / total),
        **_named(TIMES, _sums(level, part, N_TIMES) / total),
        **_named(OF_BANDS, of_bands / _sums(whole.sum(0), band, N_BANDS)),
        "kept_energy": float(total / whole.sum()),
        **_extent(level, times),
        "level_db": _decibels(float(total), float(rest.sum())),
        "centroid_hz": float((spectrum / total * freqs).sum()),
        "flatness": _flatness(spectrum / total),
        **_modulation(level.sqrt(), times, seconds),
    }
    found["kept_s"] *= seconds
    return found


def _named(names, values):
    """Values as floats by their names."""
    return dict(zip(names, values.tolist()))


def _sums(values, places, n_places):
    """Sum of the values at each place, [n_places]."""
    return values.new_zeros(n_places).index_add(0, places, values)


def _extent(level, times):
    """How much of a clip the kept part takes, and where that begins."""
    if not level.max() > 0:
        return {"kept_s": math.nan, "kept_from": math.nan}
    loud = level >= level.max() * 10 ** (-_RANGE_DB / 10)
    first = float(times[loud.nonzero()[0, 0]])
    return {
        "kept_s": float(loud.double().mean()),
        "kept_from": min(max(first, 0.0), 1.0),
    }


def _decibels(kept, rest):
    """Level of one energy against another, within a range."""
    if kept <= 0 and rest <= 0:
        return math.nan
    if kept <= 0 or rest <= 0:
        return math.copysign(_MOST_DB, kept - rest)
    found = 10 * math.log10(kept / rest)
    return float(min(max(found, -_MOST_DB), _MOST_DB))


def _flatness(shares):
    """How evenly energy is spread over the bins, from 1 / bins to 1."""
    entropy = -torch.xlogy(shares, shares).sum()
    return float(entropy.exp() / len(shares))


def _modulation(amplitude, times, seconds):
    """Rate and depth of the strongest periodic change."""
    unknown = {"modulation_hz": math.nan, "modulation_depth": math.nan}
    n_frames = len(amplitude)
    if n_frames < 2 or not amplitude.sum() > 0:
        return unknown
    hop_s = float(times[1] - times[0]) * seconds
    rates = torch.fft.rfftfreq(n_frames, hop_s).double()
    least = _LEAST_PERIODS / (n_frames * hop_s) * (1 - 1e-6)
    wanted = (rates >= least) & (rates <= _FASTEST_HZ)
    if not wanted.any():
        return unknown
    change = 2 * torch.fft.rfft(amplitude).abs() / amplitude.sum()
    change = torch.where(wanted, change, torch.zeros_like(change))
    best = int(change.argmax())
    return {
        "modulation_hz": float(rates[best]),
        "modulation_depth": float(change[best]),
    }
