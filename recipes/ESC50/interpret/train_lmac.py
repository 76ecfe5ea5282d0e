#!/usr/bin/env python3
"""Train L-MAC to explain an audio classifier, and fine-tune it.

On the embedded scenes (a classifier is trained first if there is none), and
on ESC-50:

    python train_lmac.py hparams/lmac.yaml
    python train_lmac.py hparams/lmac.yaml --data_folder /path/to/ESC-50 \
        --classifier_folder /path/to/model --n_classes 50

Guided fine-tuning of a finished run:

    python train_lmac.py hparams/lmac_ft.yaml \
        --pretrained_interpreter results/lmac/1234
"""

import sys
from pathlib import Path

import speechbrain as sb
from lmac_brain import LMACBrain
from speechbrain.utils.distributed import if_main_process, run_on_main
from training_steps import find_interpreter, prepare_explained, train_explainer

from lmac_sb.data.scenes import make_scenes
from lmac_sb.models.psi import as_mask_decoder
from lmac_sb.models.weights import load_strict, weights_sha256
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    claim_training,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.lock import lock_folder


@exit_on_user_error
def main(argv=None):
    """Train or fine-tune, test, and write results and sounds."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    if hparams["finetuning"]:
        # First of all, so that a mistake touches no folder.
        interpreter = find_interpreter(
            hparams, hparams["pretrained_interpreter"]
        )
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(make_scenes, args=[data_folder])
        datasets = prepare_explained(
            hparams,
            classifier_folder=hparams["classifier_folder"],
            classifier_recipe=hparams["classifier_recipe"],
            label_encoder=hparams["label_encoder"],
            clips={
                "data_folder": data_folder,
                "manifest_folder": hparams["manifest_folder"],
                "train_fold_nums": hparams["train_fold_nums"],
                "valid_fold_nums": hparams["valid_fold_nums"],
                "test_fold_nums": hparams["test_fold_nums"],
                "download": hparams["download"],
                "skip_bad_clips": hparams["skip_bad_clips"],
            },
            sounds={
                "preprocess": hparams["preprocess"],
                "wham_folder": hparams["wham_folder"],
                "snr_db": hparams["snr_db"],
                "noisy_splits": hparams["noisy_splits"],
                "audio_cache": hparams["audio_cache"],
            },
        )

        # Decoder
        hparams["modules"]["decoder"] = as_mask_decoder(hparams["decoder"])
        if hparams["finetuning"]:
            load_strict(hparams["decoder"], interpreter)
        claim_training(
            hparams,
            classifier=weights_sha256(hparams["frozen_classifier"]),
            # Random before stage 1, and so part of the seed.
            starting_decoder=weights_sha256(hparams["decoder"]),
        )
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = LMACBrain(
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
            interpret_period=hparams["interpret_period"],
            explainer=hparams["explainer"],
        )
        if hparams["use_tensorboard"] and if_main_process():
            brain.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                hparams["tensorboard_folder"]
            )
        train_explainer(
            brain,
            hparams,
            datasets,
            loader_options=hparams["dataloader_options"],
            save_clips=hparams["save_clips"],
        )


if __name__ == "__main__":
    main()
