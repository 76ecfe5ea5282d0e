"""Data preparation for ESC-50 and data in its layout.

Reads a folder with `audio/` and `meta/esc50.csv` (the release of ESC-50, its
subset ESC-10, or your own wav, flac or Ogg files in this layout), or the
spoken digits of `fsdd_prepare.py`. Decodes every clip once and writes one
manifest per split. Nothing is written to the data folder. On request, ESC-50
is downloaded first.
"""

import csv
import hashlib
import io
import json
import logging
import os
import stat
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fsdd_prepare import RECORDINGS, digits_table

from lmac_sb.data.audio import MIN_LENGTH_S
from lmac_sb.data.decode import decode_audio
from lmac_sb.data.manifest import labels_of, to_lines
from lmac_sb.metrics.verdict import is_silent
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import part_folder, write_in_one_step

__all__ = ["ESC50_URL", "download_esc50", "prepare_esc50"]

logger = logging.getLogger(__name__)

ESC50_URL = (
    "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
)
FOLDS = {"train": (1, 2, 3), "valid": (4,), "test": (5,)}
COLUMNS = ("filename", "fold", "target", "category")
SUFFIXES = (".wav", ".flac", ".ogg")
SHOWN = 10  # number of bad clips that an error lists
ATTEMPTS = 5
TIMEOUT_S = 30.0
MAX_UNPACKED_BYTES = 4 << 30  # ESC-50 takes less than 1 GB


