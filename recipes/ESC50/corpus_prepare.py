"""The corpus in a data folder that has no table like that of ESC-50."""

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.folders import find_files
from lmac_sb.data.hub_folder import find_tables
from lmac_sb.data.names import is_audio
from lmac_sb.utils.errors import LMACError

__all__ = ["find_corpus"]

TABLES = (".tar", ".parquet", ".arrow")


def find_corpus(data_folder, may_lack_labels=False):
    """The corpus in a folder that has no table like that of ESC-50.

    Arguments
    ---------
    data_folder : Path
        A folder, a file, or a pattern of shards.
    may_lack_labels : bool
        Whether a folder of sounds without labels is none, as one in which
        their table will be.

    Returns
    -------
    lmac_sb.data.corpus.Corpus or None
        None if it holds no sounds, or if the table of those in `audio/` is
        missing.

    Raises
    ------
    LMACError
        If it cannot be read, or its sounds have no labels.
    """
    has_sounds = False
    if data_folder.is_dir():
        unread = []
        names = find_files(data_folder, unread=unread)
        has_sounds = any(map(is_audio, names))
        if not has_sounds and not any(
            x.lower().endswith(TABLES) for x in names
        ):
            if unread:
                raise unread[0]
            return None
    elif not data_folder.is_file() and "{" not in data_folder.name:
        if not find_tables(data_folder)[1]:
            return None
    corpus = open_corpus(data_folder)
    if corpus.classes or not has_sounds:
        return corpus
    if may_lack_labels or (data_folder / "audio").is_dir():
        return None
    raise LMACError(
        f"{data_folder}: holds {len(corpus)} sounds without labels "
        f"({corpus.why_no_label(0)}); expected folders of classes, or a table "
        "with columns of files and labels"
    )
