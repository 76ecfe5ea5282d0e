"""Whether the mask of an explanation survives what should not matter.

A clip is explained once more with a small shift and with noise 30 dB below it,
and, where another way to the mask is given (such as another start of the
gradient steps), by that one too. Masks of the same class are compared on the
bins that sound, see `lmac_sb.metrics.verdict.agreement`.
"""

from dataclasses import replace

import torch

from lmac_sb.inference.spectra import input_of
from lmac_sb.metrics.verdict import agreement

__all__ = ["check_stability", "disturbed"]

SHIFT_FRAMES = 2  # later, in frames of the mask
NOISE_DB = 30.0  # below the sound
_SEED = 1234  # the same noise in each call


def check_stability(explain, explanation, others=None):
    """The explanation with its `agreement`, and so `stable`, filled in.

    Takes as long as the explanation itself, once for the disturbed sounds and
    once for each of the others.

    Arguments
    ---------
    explain : callable
        What has made the explanation: `lmac_sb.LMACInterpreter.explain_batch`,
        or what takes waveforms [1, samples], target, threshold and
        refine_steps like it.
    explanation : lmac_sb.inference.explanation.AudioExplanation
        Of any number of clips.
    others : dict
        Name of a check to a callable like `explain`, which explains the clips
        as they are in another way; its masks have to agree too.

    Returns
    -------
    lmac_sb.inference.explanation.AudioExplanation
        Another one; the given one stays as it is.

    Example
    -------
    >>> explanation = interpreter.explain_file(path)
    >>> explanation.stable
    [None]
    >>> checked = check_stability(interpreter.explain_batch, explanation)
    >>> list(checked.agreement[0]), checked.stable[0] in (True, False)
    (['shift and noise'], True)
    """
    others = others or {}
    found = [dict(known) for known in explanation.agreement]
    # One after the other: each is of another length.
    for i in range(len(explanation)):
        clip = explanation[i]
        wav = clip.wavs[0, : clip.n_samples[0]]
        shift = _shift(clip, len(wav))
        again = _explain(
            explain,
            clip,
            disturbed(wav, shift * clip.features.hop_samples),
        )
        found[i]["shift and noise"] = _compare(clip, again, wav, shift)
        for name, other in others.items():
            found[i][name] = _compare(clip, _explain(other, clip, wav), wav)
    return replace(explanation, agreement=found)


def disturbed(wav, shift):
    """A sound that begins a little later, with noise 30 dB below it.

    Arguments
    ---------
    wav : torch.Tensor
        [samples].
    shift : int
        Samples that the sound moves by; its end is cut.

    Returns
    -------
    torch.Tensor
        [samples], of the same length. Silence stays silence.

    Example
    -------
    >>> wav = torch.ones(20000)
    >>> later = disturbed(wav, 100)
    >>> noise = later[100:] - wav[100:]
    >>> len(later), f"{20 * noise.std().log10():.0f} dB"
    (20000, '-30 dB')
    """
    later = torch.nn.functional.pad(wav, (shift, 0))[: len(wav)]
    generator = torch.Generator().manual_seed(_SEED)
    noise = torch.randn(len(wav), generator=generator)
    power = wav.double().square().mean() * 10 ** (-NOISE_DB / 10)
    return later + noise * float(power.sqrt())


def _shift(clip, n_samples):
    """Frames to shift a clip by: in a very short one, less of it is left."""
    return min(SHIFT_FRAMES, clip.features.n_frames(n_samples) // 4)


def _explain(explain, clip, wav):
    """Another explanation of the same class, made in the same way."""
    return explain(
        wav[None],
        target=clip.question or clip.decision.tolist(),
        threshold=clip.threshold,
        refine_steps=clip.refine_steps,
        second_look=clip.second_look,
    )


def _compare(clip, again, wav, shift=0):
    """Agreement of two masks, the second of which lies `shift` frames later."""
    features = clip.features
    # The end is not in both.
    both = wav[: len(wav) - shift * features.hop_samples]
    mask, magnitude = input_of(both, clip.mask[0], features)
    other, _ = input_of(both, again.mask[0, shift:], features)
    return float(agreement(mask[None], other[None], magnitude[None])[0])
