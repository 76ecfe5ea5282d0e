"""Data folders as other people have them: each is read, or refused in a line.

Each case changes a good folder of two clips (dog, rain) in each of five folds.
"""

import csv
import errno
import json
import logging
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.manifest import read_entries
from lmac_sb.utils.errors import LMACError

RECIPE = Path(__file__).resolve().parents[3] / "recipes/ESC50/interpret"
sys.path.insert(0, str(RECIPE))

import esc50_prepare  # noqa: E402
from esc50_prepare import Needs, prepare_esc50  # noqa: E402

RATE = 8000
HEADER = ["filename", "fold", "target", "category"]
WAV = np.random.default_rng(0).uniform(-0.5, 0.5, RATE // 5)


class Folder:
    """A data folder, and what a case changes of it."""

    def __init__(self, path):
        self.path = path
        (path / "audio").mkdir(parents=True)
        (path / "meta").mkdir()
        self.header, self.rows = list(HEADER), []
        for fold in range(1, 6):
            for target, category in enumerate(("dog", "rain")):
                name = f"{fold}-{category}.wav"
                sf.write(self.audio(name), WAV, RATE)
                self.rows.append([name, fold, target, category])
        self.write()

    def audio(self, name):
        """Path of a clip."""
        return self.path / "audio" / name

    def write(self, encoding="utf-8", start=b"", **dialect):
        """Write the table."""
        part = self.path / "part"
        dialect = {"lineterminator": "\n", **dialect}
        with open(part, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, **dialect).writerows([self.header, *self.rows])
        self.text(part.read_text("utf-8").encode(encoding), start)
        part.unlink()

    def text(self, content, start=b""):
        """Write the table as it is."""
        (self.path / "meta" / "esc50.csv").write_bytes(start + content)

    def edit(self, old, new):
        """Change the text of the table."""
        table = self.path / "meta" / "esc50.csv"
        table.write_bytes(table.read_bytes().replace(old, new))

    def rename(self, name, on_disk=None):
        """Give the clip 5-dog another name in the table, and on the disk."""
        place = on_disk if on_disk is not None else name
        if isinstance(place, bytes):
            place = os.fsdecode(place)
        os.rename(self.audio("5-dog.wav"), self.audio(place))
        self.rows[-2][0] = name
        return self

    def label(self, name):
        """Give all dogs another category."""
        for row in self.rows[::2]:
            row[3] = name
        return self

    def add(self, *row):
        """One more row."""
        self.rows.append(list(row))
        return self


def spoil(name, write):
    """A case that writes something else to a clip."""

    def change(folder):
        folder.audio(name).unlink()
        write(folder.audio(name))

    return change


NFC, NFD = "caf\u00e9.wav", "cafe\u0301.wav"
PLAIN = {"5-dog", "5-rain"}

# Name: what is changed, and the clips of the test fold.
GOOD = {
    "as it is": (lambda f: f, PLAIN),
    "utf-8 with a mark": (lambda f: f.write(start=b"\xef\xbb\xbf"), PLAIN),
    "utf-16": (lambda f: f.write("utf-16"), PLAIN),
    "utf-16 the other way": (
        lambda f: f.write("utf-16-be", b"\xfe\xff"),
        PLAIN,
    ),
    "utf-16 without a mark": (lambda f: f.write("utf-16-le"), PLAIN),
    "utf-16-be without a mark": (lambda f: f.write("utf-16-be"), PLAIN),
    "latin-1 category": (
        lambda f: f.label("K\u00e4fer").write("latin-1"),
        PLAIN,
    ),
    "latin-1 name": (
        lambda f: f.rename(NFC).write("latin-1"),
        {"caf\u00e9", "5-rain"},
    ),
    "latin-1 name and disk": (
        lambda f: f.rename(NFC, NFC.encode("latin-1")).write("latin-1"),
        {"caf\u00e9", "5-rain"},
    ),
    "latin-1 disk alone": (
        lambda f: f.rename(NFC, NFC.encode("latin-1")).write(),
        {"caf\u00e9", "5-rain"},
    ),
    "semicolons": (lambda f: f.write(delimiter=";"), PLAIN),
    "tabs": (lambda f: f.write(delimiter="\t"), PLAIN),
    "quoted": (lambda f: f.write(quoting=csv.QUOTE_ALL), PLAIN),
    "quoted semicolons": (
        lambda f: f.write(delimiter=";", quoting=csv.QUOTE_ALL),
        PLAIN,
    ),
    "semicolons in utf-16": (
        lambda f: f.write("utf-16", delimiter=";"),
        PLAIN,
    ),
    "lines of Windows": (lambda f: f.write(lineterminator="\r\n"), PLAIN),
    "lines of an old Mac": (lambda f: f.write(lineterminator="\r"), PLAIN),
    "blank lines": (lambda f: f.edit(b"\n", b"\n\n"), PLAIN),
    "lines of blanks": (lambda f: f.edit(b"\n", b"\n  \n"), PLAIN),
    "empty rows": (lambda f: f.edit(b"\n", b"\n,,,\n"), PLAIN),
    "blank first line": (lambda f: f.edit(b"filename", b"\nfilename"), PLAIN),
    "blanks around": (lambda f: f.edit(b",", b" , "), PLAIN),
    "no last line end": (lambda f: f.write(lineterminator="\n"), PLAIN),
    "more columns": (
        lambda f: f.text(
            b"a,filename,b,fold,target,category\n"
            + b"".join(
                f"x,{r[0]},y,{r[1]},{r[2]},{r[3]}\n".encode() for r in f.rows
            )
        ),
        PLAIN,
    ),
    "comma in a name": (
        lambda f: f.rename("a,b.wav").write(),
        {"a,b", "5-rain"},
    ),
    "decomposed on the disk": (
        lambda f: f.rename(NFC, NFD).write(),
        {"caf\u00e9", "5-rain"},
    ),
    "decomposed in the table": (
        lambda f: f.rename(NFD, NFC).write(),
        {"cafe\u0301", "5-rain"},
    ),
    "other case": (
        lambda f: f.rename("5-Dog.wav", "5-DOG.wav").write(),
        {"5-Dog", "5-rain"},
    ),
    "suffix in capitals": (
        lambda f: f.rename("5-dog.wav", "5-dog.WAV").write(),
        PLAIN,
    ),
    "blank on the disk": (
        lambda f: f.rename("5-dog.wav", " 5-dog.wav").write(),
        PLAIN,
    ),
    "emoji": (
        lambda f: f.rename("\U0001f415.wav").write(),
        {"\U0001f415", "5-rain"},
    ),
    "long name": (
        lambda f: f.rename(f"{'x' * 240}.wav").write(),
        {"x" * 240, "5-rain"},
    ),
    "name of a pattern": (
        lambda f: f.rename("[a]*?%s {x}.wav").write(),
        {"[a]*?%s {x}", "5-rain"},
    ),
    "dash first": (lambda f: f.rename("-n.wav").write(), {"-n", "5-rain"}),
    "two dots": (lambda f: f.rename("a.b.wav").write(), {"a.b", "5-rain"}),
    "exact before alike": (
        lambda f: (sf.write(f.audio("5-DOG.wav"), WAV, RATE), f.write()),
        PLAIN,
    ),
    "a link": (
        lambda f: (
            os.rename(f.audio("5-dog.wav"), f.path / "x.wav"),
            f.audio("5-dog.wav").symlink_to(f.path / "x.wav"),
        ),
        PLAIN,
    ),
    "eight channels": (
        spoil("5-dog.wav", lambda p: sf.write(p, np.stack([WAV] * 8, 1), RATE)),
        PLAIN,
    ),
    "blanks around a fold": (lambda f: f.edit(b",5,", b", 5 ,"), PLAIN),
    "fold of nobody": (lambda f: f.add("no.wav", 99, 0, "cow").write(), PLAIN),
}

# Name: what is changed, and the only line that is said.
REFUSED = {
    "cp1252 quote": (
        lambda f: f.label("bird\u2019s").write("cp1252"),
        "not a csv file in UTF-8 .line 2.*save it as UTF-8",
    ),
    "old Mac": (
        lambda f: f.label("caf\u00e9").write("mac-roman"),
        "save it as UTF-8",
    ),
    "Cyrillic": (
        lambda f: f.label("\u043a\u043e\u0442").write("cp1251"),
        "save it as UTF-8",
    ),
    "Japanese": (
        lambda f: f.label("\u72ac\u72ac").write("shift-jis"),
        "save it as UTF-8",
    ),
    "utf-32": (lambda f: f.write("utf-32"), "is not a csv file"),
    "a sound": (
        lambda f: f.text(f.audio("5-dog.wav").read_bytes()),
        "is not a csv file",
    ),
    "nothing": (lambda f: f.text(b""), "esc50.csv: is empty"),
    "blanks": (lambda f: f.text(b" \n\n"), "esc50.csv: is empty"),
    "separators": (lambda f: f.text(b",,,\n,,,\n"), "no column 'filename'"),
    "header": (lambda f: f.text(b"filename,fold,target,category"), "no clips"),
    "bars": (lambda f: f.write(delimiter="|"), "no column 'filename'"),
    "an open quote": (lambda f: f.edit(b"3-dog", b'"3-dog'), "not a csv file"),
    "a column twice": (
        lambda f: f.edit(b"target", b"category"),
        "column 'category' twice|no column 'target'",
    ),
    "a column less": (lambda f: f.edit(b",category", b""), "'category'"),
    "a field less": (lambda f: f.edit(b",dog", b""), "line 2: expected 4 f"),
    "a field more": (lambda f: f.edit(b",rain", b",a,b"), "line 3: expected 4"),
    "a name twice": (
        lambda f: f.add("1-dog.wav", 1, 0, "dog").write(),
        "line 12: .* as does line 2",
    ),
    "two suffixes": (
        lambda f: f.add("1-dog.ogg", 1, 0, "dog").write(),
        "line 12: .* as does line 2",
    ),
    "absolute path": (
        lambda f: f.add("/etc/x.wav", 1, 0, "dog").write(),
        "line 12: .*plain name",
    ),
    "relative path": (
        lambda f: f.add("audio/1-dog.wav", 1, 0, "dog").write(),
        "line 12: .*plain name",
    ),
    "parent": (
        lambda f: f.add("../1-dog.wav", 1, 0, "dog").write(),
        "line 12: .*plain name",
    ),
    "hidden": (
        lambda f: f.add(".wav", 1, 0, "dog").write(),
        "line 12: .*plain name",
    ),
    "line end in a name": (
        lambda f: f.add("a\nb.wav", 1, 0, "dog").write(),
        "line 13: .*plain name",
    ),
    "no category": (
        lambda f: f.label(" ").write(),
        "line 2: category is empty",
    ),
    "control character": (
        lambda f: f.label("a\x1bb").write(),
        r"line 2: category is 'a\\x1bb'",
    ),
    "line end in a category": (
        lambda f: f.label("a\nb").write(),
        "category is .*, expected a name",
    ),
    "long category": (lambda f: f.label("x" * 201).write(), "up to 200"),
    "unseen with a plus": (
        lambda f: f.edit(b"5,0,dog", b"5,0,dog+rain"),
        "test has classes .* train folds: dog.rain",
    ),
    "fold with a point": (lambda f: f.edit(b",5,", b",5.0,"), "fold is '5.0'"),
    "no fold": (lambda f: f.edit(b",5,", b",,"), "fold is ''"),
    "no audio folder": (
        lambda f: os.rename(f.path / "audio", f.path / "Audio"),
        "audio: no such folder",
    ),
}

# Name: what is changed, and the reason of the one clip that cannot be used.
BAD_CLIP = {
    "either of two": (
        lambda f: (
            f.rename("5-DOg.wav", "5-dOG.wav").write(),
            sf.write(f.audio("5-dog.wav"), WAV, RATE),
        ),
        "'5-DOg.wav': can be either of '5-dOG.wav', '5-dog.wav'",
    ),
    "one file for two": (
        lambda f: f.add("5-DOG.wav", 5, 0, "dog").write(),
        "5-DOG.wav: no such file",
    ),
    "one alike for two": (
        lambda f: (
            f.rename("5-DOG.wav", "5-dog.wav")
            .add("5-Dog.wav", 5, 0, "dog")
            .write()
        ),
        "5-Dog.wav: found '5-dog.wav' alone, which is the clip '5-DOG'",
    ),
    "missing": (lambda f: f.audio("5-dog.wav").unlink(), "no such file"),
    "link to nothing": (
        spoil("5-dog.wav", lambda p: p.symlink_to("nowhere")),
        "5-dog.wav: ",
    ),
    "folder": (spoil("5-dog.wav", lambda p: p.mkdir()), "5-dog.wav: is a fold"),
    "pipe": (spoil("5-dog.wav", os.mkfifo), "5-dog.wav: "),
    "empty": (spoil("5-dog.wav", lambda p: p.touch()), "5-dog.wav: "),
    "web page": (
        spoil("5-dog.wav", lambda p: p.write_text("<html>" * 99)),
        "5-dog.wav: ",
    ),
    "silent": (
        spoil("5-dog.wav", lambda p: sf.write(p, 0 * WAV, RATE)),
        "5-dog.wav: is silent",
    ),
    "one sample": (
        spoil("5-dog.wav", lambda p: sf.write(p, WAV[:1], RATE)),
        "5-dog.wav: 0.0001 s long",
    ),
    "infinite": (
        spoil(
            "5-dog.wav",
            lambda p: sf.write(p, WAV * np.inf, RATE, subtype="FLOAT"),
        ),
        "5-dog.wav: holds NaN",
    ),
}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "data")


