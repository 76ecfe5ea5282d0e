"""Explain many sounds into one folder, whatever is wrong with some of them."""

import json
import os
import sys
import time
from collections import deque
from itertools import chain

from lmac_sb.inference.clip_facts import answer_of, most_probable, read_facts
from lmac_sb.inference.clip_folder import (
    FACTS,
    folder_names,
    write_clip,
)
from lmac_sb.inference.collection import Busy, clip_folders
from lmac_sb.inference.order import Outcome, failure
from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import (
    is_first,
    leave,
    run_name,
    wait_for,
    wait_for_others,
)
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import naming, write_json

__all__ = ["explain_sounds", "share_sounds"]

_WAIT_S = 0.5  # for another process, until it is asked again
_NAMES = "names.json"  # of clips' folders, in the folder of a run


def explain_sounds(interpreter, sounds, collection, order, names=None):
    """Explain sounds one after the other; one's errors do not end the others.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains them.
    sounds : sequence of lmac_sb.inference.sounds.Sound
        Those that another process explains at the moment come last.
    collection : lmac_sb.inference.collection.Collection
        Where they are written to.
    order : lmac_sb.inference.order.Order
        What is wanted.
    names : list of str
        Of their folders, if they are settled.

    Yields
    ------
    lmac_sb.inference.order.Outcome
        Of each sound; the last one if the disk is full.

    Example
    -------
    >>> from lmac_sb.inference.collection import Collection
    >>> from lmac_sb.inference.order import Order
    >>> from lmac_sb.inference.sounds import Sounds
    >>> how = dict.fromkeys(("threshold", "refine_steps", "unrefined"))
    >>> order = Order({}, how, {})
    >>> folder = Collection(getfixture("tmp_path") / "explained")
    >>> sounds = Sounds([str(path)])
    >>> for outcome in explain_sounds(interpreter, sounds, folder, order):
    ...     outcome.results[0]["kept"], outcome.error
    (False, None)
    """
    waiting, n_busy = deque(), 0
    numbers = chain(range(len(sounds)), _drained(waiting))
    for count, number in enumerate(numbers):
        sound = sounds[number]
        try:
            name = None if names is None else names[number]
            task = order.task(sound, interpreter, name)
            outcome = _explain(interpreter, sound, task, collection, order)
        except Busy as busy:
            waiting.append(number)
            n_busy += count >= len(sounds)  # which were asked for before
            if n_busy == len(waiting) and is_first():
                print(f"another process is at {busy}: waiting", file=sys.stderr)
            if n_busy >= len(waiting):
                time.sleep(_WAIT_S)
            continue
        except Exception as error:
            # Whatever is wrong with one sound, the others are not to blame.
            outcome = failure(os.fspath(sound.place), error)
        n_busy = 0
        yield outcome
        if outcome.is_full:
            return


def _drained(waiting):
    """What waits, as long as something does."""
    while waiting:
        yield waiting.popleft()


def share_sounds(interpreter, sounds, collection, order, tell):
    """Explain sounds by several processes, of which this is one.

    They share the work by a job in the folder, which lasts as long as the run.
    The first process settles the names of the clips' folders, so that they
    are the same whoever explains them, and tells what became of the sounds.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains them.
    sounds : sequence of lmac_sb.inference.sounds.Sound
        The same ones in all processes.
    collection : lmac_sb.inference.collection.Collection
        Where they are written to.
    order : lmac_sb.inference.order.Order
        What is wanted.
    tell : callable
        In the first process, called with the `Outcome` of each sound, in
        their order.

    Raises
    ------
    LMACError
        If the disk is full.

    Example
    -------
    >>> from lmac_sb.inference.collection import Collection
    >>> from lmac_sb.inference.order import Order
    >>> from lmac_sb.inference.sounds import Sounds
    >>> how = dict.fromkeys(("threshold", "refine_steps", "unrefined"))
    >>> folder = Collection(getfixture("tmp_path") / "explained")
    >>> sounds, order = Sounds([str(path)]), Order({}, how, {})
    >>> told = []
    >>> share_sounds(interpreter, sounds, folder, order, told.append)
    >>> [outcome.error for outcome in told]
    [None]
    >>> [path.name for path in folder.folder.iterdir()]
    ['dog']
    """
    run = run_name()

    def work(items):
        """Explain some of them, and note what became of them."""
        rows = []
        for i in items:
            (outcome,) = explain_sounds(
                interpreter, [sounds[i]], collection, order, [names[i]]
            )
            if outcome.is_full:
                raise LMACError(
                    f"{outcome.error}; free some space, then start again"
                )
            results = json.dumps(outcome.results)
            rows.append({**outcome._asdict(), "results": results})
        return Chunk(rows)

    def progress(index):
        """Tell what became of a chunk."""
        for row in job.rows(index):
            results = json.loads(row["results"])
            tell(Outcome(**{**row, "results": results}))

    if is_first():
        names = list(collection.plan(sounds))
        with collection.leading(run) as folder:
            write_json(folder / _NAMES, names)
            job = Job(folder, len(sounds), {"run": run})
            job.run(work, progress)
            wait_for_others(folder)
    else:
        folder = collection.run_folder(run)
        wait_for((folder / _NAMES).exists)
        names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
        collection.follow(names)
        Job(folder, len(sounds), {"run": run}).run(work)
        leave(folder)


def _explain(interpreter, sound, task, collection, order):
    """Explain a sound, unless it is explained already."""
    names = []
    with collection.clip(task) as (place, part):
        if part is not None:
            for clip in order.explanations(sound.place, interpreter):
                # Of several classes, each has a folder of its name.
                labels = clip.labels if clip.by_class else []
                names += folder_names(labels, names)
                inner = [part / name for name in names[-len(clip) :]] or [part]
                with naming(place):
                    for i, folder in enumerate(inner):
                        name = place.name if folder == part else folder.name
                        write_clip(
                            folder,
                            clip[i],
                            name,
                            truth=sound.label,
                            audio_format=order.audio_format,
                            more={"asked": task.asked},
                        )
    folders = [place / name for name in names] or clip_folders(place)
    results = [_result(task.file, folder, part is None) for folder in folders]
    return Outcome(task.file, results)


def _result(file, folder, kept):
    """What is reported of an explanation, as it is written."""
    info = read_facts(folder / FACTS)
    answer = answer_of(info)
    p, p_in, p_out = (answer[name] for name in PROBABILITIES)
    whole = {
        "start": 0.0,
        "end": info["n_samples"] / info["sample_rate"],
        "decision": answer["name"],
        "verdict": info["verdict"],
        **{name: answer[name] for name in PROBABILITIES},
    }
    return {
        "file": file,
        "folder": str(folder),
        "kept": kept,
        "class": answer["name"],
        "parents": info.get("parents", ""),
        "p": p,
        "p_inside": p_in,
        "p_outside": p_out,
        "verdict": info["verdict"],
        "stable": info["stable"],
        "agreement": info["agreement"],
        "top": [list(pair) for pair in most_probable(info)],
        "refine_steps": info["refine_steps"],
        "second_look": info.get("second_look", False),
        "windows": info.get("windows", [whole]),
        "notes": info.get("notes", []),
    }
