"""Write and read the folder of an explained clip.

A folder holds the sounds ``original``, ``interpretation`` and ``residual``,
the picture ``spectra.png``, and ``maps.npz`` and ``explanation.json`` for the
report. If the mask was refined, a sub-folder ``unrefined`` may hold the same
for the decoder's own mask.
"""

import json
import math
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

from lmac_sb.data.decode import decode_audio
from lmac_sb.inference.spectra import (
    FLOOR,
    RANGE_DB,
    SOUNDS,
    draw_clip,
    levels_of,
    probabilities_of,
    sounds_of,
)
from lmac_sb.metrics.verdict import VERDICTS
from lmac_sb.training.kinds import Kind, flag, number, optional, whole
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import part_folder

__all__ = [
    "AUDIO_FORMATS",
    "INFO",
    "PROBABILITIES",
    "UNREFINED",
    "WINDOW",
    "ClipFiles",
    "check_format",
    "common_gain",
    "folder_names",
    "read_clip",
    "save_clip",
]

AUDIO_FORMATS = {"wav": "PCM_16", "flac": "PCM_16"}  # ending to samples
UNREFINED = "unrefined"  # sub-folder, for the decoder's own mask
PROBABILITIES = ("p", "p_in", "p_out")
_BLOCK = 1 << 18  # samples that are processed at a time
_NAME_BYTES = 150  # longest name of a folder


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


_text = Kind("a text", lambda value: isinstance(value, str))
_probabilities = Kind(
    "a list of probabilities or null",
    lambda value: (
        isinstance(value, list)
        and all(map(optional(number(-1e-4, 1 + 1e-4)).holds, value))
    ),
)

_verdict = Kind(
    f"one of {', '.join(map(repr, VERDICTS))}",
    lambda value: isinstance(value, str) and value in VERDICTS,
)
_numbers = Kind(
    "names with numbers or null",
    lambda value: (
        isinstance(value, dict)
        and all(map(optional(number()).holds, value.values()))
    ),
)

# What is known of each window of a long clip.
WINDOW = {
    "start": number(),
    "end": number(),
    "decision": _text,
    **dict.fromkeys(PROBABILITIES, optional(number())),
    "verdict": _verdict,
}

# What is explained, in words, and its probabilities.
ANSWER = {
    "name": _text,
    **dict.fromkeys(PROBABILITIES, optional(number(-1e-4, 1 + 1e-4))),
}

# Those that most clips lack.
_OPTIONAL = ("answer", "windows", "parents", "notes")

# Keys of `explanation.json`, and what each may be.
INFO = {
    "id": _text,
    "file": optional(_text),
    "label": optional(_text),
    # Of several classes that are asked for, the first.
    "decision": _text,
    "classes": Kind(
        "a list of names",
        lambda value: (
            isinstance(value, list) and value and all(map(_text.holds, value))
        ),
    ),
    **dict.fromkeys(PROBABILITIES, _probabilities),
    "verdict": _verdict,
    # Null, and no names, where nobody asked.
    "stable": optional(flag),
    "agreement": _numbers,
    "metrics": _numbers,
    "sample_rate": whole(1),
    "n_samples": whole(1),
    "hop_samples": whole(1),
    "n_bins": whole(1),
    "gain": number(above=0),
    "threshold": optional(number()),
    "refine_steps": whole(0),
    # The classes that contain the explained one, where some do.
    "parents": _text,
    # What else a person should know, if there is something.
    "notes": Kind(
        "a list of sentences",
        lambda value: isinstance(value, list) and all(map(_text.holds, value)),
    ),
    # Only where more than one class among all is asked for.
    "answer": Kind(
        f"an object of {', '.join(ANSWER)}",
        lambda value: (
            isinstance(value, dict)
            and all(kind.holds(value.get(k)) for k, kind in ANSWER.items())
        ),
    ),
    # Of long clips only.
    "windows": Kind(
        f"a list of {', '.join(WINDOW)}",
        lambda value: (
            isinstance(value, list)
            and all(
                isinstance(window, dict)
                and all(kind.holds(window.get(k)) for k, kind in WINDOW.items())
                for window in value
            )
        ),
    ),
}


