#!/usr/bin/env python3
"""Explanations of two classifiers whose weights nobody here made.

    python benchmarks/real_models.py notes [--size tiny] [--clips 12]
    python benchmarks/real_models.py speech --data FOLDER [--clips 10]

Notes: CREPE is asked for the pitch of a synthesised note in noise, beside
another note or a burst of noise; the note's bins are known. Speech: Silero's
detector is asked for speech in real noise, in the chunks in which it hears
some; what was said is known. Each explanation, by gradient steps from nothing,
is compared with the loudest bins at equal area. The folder holds speech/*/ and
noise/tt/ with recordings at 16 kHz.
"""

import argparse
import math
from functools import partial
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from measure import (
    amount,
    count,
    count_or_none,
    exit_on_mistake,
    files_of,
    machine,
    n_threads,
    new_file,
    print_table,
    write,
)

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.crepe import load_crepe, pitch_class
from lmac_sb.adapters.silero import load_silero
from lmac_sb.listener.pooling import pool_frames
from lmac_sb.lmac.masking import ideal_mask, top_share
from lmac_sb.metrics.localisation import event_auc
from lmac_sb.metrics.sound import si_sdr

RATE = 16000
NOTE_CLIP_S, SPEECH_CLIP_S = 0.8, 3.0
NOTE_SNR_DB = 10
# Amplitude of the n-th of so many harmonics, n from 1.
TIMBRES = {
    "saw": lambda n: 1 / n,
    "hollow": lambda n: (n % 2) / n,
    "soft": lambda n: 1 / n**2,
    "bright": lambda n: 1.0 if n <= 6 else 1 / n,
}
DISTRACTORS = "another note", "a burst of noise"
SNRS_DB = 0, 5
LEAST_HEARD = 0.3  # share of chunks in which speech must be heard


def tone(rng, frequency, n_samples):
    """A steady note of a random timbre, RMS 1, faded in and out."""
    amplitude = TIMBRES[str(rng.choice(list(TIMBRES)))]
    time = np.arange(n_samples) / RATE
    wav = np.zeros(n_samples)
    for n in range(1, int(min(12, RATE / 2 / frequency)) + 1):
        phase = 2 * np.pi * (n * frequency * time + rng.random())
        wav += amplitude(n) * np.sin(phase)
    wav /= np.sqrt(np.mean(wav**2))
    ramp = np.minimum(1, np.arange(n_samples) / (0.02 * RATE))
    return wav * ramp * ramp[::-1]


def burst(rng, n_samples):
    """Noise an octave wide around 500 to 4000 Hz, RMS 1."""
    centre = 500 * 8 ** rng.random()
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    frequencies = np.fft.rfftfreq(n_samples, 1 / RATE)
    outside = np.abs(np.log2(np.maximum(frequencies, 1) / centre)) > 0.5
    spectrum[outside] = 0
    wav = np.fft.irfft(spectrum, n_samples)
    return wav / np.sqrt(np.mean(wav**2))


def make_note(seed, index):
    """A note among other sounds.

    Returns the note alone and the whole, [samples] each, its frequency, and
    which of `DISTRACTORS` is beside it. The other note sounds before or
    after it, 6 dB louder; the burst sounds in its middle, as loud as it is.
    """
    rng = np.random.default_rng([seed, index])
    n_clip, n_note = int(NOTE_CLIP_S * RATE), int(0.3 * RATE)
    frequency = 110 * 8 ** rng.random()
    places = [int(0.05 * RATE), int(0.45 * RATE)]
    rng.shuffle(places)
    note, rest = np.zeros(n_clip), rng.standard_normal(n_clip)
    rest *= 10 ** (-NOTE_SNR_DB / 20)
    note[places[0] :][:n_note] = tone(rng, frequency, n_note)
    kind = DISTRACTORS[index % 2]
    if kind == "another note":
        # Another pitch, and none that has most harmonics in common.
        other = frequency * 2 ** (rng.choice([-7, -4, 4, 7]) / 12)
        rest[places[1] :][:n_note] += 2 * tone(rng, other, n_note)
    else:
        start, n_burst = places[0] + n_note // 4, n_note // 2
        rest[start:][:n_burst] += burst(rng, n_burst)
    return 0.05 * note, 0.05 * (note + rest), frequency, kind


