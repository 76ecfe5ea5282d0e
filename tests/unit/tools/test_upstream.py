"""Tests of the contributions that are declared for SpeechBrain."""

import ast
import doctest
import functools
import importlib.util
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location(
    "upstream", ROOT / "tools/upstream.py"
)
upstream = importlib.util.module_from_spec(spec)
spec.loader.exec_module(upstream)

plan = functools.cache(upstream.plan)  # a second or two for each contribution
needs_ruff = pytest.mark.skipif(
    find_spec("ruff") is None, reason="ruff is not installed"
)
RECIPE = "recipes/ESC50/interpret"
NUMBERS = list(upstream.load()["contributions"])


@pytest.mark.parametrize("number", NUMBERS)
def test_a_contribution_is_small_and_names_only_itself(number):
    new = plan(number)
    _, edited = upstream.patch_of(number, upstream.load())
    files = [n for n in [*new, *edited] if not n.startswith("tests/")]
    assert 0 < len(files) <= 15
    assert any(name.startswith("tests/") for name in new)
    for place, text in new.items():
        assert "lmac_sb" not in text, place
        if place.endswith(".py"):
            assert "\nAuthors\n *" in text, place
            compile(text, place, "exec")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_contribution_is_described(number):
    text = (ROOT / f"UPSTREAM-{number}.md").read_text(encoding="utf-8")
    assert f"`python tools/upstream.py {number} ../speechbrain`" in text
    for title in ("## What does this PR do?", "### What breaks"):
        assert f"{title}\n" in text


