"""What the recipe scripts do before training."""

import logging
import os
import shutil
import stat
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.nn.modules.batchnorm import _BatchNorm

from lmac_sb.data.cache import AudioCache
from lmac_sb.data.dataset import Changes, make_dataset
from lmac_sb.data.noise import NoiseMixer
from lmac_sb.models.encoders import embed
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.hparams import on_cpu
from lmac_sb.training.identity import Claim
from lmac_sb.utils.ending import ends_in_order
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import first_line, make_folder, write_in_one_step
from lmac_sb.utils.lock import lock_folder
from lmac_sb.utils.recipe import recipe_folder

__all__ = [
    "FRONTEND",
    "NOISE_PARTS",
    "Sounds",
    "check_frontend",
    "check_multilabel",
    "check_sizes",
    "frontend",
    "make_datasets",
    "open_run",
]

logger = logging.getLogger(__name__)

# Parts of a noise folder in the layout of WHAM!.
NOISE_PARTS = {"train": "tr", "valid": "cv", "test": "tt"}
# What SpeechBrain writes in a run's folder, besides a copy of the script.
_WRITTEN = ("hyperparams.yaml", "env.log", "log.txt", "train_log.txt")
FRONTEND = ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels")


@dataclass
class Sounds:
    """How the clips become waveforms and labels.

    Arguments
    ---------
    preprocess : lmac_sb.data.audio.Preprocessor
        Turns a file into a waveform.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Numbers the class names.
    wham_folder : str or None
        Folder of noise in the layout of WHAM!, or None.
    snr_db : float
        Ratio of clip to noise in dB.
    noisy_splits : list of str
        Splits that get noise: train, valid, test.
    audio_cache : str or None
        Folder that keeps decoded clips, see `AudioCache`, or None.

    Raises
    ------
    LMACError
        If a split is unknown.

    Example
    -------
    >>> Sounds(None, None, noisy_splits=["tset"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: noisy_splits: found 'tset', expected train, valid or test
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
                    f"noisy_splits: found '{split}', expected train, valid "
                    "or test"
                )


def make_datasets(manifest_folder, sounds, epoch_counter, seed, events=False):
    """Data sets of the three splits.

    Training clips are rotated in time at random. With a wham_folder, each
    split gets noise from its own part of the recordings: new noise in each
    epoch of the training, and fixed noise for each clip in validation and
    test.

    Arguments
    ---------
    manifest_folder : str or Path
        Folder of the manifests that the data preparation wrote.
    sounds : Sounds
        How the clips become waveforms.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Gives the current epoch.
    seed : int
        Seed of noise and rotations.
    events : bool
        Whether the items of validation and test include known events.

    Returns
    -------
    dict
        Split to DynamicItemDataset.

    Raises
    ------
    LMACError
        If the noise or the cache cannot be used.
    """
    preprocess = sounds.preprocess
    if sounds.audio_cache is not None:
        preprocess = AudioCache(sounds.audio_cache, preprocess)
    datasets = {}
    for split, part in NOISE_PARTS.items():
        noise = None
        if sounds.wham_folder is not None and split in sounds.noisy_splits:
            try:
                noise = NoiseMixer(
                    sounds.wham_folder,
                    part,
                    preprocess.sample_rate,
                    sounds.snr_db,
                    seed,
                )
            except LMACError as error:
                raise LMACError(f"wham_folder: {error}") from error
        train = split == "train"
        manifest = Path(manifest_folder) / f"{split}.jsonl"
        datasets[split] = make_dataset(
            manifest,
            preprocess,
            sounds.label_encoder,
            Changes(
                noise,
                shift_seed=seed if train else None,
                epoch=_Epoch(epoch_counter) if train else None,
            ),
            events=events and not train,
        )
        _warn_of_lengths(manifest, datasets[split].n_samples)
    return datasets


class _Epoch(NamedTuple):
    """The current epoch; unlike a lambda, it can be sent to any worker."""

    counter: object

    def __call__(self):
        """Its number."""
        return self.counter.current


def _warn_of_lengths(manifest, lengths):
    """Warn if most batches of equal length will hold only one clip."""
    if len(set(lengths)) > max(1, len(lengths) / 2):
        logger.warning(
            "%s: %d clips have %d different lengths, so most batches "
            "hold one clip; signal_length_s cuts and pads them to one length",
            manifest,
            len(lengths),
            len(set(lengths)),
        )


def frontend(hparams):
    """The settings that determine a classifier's input.

    Arguments
    ---------
    hparams : Hparams
        Hyperparameters of any recipe.

    Returns
    -------
    dict
        Name to number.
    """
    return {key: hparams[key] for key in FRONTEND}


@contextmanager
def open_run(hparams, neutral=()):
    """Lock a run's folder and check that it belongs to this run.

    No file is written before that. If the run is refused before it takes the
    folder, a new folder is removed again.

    Arguments
    ---------
    hparams : lmac_sb.training.hparams.Hparams
        The run's settings.
    neutral : list of str
        See `Claim`.

    Returns
    -------
    context manager
        Gives the `Claim`, whose settings have been checked.

    Raises
    ------
    LMACError
        If another process uses the folder, or it belongs to another run; if
        sizes of the networks do not fit, the modules cannot be trained as is
        asked, or there is nothing to test.
    """
    if (hparams.get("dataloader_options") or {}).get("drop_last"):
        raise LMACError(
            "dataloader_options: drop_last is True, expected False: each clip "
            "counts"
        )
    # Of weights that there are, loading tells more; see the scripts.
    if not Path(hparams.get("classifier_folder") or "-").is_dir():
        check_sizes(hparams)
    if if_main_process():
        # Show warnings from now on, though there is no log file yet.
        nowhere = {"handlers": {"file_handler": {"filename": os.devnull}}}
        sb.utils.logger.setup_logging(LOG_CONFIG, nowhere)
    _check_modules(hparams)
    claim = Claim(hparams, neutral)
    made = _not_there(claim.folder)
    try:
        with ends_in_order(), lock_folder(claim.folder):
            run_on_main(claim.check)
            run_on_main(_check_tested, args=[hparams, claim.save_folder])
            run_on_main(_let_replace, args=[claim.folder])
            if claim.save_folder.is_dir():  # maybe another user's
                run_on_main(make_folder, args=[claim.save_folder])
            yield claim
    except BaseException:
        if if_main_process() and not claim.taken:
            _take_back(made)
        raise


def _check_modules(hparams):
    """Refuse modules that SpeechBrain cannot wrap as the run options ask."""
    run_opts, modules = hparams.run_opts, hparams.get("modules")
    if not (run_opts and modules) or run_opts["test_only"]:
        return
    keys = run_opts["compile_module_keys"]
    for name in keys or ():
        if name not in modules:
            raise LMACError(
                f"compile_module_keys: found '{name}', expected some of "
                f"{', '.join(modules)}"
            )
    compiled = modules if keys is None else keys
    if run_opts["compile"] and "explainer" in compiled and on_cpu(run_opts):
        raise LMACError(
            "compile: on a CPU, PyTorch cannot compile the backward pass of "
            "an explainer; leave --compile out"
        )
    if not ({"RANK", "LOCAL_RANK"} <= os.environ.keys() and on_cpu(run_opts)):
        return
    for name, module in modules.items():
        trained = any(x.requires_grad for x in module.parameters())
        if trained and any(isinstance(x, _BatchNorm) for x in module.modules()):
            raise LMACError(
                f"{name}: on CPUs, several processes cannot train batch "
                "normalisation; run it in one process, without torchrun"
            )


def _check_tested(hparams, save_folder):
    """Refuse a test of a run that has not been trained."""
    if not (hparams.run_opts and hparams.run_opts["test_only"]):
        return
    key = hparams.get("select_key")  # of scripts that train
    if key and not best_checkpoint(save_folder, key, hparams["select_largest"]):
        raise LMACError(
            f"{save_folder}: no checkpoint with '{key}' to test; train first"
        )


def _not_there(folder):
    """A folder and those above it that do not exist, the lowest first."""
    return [x for x in (folder, *folder.parents) if not x.exists()]


def _take_back(made):
    """Remove what a run made before it was refused."""
    for folder in made[:1]:
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # somebody else uses it by now
        for folder in made[1:]:
            folder.rmdir()


def _let_replace(folder):
    """Let a run write again what SpeechBrain opens where it is.

    A copy of a script has the mode of the script, which may lie in a package
    that nobody can write to. Those of another user become this one's, since
    SpeechBrain gives them a mode.
    """
    scripts = {Path(sys.argv[0]).name}
    scripts.update(path.name for path in recipe_folder().glob("*.py"))
    for name in (*_WRITTEN, *sorted(scripts)):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            continue
        mode = path.stat().st_mode
        try:
            path.chmod(mode | stat.S_IWUSR)
        except PermissionError:
            _make_own(path, mode)


def _make_own(path, mode):
    """Put a copy in the place of another user's file."""
    try:
        content = path.read_bytes()
        write_in_one_step(path, lambda file: file.write(content), binary=True)
        path.chmod(mode | stat.S_IWUSR)
    except PermissionError as error:
        raise LMACError(
            f"output_folder: {path} is another user's and cannot be replaced "
            f"({error.strerror}); choose another --output_folder"
        ) from error


