#!/usr/bin/env python3
"""What an explanation costs, in passes of the classifier.

    python benchmarks/cost.py [--classifiers small] [--parts] [--record]
    python benchmarks/cost.py --compare benchmarks/history.csv

Three classifiers: the small one and CNN14 as the recipes build them (with
random weights, since the time does not depend on them), and YAMNet with its
decoder. Each cost is a ratio to a forward pass of the classifier as its owner
has it, with its features and without anything of the explainer, on the same
5 s clips: both are called in turn, and the median of the
pairs' ratios stands with its 95 % interval. On a CPU the time is that of the
processor, with one thread unless told otherwise, since threads that wait for
each other are what makes ratios move on a busy machine. `--decoders` measures
SpeechBrain's `CNN14PSI_stft` in the same pipeline too.

With `--parts`, where the time of a training step and of an explanation goes,
from the file to the files. With `--record`, rows of `benchmarks/history.csv`;
with `--compare`, how the figures have moved since such rows were written.
"""

import argparse
import copy
import os
import tempfile
from functools import partial
from pathlib import Path

import history
import soundfile as sf
import torch
from measure import (
    check_names,
    exit_on_mistake,
    in_own_process,
    machine,
    new_file,
    peak_resident,
    print_table,
    write,
)
from parts import PARTS, Parts, check_parts
from speechbrain.lobes.models.Cnn14 import Cnn14, CNN14PSI_stft
from speechbrain.processing.features import STFT, spectral_magnitude
from torch.utils.flop_counter import FlopCounterMode
from turns import Clock, Others, in_turn

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.yamnet import load_yamnet
from lmac_sb.inference.adopt import STEPS, make_refiner
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.models.decoder import LevelDecoder, MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier
from lmac_sb.utils.errors import LMACError

SECONDS, RATE = 5, 16000
CLASSIFIERS = "small", "cnn14", "yamnet"
OURS, PSI = DECODERS = "ours", "CNN14PSI_stft"
BATCHES = 1, 16
MEMORY_BATCH = 16
K = 5  # steps after a decoder
# Names of figures.
ONE_PASS, CHECKED = "one pass", "one pass, both sides checked"
STEP, REFINED = "training step", f"K = {K}"
STEPPED, BY_SOUND = "from nothing", "from nothing, through the sound"
MEMORY = "peak memory of a step, GB"


def make_explainer(classifier, decoder, device="cpu", options=None):
    """Explainer as the recipes, or the package, build it, and its classifier.

    The latter is as its owner has it: a module from waveforms to logits. The
    decoder is built with the options, if there are any.
    """
    torch.manual_seed(0)
    if classifier == "yamnet":
        found = LMACInterpreter.from_pretrained("yamnet", decoder=True)
        return found.explainer.to(device).eval(), load_yamnet().to(device)
    if classifier == "small":
        channels, usual = [256, 128, 64, 32], 32
        embedding = ConvEmbedding()
        layers = ["blocks.5", "blocks.4", "blocks.3", "blocks.2"]
    else:
        channels, usual = [2048, 1024, 512, 256], 64
        embedding = Cnn14(mel_bins=80, emb_dim=2048)
        layers = ["conv_block6", "conv_block5", "conv_block4", "conv_block3"]
    ours = decoder == OURS
    head = torch.nn.Linear(channels[0], 50)
    owned = Owned(copy.deepcopy(embedding), copy.deepcopy(head)).eval()
    frozen = FrozenClassifier(
        embedding,
        head,
        layers,
        min_frames=32,
        evidence=ours,
    )
    if ours:
        options = {"width": usual, **(options or {})}
        model = MaskDecoder([channels[0], *channels], **options)
    else:
        model = CNN14PSI_stft(dim=channels[0])
    refiner = make_refiner()
    # As in lmac.yaml, and in lmac_cnn14.yaml, which follows the paper.
    domain = "linear" if classifier == "small" and ours else "log1p"
    explainer = Explainer(
        SpectralFeatures(), frozen, model, domain, refiner=refiner
    )
    return explainer.to(device).eval(), owned.to(device)


