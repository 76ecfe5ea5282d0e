"""Files by the names that a table has for them."""

import os
import unicodedata
from pathlib import Path

from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Names"]


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
            self._alike.setdefault(_key(name), []).append(name)

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
            found = self._alike.get(_key(name), [])
            if len(found) > 1:
                raise LMACError(
                    f"{shown(names[0])}: can be either of "
                    f"{', '.join(map(shown, sorted(found)))} in {self.folder}"
                )
            if found:
                return self.folder / found[0]
        return None


def _key(name):
    """What names have in common that differ in form or case alone."""
    try:
        name = os.fsencode(name).decode("utf-8")
    except UnicodeError:
        name = os.fsencode(name).decode("latin-1")
    name = unicodedata.normalize("NFC", name).strip().casefold()
    return unicodedata.normalize("NFC", name)
