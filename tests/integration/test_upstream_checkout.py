"""The contributions in a checkout of SpeechBrain, by SpeechBrain's own checks.

LMAC_SB_SPEECHBRAIN names a checkout whose last commit is taken; it is not
changed itself.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = "tests/unittests/lmac"

pytestmark = pytest.mark.slow


def run(folder, *command):
    """What a command in the checkout prints; it must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        # The checkout's speechbrain, and no lmac_sb.
        env={**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


def lay(folder, number):
    """Put a contribution into the checkout, and commit it."""
    tool = ROOT / "tools" / "upstream.py"
    done = subprocess.run(
        [sys.executable, str(tool), str(number), str(folder)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    run(folder, "git", "add", "--all")
    return done.stdout


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def checkout(request, tmp_path_factory):
    """A copy of the checkout, with the contributions up to one."""
    place = os.environ.get("LMAC_SB_SPEECHBRAIN")
    if not place:
        pytest.skip("no checkout of SpeechBrain: LMAC_SB_SPEECHBRAIN is unset")
    folder = tmp_path_factory.mktemp("upstream") / "speechbrain"
    source = Path(place).resolve()
    run(ROOT, "git", "clone", "--quiet", "--shared", source, folder)
    for number in range(1, request.param + 1):
        assert not lay(folder, number).endswith(" 0 files changed\n")
    for number in range(1, request.param + 1):
        assert lay(folder, number) == f"{folder}: 0 files changed\n"
    return request.param, folder


@pytest.fixture
def touched(checkout):
    """Files that differ from SpeechBrain's."""
    names = run(checkout[1], "git", "diff", "--cached", "--name-only")
    return names.split()


def test_form(checkout, touched):
    """What pre-commit runs, with SpeechBrain's settings."""
    _, folder = checkout
    python = [name for name in touched if name.endswith(".py")]
    run(folder, sys.executable, "-m", "ruff", "check", *python)
    run(folder, sys.executable, "-m", "ruff", "format", "--check", *python)
    yamls = [name for name in touched if name.endswith(".yaml")]
    if yamls:
        run(folder, sys.executable, "-m", "yamllint", "--no-warnings", *yamls)
    codespell = Path(sys.executable).with_name("codespell")
    run(folder, codespell, "--ignore-words=.dict-speechbrain.txt", *touched)
    for name in touched:
        content = (folder / name).read_bytes()
        lines = content.split(b"\n")
        assert content.endswith(b"\n"), name
        assert not any(line != line.rstrip() for line in lines), name


def test_consistency(checkout):
    run(checkout[1], sys.executable, "-m", "pytest", "-q", "tests/consistency")


def test_examples(checkout):
    folder = checkout[1]
    modules = [folder / "speechbrain/lobes/lmac"]
    modules += (folder / "speechbrain/inference").glob("lmac.py")
    run(
        folder,
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--doctest-modules",
        *modules,
    )


def test_its_own_tests(checkout):
    """Of each contribution those that look at more than a module."""
    number, folder = checkout
    name = {1: "decoder", 2: "recipe", 3: "rates", 4: "published_layout"}[
        number
    ]
    test = f"{TESTS}/test_lmac_{name}.py"
    run(folder, sys.executable, "-m", "pytest", "-q", test)
    run(folder, sys.executable, "-m", "pytest", "-q", "--collect-only", TESTS)
