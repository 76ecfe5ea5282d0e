"""What `lmac explain` prints of the results."""

import json
import math
from collections import Counter
from tempfile import SpooledTemporaryFile

from lmac_sb.cli.said import printable
from lmac_sb.utils.console import Loudness, get_loudness, say

__all__ = ["Told", "is_good", "line"]

MOST_LINES = 30  # of results, unless more is wanted
_IN_MEMORY = 1 << 20  # bytes of what is printed at the end


def is_good(result):
    """Whether an explanation is faithful, and stable as far as is known.

    Arguments
    ---------
    result : dict
        Of a `lmac_sb.inference.order.Outcome`.

    Returns
    -------
    bool

    Example
    -------
    >>> is_good({"verdict": "faithful", "stable": None})
    True
    """
    return result["verdict"] == "faithful" and result["stable"] is not False


class Told:
    """Tells what became of sounds, and keeps no more than counts in memory.

    Arguments
    ---------
    as_json : bool
        Whether to print it all at the end, for a program.

    Attributes
    ----------
    n_sounds, n_failed, n_good, n_results : int
        How many there were so far.

    Example
    -------
    >>> from lmac_sb.inference.order import Outcome
    >>> with Told(as_json=False) as told:
    ...     told.add(Outcome("x", [], "x: empty"))
    ...     told.finish()
    1 of 1 files failed:
      x: empty
    """

    def __init__(self, as_json):
        self.as_json = as_json
        self.n_sounds = self.n_failed = self.n_results = self.n_good = 0
        self._n_lines = self._n_more = 0
        self._verdicts, self._n_unstable = Counter(), 0
        # Beyond a megabyte they lie on the disk until they are printed.
        self._results, self._errors = (
            SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8")
            for _ in range(2)
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._results.close()
        self._errors.close()

    def add(self, outcome):
        """Note what became of a sound, and print the line of each result."""
        self.n_sounds += 1
        if outcome.error is not None:
            self.n_failed += 1
            error = {"file": outcome.file, "error": outcome.error}
            if outcome.is_full and not self.as_json:
                # The error at the very end says more of it.
                error["error"] = f"{outcome.file}: the disk is full"
            print(json.dumps(error), file=self._errors)
        for result in outcome.results:
            self.n_results += 1
            self.n_good += is_good(result)
            self._verdicts[result["verdict"]] += 1
            self._n_unstable += result["stable"] is False
            if self.as_json:
                print(json.dumps(result), file=self._results)
            else:
                self._print(line(result))

    def _print(self, text):
        """Print the line of a result, or count it."""
        self._n_lines += len(text.splitlines())
        many = self._n_lines > MOST_LINES
        if many and get_loudness() < Loudness.VERBOSE:
            self._n_more += 1
        else:
            say(text)

    def finish(self):
        """Print what is said after the last one: all of it, or a summary."""
        if self._n_more:
            say(f"... and {self._n_more} more (--verbose prints all)")
        counts = self._counts()
        if self.as_json:
            # Escaped, which suits any terminal and any file name.
            print('{\n "results": [', end="")
            self._print_list(self._results)
            print('],\n "errors": [', end="")
            self._print_list(self._errors)
            print(f'],\n "verdicts": {json.dumps(counts)}\n}}')
            return
        if self.n_results > 1:
            found = "; ".join(f"{n} {name}" for name, n in counts.items())
            print(f"verdicts: {found}")
        if self.n_failed:
            print(f"{self.n_failed} of {self.n_sounds} files failed:")
            self._errors.seek(0)
            for text in self._errors:
                print(f"  {printable(json.loads(text)['error'])}")

    def _print_list(self, file):
        """Print lines of JSON as the items of a list."""
        file.seek(0)
        comma = ""
        for text in file:
            print(f"{comma}\n  {text.strip()}", end="")
            comma = ","
        print("\n " if comma else "", end="")

    def _counts(self):
        """How many explanations got each verdict, the good ones first."""
        if not self.n_results:
            return {}
        from lmac_sb.metrics.verdict import VERDICTS

        counts = {name: self._verdicts[name] for name in reversed(VERDICTS)}
        counts["not stable"] = self._n_unstable
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
    place = f" -> {result['folder']}" if result["folder"] else ""
    line = printable(
        f"{result['file']}: {result['class']}{parents}, p {p:.3f}, "
        f"inside {p_in:.3f}, outside {p_out:.3f}; "
        f"{mark}{result['verdict']}{stable[result['stable']]}{place}{kept}"
    )
    notes = [f"  note: {printable(note)}" for note in result["notes"]]
    return "\n".join([line, *notes])
