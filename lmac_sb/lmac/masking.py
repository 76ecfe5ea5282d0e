"""Masked-in and masked-out spectrograms.

A mask is `[batch, time, freq]` in [0, 1] on the linear-frequency spectrogram.
It can act on the spectrogram in one of two domains:

* ``"log1p"``: on ``log1p(|X|)``, as the paper's code does. Masked-in and
  masked-out add up to the whole in that domain only; a value of 0.5 takes
  about 6 dB from quiet bins and more from loud ones.
* ``"linear"``: on ``|X|``. A value of 0.5 is -6 dB at every level, and the
  waveforms of masked-in and masked-out add up to the input.

A binary mask means the same in both.
"""

import functools

import torch

from lmac_sb.utils.errors import LMACError, is_number, shown

__all__ = [
    "MASK_DOMAINS",
    "apply_mask",
    "binarize",
    "both_parts",
    "convert_mask",
    "cut_ranks",
    "ideal_mask",
    "ranks",
    "scale_stft",
    "top_share",
]

_FLOOR_DB = 60.0  # bins this far under the stem's loudest one are silence


def ideal_mask(stem_stft, mixture_stft):
    """Mask of the bins in which the event is louder than all the rest.

    Arguments
    ---------
    stem_stft : torch.Tensor
        STFT of the event alone [..., time, freq, 2], real and imaginary
        part last, as SpeechBrain's `STFT` gives it.
    mixture_stft : torch.Tensor
        STFT of the mixture, of the same shape. The rest is its difference
        to `stem_stft`.

    Returns
    -------
    torch.Tensor
        Mask of zeros and ones [..., time, freq]: one where the event is above
        the rest and at most 60 dB under its own loudest bin. Of a silent
        event, all zeros.

    Raises
    ------
    LMACError
        If the shapes differ or are not those of an STFT.

    Example
    -------
    >>> import torch
    >>> event = torch.zeros(1, 2, 3, 2)
    >>> event[0, 1, 2] = torch.tensor([0.6, 0.8])
    >>> ideal_mask(event, event + 0.1)
    tensor([[[0., 0., 0.],
             [0., 0., 1.]]])
    """
    stem_shape, mixture_shape = (
        tuple(stem_stft.shape),
        tuple(mixture_stft.shape),
    )
    is_stft = len(stem_shape) >= 3 and stem_shape[-1] == 2
    if not is_stft or stem_shape != mixture_shape:
        raise LMACError(
            f"ideal_mask: found stem {stem_shape} and mixture "
            f"{mixture_shape}, need the same shape [..., time, freq, 2]"
        )
    event = stem_stft.square().sum(-1)
    rest = (mixture_stft - stem_stft).square().sum(-1)
    floor = event.amax((-2, -1), keepdim=True) * 10 ** (-_FLOOR_DB / 10)
    return ((event > rest) & (event > floor)).to(stem_stft.dtype)


MASK_DOMAINS = ("log1p", "linear")


def apply_mask(magnitude, mask, domain="log1p"):
    """Magnitude that a mask lets through.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear magnitude, [batch, time, freq].
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    domain : str
        ``"log1p"`` or ``"linear"``, see the module's text.

    Returns
    -------
    torch.Tensor
        Linear magnitude, [batch, time, freq].

    Raises
    ------
    LMACError
        If the shapes differ or the domain is unknown.

    Example
    -------
    >>> magnitude = torch.tensor([[[0.0, 3.0]]])
    >>> mask = torch.tensor([[[1.0, 0.5]]])
    >>> apply_mask(magnitude, mask)  # sqrt(1 + 3) - 1
    tensor([[[0., 1.]]])
    >>> apply_mask(magnitude, mask, "linear")
    tensor([[[0.0000, 1.5000]]])
    """
    _check_mask(magnitude, mask)
    if domain == "linear":
        return mask * magnitude
    if domain == "log1p":
        return torch.expm1(mask * torch.log1p(magnitude))
    raise LMACError(f"mask_domain: '{domain}' is none of {MASK_DOMAINS}")


def both_parts(magnitude, mask, domain="log1p"):
    """What a mask lets through, and what it does not, in one batch.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear magnitude, [batch, time, freq].
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    domain : str
        ``"log1p"`` or ``"linear"``, see the module's text.

    Returns
    -------
    torch.Tensor
        Linear magnitude, [2 * batch, time, freq], up to rounding that of
        `apply_mask` for the mask and for one minus the mask.

    Raises
    ------
    LMACError
        As `apply_mask`.

    Example
    -------
    >>> both_parts(torch.tensor([[[4.0]]]), torch.tensor([[[0.25]]]), "linear")
    tensor([[[1.]],
    <BLANKLINE>
            [[3.]]])
    """
    _check_mask(magnitude, mask)
    if domain == "linear":
        inside = mask * magnitude
        return torch.cat((inside, magnitude - inside))
    if domain == "log1p":
        whole = torch.log1p(magnitude)
        inside = mask * whole
        return torch.cat((inside, whole - inside)).expm1_()
    raise LMACError(f"mask_domain: '{domain}' is none of {MASK_DOMAINS}")


def _check_mask(magnitude, mask):
    """Refuse a mask of another spectrogram."""
    if magnitude.shape != mask.shape:
        raise LMACError(
            f"mask: shape {tuple(mask.shape)}, but the spectrogram has "
            f"{tuple(magnitude.shape)}"
        )


