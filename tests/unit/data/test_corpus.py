"""Any corpus as a sequence of clips: folders, tables, manifests."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.dataset import make_dataset  # noqa: F401
from lmac_sb.data.folders import EXPLANATION
from lmac_sb.data.manifest import to_lines
from lmac_sb.inference.clip_folder import FACTS
from lmac_sb.utils.errors import LMACError


def write(path, seed=0, n_samples=4000):
    """A sound file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)
    sf.write(path, wav, 8000)
    return path


def fill(folder, *names):
    for i, name in enumerate(names):
        write(folder / name, i)
    return folder


def ids(corpus):
    return [clip.id for clip in corpus]


def labels(corpus):
    return [clip.label for clip in corpus]


def test_class_folders(tmp_path):
    fill(tmp_path, "dog/b.wav", "cat/x/c.flac", "dog/a.wav")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["cat/x/c.flac", "dog/a.wav", "dog/b.wav"]
    assert labels(corpus) == ["cat", "dog", "dog"]
    assert corpus.classes == ["cat", "dog"] and corpus.columns == []
    assert corpus.name == tmp_path.name and corpus.notes == []
    wanted = sf.read(tmp_path / "dog" / "a.wav", dtype="float32")[0]
    assert torch.equal(corpus[1].read(8000), torch.from_numpy(wanted))
    assert corpus[-1] == corpus[2] and corpus[1:] == [corpus[1], corpus[2]]
    with pytest.raises(IndexError):
        corpus[3]


@pytest.mark.parametrize(
    "names, wanted, columns",
    [
        (["a.wav", "b.wav"], [None, None], []),
        (["audio/a.wav"], [None], []),
        (["audio/dog/a.wav", "audio/cat/a.wav"], ["cat", "dog"], []),
        (["dog/a.wav"], ["dog"], []),
        (["a.wav", "dog/a.wav"], [None, "dog"], []),
        (["train/dog/a.wav", "test/cat/a.wav"], ["cat", "dog"], ["split"]),
        (["train/a.wav", "val/a.wav"], [None, None], ["split"]),
        (["audio/fold1/a.wav", "audio/fold2/a.wav"], [None, None], ["fold"]),
    ],
)
def test_what_folders_stand_for(tmp_path, names, wanted, columns):
    corpus = open_corpus(fill(tmp_path, *names))
    assert labels(corpus) == wanted and corpus.columns == columns
    parts = {part for name in names for part in name.split("/")}
    for clip in corpus:
        for value in clip.columns.values():
            assert value in parts or f"fold{value}" in parts


def test_layout_of_esc50(tmp_path):
    """The table in meta/ tells labels and columns."""
    fill(tmp_path, "audio/1-a.wav", "audio/2-b.wav", "stems/1-a.wav")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category\n2-b.wav,2,7,dog\n1-a.wav,1,5,cat\n"
    )
    for where in (tmp_path, tmp_path / "meta" / "esc50.csv"):
        corpus = open_corpus(where)
        assert labels(corpus) == ["cat", "dog"]
        assert corpus.columns == ["fold", "target"] and corpus.notes == []
        assert corpus[1].columns == {"fold": "2", "target": "7"}
        assert corpus[1].place == str(tmp_path / "audio" / "2-b.wav")
    corpus = open_corpus(tmp_path)
    assert ids(corpus)[0] == "audio/1-a.wav"
    assert corpus.stem(0) == str(tmp_path / "stems" / "1-a.wav")
    assert corpus.stem(1) is None
    assert labels(open_corpus(tmp_path, label_column="target")) == ["5", "7"]


def test_audiofolder(tmp_path):
    """A table for each split, with paths as seen from it."""
    fill(tmp_path, "train/a.wav", "train/b.wav", "test/a.wav")
    for split, rows in ("train", ["a.wav", "b.wav"]), ("test", ["a.wav"]):
        (tmp_path / split / "metadata.jsonl").write_text(
            "".join(
                json.dumps({"file_name": row, "label": split, "n": 1}) + "\n"
                for row in rows
            )
        )
    corpus = open_corpus(tmp_path)
    assert labels(corpus) == ["test", "train", "train"]
    assert corpus.columns == ["split", "n"] and corpus.notes == []


