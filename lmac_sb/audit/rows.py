"""Clips of a corpus, explained: a row each, and folders to hear some."""

import math
from collections.abc import Sequence
from contextlib import suppress

from lmac_sb.audit.columns import COLUMN
from lmac_sb.audit.describe import describe
from lmac_sb.audit.evidence import donors_of, evidence
from lmac_sb.audit.files import EXAMPLES
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.jobs.job import Chunk
from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.io import first_line
from lmac_sb.utils.portable import portable

__all__ = ["Explained"]

# Columns that say where the labelled event is, as in tables of sound events.
REGION = ("onset", "offset")


class Explained:
    """What becomes of the clips of a corpus: the work of an audit's jobs.

    Arguments
    ---------
    corpus : lmac_sb.data.corpus.Corpus
        The clips.
    places : list of int
        Those of them that are looked at.
    interpreter : lmac_sb.LMACInterpreter
        Explains them.
    labels : lmac_sb.audit.labels.Labels
        Knows what is right.
    refine_steps : int
        See `lmac_sb.LMACInterpreter.explain_file`; None for the model's own.
    interventions : bool
        Whether decisions are tried with parts of the sound removed, or
        exchanged with those of other clips.
    seed : int
        Of the draw of the other clips.

    Example
    -------
    >>> from lmac_sb.audit.labels import Labels
    >>> from lmac_sb.data.corpus import open_corpus
    >>> corpus, labels = open_corpus(path.parent), Labels(interpreter)
    >>> work = Explained(corpus, [0], interpreter, labels)
    >>> (row,) = work.rows(range(1)).rows
    >>> row["id"], row["decision"] in interpreter.classes
    ('dog.wav', True)
    """

    def __init__(
        self,
        corpus,
        places,
        interpreter,
        labels,
        refine_steps=None,
        interventions=True,
        seed=0,
    ):
        self.corpus = corpus
        self.places = places
        self.interpreter = interpreter
        self.labels = labels
        self.refine_steps = refine_steps
        self.interventions = interventions
        self.seed = seed

    def rows(self, items):
        """Explain clips, a row each.

        Arguments
        ---------
        items : range
            Which of the places.

        Returns
        -------
        lmac_sb.jobs.job.Chunk
        """
        return Chunk([self._row(item) for item in items])

    def _row(self, item):
        """The row of a clip."""
        clip = self.corpus[self.places[item]]
        name = self.labels.name(clip.label)
        donors = self._donors(item) if self.interventions else None
        found = self._tried(clip, donors)
        if found["error"] is None:
            found["right"] = self.labels.right(clip.label, found["decision"])
        columns = {f"{COLUMN}{key}": x for key, x in clip.columns.items()}
        # The label by the name that the model has for it, if it has one.
        row = {"id": clip.id, "label": clip.label if name is None else name}
        return {**row, **found, **columns}

    def _donors(self, item):
        """Sounds of other clips; one that cannot be read is left out."""
        classes = _ClassesOf(self.corpus, self.places)
        for other in donors_of(item, classes, self.seed):
            with suppress(LMACError, OSError):
                yield self._read(self.corpus[self.places[other]])

    def _tried(self, clip, donors=None, **asked):
        """What is found in a clip, or its error."""
        try:
            wav = self._read(clip)
            found = self._explain(wav, **asked)
            described = describe(found)
            row = {**_facts(found), **described, "error": None}
            if donors is not None:
                donors = list(donors)
                region = _region(clip.columns)
                row |= evidence(self.interpreter, wav, found, donors, region)
            return row
        except Exception as error:
            # Whatever is wrong with one clip, the others are not to blame.
            if is_full(error):
                raise
            return {"error": _in_words(clip, error)}

    def _read(self, clip):
        """The sound of a clip as the model hears it."""
        return clip.read(self.interpreter.sample_rate)

    def _explain(self, wav, **asked):
        """The explanation of a sound."""
        how = {"refine_steps": self.refine_steps, **asked}
        return self.interpreter.explain_sound(wav, **how)

    def against(self, chosen):
        """Explain clips against their labels, a row each.

        Arguments
        ---------
        chosen : pandas.DataFrame
            Rows of `rows`, by their item.

        Returns
        -------
        callable
            Work of a job on these rows.
        """

        def work(items):
            """Explain some of them."""
            return Chunk([self._against(chosen.iloc[i]) for i in items])

        return work

    def _against(self, row):
        """What speaks for the decision rather than for the label."""
        clip = self.corpus[self.places[row.name]]
        named = {key: row[key] for key in ("id", "label", "decision")}
        asked = {"target": row["decision"], "against": row["label"]}
        return {**self._tried(clip, **asked), **named}

    def examples(self, folder, examples):
        """Explain clips once more, and write folders to hear.

        Arguments
        ---------
        folder : pathlib.Path
            Of the audit.
        examples : dict
            Name of each folder to ``item``, ``label``, ``decision`` and
            ``against``, the class that the decision is compared with (None
            for all others).

        Returns
        -------
        callable
            Work of a job on these examples.
        """
        names = list(examples)

        def work(items):
            """Write some of them."""
            place = folder / EXAMPLES
            place.mkdir(exist_ok=True)
            for i in items:
                self._write(place / names[i], examples[names[i]])
            return Chunk([{"name": names[i]} for i in items])

        return work

    def _write(self, place, example):
        """Write the folder of an example."""
        clip = self.corpus[self.places[example["item"]]]
        asked = {}
        if example["against"] is not None:
            asked["target"] = example["decision"]
            asked["against"] = example["against"]
        found = self._explain(self._read(clip), **asked)
        found.files = [clip.id]
        save_clip(place, found, example["label"])


class _ClassesOf(Sequence):
    """Label of each clip that is looked at, none of which is kept."""

    def __init__(self, corpus, places):
        self._corpus, self._places = corpus, places

    def __len__(self):
        return len(self._places)

    def __getitem__(self, item):
        return self._corpus.label(self._places[item])


def _region(columns):
    """Start and end of the event in seconds, where the user says them."""
    try:
        start, end = (float(columns[name]) for name in REGION)
    except (KeyError, TypeError, ValueError):
        return None
    return (start, end) if 0 <= start < end < math.inf else None


def _facts(found):
    """Decision, probabilities, verdict and metrics of an explanation."""
    return {
        "decision": found.labels[0],
        "right": None,
        "p": float(found.p_before[0]),
        "p_in": float(found.p_inside[0]),
        "p_out": float(found.p_outside[0]),
        "verdict": found.verdicts[0],
        **found.metrics[0],
        "notes": "; ".join(found.notes[0]) or None,
    }


def _in_words(clip, error):
    """What went wrong with a clip, without a path of this machine."""
    text = first_line(error)
    if not isinstance(error, (LMACError, OSError)):
        text = f"{type(error).__name__}: {text}"
    text = text.replace(str(clip.place), clip.id)
    return portable(text if clip.id in text else f"{clip.id}: {text}")
