"""Sounds and pictures of an explanation.

Authors
 * The lmac-sb authors 2026
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import soundfile as sf  # noqa: E402
import torch  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

__all__ = ["save_clip"]


def save_clip(folder, wav, explanation, index, features, classes, truth=None):
    """Write one explained clip for a person to hear and see.

    ``original.wav``, ``interpretation.wav`` (what the decision rests on) and
    ``residual.wav`` (the rest) are mono, of the clip's length and at one
    common gain; ``spectra.png`` shows all three and the mask on common axes.

    Arguments
    ---------
    folder : str or Path
        Made if need be.
    wav : torch.Tensor
        The clip, [samples].
    explanation : lmac_sb.explainer.Explanation
        Of a batch, with sounds.
    index : int
        Place of the clip in the batch.
    features : lmac_sb.features.SpectralFeatures
        For the axes and the sampling rate.
    classes : list of str
        Names of the classes.
    truth : str
        The clip's label, if it is known.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = {
        "original": wav,
        "interpretation": explanation.waveform[index],
        "residual": explanation.residual[index],
    }
    sounds = {name: sound.detach().cpu() for name, sound in sounds.items()}
    # One gain for all, so that their levels compare and none is clipped.
    peak = max(float(sound.abs().max()) for sound in sounds.values())
    gain = 1 / max(peak, 1.0)
    for name, sound in sounds.items():
        sf.write(
            folder / f"{name}.wav",
            (sound * gain).numpy(),
            features.sample_rate,
            subtype="PCM_16",
        )
    figure = _draw(sounds, explanation, index, features, classes, truth)
    figure.savefig(folder / "spectra.png", dpi=90)
    return folder


def _draw(sounds, explanation, index, features, classes, truth):
    """Spectrograms and mask of one clip."""
    c = int(explanation.decision[index])
    p, p_in, p_out = (
        float(logits[index].detach().softmax(0)[c])
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    seconds = len(sounds["original"]) / features.sample_rate
    kilohertz = features.sample_rate / 2000
    extent = (0, seconds, 0, kilohertz)
    levels = {name: _decibels(x, features) for name, x in sounds.items()}
    top = max(float(level.max()) for level in levels.values())

    figure = Figure(figsize=(11, 6), layout="constrained")
    label = "" if truth is None else f" (label: {truth})"
    # Names may hold dollar signs, which are no formulas.
    figure.suptitle(f"decision: {classes[c]}{label}", parse_math=False)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    titles = {
        "original": f"input, p = {p:.3f}",
        "interpretation": f"interpretation, p = {p_in:.3f}",
        "residual": f"residual, p = {p_out:.3f}",
    }
    places = {"original": (0, 0), "interpretation": (1, 0), "residual": (1, 1)}
    for name, place in places.items():
        axis = axes[place]
        image = axis.imshow(
            levels[name].T.numpy(),
            origin="lower",
            aspect="auto",
            extent=extent,
            vmin=top - 80,
            vmax=top,
            cmap="magma",
        )
        axis.set_title(titles[name])
        figure.colorbar(image, ax=axis, label="dB")
    mask = explanation.mask[index].detach().float().cpu()
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


def _decibels(sound, features):
    """Level of each bin in dB, [time, freq]."""
    stft = features.stft(sound[None].to(features.fbank_matrix.device))
    magnitude = features.magnitude(stft)[0].cpu()
    return 20 * torch.log10(magnitude.clamp(min=1e-7))
