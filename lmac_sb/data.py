"""Data sets and batches, from manifests.

Authors
 * The lmac-sb authors 2026
"""

import json
import random
from pathlib import Path

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.data_pipeline import provides, takes

from lmac_sb.audio import fit_length, read_audio
from lmac_sb.errors import LMACError

__all__ = ["EqualLengthBatches", "check_labels", "make_dataset"]


def make_dataset(
    manifest,
    preprocess,
    label_encoder,
    noise=None,
    epoch=None,
    shift_seed=None,
    events=False,
):
    """Data set of one split.

    Each item holds ``sig``, what the classifier hears; ``clean``, the clip
    within it, at the gain that it has there (equal to ``sig`` without noise);
    and if asked for and known, as on scenes, ``event``, the labelled event
    within it.

    Arguments
    ---------
    manifest : str or Path
        JSON written by the data preparation.
    preprocess : lmac_sb.audio.Preprocessor
        From a file to a waveform.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the classes to indices.
    noise : lmac_sb.noise.NoiseMixer
        Mixed into each clip; None leaves it alone.
    epoch : callable
        Returns the current epoch, for noise and shifts that change with it;
        None fixes those of each clip.
    shift_seed : int
        Seed of a random rotation of each clip in time; None for no rotation.
    events : bool
        Whether to give the events, where the manifest has them.

    Returns
    -------
    DynamicItemDataset
        Outputs: id, sig, clean, class_string_encoded and maybe event. Its
        attribute `n_samples` lists the length of each item.
    """

    @takes("wav", "id")
    @provides("sig", "clean")
    def audio_pipeline(wav, clip_id):
        now = None if epoch is None else epoch()
        clean = preprocess(wav)
        if shift_seed is not None:
            # Its own generator, so that neither order nor worker matters.
            rng = random.Random(f"{shift_seed} {clip_id} {now}")
            clean = clean.roll(rng.randrange(len(clean)))
        sig = clean
        if noise is not None:
            sig, clean = noise(clean, clip_id, epoch=now)
        yield sig
        yield clean

    @takes("wav", "stem", "clean")
    @provides("event")
    def event_pipeline(wav, stem, clean):
        # The event at the gain that the clip has in the signal: that gain is
        # what the preprocessing and the mixing made of the clip's peak.
        raw, event = (
            fit_length(read_audio(path, preprocess.sample_rate), len(clean))
            for path in (wav, stem)
        )
        return event * (clean.abs().max() / raw.abs().max().clamp(min=1e-8))

    @takes("class_string")
    @provides("class_string_encoded")
    def label_pipeline(class_string):
        return label_encoder.encode_label_torch(class_string)

    with open(manifest, encoding="utf-8") as file:
        entries = json.load(file)
    items = [audio_pipeline, label_pipeline]
    keys = ["id", "sig", "clean", "class_string", "class_string_encoded"]
    if events and all("stem" in entry for entry in entries.values()):
        items.append(event_pipeline)
        keys.append("event")
    dataset = DynamicItemDataset(entries, items, keys)
    dataset.n_samples = [
        _n_samples(entries[clip_id], preprocess) for clip_id in dataset.data_ids
    ]
    return dataset


def _n_samples(entry, preprocess):
    """Length of a clip after preprocessing."""
    if preprocess.n_samples is not None:
        return preprocess.n_samples
    # The resampler rounds up.
    return -(
        -entry["num_samples"] * preprocess.sample_rate // entry["sample_rate"]
    )


def check_labels(manifest_folder, label_encoder, source):
    """Refuse data whose classes the classifier does not know.

    Arguments
    ---------
    manifest_folder : str or Path
        Written by the data preparation.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        The classifier's classes.
    source : str
        The classifier's folder, for the message.

    Raises
    ------
    LMACError
        Names the classes on both sides.

    Example
    -------
    >>> from speechbrain.dataio.encoder import CategoricalEncoder
    >>> encoder = CategoricalEncoder()
    >>> encoder.update_from_iterable(["cat", "dog"])
    >>> folder = getfixture("tmp_path")
    >>> for split in ("train", "valid", "test"):
    ...     _ = (folder / f"{split}.json").write_text(
    ...         '{"a": {"class_string": "cow"}}'
    ...     )
    >>> check_labels(folder, encoder, "model")
    Traceback (most recent call last):
    ...
    lmac_sb.errors.LMACError: model: the classifier knows cat, dog, but ...
    """
    found = set()
    for split in ("train", "valid", "test"):
        path = Path(manifest_folder) / f"{split}.json"
        with open(path, encoding="utf-8") as file:
            found |= {e["class_string"] for e in json.load(file).values()}
    known = set(label_encoder.lab2ind)
    if not found <= known:
        raise LMACError(
            f"{source}: the classifier knows {_names(known)}, but the data "
            f"has {_names(found - known)}; train a classifier on this data "
            "or give another classifier_folder"
        )


def _names(classes):
    """Sorted names in one short line."""
    names = sorted(classes)
    shown = ", ".join(names[:10])
    rest = len(names) - 10
    return shown + (f" and {rest} more" if rest > 0 else "")


class EqualLengthBatches(torch.utils.data.Sampler):
    """Batches of clips of one length, the same for any number of processes.

    A CNN that pools over time cannot ignore padding, so only clips of equal
    length share a batch. The order depends on the seed and the epoch alone;
    process `rank` of `world_size` gets each `world_size`-th clip of every
    common batch, so that together they see the batches that one process with
    `world_size` times the batch size would see.

    Arguments
    ---------
    lengths : list of int
        Length in samples of each clip.
    batch_size : int
        Clips a process and batch.
    shuffle : bool
        Whether to draw a new order each epoch.
    seed : int
        Seed of the order.
    rank : int
        This process.
    world_size : int
        Number of processes.

    Example
    -------
    >>> list(EqualLengthBatches([5, 9, 5, 9, 5], batch_size=2))
    [[0, 2], [4], [1, 3]]
    >>> batches = EqualLengthBatches([5, 9, 5, 9, 5], 1, rank=1, world_size=2)
    >>> list(batches)
    [[2], [4], [3]]
    """

    def __init__(
        self,
        lengths,
        batch_size,
        shuffle=False,
        seed=0,
        rank=0,
        world_size=1,
    ):
        if batch_size < 1:
            raise LMACError(f"batch_size: {batch_size}, needed is 1 or more")
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch):
        """Choose the order of an epoch; `Brain.fit` calls it."""
        self.epoch = epoch

    def _common_batches(self):
        """Batches of all processes together."""
        order = list(range(len(self.lengths)))
        rng = random.Random(f"{self.seed} {self.epoch}")
        if self.shuffle:
            rng.shuffle(order)
        groups = {}
        for index in order:
            groups.setdefault(self.lengths[index], []).append(index)
        size = self.batch_size * self.world_size
        batches = [
            group[start : start + size]
            for group in groups.values()
            for start in range(0, len(group), size)
        ]
        if self.shuffle:
            rng.shuffle(batches)
        return batches

    def __iter__(self):
        for batch in self._common_batches():
            # A process without a share repeats a clip: all must take part in
            # each step. Metrics count an id once.
            yield batch[self.rank :: self.world_size] or batch[:1]

    def __len__(self):
        size = self.batch_size * self.world_size
        counts = {}
        for length in self.lengths:
            counts[length] = counts.get(length, 0) + 1
        return sum(-(-count // size) for count in counts.values())
