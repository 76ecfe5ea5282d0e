#!/usr/bin/env python3
"""Ten sounds that YAMNet is asked about, each on a page to look at and hear.

    python tools/cases.py --data_folder FOLDER --out cases
    python tools/cases.py --data_folder FOLDER --out cases --only clock digit

FOLDER has ``esc10`` (in the layout of ESC-50), ``fsdd``, ``noise`` and
``speech``. ``cases/report.html`` shows all of them, and ``cases/6_clock.html``
one. It takes two minutes on one core. `docs/cases.md` says what there
is to hear.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple, Optional

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lmac_sb import LMACInterpreter  # noqa: E402
from lmac_sb.data.audio import read_audio  # noqa: E402
from lmac_sb.inference.clip_folder import folder_names  # noqa: E402
from lmac_sb.pages.report import write_report  # noqa: E402
from lmac_sb.utils.errors import LMACError, exit_on_user_error  # noqa: E402

RATE = 16000
MADE_S = 5  # length of the sounds that are no recordings
NOISE_PEAK = 0.1
SUFFIXES = (".flac", ".ogg", ".wav")


class Ask(NamedTuple):
    """What is asked of a sound; by default, why it was decided so."""

    target: Optional[str] = None
    against: Optional[str] = None


class Case(NamedTuple):
    """A sound, and what is asked of it.

    `sound` is a recording in the data folder, by its path without the ending,
    or several of them: the second and later ones are cut or repeated to the
    first one's length, and are `below_db` quieter than it. ``"white noise"``
    and ``"silence"`` are made. `part` is what is played of it, from and to in
    seconds, and `label` the class that is right, if there is one.
    """

    name: str
    played: str
    sound: tuple
    asks: tuple = (Ask(),)
    below_db: float = 0.0
    part: Optional[tuple] = None
    label: Optional[str] = None


def esc10(name):
    """A clip of ESC-10."""
    return f"esc10/audio/{name}"


DOG = esc10("4-191687-A-0")
CLOCK = esc10("4-181865-A-38")
CASES = (
    Case("dog", "a dog that barks five times", (DOG,), (Ask("Dog"),)),
    Case(
        "wrong",
        "a clock that ticks five times",
        (esc10("4-191327-A-38"),),
        label="Clock",
    ),
    Case(
        "two_events",
        "a rooster that crows, and a clock 10 dB below it",
        (esc10("4-164064-A-1"), CLOCK),
        (
            Ask("Crowing, cock-a-doodle-doo", "Clock"),
            Ask("Clock", "Crowing, cock-a-doodle-doo"),
        ),
        below_db=10.0,
    ),
    Case(
        "background",
        "a clock in a room that hums",
        (esc10("1-35687-A-38"),),
        (Ask("Inside, small room"),),
    ),
    Case(
        "speech_in_noise",
        "a woman who reads, and a running tap that is as loud",
        (
            "speech/ljspeech/LJ001-0004",
            "noise/tt/wids_tutorial__running_tap",
        ),
        label="Speech",
    ),
    Case("clock", "a clock that ticks five times", (CLOCK,), label="Clock"),
    Case(
        "digit",
        "a voice that says: seven",
        ("fsdd/recordings/7_lucas_5",),
        label="Speech",
    ),
    Case("noise", "noise from a computer", ("white noise",)),
    Case("silence", "nothing", ("silence",), label="Silence"),
    Case(
        "short",
        "one bark of the dog, 0.2 s of it",
        (DOG,),
        (Ask("Dog"),),
        part=(1.75, 1.95),
    ),
)


def make_sound(case, data_folder):
    """What is played.

    Arguments
    ---------
    case : Case
        One of `CASES`.
    data_folder : str or Path
        The recordings.

    Returns
    -------
    torch.Tensor
        At `RATE`, [samples].

    Raises
    ------
    LMACError
        If a recording is not there.
    """
    first, *others = (_read(name, data_folder) for name in case.sound)
    whole = first.clone()
    for other in others:
        other = other.repeat(-(-len(first) // len(other)))[: len(first)]
        gain = (first.square().mean() / other.square().mean()).sqrt()
        whole += gain * 10 ** (-case.below_db / 20) * other
    if case.part is not None:
        start, end = (round(time * RATE) for time in case.part)
        whole = whole[start:end]
    return whole


def _read(name, data_folder):
    """A recording, or a sound that is made, [samples]."""
    if name == "silence":
        return torch.zeros(MADE_S * RATE)
    if name == "white noise":
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(MADE_S * RATE, generator=generator)
        return NOISE_PEAK * (2 * noise - 1)
    for suffix in SUFFIXES:
        path = Path(data_folder) / f"{name}{suffix}"
        if path.is_file():
            return read_audio(path, RATE)
    raise LMACError(
        f"--data_folder: found no {name} ({', '.join(SUFFIXES)}) in "
        f"{data_folder}, expected a folder with esc10, fsdd, noise and speech"
    )


def write_case(yamnet, case, data_folder, out, **how):
    """Explain a case, and write its folder and its page.

    Arguments
    ---------
    yamnet : lmac_sb.LMACInterpreter
        What is asked.
    case : Case
        One of `CASES`.
    data_folder, out : str or Path
        The recordings, and the folder for all cases.
    **how
        Options of `explain_sound`.

    Returns
    -------
    list of lmac_sb.inference.explanation.AudioExplanation
        One for each question.
    """
    sound = make_sound(case, data_folder)
    folder = Path(out) / f"{CASES.index(case) + 1}_{case.name}"
    explanations = []
    for ask in case.asks:
        found = yamnet.explain_sound((sound, RATE), *ask, **how)
        # The page shows it: what is to be heard, before what is found.
        found.notes = [[f"played: {case.played}", *found.notes[0]]]
        (name,) = folder_names([f"{case.name} {found.labels[0]}"])
        truth = None if case.label is None else [case.label]
        found.save(folder / name, truth=truth)
        explanations.append(found)
    write_report(folder, folder.with_suffix(".html"))
    return explanations


def line(case, found):
    """The figures of an explanation, on one line."""
    return (
        f"{case.name}: {found.titles[0]}, p {float(found.p_before[0]):.3f}, "
        f"inside {float(found.p_inside[0]):.3f}, "
        f"outside {float(found.p_outside[0]):.3f}, "
        f"area {found.metrics[0]['area']:.3f}; {found.judged[0]}"
    )


@exit_on_user_error
def main(argv=None):
    """Write the pages of all cases or some; returns 0."""
    parser = argparse.ArgumentParser(
        description="Ask YAMNet about ten sounds, and write pages."
    )
    parser.add_argument("--data_folder", required=True, metavar="FOLDER")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[case.name for case in CASES],
        metavar="CASE",
        help=", ".join(case.name for case in CASES),
    )
    options = parser.parse_args(argv)
    cases = [c for c in CASES if options.only is None or c.name in options.only]
    for case in cases:
        # What is missing is missed before the first explanation.
        make_sound(case, options.data_folder)
    yamnet = LMACInterpreter.from_pretrained("yamnet")
    for case in cases:
        for found in write_case(yamnet, case, options.data_folder, options.out):
            print(line(case, found), flush=True)
    print(f"report: {write_report(options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