def test_systems_own_files_are_none(tmp_path):
    fill(tmp_path, "dog/a.wav", "dog/._a.wav", ".cache/b.wav", "__MACOSX/c.wav")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "dog" / "notes.txt").write_text("x")
    assert ids(open_corpus(tmp_path)) == ["dog/a.wav"]


def test_unreadable_clips_are_there(tmp_path):
    """Each is a clip that fails and names its place."""
    fill(tmp_path, "good.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    cut = write(tmp_path / "cut.wav")
    cut.write_bytes(cut.read_bytes()[:1000])
    os.mkfifo(tmp_path / "pipe.wav")
    corpus = open_corpus(tmp_path)
    assert len(corpus) == 7 and len(corpus.identity["sounds"]) == 64
    for clip in corpus:
        if clip.id == "good.wav":
            assert len(clip.read(16000)) == 8000
            continue
        with pytest.raises(LMACError, match=clip.id):
            clip.read(16000)


@pytest.mark.parametrize("name", ["x.csv", "metadata.jsonl", "a.tar"])
def test_pipes_beside_sounds_are_not_waited_for(name, tmp_path):
    fill(tmp_path, "dog/a.wav")
    os.mkfifo(tmp_path / name)
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["dog/a.wav"] and name in str(corpus.notes)


def test_a_pipe_among_shards_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(LMACError, match="a.tar: is a pipe or device, expect"):
        open_corpus(tmp_path)


def test_links(tmp_path):
    """Those to files and folders are followed, a loop ends."""
    fill(tmp_path / "else", "x.wav", "dog/y.wav")
    fill(tmp_path / "in", "cat/a.wav")
    (tmp_path / "in" / "cat" / "b.wav").symlink_to(tmp_path / "else" / "x.wav")
    (tmp_path / "in" / "dog").symlink_to(tmp_path / "else" / "dog")
    (tmp_path / "in" / "cat" / "up").symlink_to(tmp_path / "in")
    corpus = open_corpus(tmp_path / "in")
    assert ids(corpus) == ["cat/a.wav", "cat/b.wav", "dog/y.wav"]
    assert all(len(clip.read(8000)) == 4000 for clip in corpus)


def test_folder_that_cannot_be_read(shared, caplog):
    """Its sounds are missing, and that is said."""
    fill(shared.folder, "dog/a.wav", "cat/a.wav")
    (shared.folder / "dog").chmod(0)
    with shared.without_rights():
        corpus = open_corpus(shared.folder)
        assert ids(corpus) == ["cat/a.wav"]
        assert caplog.messages == corpus.lost
        assert len(corpus.lost) == 1
        assert "dog: cannot be read" in corpus.lost[0]
        assert "its sounds are missing" in corpus.lost[0]
        with pytest.raises(LMACError, match="dog: cannot be read"):
            open_corpus(shared.folder / "dog")
    (shared.folder / "dog").chmod(0o700)


def test_folder_of_which_nothing_can_be_read(shared):
    fill(shared.folder, "dog/a.wav")
    (shared.folder / "dog").chmod(0)
    with shared.without_rights():
        with pytest.raises(LMACError, match="dog: cannot be read"):
            open_corpus(shared.folder)
    (shared.folder / "dog").chmod(0o700)


def test_names_in_any_form(tmp_path):
    """Ids are in one form; a table finds files in either."""
    composed = unicodedata.normalize("NFC", "café.wav")
    split = unicodedata.normalize("NFD", "café.wav")
    fill(tmp_path, split)
    bad = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    shutil.copy(tmp_path / split, bad)
    (tmp_path / "x.csv").write_text(f"file,label\n{composed},dog\n")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["caf\\xe9.wav", composed]
    assert labels(corpus) == [None, "dog"]
    assert [len(clip.read(8000)) for clip in corpus] == [4000, 4000]
    json.dumps([clip.id for clip in corpus]).encode()
    # Both forms in one folder are two clips.
    shutil.copy(tmp_path / split, tmp_path / composed)
    assert ids(open_corpus(tmp_path))[1:] == [composed, f"{composed}#2"]


ROWS = "file,label,site,höhe\na.wav,dog,north,1\nb.wav,cat,NA,\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_any_kind(tmp_path, encoding, separator, end):
    fill(tmp_path, "a.wav", "b.wav")
    text = ROWS.replace(",", separator).replace("\n", end)
    (tmp_path / "x.csv").write_bytes(text.encode(encoding))
    corpus = open_corpus(tmp_path / "x.csv")
    assert labels(corpus) == ["dog", "cat"]
    assert corpus.columns == ["site", "höhe"]
    assert corpus[0].columns == {"site": "north", "höhe": "1"}
    assert corpus[1].columns == {"site": None, "höhe": None}


def test_table_with_odd_rows(tmp_path):
    """Blank lines, quoted breaks, short rows, empty columns, no file."""
    fill(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "x.csv").write_text(
        'name,note,,more,\n\na,"two\nlines; ""x""",,1,\n\nb,,7\n'
        ",none,,,\nc.wav,,,,\n"
    )
    corpus = open_corpus(tmp_path / "x.csv")
    assert corpus.columns == ["note", "column 3", "more"]
    rows = {clip.id: clip for clip in corpus}
    assert rows["a"].columns["note"] == 'two\nlines; "x"'
    assert rows["b"].columns == {"note": None, "column 3": "7", "more": None}
    assert len(rows["c.wav"].read(8000)) == 4000
    with pytest.raises(LMACError, match="x.csv, line 7: names no file"):
        rows["line 7"].read(8000)
    assert ["1 rows have fewer" in note for note in corpus.notes] == [True]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ('""\n', "is empty"),
        ("a,b\n1,2\n", "no column names files that are there; found a, b"),
        ("file,label\na.wav,dog,x\n", "line 2: expected 2 fields"),
        ("file,x,x\na.wav,1,2\n", "has the column 'x' twice"),
        ('file,x\na.wav,"no end\n', "is no csv table"),
        ("file,label\n", "has no rows, expected one for each clip below"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    fill(tmp_path, "a.wav")
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(LMACError, match=message):
        open_corpus(tmp_path / "x.csv")
    # The same beside a folder is only said.
    assert len(open_corpus(tmp_path)) == 1


def test_table_without_header(tmp_path):
    fill(tmp_path, "a.wav", "b.wav")
    (tmp_path / "x.csv").write_text("a.wav,dog\nb.wav,cat\n")
    corpus = open_corpus(tmp_path / "x.csv", label_column="column 2")
    assert labels(corpus) == ["dog", "cat"]
    assert "has no header" in corpus.notes[0]


def test_files_that_are_not_there(tmp_path):
    """Rows count whether or not there is a file; one twice is two clips."""
    fill(tmp_path, "a.wav")
    (tmp_path / "x.csv").write_text("file,label\na.wav,1\nz.wav,2\na.wav,3\n")
    corpus = open_corpus(tmp_path / "x.csv")
    assert ids(corpus) == ["a.wav", "a.wav#2", "z.wav"]
    assert labels(corpus) == ["1", "3", "2"]
    with pytest.raises(LMACError, match="z.wav: no such audio file"):
        corpus[2].read(8000)


def test_paths_from_anywhere(tmp_path):
    """Absolute ones give ids without the places of this machine."""
    fill(tmp_path, "far/dog/a.wav", "far/cat/b.wav")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "x.csv").write_text(
        f"path\n{tmp_path}/far/dog/a.wav\n{tmp_path}/far/cat/b.wav\n"
    )
    assert ids(open_corpus(tmp_path / "t" / "x.csv")) == [
        "cat/b.wav",
        "dog/a.wav",
    ]
    (tmp_path / "t" / "x.csv").write_text(
        "path\n../far/dog/a.wav\n..\\far\\cat\\b\n"
    )
    corpus = open_corpus(tmp_path / "t" / "x.csv")
    assert ids(corpus) == ["far/cat/b", "far/dog/a.wav"]
    assert all(len(clip.read(8000)) == 4000 for clip in corpus)


def test_table_beside_a_folder(tmp_path, caplog):
    """By path, name or name without ending, in other case, too."""
    fill(tmp_path / "c", "dog/a.wav", "cat/b.wav", "cat/C.wav", "cat/d.wav")
    table = tmp_path / "mine.tsv"
    table.write_text(
        "site\trecording\nnorth\tdog/a.wav\nsouth\tb\nNA\tc.WAV\neast\tz\n"
    )
    with caplog.at_level(logging.WARNING):
        corpus = open_corpus(tmp_path / "c", table=table)
    found = {clip.id: clip.columns["site"] for clip in corpus}
    assert found == {
        **{"dog/a.wav": "north", "cat/b.wav": "south"},
        **{"cat/C.wav": None, "cat/d.wav": None},
    }
    assert labels(corpus) == ["cat", "cat", "cat", "dog"]
    assert "1 of 4 rows name no clip, or several, such as that in line 5" in (
        caplog.text
    )
    assert "1 of 4 clips have no row" in caplog.text
    table.write_text("site\nnorth\n")
    with pytest.raises(
        LMACError, match="no column names the clips; found site"
    ):
        open_corpus(tmp_path / "c", table=table)
    with pytest.raises(LMACError, match="has no column 'x', found site"):
        open_corpus(tmp_path / "c", table=table, file_column="x")


def test_labels_of_the_users_table(tmp_path):
    """They come before those of folders; a row may lack one."""
    fill(tmp_path / "c", "x/a.wav", "y/b.wav")
    table = tmp_path / "mine.csv"
    table.write_text("file,class,fold\na.wav,dog,1\nb.wav,,2\n")
    corpus = open_corpus(tmp_path / "c", table=table)
    assert labels(corpus) == ["dog", None] and corpus.columns == ["fold"]
    assert corpus.classes == ["dog"]


def test_manifest(tmp_path):
    fill(tmp_path, "a.wav", "b.wav")
    entries = {
        "two": {"wav": str(tmp_path / "b.wav"), "class_string": "dog"},
        "one": {"wav": "a.wav", "class_string": "cat+dog", "fold": 3},
    }
    (tmp_path / "train.jsonl").write_text(to_lines(entries))
    corpus = open_corpus(tmp_path / "train.jsonl")
    assert ids(corpus) == ["one", "two"]
    assert labels(corpus) == ["cat+dog", "dog"]
    assert [clip.columns for clip in corpus] == [{"fold": "3"}, {"fold": None}]
    assert all(len(clip.read(8000)) == 4000 for clip in corpus)


def test_table_of_json_lines(tmp_path):
    fill(tmp_path, "a.wav")
    (tmp_path / "x.jsonl").write_text(
        '{"audio_filepath": "a.wav", "label": 3, "gps": [1, 2], "d": null}\n\n'
    )
    (clip,) = open_corpus(tmp_path / "x.jsonl")
    assert clip.label == "3" and clip.columns == {"gps": "[1, 2]", "d": None}
    (tmp_path / "x.jsonl").write_text("{}\n[1]\n")
    with pytest.raises(LMACError, match="line 2: found"):
        open_corpus(tmp_path / "x.jsonl")


def test_identity(tmp_path, monkeypatch):
    """Of the content wherever it is; each kind of change changes its part."""
    one = fill(tmp_path / "one", "dog/a.wav", "cat/b.wav")
    two = tmp_path / "two" / "deep"
    shutil.copytree(one, two)
    for file in two.rglob("*.wav"):
        os.utime(file, (1, 1))
    first = open_corpus(one).identity
    assert first == open_corpus(two).identity and json.dumps(first)

    def changed(**more):
        now = open_corpus(two, **more).identity
        return {key for key in now if now[key] != first[key]}

    write(two / "dog" / "a.wav", seed=9)
    assert changed() == {"sounds"}
    shutil.copy(one / "dog" / "a.wav", two / "dog" / "a.wav")
    (tmp_path / "x.csv").write_text("file,site\na.wav,north\nb.wav,south\n")
    assert changed(table=tmp_path / "x.csv") == {"columns"}
    (two / "dog").rename(two / "hen")
    assert changed() == {"ids", "labels", "columns", "sounds"} - {"x"}
    # Two names of one content are two clips.
    fill(tmp_path / "three", "a.wav")
    shutil.copy(tmp_path / "three" / "a.wav", tmp_path / "three" / "b.wav")
    assert open_corpus(tmp_path / "three").identity["n_clips"] == 2


def test_identity_of_large_corpora_reads_a_share(tmp_path, monkeypatch):
    """Blocks that are spread over each clip, and its size."""
    monkeypatch.setattr("lmac_sb.data.fingerprint._MOST", 1 << 15)
    path = write(tmp_path / "a.wav", n_samples=50000)
    first = open_corpus(tmp_path).identity["sounds"]
    write(tmp_path / "a.wav", seed=1, n_samples=50000)
    assert open_corpus(tmp_path).identity["sounds"] != first
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    second = open_corpus(tmp_path).identity["sounds"]
    path.write_bytes(content + b"xy")
    assert open_corpus(tmp_path).identity["sounds"] != second


def test_other_processes(tmp_path):
    fill(tmp_path, "dog/a.wav", "cat/b.wav")
    (tmp_path / "x.csv").write_text("file,site\na.wav,1\nb.wav,2\n")
    corpus = open_corpus(tmp_path)
    again = pickle.loads(pickle.dumps(corpus))
    assert list(again) == list(corpus)


def test_table_that_changes_meanwhile(tmp_path):
    fill(tmp_path, "a.wav")
    (tmp_path / "x.csv").write_text("file,site\na.wav,1\n")
    corpus = open_corpus(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("file,site\na.wav,1\nb.wav,2\n")
    with pytest.raises(LMACError, match="was changed while it was in use"):
        corpus[0]


@pytest.mark.parametrize(
    "where, message",
    [
        ("nowhere", "no such file or folder"),
        ("nowhere.wav", "no such file or folder"),
        (".", "holds no sounds"),
    ],
)
def test_no_corpus(tmp_path, where, message):
    with pytest.raises(LMACError, match=message):
        open_corpus(tmp_path / where)


@pytest.mark.parametrize("name", ["t.csv", "t.json", "a.wav"])
def test_a_file_that_is_missing_beside_tables_is_no_split(tmp_path, name):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.parquet").touch()
    (tmp_path / "a.parquet").touch()
    with pytest.raises(LMACError, match=f"{name}: no such file or folder"):
        open_corpus(tmp_path / name)


MEASURE = """
import resource, sys, time
from lmac_sb.data.corpus import open_corpus
def used():
    with open("/proc/self/status") as file:
        found = dict(line.split(":", 1) for line in file)
    return int(found["VmRSS"].split()[0]) * 1024
open_corpus(sys.argv[2])
before = used()
corpus = open_corpus(sys.argv[1])
import gc; gc.collect()
print(len(corpus), (used() - before) / len(corpus), corpus[-1].columns)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_memory_of_long_tables(tmp_path):
    """Some hundred bytes a row at most, names included."""
    fill(tmp_path, "a.wav")
    n_rows = 50_000
    for name, n in (("long.csv", n_rows), ("short.csv", 1)):
        with open(tmp_path / name, "w") as file:
            file.write("file,label,site,note\n")
            for i in range(n):
                name = f"b{i}" if i else "a"
                file.write(f"{name}.wav,dog,s{i % 7},this is number {i}\n")
    out = subprocess.run(
        [
            *(sys.executable, "-c", MEASURE),
            *(str(tmp_path / "long.csv"), str(tmp_path / "short.csv")),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    n_found, each = out.split()[:2]
    assert int(n_found) == n_rows and float(each) < 250, out


def test_labels_in_one_form(tmp_path):
    """A folder of a Mac is the same class as that of others."""
    split = unicodedata.normalize("NFD", "café")
    fill(tmp_path, f"{split}/a.wav", "café/b.wav", "x/c.wav")
    assert open_corpus(tmp_path).classes == ["café", "x"]


def test_links_to_themselves(tmp_path):
    fill(tmp_path, "a.wav")
    (tmp_path / "b.wav").symlink_to("b.wav")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["a.wav", "b.wav"]
    with pytest.raises(LMACError, match="b.wav"):
        corpus[1].read(8000)


def test_explanations_within_are_left_out(tmp_path):
    """Else the next run would explain what the last one has written."""
    fill(tmp_path, "dog/a.wav", "cat/b.wav", "out/dog_a/interpretation.wav")
    assert EXPLANATION == FACTS
    facts = tmp_path / "out" / "dog_a" / FACTS
    facts.write_text("{}")
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["cat/b.wav", "dog/a.wav"]
    assert any(
        "those of 1 sounds, such as out/dog_a" in x for x in corpus.notes
    )
    # Who names the folder itself means it.
    assert ids(open_corpus(facts.parent)) == ["interpretation.wav"]
    with pytest.raises(LMACError, match="holds no sounds; .* left out"):
        open_corpus(tmp_path / "out")


@pytest.mark.parametrize("kind", ["wave", "bwf", "oga", "aifc", "mpga"])
def test_endings_that_few_use(tmp_path, kind):
    fill(tmp_path, "a.wav")
    (tmp_path / "a.wav").rename(tmp_path / f"a.{kind}")
    assert ids(open_corpus(tmp_path)) == [f"a.{kind}"]


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "aiff", "rf64"])
def test_a_sound_without_an_ending(tmp_path, kind):
    """Its bytes tell; a text is none."""
    path = write(tmp_path / f"a.{kind}")
    path.rename(tmp_path / "a")
    (tmp_path / "README").write_text("RIFF of the summer")
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["a"] and len(corpus[0].read(8000)) > 0


def test_films_are_listed_with_what_to_do(tmp_path):
    fill(tmp_path, "a.wav")
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    corpus = open_corpus(tmp_path)
    assert ids(corpus) == ["a.wav", "b.mp4"]
    with pytest.raises(LMACError, match="b.mp4: .*convert it to WAV"):
        corpus[1].read(8000)


@pytest.mark.parametrize(
    ("pair", "n_rows", "said"),
    [
        ("start,end", 1, True),
        ("Start_Time,End_Time", 1, True),
        ("begin,stop", 2, True),
        ("start,duration", 1, True),
        ("onset,offset", 2, True),
        ("onset,offset", 1, False),  # of the event in it, which audits use
        ("start,note", 2, False),
    ],
)
def test_rows_of_segments(pair, n_rows, said, tmp_path, caplog):
    """Each row is read as a whole file, which nobody expects."""
    fill(tmp_path, "a.wav", "b.wav")
    rows = [f"{x}.wav,{i},{i + 1},dog" for x in "ab" for i in range(n_rows)]
    rows = "\n".join([f"file,{pair},label", *rows])
    (tmp_path / "x.csv").write_text(rows)
    corpus = open_corpus(tmp_path / "x.csv")
    start, end = pair.split(",")
    note = (
        f"x.csv: the columns {start}, {end} are not taken as times: each row "
        "stands for its whole file; cut the files into these parts first"
    )
    assert (note in corpus.notes) == (note in caplog.text) == said
    assert len(corpus) == 2 * n_rows
    if n_rows == 1:  # beside the sounds, or joined
        joined = open_corpus(tmp_path, table=tmp_path / "x.csv")
        assert any("not taken as times" in x for x in joined.notes) == said
