"""What a file promises by its header, beside what is there.

libsndfile corrects too high a promise without a word, and estimates where
there is none. So each format's own length is compared with the file's, and a
file that holds several sounds one after the other is taken apart.
"""

import struct
from typing import NamedTuple

from lmac_sb.data import mpeg, ogg, voc
from lmac_sb.data.pieces import Part

__all__ = ["NOT_READ", "Layout", "layout_of"]

# Endings of sounds, and of films, that have to be converted first.
NOT_READ = {
    *("3gp", "aac", "ac3", "amr", "ape", "avi", "m4a", "m4b", "mka", "mkv"),
    *("mov", "mp4", "spx", "webm", "wma", "wv"),
}

# Sizes that stand for "not known when this was written": nothing, the largest
# ones, and what sox writes. Others are believed.
_UNKNOWN = (
    range(0x7F000000, 0x7F000100),
    range(0x7FFFF000, 0x80000100),
    range(0xFFFFF000, 0x100000000),
)
_HUGE = 1 << 62  # from here on, of 64 bits
_MPEG = (0x50, 0x55)  # forms of samples in a wave file
_MOST_CHUNKS = 1 << 14  # more are none
_BLOCK = 1 << 20  # bytes that are searched at a time
# A stream begins so, if the block about the stream is the only one, or not.
_FLAC = (b"fLaC\x80\0\0\x22", b"fLaC\0\0\0\x22")
_FEW = 8  # bytes that a header may be too long, if nothing else tells a size
_FEW_IN_WHOLE = 64  # the same, if another size in it says that none is missing


class Layout(NamedTuple):
    """What is in a file.

    `parts` are decoded one after the other; of what the header promises,
    `missing` bytes are not there; `note` says what else is wrong with it.

    Example
    -------
    >>> Layout([Part(((0, 44),))]).missing
    0
    """

    parts: list
    missing: int = 0
    note: str = ""


class _Data(NamedTuple):
    """The samples of a container: where they begin, and their size in bytes.

    `size` is None where the header does not tell; `outer` is the size of the
    file by the header. `field` is where the size is written, how, and what it
    counts beside the samples, if libsndfile needs the true one; `patches` are
    places and what should be there.
    """

    start: int
    size: int = None
    outer: int = None
    field: tuple = ()
    patches: tuple = ()


def layout_of(source):
    """Find out what a file holds.

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Its bytes.

    Returns
    -------
    Layout
        That of a file of no known format is the whole file: libsndfile may
        know more.

    Example
    -------
    >>> import io, soundfile as sf
    >>> from lmac_sb.data.pieces import Source
    >>> file = io.BytesIO()
    >>> sf.write(file, [0.0] * 100, 8000, format="WAV")
    >>> _ = file.seek(180), file.truncate()
    >>> layout_of(Source(file)).missing
    64
    """
    head = source.at(0, 32)
    for magic, read in _READERS.items():
        if head.startswith(magic):
            try:
                return read(source)
            except (struct.error, IndexError):
                break  # the header is cut, which libsndfile says
    begin = mpeg.find_stream(source)
    if begin is not None:
        return _mpeg(source, begin, source.size)
    return _whole(source)


def _whole(source, patches=(), **more):
    """A file that is read as it is, but for other bytes in some places."""
    pieces, place = [], 0
    for at, content in sorted(patches):
        pieces += [(place, at), (content, len(content))]
        place = at + len(content)
    return Layout([Part((*pieces, (place, source.size)))], **more)


def _compare(source, data):
    """What a container promises against what there is."""
    there = source.size - data.start
    lacking = 0 if data.size is None else data.size - there
    if lacking <= 0 and data.size is not None:
        return _whole(source, data.patches)
    few = _FEW
    if data.outer is not None:
        few = _FEW_IN_WHOLE if data.outer <= source.size else 0
    if lacking > few:
        return _whole(source, missing=lacking)
    note = f"the header promises {lacking} bytes more than there are"
    if data.size is None:
        note = "the header does not say how long it is"
    patches = list(data.patches)
    if data.field:
        place, kind, extra = data.field
        # The largest size of 32 bits is that of a longer file, too.
        most = 0xFFFFFFFF if kind[1] == "I" else _HUGE
        patches.append((place, struct.pack(kind, min(there + extra, most))))
    return _whole(source, patches, note=f"{note}; read to the end of the file")


def _is_unknown(size):
    """Whether a size stands for none; nothing is one, too."""
    return size == 0 or any(size in sizes for sizes in _UNKNOWN)


