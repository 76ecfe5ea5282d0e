"""Data preparation for ESC-50 and data in its layout.

Reads a folder with `audio/` and `meta/esc50.csv` (the release of ESC-50, its
subset ESC-10, or your own wav, flac or Ogg files in this layout), or the
spoken digits of `fsdd_prepare.py`. Decodes every clip once and writes one
manifest per split. Nothing is written to the data folder. On request, ESC-50
is downloaded first.
"""

import functools
import hashlib
import json
import logging
import os
import stat
import sys
import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Callable, NamedTuple, Optional

import torch
from corpus_prepare import find_corpus
from fsdd_prepare import RECORDINGS, digits_table

from lmac_sb.data.audio import MIN_LENGTH_S, is_silent
from lmac_sb.data.decode import Recording, decode_audio
from lmac_sb.data.folds import list_clips
from lmac_sb.data.manifest import labels_of, to_lines
from lmac_sb.data.names import Names
from lmac_sb.data.pieces import opened
from lmac_sb.data.places import to_entry
from lmac_sb.data.rates import resample
from lmac_sb.data.table import read_table
from lmac_sb.utils.checksums import stream_sha256
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line, part_folder, write_in_one_step

__all__ = ["ESC50_URL", "Needs", "download_esc50", "prepare_esc50"]

logger = logging.getLogger(__name__)

ESC50_URL = (
    "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
)
FOLDS = {"train": (1, 2, 3), "valid": (4,), "test": (5,)}
COLUMNS = ("filename", "fold", "target", "category")
SUFFIXES = (".wav", ".flac", ".ogg")
LONGEST = 200  # characters of a category
SHOWN = 10  # number of bad clips that an error lists
ATTEMPTS = 5
TIMEOUT_S = 30.0
MAX_UNPACKED_BYTES = 4 << 30  # ESC-50 takes less than 1 GB
FORMAT = 2  # of the entries: of an earlier one, manifests are made again


class Needs(NamedTuple):
    """What a run needs of its clips.

    Arguments
    ---------
    multilabel : bool
        Whether a plus joins the classes of a clip; else it is a character as
        any other.
    sample_rate : int
        To which each clip must be brought; None for no such rate.
    accept : callable
        Called with the entries of all splits before they are written; may
        raise.

    Example
    -------
    >>> Needs(multilabel=True).sample_rate is None
    True
    """

    multilabel: bool = False
    sample_rate: Optional[int] = None
    accept: Optional[Callable] = None


