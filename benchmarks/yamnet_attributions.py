"""Attributions of YAMNet's answers, through the sound.

Scores of the bins on which the mask acts: the logit is that of the sound
which the inverse STFT makes of the spectrogram, so a gradient passes through
it. The library's methods do the rest, see `lmac_sb.methods.gradients`.
"""

from functools import partial

import torch
from torch.nn import functional as F

from lmac_sb.adapters.yamnet import PATCH, PATCH_HOP
from lmac_sb.listener.windows import overlap_add
from lmac_sb.methods.attribution import PASS, attribute, captum_method
from lmac_sb.methods.gradients import ATTRIBUTIONS

STEPS = 32  # of integrated gradients
# The last layers of YAMNet with 12 x 8, 6 x 4 and 3 x 2 cells in a patch.
CAM_LAYERS = {
    "12 x 8": "convolutions.10",
    "6 x 4": "convolutions.22",
    "3 x 2": "convolutions.26",
}
HOP_S, FIRST_S = 0.01, 0.0125  # of YAMNet's frames: hop, middle of the first


def integrated_gradients(clip):
    """Integrated gradients in few steps, whether they add up or not."""
    method = captum_method("IntegratedGradients")(clip.logits)
    return method.attribute(
        clip.x,
        baselines=0,
        target=clip.target,
        n_steps=STEPS,
        internal_batch_size=PASS,
    )


def gradcam(layer, explainer, analysis, target):
    """Grad-CAM at a layer: of each patch for the answer of that patch.

    A patch counts by its probability of the class. The maps of the patches
    are laid on the clip as `overlap_add` does it, and stretched over frames
    and bins by linear interpolation; bins outside the bands of YAMNet get
    zero.
    """
    listener, kept = explainer.classifier.embedding_model, []

    def keep(module, inputs, output):
        """Keep the layer's output as a leaf."""
        kept.append(output.detach().clone().requires_grad_())
        return kept[-1].clone()

    handle = listener.model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            frames = listener.frames(analysis.wavs)
            rows = torch.arange(len(target))
            # The derivative of softplus is the probability.
            answers = F.softplus(frames[rows, :, target])
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(answers.sum(), kept[-1])
    weights = gradient.mean((2, 3), keepdim=True)
    cam = (weights * kept[-1].detach()).sum(1, keepdim=True).relu()
    n_mels = listener.front_end.bands.shape[1]
    cam = F.interpolate(cam, (PATCH, n_mels), mode="bilinear")
    cam = overlap_add(cam, frames.shape[1], PATCH_HOP)[:, 0]
    return _on_bins(cam, explainer.features, listener, analysis.magnitude)


def _on_bins(cam, features, listener, magnitude):
    """Maps [batch, frames, bands] of YAMNet on the bins of a mask."""
    n_frames, n_bins = magnitude.shape[1:]
    seconds = features.hop_samples / features.sample_rate
    places = (torch.arange(n_frames) * seconds - FIRST_S) / HOP_S
    places = places.clamp(0, cam.shape[1] - 1)
    left = places.long().clamp(max=cam.shape[1] - 2)
    share = (places - left)[:, None]
    cam = cam[:, left] * (1 - share) + cam[:, left + 1] * share
    # YAMNet's own spectrogram has fewer bins, and the same lowest and highest.
    bands = listener.front_end.bands.T[None]
    bands = F.interpolate(bands, n_bins, mode="linear", align_corners=True)[0]
    total = bands.sum(0)
    shares = torch.where(total > 0, bands / total, torch.zeros_like(bands))
    return cam @ shares


def make_attributions(explainer):
    """Functions of analysed clips and their classes to scores, by name.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Of YAMNet.

    Returns
    -------
    dict
        Scores are [batch, time, freq]; higher speaks for the class, and below
        zero against it.
    """
    short = partial(attribute, "integrated_gradients", integrated_gradients)
    functions = {
        "gradient x input": ATTRIBUTIONS["input_x_gradient"],
        "SmoothGrad": ATTRIBUTIONS["smoothgrad"],
        f"integrated gradients ({STEPS} steps)": short,
        "occlusion": ATTRIBUTIONS["occlusion"],
    }
    ways = {
        f"Grad-CAM ({cells} cells a patch)": partial(gradcam, layer, explainer)
        for cells, layer in CAM_LAYERS.items()
    }
    for name, function in functions.items():
        ways[name] = partial(function, explainer)
    return ways
