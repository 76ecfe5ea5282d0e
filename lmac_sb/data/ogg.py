"""Links of an Ogg file: streams that follow each other."""

from lmac_sb.data.pieces import Part

__all__ = ["layout"]

_HEAD = 27  # bytes before a page's table of segments
_FIRST, _LAST = 2, 4  # flags of a page
_SEARCHED = 1 << 16


def layout(source):
    """The links of an Ogg file.

    Arguments
    ---------
    source : lmac_sb.data.pieces.Source
        Bytes of a file.

    Returns
    -------
    parts : list of lmac_sb.data.pieces.Part
        A link each.
    missing : int
        Bytes that the last page lacks.
    ended : bool
        Whether each link has an end mark.
    """
    begins, ended, missing = [], [], 0
    heading = False  # whether only first pages were found of a link
    place = 0
    while place < source.size:
        head = source.at(place, _HEAD)
        if head[:4] != b"OggS"[: len(head)]:
            place = _next_page(source, place)
            continue
        size = _size(source, place, head)
        if place + size > source.size:
            missing = place + size - source.size
            break
        first = bool(head[5] & _FIRST)
        if first and not heading:
            begins.append(place)
            ended.append(False)
        heading = first
        if ended and head[5] & _LAST:
            ended[-1] = True
        place += size
    ends = [*begins[1:], source.size]
    parts = [Part(((begin, end),)) for begin, end in zip(begins, ends)]
    return parts, missing, all(ended)


def _size(source, place, head):
    """Bytes of a page; of one whose head is cut, one more than there are."""
    n_segments = head[26] if len(head) == _HEAD else 1 << 16
    table = source.at(place + _HEAD, n_segments)
    if len(table) < n_segments:
        return source.size - place + 1
    return _HEAD + n_segments + sum(table)


def _next_page(source, place):
    """The next place at which a page begins; the end if there is none."""
    while place < source.size:
        block = source.at(place, _SEARCHED + 3)
        found = block.find(b"OggS")
        if found >= 0:
            return place + found
        place += _SEARCHED
    return source.size
