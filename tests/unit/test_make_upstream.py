"""Tests of tools/make_upstream.py, on a tiny checkout.

Authors
 * The lmac-sb authors 2026
"""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmac_sb.errors import LMACError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("upstream_rewrite", "upstream_edits", "make_upstream")

sys.path.insert(0, str(ROOT / "tools"))
rewrite, edits, make = (importlib.import_module(name) for name in NAMES)
sys.path.remove(str(ROOT / "tools"))

HEAD = '"""Words.\n\nAuthors\n * The lmac-sb authors 2026\n"""\n\n'
CODE = "speechbrain.lobes.lmac"

OURS = {
    "lmac_sb/__init__.py": HEAD + '__version__ = "1"\n',
    "lmac_sb/errors.py": HEAD
    + 'class LMACError(ValueError):\n    """Bad input."""\n',
    "lmac_sb/inference.py": HEAD
    + "from speechbrain.dataio import audio_io\n\n"
    + "from lmac_sb.errors import LMACError\n\n\n"
    + 'class LMACInterpreter:\n    """One."""\n\n'
    + "    error = LMACError\n    audio = audio_io\n",
    "lmac_sb/report.css": "b { color: red }\n",
    "recipes/ESC50/esc50_prepare.py": HEAD
    + "from lmac_sb.errors import LMACError\n\nprint(LMACError)\n",
    "recipes/ESC50/interpret/train_lmac.py": HEAD
    + "from esc50_prepare import LMACError\n\nprint(LMACError)\n",
    "recipes/ESC50/interpret/README.md": "# L-MAC on ESC-50\n\nNew words.\n",
    "recipes/ESC50/interpret/hparams/lmac_cnn14.yaml": (
        "# The lmac-sb authors\na: !new:lmac_sb.inference.LMACInterpreter\n"
    ),
    "recipes/ESC50/interpret/results/run/hyperparams.yaml": "left: here\n",
    "tests/recipes/ESC50.csv": (
        "Hparam_file,Data_prep_file\nlmac_cnn14.yaml,esc50_prepare.py\n"
    ),
    "tests/conftest.py": HEAD
    + "from pathlib import Path\n\nROOT = Path(__file__).parents[1]\n",
    "tests/unit/test_errors.py": HEAD
    + "from lmac_sb.errors import LMACError\n\n\n"
    + "def test_it():\n    assert LMACError\n",
}

EVAL = """import os

from train_l2i import L2I
from train_lmac import LMAC

if __name__ == "__main__":
    if os.environ["int_method"] == "lmac":
        brain = LMAC(
            modules=1,
        )
    elif os.environ["int_method"] == "l2i":
        brain = L2I()
"""

THEIRS = {
    "conftest.py": "",
    "pyproject.toml": (
        "[project.optional-dependencies]\ndev = []\n\n"
        '[tool.setuptools.package-data]\nspeechbrain = ["version.txt"]\n\n'
        "[tool.ruff]\nline-length = 80\n\n[tool.ruff.lint]\n"
        'select = ["E", "F", "I"]\n'
    ),
    "requirements.txt": "-r lint-requirements.txt\nnumpy>=1\ntorch>=2\n",
    ".github/pull_request_template.md": (
        "## What does this PR do?\n\n<!--\nSummary.\n-->\n\n"
        "Fixes #<issue_number>\n\n<!-- Breaking? -->\n\n- [ ] Read it?\n"
    ),
    "speechbrain/__init__.py": "",
    "speechbrain/version.txt": "1\n",
    "speechbrain/dataio/__init__.py": "",
    "speechbrain/dataio/audio_io.py": "",
    "speechbrain/lobes/__init__.py": "",
    "speechbrain/inference/__init__.py": "",
    "speechbrain/inference/interpretability.py": (
        '"""PIQ."""\n\n\nclass PIQAudioInterpreter:\n    """Theirs."""\n'
    ),
    "recipes/ESC50/esc50_prepare.py": "def prepare_esc50():\n    pass\n",
    "recipes/ESC50/interpret/README.md": (
        "# Interpretability\n\n"
        "Some results that are obtained with this recipe on the OOD "
        "evaluation are as follows:\n\n|L-MAC|\n\n"
        "### Listenable Maps for Audio Classifiers (L-MAC)\n\nOld words.\n\n"
        "---------\n\n### PIQ\n\n## Evaluation and Inference\n\nText.\n"
    ),
    "recipes/ESC50/interpret/eval.py": EVAL,
    "recipes/ESC50/interpret/extra_requirements.txt": "quantus==0.5.3\n",
    "recipes/ESC50/interpret/train_l2i.py": "class L2I:\n    pass\n",
    "recipes/ESC50/interpret/train_lmac.py": "class LMAC:\n    pass\n",
    "recipes/ESC50/interpret/hparams/lmac_cnn14.yaml": "old: 1\n",
    "tests/consistency/test_recipe.py": "",
    "tests/unittests/test_errors.py": "",
    "tests/recipes/ESC50.csv": (
        "Hparam_file,Data_prep_file\npiq.yaml,esc50_prepare.py\n"
        "lmac_cnn14.yaml,esc50_prepare.py\n"
    ),
}


