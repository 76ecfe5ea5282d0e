"""Texts for others say nothing of the machine that they come from."""

import socket
import time
from pathlib import Path

import pytest
import yaml

from lmac_sb.utils.portable import portable, portable_command
from lmac_sb.utils.provenance import provenance


@pytest.fixture(autouse=True)
def jane(monkeypatch):
    """A user and a host that nobody should hear of."""
    monkeypatch.setattr("getpass.getuser", lambda: "jane")
    monkeypatch.setattr(socket, "gethostname", lambda: "secret.lab")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane"))


SAME = [
    "results/lmac/1234",
    ".../ESC-50",
    "speechbrain/spkrec-ecapa-voxceleb",
    "!name:torch.optim.Adam {lr: 0.1}",
    "a / b",
    "16.0 Hz",
    "~5 dB",
    "/",
    "jane",
    "https://arxiv.org/abs/2403.13086",
    "",
]


@pytest.mark.parametrize("text", SAME)
def test_what_stays(text):
    assert portable(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/jane/ESC-50", ".../ESC-50"),
        ("/home/jane doe/my data/ESC 50", ".../ESC 50"),
        ("/home/jane", "..."),
        ("/home/jane/", "..."),
        ("~/data", ".../data"),
        ("~jane", "..."),
        ("C:\\Users\\jane\\ESC-50", ".../ESC-50"),
        ("C:/Users/jane/ESC-50", ".../ESC-50"),
        ("\\\\secret\\share\\ESC-50", ".../ESC-50"),
        ("file:///home/jane/x", ".../x"),
        ("../../jane/x", ".../x"),
        ("results/jane/x", ".../x"),
        ("python /opt/x.py --a=/b/c", "python .../x.py --a=.../c"),
        ("[/home/jane doe/a, b]", "['.../a', b]"),
        ("{x: /home/jane doe/a}", "{x: '.../a'}"),
    ],
)
def test_what_goes(text, found):
    assert portable(text) == found
    assert portable(found) == found


def test_deep_values():
    value = {"a": [1, {"b": Path("/home/jane/x")}], "c": None, "d": True}
    assert portable(value) == {
        "a": [1, {"b": ".../x"}],
        "c": None,
        "d": True,
    }


def test_a_yaml_text():
    text = (
        "# Generated from /home/jane/x.yaml\n"
        "data: /home/jane doe/ESC-50 # of jane\n"
        "seed: 1\n"
        "save: !ref <data>/save\n"
        "opt: !name:torch.optim.SGD\n    lr: 0.1\n"
        "many: [a, /home/jane/b]\n"
    )
    found = portable(text)
    assert "jane" not in found and "/home" not in found
    root = yaml.compose(found, Loader=yaml.SafeLoader)
    values = {key.value: value for key, value in root.value}
    assert values["data"].value == ".../ESC-50"
    assert (
        values["save"].tag == "!ref" and values["save"].value == "<data>/save"
    )
    assert values["opt"].tag == "!name:torch.optim.SGD"
    assert [node.value for node in values["many"].value] == ["a", ".../b"]


def test_a_text_that_is_no_yaml():
    found = portable("a: [\n/home/jane/x: {\n")
    assert "jane" not in found and ".../x" in found


@pytest.mark.parametrize(
    "text", ["[" * 40_000, "a: " + "[" * 40_000 + "\n", "- /home/jane/x\n" * 9]
)
def test_other_texts_take_no_time(text):
    begin = time.perf_counter()
    assert "jane" not in portable(text)
    assert time.perf_counter() - begin < 2


def test_a_command():
    found = portable_command(
        [
            "/home/jane doe/train.py",
            "/home/jane/x.yaml",
            "--data_folder=/home/jane doe/ESC",
            "--interpreters={a: /home/jane doe/b}",
            "--output_folder",
            "/home/jane doe/out",
            "--lr=0.1",
        ]
    )
    assert "jane" not in found and "doe" not in found
    assert ".../train.py .../x.yaml --data_folder=.../ESC" in found
    assert "--lr=0.1" in found


def test_provenance_is_for_others(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/jane/train.py", "--x=/home/jane/a"])
    found = provenance(data_folder="/home/jane/b", more={"c": "/home/jane/d"})
    assert "jane" not in str(found) and "secret" not in str(found)
    assert found["command"] == ".../train.py --x=.../a"
