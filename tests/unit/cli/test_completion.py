"""Shell completion: commands, options, models, yaml files and their keys."""

import os
import shutil
import subprocess
import sys

import pytest
from console import run

from lmac_sb.adapters.named import NAMED
from lmac_sb.cli.usage import MODELS


def complete(*words):
    """What a shell would offer for the last of these words."""
    done = subprocess.run(
        [sys.executable, "-c", "from lmac_sb.cli import main; main()"],
        env={
            **os.environ,
            "_LMAC_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["lmac", *words]),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["ex"], {"explain", "export"}),
        (["explain", "--tar"], {"--target", "--targets"}),
        (["explain", "--pool", "me"], {"mean", "mean_logits"}),
        (["explain", "--model", "yam"], {"yamnet"}),
        (["app", "--model", "cr"], {"crepe"}),
        (["recipe", "c"], {"copy"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["train", "lmac_a"], {"lmac_any"}),
        (["train", "l2"], {"l2i"}),
        (["train", "--l_in"], {"--l_in_w"}),
        (["train", "l2i", "--nmf_s"], {"--nmf_sparsity"}),
        (["train", "l2i", "--lr", "1", "--nmf_f"], {"--nmf_frames"}),
        (["finetune", "run", "--crosscor_"], {"--crosscor_th"}),
        (["eval", "--optim"], {"--optimised_steps", "--optimizer_step_limit"}),
        (["sanity", "--roar_s"], {"--roar_shares"}),
    ],
)
def test_what_is_offered(words, offered):
    assert set(complete(*words)) == offered


def test_files_are_left_to_the_shell():
    assert complete("report", "x") == ["x"]
    assert complete("eval", "x") == ["x"]


def test_the_models_are_those_that_there_are():
    """They stand in two places, as the other imports torch."""
    assert sorted(NAMED) == sorted(MODELS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_for_a_shell(shell, capsys, tmp_path):
    assert run("completion", shell) == 0
    script = capsys.readouterr().out
    assert f"_LMAC_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True)
