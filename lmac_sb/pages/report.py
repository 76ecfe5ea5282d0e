"""A page, in one file, that shows and plays a folder of explanations.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import os
from pathlib import Path

from lmac_sb.inference.clip_folder import UNREFINED
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.clip_data import read_entry
from lmac_sb.pages.explained import Wanted, open_explained
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.page import save_page, write_block
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.near import near

__all__ = ["write_report"]


def write_report(
    folder, out_file=None, embed=True, mixed=False, left_out=None, wanted=None
):
    """Write a page for a folder of explained clips.

    The folder holds a sub-folder for each clip, as `save_clip` writes it, or
    is that of a job, whose shards hold the same files, or of an audit; see
    `lmac_sb.pages.explained`. If a clip has a folder ``unrefined``, its card
    compares both masks. The page is a single file that opens from disk and
    loads nothing else.

    Clips that are not whole, or hold something else, such as links, are left
    out; the page names them, and how many more there are.

    Arguments
    ---------
    folder : str or Path
        The explanations; hidden folders are ignored.
    out_file : str or Path
        The page, by default ``report.html`` in the folder.
    embed : bool
        Whether the sounds become part of the page, as MP3, or as WAV where
        MP3 lacks their rate; every browser plays both. Otherwise
        the page plays the clips' own files, so it must stay in their folder.
    mixed : bool
        Whether the clips may be those of different models.
    left_out : list
        Gets the `LMACError` of each clip that was left out, and one for all
        those that are more than `wanted` takes, or have no sounds.
    wanted : lmac_sb.pages.explained.Wanted
        Which clips; by default the first 500.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    LMACError
        If no clip is whole or none is asked for, a name is that of none, they
        are of different models, or the page cannot be written. Then an earlier
        page stays as it was.

    Example
    -------
    >>> write_report("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere: no such folder of explanations
    """
    folder = Path(folder)
    wanted = wanted or Wanted()
    wanted.check()
    explained = open_explained(folder)
    report = _Report(explained, embed, mixed, wanted)
    page = folder / "report.html" if out_file is None else Path(out_file)
    if page.is_dir():
        raise LMACError(f"{page}: is a folder, expected a file name")
    if not embed and page.resolve().parent != folder.resolve():
        raise LMACError(
            f"{page}: a page without embedded sounds plays those in {folder}, "
            "expected a page in that folder"
        )
    if not embed and not explained.has_files:
        raise LMACError(
            f"{folder}: keeps its sounds in shards, to which a page cannot "
            "link, expected one that holds them"
        )
    media = "data:" if embed else "'self' file:"
    save_page(
        page,
        "report",
        report.write,
        scripts=["dom", "picture", "theme", "tips"],
        media=media,
    )
    if left_out is not None:
        left_out += report.left_out
        left_out += map(LMACError, report.notes)
    return page


class _Report:
    """The data of a page, written clip by clip, to save memory."""

    def __init__(self, explained, embed, mixed, wanted):
        self.explained, self.folder = explained, explained.folder
        self.embed, self.mixed, self.wanted = embed, mixed, wanted
        self.index = []  # what the page lists of each clip
        self.places = []  # and where it is
        self.left_out = []
        self.notes = []  # what is said of those that are not even tried

    def write(self, file):
        """Write one clip after another, and then their list."""
        for place in self._choose():
            try:
                blocks = self._read(place)
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

    def _choose(self):
        """Places of the clips that are asked for; the others are counted."""
        wanted = self.wanted
        n_seen, n_more, n_silent, n_chosen = 0, 0, 0, 0
        unknown, classes = set(wanted.names), set()
        for clip in self.explained:
            if isinstance(clip, LMACError):
                self.left_out.append(clip)
                continue
            n_seen += 1
            unknown -= wanted.named(clip)
            classes |= {clip.label, clip.decision} - {None}
            if not wanted.holds(clip):
                continue
            if clip.place is None:
                n_silent += 1
            elif n_chosen == wanted.most:
                n_more += 1
            else:
                n_chosen += 1
                yield clip.place

        if unknown:
            raise LMACError(
                f"{self.folder}: found no clip named {shown(min(unknown))} "
                f"among {n_seen}"
            )
        self._count(n_more, n_silent)
        if not n_chosen and (n_seen or not self.left_out):
            raise LMACError(self._none_chosen(n_seen, n_silent, classes))

    def _none_chosen(self, n_seen, n_silent, classes):
        """Why there is nothing to show."""
        if not n_seen:
            why = "; ".join(["holds no explained clips", *self.notes])
            return f"{self.folder}: {why}"
        if n_silent:
            return (
                f"{self.folder}: kept no sounds of what is asked for "
                f"({n_silent}); explain it by lmac explain"
            )
        name = self.wanted.name_of_class
        hint = "" if name in (None, *classes) else near(name, classes)
        return (
            f"{self.folder}: found none of the clips that are asked for among "
            f"{n_seen}: {self.wanted.in_words()}{hint}"
        )

    def _count(self, n_more, n_silent):
        """Say how many clips are not in the page."""
        self.notes += self.explained.notes
        if n_silent:
            clips = "1 clip has" if n_silent == 1 else f"{n_silent} clips have"
            hint = self.explained.more_sounds
            self.notes.append(f"{clips} no sounds in this folder{hint}")
        if n_more:
            self.notes.append(
                f"asked for, but too many for this page: {n_more}; choose by "
                "--clip, --class, --verdict or --wrong, take more by --most, "
                "or page through all by lmac app --explained"
            )

    def _read(self, place):
        """Add a clip to the list; gives its pictures and sounds by name."""
        block = f"clip-{len(self.index)}"
        with self.explained.opened(place) as (folder, path):
            entry, heavy = read_entry(folder, path, self.embed)
            blocks = {block: heavy}
            other = path / UNREFINED
            if os.path.lexists(other):
                unrefined, heavy = read_entry(folder, other, self.embed)
                _check_pair(path, entry, unrefined)
                entry["unrefined"] = unrefined
                blocks[f"{block}-{UNREFINED}"] = heavy
        self.index.append(entry)
        self.places.append(place)
        return blocks

    def _check_models(self):
        """Refuse clips of several models, unless that is asked for."""
        first = self.index[0]
        for place, entry in zip(self.places, self.index):
            if entry["model"] != first["model"] and not self.mixed:
                raise LMACError(
                    f"{self.folder}: found clips of different models: "
                    f"{shown(self.places[0])} by {first['made']}, and "
                    f"{shown(place)} by {entry['made']}; expected those of "
                    "one; --mix-models allows several"
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
            "asked": self.wanted.in_words(),
            "notes": self.notes,
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
