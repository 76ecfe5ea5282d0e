"""What a clip of a corpus costs: rates, processes and memory.

Parts of `scaling.py`. Rates are of processor time, of one core, so that other
load on the machine changes them little.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from measure import PeakMemory, in_own_process, print_table
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.streaming import read_signal
from lmac_sb.inference.clip_folder import write_clip, write_data
from lmac_sb.inference.in_rows import RowWriter
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.inference.load import load_interpreter
from lmac_sb.inference.order import Order
from lmac_sb.inference.packed import pack
from lmac_sb.inference.sounds import Sounds
from lmac_sb.jobs.job import Chunk
from lmac_sb.jobs.shards import write_shard
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.models.decoder import MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier

MODEL = "esc10"  # a small classifier with its decoder, in the package
CLIP_S, FILE_RATE = 5.0, 44100  # as of ESC-50
STEPS = 20  # of refinement
TINY_S, TINY_RATE = 0.2, 16000
ALL_EXPLAINED, ONE_IN = 10_000, 50  # of more clips so many are explained
ALL = Order({}, dict.fromkeys(("threshold", "refine_steps", "unrefined")), {})


def rates(n_clips):
    """Clips a second of processor time, by the step."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        rng = np.random.default_rng(0)
        for name in ("a.ogg", "a.wav"):
            wav = rng.standard_normal(round(CLIP_S * FILE_RATE)) / 8
            sf.write(folder / name, wav, FILE_RATE)
        model = load_interpreter(MODEL, False)
        rate = model.sample_rate
        wav = read_signal(folder / "a.wav", rate)
        clip = model.explain_sound(wav)
        counter = iter(range(1 << 30))

        def write_folder():
            """Sounds, picture and facts of a clip."""
            write_clip(folder / f"{next(counter)}", clip, "x")

        def write_sample():
            """The same without the picture, in a shard of one clip."""
            place = folder / f"{next(counter)}"
            write_data(place, clip, "x")
            write_shard(place.with_suffix(".tar"), pack(place, "0"))

        steps = {
            "decode Ogg Vorbis": lambda: read_signal(folder / "a.ogg", rate),
            "decode WAV": lambda: read_signal(folder / "a.wav", rate),
            "explain": lambda: model.explain_sound(wav),
            f"explain, {STEPS} steps": lambda: model.explain_sound(
                wav, refine_steps=STEPS
            ),
            "write a folder": write_folder,
            "write to a shard": write_sample,
        }
        return {name: _rate(step, n_clips) for name, step in steps.items()}


def _rate(step, n_times):
    """How often a second of processor time something can be done."""
    step()
    start = time.process_time()
    for _ in range(n_times):
        step()
    return n_times / (time.process_time() - start)


def shared(n_processes, n_clips, folder, n_threads=None):
    """Clips a second of processes that explain a corpus into rows.

    Or of one process that explains several clips at once, by threads. From the
    first chunk that is done to the last, without the start; of the clock, and
    of all their processor time.
    """
    folder = Path(folder)
    write_tiny(folder, n_clips, CLIP_S)
    out = folder / "out"
    words = ["explain", folder / "clips.jsonl", "--model", MODEL]
    options = ["--write", "rows", "--out", out, "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    if n_threads is None:
        options += ["--processes", str(n_processes)]
    else:
        environment["OMP_NUM_THREADS"] = str(n_threads)
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "lmac_sb", *words, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    after = os.times()
    ends = sorted(p.stat().st_mtime for p in out.glob("rows/part*"))
    taken = (ends[-1] - ends[0]) / (len(ends) - 1) * len(ends)
    spent = after.children_user - before.children_user
    return n_clips / taken, spent + after.children_system


def rows_of(folder, n_clips):
    """Seconds and memory in MB to explain many tiny clips into rows."""
    folder = Path(folder)
    write_tiny(folder, n_clips, TINY_S)
    model = tiny_model()
    one_in = 1 if n_clips <= ALL_EXPLAINED else ONE_IN
    model.explain_file(folder / "0.wav")
    with PeakMemory() as memory:
        start = time.perf_counter()
        sounds = Sounds([str(folder / "clips.jsonl")])
        writer = RowWriter(model, sounds, ALL, folder / "out")

        def work(items):
            """Rows of some clips; one that is explained stands for others."""
            rows = []
            for i in items:
                if i % one_in == 0 or not rows:
                    rows += writer.work(range(i, i + 1)).rows
                else:
                    rows.append({**rows[-1], "id": sounds[i].id})
            return Chunk(rows)

        writer.job.run(work, lambda index: writer.job.rows(index))
        taken = time.perf_counter() - start
    return taken, memory.peak - memory.before


def write_tiny(folder, n_clips, seconds):
    """Clips that share a hundred files, and their manifest."""
    rng = np.random.default_rng(0)
    n_files = min(n_clips, 100)
    for i in range(n_files):
        wav = rng.standard_normal(round(seconds * TINY_RATE)) / 8
        sf.write(folder / f"{i}.wav", wav, TINY_RATE)
    with open(folder / "clips.jsonl", "w", encoding="utf-8") as file:
        for i in range(n_clips):
            wav = str(folder / f"{i % n_files}.wav")
            print(json.dumps({"id": f"{i:07d}", "wav": wav}), file=file)


def tiny_model():
    """A classifier and its decoder with few weights, which are random."""
    torch.manual_seed(0)
    embedding = ConvEmbedding(n_mels=40, channels=[4, 8, 16])
    classifier = FrozenClassifier(
        embedding,
        torch.nn.Linear(16, 3),
        ["blocks.2", "blocks.1"],
        min_frames=4,
    )
    decoder = MaskDecoder([16, 16, 8], n_mels=40, width=8)
    explainer = Explainer(SpectralFeatures(n_mels=40), classifier, decoder)
    labels = CategoricalEncoder()
    labels.update_from_iterable(["cat", "cow", "dog"])
    hparams = {"preprocess": Preprocessor(TINY_RATE), "label_encoder": labels}
    return LMACInterpreter({"explainer": explainer}, hparams)


def measure_rates(args):
    """Table of the steps of a clip."""
    found = in_own_process(rates, args.sizes["repeats"], threads=1)
    rows = [
        {"Step": name, "clips/s a core": rate} for name, rate in found.items()
    ]
    return table("What is done with a clip of 5 s", rows)


def measure_shares(args):
    """Table of explaining a corpus over the number of processes."""
    rows, first = [], None
    n_clips = args.sizes["shared"]
    for n_processes, n_threads in [
        *((n, None) for n in args.sizes["processes"]),
        *((1, n) for n in args.sizes["at_once"]),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            rate, spent = shared(n_processes, n_clips, folder, n_threads)
        first = first or rate
        n_workers = n_threads or n_processes
        rows.append(
            {
                "Processes": n_processes,
                "clips at once in each": n_threads or 1,
                "explain to rows, clips/s": rate,
                "efficiency": rate / first / n_workers,
                "processor time, s": spent,
            }
        )
    return table("Processes that share a corpus", rows)


def measure_rows(args):
    """Table of time and memory over the number of clips."""
    rows = []
    for n_clips in args.sizes["rows"]:
        with tempfile.TemporaryDirectory() as folder:
            taken, memory = in_own_process(rows_of, folder, n_clips, threads=1)
        rows.append({"Clips": n_clips, "rows, s": taken, "memory, MB": memory})
    return table("Clips explained to rows", rows)


def table(name, rows):
    """Print rows."""
    print(f"\n### {name}\n")
    print_table(rows)
    return {"rows": rows}
