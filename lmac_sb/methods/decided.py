"""Clips of several classes: each class that is decided for, on its own.

A multi-label classifier decides for as many classes of a clip as it hears.
Each of them is one explanation, and the events of the others are what it
should leave out.
"""

import torch

from lmac_sb.lmac.masking import ideal_mask

__all__ = ["decided", "each_class", "locate"]


def decided(logits):
    """Which classes are decided for, each on its own.

    Arguments
    ---------
    logits : torch.Tensor
        [batch, classes].

    Returns
    -------
    torch.Tensor
        Boolean, [batch, classes]; even odds count as a decision.

    Example
    -------
    >>> decided(torch.tensor([[2.0, -1.0, 0.0]]))
    tensor([[ True, False,  True]])
    """
    return logits >= 0


def each_class(logits, items):
    """A row for each class that is decided for in each clip.

    Arguments
    ---------
    logits : torch.Tensor
        [batch, classes].
    items : list of dict
        The clips, from `lmac_sb.data.dataset.make_dataset` with a
        `lmac_sb.data.dataset.MultilabelEncoder`.

    Returns
    -------
    places : list of int
        The clip of each row.
    items : list of dict
        Of each row: what its clip has; ``target``, the number of its class;
        ``id``, which ends in it; and ``right``, whether the class is one of
        the clip's labels.

    Example
    -------
    >>> labels = torch.tensor([0.0, 1.0, 1.0])
    >>> logits = torch.tensor([[2.0, -1.0, 0.0]])
    >>> places, rows = each_class(
    ...     logits, [{"id": "a", "class_string_encoded": labels}]
    ... )
    >>> places, [(row["id"], row["right"]) for row in rows]
    ([0, 0], [('a-0', False), ('a-2', True)])
    """
    places, rows = [], []
    for place, c in decided(logits).nonzero().tolist():
        item = items[place]
        right = bool(item["class_string_encoded"][c] > 0)
        row = {"id": f"{item['id']}-{c}", "target": c, "right": right}
        places.append(place)
        rows.append({**item, **row})
    return places, rows


def locate(features, events, target, stft):
    """Where the event of the explained class is, and where all others are.

    Arguments
    ---------
    features : lmac_sb.models.features.SpectralFeatures
        The classifier's front end.
    events : torch.Tensor
        Events by class, silent where a clip has none, [batch, classes,
        samples].
    target : torch.Tensor
        Explained class, [batch].
    stft : torch.Tensor
        Of the clips, [batch, time, freq, 2].

    Returns
    -------
    own, others : torch.Tensor
        Ideal masks, [batch, time, freq]; zeros where there is no such event.

    Example
    -------
    >>> from lmac_sb.models.features import SpectralFeatures
    >>> features = SpectralFeatures()
    >>> events = torch.zeros(1, 3, 8000)
    >>> events[0, 1] = torch.rand(8000)
    >>> stft = features.stft(events.sum(1))
    >>> own, others = locate(features, events, torch.tensor([2]), stft)
    >>> bool(own.any()), bool(others.any())
    (False, True)
    """
    own, others = stft.new_zeros(2, *stft.shape[:-1])
    for c in events.any(2).any(0).nonzero()[:, 0].tolist():
        ideal = ideal_mask(features.stft(events[:, c]), stft)
        is_own = (target == c)[:, None, None]
        own = torch.where(is_own, ideal, own)
        others = torch.where(is_own, others, torch.maximum(others, ideal))
    return own, others
