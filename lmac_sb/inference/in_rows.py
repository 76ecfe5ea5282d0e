"""Explain a corpus into tables, and into shards of what is to be heard.

A sound gets a row for each class that is explained, or one with what went
wrong. In a row are

- ``id``, ``label`` and ``column:<name>``, the user's own;
- ``class``, what is explained, its probabilities ``p``, ``p_in`` and
  ``p_out`` in the clip, in what the explanation keeps and in the rest, and
  the ``verdict``; ``decision``, the most probable class, and the most
  probable ones in ``top`` and ``top_p``;
- the metrics by their names, such as ``AI`` and ``area``; ``stable`` and
  ``agreement:<check>``; ``notes``;
- ``n_samples``, ``sample_rate``, ``threshold``, ``refine_steps`` and
  ``second_look``; of long clips ``windows:<name>``, lists with a value a
  window;
- ``shard`` and ``sample``, where the sounds are, see
  `lmac_sb.inference.packed`;
- ``error``, else null.
"""

import os
from pathlib import Path

from lmac_sb.inference.clip_facts import WINDOW, answer_of, most_probable
from lmac_sb.inference.clip_folder import facts_of, folder_names, write_data
from lmac_sb.inference.order import Outcome, failure
from lmac_sb.inference.packed import pack
from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.inference.turns import Turns
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.models.weights import weights_sha256
from lmac_sb.utils.errors import is_full
from lmac_sb.utils.io import part_folder

__all__ = ["RowWriter", "failed_row", "outcomes_of", "row_of"]


