"""WebDataset shards as a corpus."""

import io
import json
import logging
import os
import pickle
import tarfile

import numpy as np
import pytest
import soundfile as sf
import torch
import webdataset

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.streaming import read_signal
from lmac_sb.utils.errors import LMACError


def sound(seed=0, kind="WAV", n_samples=4000):
    """Content of a sound file."""
    file = io.BytesIO()
    wav = np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)
    sf.write(file, wav, 8000, format=kind)
    return file.getvalue()


def write_tar(path, members):
    """Write an archive of names with contents, or ready members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            if isinstance(content, str):
                content = content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pair(key, seed=0, label="dog"):
    """Members of a clip."""
    return [(f"{key}.wav", sound(seed)), (f"{key}.cls", label)]


def ids(corpus):
    return [clip.id for clip in corpus]


def labels(corpus):
    return [clip.label for clip in corpus]


def test_as_webdataset_reads_it(tmp_path):
    """Keys, bytes, labels and columns are those of the reference."""
    pattern = str(tmp_path / "train-%02d.tar")
    with webdataset.ShardWriter(pattern, maxcount=3, verbose=0) as writer:
        for i in range(7):
            writer.write(
                {
                    "__key__": f"sub/clip{i}",
                    "flac": sound(i, "FLAC"),
                    "cls": i % 3,
                    "json": {"site": f"s{i}", "fold": i, "gps": None},
                }
            )
    where = str(tmp_path / "train-{00..02}.tar")
    corpus = open_corpus(where)
    found = list(webdataset.WebDataset(where, shardshuffle=False))
    assert len(corpus) == len(found) == 7
    for clip, item in zip(corpus, found):
        shard = os.path.basename(item["__url__"])
        assert clip.id == f"{shard}/{item['__key__']}"
        with clip.place.opened() as file:
            assert file.read(1 << 20) == item["flac"]
        assert clip.label == item["cls"].decode()
        given = json.loads(item["json"])
        wanted = {"site": given["site"], "fold": str(given["fold"])}
        assert clip.columns == {**wanted, "gps": None}
    assert corpus.classes == ["0", "1", "2"] and corpus.notes == []
    assert [clip.id for clip in open_corpus(tmp_path)] == ids(corpus)


def test_sounds_are_those_of_files(tmp_path):
    """To the bit, in each format."""
    members = []
    for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF"):
        content = sound(1, kind, 9000)
        (tmp_path / f"x.{kind.lower()}").write_bytes(content)
        members.append((f"{kind}.{kind.lower()}", content))
    corpus = open_corpus(write_tar(tmp_path / "s" / "a.tar", members))
    assert len(corpus) == 5 and corpus.classes == []
    for clip in corpus:
        kind = clip.id.split("/")[1].lower()
        wanted = read_signal(tmp_path / f"x.{kind}", 16000)
        assert torch.equal(clip.read(16000), wanted)


def test_classes_have_the_names_of_a_list(tmp_path):
    write_tar(
        tmp_path / "a.tar", [*pair("1", label="1"), *pair("2", label="0")]
    )
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    corpus = open_corpus(tmp_path)
    assert labels(corpus) == ["dog", "cat"] and corpus.classes == ["cat", "dog"]
    (tmp_path / "classnames.txt").unlink()
    (tmp_path / "classes.json").write_text('{"cat": 1, "dog": 0}')
    assert labels(open_corpus(tmp_path)) == ["cat", "dog"]
    (tmp_path / "classes.json").write_text('["cat"]')
    corpus = open_corpus(tmp_path)
    assert labels(corpus) == ["1", "0"] and "1 classes" in corpus.notes[0]


@pytest.mark.parametrize(
    "members, label, columns",
    [
        ([("a.txt", "dog\n")], "dog", {}),
        ([("a.txt", "a dog\nbarks")], None, {}),
        ([("a.cls", "cat"), ("a.txt", "a dog")], "cat", {"txt": "a dog"}),
        ([("a.json", '{"label": "cow", "n": 1}')], "cow", {"n": "1"}),
        ([("a.json", '{"label": ["b", "a"]}')], "b+a", {}),
        ([("a.json", '{"label": "x"}'), ("a.cls", "y")], "y", {"label": "x"}),
        ([("a.json", '{"deep": {"a": [1]}}')], None, {"deep": '{"a": [1]}'}),
        ([("a.json", "not json")], None, {}),
    ],
)
def test_labels_and_columns(tmp_path, members, label, columns):
    path = write_tar(tmp_path / "a.tar", [("a.wav", sound()), *members])
    (clip,) = open_corpus(path)
    assert (clip.label, clip.columns) == (label, columns)


def test_out_of_order(tmp_path):
    """Members of a key belong together wherever they stand."""
    one, two = pair("1", 1, "dog"), pair("2", 2, "cat")
    path = write_tar(tmp_path / "a.tar", [two[0], one[0], one[1], two[1]])
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1", "a.tar/2"]
    assert labels(corpus) == ["dog", "cat"]
    assert "1 keys are not in one piece, such as a.tar/2" in corpus.notes[0]


def test_what_is_there_twice_is_two_clips(tmp_path):
    members = [*pair("1", 1, "dog"), *pair("2", 2), *pair("1", 3, "cat")]
    corpus = open_corpus(write_tar(tmp_path / "a.tar", members))
    assert ids(corpus) == ["a.tar/1", "a.tar/1#2", "a.tar/2"]
    assert labels(corpus) == ["dog", "cat", "dog"]
    assert not torch.equal(corpus[0].read(8000), corpus[1].read(8000))
    assert any("which get a number: 1" in note for note in corpus.notes)


def test_several_sounds_of_a_key(tmp_path):
    """As of names with points, at the first of which a key ends."""
    members = [
        *[("r.05.wav", sound(1)), ("r.05.cls", "dog")],
        *[("r.06.wav", sound(2)), ("r.06.cls", "cat")],
    ]
    corpus = open_corpus(write_tar(tmp_path / "a.tar", members))
    assert ids(corpus) == ["a.tar/r.05.wav", "a.tar/r.06.wav"]
    assert labels(corpus) == ["dog", "cat"]


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])


def test_truncated_within_a_sound(tmp_path, caplog):
    """The clip is there and fails; that others are missing is said."""
    path = write_tar(tmp_path / "a.tar", [*pair("1"), *pair("2"), *pair("3")])
    with tarfile.open(path) as archive:
        place = archive.getmember("2.wav").offset_data
    cut(path, place + 1000)
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1", "a.tar/2"]
    assert len(corpus[0].read(8000)) == 4000
    with pytest.raises(LMACError, match="a.tar/2.wav: truncated, 7044 of its"):
        corpus[1].read(8000)
    assert corpus.lost == [
        f"{path}: truncated, the archive has no end; clips that followed are "
        "missing"
    ]
    assert caplog.messages == corpus.lost


@pytest.mark.parametrize("n_bytes", [512, 700, 1024])
def test_truncated_between_members(tmp_path, n_bytes):
    path = write_tar(tmp_path / "a.tar", [*pair("1"), *pair("2")])
    with tarfile.open(path) as archive:
        end = archive.getmember("1.cls").offset_data
    cut(path, end + n_bytes)
    corpus = open_corpus(path)
    assert ids(corpus)[0] == "a.tar/1"
    assert len(corpus.lost) == 1 and "clips that followed" in corpus.lost[0]


def test_damaged_header(tmp_path):
    path = write_tar(tmp_path / "a.tar", [*pair("1"), *pair("2")])
    with tarfile.open(path) as archive:
        place = archive.getmember("2.wav").offset
    content = bytearray(path.read_bytes())
    content[place + 148] ^= 0xFF
    path.write_bytes(content)
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1"]
    assert f"damaged or truncated at byte {place}" in corpus.lost[0]


def test_archives_that_follow_each_other(tmp_path):
    """As of `cat`; what is no archive there is said."""
    one = write_tar(tmp_path / "1", pair("1")).read_bytes()
    two = write_tar(tmp_path / "2", pair("2")).read_bytes()
    path = tmp_path / "a.tar"
    path.write_bytes(one + two)
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1", "a.tar/2"] and not corpus.lost
    path.write_bytes(one + b"x" * 2048)
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1"]
    assert f"damaged or truncated at byte {len(one)}" in corpus.lost[0]


def test_missing_shard(tmp_path):
    for i in (0, 2):
        write_tar(tmp_path / f"t-00{i}.tar", pair("1"))
    with pytest.raises(LMACError, match="1 of 3 shards are missing.*t-001.tar"):
        open_corpus(tmp_path / "t-{000..002}.tar")
    assert len(open_corpus(tmp_path / "t-{000,002}.tar")) == 2
    with pytest.raises(LMACError, match="is no range"):
        open_corpus(tmp_path / "t-{0..99999999999}.tar")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_compressed(tmp_path, name):
    path = tmp_path / name
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.wav"))
    with pytest.raises(LMACError, match="is compressed.*gunzip"):
        open_corpus(path)


@pytest.mark.parametrize("content", [b"", b"no tar" * 200, b"\0" * 10240])
def test_no_archive(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(LMACError, match="a.tar"):
        open_corpus(path)


def special(name, kind, target=""):
    """A member that is no plain file."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return name, member


