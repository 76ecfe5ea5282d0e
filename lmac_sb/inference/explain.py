"""One function, from any classifier and a sound to what it listens to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.inference.load import load_interpreter
from lmac_sb.lmac.refine import check_steps
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import as_path

__all__ = ["explain"]

# Options of an explanation; the others are of the classifier.
_HOW = (
    *("targets", "min_p", "threshold"),
    *("second_look", "unrefined", "stable"),
)


def explain(
    model: Any,
    sound: Any,
    target: Any = None,
    against: Any = None,
    steps: int | None = None,
    **options: Any,
) -> AudioExplanation:
    """Hear why a classifier decided, without training anything.

    Arguments
    ---------
    model : torch.nn.Module, callable, str or Path
        Any classifier of sounds: see
        `lmac_sb.LMACInterpreter.from_classifier`. Folders that `lmac export`
        or `LMACInterpreter.save` wrote can be named as well, as can
        ``"esc10"``, ``"yamnet"``, ``"crepe"`` and ``"silero"`` (see
        `from_pretrained`),
        and an interpreter is used as it is.
    sound : str, Path, numpy.ndarray, torch.Tensor or tuple
        An audio file, whose name may be bytes; samples; or samples with
        their rate, see `lmac_sb.LMACInterpreter.explain_sound`. Samples
        alone have the rate of the option `rate`, or else the model's.
    target : str, int, set or callable
        What to explain; default the decision. See
        `lmac_sb.LMACInterpreter.explain_file`.
    against : str, int or set
        What it is compared with, such as ``"runner-up"``; default all others.
    steps : int
        Gradient steps to the mask; by default 10 (14 of YAMNet), or what a
        model with a decoder of its own is set to.
    **options
        `targets`, `min_p`, `threshold`, `second_look`, `unrefined` and
        `stable` of `lmac_sb.LMACInterpreter.explain_file`; all others, such as
        `sample_rate`, `labels` and `features`, of `from_classifier`, which
        models that are made already do not take.

    Returns
    -------
    lmac_sb.inference.explanation.AudioExplanation
        Sounds, mask, probabilities and a verdict: print it, `save` it to a
        folder, or look at it in a notebook.

    Raises
    ------
    LMACError
        If the model or the sound cannot be used; says what to do.

    Example
    -------
    >>> import torch, lmac_sb
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Unflatten(1, (1, -1)),
    ...     torch.nn.Conv1d(1, 3, 400, 160),
    ...     torch.nn.AdaptiveMaxPool1d(1),
    ...     torch.nn.Flatten(),
    ... )
    >>> explanation = lmac_sb.explain(net, path, sample_rate=16000)
    >>> folders = explanation.save(getfixture("tmp_path") / "why")
    """
    if isinstance(sound, bytes):  # a name that is no text
        as_path("sound", sound)  # refuses what is none
        sound = os.fsdecode(sound)
    if steps is not None:
        check_steps(steps, "steps")
    how = {name: options.pop(name) for name in _HOW if name in options}
    rate = options.pop("rate", None)
    if rate is not None:
        if isinstance(sound, (str, Path, tuple, Mapping)):
            raise LMACError(
                f"rate: found {shown(rate)}, but the sound has its own; "
                "expected it with samples alone"
            )
        sound = (sound, rate)
    model = load_interpreter(model, sound=sound, **options)
    return model.explain_sound(
        sound, target, against, refine_steps=steps, **how
    )
