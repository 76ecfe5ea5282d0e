"""From the scores of frames to those of a clip, a moment or a range."""

import math

from torch.nn.functional import logsigmoid

from lmac_sb.utils.errors import LMACError, is_number, shown

__all__ = ["POOLS", "check_time", "frames_at", "pool_frames"]


def pool_frames(logits, pool, multilabel):
    """Logits of a clip from those of its frames or windows.

    The clip's probability by `pool`:

    - ``"mean"``: mean of the frames' probabilities, of the softmax or, for
      several labels, of each sigmoid; not that of the logits;
    - ``"max"``: largest logit of each class. Of a sigmoid that is the
      largest probability too;
    - ``"mean_logits"``: mean of the logits;
    - a function from logits [batch, frames, classes] to [batch, classes].

    Arguments
    ---------
    logits : torch.Tensor
        [batch, frames, classes].
    pool : str or callable
        See above.
    multilabel : bool
        Whether each class is decided on its own, by a sigmoid.

    Returns
    -------
    torch.Tensor
        [batch, classes].

    Example
    -------
    >>> import torch
    >>> frames = torch.tensor([[[0.0], [100.0]]])
    >>> pool_frames(frames, "mean", multilabel=True).sigmoid()
    tensor([[0.7500]])
    """
    if callable(pool):
        pooled = pool(logits)
        expected = (logits.shape[0], logits.shape[2])
        if tuple(pooled.shape) != expected:
            raise LMACError(
                f"pool: gave shape {list(pooled.shape)}, expected [batch, "
                f"classes] = {list(expected)}"
            )
        return pooled
    if logits.shape[1] == 1:
        return logits[:, 0]
    return POOLS[pool](logits, multilabel)


def _mean(logits, multilabel):
    """Logits of the mean probability."""
    if not multilabel:
        return _log_mean(logits.log_softmax(2))
    return _log_mean(logsigmoid(logits)) - _log_mean(logsigmoid(-logits))


def _log_mean(log_p):
    """Logarithm of the mean over frames of probabilities."""
    return log_p.logsumexp(1) - math.log(log_p.shape[1])


POOLS = {
    "mean": _mean,
    "max": lambda logits, multilabel: logits.amax(1),
    "mean_logits": lambda logits, multilabel: logits.mean(1),
}


def check_time(at, duration=math.inf):
    """Refuse what is no time within a clip, or no range.

    Arguments
    ---------
    at : float or tuple of float
        A time in seconds, or the start and end of a range.
    duration : float
        Length of the clip in seconds; by default any time may be within it.

    Returns
    -------
    tuple of float
        Start and end, which are the same for a time.

    Raises
    ------
    LMACError
        If `at` is neither.

    Example
    -------
    >>> check_time(1.5), check_time((0, 2))
    ((1.5, 1.5), (0.0, 2.0))
    """
    is_range = isinstance(at, (tuple, list))
    pair = tuple(at) if is_range else (at, at)
    if (
        len(pair) != 2
        or not all(map(is_number, pair))
        or not 0 <= pair[0] <= pair[1] <= duration
        or math.isinf(pair[1])
        or (is_range and pair[0] == pair[1])
    ):
        limits = "" if math.isinf(duration) else f", 0 to {duration:g}"
        raise LMACError(
            f"at: found {shown(at)}, expected a time in seconds or a range "
            f"(start, end) within the clip{limits}"
        )
    return float(pair[0]), float(pair[1])


def frames_at(at, starts, ends, duration):
    """Which frames or windows are heard at a time, or over a range.

    Arguments
    ---------
    at : float or tuple of float
        A time in seconds, or the start and end of a range.
    starts : torch.Tensor
        Start of each frame in seconds, [frames].
    ends : torch.Tensor
        Their ends.
    duration : float
        Length of the clip in seconds.

    Returns
    -------
    torch.Tensor
        Indices: of a time all frames that hold it, of a range all that
        overlap with it; the nearest frame if there is none.

    Raises
    ------
    LMACError
        If `at` is no such time, or outside the clip.

    Example
    -------
    >>> import torch
    >>> starts = torch.tensor([0.0, 0.5, 1.0, 1.5])
    >>> frames_at(1.2, starts, starts + 0.5, 2.0)
    tensor([2])
    >>> frames_at((0.5, 1.2), starts, starts + 0.5, 2.0)
    tensor([1, 2])
    """
    first, last = check_time(at, duration)
    if isinstance(at, (tuple, list)):
        held = (starts < last) & (ends > first)
    else:
        held = (starts <= first) & (ends > first)
    if held.any():
        return held.nonzero()[:, 0]
    middle = (starts + ends) / 2
    return (middle - (first + last) / 2).abs().argmin()[None]
