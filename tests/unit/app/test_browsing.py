"""Tests of the app on explained clips, without a browser."""

import os
import re
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="no gradio: the extra app")
sys.path.append(str(Path(__file__).resolve().parents[1] / "pages"))

from test_report import write_clip  # noqa: E402

from lmac_sb.app import server  # noqa: E402
from lmac_sb.app.shelf import Query, Shelf  # noqa: E402
from lmac_sb.cli.main import main  # noqa: E402
from lmac_sb.jobs.job import Chunk, Job  # noqa: E402
from lmac_sb.pages.explained import Listed, open_explained  # noqa: E402
from lmac_sb.utils.errors import LMACError  # noqa: E402

N = 30
ANY = ["", "", "", "", 1, 10]  # what is asked at first
REST = "unfaithful: the rest decides the same"
HOSTILE = "<img src=x onerror=alert(1)> ${1+1} {{x}} $x$"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Thirty clips in folders, one of them broken."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(N):
        write_clip(
            folder,
            f"clip {i}",
            label=["dog", "Katze", None][i % 3],
            classes=["dog", "Katze", "hen", "cow", "pig"],
            verdict=REST if i % 2 else "faithful",
            ending="flac" if i % 2 else "wav",
            **({"id": HOSTILE} if i == 4 else {}),
        )
    (folder / "clip 7" / "explanation.json").write_text("{")
    (folder / "clip 8" / "original.wav").unlink()
    return folder


@pytest.fixture(scope="module")
def app(clips, tmp_path_factory):
    """The app on them."""
    from starlette.testclient import TestClient

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr("tempfile.tempdir", None)
        with server._own_folder() as folder:
            index = os.path.join(folder, "index.db")
            shelf = Shelf(open_explained(clips), index)
            made, visits = server.make_shelf_app(shelf, folder, ["127.0.0.1"])
            with TestClient(made, "http://127.0.0.1:7860") as client:
                yield SimpleNamespace(
                    client=client, folder=folder, visits=visits, shelf=shelf
                )


@pytest.fixture
def visitor(app, request, new_visitor):
    """One visitor, who leaves at the end."""
    session = request.node.name
    yield new_visitor(app.client, session)
    app.visits.close(session)


def table(found):
    """Ids of the listed clips, and what is said."""
    assert found.error is None, found.error
    rows, said, number = found.shown
    return [row[1] for row in rows["data"]], said, number


def choose(visitor, number, **changes):
    """Choose a clip by its number."""
    event = {"row_value": [str(number)], "index": [0, 1], "value": "x"}
    return visitor.ask("clips", [], event_data={**event, **changes})


def test_clips_are_listed_page_by_page(visitor):
    names, said, number = table(visitor.ask("back", ANY))
    assert names[:5] == ["clip 0", "clip 1", "clip 2", "clip 3", HOSTILE]
    assert len(names) == 10
    assert "clips: 1 to 10 of 29, of 29 in all" in said
    assert "not whole, and so not here: 1" in said
    names, said, number = table(visitor.ask("next", [*ANY[:4], 2, 10]))
    assert (len(names), number) == (9, 3)
    assert "21 to 29 of 29" in said
    # There is no page after the last.
    assert table(visitor.ask("next", [*ANY[:4], 3, 10]))[2] == 3


@pytest.mark.parametrize(
    "asked, expected",
    [
        (["CLIP 1", "", "", ""], {1, 10, *range(11, 20)}),
        (["katze", "", "", ""], set(range(1, N, 3)) - {7}),
        (["", "Katze", "", ""], set(range(1, N, 3)) - {7}),
        (["", "", REST, ""], set(range(1, N, 2)) - {7}),
        (["", "", "", "wrong"], set(range(1, N, 3)) - {7}),
        (["", "", "", "right"], set(range(0, N, 3))),
        (["", "", "", "no label"], set(range(2, N, 3))),
        (["clip 2", "", REST, "no label"], {23, 29}),
        (["%", "", "", ""], set()),
    ],
)
def test_filters(app, asked, expected):
    query = Query(*asked)
    found = app.shelf.page(query, 0, 100)
    assert {int(x.place.split()[1]) for _, x in found} == expected
    assert app.shelf.count(query) == len(expected)


def test_a_clip_is_heard_and_seen(app, visitor):
    found = choose(visitor, 2)
    page = found.shown[0]
    assert page.count("<audio") == 3
    assert "decided: dog, the label is Katze" in page
    assert f">{REST}</p>" in page
    assert "p on what is kept</td><td>0.700" in page
    addresses = re.findall(r'src="([^"]+)"', page)
    assert len(addresses) == 3 and addresses[0].endswith("interpretation.flac")
    for address in addresses:
        given = app.client.get(f"/{address}")
        assert given.status_code == 200
        assert given.content[:4] == b"fLaC"
    # The next one takes its place, and all goes with the visitor.
    choose(visitor, 3)
    assert app.client.get(f"/{addresses[0]}").status_code in (403, 404)
    app.visits.close(visitor.session)
    assert os.listdir(os.path.join(app.folder, "given")) == []


