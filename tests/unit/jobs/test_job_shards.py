"""Tests of tar shards; the package webdataset reads them too."""

import io
import os
import tarfile
import time

import pytest
import webdataset

from lmac_sb.jobs.shards import Shard, write_shard
from lmac_sb.utils.errors import LMACError

FILES = [
    ("00.cls", b"dog"),
    ("00.original.wav", bytes(range(256)) * 9),
    ("01.cls", b""),
    ("01.original.wav", b"x" * 512),
    ("Käfer_2.cls", "größer".encode()),
]


def test_webdataset_reads_it(tmp_path):
    path = tmp_path / "x.tar"
    assert write_shard(path, iter(FILES)) == path.stat().st_size
    samples = webdataset.WebDataset(str(path), shardshuffle=False)
    found = [
        (f"{sample['__key__']}.{name}", content)
        for sample in samples
        for name, content in sample.items()
        if not name.startswith("__")
    ]
    assert sorted(found) == sorted(FILES)


def test_the_same_files_give_the_same_bytes(tmp_path, monkeypatch):
    """Whoever wrote them and when, from memory or from the disk."""
    write_shard(tmp_path / "a.tar", FILES)
    places = [(name, tmp_path / f"file-{name}") for name, _ in FILES]
    umask = os.umask(0o077)
    try:
        for (_, path), (_, content) in zip(places, FILES):
            path.write_bytes(content)
            os.utime(path, (1, 1))
    finally:
        os.umask(umask)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write_shard(tmp_path / "b.tar", places)
    one, other = ((tmp_path / f"{x}.tar").read_bytes() for x in "ab")
    assert one == other
    with tarfile.open(tmp_path / "a.tar") as shard:
        assert {m.mtime for m in shard} == {0}
        assert {(m.uid, m.gid, m.uname, m.gname) for m in shard} == {
            (0, 0, "", "")
        }


def test_single_samples(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, FILES)
    shard = Shard(path)
    assert shard.keys == ["00", "01", "Käfer_2"]
    assert shard.names("00") == ["cls", "original.wav"]
    for name, content in FILES:
        key, _, name = name.partition(".")
        assert shard.read(key, name) == content
    shard.unpack("00", tmp_path / "new" / "clip")
    found = {p.name: p.read_bytes() for p in tmp_path.glob("new/clip/*")}
    assert found == {"cls": b"dog", "original.wav": FILES[1][1]}
    with pytest.raises(LMACError, match="x.tar: holds no sample '02'"):
        shard.names("02")
    with pytest.raises(LMACError, match="x.tar: '00' has no file 'png'"):
        shard.read("00", "png")


def test_an_empty_shard(tmp_path):
    write_shard(tmp_path / "x.tar", [])
    assert Shard(tmp_path / "x.tar").keys == []


@pytest.mark.parametrize("n_bytes", [1, 512, 600, 1200, 5000, 7168])
def test_truncated(tmp_path, n_bytes):
    """In a header, in a file, between files, or before the end."""
    path = tmp_path / "x.tar"
    write_shard(path, FILES)
    os.truncate(path, n_bytes)
    with pytest.raises(LMACError, match="x.tar: (cannot be|truncated)"):
        Shard(path)


def test_truncated_while_it_is_open(tmp_path):
    path = tmp_path / "x.tar"
    write_shard(path, FILES)
    shard = Shard(path)
    os.truncate(path, 600)
    with pytest.raises(LMACError, match="x.tar: was truncated meanwhile"):
        shard.read("01", "original.wav")


@pytest.mark.parametrize("content", [b"", b"no shard" * 999])
def test_no_shard(tmp_path, content):
    path = tmp_path / "x.tar"
    with pytest.raises(LMACError, match="x.tar: no such shard"):
        Shard(path)
    path.write_bytes(content)
    with pytest.raises(LMACError, match="x.tar: (cannot be|truncated)"):
        Shard(path)


def odd(name, kind=tarfile.REGTYPE):
    """Members of which one has an odd name or kind."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return [tarfile.TarInfo("0.a"), member]


@pytest.mark.parametrize(
    "members",
    [
        odd("../1.a"),
        odd("/1.a"),
        odd("sub/1.a"),
        odd("1"),
        odd(".a"),
        odd("1..a"),
        odd("1.a\\b"),
        odd("1.a", tarfile.SYMTYPE),
        odd("1.a", tarfile.LNKTYPE),
        odd("1.a", tarfile.FIFOTYPE),
        odd("1.a", tarfile.DIRTYPE),
        odd("0.a"),
    ],
)
def test_members_that_are_refused(tmp_path, members):
    """Before anything is written anywhere."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as shard:
        for member in members:
            shard.addfile(member, io.BytesIO())
    with pytest.raises(
        LMACError, match="x.tar: (found the member|holds '0.a')"
    ):
        Shard(path)


def test_a_failing_source_leaves_nothing(tmp_path):
    def files():
        yield FILES[0]
        raise LMACError("bad")

    with pytest.raises(LMACError, match="bad"):
        write_shard(tmp_path / "x.tar", files())
    assert list(tmp_path.iterdir()) == []
