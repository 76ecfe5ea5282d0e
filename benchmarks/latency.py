#!/usr/bin/env python3
"""Time and memory to explain a file of 5 s to three hours.

    python benchmarks/latency.py MODEL [--threads 2] [--lengths "5 s" "1 h"]

Each length runs in its own process, on 44.1 kHz stereo noise, after the model
has been loaded. Memory is the peak of the process's own memory, without
libraries and without the files that hold long results.

    python benchmarks/latency.py --start TREE

compares the console of this tree with that of another one, in turn: processor
time and wall time of help, of a refusal and of one file of 2 s.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
from measure import PeakMemory, exit_on_mistake, in_own_process, n_threads

from lmac_sb.inference.load import load_interpreter
from lmac_sb.utils.errors import LMACError

LENGTHS = {"5 s": 5, "10 min": 600, "1 h": 3600, "3 h": 10_800}
RATE = 44100
ROOT = Path(__file__).resolve().parents[1]
START = {
    "help": ["--help"],
    "no such model": ["explain", "x.wav", "--model", "./no", "--out", "out"],
    "a file of 2 s": ["explain", "x.wav", "--model", "esc10", "--out", "out"],
}
PAIRS = 5


def write_noise(path, seconds):
    """Write stereo noise, one second at a time."""
    rng = np.random.default_rng(0)
    with sf.SoundFile(path, "w", RATE, 2) as file:
        for _ in range(seconds):
            file.write(0.1 * rng.standard_normal((RATE, 2)))


def measure(model_folder, path):
    """Seconds, memory before and peak memory of an explanation."""
    model = load_interpreter(model_folder)
    with PeakMemory() as memory:
        start, spent = time.perf_counter(), time.process_time()
        model.explain_file(path)
        seconds = time.perf_counter() - start
        spent = time.process_time() - spent
    return seconds, spent, memory.before, memory.peak


def call(tree, words, folder):
    """Processor time and wall time of a command of a tree."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "lmac_sb", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system, wall


def measure_start(tree):
    """Print medians of this tree and of another one, and of their ratios."""
    if not (Path(tree) / "lmac_sb").is_dir():
        raise LMACError(f"--start: {tree}: expected a folder with lmac_sb")
    print("| | there, s | here, s | ratio | there, wall | here, wall | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, words in START.items():
        rows = []
        for _ in range(PAIRS):
            with tempfile.TemporaryDirectory() as folder:
                wav = 0.1 * np.random.default_rng(0).standard_normal(32_000)
                sf.write(Path(folder) / "x.wav", wav, 16_000)
                rows.append([])
                for place in (Path(tree).resolve(), ROOT):
                    rows[-1] += call(place, words, folder)
                    shutil.rmtree(Path(folder) / "out", ignore_errors=True)
        cells = []
        for i in (0, 1):
            there, here = ([row[i + j] for row in rows] for j in (0, 2))
            ratios = [b / a for a, b in zip(there, here)]
            cells += map(statistics.median, (there, here, ratios))
        print(f"| {name} | " + " | ".join(f"{x:.2f}" for x in cells) + " |")


@exit_on_mistake
def main(argv=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="as of lmac explain --model")
    parser.add_argument("--threads", type=n_threads, default=2)
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS)
    parser.add_argument("--start", help="another tree, to compare the console")
    args = parser.parse_args(argv)
    if (args.model is None) == (args.start is None):
        parser.error("expected a model, or a tree after --start")
    if args.start:
        return measure_start(args.start)
    print("| file | seconds | of processor | memory before, MB | peak, MB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in args.lengths or LENGTHS:
            path = str(Path(folder) / "noise.wav")
            write_noise(path, LENGTHS[name])
            *found, before, peak = in_own_process(
                measure, args.model, path, threads=args.threads
            )
            taken = " | ".join(f"{x:.2f}" for x in found)
            print(f"| {name} | {taken} | {before:.0f} | {peak:.0f} |")
    return None


if __name__ == "__main__":
    main()
