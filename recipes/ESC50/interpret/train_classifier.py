#!/usr/bin/env python3
"""Train the sound classifier that L-MAC explains.

On the embedded scenes, and on ESC-50:

    python train_classifier.py hparams/classifier_conv.yaml
    python train_classifier.py hparams/classifier_conv.yaml \
        --data_folder /path/to/ESC-50 --n_classes 50

The best weights, the class names and the front end's settings end up in
`model_folder`, which `train_lmac.py` takes as `classifier_folder`.
"""

import sys
from pathlib import Path

import speechbrain as sb
from classifier_brain import ClassifierBrain
from speechbrain.utils.distributed import if_main_process, run_on_main
from training_steps import prepare_classes, train_classifier

from lmac_sb.data.scenes import make_scenes
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
    """Train, test, and write the model folder."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(make_scenes, args=[data_folder])
        datasets = prepare_classes(
            hparams,
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
        claim_training(hparams, n_classes=hparams["n_classes"])
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = ClassifierBrain(
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
            mixup_alpha=hparams["mixup_alpha"],
            mask_share=hparams["mask_share"],
            min_frames=hparams["min_frames"],
        )
        if hparams["use_tensorboard"] and if_main_process():
            brain.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                hparams["tensorboard_folder"]
            )
        train_classifier(
            brain,
            hparams,
            datasets,
            loader_options=hparams["dataloader_options"],
            model_folder=hparams["model_folder"],
        )


if __name__ == "__main__":
    main()
