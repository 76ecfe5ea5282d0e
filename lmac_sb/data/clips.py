"""Sounds of any kind of collection: files, a folder, a data set."""

import copy
from pathlib import Path

import torch

from lmac_sb.data.audio import as_signal, fit_length, scalar
from lmac_sb.data.corpus import Clip
from lmac_sb.data.names import AUDIO
from lmac_sb.data.pieces import check_path
from lmac_sb.data.rows import TABLES
from lmac_sb.data.streaming import read_signal
from lmac_sb.utils.errors import LMACError, is_number, is_whole, shown

__all__ = ["Clips", "equal_batches"]

# Of dicts, as SpeechBrain, Hugging Face's datasets and others name a sound.
KEYS = ("sig", "audio", "array", "waveform", "wav", "speech", "input_values")
_RATES = range(4000, 768001)  # of whole numbers, those that are no labels
_KEPT = 1 << 28  # samples held in memory, 1 GB


class Clips(torch.utils.data.Dataset):
    """Mono sounds at one rate out of whatever holds sounds.

    Each is read once at the start, so that one that cannot be used is
    named then; those that do not fit into 1 GB are read again when asked for.

    Arguments
    ---------
    sounds : str, Path, list, torch.utils.data.Dataset or iterable
        A folder, whose audio files count with those of its sub-folders; a
        file; or a collection of items. An item is a path, samples, a tuple
        that begins with one of these, or a dict that holds it, such as the
        item of a SpeechBrain data set under ``sig``, or a clip of a corpus
        (see `lmac_sb.data.corpus`). A whole number from
        4000 after samples, or ``sampling_rate`` beside them, is their rate.
    sample_rate : int
        Wanted rate in Hz.
    rate : int
        Of samples without a rate; default the wanted one.
    n_samples : int
        Length to which each is cut or padded; default its own.
    shortest, longest : int
        Samples to which shorter ones are padded with zeros, and of which
        longer ones keep the middle.
    key : str
        What the user called them, for messages.

    Raises
    ------
    LMACError
        If there is no sound, or one cannot be used; names it.

    Example
    -------
    >>> clips = Clips([torch.rand(16000), (torch.rand(1, 44100), 44100)], 16000)
    >>> [len(clip) for clip in clips]
    [16000, 16000]
    >>> clips.lengths
    [16000, 16000]
    """

    def __init__(
        self,
        sounds,
        sample_rate,
        rate=None,
        n_samples=None,
        shortest=1,
        longest=None,
        key="sounds",
    ):
        self.sample_rate = sample_rate
        self.rate = sample_rate if rate is None else rate
        self.n_samples = n_samples
        self.shortest, self.longest = shortest, longest
        self.key = key
        self.sounds = _items(sounds, key)
        self.kept, self.lengths, room = {}, [], _KEPT
        for i in range(len(self.sounds)):
            clip = self._read(i)
            self.lengths.append(len(clip))
            room -= len(clip)
            if room >= 0:
                self.kept[i] = clip
        if not self.lengths:
            raise LMACError(
                f"{key}: found none in {shown(sounds)}, expected audio files "
                "or waveforms"
            )

    def __len__(self):
        """Number of sounds."""
        return len(self.lengths)

    def __getitem__(self, i):
        """A sound, [samples]."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.kept[i] if i in self.kept else self._read(i)

    def some(self, numbers):
        """Those of these numbers, in their order.

        Arguments
        ---------
        numbers : list of int

        Returns
        -------
        Clips
        """
        part = copy.copy(self)
        part.sounds = [self.sounds[i] for i in numbers]
        part.lengths = [self.lengths[i] for i in numbers]
        part.kept = {
            place: self.kept[i]
            for place, i in enumerate(numbers)
            if i in self.kept
        }
        return part

    def _read(self, i):
        """Read a sound, and give it its length."""
        item = self.sounds[i]
        try:
            clip = _signal(item, self.rate, self.sample_rate)
        except LMACError as error:
            if isinstance(item, (str, Path)):
                raise
            raise LMACError(f"{self.key}: item {i}: {error}") from error
        if self.n_samples is not None:
            return fit_length(clip, self.n_samples)
        if self.longest is not None and len(clip) > self.longest:
            start = (len(clip) - self.longest) // 2
            clip = clip[start : start + self.longest].clone()
        return fit_length(clip, max(len(clip), self.shortest))


def _items(sounds, key):
    """A sequence of items."""
    if isinstance(sounds, (str, Path)):
        path = Path(sounds)
        if path.is_file() and path.suffix.lower() in TABLES:
            raise LMACError(
                f"{key}: found the table {path}, expected sounds, files or "
                "folders of sounds; pass what it lists: open_corpus(...) of "
                "lmac_sb.data.corpus"
            )
        if not path.is_dir():
            return [path]
        return [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix[1:].lower() in AUDIO
            and not any(part.startswith(".") for part in file.parts[-3:])
            and not file.is_dir()
        ]
    if isinstance(sounds, torch.utils.data.DataLoader):
        sounds = sounds.dataset  # its items, not batches of padded ones
    if isinstance(sounds, torch.Tensor) and sounds.dim() == 1:
        raise LMACError(
            f"{key}: found one of shape {list(sounds.shape)}, expected "
            "several, such as [clips, samples]"
        )
    if hasattr(sounds, "__len__") and hasattr(sounds, "__getitem__"):
        return sounds
    if not hasattr(sounds, "__iter__"):
        raise LMACError(
            f"{key}: found {shown(sounds)}, expected a folder, a list of "
            "files, or a data set of waveforms"
        )
    return list(sounds)


def _signal(item, rate, sample_rate):
    """The mono signal of an item, [samples]."""
    if isinstance(item, Clip):
        return item.read(sample_rate)
    if isinstance(item, dict):
        found = [key for key in KEYS if key in item]
        if not found:
            raise LMACError(
                f"found a dict of {', '.join(map(str, item)) or 'nothing'}, "
                f"expected one of {', '.join(KEYS)}"
            )
        rate = item.get("sampling_rate", item.get("sample_rate", rate))
        return _signal(item[found[0]], rate, sample_rate)
    if isinstance(item, (tuple, list)) and item and not is_number(item[0]):
        follows = scalar(item[1]) if len(item) > 1 else None
        if is_whole(follows) and follows in _RATES:
            rate = follows
        return _signal(item[0], rate, sample_rate)
    if isinstance(item, (str, Path)):
        check_path(item)  # a pipe could not be read again
        return read_signal(item, sample_rate)
    return as_signal(item, rate, sample_rate)


def equal_batches(lengths, batch_size, generator=None):
    """Numbers of clips for batches of about one length.

    Arguments
    ---------
    lengths : list of int
        Of each clip, in samples.
    batch_size : int
        Clips of a batch.
    generator : torch.Generator
        Of a random order; by default clips are in the order of their lengths.

    Returns
    -------
    list of list of int
        Each clip once. The clips of a batch are to be cut to the shortest of
        them.

    Example
    -------
    >>> equal_batches([5, 9, 5, 8], batch_size=2)
    [[0, 2], [3, 1]]
    """
    order = list(range(len(lengths)))
    if generator is not None:
        order = torch.randperm(len(lengths), generator=generator).tolist()
    # Stable: clips of one length keep their random order.
    order.sort(key=lambda i: lengths[i])
    batches = [
        order[start : start + batch_size]
        for start in range(0, len(order), batch_size)
    ]
    if generator is not None:
        turn = torch.randperm(len(batches), generator=generator).tolist()
        batches = [batches[place] for place in turn]
    return batches
