"""Several things at once in one process, by threads.

The libraries that read, compute and write leave Python to others meanwhile,
so that threads get nearly as much done as processes, and share a model.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["crew", "n_at_once", "stop_if_interrupted"]

_MOST = 4  # threads; more of them wait for Python
_mine = threading.local()


def n_at_once():
    """How many things to do at once: as many as torch would take threads for.

    That is as many as there are cores, or what OMP_NUM_THREADS says.

    Returns
    -------
    int
        From 1 to 4.

    Example
    -------
    >>> 1 <= n_at_once() <= 4
    True
    """
    import torch

    return min(torch.get_num_threads(), _MOST)


@contextmanager
def crew(n_threads):
    """Threads that do what they are given, each in one thread of torch.

    Arguments
    ---------
    n_threads : int
        How many. One is this thread itself, which does it at once.

    Returns
    -------
    context manager
        Gives an object whose method `submit` takes a function and its
        arguments, and returns a `concurrent.futures.Future`. At its end what
        has not begun is given up, and what has begun is waited for. After an
        error or Ctrl-C that is interrupted, see `stop_if_interrupted`.

    Example
    -------
    >>> with crew(2) as hands:
    ...     futures = [hands.submit(pow, 2, i) for i in range(4)]
    ...     [future.result() for future in futures]
    [1, 2, 4, 8]
    """
    if n_threads == 1:
        yield _ThisThread()
        return
    hands = _Hands(n_threads)
    try:
        yield hands
    except BaseException:
        hands.interrupt()
        raise
    finally:
        hands.end()


class _ThisThread:
    """Does at once what it is given."""

    def submit(self, function, *args):
        """Call it; only Ctrl-C and the like end more than this call."""
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _Hands:
    """Threads that can be stopped."""

    def __init__(self, n_threads):
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(n_threads, initializer=self._begin)

    def _begin(self):
        """Be one of the threads, which computes alone."""
        import torch

        # It asks each of Python's threads anew.
        torch.set_num_threads(1)
        _mine.stopped = self._stopped

    def submit(self, function, *args):
        """Have a thread call it, as soon as one is free."""
        return self._pool.submit(function, *args)

    def interrupt(self):
        """Begin nothing more, and stop those that ask whether to go on."""
        self._stopped.set()

    def end(self):
        """Begin nothing more, and wait for what is being done."""
        self._pool.shutdown(cancel_futures=True)


def stop_if_interrupted():
    """Raise KeyboardInterrupt in a thread of a crew that was interrupted.

    Python tells of Ctrl-C in the main thread alone, so what takes long asks
    here from time to time. It cannot be told from outside: libsndfile calls
    Python, and nothing may be raised there.

    Example
    -------
    >>> stop_if_interrupted()
    """
    stopped = getattr(_mine, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise KeyboardInterrupt
