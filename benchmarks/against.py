#!/usr/bin/env python3
"""Why this class and not that, in scenes of two events of two classes.

    python benchmarks/against.py --runs results/classifier_conv/1234 \
        results/classifier_conv/1235 results/classifier_conv/1236
    python benchmarks/against.py --runs results/lmac/1234

Of each scene, A is the class of the event that is named first and B that of the
other. Asked is why A, why A and not B, and why B and not A. *event_mass* is the
share of the mask that lies on A's event, *other_mass* that on B's, whichever
way was asked. AI, AD and FF are about the answer that is asked for.

The runs are of classifiers, by train_classifier.py or train_multilabel.py, or
of a decoder for one. Masks are made by gradient steps from nothing, as
`lmac_sb.explain` makes them, and by the decoder if there is one. It was trained
to explain decisions alone.

A figure of a scene is its mean over the runs, and the intervals are over
scenes; the last table shows how far the runs are apart.
"""

import argparse
import math
import tempfile
from pathlib import Path
from statistics import fmean

import soundfile as sf
import torch
from hyperpyyaml import load_hyperpyyaml
from measure import (
    count,
    exit_on_mistake,
    files_of,
    machine,
    n_threads,
    new_file,
    print_table,
    write,
)

from lmac_sb import LMACInterpreter
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.scenes import CLASSES, make_scenes
from lmac_sb.inference.export import load_interpreter
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.classifier_folder import load_classifier
from lmac_sb.models.encoders import embed
from lmac_sb.models.question import Question

RATE = 16000
BATCH = 8
LOCATED = "event_mass", "other_mass"
COLUMNS = ("p", *LOCATED, "area", "AI", "AD", "FF")
PAIRED = ("A against B", "A"), ("A against B", "B against A")


class Hears(torch.nn.Module):
    """A classifier of the recipe, as somebody else's that gets waveforms."""

    def __init__(self, features, embedding_model, classifier):
        super().__init__()
        self.features = features
        self.embedding_model = embedding_model
        self.classifier = classifier

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        magnitude = self.features.magnitude(self.features.stft(wavs))
        return self.classifier(
            embed(self.embedding_model, self.features.mel(magnitude))
        )


def read_scenes(folder, fold, every):
    """Scenes of a fold: name, sound, its two events, and their classes.

    Those of another number of events are left out.
    """
    if not folder.exists():
        make_scenes(folder, n_events=[2])
    preprocess = Preprocessor(RATE)
    scenes = []
    for path in files_of(folder / "audio", f"{fold}-*")[::every]:
        classes = path.stem.rsplit("-", 1)[1].split("+")
        if len(classes) != 2:
            continue
        wav, gain = preprocess(path)
        stems, _ = sf.read(folder / "stems" / path.name, dtype="float32")
        scenes.append(
            {
                "id": path.stem,
                "wav": wav,
                "events": gain * torch.from_numpy(stems.T.copy()),
                "classes": [int(number) for number in classes],
            }
        )
    return scenes


def explainers(run):
    """Ways to masks for the classifier of a run, by name; its classes."""
    ways = {}
    if (Path(run) / "model").is_dir():
        net, classes, multilabel = read_classifier(run)
    else:
        trained = load_interpreter(run)
        explainer, classes = trained.explainer, trained.classes
        net = explainer.classify_sounds
        multilabel = explainer.classifier.multilabel
        ways = {f"decoder, {n} steps": (explainer, n) for n in (0, 5)}
    nothing = LMACInterpreter.from_classifier(
        net, RATE, classes, multilabel=multilabel
    )
    return {"20 steps from nothing": (nothing.explainer, 20), **ways}, classes


def read_classifier(run):
    """Network, classes, and whether it decides each on its own."""
    run = Path(run)
    hparams = load_hyperpyyaml((run / "hyperparams.yaml").read_text("utf-8"))
    parts = {key: hparams[key] for key in ("embedding_model", "classifier")}
    encoder = hparams["label_encoder"]
    config = load_classifier(run / "model", parts, encoder, run / "model")
    classes = [encoder.ind2lab[number] for number in range(len(encoder))]
    net = Hears(hparams["features"], **parts).eval()
    return net, classes, config["multilabel"]


def questions(a, b):
    """What is asked of scenes with these classes, [batch] each."""
    return {
        "A": Question(a),
        "A against B": Question(a, b),
        "B against A": Question(b, a),
    }


