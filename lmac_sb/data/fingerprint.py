"""What makes a corpus the same one, wherever it lies."""

import hashlib
import json

from lmac_sb.data.pieces import check_path, opened
from lmac_sb.utils.errors import LMACError

__all__ = ["fingerprint"]

_MOST = 4 << 30  # bytes that are read, of all sounds together
_BLOCK = 4096


def fingerprint(clips):
    """Checksums of the ids, labels, columns and sounds of a corpus.

    All bytes of the sounds are read, up to 4 GB (some ten seconds where the
    files are in memory). Of more, 4 GB are read: of each clip its size, and
    its share of them in blocks of 4 kB that are spread over it, so that a
    million clips cost 4 kB each. Sums over the clips do not depend on their
    order.

    Arguments
    ---------
    clips : sequence of lmac_sb.data.corpus.Clip
        The corpus.

    Returns
    -------
    dict
        ``n_clips``, and a checksum for each of ``ids``, ``labels``,
        ``columns`` and ``sounds``.
    """
    sums = dict.fromkeys(("ids", "labels", "columns", "sounds"), 0)
    share = _MOST // max(1, len(clips))
    for clip in clips:
        parts = {
            "ids": b"",
            "labels": json.dumps(clip.label).encode(),
            "columns": json.dumps(clip.columns, sort_keys=True).encode(),
            "sounds": _sound(clip.place, share),
        }
        for key, content in parts.items():
            digest = hashlib.sha256(clip.id.encode() + b"\0" + content)
            sums[key] += int.from_bytes(digest.digest(), "big")
    return {
        "n_clips": len(clips),
        **{key: f"{total % (1 << 256):064x}" for key, total in sums.items()},
    }


def _sound(place, share):
    """Size and checksum of a sound, of which a share is read."""
    digest = hashlib.sha256()
    try:
        if isinstance(place, str):
            check_path(place)  # a pipe would be waited for
        with opened(place) as file:
            size = file.seek(0, 2)
            for start, n_bytes in _blocks(size, share):
                file.seek(start)
                digest.update(file.read(n_bytes))
    except (LMACError, OSError, ValueError):
        return b"none"
    return f"{size} {digest.hexdigest()}".encode()


def _blocks(size, share):
    """What is read of so many bytes: start and size of each block."""
    if size <= share:
        return [(0, size)]
    n_blocks = max(1, share // _BLOCK)
    step = size / n_blocks
    middle = (step - _BLOCK) / 2
    return [(int(i * step + middle), _BLOCK) for i in range(n_blocks)]
