#!/usr/bin/env python3
"""Does an audit find the shortcuts that were planted, and no others?

    python benchmarks/audit.py --out FOLDER [--processes 2]

Trains 24 tiny classifiers on scenes with a shortcut and 20 on clean ones,
audits each on held-out clips of the same source, and prints a table: how much
each classifier relies on its shortcut, and which alarms are raised. FOLDER
keeps what is done, so the same command goes on where it was stopped.

How much it relies is measured on clips that an audit never sees: the same
scenes without the shortcut, and with it in the clips of all classes.
"""

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Optional

import pandas as pd
import soundfile as sf
import torch
from measure import (
    count,
    count_or_none,
    exit_on_mistake,
    new_file,
    new_folder,
    write,
)

import lmac_sb
from lmac_sb.audit.alarms import LEAST_CLIPS, MOST_Q, find_alarms, tests_of
from lmac_sb.audit.evidence import PARTS, band_edges, donors_of, evidence
from lmac_sb.audit.significance import fdr, larger
from lmac_sb.data.scenes import make_scenes
from lmac_sb.models.features import LogForm, SpectralFeatures
from lmac_sb.utils.io import write_json

RATE = 16000
TRAIN = 3  # folds; those behind them are held out
CLIPS = 8  # of each class in each fold
EPOCHS = 40
LEAST_KEPT = 0.05  # share of the energy, for an alarm by explanations alone
RELIES = 0.1  # share of decisions that change, from which it relies on it
FIRST_SEED = 1000  # those below have been used to choose thresholds

NAMES = ("bounce", "high_band", "sweep_up", "trill", "vibrato")
PLANTED = ("trill", "vibrato", "bounce")  # not told apart without effort

# Where a shortcut is: kind of alarm, and lower and upper end in Hz.
PLACES = {
    "hum": ("band", 40, 330),
    "edge": ("band", 7000, 8000),
    "offset": ("band", 0, 25),
    "click": ("place", None, None),
    "colour": ("background", None, None),
    "event": ("band", 5500, 6500),
}


class Case(NamedTuple):
    """A classifier to train: its shortcut, its seed, and folds held out."""

    seed: int
    kind: Optional[str] = None
    name: Optional[str] = None
    probability: float = 1.0
    held_out: int = 5

    @property
    def title(self):
        """Name of its files."""
        if self.kind is None:
            return f"clean-{self.seed}"
        return f"{self.kind}-{self.name}-{self.probability}-{self.seed}"

    @property
    def folds(self):
        """Those to train on, and those that are held out."""
        n = TRAIN + self.held_out
        return range(1, TRAIN + 1), range(TRAIN + 1, n + 1)

    def shortcuts(self, name):
        """Settings of the scenes, with the shortcut in clips of a class."""
        if self.kind is None:
            return []
        share = 1.0 if name is None else self.probability
        return [{"kind": self.kind, "class": name, "probability": share}]


def cases(first_seed, repeats, n_clean, held_out=5):
    """Classifiers with each shortcut and probability, and clean ones."""
    found = []
    for i, kind in enumerate(PLACES):
        for j, share in enumerate((1.0, 0.9, 0.6, 1.0)[:repeats]):
            name = PLANTED[(i + j) % len(PLANTED)]
            found.append(
                Case(first_seed + len(found), kind, name, share, held_out)
            )
    return found + [
        Case(first_seed + 500 + i, held_out=held_out) for i in range(n_clean)
    ]


class Tiny(torch.nn.Module):
    """Three convolutions over time on log-mel levels, from waveforms."""

    def __init__(self, channels=32):
        super().__init__()
        self.features = SpectralFeatures(
            RATE,
            512,
            win_samples=512,
            hop_samples=320,
            n_mels=40,
            log=LogForm("log", offset=0.1),
        )
        layers = [torch.nn.BatchNorm1d(40)]
        for n_in, n_out in ((40, 32), (32, 32), (32, 64)):
            layers += [
                torch.nn.Conv1d(n_in, n_out, 5, 2, 2),
                torch.nn.BatchNorm1d(n_out),
                torch.nn.ReLU(),
            ]
        self.layers = torch.nn.Sequential(*layers)
        self.quarters = torch.nn.AdaptiveAvgPool1d(4)
        self.classifier = torch.nn.Linear(64 * 5, len(NAMES))

    def levels(self, wavs):
        """Log-mel levels [batch, time, mel] of waveforms."""
        features = self.features
        return features.mel(features.magnitude(features.stft(wavs)))

    def classify(self, levels):
        """Logits of levels."""
        h = self.layers(levels.transpose(1, 2))
        h = torch.cat([h.amax(2), self.quarters(h).flatten(1)], 1)
        return self.classifier(h)

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        return self.classify(self.levels(wavs))


