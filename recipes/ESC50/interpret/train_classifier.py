#!/usr/bin/env python3
"""Train the sound classifier that L-MAC explains.

On the embedded scenes, and on ESC-50:

    python train_classifier.py hparams/classifier_conv.yaml
    python train_classifier.py hparams/classifier_conv.yaml \
        --data_folder /path/to/ESC-50 --n_classes 50

The best weights, the class names and the front end's settings are written to
`model_folder`, which is the `classifier_folder` of `train_lmac.py`.
"""

import speechbrain as sb
from classifier_brain import ClassifierBrain
from speechbrain.utils.distributed import run_on_main
from training_steps import prepare_classes, train_classifier

from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.errors import exit_on_user_error


@exit_on_user_error
def main(argv=None):
    """Train, test, and write the model folder."""
    hparams = load_hparams(argv, __file__)
    with open_run(hparams) as claim:
        datasets = prepare_classes(
            claim,
            hparams,
            clips=hparams["clips"],
            sounds=hparams["sounds"],
        )
        run_on_main(claim.take)
        sb.create_experiment_directory(**hparams.directory)

        brain = ClassifierBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=hparams.run_opts,
            checkpointer=hparams["checkpointer"],
            **hparams["training"],
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
