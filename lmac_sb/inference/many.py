"""Explain many sounds into one folder, whatever is wrong with some of them."""

import json
import os
import sys
import time
from collections import deque

from lmac_sb.inference.clip_facts import answer_of, most_probable, read_facts
from lmac_sb.inference.clip_folder import (
    FACTS,
    folder_names,
    write_clip,
)
from lmac_sb.inference.collection import Busy, clip_folders
from lmac_sb.inference.order import Outcome, failure
from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.inference.turns import Turns
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import (
    is_first,
    leave,
    run_name,
    wait_for,
    wait_for_others,
)
from lmac_sb.jobs.threads import crew
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import naming, write_json

__all__ = ["explain_sounds", "share_sounds"]

_WAIT_S = 0.5  # for another process, until it is asked again
_AHEAD = 8  # sounds for each thread, which others need not wait for
_NAMES = "names.json"  # of clips' folders, in the folder of a run


def explain_sounds(
    interpreter, sounds, collection, order, names=None, at_once=1
):
    """Explain sounds; one's errors do not end the others.

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
    at_once : int
        How many are read, explained and written at the same time, by as many
        threads.

    Yields
    ------
    lmac_sb.inference.order.Outcome
        Of each sound, in their order; the last one if the disk is full.

    Example
    -------
    >>> from lmac_sb.inference.collection import Collection
    >>> from lmac_sb.inference.order import Order
    >>> from lmac_sb.inference.sounds import Sounds
    >>> how = {"threshold": None, "refine_steps": None, "unrefined": False}
    >>> order = Order({}, how, {})
    >>> folder = Collection(getfixture("tmp_path") / "explained")
    >>> sounds = Sounds([str(path)])
    >>> for outcome in explain_sounds(interpreter, sounds, folder, order):
    ...     outcome.results[0]["kept"], outcome.error
    (False, None)
    """
    turns = Turns(interpreter, at_once)

    def work(sound, name):
        """Explain one of them, in any thread."""
        try:
            task = order.task(sound, interpreter, name)
            return _explain(turns, sound, task, collection, order)
        except Busy:
            raise
        except Exception as error:
            # Whatever is wrong with one sound, the others are not to blame.
            return failure(os.fspath(sound.place), error)

    fresh = _named(sounds, names, collection)
    waiting, running = deque(), deque()
    n_busy = 0  # of those that wait, one after the other
    with crew(at_once) as hands:
        while True:
            while len(running) < (1 if at_once == 1 else _AHEAD * at_once):
                asked = next(fresh, None) or (waiting and waiting.popleft())
                if not asked:
                    break
                sound, name, _ = asked
                running.append((asked, hands.submit(work, sound, name)))
            if not running:
                return
            (sound, name, again), done = running.popleft()
            try:
                outcome = done.result()
            except Busy as busy:
                waiting.append((sound, name, True))
                n_busy += again
                left = len(waiting) + len(running)
                if n_busy == left and is_first():
                    print(
                        f"another process is at {busy}: waiting",
                        file=sys.stderr,
                    )
                if n_busy >= left:
                    time.sleep(_WAIT_S)
                continue
            n_busy = 0
            yield outcome
            if outcome.is_full:
                return


def _named(sounds, names, collection):
    """Sounds, the names of their folders, and that nobody waits for them yet.

    The names are settled in the sounds' order, whichever is written first.
    """
    for number, sound in enumerate(sounds):
        if names is None:
            (name,) = collection.plan([sound])
        else:
            name = names[number]
        yield sound, name, False


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
    >>> how = {"threshold": None, "refine_steps": None, "unrefined": False}
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


def _explain(turns, sound, task, collection, order):
    """Explain a sound, unless it is explained already."""
    names = []
    with collection.clip(task) as (place, part):
        if part is not None:
            for clip in turns.explanations(order, sound.place):
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
