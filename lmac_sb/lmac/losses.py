r"""The terms of L-MAC's objective, one value a clip.

For a decoder :math:`\theta`, mask :math:`M`, classifier :math:`f` and its
decision :math:`\hat y = \arg\max f(X)` (arXiv 2403.13086, equations 2-4):

.. math::

    \min_\theta\; \lambda_{in}\,CE(f(M \odot X), \hat y)
    - \lambda_{out}\,CE(f((1-M) \odot X), \hat y)
    + \lambda_1 \lVert M \rVert_1 + \lambda_{tv}\,TV(M)
    + \lambda_g\,d(M \odot X, X_{clean})

Each function returns `[batch]`; means are over frames and bins of one clip,
and nothing is summed over a batch, so that no weight depends on its size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

__all__ = [
    "Embeddings",
    "Guidance",
    "LMACLoss",
    "correlation_gain",
    "cross_correlation",
    "embedding_kept",
    "embedding_left",
    "guidance_binary",
    "guidance_squared",
    "masked_in",
    "masked_out",
    "others_apart",
    "sparsity",
    "total_variation",
]

L_OUT_TYPES = ("ce", "probability")
GUIDE_TYPES = ("binary", "mse")
# Above the floor of 1e-7 that keeps the magnitude's gradient finite, and far
# below all that is heard.
SILENCE = 1e-6


def masked_in(logits_in: Tensor, decision: Tensor) -> Tensor:
    """Cross entropy of the decision on the masked-in input.

    Arguments
    ---------
    logits_in : torch.Tensor
        Classifier's logits on the masked-in input, [batch, classes].
    decision : torch.Tensor
        Explained class of each clip, [batch].

    Returns
    -------
    torch.Tensor
        [batch], in nats, >= 0.

    Example
    -------
    >>> masked_in(torch.zeros(1, 4), torch.tensor([2]))  # log 4
    tensor([1.3863])
    """
    return F.cross_entropy(logits_in, decision, reduction="none")


def masked_out(
    logits_out: Tensor, decision: Tensor, form: str = "ce"
) -> Tensor:
    """How much of the decision is left in the masked-out input.

    Arguments
    ---------
    logits_out : torch.Tensor
        Classifier's logits on the masked-out input, [batch, classes].
    decision : torch.Tensor
        Explained class of each clip, [batch].
    form : str
        ``"ce"``: minus the cross entropy, the paper's form, unbounded below.
        ``"probability"``: the probability of the decision, bounded, whose
        gradient fades once the decision is gone.

    Returns
    -------
    torch.Tensor
        [batch].

    Raises
    ------
    LMACError
        If the form is unknown.

    Example
    -------
    >>> logits = torch.zeros(1, 4)
    >>> masked_out(logits, torch.tensor([2]))
    tensor([-1.3863])
    >>> masked_out(logits, torch.tensor([2]), "probability")
    tensor([0.2500])
    """
    if form == "ce":
        return -F.cross_entropy(logits_out, decision, reduction="none")
    if form == "probability":
        probabilities = logits_out.softmax(1)
        return probabilities.gather(1, decision[:, None])[:, 0]
    raise LMACError(f"l_out_type: '{form}' is none of {L_OUT_TYPES}")


def others_apart(
    logits_in: Tensor, logits_out: Tensor, others: Tensor
) -> Tensor:
    """How far both sides are from dividing the decisions between them.

    Where each class is decided on its own, the other classes that are decided
    for should be gone from what is masked in, and stay in what is masked out:
    otherwise an event of another class may be in the mask for free.

    Arguments
    ---------
    logits_in, logits_out : torch.Tensor
        Classifier's logits on the masked-in and masked-out input, [batch,
        classes].
    others : torch.Tensor
        The other classes that are decided for, boolean, [batch, classes].

    Returns
    -------
    torch.Tensor
        Mean over these classes of the masked-in probability and of the
        masked-out cross entropy in nats, [batch], >= 0; 0 where there is none.

    Example
    -------
    >>> logits = torch.zeros(1, 3)
    >>> others_apart(logits, logits, torch.tensor([[False, True, True]]))
    tensor([1.1931])
    """
    apart = logits_in.sigmoid() + F.softplus(-logits_out)
    return (apart * others).sum(1) / others.sum(1).clamp(min=1)


def sparsity(mask: Tensor) -> Tensor:
    """Mean of the mask: L1 norm over the number of bins.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1].

    Example
    -------
    >>> sparsity(torch.tensor([[[1.0, 0.0], [0.5, 0.0]]]))
    tensor([0.3750])
    """
    return mask.abs().mean((-2, -1))


def total_variation(mask: Tensor) -> Tensor:
    """Mean squared step between neighbours in time and in frequency.

    Arguments
    ---------
    mask : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], >= 0; half the sum of both sums over the number of bins.

    Example
    -------
    >>> total_variation(torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]))
    tensor([0.2500])
    """
    time = (mask[:, 1:] - mask[:, :-1]).pow(2).sum((-2, -1))
    freq = (mask[:, :, 1:] - mask[:, :, :-1]).pow(2).sum((-2, -1))
    return (time + freq) / (2 * mask[0].numel())


def cross_correlation(spectrogram: Tensor, template: Tensor) -> Tensor:
    """Normalised cross-correlation of two spectrograms at lag zero.

    Arguments
    ---------
    spectrogram : torch.Tensor
        [batch, time, freq].
    template : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [-1, 1]; 0 where one of both is silent.

    Example
    -------
    >>> x = torch.rand(1, 3, 4)
    >>> round(cross_correlation(x, 2 * x).item(), 4)
    1.0
    """
    product = (spectrogram * template).sum((-2, -1))
    norms = spectrogram.norm(dim=(-2, -1)) * template.norm(dim=(-2, -1))
    return product / norms.clamp(min=1e-12)


def correlation_gain(masked: Tensor, whole: Tensor, clean: Tensor) -> Tensor:
    """How much nearer the mask brings the mixture to the clean spectrogram.

    The plain correlation of masked-in and clean passes masks that hold no
    information, since mixture and clean already resemble each other. This
    measures the share of the missing correlation that the mask supplies:
    1 for the clean spectrogram, 0 or less for a constant mask.

    Arguments
    ---------
    masked : torch.Tensor
        Masked-in spectrogram, [batch, time, freq].
    whole : torch.Tensor
        Unmasked spectrogram, [batch, time, freq].
    clean : torch.Tensor
        Clean spectrogram, [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], at most 1; 0 where mixture and clean are one.

    Example
    -------
    >>> clean, noise = torch.rand(1, 3, 4), torch.rand(1, 3, 4)
    >>> whole = clean + noise
    >>> round(correlation_gain(clean, whole, clean).item(), 4)
    1.0
    >>> abs(round(correlation_gain(0.5 * whole, whole, clean).item(), 4))
    0.0
    """
    reached = _centred_correlation(masked, clean)
    before = _centred_correlation(whole, clean)
    return ((reached - before) / (1 - before).clamp(min=1e-6)).float()


def _centred_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the bins of each clip."""
    # In single precision, rounding alone supplies all that is missing where
    # the mixture is hardly more than the clean clip.
    a, b = a.double(), b.double()
    a = a - a.mean((-2, -1), keepdim=True)
    b = b - b.mean((-2, -1), keepdim=True)
    return cross_correlation(a, b)