def prepared(folder, **options):
    """Entries of the test fold."""
    paths = prepare_esc50(folder.path, folder.path.parent / "out", **options)
    return {split: dict(read_entries(path)) for split, path in paths.items()}


@pytest.mark.parametrize("case", GOOD)
def test_good(folder, case):
    change, clips = GOOD[case]
    change(folder)
    found = prepared(folder)
    assert [len(found[x]) for x in ("train", "valid")] == [6, 2]
    assert set(found["test"]) == clips
    for entry in found["test"].values():
        wav, _ = sf.read(os.fsencode(entry["wav"]), always_2d=True)
        assert len(wav) == entry["num_samples"] == len(WAV)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder, case):
    change, line = REFUSED[case]
    change(folder)
    with pytest.raises(LMACError, match=line) as caught:
        prepared(folder)
    assert "\n" not in str(caught.value)
    assert not (folder.path.parent / "out").exists()


@pytest.mark.parametrize("case", BAD_CLIP)
def test_a_bad_clip(folder, case, caplog):
    """It is named, and may be left out."""
    change, reason = BAD_CLIP[case]
    change(folder)
    with pytest.raises(LMACError) as caught:
        prepared(folder)
    first, line, last = str(caught.value).split("\n")
    assert "1 of 1" in first and "skip_bad_clips" in last
    assert reason in line
    found = prepared(folder, skip_bad_clips=True)
    assert len(found["test"]) in (1, 2)
    assert reason in caplog.text


