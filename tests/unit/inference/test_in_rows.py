"""Tests of `lmac explain --write rows` and `--write shards`."""

import csv
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import webdataset
from console import run

from lmac_sb.inference.clip_folder import read_clip
from lmac_sb.inference.packed import unpack
from lmac_sb.jobs.job import Job
from lmac_sb.jobs.shards import Shard, write_shard

RATE = 16000


@pytest.fixture
def corpus(tmp_path):
    """Six sounds of half a second in two classes; one cannot be read."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for i in range(3):
            wav = rng.standard_normal(RATE // 2) / 8
            sf.write(tmp_path / "in" / label / f"{i}.wav", wav, RATE)
    (tmp_path / "in" / "dog" / "1.wav").write_text("no sound")
    return tmp_path / "in"


@pytest.fixture
def explain(model, tmp_path, capsys):
    """Run `lmac explain`; returns exit code, standard output and error."""

    def explain(*words, out="out"):
        more = ("--model", model, "--out", tmp_path / out)
        code = run("explain", *words, *more)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return explain


def contents(folder):
    """Bytes of each file of a job."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def test_rows(explain, corpus, tmp_path):
    """One for each sound, with all that is known of it."""
    code, out, err = explain(corpus, "--write", "rows")
    assert code == 0
    assert err.startswith("warning: 1 of 6 files failed")
    names = [f"{label}/{i}.wav" for label in ("cat", "dog") for i in range(3)]
    lines = [x for x in out.splitlines() if not x.startswith("  note")]
    assert [x.split(":")[0] for x in lines[:5]] == names[:4] + names[5:]
    assert "->" not in out and "next" not in out
    assert lines[-2] == "1 of 6 files failed:"
    assert lines[-1].startswith("  dog/1.wav: cannot be read as audio")
    frame = Job.open(tmp_path / "out").frame()
    assert frame["id"].tolist() == names
    assert frame["label"].tolist() == ["cat"] * 3 + ["dog"] * 3
    assert frame["error"].isna().tolist() == [True] * 4 + [False, True]
    good = frame[frame["error"].isna()]
    assert (good["p"] >= good["p_in"] * 0).all()
    assert {"AI", "AD", "FF", "area", "verdict"} <= set(frame.columns)
    assert (good["class"] == good["decision"]).all()
    assert not (tmp_path / "out" / "clips").exists()
    assert len(pq.read_table(tmp_path / "out" / "rows")) == 6


def test_rows_say_what_folders_say(explain, corpus, tmp_path):
    explain(corpus, "--write", "rows", "--threshold", "0.5")
    explain(corpus, "--threshold", "0.5", out="folders")
    frame = Job.open(tmp_path / "out").frame()
    for _, row in frame[frame["error"].isna()].iterrows():
        name = row["id"].replace("/", "_").removesuffix(".wav")
        path = tmp_path / "folders" / name / "explanation.json"
        info = json.loads(path.read_text("utf-8"))
        assert info["label"] == row["label"]
        assert info["decision"] == row["class"]
        number = info["classes"].index(row["class"])
        for name in ("p", "p_in", "p_out"):
            assert info[name][number] == row[name]
        for name, value in info["metrics"].items():
            assert row[name] == value or value is None
        for name in ("verdict", "n_samples", "threshold", "refine_steps"):
            assert info[name] == row[name]


