"""How far a sound is from those that a classifier was trained on."""

import torch
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

__all__ = ["Familiarity"]

SHARE = 0.95  # of the validation clips, which are not said to be far
# Of the windows of a long sound, one in twenty is far by that: so many are not
# worth a word.
_FEW = 0.2
_RANK = 64  # axes of the covariance that are kept
_SHRINKAGE = 0.1  # of it towards a sphere: there are few clips a dimension


class Familiarity(torch.nn.Module):
    """Distance of an embedding from those of the training clips.

    Mahalanobis distance to the nearest class, by one covariance for all
    classes (Lee et al., arXiv 1807.03888), of embeddings that are scaled to
    length one (Mueller and Hein, arXiv 2505.18032). Its unit is the median of
    the validation clips. It is made by `fit`, or gets its numbers from a file.

    Arguments
    ---------
    n_classes : int
        Classes of the classifier.
    dim : int
        Size of an embedding.

    Raises
    ------
    LMACError
        In `forward`, if embeddings are of another size.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> labels = torch.arange(40) % 2
    >>> clips = torch.randn(40, 8) + 4 * torch.eye(8)[labels]
    >>> known = Familiarity(n_classes=2, dim=8).fit(
    ...     clips[:20], labels[:20], clips[20:]
    ... )
    >>> far = known(clips[20:]) > known.limit
    >>> int(far.sum()), (known(-clips[:3]) > known.limit).tolist()
    (1, [True, True, True])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def __init__(self, n_classes, dim):
        super().__init__()
        rank = min(dim, _RANK)
        self.register_buffer("means", torch.zeros(n_classes, dim))
        self.register_buffer("axes", torch.zeros(rank, dim))
        self.register_buffer("variances", torch.ones(rank))  # along them
        self.register_buffer("rest", torch.ones(1))  # variance elsewhere
        self.register_buffer("limit", torch.ones(1))

    def forward(self, embeddings):
        """Distances [batch] of embeddings [batch, dim]."""
        dim = self.means.shape[1]
        if embeddings.shape[1] != dim:
            raise LMACError(
                f"familiarity: found embeddings of {embeddings.shape[1]} "
                f"numbers, expected {dim}, as the training clips have"
            )
        apart = F.normalize(embeddings)[:, None] - self.means
        along = (apart @ self.axes.T).square()
        other = (apart.square().sum(2) - along.sum(2)).clamp_min(0)
        squares = (along / self.variances).sum(2) + other / self.rest
        return squares.amin(1).sqrt()

    @torch.no_grad()
    def fit(self, embeddings, labels, held_out):
        """Learn what is usual.

        Arguments
        ---------
        embeddings : torch.Tensor
            Of the training clips, [clips, dim].
        labels : torch.Tensor
            Their classes, [clips].
        held_out : torch.Tensor
            Embeddings of clips that were not trained on, [clips, dim]. The
            classifier knows its training clips too well to tell how far
            others of their kind are.

        Returns
        -------
        Familiarity
            Itself.
        """
        places = F.normalize(embeddings)
        for label in labels.unique():
            self.means[label] = places[labels == label].mean(0)
        apart = places - self.means[labels]
        covariance = apart.T @ apart / len(apart)
        sphere = covariance.diagonal().mean().clamp_min(1e-12)
        values, vectors = torch.linalg.eigh(covariance)
        rank = len(self.axes)
        self.axes.copy_(vectors.T[-rank:])
        kept = (1 - _SHRINKAGE) * values[-rank:].clamp_min(0)
        left = (1 - _SHRINKAGE) * values[:-rank].clamp_min(0)
        self.rest.fill_(_SHRINKAGE * sphere)
        if len(left):
            self.rest.add_(left.mean())
        self.variances.copy_(kept + _SHRINKAGE * sphere)
        distances = self(held_out)
        unit = distances.median().clamp_min(1e-6)
        self.rest.mul_(unit**2)
        self.variances.mul_(unit**2)
        self.limit.fill_(torch.quantile(distances / unit, SHARE))
        return self

    def note(self, distances):
        """What is to be said of a sound at these distances; None if nothing.

        Arguments
        ---------
        distances : torch.Tensor
            From `forward`, of the sound or of each of its windows, [windows].

        Returns
        -------
        str

        Example
        -------
        >>> known = Familiarity(n_classes=2, dim=8)
        >>> known.note(torch.tensor([0.9]))
        >>> print(known.note(torch.tensor([3.14])))
        this sound is unlike those that the model was trained on (distance \
3.1; 95 % of its validation clips have at most 1.0): its decision may mean \
nothing
        """
        far = distances[distances > self.limit]
        if len(far) <= _FEW * len(distances):
            return None
        where, up_to = "", ""
        if len(distances) > 1:
            where, up_to = (
                f"in {len(far)} of {len(distances)} windows ",
                "up to ",
            )
        return (
            f"{where}this sound is unlike those that the model was trained on "
            f"(distance {up_to}{far.max():.1f}; {100 * SHARE:.0f} % of its "
            f"validation clips have at most {self.limit.item():.1f}): its "
            "decision may mean nothing"
        )
