"""The repository's own rules: layout, import direction, docstrings, pins."""

import ast
import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lmac_sb"

LINKS = {
    "hparams": "recipes/ESC50/interpret/hparams",
    "train_lmac.py": "recipes/ESC50/interpret/train_lmac.py",
    "train_l2i.py": "recipes/ESC50/interpret/train_l2i.py",
    "train_multilabel.py": "recipes/ESC50/interpret/train_multilabel.py",
    "eval.py": "recipes/ESC50/interpret/eval.py",
    "sanity.py": "recipes/ESC50/interpret/sanity.py",
    "audit.py": "recipes/ESC50/interpret/audit.py",
    "train_classifier.py": "recipes/ESC50/interpret/train_classifier.py",
    "make_listening_test.py": "recipes/ESC50/interpret/make_listening_test.py",
    "score_listening_test.py": (
        "recipes/ESC50/interpret/score_listening_test.py"
    ),
}


def python_files(*folders):
    """The repository's Python files, without copies in results folders."""
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "results" not in path.parts and not path.is_symlink()
    )


def relative(path):
    """Path relative to the repository's root."""
    return str(path.relative_to(ROOT))


def test_imports_point_one_way():
    # The contracts, between the rooms and inside them, are in pyproject.toml.
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_package_imports_nothing_of_the_recipes():
    recipes = {path.stem for path in python_files("recipes")} | {"recipes"}
    for path in python_files("lmac_sb"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            roots = {name.split(".")[0] for name in names}
            assert not roots & recipes, relative(path)


@pytest.mark.parametrize("name", sorted(LINKS))
def test_top_level_links(name):
    assert os.readlink(ROOT / name) == LINKS[name]
    assert (ROOT / name).exists(), f"{LINKS[name]}: not there"


def test_no_assert_checks_input():
    wrong = [
        f"{relative(path)}:{node.lineno}"
        for path in python_files("lmac_sb", "recipes")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert wrong == [], "assert is gone under python -O: raise LMACError"


MOST_LINES = 60  # of a function, without docstrings, comments and blank lines


def code_lines(node, source):
    """Number of lines of a function that hold code."""
    lines = set(range(node.lineno, node.end_lineno + 1))
    for inner in ast.walk(node):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        if isinstance(inner, kinds) and ast.get_docstring(inner) is not None:
            text = inner.body[0]
            lines -= set(range(text.lineno, text.end_lineno + 1))
    every = source.splitlines()
    code = [every[line - 1].strip() for line in lines]
    return sum(bool(line) and not line.startswith("#") for line in code)


def long_functions(source, most=MOST_LINES):
    """Names of the functions with more lines of code than allowed."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and code_lines(node, source) > most
    ]


def test_long_functions_are_found():
    source = (
        'def f():\n    """One.\n\n    Two.\n    """\n\n'
        "    # A comment.\n    def g():\n"
        '        """Inner."""\n        return 1\n\n    return g  # Code.\n'
    )
    # The two lines with `def`, and the two with `return`.
    assert long_functions(source, most=4) == []
    assert long_functions(source, most=3) == ["f"]


def functions_with(fault):
    """Functions of our code that a check finds, as file and name."""
    return {
        f"{relative(path)}: {name}"
        for path in python_files("lmac_sb", "recipes", "tools", "benchmarks")
        for name in fault(path.read_text("utf-8"))
    }


def test_no_function_is_long():
    assert functions_with(long_functions) == set()


def many_parameters(source, most=6):
    """Functions with more parameters than a reader keeps in mind.

    Constructors do not count: yaml files fill them, key by key.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef) or node.name == "__init__":
            continue
        names = [x.arg for x in (*node.args.args, *node.args.kwonlyargs)]
        if len(set(names) - {"self", "cls"}) > most:
            found.append(node.name)
    return found


def test_few_parameters():
    """One call of the method has more, all optional but the first."""
    expected = {"lmac_sb/lmac/explainer.py: forward"}
    assert functions_with(many_parameters) == expected


# --------------------------------------------------------------------- rooms


def test_rooms_say_how_to_add_one_more():
    """In words and with an example, which runs with the other examples."""
    rooms = sorted((ROOT / "lmac_sb").glob("*/__init__.py"))
    assert len(rooms) == 17
    for path in rooms:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert "Imports " in text, path
        if path.parent.name != "utils":
            assert "**One more " in text and ">>> " in text, path


# ---------------------------------------------------------------- docstrings


def is_public(node):
    """Functions and classes whose name has no leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def sections(docstring):
    """Sections of a NumPy docstring: title to text."""
    # A title is a line that is underlined with dashes.
    parts = re.split(r"^(\w+)\n-{3,}$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def argument_names(node):
    """Names of the arguments of a function or a class."""
    if isinstance(node, ast.ClassDef):
        inits = [
            item
            for item in node.body
            if isinstance(item, ast.FunctionDef) and item.name == "__init__"
        ]
        return argument_names(inits[0]) if inits else []
    every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    return [arg.arg for arg in every if arg.arg not in ("self", "cls")]


def docstring_faults(source):
    """What docstrings of a module lack that ruff's rules D do not ask for."""
    faults = []
    for node in filter(is_public, ast.parse(source).body):
        found = sections(ast.get_docstring(node) or "")
        if not {"Example", "Returns"} & set(found):
            faults.append(f"{node.name}: neither Example nor Returns")
        if "Parameters" in found:
            faults.append(f"{node.name}: call the section Arguments")
        for name in argument_names(node):
            row = rf"^(.*, )?\**{name}(,.*)? : "
            if not re.search(row, found.get("Arguments", ""), re.MULTILINE):
                faults.append(f"{node.name}: {name} not under Arguments")
    return faults


GOOD_MODULE = '''"""Module."""


def double(x, y):
    """Twice the sum.

    Arguments
    ---------
    x, y : float
        Numbers.

    Returns
    -------
    float
        The sum, doubled.
    """
    return 2 * (x + y)


class Sum:
    """A sum.

    Arguments
    ---------
    x : float
        A number.

    Example
    -------
    >>> Sum(1.0).value()
    1.0
    """

    def __init__(self, x):
        self.x = x

    def value(self):
        """The sum."""
        return self.x
'''


def test_docstring_faults_of_a_good_module():
    assert docstring_faults(GOOD_MODULE) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("x, y : float", "x : float", "double: y not under Arguments"),
        ("    Returns\n    -------", "", "double: neither Example nor Returns"),
        (
            "Arguments\n    ---------\n    x, y",
            "Parameters\n    ----------\n    x, y",
            "double: call the section Arguments",
        ),
        ("    x : float", "    z : float", "Sum: x not under Arguments"),
        ("    Example\n    -------", "", "Sum: neither Example nor Returns"),
    ],
)
def test_docstring_faults_are_found(old, new, fault):
    assert old in GOOD_MODULE
    assert fault in docstring_faults(GOOD_MODULE.replace(old, new))