def embedding_kept(inside: Tensor, whole: Tensor) -> Tensor:
    """How far the masked-in input's embedding is from the whole's.

    A class alone can be kept by bins that mean nothing to anybody else. This
    keeps all that the classifier's head reads, of whatever class. A linear
    layer on the same embedding believes such masks more; a classifier that
    has nothing in common with this one did not, see docs/yamnet.md.

    Arguments
    ---------
    inside, whole : torch.Tensor
        Embeddings of masked-in and unmasked input, [batch, dimensions].

    Returns
    -------
    torch.Tensor
        One minus the cosine, [batch], in [0, 2].

    Example
    -------
    >>> embedding_kept(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.4000])
    """
    return 1 - F.cosine_similarity(inside, whole, dim=1)


def embedding_left(outside: Tensor, whole: Tensor) -> Tensor:
    """How much of the whole's embedding is in the masked-out input's.

    Arguments
    ---------
    outside, whole : torch.Tensor
        Embeddings of masked-out and unmasked input, [batch, dimensions].

    Returns
    -------
    torch.Tensor
        The cosine, [batch], in [-1, 1]; 0 once it has nothing in common.

    Example
    -------
    >>> embedding_left(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([0.6000])
    """
    return F.cosine_similarity(outside, whole, dim=1)