def prepare_esc50(
    data_folder,
    manifest_folder,
    folds=None,
    download=False,
    skip_bad_clips=False,
    needs=None,
):
    """Check the data and write the manifests of the three splits.

    No clip is decoded again as long as data, folds and manifests are the same
    as in the last call.

    Arguments
    ---------
    data_folder : str or path
        Folder that holds `audio/` and `meta/esc50.csv`, or the Free Spoken
        Digit Dataset, which has `recordings/`. If there is a folder `stems/`,
        it holds the event of each clip alone, under the clip's name. For a
        clip of several classes, joined by a plus, the stem has a channel for
        each.
    manifest_folder : str or path
        Folder for the manifests; never inside the data folder.
    folds : dict
        A fold or a list of folds for each of "train", "valid" and "test"; by
        default [1, 2, 3], [4] and [5].
    download : bool
        Whether to download ESC-50 if `meta/esc50.csv` is missing.
    skip_bad_clips : bool
        Whether to leave out unusable clips instead of stopping. They are
        listed in the log and in `skipped.json`.
    needs : Needs
        What the run needs; by default one class a clip.

    Returns
    -------
    dict
        Path of the manifest of "train", "valid" and "test", see
        `lmac_sb.data.manifest`.

    Raises
    ------
    LMACError
        If data or settings cannot be used; then nothing is written.

    Example
    -------
    >>> prepare_esc50("nowhere", "manifests")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: .../nowhere/meta/esc50.csv: not found; ...
    """
    data_folder = Path(data_folder).resolve()
    manifest_folder = Path(manifest_folder).resolve()
    if data_folder in (manifest_folder, *manifest_folder.parents):
        raise LMACError(
            f"manifest_folder {manifest_folder}: lies in the data folder, "
            "which is only read; expected a folder outside it"
        )
    needs = needs or Needs()
    table, rows, audio = _find_rows(
        data_folder, download, skip_bad_clips, needs.multilabel
    )
    folds = _check_folds(folds or FOLDS, {row["fold"] for row in rows}, table)
    clips = _locate(rows, folds, audio)
    if audio is not None:
        _check_targets(clips, table)
    settings = [FORMAT, folds, bool(skip_bad_clips), *needs[:2]]
    content_hash = _content_hash(settings, clips)
    state = {"content_hash": content_hash, "folds": folds}
    paths = {split: manifest_folder / f"{split}.jsonl" for split in folds}
    paths["skipped"] = manifest_folder / "skipped.json"
    summary = manifest_folder / "prepared.json"
    if _up_to_date(summary, state, paths):
        skipped = json.loads(paths["skipped"].read_text(encoding="utf-8"))
    else:
        entries, skipped = _check_clips(clips, folds, needs)
        if skipped and not skip_bad_clips:
            raise LMACError(
                _list_bad(skipped, len(clips), data_folder)
                + "\nRepair them, or leave them out with "
                "`skip_bad_clips: True` (on the command line: "
                "--skip_bad_clips True)"
            )
        _check_classes(entries, data_folder, needs.multilabel)
        if needs.accept:
            needs.accept(entries)
        contents = {**entries, "skipped": skipped}
        _write_all(paths, contents, summary, state)
    if skipped:
        logger.warning(
            "%s\nThey are skipped, as %s says",
            _list_bad(skipped, len(clips), data_folder, shown=len(skipped)),
            paths["skipped"],
        )
    return {split: str(paths[split]) for split in folds}


def _find_rows(data_folder, download, skip_bad_clips, multilabel):
    """Where the clips are listed, all of them, and the folder of their files.

    That is None if they know where they are.
    """
    table = data_folder / "meta" / "esc50.csv"
    is_other = not table.is_file() and digits_table(data_folder) is None
    corpus = find_corpus(data_folder, download) if is_other else None
    if corpus is None:
        table, content, audio = _find_table(data_folder, download)
        return table, _read_clips(table, content, multilabel), audio
    if corpus.lost and not skip_bad_clips:
        raise LMACError(
            "\n".join(corpus.lost)
            + "\nRestore them, or go on without them with "
            "`skip_bad_clips: True` (on the command line: --skip_bad_clips "
            "True)"
        )
    rows = list_clips(corpus)
    for row in rows:
        if "problem" not in row:
            row["category"] = _check_category(
                row["category"], str(row["wav"]), multilabel
            )
    return data_folder, rows, None


def _find_table(data_folder, download):
    """Path and content of the table of clips, and the folder of their files."""
    digits = digits_table(data_folder)
    if digits is not None:
        recordings = data_folder / RECORDINGS
        return recordings, digits, recordings
    table = data_folder / "meta" / "esc50.csv"
    if not table.is_file():
        if not download:
            raise LMACError(
                f"{table}: not found; data_folder must be the folder that "
                "holds audio/ and meta/esc50.csv, the recordings/ of the Free "
                "Spoken Digit Dataset, or a corpus with labels: folders of "
                "classes, a table, shards, or a data set of Hugging Face. To "
                "download ESC-50 there, "
                "ask for it with `download: True` in the yaml or "
                "`--download True`"
            )
        download_esc50(data_folder)
    try:
        return table, table.read_bytes(), data_folder / "audio"
    except OSError as error:
        raise LMACError(f"{table}: cannot be read ({error})") from error


