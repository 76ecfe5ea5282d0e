"""From what the page is asked to what it shows: no markup, no Gradio."""

import importlib.util
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lmac_sb.data.decode import Recording
from lmac_sb.inference.by_method import by_method
from lmac_sb.inference.clip_folder import UNREFINED, folder_names
from lmac_sb.methods.gradients import ATTRIBUTIONS, OF_CAPTUM
from lmac_sb.metrics.shape import mask_area
from lmac_sb.pages.report import write_report
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line

__all__ = [
    "MOST_STEPS",
    "SLOW",
    "Limits",
    "Result",
    "Wish",
    "answer",
    "check_sound",
    "folder_for",
    "offered",
    "sentence",
    "zipped",
]

MOST_STEPS = 50
OWN = "own"  # folder of the model's own explanation
TRIVIAL = ("loudest", "random")  # that know nothing of the classifier
# Hundreds of passes of the classifier.
SLOW = ("integrated_gradients", "occlusion")
INSTALL_CAPTUM = 'pip install "lmac-sb[eval]"'
# Of a path, all but its last name.
_FOLDERS = re.compile(
    r"(?<![\w.:/\\])(?:[A-Za-z]:)?(?:[/\\][^/\\\s:'\"]+)+[/\\]"
)


class Limits(NamedTuple):
    """The largest sound that is taken.

    Arguments
    ---------
    mb : float
        Megabytes of the file.
    seconds : float
        Length of the sound.

    Example
    -------
    >>> Limits(mb=50, seconds=600).n_bytes
    50000000
    """

    mb: float
    seconds: float

    @property
    def n_bytes(self):
        """Bytes of the file."""
        return int(self.mb * 1e6)


@dataclass(frozen=True)
class Wish:
    """What a page is asked.

    Arguments
    ---------
    sound : pathlib.Path
        The file.
    target : int or None
        Class to explain; None for the decision.
    against : int, str or None
        What it is compared with, see
        `lmac_sb.LMACInterpreter.explain_file`.
    steps : int
        Gradient steps.
    methods : tuple of str
        Others to compare with, from `offered`.

    Example
    -------
    >>> Wish(Path("dog.wav"), steps=5).target is None
    True
    """

    sound: Path
    target: Any = None
    against: Any = None
    steps: int = 0
    methods: tuple = ()


class Result(NamedTuple):
    """What one method answers.

    Arguments
    ---------
    title : str
        The method, for people.
    explanation : lmac_sb.inference.explanation.AudioExplanation
        None if the method failed.
    folder : pathlib.Path
        Where it was saved; None if the method failed.
    error : str
        Why it failed.

    Example
    -------
    >>> Result("GradCAM", error="found a classifier that hears sound").folder
    """

    title: str
    explanation: Any = None
    folder: Any = None
    error: str = ""

    @property
    def notes(self):
        """What else is to be known of the explanation."""
        return [] if self.explanation is None else self.explanation.notes[0]


def offered(interpreter):
    """Methods that need no training, and what keeps them from this model.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        The model.

    Returns
    -------
    list of tuple
        Name and "", or the name and what is missing.

    Example
    -------
    >>> dict(offered(interpreter))["loudest"]
    ''
    """
    has_captum = importlib.util.find_spec("captum") is not None
    hears_sound = interpreter.explainer.features.IS_SOUND
    found = []
    for name in (*ATTRIBUTIONS, *TRIVIAL):
        missing = ""
        if name in OF_CAPTUM and not has_captum:
            missing = f"needs captum: {INSTALL_CAPTUM}"
        elif "gradcam" in name and hears_sound:
            missing = "needs a classifier on a spectrogram"
        found.append((name, missing))
    return found


def check_sound(path, limits):
    """Refuse what is no sound, or too much of it.

    The file is decoded as far as is allowed, since a header may promise
    anything.

    Arguments
    ---------
    path : str or Path
        The file.
    limits : Limits
        The largest that is taken.

    Raises
    ------
    LMACError
        Says what was found, and what is expected.

    Example
    -------
    >>> check_sound(path, Limits(mb=1, seconds=0.5))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: dog.wav: longer than 0.5 s, expected at most that; ...
    """
    name = os.path.basename(path)
    size = os.path.getsize(path)
    if size == 0:
        raise LMACError(f"{name}: found an empty file, expected a sound")
    if size > limits.n_bytes:
        raise LMACError(
            f"{name}: found {size / 1e6:.0f} MB, expected at most "
            f"{limits.mb:g} MB"
        )
    recording = Recording(path)
    for _ in recording.blocks():
        if recording.n_samples > limits.seconds * recording.sample_rate:
            raise LMACError(
                f"{name}: longer than {limits.seconds:g} s, expected at most "
                "that; cut it, or explain the file by the command lmac explain"
            )


