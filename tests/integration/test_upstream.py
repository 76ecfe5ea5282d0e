"""The contribution in a checkout of SpeechBrain, by SpeechBrain's own checks.

A checkout is sought beside this repository (../speechbrain) and in
SPEECHBRAIN_CHECKOUT; all is done in a copy of its last commit.

Authors
 * The lmac-sb authors 2026
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "make_upstream.py"
RECIPE = "recipes/ESC50/interpret"

pytestmark = pytest.mark.slow


def run(folder, *command):
    """What a command in the checkout prints; it must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        # The checkout's speechbrain, not the installed one.
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = [
        line
        for line in done.stdout.splitlines(keepends=True)
        if not line.startswith("Checking ")
    ]
    assert done.returncode == 0, "".join(said)[-8000:]
    return done.stdout


def python(folder, *arguments):
    """The same for a module of Python."""
    return run(folder, sys.executable, "-m", *arguments)


def lay(folder, *arguments):
    """Run the tool on a checkout."""
    return subprocess.run(
        [sys.executable, str(TOOL), "--speechbrain", str(folder), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def status(folder):
    """What git sees, with the content of what is not in a commit yet."""
    run(folder, "git", "add", "--all")
    return run(folder, "git", "diff", "--cached", "--raw", "--abbrev=40")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout's last commit, with the contribution in it."""
    places = [
        Path(os.environ.get("SPEECHBRAIN_CHECKOUT") or "unset"),
        ROOT.parent / "speechbrain",
    ]
    found = [p for p in places if (p / "speechbrain/version.txt").is_file()]
    if not found:
        pytest.skip(
            "no checkout of SpeechBrain: SPEECHBRAIN_CHECKOUT unset, nothing "
            f"in {places[1]}"
        )
    folder = tmp_path_factory.mktemp("upstream") / "speechbrain"
    run(ROOT, "git", "clone", "--quiet", found[0].resolve(), folder)
    done = lay(folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def touched(checkout):
    """Files that the contribution adds or edits."""
    run(checkout, "git", "add", "--all")
    names = run(checkout, "git", "diff", "--cached", "--name-only")
    return [name for name in names.split() if (checkout / name).exists()]


def test_a_second_run_changes_nothing(checkout):
    before = status(checkout)
    done = lay(checkout)
    assert done.stdout == f"{checkout}: 0 files changed\n"
    assert status(checkout) == before


def test_every_file_goes(checkout, touched):
    """None is ignored by SpeechBrain's .gitignore; nothing else is touched."""
    modules = {path.name for path in (ROOT / "lmac_sb").glob("*.py")}
    folder = "speechbrain/lobes/lmac/"
    assert {
        Path(name).name
        for name in touched
        if name.startswith(folder) and name.endswith(".py")
    } == modules
    deleted = run(checkout, "git", "diff", "--cached", "--diff-filter=DR")
    assert deleted == ""
    others = [
        name
        for name in touched
        if re.search(r"l2i_|piq|amt|nmf|interpreter_brain", name)
        or name.endswith(("esc50_prepare.py", "interpret/train_l2i.py"))
        if "test_lmac" not in name
    ]
    assert others == []


def test_form(checkout, touched):
    """What pre-commit runs, with SpeechBrain's settings."""
    sources = [name for name in touched if name.endswith(".py")]
    yamls = [name for name in touched if name.endswith(".yaml")]
    python(checkout, "ruff", "format", "--check", *sources)
    python(checkout, "ruff", "check", *sources)
    python(checkout, "yamllint", "--no-warnings", *yamls)
    ignored = "--ignore-words=.dict-speechbrain.txt"
    run(
        checkout, Path(sys.executable).with_name("codespell"), ignored, *touched
    )
    for name in touched:
        content = (checkout / name).read_bytes()
        assert len(content) < 1 << 20, name
        assert b"\r" not in content, name
        assert not re.search(rb"[ \t]$", content, re.MULTILINE), name
        assert content.endswith(b"\n"), name


def test_consistency(checkout):
    python(checkout, "pytest", "-q", "tests/consistency")


def test_examples(checkout):
    """Doctests of some modules, and that PIQ's module is importable."""
    folder = "speechbrain/lobes/lmac"
    names = ["errors", "features", "masking", "losses", "metrics", "bundles"]
    modules = [f"{folder}/{name}.py" for name in names]
    python(checkout, "pytest", "-q", "--doctest-modules", *modules)
    code = (
        "from speechbrain.inference.interpretability import *\n"
        "from speechbrain.inference.interpretability import LMACInterpreter\n"
        "print(PIQAudioInterpreter, LMACInterpreter.__module__)"
    )
    out = run(checkout, sys.executable, "-c", code)
    assert out.endswith(" speechbrain.lobes.lmac.inference\n")


def test_unit_tests(checkout):
    """Those of some modules; all are run by SpeechBrain's own CI."""
    folder = "tests/unittests/lmac/unit"
    names = ["losses", "masking", "features", "bundles", "decoder"]
    tests = [f"{folder}/test_lmac_{name}.py" for name in names]
    python(checkout, "pytest", "-q", *tests)


def test_unit_tests_import_what_is_there(checkout):
    python(checkout, "pytest", "-q", "--collect-only", "tests/unittests/lmac")


def test_recipes_load(checkout):
    """Every row of the table: SpeechBrain's yaml test, without its pretrained.

    What needs a package that is not installed here is passed over, as long
    as it is no recipe of ours.
    """
    with open(checkout / "tests/recipes/ESC50.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from hyperpyyaml import load_hyperpyyaml\n"
        "load_hyperpyyaml(open(sys.argv[1]), {'data_folder': 'data', "
        "'output_folder': sys.argv[3]})"
    )
    ours = (ROOT / "tests/recipes/ESC50.csv").read_text("utf-8")
    loaded = []
    for row in rows:
        name = row["Hparam_file"]
        if "interpret" not in name or re.search("vit|focalnet|cnn14", name):
            # Large, or fetched from a hub.
            continue
        done = subprocess.run(
            [sys.executable, "-c", code, name, RECIPE, "out"],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            loaded.append(name)
        else:
            assert name not in ours, done.stderr[-4000:]
            assert "ModuleNotFoundError" in done.stderr, done.stderr[-4000:]
    for name in ("lmac.yaml", "piq.yaml", "l2i_conv2d.yaml"):
        assert f"{RECIPE}/hparams/{name}" in loaded


def test_rows_run(checkout, tmp_path, monkeypatch):
    """SpeechBrain's recipe test of each row of ours, but those of CNN14."""
    # It calls `python` with a path of its own, for an installed speechbrain.
    for name in ("python", "python3"):
        script = tmp_path / name
        script.write_text(
            f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{checkout}" '
            f'exec "{sys.executable}" "$@"\n',
            encoding="utf-8",
        )
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with open(ROOT / "tests/recipes/ESC50.csv", encoding="utf-8") as table:
        ours = [row["Hparam_file"] for row in csv.DictReader(table)]
    code = (
        "import sys\n"
        "from tests.utils.recipe_tests import run_recipe_tests\n"
        "rows = {'filters_fields': ['Hparam_file'], 'filters': [sys.argv[1:]]}"
        "\nsys.exit(not run_recipe_tests(**rows))"
    )
    small = [name for name in ours if "cnn14" not in name]
    assert len(small) == len(ours) - 2
    run(checkout, sys.executable, "-c", code, *small)


def test_the_description_is_up_to_date(checkout, tmp_path):
    text = tmp_path / "UPSTREAM.md"
    done = lay(checkout, "--description", str(text))
    assert done.returncode == 0, done.stderr
    committed = (ROOT / "UPSTREAM.md").read_text(encoding="utf-8")
    assert text.read_text(encoding="utf-8") == committed, (
        "run tools/make_upstream.py with --description UPSTREAM.md"
    )
