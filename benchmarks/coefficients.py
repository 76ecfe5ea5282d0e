#!/usr/bin/env python3
"""Coefficients of refinement: offsets alone, or offset and gain.

    python benchmarks/coefficients.py --data_folder ESC-10 --fold 4 \
        --runs results/lmac/1234 results/lmac/1235 results/lmac/1236 \
        --judge results/judge/2234/model
    python benchmarks/coefficients.py --data_folder ESC-10 --fold 4 --yamnet \
        --judge results/judge/2234/model

Masks from nothing and from a trained decoder, for the small CNN that each run
explains, or for YAMNet (`pip install "lmac-sb[yamnet]"`). Judges that had no
part in the masks hear the sounds: a small CNN of another split and training,
and for YAMNet also a linear layer on its embedding, trained on folds 1 and 2.
*Level* is where refinement starts if no decoder was trained. With `--choose`,
more settings around the defaults: use clips for it that are not reported on.
"""

import argparse
import csv
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from measure import (
    check_names,
    count,
    exit_on_mistake,
    machine,
    n_threads,
    new_file,
    write,
)
from speechbrain.dataio.encoder import CategoricalEncoder
from yamnet import SAMPLE_RATE, Highest, check_yamnet, load_yamnet

from lmac_sb.bench.yamnet import KNOWN, MEANS, fit_layer
from lmac_sb.data.audio import Preprocessor
from lmac_sb.inference.export import load_interpreter
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.lmac.refine import Refiner
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.classifier_folder import load_classifier
from lmac_sb.models.decoder import LevelDecoder
from lmac_sb.models.encoders import ConvEmbedding, embed
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.utils.errors import LMACError

OFFSETS = {"gain": False, "resolution": 4, "lr": 1.0, "smooth_w": 0.05}
PAIRS = {"gain": True, "resolution": 4, "lr": 0.5, "smooth_w": 0.0}
START = -1.0, 2.0
PAIRED = (
    (
        "nothing, 20 steps, offset and gain",
        "nothing, 20 steps, offsets",
    ),
    ("level, 5 steps, offset and gain", "level, 5 steps, offsets"),
    ("decoder, 5 steps, offset and gain", "decoder, 5 steps, offsets"),
)
JUDGED = "AI", "AD", "AG", "FF"
BATCH = 8
N_SETS = 3  # of YAMNet's clips, in place of trainings


class PerBin(Refiner):
    """A refiner whose level has mean 0 and deviation 1 in each bin."""

    def __call__(self, logits, classify, target, steps, level=None):
        """Refine masks, see `Refiner`."""
        if level is not None:
            level = level - level.mean(1, keepdim=True)
            spread = level.square().mean(1, keepdim=True).sqrt()
            level = level / spread.clamp(min=1e-6)
        return super().__call__(logits, classify, target, steps, level)


class Half(torch.nn.Module):
    """Where offsets start if no decoder was trained."""

    def forward(self, latents, log_magnitude):
        """Mask logits [batch, time, freq], see `MaskDecoder.forward`."""
        return torch.zeros_like(log_magnitude)


@dataclass
class Setting:
    """A way to a mask.

    Arguments
    ---------
    decoder : torch.nn.Module
        Where it starts; None for the trained decoder.
    steps : int
        Gradient steps.
    refiner : dict
        Settings of the refiner.
    area_w : float
        Weight of the mask's mean.
    mask_domain : str
        Where the mask acts.
    kind : type
        The refiner.
    """

    decoder: torch.nn.Module = None
    steps: int = 20
    refiner: dict = field(default_factory=lambda: dict(PAIRS))
    area_w: float = 4
    mask_domain: str = "linear"
    kind: type = Refiner

    def explainer(self, model):
        """Explainer of a subject in this way."""
        loss = LMACLoss(
            l_in_w=12,
            l_out_w=8,
            l_out_type="probability",
            reg_w_l1=self.area_w,
        )
        return Explainer(
            model.features,
            model.classifier,
            model.decoder if self.decoder is None else self.decoder,
            mask_domain=self.mask_domain,
            refiner=self.kind(loss, **self.refiner),
            refine_steps=self.steps,
        )


def make_settings(choose):
    """Settings by name."""
    level = LevelDecoder(*START)
    nothing = {
        "nothing, 20 steps, offsets": Setting(Half(), 20, OFFSETS),
        "nothing, 20 steps, offset and gain": Setting(level),
    }
    if not choose:
        return {
            **nothing,
            "level": Setting(level, 0),
            "level, 5 steps, offsets": Setting(level, 5, OFFSETS),
            "level, 5 steps, offset and gain": Setting(level, 5),
            "decoder": Setting(None, 0),
            "decoder, 5 steps, offsets": Setting(None, 5, OFFSETS),
            "decoder, 5 steps, offset and gain": Setting(None, 5),
        }
    change = {**PAIRS}.__or__
    return {
        **nothing,
        "8 x 8": Setting(level, 20, change({"resolution": 8})),
        "16 x 16": Setting(level, 20, change({"resolution": 16})),
        "lr 0.3": Setting(level, 20, change({"lr": 0.3})),
        "lr 1": Setting(level, 20, change({"lr": 1.0})),
        "start -2 and 2": Setting(LevelDecoder(-2.0, 2.0)),
        "level of each bin": Setting(level, kind=PerBin),
        "area's weight 8": Setting(level, area_w=8),
        "mask on log1p": Setting(level, mask_domain="log1p"),
    }


