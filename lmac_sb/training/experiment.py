"""What the recipe scripts do before and after training."""

import atexit
import difflib
import hashlib
import logging
import os
import re
from pathlib import Path

import speechbrain as sb
import torch
import yaml
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import if_main_process, run_on_main

from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import make_dataset
from lmac_sb.data.manifest import read_entries
from lmac_sb.data.noise import NoiseMixer
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import read_json, write_json

__all__ = [
    "Hparams",
    "check_folder",
    "check_frontend",
    "check_multilabel",
    "claim_folder",
    "claim_training",
    "data_sha256",
    "frontend",
    "load_hparams",
    "log_to_console",
    "make_datasets",
]

logger = logging.getLogger(__name__)

FRONTEND = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels")


class Hparams(dict):
    """Hyperparameters; a missing key is an error that names the file.

    Arguments
    ---------
    values : dict
        Loaded by hyperpyyaml.
    file : str
        Where they come from.

    Example
    -------
    >>> Hparams({"seed": 1}, "x.yaml")["lr"]
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: x.yaml: key 'lr' is missing
    """

    def __init__(self, values, file):
        super().__init__(values)
        self.file = file

    def __missing__(self, key):
        raise LMACError(f"{self.file}: key '{key}' is missing")


def load_hparams(argv, recipe_folder):
    """Command line to hyperparameters.

    Arguments
    ---------
    argv : list of str
        Arguments of the script: a yaml file, then overrides.
    recipe_folder : str or Path
        Its ``hparams`` folder holds the shipped yaml files, whose keys are
        the known ones.

    Returns
    -------
    file : str
        The yaml file.
    hparams : Hparams
        What it says, with the overrides.
    run_opts : dict
        SpeechBrain's run options.
    overrides : str
        The overrides as yaml.

    Raises
    ------
    LMACError
        If the file is missing or no yaml, or a key is unknown.
    """
    # It would tell each user that images cannot be sent to TensorBoard; none
    # are.
    logging.getLogger("speechbrain.utils.train_logger").addFilter(
        lambda record: "torchvision" not in record.getMessage()
    )
    file, run_opts, overrides = sb.parse_arguments(argv)
    if not Path(file).is_file():
        raise LMACError(f"{file}: no such file, a yaml file is needed")
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LMACError(f"{file}: cannot be read ({error})") from error
    _check_keys(file, text, overrides, Path(recipe_folder) / "hparams")
    sb.utils.distributed.ddp_init_group(run_opts)
    # Its threads must end before the interpreter does.
    atexit.register(_leave_group)
    try:
        hparams = load_hyperpyyaml(text, overrides)
    except LMACError:
        raise
    except Exception as error:
        # A yaml can call anything; hyperpyyaml wraps what that raises.
        cause = error.__cause__ or error
        raise LMACError(f"{file}: {cause}") from error
    return file, Hparams(hparams, file), run_opts, overrides