def _chunks(source, place, kind, align=2, own=0):
    """Name, place of the content and size of each chunk.

    `kind` is the form of name and size; `own` what the size counts of both.
    """
    head = struct.calcsize(kind)
    for _ in range(_MOST_CHUNKS):
        found = source.at(place, head)
        if len(found) < head:
            return
        name, size = struct.unpack(kind, found)
        yield name, place + head, size - own
        # Sizes are rounded up.
        place += head + max(0, size - own)
        place += -place % align


def _wave(source):
    """RIFF, also its twins of the other byte order and of 64 bits."""
    magic, outer = struct.unpack("<4sI", source.at(0, 8))
    order = ">" if magic == b"RIFX" else "<"
    if order == ">":
        outer = struct.unpack(">4sI", source.at(0, 8))[1]
    kind, long_size, form = 0, None, f"{order}4sI"
    for name, at, size in _chunks(source, 12, form):
        if name == b"ds64":
            outer, long_size = struct.unpack("<QQ", source.at(at, 16))
            long_at = at + 8
        elif name == b"fmt ":
            (kind,) = struct.unpack(f"{order}H", source.at(at, 2))
        elif name == b"data":
            field = (at - 4, f"{order}I", 0)
            if long_size is not None and size == 0xFFFFFFFF:
                size = 0 if long_size >= _HUGE else long_size
                field = (long_at, "<Q", 0)
            if _is_unknown(size) and not _are_chunks(source, at + size, form):
                size = None
            found = _compare(source, _Data(at, size, outer + 8, field))
            stop = source.size if size is None else min(at + size, source.size)
            begin = None
            if kind in _MPEG and not found.missing:
                begin = mpeg.find_stream(source, at, stop)
            return found if begin is None else _mpeg(source, begin, stop)
    return _whole(source)


def _are_chunks(source, place, kind):
    """Whether there is nothing from here on, or chunks up to the end."""
    for name, at, size in _chunks(source, place, kind):
        place = at + size
        if not name.isascii() or place > source.size + 1:
            return False
    return place <= source.size + 1


def _mpeg(source, begin, stop):
    """MP3 and its like."""
    parts, missing, junk = mpeg.layout(source, begin, stop)
    note = f"{junk} bytes between its frames are left out" if junk else ""
    return Layout(parts, missing, note)


def _form(source):
    """AIFF, AIFC and the Amiga's 8SVX."""
    outer = struct.unpack(">4sI", source.at(0, 8))[1] + 8
    for name, at, size in _chunks(source, 12, ">4sI"):
        if name in (b"SSND", b"BODY"):
            # The first begins with an offset and the size of blocks.
            extra = 8 if name == b"SSND" else 0
            start, known = at + extra, max(0, size - extra)
            behind = start + known
            if _is_unknown(known) and not _are_chunks(source, behind, ">4sI"):
                known = None
            field = (at - 4, ">I", extra)
            return _compare(source, _Data(start, known, outer, field))
    return _whole(source)


def _caf(source):
    """Apple's Core Audio, whose last chunk may have any size."""
    for name, at, size in _chunks(source, 8, ">4sq", align=1):
        if name == b"data":
            # The chunk begins with a count of edits.
            field = (at - 8, ">q", 4)
            known = None if size <= 4 or size >= _HUGE else size - 4
            found = _compare(source, _Data(at + 4, known, field=field))
            # The format allows -1.
            return found._replace(note="") if size == -1 else found
    return _whole(source)


def _w64(source):
    """Sony's, with names of 16 bytes."""
    outer = struct.unpack("<16sQ", source.at(0, 24))[1]
    patches = []
    for name, at, size in _chunks(source, 40, "<16sQ", align=8, own=24):
        if name[:4] == b"fmt ":
            form, inner = struct.unpack("<H22xH", source.at(at, 26).ljust(26))
            if (form, inner) == (0xFFFE, 3):
                # libsndfile takes floating point for whole numbers there.
                patches = [(at, struct.pack("<H", inner))]
        elif name[:4] == b"data":
            known = None if size >= _HUGE else size
            field = (at - 8, "<Q", 24)
            return _compare(source, _Data(at, known, outer, field, patches))
    return _whole(source)


def _au(source):
    """Sun's and NeXT's, in either byte order."""
    order = ">" if source.at(0, 4) == b".snd" else "<"
    start, size = struct.unpack(f"{order}II", source.at(4, 8))
    if size == 0xFFFFFFFF:  # the format allows it
        return _whole(source)
    return _compare(
        source, _Data(start, size or None, field=(8, order + "I", 0))
    )