def test_markup_in_names_stays_text(visitor):
    page = choose(visitor, 5).shown[0]
    assert "&lt;img src=x onerror=alert(1)&gt; ${1+1}" in page
    assert "<img" not in page


@pytest.mark.parametrize(
    "row", [None, [], ["1; drop table clips"], [-1], ["999999"], [{}], "1"]
)
def test_other_rows_are_refused(app, visitor, row):
    found = choose(visitor, 1, row_value=row)
    assert found.error.startswith("clip: found ")
    assert app.folder not in found.error


def test_a_clip_that_is_not_whole_is_told(app, visitor, clips):
    (number,) = (
        number
        for number, clip in app.shelf.page(Query("clip 8"), 0, 10)
        if clip.id == "clip 8"
    )
    found = choose(visitor, number)
    assert found.error.startswith("clip 8: found none, expected one of")
    assert str(clips) not in found.error


@pytest.mark.parametrize("number", [None, 0, 10**30])
def test_pages_that_are_not_there(visitor, number):
    found = visitor.ask("back", [*ANY[:4], number, 10])
    assert 1 <= table(found)[2] <= 3


@pytest.mark.parametrize(
    "asked",
    [
        ["x" * 10**5, "", "", "", 1, 10],
        ["", "'; drop table clips; --", "", "", 1, 10],
        ["'; drop table clips; --", "", "", "", 1, 10],
        ["", "", "", "maybe", 1, 10],
        ["", "", "", "", 1, 10**6],
        ["", "", "", "", "x", 10],
        ["", "", "", "", -5, 10],
        [["a"], {}, "", "", 1, 10],
        [None, None, None, None, 1, 10],
    ],
)
def test_odd_questions_do_no_harm(app, visitor, asked, capfd):
    found = visitor.ask("back", asked)
    assert found.error or found.shown is None or table(found)
    assert app.folder not in str(found.error)
    assert app.shelf.count(Query()) == N - 1


@pytest.mark.parametrize("name", Query._fields)
def test_queries_are_of_text(name):
    with pytest.raises(LMACError, match=f"{name}: found 5, expected a text"):
        Query(**{name: 5}).condition()


def test_only_the_files_of_a_visit_are_given(app, visitor, clips):
    for path in (
        f"{app.folder}/index.db",
        f"{clips}/clip 0/original.wav",
        f"{app.folder}/given/../index.db",
        "/etc/passwd",
    ):
        given = app.client.get(f"/gradio_api/file={path}")
        assert given.status_code == 404, path
    files = {"files": ("x.wav", b"x")}
    given = app.client.post("/gradio_api/upload", files=files)
    assert given.status_code == 404
    assert app.client.get("/", headers={"host": "evil.org"}).status_code == 403


def test_the_page_names_no_other_server(app):
    for path in ("/", "/config"):
        text = app.client.get(path).text
        assert re.findall(r"https?://(?!127\.0\.0\.1)\S+", text) == [], path


def rows_of(n):
    """Listed clips, made one by one."""
    for i in range(n):
        yield Listed(f"clip {i}", f"{i}", "dog", "dog", "faithful", True)


def test_memory_does_not_grow_with_the_clips(tmp_path):
    def peak(n):
        tracemalloc.start()
        explained = SimpleNamespace(folder=tmp_path, notes=())
        shelf = Shelf(explained, tmp_path / f"{n}.db", rows_of(n))
        assert shelf.n == n
        assert len(shelf.page(Query("clip"), 0, 100)) == 100
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(100_000) < peak(2000) + 300_000


def test_shards_and_audits_are_looked_through_as_well(clips, tmp_path):
    def work(items):
        path = clips / "clip 0"
        files = [(f"0.{x.name}", x) for x in sorted(path.iterdir())]
        row = {"id": "clip 0", "label": None, "decision": "dog"}
        row |= {"verdict": "faithful", "error": None}
        return Chunk([{**row, "sample": "0"}, {**row, "sample": None}], files)

    Job(tmp_path / "job", 2, {}, chunk=2).run(work)
    explained = open_explained(tmp_path / "job")
    shelf = Shelf(explained, tmp_path / "index.db")
    (_, first), (_, second) = shelf.page(Query(), 0, 10)
    assert second.place is None
    (tmp_path / "copy").mkdir()
    assert shelf.copy(first.place, tmp_path / "copy")["id"] == "clip 0"
    names = sorted(x.name for x in (tmp_path / "copy").iterdir())
    assert names == ["interpretation.wav", "original.wav", "residual.wav"]


def test_nothing_to_look_through_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    explained = open_explained(tmp_path)
    with pytest.raises(LMACError, match="holds no explained clip"):
        Shelf(explained, tmp_path / "index.db")
    with pytest.raises(SystemExit):
        main(["app", "--explained", str(tmp_path / "none")])


@pytest.mark.parametrize(
    "option", [["--model", "esc10"], ["--trust"], ["--max-mb", "3"]]
)
def test_options_of_models_are_refused(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        main(["app", "--explained", str(tmp_path), *option])
    assert "expected without --explained" in capsys.readouterr().err
