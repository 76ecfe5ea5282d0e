"""Tests of the app without a browser: what it takes, refuses and deletes."""

import os
import re
import shutil
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb import LMACError
from lmac_sb.app import visits
from lmac_sb.app.guard import Guard
from lmac_sb.metrics.verdict import VERDICTS


def files_in(folder):
    """All files in a folder."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def test_a_sound_is_explained(visitor, tone):
    found = visitor.explain(visitor.give(tone), steps=1)
    assert found.error is None
    page, download = found.shown
    assert page.count("<audio") == 3
    assert any(f">{verdict}</p>" in page for verdict in VERDICTS)
    archive = zipfile.ZipFile(download["value"]["path"])
    names = archive.namelist()
    assert "tone_explained/own/interpretation.wav" in names
    assert "tone_explained/report.html" in names


def test_what_is_asked_is_asked_of_the_model(visitor, tone):
    found = visitor.explain(visitor.give(tone), target=2, against=0)
    assert "why <b>dog rather than cat</b>" in found.shown[0]


def test_the_runner_up(visitor, tone):
    found = visitor.explain(visitor.give(tone), target=2, against=-2)
    assert "why <b>dog rather than cat</b>" in found.shown[0]


def test_what_cannot_be_asked_is_told(visitor, tone):
    found = visitor.explain(visitor.give(tone), target=1, against=1)
    assert found.error.startswith("against: class 1 is the one that is asked")


def test_silence_has_its_verdict(visitor, tmp_path):
    sf.write(tmp_path / "silence.wav", np.zeros(16000), 16000)
    found = visitor.explain(visitor.give(tmp_path / "silence.wav"))
    assert ">silent</p>" in found.shown[0]


def test_methods_stand_side_by_side(visitor, tone, monkeypatch):
    methods = ["smoothgrad", "loudest", "deeplift_shap"]
    found = visitor.explain(visitor.give(tone), steps=1, methods=methods)
    titles = re.findall("<h3>([^<]*)", found.shown[0])
    assert titles == ["gradient steps (1)", *methods]
    names = zipfile.ZipFile(found.shown[1]["value"]["path"]).namelist()
    assert "tone_explained/loudest/explanation.json" in names


def noise(seconds):
    """So many seconds."""
    generator = np.random.default_rng(0)
    return generator.uniform(-0.1, 0.1, int(16000 * seconds))


def write(path, seconds, **kind):
    """A file of noise."""
    sf.write(path, noise(seconds), 16000, **kind)
    return path


def odd_files(folder):
    """Files that are no sound that is taken, and what is said of them."""
    (folder / "empty.wav").touch()
    yield folder / "empty.wav", "empty.wav: found an empty file"
    (folder / "notes.txt").write_text("no sound\n" * 100)
    yield folder / "notes.txt", "notes.txt: cannot be read as audio"
    (folder / "photo.wav").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))
    yield folder / "photo.wav", "photo.wav: cannot be read as audio"
    # A film without sound: boxes, of which none is a track of samples.
    box = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0\0\0\x08mdat"
    (folder / "film.mp4").write_bytes(box + bytes(200))
    yield folder / "film.mp4", "film.mp4: cannot be read as audio"
    yield write(folder / "long.ogg", 6), "long.ogg: longer than 5 s"
    yield write(folder / "short.wav", 0.01), "short.wav: 0.0100 s long"
    whole = write(folder / "cut.wav", 2).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    yield folder / "cut.wav", "cut.wav: truncated"
    loud = np.full(16000, np.nan, np.float32)
    sf.write(folder / "nan.wav", loud, 16000, "FLOAT")
    yield folder / "nan.wav", "nan.wav: holds NaN"


def test_what_is_no_sound_is_refused_in_a_sentence(app, visitor, tmp_path):
    wrong = []
    for path, expected in odd_files(tmp_path):
        found = visitor.explain(visitor.give(path))
        text = found.error or ""
        if not text.startswith(expected) or app.folder in text:
            wrong.append((path.name, text))
        assert "\n" not in text
    assert wrong == []


def test_a_large_file_is_refused_while_it_comes(app, visitor):
    before = files_in(app.folder)
    found = visitor.upload(bytes(2_000_000), "large.wav")
    assert found.status_code == 413
    assert files_in(app.folder) == before


def test_several_files_at_once_are_no_way_around_the_size(app):
    before = files_in(app.folder)
    files = [("files", (f"{i}.wav", bytes([i]) * 600_000)) for i in range(3)]
    found = app.client.post("/gradio_api/upload", files=files)
    assert found.status_code == 413
    assert files_in(app.folder) == before


def test_an_upload_says_how_large_it_is(app):
    parts = {"content": iter([b"x"]), "headers": {"content-type": "x/y"}}
    found = app.client.post("/gradio_api/upload", **parts)
    assert found.status_code == 411


def test_uploads_that_no_page_takes_do_not_fill_the_disk(app, visitor, tone):
    before = files_in(app.folder)
    held, given = visitor.give(tone), []
    for number in range(30):
        found = visitor.upload(bytes([number]) * 900_000, f"{number}.wav")
        if not isinstance(found, str):
            break
        given.append(found)
    assert found.status_code == 507
    assert "holds as many sounds as it may" in found.text
    assert sum(map(os.path.getsize, given)) <= visits.MOST_LARGE * 1_000_000
    for path in (*given, held):
        os.utime(path, (0, time.time() - visits.UNCLAIMED_S - 1))
    again = visitor.upload(b"one more")
    assert isinstance(again, str)
    # The one that a page holds is there.
    assert files_in(app.folder) == sorted([*before, Path(held), Path(again)])
    Path(again).unlink()


def test_small_uploads_are_counted(app):
    folder = Path(app.folder, "small")
    folder.mkdir()
    for number in range(visits.MOST_LARGE * visits.MOST_SMALL):
        (folder / str(number)).touch()
    assert app.visits.room(1_000_000) <= 0
    shutil.rmtree(folder)
    assert app.visits.room(1_000_000) > 0


def test_markup_in_names_stays_text(visitor, tone):
    path = visitor.give(tone, "<img src=x onerror=alert(1)>.wav")
    found = visitor.explain(path, target=1)
    page = found.shown[0]
    assert "why <b>&lt;b&gt;cow&lt;/b&gt; ${1+1} {{x}} $x$</b>" in page
    allowed = {"div", "p", "b", "section", "h3", "label", "audio", "img"}
    allowed |= {"table", "tr", "td"}
    assert set(re.findall(r"<(\w+)", page)) <= allowed
    assert "onerror=alert" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "http://127.0.0.1:9/x.wav",
        "https://example.org/x.wav",
        "tone.wav",
        "{folder}/../x.wav",
    ],
)
def test_no_other_file_is_read(app, visitor, path):
    path = path.format(folder=app.folder)
    before = files_in(app.folder)
    assert visitor.take(path).status_code == 400
    assert visitor.explain(path).status == 400
    given = app.client.get(f"/gradio_api/file={path}")
    assert given.status_code == 404
    assert files_in(app.folder) == before


def test_hidden_ways_are_closed(app):
    ways = [
        "info",
        "openapi.json",
        "file/x",
        "proxy=http://example.org",
        "runs",
    ]
    ways = [f"/gradio_api/{way}" for way in ways]
    ways += ["/docs", "/login", "/monitoring", "/gradio_api/mcp/"]
    found = {way: app.client.get(way).status_code for way in ways}
    assert found == dict.fromkeys(ways, 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},  # a name that leads to this machine
        {"host": "127.0.0.1.evil.example:7860"},
        {"host": "[::1"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000"},  # another program's page
        {"origin": "null"},
    ],
)
def test_pages_of_others_cannot_ask(app, headers):
    assert app.client.get("/", headers=headers).status_code == 403
    given = {"files": {"files": ("x.wav", b"x")}, "headers": headers}
    found = app.client.post("/gradio_api/upload", **given)
    assert found.status_code == 403


@pytest.mark.parametrize("hosts, is_framed", [(["x"], False), (None, True)])
def test_pages_of_others_show_it_only_if_it_is_open(hosts, is_framed):
    from starlette.testclient import TestClient

    async def app(scope, receive, send):
        """Nothing but an answer."""
        start = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(Guard(app, "/tmp", hosts), "http://x")
    for path in ("/theme.css", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert ("frame-ancestors 'none'" not in policy) is is_framed


def test_the_page_names_no_other_server(app):
    for path in ("/", "/config"):
        answer = app.client.get(path)
        outside = re.findall(r"https?://(?!127\.0\.0\.1)\S+", answer.text)
        assert outside == [], path
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy
    assert "unsafe-eval" not in policy
    style = app.client.get("/theme.css").text
    assert re.findall(r"url\(['\"]?(?:https?:)?//", style) == []


def test_two_visitors_do_not_share(app, visitor, tone):
    other = type(visitor)(app.client, "another one")
    path = visitor.give(tone)
    # It has not given that sound, though it knows where it lies.
    assert "no longer here" in other.explain(path).error
    assert other.give(tone) == path  # of the same content, the same file
    shown = visitor.explain(path).shown[0]
    assert other.explain(path).shown[0] != shown
    app.visits.close("another one")
    assert Path(path).exists()
    assert visitor.explain(path).error is None


def test_what_was_given_is_deleted(app, visitor, tone, tmp_path):
    before = files_in(app.folder)
    first = visitor.give(tone)
    visitor.explain(first)
    assert files_in(app.folder) != before
    second = visitor.give(write(tmp_path / "second.wav", 1))
    assert not Path(first).exists()  # another sound took its place
    visitor.explain(second)
    app.visits.close(visitor.session)
    assert files_in(app.folder) == before
    assert "give it once more" in visitor.explain(second).error


def test_nothing_is_left_when_the_page_closes_meanwhile(
    app, visitor, tone, monkeypatch
):
    from lmac_sb.app import page

    before = files_in(app.folder)

    def answer(*arguments):
        """The page is closed after the first method."""
        app.visits.close(visitor.session)
        yield from ()

    monkeypatch.setattr(page, "answer", answer)
    visitor.explain(visitor.give(tone))
    assert files_in(app.folder) == before


def test_a_fault_of_ours_is_told_without_paths(
    visitor, tone, monkeypatch, caplog
):
    from lmac_sb.app import page

    def answer(*arguments):
        """Something that nobody thought of."""
        raise KeyError("/home/me/secret")

    monkeypatch.setattr(page, "answer", answer)
    found = visitor.explain(visitor.give(tone))
    assert found.error == (
        "something went wrong, which the window that runs this app tells "
        "(KeyError)"
    )
    assert "secret" in caplog.text  # there


def test_a_full_disk_is_told(visitor, tone, monkeypatch):
    from lmac_sb.app import page

    def full(*arguments):
        """Nothing can be written."""
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(page, "zipped", full)
    found = visitor.explain(visitor.give(tone))
    assert found.error.startswith("the disk of this computer is full")


def test_an_explanation_can_be_stopped(app, visitor, tone, monkeypatch):
    from lmac_sb.app import page

    real = page.answer

    def answer(*arguments):
        """Stopped after the first method."""
        results = real(*arguments)
        yield next(results)
        body = visitor.body("stop", [])
        assert app.client.post("/gradio_api/run/predict", json=body).is_success
        yield from results

    path = visitor.give(tone)
    with monkeypatch.context() as patch:
        patch.setattr(page, "answer", answer)
        found = visitor.explain(path, methods=["loudest", "random"])
    assert found.error is None
    assert re.findall("<h3>([^<]*)", found.shown[0]) == ["loud bins (no steps)"]
    assert ">stopped</p>" in found.shown[0]
    # The next one is not.
    found = visitor.explain(path, methods=["loudest"])
    assert found.shown[0].count("<h3>") == 2


def test_only_some_may_wait(app, new_visitor, tone, monkeypatch):
    from lmac_sb.app import page

    go_on, at_once = threading.Event(), []

    def answer(*arguments):
        """Takes its time."""
        at_once.append(True)
        assert len(at_once) == 1
        go_on.wait(20)
        at_once.pop()
        yield from ()

    def end(folder):
        """No archive."""
        raise LMACError("enough")

    monkeypatch.setattr(page, "answer", answer)
    monkeypatch.setattr(page, "zipped", end)
    found = []
    for number in range(page.N_WAITING + 3):
        one = new_visitor(app.client, f"crowd {number}")
        path = one.give(tone)
        asked = [one.file(path), -1, -1, 0, []]
        body = one.body("explain", asked)
        found.append(app.client.post("/gradio_api/queue/join", json=body))
        if number == 0:
            wait_for(lambda: at_once)
    go_on.set()
    refused = [answer for answer in found if answer.status_code != 200]
    assert 1 <= len(refused) <= 3
    assert "full" in refused[0].text
    wait_for(lambda: not at_once)
    for number in range(page.N_WAITING + 3):
        app.visits.close(f"crowd {number}")


def wait_for(condition):
    """Until it holds."""
    end = time.time() + 20
    while not condition():
        assert time.time() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    "name",
    ["../../../x.wav", "a/b.wav", "x" * 300 + ".wav", "Käfer 🐞.wav", "."],
)
def test_any_name_stays_in_the_folder(app, visitor, tone, name):
    path = visitor.give(tone, name)
    assert Path(path).is_relative_to(app.folder)
    assert visitor.explain(path).error is None
