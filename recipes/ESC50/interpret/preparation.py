"""Make or find the clips of a run, and write their manifests."""

from contextlib import contextmanager
from pathlib import Path

from esc50_prepare import FOLDS, Needs, prepare_esc50

from lmac_sb.data.columns import listed
from lmac_sb.data.dataset import MultilabelEncoder
from lmac_sb.data.manifest import to_lines
from lmac_sb.data.scenes import CLASSES, make_scenes
from lmac_sb.training.identity import (
    MOST_NAMED,
    changes,
    data_identity,
    list_recordings,
    recordings_identity,
)
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import check_readable, write_in_one_step

SCENES = ("clips_per_class", "n_events", "shortcuts")  # what scenes hold
SCENES_FOLDER = "results/scenes"  # where no key says otherwise
SCENE_FOLDS = 5  # as ESC-50 has


def check_scenes(clips, label_encoder, source):
    """Refuse a model of other data, before scenes are made for it.

    `clips` are options of `prepare_clips`.
    """
    known = set(label_encoder.lab2ind)
    if clips["data_folder"] is None and not {*CLASSES} <= known:
        raise LMACError(
            "data_folder: found none, so scenes would be made, but "
            f"{source} knows {listed(sorted(known))}; expected the data that "
            "it was trained on: --data_folder"
        )


def prepare_clips(claim, hparams, data_folder, scenes_folder=None, **options):
    """Write the manifests, unless the folder belongs to a run on other data.

    Without a data_folder, scenes are made, with what `options` say of them,
    and `extra_scene_folds` more to train on. One more option is `several`,
    whether a clip may have several classes, by default what the label encoder
    is for. The others are those of `prepare_esc50`, but with a key of the yaml
    files, such as `train_fold_nums`, for each split. Returns the data folder.
    """
    several = options.pop(
        "several",
        isinstance(hparams.get("label_encoder"), MultilabelEncoder),
    )
    scenes = {key: options.pop(key) for key in SCENES if key in options}
    extra = options.pop("extra_scene_folds", 0)
    if data_folder is not None:
        check_readable(data_folder, "data_folder")
    else:
        data_folder = scenes_folder or SCENES_FOLDER
        check_readable(data_folder, "scenes_folder")
        make_scenes(data_folder, n_folds=SCENE_FOLDS + extra, **scenes)
        if extra:
            nums = options["train_fold_nums"]
            nums = [nums] if isinstance(nums, int) else [*nums]
            nums += range(SCENE_FOLDS + 1, SCENE_FOLDS + 1 + extra)
            options["train_fold_nums"] = nums
    folder = Path(options["manifest_folder"])
    manifests = {split: folder / f"{split}.jsonl" for split in FOLDS}
    mixed_in = {
        folder / f"{key}.jsonl": _check_recordings(
            claim, key, hparams.get(key), folder / f"{key}.jsonl"
        )
        for key in ("wham_folder", "speech_folder")
    }

    def accept(splits):
        """Compare the data before the manifests are written."""
        with _naming_changes(manifests, splits):
            claim.check(data=data_identity(splits, data_folder))

    folds = {
        split: options.pop(f"{split}_fold_nums", default)
        for split, default in FOLDS.items()
    }
    needs = Needs(
        several,
        hparams.get("sample_rate"),
        accept,
    )
    prepare_esc50(data_folder, folds=folds, needs=needs, **options)
    if "data" not in claim.identity:  # the earlier manifests are still valid
        claim.check(data=data_identity(manifests, data_folder))
    for manifest, entries in mixed_in.items():
        if entries:
            _list_for_next_time(manifest, entries)
    return Path(data_folder)


def _check_recordings(claim, key, source, manifest):
    """The recordings that are mixed in, if they are those of the run."""
    try:
        entries = list_recordings(source, manifest)
    except OSError as error:
        raise LMACError(f"{key}: cannot be read ({error})") from error
    with _naming_changes({key: manifest}, {key: entries}):
        claim.check(**{key: recordings_identity(entries, source)})
    return entries


def _list_for_next_time(manifest, entries):
    """Keep checksums, so that only files that moved are read again."""
    text = to_lines(entries)
    try:
        write_in_one_step(manifest, lambda file: file.write(text))
    except OSError as error:
        raise LMACError(f"{manifest}: cannot be written ({error})") from error


@contextmanager
def _naming_changes(manifests, contents):
    """Add to an error what is another one than earlier manifests say."""
    try:
        yield
    except LMACError as error:
        changed = [
            name
            for key, manifest in manifests.items()
            for name in changes(manifest, contents[key])
        ]
        named = ", ".join(map(shown, changed[:MOST_NAMED]))
        if len(changed) > MOST_NAMED:
            named += f" and {len(changed) - MOST_NAMED} more"
        text = f"{error}; changed: {named}" if changed else str(error)
        raise LMACError(text) from error