def test_there_are_enough():
    assert len(GOOD) + len(REFUSED) + len(BAD_CLIP) >= 60


LABELS = [
    "C++",
    "rock+roll",
    "a => b",
    "=>",
    "it's",
    'the "dog"',
    "back\\slash",
    "1",
    "1.0",
    "True",
    "None",
    "<unk>",
    "================",
    "K\u00e4fer",
    "\u72ac",
    "a, b; c",
    "$x_2$",
    "a|b",
    "{a}",
    "#no",
    "x" * 200,
]


@pytest.mark.parametrize("label", LABELS)
def test_labels_are_kept(folder, label):
    folder.label(label).write()
    found = prepared(folder)
    for clips in found.values():
        assert {x["class_string"] for x in clips.values()} == {label, "rain"}


def test_one_name_in_two_forms_is_one_class(folder):
    for i, row in enumerate(folder.rows[::2]):
        row[3] = unicodedata.normalize(("NFC", "NFD")[i % 2], "caf\u00e9")
    folder.write()
    found = prepared(folder)
    assert {x["class_string"] for x in found["train"].values()} == {
        "caf\u00e9",
        "rain",
    }


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("dog+rain", "dog+rain"),
        ("dog + rain", "dog+rain"),
        (" dog +rain ", "dog+rain"),
        ("rain+dog", "rain+dog"),
        ("dog+", None),
        ("+dog", None),
        ("+", None),
        ("dog++rain", None),
        ("dog+dog", None),
        ("dog + dog", None),
    ],
)
def test_several_labels(folder, label, found):
    """A plus joins classes only where a run has several for a clip."""
    folder.label(label).write()
    needs = Needs(multilabel=True)
    if found is None:
        with pytest.raises(LMACError, match="line 2: category is .*joined by"):
            prepared(folder, needs=needs)
        return
    clips = prepared(folder, needs=needs)["train"].values()
    assert {clip["class_string"] for clip in clips} == {found, "rain"}
    kept = {x["class_string"] for x in prepared(folder)["train"].values()}
    assert kept == {label.strip(), "rain"}