def without_decoder(explainer, classifier):
    """The same classifier, explained by steps from nothing."""
    if classifier == "yamnet":
        return LMACInterpreter.from_pretrained("yamnet").explainer
    stepping = explainer.starting_from(LevelDecoder())
    stepping.mask_domain = "linear"
    return stepping


class Owned(torch.nn.Module):
    """A classifier with SpeechBrain's features, from waveforms to logits."""

    def __init__(self, embedding, head):
        super().__init__()
        self.stft = STFT(16000, 23.2199, 11.6099, n_fft=1024)
        bands = SpectralFeatures().fbank_matrix
        self.register_buffer("bands", bands, persistent=False)
        self.embedding, self.head = embedding, head

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        magnitude = spectral_magnitude(self.stft(wavs), power=0.5)
        levels = torch.log1p(magnitude @ self.bands)
        return self.head(self.embedding(levels)).flatten(1)


def classify(owned, wavs):
    """Forward pass of the classifier, with features."""
    with torch.no_grad():
        return owned(wavs)


def make_step(explainer, parts=None, at_once=None):
    """A training step, with the optimiser.

    With `at_once`, the gradient of a batch is the sum of those of so many
    clips, as with ``grad_accumulation_factor`` in the recipes.
    """
    parts = parts or Parts()
    loss = LMACLoss(l_out_w=8, l_out_type="probability", reg_w_l1=4)
    trained = [p for p in explainer.decoder.parameters() if p.requires_grad]
    if not trained:  # a decoder that came ready
        trained = list(explainer.decoder.requires_grad_().parameters())
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    explainer.train()

    def step(wavs):
        with parts.of("optimiser"):
            optimizer.zero_grad()
        for some in wavs.split(at_once or len(wavs)):
            found = explainer(some, sounds=False, refine_steps=0).asked()
            with parts.of("loss"):
                total, _ = loss(
                    *(found.mask, found.logits_in, found.logits_out),
                    found.decision,
                )
                total = total.sum() / len(wavs)
            with parts.of("backward"):
                total.backward()
            del found, total
        with parts.of("optimiser"):
            optimizer.step()

    return step


def explain(explainer, wavs, steps=0, **options):
    """Explanation without gradients, from and to memory of the processor."""
    device = next(explainer.buffers()).device
    with torch.no_grad():
        found = explainer(wavs.to(device), refine_steps=steps, **options)
        return found.cpu()


def clips(n, device="cpu"):
    """Noise to explain, [n, samples]."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(n, SECONDS * RATE, generator=generator)
    return (0.1 * noise).to(device)


def calls(both, name, decoder, batch, args):
    """What is measured for a classifier: names of figures to calls.

    `both` are its explainer and the classifier as its owner has it.
    """
    explainer, owned = both
    device = args.device
    wavs = clips(batch)
    there = wavs.to(device)
    found = {ONE_PASS: partial(explain, explainer, wavs, check=False)}
    if decoder == OURS and batch == 1:
        found[CHECKED] = partial(explain, explainer, wavs)
        found[REFINED] = partial(explain, explainer, wavs, steps=K)
        stepping = without_decoder(explainer, name)
        found[STEPPED] = partial(explain, stepping, wavs, steps=STEPS)
        if not explainer.features.IS_SOUND:
            owner = LMACInterpreter.from_classifier(
                owned, RATE, run_opts={"device": device}
            )
            found[BY_SOUND] = partial(
                explain, owner.explainer, wavs, steps=STEPS
            )
    # The last: it changes the decoder's weights.
    step = make_step(explainer, at_once=args.at_once)
    found[STEP] = partial(step, there)
    return found, partial(classify, owned, there)


def peak_memory(name, decoder, device, options=None, at_once=None):
    """Peak memory in GB of a training step, in its own process."""
    # Of both, the explainer alone is kept.
    explainer = make_explainer(name, decoder, device, options)[0]
    step = make_step(explainer, at_once=at_once)
    step(clips(MEMORY_BATCH, device))
    if device == "cpu":
        return peak_resident() / 1024
    return torch.cuda.max_memory_allocated() / 2**30


def size(explainer, owned):
    """Parameters of the decoder, and its operations, in the classifier's."""
    one = clips(1, next(explainer.buffers()).device)
    n_parameters = sum(p.numel() for p in explainer.decoder.parameters())
    counts = []
    with torch.no_grad():
        analysis = explainer.analyze(one)
        for call in (explainer.mask, analysis), (classify, owned, one):
            with FlopCounterMode(display=False) as counter:
                call[0](*call[1:])
            counts.append(counter.get_total_flops())
    return n_parameters, counts[0] / counts[1]


