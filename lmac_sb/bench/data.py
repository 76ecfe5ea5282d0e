"""Data sets of the bench: where they are, and which clips train and test.

A classifier never hears a clip of the test folds before it is tested: see
`lmac_sb.bench.trained.check_unseen`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.bench.entries import call_entry
from lmac_sb.bench.yamnet import MEANS
from lmac_sb.data.dataset import MultilabelEncoder
from lmac_sb.data.manifest import labels_of, read_entries
from lmac_sb.data.scenes import make_scenes
from lmac_sb.data.soundscapes import make_soundscapes
from lmac_sb.training.identity import data_identity
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.recipe import load_script

__all__ = ["DATA", "Data", "Prepared", "prepare", "safe"]

SOUNDSCAPES = 12  # of each class in each fold
REAL = "LMAC_SB_DATA"  # variable of the environment: folder of real sounds
# What the recipe's script says of keys, in the words of the bench.
_WORDS = (
    ("(train|valid|test)_fold_nums", r"folds['\1']"),
    ("^manifest_folder ", "out: "),
    ("data_folder must be the", "its function has to give the"),
    (r"\. To download ESC-50 there, .*", ""),
    (", or (leave them out|go on without them) with .*", ""),
)


class Data(NamedTuple):
    """A data set; one more is one entry of `DATA`.

    Arguments
    ---------
    find : callable
        Of a folder in which something may be made and of the folder of real
        sounds (or None), gives the folder of the clips; it raises an
        `LMACError` that says what is missing. The folder is one that
        ``lmac train --data_folder`` takes.
    folds : dict
        Folds of ``train``, ``valid`` and ``test``.
    keys : dict
        Of all trainings, as ``lmac train`` takes them.
    classifier_keys, explainer_keys : dict
        Of those of classifiers, and of those of what explains them.
    means : dict
        Class to the AudioSet class that means the same, where YAMNet knows
        all of them.
    several : bool
        Whether a clip may have several classes, joined by a plus. Each that a
        classifier decides for is explained on its own.

    Example
    -------
    >>> Data(lambda made, real: made).folds["test"]
    [5]
    """

    find: Callable
    folds: dict = {"train": [1, 2, 3], "valid": [4], "test": [5]}
    keys: dict = {}
    classifier_keys: dict = {}
    explainer_keys: dict = {}
    means: Optional[dict] = None
    several: bool = False


class Prepared(NamedTuple):
    """A data set that is there, and its manifests.

    Arguments
    ---------
    name : str
        What it is called.
    data : Data
        The entry.
    folder : pathlib.Path
        Its clips.
    manifests : pathlib.Path
        Folder of ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl``.

    Example
    -------
    >>> found = Prepared("mine", Data(None), Path("clips"), Path("manifests"))
    >>> found.seconds is None
    True
    """

    name: str
    data: Data
    folder: Path
    manifests: Path

    @property
    def seconds(self):
        """Length to which clips are cut or padded; None for their own."""
        return self.data.keys.get("signal_length_s")

    @property
    def classes(self):
        """Names of the classes that are trained on, sorted."""
        entries = read_entries(self.manifests / "train.jsonl")
        labels = {entry["class_string"] for _, entry in entries}
        if self.data.several:
            labels = {name for label in labels for name in labels_of(label)}
        return sorted(labels)

    def encoder(self, classes=None):
        """Numbers of the classes: of those of the data, or of these names."""
        classes = self.classes if classes is None else classes
        several = self.data.several
        encoder = MultilabelEncoder() if several else CategoricalEncoder()
        for name in classes:
            encoder.add_label(name)
        encoder.expect_len(len(classes))
        return encoder

    def ids(self, split):
        """Ids of the clips of a split."""
        entries = read_entries(self.manifests / f"{split}.jsonl")
        return [clip for clip, _ in entries]

    def identity(self):
        """Checksum of what the clips of all splits are."""
        splits = {x: self.manifests / f"{x}.jsonl" for x in self.data.folds}
        return data_identity(splits, self.name)["sha256"]


def safe(name):
    """A name as that of a file or folder.

    Arguments
    ---------
    name : str
        Of an entry.

    Returns
    -------
    str

    Example
    -------
    >>> safe("my.module:data")
    'my_module_data'
    """
    return "".join(x if x.isalnum() or x in "-_" else "_" for x in name)


def prepare(name, data, out, real=None):
    """Find or make a data set, check its clips and list them.

    Arguments
    ---------
    name : str
        What it is called.
    data : Data
        The entry.
    out : Path
        Folder of the bench.
    real : str or Path
        Folder of real sounds; by default that of the environment.

    Returns
    -------
    Prepared

    Raises
    ------
    LMACError
        If it is not there, or its clips cannot be used.
    """
    real = real or os.environ.get(REAL)
    made = out / "data" / safe(name)
    found = call_entry(name, data.find, made, real and Path(real))
    if not isinstance(found, (str, Path)):
        raise LMACError(f"{name}: gave {shown(found)}, expected a folder")
    _check_folds(name, data.folds)
    folder = Path(found)
    manifests = out / "manifests" / safe(name)
    script = load_script("esc50_prepare.py")
    try:
        script.prepare_esc50(
            folder,
            manifests,
            folds=dict(data.folds),
            needs=script.Needs(data.several),
        )
    except LMACError as error:
        raise LMACError(f"{name}: {_in_words(error, folder)}") from error
    prepared = Prepared(name, data, folder, manifests)
    if len(prepared.classes) < 2:
        raise LMACError(
            f"{name}: found one class, {prepared.classes[0]}, expected clips "
            "of several to train on"
        )
    return prepared


def _in_words(error, folder):
    """An error of the recipe's script, without keys that the bench lacks."""
    text = str(error)
    if "meta/esc50.csv: not found" in text and not folder.exists():
        return (
            f"{folder}: no such folder, expected the one of its clips; its "
            "function gave it"
        )
    for found, put in _WORDS:
        text = re.sub(found, put, text, flags=re.DOTALL)
    return text


