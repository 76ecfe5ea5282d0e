"""The identity of a run: two runs with the same identity have equal results.

The identity consists of the run's resolved yaml, without the keys that cannot
change a result, the checksums of its inputs (data, weights, recordings), and
the version of this package. It is stored in the run's folder as
``experiment.json``. A run with another identity is refused there before any
file changes.
"""

import hashlib
from pathlib import Path

import lmac_sb
from lmac_sb.data.manifest import read_entries
from lmac_sb.models.weights import weights_sha256
from lmac_sb.utils.checksums import file_sha256
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import read_json, write_json

__all__ = [
    "EXPERIMENT",
    "NEUTRAL",
    "Claim",
    "changes",
    "data_identity",
    "list_recordings",
    "read_claim",
    "recordings_identity",
    "weights_identity",
]

EXPERIMENT = "experiment.json"
# Keys that cannot change a result: places (whose content is compared by
# checksum), what is written in addition to the results, and speed.
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
# Run options of SpeechBrain that can change a result.
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
# A folder without any of these holds nothing that a run could resume from.
KEPT = ("save/CKPT*", "save/*.ckpt", "rows/*", "*.csv", "key.json")
EPOCHS = "number_of_epochs"
# Of an entry of a manifest: what it is, not where.
CONTENT = (
    "class_string",
    "num_samples",
    "sample_rate",
    "sha256",
    "stem_sha256",
)
REMEDY = "choose another --experiment_name or --output_folder, or delete it"
MOST_NAMED = 4  # differences in a message


class Claim:
    """A run's right to its folder.

    Arguments
    ---------
    hparams : lmac_sb.training.hparams.Hparams
        The run's settings, see `load_hparams`; `output_folder` is its folder.
    neutral : list of str
        More keys that cannot change a result of this script.

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
        self.taken = False
        self.identity = {
            "lmac_sb": lmac_sb.__version__,
            **_settings(hparams, neutral),
        }

    @property
    def path(self):
        """Path of the stored identity."""
        return self.folder / EXPERIMENT

    @property
    def compared(self):
        """The identity without the parts that only messages use."""
        return {
            key: value["sha256"] if _is_part(value) else value
            for key, value in self.identity.items()
        }

    def check(self, **parts):
        """Refuse a folder that belongs to another run.

        Arguments
        ---------
        **parts
            More parts of the identity by name, each a dict with ``sha256``
            and ``what``, its description in messages.

        Raises
        ------
        LMACError
            If it does; the message names the keys with old and new values.
        """
        self.identity.update(parts)
        if not self._is_taken():
            return
        try:
            found = read_json(self.path)
        except LMACError as error:
            raise LMACError(f"{error}; {REMEDY}") from error
        if not isinstance(found, dict):
            raise LMACError(
                f"{self.path}: holds no keys, expected a run's; {REMEDY}"
            )
        differences = {
            key: _difference(key, found.get(key), new)
            for key, new in self.identity.items()
            if _differs(key, found.get(key), new)
        }
        if differences:
            # Objects differ if the plain keys that they use differ.
            plain = [
                text
                for key, text in differences.items()
                if not isinstance(self.identity[key], dict)
            ]
            text = "; ".join(plain[:MOST_NAMED])
            text = text or next(iter(differences.values()))
            if len(plain) > MOST_NAMED:
                text += f"; and {len(plain) - MOST_NAMED} more keys differ"
            raise LMACError(
                f"output_folder: the run in {self.folder} has {text}; {REMEDY}"
            )

    def take(self, **parts):
        """Check, then write the identity, so the folder belongs to this run.

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
        self.taken = True

    def _is_taken(self):
        """Whether the folder holds results or checkpoints of a run."""
        checkpoints = [*self.save_folder.glob("CKPT*")]
        kept = [path for name in KEPT for path in self.folder.glob(name)]
        if self.path.is_file():
            return bool(kept or checkpoints)
        if checkpoints:
            raise LMACError(
                f"save_folder: {self.save_folder} holds checkpoints of a run "
                f"that is not in {self.folder}; choose another --save_folder, "
                "or delete them"
            )
        return False


def _differs(key, old, new):
    """Whether a part of the identity has changed."""
    if key == EPOCHS and isinstance(old, int):
        return new < old  # more epochs continue the same run
    if _is_part(new):
        return not _is_part(old) or old["sha256"] != new["sha256"]
    return old != new


def _is_part(value):
    """Whether a value of the identity is a checksum with a description."""
    return isinstance(value, dict) and "sha256" in value


