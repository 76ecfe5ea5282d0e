"""Two classes of one sound: does an explanation follow the question?

A sound has two events of different classes. Asked about one class, an
explanation must show that event; asked about the other, the other one. One
that shows the same both times explains the sound, and not the class. Clips of
several classes have such events; to a clip of one class, one of another class
is added.
"""

import random
from typing import NamedTuple

import torch

from lmac_sb.evaluation.sanity import (
    clips_at,
    correlation,
    decides_by_weights,
    masks_of,
    rows_of_all,
)
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.metrics.localisation import event_mass
from lmac_sb.utils.errors import LMACError

__all__ = ["Sounds", "add_others", "check_swap", "of_several"]


class Sounds(NamedTuple):
    """Sounds of two classes each.

    Arguments
    ---------
    ids : list of str
        Names of the clips.
    wavs : torch.Tensor
        [batch, samples].
    classes : torch.Tensor
        The two classes, [batch, 2].
    stems : torch.Tensor or None
        Their events alone, [batch, 2, samples], where they are known.

    Example
    -------
    >>> Sounds(["a"], wavs[:1], torch.tensor([[0, 2]])).stems is None
    True
    """

    ids: list
    wavs: torch.Tensor
    classes: torch.Tensor
    stems: torch.Tensor = None


def add_others(clips, others):
    """Clips of one class each, with as loud clips of another class.

    Arguments
    ---------
    clips, others : tuple
        Waveforms and items from `lmac_sb.evaluation.sanity.clips_at`.

    Returns
    -------
    Sounds

    Example
    -------
    >>> items = [{"id": "a", "class_string_encoded": torch.tensor([1])}]
    >>> clip, other = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> add_others((clip, items), (other, items)).wavs
    tensor([[3., 3.]])
    """
    (wavs, items), (other_wavs, other_items) = clips, others
    power, other_power = (x.norm(dim=1) for x in (wavs, other_wavs))
    gains = power / other_power.clamp(min=1e-12)
    classes, stems = [], []
    for item, other, gain in zip(items, other_items, gains):
        pair = [x["class_string_encoded"] for x in (item, other)]
        classes.append(torch.cat(pair).to(wavs.device))
        if "event" in item and "event" in other:
            pair = [item["event"].to(wavs), other["event"].to(wavs) * gain]
            stems.append(torch.stack(pair))
    return Sounds(
        [item["id"] for item in items],
        wavs + gains[:, None] * other_wavs,
        torch.stack(classes),
        torch.stack(stems) if stems else None,
    )


def of_several(wavs, items, seed):
    """Two classes of each clip that has so many, drawn at random.

    Arguments
    ---------
    wavs : torch.Tensor
        [batch, samples].
    items : list of dict
        Their labels are by class, see
        `lmac_sb.data.dataset.MultilabelEncoder`.
    seed : int
        Seed of the draw.

    Returns
    -------
    Sounds or None
        None if no clip has two classes.

    Example
    -------
    >>> label = torch.tensor([1.0, 0.0, 1.0])
    >>> items = [{"id": name, "class_string_encoded": label} for name in "ab"]
    >>> of_several(wavs, items, 0).classes.sum(1)
    tensor([2, 2])
    """
    rows, classes, stems = [], [], []
    for row, item in enumerate(items):
        present = item["class_string_encoded"].nonzero()[:, 0].tolist()
        if len(present) < 2:
            continue
        pair = random.Random(f"{seed} {item['id']}").sample(present, 2)
        rows.append(row)
        classes.append(pair)
        if "event" in item:
            stems.append(item["event"][pair].to(wavs))
    if not rows:
        return None
    return Sounds(
        [items[row]["id"] for row in rows],
        wavs[rows],
        torch.tensor(classes, device=wavs.device),
        torch.stack(stems) if stems else None,
    )


