"""The commands that a command prints at its end work as they are printed."""

import os
import shlex
import subprocess

import pytest

SMALL = "--methods '[lmac, ones]' --settings '[clean]' --n_clips 2"


# Writes down what a shell makes of a line, for a copy that need not import
# torch.
PYTHON = """#!/bin/sh
printf '%s\\0' "$@" >"$WORDS"
"""


@pytest.fixture
def shell(recipe, tmp_path):
    """Run a line in a shell, where a user stands; returns its output."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)
    here = tmp_path / "my folder"
    here.mkdir()
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "WORDS": str(tmp_path / "words"),
    }

    def shell(line, code=0):
        subprocess.run(line, shell=True, cwd=here, env=env, check=True)
        words = (tmp_path / "words").read_text("utf-8").split("\0")[:-1]
        (tmp_path / "words").unlink()
        done = recipe.command(words, cwd=here)
        assert done.code == code, f"{line}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err
        return done.err if code else done.out

    shell.folder = here
    return shell


def steps_of(out):
    """What a command names as next, by the name of each."""
    lines = [
        line.removeprefix("next: ")
        for line in out.splitlines()
        if line.startswith("next: ")
    ]
    found = {line.split("lmac_sb ")[1].split()[0]: line for line in lines}
    assert len(found) == len(lines)
    return found


@pytest.mark.slow
def test_from_training_to_a_page(shell, tiny, scenes):
    """In a folder with a space, with an experiment that has another name."""
    options = {
        **tiny,
        "wham_folder": scenes / "noise",
        "experiment_name": "my run",
    }
    words = [f"--{key}={value}" for key, value in options.items()]
    out = shell(f"python -m lmac_sb train {shlex.join(words)}")
    # Paths are those of where the user stands.
    assert "results: results/my run/1234/results.json" in out
    steps = steps_of(out)
    assert sorted(steps) == ["eval", "export", "finetune", "report"]
    assert sorted(steps_of(shell(steps["finetune"]))) == sorted(
        {*steps} - {"finetune"}
    )
    table = "lines: results/my run_eval/1234/summary.md\n"
    assert table in shell(f"{steps['eval']} {SMALL}")
    (explain,) = steps_of(shell(steps["export"])).values()
    (report,) = steps_of(shell(explain)).values()
    for command in (steps["report"], report):
        out = shell(command).splitlines()
        page = shell.folder / out[0].removeprefix("report: ")
        assert page.is_file()
        assert out[1] == f"open it in a browser: {page.as_uri()}"


@pytest.mark.slow
def test_from_a_classifier_on(shell, tiny, scenes):
    """It is trained as an error says, and L-MAC is trained for it then."""
    few = "--number_of_epochs 1 --batch_size 8"
    line = f"python -m lmac_sb train --data_folder {scenes} --save_clips 0"
    errors = shell(line, code=1)
    (command,) = [
        error.split("train a classifier first: ")[1]
        for error in errors.splitlines()
        if error.startswith("error: classifier_folder: ")
    ]
    assert command.startswith("python -m lmac_sb train classifier_conv --")
    steps = steps_of(shell(f"{command} {few}"))
    assert list(steps) == ["train"]
    shell(f"{steps['train']} --quiet --save_clips 0")
    shell(f"{line} {few} --experiment_name again")
