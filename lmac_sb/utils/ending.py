"""How a program ends that is asked to."""

import os
import signal
import sys
import threading
from contextlib import contextmanager

__all__ = ["ends_in_order"]


@contextmanager
def ends_in_order():
    """Within `with`, SIGTERM ends the program as Ctrl-C does.

    So nothing half-made and no lock is left. A handler that somebody has set
    stays, and so do processes of a launcher, which may wait for each other
    where no handler is run.

    Returns
    -------
    context manager
        It says ``stopped`` where it was asked to.

    Example
    -------
    >>> with ends_in_order():
    ...     signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    False
    >>> signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    True
    """
    usual = signal.SIG_DFL
    lone = "RANK" not in os.environ
    main = threading.current_thread() is threading.main_thread()
    if not (lone and main and signal.getsignal(signal.SIGTERM) is usual):
        yield
        return
    owner, asked = os.getpid(), []

    def leave(number, frame):
        """End as `sys.exit` does; a process that was forked just ends."""
        if os.getpid() != owner:
            signal.signal(number, usual)
            signal.raise_signal(number)
        asked.append(number)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, usual)
        if asked:
            print("stopped", file=sys.stderr)
