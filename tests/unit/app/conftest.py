"""The app in this process, and what a browser sends to it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.app.answer import Limits

CLASSES = ["cat", "<b>cow</b> ${1+1} {{x}} $x$", "dog"]
MB, SECONDS = 1, 5  # the most that is taken here


def make_net():
    """A classifier of waveforms, with three classes."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (1, -1)),
        torch.nn.Conv1d(1, 8, 400, 160),
        torch.nn.ReLU(),
        torch.nn.AdaptiveMaxPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 3),
    ).eval()


@pytest.fixture(scope="session")
def small():
    """An interpreter that takes gradient steps."""
    return LMACInterpreter.from_classifier(make_net(), 16000, CLASSES, steps=2)


@pytest.fixture(scope="session")
def tone(tmp_path_factory):
    """A sound of two seconds."""
    path = tmp_path_factory.mktemp("tones") / "tone.wav"
    time = np.arange(32000) / 16000
    sf.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), 16000)
    return path


class Visitor:
    """An open page: asks as the script in the browser does."""

    def __init__(self, client, session):
        self.client, self.session = client, session
        config = client.get("/config").json()
        self.functions = {
            target[1]
            if target[1] in ("change", "unload")
            else named.get(target[0]): dependency["id"]
            for named in [
                {
                    part["id"]: part["props"].get("elem_id")
                    for part in config["components"]
                }
            ]
            for dependency in config["dependencies"]
            for target in dependency["targets"]
        }

    def upload(self, data, name="tone.wav"):
        """Send a file; its path on the server, or the refusal."""
        answer = self.client.post(
            "/gradio_api/upload", files={"files": (name, data)}
        )
        return answer.json()[0] if answer.status_code == 200 else answer

    def body(self, function, data):
        """A question."""
        return {
            "fn_index": self.functions[function],
            "data": data,
            "session_hash": self.session,
        }

    def take(self, path):
        """What the page does with an upload."""
        return self.client.post(
            "/gradio_api/run/predict",
            json=self.body("change", [self.file(path)]),
        )

    def file(self, path):
        """A file in a question."""
        if path is None:
            return None
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def explain(self, path, target=-1, against=-1, steps=0, methods=()):
        """Press the button; what is shown at the end, and the error."""
        asked = [self.file(path), target, against, steps, list(methods)]
        return self.ask("explain", asked)

    def ask(self, function, data, **more):
        """Use a part of the page; what is shown at the end, and the error."""
        joined = self.client.post(
            "/gradio_api/queue/join",
            json={**self.body(function, data), **more},
        )
        if joined.status_code != 200:
            return SimpleNamespace(status=joined.status_code, error=joined.text)
        shown, error = None, None
        address = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.client.stream("GET", address) as stream:
            for line in stream.iter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_generating":
                    shown = message["output"].get("data") or shown
                if message["msg"] == "process_completed":
                    error = message["output"].get("error")
                    shown = message["output"].get("data") or shown
                    break
        return SimpleNamespace(status=200, shown=shown, error=error)

    def give(self, path, name=None):
        """Upload a file of this machine, and let the page take it."""
        found = self.upload(path.read_bytes(), name or path.name)
        assert isinstance(found, str), found.text
        assert self.take(found).status_code == 200
        return found


@pytest.fixture(scope="module")
def app(small, tmp_path_factory):
    """The app, its files and its visitors."""
    pytest.importorskip("gradio", reason="no gradio: the extra app")
    from starlette.testclient import TestClient

    from lmac_sb.app import server

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr("tempfile.tempdir", None)
        with server._own_folder() as folder:
            made, visits = server.make_app(
                small, Limits(MB, SECONDS), folder, ["127.0.0.1"]
            )
            with TestClient(made, "http://127.0.0.1:7860") as client:
                yield SimpleNamespace(
                    client=client, folder=folder, visits=visits
                )


@pytest.fixture
def new_visitor():
    """`Visitor`, for other apps than this one."""
    return Visitor


@pytest.fixture
def visitor(app, request):
    """One visitor, who leaves at the end."""
    session = request.node.name
    yield Visitor(app.client, session)
    app.visits.close(session)
