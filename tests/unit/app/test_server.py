"""Tests of how the app starts and ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from lmac_sb import LMACError
from lmac_sb.app import serve, server

SERVER = """
import sys
import torch
from lmac_sb import LMACInterpreter
from lmac_sb.app import serve

class Slow(torch.nn.Linear):
    def forward(self, wavs):
        if begun:
            print("a pass", flush=True)
            time.sleep(0.2)
        return super().forward(wavs[:, :100])

import time
begun = False
model = LMACInterpreter.from_classifier(
    Slow(100, 2).eval(), 16000, steps=50, signal_length_s=1.0
)
begun = True
serve(model, port=0, host=sys.argv[1])
"""


@pytest.fixture
def run(tmp_path):
    """Starts the app in a new process, without a home or a display."""
    pytest.importorskip("gradio", reason="no gradio: the extra app")
    running = []

    def run(host, **changed):
        keys = ("HOME", "DISPLAY", "MPLCONFIGDIR", "XDG_CACHE_HOME")
        env = {k: v for k, v in os.environ.items() if k not in keys}
        tmp = tmp_path / "tmp"
        tmp.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, host],
            env={**env, "TMPDIR": str(tmp), **changed},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                return process, lines, tmp
        pytest.fail("".join(lines))

    yield run
    for process in running:
        process.kill()
        process.wait()


def address(lines):
    """The address that was printed."""
    return re.search(r"http://\S+", lines[-1]).group()


@pytest.mark.parametrize(
    "name, host, code, times",
    [
        ("SIGINT", "127.0.0.1", 0, 1),
        ("SIGINT", "127.0.0.1", 0, 3),  # of somebody who cannot wait
        ("SIGTERM", "0.0.0.0", 143, 1),
    ],
)
def test_it_ends_in_the_middle_and_leaves_nothing(
    run, name, host, code, times, tone, new_visitor
):
    import httpx

    process, lines, tmp = run(host, HOME="/proc/none")
    # Nothing else but that matplotlib misses a home.
    said = [x for x in lines[:-1] if "matplotlib" not in x.lower()]
    others = "others on the network can open this page and use the model\n"
    assert said == ([] if host == "127.0.0.1" else [others])
    with httpx.Client(base_url=address(lines), trust_env=False) as client:
        visitor = new_visitor(client, "one")
        path = visitor.give(tone)
        asked = [visitor.file(path), -1, -1, 50, []]
        body = visitor.body("explain", asked)
        assert client.post("/gradio_api/queue/join", json=body).is_success
        assert process.stdout.readline() == "a pass\n"
        begin = time.time()
        for _ in range(times):
            process.send_signal(getattr(signal, name))
            time.sleep(0.05)
        out, _ = process.communicate(timeout=20)
    assert time.time() - begin < 8
    assert set(out.splitlines()) - {"a pass"} == {"stopping ..."}, out
    assert out.count("stopping") == 1
    assert process.returncode == code
    assert list(tmp.iterdir()) == []


def test_ctrl_c_is_heard_once():
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with server._ends_on_signals():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)  # nothing is cut short
                ended = True
    assert ended
    assert signal.getsignal(signal.SIGINT) == former


def test_a_closed_terminal_ends_it_as_well():
    former = signal.getsignal(signal.SIGHUP)
    with pytest.raises(SystemExit, match="143"):
        with server._ends_on_signals():
            signal.raise_signal(signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == former


def test_a_taken_port_is_told_with_a_free_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LMACError, match=f"port: {port} is taken") as caught:
            serve(port=port)
    (free,) = re.findall(r"(\d+) is free", str(caught.value))
    with socket.create_server(("127.0.0.1", int(free))):
        pass


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"port": -1}, "port: found -1"),
        ({"port": "x"}, "port: found 'x'"),
        ({"host": "192.0.2.1"}, "host: found '192.0.2.1'"),
        ({"host": "no such host"}, "host: found 'no such host'"),
        ({"host": ""}, "host: found ''"),
        ({"max_mb": 0}, "max_mb: found 0"),
        ({"max_seconds": float("nan")}, "max_seconds: found nan"),
        ({"max_seconds": "long"}, "max_seconds: found 'long'"),
    ],
)
def test_settings_that_cannot_be(given, expected):
    with pytest.raises(LMACError, match=f"^{expected}"):
        serve(**given)


def test_without_gradio_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(LMACError, match=r'pip install "lmac-sb\[app\]"'):
        serve(port=0)


def test_an_old_gradio_is_told(monkeypatch):
    gradio = pytest.importorskip("gradio")
    monkeypatch.setattr(gradio, "__version__", "5.20.1")
    with pytest.raises(LMACError, match="gradio: found 5.20.1, expected 6.31"):
        serve(port=0)


def test_nothing_is_left_if_the_model_cannot_be_loaded(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="no gradio: the extra app")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = dict(os.environ)
    with pytest.raises(LMACError, match="nowhere"):
        serve("nowhere", port=0)
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before


def test_no_place_for_files(monkeypatch):
    def full(**given):
        """Nowhere to write."""
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(server.tempfile, "mkdtemp", full)
    with pytest.raises(LMACError, match="^TMPDIR: found no folder"):
        serve(port=0)
