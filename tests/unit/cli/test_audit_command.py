"""`lmac audit` on folders of sounds, with what users have beside them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import soundfile as sf
from console import run

from lmac_sb.cli.audit import audit

ROOT = Path(__file__).resolve().parents[3]
TABLE = "datei;klasse;ort\ncat/0.wav;cat;Münster\ndog/0.wav;dog;\nb.wav;dog;x\n"


@pytest.fixture
def data(tmp_path, sounds):
    """Two clips of each of two classes, and a file that is no sound."""
    folder = tmp_path / "data"
    for name, wav in (("cat", sounds[0]), ("dog", sounds[1])):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            length = 8000 - 100 * i
            sf.write(folder / name / f"{i}.wav", wav[:length].numpy(), 16000)
    (folder / "b.wav").write_bytes(b"no sound")
    return folder


@pytest.fixture
def words(data, bundle, tmp_path):
    """A command, with a table in another encoding."""
    (tmp_path / "table.csv").write_bytes(TABLE.encode("latin-1"))
    return [
        *("audit", data, "--model", bundle, "--labels", tmp_path / "table.csv"),
        *("--label-column", "klasse", "--examples", "1"),
    ]


def digest(folder):
    """Every file but those of clips to hear, which tell the day."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and "examples" not in path.relative_to(folder).parts[:1]
        and path.suffix != ".html"
    }


def test_a_folder_with_a_table_and_a_bad_file(words, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*words, "--out", out) == 0
    printed = capsys.readouterr()
    assert "warning: 1 of 5 clips failed:\n  b.wav: cannot" in printed.err
    assert f"page: {out / 'audit.html'}" in printed.out
    assert f"next: lmac app --explained {out}\n" in printed.out
    frame = pd.read_parquet(out / "tables" / "clips.parquet").set_index("id")
    assert len(frame) == 5
    assert frame.loc["cat/0.wav", "column:ort"] == "Münster"
    assert pd.isna(frame.loc["dog/0.wav", "column:ort"])
    assert frame.loc["dog/0.wav", "label"] == "dog"
    assert pd.notna(frame.loc["b.wav", "error"])
    found = json.loads((out / "audit.json").read_text("utf-8"))
    assert found["corpus"]["n_failed"] == 1 and len(found["examples"]) == 1
    text = (out / "audit.json").read_text() + (out / "audit.html").read_text()
    assert str(tmp_path) not in text


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")


@pytest.mark.slow
def test_two_processes_write_the_same(recipe, words, tmp_path):
    """Of torchrun and of our own; no bit differs."""
    for name, launcher, more in (
        ("one", (), ()),
        ("torchrun", TORCHRUN, ()),
        ("own", (), ("--processes", "2")),
    ):
        command = [*launcher, "lmac_sb", *words, *more]
        done = recipe.command(["-m", *command, "--out", tmp_path / name])
        assert done.code == 0, done.err
        assert done.out.count("page: ") == 1
        assert done.err.count("b.wav: cannot") == 1
    one, two, own = (digest(tmp_path / x) for x in ("one", "torchrun", "own"))
    assert one == two == own and len(one) > 20


def test_again_with_other_options_it_is_refused(words, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*words, "--out", out) == 0
    before = digest(out)
    assert run(*words, "--out", out) == 0
    assert digest(out) == before
    capsys.readouterr()
    assert run(*words, "--out", out, "--limit", "2") == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "options.limit: there" in error
    assert digest(out) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--limit", "0"], "--limit: 0, expected a whole number from 1"),
        (["--examples", "-1"], "--examples: -1, expected a whole number from"),
        (["--seed", "-1"], "--seed: -1, expected one from 0"),
        (["--processes", "0"], "--processes: 0, expected a whole number"),
        (["--labels", "no/such.csv"], "no/such.csv: no such file"),
        (["--classes-map", "no/such.csv"], "no/such.csv: no such file"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["--quiet", "--verbose"], "expected --quiet or --verbose"),
    ],
)
def test_mistakes_are_refused_before_torch_is_imported(more, said, tmp_path):
    more = list(more)
    data = more.pop() if more == ["nowhere"] else str(tmp_path)
    code = (
        "import sys; from lmac_sb.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    words = ["audit", data, "--out", str(tmp_path / "out"), *more]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_tells_every_option(capsys):
    assert run("audit", "--help") == 0
    text = capsys.readouterr().out
    for parameter in audit.params:
        assert parameter.opts[0].upper() in text.upper()
