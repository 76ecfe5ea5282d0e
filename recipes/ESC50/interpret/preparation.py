"""Make or find the clips of a run, and write their manifests."""

from pathlib import Path

from esc50_prepare import FOLDS, Needs, prepare_esc50

from lmac_sb.data.dataset import MultilabelEncoder
from lmac_sb.data.scenes import make_scenes
from lmac_sb.training.identity import changed_clips, data_identity, recordings
from lmac_sb.utils.errors import LMACError


def prepare_clips(
    claim,
    hparams,
    data_folder,
    scenes_folder=None,
    n_events=(1,),
    **options,
):
    """Write the manifests, unless the folder belongs to a run on other data.

    Without a data_folder, scenes with these numbers of events are made.
    `options` are those of `prepare_esc50`, but with a key of the yaml files,
    such as `train_fold_nums`, for each split. Returns the data folder.
    """
    if data_folder is None:
        data_folder = scenes_folder
        make_scenes(data_folder, n_events=n_events)
    sources = ("wham_folder", "speech_folder")
    claim.check(
        **{x: recordings(hparams.get(x), claim.stored(x)) for x in sources}
    )
    manifests = {
        split: Path(options["manifest_folder"]) / f"{split}.jsonl"
        for split in FOLDS
    }

    def accept(splits):
        """Compare the data before the manifests are written."""
        try:
            claim.check(data=data_identity(splits, data_folder))
        except LMACError as error:
            changed = changed_clips(manifests, splits)
            text = f"{error}; changed clips: {changed}"
            raise LMACError(text if changed else str(error)) from error

    folds = {
        split: options.pop(f"{split}_fold_nums", default)
        for split, default in FOLDS.items()
    }
    needs = Needs(
        isinstance(hparams.get("label_encoder"), MultilabelEncoder),
        hparams.get("sample_rate"),
        accept,
    )
    prepare_esc50(data_folder, folds=folds, needs=needs, **options)
    if "data" not in claim.identity:  # the earlier manifests are still valid
        claim.check(data=data_identity(manifests, data_folder))
    return Path(data_folder)
