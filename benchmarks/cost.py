#!/usr/bin/env python3
"""What an explanation costs, in classifier passes.

    python benchmarks/cost.py [--threads 2] [--device cuda] [--json cost.json]

Measures the small classifier and CNN14, with our decoder and with SpeechBrain's
`CNN14PSI_stft` in the same pipeline, and both classifiers explained without a
decoder, by gradient steps, on their own spectrogram or through the sound. All
costs are ratios to a forward pass of the classifier (with features) on the same
clips in the same run, and medians of several runs. Weights are random, since
the time does not depend on them.
"""

import argparse

import torch
from measure import (
    in_own_process,
    machine,
    median_times,
    peak_resident,
    write,
)
from speechbrain.lobes.models.Cnn14 import Cnn14, CNN14PSI_stft
from torch.utils.flop_counter import FlopCounterMode

from lmac_sb import LMACInterpreter
from lmac_sb.inference.adopt import STEPS, make_refiner
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.losses import LMACLoss
from lmac_sb.metrics.registry import evaluate
from lmac_sb.models.decoder import LevelDecoder, MaskDecoder
from lmac_sb.models.encoders import ConvEmbedding
from lmac_sb.models.features import SpectralFeatures
from lmac_sb.models.frozen import FrozenClassifier

SECONDS = 5
CLASSIFIERS = ("small", "cnn14")
DECODERS = ("ours", "CNN14PSI_stft")
WAYS = ("spectrogram", "sound")


def make_explainer(classifier, decoder, device="cpu"):
    """Explainer with random weights, as the recipes build it."""
    torch.manual_seed(0)
    if classifier == "small":
        channels, width = [256, 128, 64, 32], 32
        embedding = ConvEmbedding()
        layers = ["blocks.5", "blocks.4", "blocks.3", "blocks.2"]
    else:
        channels, width = [2048, 1024, 512, 256], 64
        embedding = Cnn14(mel_bins=80, emb_dim=2048)
        layers = ["conv_block6", "conv_block5", "conv_block4", "conv_block3"]
    ours = decoder == "ours"
    frozen = FrozenClassifier(
        embedding,
        torch.nn.Linear(channels[0], 50),
        layers,
        min_frames=32,
        evidence=ours,
    )
    if ours:
        model = MaskDecoder([channels[0], *channels], width=width)
    else:
        model = CNN14PSI_stft(dim=channels[0])
    return Explainer(SpectralFeatures(), frozen, model).to(device)


def classify(explainer, wavs):
    """Forward pass of the classifier, with features."""
    features = explainer.features
    with torch.no_grad():
        magnitude = features.magnitude(features.stft(wavs))
        return explainer.classifier(features.mel(magnitude))


def make_step(explainer):
    """A training step, with the optimiser."""
    loss = LMACLoss(l_out_w=8, l_out_type="probability", reg_w_l1=4)
    optimizer = torch.optim.Adam(explainer.decoder.parameters(), lr=1e-4)

    def step(wavs):
        explanation = explainer(wavs, sounds=False)
        total, _ = loss(
            explanation.mask,
            explanation.logits_in,
            explanation.logits_out,
            explanation.decision,
        )
        optimizer.zero_grad()
        total.mean().backward()
        optimizer.step()

    return step


def explain(explainer, wavs, sounds=True, check=True):
    """Explanation without gradients."""
    with torch.no_grad():
        return explainer(wavs, sounds=sounds, check=check)


def flops(function, *args):
    """Number of floating point operations of a call."""
    with FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops()


def clips(n, device):
    """Noise to explain, [n, samples]."""
    return 0.1 * torch.randn(n, SECONDS * 16000, device=device)


def measure(classifier, decoder, args, runs):
    """All costs of one classifier and decoder."""
    explainer = make_explainer(classifier, decoder, args.device)
    one, batch = (clips(n, args.device) for n in (1, args.batch_size))
    analysis = explainer.analyze(one)
    n_parameters = sum(p.numel() for p in explainer.decoder.parameters())

    def validate():
        evaluate(explain(explainer, batch, False))

    # Alternating, so that other load on the machine affects all of them.
    forward, short, long = median_times(
        [
            lambda: classify(explainer, one),
            lambda: explain(explainer, one, True, False),
            lambda: explain(explainer, one),
        ],
        runs=runs,
    )
    step = make_step(explainer)
    forward_batch, trained, masked, validated = median_times(
        [
            lambda: classify(explainer, batch),
            lambda: step(batch),
            lambda: explain(explainer, batch, False),
            validate,
        ],
        runs=runs,
    )
    with torch.no_grad():
        decoder_flops = flops(explainer.mask, analysis)
        classifier_flops = flops(classify, explainer, one)
    return {
        "classifier": classifier,
        "decoder": decoder,
        "decoder parameters, M": n_parameters / 1e6,
        "decoder checkpoint, MB": n_parameters * 4 / 1e6,
        "classifier forward, s a clip": forward,
        "decoder FLOPs / classifier FLOPs": decoder_flops / classifier_flops,
        "explain a clip / classifier": short / forward,
        "explain and check / classifier": long / forward,
        "training step / classifier": trained / forward_batch,
        "validation with metrics / without": validated / masked,
    }


