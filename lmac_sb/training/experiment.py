"""What the recipe scripts do before and after training."""

import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process, run_on_main

from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import make_dataset
from lmac_sb.data.noise import NoiseMixer
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.identity import Claim
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.lock import lock_folder

__all__ = [
    "FRONTEND",
    "NOISE_PARTS",
    "Sounds",
    "check_frontend",
    "check_multilabel",
    "frontend",
    "make_datasets",
    "open_run",
]

logger = logging.getLogger(__name__)

# Parts of a noise folder in the layout of WHAM!.
NOISE_PARTS = {"train": "tr", "valid": "cv", "test": "tt"}
FRONTEND = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels")


@dataclass
class Sounds:
    """How the clips become waveforms and labels.

    Arguments
    ---------
    preprocess : lmac_sb.data.audio.Preprocessor
        From a file to a waveform.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Class names.
    wham_folder : str or None
        Noise in the layout of WHAM!, or none.
    snr_db : float
        Ratio of clip to noise in dB.
    noisy_splits : list of str
        Splits that get noise: train, valid, test.
    audio_cache : str or None
        Folder in which decoded clips are kept, see `AudioCache`, or none.

    Raises
    ------
    LMACError
        If a split is unknown.

    Example
    -------
    >>> Sounds(None, None, noisy_splits=["tset"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: noisy_splits: 'tset' is none of train, valid, test
    """

    preprocess: object
    label_encoder: object
    wham_folder: object = None
    snr_db: float = 0.0
    noisy_splits: tuple = ()
    audio_cache: object = None

    def __post_init__(self):
        for split in self.noisy_splits:
            if split not in NOISE_PARTS:
                raise LMACError(
                    f"noisy_splits: '{split}' is none of train, valid, test"
                )


def make_datasets(manifest_folder, sounds, epoch_counter, seed, events=False):
    """Data sets of the three splits.

    Training clips are rotated in time at random. With a wham_folder, noise is
    drawn from the recordings of each split's own part: new in each epoch of
    the training, fixed for each clip in validation and test.

    Arguments
    ---------
    manifest_folder : str or Path
        Written by the data preparation.
    sounds : Sounds
        How the clips become waveforms.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Knows the epoch.
    seed : int
        Of noise and rotations.
    events : bool
        Whether validation and test give known events.

    Returns
    -------
    dict
        Split to DynamicItemDataset.

    Raises
    ------
    LMACError
        If noise or cache cannot be used.
    """
    preprocess = sounds.preprocess
    if sounds.audio_cache is not None:
        preprocess = AudioCache(sounds.audio_cache, preprocess)
    datasets = {}
    for split, part in NOISE_PARTS.items():
        noise = None
        if sounds.wham_folder is not None and split in sounds.noisy_splits:
            noise = NoiseMixer(
                sounds.wham_folder,
                part,
                preprocess.sample_rate,
                sounds.snr_db,
                seed,
            )
        train = split == "train"
        manifest = Path(manifest_folder) / f"{split}.jsonl"
        datasets[split] = make_dataset(
            manifest,
            preprocess,
            sounds.label_encoder,
            noise,
            epoch=(lambda: epoch_counter.current) if train else None,
            shift_seed=seed if train else None,
            events=events and not train,
        )
        _warn_of_lengths(manifest, datasets[split].n_samples)
    return datasets


def _warn_of_lengths(manifest, lengths):
    """Say so if batches of equal length will hardly hold more than a clip."""
    if len(set(lengths)) > len(lengths) / 2:
        logger.warning(
            "%s: %d clips have %d different lengths, so most batches "
            "hold one clip; signal_length_s cuts and pads them to one",
            manifest,
            len(lengths),
            len(set(lengths)),
        )


def frontend(hparams):
    """The settings that a classifier's input depends on.

    Arguments
    ---------
    hparams : Hparams
        Of any recipe.

    Returns
    -------
    dict
        Name to number.
    """
    return {key: hparams[key] for key in FRONTEND}


@contextmanager
def open_run(hparams, neutral=()):
    """Hold a run's folder, or refuse it; no file is written before.

    Arguments
    ---------
    hparams : lmac_sb.training.hparams.Hparams
        The run's settings.
    neutral : list of str
        See `Claim`.

    Returns
    -------
    context manager
        Gives the `Claim`, checked for what the settings say.

    Raises
    ------
    LMACError
        If another process holds the folder, or it belongs to another run.
    """
    if if_main_process():
        # Warnings show from now on, but there is no log file yet.
        nowhere = {"handlers": {"file_handler": {"filename": os.devnull}}}
        sb.utils.logger.setup_logging(LOG_CONFIG, nowhere)
    claim = Claim(hparams, neutral)
    with lock_folder(claim.folder):
        run_on_main(claim.check)
        yield claim


def check_frontend(found, hparams, source):
    """Refuse another front end than the classifier was trained with.

    Arguments
    ---------
    found : dict
        `frontend` of the classifier's training.
    hparams : Hparams
        The present settings.
    source : str or Path
        The classifier's file, for the message.

    Raises
    ------
    LMACError
        Names the setting and both values.

    Example
    -------
    >>> check_frontend({"n_mels": 80}, {"n_mels": 64}, "model/config.json")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model/config.json: ... n_mels 80, ... n_mels 64
    """
    for key, value in found.items():
        if hparams[key] != value:
            raise LMACError(
                f"{source}: the classifier was trained with {key} {value}, "
                f"this experiment has {key} {hparams[key]}"
            )


def check_multilabel(config, multilabel, source):
    """Refuse a multi-label classifier where one class is decided, or the like.

    Arguments
    ---------
    config : dict
        Content of the classifier's ``config.json``.
    multilabel : bool
        Whether each class is decided for itself here.
    source : str or Path
        The classifier's folder, for the message.

    Raises
    ------
    LMACError
        Says what the classifier decides.

    Example
    -------
    >>> check_multilabel({"multilabel": True}, False, "model")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: the classifier decides each class for ...
    """
    kinds = {False: "one class among all", True: "each class for itself"}
    found = bool(config.get("multilabel"))
    if found != multilabel:
        raise LMACError(
            f"{source}: the classifier decides {kinds[found]}, but here one is "
            f"needed that decides {kinds[multilabel]}"
        )
