"""A page, in one file, that shows and plays a folder of explanations.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import base64
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile as sf
from PIL import Image

from lmac_sb.inference.clip_facts import WINDOW, answer_of
from lmac_sb.inference.clip_folder import (
    FACTS,
    UNREFINED,
    gain_in_words,
    read_clip,
)
from lmac_sb.inference.collection import clip_folders, inner_folders
from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.page import write_block, write_page
from lmac_sb.utils.errors import LMACError, is_full, shown
from lmac_sb.utils.io import restore_folder, write_in_one_step

__all__ = ["write_report"]

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


def write_report(folder, out_file=None, embed=True, mixed=False, left_out=None):
    """Write a page for a folder of explained clips.

    Each sub-folder must be a clip as `save_clip` writes it. If a clip has a
    folder ``unrefined``, its card compares both masks. The page is a single
    file that opens from disk and loads nothing else.

    Clips that are not whole, or hold something else, such as links, are left
    out; the page names them.

    Arguments
    ---------
    folder : str or Path
        The explanations, one sub-folder for each clip; hidden folders are
        ignored.
    out_file : str or Path
        The page, by default ``report.html`` in the folder.
    embed : bool
        Whether the sounds become part of the page, as MP3, or as WAV where
        MP3 lacks their rate; every browser plays both. Otherwise
        the page plays the clips' own files, so it must stay in their folder.
    mixed : bool
        Whether the clips may be those of different models.
    left_out : list
        Gets the `LMACError` of each clip that was left out.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    LMACError
        If no clip is whole, they are of different models, or the page cannot
        be written. Then an earlier page stays as it was.

    Example
    -------
    >>> write_report("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    folder = Path(folder)
    report = _Report(folder, embed, mixed, _find_clips(folder))
    page = folder / "report.html" if out_file is None else Path(out_file)
    if page.is_dir():
        raise LMACError(f"{page}: is a folder, expected a file name")
    if not embed and page.resolve().parent != folder.resolve():
        raise LMACError(
            f"{page}: a page without embedded sounds plays those in {folder}, "
            "expected a page in that folder"
        )
    media = "data:" if embed else "'self' file:"
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_in_one_step(
            page,
            lambda file: write_page(
                file, "report", report.write, scripts=["tips"], media=media
            ),
        )
    except OSError as error:
        if is_full(error):
            raise
        raise LMACError(
            f"{page}: cannot be written ({error.strerror})"
        ) from error
    if left_out is not None:
        left_out += report.left_out
    return page


def _find_clips(folder):
    """Folders of clips, in natural order; those of no clip, too."""
    if not folder.is_dir():
        raise LMACError(f"{folder}: no such folder of explanations")
    if (folder / FACTS).is_file():
        raise LMACError(
            f"{folder}: is itself one clip, expected the folder above it"
        )
    for former in folder.glob("*.former"):
        # Nothing can be done where nothing can be written.
        with suppress(OSError):
            restore_folder(former.with_suffix(""))
    clips = [
        path
        for found in inner_folders(folder)
        if not found.with_suffix("").is_dir() or found.suffix != ".former"
        for path in ([] if found.is_symlink() else clip_folders(found))
        or [found]
    ]
    if not clips:
        raise LMACError(
            f"{folder}: holds no explained clips, expected one sub-folder for "
            "each clip"
        )
    return sorted(clips, key=_natural)


def _natural(path):
    """Sort key that puts clip 9 before clip 10."""
    parts = re.split(r"([0-9]+)", f"{path.parent.name}/{path.name}")
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


class _Report:
    """The data of a page, written clip by clip, to save memory."""

    def __init__(self, folder, embed, mixed, clips):
        self.folder, self.embed, self.mixed = folder, embed, mixed
        self.clips = clips
        self.index = []  # what the page lists of each clip
        self.left_out = []

    def write(self, file):
        """Write one clip after another, and then their list."""
        for path in self.clips:
            try:
                blocks = self._read(path)
            except LMACError as error:
                self.left_out.append(error)
                continue
            for name, heavy in blocks.items():
                write_block(file, name, heavy)
        if not self.index:
            first, more = self.left_out[0], len(self.left_out) - 1
            raise LMACError(
                f"{first}; {more} more are not whole" if more else str(first)
            )
        self._check_models()
        write_block(file, "index", self._contents())

    def _read(self, path):
        """Add a clip to the list; gives its pictures and sounds by name."""
        block = f"clip-{len(self.index)}"
        entry, heavy = _read_clip(self.folder, path, self.embed)
        blocks = {block: heavy}
        if os.path.lexists(path / UNREFINED):
            other, heavy = _read_clip(self.folder, path / UNREFINED, self.embed)
            _check_pair(path, entry, other)
            entry["unrefined"] = other
            blocks[f"{block}-{UNREFINED}"] = heavy
        self.index.append(entry)
        return blocks

    def _check_models(self):
        """Refuse clips of several models, unless that is asked for."""
        first = self.index[0]
        for entry in self.index:
            if entry["model"] != first["model"] and not self.mixed:
                raise LMACError(
                    f"{self.folder}: found clips of different models: "
                    f"{shown(first['id'])} by {first['made']}, and "
                    f"{shown(entry['id'])} by {entry['made']}; expected those "
                    "of one, or --mix-models (mixed=True)"
                )

    def _contents(self):
        """What the page says of all clips."""
        found = set()
        for entry in self.index:
            found |= set(entry["metrics"])
            found |= set(entry.get("unrefined", {}).get("metrics", ()))
        # Known metrics come first, in their usual order.
        names = [n for n in METRICS if n in found]
        names += sorted(found - set(names))
        metrics = [
            [name, METRICS[name].direction if name in METRICS else 0]
            for name in names
        ]
        known = self.index if any(e["model"] for e in self.index) else []
        dates = sorted({entry["date"] for entry in known if entry["date"]})
        return {
            "title": self.folder.resolve().name,
            "metrics": metrics,
            "meanings": {n: MEANINGS[n] for n in names if n in MEANINGS},
            # The good one first.
            "verdicts": list(reversed(VERDICTS.items())),
            # None, where nothing is known of any clip.
            "made": sorted({entry["made"] for entry in known}),
            "dates": [dates[0], *dates[1:][-1:]] if dates else [],
            "left_out": [self._reason(error) for error in self.left_out],
            "clips": self.index,
        }

    def _reason(self, error):
        """Why a clip was left out, without the folders above it."""
        return str(error).replace(f"{self.folder}{os.sep}", "")


def _made_in_words(made):
    """What made an explanation, for a person; the day is said elsewhere."""
    if not made:
        return "an unknown model"
    checksum = (made["checksum"] or "without weights")[:_DIGITS]
    versions = (f"{name} {made[name]}" for name in _VERSIONS)
    return f"{made['model']} ({checksum}), {', '.join(versions)}"


def _check_pair(path, refined, unrefined):
    """Refuse two explanations of different clips or classes."""
    keys = ("file", "label", "explained", "threshold", "seconds", "model")
    for key in keys:
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
    if path.is_symlink():
        raise LMACError(f"{path}: is a link, expected a clip's folder")
    clip = read_clip(path)
    info, mask, level, files = clip
    addresses = [_address(folder, clip, name, embed) for name in files]
    seconds = info["n_samples"] / info["sample_rate"]
    columns = [info[name] for name in PROBABILITIES]
    explained = info["classes"].index(info["decision"])
    by_p = sorted(range(len(columns[0])), key=lambda c: -(columns[0][c] or 0))
    best = by_p[0] if columns[0][by_p[0]] is not None else explained
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
        "decision": info["classes"][best],
        # What the windows of a long clip have in common, if they do.
        "headline": all(
            window["decision"] == info["classes"][best] for window in windows
        ),
        "right": _is_right(info, info["classes"][best]),
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
        # Only checked keys of a window go into the page.
        "windows": [
            {key: window.get(key) for key in WINDOW} for window in windows
        ],
        "seconds": seconds,
        "kilohertz": info["sample_rate"] / 2000,
        "area": float(mask.mean()) / 255,
        "spread": _spread(mask, seconds, info["sample_rate"] / 2000),
    }
    pictures = [_png(_coarsen(_shrink(x))) for x in (level, mask)]
    level, mask = (base64.b64encode(x).decode("ascii") for x in pictures)
    return entry, {"level": level, "mask": mask, "sounds": addresses}


def _is_right(info, decision):
    """Whether a decision agrees with the label; None without one."""
    if info["label"] is None:
        return None
    return decision in (info["label"], *info.get("kin", []))


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