def check_sizes(hparams):
    """Refuse networks whose sizes do not fit, by a second of noise.

    Arguments
    ---------
    hparams : Hparams
        Of any recipe; of one that trains no network, all is well.

    Raises
    ------
    LMACError
        If the encoder does not fit the last layer (`emb_dim`), or the decoder
        what it reads (`latent_channels`); names what was found.

    Example
    -------
    >>> from lmac_sb.models.encoders import ConvEmbedding
    >>> from lmac_sb.models.features import SpectralFeatures
    >>> check_sizes({
    ...     "features": SpectralFeatures(n_mels=40),
    ...     "embedding_model": ConvEmbedding(n_mels=40, channels=[4, 8]),
    ...     "classifier": torch.nn.Linear(16, 3),
    ...     "emb_dim": 16,
    ... })
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: emb_dim: 16, but the embedding has 8 values
    """
    parts = ("features", "embedding_model", "classifier")
    if any(key not in hparams for key in parts):
        return
    features, encoder, head = (hparams[key] for key in parts)
    explainer = hparams.get("explainer")
    frozen = getattr(explainer, "classifier", None)
    frames = getattr(frozen, "min_frames", hparams.get("min_frames", 1))
    n_samples = max(features.sample_rate, features.hop_samples * (frames + 1))
    # Of its own generator, so that it changes no draw of the run.
    noise = torch.Generator().manual_seed(0)
    wavs = torch.randn(1, n_samples, generator=noise) / 10
    heads, done = [], []
    hooks = [
        head.register_forward_pre_hook(lambda _, x: heads.append(x[0].shape)),
        head.register_forward_hook(lambda *_: done.append(True)),
    ]
    try:
        with _at_rest(encoder, head, *([explainer] if explainer else [])):
            if explainer is None:
                mel = features.mel(features.magnitude(features.stft(wavs)))
                head(embed(encoder, mel))
                return
            analysis = explainer.analyze(wavs)
            _check_latents(hparams, [x.shape[1] for x in analysis.latents])
            explainer.mask(analysis)
    except RuntimeError as error:
        what, why = "decoder", first_line(error)
        if not heads:
            what = "embedding_model"
        elif not done:
            what = "emb_dim"
            why = (
                f"{hparams.get('emb_dim')}, but the embedding has "
                f"{heads[0][-1]} values"
            )
        raise LMACError(f"{what}: {why}") from error
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _at_rest(*modules):
    """Networks in evaluation mode, without gradients."""
    parts = {part: part.training for x in modules for part in x.modules()}
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, training in parts.items():
            part.training = training