def _settings(hparams, neutral):
    """The settings that results depend on, in the yaml's order."""
    settings = _without({*NEUTRAL, *neutral}, hparams.resolved)
    # The top-level key alone counts, see `_differs`.
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
    """Description of what has changed."""
    if _is_part(new):
        old = old.get("what") if _is_part(old) else "unknown"
        if old == new["what"]:
            return f"another {key}: the content of {old} has changed since"
        return f"another {key} ({old}), now it is {new['what']}"
    if isinstance(new, dict) and isinstance(old, dict):
        for name in dict.fromkeys([*new, *old]):
            if new.get(name) != old.get(name):
                plain = name if not name.startswith("!") else ""
                return _difference(
                    f"{key}.{plain}".strip("."), old.get(name), new.get(name)
                )
    if key == EPOCHS:
        return (
            f"{key} {old}, now it is {new} (a run can be continued only with "
            "more epochs)"
        )
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
        Content of ``experiment.json``.
    """
    return read_json(Path(hparams["output_folder"]) / EXPERIMENT)


def data_identity(splits, source):
    """Identity of the clips of all splits, wherever they are stored.

    Arguments
    ---------
    splits : dict
        Split to the path of its manifest, or to its entries by id.
    source : str or Path
        The data folder, for messages.

    Returns
    -------
    dict
        ``sha256``, and ``what``, a description.
    """
    total, sizes = 0, []
    for split, clips in splits.items():
        is_file = isinstance(clips, (str, Path))
        pairs = read_entries(clips) if is_file else clips.items()
        n_clips = 0
        # A sum over the clips does not depend on their order.
        for clip_id, entry in pairs:
            line = f"{split} {ascii(clip_id)} {_content(entry)}"
            digest = hashlib.sha256(line.encode())
            total += int.from_bytes(digest.digest(), "big")
            n_clips += 1
        sizes.append(f"{n_clips} {split}")
    return {
        "sha256": f"{total % (1 << 256):064x}",
        "what": f"{', '.join(sizes)} clips of {source}",
    }


def _content(entry):
    """What a clip or a recording is, wherever it is stored."""
    return {key: entry[key] for key in CONTENT if key in entry}


def changes(manifest, entries):
    """What was listed in a manifest and is another one now.

    Arguments
    ---------
    manifest : str or Path
        Written by an earlier run; may be missing.
    entries : dict
        What would be written now, by id.

    Returns
    -------
    list of str
        Ids of what is new, gone, or of other content.

    Example
    -------
    >>> from lmac_sb.data.manifest import to_lines
    >>> old = getfixture("tmp_path") / "old.jsonl"
    >>> _ = old.write_text(to_lines({"a": {"sha256": "0"}}))
    >>> changes(old, {"a": {"sha256": "1"}, "b": {"sha256": "0"}})
    ['a', 'b']
    """
    if not Path(manifest).is_file():
        return []
    known = dict(read_entries(manifest))
    changed = [
        name
        for name, entry in entries.items()
        # A manifest of an earlier release has no checksums.
        if name not in known
        or any(
            known[name].get(key, value) != value
            for key, value in _content(entry).items()
        )
    ]
    return changed + [name for name in known if name not in entries]


def list_recordings(folder, manifest, suffixes=(".wav", ".flac", ".ogg")):
    """The recordings in a folder, with checksums.

    Arguments
    ---------
    folder : str, Path or None
        Such as `wham_folder`; None if there is none.
    manifest : str or Path
        Of an earlier call, may be missing: a file of the same size and times
        as in it is not read again.
    suffixes : tuple of str
        Suffixes of the files that count.

    Returns
    -------
    dict
        Entries of a manifest: name to size and times, and checksum.
    """
    if folder is None:
        return {}
    known = dict(read_entries(manifest)) if Path(manifest).is_file() else {}
    entries = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        name, info = path.relative_to(folder).as_posix(), path.stat()
        state = [info.st_size, info.st_mtime_ns, info.st_ctime_ns]
        entry = known.get(name, {})
        if entry.get("state") != state:
            entry = {"state": state, "sha256": file_sha256(path)}
        entries[name] = entry
    return entries


def recordings_identity(entries, folder):
    """Identity of the recordings in a folder, by name and content.

    Arguments
    ---------
    entries : dict
        From `list_recordings`.
    folder : str, Path or None
        The folder, for messages; None if there is none.

    Returns
    -------
    dict
        ``sha256``, which is None without a folder, and ``what``, a
        description.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "a.wav").write_bytes(b"abc")
    >>> found = list_recordings(folder, folder / "known.jsonl")
    >>> recordings_identity(found, folder)["what"].startswith("1 recordings of")
    True
    """
    if folder is None:
        return {"sha256": None, "what": "none"}
    sums = repr([(name, entry["sha256"]) for name, entry in entries.items()])
    digest = hashlib.sha256(sums.encode()).hexdigest()
    return {"sha256": digest, "what": f"{len(entries)} recordings of {folder}"}


def weights_identity(source, *modules):
    """Identity of the weights of modules, wherever they come from.

    Arguments
    ---------
    source : str or Path
        Where they come from, for messages.
    *modules : torch.nn.Module
        The checksum depends on their order.

    Returns
    -------
    dict
        ``sha256``, and ``what``, a description.
    """
    return {"sha256": weights_sha256(*modules), "what": str(source)}
