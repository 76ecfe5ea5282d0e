"""Several things at once in one process, by threads.

The libraries that read, compute and write leave Python to others meanwhile,
so that threads get nearly as much done as processes, and share a model.
"""

import ctypes
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["crew", "n_at_once"]

_MOST = 4  # threads; more of them wait for Python


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
        error or Ctrl-C that is interrupted, as if Ctrl-C had been meant for
        it.

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
    """Threads, of which it is known which are at work."""

    def __init__(self, n_threads):
        self._pool = ThreadPoolExecutor(n_threads, initializer=_be_one_thread)
        self._busy, self._lock = set(), threading.Lock()

    def submit(self, function, *args):
        """Have a thread call it, as soon as one is free."""
        return self._pool.submit(self._do, function, *args)

    def _do(self, function, *args):
        """Call it in a thread."""
        me = threading.get_ident()
        with self._lock:
            self._busy.add(me)
        try:
            return function(*args)
        finally:
            with self._lock:
                self._busy.discard(me)

    def interrupt(self):
        """Begin nothing more, and raise KeyboardInterrupt where work is done.

        It is raised as soon as that is back from torch or a file, so that
        what is half written goes as it does in the main thread.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        with self._lock:
            for thread in self._busy:
                raise_in(
                    ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)
                )

    def end(self):
        """Begin nothing more, and wait for what is being done."""
        self._pool.shutdown(cancel_futures=True)


def _be_one_thread():
    """Compute in one thread; torch asks each of Python's threads anew."""
    import torch

    torch.set_num_threads(1)
