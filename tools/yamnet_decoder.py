#!/usr/bin/env python3
"""Train one decoder for all of YAMNet's classes, in steps that resume.

    python tools/yamnet_decoder.py --data shared/data --out yamnet_decoder

No labels are needed: each sound is asked for one of the classes that YAMNet
hears in it. So any sound will do: parts of ESC-10 (all folds but one), of
spoken digits, speech and noise, faster and slower, brighter and duller, and
mixtures of them; every 10 minutes, the clips of the fold that was left out
(`--fold`) are explained, each for the AudioSet class that means the same as its
own. With `--device cuda` the GPU trains, while processes (`--workers`) draw
what it is trained on.

The decoder reads what speaks for and against the class at five depths, so it
needs no weights for any class. Its objective is that of the gradient steps,
with three more terms. A maximum over patches tells only of one of them, so the
part inside keeps the class in each patch that has it, and the part outside
loses it in every patch. And a sigmoid near one hides what the part inside has
lost, so its logit is to be above that of the whole.
"""

import argparse
import csv
import math
import random
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F
from torchaudio.functional import resample

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measure import amount, count, count_or_none, exit_on_mistake  # noqa: E402

from lmac_sb import LMACInterpreter  # noqa: E402
from lmac_sb.adapters.layered import LayeredClassifier  # noqa: E402
from lmac_sb.adapters.layers import Layer  # noqa: E402
from lmac_sb.bench.yamnet import MEANS  # noqa: E402
from lmac_sb.data.audio import fit_length  # noqa: E402
from lmac_sb.data.streaming import signal_of  # noqa: E402
from lmac_sb.lmac.explainer import Explainer  # noqa: E402
from lmac_sb.lmac.losses import embedding_kept, embedding_left  # noqa: E402
from lmac_sb.metrics.registry import evaluate  # noqa: E402
from lmac_sb.models.decoder import MaskDecoder  # noqa: E402
from lmac_sb.models.question import Question  # noqa: E402
from lmac_sb.utils.errors import LMACError  # noqa: E402
from lmac_sb.utils.io import make_folder  # noqa: E402

RATE = 16000
N_SAMPLES = 5 * RATE
# Clips of a step, and their samples: three patches, and each third time 5 s.
SHORT, LONG = (12, 15600 + 2 * 7680), (5, N_SAMPLES)
# Of YAMNet's network, the deepest first: 3 x 2, 6 x 4, ... 48 x 32 cells.
LAYERS = {26: 1024, 22: 512, 10: 256, 6: 128, 2: 64}
LR = 2e-3
WARM_UP = 50  # steps
HEARD = 0.15  # least probability of a class that is asked for
KNOWN = 0.3  # of one in validation
VALID_S = 600  # from one validation to the next
# Weights of the objective. That of the area grows from the first to the second
# over the first half, or the decoder learns to keep nothing before it has
# learnt what to keep. From LATE on, it grows to the third, and those of the
# part outside to four times as much: by then, the part inside convinces.
IN_W, ABOVE_W, OUT_W, EACH_OUT_W = 12.0, 6.0, 8.0, 8.0
E_IN_W, E_OUT_W = 20.0, 10.0
AREA_W = 15.0, 55.0, 110.0
LATE = 0.7
MARGIN = 2.0  # of logits, below zero, that the part outside is to reach
ABOVE = 0.5  # of logits, above the whole, that the part inside is to reach


def make_explainer(steps, width, seed, depthwise=False):
    """YAMNet with a decoder of random weights."""
    layers = [Layer(f"convolutions.{n}", c, "bctf") for n, c in LAYERS.items()]
    listener = steps.listener
    classifier = LayeredClassifier(listener, layers, True, relevance=True)
    features = steps.explainer.features
    torch.manual_seed(seed)
    decoder = MaskDecoder(
        classifier.channels,
        n_mels=64,
        n_fft=features.n_fft,
        width=width,
        standard=True,
        f_min=125.0,
        f_max=7500.0,
        depthwise=depthwise,
    )
    refiner = steps.explainer.refiner
    return Explainer(features, classifier, decoder, "linear", refiner)


