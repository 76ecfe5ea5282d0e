"""What `make demo` names at its end works as it is printed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_next_commands_of_the_demo(bundle, tmp_path):
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    shutil.copytree(bundle, tmp_path / "results" / "model")
    (tmp_path / "bin").mkdir()
    lmac = tmp_path / "bin" / "lmac"
    lmac.write_text(f'#!/bin/sh\nexec {sys.executable} -m lmac_sb "$@"\n')
    lmac.chmod(0o755)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    # The last lines of the demo are these alone, without its trainings.
    lines = makefile.partition("\ndemo:")[2].partition("\n\n")[0]
    before, _, after = lines.partition("\t$(BIN)/lmac report")
    assert "train_lmac.py" in before
    ending = after.partition("\n")[2]
    values = f"BIN := bin\nRECIPE := .\nend:\n{ending}\n"
    (tmp_path / "Makefile").write_text(values, "utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        ["make", "-s", "end"],
        cwd=tmp_path,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    commands = [x.removeprefix("next: ") for x in done.stdout.splitlines()]
    assert len(commands) == 3
    for command in commands:
        assert command.startswith("bin/lmac ")
        ran = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "explained" / "report.html").is_file()
