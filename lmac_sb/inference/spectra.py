"""Spectrograms of an explained clip, and a picture of them."""

import math

import torch

__all__ = [
    "FLOOR",
    "PLACES",
    "PROBABILITIES",
    "RANGE_DB",
    "SOUNDS",
    "UNITS",
    "draw_clip",
    "heard_of",
    "input_of",
    "levels_of",
    "probabilities_of",
    "sounds_of",
    "title_of",
    "titles_of",
    "top_of",
]

SOUNDS = ("original", "interpretation", "residual")
PROBABILITIES = ("p", "p_in", "p_out")  # on each of them
RANGE_DB = 80  # range of levels in pictures, below a clip's maximum
MAX_FRAMES = 3000  # in a stored map; longer clips are pooled in time
FLOOR = 1e-7  # smallest magnitude of a spectrogram
_BLOCK = 1 << 18  # samples that are processed at a time
# Row and column of each picture, and what its colours mean.
PLACES = {
    "original": (0, 0),
    "mask": (0, 1),
    "interpretation": (1, 0),
    "residual": (1, 1),
}
UNITS = {
    **dict.fromkeys(SOUNDS, "dB"),
    "mask": "mask, darker where it is quiet",
}


def draw_clip(clip, truth=None, levels=None):
    """Spectrograms and mask of one clip.

    The mask fades where the input is quiet: a mask over silence is nothing.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    truth : str
        The clip's label, if it is known.
    levels : dict
        Spectrograms in dB and the mask, if they have been computed.

    Returns
    -------
    matplotlib.figure.Figure
    """
    # Here, so that who draws nothing does without.
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    if levels is None:
        levels, _ = levels_of(clip)
    titles = titles_of(clip, levels)
    seconds = clip.n_samples[0] / clip.sample_rate
    extent = (0, seconds, 0, clip.sample_rate / 2000)

    # At fixed places: a layout that is computed takes longer than the rest.
    figure = Figure(figsize=(11, 6))
    figure.subplots_adjust(0.05, 0.09, 0.95, 0.89, 0.13, 0.17)
    # Names may hold dollar signs, which are no formulas.
    figure.suptitle(title_of(clip, truth), parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for name, look in _looks(levels).items():
        axis = axes[PLACES[name]]
        image = axis.imshow(
            levels[name].T.numpy(),
            origin="lower",
            aspect="auto",
            extent=extent,
            **look,
        )
        axis.set_title(titles[name])
        axis.set_facecolor("black")
        # Its own image, since that of the mask is transparent in places.
        scale = ScalarMappable(image.norm, image.cmap)
        figure.colorbar(
            scale, ax=axis, label=UNITS[name], pad=0.02, fraction=0.05
        )
    for axis in axes[1]:
        axis.set_xlabel("time in s")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency in kHz")
    return figure


def _looks(levels):
    """How each picture is coloured, as matplotlib takes it."""
    top = top_of(levels)
    looks = {
        name: {"vmin": top - RANGE_DB, "vmax": top, "cmap": "magma"}
        for name in SOUNDS
    }
    looks["mask"] = {
        "vmin": 0,
        "vmax": 1,
        "cmap": "viridis",
        "alpha": heard_of(levels, top).T.numpy(),
    }
    return looks


def top_of(levels):
    """The loudest level of the three sounds in dB."""
    return max(float(levels[name].max()) for name in SOUNDS)


def heard_of(levels, top):
    """How much of the mask is seen, where the input is quiet: [time, freq]."""
    level = levels["original"]
    if top <= 20 * math.log10(FLOOR) + 1e-3:  # silent
        return 0 * level
    return ((level - top) / RANGE_DB + 1).clamp(0, 1)


def title_of(clip, truth=None):
    """What was decided or explained, and the verdict."""
    label = "" if truth is None else f" (label: {truth})"
    # What was asked for need not be what was decided.
    ((best, _),) = clip.top(1)[0]
    word = "decision" if best == clip.labels[0] else "explained"
    return f"{word}: {clip.labels[0]}{label}, {clip.judged[0]}"


def titles_of(clip, levels):
    """What is written above each picture, by its name."""
    return {
        "original": f"input, p = {float(clip.p_before[0]):.3f}",
        "interpretation": f"interpretation, p = {float(clip.p_inside[0]):.3f}",
        "residual": f"residual, p = {float(clip.p_outside[0]):.3f}",
        "mask": f"mask, area {float(levels['mask'].mean()):.3f}",
    }


def sounds_of(clip):
    """The three sounds of a clip.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.

    Returns
    -------
    dict
        Name in `SOUNDS` to torch.Tensor [samples].
    """
    sounds = (clip.wavs, clip.waveform, clip.residual)
    # A batch is padded to its longest clip.
    return {
        name: sound[0, : clip.n_samples[0]]
        for name, sound in zip(SOUNDS, sounds)
    }


def levels_of(clip):
    """Spectrograms of a clip's sounds, and its mask, pooled to a bounded size.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.

    Returns
    -------
    levels : dict
        Name in `SOUNDS` to its level in dB, and ``mask``, [time, freq] each.
    hop_samples : int
        From one of their frames to the next.
    """
    sounds = sounds_of(clip)
    features = clip.features
    n_frames = features.n_frames(clip.n_samples[0])
    pool = -(-n_frames // MAX_FRAMES)
    maps = {
        name: _level(sound, features, pool) for name, sound in sounds.items()
    }
    maps["mask"] = _pooled(clip.mask[0, :n_frames], pool)
    return maps, features.hop_samples * pool


def input_of(wav, mask, features):
    """Mask and magnitude of a sound, pooled to a bounded size.

    Arguments
    ---------
    wav : torch.Tensor
        The input, of any length, [samples].
    mask : torch.Tensor
        [time, freq], or more frames.
    features : lmac_sb.models.features.SpectralFeatures
        The model's front end.

    Returns
    -------
    mask, magnitude : torch.Tensor
        Mean and maximum of the frames that are pooled, [time, freq].

    Example
    -------
    >>> found = explainer(wavs)
    >>> features = explainer.features
    >>> mask, magnitude = input_of(wavs[0], found.mask[0], features)
    >>> mask.shape == magnitude.shape == found.magnitude[0].shape
    True
    """
    n_frames = features.n_frames(len(wav))
    pool = -(-n_frames // MAX_FRAMES)
    level = _level(wav, features, pool)
    return _pooled(mask[:n_frames], pool), 10 ** (level / 20)


def _pooled(mask, pool):
    """Means of the mask over `pool` frames, [time, freq]."""
    if pool == 1:
        return mask.float()
    return torch.stack([part.float().mean(0) for part in mask.split(pool)])


def _level(sound, features, pool):
    """Level of each bin in dB, [time, freq], the maximum of `pool` frames."""
    hop = features.hop_samples
    device = next(features.buffers()).device
    # What a frame sees on either side of its place, and a hop more.
    reach = max(-features.frame_start, features.n_fft + features.frame_start)
    margin = reach // hop + 1
    n_frames = features.n_frames(len(sound))
    block = max(pool, _BLOCK // hop // pool * pool)
    parts = []
    for first in range(0, n_frames, block):
        last = min(first + block, n_frames)
        start = max(0, first - margin)
        piece = sound[start * hop : (last + margin) * hop]
        stft = features.stft(piece[None].to(device))
        magnitude = features.magnitude(stft)[0].cpu()
        magnitude = magnitude[first - start : last - start]
        if pool > 1:
            pooled = [part.amax(0) for part in magnitude.split(pool)]
            magnitude = torch.stack(pooled)
        parts.append(20 * torch.log10(magnitude.clamp(min=FLOOR)))
    return torch.cat(parts)


def probabilities_of(clip):
    """Probabilities of all classes.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.

    Returns
    -------
    dict
        ``p``, ``p_in`` and ``p_out``, on the whole, the masked-in and the
        masked-out input, to a list of float.
    """
    logits = (clip.logits, clip.logits_in, clip.logits_out)
    return {
        name: clip.distribution(found.float())[0].tolist()
        for name, found in zip(PROBABILITIES, logits)
    }
