"""Tests of reports on some clips of many, in folders and in shards."""

import tracemalloc

import pytest
from audits import audit_of, write_audit
from test_report import Page, write_clip

from lmac_sb.cli.main import main
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.shards import Shard
from lmac_sb.pages.explained import KEY, Wanted
from lmac_sb.pages.report import write_report
from lmac_sb.utils.errors import LMACError

REST = "unfaithful: the rest decides the same"
# Clips by name: what is changed of dogs that are decided dog, faithfully.
CLIPS = {
    "dog 1": {},
    "dog 2": {"verdict": REST},
    "cat 1": {"label": "cat"},
    "cow 10": {"label": "cow", "verdict": REST},
    "cow 9": {"label": None},
}


@pytest.fixture
def folders(tmp_path):
    """Clips in folders."""
    for name, changes in CLIPS.items():
        write_clip(tmp_path / "folders", name, **changes)
    return tmp_path / "folders"


def row_of(name, key, decision="dog"):
    """The row of one of these clips."""
    changes = {"label": "dog", "verdict": "faithful", **CLIPS[name]}
    return {"id": name, "decision": decision, "error": None, **changes} | {
        KEY: key
    }


@pytest.fixture
def shards(tmp_path, folders):
    """The same clips as a job's rows and shards, two in a part."""
    names = list(CLIPS)
    failed = {"id": "bad", "label": None, "error": "bad.wav: truncated"}

    def work(items):
        rows, files = [], []
        for i in items:
            if i == len(names):
                rows.append({**failed, KEY: None})
                continue
            key = f"{i:08d}"
            rows.append(row_of(names[i], key))
            files += [
                (f"{key}.{path.name}", path.read_bytes())
                for path in sorted((folders / names[i]).iterdir())
            ]
        return Chunk(rows, files)

    job = Job(tmp_path / "shards", len(names) + 1, {"what": "test"}, chunk=2)
    job.run(work)
    return tmp_path / "shards"


@pytest.fixture(params=["folders", "shards"])
def either(request):
    """Both."""
    return request.getfixturevalue(request.param)


def ids(folder, **wanted):
    """Ids of the clips in the page."""
    index = Page(write_report(folder, wanted=Wanted(**wanted))).data("index")
    return [clip["id"] for clip in index["clips"]]


def test_all_clips_are_shown(folders, shards):
    assert ids(folders) == ["cat 1", "cow 9", "cow 10", "dog 1", "dog 2"]
    assert ids(shards) == list(CLIPS)
    # Sounds and pictures are the same.
    blocks = [
        {
            clip["id"]: page.data(f"clip-{i}")
            for i, clip in enumerate(page.data("index")["clips"])
        }
        for page in (
            Page(folder / "report.html") for folder in (folders, shards)
        )
    ]
    assert blocks[0] == blocks[1]


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ({"names": ("dog 2", "cow 9")}, {"dog 2", "cow 9"}),
        ({"name_of_class": "cat"}, {"cat 1"}),
        ({"name_of_class": "dog"}, set(CLIPS)),
        ({"verdict": "unfaithful"}, {"dog 2", "cow 10"}),
        ({"verdict": "faithful"}, {"dog 1", "cat 1", "cow 9"}),
        ({"wrong": True}, {"cat 1", "cow 10"}),
        ({"wrong": True, "verdict": REST}, {"cow 10"}),
    ],
)
def test_those_asked_for_are_shown(either, wanted, expected):
    assert set(ids(either, **wanted)) == expected


def test_what_is_left_out_is_said(either):
    left_out = []
    page = write_report(either, left_out=left_out, wanted=Wanted(most=2))
    index = Page(page).data("index")
    assert len(index["clips"]) == 2
    assert index["notes"][-1].startswith("asked for, but too many for")
    assert str(left_out[-1]) == index["notes"][-1]
    index = Page(write_report(either, wanted=Wanted(wrong=True))).data("index")
    assert index["asked"] == "decided wrongly"