def built_with(args):
    """Options of our decoder that are not as usual."""
    wanted = {"width": args.width, "depthwise": args.depthwise or None}
    return {key: value for key, value in wanted.items() if value is not None}


def _said(option):
    """An option of the decoder, in the name of a row."""
    key, value = option
    return key if value is True else f"{key} {value}"


def measure(name, decoder, batch, args):
    """Entries of a classifier, and the rows of its table."""
    options = built_with(args)
    explainer, owned = make_explainer(name, decoder, args.device, options)
    others, base = calls((explainer, owned), name, decoder, batch, args)
    ratios, seconds = in_turn(base, others, Clock(args.device), args.pairs)
    titled = name if decoder == OURS else f"{name}, {decoder}"
    titled = ", ".join((titled, *map(_said, options.items())))
    rows = [
        {
            "classifier": titled,
            "batch": batch,
            "figure": what,
            "ratio": ratio.value,
            "95 %": f"{ratio.low:.3g} to {ratio.high:.3g}",
            "by the wall": ratio.wall,
            "s a clip": ratio.seconds / batch,
            "pairs": ratio.n,
        }
        for what, ratio in ratios.items()
    ]
    figures = {
        what: (ratio.value, ratio.low, ratio.high)
        for what, ratio in ratios.items()
    }
    if batch == MEMORY_BATCH:
        peak = in_own_process(
            *(peak_memory, name, decoder),
            *(args.device, options, args.at_once),
            threads=args.threads,
        )
        figures[MEMORY] = (peak,) * 3
    n_parameters, operations = size(explainer, owned)
    print(
        f"{titled}, batch {batch}: a pass takes {seconds / batch:.3g} s a "
        f"clip; the decoder has {n_parameters / 1e6:.3g} M parameters and "
        f"{operations:.3g} times the classifier's operations"
    )
    return titled, figures, rows


def by_parts(name, args):
    """Rows of where the time of a step and of an explanation goes."""
    explainer, _ = make_explainer(name, OURS, args.device, built_with(args))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.wav"
        sf.write(path, clips(1)[0].numpy(), RATE)
        counted = Parts(args.device)
        step = make_step(explainer, counted)
        ways = {
            "an explanation": lambda: _whole(explainer, path, counted),
            STEP: lambda: step(clips(4, args.device)),
        }
        with counted.watch(explainer):
            for what, call in ways.items():
                call()
                counted.reset()
                for _ in range(args.pairs):
                    call()
                counted.finish()
                rows.append({"model": name, "time of": what})
                total = sum(counted.seconds.values())
                for part in args.parts:
                    share = counted.seconds[part] / total
                    rows[-1][part] = f"{100 * share:.1f} %"
                rows[-1]["s"] = total / args.pairs
    return rows


def _whole(explainer, path, parts):
    """An explanation from a file to a folder."""
    with parts.of("reading"):
        wav, _ = sf.read(path, dtype="float32")
        wav = torch.from_numpy(wav)[None]
    found = explain(explainer, wav)
    n_classes = found.logits.shape[1]
    with parts.of("writing"):
        clip = AudioExplanation.of(
            found.asked(),
            wav,
            explainer.features,
            [str(number) for number in range(n_classes)],
        )
        with tempfile.TemporaryDirectory() as folder:
            clip.save(Path(folder) / "clip")


