#!/usr/bin/env python3
"""Train L2I, the method that L-MAC is compared with, on the same classifier.

On the embedded scenes (if there is no classifier, it is trained first), and on
ESC-50:

    python train_l2i.py hparams/l2i.yaml
    python train_l2i.py hparams/l2i.yaml --data_folder /path/to/ESC-50 \
        --classifier_folder /path/to/model --n_classes 50
"""

from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from l2i_brain import L2IBrain
from speechbrain.utils.distributed import run_on_main
from training_steps import (
    prepare_explained,
    starting_decoder,
    train_explainer,
)

from lmac_sb.models.weights import load_strict
from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.console import say
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.io import write_in_one_step


def check_frames(found, learner):
    """Refuse fewer frames than patterns, of which each may be one frame."""
    if found < learner.n_components:
        raise LMACError(
            f"nmf_frames: {found}, expected at least as many as n_components, "
            f"{learner.n_components}"
        )


def write_dictionary(path, dataset, learner, features):
    """Learn the dictionary from the training clips, unless it exists."""
    if path.is_file():
        return

    def log_spectrogram(number):
        """Log magnitudes of a clip, [time, freq]."""
        with torch.no_grad():
            stft = features.stft(dataset[number]["sig"][None])
            return torch.log1p(features.magnitude(stft))[0]

    frames = learner.sample(log_spectrogram, len(dataset))
    check_frames(len(frames), learner)
    say(f"learning {learner.n_components} spectral patterns")
    dictionary = learner.learn(frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_in_one_step(path, partial(torch.save, {"W": dictionary}), binary=True)


@exit_on_user_error
def main(argv=None):
    """Learn the dictionary, train, test, and write results and sounds."""
    hparams = load_hparams(argv, __file__)
    check_frames(hparams["nmf_frames"], hparams["dictionary_learner"])
    with open_run(hparams) as claim:
        datasets = prepare_explained(
            claim,
            hparams,
            classifier={
                "source": hparams["classifier_folder"],
                "recipe": hparams["classifier_recipe"],
            },
            clips=hparams["clips"],
            sounds=hparams["sounds"],
        )
        run_on_main(claim.take, kwargs=starting_decoder(hparams))
        sb.create_experiment_directory(**hparams.directory)
        path = Path(hparams["save_folder"]) / "dictionary.ckpt"
        run_on_main(
            write_dictionary,
            args=[path, datasets["train"], hparams["dictionary_learner"]],
            kwargs={"features": hparams["features"]},
        )
        load_strict(hparams["decoder"].dictionary, path)

        brain = L2IBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=hparams.run_opts,
            checkpointer=hparams["checkpointer"],
            explainer=hparams["explainer"],
            l2i_loss=hparams["l2i_loss"],
            **hparams["training"],
        )
        options, n_clips = hparams["dataloader_options"], hparams["save_clips"]
        train_explainer(brain, hparams, datasets, options, n_clips)


if __name__ == "__main__":
    main()