def test_shards(explain, corpus, tmp_path):
    """Each sample is a clip's folder in another form."""
    code, out, _ = explain(corpus, "--write", "shards", "--refine", "1")
    assert code == 0
    assert "next: lmac report" in out
    job = Job.open(tmp_path / "out")
    frame = job.frame()
    assert frame["shard"].isna().tolist() == [False] * 4 + [True, False]
    for _, row in frame[frame["error"].isna()].iterrows():
        path = tmp_path / "out" / "clips" / row["shard"]
        folder = tmp_path / "clips" / row["sample"]
        unpack(Shard(path), row["sample"], folder)
        clip = read_clip(folder)
        assert clip.info["id"] == row["id"]
        assert clip.info["label"] == row["label"]
        assert clip.info["refine_steps"] == 1
        assert read_clip(folder / "unrefined").info["refine_steps"] == 0
        assert len(clip.sounds["original"]) == RATE // 2
        assert f"{path}: {row['sample']}" in out
    shards = sorted(map(str, tmp_path.glob("out/clips/*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == 5
    assert {"original.wav", "unrefined.maps.npz"} <= set(samples[0])
    assert list(tmp_path.glob("out/*/.*")) == []


def test_the_same_bytes_wherever_it_is_done(
    explain, model, corpus, tmp_path, monkeypatch
):
    """On another day and machine, and from another folder."""
    explain(corpus, "--write", "shards")
    before = contents(tmp_path / "out")
    elsewhere = tmp_path / "elsewhere"
    shutil.move(corpus, elsewhere)
    monkeypatch.setattr("socket.gethostname", lambda: "telling_host")
    monkeypatch.setenv("USER", "telling_user")
    for path in elsewhere.rglob("*.wav"):
        os.utime(path, (1, 1))
    import datetime

    class Later(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2040, 1, 2, tzinfo=zone)

    monkeypatch.setattr(datetime, "datetime", Later)
    explain(elsewhere, "--write", "shards", out="again")
    again = contents(tmp_path / "again")
    assert again == before
    for content in again.values():
        assert b"2040" not in content and b"telling" not in content
        assert str(tmp_path).encode() not in content


def test_going_on(explain, corpus, tmp_path):
    """What is there stays; what is missing or damaged is made again."""
    explain(corpus, "--write", "shards")
    before = contents(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("out/*/*")}
    (tmp_path / "out" / "rows" / "part-00002.parquet").unlink()
    os.truncate(tmp_path / "out" / "clips" / "part-00003.tar", 600)
    code, out, _ = explain(corpus, "--write", "shards", "--json")
    assert code == 0
    assert len(json.loads(out)["results"]) == 5
    assert contents(tmp_path / "out") == before
    changed = [p for p, t in times.items() if p.stat().st_mtime_ns != t]
    assert {p.stem for p in changed} == {"part-00002", "part-00003"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write", "rows", "--threshold", "0.5"], "options.threshold: there"),
        (["--write", "rows", "--target", "dog"], "options.target: there None"),
        (["--write", "shards"], "write: there 'rows', here 'shards'"),
    ],
)
def test_another_job_is_refused(explain, corpus, tmp_path, words, message):
    explain(corpus, "--write", "rows")
    before = contents(tmp_path / "out")
    code, out, err = explain(corpus, *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and message in err
    assert len(err.splitlines()) == 1
    assert contents(tmp_path / "out") == before


def test_another_corpus_is_refused(explain, corpus, tmp_path):
    """By what is in it, not by its name."""
    explain(corpus, "--write", "rows")
    sf.write(corpus / "cat" / "0.wav", np.zeros(RATE // 2), RATE)
    code, _, err = explain(corpus, "--write", "rows")
    assert code == 1 and "holds another job: sounds" in err


def test_files_that_are_named(explain, corpus, tmp_path):
    """Their ids tell nothing of the machine."""
    files = [corpus / "cat" / "0.wav", corpus / "dog" / "0.wav"]
    gone = corpus / "gone.wav"
    code, _, _ = explain(*files, gone, "--write", "rows")
    assert code == 0
    frame = Job.open(tmp_path / "out").frame()
    assert frame["id"].tolist() == ["cat/0.wav", "dog/0.wav", "gone.wav"]
    assert frame["error"].tolist()[2] == "gone.wav: no such audio file"


def test_a_pipe_is_read_once(explain, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    code, _, err = explain(tmp_path / "pipe.wav", "--write", "rows")
    assert code == 1 and "pipe.wav: is no regular file" in err


@pytest.mark.parametrize("write", ["folders", "rows"])
def test_what_is_no_file_does_not_stop_the_others(explain, corpus, write):
    """Nobody writes to a pipe that lies in a folder."""
    os.mkfifo(corpus / "cat" / "0b.wav")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(corpus / "cat" / "s.wav"))
        (corpus / "cat" / "null.wav").symlink_to(os.devnull)
        code, out, err = explain(corpus, "--write", write)
    assert code == 0 and "4 of 9 files failed" in err
    for name in ("0b", "s", "null"):
        assert f"{name}.wav: is a pipe or device, expected a file" in out + err


def test_a_pipe_among_named_files(explain, corpus, tmp_path):
    """As of tree/*.wav; one that the shell has made is read."""
    os.mkfifo(corpus / "cat" / "0b.wav")
    code, out, err = explain(*(corpus / "cat").iterdir())
    assert code == 0 and "1 of 4 files failed" in err
    assert "0b.wav: is a pipe or device, expected a file" in out + err
    read, write = os.pipe()
    with open(write, "wb") as pipe:
        pipe.write((corpus / "cat" / "0.wav").read_bytes())
    files = f"/dev/fd/{read}", corpus / "cat" / "1.wav"
    assert explain(*files, "--strict", out="two")[0] in (0, 3)


@pytest.mark.parametrize("write", ["folders", "shards"])
def test_shards_of_others_with_columns(explain, corpus, tmp_path, write):
    """Sounds within another file, and the user's own table."""
    good = sorted(corpus.glob("cat/*.wav"))
    files = []
    for i, path in enumerate(good):
        files += [
            (f"{i}.wav", path.read_bytes()),
            (f"{i}.json", json.dumps({"site": f"s{i}"}).encode()),
        ]
    write_shard(tmp_path / "a.tar", files)
    code, out, err = explain(tmp_path / "a.tar", "--write", write)
    assert code == 0, err
    if write == "folders":
        made = sorted(p.name for p in (tmp_path / "out").iterdir())
        assert len(made) == 3
        for name in made:
            read_clip(tmp_path / "out" / name)
        _, out, _ = explain(tmp_path / "a.tar", "--write", write)
        assert out.count("kept from an earlier call") == 3
    else:
        frame = Job.open(tmp_path / "out").frame()
        assert frame["id"].nunique() == 3 and frame["error"].isna().all()
        assert frame["column:site"].tolist() == ["s0", "s1", "s2"]


def test_a_table_of_sounds(explain, corpus, tmp_path):
    """With labels, other columns, and a value that is missing."""
    table = tmp_path / "in" / "table.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "site"])
        writer.writerow(["cat/0.wav", "cat", "Köln"])
        writer.writerow(["cat/1.wav", "dog", ""])
    code, _, err = explain(table, "--write", "rows")
    assert code == 0, err
    frame = Job.open(tmp_path / "out").frame()
    assert frame["label"].tolist() == ["cat", "dog"]
    assert frame["column:site"].tolist()[0] == "Köln"
    assert frame["column:site"].isna().tolist() == [False, True]


@pytest.mark.parametrize("write", ["rows", "shards"])
def test_several_classes(explain, corpus, tmp_path, write):
    """A row and a sample for each."""
    file = corpus / "cat" / "0.wav"
    more = ("--targets", "all", "--min-p", "0.01", "--write", write)
    code, out, _ = explain(file, *more)
    assert code == 0
    frame = Job.open(tmp_path / "out").frame()
    assert frame["id"].tolist() == ["0.wav"] * 3
    assert sorted(frame["class"]) == ["cat", "cow", "dog"]
    assert frame["decision"].nunique() == 1
    assert out.count("0.wav: ") >= 3
    if write == "shards":
        assert frame["sample"].tolist() == [f"00000000_{i}" for i in range(3)]
        shard = Shard(tmp_path / "out" / "clips" / frame["shard"][0])
        assert shard.keys == frame["sample"].tolist()


def test_all_failed(explain, tmp_path):
    (tmp_path / "a.wav").write_text("no sound")
    code, out, _ = explain(tmp_path / "a.wav", "--write", "shards")
    assert code == 1 and "1 of 1 files failed" in out
    assert Job.open(tmp_path / "out").frame()["id"].tolist() == ["a.wav"]


@pytest.mark.parametrize("write", ["rows", "shards"])
def test_a_full_disk(explain, corpus, tmp_path, monkeypatch, write):
    """One line; then the same command goes on."""
    from lmac_sb.jobs import job, shards

    def full(*arguments):
        raise OSError(28, "No space left on device", "somewhere")

    module, name = {
        "rows": (job, "write_table"),
        "shards": (shards.tarfile.TarFile, "addfile"),
    }[write]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        code, _, err = explain(corpus, "--write", write)
    assert code == 1 and "Traceback" not in err
    assert len(err.splitlines()) == 1
    assert "No space left" in err and "free some space" in err
    assert list(tmp_path.glob("out/rows/*")) == []
    assert list(tmp_path.glob("out/clips/*")) == []
    assert explain(corpus, "--write", write)[0] == 0


def test_no_clip_makes_the_folder_be_listed(
    explain, corpus, tmp_path, monkeypatch
):
    """So that the time of a clip does not grow with their number."""
    listdir, listed = os.listdir, []

    def counted(path="."):
        listed.append(Path(path))
        return listdir(path)

    def walked(path):
        listed.append(path)
        return iter([path / name for name in listdir(path)])

    monkeypatch.setattr(os, "listdir", counted)
    monkeypatch.setattr(Path, "iterdir", walked)
    for i in range(30):
        shutil.copy(corpus / "cat" / "0.wav", tmp_path / f"{i}.wav")
    counts = []
    for n_files in (3, 30):
        listed.clear()
        out = f"out{n_files}"
        explain(*(tmp_path / f"{i}.wav" for i in range(n_files)), out=out)
        counts.append(listed.count(tmp_path / out))
    assert counts[0] == counts[1] <= 4
