"""The real scripts with the real yaml, on tiny data.

Authors
 * The lmac-sb authors 2026
"""

import contextlib
import csv
import fcntl
import hashlib
import importlib.util
import io
import logging
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from lmac_sb.scenes import make_scenes

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"

# Columns of results.csv that are no numbers.
TEXTS = ("id", "method", "decision", "label")

Done = namedtuple("Done", "code out err")


def arguments(yaml, overrides):
    """Command line for a shipped yaml with overrides."""
    return [
        str(RECIPE / "hparams" / yaml),
        "--noprogressbar",
        *(f"--{key}={value}" for key, value in overrides.items()),
    ]


class Recipe:
    """Runs the recipe's scripts, in this process or in one of their own."""

    def __init__(self, cwd):
        self.cwd = cwd
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        sys.path.insert(0, str(RECIPE))

    def script(self, name):
        """Module of a script."""
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(
                name, RECIPE / f"{name}.py"
            )
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
        return sys.modules[name]

    def main(self, name, yaml, **overrides):
        """`main` of a script in this process, which it leaves as it was."""
        out, err = io.StringIO(), io.StringIO()
        logger = logging.getLogger()
        handlers, level = logger.handlers[:], logger.level
        hook, cwd = sys.excepthook, os.getcwd()
        os.chdir(self.cwd)
        code = 0
        try:
            with contextlib.redirect_stdout(out):
                with contextlib.redirect_stderr(err):
                    self.script(name).main(arguments(yaml, overrides))
        except SystemExit as stop:
            code = stop.code
        finally:
            os.chdir(cwd)
            sys.excepthook = hook
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)
        return Done(code, out.getvalue(), err.getvalue())

    def process(self, name, yaml, launcher=(), **overrides):
        """A script in a process of its own, maybe under a launcher."""
        return self.command(
            [*launcher, str(RECIPE / f"{name}.py"), *arguments(yaml, overrides)]
        )

    def command(self, command, cwd=None):
        """Any command of this Python."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.cwd if cwd is None else cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            # A launcher that is asked to stop ends its processes.
            process.terminate()
            out, err = process.communicate(timeout=60)
            pytest.fail(f"{command}: still running\n{out}\n{err}")
        return Done(process.returncode, out, err)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As many threads here as in the processes that tests start."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Runner of the scripts, in an empty folder."""
    return Recipe(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once, for all workers of the test run."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def once(name, make):
        folder, stamp = base / f"shared_{name}", base / f"{name}.made"
        with open(base / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not stamp.exists():
                make(folder)
                stamp.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def scenes(once):
    """Ten classes, five folds, one clip of one second each."""
    return once(
        "scenes",
        lambda folder: make_scenes(folder, clips_per_class=1, duration_s=1.0),
    )


@pytest.fixture(scope="session")
def classifier(once, recipe, scenes):
    """Run folder of a hardly trained classifier."""

    def make(folder):
        done = recipe.main(
            "train_classifier",
            "classifier_conv.yaml",
            data_folder=scenes,
            output_folder=folder,
            number_of_epochs=12,
            batch_size=8,
            mixup_alpha=0,
            mask_share=0,
            lr=0.003,
        )
        assert done.code == 0, done.err
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("classifier", make)


@pytest.fixture(scope="session")
def tiny(scenes, classifier):
    """Overrides that make each L-MAC run small."""
    return {
        "data_folder": scenes,
        "classifier_folder": classifier / "model",
        "number_of_epochs": 2,
        "batch_size": 8,
        "save_clips": 1,
        "interpret_period": 1,
        "lr": 0.003,
        "select_key": "loss",
    }


@pytest.fixture(scope="session")
def lmac_run(once, recipe, tiny):
    """Folder of a finished L-MAC run."""

    def make(folder):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **tiny
        )
        assert done.code == 0, done.err
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("lmac", make)


def digest(folder):
    """Name and checksum of each file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def read_rows(folder):
    """Rows of a run's results.csv, numbers as numbers."""
    with open(Path(folder) / "results.csv", encoding="utf-8") as file:
        return [
            {
                key: value if key in TEXTS else float(value)
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="session")
def helpers():
    """Functions that several test files use."""
    return namedtuple("Helpers", "digest read_rows arguments")(
        digest, read_rows, arguments
    )
