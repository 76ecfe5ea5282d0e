#!/usr/bin/env python3
"""Explanations of two classifiers whose weights nobody here made.

    python benchmarks/real_models.py notes [--size tiny] [--clips 12]
    python benchmarks/real_models.py speech --data FOLDER [--clips 12]

Notes: CREPE is asked for the pitch of a synthesised note in noise, beside
another note or a burst of noise. The note's bins are known. Speech: Silero's
detector is asked for speech in real noise; what was said is known. Each is
compared with the loudest bins at equal area.
"""

import math

import numpy as np
import soundfile as sf

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
    """Speech alone and in noise, [samples] each; files and parts at random."""
    rng = np.random.default_rng([seed, index])
    speech = _part(rng, sorted((data / "speech").glob("*/*.flac")))
    noise = _part(rng, sorted((data / "noise" / "tt").glob("*.flac")))
    gain = math.sqrt(np.mean(speech**2) / np.mean(noise**2))
    return speech, speech + gain * 10 ** (-snr_db / 20) * noise


def _part(rng, paths):
    """A part of a file that is long enough and not silent."""
    n_samples = int(SPEECH_CLIP_S * RATE)
    while True:
        path = paths[rng.integers(len(paths))]
        room = sf.info(path).frames - n_samples
        if room < 0:
            continue
        wav, _ = sf.read(path, n_samples, int(rng.integers(room + 1)))
        if np.mean(wav**2) > 1e-8:
            return wav