def save_clip(folder, clip, truth=None, audio_format="wav"):
    """Write one explained clip for a person to hear and see.

    The sounds ``original``, ``interpretation`` (what the decision rests on)
    and ``residual`` (the rest) are mono, 16 bit, of the clip's length and
    share one gain. ``spectra.png`` shows all three and the mask on common
    axes. ``maps.npz`` and ``explanation.json`` hold mask, level,
    probabilities, verdict and metrics. Each file appears complete or not at
    all, and ``explanation.json`` comes last. A folder ``unrefined`` of an
    earlier clip is deleted.

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
    """
    check_format(audio_format)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = sounds_of(clip)
    gain = common_gain(sounds.values())
    maps, hop_samples = levels_of(clip)
    content = _facts(clip)
    content.update(
        id=folder.resolve().name,
        label=truth,
        hop_samples=hop_samples,
        gain=gain,
    )
    with part_folder(folder / "clip") as part:
        for name, sound in sounds.items():
            path = part / f"{name}.{audio_format}"
            _write_sound(path, sound, gain, clip.sample_rate)
        draw_clip(clip, truth, maps).savefig(part / "spectra.png", dpi=90)
        np.savez_compressed(
            part / "maps.npz",
            mask=_bytes(maps["mask"]),
            level=_level_bytes(maps["original"]),
        )
        (part / "explanation.json").write_text(
            json.dumps(_plain(content), ensure_ascii=False, allow_nan=False),
            encoding="utf-8",
        )
        _replace_clip(part, folder)
    return folder


def _facts(clip):
    """What `explanation.json` says of a clip."""
    facts = {
        "file": clip.files[0],
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
    if clip.parents[0]:
        facts["parents"] = clip.parents[0]
    if clip.notes[0]:
        facts["notes"] = clip.notes[0]
    return facts


def _replace_clip(part, folder):
    """Move the files of a finished clip to where an earlier one may be."""
    # One from an earlier call vouches for files that now change.
    (folder / "explanation.json").unlink(missing_ok=True)
    for name in SOUNDS:
        for other in AUDIO_FORMATS:
            (folder / f"{name}.{other}").unlink(missing_ok=True)
    if (folder / UNREFINED / "explanation.json").is_file():
        shutil.rmtree(folder / UNREFINED)
    for path in sorted(part.iterdir(), key=lambda p: p.suffix == ".json"):
        os.replace(path, folder / path.name)


def common_gain(sounds):
    """One gain for several sounds, at which none is clipped.

    Arguments
    ---------
    sounds : iterable of torch.Tensor
        [samples] each.

    Returns
    -------
    float
        At most 1.

    Example
    -------
    >>> import torch
    >>> common_gain([torch.tensor([0.5]), torch.tensor([1.0, -4.0])])
    0.25
    """
    peak = 1.0
    for sound in sounds:
        for block in sound.split(_BLOCK):
            peak = max(peak, float(block.abs().max()))
    return 1 / peak


def folder_names(names):
    """Names of folders after other names, none twice.

    Arguments
    ---------
    names : list of str
        Any text, such as names of classes or of files without their ending.

    Returns
    -------
    list of str
        Letters of any language stay; what has a meaning in paths is replaced.

    Example
    -------
    >>> folder_names(["Tick", "Dishes, pots", "a/b", "a?b", ".."])
    ['Tick', 'Dishes_ pots', 'a_b', 'a_b_2', 'clip']
    """
    found, taken = [], set()
    for name in names:
        stem = re.sub(r"[^\w .+-]", "_", name).strip(" .")
        stem = stem.encode()[:_NAME_BYTES].decode(errors="ignore") or "clip"
        name, count = stem, 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name.casefold())
        found.append(name)
    return found


