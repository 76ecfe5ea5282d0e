"""Files from the field: each with all its samples, or the right refusal.

What is right is said by ffmpeg, or by what was written.
"""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.decode import Recording, decode_audio
from lmac_sb.utils.errors import LMACError

RATE = 16000
PCM, LOSSY = 3e-5, 1e-3
STEP = 4e-5  # of 16 bits, and a little
WRITTEN = [
    (kind, subtype)
    for kind in sf.available_formats()
    for subtype in sf.available_subtypes(kind)
    # Headerless; what this libsndfile lists, but does not write.
    if kind != "RAW"
    and (kind, subtype) not in [("AIFF", "DWVW_12"), ("WAV", "MPEG_LAYER_III")]
    and subtype not in ("MPEG_LAYER_I", "MPEG_LAYER_II")
]
# Their headers tell no length; SD2 has its in another file.
PROMISE_NOTHING = ("IRCAM", "PAF", "PVF", "SD2", "XI")
ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")
sox = pytest.mark.skipif(not shutil.which("sox"), reason="no sox")


def sound(rate=RATE, seconds=0.5, channels=2):
    """Tones that change and some noise, [samples, channels]."""
    time = np.arange(round(rate * seconds)) / rate
    noise = np.random.default_rng(0).standard_normal((len(time), channels))
    tones = [
        0.3 * np.sin(2 * np.pi * (300 + 200 * i + 800 * time) * time)
        for i in range(channels)
    ]
    return np.stack(tones, 1) + 0.02 * noise


def run(*command):
    """Run a program, quietly."""
    subprocess.run(command, check=True, capture_output=True)


def whole(path):
    """All samples of a file, [samples, channels]."""
    return Recording(path).by_channel().T.numpy()


def by_ffmpeg(path, *options):
    """What ffmpeg makes of a file, [samples * channels]."""
    command = (
        "ffmpeg",
        "-v",
        "error",
        *options,
        "-i",
        path,
        "-f",
        "f32le",
        "-",
    )
    done = subprocess.run(command, check=True, capture_output=True)
    return np.frombuffer(done.stdout, "<f4")


