"""All metrics by name: direction, what they need, where they are shown."""

from collections import namedtuple

from lmac_sb.metrics.faithfulness import (
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
    time_auc,
    time_mass,
)
from lmac_sb.metrics.shape import complexity, mask_area, sparseness

__all__ = ["GUARDS", "METRICS", "direction", "evaluate", "unguarded"]

Metric = namedtuple("Metric", "function direction needs short")


# What each explanation is judged by: printed name, better direction (+1
# higher, -1 lower, 0 neither), what the metric is a function of, and whether
# short tables, as after training, show it.
METRICS = {
    "AI": Metric(average_increase, 1, "in", True),
    "AD": Metric(average_drop, -1, "in", True),
    "AG": Metric(average_gain, 1, "in", True),
    "FF": Metric(faithfulness, 1, "out", True),
    "FF-logit": Metric(faithfulness_logit, 1, "logits", False),
    "Fid-In": Metric(input_fidelity, 1, "in", True),
    "SPS": Metric(sparseness, 1, "mask", True),
    "COMP": Metric(complexity, -1, "mask", True),
    "area": Metric(mask_area, 0, "mask", True),
    "AD-2softmax": Metric(average_drop_second_softmax, -1, "in", False),
    "event_mass": Metric(event_mass, 1, "event", True),
    "event_topk": Metric(event_topk, 1, "event", False),
    "event_auc": Metric(event_auc, 1, "event", True),
    "time_mass": Metric(time_mass, 1, "frames", False),
    "time_auc": Metric(time_auc, 1, "frames", False),
}


# Better directions of what one explanation alone does not tell.
DIRECTIONS = {
    "SI-SDR": 1,
    "insertion AUC": 1,
    "deletion AUC": -1,
    "other_mass": -1,
    "other_auc": -1,
}


# Words before a metric's name that say how the mask was judged otherwise: by
# the sounds, with noise on them, shifted, or by another classifier.
GUARDS = ("heard", "noisy", "shifted", "other")


def unguarded(column):
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


def direction(column):
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
    name = unguarded(column)
    if name in METRICS:
        return METRICS[name].direction
    return DIRECTIONS.get(name, 0)


def evaluate(explanation, event=None, frames=None):
    """All metrics of an explained batch.

    Arguments
    ---------
    explanation : lmac_sb.explain.explainer.Explanation
        Any object with mask, logits, logits_in, logits_out and decision.
        Without a mask (None), the metrics of the logits alone.
    event : torch.Tensor
        Ideal mask of a known event, [batch, time, freq], or None.
    frames : torch.Tensor
        Frames in which the event sounds, boolean, [batch, time], where no
        more of it is known; default those of the ideal mask.

    Returns
    -------
    dict
        Name in `METRICS` to [batch]; without those of a mask, an event or
        its frames that are not there.
    """
    logits, logits_in, logits_out = (
        logits.detach().float()
        for logits in (
            explanation.logits,
            explanation.logits_in,
            explanation.logits_out,
        )
    )
    p, p_in, p_out = (x.softmax(1) for x in (logits, logits_in, logits_out))
    if event is not None and frames is None:
        frames = (event > 0).any(-1)
    mask, decision = explanation.mask, explanation.decision
    inputs = {
        "in": (p, p_in, decision),
        "out": (p, p_out, decision),
        "logits": (logits, logits_out, decision),
        "mask": (mask,),
        "event": (mask, event),
        "frames": (mask, frames),
    }
    return {
        name: metric.function(*inputs[metric.needs])
        for name, metric in METRICS.items()
        if all(x is not None for x in inputs[metric.needs])
    }