def _write_sound(path, sound, gain, sample_rate):
    """Mono file, written in blocks."""
    subtype = AUDIO_FORMATS[path.suffix[1:]]
    with sf.SoundFile(path, "w", sample_rate, 1, subtype) as file:
        for block in sound.split(_BLOCK):
            file.write((block * gain).numpy())


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
        See `INFO`.
    mask : numpy.ndarray
        [time, freq], uint8; 255 is a mask of one.
    level : numpy.ndarray
        [time, freq], uint8; 255 is the loudest bin, 0 is 80 dB below it.
    sounds : dict
        Name of each sound to its file and its samples, a torch.Tensor.

    Example
    -------
    >>> (folder,) = interpreter.explain_file(path).save(getfixture("tmp_path"))
    >>> clip = read_clip(folder)
    >>> clip.info["decision"] in interpreter.classes, clip.mask.dtype
    (True, dtype('uint8'))
    """

    info: dict
    mask: np.ndarray
    level: np.ndarray
    sounds: dict


def read_clip(folder):
    """Read and check the folder of an explained clip.

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
    info = _read_info(folder / "explanation.json")
    mask, level = _read_maps(folder / "maps.npz", info["n_bins"])
    sounds = {name: _read_sound(folder / name, info) for name in SOUNDS}
    return ClipFiles(info, mask, level, sounds)


def _read_info(path):
    """Content of ``explanation.json``, each value of the expected kind."""
    try:
        info = json.loads(path.read_text("utf-8"), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise LMACError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(info, dict):
        raise LMACError(f"{path}: holds no JSON object, expected one")
    for key, kind in INFO.items():
        if key not in info:
            if key in _OPTIONAL:
                continue
            raise LMACError(f"{path}: the key {key!r} is missing")
        if not kind.holds(info[key]):
            raise LMACError(
                f"{path}: {key}: found {shown(info[key])}, expected {kind.name}"
            )
    for key in PROBABILITIES:
        if len(info[key]) != len(info["classes"]):
            raise LMACError(
                f"{path}: {key}: found {len(info[key])} values for "
                f"{len(info['classes'])} classes"
            )
    if info["decision"] not in info["classes"]:
        raise LMACError(
            f"{path}: decision: found {shown(info['decision'])}, which is "
            "not among the classes"
        )
    return info


def _no_constant(name):
    """Refuse NaN and the like, which Python reads but JSON lacks."""
    raise ValueError(f"{name} is no JSON, expected null")


def _read_maps(path, n_bins):
    """Mask and level of a clip, [time, freq] each, as uint8."""
    try:
        with np.load(path, allow_pickle=False) as maps:
            mask, level = maps["mask"], maps["level"]
    except FileNotFoundError as error:
        raise LMACError(f"{path}: no such file, a clip needs it") from error
    except KeyError as error:
        raise LMACError(f"{path}: {error}, expected mask and level") from error
    # EOFError: an empty file. TypeError, AttributeError: a single array.
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise LMACError(f"{path}: cannot be read as maps ({error})") from error
    for name, values in (("mask", mask), ("level", level)):
        shape = (len(mask) if mask.ndim else 0, n_bins)
        if values.dtype != np.uint8 or values.shape != shape or not shape[0]:
            raise LMACError(
                f"{path}: {name}: found {values.dtype} of shape "
                f"{values.shape}, expected uint8 of [time, {shown(n_bins)}], "
                "the same time for both"
            )
    return mask, level


def _read_sound(stem, info):
    """File and samples of a sound, whatever its format."""
    names = [f"{stem.name}.{ending}" for ending in AUDIO_FORMATS]
    files = [stem.with_name(name) for name in names]
    files = [file for file in files if file.exists()]
    if len(files) != 1:
        found = " and ".join(file.name for file in files) or "none"
        raise LMACError(
            f"{stem.parent}: found {found}, expected one of "
            f"{' or '.join(names)}"
        )
    wav, rate = decode_audio(files[0])
    if (len(wav), rate) != (info["n_samples"], info["sample_rate"]):
        raise LMACError(
            f"{files[0]}: found {len(wav)} samples at {rate} Hz, expected "
            f"{shown(info['n_samples'])} at {shown(info['sample_rate'])} Hz as "
            "in explanation.json"
        )
    return files[0], wav