class RowWriter:
    """Explains sounds into the folder of a job.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains them.
    sounds : lmac_sb.inference.sounds.Sounds
        All of them.
    order : lmac_sb.inference.order.Order
        What is wanted.
    folder : str or Path
        Of the job.
    shards : bool
        Whether to write sounds and maps, too.
    at_once : int
        How many threads are going to call `work`.

    Attributes
    ----------
    job : lmac_sb.jobs.job.Job
        The job.

    Raises
    ------
    LMACError
        If the folder holds another job.

    Example
    -------
    >>> from lmac_sb.inference.order import Order
    >>> from lmac_sb.inference.sounds import Sounds
    >>> how = {"threshold": None, "refine_steps": None, "unrefined": False}
    >>> folder, sounds = getfixture("tmp_path") / "rows", Sounds([str(path)])
    >>> writer = RowWriter(interpreter, sounds, Order({}, how, {}), folder)
    >>> writer.job.run(writer.work)
    >>> writer.job.frame()["id"].tolist()
    ['dog.wav']
    """

    def __init__(
        self, interpreter, sounds, order, folder, shards=False, at_once=1
    ):
        self.interpreter, self.sounds = interpreter, sounds
        self._turns = Turns(interpreter, at_once)
        self.order, self.shards = order, shards
        made = dict(interpreter.made)
        if made["checksum"] is None:  # it has no weights
            made["checksum"] = weights_sha256(interpreter.explainer)
        identity = {
            "what": "explain",
            "write": "shards" if shards else "rows",
            "model": made,
            "options": order.options(interpreter),
            "sounds": sounds.identity,
        }
        self.job = Job(folder, len(sounds), identity)

    def work(self, items):
        """Rows of some sounds, and what is to be heard of them."""
        rows = []
        if not self.shards:
            for i in items:
                rows += self._rows(self.sounds[i])
            return Chunk(rows)
        return Chunk(rows, self._files(items, rows))

    def _rows(self, sound):
        """Rows of a sound."""
        try:
            return [
                row_of(sound, facts_of(clip[j], sound.label))
                for clip in self._turns.explanations(self.order, sound.place)
                for j in range(len(clip))
            ]
        except Exception as error:
            if is_full(error):
                raise
            return [failed_row(sound, error)]

    def _files(self, items, rows):
        """Files of sounds, one sound after the other; adds their rows."""
        shard = self.job.shard_file(items.start // self.job.chunk)
        shard.parent.mkdir(exist_ok=True)
        for i in items:
            sound = self.sounds[i]
            with part_folder(shard) as folder:
                try:
                    found = self._write(sound, f"{i:08d}", folder)
                except Exception as error:
                    if is_full(error):
                        # Nobody knows the folder that is being filled.
                        raise OSError(
                            error.errno, error.strerror, str(shard)
                        ) from error
                    rows.append(failed_row(sound, error))
                    continue
                for key, facts in found:
                    where = {"shard": shard.name, "sample": key}
                    rows.append({**row_of(sound, facts), **where})
                    yield from pack(folder / key, key)

    def _write(self, sound, key, folder):
        """Write a sound's explanations; returns the key and facts of each."""
        found, names = [], []
        made = {**self.interpreter.made, "date": None}
        options = self.order.options(self.interpreter)
        asked = {"sound": None, "place": sound.id, "options": options}
        for clip in self._turns.explanations(self.order, sound.place):
            labels = clip.labels if clip.by_class else []
            names += folder_names(labels, names)
            for j in range(len(clip)):
                sample, name = key, sound.id
                if labels:
                    sample = f"{key}_{len(found)}"
                    name = f"{sound.id}: {names[len(found)]}"
                write_data(
                    folder / sample,
                    clip[j],
                    name,
                    sound.label,
                    self.order.audio_format,
                    {"made": made, "asked": asked},
                )
                found.append((sample, facts_of(clip[j], sound.label)))
        return found


def row_of(sound, facts):
    """The row of an explanation.

    Arguments
    ---------
    sound : lmac_sb.inference.sounds.Sound
        What is explained.
    facts : dict
        From `lmac_sb.inference.clip_folder.facts_of`.

    Returns
    -------
    dict
        See above.

    Example
    -------
    >>> from lmac_sb.inference.sounds import Sound
    >>> facts = facts_of(interpreter.explain_file(path))
    >>> row = row_of(Sound("a.wav", str(path), "a"), facts)
    >>> row["id"], row["error"], row["class"] == row["decision"]
    ('a.wav', None, True)
    """
    answer = answer_of(facts)
    best = most_probable(facts)
    windows = facts.get("windows", [])
    return {
        **_of(sound),
        "class": answer["name"],
        "decision": best[0][0],
        **{name: answer[name] for name in PROBABILITIES},
        "verdict": facts["verdict"],
        **facts["metrics"],
        "stable": facts["stable"],
        **{f"agreement:{x}": v for x, v in facts["agreement"].items()},
        "error": None,
        "top": [name for name, _ in best],
        "top_p": [p for _, p in best],
        "parents": facts.get("parents"),
        "notes": facts.get("notes", []),
        **{x: facts[x] for x in ("n_samples", "sample_rate")},
        **{x: facts[x] for x in ("threshold", "refine_steps")},
        "second_look": facts.get("second_look", False),
        **{
            f"windows:{name}": [window[name] for window in windows]
            for name in WINDOW
            if windows
        },
        **_columns(sound),
    }


def failed_row(sound, error):
    """The row of a sound that could not be explained.

    Arguments
    ---------
    sound : lmac_sb.inference.sounds.Sound
        The sound.
    error : Exception
        What was raised.

    Returns
    -------
    dict

    Example
    -------
    >>> from lmac_sb.inference.sounds import Sound
    >>> failed_row(Sound("a.wav", "/my/a.wav", "a"), OSError("/my/a.wav: bad"))
    {'id': 'a.wav', 'label': None, 'error': 'a.wav: bad'}
    """
    place = os.fspath(sound.place)
    # Where it lies is another thing on another machine.
    text = failure(place, error).error.replace(place, sound.id)
    return {**_of(sound), "error": text, **_columns(sound)}


def outcomes_of(rows, folder):
    """What is to be reported of the sounds of some rows.

    Arguments
    ---------
    rows : list of dict
        From `row_of` and `failed_row`, as they were written.
    folder : str or Path
        Of the job.

    Yields
    ------
    lmac_sb.inference.order.Outcome
        Of each sound.

    Example
    -------
    >>> rows = [{"id": "a.wav", "error": "a.wav: bad"}]
    >>> [outcome.error for outcome in outcomes_of(rows, "out")]
    ['a.wav: bad']
    """
    results = {}
    for row in rows:
        if row["error"] is not None:
            yield from _finished(results)
            yield Outcome(row["id"], [], row["error"])
            continue
        if row["id"] not in results:
            yield from _finished(results)
        result = _result(row, Path(folder))
        results.setdefault(row["id"], []).append(result)
    yield from _finished(results)


def _finished(results):
    """The outcome of the sound whose results are together, if there is one."""
    for name in list(results):
        yield Outcome(name, results.pop(name))


def _result(row, folder):
    """What is reported of an explanation."""
    shard = row.get("shard")
    prefix = "agreement:"
    return {
        "file": row["id"],
        "folder": shard and f"{folder / 'clips' / shard}: {row['sample']}",
        "kept": False,
        "class": row["class"],
        "parents": row.get("parents") or "",
        "p": row["p"],
        "p_inside": row["p_in"],
        "p_outside": row["p_out"],
        "verdict": row["verdict"],
        "stable": row["stable"],
        "agreement": {
            name[len(prefix) :]: value
            for name, value in row.items()
            if name.startswith(prefix)
        },
        "top": [list(pair) for pair in zip(row["top"], row["top_p"])],
        "refine_steps": row["refine_steps"],
        "second_look": row.get("second_look", False),
        "notes": row["notes"],
    }


def _of(sound):
    """What a row says of the sound itself."""
    return {"id": sound.id, "label": sound.label}


def _columns(sound):
    """The user's own columns."""
    return {f"column:{x}": v for x, v in (sound.columns or {}).items()}