def write(folder, kind, subtype, wav=None):
    """A file by libsndfile and its name; mono if the format has no more."""
    path = folder / f"x.{kind.lower()}"
    wav = sound() if wav is None else wav
    rate = 8000 if kind == "WVE" else RATE
    try:
        sf.write(path, wav, rate, subtype, format=kind)
    except sf.LibsndfileError:
        sf.write(path, wav[:, 0], rate, subtype, format=kind)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with one wave file, from which others are made."""
    folder = tmp_path_factory.mktemp("made")
    sf.write(folder / "b.wav", sound(44100, 1.0), 44100)
    sf.write(folder / "mono.wav", sound(22050, 1.0, 1), 22050)
    return folder


# --------------------------------------------- what libsndfile itself writes


@pytest.mark.parametrize(("kind", "subtype"), WRITTEN)
def test_written(tmp_path, kind, subtype):
    """The samples are those of the library, in one read."""
    path = write(tmp_path, kind, subtype)
    # Some formats with loss cannot be sought in, which `sf.read` does.
    expected = sound()
    if "DWVW" not in subtype:
        expected = sf.read(path, always_2d=True)[0]
    found = whole(path)
    assert len(found) >= len(sound())
    expected = expected[:, : found.shape[1]]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("share", [0.6, 0.99])
@pytest.mark.parametrize(("kind", "subtype"), WRITTEN)
def test_cut(tmp_path, kind, subtype, share):
    """Whatever promises a length and has less is truncated."""
    path = write(tmp_path, kind, subtype)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    if kind in PROMISE_NOTHING:
        assert 0.5 * share < len(decode_audio(path)[0]) / 8000 < 1.01
        return
    with pytest.raises(LMACError, match=f"x.{kind.lower()}: .*truncated"):
        decode_audio(path)


# ------------------------------------------------------ what others write

BY_FFMPEG = [
    *(f"{codec} wav {PCM}" for codec in (
        "pcm_u8 pcm_s16le pcm_s24le pcm_s32le pcm_f32le pcm_f64le pcm_alaw "
        "pcm_mulaw adpcm_ms"
    ).split()),
    *(f"{codec} w64 {PCM}" for codec in ("pcm_s16le", "pcm_f32le")),
    f"pcm_s16le:rf64=always wav {PCM}",
    *(f"{codec} aiff {PCM}" for codec in (
        "pcm_s16be pcm_s24be pcm_s32be pcm_s16le pcm_f32be pcm_mulaw"
    ).split()),
    *(f"{codec} au {PCM}" for codec in (
        "pcm_s8 pcm_s16be pcm_s24be pcm_f32be pcm_alaw"
    ).split()),
    *(f"{codec} caf {PCM}" for codec in (
        "pcm_s16be pcm_s16le pcm_s24le pcm_f32le pcm_mulaw"
    ).split()),
    *(f"{codec} voc {PCM}" for codec in ("pcm_u8", "pcm_s16le")),
    *(f"{codec} ircam {PCM}" for codec in ("pcm_s16le", "pcm_f32le")),
    f"flac flac {PCM}",
    f"flac:sample_fmt=s32 flac {PCM}",
    *(f"libvorbis:q={q} ogg {LOSSY}" for q in (0, 4, 8)),
    *(f"libopus:b={b}k opus {LOSSY}" for b in (24, 64, 160)),
    *(f"libmp3lame:b={b}k mp3 {LOSSY}" for b in (64, 128, 320)),
    *(f"libmp3lame:q={q} mp3 {LOSSY}" for q in (0, 4, 9)),
    *(f"libmp3lame:q={q}:write_xing=0 mp3 {LOSSY}" for q in (0, 2, 4, 6, 9)),
    *(f"libmp3lame:b={b}k:write_xing=0 mp3 {LOSSY}" for b in (64, 128, 320)),
    *(
        f"libmp3lame:q=5:write_xing=0:ar={rate} mp3 {LOSSY}"
        for rate in (8000, 11025, 16000, 32000, 48000)
    ),
    f"libmp3lame:q=4:ac=1:write_xing=0 mp3 {LOSSY}",
    f"libmp3lame:q=4:id3v2_version=0:write_xing=0 mp3 {LOSSY}",
    f"libmp3lame:q=4:write_id3v1=1:write_xing=0 mp3 {LOSSY}",
    f"libmp3lame:q=4 wav {LOSSY}",
    f"libmp3lame:b=96k wav {LOSSY}",
    *(f"mp2:b={b}k mp2 {LOSSY}" for b in (64, 192, 384)),
    f"mp2:b=64k:ar=22050 mp2 {LOSSY}",
]  # fmt: skip


@ffmpeg
@pytest.mark.parametrize("case", BY_FFMPEG)
def test_by_ffmpeg(made, tmp_path, case):
    """As ffmpeg decodes what it has written, in rate, length and samples."""
    options, ending, tolerance = case.split()
    codec, *settings = options.split(":")
    more = [part for s in settings for part in f"-{s}".split("=")]
    path = tmp_path / f"x.{ending}"
    run("ffmpeg", "-i", made / "b.wav", "-c:a", codec, *more, path)
    found = whole(path)
    decoder = ("-c:a", "libopus") if codec == "libopus" else ()
    expected = by_ffmpeg(path, *decoder)
    assert found.size == len(expected)
    assert np.abs(found.ravel() - expected).max() <= float(tolerance)


BY_SOX = [
    *(f"{kind} {PCM}" for kind in (
        "wav aiff aifc au caf w64 flac sf sph paf pvf voc"
    ).split()),
    *(f"{kind}/mono {PCM}" for kind in ("8svx", "avr", "hcom")),
    *(f"wav:-e:{form} {PCM}" for form in ("a-law", "u-law", "gsm")),
    *(f"mp3:-C:{kbits} {LOSSY}" for kbits in (64, 96, 128, 192, 320)),
    *(f"mp3:-C:-{quality}.2 {LOSSY}" for quality in (1, 4, 8)),
    *(f"mp3/mono:-C:{kbits} {LOSSY}" for kbits in (32, 64)),
    f"ogg {LOSSY}",
]  # fmt: skip


@sox
@ffmpeg
@pytest.mark.parametrize("case", BY_SOX)
def test_by_sox(made, tmp_path, case):
    """As ffmpeg decodes what sox has written."""
    options, tolerance = case.split()
    ending, *settings = options.split(":")
    ending, _, mono = ending.partition("/")
    path = tmp_path / f"x.{ending}"
    source = "mono.wav" if mono else "b.wav"
    settings = [s.replace("gsm", "gsm-full-rate") for s in settings]
    run("sox", made / source, *settings, path)
    if ending == "hcom":  # which libsndfile does not know
        with pytest.raises(LMACError, match="x.hcom: cannot be read as audio"):
            decode_audio(path)
        return
    found, expected = whole(path), by_ffmpeg(path)
    assert found.size == len(expected)
    assert np.abs(found.ravel() - expected).max() <= float(tolerance)


@ffmpeg
@pytest.mark.parametrize("ending", ["mp3", "mp2", "ogg", "opus", "flac", "caf"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.995])
def test_cut_by_ffmpeg(made, tmp_path, ending, share):
    """Also where nothing but the last frame tells it."""
    path = tmp_path / f"x.{ending}"
    options = ("-write_xing", "0") if ending == "mp3" else ()
    run("ffmpeg", "-i", made / "b.wav", *options, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(LMACError, match=f"x.{ending}: .*truncated"):
        decode_audio(path)


# ----------------------------------------------------------- of unknown length


@ffmpeg
@pytest.mark.parametrize(
    "kind", ["wav", "aiff", "au", "caf", "w64", "rf64", "flac", "mp3", "ogg"]
)
def test_from_a_pipe(made, tmp_path, kind):
    """Written where nobody could go back to the header."""
    form = {"rf64": "wav", "ogg": "ogg"}.get(kind, kind)
    options = ["-rf64", "always"] if kind == "rf64" else []
    command = ["ffmpeg", "-i", made / "b.wav", *options, "-f", form, "pipe:1"]
    done = subprocess.run(command, check=True, capture_output=True)
    path = tmp_path / f"x.{kind}"
    path.write_bytes(done.stdout)
    found = whole(path)
    if kind in ("mp3", "ogg"):
        assert np.abs(found.ravel() - by_ffmpeg(path)).max() <= LOSSY
    else:
        assert np.abs(found - sound(44100, 1.0)).max() <= STEP


@pytest.mark.parametrize("riff", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_crashed_recorder(tmp_path, caplog, size, riff):
    """What its header does not count is read, and that is said."""
    path = write(tmp_path, "WAV", "PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    if riff is not None:
        content[4:8] = struct.pack("<I", riff)
    path.write_bytes(content)
    np.testing.assert_allclose(whole(path), sound(), atol=STEP)
    assert "x.wav: the header does not say how long it is; read to the" in (
        caplog.text
    )


# Where a header has the size of the samples, and values that are none.
NO_SIZE = {
    "AU": (8, ">I", [0, 0xFFFFFFFF]),
    "AIFF": (b"SSND", ">I", [0, 8, 0x7F000008, 0xFFFFFFFF]),
    "SVX": (b"BODY", ">I", [0, 0xFFFFFFFF]),
    "CAF": (b"data", ">q", [-1, 0, 4]),
    "W64": (b"data", "<12xQ", [0, 24, 2**63 - 1, 2**64 - 1]),
    "RF64": (b"ds64", "<12xQ", [0, 2**64 - 1]),
    "AVR": (26, ">I", [0]),
    "WVE": (18, ">I", [0]),
    "MPC2K": (30, "<I", [0]),
}


@pytest.mark.parametrize(
    ("kind", "value"), [(k, v) for k, (*_, vs) in NO_SIZE.items() for v in vs]
)
def test_no_size(tmp_path, kind, value):
    """Read to the end of the file, in every container."""
    path = write(tmp_path, kind, sf.default_subtype(kind))
    content, expected = bytearray(path.read_bytes()), whole(path)
    place, form, _ = NO_SIZE[kind]
    if isinstance(place, bytes):
        place = content.index(place) + 4
    skip = 12 if "x" in form else 0
    struct.pack_into(form.replace("12x", ""), content, place + skip, value)
    path.write_bytes(content)
    np.testing.assert_array_equal(whole(path), expected)


def test_really_empty(tmp_path):
    """No samples, but a chunk behind them: nothing has crashed."""
    path = write(tmp_path, "WAV", "PCM_16", np.zeros((0, 2)))
    content = path.read_bytes() + b"LIST\x04\0\0\0abcd"
    path.write_bytes(content)
    with pytest.raises(LMACError, match="x.wav: holds no samples"):
        decode_audio(path)


@pytest.mark.parametrize("extra", [1, 2, 4, 8, 44])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AIFF", "AU", "W64", "CAF"])
def test_header_a_few_bytes_too_long(tmp_path, caplog, kind, extra):
    """All samples are there: another size says so, or it is next to none."""
    path = write(tmp_path, kind, "PCM_16")
    content = bytearray(path.read_bytes())
    names = {"AIFF": b"SSND", "AU": b".snd"}
    at = content.index(names.get(kind, b"data")) + 4
    form = "<I" if kind.startswith("WAV") else ">I"
    if kind == "AU":
        at += 4
    elif kind == "CAF":
        form = ">q"
    elif kind == "W64":
        at, form = at + 12, "<Q"
    (size,) = struct.unpack_from(form, content, at)
    struct.pack_into(form, content, at, size + extra)
    path.write_bytes(content)
    if extra == 44 and kind in ("AU", "CAF"):
        with pytest.raises(LMACError, match="truncated, 44 bytes fewer"):
            decode_audio(path)
        return
    np.testing.assert_allclose(whole(path), sound(), atol=STEP)
    assert f"the header promises {extra} bytes more than there are" in (
        caplog.text
    )


# ------------------------------------------------ several sounds in one file


def links(tmp_path, *forms, kind="OGG"):
    """A file of several, and what each of them holds alone."""
    content, alone = b"", []
    for rate, channels in forms:
        path = tmp_path / "link"
        sf.write(path, sound(rate, 0.5, channels), rate, format=kind)
        content += path.read_bytes()
        alone.append(decode_audio(path)[0].numpy())
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(content)
    return path, alone


@pytest.mark.parametrize("kind", ["OGG", "FLAC", "MP3"])
@pytest.mark.parametrize("n_links", [2, 3])
def test_links(tmp_path, kind, n_links):
    """All of them, one after the other."""
    path, alone = links(tmp_path, *[(RATE, 2)] * n_links, kind=kind)
    found, rate = decode_audio(path)
    assert rate == RATE
    np.testing.assert_array_equal(found, np.concatenate(alone))


@pytest.mark.parametrize("kind", ["OGG", "FLAC", "MP3"])
def test_links_of_other_kinds(tmp_path, kind):
    """Brought to the first one's rate, and mixed down."""
    forms = (RATE, 2), (RATE, 1), (32000, 2), (8000, 1)
    path, alone = links(tmp_path, *forms, kind=kind)
    found, rate = decode_audio(path)
    expected = [len(a) * RATE // r for a, (r, _) in zip(alone, forms)]
    assert rate == RATE
    assert len(found) == sum(expected)
    first = np.concatenate(alone[:2])
    np.testing.assert_array_equal(found[: len(first)], first)
    with pytest.raises(LMACError, match="several rates or numbers of channels"):
        Recording(path).by_channel()


@ffmpeg
def test_links_of_opus(made, tmp_path):
    """Each with its own header and start."""
    path = tmp_path / "x.opus"
    run("ffmpeg", "-i", made / "b.wav", path)
    alone = whole(path)
    path.write_bytes(2 * path.read_bytes())
    np.testing.assert_array_equal(whole(path), np.concatenate([alone, alone]))


@pytest.mark.parametrize("kind", ["OGG", "FLAC", "MP3"])
@pytest.mark.parametrize("junk", [b"TAG".ljust(128, b"x"), b"\0" * 3000])
def test_what_follows_the_sound(tmp_path, kind, junk):
    """Tags and padding are no sound, nor is it cut for that."""
    path, (alone,) = links(tmp_path, (RATE, 2), kind=kind)
    path.write_bytes(path.read_bytes() + junk)
    np.testing.assert_array_equal(decode_audio(path)[0], alone)


@pytest.mark.parametrize("kind", ["OGG", "FLAC", "MP3", "WAV", "AIFF"])
def test_cover_before_the_sound(tmp_path, kind):
    """A tag with a picture that holds what looks like frames."""
    path, (alone,) = links(tmp_path, (RATE, 2), kind=kind)
    picture = b"\xff\xfb\x90\x64" * 50000
    size = bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\4\0\0" + size + picture + path.read_bytes())
    np.testing.assert_array_equal(decode_audio(path)[0], alone)


# -------------------------------------------------------------- MPEG streams


def frames_of(content):
    """Places of the frames of an MP3 at 44.1 kHz, and its end."""
    kbits = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    place, places = content.index(b"\xff\xfb"), []
    while place + 4 <= len(content) and content[place] == 0xFF:
        places.append(place)
        bits, padding = content[place + 2] >> 4, content[place + 2] >> 1 & 1
        place += 144000 * kbits[bits] // 44100 + padding
    return [*places, place]


@pytest.fixture(scope="module")
def no_tag(made):
    """An MP3 of variable rate without a tag."""
    path = made / "v.mp3"
    options = "-c:a libmp3lame -q:a 4 -write_xing 0 -id3v2_version 0".split()
    run("ffmpeg", "-y", "-i", made / "b.wav", *options, path)
    return path.read_bytes()


@ffmpeg
@pytest.mark.parametrize("lost", [1, 3, 4, 50, 200])
def test_last_frame_is_cut(no_tag, tmp_path, lost):
    """By however little; a whole one is no reason to refuse."""
    path = tmp_path / "x.mp3"
    places = frames_of(no_tag)
    path.write_bytes(no_tag[: places[-1]])
    assert len(whole(path)) == 1152 * (len(places) - 1)
    path.write_bytes(no_tag[: places[-1] - lost])
    with pytest.raises(LMACError, match="x.mp3: truncated"):
        decode_audio(path)


@ffmpeg
def test_frames_that_a_tag_promises(made, tmp_path):
    """Cut between two frames, which nothing but the tag tells."""
    path = tmp_path / "x.mp3"
    run("ffmpeg", "-i", made / "b.wav", "-id3v2_version", "0", path)
    content = path.read_bytes()
    path.write_bytes(content[: frames_of(content)[20]])
    with pytest.raises(LMACError, match="x.mp3: truncated"):
        decode_audio(path)


@ffmpeg
def test_from_the_middle_of_a_stream(no_tag, tmp_path):
    """As a recording of a radio station begins."""
    path, places = tmp_path / "x.mp3", frames_of(no_tag)
    path.write_bytes(no_tag[places[9] + 100 :])
    found = whole(path)
    assert len(found) == 1152 * (len(places) - 11)
    # The first frames refer to what was cut off.
    end = by_ffmpeg(path).reshape(-1, 2)[6000:]
    assert np.abs(found[6000:] - end).max() <= LOSSY


@ffmpeg
@pytest.mark.parametrize("junk", [b"\0" * 500, b"\xff\xfb\0" * 999])
def test_junk_between_frames(no_tag, tmp_path, junk, capfd, caplog):
    """It is left out, and that is said; by us, not by the library."""
    path, places = tmp_path / "x.mp3", frames_of(no_tag)
    path.write_bytes(no_tag)
    expected = whole(path)
    path.write_bytes(no_tag[: places[9]] + junk + no_tag[places[9] :])
    np.testing.assert_array_equal(whole(path), expected)
    assert (
        f"x.mp3: {len(junk)} bytes between its frames are left" in caplog.text
    )
    assert capfd.readouterr().err == ""


@ffmpeg
@pytest.mark.parametrize("promised", [0, 1])
def test_tag_of_fraunhofer(no_tag, tmp_path, promised):
    """It is no sound, and what it promises is looked at."""
    path, n = tmp_path / "x.mp3", len(frames_of(no_tag)) - 1
    frame = bytearray(no_tag[: frames_of(no_tag)[1]])
    frame[4:] = bytes(len(frame) - 4)
    frame[36:54] = struct.pack(
        ">4s3HII", b"VBRI", 1, 0, 0, len(no_tag) + 2 * len(frame), n + promised
    )
    path.write_bytes(frame + no_tag)
    if promised:
        with pytest.raises(LMACError, match="x.mp3: truncated"):
            decode_audio(path)
        return
    found = whole(path)
    assert len(found) == 1152 * n
    assert np.abs(found.ravel() - by_ffmpeg(path)).max() <= LOSSY


@ffmpeg
def test_tag_without_sound(made, tmp_path):
    """A stream of one frame that is none."""
    path = tmp_path / "x.mp3"
    run("ffmpeg", "-i", made / "b.wav", "-id3v2_version", "0", path)
    content = path.read_bytes()
    path.write_bytes(content[: frames_of(content)[1]])
    with pytest.raises(LMACError, match="x.mp3: "):
        decode_audio(path)


# ------------------------------------------------------------------ no audio

HTML = b"<!DOCTYPE html>\n<html><body>404: not found</body></html>\n" * 300


@pytest.mark.parametrize(
    "ending",
    ["mp3", "wav", "ogg", "flac", "raw", "vox", "gsm", "au", "sd2", "htk"],
)
@pytest.mark.parametrize("content", [HTML, bytes(40000)])
def test_ending_makes_no_audio(tmp_path, ending, content):
    """What is in a file decides, not its name."""
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    with pytest.raises(LMACError, match=f"x.{ending}: cannot be read as audio"):
        decode_audio(path)


@pytest.mark.parametrize("name", ["x.raw", "x", "x.mp3", "x.wav.part", "x.vox"])
def test_name_does_not_matter(tmp_path, name):
    """A wave file of any name is one."""
    path = tmp_path / name
    sf.write(path, sound(), RATE, format="WAV")
    np.testing.assert_allclose(whole(path), sound(), atol=STEP)


def test_name_that_is_not_utf_8(tmp_path):
    """As text and as bytes."""
    path = bytes(tmp_path) + b"/caf\xe9.wav"
    with open(path, "wb") as file:
        sf.write(file, sound(), RATE, format="WAV")
    for name in (path, path.decode("utf-8", "surrogateescape")):
        np.testing.assert_allclose(whole(name), sound(), atol=STEP)
    with pytest.raises(LMACError, match="no such audio file"):
        decode_audio(path + b"x")
