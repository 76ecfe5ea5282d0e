"""Blocks of a Creative Voice file.

libsndfile takes the first block's size for that of all samples, and the heads
of those behind it for samples. So what stands in them is given to it as a wave
file.
"""

import struct

from lmac_sb.data.pieces import Part

__all__ = ["layout"]

_END, _SOUND, _MORE, _SILENCE, _STEREO, _NEW = 0, 1, 2, 3, 8, 9
# Code of the samples' form, to that of a wave file, bits, and silence.
_FORMS = {0: (1, 8, b"\x80"), 4: (1, 16, b"\0"), 6: (6, 8, b"\xd5")}
_FORMS[7] = (7, 8, b"\xff")


def layout(source):
    """What is in the blocks of a file.

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Bytes of a file.

    Returns
    -------
    parts : list of lmac_sb.data.pieces.Part
        Samples of one form each; none if there is a form that is not known.
    missing : int
        Bytes that the last block lacks.
    junk : int
        Bytes at the end that are no block.
    """
    place = int.from_bytes(source.at(20, 2), "little")
    runs, told, junk = [], None, 0
    while place < source.size:
        head = source.at(place, 4)
        kind, size = head[0], int.from_bytes(head[1:], "little")
        if kind == _END or kind > _NEW:
            junk = source.size - place if kind else 0
            break
        start, place = place + 4, place + 4 + size
        if place > source.size:
            return [], place - source.size, 0
        block = source.at(start, 12)
        if kind == _STEREO:
            told = _stereo(block)
        elif kind == _SOUND:
            _open_run(runs, told or (1000000 // (256 - block[0]), 1, block[1]))
            runs[-1][1].append((start + 2, place))
            told = None
        elif kind == _NEW:
            rate, _, channels, code = struct.unpack("<IBBH", block[:8])
            _open_run(runs, (rate, channels, code))
            runs[-1][1].append((start + 12, place))
        elif kind == _MORE and runs:
            runs[-1][1].append((start, place))
        elif kind == _SILENCE and runs:
            (rate, channels, code), pieces = runs[-1]
            _, bits, silent = _FORMS.get(code, _FORMS[0])
            n = 1 + int.from_bytes(block[:2], "little")
            pieces.append((silent, n * channels * bits // 8))
    if any(code not in _FORMS for (_, _, code), _ in runs):
        return [], 0, 0
    return [_part(*run) for run in runs], 0, junk


def _stereo(block):
    """Rate, channels and code by a block before the samples."""
    constant, code, mode = struct.unpack("<HBB", block[:4])
    return 256000000 // ((mode + 1) * (65536 - constant)), mode + 1, code


def _open_run(runs, form):
    """Begin another part, unless the form stays the same."""
    if not runs or runs[-1][0] != form:
        runs.append((form, []))


def _part(form, pieces):
    """The samples of one form as a wave file."""
    rate, channels, code = form
    tag, bits, _ = _FORMS[code]
    size = sum(
        end if isinstance(start, bytes) else end - start
        for start, end in pieces
    )
    frame = channels * bits // 8
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE"),
        *(b"fmt ", 16, tag, channels, rate, rate * frame, frame, bits),
        *(b"data", min(size, 0xFFFFFFFF)),
    )
    return Part(((head, len(head)), *pieces))
