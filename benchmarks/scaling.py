#!/usr/bin/env python3
"""How cost grows with clip length, batch, clips, processes and corpus.

    python benchmarks/scaling.py [--quick] [--only rows] [--json scaling.json]

Uses the small classifier and its decoder with random weights, at 16 kHz. Each
table ends with the slope of a log-log plot: 0 for a constant cost, 1 for one
that grows in proportion. Memory is the peak of the process's own memory,
without libraries, minus what it used before. With a GPU, clip length and batch
size are measured there too.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from corpus import measure_rates, measure_rows, measure_shares
from cost import explain, make_explainer, make_step
from measure import (
    PeakMemory,
    exit_on_mistake,
    in_own_process,
    machine,
    median_times,
    n_threads,
    new_file,
    print_table,
    slope,
    write,
)
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.encoder import CategoricalEncoder
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import EqualLengthBatches, make_dataset
from lmac_sb.metrics.registry import evaluate

RATE = 16000
CLIP_S = 1.0  # unless the length is varied
N_FILES = 100  # sound files that the clips of a corpus share

FULL = {
    "seconds": [1, 10, 60, 600],
    "batches": [1, 4, 16, 64],
    "clips": [100, 1000, 10_000],
    "processes": [1, 2],
    "corpus": [1000, 10_000, 100_000],
    "rows": [100, 10_000, 100_000],
    "shared": 200,
    "at_once": [2],
    "repeats": 20,
    "runs": 3,
}
QUICK = {
    "seconds": [1, 2],
    "batches": [1, 2],
    "clips": [4, 8],
    "processes": [1],
    "corpus": [100, 200],
    "rows": [3, 6],
    "shared": 4,
    "at_once": [],
    "repeats": 1,
    "runs": 1,
}


def explain_length(seconds, runs, device="cpu"):
    """Seconds and memory in MB to explain one clip."""
    explainer = explainer_on(device)
    wavs = torch.randn(1, round(seconds * RATE), device=device) / 10
    explain(explainer, wavs[:, :RATE])
    with PeakMemory() as memory:
        (taken,) = median_times([lambda: explain(explainer, wavs)], runs=runs)
    return taken, memory.peak - memory.before


def train_batch(batch_size, runs, device="cpu"):
    """Seconds and memory in MB of a training step."""
    step = make_step(explainer_on(device))
    step(torch.randn(1, round(CLIP_S * RATE), device=device) / 10)
    wavs = torch.randn(batch_size, round(CLIP_S * RATE), device=device) / 10
    with PeakMemory() as memory:
        (taken,) = median_times([lambda: step(wavs)], runs=runs)
    return taken, memory.peak - memory.before


def explainer_on(device):
    """Explainer with the small classifier and its decoder."""
    explainer = make_explainer("small", "ours")[0]
    for part in (explainer.features, explainer.classifier, explainer.decoder):
        part.to(device)
    return explainer


def evaluate_clips(folder, n_clips):
    """Seconds and memory in MB to explain and evaluate a data set."""
    folder = Path(folder)
    write_corpus(folder, n_clips)
    explainer = make_explainer("small", "ours")[0]
    explain(explainer, torch.randn(16, round(CLIP_S * RATE)) / 10)
    with PeakMemory() as memory:
        start = time.perf_counter()
        for batch in open_corpus(folder, Preprocessor(RATE)):
            evaluate(explain(explainer, batch.sig.data, sounds=False))
        taken = time.perf_counter() - start
    return taken, memory.peak - memory.before


def open_and_shuffle(folder, n_clips):
    """Seconds, memory in MB and manifest bytes to start on a large corpus."""
    folder = Path(folder)
    write_corpus(folder, n_clips)
    (folder / "first").mkdir()
    write_corpus(folder / "first", 1)
    next(iter(open_corpus(folder / "first", Preprocessor(RATE))))
    with PeakMemory() as memory:
        start = time.perf_counter()
        next(iter(open_corpus(folder, Preprocessor(RATE), shuffle=True)))
        taken = time.perf_counter() - start
    size = (folder / "train.jsonl").stat().st_size
    return taken, memory.peak - memory.before, size


def fill_cache(folder):
    """Size in bytes of the cache of all files of a corpus."""
    folder = Path(folder)
    write_corpus(folder, N_FILES)
    cache = AudioCache(folder / "cache", Preprocessor(RATE))
    for _ in open_corpus(folder, cache):
        pass
    return sum(path.stat().st_size for path in folder.glob("cache/*/*/*"))


def write_corpus(folder, n_clips):
    """Write clips of one length that share some files, and their manifest."""
    rng = np.random.default_rng(0)
    n_files = min(n_clips, N_FILES)
    for index in range(n_files):
        wav = 0.1 * rng.standard_normal(round(CLIP_S * RATE))
        sf.write(folder / f"{index}.wav", wav, RATE)
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        for index in range(n_clips):
            entry = {
                "id": f"clip-{index}",
                "wav": str(folder / f"{index % n_files}.wav"),
                "class_string": "any",
                "fold": 1,
                "duration": CLIP_S,
                "num_samples": round(CLIP_S * RATE),
                "sample_rate": RATE,
            }
            file.write(json.dumps(entry) + "\n")


def open_corpus(folder, preprocess, shuffle=False):
    """Loader of a corpus in batches of 16."""
    labels = CategoricalEncoder()
    labels.update_from_iterable(["any"])
    labels.expect_len(1)
    dataset = make_dataset(folder / "train.jsonl", preprocess, labels)
    batches = EqualLengthBatches(dataset.n_samples, 16, shuffle)
    return make_dataloader(dataset, batch_sampler=batches)


def train_as_one_of(rank, world_size, file, runs):
    """Seconds of a training step in one of several processes."""
    explainer = make_explainer("small", "ours")[0]
    if world_size > 1:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{file}",
            rank=rank,
            world_size=world_size,
        )
        explainer.decoder = DistributedDataParallel(explainer.decoder)
    step = make_step(explainer)
    wavs = torch.randn(8, round(CLIP_S * RATE)) / 10
    (taken,) = median_times([lambda: step(wavs)], runs=10 * runs)
    if world_size > 1:
        distributed.destroy_process_group()
    return taken


def processes_of(world_size, folder, runs):
    """Clips per second of several processes with one thread each."""
    if world_size == 1:
        return 8 / in_own_process(train_as_one_of, 0, 1, None, runs, threads=1)
    context = torch.multiprocessing.get_context("spawn")
    file = Path(folder) / f"group{world_size}"
    with context.Pool(world_size, torch.set_num_threads, [1]) as pool:
        seconds = pool.starmap(
            train_as_one_of,
            [(rank, world_size, file, runs) for rank in range(world_size)],
            chunksize=1,
        )
    return 8 * world_size / max(seconds)


def table(name, rows, columns):
    """Print rows, and the slope of each column over the first column."""
    print(f"\n### {name}\n")
    print_table(rows)
    if len(rows) == 1:
        return {"rows": rows}
    size = next(iter(rows[0]))
    slopes = {
        column: slope(
            [row[size] for row in rows],
            # Less than a megabyte is noise, and zero has no logarithm.
            [
                max(row[column], 1.0) if "MB" in column else row[column]
                for row in rows
            ],
        )
        for column in columns
    }
    shown = ", ".join(
        f"{column} {value:.2f}" for column, value in slopes.items()
    )
    print(f"slopes: {shown}", flush=True)
    return {"rows": rows, "slopes": slopes}


def measure_sizes(name, measure, values, unit, args):
    """Table of a cost over a size, on the CPU and, if there is one, a GPU."""
    rows = []
    for value in values:
        row = {name: value}
        for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
            taken, memory = in_own_process(
                measure, value, args.sizes["runs"], device, threads=args.threads
            )
            row[f"{unit} on {device}, s"] = taken
            if device == "cpu":
                row["memory, MB"] = memory
        rows.append(row)
    return table(name, rows, list(rows[0])[1:])


def measure_clips(args):
    """Table of the evaluation over the number of clips."""
    rows = []
    for n_clips in args.sizes["clips"]:
        with tempfile.TemporaryDirectory() as folder:
            taken, memory = in_own_process(
                evaluate_clips, folder, n_clips, threads=args.threads
            )
        rows.append(
            {"Clips": n_clips, "evaluate, s": taken, "memory, MB": memory}
        )
    return table("Clips to evaluate", rows, list(rows[0])[1:])


def measure_processes(args):
    """Table of the training over the number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            {
                "Processes": world_size,
                "training, clips/s": processes_of(
                    world_size, folder, args.sizes["runs"]
                ),
            }
            for world_size in args.sizes["processes"]
        ]
    return table("Processes", rows, ["training, clips/s"])


