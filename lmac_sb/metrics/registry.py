"""All metrics by name: direction, what they need, where they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lmac_sb.metrics.fidelity import (
    average_drop,
    average_drop_second_softmax,
    average_gain,
    average_increase,
    faithfulness,
    faithfulness_logit,
    input_fidelity,
)
from lmac_sb.metrics.localisation import (
    event_auc,
    event_mass,
    event_topk,
    kept_event_auc,
    kept_event_mass,
    kept_event_topk,
    kept_time_auc,
    kept_time_mass,
    pointing,
    time_auc,
    time_f1,
    time_iou,
    time_mass,
)
from lmac_sb.metrics.shape import complexity, mask_area, sparseness
from lmac_sb.metrics.sound import si_sdr

if TYPE_CHECKING:
    # Only its name: this room comes before that of the method.
    from lmac_sb.lmac.explainer import Explanation

__all__ = [
    "GUARDS",
    "METRICS",
    "Metric",
    "direction",
    "evaluate",
    "shown_in",
    "unguarded",
]


@dataclass(frozen=True)
class Metric:
    """All that the package knows about a metric; a new one is one entry.

    Arguments
    ---------
    function : callable
        Tensors, see `needs`, to one value a clip, [batch]; None for a column
        that `evaluate` does not compute.
    needs : str
        What the function is given: ``in`` or ``out`` (probabilities on the
        whole and on one side, and the class), ``logits`` (those on the whole
        and outside, and the class), ``mask``, ``event`` (mask and ideal mask),
        ``others`` (mask and ideal mask of other events), ``frames`` (mask and
        active frames) or ``sound`` (waveform and clean one). ``kept`` before
        one of the three in the middle: mask, as a factor on the magnitude, the
        magnitude, and the same; ``kept known``: the event or, where it is not
        known, the frames. None without a function.
    direction : int
        1 if higher is better, -1 if lower is, 0 if neither.
    digits : int
        Decimals in tables.
    unit : str
        ``%``, ``dB`` or nothing.
    shown : tuple of str
        Where it is shown, apart from the full tables: ``table`` (short ones,
        such as after training), ``console`` (the line for each epoch),
        ``passes`` (the plot over gradient steps).
    repeated : bool
        Whether it is computed once more for each of the `GUARDS`, and drawn
        over the signal-to-noise ratio. It needs the classifier's answers
        alone then.

    Example
    -------
    >>> METRICS["AI"].direction, METRICS["AI"].unit, METRICS["AI"].repeated
    (1, '%', True)
    """

    function: Callable[..., Tensor] | None
    needs: str | None
    direction: int
    digits: int = 3
    unit: str = ""
    shown: tuple[str, ...] = ()
    repeated: bool = False

    def __post_init__(self) -> None:
        if self.repeated and self.needs not in ("in", "out", "logits"):
            raise ValueError(
                f"repeated: found a metric that needs {self.needs!r}, "
                "expected one of the classifier's answers alone"
            )


_EVERYWHERE = ("table", "console", "passes")

# Every metric by its printed name, in the order of the columns.
METRICS = {
    "AI": Metric(average_increase, "in", 1, 1, "%", _EVERYWHERE, True),
    "AD": Metric(average_drop, "in", -1, 2, "%", _EVERYWHERE, True),
    "AG": Metric(average_gain, "in", 1, 1, "%", _EVERYWHERE, True),
    "FF": Metric(faithfulness, "out", 1, shown=_EVERYWHERE, repeated=True),
    "FF-logit": Metric(faithfulness_logit, "logits", 1, 2),
    "Fid-In": Metric(
        input_fidelity, "in", 1, shown=("table", "console"), repeated=True
    ),
    "SPS": Metric(sparseness, "mask", 1, shown=("table",)),
    "COMP": Metric(complexity, "mask", -1, shown=("table",)),
    "area": Metric(mask_area, "mask", 0, shown=_EVERYWHERE),
    "AD-2softmax": Metric(average_drop_second_softmax, "in", -1, 2, "%"),
    "event_mass": Metric(event_mass, "event", 1, shown=("table", "passes")),
    "event_topk": Metric(event_topk, "event", 1),
    "event_auc": Metric(event_auc, "event", 1, shown=_EVERYWHERE),
    "kept_event_mass": Metric(
        kept_event_mass, "kept event", 1, shown=("table",)
    ),
    "kept_event_topk": Metric(kept_event_topk, "kept event", 1),
    "kept_event_auc": Metric(
        kept_event_auc, "kept event", 1, shown=("table", "console")
    ),
    "time_mass": Metric(time_mass, "frames", 1),
    "time_auc": Metric(time_auc, "frames", 1),
    "kept_time_mass": Metric(kept_time_mass, "kept frames", 1),
    "kept_time_auc": Metric(kept_time_auc, "kept frames", 1),
    "time_iou": Metric(time_iou, "kept known", 1),
    "time_f1": Metric(time_f1, "kept known", 1),
    "pointing": Metric(pointing, "kept known", 1),
    "SI-SDR": Metric(si_sdr, "sound", 1, 1, "dB"),
    # From the rows of several shares.
    "insertion AUC": Metric(None, None, 1),
    "deletion AUC": Metric(None, None, -1),
    "other_mass": Metric(event_mass, "others", -1),
    "other_auc": Metric(event_auc, "others", -1),
    "kept_other_mass": Metric(kept_event_mass, "kept others", -1),
    "kept_other_auc": Metric(kept_event_auc, "kept others", -1),
}


# Words before a metric's name for other ways to compute it: from the sounds,
# with noise added, shifted, or by another classifier.
GUARDS = ("heard", "noisy", "shifted", "other")


def shown_in(place: str) -> list[str]:
    """Names of the metrics that are shown in a place.

    Arguments
    ---------
    place : str
        ``table``, ``console`` or ``passes``, see `Metric`.

    Returns
    -------
    list of str

    Example
    -------
    >>> shown_in("passes")
    ['AI', 'AD', 'AG', 'FF', 'area', 'event_mass', 'event_auc']
    """
    return [name for name, metric in METRICS.items() if place in metric.shown]


def unguarded(column: str) -> str:
    """Name of the metric in a column, which may be one of the guards.

    Arguments
    ---------
    column : str
        Such as ``heard AI`` or ``AI``.

    Returns
    -------
    str

    Example
    -------
    >>> unguarded("heard AI"), unguarded("insertion AUC")
    ('AI', 'insertion AUC')
    """
    first, _, rest = column.partition(" ")
    return rest if first in GUARDS else column


def direction(column: str) -> int:
    """Better direction of any column of a table.

    Arguments
    ---------
    column : str
        Such as ``AI``, ``heard AI`` or ``SI-SDR``.

    Returns
    -------
    int
        1 if higher is better, -1 if lower is, 0 if neither.

    Example
    -------
    >>> direction("heard AD"), direction("insertion AUC"), direction("area")
    (-1, 1, 0)
    """
    metric = METRICS.get(unguarded(column))
    return metric.direction if metric else 0


def evaluate(
    explanation: Explanation,
    event: Tensor | None = None,
    frames: Tensor | None = None,
    clean: Tensor | None = None,
    others: Tensor | None = None,
    linear_mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """All metrics of an explained batch.

    Arguments
    ---------
    explanation : lmac_sb.lmac.explainer.Explanation
        With both sides classified. Without a mask (None), the metrics of the
        logits alone.
    event : torch.Tensor
        Ideal mask of a known event, [batch, time, freq], or None.
    frames : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time], where no
        more of it is known; default those of the ideal mask.
    clean : torch.Tensor
        The clip within a mixture, [batch, samples], or None.
    others : torch.Tensor
        Ideal mask of the events of other classes, [batch, time, freq], or
        None.
    linear_mask : torch.Tensor
        The mask as a factor on the magnitude, [batch, time, freq], where it
        acts in another domain; default the mask.

    Returns
    -------
    dict
        Name in `METRICS` to [batch]; without those whose needs are not there.

    Example
    -------
    >>> found = evaluate(explainer(wavs))
    >>> found["area"].shape, "event_mass" in found
    (torch.Size([2]), False)
    """
    sides: tuple[Any, ...] = (
        explanation.logits,
        explanation.logits_in,
        explanation.logits_out,
    )
    logits, logits_in, logits_out = (x.detach().float() for x in sides)
    p, p_in, p_out = (x.softmax(1) for x in (logits, logits_in, logits_out))
    if event is not None and frames is None:
        frames = (event > 0).any(-1)
    mask, decision = explanation.mask, explanation.decision
    heard: tuple[Any, ...] = None, None
    if mask is not None:
        factor = mask if linear_mask is None else linear_mask
        heard = factor, explanation.magnitude
    inputs: dict[str | None, tuple[Any, ...]] = {
        "in": (p, p_in, decision),
        "out": (p, p_out, decision),
        "logits": (logits, logits_out, decision),
        "mask": (mask,),
        "event": (mask, event),
        "others": (mask, others),
        "frames": (mask, frames),
        "kept event": (*heard, event),
        "kept others": (*heard, others),
        "kept frames": (*heard, frames),
        "kept known": (*heard, frames if event is None else event),
        "sound": (explanation.waveform, clean),
    }
    return {
        name: metric.function(*inputs[metric.needs])
        for name, metric in METRICS.items()
        if metric.function and all(x is not None for x in inputs[metric.needs])
    }
