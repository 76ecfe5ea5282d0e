"""Tests of the contributions that are declared for SpeechBrain."""

import importlib.util
from importlib.util import find_spec
from pathlib import Path

import pytest

from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location(
    "upstream", ROOT / "tools/upstream.py"
)
upstream = importlib.util.module_from_spec(spec)
spec.loader.exec_module(upstream)


@pytest.mark.parametrize("number", upstream.load()["contributions"])
def test_a_contribution_is_small_and_names_only_itself(number):
    new = upstream.plan(number)
    files = [name for name in new if not name.startswith("tests/")]
    assert 0 < len(files) <= 15
    assert len(new) > len(files)
    for place, text in new.items():
        assert "lmac_sb" not in text, place
        assert "\nAuthors\n *" in text, place
        compile(text, place, "exec")


def test_a_listed_file_that_is_missing():
    declared = upstream.load()
    declared["contributions"][1]["modules"].append("explain.nothing")
    with pytest.raises(LMACError, match="explain/nothing.py: listed"):
        upstream.plan(1, declared)


def test_an_import_of_what_is_not_copied():
    declared = upstream.load()
    declared["contributions"][1]["modules"].remove("explain.refine")
    with pytest.raises(LMACError, match="imports lmac_sb.explain.refine"):
        upstream.plan(1, declared)


def test_too_many_files():
    declared = upstream.load()
    declared["limit"] = 5
    with pytest.raises(LMACError, match="15 files, expected at most 5"):
        upstream.plan(1, declared)


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(LMACError, match="not a checkout"):
        upstream.write({"a.py": "x = 1\n"}, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_a_second_run_changes_nothing(tmp_path):
    (tmp_path / "speechbrain").mkdir()
    (tmp_path / "speechbrain/version.txt").write_text("1.1\n")
    new = {"speechbrain/a.py": "import sys\nimport os\n"}
    assert upstream.write(new, tmp_path) == ["speechbrain/a.py"]
    assert upstream.write(new, tmp_path) == []


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_what_is_written_passes_the_checks_of_form(tmp_path):
    """Formatted files pass the checks, also after removing tests."""
    text = "import sys\nimport os\nx = sys.argv\n\n\n\n\ny = 1\n"
    tidied = upstream.tidy(text, "a.py", tmp_path)
    assert tidied == "import sys\n\nx = sys.argv\n\n\ny = 1\n"