@dataclass
class Model:
    """A model to explain.

    Arguments
    ---------
    features : torch.nn.Module
        Its front end.
    classifier : FrozenClassifier
        The model.
    decoder : torch.nn.Module
        A trained one, or None.
    judges : dict
        Name to a function from waveforms to logits of `classes`.
    classes : list of str
        Their names.
    """

    features: torch.nn.Module
    classifier: FrozenClassifier
    decoder: torch.nn.Module
    judges: dict
    classes: list


def small_cnn(folder, judge):
    """The classifier and the decoder of a run of train_lmac.py.

    A folder of train_classifier.py does as well; it has no decoder.
    """
    if (Path(folder) / "classifier.ckpt").is_file():
        embedding, head, classes = load_small(folder)
        features, decoder = SpectralFeatures(), None
        classifier = FrozenClassifier(
            embedding, head, [], min_frames=32, evidence=False
        )
    else:
        interpreter = load_interpreter(folder)
        explainer, classes = interpreter.explainer.eval(), interpreter.classes
        features, decoder = explainer.features, explainer.decoder
        classifier = explainer.classifier
    judges = {"CNN": small_judge(judge, classes)}
    return Model(features, classifier, decoder, judges, classes)


def load_small(folder):
    """Embedding model, classifier and classes of train_classifier.py."""
    encoder = CategoricalEncoder()
    embedding = ConvEmbedding(80, [8, 16, 32, 64, 128, 256])
    head = torch.nn.Linear(256, 10)
    parts = {"embedding_model": embedding, "classifier": head}
    load_classifier(folder, parts, encoder, "unused")
    classes = [encoder.ind2lab[c] for c in range(len(encoder))]
    return embedding.eval(), head.eval(), classes


def small_judge(folder, classes):
    """Function from waveforms to logits, of a folder of train_classifier.py."""
    embedding, head, found = load_small(folder)
    if found != list(classes):
        raise LMACError(f"{folder}: found {found}, expected {classes}")
    features = SpectralFeatures()

    def judge(wavs):
        """Logits [batch, classes]."""
        mel = features.mel(features.magnitude(features.stft(wavs)))
        return head(embed(embedding, mel))

    return judge


def yamnet_models(clips, judge):
    """YAMNet's answer for each of the classes, and its judges.

    Each clip gets the probability of its class as ``p``.
    """
    net, labels = load_yamnet()
    check_yamnet(net, labels)
    classes = sorted(MEANS)
    heads = [labels.index(MEANS[name]) for name in classes]
    with torch.no_grad():
        for clip in clips:
            p = net(clip["wav"][None])[0, heads].sigmoid()
            clip["p"] = p[classes.index(clip["category"])].item()
    judges = {
        "linear": linear_judge(net, clips, classes),
        "CNN": small_judge(judge, classes),
    }
    models = {}
    for name, head in zip(classes, heads):
        answer = FrozenClassifier(
            Highest(net, head),
            torch.nn.Identity(),
            [],
            evidence=False,
            multilabel=True,
        )
        features = SoundFeatures(SAMPLE_RATE)
        models[name] = Model(features, answer, None, judges, classes)
    return models


def linear_judge(net, clips, classes, seed=0, folds=(1, 2)):
    """A linear layer on the largest embedding, trained on some folds."""
    learning = [clip for clip in clips if clip["fold"] in folds]
    labels = torch.tensor([classes.index(x["category"]) for x in learning])

    def embed(wavs):
        """The largest of all patches in each dimension, [batch, 1024]."""
        return net.listener.logits_and_embedding(wavs)[1]

    with torch.no_grad():
        inputs = torch.cat([embed(clip["wav"][None]) for clip in learning])
    layer = fit_layer(inputs, labels, seed=seed)
    return lambda wavs: layer(embed(wavs))


def read_clips(folder, folds):
    """Clips of 5 s of some folds of a folder in the layout of ESC-50."""
    preprocess = Preprocessor(SAMPLE_RATE, signal_length_s=5)
    table = Path(folder) / "meta" / "esc50.csv"
    with open(table, encoding="utf-8", newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if int(row["fold"]) in folds
        ]
    return [
        {
            "id": row["filename"],
            "category": row["category"],
            "fold": int(row["fold"]),
            "wav": preprocess(Path(folder) / "audio" / row["filename"])[0],
        }
        for row in rows
    ]


def of_fold(clips, fold):
    """Those of one fold."""
    found = [clip for clip in clips if clip["fold"] == fold]
    if not found:
        raise LMACError(f"--fold: found no clips of fold {fold}")
    return found


