"""Spectrograms of an explained clip, and pictures of them.

`draw_clip` is for those who go on with matplotlib. It takes ten times as long
as the explanation, and its import a second; `picture_of` makes the file of the
same picture in a ninth of that.
"""

import functools
import importlib.util
import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "FLOOR",
    "PROBABILITIES",
    "RANGE_DB",
    "SOUNDS",
    "draw_clip",
    "input_of",
    "levels_of",
    "picture_of",
    "probabilities_of",
    "shortened",
    "sounds_of",
    "ticks",
]

SOUNDS = ("original", "interpretation", "residual")
PROBABILITIES = ("p", "p_in", "p_out")  # on each of them
RANGE_DB = 80  # range of levels in pictures, below a clip's maximum
MAX_FRAMES = 3000  # in a stored map; longer clips are pooled in time
FLOOR = 1e-7  # smallest magnitude of a spectrogram
_BLOCK = 1 << 18  # samples that are processed at a time
# Row and column of each picture, and what its colours mean.
_PLACES = {
    "original": (0, 0),
    "mask": (0, 1),
    "interpretation": (1, 0),
    "residual": (1, 1),
}
_UNITS = {
    **dict.fromkeys(SOUNDS, "dB"),
    "mask": "mask, darker where it is quiet",
}
# The file of a picture, in points.
_SIZE = (990, 540)
_WIDTH, _HEIGHT = 389, 199  # of a spectrogram
_LEFT, _TOP = (50, 522), (60, 292)  # of the columns and rows
_BAR, _BAR_LEFT = 11, 397  # width of a scale, and its place beside
_TICK = 4  # length
_TEXT, _TITLE = 12.5, 15  # height of letters
_LONGEST = 36  # characters of a name in the title
_MOST_TICKS = 6
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
# Colours of matplotlib, evenly spaced.
_MAGMA = (
    "000004 030312 0a0822 130d34 1d1147 29115a 36106b 440f76 51127c 5d177f "
    "6a1c81 762181 832681 902a81 9c2e7f aa337d b73779 c23b75 cf4070 db476a "
    "e55064 ee5b5e f4695c f9785d fb8761 fd9668 fea571 feb47b fec287 fed194 "
    "fde0a1 fceeb0 fcfdbf "
)
_VIRIDIS = (
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d "
    "33638d 2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f978b 1f9f88 21a685 "
    "27ad81 31b57b 3dbc74 4cc26c 5cc863 6ece58 81d34d 95d840 aadc32 c0df25 "
    "d5e21a eae51a fde725 "
)


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
    titles = _titles_of(clip, levels)
    seconds = clip.n_samples[0] / clip.sample_rate
    extent = (0, seconds, 0, clip.sample_rate / 2000)

    # At fixed places: a layout that is computed takes longer than the rest.
    figure = Figure(figsize=(11, 6))
    figure.subplots_adjust(0.05, 0.09, 0.95, 0.89, 0.13, 0.17)
    # Names may hold dollar signs, which are no formulas.
    figure.suptitle(_title_of(clip, truth), parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for name, look in _looks(levels).items():
        axis = axes[_PLACES[name]]
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
            scale, ax=axis, label=_UNITS[name], pad=0.02, fraction=0.05
        )
    for axis in axes[1]:
        axis.set_xlabel("time in s")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency in kHz")
    return figure


def _looks(levels):
    """How each picture is coloured, as matplotlib takes it."""
    top = _top_of(levels)
    looks = {
        name: {"vmin": top - RANGE_DB, "vmax": top, "cmap": "magma"}
        for name in SOUNDS
    }
    looks["mask"] = {
        "vmin": 0,
        "vmax": 1,
        "cmap": "viridis",
        "alpha": _heard_of(levels, top).T.numpy(),
    }
    return looks


def _top_of(levels):
    """The loudest level of the three sounds in dB."""
    return max(float(levels[name].max()) for name in SOUNDS)


def _heard_of(levels, top):
    """How much of the mask is seen, where the input is quiet: [time, freq]."""
    level = levels["original"]
    if top <= 20 * math.log10(FLOOR) + 1e-3:  # silent
        return 0 * level
    return ((level - top) / RANGE_DB + 1).clamp(0, 1)


