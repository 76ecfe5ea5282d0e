#!/usr/bin/env python3
"""Clips per second that the input pipeline gives, and that training takes.

    python benchmarks/input.py [--data_folder ESC-50] [--json input.json]

Compares the pipeline, with and without the audio cache and with 0 and 2
workers, with the training step of the small classifier (batches of 8 clips of
5 s, as in `classifier_conv.yaml`). Without a data folder it uses 200 generated
clips, Ogg Vorbis at 44.1 kHz as in the public subset ESC-10. The pipeline runs
alone, since otherwise training would keep the workers' cores busy.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from measure import (
    count,
    exit_on_mistake,
    files_of,
    machine,
    median_times,
    n_threads,
    new_file,
    print_table,
    write,
)
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import EqualLengthBatches, make_dataset
from lmac_sb.data.manifest import to_lines
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures

RATE = 16000
BATCH = 8
SECONDS = 5


def write_clips(folder, n_clips):
    """Generated clips: noise whose spectrum falls, as in real recordings."""
    rng = np.random.default_rng(0)
    for index in range(n_clips):
        wav = np.cumsum(rng.standard_normal(SECONDS * 44100))
        wav -= np.linspace(wav[0], wav[-1], len(wav))
        sf.write(folder / f"{index}.ogg", wav / np.abs(wav).max() / 2, 44100)
    return sorted(folder.iterdir())


def write_manifest(path, clips):
    """Write a manifest that lists these clips."""
    entries = {}
    for clip in clips:
        info = sf.info(clip)
        entries[clip.name] = {
            "wav": str(clip),
            "class_string": "any",
            "num_samples": info.frames,
            "sample_rate": info.samplerate,
        }
    path.write_text(to_lines(entries), encoding="utf-8")


def rate(dataset, workers):
    """Clips per second of one pass through the data."""
    batches = EqualLengthBatches(dataset.n_samples, BATCH, True, seed=0)
    loader = make_dataloader(
        dataset, batch_sampler=batches, num_workers=workers
    )
    start = time.perf_counter()
    n_clips = sum(len(batch.id) for batch in loader)
    return n_clips / (time.perf_counter() - start)


def rate_alone(preprocess, clips):
    """Clips per second of processor time, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    preprocess(clips[0])
    start = time.process_time()
    for clip in clips:
        preprocess(clip)
    taken = time.process_time() - start
    torch.set_num_threads(threads)
    return len(clips) / taken


def make_training_step():
    """Training step of the small classifier, including its features."""
    features = SpectralFeatures()
    model = torch.nn.Sequential(ConvEmbedding(), torch.nn.Linear(256, 50))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wavs = torch.randn(BATCH, SECONDS * RATE) / 10
    labels = torch.arange(BATCH)

    def step():
        mel = features.mel(features.magnitude(features.stft(wavs)))
        loss = torch.nn.functional.cross_entropy(model(mel), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def find_clips(data_folder, folder, n_clips):
    """The first clips of a data folder, or generated ones in `folder`."""
    if data_folder:
        return files_of(Path(data_folder) / "audio", "*")[:n_clips]
    (folder / "audio").mkdir()
    return write_clips(folder / "audio", n_clips)


def compare_rates(datasets, runs):
    """Median clips a second of each data set, without and with workers."""
    found = {}
    for _ in range(runs):
        # Alternate, as in `median_times`.
        for cache, dataset in datasets.items():
            for workers in (0, 2):
                rates = found.setdefault((cache, workers), [])
                rates.append(rate(dataset, workers))
    return {key: sorted(rates)[len(rates) // 2] for key, rates in found.items()}


def measure(folder, clips, runs):
    """Rows of the table, and further numbers."""
    labels = CategoricalEncoder()
    labels.update_from_iterable(["any"])
    labels.expect_len(1)
    write_manifest(folder / "train.jsonl", clips)
    plain = Preprocessor(RATE, SECONDS)
    cached = AudioCache(folder / "cache", plain)
    datasets = {
        name: make_dataset(folder / "train.jsonl", preprocess, labels)
        for name, preprocess in (("no", plain), ("yes", cached))
    }
    # The first pass fills the cache.
    first = rate(datasets["yes"], 0)
    training = BATCH / median_times([make_training_step()], runs=10)[0]
    rows = [
        {
            "audio_cache": cache,
            "num_workers": workers,
            "clips/s": clips_a_second,
            "times what training takes": clips_a_second / training,
        }
        for (cache, workers), clips_a_second in compare_rates(
            datasets, runs
        ).items()
    ]
    size = sum(file.stat().st_size for file in (folder / "cache").glob("*/*/*"))
    return rows, {
        "clips": len(clips),
        "training step of the small classifier, clips/s": training,
        "pass that fills the cache, clips/s": first,
        "decoding alone, clips/s": rate_alone(plain, clips),
        "cache alone, clips/s": rate_alone(cached, clips),
        "cache, bytes a clip": size / len(clips),
    }


@exit_on_mistake
def main(argv=None):
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", help="holds audio/; default: noise")
    parser.add_argument("--clips", type=count, default=200)
    parser.add_argument("--threads", type=n_threads, default=2)
    parser.add_argument("--runs", type=count, default=3)
    parser.add_argument("--json", type=new_file, help="file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        clips = find_clips(args.data_folder, folder, args.clips)
        rows, more = measure(folder, clips, args.runs)
    print_table(rows)
    more.update(machine(args.threads))
    print(", ".join(f"{key} {value}" for key, value in more.items()))
    write(args.json, {"machine": more, "rows": rows})


if __name__ == "__main__":
    main()
