#!/usr/bin/env python3
"""Train L2I, the method that L-MAC is compared with, on the same classifier.

On the embedded scenes (a classifier is trained first if there is none), and
on ESC-50:

    python train_l2i.py hparams/l2i.yaml
    python train_l2i.py hparams/l2i.yaml --data_folder /path/to/ESC-50 \
        --classifier_folder /path/to/model --n_classes 50
"""

import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from l2i_brain import L2IBrain
from speechbrain.utils.distributed import if_main_process, run_on_main
from training_steps import prepare_explained, train_explainer

from lmac_sb.data.scenes import make_scenes
from lmac_sb.models.weights import load_strict, weights_sha256
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    claim_training,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import write_in_one_step
from lmac_sb.utils.lock import lock_folder


def write_dictionary(path, dataset, hparams):
    """Learn the dictionary from the training clips, if it is not there."""
    path = Path(path)
    if path.is_file():
        return
    features, learner = hparams["features"], hparams["dictionary_learner"]

    def log_spectrogram(number):
        with torch.no_grad():
            stft = features.stft(dataset[number]["sig"][None])
            return torch.log1p(features.magnitude(stft))[0]

    frames = learner.sample(log_spectrogram, len(dataset))
    print(f"learning {learner.n_components} spectral patterns", flush=True)
    dictionary = learner.learn(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_in_one_step(path, partial(torch.save, {"W": dictionary}), binary=True)


@exit_on_user_error
def main(argv=None):
    """Learn the dictionary, train, test, and write results and sounds."""
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

        # Dictionary
        learner = hparams["dictionary_learner"]
        claim_training(
            hparams,
            classifier=weights_sha256(hparams["frozen_classifier"]),
            starting_decoder=weights_sha256(hparams["decoder"]),
            nmf_frames=learner.n_frames,
            nmf_sparsity=learner.sparsity,
            nmf_iterations=learner.n_iterations,
        )
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )
        path = Path(hparams["save_folder"]) / "dictionary.ckpt"
        run_on_main(write_dictionary, args=[path, datasets["train"], hparams])
        load_strict(hparams["decoder"].dictionary, path)

        brain = L2IBrain(
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
            l2i_loss=hparams["l2i_loss"],
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
