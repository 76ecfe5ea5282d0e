r"""L2I, Listen to Interpret, the method that L-MAC is compared with.

Parekh et al., NeurIPS 2022, arXiv 2202.11479. A dictionary of spectral
patterns is learnt once from the training clips. A network reads the
classifier's latents and predicts when each pattern sounds. From that alone it
rebuilds the spectrogram and imitates the classifier's output:

.. math::

    \min_{\Psi,\Theta}\; CE(f(X), \Theta(H))
    + \alpha \lVert \log(1 + |X|) - W H \rVert^2
    + \beta \lVert H \rVert_1, \qquad H = \Psi(\text{latents}) \ge 0

The explanation of a class is the patterns that support it: the mask is their
share in the rebuilt spectrogram.
"""

import math
from collections import namedtuple

import torch
from speechbrain.lobes.models.L2I import NMFDecoderAudio
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

__all__ = [
    "Decomposition",
    "DictionaryLearner",
    "L2IDecoder",
    "L2ILoss",
]

# Number of bands to which the frequency axis of each latent is averaged.
N_BANDS = 8
# Least number of frames to use from each clip that is read.
FRAMES_A_CLIP = 8
# Smallest divisor, and smallest value of a mask, so that its logit is finite.
TINY = 1e-6

Decomposition = namedtuple(
    "Decomposition", "activations pooled logits reconstruction"
)
Decomposition.__doc__ = """The network's output for a batch.

Arguments
---------
activations : torch.Tensor
    How strongly each pattern sounds, [batch, components, time], >= 0.
pooled : torch.Tensor
    Mean of the activations over time, weighted by attention,
    [batch, components].
logits : torch.Tensor
    Logits that imitate the classifier's, [batch, classes].
reconstruction : torch.Tensor
    ``log1p`` magnitude rebuilt from the patterns, [batch, time, freq].

Example
-------
>>> parts = Decomposition(
...     activations=torch.rand(1, 5, 20),
...     pooled=torch.rand(1, 5),
...     logits=torch.tensor([[0.0, 2.0, 1.0]]),
...     reconstruction=torch.rand(1, 20, 513),
... )
>>> parts.logits.argmax(1)
tensor([1])
"""