def answer(interpreter, wish, folder):
    """Explain a sound by the model's own way, and then by other methods.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        The model.
    wish : Wish
        What is asked.
    folder : pathlib.Path
        Each explanation is saved in a folder of its method in there.

    Yields
    ------
    Result
        One for each method.

    Raises
    ------
    LMACError
        If the sound or the class cannot be used. What is wrong with one of the
        other methods is in its `Result`.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> wish = Wish(path, target=2, methods=("loudest",))
    >>> for result in answer(interpreter, wish, folder):
    ...     print(result.title, result.folder.name)
    decoder own
    loudest loudest
    """
    own = interpreter.explain_file(
        wish.sound,
        wish.target,
        wish.against,
        refine_steps=_steps(wish.steps, interpreter),
        unrefined=interpreter.has_decoder,
    )
    (saved,) = own.save(folder / OWN)
    yield Result(_own_title(interpreter, wish.steps), own, saved)
    if own.unrefined is not None:
        yield Result("decoder", own.unrefined, saved / UNREFINED)
    area = float(mask_area(own.mask.float()))
    for name in wish.methods:
        try:
            other = by_method(interpreter, name, area)
            found = other.explain_file(wish.sound, wish.target, wish.against)
        except (LMACError, RuntimeError, ValueError, TypeError) as error:
            # Classifiers of others fail in many ways; the rest goes on.
            yield Result(name, error=sentence(error))
            continue
        found.notes[0].append(
            f"by {name}: the bins that it ranks highest, as large a share as "
            "the model's own mask keeps"
        )
        (saved,) = found.save(folder / name)
        yield Result(name, found, saved)


def _steps(steps, interpreter):
    """The number of steps, checked."""
    if not 0 <= steps <= MOST_STEPS:
        raise LMACError(
            f"steps: found {steps}, expected a whole number from 0 to "
            f"{MOST_STEPS}"
        )
    return int(steps) if interpreter.explainer.refiner is not None else 0


def _own_title(interpreter, steps):
    """What the model's own way is called."""
    if not interpreter.has_decoder:
        return f"gradient steps ({steps})" if steps else "loud bins (no steps)"
    if interpreter.explainer.refiner is None or not steps:
        return "decoder"
    return f"decoder, then {steps} step{'' if steps == 1 else 's'}"


def folder_for(folder, sound):
    """An empty folder for the explanations of a sound, with its name.

    Arguments
    ---------
    folder : pathlib.Path
        Where it is made.
    sound : str or Path
        The sound's file, whatever its name.

    Returns
    -------
    pathlib.Path

    Example
    -------
    >>> folder_for(getfixture("tmp_path"), "<b>.wav").name
    '_b__explained'
    """
    (name,) = folder_names([f"{Path(sound).stem}_explained"])
    made = folder / name
    made.mkdir()
    return made


def zipped(folder):
    """The explanations of a sound as one file, with a page to look at.

    Arguments
    ---------
    folder : pathlib.Path
        Given to `answer`; gets a ``report.html``.

    Returns
    -------
    pathlib.Path
        An archive beside the folder, which holds it.

    Example
    -------
    >>> folder = folder_for(getfixture("tmp_path"), "dog.wav")
    >>> _ = interpreter.explain_file(path).save(folder / "own")
    >>> zipped(folder).name
    'dog_explained.zip'
    """
    write_report(folder)
    whole = str(folder)
    return Path(shutil.make_archive(whole, "zip", folder.parent, folder.name))


def sentence(error, sound=None):
    """What a visitor is told of an error, without folders of the server.

    Arguments
    ---------
    error : Exception
        Any.
    sound : str or Path
        The sound that it may name.

    Returns
    -------
    str
        One line.

    Example
    -------
    >>> sentence(LMACError("/tmp/a b/c.txt: no audio"), "/tmp/a b/c.txt")
    'c.txt: no audio'
    >>> sentence(LMACError("found none in /home/me/models/yamnet"))
    'found none in yamnet'
    >>> sentence(KeyError("x"))
    "KeyError: 'x'"
    """
    text = str(error)
    if sound is not None:
        text = text.replace(f"{Path(sound).parent}{os.sep}", "")
    text = first_line(_FOLDERS.sub("", text) or type(error).__name__)
    if not isinstance(error, LMACError):
        text = f"{type(error).__name__}: {text}"
    return text
