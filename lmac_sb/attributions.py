"""Attributions of a classifier's decision: gradients and occlusion.

What L-MAC is compared with. Each method in `ATTRIBUTIONS` explains the logit
of the target class on ``log1p(magnitude)``, the domain that the classifier's
own front end compresses in, and gives a score to each bin of the linear
spectrogram: higher is more relevant. Silence (zeros) is the baseline.

Passes of the classifier and signs:

======================== =========== =========== ============ ================
method                   forward     backward    sign         source
======================== =========== =========== ============ ================
``saliency``             1           1           absolute     arXiv 1312.6034
``input_x_gradient``     1           1           signed       arXiv 1605.01713
``smoothgrad``           24          24          absolute     arXiv 1706.03825
``integrated_gradients`` 34 to 1002  32 to 992   signed       arXiv 1703.01365
``guided_backprop``      1           1           signed       arXiv 1412.6806
``gradcam``              1           less than 1 not negative arXiv 1610.02391
``guided_gradcam``       2           less than 2 signed       arXiv 1610.02391
``gradient_shap``        24          24          signed       arXiv 1705.07874
``deeplift_shap``        4           2           signed       arXiv 1704.02685
``occlusion``            at most 286 0           signed       arXiv 1311.2901
======================== =========== =========== ============ ================

Where scores are signed, only positive ones speak for the class: a negative
score ranks below silence, which has zero.

Clips are explained one by one, at most `PASS` versions of one in a pass of
the classifier. So memory does not grow with the batch, and no result depends
on the other clips. Random methods draw the same noise for each clip, from a
generator of their own.

captum does what it can do here. It cannot guide a ReLU that is a function
and not a module (as in SpeechBrain's CNN14), nor apply DeepLIFT's rule to it;
it draws noise from the global generators, and its GradCAM takes the second
axis for channels. These are written out below.

Authors
 * The lmac-sb authors 2026
"""

import contextlib
import functools
import inspect
import math

import torch
from torch.overrides import TorchFunctionMode

from lmac_sb.errors import LMACError

__all__ = ["ATTRIBUTIONS", "PASS"]

PASS = 8  # versions of a clip that are classified together
_STEPS = (32, 64, 128, 256, 512)  # points on integrated gradients' path
_SAMPLES = 24  # noisy versions of a clip
_NOISE = 0.15  # standard deviation of the noise, of the clip's range
_PATCHES = (10, 8)  # an occluded patch is a tenth of the time x an eighth
_TOLERANCE = 0.05  # of the logit's rise from silence, or of one if more


