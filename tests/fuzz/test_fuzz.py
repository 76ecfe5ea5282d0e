"""The fuzzer's targets with Hypothesis, and inputs that once failed."""

import importlib.util
import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from speechbrain.utils.importutils import LazyModule

# Hypothesis asks each module for its file. This would import SpeechBrain's
# lazy modules, also those that need packages that are not installed.
LazyModule.__file__ = None

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from lmac_sb.data import audio, decode, rates  # noqa: E402
from lmac_sb.utils.errors import LMACError, shown  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "fuzz.py"
EXAMPLES = 60


def load_tool():
    """The fuzzer as a module."""
    spec = importlib.util.spec_from_file_location("fuzz", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.load()
    return module


fuzz = load_tool()


class Rolled:
    """Makes choices with a random generator."""

    def __init__(self, rng):
        self.rng = rng

    def number(self, low, high):
        return self.rng.randint(low, high)

    def bytes(self, most):
        return self.rng.randbytes(self.rng.randint(0, most))

    def text(self, most):
        return "".join(map(chr, self.bytes(most)))


class Drawn:
    """Makes choices with Hypothesis."""

    def __init__(self, data):
        self.data = data

    def number(self, low, high):
        return self.data.draw(st.integers(low, high))

    def bytes(self, most):
        return self.data.draw(st.binary(max_size=most))

    def text(self, most):
        return self.data.draw(st.text(max_size=most))


@pytest.mark.parametrize("name", sorted(fuzz.TARGETS))
def test_what_is_changed_is_taken_or_refused(name):
    @settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def hammer(data):
        content = fuzz.TARGETS[name].make(Drawn(data))
        with tempfile.TemporaryDirectory() as folder:
            fuzz.TARGETS[name].check(Path(folder), content)

    # Imports change what Hypothesis draws, so they come first.
    rng = random.Random(0)
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            content = fuzz.TARGETS[name].make(Rolled(rng))
            fuzz.TARGETS[name].check(Path(folder), content)
    hammer()


def facts(**changes):
    """A clip of a report with other values."""
    return "clip", json.dumps({**fuzz.FACTS, **changes}).encode()


def wav(rate, subtype=0):
    """A wav whose header gives another rate."""
    content = bytearray(fuzz.recording(subtype, 1))
    place = content.index(b"fmt ") + 12
    content[place : place + 4] = struct.pack("<I", rate)
    return bytes(content)


HEADER = b"filename,fold,target,category\n"
KEYS = b"id,setting,method,keep"
FACTS = json.dumps(fuzz.FACTS).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        # Python does not parse a number with so many digits.
        ("meta", HEADER + b"a.wav," + b"9" * 5000 + b",0,dog\n"),
        # Messages of several lines, and of a million characters.
        ("meta", HEADER + b'a.wav,1,0,"dog\ncat"\n'),
        ("meta", b'"a\nb",fold\n'),
        ("meta", HEADER + b"." + b"x" * 100_000 + b",1,0,dog\n"),
        ("manifest", b'{"a\\nb": 1}'),
        ("manifest", 2 * b'{"id": "a\\nb"}\n'),
        ("manifest", b'{"a": "' + b"x" * 100_000 + b'"}'),
        ("results", KEYS + b',"x\ny"\na,b,c,d,z\n'),
        ("results", KEYS + b',AI\na,b,c,d,"high\n"\n'),
        ("results", b'"id\n"\n'),
        # A clip that no table can be sorted by.
        ("ratings", (fuzz.KEY.replace(b'"1-a"', b"[]"), fuzz.RATINGS)),
        ("ratings", (fuzz.KEY.replace(b'"l2i"', b"[]"), fuzz.RATINGS)),
        ("ratings", (fuzz.KEY, fuzz.RATINGS.replace(b'"t"', b'"t\\n"'))),
        # Not characters, though yaml's parser accepts them.
        ("bundle", (b'a: "\\U11111111"', b"")),
        ("bundle", (b'a: "\\UFFFFFFFF"', b"")),
        ("bundle", (b"%YAML 1." + b"9" * 5000 + b"\n---\na: 1", b"")),
        ("bundle", (b'a: "<\\n"', b"")),
        ("bundle", (b"a: !new:x%0Ay {}", b"")),
        # A name that is too long for a file.
        ("bundle", (b"a: 1", b"0  " + b"x" * 300 + b"\n")),
        # Infinity, in a key that is not checked.
        ("report", ("clip", FACTS.replace(b'"start"', b'"x": 1e999, "start"'))),
        # A whole number that no float can hold.
        ("report", facts(threshold=10**400)),
        ("report", facts(p=[10**400, 0])),
        ("report", facts(n_samples=10**4200)),
        # Filters of gigabytes.
        ("audio", wav(2**31 - 1)),
        ("audio", wav(44101)),
        ("audio", wav(1)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_found(tmp_path, name, content):
    fuzz.TARGETS[name].check(tmp_path, content)


def test_loud_values_are_refused(monkeypatch):
    def overflow(wav, *_):
        return wav * torch.inf

    monkeypatch.setattr(audio, "resample", overflow)
    loud = torch.full((8000,), 3.4e38)
    with pytest.raises(LMACError, match="too large to resample"):
        audio.Preprocessor(16000).process(loud, 8000)


@pytest.mark.parametrize("rate", [1, 200, 2**31 - 1])
def test_absurd_rates_are_refused(rate):
    with pytest.raises(LMACError, match=f"x: .* from {rate} Hz to 16000 Hz"):
        rates.resample(torch.zeros(10), rate, 16000, "x")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    """A small file may hold hours of silence."""
    path = tmp_path / "x.flac"
    path.write_bytes(fuzz.recording(5, 1))
    assert len(decode.decode_audio(path)[0]) == 2400
    monkeypatch.setattr(decode, "_LONGEST", 2399)
    with pytest.raises(LMACError, match="more than 2399 samples"):
        decode.decode_audio(path)


@pytest.mark.parametrize(
    "value", ["a\nb", "x" * 10**6, [["x" * 100] * 100], 10**4000, "\x1b[2J"]
)
def test_shown_is_one_short_line(value):
    assert shown(value).isprintable()
    assert len(shown(value)) < 1000


def test_a_check_can_fail(tmp_path, monkeypatch):
    """The checks find unescaped markup and other exceptions."""
    from lmac_sb.pages import report

    def write(file, name, value):
        file.write(
            f'<script type="application/json" id="{name}">'
            f"{json.dumps(value)}</script>\n"
        )

    fuzz._empty_page()
    monkeypatch.setattr(report, "write_block", write)
    with pytest.raises(RuntimeError, match="markup"):
        fuzz.check_report(tmp_path, facts(label="</script><b>"))
    with pytest.raises(KeyError):
        fuzz.taken({}.__getitem__, 1)
    with pytest.raises(RuntimeError, match="not one line"):
        fuzz.taken(decode.decode_audio, "a\nb")


def test_without_atheris_it_says_how_to_get_it(tmp_path):
    (tmp_path / "atheris.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, TOOL, "meta"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install --only-binary :all: atheris" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_target_is_refused():
    with pytest.raises(SystemExit, match="expected one target of meta"):
        fuzz.main(["nothing"])
