"""Data sets and batches, from manifests."""

import random
from array import array
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import DynamicItem, GeneratorDynamicItem

from lmac_sb.data.audio import fit_length, read_audio
from lmac_sb.data.decode import Recording
from lmac_sb.data.manifest import Manifest, labels_of, read_entries
from lmac_sb.data.places import place_of
from lmac_sb.data.rates import resample
from lmac_sb.utils.errors import LMACError

__all__ = [
    "Changes",
    "EqualLengthBatches",
    "MultilabelEncoder",
    "check_labels",
    "make_dataset",
    "thin_out",
]


class MultilabelEncoder(CategoricalEncoder):
    """Classes of clips that may have several, joined by a plus.

    Example
    -------
    >>> encoder = MultilabelEncoder()
    >>> encoder.update_from_iterable(["dog+cat", "dog+cow"])
    >>> encoder.encode_label_torch("cow+cat")
    tensor([1., 1., 0.])
    """

    SAFE_IN_YAML = True  # of a model folder of unknown origin

    def update_from_iterable(self, iterable, sequence_input=False):
        """Add the classes of these clips, sorted by name."""
        labels = {label for clip in iterable for label in labels_of(clip)}
        super().update_from_iterable(sorted(labels))

    def encode_label_torch(self, label, allow_unk=True):
        """Ones at the classes of a clip, [classes]."""
        encoded = torch.zeros(len(self))
        encoded[self.encode_sequence_torch(labels_of(label), allow_unk)] = 1
        return encoded

    def by_class(self, stems, label):
        """A clip's sounds [labels, samples] as [classes, samples]."""
        places = self.encode_sequence_torch(labels_of(label))
        sounds = stems.new_zeros(len(self), stems.shape[1])
        sounds[places] = stems
        return sounds


class Changes(NamedTuple):
    """What is done to each clip of a data set.

    Arguments
    ---------
    noise : lmac_sb.data.noise.NoiseMixer
        Mixed into each clip; None leaves it alone.
    shift_seed : int
        Seed of a random rotation of each clip in time; None for no rotation.
    epoch : callable
        Returns the current epoch, for noise and shifts that change with it;
        None fixes those of each clip.

    Example
    -------
    >>> Changes(shift_seed=1).noise is None
    True
    """

    noise: object = None
    shift_seed: int | None = None
    epoch: object = None


def make_dataset(
    manifest,
    preprocess,
    label_encoder,
    changes=None,
    events=False,
):
    """Data set of one split.

    Each item holds ``sig``, what the classifier hears; ``clean``, the clip
    within it, at the gain that it has there (equal to ``sig`` without noise);
    and if asked for and known, as on scenes, ``event``, the labelled event
    within it. With a `MultilabelEncoder`, labels and events are by class. An
    output that has to be asked for is ``gain``, what the file's samples were
    multiplied by to become ``clean``.

    Arguments
    ---------
    manifest : str or Path
        File of JSON Lines, as the data preparation writes it.
    preprocess : Preprocessor or AudioCache
        From a file to a waveform and its gain.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Names of the classes to indices.
    changes : Changes
        What is done to each clip; None leaves it as it is.
    events : bool
        Whether to give the events, where the manifest has them.

    Returns
    -------
    DynamicItemDataset
        Outputs: id, sig, clean, class_string_encoded and maybe event. Its
        attribute `n_samples` lists the length of each item, and `several`
        tells whether a clip may have several classes. The entries stay in
        the file, see `lmac_sb.data.manifest`.

    Raises
    ------
    LMACError
        If the manifest cannot be read, is empty, or an entry lacks a key.
    """
    lengths, n_stems = array("q"), 0

    def visit(clip_id, entry):
        """Check an entry, and note what all of them are needed for."""
        nonlocal n_stems
        for key in ("wav", "class_string", "num_samples", "sample_rate"):
            if key not in entry:
                raise LMACError(f"{manifest}: clip '{clip_id}' has no '{key}'")
        lengths.append(_n_samples(entry, preprocess))
        n_stems += "stem" in entry

    entries = Manifest(manifest, visit)
    if not entries:
        raise LMACError(f"{manifest}: holds no clips")
    # Objects of this module, not functions within this one: the latter cannot
    # be sent to a worker that is not forked.
    items = [
        GeneratorDynamicItem(
            ["wav", "id"],
            _Sound(preprocess, changes or Changes()),
            ["sig", "clean", "gain"],
        ),
        DynamicItem(
            ["class_string"],
            label_encoder.encode_label_torch,
            ["class_string_encoded"],
        ),
    ]
    keys = ["id", "sig", "clean", "class_string", "class_string_encoded"]
    if events and n_stems == len(entries):
        items.append(
            DynamicItem(
                ["stem", "clean", "gain", "class_string"],
                _Event(preprocess, label_encoder),
                ["event"],
            )
        )
        keys.append("event")
    # It would make a list of all ids: it sees the first, then gets the rest.
    dataset = DynamicItemDataset(dict([entries.at(0)]), items, keys)
    dataset.data, dataset.data_ids = entries, entries.ids
    dataset.n_samples = lengths
    dataset.several = isinstance(label_encoder, MultilabelEncoder)
    return dataset


