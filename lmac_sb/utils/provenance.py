"""Where a result came from: command, versions, machine, commit."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import speechbrain
import torch
import torchaudio

from lmac_sb.utils.portable import portable, portable_command

__all__ = ["provenance"]


def provenance(**more):
    """What is needed to know where a result came from.

    Arguments
    ---------
    **more
        Further entries, such as the fold and the checkpoint. Results are for
        others: of paths only the last name stays.

    Returns
    -------
    dict
        Command, versions, machine, git commit and the entries given.
    """
    return {
        "command": portable_command(sys.argv),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchaudio": torchaudio.__version__,
        "speechbrain": speechbrain.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        **portable(more),
    }


def _commit():
    """Commit of this code, "unknown" outside a clone or without git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
