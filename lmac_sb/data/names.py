"""Names of files, as tables and file systems write them."""

import os
import unicodedata
from pathlib import Path

import soundfile as sf

from lmac_sb.data.containers import NOT_READ
from lmac_sb.utils.errors import LMACError, shown

__all__ = [
    "AUDIO",
    "Names",
    "alike",
    "bare_path",
    "is_audio",
    "is_hidden",
    "plain_path",
    "plain_text",
]

# Of files that are read, without the point.
AUDIO = {kind.lower() for kind in sf.available_formats()} | {
    *("aif", "aifc", "bwf", "mp2", "mpga", "oga", "opus", "wave")
}


class Names:
    """The files of a folder, by their names in a table.

    A name counts as it is. Where the folder has none such, it may be in
    another Unicode form (a Mac decomposes what others write as one
    character), in other case, with blanks around it, or its bytes may be
    Latin-1, as long as just one file can be meant.

    Arguments
    ---------
    folder : str or Path
        Whose files are looked for; one that is missing has none.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "cafe\u0301.WAV").touch()
    >>> Names(folder).find(["caf\u00e9.wav"]).name == "cafe\u0301.WAV"
    True
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        present = os.listdir(folder) if os.path.isdir(folder) else []
        self._exact, self._alike = set(present), {}
        for name in present:
            self._alike.setdefault(alike(name), []).append(name)

    def find(self, names):
        """The first of some names that there is.

        Arguments
        ---------
        names : list of str
            What a file may be called, the likeliest first.

        Returns
        -------
        pathlib.Path or None

        Raises
        ------
        LMACError
            If several files can be meant; names them.
        """
        for name in names:
            if name in self._exact:
                return self.folder / name
        for name in names:
            found = self._alike.get(alike(name), [])
            if len(found) > 1:
                raise LMACError(
                    f"{shown(names[0])}: can be either of "
                    f"{', '.join(map(shown, sorted(found)))} in {self.folder}"
                )
            if found:
                return self.folder / found[0]
        return None


def is_audio(name):
    """Whether a file is a sound by its name, be it of a kind that is read.

    Arguments
    ---------
    name : str
        Of the file, or its path.

    Returns
    -------
    bool

    Example
    -------
    >>> is_audio("a/dog.WAV"), is_audio("dog.m4a"), is_audio("wav")
    (True, True, False)
    """
    ending = os.path.splitext(name)[1][1:].lower()
    # Those that are not read, too, so that nobody wonders where they are.
    return ending in AUDIO or ending in NOT_READ


def is_hidden(name):
    """Whether a system made a file or folder for itself.

    Arguments
    ---------
    name : str
        Of the file or folder, without those that it is in.

    Returns
    -------
    bool

    Example
    -------
    >>> is_hidden("._dog.wav"), is_hidden("__MACOSX"), is_hidden("dog.wav")
    (True, True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def bare_path(path):
    """A path without the ending of a sound.

    Arguments
    ---------
    path : str
        Any.

    Returns
    -------
    str

    Example
    -------
    >>> bare_path("dog/a.wav"), bare_path("shard.tar/clip.7")
    ('dog/a', 'shard.tar/clip.7')
    """
    return os.path.splitext(path)[0] if is_audio(path) else path


def plain_path(path):
    r"""A path in one form, which leads out of no folder.

    Arguments
    ---------
    path : str
        From a table, an archive or a file system.

    Returns
    -------
    str
        See `plain_text`; again of the result, it is the same.

    Example
    -------
    >>> plain_path("/data/../dog/cafe\u0301\n.wav")
    'data/dog/café\\n.wav'
    """
    parts = plain_text(path).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def plain_text(text):
    r"""A text in one Unicode form, with codes for what cannot be printed.

    Arguments
    ---------
    text : str
        From anywhere.

    Returns
    -------
    str

    Example
    -------
    >>> plain_text("cafe\u0301\n") == "caf\u00e9\\n"
    True
    """
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        content = text.encode("utf-8", "surrogatepass")
    text = content.decode("utf-8", "backslashreplace")
    text = unicodedata.normalize("NFC", text)
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def alike(name):
    """What names have in common that differ in form or case alone.

    Arguments
    ---------
    name : str
        Of a file.

    Returns
    -------
    str

    Example
    -------
    >>> alike("cafe\u0301.WAV") == alike("caf\u00e9.wav")
    True
    """
    try:
        name = os.fsencode(name).decode("utf-8")
    except UnicodeError:
        name = os.fsencode(name).decode("latin-1")
    name = unicodedata.normalize("NFC", name).strip().casefold()
    return unicodedata.normalize("NFC", name)