def test_hostile_members(tmp_path):
    """None leads out of the archive, and nothing is written."""
    (tmp_path / "secret.wav").write_bytes(sound())
    members = [
        *[("/etc/abs.wav", sound()), ("../../up.wav", sound())],
        special("link.wav", tarfile.SYMTYPE, "../secret.wav"),
        special("hard.wav", tarfile.LNKTYPE, "/etc/abs.wav"),
        special("dev.wav", tarfile.CHRTYPE),
        special("fifo.wav", tarfile.FIFOTYPE),
        *pair("fine"),
    ]
    path = write_tar(tmp_path / "s" / "a.tar", members)
    corpus = open_corpus(path)
    assert ids(corpus) == [
        *("a.tar/dev", "a.tar/etc/abs", "a.tar/fifo", "a.tar/fine"),
        *("a.tar/hard", "a.tar/link", "a.tar/up"),
    ]
    for clip in corpus:
        if clip.id.endswith(("abs", "fine", "up")):
            assert len(clip.read(8000)) == 4000
            continue
        with pytest.raises(LMACError, match="is a link, a device"):
            clip.read(8000)
    assert sorted(x.name for x in tmp_path.rglob("*") if x.is_file()) == [
        "a.tar",
        "secret.wav",
    ]


def huge(name, size):
    """A header alone that promises a size."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1])
def test_promised_sizes_are_not_believed(tmp_path, size):
    path = tmp_path / "a.tar"
    path.write_bytes(huge("a.wav", size) + b"\0" * 2048)
    (clip,) = open_corpus(path)
    with pytest.raises(LMACError, match="truncated"):
        clip.read(8000)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [1 << 40, -1024])
def test_headers_of_any_size(tmp_path, kind, size):
    """Neither memory nor time go into what they promise."""
    member = tarfile.TarInfo("x")
    member.type, member.size = kind, size
    path = write_tar(tmp_path / "a.tar", pair("1"))
    content = path.read_bytes()[: -(len(path.read_bytes()) % 10240) or None]
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset_data + 512
    path.write_bytes(
        content[:end] + member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096
    )
    corpus = open_corpus(path)
    assert ids(corpus) == ["a.tar/1"] and len(corpus.lost) == 1


def test_hidden_members(tmp_path):
    members = [
        *[("._a.wav", b"x"), (".DS_Store", b"x"), ("__MACOSX/._a.wav", b"x")],
        *[
            ("__meta__", b"x"),
            ("README", b"x"),
            ("a.jpg", b"x"),
            ("b.cls", "z"),
        ],
        *[(f"./{name}", content) for name, content in pair("a")],
    ]
    corpus = open_corpus(write_tar(tmp_path / "a.tar", members))
    assert ids(corpus) == ["a.tar/a"]
    assert ["1 keys have no sound" in note for note in corpus.notes] == [True]


def test_splits_by_the_names_of_shards(tmp_path):
    write_tar(tmp_path / "train-0.tar", pair("1"))
    write_tar(tmp_path / "test" / "0.tar", pair("1"))
    corpus = open_corpus(tmp_path)
    found = {clip.id: clip.columns["split"] for clip in corpus}
    assert found == {"test/0.tar/1": "test", "train-0.tar/1": "train"}
    assert open_corpus(tmp_path / "test").columns == []


def test_table_of_the_user(tmp_path, caplog):
    """Joined by key, name or id; what does not fit is counted."""
    members = [x for i in range(4) for x in pair(f"k{i}", i)]
    path = write_tar(tmp_path / "a.tar", members)
    table = tmp_path / "mine.csv"
    table.write_text("clip;site\nk0;north\nk1.wav;NA\na.tar/k2;süd\nz;east\n")
    with caplog.at_level(logging.WARNING):
        corpus = open_corpus(path, table=table)
    assert corpus.columns == ["site"]
    found = [clip.columns["site"] for clip in corpus]
    assert found == ["north", None, "süd", None]
    assert f"{table}: 1 of 4 rows name no clip" in caplog.text
    assert f"1 of 4 clips have no row in {table}, such as a.tar/k3" in (
        caplog.text
    )


def test_identity_is_of_the_content(tmp_path):
    """Neither of places, nor of the order in the shard."""
    one, two = pair("1", 1), pair("2", 2)
    first = open_corpus(write_tar(tmp_path / "x" / "a.tar", one + two))
    moved = open_corpus(write_tar(tmp_path / "y" / "a.tar", two + one))
    assert first.identity == moved.identity
    other = open_corpus(
        write_tar(tmp_path / "z" / "a.tar", pair("1", 3) + two)
    ).identity
    changed = {key for key in other if other[key] != first.identity[key]}
    assert changed == {"sounds"}


def test_other_processes(tmp_path):
    corpus = open_corpus(write_tar(tmp_path / "a.tar", pair("1")))
    assert list(pickle.loads(pickle.dumps(corpus))) == list(corpus)


def test_messages_are_one_line(tmp_path):
    """Whatever a member is called."""
    members = [("a\nb\x1b[0m.wav", b"no sound"), ("c.cls", "x")]
    (clip,) = open_corpus(write_tar(tmp_path / "a\tb.tar", members))
    assert clip.id == "a\\tb.tar/a\\nb\\x1b[0m"
    with pytest.raises(LMACError) as error:
        clip.read(8000)
    assert "\n" not in str(error.value)


def test_a_shard_that_is_gone(tmp_path):
    path = write_tar(tmp_path / "a.tar", pair("1"))
    corpus = open_corpus(path)
    clip = corpus[0]
    path.unlink()
    for read in (lambda: corpus[0], lambda: clip.read(8000)):
        with pytest.raises(LMACError, match="a.tar.*cannot be read"):
            read()
