"""Data preparation for ESC-50 and data in its layout.

Reads a folder with `audio/` and `meta/esc50.csv` (the release of ESC-50, its
subset ESC-10, or own data in this layout; wav, flac or Ogg), or the spoken
digits of `fsdd_prepare.py`, decodes every clip once, and writes one manifest
per split. The data folder is only read. When asked to, ESC-50 is downloaded
first.
"""

import csv
import hashlib
import http.client
import io
import json
import logging
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from fsdd_prepare import RECORDINGS, digits_table

from lmac_sb.data.audio import MIN_LENGTH_S, decode_audio
from lmac_sb.data.manifest import labels_of, to_lines
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.lock import remove_leftovers

__all__ = ["ESC50_URL", "download_esc50", "prepare_esc50"]

logger = logging.getLogger(__name__)

ESC50_URL = (
    "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip"
)
COLUMNS = ("filename", "fold", "target", "category")
SUFFIXES = (".wav", ".flac", ".ogg")
SHOWN = 10  # bad clips listed in an error
ATTEMPTS = 5
PAUSE_S = 2.0  # before the second attempt, then longer
TIMEOUT_S = 30.0
MAX_UNPACKED_BYTES = 4 << 30  # ESC-50 takes less than 1 GB


def prepare_esc50(
    data_folder,
    manifest_folder,
    train_fold_nums=(1, 2, 3),
    valid_fold_nums=(4,),
    test_fold_nums=(5,),
    download=False,
    skip_bad_clips=False,
    download_url=ESC50_URL,
    accept=None,
):
    """Check the data and write the manifests of the three splits.

    Nothing is decoded again as long as data, folds and manifests are the
    ones of the last call.

    Arguments
    ---------
    data_folder : str or path
        Folder that holds `audio/` and `meta/esc50.csv`; `stems/`, where it
        exists, holds each clip's event alone, under the clip's name; of a
        clip of several classes, joined by a plus, a channel for each. Or the
        Free Spoken Digit Dataset, which has `recordings/`.
    manifest_folder : str or path
        Where the manifests go; never inside of the data folder.
    train_fold_nums : int or list of int
        Folds to train on.
    valid_fold_nums : int or list of int
        Folds to validate on.
    test_fold_nums : int or list of int
        Folds to test on.
    download : bool
        Whether to download ESC-50 when `meta/esc50.csv` is absent.
    skip_bad_clips : bool
        Whether to leave clips out that cannot be used, listing them in the
        log and in `skipped.json`, instead of stopping.
    download_url : str
        Address of the zip archive to download.
    accept : callable
        Called with each split's entries before they are written; may raise.

    Returns
    -------
    dict
        Path of the manifest of "train", "valid" and "test", see
        `lmac_sb.data.manifest`.

    Raises
    ------
    LMACError
        When data or settings cannot be used; nothing is written then.

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
            "which is only read; a folder outside of it is needed"
        )
    digits = digits_table(data_folder)
    audio = data_folder / ("audio" if digits is None else RECORDINGS)
    table = audio if digits else data_folder / "meta" / "esc50.csv"
    if digits is None and not table.is_file():
        if not download:
            raise LMACError(
                f"{table}: not found; data_folder must be the folder that "
                "holds audio/ and meta/esc50.csv, or the recordings/ of the "
                "Free Spoken Digit Dataset. To download ESC-50 there, "
                "ask for it with `download: True` in the yaml or "
                "`--download True`"
            )
        download_esc50(data_folder, download_url)
    try:
        csv_bytes = digits or table.read_bytes()
    except OSError as error:
        raise LMACError(f"{table}: cannot be read ({error})") from error
    rows = _read_table(table, csv_bytes)
    folds = _check_folds(
        {
            "train": train_fold_nums,
            "valid": valid_fold_nums,
            "test": test_fold_nums,
        },
        {row["fold"] for row in rows},
        table,
    )
    clips = _locate(rows, folds, audio)
    content_hash = _content_hash(csv_bytes, folds, skip_bad_clips, clips)
    state = {"content_hash": content_hash, "folds": folds}
    paths = {split: manifest_folder / f"{split}.jsonl" for split in folds}
    paths["skipped"] = manifest_folder / "skipped.json"
    summary = manifest_folder / "prepared.json"
    remove_leftovers(manifest_folder, r".+\.jsonl?\.(\d+)\.tmp")
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


def download_esc50(data_folder, url=ESC50_URL):
    """Download ESC-50 and put it at the data folder in one step.

    An interrupted download stays beside the folder, as `<name>.part.zip`,
    and is resumed by the next call. Nothing else is left by a failure.

    Arguments
    ---------
    data_folder : str or path
        Where the data will be; must not exist yet, or be empty.
    url : str
        Address of a zip archive that holds `audio/` and `meta/esc50.csv`,
        at its top or in its top folder.

    Raises
    ------
    LMACError
        When the folder is in use, or the archive cannot be had or used.

    Example
    -------
    >>> download_esc50("nowhere", "ftp://127.0.0.1/master.zip")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ftp://127.0.0.1/master.zip: ...
    """
    target = Path(data_folder).resolve()
    if not str(url).startswith(("http://", "https://")):
        raise LMACError(f"{url}: an address with http:// or https:// is needed")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LMACError(
            f"{target}: exists and is not an empty folder, but has no "
            "meta/esc50.csv; nothing is downloaded over it. Name the data's "
            "own folder, or a new one"
        )
    part = target.with_name(target.name + ".part.zip")
    unpacked = target.with_name(target.name + ".part.unpacked")
    created = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, part)
        _install(part, unpacked, target)
    except (LMACError, OSError) as error:
        for folder in created:
            if not folder.is_dir() or any(folder.iterdir()):
                break
            folder.rmdir()
        left = (
            f" What was received stays at {part}, to be resumed."
            if part.exists()
            else ""
        )
        raise LMACError(
            f"{url}: could not be downloaded to {target}: {error}.{left}"
        ) from error


def _read_table(table, content):
    """The csv's rows in their order, checked."""
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
                f"{table}: has no column {column!r}, found {shown(found)}; "
                f"needed {', '.join(COLUMNS)}"
            )
    if not rows:
        raise LMACError(f"{table}: has a header and no clips")
    seen = {}
    checked = []
    for line, row in rows:
        place = f"{table}, line {line}"
        if None in row or None in row.values():
            raise LMACError(
                f"{place}: needs {len(found)} fields, as the header has"
            )
        filename, clip_id = row["filename"], Path(row["filename"]).stem
        _check_filename(filename, place)
        if clip_id in seen:
            raise LMACError(
                f"{place}: filename {shown(filename)} gives the clip "
                f"{shown(clip_id)}, as line {seen[clip_id]} does; each may "
                "occur once"
            )
        seen[clip_id] = line
        if not row["fold"].strip().isdecimal() or len(row["fold"]) > 9:
            raise LMACError(
                f"{place}: fold is {shown(row['fold'])}, needed a whole number"
            )
        if not row["category"].strip() or not row["category"].isprintable():
            found = shown(row["category"]) if row["category"] else "empty"
            raise LMACError(f"{place}: category is {found}, needed a name")
        checked.append(
            {
                "id": clip_id,
                "filename": filename,
                "fold": int(row["fold"]),
                "category": row["category"].strip(),
            }
        )
    return checked


