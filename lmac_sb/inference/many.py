"""Explain many files into one folder, whatever is wrong with some of them."""

import sys
import time
from collections import deque
from typing import NamedTuple

from lmac_sb.inference.clip_facts import answer_of, read_facts
from lmac_sb.inference.clip_folder import (
    FACTS,
    folder_names,
    write_clip,
)
from lmac_sb.inference.collection import Busy, Task, clip_folders
from lmac_sb.inference.spectra import PROBABILITIES
from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.io import first_line, naming

__all__ = ["Order", "Outcome", "explain_files"]

_WAIT_S = 0.5  # for another process, until it is asked again
_N_TOP = 5  # classes that are reported


class Order(NamedTuple):
    """What is wanted of each file.

    Arguments
    ---------
    asked : dict
        `target`, or `targets` and `min_p`, and `against`, see
        `lmac_sb.LMACInterpreter.explain_file`.
    how : dict
        Its options `threshold`, `refine_steps`, `unrefined` and `stable`.
    listened : dict
        Options of the listener that change its answers.
    audio_format : str
        ``wav`` or ``flac``.

    Example
    -------
    >>> order = Order({"target": "dog"}, {"threshold": 0.5}, {})
    >>> (explanation,) = order.explanations(path, interpreter)
    >>> explanation.labels
    ['dog']
    """

    asked: dict
    how: dict
    listened: dict
    audio_format: str = "wav"

    def task(self, file, interpreter):
        """What a file has to become."""
        how = dict(self.how)
        steps = how.pop("refine_steps")
        if steps is None:
            steps = interpreter.explainer.refine_steps
        threshold = how.pop("threshold")
        options = {**self.asked, **how, **self.listened}
        options["format"] = self.audio_format
        return Task.of(
            file, interpreter, options, threshold=threshold, refine_steps=steps
        )

    def explanations(self, file, interpreter):
        """Explanations of a file, those of several classes in groups."""
        if "targets" in self.asked:
            yield from interpreter.explain_classes(
                file, **self.asked, **self.how
            )
        else:
            yield interpreter.explain_file(file, **self.asked, **self.how)


class Outcome(NamedTuple):
    """What became of a file.

    Arguments
    ---------
    file : str
        The file.
    results : list of dict
        What is to be reported of each explanation.
    error : str or None
        What went wrong, in words that name the file.
    is_full : bool
        Whether that is a full disk, on which nothing else can be written.

    Example
    -------
    >>> Outcome("dog.wav", [], "dog.wav: no such audio file").is_full
    False
    """

    file: str
    results: list
    error: str | None = None
    is_full: bool = False


def explain_files(interpreter, files, collection, order):
    """Explain files one after the other; errors of one do not end the others.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains them.
    files : list of str
        Those that another process explains at the moment come last.
    collection : lmac_sb.inference.collection.Collection
        Where they are written to.
    order : Order
        What is wanted.

    Yields
    ------
    Outcome
        Of each file; the last one if the disk is full.

    Example
    -------
    >>> from lmac_sb.inference.collection import Collection
    >>> how = dict.fromkeys(("threshold", "refine_steps", "unrefined"))
    >>> order = Order({}, how, {})
    >>> folder = Collection(getfixture("tmp_path") / "explained")
    >>> for outcome in explain_files(interpreter, [path], folder, order):
    ...     outcome.results[0]["kept"], outcome.error
    (False, None)
    """
    queue, n_busy = deque(files), 0
    while queue:
        file = queue.popleft()
        try:
            outcome = _explain(interpreter, file, collection, order)
        except Busy as busy:
            queue.append(file)
            n_busy += 1
            if n_busy == len(queue):
                print(f"another process is at {busy}: waiting", file=sys.stderr)
            if n_busy >= len(queue):
                time.sleep(_WAIT_S)
            continue
        except Exception as error:
            # Whatever is wrong with one file, the others are not to blame.
            outcome = _failure(file, error)
        n_busy = 0
        yield outcome
        if outcome.is_full:
            return


def _explain(interpreter, file, collection, order):
    """Explain a file, unless it is explained already."""
    task = order.task(file, interpreter)
    names = []
    with collection.clip(task) as (place, part):
        if part is not None:
            for clip in order.explanations(file, interpreter):
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
                            audio_format=order.audio_format,
                            more={"asked": task.asked},
                        )
    folders = [place / name for name in names] or clip_folders(place)
    results = [_result(file, folder, part is None) for folder in folders]
    return Outcome(file, results)


def _failure(file, error):
    """What is said of a file that could not be explained."""
    text = str(error)
    if not isinstance(error, (LMACError, OSError)):
        text = f"{type(error).__name__}: {first_line(error)}"
    if str(file) not in text:
        text = f"{file}: {text}"
    return Outcome(file, [], text, is_full(error))


def _result(file, folder, kept):
    """What is reported of an explanation, as it is written."""
    info = read_facts(folder / FACTS)
    answer = answer_of(info)
    p, p_in, p_out = (answer[name] for name in PROBABILITIES)
    known = zip(info["classes"], info["p"])
    best = sorted(known, key=lambda pair: -(pair[1] or 0))
    whole = {
        "start": 0.0,
        "end": info["n_samples"] / info["sample_rate"],
        "decision": answer["name"],
        "verdict": info["verdict"],
        **{name: answer[name] for name in PROBABILITIES},
    }
    return {
        "file": str(file),
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
        "top": [list(pair) for pair in best[:_N_TOP]],
        "refine_steps": info["refine_steps"],
        "windows": info.get("windows", [whole]),
        "notes": info.get("notes", []),
    }
