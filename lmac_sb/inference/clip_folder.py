"""Write and read the folder of an explained clip.

A folder holds the sounds ``original``, ``interpretation`` and ``residual``,
the picture ``spectra.png``, and ``maps.npz`` and ``explanation.json`` for the
report. If the mask was refined, a sub-folder ``unrefined`` may hold the same
for the decoder's own mask.
"""

import io
import json
import math
import os
import re
import shutil
import struct
import sys
import unicodedata
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf
import torch

from lmac_sb.inference.clip_facts import read_facts
from lmac_sb.inference.questions import class_number
from lmac_sb.inference.spectra import (
    FLOOR,
    MAX_FRAMES,
    PROBABILITIES,
    RANGE_DB,
    SOUNDS,
    levels_of,
    picture_of,
    probabilities_of,
    sounds_of,
)
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import (
    first_line,
    folder_in_one_step,
    naming,
    open_regular,
    part_folder,
)

__all__ = [
    "AUDIO_FORMATS",
    "FACTS",
    "FILES",
    "UNREFINED",
    "ClipFiles",
    "check_format",
    "common_gain",
    "facts_of",
    "folder_names",
    "gain_in_words",
    "name_key",
    "new_clip",
    "read_clip",
    "save_clip",
    "write_clip",
    "write_data",
]

AUDIO_FORMATS = {"wav": "PCM_24", "flac": "PCM_24"}  # ending to samples
FACTS, MAPS, PICTURE = "explanation.json", "maps.npz", "spectra.png"
_MAPS = ("mask", "level", "kept")  # the last one not always
UNREFINED = "unrefined"  # sub-folder, for the decoder's own mask
# What a clip's folder may hold besides.
FILES = {FACTS, MAPS, PICTURE} | {
    f"{name}.{ending}" for name in SOUNDS for ending in AUDIO_FORMATS
}
_QUIETEST = 0.1  # peak of what is written, so that it can be heard
_BLOCK = 1 << 18  # samples that are processed at a time
_NAME_BYTES = 150  # longest name of a folder
# Endings of names that files have, here or beside the folders of clips.
_ENDINGS = r"(json|npz|png|wav|flac|html|csv|md|txt|part|former|lock|tmp)"
# Names that Windows keeps for itself, whatever their ending.
_DEVICES = r"(con|prn|aux|nul|(com|lpt)[0-9])(\..*)?"
_MOST_BINS = 1 << 14  # of a map
_MOST_SOUND = 1 << 36  # bytes of a file; its samples are counted too


def check_format(audio_format):
    """Refuse a format in which sounds cannot be written.

    Arguments
    ---------
    audio_format : str
        Should be one of `AUDIO_FORMATS`.

    Raises
    ------
    LMACError
        Names the formats that there are.

    Example
    -------
    >>> check_format("mp3")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: format: found 'mp3', expected one of wav, flac
    """
    if audio_format not in AUDIO_FORMATS:
        raise LMACError(
            f"format: found '{audio_format}', expected one of "
            f"{', '.join(AUDIO_FORMATS)}"
        )


def save_clip(folder, clip, truth=None, audio_format="wav"):
    """Write one explained clip for a person to hear and see.

    The sounds ``original``, ``interpretation`` (what the decision rests on)
    and ``residual`` (the rest) are mono, 24 bit, of the clip's length and
    share one gain, see `common_gain`. ``spectra.png`` shows all three and the
    mask on common axes. ``maps.npz`` and ``explanation.json`` hold mask,
    level, probabilities, verdict and metrics, the gain, and what made them.
    If the clip has an explanation by the decoder's own mask, a folder
    ``unrefined`` holds the same of that.

    A new folder appears complete or not at all. In one that exists,
    ``explanation.json`` comes last, an earlier clip gives way, and other
    files stay.

    Arguments
    ---------
    folder : str or Path
        Made if need be; its name becomes the clip's id.
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    truth : str
        The clip's label, if it is known.
    audio_format : str
        ``wav`` or ``flac``.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    LMACError
        If the format is unknown.
    OSError
        If the disk is full or cannot be written to; names the folder.
    """
    check_format(audio_format)
    folder = Path(folder)
    with new_clip(folder) as part:
        name = folder.resolve().name
        write_clip(part, clip, name, truth, audio_format)
    return folder


