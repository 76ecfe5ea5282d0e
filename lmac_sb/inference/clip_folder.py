"""Write the sounds, maps and pictures of an explanation to a folder.

A folder holds the sounds ``original``, ``interpretation`` and ``residual``,
the picture ``spectra.png``, and ``maps.npz`` and ``explanation.json`` for the
report. If the mask was refined, a sub-folder ``unrefined`` may hold the same
for the decoder's own mask.
"""

import json
import math
import os
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np  # noqa: E402
import soundfile as sf  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from lmac_sb.utils.errors import LMACError  # noqa: E402
from lmac_sb.utils.io import part_folder  # noqa: E402

__all__ = [
    "AUDIO_FORMATS",
    "UNREFINED",
    "check_format",
    "common_gain",
    "draw_clip",
    "save_clip",
]

AUDIO_FORMATS = {"wav": "PCM_16", "flac": "PCM_16"}  # ending to samples
SOUNDS = ("original", "interpretation", "residual")
UNREFINED = "unrefined"  # sub-folder
RANGE_DB = 80  # range of levels in pictures, below a clip's maximum
MAX_FRAMES = 3000  # in a stored map; longer clips are pooled in time
_FLOOR = 1e-7  # smallest magnitude of a spectrogram
_BLOCK = 1 << 18  # samples that are processed at a time


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
    and ``residual`` (the rest) are mono, 16 bit, of the clip's length and
    share one gain. ``spectra.png`` shows all three and the mask on common
    axes. ``maps.npz`` and ``explanation.json`` hold mask, level,
    probabilities and metrics. Each file appears complete or not at all, and
    ``explanation.json`` comes last. A folder ``unrefined`` of an earlier clip
    is deleted.

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
    sounds = _sounds(clip)
    gain = common_gain(sounds.values())
    maps, hop_samples = _maps(sounds, clip)
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
        "decision": clip.labels[0],
        "classes": clip.classes,
        **_probabilities(clip),
        "metrics": clip.metrics[0],
        "sample_rate": clip.sample_rate,
        "n_samples": clip.n_samples[0],
        "n_bins": clip.features.n_bins,
        "threshold": clip.threshold,
        "refine_steps": clip.refine_steps,
    }
    if len(clip.windows[0]) > 1:
        facts["windows"] = clip.windows[0]
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
    >>> common_gain([torch.tensor([0.5]), torch.tensor([1.0, -4.0])])
    0.25
    """
    peak = 1.0
    for sound in sounds:
        for block in sound.split(_BLOCK):
            peak = max(peak, float(block.abs().max()))
    return 1 / peak


def draw_clip(clip, truth=None, levels=None):
    """Spectrograms and mask of one clip.

    Arguments
    ---------
    clip : lmac_sb.inference.explanation.AudioExplanation
        Of one clip.
    truth : str
        The clip's label, if it is known.
    levels : dict
        Spectrograms in dB and the mask, if they have been computed.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if levels is None:
        levels, _ = _maps(_sounds(clip), clip)
    top = max(float(levels[name].max()) for name in SOUNDS)
    pictures = {
        name: {"vmin": top - RANGE_DB, "vmax": top, "cmap": "magma"}
        for name in SOUNDS
    }
    pictures["mask"] = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
    places = {
        "original": (0, 0),
        "mask": (0, 1),
        "interpretation": (1, 0),
        "residual": (1, 1),
    }
    c = int(clip.decision[0])
    p = {k: x[c] for k, x in _probabilities(clip).items()}
    titles = {
        "original": f"input, p = {p['p']:.3f}",
        "interpretation": f"interpretation, p = {p['p_in']:.3f}",
        "residual": f"residual, p = {p['p_out']:.3f}",
        "mask": f"mask, area {float(levels['mask'].mean()):.3f}",
    }
    seconds = clip.n_samples[0] / clip.sample_rate
    extent = (0, seconds, 0, clip.sample_rate / 2000)

    figure = Figure(figsize=(11, 6), layout="constrained")
    label = "" if truth is None else f" (label: {truth})"
    # Names may hold dollar signs, which are no formulas.
    figure.suptitle(f"decision: {clip.labels[0]}{label}", parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for name, look in pictures.items():
        axis = axes[places[name]]
        image = axis.imshow(
            levels[name].T.numpy(),
            origin="lower",
            aspect="auto",
            extent=extent,
            **look,
        )
        axis.set_title(titles[name])
        unit = {} if name == "mask" else {"label": "dB"}
        figure.colorbar(image, ax=axis, **unit)
    for axis in axes[1]:
        axis.set_xlabel("time in s")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency in kHz")
    return figure


def _sounds(clip):
    """The three sounds of a clip, [samples] each."""
    sounds = (clip.wavs, clip.waveform, clip.residual)
    # A batch is padded to its longest clip.
    return {
        name: sound[0, : clip.n_samples[0]]
        for name, sound in zip(SOUNDS, sounds)
    }


def _maps(sounds, clip):
    """Level of each sound in dB and the mask, [time, freq], and their hop."""
    features = clip.features
    n_frames = features.n_frames(clip.n_samples[0])
    pool = -(-n_frames // MAX_FRAMES)
    maps = {
        name: _level(sound, features, pool) for name, sound in sounds.items()
    }
    mask = clip.mask[0, :n_frames]
    if pool == 1:
        maps["mask"] = mask.float()
    else:
        parts = [part.float().mean(0) for part in mask.split(pool)]
        maps["mask"] = torch.stack(parts)
    return maps, features.hop_samples * pool


def _level(sound, features, pool):
    """Level of each bin in dB, [time, freq], the maximum of `pool` frames."""
    hop = features.hop_samples
    # A frame extends half an FFT to either side.
    margin = -(-(features.n_bins - 1) // hop)
    n_frames = features.n_frames(len(sound))
    block = max(pool, _BLOCK // hop // pool * pool)
    parts = []
    for first in range(0, n_frames, block):
        last = min(first + block, n_frames)
        start = max(0, first - margin)
        piece = sound[start * hop : (last + margin) * hop]
        stft = features.stft(piece[None].to(features.fbank_matrix.device))
        magnitude = features.magnitude(stft)[0].cpu()
        magnitude = magnitude[first - start : last - start]
        if pool > 1:
            pooled = [part.amax(0) for part in magnitude.split(pool)]
            magnitude = torch.stack(pooled)
        parts.append(20 * torch.log10(magnitude.clamp(min=_FLOOR)))
    return torch.cat(parts)


def _probabilities(clip):
    """Softmax of the logits on the whole, masked-in and masked-out input."""
    return {
        name: logits[0].float().softmax(0).tolist()
        for name, logits in (
            ("p", clip.logits),
            ("p_in", clip.logits_in),
            ("p_out", clip.logits_out),
        )
    }


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
    if top <= 20 * math.log10(_FLOOR) + 1e-3:
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