class Sounds:
    """Parts of sounds, drawn at random, changed and mixed.

    Arguments
    ---------
    folder : Path
        With esc10, fsdd, speech and noise.
    fold : int
        The fold of ESC-10 that is left out.
    """

    # Kinds of a clip on its own, and of what is put below another.
    ALONE = {"esc10": 0.75, "fsdd": 0.1, "speech": 0.1, "noise": 0.05}
    BELOW = {"esc10": 0.5, "speech": 0.25, "noise": 0.25}
    MIXED = 0.3
    # Rates that a sound is taken to have, of which one is drawn.
    RATES = 12800, 14400, RATE, RATE, 17600, 20000
    TILT_DB = 3.0  # an octave, at most

    def __init__(self, folder, fold=4):
        folder = Path(folder)
        with open(folder / "esc10" / "meta" / "esc50.csv") as file:
            rows = list(csv.DictReader(file))
        audio = folder / "esc10" / "audio"
        self.audio = audio
        known, self.left_out = [], []
        for row in rows:
            is_left_out = row["fold"] == str(fold)
            (self.left_out if is_left_out else known).append(row)
        if not known or not self.left_out:
            found = sorted({int(row["fold"]) for row in rows})
            raise LMACError(
                f"--fold: found {fold}, expected one of several folds; "
                f"{folder / 'esc10'} has {found}"
            )
        files = {
            "esc10": [audio / row["filename"] for row in known],
            "fsdd": sorted((folder / "fsdd").rglob("*.flac"))[::5],
            "speech": sorted((folder / "speech").rglob("*.flac")),
            "noise": sorted((folder / "noise" / "tr").rglob("*.flac")),
        }
        for kind, found in files.items():
            if not found:
                raise LMACError(f"{folder}: found no sounds of {kind}")
        self.wavs = {
            kind: [signal_of(path, RATE) for path in found]
            for kind, found in files.items()
        }

    def unheard(self):
        """Clips of the fold left out, and the AudioSet class of each."""
        rows = self.left_out
        wavs = (signal_of(self.audio / row["filename"], RATE) for row in rows)
        return [
            (fit_length(w, N_SAMPLES), MEANS[r["category"]])
            for w, r in zip(wavs, rows)
        ]

    def draw(self, rng, n_samples):
        """One clip, [samples]."""
        wav = self._part(rng, self.ALONE, n_samples)
        if rng.random() < self.MIXED:
            other = self._part(rng, self.BELOW, n_samples)
            snr_db = rng.uniform(-5, 10)
            gain = _level(wav) / _level(other) * 10 ** (-snr_db / 20)
            wav = wav + gain * other
        return wav * 10 ** (rng.uniform(-10, 3) / 20)

    def _part(self, rng, shares, n_samples):
        """A clip of a kind; not of digital silence, if it can be helped."""
        (kind,) = rng.choices(list(shares), list(shares.values()))
        wav = rng.choice(self.wavs[kind])
        rate = rng.choice(self.RATES)
        needed = math.ceil(n_samples * rate / RATE)
        for _ in range(5):
            start = rng.randrange(max(1, len(wav) - needed + 1))
            part = wav[start : start + needed]
            if part.abs().amax() > 1e-3:
                break
        part = fit_length(resample(part, rate, RATE), n_samples)
        return _tilted(part, rng.uniform(-self.TILT_DB, self.TILT_DB))


def _tilted(wav, tilt_db):
    """A sound whose spectrum rises by so much an octave, round 1 kHz."""
    spectrum = torch.fft.rfft(wav)
    hertz = torch.linspace(0, RATE / 2, len(spectrum)).clamp(min=50)
    gain = 10 ** (tilt_db * torch.log2(hertz / 1000) / 20)
    return torch.fft.irfft(spectrum * gain, len(wav))


def _level(wav):
    """Root mean square of a sound."""
    return wav.square().mean().sqrt() + 1e-6