def download_esc50(data_folder, url=None):
    """Download ESC-50 and put it at the data folder in one step.

    A failure leaves nothing behind. A download that breaks off starts anew,
    as GitHub makes its archives on demand and cannot send a part of one.

    Arguments
    ---------
    data_folder : str or path
        Folder for the data; must not exist yet, or be empty.
    url : str
        Address of a zip archive that holds `audio/` and `meta/esc50.csv`,
        at its top level or in one folder; by default `ESC50_URL`.

    Raises
    ------
    LMACError
        When the folder is in use, the archive cannot be had or used, or
        pooch, which downloads it, is not installed.

    Example
    -------
    >>> download_esc50("nowhere", "ftp://127.0.0.1/master.zip")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ftp://127.0.0.1/master.zip: ...
    """
    target = Path(data_folder).resolve()
    url = url or ESC50_URL
    if not str(url).startswith(("http://", "https://")):
        raise LMACError(f"{url}: expected an address with http:// or https://")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LMACError(
            f"{target}: exists and is not an empty folder, but has no "
            "meta/esc50.csv; nothing is downloaded over it. Name the data's "
            "own folder, or a new one"
        )
    created = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part_folder(target) as part:
            archive = _fetch(url, part)
            os.replace(_unpack(archive, part / "unpacked"), target)
    except (LMACError, OSError) as error:
        for folder in created:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        raise LMACError(
            f"{url}: could not be downloaded to {target}: {error}"
        ) from error


def _read_clips(table, content, multilabel):
    """The clips of the table in order, checked."""
    seen = {}
    checked = []
    for line, row in read_table(table, COLUMNS, content):
        place = f"{table}, line {line}"
        clip = _check_row(row, place, multilabel)
        if clip["id"] in seen:
            raise LMACError(
                f"{place}: filename {shown(clip['filename'])} gives the clip "
                f"{shown(clip['id'])}, as does line {seen[clip['id']]}; each "
                "clip may occur once"
            )
        seen[clip["id"]] = line
        checked.append({**clip, "target": row["target"], "line": line})
    if not checked:
        raise LMACError(f"{table}: has a header but no clips")
    return checked


def _check_row(row, place, multilabel):
    """The clip that a row describes."""
    _check_filename(row["filename"], place)
    if not row["fold"].isdecimal() or len(row["fold"]) > 9:
        raise LMACError(
            f"{place}: fold is {shown(row['fold'])}, expected a whole number"
        )
    return {
        "id": Path(row["filename"]).stem,
        "filename": row["filename"],
        "fold": int(row["fold"]),
        "category": _check_category(row["category"], place, multilabel),
    }


def _check_category(category, place, multilabel):
    """The class of a clip, or its classes joined by a plus."""
    if not category or not category.isprintable() or len(category) > LONGEST:
        found = shown(category) if category else "empty"
        raise LMACError(
            f"{place}: category is {found}, expected a name of up to {LONGEST} "
            "printable characters"
        )
    # One name has one form, whichever program wrote it.
    category = unicodedata.normalize("NFC", category)
    if not multilabel:
        return category
    labels = [label.strip() for label in labels_of(category)]
    if "" in labels or len(set(labels)) < len(labels):
        raise LMACError(
            f"{place}: category is {shown(category)}, expected names joined by "
            "'+', each once"
        )
    return "+".join(labels)


def _check_filename(filename, place):
    """Refuse all but plain names: ids become names of folders and files."""
    plain = (
        filename
        and not filename.startswith(".")
        and not any(c in '/\\:"' or not c.isprintable() for c in filename)
    )
    if not plain:
        raise LMACError(
            f"{place}: filename {shown(filename)} is not the plain name of a "
            "file in audio/"
        )