def write(folder, files):
    """Files with their texts; the folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def ours(tmp_path):
    """A repository like this one."""
    folder = write(tmp_path / "ours", OURS)
    link = folder / "recipes/ESC50/interpret/esc50_prepare.py"
    link.symlink_to("../esc50_prepare.py")
    return folder


@pytest.fixture
def theirs(tmp_path):
    """A checkout like SpeechBrain's."""
    return write(tmp_path / "theirs", THEIRS)


def snapshot(folder):
    """Every file and link: its content and when it was written."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


# -------------------------------------------------------------------- words


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    module = sys.modules[name]
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert (found.failed, found.attempted > 0) == (0, name != NAMES[2])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import lmac_sb", f"import {CODE}"),
        ("import os, lmac_sb.audio as a", f"import os, {CODE}.audio as a"),
        ("from lmac_sb import Explainer", f"from {CODE} import Explainer"),
        ("def f():\n    from lmac_sb.a import b", None),
        ("x = lmac_sb.errors.LMACError(lmac_sb)", None),
        ("from .audio import read\nfrom . import noise", "as it is"),
        ("x = 'lmac_sb.audio.Preprocessor'", None),
        ("x = f'see {y} in lmac_sb.audio'", None),
        ("f(['-m', 'lmac_sb'])", None),
        ("x = 'a\\nlmac_sb.errors: b'", None),
        ("'''\n>>> from lmac_sb.a import b\n'''", None),
        ("x = 1  # see `lmac_sb.masking`", None),
        ("x = 'lmac_sb_'\nfile = mylmac_sb", "as it is"),
        ("'ä', 'lmac_sb'; x = lmac_sb.a", None),
        ("from esc50_prepare import x", "from lmac_prepare import x"),
        ("x = 'esc50_prepare.py'", "x = 'lmac_prepare.py'"),
        ("prepare_esc50_prepared()", "as it is"),
        ("x = 'run eval.py'\nmodel.eval()", "x = 'run eval_lmac.py'\nm"),
    ],
)
def test_names(old, new):
    """Imports, strings and comments; words that only look alike stay."""
    if new is None:
        new = old.replace("lmac_sb", CODE)
    found = rewrite.rewrite_python(old, "x.py")
    assert found.startswith(old if new == "as it is" else new)


@pytest.mark.parametrize(
    "text",
    [
        "f(lmac_sb=1)",
        "lmac_sb = 1",
        "x = y.lmac_sb",
        "import audio as lmac_sb",
        "def lmac_sb():\n    pass",
        "if (lmac_sb := 1):\n    pass",
        "from x import (",
    ],
)
def test_other_things_of_the_name_are_refused(text):
    with pytest.raises(LMACError, match=r"^x\.py(, line 1)?: "):
        rewrite.rewrite_python(text, "x.py")


def test_folders_that_are_counted_from_the_file():
    text = "a = 'é', Path(__file__).resolve().parents[2], x.parents[2]\n"
    new = "a = 'é', Path(__file__).resolve().parents[4], x.parents[2]\n"
    assert rewrite.rewrite_python(text, "x.py", deeper=2) == new


def test_functions_left_out():
    text = "x = 1\n\n\n@mark\n@mark\ndef f():\n    pass\n\n\ny = 2\n"
    new = rewrite.rewrite_python(text, "x.py", without={"f"})
    assert re.sub(r"\n+", "\n", new) == "x = 1\ny = 2\n"
    with pytest.raises(LMACError, match="x.py: has no function g"):
        rewrite.rewrite_python(text, "x.py", without={"g"})


def test_rows_follow_each_other():
    """The number of a row that another reads is the new one."""
    head = "Hparam_file,flags\n"
    ours = head + "a,1\nb,--x ESC50_row_02/model\n"
    theirs = head + "z,1\nb,old\ny,2\n"
    new = head + "z,1\ny,2\na,1\nb,--x ESC50_row_04/model\n"
    assert edits.merge_rows(theirs, ours) == new
    assert edits.merge_rows(new, ours) == new
    with pytest.raises(LMACError, match="columns are"):
        edits.merge_rows("other\n", ours)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (edits.add_interface, "def __getattr__(name):\n    return 1\n"),
        (edits.detach_eval, "x = 1\n"),
        (lambda text: edits.merge_readme(text, "# T\n"), "# Other\n"),
        (lambda text: edits.add_package_data(text, {".css"}), "[project]\n"),
    ],
)
def test_unknown_files_are_refused(function, text):
    """What is to be edited must look as it is known."""
    with pytest.raises(LMACError):
        function(text)


# ---------------------------------------------------------------- the whole


def test_what_is_laid(ours, theirs):
    changed = make.lay(ours, theirs)
    before, after = (
        set(THEIRS),
        {
            path.relative_to(theirs).as_posix()
            for path in theirs.rglob("*")
            if path.is_file()
        },
    )
    new = {
        "recipes/ESC50/lmac_prepare.py",
        "recipes/ESC50/interpret/lmac_prepare.py",
        "speechbrain/lobes/lmac/__init__.py",
        "speechbrain/lobes/lmac/errors.py",
        "speechbrain/lobes/lmac/inference.py",
        "speechbrain/lobes/lmac/report.css",
        "tests/unittests/lmac/conftest.py",
        "tests/unittests/lmac/unit/test_lmac_errors.py",
    }
    assert after - before == new
    edited = {
        name
        for name in before
        if (theirs / name).read_text("utf-8") != THEIRS[name]
    }
    assert set(changed) == new | edited
    assert edited == {
        "pyproject.toml",
        "requirements.txt",
        "recipes/ESC50/interpret/README.md",
        "recipes/ESC50/interpret/eval.py",
        "recipes/ESC50/interpret/extra_requirements.txt",
        "recipes/ESC50/interpret/hparams/lmac_cnn14.yaml",
        "recipes/ESC50/interpret/train_lmac.py",
        "speechbrain/inference/interpretability.py",
        "tests/recipes/ESC50.csv",
    }

    def text(name):
        """Text of a file of the checkout."""
        return (theirs / name).read_text(encoding="utf-8")

    link = theirs / "recipes/ESC50/interpret/lmac_prepare.py"
    assert os.readlink(link) == "../lmac_prepare.py"
    assert "from lmac_prepare import" in text(
        "recipes/ESC50/interpret/train_lmac.py"
    )
    assert f"!new:{CODE}.inference.LMAC" in text(
        "recipes/ESC50/interpret/hparams/lmac_cnn14.yaml"
    )
    assert "parents[3]" in text("tests/unittests/lmac/conftest.py")
    assert text("requirements.txt").splitlines() == [
        "-r lint-requirements.txt",
        "matplotlib>=3.8",
        "numpy>=1",
        "safetensors>=0.4",
        "torch>=2",
    ]
    assert f'"{CODE}" = ["*.css"]\n' in text("pyproject.toml")
    readme = text("recipes/ESC50/interpret/README.md")
    assert "New words." in readme and "### PIQ" in readme
    assert "Old words." not in readme
    script = text("recipes/ESC50/interpret/eval.py")
    assert "train_lmac import" not in script
    assert script.count("raise ValueError(") == 1
    assert "        brain = L2I()\n" in script
    compile(script, "eval.py", "exec")


def test_a_second_run_changes_nothing(ours, theirs):
    make.lay(ours, theirs)
    before = snapshot(theirs)
    assert make.lay(ours, theirs) == []
    assert snapshot(theirs) == before


def test_the_interface_stands_beside_theirs(ours, theirs):
    """PIQ's module loads nothing of ours until it is asked for."""
    make.lay(ours, theirs)
    code = (
        "import sys\n"
        "from speechbrain.inference import interpretability as i\n"
        "assert i.PIQAudioInterpreter\n"
        f"assert '{CODE}' not in sys.modules\n"
        "from speechbrain.inference.interpretability import LMACInterpreter\n"
        "assert LMACInterpreter.error.__module__.startswith('speechbrain')\n"
        "try:\n    i.LMAC\nexcept AttributeError as e:\n    print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=theirs, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "has no attribute 'LMAC'" in done.stdout


def test_a_new_module_is_taken_and_an_old_one_goes(ours, theirs):
    make.lay(ours, theirs)
    write(ours, {"lmac_sb/lock.py": HEAD + "import lmac_sb.errors  # noqa\n"})
    (ours / "lmac_sb/report.css").unlink()
    changed = make.lay(ours, theirs)
    assert changed == [
        "pyproject.toml",
        "speechbrain/lobes/lmac/lock.py",
        "speechbrain/lobes/lmac/report.css",
    ]
    assert not (theirs / "speechbrain/lobes/lmac/report.css").exists()
    assert f"import {CODE}.errors" in (
        theirs / "speechbrain/lobes/lmac/lock.py"
    ).read_text("utf-8")


BAD = {
    "a name of theirs": (
        {"recipes/ESC50/interpret/wham.py": HEAD},
        {"recipes/ESC50/interpret/wham.py": "x = 1\n"},
        "wham.py: is a file of SpeechBrain's.*add it to RENAMED",
    ),
    "unknown kind": (
        {"recipes/ESC50/interpret/run.sh": "ls\n"},
        {},
        "run.sh: no rule",
    ),
    "no Python": ({"lmac_sb/lock.py": "x = (\n"}, {}, "lock.py: is no Python"),
    "undefined name": (
        {"lmac_sb/lock.py": HEAD + "print(nothing)\n"},
        {},
        "ruff check: (?s:.*)lock.py(?s:.*)nothing",
    ),
    "the word is left": (
        {"lmac_sb/report.css": "/* xlmac_sb */\n"},
        {},
        "report.css: still names lmac_sb",
    ),
    "in the way of a link": (
        {},
        {"recipes/ESC50/interpret/lmac_prepare.py": "x = 1\n"},
        "lmac_prepare.py: is in the way",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_changes_nothing(ours, theirs, case):
    more, others, message = BAD[case]
    write(ours, more)
    write(theirs, others)
    before = snapshot(theirs)
    with pytest.raises(LMACError, match=message):
        make.lay(ours, theirs)
    assert snapshot(theirs) == before


@pytest.mark.parametrize("calls", [0, 4, 12])
def test_nothing_is_left_half_written(ours, theirs, monkeypatch, calls):
    """A disk that fills up at any file leaves the checkout as it was."""
    before = {name: content for name, (content, _) in snapshot(theirs).items()}
    replace, done = os.replace, []

    def failing(source, target):
        """The n-th file cannot be written."""
        if len(done) == calls:
            raise OSError(28, "No space left on device")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(LMACError, match="No space left"):
        make.lay(ours, theirs)
    assert len(done) == calls
    after = {name: content for name, (content, _) in snapshot(theirs).items()}
    assert after == before


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "this one"])
def test_no_checkout(tmp_path, capsys, what):
    folder = tmp_path / "folder"
    if what == "file":
        folder.write_text("x")
    elif what == "empty":
        folder.mkdir()
    elif what == "this one":
        folder = ROOT
    with pytest.raises(SystemExit) as caught:
        make.main(["--speechbrain", str(folder)])
    assert caught.value.code == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: {folder}: ")
    assert ("no such folder" in message) == (what in ("nothing", "file"))
    if what == "empty":
        assert "lacks conftest.py, pyproject.toml," in message
        assert list(folder.iterdir()) == []


# ----------------------------------------------------------- its description


@pytest.fixture(scope="module")
def description(tmp_path_factory):
    """Our files as planned, and the text about them."""
    checkout = write(tmp_path_factory.mktemp("checkout"), THEIRS)
    columns = (ROOT / "tests/recipes/ESC50.csv").read_text("utf-8")
    head = columns.splitlines()[0]
    write(checkout, {"tests/recipes/ESC50.csv": head + "\n"})
    new = make.plan(ROOT, checkout)[0]
    template = THEIRS[".github/pull_request_template.md"]
    return new, make.describe(new, template)


def test_the_form_is_kept(description):
    text = description[1]
    assert text.startswith("## What does this PR do?\n")
    assert text.endswith("- [ ] Read it?\n")
    assert "<!--" not in text and "<issue_number>" not in text
    assert "@" not in re.sub(r"`.*?`", "", text)
    with pytest.raises(LMACError, match="no longer asks"):
        make.describe(description[0], "## What?\n")


def test_steps_need_only_those_before(description):
    """Every module stands in one step, after all that it imports."""
    new, text = description
    steps = [
        re.findall(r"`(\w+)`", line.split(": ", 1)[1].rsplit(": ")[-1])
        for line in re.findall(r"^\d\. .*$", text, re.MULTILINE)
    ]
    modules = {p.stem for p in (ROOT / "lmac_sb").glob("*.py")}
    listed = [name for step in steps for name in step]
    assert sorted(listed) == sorted(modules)
    known = set()
    for step in steps:
        known |= set(step)
        for name in step:
            imported = re.findall(
                rf"^ *from {re.escape(CODE)}\.(\w+) import",
                new[f"speechbrain/lobes/lmac/{name}.py"],
                re.MULTILINE,
            )
            assert set(imported) <= known, name


def test_every_defect_is_named(description):
    rows = re.findall(r"^\| [^|]+ \| ([\d, ()a-z]+) \|", description[1], re.M)
    numbers = {int(n) for row in rows for n in re.findall(r"\d+", row)}
    assert numbers == set(range(1, 53))