def _check_folds(name, folds):
    """Refuse folds that are no numbers of all splits."""
    splits = folds if isinstance(folds, dict) else {}
    if {"train", "valid", "test"} != {*splits} or not all(
        isinstance(x, (list, tuple, range))
        and x
        and all(isinstance(number, int) for number in x)
        for x in splits.values()
    ):
        raise LMACError(
            f"{name}: folds: found {shown(folds)}, expected lists of numbers "
            "for train, valid and test"
        )


def _scenes(made, real):
    """Generated scenes, whose events are known."""
    return make_scenes(made)


def _several(made, real):
    """Scenes of two or three events, as `lmac_multilabel.yaml` has them."""
    return make_scenes(made, clips_per_class=24, n_events=[2, 3])


def _among_real(name):
    """A folder among the real sounds, by its name."""

    def find(made, real):
        """The folder, if it is there."""
        if real is None:
            raise LMACError(
                f"{name}: no folder of real sounds; expected it by --real "
                f"FOLDER or in the environment, {REAL}"
            )
        if not (real / name).is_dir():
            raise LMACError(
                f"{real / name}: no such folder, expected the clips of {name}"
            )
        return real / name

    return find


def _soundscapes(made, real):
    """Real recordings with known answers, of those of the real sounds."""
    parts = {
        name: _among_real(name)(made, real)
        for name in ("esc10", "noise", "fsdd", "speech")
    }
    return make_soundscapes(
        made,
        parts["esc10"],
        parts["noise"],
        distractors=[parts["fsdd"], parts["speech"]],
        clips_per_class=SOUNDSCAPES,
    )


_ESC10 = {"train": [1, 2], "valid": [3], "test": [4]}
# name -> what is known of it
DATA = {
    "scenes": Data(_scenes),
    "multilabel": Data(_several, several=True),
    "soundscapes": Data(
        _soundscapes,
        _ESC10,
        classifier_keys={"number_of_epochs": 30, "mixup_alpha": 0.4},
        means=MEANS,
    ),
    "esc10": Data(
        _among_real("esc10"),
        _ESC10,
        {"signal_length_s": 5},
        {"number_of_epochs": 60, "mixup_alpha": 0.4},
        {"number_of_epochs": 24},
        MEANS,
    ),
    # The test fold is the data's own test split.
    "digits": Data(_among_real("fsdd"), keys={"signal_length_s": 1}),
}