@needs_ruff
@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_left_out_is_not_needed(number, tmp_path):
    for place, text in plan(number).items():
        if place.endswith(".py"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text(text, encoding="utf-8")
    check = ["-m", "ruff", "check", "--isolated", "--select", "F821"]
    done = subprocess.run(
        [sys.executable, *check, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def unknown_names(docstring):
    """Names in the examples that are run, without those that they make."""
    examples = doctest.DocTestParser().get_examples(docstring or "")
    run = [x.source for x in examples if doctest.SKIP not in x.options]
    names = [
        node
        for node in ast.walk(ast.parse("".join(run)))
        if isinstance(node, ast.Name)
    ]
    made = {x.id for x in names if isinstance(x.ctx, ast.Store)}
    return {x.id for x in names} - made


@pytest.mark.parametrize("number", NUMBERS)
def test_examples_do_without_our_conftest(number):
    """Whatever uses its names is skipped there."""
    ours = {"explainer", "interpreter", "model", "path", "wavs"}
    for place, text in plan(number).items():
        if place.startswith("speechbrain/") and place.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    names = unknown_names(ast.get_docstring(node))
                    assert not ours & names, f"{place}: {node.name}"


def test_every_name_leads_somewhere():
    """What one contribution imports of `lmac` is there by then."""
    there = set()
    for number in NUMBERS:
        new = plan(number)
        there |= {place for place in new if place.startswith("speechbrain/")}
        for place, text in new.items():
            for line in text.splitlines():
                _, _, found = line.partition("from speechbrain.lobes.lmac.")
                if found:
                    name = found.split()[0].strip("`.,")
                    assert f"speechbrain/lobes/lmac/{name}.py" in there, place


def test_every_imported_function_is_there():
    """Also those that one module leaves out and another one needs."""
    new = {k: v for number in NUMBERS for k, v in plan(number).items()}
    for place, text in new.items():
        for node in ast.walk(ast.parse(text)) if place[-3:] == ".py" else ():
            module = node.module if isinstance(node, ast.ImportFrom) else None
            there = f"{module}.py".replace(".", "/", str(module).count("."))
            if there in new:
                body = ast.parse(new[there]).body
                names = {getattr(x, "name", None) for x in body}
                names |= {
                    getattr(target, "id", None)
                    for x in body
                    if isinstance(x, (ast.Assign, ast.AnnAssign))
                    for target in getattr(x, "targets", [None])
                }
                missing = {alias.name for alias in node.names} - names
                assert not missing, f"{place}: {missing} of {there}"


def test_nothing_goes_twice():
    places = [place for n in NUMBERS for place in plan(n)]
    assert len(places) == len(set(places))


def test_the_recipe_reads_each_key():
    """SpeechBrain's rule: in the script as text, or by a later reference."""
    new = plan(2)
    script = new[f"{RECIPE}/train_lmac.py"]
    for name in ("lmac", "lmac_ft", "lmac_cnn14"):
        text = new[f"{RECIPE}/hparams/{name}.yaml"]
        lines = text.splitlines()
        for i, line in enumerate(lines):
            key = line.partition(":")[0]
            if not key.isidentifier() or key == "ckpt_interval_minutes":
                continue
            later = "\n".join(lines[i + 1 :])
            read = (f'hparams["{key}"]', f"hparams.{key}", f"modules.{key}")
            used = f"!ref <{key}>" in later or f"<{key}>" in later
            assert "!apply" in line or used or any(r in script for r in read), (
                name,
                key,
            )


def tagged(node):
    """A yaml node as plain values, without its tags."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode):
        return [tagged(item) for item in node.value]
    return {key.value: tagged(value) for key, value in node.value}


def test_fine_tuning_goes_on_with_what_was_trained():
    """lmac_ft.yaml differs from lmac.yaml in what says that it fine-tunes."""
    new = plan(2)
    first, second = (
        tagged(yaml.compose(new[f"{RECIPE}/hparams/{name}.yaml"]))
        for name in ("lmac", "lmac_ft")
    )
    different = {key for key in first if first[key] != second[key]}
    assert first.keys() == second.keys()
    assert different == {"experiment_name", "add_wham_noise", "finetuning"}


@pytest.mark.parametrize("name", ["lmac", "lmac_cnn14"])
def test_a_model_folder_is_that_of_the_recipe(name):
    """Where both have a key it has one value, so that the weights fit."""
    recipe = tagged(yaml.compose(plan(2)[f"{RECIPE}/hparams/{name}.yaml"]))
    model = tagged(yaml.compose(plan(4)[f"{RECIPE}/models/{name}.yaml"]))
    common = set(recipe) & set(model) - {"modules"}
    assert {"psi_model", "frozen_classifier", "explainer"} <= common
    values = {"n_classes": "50", "emb_dim": "2048", "out_n_neurons": "50"}

    def plain(value):
        """References to what is a number in one of both, as that number."""
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        text = value.strip("<>") if isinstance(value, str) else value
        return values.get(text, text) if isinstance(text, str) else text

    for key in common:
        found, expected = plain(model[key]), plain(recipe[key])
        if name == "lmac" and key == "explainer":
            assert expected["decoder"] == found["decoder"] == "psi_model"
        assert found == expected, key


def test_a_listed_file_that_is_missing():
    declared = upstream.load()
    declared["contributions"][1]["modules"].append("lmac.nothing")
    with pytest.raises(LMACError, match="lmac/nothing.py: listed"):
        upstream.plan(1, declared)


def test_an_import_of_what_is_not_copied():
    declared = upstream.load()
    declared["contributions"][1]["modules"].remove("lmac.refine")
    with pytest.raises(LMACError, match="imports lmac_sb.lmac.refine"):
        upstream.plan(1, declared)


def test_too_many_files():
    declared = upstream.load()
    declared["limit"] = 5
    with pytest.raises(LMACError, match="15 files, expected at most 5"):
        upstream.plan(1, declared)


def test_the_patched_files_count():
    declared = upstream.load()
    declared["limit"] = 8
    with pytest.raises(LMACError, match="contribution 2: 15 files"):
        upstream.plan(2, declared)


def test_words_that_no_file_has():
    declared = upstream.load()
    declared["contributions"][4]["words"]["no such words"] = ""
    with pytest.raises(LMACError, match="no file has 'no such words'"):
        upstream.plan(4, declared)


@pytest.mark.parametrize("key", ["left_out", "skipped"])
def test_a_function_that_is_gone(key):
    declared = upstream.load()
    declared["contributions"][2][key]["lmac_sb/utils/io.py"] = ["gone"]
    with pytest.raises(
        LMACError, match="io.py: has no gone, which upstream.yaml"
    ):
        upstream.plan(2, declared)


SOURCE = '''"""A module."""

__all__ = ["LIMIT", "one", "two"]

# How many.
LIMIT = 3


@cached
def one():
    """One.

    >>> one()
    1
    """


def two():
    """Two."""
'''


def test_left_out():
    """With its decorators, and without a trace in the list of names."""
    text = upstream.drop(SOURCE, ["LIMIT", "one"], "a.py")
    assert "one" not in text and "cached" not in text
    assert "LIMIT" not in text and "many" not in text
    assert '__all__ = [ "two"]' in text
    assert "def two():" in text


def test_imports_that_only_what_was_left_out_used():
    source = (
        "from a import b\nfrom lmac_sb.data.audio import read\n"
        "from lmac_sb.utils.io import (\n    first,\n    second,\n)\n\n\n"
        "def one():\n    return b, read, first\n\n\n"
        "def two():\n    return second\n"
    )
    text = upstream.drop(source, ["one"], "a.py")
    assert " ".join(text.split()) == (
        "from a import b from lmac_sb.utils.io import second "
        "def two(): return second"
    )


def test_examples_that_are_not_run():
    text = upstream.skip_examples(SOURCE, ["one"], "a.py")
    assert text.count("# doctest: +SKIP") == 1
    assert "    >>> one()  # doctest: +SKIP\n" in text


NAMES = {
    "lmac_sb.metrics": "sb.lmac.registry",
    "lmac_sb.metrics.shape": "sb.lmac.shape",
    "lmac_sb.LMACError": "sb.lmac.errors.LMACError",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from lmac_sb import metrics", "from sb.lmac import registry as metr"),
        ("from lmac_sb.metrics import shape", "from sb.lmac import shape"),
        ("from lmac_sb.metrics.shape import a", "from sb.lmac.shape import a"),
        ("from lmac_sb import LMACError", "from sb.lmac.errors import LMACE"),
        ("see lmac_sb.metrics.shape.area.", "see sb.lmac.shape.area."),
        ("see `lmac_sb.metrics`.", "see `sb.lmac.registry`."),
        ("lmac_sb.LMACError: x", "sb.lmac.errors.LMACError: x"),
        ("lmac_sb.other.shape", "lmac_sb.other.shape"),
    ],
)
def test_names(text, expected):
    assert upstream.rename(text, NAMES).startswith(expected)


# ------------------------------------------------------------------ checkouts


@pytest.fixture
def checkout(tmp_path):
    """What git and the tool take for a checkout of SpeechBrain."""
    folder = tmp_path / "checkout"
    (folder / "speechbrain").mkdir(parents=True)
    (folder / "speechbrain/version.txt").write_text("1.1\n")
    (folder / "README.md").write_text("one\ntwo\nthree\n")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


@pytest.fixture
def patch(tmp_path):
    """A patch of the checkout's README."""
    path = tmp_path / "1.patch"
    path.write_text(
        "--- a/README.md\n+++ b/README.md\n@@ -1,3 +1,4 @@\n one\n two\n"
        "+two and a half\n three\n"
    )
    return path


def test_a_folder_that_is_no_checkout(tmp_path):
    with pytest.raises(LMACError, match="not a checkout"):
        upstream.check_checkout(1, upstream.load(), tmp_path)
    assert not any(tmp_path.iterdir())


def test_the_one_before_comes_first(checkout):
    with pytest.raises(LMACError, match="contribution 1 comes first"):
        upstream.check_checkout(2, upstream.load(), checkout)
    for place in plan(1):
        (checkout / place).parent.mkdir(parents=True, exist_ok=True)
        (checkout / place).touch()
    upstream.check_checkout(2, upstream.load(), checkout)
    with pytest.raises(LMACError, match="contribution 2 comes first"):
        upstream.check_checkout(3, upstream.load(), checkout)


def test_a_file_that_speechbrain_has_changed(checkout):
    declared, new = upstream.load(), {"README.md": "ours\n"}
    with pytest.raises(
        LMACError, match="README.md: expected version None as in"
    ):
        upstream.check_replaced(2, declared, new, checkout)
    known = upstream.git(checkout, "hash-object", "README.md")[1]
    declared["contributions"][2]["replaced"]["README.md"] = known
    upstream.check_replaced(2, declared, new, checkout)
    # A second run finds what the first one wrote, or an older one of ours.
    del declared["contributions"][2]["replaced"]["README.md"]
    for text in ("ours\n", f"# {upstream.SIGNATURE}\nold\n"):
        (checkout / "README.md").write_text(text)
        upstream.check_replaced(2, declared, new, checkout)


def test_a_second_run_patches_nothing(checkout, patch):
    assert upstream.write({}, checkout, patch) == ["README.md"]
    patched = (checkout / "README.md").read_text()
    assert patched == "one\ntwo\ntwo and a half\nthree\n"
    assert upstream.write({}, checkout, patch) == []
    assert (checkout / "README.md").read_text() == patched


def test_a_patch_that_does_not_fit(checkout, patch):
    """Nothing is written then, the other files neither."""
    (checkout / "README.md").write_text("another\n")
    with pytest.raises(LMACError, match="1.patch does not fit"):
        upstream.write({"a.txt": "x\n"}, checkout, patch)
    assert not (checkout / "a.txt").exists()


@needs_ruff
def test_a_second_run_changes_nothing(checkout):
    new = {"speechbrain/a.py": "import sys\nimport os\n", "a.yaml": "b:  1\n"}
    assert upstream.write(new, checkout) == ["speechbrain/a.py", "a.yaml"]
    assert (checkout / "a.yaml").read_text() == "b:  1\n"
    assert upstream.write(new, checkout) == []


@needs_ruff
def test_what_is_written_passes_the_checks_of_form(tmp_path):
    """Formatted files pass the checks, also after removing tests."""
    text = "import sys\nimport os\nx = sys.argv\n\n\n\n\ny = 1\n"
    tidied = upstream.tidy(text, "a.py", tmp_path)
    assert tidied == "import sys\n\nx = sys.argv\n\n\ny = 1\n"
