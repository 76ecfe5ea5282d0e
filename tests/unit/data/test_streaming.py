"""Tests of reading long files in blocks."""

import os
import shutil
import subprocess
import threading

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data import streaming as streams
from lmac_sb.data.audio import is_silent, read_audio
from lmac_sb.data.streaming import mapped, read_signal, source_of
from lmac_sb.utils.errors import LMACError, is_full


@pytest.fixture
def small_blocks(monkeypatch):
    """Make blocks so small that a short file has many."""
    monkeypatch.setattr(streams, "_BLOCK", 1000)


def write(path, rate, channels=2, seconds=0.7):
    """A file of noise."""
    rng = np.random.default_rng(0)
    size = (round(seconds * rate), channels)
    sf.write(path, rng.uniform(-0.9, 0.9, size), rate)
    return path


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 192000])
@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_equal_the_whole(rate, channels, small_blocks, tmp_path):
    path = write(tmp_path / "x.wav", rate, channels)
    found = read_signal(path, 16000)
    expected = read_audio(path, 16000)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
def test_a_constant_offset_is_silence(rate, small_blocks, tmp_path):
    sf.write(tmp_path / "x.wav", np.full((rate, 2), 0.5), rate)
    found = read_signal(tmp_path / "x.wav", 16000)
    assert len(found) == 16000 and is_silent(found) and found[0] == 0.5


def test_rates_without_a_common_block(small_blocks, tmp_path):
    """Rates whose blocks only align after a whole second."""
    path = write(tmp_path / "x.wav", 1001, 1, seconds=3.3)
    assert torch.allclose(
        read_signal(path, 1000), read_audio(path, 1000), atol=2e-6
    )


def test_short_files_are_read_as_in_training(tmp_path, monkeypatch):
    monkeypatch.delattr(streams, "_stream")
    path = write(tmp_path / "x.wav", 44100)
    assert torch.equal(read_signal(path, 16000), read_audio(path, 16000))


@pytest.mark.parametrize("rate", [22254, 44099, 11127, 15999, 1009, 383999])
def test_odd_rates(rate, small_blocks, tmp_path):
    """Also where no block of one rate is one of the other."""
    path = write(tmp_path / "x.wav", rate, 1, seconds=2.2)
    assert torch.allclose(
        read_signal(path, 16000), read_audio(path, 16000), atol=2e-6
    )


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
def test_long_mp3_of_variable_rate(small_blocks, tmp_path):
    """Not one wrong sample where blocks meet."""
    source = write(tmp_path / "x.wav", 44100, seconds=9)
    path = tmp_path / "x.mp3"
    options = ["-q:a", "5", "-write_xing", "0"]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", source, *options, path], check=True
    )
    found, expected = read_signal(path, 44100), read_audio(path, 44100)
    assert torch.equal(found, expected)
    assert len(found) >= 9 * 44100


def test_source_of_no_sound(tmp_path):
    """Nothing tells; that it cannot be read is said where it is read."""
    path = tmp_path / "x.wav"
    path.write_bytes(b"<html>" * 999)
    assert source_of(path) == source_of(tmp_path / "y.wav") == (None, None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_pipe(kind, tmp_path):
    """Read once, to its end; of training data, a pipe is refused."""
    path, pipe = tmp_path / "x", tmp_path / "pipe"
    wav = np.random.default_rng(0).uniform(-0.9, 0.9, (44100, 2))
    sf.write(path, wav, 44100, format=kind)
    os.mkfifo(pipe)
    with pytest.raises(LMACError, match="pipe: is a pipe or device"):
        read_audio(pipe, 16000)
    assert source_of(pipe) == (None, None)
    writer = threading.Thread(
        target=pipe.write_bytes, args=(path.read_bytes(),), daemon=True
    )
    writer.start()
    assert torch.equal(read_signal(pipe, 16000), read_audio(path, 16000))
    writer.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_pipe_without_end(tmp_path, monkeypatch):
    """It fills no disk."""
    monkeypatch.setattr(streams, "_LONGEST_PIPE", 10000)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(
        target=pipe.write_bytes, args=(bytes(10001),), daemon=True
    )
    writer.start()
    with pytest.raises(LMACError, match="pipe: gives more than 10000 bytes"):
        read_signal(pipe, 16000)
    writer.join()


def test_faults_in_a_late_block(small_blocks, tmp_path):
    """NaN and an early end are found in a late block."""
    sound = np.zeros(5000, np.float32)
    sound[4500] = np.nan
    sf.write(tmp_path / "nan.wav", sound, 16000, subtype="FLOAT")
    with pytest.raises(LMACError, match="nan.wav: holds NaN"):
        read_signal(tmp_path / "nan.wav", 16000)
    path = write(tmp_path / "cut.wav", 16000)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(LMACError, match="cut.wav: truncated"):
        read_signal(path, 16000)


def test_mapped_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    values = mapped((3, 5), torch.half)
    assert list(tmp_path.iterdir()) == []
    assert values.shape == (3, 5)
    assert not values.any()
    values[1] += 2
    assert values.sum() == 10


@pytest.mark.parametrize(
    "made", [lambda path: read_signal(path, 16000), lambda path: mapped((999,))]
)
def test_no_room_for_temporary_files(made, small_blocks, tmp_path, monkeypatch):
    """Their folder is named, which is full, not the sound."""
    resource = pytest.importorskip("resource", reason="no limits here")
    path = write(tmp_path / "x.wav", 16000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            made(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert is_full(caught.value)
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
