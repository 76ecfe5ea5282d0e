#!/usr/bin/env python3
"""Train L-MAC to explain an audio classifier, and fine-tune it.

On the embedded scenes (if there is no classifier, it is trained first), and on
ESC-50:

    python train_lmac.py hparams/lmac.yaml
    python train_lmac.py hparams/lmac.yaml --data_folder /path/to/ESC-50 \
        --classifier_folder /path/to/model --n_classes 50

Guided fine-tuning of a finished run:

    python train_lmac.py hparams/lmac_ft.yaml \
        --pretrained_interpreter results/lmac/1234

The classifier of anyone, by its hub id, its folder or a function:

    python train_lmac.py hparams/lmac_any.yaml --model name/repository
"""

import speechbrain as sb
from lmac_brain import LMACBrain
from speechbrain.utils.distributed import run_on_main
from training_steps import (
    find_interpreter,
    keep_adopted,
    measure_familiarity,
    prepare_adopted,
    prepare_explained,
    start_from,
    starting_decoder,
    train_explainer,
)

from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.errors import exit_on_user_error


@exit_on_user_error
def main(argv=None):
    """Train or fine-tune, test, and write results and sounds."""
    hparams = load_hparams(argv, __file__)
    # Before anything else, so that a mistake changes no folder.
    start, needed = hparams["pretrained_interpreter"], hparams["finetuning"]
    start_from(hparams["decoder"], find_interpreter(hparams, start, needed))
    with open_run(hparams) as claim:
        data = {"clips": hparams["clips"], "sounds": hparams["sounds"]}
        adopted = hparams.get("adopted")
        if adopted is not None:
            frozen = hparams["frozen_classifier"]
            datasets = prepare_adopted(claim, hparams, frozen, **data)
        else:
            source = {
                "source": hparams["classifier_folder"],
                "recipe": hparams["classifier_recipe"],
            }
            datasets = prepare_explained(claim, hparams, source, **data)
        run_on_main(claim.take, kwargs=starting_decoder(hparams, start))
        sb.create_experiment_directory(**hparams.directory)

        brain = LMACBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=hparams.run_opts,
            checkpointer=hparams["checkpointer"],
            explainer=hparams["explainer"],
            **hparams["training"],
        )
        options, n_clips = hparams["dataloader_options"], hparams["save_clips"]
        train_explainer(brain, hparams, datasets, options, n_clips)
        if adopted is not None:
            run_on_main(keep_adopted, args=[hparams, adopted])
        if "familiarity" in hparams:
            parts = [hparams["familiarity"], hparams["explainer"]]
            parts += [datasets, hparams["output_folder"]]
            run_on_main(measure_familiarity, args=parts)


if __name__ == "__main__":
    main()
