"""What a page holds of an explained clip: its facts, pictures and sounds."""

import base64
import io
import os
import re
from urllib.parse import quote

import numpy as np
import soundfile as sf
from PIL import Image

from lmac_sb.inference.clip_facts import (
    WINDOW,
    answer_of,
    decision_of,
    is_right,
)
from lmac_sb.inference.clip_folder import gain_in_words, read_clip
from lmac_sb.inference.spectra import PROBABILITIES, RANGE_DB
from lmac_sb.utils.errors import LMACError

__all__ = ["read_entry"]

# Size of the largest picture; a screen would not show more of it.
MAX_FRAMES, MAX_BINS = 512, 256
_DIGITS = 16  # of a checksum, for people
_VERSIONS = ("lmac_sb", "torch", "speechbrain")
N_BARS = 3  # most probable classes with bars; more may be added
_MOST_SAMPLES = 1 << 29  # of a sound in the page: hours
_BLOCK = 1 << 16  # samples that are encoded at a time
# Every browser plays MP3, which has the rates of MPEG 1 and 2, and WAV, which
# has all. In FLAC, Chromium finds no place but the start; Safari plays no Ogg.
_MP3 = {
    "format": "MP3",
    "subtype": "MPEG_LAYER_III",
    # No larger than Ogg/Vorbis, and nearer to the sound.
    "bitrate_mode": "VARIABLE",
    "compression_level": 0.5,
}
_MP3_RATES = (16000, 22050, 24000, 32000, 44100, 48000)


def read_entry(folder, path, embed=True):
    """What a page lists of a clip, and what it loads when the clip is shown.

    Arguments
    ---------
    folder : Path
        The page's; the clip's place below it is the clip's address.
    path : Path
        The clip's folder, as `lmac_sb.inference.clip_folder.save_clip` writes
        it.
    embed : bool
        Whether the sounds become part of the page, as MP3, or as WAV where
        MP3 lacks their rate.

    Returns
    -------
    entry : dict
        Facts, for the page's list.
    heavy : dict
        ``level`` and ``mask``, pictures as PNG in base64, the latter the
        share of each magnitude that is heard, and ``sounds``, an address for
        each.

    Raises
    ------
    LMACError
        If the clip is not whole, or its folder is a link.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (clip,) = interpreter.explain_file(path).save(folder / "dog")
    >>> entry, heavy = read_entry(folder, clip)
    >>> entry["anchor"], heavy["sounds"][0][:23]
    ('dog', 'data:audio/mpeg;base64,')
    """
    if path.is_symlink():
        raise LMACError(f"{path}: is a link, expected a clip's folder")
    clip = read_clip(path)
    info, mask, level, kept, files = clip
    share = mask if kept is None else kept
    addresses = [_address(folder, clip, name, embed) for name in files]
    seconds = info["n_samples"] / info["sample_rate"]
    columns = [info[name] for name in PROBABILITIES]
    explained = info["classes"].index(info["decision"])
    decision = decision_of(info)
    by_p = sorted(range(len(columns[0])), key=lambda c: -(columns[0][c] or 0))
    answer = answer_of(info)
    made = info.get("made")
    notes = [*info.get("notes", []), gain_in_words(info["gain"])]
    windows = info.get("windows", [])
    entry = {
        "id": info["id"],
        # One that stays, whichever clips are beside it.
        "anchor": quote(os.fsencode(path.relative_to(folder).as_posix())),
        # Former versions wrote where it lay.
        "file": info["file"] and re.split(r"[/\\]", info["file"])[-1],
        "label": info["label"],
        "decision": decision,
        # What the windows of a long clip have in common, if they do.
        "headline": all(window["decision"] == decision for window in windows),
        "right": is_right(info),
        "explained": answer["name"],
        "parents": info.get("parents", ""),
        "notes": [note for note in notes if note],
        "made": _made_in_words(made),
        "model": made and [made["model"], made["checksum"]],
        "date": made and made["date"],
        "probabilities": [answer[name] for name in PROBABILITIES],
        "bars": [
            [info["classes"][c], *(column[c] for column in columns)]
            for c in _shown_classes(info, columns, by_p, explained)
        ],
        "verdict": info["verdict"],
        "stable": info["stable"],
        "agreement": info["agreement"],
        "metrics": info["metrics"],
        "threshold": info["threshold"],
        "refine_steps": info["refine_steps"],
        "second_look": info.get("second_look", False),
        # Only checked keys of a window go into the page.
        "windows": [
            {key: window.get(key) for key in WINDOW} for window in windows
        ],
        "seconds": seconds,
        "kilohertz": info["sample_rate"] / 2000,
        "area": float(mask.mean()) / 255,
        "spread": _spread(
            _heard(share, level), seconds, info["sample_rate"] / 2000
        ),
    }
    pictures = [_png(_coarsen(_shrink(x))) for x in (level, share)]
    level, share = (base64.b64encode(x).decode("ascii") for x in pictures)
    return entry, {"level": level, "mask": share, "sounds": addresses}


