"""GradCAM, guided backpropagation, and their product."""

import torch

from lmac_sb.methods.attribution import ReplaceFunctions
from lmac_sb.utils.errors import LMACError

__all__ = ["gradcam", "guided_backprop", "guided_gradcam"]


def _guided_relu(func, x, rest, kwargs):
    """ReLU that lets only positive gradients through."""
    y = torch.relu(x)
    y.register_hook(lambda gradient: gradient.clamp(min=0))
    return y


def guided_backprop(clip):
    """Gradient with each ReLU passing positive gradients only, signed.

    Arguments
    ---------
    clip : lmac_sb.methods.attribution.Clip
        The clip, its class and its classifier.

    Returns
    -------
    torch.Tensor
        Scores [1, time, freq].
    """
    mode = ReplaceFunctions({"relu": _guided_relu})
    gradient = clip.gradients(clip.x, mode)
    if not mode.met:
        raise LMACError(
            f"{clip.method}: the classifier has no ReLU to guide, expected "
            "one that calls relu as a function or torch.nn.ReLU"
        )
    return gradient


def gradcam(clip):
    """Deepest latent layer, channels weighted by mean gradient, positive.

    The map is stretched over the frames (with those that the classifier was
    padded with) and the mel bands by bilinear interpolation, and a bin gets
    the mean of its bands by their weights in the filterbank; bins outside
    all bands get zero. The map of a layer without a frequency axis is the
    same at all frequencies.

    Arguments
    ---------
    clip : lmac_sb.methods.attribution.Clip
        The clip, its class and its classifier.

    Returns
    -------
    torch.Tensor
        Scores [1, time, freq].
    """
    classifier, features = clip.explainer.classifier, clip.explainer.features
    if features.IS_SOUND:
        raise LMACError(
            "gradcam: found a classifier that hears sound, whose layers need "
            "not lie in time and frequency; expected one on features"
        )
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
            f"gradcam: layer '{name}' gives {gradient.dim()} axes, expected "
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


def guided_gradcam(clip):
    """Product of guided backpropagation and GradCAM, signed.

    Arguments
    ---------
    clip : lmac_sb.methods.attribution.Clip
        The clip, its class and its classifier.

    Returns
    -------
    torch.Tensor
        Scores [1, time, freq].
    """
    return gradcam(clip) * guided_backprop(clip)
