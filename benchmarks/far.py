#!/usr/bin/env python3
"""How well a classifier's own numbers tell sounds that it was not made for.

    python benchmarks/far.py RUN [RUN ...] --data $LMAC_SB_DATA

Each run is a finished one of `train_classifier.py` on ESC-10, trained on some
folds, with a validation and a test fold that are left out of the training. A
score is measured on the embeddings and the logits; its limit is where 95 % of
the validation clips are below. The table has, for each score, the means over
the runs: the share of test clips above the limit (false alarms), and of each
kind of far sounds the area under the ROC curve against the test clips, and the
share above the limit (hits). The speech of Picovoice and the noise of `tr` and
`cv` chose the score (column "chose"), all others did not.
"""

import argparse
import random
import tempfile
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml
from measure import exit_on_mistake, files_of
from torch.nn import functional as F

from lmac_sb.data.manifest import read_entries
from lmac_sb.data.scenes import make_scenes
from lmac_sb.data.streaming import read_signal
from lmac_sb.models.encoders import embed
from lmac_sb.models.familiarity import SHARE, Familiarity
from lmac_sb.models.weights import load_strict

RATE, SECONDS = 16000, 5
CUTS = 8  # of a recording of noise, at most
SAMPLE = 150  # digits, and scenes
NEIGHBOURS = 5
CHOSE = ("picovoice", "noise tr+cv")  # what the score was chosen on


def some(folder, kind, n=SAMPLE):
    """Some sounds of a folder, the same in each call."""
    paths = files_of(folder, f"*.{kind}")
    chosen = random.Random(0).sample(paths, min(n, len(paths)))
    return [read_signal(path, RATE) for path in chosen]


def cuts(folder):
    """Cuts of long recordings, spread over each."""
    found, size = [], SECONDS * RATE
    for path in files_of(folder, "*.flac"):
        wav = read_signal(path, RATE)
        n = max(1, len(wav) // size)
        for place in sorted({n * i // CUTS for i in range(CUTS)}):
            found.append(wav[place * size : (place + 1) * size])
    return found


def far_sounds(data):
    """Sounds of none of the classes, by kind."""
    found = {
        "picovoice": some(data / "speech" / "picovoice", "flac"),
        "noise tr+cv": cuts(data / "noise" / "tr")
        + cuts(data / "noise" / "cv"),
        "LJSpeech": some(data / "speech" / "ljspeech", "flac"),
        "digits": some(data / "fsdd" / "recordings", "flac"),
        "noise tt": cuts(data / "noise" / "tt"),
    }
    with tempfile.TemporaryDirectory() as folder:
        scenes = make_scenes(Path(folder) / "s")
        found["scenes"] = some(Path(scenes) / "audio", "wav")
    return found


class Heard:
    """What the classifier of a run makes of sounds."""

    def __init__(self, run):
        with open(run / "hyperparams.yaml", encoding="utf-8") as file:
            self.parts = load_hyperpyyaml(file)
        for name in ("embedding_model", "classifier"):
            load_strict(self.parts[name].eval(), run / "model" / f"{name}.ckpt")

    @torch.no_grad()
    def __call__(self, sounds):
        """Embeddings [sounds, dim] and logits [sounds, classes]."""
        features, embeddings = self.parts["features"], []
        for sound in sounds:
            wav, _ = self.parts["preprocess"].process(sound, RATE)
            mel = features.mel(features.magnitude(features.stft(wav[None])))
            embeddings.append(embed(self.parts["embedding_model"], mel))
        embeddings = torch.cat(embeddings).flatten(1)
        return embeddings, self.parts["classifier"](embeddings)


def scores(train, labels, valid):
    """Functions of embeddings and logits that are large for far sounds."""
    places = F.normalize(train)
    n_classes = valid[1].shape[1]
    known = Familiarity(n_classes, train.shape[1]).fit(train, labels, *valid)

    def distance(embeddings, logits):
        """Mahalanobis' alone: without doubt, the decision is sure."""
        return known(embeddings, F.one_hot(logits.argmax(1)) * 1e4)

    def neighbour(embeddings, logits):
        """Distance to one of the nearest training clips."""
        apart = torch.cdist(F.normalize(embeddings), places)
        return apart.topk(NEIGHBOURS, largest=False).values[:, -1]

    return {
        "1 − greatest probability": lambda e, x: 1 - x.softmax(1).amax(1),
        "entropy": lambda e, x: torch.special.entr(x.softmax(1)).sum(1),
        "energy": lambda e, x: -x.logsumexp(1),
        "nearest training clips": neighbour,
        "Mahalanobis": distance,
        "Mahalanobis × (1 + entropy)": known,
    }


def area(near, far):
    """Area under the ROC curve: how often far is above near."""
    above = (far[:, None] > near).float() + (far[:, None] == near).float() / 2
    return float(above.mean())


@torch.no_grad()
def measure(run, far):
    """Rows of a run: score to kind to area and share above the limit."""
    heard, wavs, labels = Heard(run), {}, {}
    for name in ("train", "valid", "test"):
        path = run / "manifests" / f"{name}.jsonl"
        entries = [entry for _, entry in read_entries(path)]
        wavs[name] = [read_signal(x["wav"], RATE) for x in entries]
        labels[name] = [x["class_string"] for x in entries]
    names = sorted(set(labels["train"]))
    numbers = torch.tensor([names.index(x) for x in labels["train"]])
    near = {name: heard(sounds) for name, sounds in wavs.items()}
    others = {name: heard(sounds) for name, sounds in far.items()}
    rows = {}
    for score, function in scores(
        near["train"][0], numbers, near["valid"]
    ).items():
        limit = function(*near["valid"]).quantile(SHARE)
        test = function(*near["test"])
        rows[score] = {"test": (0.5, float((test > limit).float().mean()))}
        for name, values in others.items():
            found = function(*values)
            hits = float((found > limit).float().mean())
            rows[score][name] = area(test, found), hits
    return rows


@exit_on_mistake
def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args(argv)
    far = far_sounds(args.data)
    found = [measure(run, far) for run in args.runs]
    heads = [f"{name} (chose)" if name in CHOSE else name for name in far]
    print("| score | false alarms | " + " | ".join(heads) + " |")
    print("|---" * (len(far) + 2) + "|")
    for score in found[0]:
        mean = torch.tensor([list(rows[score].values()) for rows in found])
        (_, alarms), *others = mean.mean(0).tolist()
        cells = (f"{roc:.2f}, {100 * hits:.0f} %" for roc, hits in others)
        print(f"| {score} | {100 * alarms:.1f} % | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