def guidance_binary(
    mask: Tensor, log_clean: Tensor, bin_th: float = 0.35
) -> Tensor:
    """Binary cross entropy of the mask against the clean loud bins.

    Arguments
    ---------
    mask : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    log_clean : torch.Tensor
        ``log1p`` magnitude of the clean clip, [batch, time, freq].
    bin_th : float
        A bin is loud if it reaches this share of the clip's maximum.

    Returns
    -------
    torch.Tensor
        [batch], in nats a bin.

    Example
    -------
    >>> log_clean = torch.tensor([[[1.0, 0.0]]])
    >>> guidance_binary(torch.tensor([[[0.5, 0.5]]]), log_clean)
    tensor([0.6931])
    """
    # autocast refuses binary_cross_entropy on probabilities in half precision.
    with torch.autocast(mask.device.type, enabled=False):
        log_clean = log_clean.float()
        loud = log_clean >= bin_th * log_clean.amax((-2, -1), keepdim=True)
        # A silent clip has no loud bin, though all of them equal its maximum.
        loud = (loud & (log_clean > SILENCE)).float()
        loss = F.binary_cross_entropy(mask.float(), loud, reduction="none")
    return loss.mean((-2, -1))


def guidance_squared(log_masked: Tensor, log_clean: Tensor) -> Tensor:
    """Mean squared difference of masked-in and clean ``log1p`` magnitude.

    Arguments
    ---------
    log_masked : torch.Tensor
        [batch, time, freq].
    log_clean : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch].

    Example
    -------
    >>> guidance_squared(torch.zeros(1, 1, 2), torch.tensor([[[2.0, 0.0]]]))
    tensor([2.])
    """
    return (log_masked - log_clean).pow(2).mean((-2, -1))


class Guidance(NamedTuple):
    """What the clean clip within a mixture tells the loss.

    Arguments
    ---------
    log_masked, log_whole, log_clean : torch.Tensor
        ``log1p`` magnitudes [batch, time, freq] of the masked-in part, the
        input and the clean clip.
    eligible : torch.Tensor
        [batch], true where the clean clip may guide, such as where the
        decision on the mixture is the clip's class. Default: all.

    Example
    -------
    >>> x = torch.rand(1, 5, 3)
    >>> _, terms = LMACLoss(g_w=1)(
    ...     x, torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]),
    ...     Guidance(x, x, x),
    ... )
    >>> terms["gated"]
    tensor([1.])
    """

    log_masked: Tensor
    log_whole: Tensor
    log_clean: Tensor
    eligible: Tensor | None = None


class Embeddings(NamedTuple):
    """What the classifier's head reads, of the input and of both its parts.

    Arguments
    ---------
    whole, inside, outside : torch.Tensor
        Of the unmasked, masked-in and masked-out input, [batch, dimensions].

    Example
    -------
    >>> x = torch.tensor([[1.0, 0.0]])
    >>> _, terms = LMACLoss(e_in_w=1)(
    ...     torch.rand(1, 5, 3), torch.zeros(1, 2), torch.zeros(1, 2),
    ...     torch.tensor([0]), embeddings=Embeddings(x, x, -x),
    ... )
    >>> terms["e_in"], terms["e_out"]
    (tensor([0.]), tensor([-1.]))
    """

    whole: Tensor
    inside: Tensor
    outside: Tensor


