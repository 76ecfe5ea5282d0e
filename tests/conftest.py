"""Fixtures for all tests, which run the real scripts on tiny data."""

import contextlib
import csv
import fcntl
import functools
import hashlib
import importlib.util
import io
import logging
import os
import subprocess
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from copies import Copy
from speechbrain.utils import logger as speechbrain_logger

from lmac_sb.data.scenes import make_scenes
from lmac_sb.metrics.registry import METRICS
from lmac_sb.training.checkpoints import SafeCheckpointer
from lmac_sb.training.identity import EXPERIMENT
from lmac_sb.utils.io import read_json, write_json

# Doctests cannot be collected from two modules of the same name.
collect_ignore_glob = ["*conftest.py"]
# For the processes that tests start.
collect_ignore = ["copies.py", "preloaded.py"]

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "ESC50" / "interpret"

# Columns of results.csv that are no numbers.
TEXTS = (
    *("id", "setting", "method", "keep"),
    *("label", "decision", "warning", "error"),
)
# Metrics of an explanation where its event is known, and the columns of a
# training's test.
KNOWN = [
    name
    for name, metric in METRICS.items()
    if metric.function
    and metric.needs not in ("sound", "others", "kept others")
]
COLUMNS = [
    *TEXTS,
    *("right", "p_silence", "p", "p_in", "p_out"),
    *KNOWN,
    *(f"heard {name}" for name in KNOWN if METRICS[name].repeated),
]

TWO_PROCESSES = (
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
)

# Folders of tests that take long.
LONG = ("browser", "faults", "integration")

Done = namedtuple("Done", "code out err")
# Each run writes down the environment, which takes pip a second.
described = functools.cache(speechbrain_logger.get_environment_description)


def pytest_collection_modifyitems(items):
    """Files that take long come first: no worker waits for one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def seed():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


class Shared:
    """A folder to which all may write, of which the superuser is one."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.chmod(0o777)

    def without_rights(self):
        """What is done meanwhile is not done by the superuser."""
        return contextlib.nullcontext() if os.geteuid() else self.by_another()

    @contextlib.contextmanager
    def by_another(self, number=45001):
        """What is done meanwhile is done with the rights of another user."""
        if os.geteuid():
            pytest.skip("only the superuser can become somebody else")
        groups = os.getgroups()
        os.setgroups([])
        os.setresuid(number, number, 0)
        try:
            yield
        finally:
            os.setresuid(0, 0, 0)
            os.setgroups(groups)


@pytest.fixture
def shared():
    """See `Shared`; that of pytest is closed to others."""
    umask = os.umask(0o022)  # all may read what is made in it
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Shared(folder)
    finally:
        os.umask(umask)


@pytest.fixture(scope="session")
def real_data():
    """Folder with real recordings; without it the test is skipped."""
    places = [os.environ.get("LMAC_SB_DATA"), ROOT.parent / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "esc10" / "meta" / "esc50.csv").is_file():
            return Path(place)
    pytest.skip(f"no real data: LMAC_SB_DATA unset, nothing in {places[1]}")


def arguments(yaml, overrides):
    """Command line for a shipped yaml with overrides."""
    (file,) = (RECIPE / "hparams").rglob(yaml)
    return [
        str(file),
        "--noprogressbar",
        *(f"--{key}={value}" for key, value in overrides.items()),
    ]


