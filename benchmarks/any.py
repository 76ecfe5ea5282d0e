#!/usr/bin/env python3
"""Masks of classifiers that were not made to be explained.

    python benchmarks/any.py --results FOLDER [--data FOLDER] [--only NAME]

For each classifier: gradient steps from nothing, a decoder that `lmac_sb.fit`
has trained, and the same with a few steps. The classifiers are two that
`train_classifier.py` has trained on the scenes (their runs are in FOLDER),
CREPE (`tiny`, its package's weights) on synthesised notes, and a small
wav2vec2-like model, which is trained here on spoken digits. Explained are
clips that neither classifier nor decoder has seen.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from measure import count, exit_on_mistake, files_of, new_file, write

import lmac_sb
from lmac_sb.data.audio import read_audio
from lmac_sb.metrics.registry import evaluate
from lmac_sb.models.classifier_folder import load_classifier
from lmac_sb.utils.errors import LMACError

COLUMNS = ("AI", "AD", "AG", "FF", "area")
STEPS = 20
TESTS = Path(__file__).resolve().parents[1] / "tests"


class Scenes(torch.nn.Module):
    """A classifier of the recipe, from waveforms to logits."""

    def __init__(self, hparams):
        super().__init__()
        self.features = hparams["features"]
        self.embedding_model = hparams["embedding_model"]
        self.classifier = hparams["classifier"]

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        features = self.features
        mel = features.mel(features.magnitude(features.stft(wavs)))
        return self.classifier(self.embedding_model(mel))


def scenes(name, options):
    """A classifier of the scenes; clips to fit and to test with."""
    run = Path(options.results) / name / str(options.seed)
    hparams = load_hyperpyyaml((run / "hyperparams.yaml").read_text("utf-8"))
    modules = {key: hparams[key] for key in ("embedding_model", "classifier")}
    encoder = hparams["label_encoder"]
    load_classifier(run / "model", modules, encoder, run / "model")
    labels = [encoder.ind2lab[number] for number in range(len(encoder))]
    folder = Path(options.results) / "scenes" / "audio"
    files = {fold: files_of(folder, f"{fold}-*") for fold in "125"}
    interpreter = lmac_sb.LMACInterpreter.from_classifier(
        Scenes(hparams).eval(), 16000, labels
    )
    clips = [_peak(read_audio(file, 16000)) for file in files["1"] + files["2"]]
    tested = [_peak(read_audio(file, 16000)) for file in files["5"]]
    return interpreter, clips, tested


def _peak(wav):
    """A clip as the recipe's classifiers hear it."""
    return wav / wav.abs().max().clamp(min=1e-6)


def crepe(options):
    """CREPE on notes in noise."""
    from real_models import make_note

    from lmac_sb.adapters.crepe import load_crepe

    # Coarser than the package's 10 ms, for speed.
    listener = load_crepe("tiny", hop=640, pool="max")
    interpreter = lmac_sb.LMACInterpreter.from_classifier(listener)
    n_clips = options.train + options.clips
    clips = [
        torch.as_tensor(make_note(options.seed, i)[1], dtype=torch.float32)
        for i in range(n_clips)
    ]
    return interpreter, clips[options.clips :], clips[: options.clips]


def digits(options):
    """A small wav2vec2-like model on spoken digits."""
    sys.path.insert(0, str(TESTS / "unit" / "adapters"))
    from digits import read_digits, train_digits

    if options.data is None:
        raise LMACError("--data: expected the folder of spoken digits")
    folder = options.digits
    if folder is None:
        folder = tempfile.mkdtemp()
        right = train_digits(folder, options.data)
        print(f"digits: accuracy {right:.3f}", flush=True)
    interpreter = lmac_sb.LMACInterpreter.from_classifier(folder)
    parts = []
    for split in ("train", "test"):
        wavs, _ = read_digits(options.data, split)
        parts.append([torch.from_numpy(wav) for wav in wavs])
    return interpreter, *parts


CLASSIFIERS = {
    "small CNN": lambda options: scenes("classifier_conv", options),
    "Transformer": lambda options: scenes("classifier_attention", options),
    "CREPE tiny": crepe,
    "wav2vec2-like": digits,
}


def spread(items, count):
    """So many items, evenly spread over all."""
    count = min(count, len(items))
    return [items[len(items) * i // count] for i in range(count)]


def judged(interpreter, clips, steps):
    """Means of the metrics, and seconds a clip."""
    values, start = {name: [] for name in COLUMNS}, time.perf_counter()
    for clip in clips:
        found = interpreter.explainer(
            clip[None], sounds=False, refine_steps=steps
        ).asked()
        row = evaluate(found)
        for name in COLUMNS:
            values[name] += row[name].tolist()
    seconds = (time.perf_counter() - start) / len(clips)
    means = {name: sum(v) / len(v) for name, v in values.items()}
    return {**means, "s a clip": seconds}


def measure(name, options):
    """Rows of one classifier."""
    interpreter, clips, tested = CLASSIFIERS[name](options)
    clips = spread(clips, options.train)
    tested = spread(tested, options.clips)
    rows = [
        {
            "mask": "loud bins, where steps start",
            **judged(interpreter, tested, 0),
        },
        {
            "mask": f"{STEPS} steps from nothing",
            **judged(interpreter, tested, STEPS),
        },
    ]
    start = time.perf_counter()
    trained = lmac_sb.fit(
        interpreter, clips, options.epochs, seed=options.seed, batch_size=4
    )
    seconds = time.perf_counter() - start
    layers = [x.name for x in trained.explainer.classifier.layers]
    print(
        f"{name}: {len(clips)} clips, {len(trained.history)} epochs in "
        f"{seconds:.0f} s; layers {', '.join(layers)}",
        flush=True,
    )
    for steps in (0, 5, STEPS):
        what = f"decoder + {steps} steps" if steps else "decoder, one pass"
        rows.append({"mask": what, **judged(trained, tested, steps)})
    return [
        {"classifier": name, "fit, s": seconds, "clips": len(tested), **row}
        for row in rows
    ]


@exit_on_mistake
def main(argv=None):
    """Measure, print the table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default="results", help="the recipe's")
    parser.add_argument("--data", help="folder of real data, for fsdd")
    parser.add_argument("--digits", help="folder of the model of digits")
    parser.add_argument("--only", action="append", choices=CLASSIFIERS)
    parser.add_argument("--train", type=count, default=120)
    parser.add_argument("--epochs", type=count, default=6)
    parser.add_argument("--clips", type=count, default=30)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--json", type=new_file, help="file for the results")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = []
    for name in options.only or CLASSIFIERS:
        rows += measure(name, options)
    print("| classifier | mask | " + " | ".join(COLUMNS) + " | s a clip |")
    print("|---" * (len(COLUMNS) + 3) + "|")
    digits_of = dict(zip(COLUMNS, (1, 2, 1, 3, 3)))
    for row in rows:
        cells = [f"{row[c]:.{digits_of[c]}f}" for c in COLUMNS]
        cells.append(f"{row['s a clip']:.2f}")
        print(f"| {row['classifier']} | {row['mask']} | {' | '.join(cells)} |")
    write(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