class Batches(torch.utils.data.Dataset):
    """What each step is trained on; it depends on the step's number alone.

    Arguments
    ---------
    sounds : Sounds
        What is drawn from.
    listener : lmac_sb.listener.listener.Listener
        YAMNet, on the CPU, where other processes can use it.
    seed : int
        Of what is drawn.
    total : int
        Steps.
    """

    def __init__(self, sounds, listener, seed, total):
        self.sounds, self.listener = sounds, listener
        self.seed, self.total = seed, total

    def __len__(self):
        return self.total

    @torch.no_grad()
    def __getitem__(self, step):
        """Waveforms [batch, samples], and a class of each that is heard."""
        rng = random.Random(f"{self.seed} {step}")
        wavs, classes = [], []
        silence = self.listener.absences
        n_clips, n_samples = SHORT if step % 3 else LONG
        while len(wavs) < n_clips:
            wav = self.sounds.draw(rng, n_samples)
            p = self.listener(wav[None])[0].sigmoid()
            p[silence] = 0
            p = torch.where(p > HEARD, p, 0)
            if p.any():
                wavs.append(wav)
                classes += rng.choices(range(len(p)), p.tolist())
        return torch.stack(wavs), torch.tensor(classes)

    def loader(self, first, workers):
        """The batches from a step on."""
        return torch.utils.data.DataLoader(
            self,
            batch_size=None,
            sampler=range(first, self.total),
            num_workers=workers,
        )


class Training:
    """Decoder, optimizer and step, which a file keeps.

    Arguments
    ---------
    explainer : lmac_sb.Explainer
        With the decoder.
    listener : lmac_sb.listener.listener.Listener
        YAMNet.
    total : int
        Steps, of which the learning rate depends.
    """

    def __init__(self, explainer, listener, total):
        self.explainer, self.listener = explainer, listener
        self.total, self.step = total, 0
        self.device = next(explainer.decoder.parameters()).device
        self.optimizer = torch.optim.Adam(explainer.decoder.parameters())
        self.network = listener.model

    def load(self, path):
        """Go on where a file ends."""
        state = torch.load(path, weights_only=True, map_location="cpu")
        self.explainer.decoder.load_state_dict(state["decoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def save(self, path):
        """Write that file, in one step."""
        state = {
            "decoder": self.explainer.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    def hear(self, wavs, classes):
        """Logits of the class [batch, patches], and embeddings."""
        rows = self.listener.windows.cut(wavs)
        embeddings = self.network.embed(self.listener.front_end(rows))
        embeddings = embeddings.unflatten(0, (len(wavs), -1))
        head = self.network.head
        weight, bias = head.weight[classes], head.bias[classes]
        logits = (embeddings * weight[:, None]).sum(2) + bias[:, None]
        return logits, embeddings

    def losses(self, wavs, classes):
        """Objective [batch], and its terms."""
        explainer = self.explainer
        analysis = explainer.analyze(wavs, Question(classes))
        mask = explainer.mask(analysis, Question(classes))
        inside = explainer.features.istft(
            analysis.stft * mask[..., None], wavs.shape[1]
        )
        with torch.no_grad():
            whole, before = self.hear(wavs, classes)
        sides = torch.cat((inside, wavs - inside))
        logits, embeddings = self.hear(sides, classes.repeat(2))
        logits_in, logits_out = logits.chunk(2)
        share = whole.sigmoid().square()
        share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
        pooled = [x.amax(1) for x in (before, *embeddings.chunk(2))]
        done = self.step / self.total
        late = min(1, max(0, done - LATE) / (0.9 - LATE))
        first, second, third = AREA_W
        area_w = first + (second - first) * min(1, 2 * done)
        area_w += (third - second) * late
        terms = {
            "in": (IN_W, (share * F.softplus(-logits_in)).sum(1)),
            "above": (
                ABOVE_W,
                F.softplus(whole.amax(1) + ABOVE - logits_in.amax(1)),
            ),
            "out": ((1 + 3 * late) * OUT_W, logits_out.amax(1).sigmoid()),
            "each out": (
                (1 + 3 * late) * EACH_OUT_W,
                F.softplus(logits_out + MARGIN).mean(1),
            ),
            "e_in": (E_IN_W, embedding_kept(pooled[1], pooled[0])),
            "e_out": (E_OUT_W, embedding_left(pooled[2], pooled[0])),
            "area": (area_w, mask.mean((1, 2))),
        }
        total = sum(weight * values for weight, values in terms.values())
        return total, {k: v.mean().item() for k, (_, v) in terms.items()}

    def descend(self, wavs, classes):
        """One step of Adam; returns the terms."""
        done = self.step / self.total
        rate = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1, done)))
        rate *= LR * min(1, (self.step + 1) / WARM_UP)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses, terms = self.losses(wavs, classes)
        self.optimizer.zero_grad()
        losses.mean().backward()
        parameters = self.explainer.decoder.parameters()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        self.optimizer.step()
        self.step += 1
        return terms

    @torch.no_grad()
    def validate(self, clips, every=3):
        """Means of the metrics over clips in which their class is heard."""
        found = {}
        for wav, name in clips[::every]:
            wav = wav.to(self.device)
            asked = [self.listener.labels.index(name)]
            asked = torch.tensor(asked, device=self.device)
            if self.listener(wav[None])[0, asked].sigmoid() < KNOWN:
                continue
            whole = self.explainer(wav[None], target=Question(asked))
            for key, value in evaluate(whole.asked()).items():
                found.setdefault(key, []).append(value.item())
        keys = "AI", "AD", "AG", "FF", "area"
        return {key: sum(found[key]) / len(found[key]) for key in keys}