def _avr(source):
    """Audio Visual Research's."""
    stereo, bits, *_, n = struct.unpack(">HH10xI", source.at(12, 18))
    frame = (2 if stereo else 1) * (-(-bits // 8))
    return _compare(source, _Data(128, n * frame))


def _mpc(source):
    """Akai's MPC 2000."""
    frame = 2 * (source.at(21, 1)[0] + 1)
    n = struct.unpack("<I", source.at(30, 4))[0]
    return _compare(source, _Data(42, n * frame))


def _nist(source):
    """NIST's Sphere, with a header in words."""
    size = source.at(8, 8).strip()
    start = int(size) if size.isdigit() else 1024
    lines = (line.split() for line in source.at(0, start).splitlines())
    words = {line[0]: line[2] for line in lines if len(line) == 3}
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if not all(words.get(name, b"").isdigit() for name in names):
        return _whole(source)
    n, channels, n_bytes = (int(words[name]) for name in names)
    return _compare(source, _Data(start, n * channels * n_bytes or None))


def _wve(source):
    """Psion's."""
    size = struct.unpack(">I", source.at(18, 4))[0]
    return _compare(source, _Data(32, size))


def _sds(source):
    """MIDI's sample dump, in packets of 120 bytes of samples."""
    head = source.at(0, 13)
    per_sample = -(-head[6] // 7)
    n = head[10] | head[11] << 7 | head[12] << 14
    packets = -(-n // (120 // max(1, per_sample)))
    return _compare(source, _Data(21, 127 * packets))


def _xi(source):
    """An instrument of FastTracker, with a header for each sample."""
    n = struct.unpack("<H", source.at(296, 2))[0]
    heads = source.at(298, 40 * n)
    sizes = [
        int.from_bytes(heads[40 * i : 40 * i + 4], "little") for i in range(n)
    ]
    return _compare(source, _Data(298 + 40 * n, sum(sizes) or None))


def _mat4(source):
    """Two matrices of Matlab 4: the rate and the samples."""
    end = 0
    for _ in range(2):
        head = source.at(end, 20)
        order = ">" if head[2:4] == b"\3\xe8" else "<"
        kind, rows, columns, _, name = struct.unpack(f"{order}5I", head)
        n_bytes = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}.get(kind // 10 % 10, 1)
        end += 20 + name + rows * columns * n_bytes
    return _compare(source, _Data(0, end))


def _mat5(source):
    """Elements of Matlab 5, one after the other."""
    order = "<" if source.at(126, 2) == b"IM" else ">"
    end = 128
    for _, at, size in _chunks(source, 128, f"{order}4sI", align=1):
        end = at + size
    return _compare(source, _Data(0, end))


def _flac(source):
    """FLAC, whose header counts samples."""
    begins, place = [0], 4
    while place < source.size:
        block = source.at(place, _BLOCK + 7)
        for magic in _FLAC:
            found = block.find(magic)
            while found >= 0:
                begins.append(place + found)
                found = block.find(magic, found + 1)
        place += _BLOCK
    begins.sort()
    ends = [*begins[1:], source.size]
    parts = []
    for begin, end in zip(begins, ends):
        # Of 36 bits; zero if it was not known.
        n_samples = int.from_bytes(source.at(begin + 21, 5), "big") % (1 << 36)
        parts.append(Part(((begin, end),), n_samples or None))
    return Layout(parts)


def _voc(source):
    """Creative's, in blocks."""
    parts, missing, junk = voc.layout(source)
    if not parts and not missing:
        return _whole(source)
    note = (
        f"{junk} bytes at its end are no blocks, and left out" if junk else ""
    )
    return Layout(parts, missing, note)


def _ogg(source):
    """Vorbis and Opus."""
    parts, missing, ended = ogg.layout(source)
    note = "" if ended else "has no end mark; read to the end of the file"
    return Layout(parts, missing, note)


# By the first bytes.
_READERS = {
    b"OggS": _ogg,
    b"fLaC": _flac,
    b"RIFF": _wave,
    b"RIFX": _wave,
    b"RF64": _wave,
    b"BW64": _wave,
    b"FORM": _form,
    b"caff": _caf,
    b"riff": _w64,
    b".snd": _au,
    b"dns.": _au,
    b"2BIT": _avr,
    b"\x01\x04": _mpc,
    b"NIST_1A": _nist,
    b"ALawSoundFile": _wve,
    b"\xf0\x7e": _sds,
    b"Extended Instrument": _xi,
    b"MATLAB 5.0 MAT": _mat5,
    b"\0\0\0\0\1\0\0\0\1\0\0\0": _mat4,
    b"\0\0\3\xe8\0\0\0\1\0\0\0\1": _mat4,
    b"Creative Voice File": _voc,
}
