"""A page, in one file, that shows and plays a folder of explanations.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import base64
import io
import os
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile as sf
from PIL import Image

from lmac_sb.inference.clip_folder import (
    PROBABILITIES,
    UNREFINED,
    WINDOW,
    read_clip,
)
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.page import write_block, write_page
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import write_in_one_step

__all__ = ["write_report"]

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
    clips = [path for found in _folders_in(folder) for path in _parts_of(found)]
    if not clips:
        raise LMACError(
            f"{folder}: holds no explained clips, expected one sub-folder for "
            "each clip"
        )
    return sorted(clips, key=_natural)


def _folders_in(folder):
    """Its sub-folders, without hidden ones."""
    return [
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ]


def _parts_of(folder):
    """A clip's folder, or those of its classes, if each has one."""
    if (folder / "explanation.json").exists():
        return [folder]
    inner = [
        path
        for path in _folders_in(folder)
        if (path / "explanation.json").exists()
    ]
    return inner or [folder]


def _natural(path):
    """Sort key that puts clip 9 before clip 10."""
    parts = re.split(r"([0-9]+)", f"{path.parent.name}/{path.name}")
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
    contents = {
        "title": title,
        "metrics": metrics,
        # The good one first.
        "verdicts": list(reversed(VERDICTS.items())),
        "clips": index,
    }
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
    info, mask, level, sounds = read_clip(path)
    addresses = [
        _address(folder, file, wav, info["sample_rate"], embed)
        for file, wav in sounds.values()
    ]
    seconds = info["n_samples"] / info["sample_rate"]
    columns = [info[name] for name in PROBABILITIES]
    explained = info["classes"].index(info["decision"])
    by_p = sorted(range(len(columns[0])), key=lambda c: -(columns[0][c] or 0))
    best = by_p[0] if columns[0][by_p[0]] is not None else explained
    answer = info.get("answer") or {
        "name": info["decision"],
        **{name: info[name][explained] for name in PROBABILITIES},
    }
    entry = {
        "id": info["id"],
        "file": info["file"] and os.path.basename(info["file"]),
        "label": info["label"],
        "decision": info["classes"][best],
        "explained": answer["name"],
        "parents": info.get("parents", ""),
        "notes": info.get("notes", []),
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
        # Only checked keys of a window go into the page.
        "windows": [
            {key: window.get(key) for key in WINDOW}
            for window in info.get("windows", [])
        ],
        "seconds": seconds,
        "kilohertz": info["sample_rate"] / 2000,
        "area": float(mask.mean()) / 255,
        "spread": _spread(mask, seconds, info["sample_rate"] / 2000),
    }
    pictures = [_png(_coarsen(_shrink(x))) for x in (level, mask)]
    level, mask = (base64.b64encode(x).decode("ascii") for x in pictures)
    return entry, {"level": level, "mask": mask, "sounds": addresses}


def _shown_classes(info, columns, by_p, explained):
    """Classes with bars: the most probable ones in and out, and the label."""
    shown = set(by_p[:N_BARS]) | {explained}
    for column in columns[1:]:
        known = [c for c, p in enumerate(column) if p is not None]
        shown |= set(sorted(known, key=lambda c: -column[c])[:1])
    if info["label"] in info["classes"]:
        shown.add(info["classes"].index(info["label"]))
    return [c for c in by_p if c in shown]


def _address(folder, file, wav, sample_rate, embed):
    """Address of a sound: a data URI, or a path for the page."""
    if not embed:
        # Bytes, since a name may not be UTF-8; ./, since it may hold a colon.
        place = file.relative_to(folder).as_posix()
        return f"./{quote(os.fsencode(place))}"
    encoded = base64.b64encode(_vorbis(wav.numpy(), sample_rate))
    return f"data:audio/ogg;base64,{encoded.decode('ascii')}"


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