def test_docstrings():
    faults = [
        f"{relative(path)}: {fault}"
        for path in python_files("lmac_sb")
        for fault in docstring_faults(path.read_text("utf-8"))
    ]
    assert faults == []


def test_every_example_runs():
    """Examples may use the names in conftest.py."""
    skipped = [
        relative(path)
        for path in python_files("lmac_sb")
        if "doctest: +SKIP" in path.read_text("utf-8")
    ]
    assert skipped == []


# ------------------------------------------------------- package and version


@pytest.fixture
def setup_cfg():
    """The package's metadata."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_version_is_in_one_place(setup_cfg):
    assert setup_cfg["metadata"]["version"] == "attr: lmac_sb.__version__"
    version = importlib.import_module("lmac_sb").__version__
    places = [
        relative(path)
        for path in [
            *python_files("lmac_sb", "recipes"),
            ROOT / "setup.cfg",
            ROOT / "pyproject.toml",
        ]
        if re.search(
            rf"version.*[\"' =]{re.escape(version)}\b", path.read_text("utf-8")
        )
    ]
    assert places == ["lmac_sb/__init__.py"]


def test_import_is_light():
    code = (
        "import sys, lmac_sb; lmac_sb.LMACError; dir(lmac_sb);"
        "sys.exit(sorted({'torch', 'speechbrain', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.strip()) == (1, "[]")


def test_public_names_are_their_modules_own():
    package = importlib.import_module("lmac_sb")
    assert sorted(package._HOME) == sorted(package.__all__)
    for name in package.__all__:
        home = importlib.import_module(package._HOME[name])
        assert getattr(package, name) is getattr(home, name)
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'Explayner'"):
        package.__getattr__("Explayner")


def test_pins_and_ranges_name_the_same_packages(setup_cfg):
    lines = setup_cfg["options"]["install_requires"].splitlines()
    for extra in setup_cfg["options.extras_require"].values():
        lines += extra.splitlines()
    ranges = {
        r.name: r.specifier
        for r in map(Requirement, filter(None, lines))
        if r.name != setup_cfg["metadata"]["name"]  # an extra of extras
    }

    pins = [
        Requirement(line)
        for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert {pin.name for pin in pins} == set(ranges)
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        assert exact.version in ranges[pin.name], str(pin)
    for python in ["3.10", "3.11", "3.14"]:
        valid = [
            pin.name
            for pin in pins
            if not pin.marker or pin.marker.evaluate({"python_version": python})
        ]
        assert sorted(valid) == sorted(ranges), f"one pin each, {python}"


# ------------------------------------------------------------- make and .ci


def outside_make():
    """The environment without the variables of an outer `make test`."""
    drop = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES")
    return {k: v for k, v in os.environ.items() if k not in drop}


def run_make(*arguments):
    """Exit code and standard error of make, run in the root."""
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    done = subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=outside_make(),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("version_info", "found Python 3.9.2, expected 3.10 to 3.14"),
        ("ensurepip", "apt install python3-venv"),
    ],
)
@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_make_refuses_an_unsuitable_python(tmp_path, target, refused, message):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{refused}*) exit 1;;'
        ' *--version*) echo "Python 3.9.2";; esac\n'
    )
    python.chmod(0o755)
    venv = tmp_path / "venv"
    code, errors = run_make(target, f"PYTHON={python}", f"VENV={venv}")
    assert code != 0
    assert message in errors
    assert not venv.exists()


def run_ci(folder, readme):
    """Run `.ci/run` in a folder that holds only it and a README."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    if readme is not None:
        (folder / "README.md").write_text(readme, encoding="utf-8")
    return subprocess.run(
        [str(folder / ".ci" / "run")],
        cwd="/",
        env=outside_make(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_ci_runs_the_command_of_the_readme(tmp_path):
    readme = (
        "# Title\n```\necho title\n```\n## Demo\n```\n## Tests\necho demo\n"
        "```\n## Tests\nText.\n\n```bash\npwd\necho tests; exit 3\n```\n"
        "```\necho second\n```\n"
    )
    done = run_ci(tmp_path, readme)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-2:] == [str(tmp_path), "tests"]


@pytest.mark.parametrize(
    "readme",
    [
        None,
        "# Title\n## Demo\n```\nmake demo\n```\n",
        "## Tests\nNo command.\n## Demo\n```\nmake demo\n```\n",
        "## Tests\n```\n\n```\n",
    ],
)
def test_ci_fails_without_a_command(tmp_path, readme):
    done = run_ci(tmp_path, readme)
    assert done.returncode == 1
    assert "README.md" in done.stderr
    assert done.stdout == ""


def test_ci_and_the_readme_say_make_test(tmp_path):
    (tmp_path / "Makefile").write_text("test:\n\t@echo stub\n")
    done = run_ci(tmp_path, (ROOT / "README.md").read_text("utf-8"))
    assert done.stdout.splitlines() == ["+ make test", "stub"]