def test_unseen_combinations_of_known_labels(folder):
    folder.edit(b"5,0,dog", b"5,0,dog+rain")
    found = prepared(folder, needs=Needs(multilabel=True))
    assert found["test"]["5-dog"]["class_string"] == "dog+rain"


def test_a_stem_has_a_channel_for_each_label(folder):
    (folder.path / "stems").mkdir()
    folder.edit(b"5,0,dog", b"5,0,dog+rain")
    stem = folder.path / "stems" / "5-dog.wav"
    sf.write(stem, WAV, RATE)
    needs = Needs(multilabel=True)
    with pytest.raises(LMACError, match="1 channels, expected 2, one for each"):
        prepared(folder, needs=needs)
    sf.write(stem, np.stack([WAV, WAV], 1), RATE)
    assert "stem" in prepared(folder, needs=needs)["test"]["5-dog"]


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), MemoryError(), ZeroDivisionError("a\nb"), OSError()],
)
def test_any_exception_is_the_line_of_its_clip(
    folder, monkeypatch, error, caplog
):
    decode = esc50_prepare.decode_audio

    def fail(path):
        if Path(path).stem in ("2-dog", "5-dog"):
            raise error
        return decode(path)

    monkeypatch.setattr(esc50_prepare, "decode_audio", fail)
    with pytest.raises(LMACError, match="2 of 10 clips cannot") as caught:
        prepared(folder)
    for name in ("2-dog.wav", "5-dog.wav"):
        line = f"{name}: {type(error).__name__}"
        assert str(caught.value).count(line) == 1
    with caplog.at_level(logging.WARNING):
        prepared(folder, skip_bad_clips=True)
    assert "2 of 10 clips" in caplog.text and "5-dog.wav" in caplog.text
    skipped = folder.path.parent / "out" / "skipped.json"
    assert [x["id"] for x in json.loads(skipped.read_text())] == [
        "2-dog",
        "5-dog",
    ]


