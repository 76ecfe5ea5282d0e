"""Tests of clip folders that somebody else has made."""

import json
import os
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.inference.clip_folder import FILES, read_clip
from lmac_sb.utils.errors import LMACError

SECONDS, BYTES = 2, 200 << 20  # until a hostile folder is refused


@pytest.fixture
def clip(interpreter, sounds, tmp_path):
    """A folder as it is written, to be spoilt."""
    (folder,) = interpreter.explain_sound(sounds[0]).save(tmp_path / "clip")
    return folder


def facts(folder, **changes):
    """Change ``explanation.json``."""
    path = folder / "explanation.json"
    content = {**json.loads(path.read_text("utf-8")), **changes}
    path.write_text(json.dumps(content), encoding="utf-8")


def refused(folder, message):
    """The folder is refused in one line that names a file in it, at once."""
    start = time.monotonic()
    with pytest.raises(LMACError, match=message) as caught:
        read_clip(folder)
    assert time.monotonic() - start < SECONDS
    assert str(caught.value).startswith(str(folder))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", sorted(FILES - {"spectra.png"}))
def test_links_are_not_followed(clip, tmp_path, name):
    """Not even to files that would fit."""
    path = clip / name
    if path.suffix == ".flac":
        sf.write(path, sf.read(path.with_suffix(".wav"))[0], 16000, "PCM_24")
        path.with_suffix(".wav").unlink()
        read_clip(clip)
    secret = tmp_path / "private"
    os.replace(path, secret)
    path.symlink_to(secret)
    refused(clip, f"{name}: is a link, expected a regular file")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    refused(clip, f"{name}: is a link")


@pytest.mark.parametrize(
    "name", ["explanation.json", "maps.npz", "original.wav", "residual.wav"]
)
def test_what_is_no_regular_file(clip, name):
    """A pipe that nobody writes to is not waited for."""
    (clip / name).unlink()
    os.mkfifo(clip / name)
    refused(clip, f"{name}: is no regular file")
    (clip / name).unlink()
    (clip / name).mkdir()
    refused(clip, f"{clip}.*({name}|director)")


def write_archive(path, member, times):
    """An archive of two maps, each a member that repeats a block."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        for name in ("mask.npy", "level.npy"):
            with z.open(name, "w", force_zip64=True) as file:
                file.write(member)
                for _ in range(times):
                    file.write(bytes(1 << 20))


def header(shape, dtype="|u1"):
    """Head of a file of numpy."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("shape", "dtype", "changes"),
    [
        ((1 << 20, 257), "|u1", {}),
        ((1 << 40, 257), "|u1", {}),
        ((3000, 1 << 30), "|u1", {"n_bins": 1 << 30}),
        ((3000, 1 << 20), "|u1", {"n_bins": 1 << 20}),
        ((3000, 513), "<f8", {}),
        ((10**30, 513), "|u1", {}),
        ((-1, 513), "|u1", {}),
        ((100, 513), "|O", {}),
        ((), "|u1", {}),
    ],
)
def test_maps_that_grow(clip, shape, dtype, changes):
    """Their shape is refused before they are read."""
    write_archive(clip / "maps.npz", header(shape, dtype), times=5)
    facts(clip, **changes)
    refused(clip, r"n_bins|maps\.npz: ")


def test_an_archive_of_many_members(clip):
    with zipfile.ZipFile(clip / "maps.npz", "w") as archive:
        for number in range(3000):
            archive.writestr(str(number), b"")
    refused(clip, "maps.npz: cannot be read as maps .holds 3000 members")


def test_an_archive_with_words_at_its_end(clip):
    with open(clip / "maps.npz", "ab") as file:
        file.write(b"more")
    refused(clip, "maps.npz: cannot be read as maps")


def test_files_that_are_too_large(clip):
    """They hold nothing on the disk."""
    for name in ("explanation.json", "maps.npz"):
        path = clip / name
        kept = path.read_bytes()
        os.truncate(path, 1 << 40)
        refused(clip, f"{name}: found 1099511627776 bytes, expected at most")
        path.write_bytes(kept)
    read_clip(clip)


def test_sounds_that_are_longer_than_they_say(clip):
    """By their header alone: 200 minutes of silence are a small file."""
    rate = 16000
    with sf.SoundFile(clip / "residual.flac", "w", rate, 1) as file:
        for _ in range(200):
            file.write(np.zeros(60 * rate, np.int16))
    (clip / "residual.wav").unlink()
    refused(clip, f"residual.flac: found {200 * 60 * rate} samples at 16000")


def test_sounds_of_many_channels(clip):
    with sf.SoundFile(clip / "residual.wav", "w", 16000, 1000) as file:
        file.write(np.zeros((16000, 1000), np.int16))
    refused(clip, "residual.wav: found 1000 channels, expected 1")


MEASURE = """
import resource, sys
from lmac_sb.inference.clip_folder import read_clip
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_clip(sys.argv[1])
except ValueError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("fault", ["maps", "facts", "lists"])
def test_memory_until_it_is_refused(clip, fault):
    if fault == "maps":
        write_archive(clip / "maps.npz", header((1 << 22, 257)), times=300)
        assert (clip / "maps.npz").stat().st_size < 6 << 20
    text = {"facts": "{}," * 1_900_000, "lists": "[0]," * 1_500_000}
    if fault in text:
        path = clip / "explanation.json"
        path.write_text(f"[{text[fault]}0]", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(clip)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) << 10 < BYTES