def _leave_group():
    """End the communication of several processes, if there are any."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_keys(file, text, overrides, known_folder):
    """Refuse keys that nothing will read, such as misspelt ones."""
    own = _top_keys(text, file)
    known = set(own) & set(re.findall(r"!ref\s*<(\w+)", text))
    known |= set(re.findall(r"<(\w+)>", text))
    for shipped in sorted(known_folder.glob("*.yaml")):
        known |= set(_top_keys(shipped.read_text(encoding="utf-8"), shipped))
    asked = _top_keys(overrides, "command line") if overrides else []
    for place, keys, allowed in (
        (file, own, known),
        ("command line", asked, set(own)),
    ):
        for key in keys:
            if key in allowed:
                continue
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise LMACError(f"{place}: unknown key '{key}'{hint}")


def _top_keys(text, place):
    """Top-level keys of a hyperpyyaml text."""
    try:
        # This loader passes over tags, whose objects are made later.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise LMACError(f"{place}: is no yaml ({error})") from error
    if not isinstance(content, dict):
        raise LMACError(f"{place}: holds no keys, 'key: value' is needed")
    return list(content)


def make_datasets(
    manifest_folder,
    preprocess,
    label_encoder,
    epoch_counter,
    seed,
    wham_folder=None,
    snr_db=0.0,
    noisy_splits=(),
    events=False,
    audio_cache=None,
):
    """Data sets of the three splits.

    Training clips are rotated in time at random. With a wham_folder, noise is
    drawn from the recordings of each split's own part: new in each epoch of
    the training, fixed for each clip in validation and test.

    Arguments
    ---------
    manifest_folder : str or Path
        Written by the data preparation.
    preprocess : lmac_sb.data.audio.Preprocessor
        From a file to a waveform.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Class names.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Tells the epoch.
    seed : int
        Of noise and rotations.
    wham_folder : str or None
        Noise in the layout of WHAM!, or none.
    snr_db : float
        Ratio of clip to noise in dB.
    noisy_splits : list of str
        Splits that get noise: train, valid, test.
    events : bool
        Whether validation and test give known events.
    audio_cache : str or None
        Folder in which decoded clips are kept, see `AudioCache`, or none.

    Returns
    -------
    dict
        Split to DynamicItemDataset.

    Raises
    ------
    LMACError
        If a split is unknown, or noise or cache cannot be used.
    """
    noise_parts = {"train": "tr", "valid": "cv", "test": "tt"}
    for split in noisy_splits:
        if split not in noise_parts:
            raise LMACError(
                f"noisy_splits: '{split}' is none of train, valid, test"
            )
    if audio_cache is not None:
        preprocess = AudioCache(audio_cache, preprocess)
    datasets = {}
    for split, part in noise_parts.items():
        noise = None
        if wham_folder is not None and split in noisy_splits:
            noise = NoiseMixer(
                wham_folder, part, preprocess.sample_rate, snr_db, seed
            )
        train = split == "train"
        manifest = Path(manifest_folder) / f"{split}.json"
        datasets[split] = make_dataset(
            manifest,
            preprocess,
            label_encoder,
            noise,
            epoch=(lambda: epoch_counter.current) if train else None,
            shift_seed=seed if train else None,
            events=events and not train,
        )
        lengths = datasets[split].n_samples
        if len(set(lengths)) > len(lengths) / 2:
            logger.warning(
                "%s: %d clips have %d different lengths, so most batches "
                "hold one clip; signal_length_s cuts and pads them to one",
                manifest,
                len(lengths),
                len(set(lengths)),
            )
    return datasets


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


def log_to_console():
    """Show warnings from now on; write no file before a folder is claimed.

    Returns
    -------
    None
    """
    if if_main_process():
        nowhere = {"handlers": {"file_handler": {"filename": os.devnull}}}
        sb.utils.logger.setup_logging(LOG_CONFIG, nowhere)


def claim_folder(output_folder, manifest_folder, save_folder=None, **identity):
    """Refuse an output folder that holds another experiment.

    A run resumes what it finds in its folder; checkpoints of other data or
    of another classifier would be taken for its own.

    Arguments
    ---------
    output_folder : str or Path
        The run's folder.
    manifest_folder : str or Path
        Tells the data.
    save_folder : str or Path
        Where checkpoints are; there may be none yet in a new experiment.
    **identity
        What else makes this experiment what it is, by name; plain values.

    Raises
    ------
    LMACError
        Names the folder and what differs.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for split in ("train", "valid", "test"):
    ...     _ = (folder / f"{split}.json").write_text("{}")
    >>> claim_folder(folder, folder, seed=1)
    >>> claim_folder(folder, folder, seed=2)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: output_folder: ... with another seed (1, now 2)...
    """
    identity = {"data": data_sha256(manifest_folder), **identity}
    path = Path(output_folder) / "experiment.json"
    if path.is_file():
        known = dict.fromkeys(read_json(path))
        _compare(output_folder, {**known, **identity})
        return
    if save_folder is not None and [*Path(save_folder).glob("CKPT*")]:
        raise LMACError(
            f"save_folder: {save_folder} holds checkpoints, but not of the "
            f"experiment in {output_folder}; choose another --save_folder, "
            "or delete them"
        )
    write_json(path, identity)


def claim_training(hparams, **identity):
    """Claim the folders of a training, by the main process for all.

    Arguments
    ---------
    hparams : Hparams
        Of a training recipe; its seed is part of the identity.
    **identity
        See `claim_folder`.

    Raises
    ------
    LMACError
        See `claim_folder`.

    Example
    -------
    >>> claim_training(hparams, n_classes=10)  # doctest: +SKIP
    """
    folders = ("output_folder", "manifest_folder", "save_folder")
    run_on_main(
        claim_folder,
        args=[hparams[key] for key in folders],
        kwargs={"seed": hparams["seed"], **identity},
    )


def check_folder(output_folder, splits, **identity):
    """Refuse a folder of another experiment before data is written to it.

    Arguments
    ---------
    output_folder : str or Path
        The run's folder.
    splits : dict
        Entries of the clips of each split, by id.
    **identity
        See `claim_folder`; it need not be all.

    Raises
    ------
    LMACError
        Names the folder and what differs.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> check_folder(folder, {}, seed=2)
    >>> write_json(folder / "experiment.json", {"seed": 1})
    >>> check_folder(folder, {}, seed=2)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: output_folder: ... with another data (None, now...
    """
    if (Path(output_folder) / "experiment.json").is_file():
        clips = {split: entries.items() for split, entries in splits.items()}
        _compare(output_folder, {"data": _sha256_of(clips), **identity})


def _compare(output_folder, identity):
    """Refuse a folder whose experiment differs."""
    found = read_json(Path(output_folder) / "experiment.json")
    for key, value in sorted(identity.items()):
        if found.get(key) != value:
            raise LMACError(
                f"output_folder: {output_folder} holds an "
                f"experiment with another {key} ({found.get(key)}, now "
                f"{value}); choose another --experiment_name or "
                "--output_folder, or delete it"
            )


def data_sha256(manifest_folder):
    """Checksum of the clips of the three splits, wherever they lie.

    Arguments
    ---------
    manifest_folder : str or Path
        Written by the data preparation.

    Returns
    -------
    str
        Hexadecimal.
    """
    return _sha256_of(
        {
            split: read_entries(Path(manifest_folder) / f"{split}.json")
            for split in ("train", "valid", "test")
        }
    )


def _sha256_of(splits):
    """Checksum of splits of pairs of id and entry.

    A sum over the clips: their order does not matter, and none is kept.
    """
    total = 0
    for split, clips in splits.items():
        for clip_id, entry in clips:
            size = entry["num_samples"], entry["sample_rate"]
            line = f"{split} {clip_id} {entry['class_string']} {size}"
            digest = hashlib.sha256(line.encode()).digest()
            total += int.from_bytes(digest, "big")
    return f"{total % (1 << 256):064x}"


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
