"""A page, in one file, that shows and plays a folder of explanations.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import base64
import io
import json
import os
import re
import sys
import zipfile
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile as sf
from PIL import Image

from lmac_sb.data.audio import decode_audio
from lmac_sb.metrics.registry import METRICS
from lmac_sb.pages.page import write_block, write_page
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import write_in_one_step

__all__ = ["write_report"]

SOUNDS = ("original", "interpretation", "residual")
FORMATS = ("wav", "flac")
UNREFINED = "unrefined"  # sub-folder of a clip, for the decoder's own mask
PROBABILITIES = ("p", "p_in", "p_out")
# Size of the largest picture; a screen would not show more of it.
MAX_FRAMES, MAX_BINS = 512, 256
N_BARS = 3  # most probable classes with bars; more may be added
_BLOCK = 1 << 16  # samples; libsndfile's Vorbis crashes on very long writes


def write_report(folder, out_file=None, embed=True):
    """Write a page for a folder of explained clips.

    Each sub-folder must be a clip as `save_clip` writes it. If a clip has a
    folder ``unrefined``, its card compares both masks. The page is a single
    file that opens from disk and loads nothing else.

    Arguments
    ---------
    folder : str or Path
        The explanations, one sub-folder for each clip; hidden folders are
        ignored.
    out_file : str or Path
        The page, by default ``report.html`` in the folder.
    embed : bool
        Whether the sounds become part of the page, as Ogg/Vorbis. Otherwise
        the page plays the clips' own files, so it must stay in their folder.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    LMACError
        If there are no clips, or a clip lacks a file or has another format.
        Then an earlier page stays as it was.

    Example
    -------
    >>> write_report("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    folder = Path(folder)
    clips = _clip_folders(folder)
    page = folder / "report.html" if out_file is None else Path(out_file)
    if page.is_dir():
        raise LMACError(f"{page}: is a folder, expected a file name")
    if not embed and page.resolve().parent != folder.resolve():
        raise LMACError(
            f"{page}: a page without embedded sounds plays those in {folder}, "
            "expected a page in that folder"
        )
    page.parent.mkdir(parents=True, exist_ok=True)
    media = "data:" if embed else "'self' file:"
    write_in_one_step(
        page,
        lambda file: write_page(
            file,
            "report",
            lambda file: _write_clips(file, folder, clips, embed),
            media=media,
        ),
    )
    return page


def _clip_folders(folder):
    """Sub-folders with clips, in natural order."""
    if not folder.is_dir():
        raise LMACError(f"{folder}: no such folder of explanations")
    if (folder / "explanation.json").exists():
        raise LMACError(
            f"{folder}: is itself one clip, expected the folder above it"
        )
    clips = [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ]
    if not clips:
        raise LMACError(
            f"{folder}: holds no explained clips, expected one sub-folder for "
            "each clip"
        )
    return sorted(clips, key=_natural)


def _natural(path):
    """Sort key that puts clip 9 before clip 10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def _write_clips(file, folder, clips, embed):
    """Write one clip after another, to save memory, and then their list."""
    index, found = [], set()
    for i, path in enumerate(clips):
        entry, heavy = _read_clip(folder, path, embed)
        index.append(entry)
        found |= set(entry["metrics"])
        write_block(file, f"clip-{i}", heavy)
        if (path / UNREFINED).is_dir():
            other, heavy = _read_clip(folder, path / UNREFINED, embed)
            _check_pair(path, entry, other)
            entry["unrefined"] = other
            found |= set(other["metrics"])
            write_block(file, f"clip-{i}-{UNREFINED}", heavy)
    # Known metrics come first, in their usual order.
    names = [n for n in METRICS if n in found]
    names += sorted(found - set(names))
    metrics = [
        [name, METRICS[name].direction if name in METRICS else 0]
        for name in names
    ]
    title = folder.resolve().name
    contents = {"title": title, "metrics": metrics, "clips": index}
    write_block(file, "index", contents)


def _check_pair(path, refined, unrefined):
    """Refuse two explanations of different clips or classes."""
    for key in ("file", "label", "explained", "threshold", "seconds"):
        if refined[key] != unrefined[key]:
            raise LMACError(
                f"{path / UNREFINED / 'explanation.json'}: {key}: found "
                f"{shown(unrefined[key])}, expected {shown(refined[key])} as "
                "in the refined explanation"
            )
    if not refined["refine_steps"] > unrefined["refine_steps"] == 0:
        raise LMACError(
            f"{path / UNREFINED / 'explanation.json'}: refine_steps: found "
            f"{shown(unrefined['refine_steps'])}, and "
            f"{shown(refined['refine_steps'])} in the refined explanation, "
            "expected 0 and more than 0"
        )


def _read_clip(folder, path, embed):
    """Entry of a clip in the page's list, and its pictures and sounds."""
    info = _read_json(path / "explanation.json")
    mask, level = _read_maps(path / "maps.npz", info["n_bins"])
    sounds = [_read_sound(folder, path / name, info, embed) for name in SOUNDS]
    seconds = info["n_samples"] / info["sample_rate"]
    columns = [info[name] for name in PROBABILITIES]
    explained = info["classes"].index(info["decision"])
    by_p = sorted(range(len(columns[0])), key=lambda c: -(columns[0][c] or 0))
    best = by_p[0] if columns[0][by_p[0]] is not None else explained
    entry = {
        "id": info["id"],
        "file": info["file"] and os.path.basename(info["file"]),
        "label": info["label"],
        "decision": info["classes"][best],
        "explained": info["decision"],
        "probabilities": [column[explained] for column in columns],
        "bars": [
            [info["classes"][c], *(column[c] for column in columns)]
            for c in _shown_classes(info, columns, by_p, explained)
        ],
        "metrics": info["metrics"],
        "threshold": info["threshold"],
        "refine_steps": info.get("refine_steps", 0),
        # Only checked keys of a window go into the page.
        "windows": [
            {key: window.get(key) for key in _WINDOW}
            for window in info.get("windows", [])
        ],
        "seconds": seconds,
        "kilohertz": info["sample_rate"] / 2000,
        "area": float(mask.mean()) / 255,
        "spread": _spread(mask, seconds, info["sample_rate"] / 2000),
    }
    pictures = [_png(_coarsen(_shrink(x))) for x in (level, mask)]
    level, mask = (base64.b64encode(x).decode("ascii") for x in pictures)
    return entry, {"level": level, "mask": mask, "sounds": sounds}


def _shown_classes(info, columns, by_p, explained):
    """Classes with bars: the most probable ones in and out, and the label."""
    shown = set(by_p[:N_BARS]) | {explained}
    for column in columns[1:]:
        known = [c for c, p in enumerate(column) if p is not None]
        shown |= set(sorted(known, key=lambda c: -column[c])[:1])
    if info["label"] in info["classes"]:
        shown.add(info["classes"].index(info["label"]))
    return [c for c in by_p if c in shown]


def _is_text(value):
    """Whether a value is a string."""
    return isinstance(value, str)


def _is_count(value):
    """Whether a value is a positive whole number."""
    return type(value) is int and value > 0


def _is_steps(value):
    """Whether a value is a whole number of at least 0."""
    return type(value) is int and value >= 0


def _is_number(value):
    """Whether a value is a finite number."""
    # Compared, since a whole number in JSON may be too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_text_or_null(value):
    """Whether a value is a string or null."""
    return value is None or _is_text(value)


def _is_number_or_null(value):
    """Whether a value is a finite number or null."""
    return value is None or _is_number(value)


def _is_classes(value):
    """Whether a value is a non-empty list of strings."""
    return isinstance(value, list) and value and all(map(_is_text, value))


def _is_metrics(value):
    """Whether a value maps names to numbers or null."""
    return isinstance(value, dict) and all(
        map(_is_number_or_null, value.values())
    )


def _is_probabilities(value):
    """Whether a value is a list of probabilities."""
    return isinstance(value, list) and all(
        p is None or (_is_number(p) and -1e-4 <= p <= 1 + 1e-4) for p in value
    )


def _is_windows(value):
    """Whether a value is a list of decisions, each on a part of the clip."""
    return isinstance(value, list) and all(
        isinstance(window, dict)
        and all(is_good(window.get(key)) for key, is_good in _WINDOW.items())
        for window in value
    )


_WINDOW = {
    "start": _is_number,
    "end": _is_number,
    "decision": _is_text,
    **dict.fromkeys(PROBABILITIES, _is_number_or_null),
}


_KEYS = {
    "id": (_is_text, "a text"),
    "file": (_is_text_or_null, "a text or null"),
    "label": (_is_text_or_null, "a text or null"),
    "decision": (_is_text, "a text"),
    "classes": (_is_classes, "a list of names"),
    "p": (_is_probabilities, "a list of probabilities"),
    "p_in": (_is_probabilities, "a list of probabilities"),
    "p_out": (_is_probabilities, "a list of probabilities"),
    "metrics": (_is_metrics, "names with numbers or null"),
    "sample_rate": (_is_count, "a whole number of Hz"),
    "n_samples": (_is_count, "a positive whole number"),
    "n_bins": (_is_count, "a positive whole number"),
    "threshold": (_is_number_or_null, "a number or null"),
    "windows": (_is_windows, "a list of start, end, decision, p, p_in, p_out"),
    "refine_steps": (_is_steps, "a whole number from 0"),
}
# Only long clips have windows; folders of an earlier version lack the steps.
_OPTIONAL = {"windows", "refine_steps"}


def _read_json(path):
    """Content of ``explanation.json``, each value of the expected kind."""
    try:
        info = json.loads(path.read_text("utf-8"), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LMACError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(info, dict):
        raise LMACError(f"{path}: holds no JSON object, expected one")
    for key, (is_good, expected) in _KEYS.items():
        if key in _OPTIONAL and key not in info:
            continue
        if key not in info:
            raise LMACError(f"{path}: the key {key!r} is missing")
        if not is_good(info[key]):
            raise LMACError(
                f"{path}: {key}: found {shown(info[key])}, expected {expected}"
            )
    for key in PROBABILITIES:
        if len(info[key]) != len(info["classes"]):
            raise LMACError(
                f"{path}: {key}: found {len(info[key])} values for "
                f"{len(info['classes'])} classes"
            )
    if info["decision"] not in info["classes"]:
        raise LMACError(
            f"{path}: decision: found {shown(info['decision'])}, which is "
            "not among the classes"
        )
    return info


def _no_constant(name):
    """Refuse NaN and the like, which Python reads but JSON lacks."""
    raise ValueError(f"{name} is no JSON, expected null")


def _read_maps(path, n_bins):
    """Mask and level of a clip, [time, freq] each, as uint8."""
    try:
        with np.load(path, allow_pickle=False) as maps:
            mask, level = maps["mask"], maps["level"]
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    except KeyError as error:
        raise LMACError(f"{path}: {error}, expected mask and level") from error
    # EOFError: an empty file. TypeError, AttributeError: a single array.
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise LMACError(f"{path}: cannot be read as maps ({error})") from error
    for name, values in (("mask", mask), ("level", level)):
        shape = (len(mask) if mask.ndim else 0, n_bins)
        if values.dtype != np.uint8 or values.shape != shape or not shape[0]:
            raise LMACError(
                f"{path}: {name}: found {values.dtype} of shape "
                f"{values.shape}, expected uint8 of [time, {shown(n_bins)}], "
                "the same time for both"
            )
    return mask, level


def _read_sound(folder, stem, info, embed):
    """Address of a checked sound: a data URI, or a path for the page."""
    names = [f"{stem.name}.{ending}" for ending in FORMATS]
    files = [stem.with_name(name) for name in names]
    files = [file for file in files if file.exists()]
    if len(files) != 1:
        found = " and ".join(file.name for file in files) or "none"
        raise LMACError(
            f"{stem.parent}: found {found}, expected one of "
            f"{' or '.join(names)}"
        )
    wav, rate = decode_audio(files[0])
    if (len(wav), rate) != (info["n_samples"], info["sample_rate"]):
        raise LMACError(
            f"{files[0]}: found {len(wav)} samples at {rate} Hz, expected "
            f"{shown(info['n_samples'])} at {shown(info['sample_rate'])} Hz as "
            "in explanation.json"
        )
    if not embed:
        # Bytes, since a name may not be UTF-8; ./, since it may hold a colon.
        place = files[0].relative_to(folder).as_posix()
        return f"./{quote(os.fsencode(place))}"
    encoded = base64.b64encode(_vorbis(wav.numpy(), rate)).decode("ascii")
    return f"data:audio/ogg;base64,{encoded}"


def _vorbis(wav, rate):
    """A sound as a small file in a format that browsers play."""
    buffer = io.BytesIO()
    with sf.SoundFile(
        buffer, "w", rate, 1, format="OGG", subtype="VORBIS"
    ) as file:
        for start in range(0, len(wav), _BLOCK):
            file.write(wav[start : start + _BLOCK])
    return buffer.getvalue()


def _spread(mask, seconds, kilohertz):
    """Range of 80 % of the mask: from and to in seconds, then in kHz."""
    bounds = []
    for axis, size in ((1, seconds), (0, kilohertz)):
        total = np.cumsum(mask.sum(axis=axis, dtype=np.float64))
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