def check_args(args):
    """Refuse settings that cannot be."""
    cores = os.cpu_count()
    if not 1 <= args.threads <= cores:
        raise LMACError(
            f"--threads: found {args.threads}, expected 1 to {cores}, the "
            "cores of this machine"
        )
    if args.at_once is not None and args.at_once < 1:
        raise LMACError(f"--at_once: found {args.at_once}, expected 1 or more")
    if args.pairs < 1:
        raise LMACError(f"--pairs: found {args.pairs}, expected 1 or more")
    if args.width is not None and args.width < 1:
        raise LMACError(f"--width: found {args.width}, expected 1 or more")
    for key, value in built_with(args).items():
        if "yamnet" in args.classifiers or args.decoders != [OURS]:
            raise LMACError(
                f"--{key}: found {value}, but the decoders of yamnet and "
                f"{PSI} take none; expected --classifiers small cnn14"
            )
    for key, known in (("classifiers", CLASSIFIERS), ("decoders", DECODERS)):
        check_names(f"--{key}", getattr(args, key), known)
    if min(args.batches) < 1:
        raise LMACError(
            f"--batches: found {min(args.batches)}, expected 1 or more"
        )
    if args.device != "cpu" and not torch.cuda.is_available():
        raise LMACError(f"--device: found {args.device}, but there is no GPU")
    if args.parts is not None:
        args.parts = check_parts(args.parts)
        for name in ("record", "compare"):
            if getattr(args, name):
                raise LMACError(
                    f"--{name}: found with --parts, expected without, as "
                    "times of parts are in no history"
                )
    if args.record:
        history.check(history.FILE)
    return history.read(args.compare) if args.compare else []


def parse(argv):
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--classifiers",
        nargs="+",
        default=list(CLASSIFIERS),
        help=f"some of {', '.join(CLASSIFIERS)} (default: all)",
    )
    add(
        "--decoders",
        nargs="+",
        default=[OURS],
        help=f"some of {', '.join(DECODERS)} (default: {OURS})",
    )
    add(
        "--batches",
        nargs="+",
        type=int,
        default=list(BATCHES),
        help=f"clips at once (default: {' '.join(map(str, BATCHES))})",
    )
    add("--threads", type=int, default=1, help="threads of a call (default: 1)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add(
        "--pairs",
        type=int,
        default=7,
        help="fewest pairs of a ratio (default: 7)",
    )
    add("--at_once", type=int, help="clips of a step whose maps are kept")
    add("--width", type=int, help="channels of our decoder (default: usual)")
    add(
        "--depthwise",
        action="store_true",
        help="our decoder with depthwise convolutions on its fine grid",
    )
    add("--parts", nargs="*", help=f"all, or some of {', '.join(PARTS)}")
    add("--record", action="store_true", help="add to benchmarks/history.csv")
    add("--compare", metavar="CSV", help="say what moved since these rows")
    add("--json", type=new_file, help="file for the results")
    return parser.parse_args(argv)


def described(where):
    """What has to be the same for figures to be compared, in a line."""
    names = ("processor", "gpu", "threads", "torch")
    return ", ".join(f"{key} {where[key]}" for key in names if key in where)


@exit_on_mistake
def main(argv=None):
    """Measure, print tables, and write what was asked for."""
    args = parse(argv)
    past = check_args(args)
    torch.set_num_threads(args.threads)
    where = machine(args.threads)
    made = where["date"], history.commit(), described(where)
    entries, tables, split = [], [], []
    with Others() as others:
        for name in args.classifiers:
            if args.parts is not None:
                split += by_parts(name, args)
                continue
            for decoder in args.decoders if name != "yamnet" else [OURS]:
                for batch in args.batches:
                    titled, figures, rows = measure(name, decoder, batch, args)
                    tables += rows
                    entries += [
                        history.Entry(*made, titled, batch, what, *values)
                        for what, values in figures.items()
                    ]
    print_table(tables or split)
    for entry in entries:
        if entry.what == MEMORY:
            print(f"{entry.classifier}: {entry.what}: {entry.value:.2f}")
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    busy = others.said(args.threads)
    if busy:
        print(busy)
    if args.compare:
        moved = history.compare(entries, past)
        if moved:
            print_table(moved)
        else:
            print(f"{args.compare}: nothing of this machine and these figures")
    if args.record:
        history.add(history.FILE, entries)
    write(
        args.json,
        {"machine": where, "busy": busy, "rows": tables, "parts": split},
    )


if __name__ == "__main__":
    main()