def test_a_bad_clip_of_a_name_that_cannot_be_printed(folder, caplog):
    folder.rename(NFC, NFC.encode("latin-1")).write()
    folder.audio(os.fsdecode(NFC.encode("latin-1"))).write_bytes(b"no sound")
    with pytest.raises(LMACError) as caught:
        prepared(folder)
    str(caught.value).encode("utf-8")
    prepared(folder, skip_bad_clips=True)
    caplog.text.encode("utf-8")


def test_a_rate_that_training_cannot_use_is_found_now(folder):
    sf.write(folder.audio("5-dog.wav"), WAV, 1)
    with pytest.raises(LMACError, match="5-dog.wav: .* 1 Hz"):
        prepared(folder, needs=Needs(sample_rate=16000))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_what_was_found_is_said(folder, caplog, encoding):
    folder.label("K\u00e4fer").write(encoding)
    prepared(folder)
    name = {"latin-1": "Latin-1", "utf-16": "UTF-16"}[encoding]
    assert f"esc50.csv: found {name}, expected UTF-8" in caplog.text


@pytest.mark.parametrize("keep_time", [False, True])
def test_replaced_audio_is_another_content(folder, keep_time):
    """Of the same length and rate, and even of the same time."""
    before = prepared(folder)["test"]
    path = folder.audio("5-dog.wav")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    sf.write(path, WAV[::-1], RATE)
    if keep_time:
        os.utime(path, ns=times)
    after = prepared(folder)["test"]
    assert after["5-rain"] == before["5-rain"]
    changed = {k for k, v in after["5-dog"].items() if before["5-dog"][k] != v}
    assert changed == {"sha256"}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "train.jsonl"),
        (2, "valid.jsonl"),
        (3, "test.jsonl"),
        (4, "skipped.json"),
    ],
)
def test_a_full_disk_is_a_line_with_the_file(folder, monkeypatch, number, name):
    """No part of it stays, and the next call goes on."""
    calls, sync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(LMACError, match=f"{name}: cannot be written .*No"):
            prepared(folder)
    left = {path.name for path in (folder.path.parent / "out").iterdir()}
    assert name not in left and not any(x.endswith(".part") for x in left)
    assert len(prepared(folder)["train"]) == 6