def peak_memory(classifier, decoder, batch_size, device):
    """Peak memory in GB of a training step, in its own process."""
    step = make_step(make_explainer(classifier, decoder, device))
    step(clips(batch_size, device))
    return peak(device)


def peak(device):
    """Peak memory of this process in GB: resident, or taken from the GPU."""
    if device == "cpu":
        return peak_resident() / 1024
    return torch.cuda.max_memory_allocated() / 2**30


class Heard(torch.nn.Module):
    """A classifier as its owner has it: from waveforms to logits."""

    def __init__(self, explainer):
        super().__init__()
        self.features = explainer.features
        self.classifier = explainer.classifier

    def forward(self, wavs):
        """Logits [batch, classes] of waveforms [batch, samples]."""
        magnitude = self.features.magnitude(self.features.stft(wavs))
        return self.classifier(self.features.mel(magnitude))[0]


def make_stepping(classifier, way, device):
    """The same classifier, explained by steps from nothing."""
    explainer = make_explainer(classifier, "ours", device)
    if way == "sound":
        net = Heard(explainer)
        found = LMACInterpreter.from_classifier(
            net, 16000, run_opts={"device": device}
        )
        return found.explainer
    return Explainer(
        explainer.features,
        explainer.classifier,
        LevelDecoder(),
        "linear",
        make_refiner(),
        STEPS,
    )


def measure_steps(classifier, way, runs, device):
    """Costs of an explanation without a decoder."""
    whole = make_explainer(classifier, "ours", device)
    explainer = make_stepping(classifier, way, device)
    one = clips(1, device)
    forward, stepped = median_times(
        [lambda: classify(whole, one), lambda: explain(explainer, one)],
        runs=runs,
    )
    return {
        "classifier": classifier,
        "way": way,
        f"{STEPS} steps, s a clip": stepped,
        f"{STEPS} steps / classifier": stepped / forward,
    }


def peak_of_steps(classifier, way, device):
    """Peak memory in GB of such an explanation, in its own process."""
    explainer = make_stepping(classifier, way, device)
    explain(explainer, clips(1, device))
    return peak(device)


def stepping_rows(args):
    """All costs without a decoder."""
    rows = []
    for classifier in CLASSIFIERS:
        for way in WAYS:
            row = measure_steps(classifier, way, args.runs, args.device)
            row["peak memory, GB"] = in_own_process(
                *(peak_of_steps, classifier, way, args.device),
                threads=args.threads,
            )
            rows.append(row)
    return rows


def show(rows):
    """Print rows as a table that stands on its side."""
    first, second, *names = rows[0]
    head = [f"{row[first]}, {row[second]}" for row in rows]
    print("| | " + " | ".join(head) + " |")
    print("|---" * (len(rows) + 1) + "|")
    for name in names:
        cells = [f"{row[name]:.3g}" for row in rows]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print()


def main(argv=None):
    """Measure, print the table, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory_batch", type=int, default=16)
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    rows = []
    for classifier in CLASSIFIERS:
        for decoder in DECODERS:
            # SpeechBrain's decoder on CNN14 takes a minute for each step.
            slow = classifier == "cnn14" and decoder != "ours"
            slow = slow and args.device == "cpu"
            row = measure(classifier, decoder, args, 1 if slow else args.runs)
            row["peak memory of a step, GB"] = in_own_process(
                peak_memory,
                classifier,
                decoder,
                args.memory_batch,
                args.device,
                threads=args.threads,
            )
            rows.append(row)
    show(rows)
    stepping = stepping_rows(args)
    show(stepping)
    where = {
        **machine(args.threads),
        "clips": f"{SECONDS} s",
        "batch": args.batch_size,
        "batch for memory": args.memory_batch,
        "runs": f"median of {args.runs}"
        + ", CNN14PSI_stft on CNN14: one" * (args.device == "cpu"),
    }
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    write(args.json, {"machine": where, "rows": rows, "steps": stepping})


if __name__ == "__main__":
    main()