def make_speech(data, seed, index, snr_db):
    """Speech, noise and both, [samples] each; files and parts at random."""
    rng = np.random.default_rng([seed, index])
    speech = _part(rng, files_of(data / "speech", "*/*.flac"))
    noise = _part(rng, files_of(data / "noise" / "tt", "*.flac"))
    gain = math.sqrt(np.mean(speech**2) / np.mean(noise**2))
    noise *= gain * 10 ** (-snr_db / 20)
    return speech, noise, speech + noise


def _part(rng, paths):
    """A part of a file that is long enough, and not silent."""
    n_samples = int(SPEECH_CLIP_S * RATE)
    while True:
        path = paths[rng.integers(len(paths))]
        room = sf.info(path).frames - n_samples
        if room < 0:
            continue
        wav, _ = sf.read(path, n_samples, int(rng.integers(room + 1)))
        if np.mean(wav**2) > 1e-8:
            return wav


def tensors(sounds):
    """Sounds [samples] as one tensor [batch, samples]."""
    return torch.from_numpy(np.stack(sounds)).float()


# ----------------------------------------------------------------- measuring


def compare(explainer, whole, event, target):
    """Measures [batch] of the explanation and of masks beside it.

    Arguments
    ---------
    explainer : lmac_sb.Explainer
        Of the classifier.
    whole, event : torch.Tensor
        The sound, and what of it is the class, [batch, samples].
    target : torch.Tensor
        Explained class, [batch].
    """
    found = explainer(whole, target=target)
    analysis = explainer.analyze(whole, target)
    known = ideal_mask(explainer.features.stft(event), analysis.stft)
    loudest = top_share(found.magnitude, found.mask.mean((1, 2)))
    masks = {
        "explanation": found.mask,
        "loudest bins": loudest,
        "known bins": known,
        "whole sound": torch.ones_like(known),
    }
    return {
        name: measures(explainer.complete(analysis, mask, target), known, event)
        for name, mask in masks.items()
    }


def measures(found, known, event):
    """What is kept, and what the classifier hears in it, [batch] each."""
    kept = (found.mask * found.magnitude).square()
    on_event = (kept * known).sum((1, 2))
    of_event = (found.magnitude.square() * known).sum((1, 2))
    # A mask of ones orders nothing; the level does.
    order = found.mask if found.mask.min() < 1 else found.magnitude
    return {
        "p inside": found.p_inside,
        "p outside": found.p_outside,
        "area": found.mask.mean((1, 2)),
        "event_auc": event_auc(order, known),
        "kept energy on the event": on_event / kept.sum((1, 2)),
        "event's energy kept": on_event / of_event,
        "SI-SDR, dB": si_sdr(found.waveform, event),
    }


def interpreter(steps, lr, listener, sound=None):
    """Explains a listener from nothing, by steps of this number and size."""
    mine = LMACInterpreter.from_classifier(listener, sound=sound, steps=steps)
    if lr is not None:
        mine.explainer.refiner.lr = lr
    return mine


def explain_notes(seed, n_clips, size, hop, interpret):
    """Measures of the notes of a seed, by what is beside them."""
    notes = [make_note(seed, index) for index in range(n_clips)]
    mine = interpret(load_crepe(size, hop, pool="max"))
    for kind in DISTRACTORS:
        event, whole, frequencies, _ = zip(*(n for n in notes if n[3] == kind))
        target = torch.tensor([pitch_class(f) for f in frequencies])
        yield (
            f"note beside {kind}",
            compare(mine.explainer, tensors(whole), tensors(event), target),
        )


