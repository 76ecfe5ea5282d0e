"""What becomes of memory that is not needed any more."""

import contextlib
import ctypes

__all__ = ["keep_memory"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL = (1 << 31) - 1  # bytes: as good as never


def keep_memory():
    """Have the C library keep freed memory for this process's next tensors.

    Else it gives back each large piece, and gets it again for the next layer,
    which takes an eighth of the time of an explanation. The process then keeps
    what it has used at most. Other C libraries than glibc do as they like.

    Example
    -------
    >>> keep_memory()
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _ALL)
        mallopt(_TRIM_THRESHOLD, _ALL)