def _made_in_words(made):
    """What made an explanation, for a person; the day is said elsewhere."""
    if not made:
        return "an unknown model"
    checksum = (made["checksum"] or "without weights")[:_DIGITS]
    versions = (f"{name} {made[name]}" for name in _VERSIONS)
    return f"{made['model']} ({checksum}), {', '.join(versions)}"


def _shown_classes(info, columns, by_p, explained):
    """Classes with bars: the most probable ones in and out, and the label."""
    shown = set(by_p[:N_BARS]) | {explained}
    for column in columns[1:]:
        known = [c for c, p in enumerate(column) if p is not None]
        shown |= set(sorted(known, key=lambda c: -column[c])[:1])
    if info["label"] in info["classes"]:
        shown.add(info["classes"].index(info["label"]))
    return [c for c in by_p if c in shown]


def _address(folder, clip, name, embed):
    """Address of a sound: a data URI, or a path for the page."""
    file, info = clip.files[name], clip.info
    if not embed:
        # Bytes, since a name may not be UTF-8; ./, since it may hold a colon.
        place = file.relative_to(folder).as_posix()
        return f"./{quote(os.fsencode(place))}"
    if info["n_samples"] > _MOST_SAMPLES:
        raise LMACError(
            f"{file}: found {info['n_samples']} samples, expected at most "
            f"{_MOST_SAMPLES} for a page that holds them; use --link-sounds "
            "(embed=False)"
        )
    kind, packed = _pack(clip.blocks(name), info["sample_rate"])
    encoded = base64.b64encode(packed).decode("ascii")
    return f"data:{kind};base64,{encoded}"


def _pack(wavs, rate):
    """MIME type and bytes of a sound in parts, which every browser plays."""
    kind, look = "audio/wav", {"format": "WAV", "subtype": "PCM_16"}
    if rate in _MP3_RATES and "MP3" in sf.available_formats():
        kind, look = "audio/mpeg", _MP3
    buffer = io.BytesIO()
    with sf.SoundFile(buffer, "w", rate, 1, **look) as file:
        for wav in wavs:
            for start in range(0, len(wav), _BLOCK):
                file.write(wav[start : start + _BLOCK])
    return kind, buffer.getvalue()


def _heard(share, level):
    """Magnitude that is let through; what is black has none."""
    decibels = RANGE_DB * (level / 255 - 1)
    return share * np.where(level > 0, 10 ** (decibels / 20), 0)


def _spread(heard, seconds, kilohertz):
    """Range of 80 % of what is heard: from, to in seconds, then in kHz."""
    bounds = []
    for axis, size in ((1, seconds), (0, kilohertz)):
        total = np.cumsum(heard.sum(axis=axis))
        if total[-1] == 0:
            return None
        cells = np.searchsorted(total, total[-1] * np.array([0.1, 0.9]))
        low, high = (cells + [0, 1]) / len(total) * size
        bounds += [float(low), float(high)]
    return bounds


def _shrink(values):
    """Shrink a map to the largest picture by rounded means over cells."""
    for axis, most in enumerate((MAX_FRAMES, MAX_BINS)):
        size = values.shape[axis]
        if size > most:
            edges = np.arange(most + 1) * size // most
            total = np.add.reduceat(
                values, edges[:-1], axis=axis, dtype=np.int64
            )
            counts = np.expand_dims(np.diff(edges), 1 - axis)
            values = (total + counts // 2) // counts
    return values.astype(np.uint8)


def _coarsen(values):
    """Round to 64 levels, which compress well and look the same."""
    return (values.astype(np.uint16) * 63 + 127) // 255 * 4


def _png(values):
    """A grey picture of [time, freq], time to the right, low notes below."""
    buffer = io.BytesIO()
    Image.fromarray(values.T[::-1].astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
