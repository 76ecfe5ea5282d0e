"""Make or find the clips of a run, and write their manifests."""

from pathlib import Path

from esc50_prepare import FOLDS, prepare_esc50

from lmac_sb.data.scenes import make_scenes
from lmac_sb.training.identity import data_identity, recordings


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
    claim.check(
        wham_folder=recordings(hparams.get("wham_folder")),
        speech_folder=recordings(hparams.get("speech_folder")),
    )

    def accept(splits):
        """Compare the data before the manifests are written."""
        claim.check(data=data_identity(splits, data_folder))

    folds = {
        split: options.pop(f"{split}_fold_nums", default)
        for split, default in FOLDS.items()
    }
    manifests = prepare_esc50(
        data_folder, folds=folds, accept=accept, **options
    )
    if "data" not in claim.identity:  # the earlier manifests are still valid
        accept(manifests)
    return Path(data_folder)