def explained(explainer, steps, scenes, numbers):
    """A row for each scene and question.

    Arguments
    ---------
    explainer : lmac_sb.Explainer
        Of the classifier.
    steps : int
        Gradient steps.
    scenes : list of dict
        From `read_scenes`, of one length.
    numbers : dict
        The classifier's number of each class of the scenes.
    """
    wavs = torch.stack([scene["wav"] for scene in scenes])
    classes = [[numbers[c] for c in scene["classes"]] for scene in scenes]
    a, b = torch.tensor(classes).unbind(1)
    whole = explainer.features.stft(wavs)
    events = torch.stack([scene["events"] for scene in scenes], 1)
    own, other = (ideal_mask(explainer.features.stft(x), whole) for x in events)
    for asked, question in questions(a, b).items():
        found = explainer(
            wavs, target=question, sounds=False, refine_steps=steps
        )
        values = evaluate(found.asked(), event=own, others=other)
        values["p"] = found.p_before
        more = found.logits.gather(1, torch.stack((a, b), 1))
        for i, scene in enumerate(scenes):
            row = {key: float(values[key][i]) for key in COLUMNS}
            row["A is heard more"] = bool(more[i, 0] > more[i, 1])
            yield {"id": scene["id"], "asked": asked, **row}
    ones = torch.ones_like(own)
    places = evaluate(
        explainer.complete(explainer.analyze(wavs), ones, a, sounds=False),
        event=own,
        others=other,
    )
    for i, scene in enumerate(scenes):
        row = {key: float(places[key][i]) for key in LOCATED}
        yield {"id": scene["id"], "asked": "whole sound", **row}


@torch.no_grad()
def decided(explainer, scenes, numbers):
    """Shares of scenes whose most probable class, or two, are the events'."""
    wavs = torch.stack([scene["wav"] for scene in scenes])
    order = explainer.classify_sounds(wavs).argsort(1, descending=True)
    right = [{numbers[c] for c in scene["classes"]} for scene in scenes]
    first, both = zip(
        *(
            (row[0] in classes, set(row[:2]) == classes)
            for row, classes in zip(order.tolist(), right)
        )
    )
    return fmean(first), fmean(both)


def measure(runs, scenes, names):
    """Rows of all runs, each with its way to a mask."""
    rows = []
    for run in runs:
        ways, classes = explainers(run)
        numbers = {i: classes.index(name) for i, name in enumerate(names)}
        first, both = decided(next(iter(ways.values()))[0], scenes, numbers)
        print(
            f"{run}: the first class is an event's in {first:.0%} of "
            f"{len(scenes)} scenes, the first two are in {both:.0%}",
            flush=True,
        )
        for way, (explainer, steps) in ways.items():
            for i in range(0, len(scenes), BATCH):
                part = scenes[i : i + BATCH]
                for row in explained(explainer, steps, part, numbers):
                    rows.append({"run": str(run), "way": way, **row})
    return rows


def over_runs(rows):
    """One row for each scene and question: its mean over the runs."""
    groups = {}
    for row in rows:
        groups.setdefault((row["id"], row["asked"]), []).append(row)
    return [
        {"id": clip, "asked": asked, **_means(part)}
        for (clip, asked), part in groups.items()
    ]


def _means(rows):
    """Mean of each column that there is, NaN left out."""
    means = {}
    for key in COLUMNS:
        values = [row[key] for row in rows if key in row]
        values = [value for value in values if not math.isnan(value)]
        if values:
            means[key] = fmean(values)
    return means


def show(rows):
    """Print a table of each way, and differences paired by scene."""
    found = over_runs(rows)
    print(markdown_table(summarize(found, "asked", None, COLUMNS), COLUMNS))
    differences = []
    for one, other in PAIRED:
        summary = summarize(found, "asked", one, COLUMNS)[other]
        for key in LOCATED:
            figure = summary[key]["difference"]
            ahead = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**figure)
            what = f"{one} − {other}"
            differences.append({"difference": what, "in": key, "": ahead})
    print()
    print_table(differences)


def by_run(rows):
    """A row of each run, way and question with its means."""
    groups = {}
    for row in rows:
        key = row["run"], row["way"], row["asked"]
        groups.setdefault(key, []).append(row)
    return [
        {"run": run, "way": way, "asked": asked, **_means(part)}
        for (run, way, asked), part in groups.items()
        if asked != "whole sound"
    ]


@exit_on_mistake
def main(argv=None):
    """Measure, print the tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--scenes", type=Path, help="folder; made if missing")
    parser.add_argument("--fold", type=int, default=5)
    parser.add_argument(
        "--every", type=count, default=1, help="of so many clips"
    )
    parser.add_argument("--threads", type=n_threads, default=1)
    parser.add_argument("--json", type=new_file, help="file for the rows")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        place = args.scenes or Path(folder) / "scenes"
        scenes = read_scenes(place, args.fold, args.every)
    rows = measure(args.runs, scenes, CLASSES)
    for way in dict.fromkeys(row["way"] for row in rows):
        part = [row for row in rows if row["way"] == way]
        print(f"\n{way}, {len(scenes)} scenes\n")
        show(part)
        for more in (True, False):
            half = [r for r in part if r.get("A is heard more") is more]
            print(f"\n{way}, A is heard {'more' if more else 'less'} than B\n")
            show(half)
    print()
    print_table(by_run(rows))
    write(args.json, {"machine": machine(args.threads), "rows": rows})


if __name__ == "__main__":
    main()
