"""An interpreter for threads that explain at the same time.

A classifier keeps what it is computing, so no two threads call one at once. Of
this package's own models each thread gets a twin, which has the same weights.
Nobody knows what else the classifiers of others keep, and a GPU has one queue:
there the threads take turns, and read and write meanwhile.
"""

import copy
import itertools
import threading

import torch

from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.jobs.threads import stop_if_interrupted

__all__ = ["Turns", "may_have_twins"]

# Packages whose modules keep nothing but what they hold.
_KNOWN = ("lmac_sb", "speechbrain", "torch", "torchaudio")


class Turns:
    """Lets several threads explain.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Explains.
    n_threads : int
        How many there are.

    Attributes
    ----------
    n_models : int
        How many may compute at the same time.

    Example
    -------
    >>> from lmac_sb.inference.order import Order
    >>> turns = Turns(interpreter, 2)
    >>> (clip,) = turns.explanations(Order({"target": "dog"}, {}, {}), path)
    >>> turns.n_models, clip.labels
    (2, ['dog'])
    """

    def __init__(self, interpreter, n_threads):
        self.n_models = n_threads if may_have_twins(interpreter) else 1
        models = [interpreter]
        if n_threads > 1:
            _ = interpreter.made  # computed once for all
            models = [_twin(interpreter) for _ in range(self.n_models)]
        self._places = [(model, threading.Lock()) for model in models]
        self._numbers = itertools.count()
        self._mine = threading.local()

    def explanations(self, order, file):
        """Explanations of a file, computed while no other thread does so.

        Arguments
        ---------
        order : lmac_sb.inference.order.Order
            What is wanted.
        file : str, Path or lmac_sb.data.pieces.Place
            The sound.

        Yields
        ------
        lmac_sb.inference.explanation.AudioExplanation
            As of `Order.explanations`.
        """
        if not hasattr(self._mine, "place"):
            number = next(self._numbers) % len(self._places)
            self._mine.place = self._places[number]
        interpreter, lock = self._mine.place
        clips = order.explanations(file, interpreter)
        while True:
            with lock:
                stop_if_interrupted()
                clip = next(clips, None)
            stop_if_interrupted()
            if clip is None:
                return
            yield clip


def may_have_twins(interpreter):
    """Whether several threads may explain by copies of an interpreter.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Any.

    Returns
    -------
    bool

    Example
    -------
    >>> may_have_twins(interpreter)
    True
    """
    return (
        torch.device(interpreter.device).type == "cpu"
        and interpreter.listener is None
        and all(
            type(module).__module__.partition(".")[0] in _KNOWN
            for module in interpreter.explainer.modules()
        )
    )


class _Twin(LMACInterpreter):
    """One that can be stopped between two windows of a long sound."""

    def explain_short(self, *args):
        """Explain a window."""
        stop_if_interrupted()
        return super().explain_short(*args)

    def heard(self, *args):
        """Hear a window."""
        stop_if_interrupted()
        return super().heard(*args)


def _twin(interpreter):
    """An interpreter for a thread; the tensors are the same.

    So is the rest, but for what computes where several threads do so.
    """
    twin = copy.copy(interpreter)
    # A module's copy has the same dictionary of its parts.
    twin._modules = dict(interpreter._modules)
    if may_have_twins(interpreter):
        explainer = interpreter.explainer
        tensors = (*explainer.parameters(), *explainer.buffers())
        twin.explainer = copy.deepcopy(explainer, {id(x): x for x in tensors})
    twin.__class__ = _Twin
    return twin
