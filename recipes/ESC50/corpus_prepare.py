"""The corpus in a data folder that has no table like that of ESC-50."""

from lmac_sb.data.corpus import open_corpus
from lmac_sb.data.folders import find_files
from lmac_sb.data.hub_folder import find_tables
from lmac_sb.data.names import is_audio

__all__ = ["find_corpus"]

TABLES = (".tar", ".parquet", ".arrow")


def find_corpus(data_folder):
    """The corpus in a folder that has no table like that of ESC-50.

    Arguments
    ---------
    data_folder : Path
        A folder, a file, or a pattern of shards.

    Returns
    -------
    lmac_sb.data.corpus.Corpus or None
        None if it holds no sounds, or is a folder of sounds without labels.

    Raises
    ------
    LMACError
        If it cannot be read.
    """
    has_sounds = False
    if data_folder.is_dir():
        names = find_files(data_folder)
        has_sounds = any(map(is_audio, names))
        if not has_sounds and not any(
            x.lower().endswith(TABLES) for x in names
        ):
            return None
    elif not data_folder.is_file() and "{" not in data_folder.name:
        if not find_tables(data_folder)[1]:
            return None
    corpus = open_corpus(data_folder)
    # In a folder of sounds, the table may be the one that is missing.
    return corpus if corpus.classes or not has_sounds else None
