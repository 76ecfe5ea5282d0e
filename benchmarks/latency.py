#!/usr/bin/env python3
"""Time and memory to explain a file of 5 s to an hour.

    python benchmarks/latency.py MODEL_FOLDER [--threads 2]

Each length runs in its own process, on 44.1 kHz stereo noise, after the model
has been loaded. Memory is the peak of the process's own memory, without
libraries and without the files that hold long results.
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
    """Write stereo noise, one second at a time."""
    rng = np.random.default_rng(0)
    with sf.SoundFile(path, "w", RATE, 2) as file:
        for _ in range(seconds):
            file.write(0.1 * rng.standard_normal((RATE, 2)))


def measure(model_folder, path):
    """Seconds, memory before and peak memory of an explanation."""
    model = LMACInterpreter.from_hparams(model_folder)
    with PeakMemory() as memory:
        start = time.perf_counter()
        model.explain_file(path)
        seconds = time.perf_counter() - start
    return seconds, memory.before, memory.peak


def main(argv=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder written by `lmac export`")
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