@contextmanager
def new_clip(folder):
    """A folder to write a clip to, or clips, which then becomes another one.

    Arguments
    ---------
    folder : str or Path
        A new folder gets its name when it is complete. Into one that exists,
        which may be the one that the user is in, the files are moved at the
        end, each ``explanation.json`` as the last one of its folder.

    Returns
    -------
    context manager
        Gives the Path of an empty folder.

    Raises
    ------
    OSError
        Names the folder, whatever could not be written.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> with new_clip(folder) as part:
    ...     (part / "a").touch()
    >>> [path.name for path in folder.iterdir()]
    ['a']
    """
    folder = Path(folder)
    with naming(folder):
        if not folder.is_dir():
            with folder_in_one_step(folder) as part:
                yield part
            return
        with part_folder(folder / "clip") as part:
            yield part
            _move_into(part, folder)


def write_clip(part, clip, name, truth=None, audio_format="wav", more=None):
    """Write the files of a clip into a folder that nobody else uses.

    Arguments
    ---------
    part : str or Path
        From `new_clip`, or in there; made if need be.
    clip : lmac_sb.inference.explanation.AudioExplanation
        See `save_clip`.
    name : str
        The clip's id.
    truth : str
        See `save_clip`.
    audio_format : str
        See `save_clip`.
    more : dict
        Further values of ``explanation.json``.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> write_clip(folder, interpreter.explain_file(path), "x")
    >>> (folder / "explanation.json").is_file()
    True
    """
    written = write_data(part, clip, name, truth, audio_format, more)
    for folder, shown_clip, maps in written:
        (folder / PICTURE).write_bytes(picture_of(shown_clip, truth, maps))


def write_data(part, clip, name, truth=None, audio_format="wav", more=None):
    """Write all files of a clip but its picture.

    That takes most of the time, and the report does without it.

    Arguments
    ---------
    part : str or Path
        See `write_clip`, and for what follows.
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    name, truth : str
        The clip's id, and its label if it is known.
    audio_format : str
        ``wav`` or ``flac``.
    more : dict
        Further values of ``explanation.json``.

    Returns
    -------
    list
        (folder, explanation, maps) of the clip, and of its explanation by the
        decoder's own mask if there is one; see `picture_of`.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "x"
    >>> _ = write_data(folder, interpreter.explain_file(path), "x")
    >>> (folder / "spectra.png").exists()
    False
    """
    part = Path(part)
    part.mkdir(exist_ok=True)
    sounds = sounds_of(clip)
    gain = common_gain(sounds.values())
    maps, hop_samples = levels_of(clip)
    content = {
        **facts_of(clip, truth),
        "id": name,
        "hop_samples": hop_samples,
        "gain": gain,
        **(more or {}),
    }
    for sound_name, sound in sounds.items():
        path = part / f"{sound_name}.{audio_format}"
        _write_sound(path, sound, gain, clip.sample_rate)
    stored = {"mask": _bytes(maps["mask"])}
    stored["level"] = _level_bytes(maps["original"])
    if clip.mask_domain != "linear":
        less = maps["interpretation"] - maps["original"]
        stored["kept"] = _bytes(10 ** (less / 20))
    np.savez_compressed(part / MAPS, **stored)
    text = json.dumps(_plain(content), ensure_ascii=False, allow_nan=False)
    (part / FACTS).write_text(text, encoding="utf-8")
    written = [(part, clip, maps)]
    if clip.unrefined is not None:
        place, other = part / UNREFINED, clip.unrefined
        written += write_data(
            place, other, UNREFINED, truth, audio_format, more
        )
    return written


def facts_of(clip, truth=None):
    """What `explanation.json` says of a clip, but for how it is written.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    truth : str
        The clip's label, if it is known.

    Returns
    -------
    dict
        Names to texts, numbers, and lists and dicts of these.

    Example
    -------
    >>> facts_of(interpreter.explain_file(path), "cow")["label"]
    'cow'
    """
    file = clip.files[0]
    facts = {
        # Where it lay is nobody's business.
        "file": None if file is None else os.path.basename(file),
        "decision": clip.classes[int(clip.decision[0])],
        "classes": clip.classes,
        **probabilities_of(clip),
        "verdict": clip.verdicts[0],
        "stable": clip.stable[0],
        "agreement": clip.agreement[0],
        "metrics": clip.metrics[0],
        "sample_rate": clip.sample_rate,
        "n_samples": clip.n_samples[0],
        "n_bins": clip.features.n_bins,
        "threshold": clip.threshold,
        "refine_steps": clip.refine_steps,
        **({"second_look": True} if clip.second_look else {}),
        "label": truth,
        **_kin_of(truth, clip),
    }
    if clip.labels[0] != facts["decision"]:
        asked = (clip.p_before, clip.p_inside, clip.p_outside)
        p = (float(value[0]) for value in asked)
        facts["answer"] = {
            "name": clip.labels[0],
            **dict(zip(PROBABILITIES, p)),
        }
    if len(clip.windows[0]) > 1:
        facts["windows"] = clip.windows[0]
    for name, value in (
        ("parents", clip.parents[0]),
        ("notes", clip.notes[0]),
        ("made", clip.made),
    ):
        if value:
            facts[name] = value
    return facts