@exit_on_mistake
def main(argv=None):
    """Train, validate, and save the interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the sounds")
    parser.add_argument("--out", required=True, help="interpreter's folder")
    parser.add_argument("--steps", type=count, default=4000)
    parser.add_argument("--width", type=count, default=40)
    parser.add_argument("--depthwise", action="store_true")
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument(
        "--fold", type=int, default=4, help="of ESC-10 that is left out"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--workers",
        type=count_or_none,
        default=0,
        help="processes that draw sounds",
    )
    parser.add_argument(
        "--minutes", type=amount, default=math.inf, help="then stop, to go on"
    )
    args = parser.parse_args(argv)
    out = Path(args.out)
    make_folder(out.parent)
    state = out.with_name(f"{out.name}.pt")
    sounds = Sounds(args.data, args.fold)
    drawing = LMACInterpreter.from_pretrained("yamnet").listener
    run_opts = {"device": args.device}
    steps = LMACInterpreter.from_pretrained("yamnet", run_opts=run_opts)
    listener = steps.listener
    listener.settle(torch.randn(1, N_SAMPLES, device=args.device))
    explainer = make_explainer(steps, args.width, args.seed, args.depthwise)
    explainer = explainer.to(args.device)
    training = Training(explainer, listener, args.steps)
    if state.is_file():
        training.load(state)
    clips = sounds.unheard()
    started = validated = time.monotonic()
    means = {}
    batches = Batches(sounds, drawing, args.seed, args.steps)
    for batch in batches.loader(training.step, args.workers):
        terms = training.descend(*(x.to(args.device) for x in batch))
        for key, value in terms.items():
            means[key] = 0.95 * means.get(key, value) + 0.05 * value
        if training.step % 25 == 0:
            _print(f"step {training.step}", means)
        now = time.monotonic()
        if now - validated > VALID_S:
            training.save(state)
            _print(f"fold {args.fold}", training.validate(clips))
            validated = now
        if now - started > 60 * args.minutes:
            break
    training.save(state)
    _print(f"fold {args.fold}", training.validate(clips, every=1))
    hparams = dict(vars(steps.hparams))
    LMACInterpreter({"explainer": explainer.cpu()}, hparams).save(out)


def _print(what, values):
    """One line of figures."""
    figures = (f"{key} {value:.3g}" for key, value in values.items())
    print(f"{what}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