class _Clip:
    """One clip, and the classifier in the domain of the explanation."""

    def __init__(self, method, explainer, magnitude, target):
        """Take the magnitude [1, time, freq] and the class to explain."""
        self.method = method
        self.explainer = explainer
        self.target = target
        self.x = torch.log1p(magnitude).detach().requires_grad_()

    def logits(self, x):
        """Logits [n, classes] of log1p magnitudes [n, time, freq]."""
        logits = self.explainer.classify(torch.expm1(x))
        if x.requires_grad and not logits.requires_grad:
            raise LMACError(
                f"{self.method}: the classifier gives no gradient to its "
                "input, needed is a differentiable one; occlusion takes any"
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
                f"up to {total:.4g}, needed are finite numbers"
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


def _captum(method):
    """The captum class of a name, or an error that says how to get it."""
    try:
        import captum.attr
    except ImportError as error:
        raise LMACError(
            "captum: not installed, needed is captum 0.8 or newer; "
            'run: pip install "captum>=0.8"'
        ) from error
    return getattr(captum.attr, method)


def _saliency(clip):
    """Absolute gradient."""
    method = _captum("Saliency")(clip.logits)
    return method.attribute(clip.x, clip.target, abs=True)


def _input_x_gradient(clip):
    """Input times gradient, signed."""
    method = _captum("InputXGradient")(clip.logits)
    return method.attribute(clip.x, clip.target)


def _smoothgrad(clip):
    """Absolute mean of the gradients at noisy versions.

    Gaussian noise of 15 % of the clip's range, cut at zero magnitude.
    """
    return clip.gradients(clip.noisy()).mean(0, keepdim=True).abs()


def _integrated_gradients(clip):
    """Mean gradient from silence to the clip, times the clip, signed.

    Adds up to the logit's rise from silence: as the paper advises, the steps
    are doubled until it does, to within 5 % (of at least one).
    """
    method = _captum("IntegratedGradients")(clip.logits)
    for steps in _STEPS:
        scores = method.attribute(
            clip.x,
            baselines=0,
            target=clip.target,
            n_steps=steps,
            internal_batch_size=PASS,
        )
        missing = clip.missing(scores)
        if missing is None:
            return scores
    raise LMACError(
        f"{missing}, after {steps} steps; needed is a classifier whose "
        "gradient changes less abruptly"
    )


def _gradient_shap(clip):
    """Expected gradients between silence and noisy versions, signed.

    Each of the noisy versions of SmoothGrad, scaled by a random factor.
    """
    ends = clip.noisy()
    generator = torch.Generator().manual_seed(1)
    scales = torch.rand(_SAMPLES, 1, 1, generator=generator).to(ends)
    return (clip.gradients(scales * ends) * ends).mean(0, keepdim=True)


def _occlusion(clip):
    """Fall of the logit where a patch is silenced, mean over patches, signed.

    A patch is a tenth of the frames (half a second of five) x an eighth of
    the bins; the next one lies half a patch further.
    """
    patch = tuple(
        -(-n // parts) for n, parts in zip(clip.x.shape[1:], _PATCHES)
    )
    method = _captum("Occlusion")(clip.logits)
    return method.attribute(
        clip.x.detach(),
        sliding_window_shapes=patch,
        strides=tuple(-(-size // 2) for size in patch),
        baselines=0,
        target=clip.target,
        perturbations_per_eval=PASS,
    )


class _Replace(TorchFunctionMode):
    """Sees functions by name, be they called by a module or not.

    Arguments
    ---------
    rules : dict
        Name of a function, without the underscore of its in-place form, ->
        what is called with (function, tensor, other arguments, keywords)
        instead of it.
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


def _guided_relu(func, x, rest, kwargs):
    """ReLU that lets only positive gradients through."""
    y = torch.relu(x)
    y.register_hook(lambda gradient: gradient.clamp(min=0))
    return y


def _guided_backprop(clip):
    """Gradient with each ReLU passing positive gradients only, signed."""
    mode = _Replace({"relu": _guided_relu})
    gradient = clip.gradients(clip.x, mode)
    if not mode.met:
        raise LMACError(
            f"{clip.method}: the classifier has no ReLU to guide, needed is "
            "one that calls relu as a function or torch.nn.ReLU"
        )
    return gradient


def _gradcam(clip):
    """Deepest latent layer, channels weighted by mean gradient, positive.

    The map is stretched over the frames (with those that the classifier was
    padded with) and the mel bands by bilinear interpolation, and a bin gets
    the mean of its bands by their weights in the filterbank; bins outside
    all bands get zero. The map of a layer without a frequency axis is the
    same at all frequencies.
    """
    classifier, features = clip.explainer.classifier, clip.explainer.features
    name = classifier.latent_layers[0]
    kept = []

    def keep(module, inputs, output):
        """Keep the output, and let a copy follow that may be changed."""
        several = isinstance(output, (tuple, list))
        kept.append(output[0] if several else output)
        follows = kept[-1].clone()
        return type(output)([follows, *output[1:]]) if several else follows

    layer = classifier.embedding_model.get_submodule(name)
    handle = layer.register_forward_hook(keep)
    try:
        logit = clip.logits(clip.x)[0, clip.target]
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(logit, kept[-1])
    if gradient.dim() not in (3, 4):
        raise LMACError(
            f"gradcam: layer '{name}' gives {gradient.dim()} axes, needed is "
            "one with a time axis: [batch, channels, time, freq] or three axes"
        )
    latent = classifier.to_map(kept[-1].detach())
    gradient = classifier.to_map(gradient)
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * latent).sum(1, keepdim=True).relu()
    n_frames = clip.x.shape[1]
    size = (max(n_frames, classifier.min_frames), features.n_mels)
    cam = torch.nn.functional.interpolate(
        cam, size, mode="bilinear", align_corners=False
    )[:, 0, :n_frames]
    bank = features.fbank_matrix
    total = bank.sum(1, keepdim=True)
    shares = torch.where(total > 0, bank / total, torch.zeros_like(bank))
    return cam @ shares.T


def _guided_gradcam(clip):
    """Product of guided backpropagation and GradCAM, signed."""
    return _guided_backprop(clip) * _gradcam(clip)


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


def _deeplift_shap(clip):
    """DeepLIFT's rescale rule between silence and the clip, signed.

    DeepLIFT SHAP is its mean over baselines; there is one, silence. It adds
    up to the logit's rise to within 5 % (of at least one), or the classifier
    holds an operation that the rule does not know and is refused.
    """
    pair = torch.cat((clip.x, torch.zeros_like(clip.x)))
    pair = pair.detach().requires_grad_()
    with _Replace(_RESCALED):
        logit = clip.logits(pair)[0, clip.target]
    (multipliers,) = torch.autograd.grad(logit, pair)
    scores = clip.x * multipliers[:1]
    missing = clip.missing(scores)
    if missing is not None:
        raise LMACError(
            f"{missing}, so this classifier does not allow it; needed is one "
            f"whose only non-linear operations are {', '.join(_RESCALED)}"
        )
    return scores


def _attribute(name, one, explainer, analysis, target):
    """Scores of a batch by one method.

    Arguments
    ---------
    name : str
        The method's name, for messages.
    one : callable
        Scores [1, time, freq] of a `_Clip`.
    explainer : lmac_sb.explainer.Explainer
        Its `classify` is explained.
    analysis : lmac_sb.explainer.Analysis
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
    magnitude = analysis.magnitude
    scores = []
    with torch.inference_mode(False), torch.enable_grad():
        for i, label in enumerate(target.tolist()):
            clip = _Clip(name, explainer, magnitude[i : i + 1], label)
            scores.append(one(clip).detach())
    scores = torch.cat(scores)
    if not scores.isfinite().all():
        bad = (~scores.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise LMACError(
            f"{name}: NaN or infinite scores for clips {bad} of the batch, "
            "needed is a classifier with finite logits and gradients"
        )
    return scores


# name -> function of the explainer, the analysis of a batch and the class to
# explain [batch], which gives scores [batch, time, freq]
ATTRIBUTIONS = {
    name: functools.partial(_attribute, name, one)
    for name, one in {
        "saliency": _saliency,
        "input_x_gradient": _input_x_gradient,
        "smoothgrad": _smoothgrad,
        "integrated_gradients": _integrated_gradients,
        "guided_backprop": _guided_backprop,
        "gradcam": _gradcam,
        "guided_gradcam": _guided_gradcam,
        "gradient_shap": _gradient_shap,
        "deeplift_shap": _deeplift_shap,
        "occlusion": _occlusion,
    }.items()
}