class _Sound(NamedTuple):
    """Reads and changes a clip, for `make_dataset`."""

    preprocess: object
    changes: Changes

    def __call__(self, wav, clip_id):
        """Waveform, the clip within it, and the gain that this has there."""
        changes = self.changes
        now = None if changes.epoch is None else changes.epoch()
        clean, gain = self.preprocess(place_of(wav))
        if changes.shift_seed is not None:
            # Its own generator, so that neither order nor worker matters.
            rng = random.Random(f"{changes.shift_seed} {clip_id} {now}")
            clean = clean.roll(rng.randrange(len(clean)))
        sig = clean
        if changes.noise is not None:
            sig, clean, mixed = changes.noise(clean, clip_id, epoch=now)
            gain *= mixed
        yield sig
        yield clean
        yield gain


class _Event(NamedTuple):
    """Reads the event of a clip, for `make_dataset`."""

    preprocess: object
    label_encoder: object

    def __call__(self, stem, clean, gain, class_string):
        """The event at the gain that the clip has in the waveform."""
        rate, n_samples = self.preprocess.sample_rate, len(clean)
        stem = place_of(stem)
        if isinstance(self.label_encoder, MultilabelEncoder):
            stems = _read_stems(stem, rate, n_samples, class_string)
            event = self.label_encoder.by_class(stems, class_string)
        else:
            event = fit_length(read_audio(stem, rate), n_samples)
        return event * gain


def _read_stems(path, sample_rate, n_samples, class_string):
    """Events of a clip of several, a channel each, [labels, samples]."""
    recording = Recording(path)
    stems = recording.by_channel()
    n_labels = len(labels_of(class_string))
    if len(stems) != n_labels:
        raise LMACError(
            f"{path}: {len(stems)} channels, expected {n_labels}, one "
            f"for each of {class_string}"
        )
    stems = resample(stems, recording.sample_rate, sample_rate, path)
    return fit_length(stems, n_samples)


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
    ...     _ = (folder / f"{split}.jsonl").write_text(
    ...         '{"id": "a", "class_string": "cow"}'
    ...     )
    >>> check_labels(folder, encoder, "model")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: the classifier knows cat, dog, but ...
    """
    found = set()
    for split in ("train", "valid", "test"):
        entries = read_entries(Path(manifest_folder) / f"{split}.jsonl")
        found.update(entry["class_string"] for _, entry in entries)
    if isinstance(label_encoder, MultilabelEncoder):
        found = {label for clip in found for label in labels_of(clip)}
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
            raise LMACError(f"batch_size: {batch_size}, expected 1 or more")
        # Eight bytes a clip, as a corpus may have millions.
        self.lengths = array("q", lengths)
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
        """Batches of all processes together, as pairs of clips and start."""
        order = array("q", range(len(self.lengths)))
        rng = random.Random(f"{self.seed} {self.epoch}")
        if self.shuffle:
            rng.shuffle(order)
        groups = {}
        for index in order:
            groups.setdefault(self.lengths[index], array("q")).append(index)
        size = self.batch_size * self.world_size
        batches = [
            (group, start)
            for group in groups.values()
            for start in range(0, len(group), size)
        ]
        if self.shuffle:
            rng.shuffle(batches)
        return batches

    def __iter__(self):
        size = self.batch_size * self.world_size
        for group, start in self._common_batches():
            batch = group[start : start + size].tolist()
            # A process without a share repeats a clip: all must take part in
            # each step. Metrics count an id once.
            yield batch[self.rank :: self.world_size] or batch[:1]

    def __len__(self):
        size = self.batch_size * self.world_size
        counts = Counter(self.lengths).values()
        return sum(-(-count // size) for count in counts)


def thin_out(dataset, n_clips):
    """Keep some of the clips, evenly spread over their order.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`; changed in place.
    n_clips : int
        How many; None for all.

    Raises
    ------
    LMACError
        If it is less than one.

    Example
    -------
    >>> dataset = DynamicItemDataset({name: {} for name in "abcd"})
    >>> dataset.n_samples = [16000] * 4
    >>> thin_out(dataset, 2)
    >>> dataset.data_ids
    ['a', 'c']
    """
    n_all = len(dataset.data_ids)
    if n_clips is None or n_clips >= n_all:
        return
    if n_clips < 1:
        raise LMACError(f"n_clips: {n_clips}, expected 1 or more, or null")
    places = [n_all * i // n_clips for i in range(n_clips)]
    dataset.n_samples = [dataset.n_samples[place] for place in places]
    dataset.data_ids = [dataset.data_ids[place] for place in places]
