"""What a run is: two runs of one identity have the same results.

The identity is the run's resolved yaml without the keys that cannot change a
result, the checksums of what it starts from (data, weights, recordings), and
the version of this package. It is kept in the run's folder as
``experiment.json``, and another run is refused there before a file changes.
"""

import hashlib
from pathlib import Path

import lmac_sb
from lmac_sb.data.manifest import read_entries
from lmac_sb.models.weights import weights_sha256
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import read_json, write_json

__all__ = [
    "EXPERIMENT",
    "NEUTRAL",
    "Claim",
    "data_identity",
    "read_claim",
    "recordings",
    "weights_identity",
]

EXPERIMENT = "experiment.json"
# Keys that cannot change a result: where things lie (what lies there is
# compared by its checksum), what is written beside the results, and speed.
NEUTRAL = (
    "experiment_name",
    "output_folder",
    "save_folder",
    "manifest_folder",
    "model_folder",
    "train_log",
    "train_logger",
    "checkpointer",
    "epoch_counter",  # holds number_of_epochs alone
    "tensorboard_folder",
    "use_tensorboard",
    "save_clips",
    "interpret_period",
    "data_folder",
    "scenes_folder",
    "download",
    "skip_bad_clips",
    "audio_cache",
    "classifier_folder",
    "classifier_recipe",
    "pretrained_interpreter",
    "interpreter",
    "interpreters",
    "trusted",
    "judge_folder",
    "wham_folder",
    "speech_folder",
    "num_workers",
    "pin_memory",
    "prefetch_factor",
    "persistent_workers",
)
# Run options of SpeechBrain that can.
OPTIONS = (
    "precision",
    "eval_precision",
    "max_grad_norm",
    "grad_accumulation_factor",
    "optimizer_step_limit",
    "remove_vector_weight_decay",
    "auto_mix_prec",
    "bfloat16_mix_prec",
    "debug",
    "debug_batches",
    "debug_epochs",
)
# A folder without any of these holds nothing that a run could go on from.
KEPT = ("save/CKPT*", "save/*.ckpt", "rows/*", "*.csv", "key.json")
EPOCHS = "number_of_epochs"
TOLD = 4  # differences that a message names


class Claim:
    """A run's right to its folder.

    Arguments
    ---------
    hparams : lmac_sb.training.hparams.Hparams
        Its settings, see `load_hparams`; `output_folder` is the folder.
    neutral : list of str
        Further keys that cannot change a result of this script.

    Example
    -------
    >>> from lmac_sb.training.hparams import Hparams
    >>> folder = getfixture("tmp_path")
    >>> def claim(lr):
    ...     settings = {"output_folder": folder, "lr": lr}
    ...     return Claim(Hparams(settings, "x.yaml", resolved=settings))
    >>> claim(0.1).take()
    >>> (folder / "save" / "CKPT+a").mkdir(parents=True)
    >>> claim(0.1).check()
    >>> claim(0.2).check()
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: output_folder: ... has lr 0.1, now it is 0.2; ...
    """

    def __init__(self, hparams, neutral=()):
        self.folder = Path(hparams["output_folder"])
        self.save_folder = Path(
            hparams.get("save_folder") or self.folder / "save"
        )
        self.identity = {
            "lmac_sb": lmac_sb.__version__,
            **_settings(hparams, neutral),
        }

    @property
    def path(self):
        """Where the identity is kept."""
        return self.folder / EXPERIMENT

    @property
    def compared(self):
        """The identity without what is there for messages alone."""
        return {
            key: value["sha256"] if _is_part(value) else value
            for key, value in self.identity.items()
        }

    def check(self, **parts):
        """Refuse a folder whose run is another one.

        Arguments
        ---------
        **parts
            Further parts of the identity, by name: a dict with ``sha256``,
            and what to say of it in a message.

        Raises
        ------
        LMACError
            Names the key, the old and the new value.
        """
        self.identity.update(parts)
        if not self._is_taken():
            return
        found = read_json(self.path)
        differences = {
            key: _difference(key, found.get(key), new)
            for key, new in self.identity.items()
            if _differs(key, found.get(key), new)
        }
        if differences:
            # What is made of plain keys differs with them.
            plain = [
                text
                for key, text in differences.items()
                if not isinstance(self.identity[key], dict)
            ]
            told = ", ".join(plain[:TOLD]) or next(iter(differences.values()))
            if len(plain) > TOLD:
                told += f", and {len(plain) - TOLD} more keys differ"
            raise LMACError(
                f"output_folder: the run in {self.folder} has {told}; choose "
                "another --experiment_name or --output_folder, or delete it"
            )

    def take(self, **parts):
        """Check, then write the identity: the folder belongs to this run.

        Arguments
        ---------
        **parts
            See `check`.

        Raises
        ------
        LMACError
            See `check`.
        """
        self.check(**parts)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.identity)

    def _is_taken(self):
        """Whether the folder holds results of a run, or what leads to them."""
        checkpoints = [*self.save_folder.glob("CKPT*")]
        kept = [path for name in KEPT for path in self.folder.glob(name)]
        if self.path.is_file():
            return bool(kept or checkpoints)
        if checkpoints:
            raise LMACError(
                f"save_folder: {self.save_folder} holds checkpoints, but not "
                f"of the run in {self.folder}; choose another --save_folder, "
                "or delete them"
            )
        return False