def _kin_of(truth, clip):
    """Classes that contain the label, or that it contains, if there are any."""
    if clip.families is None:
        return {}
    try:
        label = class_number(truth, clip.classes)
    except LMACError:  # no class of the model
        return {}
    kin = [
        name
        for number, name in enumerate(clip.classes)
        if number != label and clip.families.related(number, label)
    ]
    return {"kin": kin} if kin else {}


def _move_into(part, folder):
    """Move the files of a finished clip to where an earlier one may be."""
    names = {path.name for path in part.iterdir()}
    # One from an earlier call vouches for files that now change.
    for name in (FACTS, *(FILES - names)):
        if not (folder / name).is_dir():
            (folder / name).unlink(missing_ok=True)
    unrefined = folder / UNREFINED
    if unrefined.is_symlink():
        unrefined.unlink()
    elif UNREFINED not in names and (unrefined / FACTS).is_file():
        shutil.rmtree(unrefined)
    for path in sorted(part.iterdir(), key=lambda p: p.name == FACTS):
        place = folder / path.name
        if path.is_dir() and place.is_dir() and not place.is_symlink():
            _move_into(path, place)
        else:
            os.replace(path, place)


def common_gain(sounds):
    """One gain for several sounds, at which they are heard and not clipped.

    Arguments
    ---------
    sounds : iterable of torch.Tensor
        [samples] each.

    Returns
    -------
    float
        Brings the largest sample of all to at most 1 and at least 0.1; 1 if
        it is in between already, or if all is silent.

    Example
    -------
    >>> import torch
    >>> common_gain([torch.tensor([0.5]), torch.tensor([1.0, -4.0])])
    0.25
    >>> common_gain([torch.tensor([0.5])]), common_gain([torch.zeros(2)])
    (1.0, 1.0)
    >>> round(common_gain([torch.tensor([0.001, -0.0005])]))
    100
    """
    peak = 0.0
    for sound in sounds:
        for block in sound.split(_BLOCK):
            peak = max(peak, float(block.abs().max()))
    if peak > 1:
        return 1 / peak
    return _QUIETEST / peak if 0 < peak < _QUIETEST else 1.0


def gain_in_words(gain):
    """What a person should know of the gain of written sounds.

    Arguments
    ---------
    gain : float
        From `common_gain`.

    Returns
    -------
    str
        Empty for a gain of 1.

    Example
    -------
    >>> gain_in_words(100.0), gain_in_words(0.5), gain_in_words(1.0)
    ('sounds played 40 dB louder', 'sounds played 6 dB quieter', '')
    """
    decibels = round(20 * math.log10(gain))
    if decibels == 0:
        return ""
    word = "louder" if decibels > 0 else "quieter"
    return f"sounds played {abs(decibels)} dB {word}"


def folder_names(names, taken=()):
    r"""Names of folders after other names, none twice.

    No name is that of a file that may lie there too, such as
    ``explanation.json`` or ``report.html``.

    Arguments
    ---------
    names : list of str
        Any text, such as names of classes or of files without their ending.
    taken : collection of str
        Names that are in use.

    Returns
    -------
    list of str
        Letters of any language stay; what has a meaning in paths is replaced.

    Example
    -------
    >>> folder_names(["Tick", "Dishes, pots", "a/b", "a?b", "..", "TICK"])
    ['Tick', 'Dishes_ pots', 'a_b', 'a_b_2', 'clip', 'TICK_2']
    >>> folder_names(["report.html", "0.5", "nul", "unrefined", "dog\udce9"])
    ['report_html', '0.5', 'nul_', 'unrefined_', 'dog_']
    """
    found, taken = [], set(map(name_key, taken))
    for name in names:
        stem = _safe_name(name)
        name, count = stem, 1
        while name_key(name) in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name_key(name))
        found.append(name)
    return found


def name_key(name):
    r"""What two names share if some system takes them for one.

    Arguments
    ---------
    name : str
        Of a file or a folder.

    Returns
    -------
    str

    Example
    -------
    >>> name_key("\u00c9") == name_key("e\u0301")
    True
    """
    return unicodedata.normalize("NFC", name.casefold())