def make(folder, case, shortcuts):
    """Scenes of a case; the same ones whatever is planted."""
    return make_scenes(
        folder,
        CLIPS,
        TRAIN + case.held_out,
        duration_s=1.5,
        seed=case.seed,
        shortcuts=shortcuts,
    )


def read_scenes(folder, folds):
    """Clips [clips, samples], labels, and names of some folds."""
    table = pd.read_csv(folder / "meta" / "esc50.csv")
    table = table[table["fold"].isin(folds) & table["category"].isin(NAMES)]
    wavs = [
        torch.from_numpy(sf.read(folder / "audio" / name, dtype="float32")[0])
        for name in table["filename"]
    ]
    labels = torch.tensor([NAMES.index(x) for x in table["category"]])
    return torch.stack(wavs), labels, table["filename"].tolist()


def train(wavs, labels, seed, lr=0.005, batch=16):
    """Train a classifier."""
    torch.manual_seed(seed)
    model = Tiny()
    with torch.no_grad():
        levels = torch.cat([model.levels(part) for part in wavs.split(32)])
    n_batches = len(levels) // batch
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=EPOCHS * n_batches
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(levels))[: n_batches * batch]
        for rows in order.view(n_batches, batch):
            logits = model.classify(levels[rows])
            loss = torch.nn.functional.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return model.eval()


@torch.no_grad()
def decisions(model, wavs):
    """The class that is heard in each clip."""
    return torch.cat([model(part) for part in wavs.split(32)]).argmax(1)


def reliance(case, model, folder):
    """How much a classifier relies on what was planted, on other clips."""
    found = {}
    scenes = {"without": [], "with": case.shortcuts(None)}
    heard = {}
    for key, shortcuts in scenes.items():
        made = make(folder / key, case, shortcuts)
        wavs, labels, _ = read_scenes(made, case.folds[1])
        heard[key] = decisions(model, wavs)
        found[f"accuracy {key}"] = float((heard[key] == labels).float().mean())
        if case.kind is not None:
            own = labels == NAMES.index(case.name)
            right = (heard[key] == labels)[own]
            found[f"recall {key}"] = float(right.float().mean())
    if case.kind is not None:
        number = NAMES.index(case.name)
        moved = (heard["with"] == number) & (heard["without"] != number)
        found["moved"] = float(moved[~own].float().mean())
    return found


def audit(model, wavs, labels, names, steps):
    """The table of clips, as `lmac audit` makes it; without explanations."""
    interpreter = lmac_sb.LMACInterpreter.from_classifier(
        model, RATE, list(NAMES)
    )
    classes = [NAMES[label] for label in labels.tolist()]
    rows = []
    for i, wav in enumerate(wavs):
        donors = [wavs[j] for j in donors_of(i, classes)]
        explanation = None
        if steps is not None:
            explanation = interpreter.explain_batch(
                wav[None], refine_steps=steps
            )
        row = evidence(interpreter, wav, explanation, donors)
        rows.append({"id": names[i], "label": classes[i], **row})
    return pd.DataFrame(rows)


def run(case, out, steps):
    """Train, audit, and keep what came out."""
    torch.set_num_threads(1)
    place = out / f"{case.title}.json"
    if place.exists():
        return
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = make(folder / "planted", case, case.shortcuts(case.name))
        wavs, labels, _ = read_scenes(made, case.folds[0])
        model = train(wavs, labels, case.seed)
        facts = {**case._asdict(), **reliance(case, model, folder)}
        facts["train_s"] = time.perf_counter() - start
        frame = audit(model, *read_scenes(made, case.folds[1]), steps)
    facts["audit_s"] = time.perf_counter() - start - facts["train_s"]
    frame.to_parquet(out / f"{case.title}.parquet")
    write_json(place, facts)
    print(f"{case.title}: {time.perf_counter() - start:.0f} s", flush=True)


def is_right(case, alarm):
    """Whether an alarm names the shortcut: its class, and what it is."""
    kind, low, high = PLACES[case.kind]
    if alarm.name != case.name or alarm.kind != kind:
        # Another colour of the noise is more or less of it in some bands.
        return alarm.name == case.name and (case.kind, alarm.kind) == (
            "colour",
            "band",
        )
    if kind == "band":
        return alarm.band_hz[0] < high and alarm.band_hz[1] > low
    return kind == "background" or alarm.where == "at the start"


def is_vague(case, alarm):
    """Whether an alarm is true, but says no more than the class."""
    vague = ("background", "survives")
    return alarm.name == case.name and alarm.kind in vague