class L2IDecoder(torch.nn.Module):
    """Dictionary, network and imitated classifier as a mask decoder.

    The mask is the share of the relevant patterns in the rebuilt spectrogram.
    The relevance of a pattern for a class is its pooled activation times its
    weight for the class, divided by the largest absolute product in the clip.
    Patterns above `relevance_th` are relevant.

    The dictionary is SpeechBrain's `NMFDecoderAudio`, filled by a
    `DictionaryLearner`; training does not change it. SpeechBrain's networks
    fit the latents of CNN14 at one length. This one fits the latents of any
    classifier, and clips of any length.

    Arguments
    ---------
    latent_channels : list of int
        Channels of each latent, without evidence.
    n_classes : int
        Classes of the classifier.
    n_components : int
        Patterns in the dictionary.
    n_fft : int
        FFT size in samples; a pattern has ``n_fft // 2 + 1`` bins.
    width : int
        Channels of the network.
    relevance_th : float
        Relevance that a pattern must exceed, in [0, 1).

    Raises
    ------
    LMACError
        If a size is less than one, or the threshold is out of range.

    Example
    -------
    >>> decoder = L2IDecoder([16, 8], n_classes=3, n_components=10)
    >>> latents = [torch.rand(2, 16, 5, 5), torch.rand(2, 8, 10, 10)]
    >>> log_magnitude = torch.rand(2, 43, 513)
    >>> decoder(latents, log_magnitude, torch.tensor([2, 0])).shape
    torch.Size([2, 43, 513])
    >>> decoder(latents, log_magnitude).activations.shape
    torch.Size([2, 10, 43])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    # `Explainer` then gives the explained class too.
    wants_target = True

    def __init__(
        self,
        latent_channels,
        n_classes,
        n_components=100,
        n_fft=1024,
        width=128,
        relevance_th=0.2,
    ):
        super().__init__()
        for key, size in (
            ("n_classes", n_classes),
            ("n_components", n_components),
            ("decoder_width", width),
        ):
            if size < 1:
                raise LMACError(f"{key}: {size}, expected 1 or more")
        if not 0 <= relevance_th < 1:
            raise LMACError(f"relevance_th: {relevance_th} is not in [0, 1)")
        self.relevance_th = relevance_th
        self.dictionary = NMFDecoderAudio(n_components, n_fft // 2 + 1)
        self.dictionary.requires_grad_(False)
        self.activate = _Activations(latent_channels, width, n_components)
        # Attention of Ilse et al. (arXiv 1802.04712) over the frames.
        self.attention = torch.nn.Sequential(
            torch.nn.Conv1d(n_components, width, 1),
            torch.nn.Tanh(),
            torch.nn.Conv1d(width, 1, 1),
        )
        self.theta = torch.nn.Linear(n_components, n_classes, bias=False)

    def forward(self, latents, log_magnitude, target=None):
        """Explain a class, or, without a class, decompose the clips.

        Arguments
        ---------
        latents : list of torch.Tensor
            [batch, channels, time, freq] each.
        log_magnitude : torch.Tensor
            [batch, time, freq]; only its number of frames counts.
        target : torch.Tensor
            Class to explain, [batch].

        Returns
        -------
        torch.Tensor or Decomposition
            Mask logits [batch, time, freq], or, without a class, the parts
            that training needs.
        """
        activations = self.activate(latents, log_magnitude.shape[1])
        attention = self.attention(activations).softmax(2)
        pooled = (activations * attention).sum(2)
        rebuilt = self.dictionary(activations).transpose(1, 2)
        if target is None:
            return Decomposition(
                activations, pooled, self.theta(pooled), rebuilt
            )
        chosen = self.relevance(pooled, target) > self.relevance_th
        part = self.dictionary(activations * chosen[:, :, None])
        mask = part.transpose(1, 2) / rebuilt.clamp(min=TINY)
        return torch.logit(mask.float(), eps=TINY)

    def relevance(self, pooled, target):
        """How much each pattern supports a class.

        Arguments
        ---------
        pooled : torch.Tensor
            [batch, components].
        target : torch.Tensor
            [batch].

        Returns
        -------
        torch.Tensor
            [batch, components], with absolute values of at most 1.
        """
        support = pooled * self.theta.weight[target]
        return support / support.abs().amax(1, keepdim=True).clamp(min=TINY)


class _Activations(torch.nn.Module):
    """Turns latents of any size into activations [batch, components, time]."""

    def __init__(self, latent_channels, width, n_components):
        super().__init__()
        self.project = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.GroupNorm(1, n_channels),
                torch.nn.AdaptiveAvgPool2d((None, N_BANDS)),
                _BandsToChannels(),
                torch.nn.Conv1d(n_channels * N_BANDS, width, 1),
            )
            for n_channels in latent_channels
        )
        self.mix = torch.nn.Sequential(
            torch.nn.GELU(),
            torch.nn.Conv1d(width, width, 5, padding=2),
            torch.nn.GELU(),
            torch.nn.Conv1d(width, n_components, 1),
            torch.nn.ReLU(),
        )

    def forward(self, latents, n_frames):
        """Activation of each component in each frame."""
        levels = [
            _over_frames(project(latent), n_frames)
            for project, latent in zip(self.project, latents)
        ]
        return self.mix(sum(levels))


class _BandsToChannels(torch.nn.Module):
    """Reshapes a latent, so that each band of a channel is a channel."""

    def forward(self, x):
        """[batch, channels, time, freq] as [batch, channels * freq, time]."""
        return x.transpose(2, 3).flatten(1, 2)


def _over_frames(x, n_frames):
    """Stretch cells [batch, channels, time] over the frames they came from.

    Halving an odd number drops the last frames; they repeat the last cell.
    With any other ratio, cells are spread evenly.
    """
    n_cells = x.shape[2]
    size = 2 ** int(math.log2(max(n_frames / n_cells, 1)))
    if n_frames // size != n_cells:
        return F.interpolate(x, n_frames, mode="linear")
    x = F.interpolate(x, n_cells * size, mode="linear")
    return F.pad(x, (0, n_frames - x.shape[2]), mode="replicate")


class L2ILoss:
    """Objective of L2I, one value for each clip.

    The terms are means over frames, bins and components, so the weights do not
    depend on any size.

    Arguments
    ---------
    reconstruction_w : float
        Weight of the squared error of the rebuilt spectrogram, the paper's
        alpha.
    sparsity_w : float
        Weight of the activations, the paper's beta.

    Raises
    ------
    LMACError
        If a weight is negative.

    Example
    -------
    >>> parts = Decomposition(
    ...     activations=torch.ones(1, 4, 2),
    ...     pooled=torch.ones(1, 4),
    ...     logits=torch.zeros(1, 3),
    ...     reconstruction=torch.zeros(1, 2, 5),
    ... )
    >>> total, terms = L2ILoss(reconstruction_w=10, sparsity_w=0.5)(
    ...     parts, torch.ones(1, 2, 5), torch.zeros(1, 3)
    ... )
    >>> total  # 10 + 0.5 + log 3
    tensor([11.5986])
    >>> sorted(terms)
    ['imitation', 'reconstruction', 'sparsity']
    """

    def __init__(self, reconstruction_w=10.0, sparsity_w=0.8):
        for key, weight in (
            ("reconstruction_w", reconstruction_w),
            ("sparsity_w", sparsity_w),
        ):
            if not weight >= 0:
                raise LMACError(f"{key}: {weight}, a weight is 0 or more")
        self.reconstruction_w = reconstruction_w
        self.sparsity_w = sparsity_w

    def __call__(self, parts, log_magnitude, logits):
        """Total loss and its terms.

        Arguments
        ---------
        parts : Decomposition
            From the decoder.
        log_magnitude : torch.Tensor
            ``log1p`` of the linear magnitude, [batch, time, freq].
        logits : torch.Tensor
            Logits of the classifier, [batch, classes].

        Returns
        -------
        total : torch.Tensor
            [batch].
        terms : dict
            Unweighted terms, each [batch].
        """
        imitated = parts.logits.log_softmax(1)
        error = (parts.reconstruction - log_magnitude).square()
        terms = {
            "imitation": -(logits.softmax(1) * imitated).sum(1),
            "reconstruction": error.mean((1, 2)),
            "sparsity": parts.activations.mean((1, 2)),
        }
        total = (
            terms["imitation"]
            + self.reconstruction_w * terms["reconstruction"]
            + self.sparsity_w * terms["sparsity"]
        )
        return total, terms


class DictionaryLearner:
    r"""Learns spectral patterns whose sparse sums make up all sounds.

    Sparse non-negative matrix factorisation by multiplicative updates
    (Le Roux et al., "Sparse NMF - half-baked or well done?", 2015). It
    minimises :math:`\lVert X - W H \rVert^2 / 2 + \mu \lVert H \rVert_1` over
    :math:`H \ge 0` and :math:`W \ge 0` with columns of length one.

    Arguments
    ---------
    n_components : int
        Number of patterns.
    n_frames : int
        Approximate number of frames to learn them from.
    sparsity : float
        The weight mu.
    n_iterations : int
        Number of updates of both matrices.
    seed : int
        Seed of the choice of frames, and of the initial matrices.

    Raises
    ------
    LMACError
        If a setting is out of range.

    Example
    -------
    >>> learner = DictionaryLearner(n_components=2, sparsity=0)
    >>> frames = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> sorted(learner.learn(frames).round(decimals=3).T.tolist())
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(
        self,
        n_components=100,
        n_frames=10000,
        sparsity=0.8,
        n_iterations=200,
        seed=0,
    ):
        for key, found in (
            ("n_components", n_components),
            ("nmf_frames", n_frames),
            ("nmf_iterations", n_iterations),
        ):
            if found < 1:
                raise LMACError(f"{key}: {found}, expected 1 or more")
        if not sparsity >= 0:
            raise LMACError(f"nmf_sparsity: {sparsity}, a weight is 0 or more")
        self.n_components = n_components
        self.n_frames = n_frames
        self.sparsity = sparsity
        self.n_iterations = n_iterations
        self.seed = seed

    def sample(self, clip, n_clips):
        """Random frames of the training clips, the same number from each.

        Arguments
        ---------
        clip : callable
            Takes the number of a clip and returns its ``log1p`` magnitudes,
            [time, freq].
        n_clips : int
            Number of clips. Only some clips of a large corpus are read.

        Returns
        -------
        torch.Tensor
            [frames, freq].

        Raises
        ------
        LMACError
            If there are no clips.
        """
        if n_clips < 1:
            raise LMACError("dictionary: found no training clips")
        generator = torch.Generator().manual_seed(self.seed)
        each = max(-(-self.n_frames // n_clips), FRAMES_A_CLIP)
        order = torch.randperm(n_clips, generator=generator)
        frames = []
        for number in order[: -(-self.n_frames // each)].tolist():
            spectrogram = clip(number)
            chosen = torch.randperm(len(spectrogram), generator=generator)
            frames.append(spectrogram[chosen[:each]])
        return torch.cat(frames)

    def learn(self, frames):
        """Learn the dictionary from frames.

        Arguments
        ---------
        frames : torch.Tensor
            ``log1p`` magnitudes, [frames, freq].

        Returns
        -------
        torch.Tensor
            The dictionary W, [freq, components].

        Raises
        ------
        LMACError
            If there are no frames, or not all values are numbers >= 0.
        """
        if len(frames) == 0:
            raise LMACError("dictionary: found no training frames")
        if not (frames.isfinite() & (frames >= 0)).all():
            raise LMACError(
                "dictionary: found training frames with NaN, infinite or "
                "negative magnitudes"
            )
        generator = torch.Generator().manual_seed(self.seed)
        X = frames.T.contiguous()
        n_bins, n_frames = X.shape
        W = torch.rand(n_bins, self.n_components, generator=generator)
        H = torch.rand(self.n_components, n_frames, generator=generator)
        W = _unit(W)
        for _ in range(self.n_iterations):
            H = H * (W.T @ X) / (W.T @ W @ H + self.sparsity).clamp(min=TINY)
            found, rebuilt = X @ H.T, W @ (H @ H.T)
            # The sums remove the length of the columns from the gradient.
            # Otherwise longer columns with smaller activations would count as
            # sparse.
            W = _unit(
                W
                * (found + W * (rebuilt * W).sum(0))
                / (rebuilt + W * (found * W).sum(0)).clamp(min=TINY)
            )
        return W


def _unit(W):
    """Scale columns to length one; an unused pattern stays zero."""
    return W / W.norm(dim=0).clamp(min=TINY)
