"""Errors of usage: one clear line, and what was meant."""

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf
from console import run

from lmac_sb.cli.main import lmac

FILE = ("explain", "x.wav", "--out", "out")


@pytest.mark.parametrize("command", [["try"], ["app"], [*FILE]])
def test_a_name_that_no_model_has(command, capsys):
    assert run(*command, "--model", "cat") == 1
    assert capsys.readouterr().err == (
        "error: cat: no such folder, expected a model, or one of crepe, esc10, "
        "silero, yamnet\n"
    )


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
        (["help"], "unknown command 'help'; did you mean '--help'?"),
        (["try", "--steps", "3"], "unknown option --steps (usage: lmac try"),
        (["try", "--modle=x"], "unknown option --modle; did you mean '--mod"),
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


HEAVY = {"torch", "pandas", "speechbrain", "matplotlib"}
TIMED = """
import sys
from lmac_sb.cli import main
heavy = {*sys.argv.pop(1).split()}
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print(sorted(heavy & {*sys.modules}), code, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        *([[name, "--help"], 0] for name in lmac.commands),
        (["train", "lmac_any", "--help"], 0),
        (["completion", "zsh"], 0),
        (["models"], 0),
        (["exprot"], 2),
        ([*FILE, "--exprot"], 2),
        ([*FILE, "--refine", "2.5"], 2),
        ([*FILE, "--write", "row"], 2),
        ([*FILE, "--quiet", "--quiet"], 2),
        ([*FILE, "--threshold", "2"], 1),
        ([*FILE, "--at", "x"], 1),
        ([*FILE, "--targets", "all", "--min-p", "3"], 1),
        ([*FILE, "--targets", "all", "--target", "dog"], 1),
        ([*FILE, "--quiet", "--verbose"], 1),
        ([*FILE, "--processes", "0"], 1),
        ([*FILE, "--model", "esc10", "--pool", "max"], 1),
        ([*FILE, "--model", "esc11"], 1),
        ([*FILE, "--model", "./no/such"], 1),
        ([*FILE, "--model", "empty"], 1),
        ([*FILE, "--model", "other"], 1),
        ([*FILE, "--model", "other/file"], 1),
        (["explain", "gone.wav", "--out", "x"], 1),
        (["explain", "gone.wav", "g.flac", "--out", "x", "--json"], 1),
        (["explain", "gone.csv", "--out", "x"], 1),
        (["explain", "empty", "--out", "x"], 1),
        (["explain", "other/file", "--out", "other/file"], 1),
        (["explain", "other/file", "--out", "other/file/x"], 1),
        (["report", "gone"], 1),
        (["report", "empty"], 1),
        (["report", "other/file"], 1),
        (["export", "gone", "x"], 1),
        (["export", "other", "other"], 1),
        (["cache", "gone"], 1),
        (["app", "--explained", "gone"], 1),
        (["app", "--model", "./gone"], 1),
        (["app", "--port", "x"], 2),
        (["audit", "empty", "--out", "x"], 1),
        (["audit", "empty", "--model", "gone", "--out", "x"], 1),
        (["try", "--model", "gone"], 1),
        (["try", "--out", "other/file"], 1),
        (["bench", "--out", "other/file"], 1),
        (["bench", "--out", "x", "--trained", "other/file"], 1),
        (["eval", "gone"], 1),
        (["sanity", "gone"], 1),
        (["listen", "gone"], 1),
        (["train", "--lerning_rate", "3"], 1),
        (["train", "lmac", "--lr", "fast"], 1),
        (["train", "lmac", "--device"], 1),
        (["finetune"], 2),
        (["finetune", "gone"], 1),
    ],
)
def test_help_and_refusals_do_not_wait_for_torch(arguments, code, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", TIMED, " ".join(HEAVY), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    after = os.times()
    *said, end = done.stderr.splitlines()
    assert end == f"[] {code}", done.stderr
    assert len(said) == (code != 0 and done.stdout == "")
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "other"}
    # It is 0.2 to 0.4 s; importing torch takes 2 s and more.
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1


def test_an_explanation_does_not_wait_for_what_it_does_without(tmp_path):
    """The compiler of torch takes seconds to import, matplotlib one."""
    rng = np.random.default_rng(0)
    sf.write(tmp_path / "a.wav", rng.standard_normal(16000) / 8, 16000)
    unused = "torch._dynamo sympy triton pandas matplotlib"
    done = subprocess.run(
        [sys.executable, "-c", TIMED, unused]
        + ["explain", "a.wav", "--model", "esc10", "--out", "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stderr.splitlines()[-1] == "[] 0", done.stderr
    assert (tmp_path / "out" / "a" / "spectra.png").is_file()