def _differs(key, old, new):
    """Whether a part of the identity is another one."""
    if key == EPOCHS and isinstance(old, int):
        return new < old  # more epochs go on
    if _is_part(new):
        return not _is_part(old) or old["sha256"] != new["sha256"]
    return old != new


def _is_part(value):
    """Whether a value of the identity is a checksum and what it is of."""
    return isinstance(value, dict) and "sha256" in value


def _settings(hparams, neutral):
    """The settings that a result depends on, in the yaml's order."""
    settings = _without({*NEUTRAL, *neutral}, hparams.resolved)
    # More epochs go on, see `_differs`.
    epochs = str(settings.get(EPOCHS))
    for key in [k for k, v in settings.items() if isinstance(v, dict)]:
        if str(settings[key].get(EPOCHS)) == epochs:
            settings[key].pop(EPOCHS, None)
    for key in OPTIONS:
        if key in hparams.run_opts:
            settings[f"--{key}"] = hparams.run_opts[key]
    return settings


def _without(keys, settings):
    """Settings without some keys, at any depth."""
    return {
        key: _without(keys, value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in keys
    }


def _difference(key, old, new):
    """What is another one, in words."""
    if _is_part(new):
        old = old["what"] if _is_part(old) else "unknown"
        if old == new["what"]:
            return f"another {key}: {old} has changed since"
        return f"another {key} ({old}), now it is {new['what']}"
    if isinstance(new, dict) and isinstance(old, dict):
        for name in dict.fromkeys([*new, *old]):
            if new.get(name) != old.get(name):
                plain = name if not name.startswith("!") else ""
                return _difference(
                    f"{key}.{plain}".strip("."), old.get(name), new.get(name)
                )
    if key == EPOCHS:
        return f"{key} {old}, now it is {new}, and only more can go on"
    return f"{key} {_plain(old)}, now it is {_plain(new)}"


def _plain(value):
    """A value as it is written in yaml."""
    return "null" if value is None else shown(value).strip("'")


def read_claim(hparams):
    """The identity of the run that owns the output folder.

    Arguments
    ---------
    hparams : lmac_sb.training.hparams.Hparams
        The run's settings.

    Returns
    -------
    dict
    """
    return read_json(Path(hparams["output_folder"]) / EXPERIMENT)


def data_identity(splits, source):
    """The clips of all splits, wherever they lie.

    Arguments
    ---------
    splits : dict
        Split to its manifest's path, or to its entries by id.
    source : str or Path
        The data folder, for messages.

    Returns
    -------
    dict
        ``sha256`` and ``what``.
    """
    total, sizes = 0, []
    for split, clips in splits.items():
        is_file = isinstance(clips, (str, Path))
        pairs = read_entries(clips) if is_file else clips.items()
        n_clips = 0
        # A sum over the clips: their order does not matter, and none is kept.
        for clip_id, entry in pairs:
            size = entry["num_samples"], entry["sample_rate"]
            line = f"{split} {clip_id} {entry['class_string']} {size}"
            digest = hashlib.sha256(line.encode()).digest()
            total += int.from_bytes(digest, "big")
            n_clips += 1
        sizes.append(f"{n_clips} {split}")
    return {
        "sha256": f"{total % (1 << 256):064x}",
        "what": f"{', '.join(sizes)} clips of {source}",
    }


def recordings(folder, suffixes=(".wav", ".flac", ".ogg")):
    """The recordings below a folder, by name and size.

    Arguments
    ---------
    folder : str or Path
        Such as `wham_folder`; None for none.
    suffixes : tuple of str
        Endings of their names.

    Returns
    -------
    dict
        ``sha256``, which is None without a folder, and ``what``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.wav").write_bytes(b"abc")
    >>> recordings(folder)["what"].startswith("1 recordings of ")
    True
    """
    if folder is None:
        return {"sha256": None, "what": "none"}
    files = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size)
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in suffixes
    )
    digest = hashlib.sha256(repr(files).encode()).hexdigest()
    return {"sha256": digest, "what": f"{len(files)} recordings of {folder}"}


def weights_identity(source, *modules):
    """Weights of modules, wherever they come from.

    Arguments
    ---------
    source : str or Path
        Where they come from, for messages.
    *modules : torch.nn.Module
        In a fixed order.

    Returns
    -------
    dict
        ``sha256`` and ``what``.
    """
    return {"sha256": weights_sha256(*modules), "what": str(source)}