def test_clips_that_failed_are_counted(shards):
    index = Page(write_report(shards)).data("index")
    assert index["notes"] == [
        "not explained: 1; the column error of the rows says why"
    ]


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ({"names": ("dog 1", "dgo")}, "found no clip named 'dgo' among 5"),
        (
            {"name_of_class": "cat "},
            "found none of the clips that are asked for among 5: label or "
            "decision 'cat '; did you mean 'cat'",
        ),
        ({"name_of_class": "cat", "verdict": REST}, "found none of the clips"),
        ({"verdict": "wrong"}, "--verdict: found 'wrong', expected the beg"),
        ({"most": 0}, "--most: found 0, expected at least 1"),
    ],
)
def test_what_is_not_there_is_told(either, wanted, expected):
    with pytest.raises(LMACError, match=expected) as error:
        write_report(either, wanted=Wanted(**wanted))
    assert "\n" not in str(error.value)
    assert not (either / "report.html").exists()


def test_a_broken_clip_is_named_whatever_is_asked(folders):
    (folders / "dog 1" / "explanation.json").write_text("{")
    left_out = []
    wanted = Wanted(wrong=True)
    write_report(folders, left_out=left_out, wanted=wanted)
    assert "dog 1/explanation.json: cannot be read" in str(left_out[0])


def test_a_job_in_which_all_failed_is_told(tmp_path):
    row = {"id": "a.wav", "label": None, "error": "a.wav: empty"}
    Job(tmp_path, 1, {}).run(lambda items: Chunk([row]))
    expected = "holds no explained clips; not explained: 1; the column error"
    with pytest.raises(LMACError, match=expected):
        write_report(tmp_path)


def test_only_those_asked_for_are_read_from_shards(shards, monkeypatch):
    read = []
    own = Shard._blocks
    monkeypatch.setattr(
        Shard,
        "_blocks",
        lambda self, key, name: read.append(key) or own(self, key, name),
    )
    assert ids(shards, names=("cow 10",)) == ["cow 10"]
    assert set(read) == {"00000003"}


def test_refined_clips_come_from_shards_with_both_masks(tmp_path):
    path = write_clip(tmp_path, "a", refine_steps=3)
    write_clip(path, "unrefined", file="/secret/place/a.wav")

    def work(items):
        files = [
            (f"0.{file.relative_to(path).as_posix().replace('/', '.')}", file)
            for file in sorted(path.rglob("*"))
            if file.is_file()
        ]
        row = {"id": "a", "label": "dog", "decision": "dog", KEY: "0"}
        return Chunk([{**row, "verdict": "faithful", "error": None}], files)

    Job(tmp_path / "job", 1, {}).run(work)
    (clip,) = Page(write_report(tmp_path / "job")).data("index")["clips"]
    assert clip["unrefined"]["refine_steps"] == 0


def test_what_is_wrong_in_a_shard_names_the_sample(tmp_path, folders):
    (folders / "dog 1" / "maps.npz").write_bytes(b"x")

    def work(items):
        files = [(f"0.{x.name}", x) for x in (folders / "dog 1").iterdir()]
        return Chunk([row_of("dog 1", "0")], files)

    Job(tmp_path / "job", 1, {}).run(work)
    expected = r"job/clips/part-00000.tar: 0/maps.npz: cannot be read as maps"
    with pytest.raises(LMACError, match=expected) as error:
        write_report(tmp_path / "job")
    assert "lmac_clip_" not in str(error.value)


def test_sounds_in_shards_cannot_be_linked(shards):
    with pytest.raises(LMACError, match="keeps its sounds in shards"):
        write_report(shards, embed=False)


def test_an_unfinished_job_is_shown_as_far_as_it_is(shards):
    (shards / "rows" / "part-00001.parquet").unlink()
    index = Page(write_report(shards)).data("index")
    assert [clip["id"] for clip in index["clips"]] == [
        "dog 1",
        "dog 2",
        "cow 9",
    ]
    assert index["notes"][0].startswith("not done, or not whole: 1 of 3")
    # A shard that was cut off.
    shard = shards / "clips" / "part-00002.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    assert ids(shards) == ["dog 1", "dog 2"]


