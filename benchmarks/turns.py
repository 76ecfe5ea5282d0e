"""Calls that are compared take turns, so that the machine's mood cancels.

A pair is one slot of the base and one of the other, next to each other in
time, in changing order. What is reported is the median of the pairs' ratios
and its 95 % interval. A slot repeats its call until it has taken long enough
to be timed. On a CPU the ratio is one of processor time, which other
processes disturb far less than the clock; wall time stands beside it. On a
GPU the time is that between two events.
"""

import itertools
import math
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy import stats

SLOT_S = 0.1  # shortest time of a slot
N_PAIRS = 7  # fewest that have a 95 % interval of their median, and one more
MORE = 4  # times as many pairs, at most, until the interval is narrow
WIDTH = 0.05  # of an interval that is narrow, as a share of the ratio
BUSY = 0.25  # cores that others use, above which the machine is called busy


@dataclass
class Ratio:
    """How much longer one call takes than the base.

    Arguments
    ---------
    value : float
        Median ratio of the pairs.
    low, high : float
        Its 95 % interval.
    wall : float
        Median ratio of wall time.
    seconds : float
        Median seconds of a call: of the processor, or of a GPU.
    n : int
        Pairs.
    """

    value: float
    low: float
    high: float
    wall: float
    seconds: float
    n: int

    @property
    def is_narrow(self):
        """Whether more pairs are not worth their time."""
        return self.high - self.low <= WIDTH * self.value


class Clock:
    """Seconds that a call takes, by the processor or a GPU, and by the wall.

    Arguments
    ---------
    device : str
        Where the calls run.
    """

    def __init__(self, device="cpu"):
        self.on_gpu = torch.device(device).type == "cuda"

    def __call__(self, function, repeats):
        """Time of one of several calls in a row.

        Arguments
        ---------
        function : callable
            Without arguments.
        repeats : int
            Calls.

        Returns
        -------
        tuple of float
            Seconds of a call on the device, and by the wall.
        """
        timed = self._events if self.on_gpu else self._processor
        start = time.perf_counter()
        spent = timed(function, repeats)
        return spent / repeats, (time.perf_counter() - start) / repeats

    @staticmethod
    def _processor(function, repeats):
        """Processor time of all threads of this process."""
        start = time.process_time()
        for _ in range(repeats):
            function()
        return time.process_time() - start

    @staticmethod
    def _events(function, repeats):
        """Time between two events of the GPU's own queue."""
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(repeats):
            function()
        last.record()
        torch.cuda.synchronize()
        return first.elapsed_time(last) / 1000


def in_turn(base, others, clock, n_pairs=N_PAIRS):
    """Ratios of calls to a base.

    Arguments
    ---------
    base : callable
        What the others are compared with.
    others : dict
        Name to callable.
    clock : Clock
        Of their device.
    n_pairs : int
        Pairs of each; up to `MORE` times as many where they disagree.

    Returns
    -------
    ratios : dict
        Name to `Ratio`.
    seconds : float
        Median seconds of the base.
    """
    slots = {name: _slot(call, clock) for name, call in others.items()}
    first = _slot(base, clock)
    pairs = {name: [] for name in others}
    for turn in range(MORE * n_pairs):
        for name, slot in slots.items():
            done = len(pairs[name]) >= n_pairs
            if done and summarise(pairs[name]).is_narrow:
                continue
            order = (first, slot) if turn % 2 else (slot, first)
            times = [clock(*each) for each in order]
            pairs[name].append(times if turn % 2 else times[::-1])
    every = itertools.chain.from_iterable(pairs.values())
    seconds = statistics.median(pair[0][0] for pair in every)
    return {name: summarise(found) for name, found in pairs.items()}, seconds


def _slot(function, clock):
    """A call, and how often it is repeated to be timed."""
    function()  # the first one allocates, and may compile
    _, wall = clock(function, 1)
    return function, max(1, math.ceil(SLOT_S / max(wall, 1e-6)))


def summarise(pairs):
    """The ratio that pairs of times show.

    Arguments
    ---------
    pairs : list
        Of the base and of the other: seconds on the device, and by the wall.

    Returns
    -------
    Ratio
    """
    ratios, walls = (
        [other[kind] / base[kind] for base, other in pairs] for kind in (0, 1)
    )
    low, high = median_interval(ratios)
    return Ratio(
        statistics.median(ratios),
        low,
        high,
        statistics.median(walls),
        statistics.median(other[0] for _, other in pairs),
        len(pairs),
    )


def median_interval(values):
    """95 % interval of a median, whatever the distribution.

    Arguments
    ---------
    values : list of float
        At least one; of fewer than six the interval is their range, which
        holds the median less often than that.

    Returns
    -------
    tuple of float
        Two of the values: each lies at the place up to which a fair coin,
        thrown once a value, would fall in at most 2.5 % of the cases.
    """
    ordered = sorted(values)
    place = int(stats.binom.ppf(0.025, len(ordered), 0.5))
    place = max(0, place - 1)
    return ordered[place], ordered[-1 - place]


class Others:
    """Within `with`: how many cores other processes have used, `cores`.

    None where the system does not say.
    """

    cores = None

    def __enter__(self):
        self._before = self._read()
        return self

    def __exit__(self, *error):
        if self._before is None:
            return
        busy, own, clock = (
            now - then for now, then in zip(self._read(), self._before)
        )
        self.cores = max(0.0, (busy - own) / clock)

    @staticmethod
    def _read():
        """Seconds of all cores that worked, of this process, of the clock."""
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        except OSError:
            return None
        user, nice, system, _, _, irq, soft, *_ = map(int, first)
        ticks = user + nice + system + irq + soft
        own = sum(os.times()[:4])
        return ticks / os.sysconf("SC_CLK_TCK"), own, time.perf_counter()

    def said(self, threads):
        """What this means for the figures, or None.

        Arguments
        ---------
        threads : int
            Of the measurement.

        Returns
        -------
        str
        """
        if self.cores is None or self.cores + threads <= os.cpu_count() + BUSY:
            return None
        return (
            f"the machine was busy: other processes used {self.cores:.1f} of "
            f"{os.cpu_count()} cores, beside {threads} of this measurement; "
            "ratios hold, seconds and wall times do not"
        )
