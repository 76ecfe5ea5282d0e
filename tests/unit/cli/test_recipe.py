"""The recipe in the package: found, packed, copied, called."""

import configparser
import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest
from console import run

from lmac_sb.utils import recipe
from lmac_sb.utils.errors import LMACError

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"


@pytest.fixture(autouse=True)
def runs(tmp_path_factory, monkeypatch):
    """Work where the runs and models lie that the commands are given."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("r", "m", "a b"):
        (folder / name).mkdir()
        (folder / name / "hyperparams.yaml").touch()
    monkeypatch.chdir(folder)


def files(folder):
    """Files of a recipe, without what was compiled or is a result."""
    return {
        path.relative_to(folder).as_posix()
        for pattern in ("*.py", "README.md", "hparams/**/*.yaml")
        for path in folder.glob(pattern)
    }


def test_it_is_where_the_package_is():
    assert recipe.recipe_folder() == RECIPE
    assert (ROOT / "lmac_sb" / "recipe").resolve() == RECIPE


def test_every_file_goes_into_the_wheel():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    patterns = parser["options.package_data"]["lmac_sb"].split()
    for name in files(RECIPE):
        # A star of a package's data does not go into folders.
        assert any(
            fnmatch.fnmatch(f"recipe/{name}", pattern)
            and pattern.count("/") == f"recipe/{name}".count("/")
            for pattern in patterns
        ), name


def test_a_package_without_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(recipe, "__file__", str(tmp_path / "a" / "b.py"))
    with pytest.raises(LMACError, match="found no recipe"):
        recipe.recipe_folder()
    assert run("train") == 1
    assert "install lmac-sb again" in capsys.readouterr().err


def test_copy(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("my recipe", "deep/er", "empty"):
        assert run("recipe", "copy", name) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0] == f"recipe: {name}"
        assert files(tmp_path / name) == files(RECIPE)
        for path in (tmp_path / name).rglob("*"):
            assert not path.is_symlink()
    assert run("train", "my recipe/hparams/lmac.yaml", "--help") == 0
    done = subprocess.run(
        [sys.executable, "train_l2i.py", "--help"],
        cwd=tmp_path / "my recipe",
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "--n_components 100" in done.stdout


def test_copy_to_what_holds_something(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    for name, found in (
        ("full", "a folder that is not empty"),
        ("file", "a file"),
    ):
        assert run("recipe", "copy", tmp_path / name) == 1
        assert capsys.readouterr().err == (
            f"error: {tmp_path / name}: found {found}, expected a new or an "
            "empty folder\n"
        )
    assert [x.name for x in (tmp_path / "full").iterdir()] == ["mine"]


def test_copy_below_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert run("recipe", "copy", tmp_path / "file" / "new") == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/file: cannot be made or written to (File exists)\n"
    )


def test_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    assert run("recipe", "copy", tmp_path / "new") == 1
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------- thin commands


@pytest.fixture
def called(monkeypatch):
    """What the scripts are called with, in place of a training."""
    found = []

    class Script:
        """A script that notes its arguments."""

        def __init__(self, name):
            self.name = name

        def main(self, argv):
            found.append((self.name, argv))

    for module in ("scripts", "evaluate"):
        monkeypatch.setattr(f"lmac_sb.cli.{module}.load_script", Script)
    return found


@pytest.mark.parametrize(
    ("words", "script", "yaml", "arguments"),
    [
        (["train"], "train_lmac.py", "lmac", []),
        (["train", "--lr", "1"], "train_lmac.py", "lmac", ["--lr", "1"]),
        (["train", "l2i"], "train_l2i.py", "l2i", []),
        (["train", "l2i.yaml"], "train_l2i.py", "l2i", []),
        (
            ["train", "variants/classifier_fsdd", "--data_folder=x"],
            "train_classifier.py",
            "variants/classifier_fsdd",
            ["--data_folder=x"],
        ),
        (["train", "lmac_multilabel"], "train_multilabel.py", None, []),
        (
            ["finetune", "a b", "--quiet"],
            "train_lmac.py",
            "lmac_ft",
            ["--pretrained_interpreter=a b", "--quiet"],
        ),
        (["eval"], "eval.py", "eval", []),
        (["eval", "r"], "eval.py", "eval", ["--interpreter=r"]),
        (["sanity", "r"], "sanity.py", "sanity", ["--interpreter=r"]),
        (
            ["listen", "r", "--n_clips", "2"],
            "make_listening_test.py",
            "listening",
            ["--interpreter=r", "--n_clips", "2"],
        ),
    ],
)
def test_each_calls_its_script(called, words, script, yaml, arguments):
    assert run(*words) == 0
    ((name, argv),) = called
    assert name == script
    assert argv[1:] == arguments
    if yaml:
        assert argv[0] == str(RECIPE / "hparams" / f"{yaml}.yaml")


def test_a_yaml_of_the_user(called, tmp_path):
    text = (RECIPE / "hparams" / "eval.yaml").read_text("utf-8")
    (tmp_path / "mine.yaml").write_text(text, "utf-8")
    for words in (["r"], []):
        assert run("eval", *words, tmp_path / "mine.yaml") == 0
        assert called[-1][1][0] == str(tmp_path / "mine.yaml")
    assert run("eval", "r", "--interpreter", "s") == 1


def test_score(called):
    assert run("score", "a", "-b", "--key", "k", "--output_folder=o") == 2
    assert run("score", "a", "b", "--key", "k", "--output_folder=o") == 0
    assert called == [
        (
            "score_listening_test.py",
            ["--key=k", "--output_folder=o", "--", "a", "b"],
        )
    ]


def test_app(monkeypatch):
    """It is imported only then, and checks what it is given."""
    served = []

    class App:
        """In place of the module."""

        def serve(*args, **kwargs):
            served.append((args, kwargs))

    monkeypatch.setitem(sys.modules, "lmac_sb.app", App)
    assert run("app", "--model", "m", "--port", "99", "--trust") == 0
    assert served == [
        (
            ("m",),
            {
                "host": "127.0.0.1",
                "port": 99,
                "max_mb": 50,
                "max_seconds": 600,
                "trust": True,
            },
        )
    ]