def _safe_name(name):
    """A name for a folder, whatever the text."""
    # Names of files may hold bytes that are no text.
    name = name.encode(errors="surrogateescape").decode(errors="replace")
    name = unicodedata.normalize("NFC", name)
    # Nor has each system all letters.
    name = name.encode(sys.getfilesystemencoding(), "replace")
    name = name.decode(sys.getfilesystemencoding())
    name = re.sub(r"[^\w .+-]", "_", name).strip(" .")
    name = re.sub(rf"(?i)\.(?={_ENDINGS}$)", "_", name)
    if name.casefold() == UNREFINED or re.fullmatch(rf"(?i){_DEVICES}", name):
        stem, dot, ending = name.partition(".")
        name = f"{stem}_{dot}{ending}"
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore").strip(" .")
    return name or "clip"


class _Sink(io.FileIO):
    """A new file that remembers why it could not be written.

    libsndfile does not say it, and not at all where only the end is missing.
    """

    error = None

    def write(self, data):
        """Write all bytes, or none of them count."""
        try:
            rest = memoryview(data)
            while len(rest):
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = self.error or error
            return 0
        return len(data)


def _write_sound(path, sound, gain, sample_rate):
    """Mono file, written in blocks."""
    kind = path.suffix[1:]
    with _Sink(path, "xb") as sink:
        try:
            with sf.SoundFile(
                sink,
                "w",
                sample_rate,
                1,
                AUDIO_FORMATS[kind],
                format=kind.upper(),
            ) as file:
                for block in sound.split(_BLOCK):
                    file.write((block.double() * gain).numpy())
        except (RuntimeError, AssertionError):
            if sink.error is None:
                raise
        if sink.error is not None:
            raise sink.error


def _bytes(values):
    """Values in [0, 1] as uint8 from 0 to 255."""
    return (values.clamp(0, 1) * 255).round().byte().numpy()


def _level_bytes(level):
    """Level as uint8: 255 is the maximum, 0 is `RANGE_DB` below it or less."""
    top = level.max()
    if top <= 20 * math.log10(FLOOR) + 1e-3:
        return np.zeros(tuple(level.shape), np.uint8)
    return _bytes(1 + (level - top) / RANGE_DB)