@torch.no_grad()
def by_judges(found, wavs, judges, label):
    """What judges say of an explanation's sounds, columns of [batch].

    Arguments
    ---------
    found : lmac_sb.Explanation
        With its sounds.
    wavs : torch.Tensor
        What was explained, [batch, samples].
    judges : dict
        Name to a function from waveforms to logits.
    label : torch.Tensor
        The class that the judges are asked for, [batch].
    """
    columns = {}
    for name, judge in judges.items():
        sides = wavs, found.waveform, found.residual
        whole, inside, outside = (judge(side) for side in sides)
        told = replace(
            found,
            logits=whole,
            logits_in=inside,
            logits_out=outside,
            decision=label,
            mask=None,
            question=None,
        )
        values, known = evaluate(told), told.p_before > KNOWN
        for key in JUDGED:
            columns[f"{name} {key}"] = values[key].where(known, math.nan)
    return columns


def judged(model, clips, setting, seed):
    """A row for each clip: what the model says, and what the judges say."""
    explainer = setting.explainer(model)
    wavs = torch.stack([clip["wav"] for clip in clips])
    start = time.process_time()
    found = explainer(wavs).cpu()
    seconds = (time.process_time() - start) / len(clips)
    columns = dict(evaluate(found.asked()))
    if model.classifier.multilabel:
        label = [model.classes.index(clip["category"]) for clip in clips]
        label = torch.tensor(label)
    else:
        label = found.decision
    columns |= by_judges(found, wavs, model.judges, label)
    rows = []
    for i, clip in enumerate(clips):
        row = {key: value[i].item() for key, value in columns.items()}
        row |= {"id": f"{clip['id']} {seed}", "seed": seed, "seconds": seconds}
        rows.append(row)
    return rows


def measure(args):
    """All rows, each with its setting's name."""
    settings = make_settings(args.choose)
    if args.only:
        check_names("--only", args.only, settings)
        settings = {name: settings[name] for name in args.only}
    clips = read_clips(args.data_folder, range(1, 6))
    asked = of_fold(clips, args.fold)
    if args.yamnet:
        models = yamnet_models(clips, args.judge)
        asked = [clip for clip in asked if clip["p"] > KNOWN][:: args.every]
        groups = [
            (models[name], part, seed)
            for seed in range(N_SETS)
            for name in models
            for part in [
                [x for x in asked[seed::N_SETS] if x["category"] == name]
            ]
        ]
    else:
        groups = [
            (small_cnn(run, args.judge), asked[:: args.every], run)
            for run in args.runs
        ]
    rows = []
    for name, setting in settings.items():
        for model, part, seed in groups:
            if setting.decoder is None and model.decoder is None:
                continue  # there is no trained one
            for i in range(0, len(part), BATCH):
                batch = part[i : i + BATCH]
                for row in judged(model, batch, setting, seed):
                    rows.append({"method": name, **row})
        print(name, flush=True)
    return rows


def show(rows):
    """Print the tables: over all seeds, differences, and each seed."""
    judges = sorted({k.rsplit(" ", 1)[0] for k in rows[0] if k.endswith(" AD")})
    columns = ["AI", "AD", "AG", "FF", "area"]
    columns += [f"{judge} {key}" for judge in judges for key in JUDGED]
    found = summarize(rows, columns=columns)
    print(markdown_table(found, columns, by="mask"))
    print("\nDifferences, paired by clip, with 95 % intervals:\n")
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for one, other in PAIRED:
        if one in found and other in found:
            part = summarize(rows, reference=one, columns=columns)[other]
            cells = [
                "{mean:.3g} [{low:.3g}, {high:.3g}]".format(**x["difference"])
                for x in (part[column] for column in columns)
            ]
            print(f"| {one} − {other} | " + " | ".join(cells) + " |")
    for seed in sorted({row["seed"] for row in rows}, key=str):
        part = [row for row in rows if row["seed"] == seed]
        print(f"\nseed or set {seed}, {len({x['id'] for x in part})} clips\n")
        found = summarize(part, columns=columns)
        print(markdown_table(found, columns, by="mask"))


@exit_on_mistake
def main(argv=None):
    """Measure, print the tables, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_folder", required=True)
    parser.add_argument("--fold", type=int, default=4)
    parser.add_argument(
        "--every", type=count, default=1, help="of so many clips"
    )
    parser.add_argument(
        "--runs", nargs="*", default=[], help="of train_lmac.py, or classifiers"
    )
    parser.add_argument("--judge", required=True, help="model folder")
    parser.add_argument("--yamnet", action="store_true")
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of settings")
    parser.add_argument("--threads", type=n_threads, default=1)
    parser.add_argument("--json", type=new_file, help="file for the rows")
    args = parser.parse_args(argv)
    if not args.yamnet and not args.runs:
        parser.error("expected --runs or --yamnet")
    torch.set_num_threads(args.threads)
    rows = measure(args)
    show(rows)
    write(args.json, {"machine": machine(args.threads), "rows": rows})


if __name__ == "__main__":
    main()
