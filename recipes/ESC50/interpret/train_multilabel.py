#!/usr/bin/env python3
"""Train a classifier of clips of several classes, and L-MAC to explain it.

Each class is decided and explained on its own. On the embedded scenes of two
or three events (if there is no classifier, it is trained first):

    python train_multilabel.py hparams/lmac_multilabel.yaml

The classifier alone:

    python train_multilabel.py hparams/classifier_multilabel.yaml
"""

from pathlib import Path

import speechbrain as sb
from class_table import write_classes
from multilabel_brain import MultilabelBrain, MultilabelClassifierBrain
from speechbrain.utils.distributed import run_on_main
from training_steps import (
    prepare_classes,
    prepare_explained,
    starting_decoder,
    train_classifier,
    train_explainer,
)

from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.errors import exit_on_user_error


def train(hparams, claim):
    """Train and test the classifier, and write the model folder."""
    datasets = prepare_classes(
        claim,
        hparams,
        clips=hparams["clips"],
        sounds=hparams["sounds"],
    )
    run_on_main(claim.take)
    sb.create_experiment_directory(**hparams.directory)
    brain = MultilabelClassifierBrain(
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


def explain(hparams, claim):
    """Train and test L-MAC, and write results, sounds and the table."""
    datasets = prepare_explained(
        claim,
        hparams,
        classifier={
            "source": hparams["classifier_folder"],
            "recipe": hparams["classifier_recipe"],
            "script": Path(__file__).name,
        },
        clips=hparams["clips"],
        sounds=hparams["sounds"],
    )
    run_on_main(claim.take, kwargs=starting_decoder(hparams))
    sb.create_experiment_directory(**hparams.directory)
    brain = MultilabelBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=hparams.run_opts,
        checkpointer=hparams["checkpointer"],
        explainer=hparams["explainer"],
        others_w=hparams["others_w"],
        grow_share=hparams["grow_share"],
        **hparams["training"],
    )
    train_explainer(
        brain,
        hparams,
        datasets,
        loader_options=hparams["dataloader_options"],
        save_clips=hparams["save_clips"],
    )
    run_on_main(write_classes, args=[hparams, brain, len(datasets["test"])])


@exit_on_user_error
def main(argv=None):
    """Train and test the classifier, or L-MAC if the yaml has a decoder."""
    hparams = load_hparams(argv, __file__)
    with open_run(hparams) as claim:
        (explain if "decoder" in hparams else train)(hparams, claim)


if __name__ == "__main__":
    main()
