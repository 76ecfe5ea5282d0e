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
"""

import functools

import torch

from lmac_sb.methods.attribution import _SAMPLES, PASS, attribute, captum_method
from lmac_sb.methods.deeplift import deeplift_shap
from lmac_sb.methods.gradcam import gradcam, guided_backprop, guided_gradcam
from lmac_sb.utils.errors import LMACError

__all__ = ["ATTRIBUTIONS", "OF_CAPTUM"]

_STEPS = (32, 64, 128, 256, 512)  # points on integrated gradients' path


_PATCHES = (10, 8)  # an occluded patch is a tenth of the time x an eighth


def _saliency(clip):
    """Absolute gradient."""
    method = captum_method("Saliency")(clip.logits)
    return method.attribute(clip.x, clip.target, abs=True)


def _input_x_gradient(clip):
    """Input times gradient, signed."""
    method = captum_method("InputXGradient")(clip.logits)
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
    method = captum_method("IntegratedGradients")(clip.logits)
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
        f"{missing}, after {steps} steps; expected a classifier whose "
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
    method = captum_method("Occlusion")(clip.logits)
    return method.attribute(
        clip.x.detach(),
        sliding_window_shapes=patch,
        strides=tuple(-(-size // 2) for size in patch),
        baselines=0,
        target=clip.target,
        perturbations_per_eval=PASS,
    )


# name -> function of the explainer, the analysis of a batch and the class to
# explain [batch], which gives scores [batch, time, freq]
OF_CAPTUM = (
    "saliency",
    "input_x_gradient",
    "integrated_gradients",
    "occlusion",
)
ATTRIBUTIONS = {
    name: functools.partial(attribute, name, one)
    for name, one in {
        "saliency": _saliency,
        "input_x_gradient": _input_x_gradient,
        "smoothgrad": _smoothgrad,
        "integrated_gradients": _integrated_gradients,
        "guided_backprop": guided_backprop,
        "gradcam": gradcam,
        "guided_gradcam": guided_gradcam,
        "gradient_shap": _gradient_shap,
        "deeplift_shap": deeplift_shap,
        "occlusion": _occlusion,
    }.items()
}
