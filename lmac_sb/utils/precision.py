"""In what precision modules are made."""

import contextlib

import torch

__all__ = ["single_precision"]


@contextlib.contextmanager
def single_precision():
    """Context, or decorator, in which modules are made in single precision.

    So they are also where somebody has called
    ``torch.set_default_dtype(torch.float64)``; afterwards that holds again.

    Example
    -------
    >>> torch.set_default_dtype(torch.float64)
    >>> with single_precision():
    ...     dtype = torch.nn.Linear(1, 1).weight.dtype
    >>> dtype, torch.get_default_dtype()
    (torch.float32, torch.float64)
    >>> torch.set_default_dtype(torch.float32)
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