def _check_targets(clips, table):
    """Refuse a target of two categories, one of which may be misspelt."""
    # Where all are the same one, they number no classes; nor does one of
    # several classes.
    if len({clip["target"] for clip in clips}) < 2:
        return
    first = {}
    for clip in clips:
        name = clip["category"]
        if len(labels_of(name)) > 1:
            continue
        known = first.setdefault(clip["target"], clip)
        if known["category"] != name:
            raise LMACError(
                f"{table}, line {clip['line']}: target {clip['target']} is "
                f"{shown(name)} here, but {shown(known['category'])} in line "
                f"{known['line']}; expected one category for each target"
            )


def _check_folds(asked, present, table):
    """The folds of each split as lists; each must exist and be used once."""
    folds = {}
    used = {}
    for split, nums in asked.items():
        key = f"{split}_fold_nums"
        if isinstance(nums, int):
            nums = [nums]
        if not isinstance(nums, (list, tuple)) or any(
            isinstance(num, bool) or not isinstance(num, int) for num in nums
        ):
            raise LMACError(
                f"{key}: found {nums!r}, expected a fold or a list of folds"
            )
        if not nums:
            raise LMACError(f"{key}: is empty, expected at least one fold")
        for num in nums:
            if num not in present:
                raise LMACError(
                    f"{key}: fold {num} does not occur in {table}, which has "
                    f"the folds {', '.join(map(str, sorted(present)))}"
                )
            if num in used:
                raise LMACError(
                    f"{key}: fold {num} is already used in {used[num]}; each "
                    "fold may be used once"
                )
            used[num] = key
        folds[split] = [int(num) for num in nums]
    return folds


def _locate(rows, folds, audio):
    """The clips of the chosen folds, with their files (None if missing)."""
    if audio is None:
        chosen = {num for nums in folds.values() for num in nums}
        return [row for row in rows if row["fold"] in chosen]
    stems = Names(audio.with_name("stems"))
    if not audio.is_dir():
        raise LMACError(f"{audio}: no such folder, expected the clips there")
    files = Names(audio)
    named = {row["filename"] for row in rows}
    chosen = {num for nums in folds.values() for num in nums}
    clips, owners = [], {}
    for row in rows:
        if row["fold"] not in chosen:
            continue
        names = [row["filename"]] + [row["id"] + end for end in SUFFIXES]
        clip = {**row, "wav": None, "stem": None}
        try:
            clip["wav"], clip["stem"] = files.find(names), stems.find(names)
        except LMACError as error:
            clip["problem"] = str(error)
        found = clip["wav"] and clip["wav"].name
        if found not in names and found in named:
            clip["wav"] = None  # it is another row's, by its very name
        elif owners.setdefault(found, row["id"]) != row["id"] and found:
            clip["problem"] = (
                f"{row['filename']}: found {shown(found)} alone, which is "
                f"the clip {shown(owners[found])}"
            )
        clips.append(clip)
    return clips


def _content_hash(settings, clips):
    """SHA-256 of everything that the manifests depend on."""
    states = functools.lru_cache(maxsize=64)(_state_of)
    digest = hashlib.sha256(json.dumps(settings).encode())
    for clip in clips:
        files = [
            [to_entry(place), states(getattr(place, "file", str(place)))]
            for place in (clip["wav"], clip["stem"])
        ]
        what = [clip[key] for key in ("id", "filename", "fold", "category")]
        digest.update(json.dumps([what, files]).encode())
    return digest.hexdigest()


def _state_of(path):
    """What is another when a file is; None of none."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    # Of the three, programs that copy a file keep the first two.
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _up_to_date(summary, state, paths):
    """Whether the manifests are the ones that would be written now."""
    try:
        stored = json.loads(summary.read_text(encoding="utf-8"))
        same = all(stored[key] == state[key] for key in state) and all(
            hashlib.sha256(path.read_bytes()).hexdigest()
            == stored["sha256"][split]
            for split, path in paths.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same


def _check_clips(clips, folds, needs):
    """Decode each clip; return each split's entries, and the bad clips."""
    split_of = {num: split for split, nums in folds.items() for num in nums}
    entries = {split: {} for split in folds}
    bad = []
    for clip in clips:
        try:
            entry = _check_clip(clip, needs)
        except LMACError as error:
            reason = str(error)
        except Exception as error:
            # Whatever is wrong with a file is no reason to stop at it.
            what = clip["wav"] or clip["filename"]
            reason = f"{what}: {type(error).__name__}: {first_line(error)}"
        else:
            entries[split_of[clip["fold"]]][clip["id"]] = entry
            continue
        # Names that are not UTF-8 cannot be printed.
        reason = reason.encode("utf-8", "backslashreplace").decode("utf-8")
        bad.append({"id": clip["id"], "reason": reason})
    return entries, bad


