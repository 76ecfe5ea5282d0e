#!/usr/bin/env python3
"""Seconds and memory to explain a file, from 5 s to an hour.

    python benchmarks/latency.py MODEL_FOLDER [--threads 2]

Each length runs in a process of its own, on 44.1 kHz stereo noise; the model
is loaded first. Memory is the peak of what the process holds for itself, so
without libraries and without the files that long results are kept in.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import PeakMemory, in_own_process

from lmac_sb import LMACInterpreter

LENGTHS = {"5 s": 5, "10 min": 600, "1 h": 3600}
RATE = 44100


def write_noise(path, seconds):
    """Stereo noise, written a second at a time."""
    rng = np.random.default_rng(0)
    with sf.SoundFile(path, "w", RATE, 2) as file:
        for _ in range(seconds):
            file.write(0.1 * rng.standard_normal((RATE, 2)))


def measure(model_folder, path):
    """Seconds, and memory before and at its peak."""
    model = LMACInterpreter.from_hparams(model_folder)
    with PeakMemory() as memory:
        start = time.perf_counter()
        model.explain_file(path)
        seconds = time.perf_counter() - start
    return seconds, memory.before, memory.peak


def main(argv=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder that `lmac export` wrote")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    print("| file | seconds | memory before, MB | peak, MB |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, seconds in LENGTHS.items():
            path = str(Path(folder) / "noise.wav")
            write_noise(path, seconds)
            taken, before, peak = in_own_process(
                measure, args.model, path, threads=args.threads
            )
            print(f"| {name} | {taken:.2f} | {before:.0f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