def measure_corpus(args):
    """Table of the start of a training over the size of the corpus."""
    rows = []
    for n_clips in args.sizes["corpus"]:
        with tempfile.TemporaryDirectory() as folder:
            taken, memory, size = in_own_process(
                open_and_shuffle, folder, n_clips, threads=args.threads
            )
        rows.append(
            {
                "Clips": n_clips,
                "open, shuffle, first batch, s": taken,
                "memory, MB": memory,
                "manifest, bytes a clip": size / n_clips,
            }
        )
    return table("Corpus on the disk", rows, list(rows[0])[1:3])


def measure_cache(args):
    """Bytes in the cache for each second of sound."""
    with tempfile.TemporaryDirectory() as folder:
        size = in_own_process(fill_cache, folder, threads=args.threads)
    print(f"cache, bytes a second of sound: {size / N_FILES / CLIP_S:.0f}")
    return size / N_FILES / CLIP_S


def measure_lengths(args):
    """Table of an explanation over the clip's length."""
    sizes = args.sizes["seconds"]
    name = "Clip length, s"
    return measure_sizes(name, explain_length, sizes, "explain", args)


def measure_batches(args):
    """Table of a training step over the size of the batch."""
    sizes = args.sizes["batches"]
    return measure_sizes(
        "Batch size", train_batch, sizes, "training step", args
    )


# What is measured, and what it is called in the JSON.
PARTS = {
    "lengths": (measure_lengths, "Clip length, s"),
    "batches": (measure_batches, "Batch size"),
    "clips": (measure_clips, "Clips"),
    "processes": (measure_processes, "Processes"),
    "corpus": (measure_corpus, "Corpus"),
    "cache": (measure_cache, "cache, bytes a second of sound"),
    "rates": (measure_rates, "Rates"),
    "shares": (measure_shares, "Shares"),
    "rows": (measure_rows, "Rows"),
}


@exit_on_mistake
def main(argv=None):
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts")
    parser.add_argument("--threads", type=n_threads, default=2)
    parser.add_argument("--json", type=new_file, help="file for the results")
    args = parser.parse_args(argv)
    args.sizes = QUICK if args.quick else FULL
    where = machine(args.threads)
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    results = {"machine": where}
    for name in args.only or PARTS:
        measure, title = PARTS[name]
        results[title] = measure(args)
    write(args.json, results)


if __name__ == "__main__":
    main()