def _check_clip(clip, needs):
    """The manifest's entry for a clip, or an error that says what is wrong."""
    if "problem" in clip:
        raise LMACError(clip["problem"])
    if clip["wav"] is None:
        raise LMACError(f"{clip['filename']}: no such file in audio/")
    wav, sample_rate = decode_audio(clip["wav"])
    duration = len(wav) / sample_rate
    if duration < MIN_LENGTH_S:
        raise LMACError(
            f"{clip['wav']}: {duration:.4f} s long, expected at least "
            f"{MIN_LENGTH_S} s"
        )
    if is_silent(wav):
        raise LMACError(f"{clip['wav']}: is silent")
    if needs.sample_rate is not None:
        _check_rate(sample_rate, needs.sample_rate, clip["wav"])
    entry = {
        "wav": to_entry(clip["wav"]),
        "class_string": clip["category"],
        "fold": clip["fold"],
        "duration": duration,
        "num_samples": len(wav),
        "sample_rate": sample_rate,
        "sha256": _sha256(clip["wav"]),
    }
    if clip["stem"] is not None:
        _check_stem(clip, len(wav), sample_rate, needs.multilabel)
        entry["stem"] = to_entry(clip["stem"])
        entry["stem_sha256"] = _sha256(clip["stem"])
    return entry


def _sha256(place):
    """Checksum of a sound's content, wherever it is."""
    with opened(place) as file:
        return stream_sha256(file)


def _check_rate(found_rate, sample_rate, path):
    """Refuse a rate from which training could not resample."""
    try:
        _try_rate(found_rate, sample_rate)
    except LMACError as error:
        raise LMACError(f"{path}{error}") from error


@functools.lru_cache(maxsize=None)
def _try_rate(found_rate, sample_rate):
    """Resample a little; once for all clips of a rate."""
    resample(torch.zeros(1000), found_rate, sample_rate, "")


def _check_stem(clip, n_samples, sample_rate, multilabel):
    """Refuse a stem that does not fit its clip."""
    stem, stem_rate = decode_audio(clip["stem"])
    if (len(stem), stem_rate) != (n_samples, sample_rate):
        raise LMACError(
            f"{clip['stem']}: {len(stem)} samples at {stem_rate} Hz, "
            f"expected {n_samples} at {sample_rate} Hz, as in its clip"
        )
    n_labels = len(labels_of(clip["category"]))
    n_channels = Recording(clip["stem"]).channels
    if multilabel and n_channels != n_labels:
        raise LMACError(
            f"{clip['stem']}: {n_channels} channels, expected {n_labels}, one "
            f"for each of {clip['category']}"
        )


def _list_bad(bad, total, data_folder, shown=SHOWN):
    """The message that lists unusable clips."""
    lines = [f"{data_folder}: {len(bad)} of {total} clips cannot be used"]
    lines += [f"  {clip['reason']}" for clip in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)


def _check_classes(entries, data_folder, multilabel):
    """Refuse an empty split, and classes that the train folds lack."""
    classes = {}
    for split, clips in entries.items():
        if not clips:
            raise LMACError(
                f"{data_folder}: no usable clip is left for {split}"
            )
        found = {clip["class_string"] for clip in clips.values()}
        if multilabel:
            found = set().union(*map(labels_of, found))
        classes[split] = found
    for split in ("valid", "test"):
        unknown = sorted(classes[split] - classes["train"])
        if unknown:
            raise LMACError(
                f"{data_folder}: {split} has classes without a clip in the "
                f"train folds: {', '.join(unknown)}"
            )


