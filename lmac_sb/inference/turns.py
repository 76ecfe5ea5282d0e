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

__all__ = ["Turns"]


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
        own = interpreter.listener is None
        own = own and torch.device(interpreter.device).type == "cpu"
        self.n_models = n_threads if own else 1
        models = [interpreter]
        models += [_twin(interpreter) for _ in range(self.n_models - 1)]
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
                clip = next(clips, None)
            if clip is None:
                return
            yield clip


def _twin(interpreter):
    """Another interpreter with the same tensors, and the rest for itself."""
    _ = interpreter.made  # computed once for both
    parts = (interpreter, *vars(interpreter.hparams).values())
    tensors = [
        value
        for part in parts
        if isinstance(part, torch.nn.Module)
        for value in (*part.parameters(), *part.buffers())
    ]
    return copy.deepcopy(interpreter, {id(value): value for value in tensors})
