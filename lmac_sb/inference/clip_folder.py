"""Sounds, maps and pictures of an explanation, in a folder of its own.

A folder holds ``original``, ``interpretation`` and ``residual`` as sounds,
``spectra.png`` for people, and ``maps.npz`` and ``explanation.json`` for the
report. Beside those of a refined mask, a sub-folder ``unrefined`` may hold the
same for the decoder's own.
"""

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import soundfile as sf
import torch

from lmac_sb.metrics.registry import evaluate
from lmac_sb.utils.errors import LMACError

__all__ = [
    "AUDIO_FORMATS",
    "UNREFINED",
    "common_gain",
    "draw_clip",
    "save_clip",
]

AUDIO_FORMATS = ("wav", "flac")
SOUNDS = ("original", "interpretation", "residual")
UNREFINED = "unrefined"  # sub-folder
RANGE_DB = 80  # shown below a clip's maximum
MAX_FRAMES = 3000  # of a stored map; longer clips are pooled in time
_FLOOR = 1e-7  # the least magnitude of a spectrogram
_BLOCK = 1 << 18  # samples handled at a time


def save_clip(
    folder,
    wav,
    explanation,
    index,
    features,
    classes,
    truth=None,
    file=None,
    threshold=None,
    audio_format="wav",
    metrics=None,
    windows=None,
    refine_steps=0,
):
    """Write one explained clip for a person to hear and see.

    The sounds ``original``, ``interpretation`` (what the decision rests on)
    and ``residual`` (the rest) are mono, 16 bit, of the clip's length and at
    one common gain; ``spectra.png`` shows all three and the mask on common
    axes; ``maps.npz`` and ``explanation.json`` hold mask, level,
    probabilities and metrics. Each file appears complete or not at all,
    ``explanation.json`` last. An earlier clip's ``unrefined`` goes.

    Arguments
    ---------
    folder : str or Path
        Made if need be; its name becomes the clip's id.
    wav : torch.Tensor
        The clip, [samples].
    explanation : lmac_sb.explain.explainer.Explanation
        Of a batch, with sounds.
    index : int
        Place of the clip in the batch.
    features : lmac_sb.models.features.SpectralFeatures
        For the axes and the sampling rate.
    classes : list of str
        Names of the classes.
    truth : str
        The clip's label, if it is known.
    file : str
        Where the clip came from, if it is to be told.
    threshold : float
        At which the mask was made binary, if it was.
    audio_format : str
        ``wav`` or ``flac``.
    metrics : dict
        Name to number; computed from the explanation unless given.
    windows : list of dict
        Decision of each window of a long clip.
    refine_steps : int
        Gradient steps that led to the mask from the decoder's.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    LMACError
        If the format is unknown.
    """
    if audio_format not in AUDIO_FORMATS:
        raise LMACError(
            f"format: '{audio_format}' is none of {', '.join(AUDIO_FORMATS)}"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = _sounds(wav, explanation, index)
    gain = common_gain(sounds.values())
    maps, hop_samples = _maps(sounds, explanation, index, features)
    figure = draw_clip(
        wav, explanation, index, features, classes, truth, levels=maps
    )
    content = {
        "id": folder.resolve().name,
        "file": file,
        "label": truth,
        "decision": classes[int(explanation.decision[index])],
        "classes": [classes[c] for c in range(len(classes))],
        **_probabilities(explanation, index),
        "metrics": metrics or _metrics(explanation, index),
        "sample_rate": features.sample_rate,
        "n_samples": len(wav),
        "hop_samples": hop_samples,
        "n_bins": features.n_bins,
        "gain": gain,
        "threshold": threshold,
        "refine_steps": refine_steps,
    }
    if windows is not None:
        content["windows"] = windows
    part = folder / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for name, sound in sounds.items():
            path = part / f"{name}.{audio_format}"
            _write_sound(path, sound, gain, features.sample_rate)
        figure.savefig(part / "spectra.png", dpi=90)
        np.savez_compressed(
            part / "maps.npz",
            mask=_bytes(maps["mask"]),
            level=_level_bytes(maps["original"]),
        )
        (part / "explanation.json").write_text(
            json.dumps(_plain(content), ensure_ascii=False, allow_nan=False),
            encoding="utf-8",
        )
        # One from an earlier call vouches for files that now change.
        (folder / "explanation.json").unlink(missing_ok=True)
        for name in SOUNDS:
            for other in AUDIO_FORMATS:
                (folder / f"{name}.{other}").unlink(missing_ok=True)
        if (folder / UNREFINED / "explanation.json").is_file():
            shutil.rmtree(folder / UNREFINED)
        for path in sorted(part.iterdir(), key=lambda p: p.suffix == ".json"):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(part)
    return folder


def common_gain(sounds):
    """One gain for sounds, so that their levels compare and none is clipped.

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


def draw_clip(
    wav, explanation, index, features, classes, truth=None, levels=None
):
    """Spectrograms and mask of one clip.

    Arguments
    ---------
    wav : torch.Tensor
        The clip, [samples].
    explanation : lmac_sb.explain.explainer.Explanation
        Of a batch, with sounds.
    index : int
        Place of the clip in the batch.
    features : lmac_sb.models.features.SpectralFeatures
        For the axes.
    classes : list of str
        Names of the classes.
    truth : str
        The clip's label, if it is known.
    levels : dict
        Spectrograms in dB and the mask, if they are there already.

    Returns
    -------
    matplotlib.figure.Figure
    """
    # Here, so that who draws nothing does without.
    from matplotlib.figure import Figure

    if levels is None:
        sounds = _sounds(wav, explanation, index)
        levels, _ = _maps(sounds, explanation, index, features)
    c = int(explanation.decision[index])
    p = {k: x[c] for k, x in _probabilities(explanation, index).items()}
    seconds = len(wav) / features.sample_rate
    kilohertz = features.sample_rate / 2000
    extent = (0, seconds, 0, kilohertz)
    top = max(float(levels[name].max()) for name in SOUNDS)

    figure = Figure(figsize=(11, 6), layout="constrained")
    label = "" if truth is None else f" (label: {truth})"
    # Names may hold dollar signs, which are no formulas.
    figure.suptitle(f"decision: {classes[c]}{label}", parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    titles = {
        "original": f"input, p = {p['p']:.3f}",
        "interpretation": f"interpretation, p = {p['p_in']:.3f}",
        "residual": f"residual, p = {p['p_out']:.3f}",
    }
    places = {"original": (0, 0), "interpretation": (1, 0), "residual": (1, 1)}
    for name, place in places.items():
        axis = axes[place]
        image = axis.imshow(
            levels[name].T.numpy(),
            origin="lower",
            aspect="auto",
            extent=extent,
            vmin=top - RANGE_DB,
            vmax=top,
            cmap="magma",
        )
        axis.set_title(titles[name])
        figure.colorbar(image, ax=axis, label="dB")
    mask = levels["mask"]
    image = axes[0, 1].imshow(
        mask.T.numpy(),
        origin="lower",
        aspect="auto",
        extent=extent,
        vmin=0,
        vmax=1,
        cmap="viridis",
    )
    axes[0, 1].set_title(f"mask, area {float(mask.mean()):.3f}")
    figure.colorbar(image, ax=axes[0, 1])
    for axis in axes[1]:
        axis.set_xlabel("time in s")
    for axis in axes[:, 0]:
        axis.set_ylabel("frequency in kHz")
    return figure


def _sounds(wav, explanation, index):
    """The three sounds of a clip, [samples] each."""
    sounds = (wav, explanation.waveform[index], explanation.residual[index])
    # A batch is padded to its longest clip.
    return {
        name: sound[: len(wav)].detach().cpu()
        for name, sound in zip(SOUNDS, sounds)
    }


def _maps(sounds, explanation, index, features):
    """Level of each sound in dB and the mask, [time, freq], and their hop."""
    n_frames = features.n_frames(len(sounds["original"]))
    pool = -(-n_frames // MAX_FRAMES)
    maps = {
        name: _level(sound, features, pool) for name, sound in sounds.items()
    }
    mask = explanation.mask[index, :n_frames].detach().cpu()
    if pool == 1:
        maps["mask"] = mask.float()
    else:
        parts = [part.float().mean(0) for part in mask.split(pool)]
        maps["mask"] = torch.stack(parts)
    return maps, features.hop_samples * pool


def _level(sound, features, pool):
    """Level of each bin in dB, [time, freq]; of `pool` frames the loudest."""
    hop = features.hop_samples
    # Frames reach half an FFT to either side.
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


def _probabilities(explanation, index):
    """Softmax of the logits on the whole, masked-in and masked-out input."""
    return {
        name: logits[index].detach().float().softmax(0).tolist()
        for name, logits in (
            ("p", explanation.logits),
            ("p_in", explanation.logits_in),
            ("p_out", explanation.logits_out),
        )
    }


def _metrics(explanation, index):
    """Metrics of one clip of the batch."""
    one = SimpleNamespace(
        **{
            name: getattr(explanation, name)[index : index + 1].detach()
            for name in ("logits", "logits_in", "logits_out", "decision")
        },
        mask=explanation.mask[index : index + 1].detach().float(),
    )
    return {name: float(value) for name, value in evaluate(one).items()}


def _write_sound(path, sound, gain, sample_rate):
    """Mono file of 16 bits, written in blocks."""
    settings = {"samplerate": sample_rate, "channels": 1, "subtype": "PCM_16"}
    with sf.SoundFile(path, "w", **settings) as file:
        for block in sound.split(_BLOCK):
            file.write((block * gain).numpy())


def _bytes(values):
    """Values in [0, 1] as numbers from 0 to 255."""
    return (values.clamp(0, 1) * 255).round().byte().numpy()


def _level_bytes(level):
    """Level: 255 is the clip's maximum, 0 is `RANGE_DB` below or silence."""
    top = level.max()
    if top <= 20 * math.log10(_FLOOR) + 1e-3:
        return np.zeros(tuple(level.shape), np.uint8)
    return _bytes(1 + (level - top) / RANGE_DB)


def _plain(value):
    """Content fit for JSON: null for what is no finite number."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        # A file's name may hold bytes that are no text.
        return value.encode("utf-8", "replace").decode()
    return value