def judge(case, out):
    """A row of the table."""
    facts = json.loads((out / f"{case.title}.json").read_text("utf-8"))
    frame = pd.read_parquet(out / f"{case.title}.parquet")
    alarms = find_alarms(frame)
    row = {
        "shortcut": case.kind or "none",
        "class": case.name or "",
        "p": case.probability if case.kind else "",
        "accuracy": facts["accuracy without"],
        "tests": len(tests_of(frame)),
        "s": facts["train_s"] + facts["audit_s"],
    }
    if frame["kept_rest"].notna().any():
        row.update(judge_energy(case, frame))
    if case.kind is None:
        return {**row, "false": len(alarms), "alarms": said(alarms)}
    drop = facts["recall with"] - facts["recall without"]
    right = [alarm for alarm in alarms if is_right(case, alarm)]
    vague = [alarm for alarm in alarms if is_vague(case, alarm)]
    false = [a for a in alarms if a not in right and a not in vague]
    return {
        **row,
        "recall with": facts["recall with"],
        "without": facts["recall without"],
        "moved": facts["moved"],
        "relies": max(drop, facts["moved"]) >= RELIES,
        "hit": bool(right),
        "class named": bool(right or vague),
        "false": len(false),
        "alarms": said(alarms),
    }


def alarms_by_energy(frame):
    """What one would conclude from the explanations alone, for comparison.

    Parts of the rest of which a class's explanations keep a larger share of
    the energy than those of other classes do: (class, part) each.
    """
    frame = frame[frame["kept_rest"].notna()]
    found = []
    for name in sorted(set(frame["heard"])):
        is_own = frame["heard"] == name
        for part in PARTS[:-1]:
            shares = frame[f"kept_{part}"].fillna(0.0)
            own, other = (shares[is_own == x].tolist() for x in (True, False))
            if min(len(own), len(other)) >= LEAST_CLIPS:
                gain = sum(own) / len(own) - sum(other) / len(other)
                found.append((larger(own, other), gain, name, part))
    qs = fdr([p for p, *_ in found])
    return [
        (name, part)
        for q, (_, gain, name, part) in zip(qs, found)
        if q <= MOST_Q and gain >= LEAST_KEPT
    ]


def judge_energy(case, frame):
    """Columns of the table for alarms by the explanations alone."""
    alarms = alarms_by_energy(frame)
    found = {"by energy": "; ".join(map(": ".join, alarms))}
    if case.kind is None:
        return {**found, "false by energy": len(alarms)}
    kind, low, high = PLACES[case.kind]
    edges = band_edges(RATE / 2)
    right = {"start"} if kind == "place" else set()
    if kind == "band":
        right = {
            part
            for part, ends in zip(PARTS, zip(edges, edges[1:]))
            if ends[0] < high and ends[1] > low
        }
    if kind == "background":
        right = set(PARTS)
    hits = [x for x in alarms if x[0] == case.name and x[1] in right]
    return {
        **found,
        "hit by energy": bool(hits),
        "false by energy": len(alarms) - len(hits),
    }


def said(alarms):
    """Alarms in few words."""
    return "; ".join(
        f"{alarm.name}: {alarm.where} ({alarm.effect[0]:.2f})"
        for alarm in alarms
    )


def summary(rows):
    """The table of the documentation: a line a kind of shortcut."""
    lines = [
        "| shortcut | trained | rely on it | of them: hits | class named "
        "| others: hits | false alarms |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in [*PLACES, "none"]:
        found = [row for row in rows if row["shortcut"] == kind]
        relies = [row for row in found if row.get("relies")]
        others = [row for row in found if not row.get("relies")]
        counts = [
            len(found),
            len(relies),
            *(sum(row[x] for row in relies) for x in ("hit", "class named")),
            sum(row.get("hit", False) for row in others),
            sum(row["false"] for row in found),
        ]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    minutes = sum(row["s"] for row in rows) / 60
    return "\n".join([*lines, f"\n{minutes:.0f} minutes of one process"])


@exit_on_mistake
def main(argv=None):
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=new_folder, required=True)
    parser.add_argument("--processes", type=count, default=2)
    parser.add_argument("--repeats", type=count_or_none, default=4)
    parser.add_argument("--clean", type=count_or_none, default=20)
    parser.add_argument("--folds", type=count, default=5, help="held out")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--steps", type=count, help="explain too, in so many")
    parser.add_argument(
        "--table", type=new_file, help="JSON file for the table"
    )
    options = parser.parse_args(argv)
    wanted = cases(
        options.first_seed, options.repeats, options.clean, options.folds
    )
    work = [(case, options.out, options.steps) for case in wanted]
    # What is done so far is some of everything.
    random.Random(0).shuffle(work)
    if options.processes > 1:
        context = multiprocessing.get_context("spawn")
        with context.Pool(options.processes) as pool:
            pool.starmap(run, work, chunksize=1)
    else:
        for task in work:
            run(*task)
    rows = [judge(case, options.out) for case in wanted]
    with pd.option_context("display.width", 200, "display.max_colwidth", 70):
        print(pd.DataFrame(rows).round(2).to_string(index=False))
    print(summary(rows))
    write(options.table, rows)


if __name__ == "__main__":
    sys.exit(main())