def _check_filename(filename, place):
    """A plain name, as ids become names of folders and files later on."""
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
    """The folds of each split as lists: known, and used only once."""
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
                f"{key}: found {nums!r}, needed a fold or a list of folds"
            )
        if not nums:
            raise LMACError(f"{key}: is empty, at least one fold is needed")
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
    """The clips of the chosen folds, with their files (None: not there)."""
    stems = audio.with_name("stems")
    if not audio.is_dir():
        raise LMACError(f"{audio}: no such folder, the clips are needed there")
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
    """SHA-256 over all that the manifests depend on."""
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
            + "\nMend them, or leave them out with `skip_bad_clips: True`"
        )
    _check_classes(entries, data_folder)
    return {**entries, "skipped": bad}


def _check_clip(clip):
    """The manifest's entry of a clip, or an error with what is wrong."""
    if clip["wav"] is None:
        raise LMACError(f"{clip['filename']}: no such file in audio/")
    wav, sample_rate = decode_audio(clip["wav"])
    duration = len(wav) / sample_rate
    if duration < MIN_LENGTH_S:
        raise LMACError(
            f"{clip['wav']}: {duration:.4f} s long, at least {MIN_LENGTH_S} "
            "s are needed"
        )
    if not wav.any():
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
                f"needed {len(wav)} at {sample_rate} Hz, as in its clip"
            )
        entry["stem"] = clip["stem"]
    return entry


