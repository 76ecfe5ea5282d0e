"""Clips that a table or a manifest lists."""

import functools
import os
from pathlib import Path

from lmac_sb.data.columns import (
    LABEL,
    check_column,
    find_column,
    label_of,
    listed,
)
from lmac_sb.data.file_column import choose_column, say_rivals, whole_number
from lmac_sb.data.listing import Listing
from lmac_sb.data.manifest import Manifest
from lmac_sb.data.names import AUDIO, Names, is_audio, plain_path
from lmac_sb.data.places import Lost, place_of
from lmac_sb.data.rows import as_text, open_rows, some_of
from lmac_sb.data.texts import Labels, Texts
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Listed", "ManifestClips"]

# Where the files may be, seen from the table or from the folder around it.
_BESIDE = ("", "audio", "wav", "wavs", "clips", "sounds", "recordings", "data")
_LOOKED_AT = 100  # rows by which the column with files is found
# Of what a manifest of the recipe has, that is not of the user.
_OWN = {
    *("wav", "class_string", "num_samples", "sample_rate", "duration"),
    *("sha256", "stem", "stem_sha256"),
}


class Listed(Listing):
    r"""A clip for each row of a table.

    Arguments
    ---------
    path : str or Path
        A table, see `lmac_sb.data.rows.open_rows`.
    column : str
        The one with files; by default the one that fits, see
        `lmac_sb.data.file_column.choose_column`. They may lack their ending,
        and lie beside the table, in a folder such as `audio` there, or beside
        the table's folder.

    Raises
    ------
    LMACError
        If it is no table, or no file of it is there.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "audio").mkdir()
    >>> (folder / "audio" / "a.wav").touch()
    >>> _ = (folder / "x.csv").write_text("label,file,site\ndog,a,1\n")
    >>> clips = Listed(folder / "x.csv")
    >>> clips.sound(0).endswith("audio/a.wav"), clips.label_column
    (True, 'label')
    """

    def __init__(self, path, column=None):
        folder = Path(path).parent
        self._bases = [
            os.path.normpath(base / name)
            for base in (folder, folder.resolve().parent)
            for name in _BESIDE
        ]
        self.rows = open_rows(
            path, lambda text: any(_find(base, text) for base in self._bases)
        )
        columns = self.rows.columns
        check_column(column, columns, path)
        self._base, self._column, rivals = self._choose(column)
        names, labels = self._read()
        super().__init__(names, labels)
        self.columns = [name for name in columns if name != self._column]
        self.label_column = find_column(self.columns, LABEL)
        self.notes = [*self.rows.notes, *rivals]

    def sound(self, place):
        """Path of its file, see `Listing`."""
        text = self.rows[place][self._column]
        if text is None:
            line = self.rows.line(place)
            return Lost(f"{self.rows.path}, line {line}", "names no file")
        return _find(self._base, text) or os.path.join(self._base, text)

    def row(self, place):
        """Its row, see `Listing`."""
        row = self.rows[place]
        return {name: row[name] for name in self.columns}

    def _values_in(self, column):
        return self.rows.labels(column)

    def _choose(self, column):
        """Folder and column of the files, and what is odd about these."""
        some = some_of(self.rows, _LOOKED_AT)
        texts, found, base_of = {}, {}, {}
        for name in [column] if column else self.rows.columns:
            texts[name] = [row[name] for row in some]
            base_of[name], found[name] = _most_files(self._bases, texts[name])
        best, rivals = choose_column(texts, found)
        if best is None:
            raise LMACError(
                f"{self.rows.path}: no column names files that are there; "
                f"found {listed(self.rows.columns)}; expected paths as seen "
                "from the table's folder"
            )
        said = say_rivals(self.rows.path, best, rivals)
        return base_of[best], best, said

    def _read(self):
        """Names of the clips, and their labels."""
        texts = Texts(
            row[self._column] or f"line {self.rows.line(i)}"
            for i, row in enumerate(self.rows)
        )
        above = {os.path.dirname(x) for x in texts if os.path.isabs(x)}
        above = os.path.commonpath(above) if above else ""
        names = (
            os.path.relpath(text, above)
            if os.path.isabs(text)
            else text.replace("\\", "/")
            for text in texts
        )
        label = find_column(
            [name for name in self.rows.columns if name != self._column], LABEL
        )
        labels = self.rows.labels(label) if label else ()
        return Texts(map(plain_path, names)), Labels(labels)


class ManifestClips(Listing):
    """The clips of a manifest, as the data preparation writes it.

    Arguments
    ---------
    path : str or Path
        The manifest.

    Example
    -------
    >>> path = getfixture("tmp_path") / "train.jsonl"
    >>> _ = path.write_text('{"id": "one", "wav": "a.wav", "fold": 2}')
    >>> clips = ManifestClips(path)
    >>> list(clips.names), clips.row(0)
    (['one'], {'fold': '2'})
    """

    def __init__(self, path):
        labels, columns, path = [], {}, Path(path)

        def visit(clip_id, entry):
            """Note what all entries are needed for."""
            if "wav" not in entry:
                raise LMACError(f"{path}: clip {shown(clip_id)} has no 'wav'")
            labels.append(label_of(entry.get("class_string")))
            columns.update(dict.fromkeys(entry))

        self._manifest = Manifest(path, visit)
        super().__init__(Texts(self._manifest.ids), Labels(labels))
        self.columns = [name for name in columns if name not in _OWN]

    def sound(self, place):
        """Where the manifest has it; paths are seen from its folder."""
        found = place_of(self._manifest.at(place)[1]["wav"])
        if isinstance(found, str):
            found = os.path.join(self._manifest.path.parent, found)
        return found

    def row(self, place):
        """What else the manifest says, see `Listing`."""
        entry = self._manifest.at(place)[1]
        return {name: as_text(entry.get(name)) for name in self.columns}

    def _values_in(self, column):
        for place in range(len(self)):
            yield self._manifest.at(place)[1].get(column)


def _most_files(bases, texts):
    """The folder in which the most files of a column are, and these."""
    best = bases[0], {}
    for base in bases:
        files = {text: _find(base, text) for text in {*texts} - {None}}
        files = {text: file for text, file in files.items() if file}
        # Of several that are as good, the first one.
        if len(files) > len(best[1]):
            best = base, files
    return best[0], [best[1].get(text) for text in texts]


def _find(base, text):
    """The file that a table means; None if it is not there."""
    path = os.path.join(base, text)
    if os.path.isfile(path):
        return path
    folder, name = os.path.split(path.replace("\\", "/"))
    names = [name]
    if not is_audio(name):
        stems = dict.fromkeys([name, whole_number(name)])
        names += [f"{x}.{ending}" for x in stems for ending in sorted(AUDIO)]
    try:
        found = _names(folder, os.stat(folder).st_mtime_ns).find(names)
    except (OSError, ValueError, LMACError):
        return None
    return None if found is None or found.is_dir() else os.fspath(found)


@functools.lru_cache(maxsize=64)
def _names(folder, state):
    """Names of the files in a folder, which is another when it changed."""
    return Names(folder)