class Recipe:
    """Runs the recipe's scripts, in this process or in a new one."""

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
        """Call `main` of a script in this process, and restore its state."""
        out, err = io.StringIO(), io.StringIO()
        logger = logging.getLogger()
        handlers, level = logger.handlers[:], logger.level
        hook, cwd = sys.excepthook, os.getcwd()
        os.chdir(self.cwd)
        code = 0
        describe = speechbrain_logger.get_environment_description
        speechbrain_logger.get_environment_description = described
        try:
            with contextlib.redirect_stdout(out):
                with contextlib.redirect_stderr(err):
                    self.script(name).main(arguments(yaml, overrides))
        except SystemExit as stop:
            code = stop.code
        finally:
            os.chdir(cwd)
            speechbrain_logger.get_environment_description = describe
            sys.excepthook = hook
            for handler in logger.handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)
        return Done(code, out.getvalue(), err.getvalue())

    def process(self, name, yaml, launcher=(), start=None, **overrides):
        """Run a script in a new process, optionally under a launcher."""
        words = [str(RECIPE / f"{name}.py"), *arguments(yaml, overrides)]
        return (start or self.command)([*launcher, *words])

    def command(self, command, cwd=None):
        """Run a command in a new process that need not import torch."""
        return self._done(command, self.copy(command, cwd))

    def python(self, command, cwd=None):
        """Run a command with this Python, from its very start."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.cwd if cwd is None else cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self._done(command, process)

    def copy(self, command, cwd=None, environment=None, asked=False):
        """Start a command in a new process that need not import torch."""
        cwd = self.cwd if cwd is None else cwd
        environment = environment or self.environment
        return Copy(command, cwd, environment, described(), asked)

    def _done(self, command, process):
        """Wait for a process, and end it if it does not end."""
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            # A launcher that is terminated ends its processes.
            process.terminate()
            out, err = process.communicate(timeout=60)
            pytest.fail(f"{command}: still running\n{out}\n{err}")
        return Done(process.returncode, out, err)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Use one thread, like the processes that tests start."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """Runner of the scripts, in an empty folder."""
    return Recipe(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Make a folder once for all workers of the test run."""
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
def pairs(once):
    """Ten scenes of two events in each of five folds."""
    return once(
        "pairs",
        lambda folder: make_scenes(
            folder, clips_per_class=1, duration_s=1.0, n_events=[2]
        ),
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
    """Name and checksum of each file in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def pretend(folder, **settings):
    """Change the recorded settings of a run, to continue with others."""
    path = Path(folder) / EXPERIMENT
    identity = read_json(path)
    identity.update(settings)
    if "batch_size" in settings:
        identity["dataloader_options"]["batch_size"] = settings["batch_size"]
    write_json(path, identity)


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
def noisy(tiny, scenes):
    """Options for new noise in each epoch and no written sounds."""
    return {
        **tiny,
        "number_of_epochs": 3,
        "save_clips": 0,
        "wham_folder": scenes / "noise",
        "snr_db": 3.0,
        "noisy_splits": "[train,valid,test]",
    }


@pytest.fixture(scope="session")
def whole(once, recipe, noisy):
    """Uninterrupted run with the options of `noisy`."""

    def make(folder):
        done = recipe.main(
            "train_lmac", "lmac.yaml", output_folder=folder, **noisy
        )
        assert done.code == 0, done.err

    return once("whole", make)


@pytest.fixture(scope="session")
def descent(tiny):
    """Plain gradient descent, since Adam's first steps magnify rounding.

    In steps so small that they do not: processors round differently.
    """
    return {
        **tiny,
        "lr": 0.001,
        "opt_class": "!name:torch.optim.SGD {lr: 0.001}",
    }


@pytest.fixture(scope="session")
def halves(descent):
    """Options for each of two processes that share the work of `descent`.

    Without a backend, as a user starts them.
    """
    return {**descent, "batch_size": descent["batch_size"] // 2}


@pytest.fixture(scope="session")
def two(once, recipe, halves):
    """Folder of a run with two processes."""

    def make(folder):
        done = recipe.process(
            "train_lmac",
            "lmac.yaml",
            TWO_PROCESSES,
            output_folder=folder,
            **halves,
        )
        assert done.code == 0, done.err[-3000:]
        (folder / "console.txt").write_text(done.out, encoding="utf-8")

    return once("two", make)


def last(folder):
    """Newest checkpoint of a run."""
    return SafeCheckpointer(folder / "save").find_checkpoint()


def values_of(folder):
    """Metadata of the newest checkpoint, without the time."""
    meta = last(folder).meta
    return {k: v for k, v in meta.items() if k != "unixtime"}


def same(found, expected):
    """Two runs end with the same metrics, weights and optimiser."""
    assert values_of(found) == pytest.approx(
        values_of(expected), rel=1e-6, abs=1e-9
    )
    rows = [read_rows(folder) for folder in (found, expected)]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows):
        assert one.keys() == other.keys()
        for name, value in other.items():
            if name not in TEXTS:
                value = pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True)
            assert one[name] == value, (other["id"], other["method"], name)
    decoders, optimizers = (
        [
            torch.load(last(folder).paramfiles[name])
            for folder in (found, expected)
        ]
        for name in ("decoder", "optimizer")
    )
    for name, value in decoders[1].items():
        torch.testing.assert_close(
            decoders[0][name], value, atol=1e-7, rtol=1e-6
        )
    for index, state in optimizers[1]["state"].items():
        # State of Adam; plain descent has none.
        if "exp_avg_sq" in state:
            torch.testing.assert_close(
                optimizers[0]["state"][index]["exp_avg_sq"],
                state["exp_avg_sq"],
                atol=1e-9,
                rtol=1e-5,
            )


@pytest.fixture(scope="session")
def helpers():
    """Functions that several test files use."""
    return SimpleNamespace(
        digest=digest,
        pretend=pretend,
        read_rows=read_rows,
        arguments=arguments,
        last=last,
        same=same,
        two_processes=TWO_PROCESSES,
        KNOWN=KNOWN,
        COLUMNS=COLUMNS,
    )
