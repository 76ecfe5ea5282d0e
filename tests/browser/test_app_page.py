"""Tests of the app in a browser, by use."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf

pytest.importorskip("selenium")
pytest.importorskip("gradio", reason="no gradio: the extra app")

from driven import DrivenPage  # noqa: E402
from selenium.webdriver import Keys  # noqa: E402
from test_report_page import make_clip  # noqa: E402

# A classifier of two tones and noise, in a process that may ask no other
# machine for anything: what it tries is written down.
SERVER = """
import socket, sys
import torch

asked = open(sys.argv[1], "w", buffering=1)

def watched(function, place):
    def call(*given, **named):
        host = place(given)
        if host not in ("127.0.0.1", "localhost", "::1", None):
            print(host, file=asked)
            raise OSError("the network is closed")
        return function(*given, **named)
    return call

def host_of(address):
    return address[0] if isinstance(address, tuple) else None

socket.socket.connect = watched(
    socket.socket.connect, lambda given: host_of(given[1])
)
socket.getaddrinfo = watched(socket.getaddrinfo, lambda given: given[0])

from lmac_sb import LMACInterpreter
from lmac_sb.app import serve

torch.manual_seed(0)
rate, n = 16000, 400
time = torch.arange(n) / rate
waves = [torch.sin(2 * torch.pi * hertz * time) for hertz in (400, 3000)]
net = torch.nn.Sequential(
    torch.nn.Unflatten(1, (1, -1)),
    torch.nn.Conv1d(1, 2, n, 160),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool1d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(2, 3),
).eval()
with torch.no_grad():
    net[1].weight[:, 0] = torch.stack(waves) / 10
    net[1].bias.zero_()
    net[5].weight.copy_(torch.eye(3)[:, :2] * 2)
    net[5].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
