"""Checksums inside of JSON files that people may edit."""

import hashlib
import json

__all__ = ["SEAL", "is_sealed", "seal"]

SEAL = "sha256"  # its key


def seal(content, name):
    """Add a checksum to what goes to a JSON file.

    Arguments
    ---------
    content : dict
        What JSON can hold.
    name : str
        Of the file, so that two files do not swap.

    Returns
    -------
    dict
        The content with its checksum as ``sha256``.

    Example
    -------
    >>> sealed = seal({"AI": 1.0}, "a.json")
    >>> is_sealed(sealed, "a.json")
    True
    >>> is_sealed({**sealed, "AI": 2.0}, "a.json")
    False
    """
    return {**content, SEAL: _checksum(content, name)}


def is_sealed(content, name):
    """Whether what was read from a JSON file is what was sealed.

    Arguments
    ---------
    content : object
        From the file.
    name : str
        Of the file.

    Returns
    -------
    bool
    """
    if not isinstance(content, dict) or SEAL not in content:
        return False
    rest = {key: value for key, value in content.items() if key != SEAL}
    return content[SEAL] == _checksum(rest, name)


def _checksum(content, name):
    """Of the content as JSON writes it."""
    # As it is after reading: keys are texts, and tuples are lists.
    text = json.dumps(json.loads(json.dumps(content)), sort_keys=True)
    return hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()