def _check_latents(hparams, found):
    """Refuse a decoder that is for latents of other sizes."""
    given = hparams.get("latent_channels")
    if given is not None and list(given) != found:
        what = "layers"
        if getattr(hparams["explainer"].classifier, "evidence", False):
            what += " and evidence"
        raise LMACError(
            f"latent_channels: found {list(given)}, but the {what} have {found}"
        )


def check_frontend(found, hparams, source):
    """Refuse a front end that differs from the classifier's.

    Where the classifier does not tell its own, a warning says so.

    Arguments
    ---------
    found : dict
        `frontend` of the classifier's training, or a part of it.
    hparams : Hparams
        The current settings.
    source : str or Path
        The classifier's file, for the message.

    Raises
    ------
    LMACError
        If a setting differs; the message names it and both values. Or if
        `found` holds no settings.

    Example
    -------
    >>> check_frontend({"n_mels": 80}, {"n_mels": 64}, "model/config.json")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model/config.json: ... n_mels 80, ... n_mels 64
    """
    if not isinstance(found, dict):
        raise LMACError(
            f"{source}: frontend in config.json is {shown(found)}, expected "
            "settings by name, as train_classifier.py writes them"
        )
    for key in FRONTEND:
        if key in found and hparams[key] != found[key]:
            raise LMACError(
                f"{source}: the classifier was trained with {key} "
                f"{shown(found[key])}, this experiment has {key} {hparams[key]}"
            )
    untold = [key for key in FRONTEND if key not in found]
    if untold:
        logger.warning(
            "%s: no config.json tells %s of the classifier's training, so that "
            "nobody can check whether this experiment has the same",
            source,
            ", ".join(untold),
        )


def check_multilabel(config, multilabel, source):
    """Refuse a multi-label classifier for single labels, or the reverse.

    Arguments
    ---------
    config : dict
        Content of the classifier's ``config.json``.
    multilabel : bool
        Whether the classifier must decide each class on its own.
    source : str or Path
        The classifier's folder, for the message.

    Raises
    ------
    LMACError
        If the classifier is of the other kind; the message names both kinds.

    Example
    -------
    >>> check_multilabel({"multilabel": True}, False, "model")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: model: the classifier decides each class on its ...
    """
    kinds = {False: "one class among all", True: "each class on its own"}
    found = bool(config.get("multilabel"))
    if found != multilabel:
        raise LMACError(
            f"{source}: the classifier decides {kinds[found]}, expected one "
            f"that decides {kinds[multilabel]}"
        )