def test_a_damaged_clip_in_a_shard_is_left_out(tmp_path, folders):
    def work(items):
        files = [
            (f"0.{file.name}", file)
            for file in sorted((folders / "dog 1").iterdir())
        ]
        rows = [row_of("dog 1", "0"), row_of("dog 2", "1")]
        return Chunk([*rows, row_of("cat 1", None)], files)

    Job(tmp_path / "job", 3, {}, chunk=3).run(work)
    index = Page(write_report(tmp_path / "job")).data("index")
    assert [clip["id"] for clip in index["clips"]] == ["dog 1"]
    (reason,) = index["left_out"]
    assert reason == "clips/part-00000.tar: holds no sample '1'"
    assert index["notes"] == ["1 clip has no sounds in this folder"]


@pytest.mark.parametrize("name", ["id", "decision", "verdict", "label", KEY])
def test_rows_of_another_kind_are_left_out(tmp_path, folders, name):
    def work(items):
        files = [
            (f"0.{file.name}", file)
            for file in sorted((folders / "dog 1").iterdir())
        ]
        return Chunk([{**row_of("dog 1", "0"), name: 5}], files)

    Job(tmp_path / "job", 1, {}).run(work)
    with pytest.raises(LMACError, match=f"{name}: found 5, expected a text"):
        write_report(tmp_path / "job")


def test_an_audit_shows_its_examples(tmp_path):
    for name in ("a", "b"):
        write_clip(tmp_path / "examples", name)
    facts = {
        name: {"id": f"{name}.wav", "label": "dog", "decision": "dog"}
        for name in ("a", "b")
    }
    write_audit(tmp_path, audit_of(["dog", "cat"], facts))
    assert ids(tmp_path) == ["a", "b"]
    # With rows, those choose.
    rows = [
        {"id": f"{name}.wav", "label": "dog", "decision": "dog", "error": None}
        | {"verdict": "faithful" if name == "a" else "silent"}
        for name in "abc"
    ]
    Job(tmp_path, 3, {}, chunk=3).run(lambda items: Chunk(rows))
    index = Page(write_report(tmp_path, embed=False)).data("index")
    assert [clip["id"] for clip in index["clips"]] == ["a", "b"]
    assert index["notes"] == [
        "1 clip has no sounds in this folder (the audit keeps those of its "
        "examples; `--examples N` keeps more)"
    ]
    assert ids(tmp_path, verdict="silent") == ["b"]
    with pytest.raises(LMACError, match="kept no sounds of what is asked"):
        write_report(tmp_path, wanted=Wanted(names=("c.wav",)))


def test_memory_does_not_grow_with_the_rows(tmp_path, folders):
    files = [
        (f"0.{file.name}", file.read_bytes())
        for file in sorted((folders / "dog 1").iterdir())
    ]

    def peak(n):
        def work(items):
            rows = [row_of("dog 1", "0") | {"id": f"{i}"} for i in items]
            return Chunk(rows, files)

        folder = tmp_path / f"job{n}"
        Job(folder, n, {}, chunk=500).run(work)
        tracemalloc.start()
        write_report(folder, wanted=Wanted(most=1))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(500)  # what is loaded once
    assert peak(20_000) < peak(1000) + 500_000


@pytest.mark.parametrize("words", [["report"], ["app", "--explained"]])
def test_the_command_on_a_file(tmp_path, capsys, words):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit):
        main([*words, str(file)])
    assert capsys.readouterr().err == (
        f"error: {file}: found a file, expected a folder of explanations\n"
    )


def test_the_command(folders, capsys):
    words = ["report", str(folders), "--clip", "cow 9", "--clip=dog 1"]
    words += ["--most", "1"]
    assert main(words) in (0, None)
    out, err = capsys.readouterr()
    assert "report.html" in out
    assert "left out: asked for, but too many" in err
    page = Page(folders / "report.html").data("index")
    assert [clip["id"] for clip in page["clips"]] == ["cow 9"]
    words = ["report", str(folders), "--class", "cow", "--wrong"]
    main([*words, "--verdict", "unf"])
    page = Page(folders / "report.html").data("index")
    assert [clip["id"] for clip in page["clips"]] == ["cow 10"]
    expected = "label or decision 'cow'; verdict unf; decided wrongly"
    assert page["asked"] == expected
