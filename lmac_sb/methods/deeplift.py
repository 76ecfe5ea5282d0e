"""DeepLIFT's rescale rule, from silence to the clip."""

import torch

from lmac_sb.methods.attribution import ReplaceFunctions
from lmac_sb.utils.errors import LMACError

__all__ = ["deeplift_shap"]


def _secant(func, x, rest, kwargs):
    """DeepLIFT's rescale rule for a function of each element.

    The first half of x is the clip, the second silence: the gradient is the
    slope between both, and the function's own where they are the same.
    """
    if len(x) % 2:  # no pair, so the check of the sum has to refuse it
        return func(x.clone(), *rest, **kwargs)
    with torch.enable_grad():
        z = x.detach().requires_grad_()
        # Of a copy, since the function may work in place.
        y = func(z.clone(), *rest, **kwargs)
        (slope,) = torch.autograd.grad(y.sum(), z)
    rise, run = (v[: len(v) // 2] - v[len(v) // 2 :] for v in (y.detach(), z))
    run = run.detach().repeat(2, *[1] * (x.dim() - 1))
    rise = rise.repeat(2, *[1] * (x.dim() - 1))
    slope = torch.where(run.abs() > 1e-6, rise / run, slope)
    return y.detach() + slope * (x - x.detach())


def _highest(func, x, rest, kwargs):
    """DeepLIFT's rescale rule for a maximum over one axis.

    If the maximum rises from silence to the clip, all of it counts for the
    place of the clip's maximum, else for that of the silence's maximum.
    """
    dim = kwargs.get("dim", rest[0] if rest else None)
    if not isinstance(dim, int) or len(x) % 2:
        return func(x, *rest, **kwargs)
    keepdim = kwargs.get("keepdim", rest[1] if len(rest) > 1 else False)
    z = x.detach()
    top, places = z.max(dim, keepdim=True)
    half = len(z) // 2
    rise = top[:half] - top[half:]
    place = torch.where(rise > 0, places[:half], places[half:])
    run = (z[:half] - z[half:]).gather(dim, place)
    slope = torch.where(rise == 0, torch.zeros_like(rise), rise / run)
    moved = (x - z).gather(dim, torch.cat((place, place)))
    y = top + torch.cat((slope, slope)) * moved
    if not keepdim:
        y, places = y.squeeze(dim), places.squeeze(dim)
    if func.__name__ == "amax":
        return y
    return torch.return_types.max((y, places))


_RESCALED = {
    **dict.fromkeys(
        (
            "relu leaky_relu elu gelu silu softplus sigmoid tanh "
            "exp expm1 log log1p"
        ).split(),
        _secant,
    ),
    "amax": _highest,
    "max": _highest,
}


def deeplift_shap(clip):
    """DeepLIFT's rescale rule between silence and the clip, signed.

    DeepLIFT SHAP is its mean over baselines; there is one, silence. It adds
    up to the logit's rise to within 5 % (of at least one), or the classifier
    holds an operation that the rule does not know and is refused.

    Arguments
    ---------
    clip : lmac_sb.methods.attribution.Clip
        The clip, its class and its classifier.

    Returns
    -------
    torch.Tensor
        Scores [1, time, freq].
    """
    pair = torch.cat((clip.x, torch.zeros_like(clip.x)))
    pair = pair.detach().requires_grad_()
    with ReplaceFunctions(_RESCALED):
        logit = clip.logits(pair)[0, clip.target]
    (multipliers,) = torch.autograd.grad(logit, pair)
    scores = clip.x * multipliers[:1]
    missing = clip.missing(scores)
    if missing is not None:
        raise LMACError(
            f"{missing}, so this classifier does not allow it; expected one "
            f"whose only non-linear operations are {', '.join(_RESCALED)}"
        )
    return scores
