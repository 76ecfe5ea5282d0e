"""What is wanted of sounds, and what became of them."""

from typing import NamedTuple

from lmac_sb.inference.collection import Task
from lmac_sb.utils.errors import LMACError, in_words, is_full
from lmac_sb.utils.io import first_line

__all__ = ["Order", "Outcome", "failure"]


class Order(NamedTuple):
    """What is wanted of each sound.

    Arguments
    ---------
    asked : dict
        `target`, or `targets` and `min_p`, and `against`, see
        `lmac_sb.LMACInterpreter.explain_file`.
    how : dict
        Its options `threshold`, `refine_steps`, `unrefined` and `stable`; and
        `second_look`, if there is one.
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

    def options(self, interpreter):
        """All that is asked, and the steps that the model takes for it."""
        how = dict(self.how)
        if how["refine_steps"] is None:
            how["refine_steps"] = interpreter.explainer.refine_steps
        return {
            **self.asked,
            **how,
            **self.listened,
            "format": self.audio_format,
        }

    def task(self, sound, interpreter, planned=None):
        """What a sound has to become, and the name of its folder if settled."""
        options = self.options(interpreter)
        facts = {x: options.pop(x) for x in ("threshold", "refine_steps")}
        task = Task.of(
            sound.place, interpreter, options, label=sound.label, **facts
        )
        return task._replace(name=sound.name, planned=planned)

    def explanations(self, file, interpreter):
        """Explanations of a file, those of several classes in groups."""
        if "targets" in self.asked:
            yield from interpreter.explain_classes(
                file, **self.asked, **self.how
            )
        else:
            yield interpreter.explain_file(file, **self.asked, **self.how)


class Outcome(NamedTuple):
    """What became of a sound.

    Arguments
    ---------
    file : str
        Where it is, or what it is called.
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


def failure(file, error):
    """What is said of a file that could not be explained.

    Arguments
    ---------
    file : str
        The file.
    error : Exception
        What was raised.

    Returns
    -------
    Outcome

    Example
    -------
    >>> failure("x.wav", KeyError("y")).error
    "x.wav: KeyError: 'y'"
    """
    text = in_words(error)
    if not isinstance(error, (LMACError, OSError)):
        text = f"{type(error).__name__}: {first_line(error)}"
    if file not in text:
        text = f"{file}: {text}"
    return Outcome(file, [], text, is_full(error))
