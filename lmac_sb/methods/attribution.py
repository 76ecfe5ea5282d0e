"""What all attributions share: one clip, its logits and gradients."""

import contextlib
import inspect
import math

import torch
from torch.overrides import TorchFunctionMode

from lmac_sb.utils.errors import LMACError

__all__ = ["PASS", "ReplaceFunctions", "attribute", "captum_method"]

PASS = 8  # versions of a clip that are classified together


_SAMPLES = 24  # noisy versions of a clip


_NOISE = 0.15  # standard deviation of the noise, of the clip's range


_TOLERANCE = 0.05  # of the logit's rise from silence, or of one if more


class Clip:
    """One clip, and the classifier in the domain of the explanation.

    Arguments
    ---------
    method : str
        Name of the method, for messages.
    explainer : lmac_sb.Explainer
        Its `classify` is explained.
    analysis : lmac_sb.lmac.explainer.Analysis
        Of the clip alone.
    target : int
        Class to explain.

    Example
    -------
    >>> clip = Clip("saliency", explainer, explainer.analyze(wavs[:1]), 1)
    >>> clip.logits(clip.x).shape
    torch.Size([1, 3])
    """

    def __init__(self, method, explainer, analysis, target):
        self.method = method
        self.explainer = explainer
        self.analysis = analysis
        self.target = target
        self.x = torch.log1p(analysis.magnitude).detach().requires_grad_()

    def logits(self, x):
        """Logits [n, classes] of log1p magnitudes [n, time, freq]."""
        logits = self.explainer.classify(torch.expm1(x), self.analysis)
        if x.requires_grad and not logits.requires_grad:
            raise LMACError(
                f"{self.method}: the classifier gives no gradient to its "
                "input, expected a differentiable one; occlusion takes any"
            )
        return logits

    def gradients(self, points, mode=None):
        """Gradients of the logit at points [n, time, freq], in passes."""
        found = []
        for part in points.split(PASS):
            part = part.detach().requires_grad_()
            with mode or contextlib.nullcontext():
                logit = self.logits(part)[:, self.target]
            found += torch.autograd.grad(logit.sum(), part)
        return torch.cat(found)

    def missing(self, scores):
        """What is wrong with the sum of the scores, or None.

        It should be the logit's rise from silence to the clip.
        """
        x = self.x.detach()
        pair = torch.cat((x, torch.zeros_like(x)))
        logit, silence = self.logits(pair)[:, self.target].tolist()
        rise, total = logit - silence, scores.sum().item()
        if not math.isfinite(total - rise):
            raise LMACError(
                f"{self.method}: the logit is {logit:.4g} and the scores add "
                f"up to {total:.4g}, expected finite numbers"
            )
        if abs(total - rise) <= _TOLERANCE * max(abs(rise), 1):
            return None
        return (
            f"{self.method}: the scores add up to {total:.4g}, but the logit "
            f"is {rise:.4g} above that of silence"
        )

    def noisy(self):
        """Noisy versions of the clip, [samples, time, freq]."""
        generator = torch.Generator().manual_seed(0)
        x = self.x.detach()
        noise = torch.randn(_SAMPLES, *x.shape[1:], generator=generator)
        noise = noise.to(x) * (_NOISE * (x.max() - x.min()))
        # A magnitude is not negative, and its mel bands have a logarithm.
        return (x + noise).clamp(min=0)


def captum_method(method):
    """The captum class of a name.

    Arguments
    ---------
    method : str
        Its name.

    Returns
    -------
    type

    Raises
    ------
    LMACError
        If captum is not installed; says how to get it.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise LMACError(
            "captum: not installed, expected captum 0.8 or newer; "
            'run: pip install "lmac-sb[eval]"'
        ) from error
    return getattr(captum.attr, method)


class ReplaceFunctions(TorchFunctionMode):
    """Sees functions by name, be they called by a module or not.

    Arguments
    ---------
    rules : dict
        Name of a function, without the underscore of its in-place form, ->
        what is called with (function, tensor, other arguments, keywords)
        instead of it.

    Example
    -------
    >>> rules = {"relu": lambda function, x, rest, kwargs: 2 * x}
    >>> with ReplaceFunctions(rules):
    ...     torch.nn.ReLU()(torch.tensor([-1.0], requires_grad=True)).tolist()
    [-2.0]
    """

    def __init__(self, rules):
        super().__init__()
        self.rules = rules
        self.met = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function's rule, or the function."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        rule = self.rules.get(name[:-1] if name.endswith("_") else name)
        if rule is None:
            return func(*args, **kwargs)
        x, *rest = args or [kwargs.pop("input")]
        if not x.requires_grad:
            return func(x, *rest, **kwargs)
        self.met = True
        # Only functions written in Python have a flag for it; that of
        # others is `keepdim`.
        flag = inspect.isfunction(func) and any(a is True for a in rest)
        in_place = kwargs.pop("inplace", flag or name.endswith("_"))
        y = rule(func, x, rest, kwargs)
        # Whoever goes on with the changed input must see the change.
        return x.copy_(y) if in_place else y


def attribute(name, one, explainer, analysis, target):
    """Scores of a batch by one method.

    Arguments
    ---------
    name : str
        The method's name, for messages.
    one : callable
        Scores [1, time, freq] of a `_Clip`.
    explainer : lmac_sb.lmac.explainer.Explainer
        Its `classify` is explained.
    analysis : lmac_sb.lmac.explainer.Analysis
        Of the clips.
    target : torch.Tensor
        Class to explain, [batch].

    Returns
    -------
    torch.Tensor
        Scores, higher is more relevant, [batch, time, freq].

    Raises
    ------
    LMACError
        If captum is missing, or the classifier does not allow the method.
    """
    scores = []
    with torch.inference_mode(False), torch.enable_grad():
        for i, label in enumerate(target.tolist()):
            clip = Clip(name, explainer, analysis[i : i + 1], label)
            scores.append(one(clip).detach())
    scores = torch.cat(scores)
    if not scores.isfinite().all():
        bad = (~scores.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise LMACError(
            f"{name}: NaN or infinite scores for clips {bad} of the batch, "
            "expected a classifier with finite logits and gradients"
        )
    return scores
