"""Millions of short texts in few bytes: names, labels, keys."""

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np

__all__ = ["Labels", "Texts", "hash64", "hash64_all"]


class Texts(Sequence):
    """Texts one after the other in memory, with 8 bytes more for each.

    As Python's own, each takes some 80 bytes more.

    Arguments
    ---------
    texts : iterable of str
        Also names of files that are not UTF-8, as Python decodes them.

    Example
    -------
    >>> texts = Texts(["dog.wav", "café.wav"])
    >>> texts[1], len(texts), list(texts)
    ('café.wav', 2, ['dog.wav', 'café.wav'])
    """

    def __init__(self, texts):
        content, ends = bytearray(), array("q", [0])
        for text in texts:
            content += text.encode("utf-8", "surrogatepass")
            ends.append(len(content))
        self._content = bytes(content)
        self._ends = np.frombuffer(ends, np.int64)

    def __len__(self):
        return len(self._ends) - 1

    def __getitem__(self, place):
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        start, end = self._ends[place], self._ends[place + 1]
        return self._content[start:end].decode("utf-8", "surrogatepass")


class Labels(Sequence):
    """Texts of which there are few different ones, 4 bytes each.

    Arguments
    ---------
    labels : iterable of str or None
        None where there is none.

    Example
    -------
    >>> labels = Labels(["dog", None, "cat", "dog"])
    >>> list(labels), labels.names
    (['dog', None, 'cat', 'dog'], ['dog', 'cat'])
    """

    def __init__(self, labels=()):
        self.names, self._numbers, self._codes = [], {}, array("i")
        for label in labels:
            self.append(label)

    def __len__(self):
        return len(self._codes)

    def __getitem__(self, place):
        code = self._codes[place]
        return None if code < 0 else self.names[code]

    def append(self, label):
        """Add one more.

        Arguments
        ---------
        label : str or None
            Of the next one.
        """
        code = -1
        if label is not None:
            code = self._numbers.setdefault(label, len(self.names))
            if code == len(self.names):
                self.names.append(label)
        self._codes.append(code)


def hash64(text):
    """64 bits of a text, the same in each process.

    Arguments
    ---------
    text : str
        Any.

    Returns
    -------
    int

    Example
    -------
    >>> hash64("a") == hash64("a"), hash64("a") == hash64("b")
    (True, False)
    """
    data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def hash64_all(texts):
    """The 64 bits of many texts, see `hash64`.

    Arguments
    ---------
    texts : iterable of str
        Any.

    Returns
    -------
    numpy.ndarray
        Of `uint64`, [texts].

    Example
    -------
    >>> hash64_all(["a", "b"]).shape
    (2,)
    """
    return np.fromiter(map(hash64, texts), np.uint64)
