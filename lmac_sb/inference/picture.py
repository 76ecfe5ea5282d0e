"""A clip's picture as a PNG file, without matplotlib.

What `lmac_sb.inference.spectra.draw_clip` draws, in a twentieth of the time:
that takes ten times as long as the explanation, and its import a second.
"""

import functools
import importlib.util
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lmac_sb.inference.spectra import (
    PLACES,
    RANGE_DB,
    UNITS,
    heard_of,
    title_of,
    titles_of,
    top_of,
)

__all__ = ["picture_of", "ticks"]

_SIZE = (990, 540)
_WIDTH, _HEIGHT = 389, 199  # of a spectrogram
_LEFT, _TOP = (50, 522), (60, 292)  # of the columns and rows
_BAR, _BAR_LEFT = 11, 397  # width of a scale, and its place beside
_TICK = 4  # length
_TEXT, _TITLE = 12.5, 15  # height of letters
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
    _write(image, title_of(clip, truth), _TITLE, (_SIZE[0] / 2, 17))
    titles, top = titles_of(clip, levels), top_of(levels)
    end = clip.n_samples[0] / clip.sample_rate, clip.sample_rate / 2000
    for name, (row, column) in PLACES.items():
        left, up = _LEFT[column], _TOP[row]
        if name == "mask":
            colours, low, high = _colours(_VIRIDIS), 0.0, 1.0
            seen = colours[_fitted(levels[name])]
            share = _fitted(heard_of(levels, top))[..., None]
            seen = (seen.astype(np.uint16) * share // 255).astype(np.uint8)
        else:
            colours, low, high = _colours(_MAGMA), top - RANGE_DB, top
            seen = colours[_fitted((levels[name] - low) / RANGE_DB)]
        image.paste(Image.fromarray(seen), (left, up))
        _frame(draw, left, up, _WIDTH)
        _write(image, titles[name], _TITLE, (left + _WIDTH / 2, up - 13))
        _time_axis(image, draw, left, up + _HEIGHT, end[0], row == 1)
        _axis(image, draw, left - 1, up, (0.0, end[1]), -1, column == 0)
        bar = np.repeat(colours[::-1, None], _BAR, axis=1)
        bar = Image.fromarray(bar).resize((_BAR, _HEIGHT))
        image.paste(bar, (left + _BAR_LEFT, up))
        _frame(draw, left + _BAR_LEFT, up, _BAR)
        right = left + _BAR_LEFT + _BAR
        wide = _axis(image, draw, right, up, (low, high), 1, True)
        middle = up + _HEIGHT / 2
        _write(image, UNITS[name], _TEXT, (right + wide + 14, middle), True)
        if column == 0:
            text, place = "frequency in kHz", (left - 30, middle)
            _write(image, text, _TEXT, place, True)
        if row == 1:
            place = left + _WIDTH / 2, up + _HEIGHT + 32
            _write(image, "time in s", _TEXT, place)
    return _png(np.asarray(image))


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


def _png(pixels):
    """A picture [height, width, 3] as a PNG file.

    Rows are packed as they are: filters, which Pillow tries, take longer and
    make files of such colours a third larger. Of the packing, a higher level
    saves a few percent, and takes longer too.
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # 0: no filter
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    ):
        check = zlib.crc32(kind + data)
        size = struct.pack(">I", len(data))
        parts += [size, kind, data, struct.pack(">I", check)]
    return b"".join(parts)


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


def _time_axis(image, draw, left, down, seconds, with_text):
    """Ticks below a spectrogram."""
    for value, text in ticks(0.0, seconds):
        x = left + round(value / seconds * (_WIDTH - 1))
        draw.line((x, down, x, down + _TICK), _BLACK)
        if with_text:
            _write(image, text, _TEXT, (x, down + 13))


def _axis(image, draw, x, up, limits, side, with_text):
    """Ticks on the left (-1) or right (1) of a place; the width of its text."""
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