def _plain(value):
    """Content that JSON can hold, with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        # The name of a file may hold bytes that are not valid text.
        return value.encode("utf-8", "replace").decode()
    return value


class ClipFiles(NamedTuple):
    """What a folder of `save_clip` holds, checked.

    Arguments
    ---------
    info : dict
        See `lmac_sb.inference.clip_facts.INFO`.
    mask : numpy.ndarray
        [time, freq], uint8; 255 is a mask of one.
    level : numpy.ndarray
        [time, freq], uint8; 255 is the loudest bin, 0 is 80 dB below it.
    kept : numpy.ndarray
        The share of each bin's magnitude that is heard, [time, freq], uint8;
        255 is all of it. None where the mask is that share.
    files : dict
        Name of each sound to its file, of the right length and rate.

    Example
    -------
    >>> (folder,) = interpreter.explain_file(path).save(getfixture("tmp_path"))
    >>> clip = read_clip(folder)
    >>> clip.info["decision"] in interpreter.classes, clip.mask.dtype
    (True, dtype('uint8'))
    >>> clip.sounds["original"].shape
    torch.Size([16000])
    """

    info: dict
    mask: np.ndarray
    level: np.ndarray
    kept: np.ndarray | None
    files: dict

    @property
    def sounds(self):
        """Samples of each sound by its name, at the level of the input."""
        found = {}
        for name in self.files:
            wav = torch.from_numpy(np.concatenate([*self.blocks(name)]))
            found[name] = (wav.double() / self.info["gain"]).float()
        return found

    def blocks(self, name):
        """Samples of a sound as it is written, block by block.

        Arguments
        ---------
        name : str
            One of `lmac_sb.inference.spectra.SOUNDS`.

        Yields
        ------
        numpy.ndarray
            [samples], float32; with the gain, for people to hear.

        Raises
        ------
        LMACError
            If the file is truncated or damaged.
        """
        path, n_samples = self.files[name], 0
        with _open_sound(path) as file:
            for block in file.blocks(_BLOCK, dtype="float32"):
                n_samples += len(block)
                if not np.isfinite(block).all():
                    raise LMACError(f"{path}: holds NaN or infinite values")
                yield block
        if n_samples != self.info["n_samples"]:
            raise LMACError(
                f"{path}: truncated, found {n_samples} samples, expected "
                f"{self.info['n_samples']}"
            )


def read_clip(folder):
    """Read and check the folder of an explained clip.

    Only regular files in the folder itself are read, and none that is larger
    than such a clip can be.

    Arguments
    ---------
    folder : str or Path
        As `save_clip` writes it.

    Returns
    -------
    ClipFiles

    Raises
    ------
    LMACError
        If a file is missing, or holds something else; names it, what was
        found and what is expected.

    Example
    -------
    >>> read_clip("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere/explanation.json: no such file, a clip needs it
    """
    folder = Path(folder)
    info = read_facts(folder / FACTS)
    maps = _read_maps(folder / MAPS, info["n_bins"])
    files = {name: _find_sound(folder / name, info) for name in SOUNDS}
    return ClipFiles(info, *maps, files)


def _read_maps(path, n_bins):
    """Mask, level and perhaps kept of a clip, [time, freq], as uint8."""
    if n_bins > _MOST_BINS:
        raise LMACError(
            f"{path.with_name(FACTS)}: n_bins: found {shown(n_bins)}, "
            f"expected at most {_MOST_BINS}"
        )
    try:
        # Neither what is packed nor what it is told to be may be larger.
        most = len(_MAPS) * MAX_FRAMES * n_bins + (1 << 16)
        with open_regular(path, most) as file:
            _check_archive(file)
            with zipfile.ZipFile(file) as archive:
                shape = None
                n_maps = max(2, len(archive.namelist()))
                for name in _MAPS[:n_maps]:
                    shape = _check_map(archive, name, shape, n_bins)
            file.seek(0)
            with np.load(file, allow_pickle=False) as maps:
                return maps["mask"], maps["level"], maps.get("kept")
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    except KeyError as error:
        raise LMACError(f"{path}: {error}, expected mask and level") from error
    except LMACError as error:
        text = str(error)
        raise LMACError(
            text if text.startswith(str(path)) else f"{path}: {text}"
        ) from error
    except PermissionError as error:
        raise LMACError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:
        # Readers of archives and arrays fail in many ways on what is none.
        raise LMACError(
            f"{path}: cannot be read as maps ({first_line(error)})"
        ) from error


def _check_archive(file):
    """Refuse an archive whose list alone would fill the memory."""
    tail = 22 + 20  # its end, and what comes before that in a large one
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - tail))
    end = file.read()
    if end[-22:-18] != b"PK\5\6" or end[:4] == b"PK\6\7":
        raise ValueError("no archive, or not as it was written")
    n_members, n_bytes = struct.unpack("<HI", end[-12:-6])
    if n_members > len(_MAPS) or n_bytes > 1 << 10:
        raise ValueError(f"holds {n_members} members, expected 2 or 3")


def _check_map(archive, name, shape, n_bins):
    """Refuse a map of another type or shape before it is read."""
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):
            raise ValueError(f"version {version}, expected (1, 0)")
        found, _, dtype = np.lib.format.read_array_header_1_0(member)
    time = found[0] if found else 0
    if (
        dtype != np.uint8
        or found != (time, n_bins)
        or not 0 < time <= MAX_FRAMES
        or found != (shape or found)
    ):
        raise LMACError(
            f"{name}: found {dtype} of shape {shown(found)}, expected uint8 of "
            f"[time, {n_bins}], the same time for all, at most {MAX_FRAMES}"
        )
    return found


def _find_sound(stem, info):
    """File of a sound, whatever its format; its samples are not read yet."""
    names = [f"{stem.name}.{ending}" for ending in AUDIO_FORMATS]
    paths = [stem.with_name(name) for name in names]
    paths = [path for path in paths if os.path.lexists(path)]
    if len(paths) != 1:
        found = " and ".join(path.name for path in paths) or "none"
        raise LMACError(
            f"{stem.parent}: found {found}, expected one of "
            f"{' or '.join(names)}"
        )
    (path,) = paths
    with _open_sound(path) as file:
        length, rate, channels = file.frames, file.samplerate, file.channels
    if channels != 1:
        raise LMACError(f"{path}: found {channels} channels, expected 1")
    if (length, rate) != (info["n_samples"], info["sample_rate"]):
        raise LMACError(
            f"{path}: found {length} samples at {rate} Hz, expected "
            f"{shown(info['n_samples'])} at {shown(info['sample_rate'])} Hz as "
            "in explanation.json"
        )
    return path


@contextmanager
def _open_sound(path):
    """Open a sound that was written with a clip."""
    try:
        with open_regular(path, _MOST_SOUND) as opened:
            with sf.SoundFile(opened) as file:
                yield file
    except PermissionError as error:
        raise LMACError(f"{path}: cannot be read ({error.strerror})") from error
    except (OSError, RuntimeError, TypeError) as error:
        raise LMACError(
            f"{path}: cannot be read as audio ({first_line(error)})"
        ) from error
