"""Tests of decoding: blocks, silence, and what is said how often."""

import random
import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.data.audio import Preprocessor, is_silent
from lmac_sb.data.decode import Recording, decode_audio
from lmac_sb.data.streaming import read_signal
from lmac_sb.utils.errors import LMACError

RATE = 16000
KINDS = {
    **{kind: None for kind in sf.available_formats() if kind != "RAW"},
    "OPUS": "OPUS",
    "AU": "ULAW",
    "WAV": "MS_ADPCM",
    "W64": "IMA_ADPCM",
    "AIFF": "DWVW_16",
    "PAF": "PCM_24",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each format, and some that hold several streams."""
    folder, found = tmp_path_factory.mktemp("files"), {}
    rng = np.random.default_rng(0)
    wav = rng.uniform(-0.5, 0.5, (9001, 2))
    for kind, subtype in KINDS.items():
        path = folder / f"x.{kind.lower()}"
        rate = 8000 if kind == "WVE" else RATE
        options = (rate, subtype)
        form = "OGG" if kind == "OPUS" else kind
        try:
            sf.write(path, wav, *options, format=form)
        except sf.LibsndfileError:
            sf.write(path, wav[:, 0], *options, format=form)
        found[kind] = path
    for kind in ("OGG", "FLAC", "MP3"):
        found[f"two of {kind}"] = folder / f"two.{kind}"
        found[f"two of {kind}"].write_bytes(2 * found[kind].read_bytes())
    if shutil.which("ffmpeg"):
        found["no tag"] = folder / "no_tag.mp3"
        command = ["ffmpeg", "-i", found["AU"], "-q:a", "6"]
        command += ["-write_xing", "0", found["no tag"]]
        subprocess.run(command, check=True, capture_output=True)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_blocks_equal_one_read(files, seed):
    """Of every format and any size of blocks."""
    rng = random.Random(seed)
    for path in files.values():
        size = round(2 ** rng.uniform(3 + seed, 15))
        blocks = list(Recording(path).blocks(size))
        expected, _ = decode_audio(path)
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        assert max(map(len, blocks)) <= size


# ----------------------------------------------------------------- silence


def stereo(left, right):
    """Two channels, [samples, 2]."""
    return np.stack([left, right], axis=1)


def noise(bits, seed=0):
    """Whole numbers of so many bits, at most half of full scale."""
    half = 2 ** (bits - 2)
    return np.random.default_rng(seed).integers(-half, half, RATE)


def write_steps(path, steps, bits):
    """A file of whole numbers."""
    subtype = {8: "PCM_U8", 16: "PCM_16", 24: "PCM_24"}[bits]
    sf.write(path, steps / 2 ** (bits - 1), RATE, subtype)
    return path


def one_step():
    """-1, 0 and 1, [samples]."""
    return np.random.default_rng(1).integers(-1, 2, RATE)


SILENT = {
    "digital": lambda path: write_steps(path, np.zeros(RATE), 16),
    "dither": lambda path: write_steps(path, one_step(), 16),
    "dither of 8 bits": lambda path: write_steps(path, one_step(), 8),
    **{
        f"cancelled, {bits} bits": lambda path, bits=bits: write_steps(
            path, stereo(noise(bits), one_step() - noise(bits)), bits
        )
        for bits in (8, 16, 24)
    },
}


@pytest.mark.parametrize("case", SILENT)
def test_silence(tmp_path, case):
    """Silence for preparation, training and explanation alike."""
    path = SILENT[case](tmp_path / "x.wav")
    assert is_silent(decode_audio(path)[0])
    assert is_silent(read_signal(path, 8000))
    wav, gain = Preprocessor(8000)(path)
    assert (gain, wav.abs().max()) == (1, 0)


def test_cancelled_with_loss(tmp_path):
    """Where a codec stores the sum of both channels."""
    tone = 0.5 * np.sin(np.arange(RATE) / 9)
    sf.write(tmp_path / "x", stereo(tone, -tone), RATE, format="MP3")
    assert is_silent(decode_audio(tmp_path / "x")[0])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("channels", [1, 2])
def test_quiet_is_no_silence(tmp_path, subtype, channels):
    """A recording at -80 dB is read and brought to full scale."""
    tone = 1e-4 * np.sin(np.arange(RATE) / 9)
    wav = np.stack([tone] * channels, axis=1)
    sf.write(tmp_path / "x.wav", wav, RATE, subtype)
    found, _ = decode_audio(tmp_path / "x.wav")
    assert not is_silent(found)
    expected = sf.read(tmp_path / "x.wav", dtype="float32", always_2d=True)[0]
    np.testing.assert_allclose(found, expected.mean(1))
    wav, gain = Preprocessor(RATE)(tmp_path / "x.wav")
    assert wav.abs().max() == 1
    assert gain == pytest.approx(1e4, rel=0.2)


def test_channels_that_nearly_cancel(tmp_path):
    """What is left of them at -54 dB is a sound."""
    left, right = noise(16), noise(16, seed=2) // 250 - noise(16)
    path = write_steps(tmp_path / "x.wav", stereo(left, right), 16)
    assert not is_silent(decode_audio(path)[0])


# ------------------------------------------------------------------- others


def test_said_once(tmp_path, caplog):
    """Not in each epoch."""
    path = tmp_path / "x.wav"
    sf.write(path, np.full(RATE, 0.5), RATE)
    content = bytearray(path.read_bytes())
    content[40:44] = bytes(4)
    path.write_bytes(content)
    for _ in range(3):
        assert len(decode_audio(path)[0]) == RATE
    assert caplog.text.count("read to the end of the file") == 1


@pytest.mark.parametrize(
    "head, is_convertible",
    [
        (b"\0\0\0\x18ftypisom", True),
        (b"\0\0\0\x08wide", True),
        (b"\x1aE\xdf\xa3\x01", True),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9", True),
        (b"RIFF\xb2\0\0\0AVI LIST", True),
        (b"#!AMR\n", True),
        (b"wvpk", True),
        (b"\x89PNG\r\n", False),
        (b"no sound", False),
    ],
)
@pytest.mark.parametrize("name", ["x.wav", "x.mp3", "x"])
def test_a_film_is_to_be_converted_whatever_its_name(
    tmp_path, head, is_convertible, name
):
    (tmp_path / name).write_bytes(head + bytes(200))
    with pytest.raises(LMACError, match="cannot be read") as caught:
        decode_audio(tmp_path / name)
    assert ("; convert it to WAV" in str(caught.value)) is is_convertible


@pytest.mark.parametrize("n_bytes", range(0, 60, 3))
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "CAF", "VOC"])
def test_cut_inside_of_the_header(tmp_path, kind, n_bytes):
    """One line, wherever it is cut."""
    path = tmp_path / "x"
    sf.write(path, np.zeros(RATE), RATE, format=kind)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(LMACError, match=r"x: [^\n]*$"):
        decode_audio(path)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_anywhere(files, tmp_path, seed):
    """A recording or one line, whatever stands in a header."""
    rng, damaged = random.Random(seed), tmp_path / "damaged"
    for path in files.values():
        content = bytearray(path.read_bytes())
        for _ in range(rng.randint(1, 4)):
            place = rng.randint(0, min(400, len(content) - 4))
            content[place : place + 4] = rng.randbytes(4)
        damaged.write_bytes(content)
        try:
            wav, _ = decode_audio(damaged)
        except LMACError as error:
            assert "\n" not in str(error)
        else:
            assert torch.isfinite(wav).all()