def _list_bad(bad, total, data_folder, shown=SHOWN):
    """The message on bad clips."""
    lines = [f"{data_folder}: {len(bad)} of {total} clips cannot be used"]
    lines += [f"  {clip['reason']}" for clip in bad[:shown]]
    if len(bad) > shown:
        lines.append(f"  and {len(bad) - shown} more")
    return "\n".join(lines)


def _check_classes(entries, data_folder):
    """No split may be empty, or have classes that training lacks."""
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
    data = text.encode()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return hashlib.sha256(data).hexdigest()


def _fetch(url, part):
    """Download to `part`, from where it ends, in several attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if _fetch_once(url, part):
                return
            reason = f"the connection broke off at byte {part.stat().st_size}"
        except urllib.error.HTTPError as error:
            reason = f"HTTP status {error.code} ({error.reason})"
            if error.code < 500 and error.code not in (408, 429):
                raise LMACError(reason) from error
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
        logger.warning(
            "%s: attempt %d of %d: %s", url, attempt, ATTEMPTS, reason
        )
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_S * attempt)
    raise LMACError(f"{reason}, after {ATTEMPTS} attempts")


def _fetch_once(url, part):
    """One attempt; whether `part` is complete after it."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not offset:
            raise
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return True  # all of it had been received
        part.unlink()  # of another archive, or too long
        return _fetch_once(url, part)
    with response:
        total = response.headers.get("Content-Length")
        total = None if total is None else int(total)
        resumed = response.status == 206
        if resumed:
            given = response.headers.get("Content-Range", "")
            if not given.startswith(f"bytes {offset}-"):
                part.unlink()
                raise OSError(f"the server sent another range, {given!r}")
            total = None if total is None else total + offset
        # A server that ignores the range sends all of it again.
        with open(part, "ab" if resumed else "wb") as file:
            shutil.copyfileobj(response, file, 1 << 18)
    return total is None or part.stat().st_size == total


def _install(part, unpacked, target):
    """Unpack a complete archive and move its data to the target."""
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        os.rename(_unpack(part, unpacked), target)
    except (
        EOFError,
        RuntimeError,  # of zipfile: a way of packing that it does not know
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        part.unlink()  # it is complete and wrong: nothing to resume
        raise LMACError(
            f"what was received is not usable and was removed: {error}"
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
    part.unlink()


def _unpack(part, unpacked):
    """Check and unpack an archive; return the folder that holds its data."""
    with zipfile.ZipFile(part) as archive:
        _check_members(archive)
        bad = archive.testzip()
        if bad is not None:
            raise LMACError(f"its member {bad!r} is damaged")
        unpacked.mkdir()
        archive.extractall(unpacked)
    for folder in (unpacked, *sorted(unpacked.iterdir())):
        table = folder / "meta" / "esc50.csv"
        if table.is_file() and (folder / "audio").is_dir():
            return folder
    raise LMACError("the archive has no audio/ and meta/esc50.csv")


def _check_members(archive):
    """Refuse members that leave the folder, and an absurd size."""
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
            f"it unpacks to {total} bytes, at most {MAX_UNPACKED_BYTES} are "
            "expected"
        )