def _title_of(clip, truth=None):
    """What was decided or explained, and the verdict."""
    label = "" if truth is None else f" (label: {shortened(truth, _LONGEST)})"
    # What was asked for need not be what was decided.
    ((best, _),) = clip.top(1)[0]
    word = "decision" if best == clip.labels[0] else "explained"
    name = shortened(clip.labels[0], _LONGEST)
    return f"{word}: {name}{label}, {clip.judged[0]}"


def shortened(name, most):
    """A name of a class without its end, if it is long.

    Arguments
    ---------
    name : str
        Any.
    most : int
        Characters that there is room for.

    Returns
    -------
    str

    Example
    -------
    >>> len(shortened("x" * 200, 10)), shortened("dog", 10)
    (10, 'dog')
    """
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


def _titles_of(clip, levels):
    """What is written above each picture, by its name."""
    return {
        "original": f"input, p = {float(clip.p_before[0]):.3f}",
        "interpretation": f"interpretation, p = {float(clip.p_inside[0]):.3f}",
        "residual": f"residual, p = {float(clip.p_outside[0]):.3f}",
        "mask": f"mask, area {float(levels['mask'].mean()):.3f}",
    }


def picture_of(clip, truth=None, levels=None):
    """Spectrograms and mask of one clip as a PNG file.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    truth : str
        The clip's label, if it is known.
    levels : dict
        From `lmac_sb.inference.spectra.levels_of`.

    Returns
    -------
    bytes

    Example
    -------
    >>> from lmac_sb.inference.spectra import levels_of
    >>> clip = interpreter.explain_file(path)
    >>> picture_of(clip, None, levels_of(clip)[0])[1:4]
    b'PNG'
    """
    image = Image.new("RGB", _SIZE, _WHITE)
    draw = ImageDraw.Draw(image)
    _write(image, _title_of(clip, truth), _TITLE, (_SIZE[0] / 2, 17))
    titles, top = _titles_of(clip, levels), _top_of(levels)
    end = clip.n_samples[0] / clip.sample_rate, clip.sample_rate / 2000
    for name, (row, column) in _PLACES.items():
        left, up = _LEFT[column], _TOP[row]
        if name == "mask":
            colours, low, high = _colours(_VIRIDIS), 0.0, 1.0
            seen = colours[_fitted(levels[name])]
            share = _fitted(_heard_of(levels, top))[..., None]
            seen = (seen.astype(np.uint16) * share // 255).astype(np.uint8)
        else:
            colours, low, high = _colours(_MAGMA), top - RANGE_DB, top
            seen = colours[_fitted((levels[name] - low) / RANGE_DB)]
        image.paste(Image.fromarray(seen), (left, up))
        _frame(draw, left, up, _WIDTH)
        _write(image, titles[name], _TITLE, (left + _WIDTH / 2, up - 13))
        _time_axis(image, (left, up + _HEIGHT), end[0], row == 1)
        _axis(image, (left - 1, up), (0.0, end[1]), -1, column == 0)
        bar = np.repeat(colours[::-1, None], _BAR, axis=1)
        bar = Image.fromarray(bar).resize((_BAR, _HEIGHT))
        image.paste(bar, (left + _BAR_LEFT, up))
        _frame(draw, left + _BAR_LEFT, up, _BAR)
        right = left + _BAR_LEFT + _BAR
        wide = _axis(image, (right, up), (low, high), 1, True)
        middle = up + _HEIGHT / 2
        _write(image, _UNITS[name], _TEXT, (right + wide + 14, middle), True)
        if column == 0:
            text, place = "frequency in kHz", (left - 30, middle)
            _write(image, text, _TEXT, place, True)
        if row == 1:
            place = left + _WIDTH / 2, up + _HEIGHT + 32
            _write(image, "time in s", _TEXT, place)
    file = io.BytesIO()
    # A higher level saves a few percent, and takes longer.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def ticks(low, high, most=_MOST_TICKS):
    """Round numbers in a range, evenly spaced, and how they are written.

    Arguments
    ---------
    low, high : float
        The range.
    most : int
        So many steps at most.

    Returns
    -------
    list of (float, str)

    Example
    -------
    >>> ticks(0, 0.5, 6)
    [(0.0, '0.0'), (0.1, '0.1'), (0.2, '0.2'), (0.3, '0.3'), (0.4, '0.4'), \
(0.5, '0.5')]
    >>> [text for _, text in ticks(-52.4, 27.6)]
    ['\u221240', '\u221220', '0', '20']
    """
    power = math.floor(math.log10((high - low) / most))
    steps = (x * 10.0**power for x in (1, 2, 5, 10))
    step = next(x for x in steps if (high - low) / x <= most * (1 + 1e-9))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [
        (
            round(i * step, digits),
            f"{i * step:.{digits}f}".replace("-", "\u2212"),
        )
        for i in range(first, last + 1)
    ]


@functools.lru_cache(maxsize=None)
def _colours(text):
    """Colours for 0 to 255, uint8, [256, 3]."""
    known = np.array([list(bytes.fromhex(x)) for x in text.split()])
    places = np.linspace(0, 255, len(known))
    found = [np.interp(np.arange(256), places, x) for x in known.T]
    return np.stack(found, 1).round().astype(np.uint8)


def _fitted(values):
    """Values in [0, 1], [time, freq], as 0 to 255 for each point seen."""
    whole = (values.clamp(0, 1) * 255).round().byte().T.flip(0).numpy()
    image = Image.fromarray(np.ascontiguousarray(whole))
    for size in ((_WIDTH, image.height), (_WIDTH, _HEIGHT)):
        # What is much too small is seen as it is, and else smoothed.
        few = max(size[0] / image.width, size[1] / image.height) > 3
        how = Image.Resampling.NEAREST if few else Image.Resampling.HAMMING
        image = image.resize(size, how)
    return np.asarray(image)


def _frame(draw, left, up, width):
    """A line around a picture."""
    box = (left - 1, up - 1, left + width, up + _HEIGHT)
    draw.rectangle(box, outline=_BLACK)


def _time_axis(image, place, seconds, with_text):
    """Ticks below a spectrogram."""
    draw, (left, down) = ImageDraw.Draw(image), place
    for value, text in ticks(0.0, seconds):
        x = left + round(value / seconds * (_WIDTH - 1))
        draw.line((x, down, x, down + _TICK), _BLACK)
        if with_text:
            _write(image, text, _TEXT, (x, down + 13))


def _axis(image, place, limits, side, with_text):
    """Ticks on the left (-1) or right (1) of a place; the width of its text."""
    draw, (x, up) = ImageDraw.Draw(image), place
    low, high = limits
    wide = 0
    for value, text in ticks(low, high):
        y = up + round((high - value) / (high - low) * (_HEIGHT - 1))
        draw.line((x, y, x + side * _TICK, y), _BLACK)
        if not with_text:
            continue
        width = _letters(text, _TEXT).width
        middle = x + side * (_TICK + 4 + width / 2)
        _write(image, text, _TEXT, (middle, y))
        wide = max(wide, width + _TICK + 4)
    return wide


def _write(image, text, size, middle, upwards=False):
    """Write a line around a place, no longer than the picture."""
    letters = _letters(text, size)
    while letters.width > _SIZE[0] and len(text) > 1:
        # What is cut off is no more than a part of a name.
        text = text[: int(len(text) * 0.9)]
        letters = _letters(text + "\u2026", size)
    if upwards:
        letters = letters.transpose(Image.Transpose.ROTATE_90)
    x, y = (round(m - s / 2) for m, s in zip(middle, letters.size))
    image.paste(_BLACK, (x, y), letters)


@functools.lru_cache(maxsize=256)
def _letters(text, size):
    """A line of text, dark where its letters are."""
    # Names of classes may hold what is no text, or is no line.
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    font = _font(size)
    up, down = font.getmetrics()
    width = max(1, math.ceil(font.getlength(text)))
    image = Image.new("L", (width, up + down))
    ImageDraw.Draw(image).text((0, 0), text, 255, font)
    return image


@functools.lru_cache(maxsize=4)
def _font(size):
    """The letters of matplotlib's pictures; else Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in spec.submodule_search_locations if spec else ():
        path = Path(folder, _FONT)
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


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