class LMACLoss:
    """Weighted sum of the terms, per clip.

    Arguments
    ---------
    l_in_w : float
        Weight of `masked_in`.
    l_out_w : float
        Weight of `masked_out`.
    l_out_type : str
        ``"ce"`` (paper, with 0.2) or ``"probability"`` (with about 8).
    reg_w_l1 : float
        Weight of `sparsity`.
    reg_w_tv : float
        Weight of `total_variation`.
    g_w : float
        Weight of the guidance. 0 switches it off; it is only applied where a
        clean clip is given.
    crosscor_th : float
        Guidance threshold: the gate of a clip opens at this correlation.
    crosscortype : str
        ``"dotp"``: correlation of masked-in and clean, as in the paper.
        ``"gain"``: `correlation_gain`, which a constant mask cannot pass.
    guidelosstype : str
        ``"binary"`` (`guidance_binary`) or ``"mse"`` (`guidance_squared`).
    bin_th : float
        See `guidance_binary`.
    e_in_w : float
        Weight of `embedding_kept`.
    e_out_w : float
        Weight of `embedding_left`.

    Raises
    ------
    LMACError
        If a weight is negative or a type unknown.

    Example
    -------
    >>> loss = LMACLoss(l_in_w=4, l_out_w=0.2, reg_w_l1=0.4)
    >>> mask = torch.full((1, 5, 3), 0.5)
    >>> total, terms = loss(
    ...     mask, torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0])
    ... )
    >>> total  # 4 log 2 - 0.2 log 2 + 0.4 / 2
    tensor([2.8340])
    >>> sorted(terms)
    ['l1', 'l_in', 'l_out', 'tv']
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(
        self,
        l_in_w: float = 4.0,
        l_out_w: float = 0.2,
        l_out_type: str = "ce",
        reg_w_l1: float = 0.4,
        reg_w_tv: float = 0.0,
        g_w: float = 0.0,
        crosscor_th: float = 0.6,
        crosscortype: str = "dotp",
        guidelosstype: str = "binary",
        bin_th: float = 0.35,
        e_in_w: float = 0.0,
        e_out_w: float = 0.0,
    ) -> None:
        weights = {
            "l_in_w": l_in_w,
            "l_out_w": l_out_w,
            "reg_w_l1": reg_w_l1,
            "reg_w_tv": reg_w_tv,
            "g_w": g_w,
            "e_in_w": e_in_w,
            "e_out_w": e_out_w,
        }
        for key, weight in weights.items():
            if not weight >= 0:
                raise LMACError(f"{key}: {weight}, a weight is 0 or more")
        types = (
            ("l_out_type", l_out_type, L_OUT_TYPES),
            ("crosscortype", crosscortype, ("dotp", "gain")),
            ("guidelosstype", guidelosstype, GUIDE_TYPES),
        )
        for key, found, known in types:
            if found not in known:
                raise LMACError(f"{key}: '{found}' is none of {known}")
        self.l_in_w, self.l_out_w = l_in_w, l_out_w
        self.reg_w_l1, self.reg_w_tv, self.g_w = reg_w_l1, reg_w_tv, g_w
        self.l_out_type = l_out_type
        self.crosscor_th = crosscor_th
        self.crosscortype = crosscortype
        self.guidelosstype = guidelosstype
        self.bin_th = bin_th
        self.e_in_w, self.e_out_w = e_in_w, e_out_w

    @property
    def wants_embeddings(self) -> bool:
        """Whether a term needs the classifier's embeddings."""
        return bool(self.e_in_w or self.e_out_w)

    def __call__(
        self,
        mask: Tensor,
        logits_in: Tensor,
        logits_out: Tensor,
        decision: Tensor,
        guidance: Guidance | None = None,
        embeddings: Embeddings | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and terms.

        Arguments
        ---------
        mask : torch.Tensor
            [batch, time, freq].
        logits_in, logits_out : torch.Tensor
            [batch, classes].
        decision : torch.Tensor
            [batch].
        guidance : Guidance
            The clean clip within the mixture; None without guidance.
        embeddings : Embeddings
            See `wants_embeddings`.

        Returns
        -------
        total : torch.Tensor
            [batch].
        terms : dict
            Unweighted terms, each [batch]; with guidance also ``guide`` and
            ``gated``, 1 where the gate is open, with embeddings also ``e_in``
            and ``e_out``.

        Raises
        ------
        LMACError
            If embeddings are wanted, but none are given.
        """
        terms = {
            "l_in": masked_in(logits_in, decision),
            "l_out": masked_out(logits_out, decision, self.l_out_type),
            "l1": sparsity(mask),
            # Of a weight of zero, no gradient is wanted.
            "tv": total_variation(mask if self.reg_w_tv else mask.detach()),
        }
        total = self.l_in_w * terms["l_in"] + self.l_out_w * terms["l_out"]
        if embeddings is not None:
            whole, inside, outside = embeddings
            terms["e_in"] = embedding_kept(inside, whole)
            terms["e_out"] = embedding_left(outside, whole)
            total = total + self.e_in_w * terms["e_in"]
            total = total + self.e_out_w * terms["e_out"]
        elif self.wants_embeddings:
            raise LMACError(
                f"e_in_w, e_out_w: found {self.e_in_w} and {self.e_out_w}, "
                "but no embeddings; expected 0 where only logits are known"
            )
        regular = self.reg_w_l1 * terms["l1"] + self.reg_w_tv * terms["tv"]
        if guidance is None or self.g_w == 0:
            return total + regular, terms
        gated = self._gate(guidance)
        if guidance.eligible is not None:
            gated = gated * guidance.eligible
        if self.guidelosstype == "binary":
            guide = guidance_binary(mask, guidance.log_clean, self.bin_th)
        else:
            guide = guidance_squared(guidance.log_masked, guidance.log_clean)
        terms.update(guide=guide, gated=gated)
        total = total + gated * self.g_w * guide + (1 - gated) * regular
        return total, terms

    @torch.no_grad()
    def _gate(self, guidance: Guidance) -> Tensor:
        """1 for the clips whose mask already finds the clean sound."""
        log_masked, log_whole, log_clean, _ = guidance
        # Silence is flat, and so is an untrained decoder's mask: they match.
        audible = log_clean.amax((-2, -1)) > SILENCE
        if self.crosscortype == "dotp":
            score = cross_correlation(log_masked, log_clean)
        else:
            score = correlation_gain(log_masked, log_whole, log_clean)
        return (audible & (score >= self.crosscor_th)).float()
