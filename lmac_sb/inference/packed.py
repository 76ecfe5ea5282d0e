"""An explained clip as a sample of a shard, and back.

A sample has the files of the clip's folder, but its picture; their names follow
its key: ``00000012.explanation.json``, ``00000012.original.wav``. Those of the
sub-folder ``unrefined`` come as ``00000012.unrefined.explanation.json``.
"""

import shutil
from pathlib import Path

from lmac_sb.inference.clip_folder import UNREFINED

__all__ = ["pack", "unpack"]

_UNREFINED = f"{UNREFINED}."


def pack(folder, key):
    """The files of a clip's folder as those of a sample.

    Arguments
    ---------
    folder : str or Path
        Of one clip, see `lmac_sb.inference.clip_folder`.
    key : str
        Of the sample.

    Returns
    -------
    list
        (name, path) each, for `lmac_sb.jobs.shards.write_shard`.

    Example
    -------
    >>> (folder,) = interpreter.explain_file(path).save(getfixture("tmp_path"))
    >>> [name for name, _ in pack(folder, "7")][:2]
    ['7.explanation.json', '7.interpretation.wav']
    """
    folder = Path(folder)
    found = [(f"{key}.{path.name}", path) for path in sorted(folder.iterdir())]
    inner = [path for _, path in found if path.is_dir()]
    found = [(name, path) for name, path in found if path.is_file()]
    for path in inner:
        found += pack(path, f"{key}.{path.name}")
    return found


def unpack(shard, key, folder):
    """Write a sample as a clip's folder, for all that reads such folders.

    Arguments
    ---------
    shard : lmac_sb.jobs.shards.Shard
        Where it is.
    key : str
        Of the sample.
    folder : str or Path
        A new one.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    LMACError
        If there is no such sample.
    OSError
        If the folder could not be written.

    Example
    -------
    >>> from lmac_sb.inference.clip_folder import read_clip
    >>> from lmac_sb.jobs.shards import Shard, write_shard
    >>> place = getfixture("tmp_path")
    >>> (folder,) = interpreter.explain_file(path).save(place / "clips")
    >>> _ = write_shard(place / "x.tar", pack(folder, "7"))
    >>> again = unpack(Shard(place / "x.tar"), "7", place / "again")
    >>> read_clip(again).info == read_clip(folder).info
    True
    """
    folder = Path(folder)
    shard.unpack(key, folder)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(_UNREFINED):
            (folder / UNREFINED).mkdir(exist_ok=True)
            name = path.name[len(_UNREFINED) :]
            shutil.move(path, folder / UNREFINED / name)
    return folder
