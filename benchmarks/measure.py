"""Helpers of the benchmarks: time, memory and separate processes."""

import argparse
import functools
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import speechbrain
import torch

from lmac_sb.metrics.registry import METRICS
from lmac_sb.utils.errors import LMACError, exit_on_user_error, is_full
from lmac_sb.utils.io import make_folder
from lmac_sb.utils.near import nearest


def exit_on_mistake(main):
    """Decorate a script's `main`: `exit_on_user_error`, for places too.

    A file or folder that is not there, or cannot be used, is a user's mistake.
    """

    @exit_on_user_error
    @functools.wraps(main)
    def wrapper(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except OSError as error:
            if error.filename is None or is_full(error):
                raise
            raise LMACError(
                f"{error.filename}: cannot be used ({error.strerror})"
            ) from error

    return wrapper


def median_times(functions, *args, runs=5):
    """Median seconds of each of several alternating calls.

    Other load on the machine affects all of them.
    """
    times = [[] for _ in functions]
    for run in range(runs + 1):
        for function, taken in zip(functions, times):
            start = time.perf_counter()
            function(*args)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if run:  # the first run is a warm-up
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def _status(name):
    """A value in /proc/self/status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"no {name} in /proc/self/status, expected Linux")


def private_memory():
    """Memory of the current process in MB, without libraries and files."""
    return _status("RssAnon")


def peak_resident():
    """Peak memory of this process in MB, with libraries."""
    return _status("VmHWM")


class PeakMemory:
    """Within `with`: `before` and `peak` of `private_memory`."""

    def __enter__(self):
        self.before = self.peak = private_memory()
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def _watch(self):
        """Keep the peak until the measurement ends."""
        while not self._done.wait(0.02):
            self.peak = max(self.peak, private_memory())

    def __exit__(self, *error):
        self._done.set()
        self._watcher.join()
        self.peak = max(self.peak, private_memory())


def _run(function, args, threads, result):
    """Call the function in the new process."""
    torch.set_num_threads(threads)
    try:
        result.put((function(*args), None))
    except LMACError as error:
        result.put((None, error))


def in_own_process(function, *args, threads):
    """Result of a function that is called in a new process, or its error."""
    context = multiprocessing.get_context("spawn")
    result = context.SimpleQueue()
    process = context.Process(
        target=_run, args=(function, args, threads, result)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__}{args}: process failed")
    value, error = result.get()
    if error is not None:
        raise error
    return value


def count(text, least=1):
    """A number from 1 on the command line."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number from {least}"
        )
    return number


def count_or_none(text):
    """A number from 0 on the command line."""
    return count(text, 0)


def amount(text):
    """A number from 0 on the command line that need not be whole."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not number >= 0:  # nor NaN
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a number from 0"
        )
    return number


def n_threads(text):
    """A number of threads on the command line; says if it is odd."""
    number = count(text)
    if number > os.cpu_count():
        print(
            f"warning: --threads: {number}, but there are {os.cpu_count()} "
            "cores, so threads wait for each other",
            file=sys.stderr,
        )
    return number


def files_of(folder, pattern):
    """Files of a folder by their pattern, at least one, in order."""
    found = sorted(Path(folder).glob(pattern))
    if not found:
        raise LMACError(f"{folder}: found no files {pattern}, expected some")
    return found


def new_file(text):
    """A file for results on the command line, checked before all measuring."""
    path = Path(text)
    expected = None
    if path.is_dir():
        expected = "a file, this is a folder"
    elif not path.parent.is_dir():
        expected = "a file in a folder that is there"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        expected = "a file that can be written"
    if expected:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected {expected}")
    return text


def new_folder(text):
    """A folder for results on the command line, which is made."""
    try:
        make_folder(text)
    except LMACError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


def check_names(option, names, known):
    """Refuse what an option does not know, and say what may be meant."""
    for name in names:
        if name not in known:
            near = nearest(name, known)
            hint = "" if near is None else f"did you mean '{near}'? "
            listed = ", ".join(f"'{x}'" for x in known)
            raise LMACError(
                f"{option}: unknown '{name}'; {hint}there are {listed}"
            )


def slope(sizes, costs):
    """Exponent of the growth: least-squares slope in a log-log plot."""
    x, y = ([math.log(v) for v in values] for values in (sizes, costs))
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    spread = sum((v - mean_x) ** 2 for v in x)
    return sum((v - mean_x) * (w - mean_y) for v, w in zip(x, y)) / spread


def machine(threads):
    """Machine, software and date of the measurement."""
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "speechbrain": speechbrain.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor():
    """Name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (x.split(":", 1)[1] for x in lines if x.startswith("model name"))
    return " ".join(next(names, platform.machine()).split())


def print_table(rows):
    """Print dicts as the rows of a Markdown table."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for row in rows:
        cells = (
            f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()
        )
        print("| " + " | ".join(cells) + " |")


def shown(name, *values):
    """Values of a metric, `judge name` or `name`, with its decimals."""
    digits = METRICS[name.split()[-1]].digits
    return [f"{value:.{digits}f}" for value in values]


def print_means(found, columns, more=None):
    """Print what `summarize` has found, a row a method.

    `more` has a further figure of each method, by the name of its column.
    """
    rows = []
    for method, figures in found.items():
        row = {"method": method}
        row |= {name: values[method] for name, values in (more or {}).items()}
        for name in columns:
            x = figures[name]
            half = (x["high"] - x["low"]) / 2
            row[name] = " ± ".join(shown(name, x["mean"], half))
        rows.append(row)
    print_table(rows)


def print_differences(found, columns, first):
    """Print each method minus the first, with intervals."""
    rows = []
    for method in (name for name in found if name != first):
        row = {f"minus {first}": method}
        for name in columns:
            # There it is the first minus this one.
            x = found[method][name]["difference"]
            ends = (0 - x[key] for key in ("mean", "high", "low"))
            row[name] = "{} [{}, {}]".format(*shown(name, *ends))
        rows.append(row)
    print_table(rows)


def write(path, content):
    """Write JSON to a file, if there is a path."""
    if path:
        Path(path).write_text(json.dumps(content, indent=1), encoding="utf-8")