def prepare_esc50(
    data_folder,
    manifest_folder,
    folds=None,
    download=False,
    skip_bad_clips=False,
    accept=None,
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
    accept : callable
        Called with the entries of all splits before they are written; may
        raise.

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
    table, csv_bytes, audio = _find_table(data_folder, download)
    rows = _read_table(table, csv_bytes)
    folds = _check_folds(folds or FOLDS, {row["fold"] for row in rows}, table)
    clips = _locate(rows, folds, audio)
    content_hash = _content_hash(csv_bytes, folds, skip_bad_clips, clips)
    state = {"content_hash": content_hash, "folds": folds}
    paths = {split: manifest_folder / f"{split}.jsonl" for split in folds}
    paths["skipped"] = manifest_folder / "skipped.json"
    summary = manifest_folder / "prepared.json"
    if _up_to_date(summary, state, paths):
        skipped = json.loads(paths["skipped"].read_text(encoding="utf-8"))
    else:
        contents = _check_clips(clips, folds, data_folder, skip_bad_clips)
        skipped = contents["skipped"]
        if accept:
            accept({split: contents[split] for split in folds})
        _write_all(paths, contents, summary, state)
    if skipped:
        logger.warning(
            "%s\nThey are skipped, as %s says",
            _list_bad(skipped, len(clips), data_folder, shown=len(skipped)),
            paths["skipped"],
        )
    return {split: str(paths[split]) for split in folds}


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
                "holds audio/ and meta/esc50.csv, or the recordings/ of the "
                "Free Spoken Digit Dataset. To download ESC-50 there, "
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


def _read_table(table, content):
    """The rows of the csv in order, checked."""
    seen = {}
    checked = []
    for line, row in _parse_csv(table, content):
        place = f"{table}, line {line}"
        clip = _check_row(row, place)
        if clip["id"] in seen:
            raise LMACError(
                f"{place}: filename {shown(clip['filename'])} gives the clip "
                f"{shown(clip['id'])}, as does line {seen[clip['id']]}; each "
                "clip may occur once"
            )
        seen[clip["id"]] = line
        checked.append(clip)
    return checked


def _parse_csv(table, content):
    """Line number and fields of each row, with the expected columns."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = list(reader.fieldnames or ())
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise LMACError(f"{table}: is not a csv file ({error})") from error
    if not text.strip():
        raise LMACError(f"{table}: is empty")
    for column in COLUMNS:
        if column not in found:
            raise LMACError(
                f"{table}: has no column {column!r}, found {shown(found)}, "
                f"expected {', '.join(COLUMNS)}"
            )
    if not rows:
        raise LMACError(f"{table}: has a header but no clips")
    return rows


def _check_row(row, place):
    """The clip that a row describes."""
    if None in row or None in row.values():
        n_fields = sum(key is not None for key in row)
        raise LMACError(
            f"{place}: expected {n_fields} fields, as in the header"
        )
    _check_filename(row["filename"], place)
    if not row["fold"].strip().isdecimal() or len(row["fold"]) > 9:
        raise LMACError(
            f"{place}: fold is {shown(row['fold'])}, expected a whole number"
        )
    if not row["category"].strip() or not row["category"].isprintable():
        found = shown(row["category"]) if row["category"] else "empty"
        raise LMACError(f"{place}: category is {found}, expected a name")
    return {
        "id": Path(row["filename"]).stem,
        "filename": row["filename"],
        "fold": int(row["fold"]),
        "category": row["category"].strip(),
    }


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
    stems = audio.with_name("stems")
    if not audio.is_dir():
        raise LMACError(f"{audio}: no such folder, expected the clips there")
    audio_names = set(os.listdir(audio))
    stem_names = set(os.listdir(stems)) if stems.is_dir() else set()
    chosen = {num for nums in folds.values() for num in nums}
    clips = []
    for row in rows:
        if row["fold"] not in chosen:
            continue
        names = [row["filename"]] + [row["id"] + end for end in SUFFIXES]
        wav = next((name for name in names if name in audio_names), None)
        stem = next((name for name in names if name in stem_names), None)
        clips.append(
            {
                **row,
                "wav": None if wav is None else str(audio / wav),
                "stem": None if stem is None else str(stems / stem),
            }
        )
    return clips


def _content_hash(csv_bytes, folds, skip_bad_clips, clips):
    """SHA-256 of everything that the manifests depend on."""
    files = []
    for clip in clips:
        for path in (clip["wav"], clip["stem"]):
            if path is None or not os.path.exists(path):
                files.append([path])
            else:
                info = os.stat(path)
                files.append([path, info.st_size, info.st_mtime_ns])
    table = hashlib.sha256(csv_bytes).hexdigest()
    text = json.dumps([table, folds, bool(skip_bad_clips), files])
    return hashlib.sha256(text.encode()).hexdigest()


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


def _check_clips(clips, folds, data_folder, skip_bad_clips):
    """Decode each clip; return each split's entries, and what is skipped."""
    split_of = {num: split for split, nums in folds.items() for num in nums}
    entries = {split: {} for split in folds}
    bad = []
    for clip in clips:
        try:
            entry = _check_clip(clip)
        except LMACError as error:
            bad.append({"id": clip["id"], "reason": str(error)})
        else:
            entries[split_of[clip["fold"]]][clip["id"]] = entry
    if bad and not skip_bad_clips:
        raise LMACError(
            _list_bad(bad, len(clips), data_folder)
            + "\nRepair them, or leave them out with `skip_bad_clips: True`"
        )
    _check_classes(entries, data_folder)
    return {**entries, "skipped": bad}


def _check_clip(clip):
    """The manifest's entry for a clip, or an error that says what is wrong."""
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
    entry = {
        "wav": clip["wav"],
        "class_string": clip["category"],
        "fold": clip["fold"],
        "duration": duration,
        "num_samples": len(wav),
        "sample_rate": sample_rate,
    }
    if clip["stem"] is not None:
        stem, stem_rate = decode_audio(clip["stem"])
        if (len(stem), stem_rate) != (len(wav), sample_rate):
            raise LMACError(
                f"{clip['stem']}: {len(stem)} samples at {stem_rate} Hz, "
                f"expected {len(wav)} at {sample_rate} Hz, as in its clip"
            )
        entry["stem"] = clip["stem"]
    return entry


def _list_bad(bad, total, data_folder, shown=SHOWN):
    """The message that lists unusable clips."""
    lines = [f"{data_folder}: {len(bad)} of {total} clips cannot be used"]
    lines += [f"  {clip['reason']}" for clip in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)


def _check_classes(entries, data_folder):
    """Refuse an empty split, and classes that the train folds lack."""
    classes = {}
    for split, clips in entries.items():
        if not clips:
            raise LMACError(
                f"{data_folder}: no usable clip is left for {split}"
            )
        strings = (clip["class_string"] for clip in clips.values())
        classes[split] = set().union(*map(labels_of, strings))
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
        sha256 = {}
        for name, path in paths.items():
            is_manifest = name != "skipped"
            to_text = to_lines if is_manifest else _to_json
            sha256[name] = _write(path, to_text(contents[name]))
        _write(summary, _to_json({**state, "sha256": sha256}))
    except OSError as error:
        raise LMACError(
            f"manifest_folder {summary.parent}: cannot be written ({error})"
        ) from error


def _to_json(content):
    """JSON for people, too."""
    return json.dumps(content, indent=2) + "\n"


def _write(path, text):
    """Write in one step; return the SHA-256 of what was written."""
    write_in_one_step(path, lambda file: file.write(text))
    return hashlib.sha256(text.encode()).hexdigest()


def _fetch(url, folder):
    """Download the archive to a folder, in several attempts."""
    try:
        import pooch
        import requests
    except ImportError as error:
        raise LMACError(
            "pooch: not installed, expected pooch 1.8 or newer; "
            'run: pip install "pooch>=1.8"'
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