labels = ["low tone", "high <b>tone</b>", "nothing"]
serve(
    LMACInterpreter.from_classifier(net, rate, labels, steps=5),
    port=0, max_mb=5, max_seconds=20,
)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """The running app; it leaves nothing and asks nobody."""
    tmp = tmp_path_factory.mktemp("tmp")
    asked = tmp_path_factory.mktemp("asked") / "hosts.txt"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(asked)],
        env={**os.environ, "TMPDIR": str(tmp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found, said
        yield SimpleNamespace(address=found.group(), folder=tmp)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "stopping ...\n")
        assert list(tmp.iterdir()) == []
        assert asked.read_text() == ""
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Two tones, the low one first, under a name with markup."""
    folder = tmp_path_factory.mktemp("sounds")
    time = np.arange(16000) / 16000
    low, high = (0.3 * np.sin(2 * np.pi * x * time) for x in (400, 3000))
    tones = folder / "<img src=x onerror=alert(1)>.wav"
    sf.write(tones, np.concatenate([low, high * 0.5]), 16000)
    (folder / "notes.wav").write_text("no sound at all\n" * 99)
    film = b"\0\0\0\x18ftypmp42" + bytes(200)
    (folder / "film.mp4").write_bytes(film)
    with open(folder / "huge.wav", "wb") as file:
        file.truncate(2_000_000_000)  # of holes, which take no place
    sf.write(folder / "long.ogg", np.zeros(16000 * 21), 16000)
    return folder


class App(DrivenPage):
    """The app as a person sees and uses it."""

    def drop(self, path):
        """Give a file."""
        (field,) = self.wait(lambda: self.all("#sound input[type=file]"))
        field.send_keys(str(path))

    def is_given(self):
        """Whether the page has taken the file."""
        return self.all("#sound audio, #sound .waveform-container")

    def choose(self, menu, text):
        """Search a class, and take the first."""
        field = self.one(f"{menu} input")
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ARROW_DOWN, Keys.ENTER)

    def explain(self):
        """Press the button."""
        self.one("#explain").click()

    def is_answered(self):
        """Whether all methods are there."""
        download = self.all("#download")
        return download and download[0].is_displayed()

    def play(self, sound):
        """Play one; its length, when it has begun."""
        self.driver.execute_script("arguments[0].play()", sound)
        self.wait(lambda: sound.get_property("currentTime") > 0, "silent")
        return sound.get_property("duration")

    def said(self):
        """Text of an error that is shown."""
        return " ".join(x.text for x in self.all(".toast-body"))


@pytest.fixture
def opened(app, browse):
    """The open page."""
    page = App(browse.open(app.address))
    page.wait(lambda: page.all("#explain"), "no page")
    yield page
    errors = [
        entry["message"]
        for entry in page.driver.get_log("browser")
        if entry["level"] == "SEVERE"
    ]
    # Gradio's player says so of what is no sound.
    assert [x for x in errors if "Waveform load error" not in x] == []


def files_of(app):
    """What the app holds on disk."""
    return [path for path in app.folder.rglob("*") if path.is_file()]


def test_a_sound_is_explained_by_use(app, opened, sounds, tmp_path):
    opened.drop(sounds / "<img src=x onerror=alert(1)>.wav")
    opened.wait(opened.is_given, "not uploaded")
    opened.choose("#target", "high")
    opened.choose("#against", "low")
    for label in opened.all("#methods label"):
        if label.text.strip() in ("loudest", "smoothgrad"):
            label.click()
    opened.explain()
    opened.wait(opened.is_answered, "no answer")

    texts = [card.text for card in opened.all("#answer .card")]
    names = ["gradient steps (5)", "smoothgrad", "loudest"]
    assert [text.splitlines()[0] for text in texts] == names
    assert "why high <b>tone</b> rather than low tone" in texts[0]
    assert "faithful" in opened.all("#answer .verdict")[0].text
    assert opened.all("#answer .card b b, img[src=x]") == []
    for name in ("interpretation", "residual"):
        sound = opened.all(f"#answer audio.{name}")[0]
        assert opened.play(sound) == pytest.approx(2)
    assert opened.js("a.naturalWidth > 100", opened.all("#answer img")[0])

    opened.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior",
        {"behavior": "allow", "downloadPath": str(tmp_path)},
    )
    opened.one("#download").click()
    (archive,) = opened.wait(lambda: list(tmp_path.glob("*.zip")))
    files = zipfile.ZipFile(archive)
    assert files.testzip() is None
    (facts,) = (
        x for x in files.namelist() if x.endswith("own/explanation.json")
    )
    answer = json.loads(files.read(facts))["answer"]
    assert answer["name"] == "high <b>tone</b> rather than low tone"

    opened.driver.get("about:blank")
    opened.wait(lambda: not files_of(app), "kept after the page was closed")


def test_the_example_is_explained(app, opened):
    opened.one("#example").click()
    opened.wait(opened.is_given, "not given")
    opened.explain()
    opened.wait(opened.is_answered, "no answer")
    assert opened.play(opened.all("#answer audio.original")[0]) > 3
    opened.driver.get("about:blank")
    opened.wait(lambda: not files_of(app), "kept after the page was closed")


def test_a_recording_is_explained(app, opened):
    source = "#sound button[aria-label='Record audio']"
    opened.wait(lambda: opened.all(source))[0].click()
    opened.wait(lambda: opened.all("#sound .record-button"))[0].click()
    time.sleep(1.5)
    stop = opened.wait(
        lambda: [
            x for x in opened.all("#sound .stop-button") if x.is_displayed()
        ]
    )
    stop[0].click()
    opened.wait(lambda: files_of(app), "not recorded")
    opened.explain()
    opened.wait(opened.is_answered, "no answer")
    assert opened.play(opened.all("#answer audio.original")[0]) > 0.5


@pytest.mark.parametrize(
    "name, expected",
    [
        ("notes.wav", "notes.wav: cannot be read as audio"),
        ("long.ogg", "long.ogg: longer than 20 s"),
        ("film.mp4", "convert it to WAV or FLAC"),
    ],
)
def test_what_is_no_sound_is_told_in_the_page(opened, sounds, name, expected):
    opened.drop(sounds / name)
    opened.wait(opened.is_given, "not uploaded")
    opened.explain()
    opened.wait(lambda: expected in opened.said(), "no sentence")
    assert "Traceback" not in opened.said()
    assert opened.all("#answer .card") == []


def test_a_huge_file_is_told_in_the_page(app, opened, sounds):
    opened.drop(sounds / "huge.wav")
    opened.wait(lambda: "size" in opened.said(), "no sentence")
    assert files_of(app) == []


def test_explain_without_a_sound_is_told(opened):
    opened.explain()
    opened.wait(lambda: "drop a file or record one" in opened.said())


SHELF = """
import sys
from lmac_sb.app import serve_explained
serve_explained(sys.argv[1], port=0)
"""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """The running app on explained clips; it leaves nothing."""
    folder = tmp_path_factory.mktemp("explained")
    for i in range(30):
        changes = {"label": ["dog", "cat"][i % 2]}
        if i == 2:
            changes["id"] = "<img src=x onerror=alert(1)>"
        make_clip(folder / f"clip {i}", changes, seconds=1)
    tmp = tmp_path_factory.mktemp("tmp")
    process = subprocess.Popen(
        [sys.executable, "-c", SHELF, str(folder)],
        env={**os.environ, "TMPDIR": str(tmp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + process.stdout.read()
        yield found.group()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "stopping ...\n")
        assert list(tmp.iterdir()) == []
    finally:
        process.kill()
        process.wait()


class Browsed(App):
    """The page on which clips are looked through."""

    def cell(self, text):
        """A cell of the list."""
        cells = self.all("#clips [role=gridcell]")
        return [cell for cell in cells if cell.text == text]

    def said(self):
        """Which clips are listed."""
        return self.one("#said").text


def test_explained_clips_are_looked_through(browse, shelf):
    page = Browsed(browse.open(shelf))
    page.wait(lambda: page.cell("clip 0"), "no list")
    assert "clips: 1 to 25 of 30, of 30 in all" in page.said()
    assert page.cell("<img src=x onerror=alert(1)>")
    assert page.all("img[src=x]") == []

    page.one("#next").click()
    page.wait(lambda: page.cell("clip 29"), "no second page")
    page.cell("clip 29")[0].click()
    page.wait(lambda: page.all("#answer .card"), "no card")
    assert "decided: dog, the label is cat" in page.one("#answer").text
    for name in ("interpretation", "residual", "original"):
        (sound,) = page.all(f"#answer audio.{name}")
        assert page.play(sound) == pytest.approx(1, abs=0.05)

    field = page.one("#text textarea, #text input")
    field.send_keys("CLIP 1")
    page.wait(lambda: "of 11, of 30 in all" in page.said(), "no search")
    # In another order, a row is still its clip.
    page.wait(lambda: page.cell("clip 10"))[0].click()
    page.wait(lambda: "clip 10" in page.one("#answer h3").text)
    page.choose("#outcome", "wrong")
    page.wait(lambda: "1 to 6 of 6, of 30 in all" in page.said(), "no filter")