def scale_stft(stft, gain):
    """An STFT whose bins have other levels, and the same phases.

    Arguments
    ---------
    stft : torch.Tensor
        Real and imaginary parts, [..., time, freq, 2].
    gain : torch.Tensor
        Factor of each bin, such as a mask, [..., time, freq]; several for
        each bin have axes before those of the STFT.

    Returns
    -------
    torch.Tensor
        To the bit ``stft * gain[..., None]``, which takes more than twice the
        time with its gradient: loops over an axis of two are slow.

    Raises
    ------
    LMACError
        If the shapes differ.

    Example
    -------
    >>> scale_stft(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[0.5]]))
    tensor([[[1.5000, 2.0000]]])
    """
    spectrum = torch.view_as_complex(stft)
    several = gain.shape[: -spectrum.dim()]
    spectrum = spectrum.expand(*several, *spectrum.shape)
    _check_mask(spectrum, gain)
    return torch.view_as_real(spectrum * gain)


def convert_mask(magnitude, mask, found, wanted):
    """The same masked-in sound as a mask in another domain.

    Arguments
    ---------
    magnitude : torch.Tensor
        Linear magnitude, [batch, time, freq].
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    found, wanted : str
        Domain that it is in and that it shall be in.

    Returns
    -------
    torch.Tensor
        [batch, time, freq], in [0, 1].

    Example
    -------
    >>> mask = torch.tensor([[[0.5]]])
    >>> convert_mask(torch.tensor([[[3.0]]]), mask, "log1p", "linear")
    tensor([[[0.3333]]])
    """
    if found == wanted:
        return mask
    masked = apply_mask(magnitude, mask, found)
    if wanted == "linear":
        part, whole = masked, magnitude
    else:
        part, whole = torch.log1p(masked), torch.log1p(magnitude)
    # Nothing is let through of nothing.
    return (part / whole.clamp(min=1e-30)).clamp(0, 1)


def binarize(mask, threshold):
    """Hard mask: 1 where the mask reaches the threshold.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], any shape.
    threshold : float
        In (0, 1].

    Returns
    -------
    torch.Tensor
        Zeros and ones, same shape and type.

    Raises
    ------
    LMACError
        If the threshold is outside (0, 1].

    Example
    -------
    >>> binarize(torch.tensor([0.2, 0.5, 0.7]), 0.5)
    tensor([0., 1., 1.])
    """
    check_threshold(threshold)
    return (mask >= threshold).to(mask.dtype)


def check_threshold(threshold):
    """Refuse what no mask can be made binary at.

    Arguments
    ---------
    threshold : float
        In (0, 1].

    Raises
    ------
    LMACError
        If it is outside.

    Example
    -------
    >>> check_threshold("0.5")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: threshold: '0.5' is not in (0, 1]
    """
    if not is_number(threshold) or not 0 < threshold <= 1:
        raise LMACError(f"threshold: {shown(threshold)} is not in (0, 1]")


def top_share(scores, share):
    """Binary mask of the highest-scored bins of each clip.

    With the same share for two methods, both keep the same area, which is
    what makes their figures comparable.

    Arguments
    ---------
    scores : torch.Tensor
        Any real scores, [batch, time, freq].
    share : float or torch.Tensor
        Share of the bins to keep, in [0, 1]; one number or one a clip
        [batch]. At least one bin is kept where the share is not zero.

    Returns
    -------
    torch.Tensor
        Zeros and ones, [batch, time, freq].

    Raises
    ------
    LMACError
        If a share is outside [0, 1].

    Example
    -------
    >>> top_share(torch.tensor([[[1.0, 4.0], [3.0, 2.0]]]), 0.5)
    tensor([[[0., 1.],
             [1., 0.]]])
    """
    return cut_ranks(ranks(scores), share).to(scores.dtype)


def ranks(scores):
    """Place of each bin in its clip's order, the highest-scored first.

    With it many shares of one clip are cut without sorting anew.

    Arguments
    ---------
    scores : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        Whole numbers from 0, [batch, time, freq]. Equal scores come in an
        order that was drawn at random once, the same for each clip, so ties
        do not change an area, and favour no time and no frequency.

    Example
    -------
    >>> ranks(torch.tensor([[[1.0, 4.0], [3.0, 2.0]]]))
    tensor([[[3, 0],
             [1, 2]]])
    """
    flat = scores.flatten(1)
    drawn = _drawn(flat.shape[1]).to(flat.device)
    order = drawn[flat[:, drawn].argsort(dim=1, descending=True, stable=True)]
    places = torch.empty_like(order)
    n_bins = torch.arange(flat.shape[1], device=flat.device)
    places.scatter_(1, order, n_bins.expand_as(order))
    return places.view_as(scores)


@functools.lru_cache(maxsize=4)
def _drawn(n_bins):
    """The bins in the order in which equal ones come."""
    return torch.randperm(n_bins, generator=torch.Generator().manual_seed(0))


def cut_ranks(places, share):
    """Binary mask of the first bins of each clip's order.

    Arguments
    ---------
    places : torch.Tensor
        From `ranks`, [batch, time, freq].
    share : float or torch.Tensor
        As of `top_share`.

    Returns
    -------
    torch.Tensor
        Zeros and ones, [batch, time, freq].

    Raises
    ------
    LMACError
        If a share is outside [0, 1].
    """
    share = torch.as_tensor(share, device=places.device).expand(len(places))
    if ((share < 0) | (share > 1)).any():
        raise LMACError(f"share: {share.tolist()}, expected shares in [0, 1]")
    keep = (share.double() * places[0].numel()).round().long()
    keep = torch.where(share > 0, keep.clamp(min=1), keep)
    return (places < keep[:, None, None]).float()