def _write_all(paths, contents, summary, state):
    """Write the manifests, then the summary that vouches for them."""
    try:
        summary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LMACError(
            f"manifest_folder {summary.parent}: cannot be made ({error})"
        ) from error
    sha256 = {}
    for name, path in paths.items():
        to_text = _to_json if name == "skipped" else to_lines
        sha256[name] = _write(path, to_text(contents[name]))
    _write(summary, _to_json({**state, "sha256": sha256}))


def _to_json(content):
    """JSON for people, too."""
    return json.dumps(content, indent=2) + "\n"


def _write(path, text):
    """Write in one step; return the SHA-256 of what was written."""
    try:
        write_in_one_step(path, lambda file: file.write(text))
    except OSError as error:
        raise LMACError(f"{path}: cannot be written ({error})") from error
    return hashlib.sha256(text.encode()).hexdigest()


def _fetch(url, folder):
    """Download the archive to a folder, in several attempts."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise LMACError(
            "pooch: not installed, expected pooch 1.8 or newer; "
            'run: pip install "lmac-sb[download]"'
        ) from error
    # Without a checksum, as the archive is of the newest commit.
    source = pooch.create(
        path=folder,
        base_url="",
        registry={"archive.zip": None},
        urls={"archive.zip": url},
        retry_if_failed=ATTEMPTS - 1,
    )
    try:
        return source.fetch("archive.zip", downloader=_download)
    except requests.ConnectionError as error:
        raise LMACError(
            f"no connection ({error}); try again, or unpack the archive there "
            "by hand"
        ) from error


def _download(url, file, source):
    """One attempt; what cannot get better ends them all."""
    import pooch
    import requests

    fetch = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=1 << 18, timeout=TIMEOUT_S
    )
    try:
        fetch(url, file, source)
    except requests.HTTPError as error:
        status = error.response.status_code
        # Of these two kinds pooch tries the first one again.
        passing = status >= 500 or status in (408, 429)
        kind = requests.RequestException if passing else OSError
        raise kind(f"HTTP status {status} ({error.response.reason})") from error


def _unpack(archive, folder):
    """Check and unpack an archive; return the folder that holds its data."""
    try:
        with zipfile.ZipFile(archive) as opened:
            _check_members(opened)
            bad = opened.testzip()
            if bad is not None:
                raise LMACError(f"its member {bad!r} is damaged")
            folder.mkdir()
            opened.extractall(folder)
    except (
        EOFError,
        RuntimeError,  # from zipfile: an unknown method of compression
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise LMACError(f"what was received is not usable: {error}") from error
    for place in (folder, *sorted(folder.iterdir())):
        table = place / "meta" / "esc50.csv"
        if table.is_file() and (place / "audio").is_dir():
            return place
    raise LMACError("the archive has no audio/ and meta/esc50.csv")


def _check_members(archive):
    """Refuse members that would leave the folder, and a huge archive."""
    total = 0
    for member in archive.infolist():
        # Some archives have Windows' separators.
        name = member.orig_filename.replace("\\", "/")
        path = PurePosixPath(name)
        mode = member.external_attr >> 16
        if (
            path.is_absolute()
            or ".." in path.parts
            or ":" in name
            or stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            raise LMACError(
                f"its member {member.orig_filename!r} would leave the folder, "
                "or is no plain file"
            )
        if member.flag_bits & 1:
            raise LMACError(f"its member {name!r} is encrypted")
        total += member.file_size
    if total > MAX_UNPACKED_BYTES:
        raise LMACError(
            f"it unpacks to {total} bytes, expected at most "
            f"{MAX_UNPACKED_BYTES}"
        )
