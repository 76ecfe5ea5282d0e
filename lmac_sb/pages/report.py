"""A page, in one file, that shows and plays a folder of explanations.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from lmac_sb.inference.clip_folder import FACTS, UNREFINED
from lmac_sb.inference.collection import clip_folders, inner_folders
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.clip_data import read_entry
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.page import write_block, write_page
from lmac_sb.utils.errors import LMACError, is_full, shown
from lmac_sb.utils.io import restore_folder, write_in_one_step

__all__ = ["write_report"]


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
                file,
                "report",
                report.write,
                scripts=["picture", "theme", "tips"],
                media=media,
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
        entry, heavy = read_entry(self.folder, path, self.embed)
        blocks = {block: heavy}
        if os.path.lexists(path / UNREFINED):
            other, heavy = read_entry(self.folder, path / UNREFINED, self.embed)
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
