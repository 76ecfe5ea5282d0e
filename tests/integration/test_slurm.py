"""The script of the documentation for SLURM, on a machine without it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile as sf
import torch

from lmac_sb.jobs.job import Job

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "slurm.sh"
BASH = shutil.which("bash")

pytestmark = pytest.mark.skipif(BASH is None, reason="no bash here")

# What SLURM would run, in place of it: one machine is all there is.
COMMANDS = {
    "scontrol": 'test "$*" = "show hostnames one" && echo localhost',
    "srun": 'exec "$@"',
    "torchrun": f'exec "{sys.executable}" -m torch.distributed.run "$@"',
}


def test_its_syntax():
    subprocess.run([BASH, "-n", SCRIPT], check=True)
    lines = SCRIPT.read_text("utf-8").splitlines()
    assert "#SBATCH --nodes=8" in lines


@pytest.mark.slow
def test_it_runs(recipe, model, tmp_path):
    """On one machine with two cores; more options are passed on."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, command in COMMANDS.items():
        (bin_folder / name).write_text(f"#!/bin/sh\n{command}\n")
        (bin_folder / name).chmod(0o755)
    sounds = tmp_path / "my sounds"
    sounds.mkdir()
    for i in range(6):
        sf.write(sounds / f"{i}.wav", torch.randn(8000).numpy() / 8, 16000)
    done = subprocess.run(
        [BASH, SCRIPT, sounds, model, tmp_path / "out", "--threshold", "0.5"],
        env={
            **recipe.environment,
            "PATH": os.pathsep.join([str(bin_folder), os.environ["PATH"]]),
            "PYTHONPATH": str(SCRIPT.parents[1]),
            "SLURM_JOB_NODELIST": "one",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_NNODES": "1",
            "SLURM_CPUS_PER_TASK": "2",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    frame = Job.open(tmp_path / "out").frame()
    assert frame["id"].tolist() == [f"{i}.wav" for i in range(6)]
    assert set(frame["threshold"]) == {0.5}
    assert len(list((tmp_path / "out" / "clips").iterdir())) == 6
