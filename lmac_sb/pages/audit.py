"""A page, in one file, that shows what an audit of a classifier has found.

See `lmac_sb.pages.page` on how names of classes and files stay data.
"""

import os
from pathlib import Path

from lmac_sb.audit.files import EXAMPLES
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.pages.audit_facts import examples_of, read_audit
from lmac_sb.pages.clip_data import read_entry
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.page import save_page, write_block
from lmac_sb.utils.errors import LMACError

__all__ = ["write_audit_page"]

PAGE = "audit.html"
# What a browser opens in some seconds; the rest stays in its folder.
MOST_EXAMPLES = 300
MOST_BYTES = 150 << 20  # of pictures and sounds
# Facts of an example that the page shows.
_SHOWN = (
    *("id", "file", "label", "decision", "explained", "right"),
    *("probabilities", "verdict", "seconds", "kilohertz", "area", "spread"),
    *("notes", "metrics"),
)


def write_audit_page(folder):
    """Write a page for the folder of an audit.

    The page is a single file that opens from disk and loads nothing else.
    Sounds and pictures of the examples are part of it, those of alarms first,
    up to `MOST_EXAMPLES` and `MOST_BYTES`. The page names those that are left
    out, since there are more or since they are not whole.

    Arguments
    ---------
    folder : str or Path
        As ``lmac audit`` writes it: ``audit.json``, see
        `lmac_sb.pages.audit_facts`, and in ``examples`` the clips' folders.

    Returns
    -------
    pathlib.Path
        ``audit.html`` in the folder.

    Raises
    ------
    LMACError
        If ``audit.json`` is missing or holds something else, or the page
        cannot be written. Then an earlier page stays as it was.

    Example
    -------
    >>> write_audit_page("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere/audit.json: no such file, expected the folder \
of an audit
    """
    folder = Path(folder)
    page = folder / PAGE
    audit = _Audit(folder, read_audit(folder))
    save_page(
        page,
        "audit",
        audit.write,
        styles=["report"],
        scripts=["dom", "picture", "theme", "tips", "charts"],
    )
    return page


class _Audit:
    """The data of a page, written example by example, to save memory."""

    def __init__(self, folder, facts):
        self.folder, self.facts = folder, facts
        self.examples = {}  # what the page says of each, by name
        self.left_out = {}  # why one is not in the page, by name

    def write(self, file):
        """Write one example after another, and then what was found."""
        size = 0
        for name in examples_of(self.facts):
            if len(self.examples) >= MOST_EXAMPLES or size > MOST_BYTES:
                self.left_out[name] = ""
                continue
            try:
                entry, heavy = self._read(name)
            except LMACError as error:
                self.left_out[name] = str(error).replace(
                    f"{self.folder}{os.sep}", ""
                )
                continue
            size += sum(map(len, (heavy["level"], *heavy["sounds"])))
            entry["block"] = f"clip-{len(self.examples)}"
            self.examples[name] = entry
            write_block(file, entry["block"], heavy)
        write_block(file, "index", self._contents())

    def _read(self, name):
        """Facts of an example, and its pictures and sounds."""
        folder = self.folder / EXAMPLES
        if folder.is_symlink():
            raise LMACError(f"{folder}: is a link, expected a folder")
        entry, heavy = read_entry(folder, folder / name)
        shown = {key: entry[key] for key in _SHOWN}
        # The audit's names, which are those of the corpus.
        return {**shown, **self.facts["examples"][name]}, heavy

    def _contents(self):
        """What the page says."""
        found = {"area"}
        for one in self.facts["classes"]:
            found |= set(one["fidelity"])
        names = [name for name in METRICS if name in found]
        # Of the clips with a label, their numbers alone: the page is half as
        # large.
        classes = [dict(one) for one in self.facts["classes"]]
        for one in classes:
            labelled = one["labelled"]
            one["labelled"] = labelled and {
                key: labelled[key] for key in ("n", "n_missed")
            }
        return {
            **self.facts,
            "classes": classes,
            "title": self.facts["corpus"]["name"],
            "examples": {
                name: self.examples.get(name, facts)
                for name, facts in self.facts["examples"].items()
            },
            "left_out": self.left_out,
            "directions": {name: METRICS[name].direction for name in names},
            "meanings": {name: MEANINGS[name] for name in names},
            # The good one first.
            "verdicts": list(reversed(VERDICTS.items())),
        }
