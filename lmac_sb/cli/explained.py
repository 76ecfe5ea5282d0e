"""What `lmac explain` prints of the results."""

import json
import math

from lmac_sb.cli.said import printable
from lmac_sb.utils.console import Loudness, get_loudness, say

__all__ = ["Printed", "is_good", "line", "print_explained"]

MOST_LINES = 30  # of results, unless more is wanted


def is_good(result):
    """Whether an explanation is faithful, and stable as far as is known.

    Arguments
    ---------
    result : dict
        Row of a result, from `lmac_sb.inference.many.explain_files`.

    Returns
    -------
    bool

    Example
    -------
    >>> is_good({"verdict": "faithful", "stable": None})
    True
    """
    return result["verdict"] == "faithful" and result["stable"] is not False


class Printed:
    """Prints a line for each result as it comes, until they are many.

    Example
    -------
    >>> printed = Printed()
    >>> printed.finish()
    """

    def __init__(self):
        self.n_lines = self.n_more = 0

    def add(self, result):
        """Print the line of a result, or count it."""
        text = line(result)
        self.n_lines += len(text.splitlines())
        many = self.n_lines > MOST_LINES
        if many and get_loudness() < Loudness.VERBOSE:
            self.n_more += 1
        else:
            say(text)

    def finish(self):
        """Say how many were not printed."""
        if self.n_more:
            say(f"... and {self.n_more} more (--verbose prints all)")


def print_explained(done, failed, as_json):
    """Print what is said after the last file: all of it, or its summary.

    Arguments
    ---------
    done : list of dict
        Rows of the results.
    failed : list of dict
        File and error of each that failed.
    as_json : bool
        Whether to print it all, for a program.

    Example
    -------
    >>> print_explained([], [{"file": "x", "error": "x: empty"}], False)
    1 of 1 files failed:
      x: empty
    """
    counts = _counts(done)
    if as_json:
        content = {"results": done, "errors": failed, "verdicts": counts}
        # Escaped, which suits any terminal and any file name.
        print(json.dumps(content, indent=1))
        return
    if len(done) > 1:
        found = "; ".join(f"{n} {name}" for name, n in counts.items())
        print(f"verdicts: {found}")
    if failed:
        n_files = len({row["file"] for row in [*done, *failed]})
        print(f"{len(failed)} of {n_files} files failed:")
        for row in failed:
            print(f"  {printable(row['error'])}")


def _counts(done):
    """How many explanations got each verdict, the good ones first."""
    from lmac_sb.metrics.verdict import VERDICTS

    found = [row["verdict"] for row in done]
    counts = {name: found.count(name) for name in reversed(VERDICTS)}
    counts["not stable"] = [row["stable"] for row in done].count(False)
    return {name: n for name, n in counts.items() if n}


def line(result):
    """The result of one file on one line, and its notes below.

    Arguments
    ---------
    result : dict
        Row of a result.

    Returns
    -------
    str
    """
    # Others are to be seen among hundreds of lines.
    mark = "" if is_good(result) else "!! "
    stable = {None: "", True: ", stable", False: ", not stable"}
    parents = f" ({result['parents']})" if result["parents"] else ""
    p, p_in, p_out = (
        math.nan if result[name] is None else result[name]
        for name in ("p", "p_inside", "p_outside")
    )
    kept = ", kept from an earlier call" if result["kept"] else ""
    line = printable(
        f"{result['file']}: {result['class']}{parents}, p {p:.3f}, "
        f"inside {p_in:.3f}, outside {p_out:.3f}; "
        f"{mark}{result['verdict']}{stable[result['stable']]} -> "
        f"{result['folder']}{kept}"
    )
    notes = [f"  note: {printable(note)}" for note in result["notes"]]
    return "\n".join([line, *notes])
