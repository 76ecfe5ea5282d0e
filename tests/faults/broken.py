"""Run a script of the recipe, and break it at a chosen moment.

    python broken.py FAULT SCRIPT ARGUMENTS

The fault is a name and its values, such as ``kill_step:6``.
"""

import math
import os
import re
import resource
import runpy
import shutil
import signal
import sys
from pathlib import Path

import esc50_prepare
import numpy
import soundfile
import torch

from lmac_sb.data.audio import Preprocessor
from lmac_sb.training.brain import RecipeBrain


def kill():
    """Kill this process, so that nothing can be caught or cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(place, name, number, action, counts=lambda *args: True):
    """Call `action` before the n-th call of `place.name` that counts."""
    original, calls = getattr(place, name), []

    def watched(*args, **kwargs):
        if counts(*args):
            calls.append(1)
            if len(calls) == int(number):
                action(*args)
        return original(*args, **kwargs)

    setattr(place, name, watched)


def kill_step(number, rank="0"):
    """In the n-th training step of one process."""
    if os.environ.get("RANK", "0") == rank:
        before(RecipeBrain, "fit_batch", number, lambda *args: kill())


def kill_save(number):
    """In the middle of the n-th file of tensors."""

    def half(state, path):
        Path(path).write_bytes(b"half")
        kill()

    before(torch, "save", number, half)


def kill_replace(name, number):
    """Before a complete file gets this name for the n-th time."""
    before(
        os,
        "replace",
        number,
        lambda *args: kill(),
        lambda source, target: Path(target).name == name,
    )


def kill_delete(number):
    """In the middle of the n-th deletion of a checkpoint."""

    def half(path):
        sorted(Path(path).iterdir())[0].unlink()
        kill()

    before(
        shutil, "rmtree", number, half, lambda path, **_: "CKPT" in str(path)
    )


def kill_decode(number):
    """While the preparation checks the n-th clip."""
    before(esc50_prepare, "decode_audio", number, lambda *args: kill())


def kill_sound(number):
    """Before the n-th sound is written."""
    before(soundfile, "write", number, lambda *args: kill())


def kill_picture(number):
    """After the n-th explained clip's sounds, before its maps."""
    before(numpy, "savez_compressed", number, lambda *args: kill())


def _fill(*args):
    """From now on no file can become longer than 100 kB."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))


def full_save(number):
    """The disk is full from the n-th file of tensors on."""
    before(torch, "save", number, _fill)


def full_results(number):
    """The disk is full when results are written for the n-th time."""
    import lmac_sb.utils.io

    def fill(*args):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    before(lmac_sb.utils.io.csv, "DictWriter", number, fill)


def full_disk(n_bytes):
    """No file can become longer than this."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(n_bytes), hard))


def poison(pattern, first=1):
    """From the n-th read on, clips with matching names are NaN."""
    original, calls = Preprocessor.__call__, []

    def poisoned(self, path):
        wav, gain = original(self, path)
        calls.append(path)
        if len(calls) >= int(first) and re.search(pattern, Path(path).stem):
            wav = wav * math.nan
        return wav, gain

    Preprocessor.__call__ = poisoned


def pause():
    """Announce the training, and wait for a line before it starts."""

    def wait(*args):
        print("PAUSED", flush=True)
        sys.stdin.readline()

    before(RecipeBrain, "fit", 1, wait)


if __name__ == "__main__":
    name, *values = sys.argv[1].split(":")
    globals()[name](*values)
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
