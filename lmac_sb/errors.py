"""The one exception for a user's mistake.

Authors
 * The lmac-sb authors 2026
"""

import functools
import sys

__all__ = ["LMACError", "exit_on_user_error"]


class LMACError(ValueError):
    """Bad input, told in one message.

    The message names the file or the key, says what was found and what is
    needed. Scripts print it without a traceback (see `exit_on_user_error`).

    Example
    -------
    >>> raise LMACError("fold 7: found in train_fold_nums, folds are 1 to 5")
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: fold 7: found in train_fold_nums, folds are 1 to 5
    """


def exit_on_user_error(main):
    """Decorate a script's `main`, so that an `LMACError` ends it in one line.

    Arguments
    ---------
    main : callable
        The script's entry point.

    Returns
    -------
    callable
        The same function; on `LMACError` it prints ``error: <message>`` to
        the standard error and exits with code 1.

    Example
    -------
    >>> @exit_on_user_error
    ... def main():
    ...     raise LMACError("x.wav: empty file")
    >>> main()
    Traceback (most recent call last):
    ...
    SystemExit: 1
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except LMACError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)

    return wrapper