def explain_speech(seed, n_clips, data, interpret):
    """Measures of each clip with speech of a seed, by SNR.

    The noise must be none in which the detector hears speech, and it must
    hear some in the mixture: what it does not decide has no explanation.
    """
    detector = load_silero().model
    for snr_db in SNRS_DB:
        taken = index = 0
        while taken < n_clips:
            sounds = make_speech(data, seed, index, snr_db)
            index += 1
            event, noise, whole = (tensors([x]) for x in sounds)
            with torch.no_grad():
                heard, in_noise = (
                    detector(x).softmax(2)[0, :, 0] > 0.5
                    for x in (whole, noise)
                )
            if in_noise.any() or heard.float().mean() < LEAST_HEARD:
                continue
            taken += 1
            mine = interpret(
                load_silero(pool=partial(_mean_of, heard)), whole[0]
            )
            target = torch.tensor([0])
            yield (
                f"speech at {snr_db} dB",
                compare(mine.explainer, whole, event, target),
            )


def _mean_of(chosen, logits):
    """Logits of the mean probability in the chosen chunks."""
    return pool_frames(logits[:, chosen], "mean", multilabel=False)


def summary(found):
    """Rows of the table: means over clips.

    Arguments
    ---------
    found : list of tuple
        Seed, what was explained, and its measures.
    """
    rows = []
    for kind in dict.fromkeys(kind for _, kind, _ in found):
        of_kind = [(seed, x) for seed, name, x in found if name == kind]
        for mask in of_kind[0][1]:
            values = {
                name: [x[mask][name] for _, x in of_kind]
                for name in of_kind[0][1][mask]
            }
            row = {"explained": kind, "kept": mask}
            row["clips"] = sum(len(part) for part in values["area"])
            for name, parts in values.items():
                row[name] = float(torch.cat(parts).mean())
            rows.append(row)
    return rows


def spread(found):
    """How much the explanation is ahead of the loudest bins.

    Of each seed its mean, and the number of all clips that are.
    """
    rows = []
    for kind in dict.fromkeys(kind for _, kind, _ in found):
        for name in ("event_auc", "kept energy on the event", "SI-SDR, dB"):
            by_seed = {}
            for seed, of_kind, x in found:
                if of_kind == kind:
                    ahead = x["explanation"][name] - x["loudest bins"][name]
                    by_seed.setdefault(seed, []).append(ahead)
            seeds = {seed: torch.cat(v) for seed, v in by_seed.items()}
            every = torch.cat(list(seeds.values()))
            rows.append(
                {
                    "explained": kind,
                    "ahead in": name,
                    "clips": f"{int((every > 0).sum())} of {len(every)}",
                    "mean of each seed": ", ".join(
                        f"{float(v.mean()):.2f}" for v in seeds.values()
                    ),
                }
            )
    return rows


@exit_on_mistake
def main(argv=None):
    """Explain, measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("notes", "speech"))
    parser.add_argument("--data", type=Path, help="holds speech/ and noise/")
    parser.add_argument("--clips", type=count, default=12, help="of each seed")
    parser.add_argument(
        "--seeds", type=count_or_none, nargs="+", default=[0, 1, 2]
    )
    parser.add_argument("--steps", type=count_or_none, default=20)
    parser.add_argument("--lr", type=amount, help="size of a step")
    parser.add_argument("--size", default="tiny", help="of CREPE")
    parser.add_argument("--hop", type=count, default=512, help="of CREPE")
    parser.add_argument("--threads", type=n_threads, default=2)
    parser.add_argument("--json", type=new_file, help="file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.what == "speech" and args.data is None:
        parser.error("speech needs --data")
    interpret = partial(interpreter, args.steps, args.lr)
    if args.what == "notes":
        explain = partial(explain_notes, size=args.size, hop=args.hop)
    else:
        explain = partial(explain_speech, data=args.data)
    found = [
        (seed, kind, values)
        for seed in args.seeds
        for kind, values in explain(seed, args.clips, interpret=interpret)
    ]
    rows, ahead = summary(found), spread(found)
    print_table(rows)
    print()
    print_table(ahead)
    write(
        args.json,
        {"machine": machine(args.threads), "rows": rows, "ahead": ahead},
    )


if __name__ == "__main__":
    main()
