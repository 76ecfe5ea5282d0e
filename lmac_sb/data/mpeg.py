"""Frames of an MPEG stream (MP3 and its elder layers), counted.

Without a tag that tells it, nothing in such a file says how long it is, and
decoders guess it from the first frames. So its frames are counted, and what
stands between them (tags, covers, remains of a cut) is left out.
"""

import struct
from dataclasses import dataclass, field

from lmac_sb.data.pieces import Part

__all__ = ["find_stream", "layout", "skip_tags"]

_SEARCHED = 1 << 16  # bytes in which the first frame is looked for
_JUNK = 1 << 20  # bytes between two frames that are searched for the second
_IN_A_ROW = 4  # frames that make a stream; noise has not so many
_SAME = 0xFFFE0C00  # bits that all frames of a stream have in common
_NO_CRC = 0x00010000
# Where a tag stands in a frame of layer 3, by its samples and if it is mono.
_TAG_AT = {
    (1152, False): 36,
    (1152, True): 21,
    (576, False): 21,
    (576, True): 13,
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000)}
_RATES[0] = tuple(rate // 2 for rate in _RATES[2])
_KBITS = {  # version 1 or not, layer
    (True, 1): [32 * i for i in range(15)],
    (True, 2): [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256]
    + [320, 384],
    (True, 3): [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224]
    + [256, 320],
    (False, 1): [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192]
    + [224, 256],
    (False, 2): [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144]
    + [160],
}
_KBITS[False, 3] = _KBITS[False, 2]


@dataclass
class _Header:
    """What the four bytes before a frame say."""

    word: int
    length: int  # bytes of the frame
    samples: int

    @property
    def mono(self):
        return self.word >> 6 & 3 == 3

    def is_like(self, other):
        """Whether both can be frames of one stream."""
        return self.word & _SAME == other.word & _SAME and (
            self.mono == other.mono
        )


@dataclass
class _Run:
    """Frames of one stream, one after the other."""

    first: _Header
    pieces: list = field(default_factory=list)
    frames: int = 0
    longest: int = 0
    tag: tuple = ()  # where it is
    promised: tuple = (None, None)  # frames and bytes
    believed: bool = False  # whether the decoder takes the length from the tag

    def add(self, offset, header):
        """One more frame."""
        end = offset + header.length
        if self.pieces and self.pieces[-1][1] == offset:
            self.pieces[-1] = (self.pieces[-1][0], end)
        else:
            self.pieces.append((offset, end))
        self.frames += 1
        self.longest = max(self.longest, header.length)


def find_stream(source, start=0, stop=None):
    """Where a stream's first frame is; None where there is no stream.

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Bytes of a file.
    start, stop : int
        Part of it that is looked at; a frame begins within 64 kB.

    Returns
    -------
    int
    """
    start = skip_tags(source, start)
    stop = _before_tags(source, start, source.size if stop is None else stop)
    block = source.at(start, min(_SEARCHED, stop - start))
    place = block.find(b"\xff")
    while place >= 0:
        if _begins(source, start + place, stop):
            return start + place
        place = block.find(b"\xff", place + 1)
    return None


def layout(source, start, stop):
    """The streams between two places of a file.

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Bytes of a file.
    start : int
        Of the first frame, see `find_stream`.
    stop : int
        Where to end.

    Returns
    -------
    parts : list of lmac_sb.data.pieces.Part
        A stream each: a tag that tells a length begins a new one, as does
        another rate or number of channels.
    missing : int
        Bytes that the last frame, or frames that a tag, promises and that are
        not there.
    junk : int
        Bytes that are neither frames nor tags; those at the end do not count.
    """
    stop = _before_tags(source, start, stop)
    runs, missing, junk = [], 0, 0
    place, last = start, None
    while place < stop:
        header = _header(source.at(place, 4))
        if header is None or last is not None and not header.is_like(last):
            if stop - place < 4 and source.at(place, 1) == b"\xff":
                missing = 1
                break
            begin = skip_tags(source, place)
            place = _resync(source, begin, stop)
            if place is None:
                break
            junk += place - begin
            header = _header(source.at(place, 4))
        if place + header.length > stop:
            missing = place + header.length - stop
            break
        tag = _tag(source.at(place, 192), header)
        if not runs or tag or not header.is_like(last):
            runs.append(_Run(header))
        if tag:
            runs[-1].tag = (place, place + header.length)
            runs[-1].promised, runs[-1].believed = tag
        else:
            runs[-1].add(place, header)
        place, last = place + header.length, header
    missing = missing or max(map(_lacking, runs), default=0)
    return [_part(run) for run in runs if run.frames], missing, junk


def _header(word):
    """What a frame's first bytes say; None if they begin none."""
    if len(word) < 4:
        return None
    word = int.from_bytes(word, "big")
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    bits, rate = word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 4:
        return None
    if bits in (0, 15) or rate == 3:
        return None
    rate, padding = _RATES[version][rate], word >> 9 & 1
    bits = 1000 * _KBITS[version == 3, layer][bits]
    if layer == 1:
        return _Header(word, (12 * bits // rate + padding) * 4, 384)
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Header(word, samples // 8 * bits // rate + padding, samples)


def _begins(source, place, stop, like=None):
    """Whether some frames follow each other, or those up to the end."""
    for _ in range(_IN_A_ROW):
        header = _header(source.at(place, 4))
        if header is None or like is not None and not header.is_like(like):
            return False
        like, place = header, place + header.length
        if place >= stop:
            return place == stop
    return True


def _resync(source, start, stop):
    """The next place where frames follow each other; None if there is none."""
    for place in range(start, min(stop, start + _JUNK), _SEARCHED):
        block = source.at(place, _SEARCHED)
        found = block.find(b"\xff")
        while found >= 0:
            header = _header(source.at(place + found, 4))
            # A last frame that is cut follows the others without junk.
            whole = header and place + found + header.length <= stop
            if whole and _begins(source, place + found, stop):
                return place + found
            found = block.find(b"\xff", found + 1)
    return None


def skip_tags(source, place):
    """The first place behind tags with a cover and names (ID3v2).

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Bytes of a file.
    place : int
        Where such tags may begin.

    Returns
    -------
    int
    """
    head = source.at(place, 10)
    while len(head) == 10 and head[:3] == b"ID3" and max(head[6:]) < 128:
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte
        place += 10 + size + 10 * bool(head[5] & 16)
        head = source.at(place, 10)
    return place


def _before_tags(source, start, stop):
    """Where the tags at the end begin (ID3v1, APE)."""
    if stop - start > 128 and source.at(stop - 128, 3) == b"TAG":
        stop -= 128
    foot = source.at(max(start, stop - 32), 32)
    if foot[:8] == b"APETAGEX" and len(foot) == 32:
        size, _, flags = struct.unpack("<III", foot[12:24])
        begin = stop - size - 32 * (flags >> 31)
        stop = begin if begin > start else stop
    return stop


def _tag(frame, header):
    """What a tag in a frame's place promises, see `_Run`; () if there is none.

    Frames or bytes are None where it does not tell them.
    """
    if header.samples not in (576, 1152) or header.word >> 17 & 3 != 1:
        return ()
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        n_bytes, n_frames = struct.unpack(">II", frame[46:54])
        return (n_frames, n_bytes), False
    at = _TAG_AT[header.samples, header.mono]
    words = frame[at + 4 : at + 16]
    if frame[at : at + 4] not in (b"Xing", b"Info") or len(words) < 12:
        return ()
    flags, *words = struct.unpack(">III", words)
    n_frames = words.pop(0) if flags & 1 else None
    return (n_frames, words.pop(0) if flags & 2 else None), True


def _lacking(run):
    """Bytes, at least one, that a run lacks of what its tag promises."""
    n_frames, n_bytes = run.promised
    if n_frames is None or run.frames >= n_frames:
        return 0
    pieces = (run.tag, *run.pieces)
    there = sum(stop - start for start, stop in pieces)
    if n_bytes is not None and n_bytes <= there:
        return 0  # some encoders count their tag as a frame
    return max(1, (n_frames - run.frames) * (there // (run.frames + 1)))


def _part(run):
    """What is decoded of a run, and how many samples that makes."""
    if run.believed and run.promised[0] == run.frames:
        # The decoder also leaves out the encoder's delay then.
        return Part((run.tag, *run.pieces))
    # It guesses the length from the first frame and the number of bytes, and
    # decodes no further: silent frames behind make it guess enough. Those are
    # never decoded.
    size = sum(stop - start for start, stop in run.pieces)
    word = (run.first.word | _NO_CRC).to_bytes(4, "big")
    silent = word.ljust(run.first.length, b"\0")
    lacking = (run.frames + 16) * (run.longest + 4) - size
    return Part(
        (*run.pieces, (silent, max(0, lacking))),
        run.frames * run.first.samples,
    )
