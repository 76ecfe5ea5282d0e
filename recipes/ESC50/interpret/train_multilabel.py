#!/usr/bin/env python3
"""Train a classifier of clips of several classes, and L-MAC to explain it.

Each class is decided for itself, and explained for itself. On the embedded
scenes of two or three events (the classifier is trained first if there is
none):

    python train_multilabel.py hparams/lmac_multilabel.yaml

The classifier alone:

    python train_multilabel.py hparams/classifier_multilabel.yaml
"""

import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import training_steps
from multilabel_brain import MultilabelBrain, MultilabelClassifierBrain
from speechbrain.utils.distributed import if_main_process, run_on_main

from lmac_sb.data.manifest import labels_of
from lmac_sb.data.scenes import make_scenes
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.psi import as_mask_decoder
from lmac_sb.models.weights import weights_sha256
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    claim_training,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import write_csv, write_in_one_step
from lmac_sb.utils.lock import lock_folder

# Of the table by class; "ones" is the mask that keeps everything.
COLUMNS = (
    "right",
    "event_mass",
    "ones event_mass",
    "other_mass",
    "ones other_mass",
    "event_auc",
    "other_auc",
    "AD",
    "FF",
    "Fid-In",
)


def tabulate(rows, method):
    """Figures by class: does the explanation find its event and no other?

    Arguments
    ---------
    rows : list of dict
        Of each explanation and method.
    method : str
        The one to show.

    Returns
    -------
    dict
        Class, then all classes, to the figures of `COLUMNS`.
    """
    ones = {row["id"]: row for row in rows if row["method"] == "ones"}
    own = [
        {
            **row,
            **{f"ones {key}": x for key, x in ones[row["id"]].items()},
            "right": float(row["decision"] in labels_of(row["label"])),
        }
        for row in rows
        if row["method"] == method
    ]
    own.sort(key=lambda row: row["decision"])
    everything = [{**row, "decision": "all classes"} for row in own]
    return summarize(own + everything, by="decision", columns=COLUMNS)


def write_classes(hparams, brain, n_clips):
    """The table by class, as csv and Markdown."""
    folder = Path(hparams["output_folder"])
    summary = tabulate(brain.test_rows, brain.method)
    explained = {row["id"].rsplit("-", 1)[0] for row in brain.test_rows}
    write_csv(
        folder / "classes.csv",
        [
            {"class": name, "figure": column, **values}
            for name, figures in summary.items()
            for column, values in figures.items()
        ],
    )
    shown = {
        f"{name} ({figures['right']['n']})": figures
        for name, figures in summary.items()
    }
    found = [c for c in COLUMNS if c in summary["all classes"]]
    table = markdown_table(shown, found, by="class (explanations)")
    write_in_one_step(
        folder / "classes.md", lambda file: print(table, file=file)
    )
    print(table)
    print(f"{n_clips - len(explained)} of {n_clips} clips: no class decided")


@exit_on_user_error
def main(argv=None):
    """Train the classifier, or L-MAC if the yaml has a decoder; test it."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    explains = "decoder" in hparams
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(
                make_scenes,
                args=[data_folder],
                kwargs={"n_events": hparams["n_events"]},
            )
        data = {
            "label_encoder": hparams["label_encoder"],
            "clips": {
                "data_folder": data_folder,
                "manifest_folder": hparams["manifest_folder"],
                "train_fold_nums": hparams["train_fold_nums"],
                "valid_fold_nums": hparams["valid_fold_nums"],
                "test_fold_nums": hparams["test_fold_nums"],
                "download": hparams["download"],
                "skip_bad_clips": hparams["skip_bad_clips"],
            },
            "sounds": {
                "preprocess": hparams["preprocess"],
                "wham_folder": hparams["wham_folder"],
                "snr_db": hparams["snr_db"],
                "noisy_splits": hparams["noisy_splits"],
                "audio_cache": hparams["audio_cache"],
            },
        }
        if explains:
            datasets = training_steps.prepare_explained(
                hparams,
                classifier_folder=hparams["classifier_folder"],
                classifier_recipe=hparams["classifier_recipe"],
                classifier_script=Path(__file__).name,
                **data,
            )
            hparams["modules"]["decoder"] = as_mask_decoder(hparams["decoder"])
            identity = {
                "classifier": weights_sha256(hparams["frozen_classifier"]),
                "starting_decoder": weights_sha256(hparams["decoder"]),
            }
            brain_class = partial(
                MultilabelBrain,
                interpret_period=hparams["interpret_period"],
                explainer=hparams["explainer"],
            )
        else:
            datasets = training_steps.prepare_classes(hparams, **data)
            identity = {"n_classes": hparams["n_classes"]}
            brain_class = partial(
                MultilabelClassifierBrain,
                mixup_alpha=hparams["mixup_alpha"],
                mask_share=hparams["mask_share"],
                min_frames=hparams["min_frames"],
            )
        claim_training(hparams, **identity)
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = brain_class(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
            seed=hparams["seed"],
            number_of_epochs=hparams["number_of_epochs"],
            lr_annealing=hparams["lr_annealing"],
            train_logger=hparams["train_logger"],
            select_key=hparams["select_key"],
            select_largest=hparams["select_largest"],
        )
        if hparams["use_tensorboard"] and if_main_process():
            brain.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                hparams["tensorboard_folder"]
            )
        if not explains:
            training_steps.train_classifier(
                brain,
                hparams,
                datasets,
                loader_options=hparams["dataloader_options"],
                model_folder=hparams["model_folder"],
            )
            return
        training_steps.train_explainer(
            brain,
            hparams,
            datasets,
            loader_options=hparams["dataloader_options"],
            save_clips=hparams["save_clips"],
        )
        run_on_main(write_classes, args=[hparams, brain, len(datasets["test"])])


if __name__ == "__main__":
    main()
