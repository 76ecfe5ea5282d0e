"""How strange a sound is to a classifier, beside those it was trained on."""

import torch
from torch.nn import functional as F

from lmac_sb.utils.errors import LMACError

__all__ = ["Familiarity"]

SHARE = 0.95  # of the validation clips, which are not called strange
# Of the windows of a long sound, one in twenty is strange by that: so many are
# not worth a word.
_FEW = 0.2
_RANK = 64  # axes of the covariance that are kept
_SHRINKAGE = 0.1  # of it towards a sphere: there are few clips a dimension


class Familiarity(torch.nn.Module):
    """Strangeness of sounds by their embedding and by the doubt of a decision.

    The distance of an embedding from those of the training clips, times one
    plus the entropy of the decision in nats: a sound is strange if it is far
    from all that was learnt, and more so if the classifier is in doubt. The
    distance is Mahalanobis' to the nearest class, by one covariance for all
    classes (Lee et al., arXiv 1807.03888), of embeddings that are scaled to
    length one (Mueller and Hein, arXiv 2505.18032). The median of the
    validation clips is the unit. docs/far.md compares it with others.

    It is made by `fit`, or gets its numbers from a file.

    Arguments
    ---------
    n_classes : int
        Classes of the classifier, one of which it decides for.
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
    >>> clips, sure = torch.randn(40, 8) + 4 * torch.eye(8)[labels], [[9.0, 0]]
    >>> logits = torch.tensor(sure).expand(20, 2)
    >>> known = Familiarity(n_classes=2, dim=8).fit(
    ...     clips[:20], labels[:20], clips[20:], logits
    ... )
    >>> strange = known(clips[20:], logits) > known.limit
    >>> strange.sum().item(), (known(-clips[:3], logits[:3]) > known.limit)
    (1, tensor([True, True, True]))
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

    def forward(self, embeddings, logits):
        """Strangeness of sounds.

        Arguments
        ---------
        embeddings : torch.Tensor
            [batch, dim].
        logits : torch.Tensor
            [batch, classes].

        Returns
        -------
        torch.Tensor
            About 1 for clips like those of the training, [batch].
        """
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
        doubt = torch.special.entr(logits.softmax(1)).sum(1)
        return squares.amin(1).sqrt() * (1 + doubt)

    @torch.no_grad()
    def fit(self, embeddings, labels, held_out, held_out_logits):
        """Learn what is usual.

        Arguments
        ---------
        embeddings : torch.Tensor
            Of the training clips, [clips, dim].
        labels : torch.Tensor
            Their classes, [clips].
        held_out, held_out_logits : torch.Tensor
            Embeddings [clips, dim] and logits [clips, classes] of clips that
            were not trained on. The classifier knows its training clips too
            well to tell how strange others of their kind are.

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
        values = (1 - _SHRINKAGE) * values.clamp_min(0) + _SHRINKAGE * sphere
        rank = len(self.axes)
        self.axes.copy_(vectors.T[-rank:])
        self.variances.copy_(values[-rank:])
        self.rest.copy_(values[: max(1, len(values) - rank)].mean())
        usual = self(held_out, held_out_logits)
        unit = usual.median().clamp_min(1e-6)
        self.variances.mul_(unit**2)
        self.rest.mul_(unit**2)
        self.limit.copy_(torch.quantile(usual / unit, SHARE))
        return self

    def note(self, strangeness):
        """What is to be said of a sound; None if nothing.

        Arguments
        ---------
        strangeness : torch.Tensor
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
        far = strangeness[strangeness > self.limit]
        if len(far) <= _FEW * len(strangeness):
            return None
        where, up_to = "", ""
        if len(strangeness) > 1:
            where = f"in {len(far)} of {len(strangeness)} windows "
            up_to = "up to "
        return (
            f"{where}this sound is unlike those that the model was trained on "
            f"(distance {up_to}{far.max():.1f}; {100 * SHARE:.0f} % of its "
            f"validation clips have at most {self.limit.item():.1f}): its "
            "decision may mean nothing"
        )