def check_swap(explainer, methods, dataset, options):
    """Ask about two classes of each sound, and compare the masks.

    Several processes may do the same at once: each takes its share of the
    batches, and one that was broken off goes on where it stopped.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`.
    options : dict
        ``folder``, where finished rows are kept; ``batch_size``, the clips
        that are explained at once; ``seed`` of the pairs.

    Returns
    -------
    list of dict
        A row for each sound, method and class asked about (``asked``, 0 or
        1): ``correlation`` of the mask with that of the other class;
        ``Fid-In``, 1 if the classifier hears the class in what the mask lets
        through; and, where the events are known, ``event_mass``, the share of
        the mask on that of the class, and ``other_mass``, on the other.

    Raises
    ------
    LMACError
        If a method does not look at the classifier, no sound has two classes,
        or the folder has rows of other clips or methods.
    """
    decides_by_weights(methods, "swap_methods")
    seed = options["seed"]
    several = explainer.classifier.multilabel
    partners = None if several else _partners(dataset, seed)

    def sounds(places):
        """Those of some clips of one length, or None."""
        if several:
            return of_several(*clips_at(places, dataset, explainer), seed)
        places = [place for place in places if place in partners]
        if not places:
            return None
        others = [partners[place] for place in places]
        both = (clips_at(x, dataset, explainer) for x in (places, others))
        return add_others(*both)

    def rows_of(places):
        """Rows of the sounds of one batch."""
        found = sounds(places)
        return [] if found is None else _rows(explainer, methods, found)

    rows = rows_of_all(rows_of, methods, dataset, options)
    if not rows:
        raise LMACError(
            "swap: no sound of two classes, expected at least one; "
            + _why_none(dataset, several)
        )
    return rows


def _why_none(dataset, several):
    """Why no sound has two classes, and what the user can do."""
    with dataset.output_keys_as(["class_string"]):
        labels = {item["class_string"] for item in dataset}
    n_clips = len(dataset)
    if several:
        return f"none of {n_clips} clips has two: use more clips (n_clips)"
    if len(labels) == 1:
        return (
            f"all {n_clips} clips are of the class {labels.pop()}: use more "
            "clips (n_clips)"
        )
    return (
        f"no two of {n_clips} clips of different classes have one length: "
        "train the explained models with signal_length_s"
    )


def _partners(dataset, seed):
    """Place of a clip to one of another class and of the same length."""
    with dataset.output_keys_as(["class_string"]):
        labels = [item["class_string"] for item in dataset]
    places, partners = range(len(labels)), {}
    for place in places:
        others = [
            other
            for other in places
            if labels[other] != labels[place]
            and dataset.n_samples[other] == dataset.n_samples[place]
        ]
        if others:
            rng = random.Random(f"{seed} {dataset.data_ids[place]}")
            partners[place] = rng.choice(others)
    return partners


def _rows(explainer, methods, sounds):
    """Rows of the sounds of one batch."""
    targets = sounds.classes.unbind(1)
    masks = [
        masks_of(methods, explainer, sounds.wavs, target) for target in targets
    ]
    analysis = explainer.analyze(sounds.wavs)
    ideals = None
    if sounds.stems is not None:
        ideals = [
            ideal_mask(explainer.features.stft(stem), analysis.stft)
            for stem in sounds.stems.unbind(1)
        ]
    rows = []
    for name in methods:
        pair = [found[name] for found in masks]
        alike = correlation(*pair)
        for asked, (mask, target) in enumerate(zip(pair, targets)):
            hears = _hears(explainer, analysis, mask, target)
            columns = {"correlation": alike, "Fid-In": hears}
            if ideals is not None:
                columns["event_mass"] = event_mass(mask, ideals[asked])
                columns["other_mass"] = event_mass(mask, ideals[1 - asked])
            rows += [
                {"id": clip, "method": name, "asked": asked}
                | {key: values[place].item() for key, values in columns.items()}
                for place, clip in enumerate(sounds.ids)
            ]
    return rows


@torch.no_grad()
def _hears(explainer, analysis, mask, target):
    """1.0 where the classifier finds a class in what a mask lets through."""
    found = explainer.complete(analysis, mask, target, sounds=False).asked()
    return (found.logits_in.argmax(1) == found.decision).float()
