"""Errors of usage: one clear line, and what was meant."""

import subprocess
import sys
import time

import pytest
from console import run

FILE = ("explain", "x.wav", "--out", "out")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["exprot"], "unknown command 'exprot'; did you mean 'export'?"),
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["recipe", "copi"], "did you mean 'copy'?"),
        (["recipe"], "found no command, expected one of copy"),
        ([], "found no command, expected one of try, explain, "),
        (["qqqq"], "unknown command 'qqqq'; expected try, explain, "),
        ([*FILE, "--modle", "m"], "--modle; did you mean '--model'?"),
        ([*FILE, "--qqqq"], "unknown option --qqqq"),
        (["export", "a", "b", "--licence=mit"], "did you mean '--license'?"),
        ([*FILE, "--out", "b"], "argument --out: is given twice"),
        ([*FILE, "--json", "--json"], "argument --json: is given twice"),
        ([*FILE, "--model="], "argument --model: has no value"),
        ([*FILE, "--model", ""], "argument --model: has no value"),
        ([*FILE, "--target", "--json"], "argument --target: has no value"),
        ([*FILE, "--target"], "argument --target: has no value"),
        ([*FILE, "--json=1"], "argument --json: takes no value"),
        ([*FILE, "--pool", "men"], "mean_logits; did you mean 'mean'?"),
        ([*FILE, "--format", "mp3"], "found 'mp3', expected wav or flac"),
        ([*FILE, "--threshold", "x"], "invalid float value: 'x', expected a"),
        (["explain", "x.wav"], "argument --out: is missing"),
        (["explain"], "argument FILE: is missing"),
        (["report", ""], "argument DIR: has no value"),
        (["report", "a", "b"], "found 'b', expected no more"),
        (["completion", "bsh"], "did you mean 'bash'?"),
        (["app", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["score", "x"], "argument --key: is missing"),
        (["finetune"], "argument RUN: is missing"),
        (["finetune", "--lr", "1"], "argument RUN: is missing"),
        (["eval", "a", "b"], "found 'b', expected no more"),
        (["eval", ""], "argument RUN: has no value"),
    ],
)
def test_mistakes_are_one_line(arguments, told, capsys):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ") and "usage: lmac" in err
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--lerning_rat", "3"], "unknown key 'lerning_rat'"),
        (["lmac", "--data_folde", "x"], "did you mean 'data_folder'?"),
        # Not `interpreter`, which is a key of other files.
        (["lmac", "--interpretr", "x"], "did you mean 'interpret_period'?"),
        (["lmac", "--lr"], "--lr has no value"),
        (["lmac", "--lr", ""], "--lr has no value"),
        (["lmac", "--lr="], "--lr has no value"),
        (["lmac", "--lr=1", "--lr", "2"], "--lr is given twice"),
        (["lmac", "--lr", "fast"], "lr is 'fast', expected a number above 0"),
        (["lmac", "more"], "'more' is not an option"),
        (["lmac_anny"], "did you mean 'lmac_any'?"),
        (["variants/lmac_pssi"], "did you mean 'variants/lmac_psi'?"),
        (["gone.yaml"], "gone.yaml: no such file"),
        (["eval"], "is a yaml file for lmac eval, not for lmac train"),
    ],
)
def test_mistakes_in_the_keys_of_a_yaml(arguments, told, capsys):
    assert run("train", *arguments) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1 and err.startswith("error: ")
    assert told in err


def test_a_yaml_of_another_command(capsys):
    assert run("eval", "lmac.yaml") == 1
    assert "is a yaml file for lmac train" in capsys.readouterr().err


TIMED = """
import sys
from lmac_sb.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("torch" in sys.modules, code, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["explain", "--help"], 0),
        (["train", "--help"], 0),
        (["train", "lmac_any", "--help"], 0),
        (["completion", "zsh"], 0),
        (["exprot"], 2),
        ([*FILE, "--refine", "2.5"], 2),
        ([*FILE, "--threshold", "2"], 1),
        ([*FILE, "--at", "x"], 1),
        ([*FILE, "--targets", "all", "--min-p", "3"], 1),
        (["train", "--lerning_rate", "3"], 1),
        (["train", "lmac", "--lr", "fast"], 1),
        (["finetune"], 2),
        (["app", "--port", "x"], 2),
    ],
)
def test_help_and_refusals_do_not_wait_for_torch(arguments, code, tmp_path):
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", TIMED, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    spent = time.monotonic() - start
    assert done.stderr.splitlines()[-1] == f"False {code}", done.stderr
    assert list(tmp_path.iterdir()) == []
    # It is 0.3 s on an idle machine; importing torch takes 2 s and more.
    assert spent < 2
