#!/usr/bin/env python3
"""Make a blinded listening test: a page for listeners, and its key.

On the embedded scenes, and on ESC-50:

    python make_listening_test.py hparams/listening.yaml \
        --interpreter results/lmac/1234
    python make_listening_test.py hparams/listening.yaml \
        --interpreter results/esc50_lmac/1234 --data_folder /path/to/ESC-50

Give listening_test.html to the listeners and keep key.json;
score_listening_test.py reads what they hand back.
"""

import sys
from functools import partial
from itertools import product
from pathlib import Path

import speechbrain as sb
from esc50_prepare import prepare_esc50
from tqdm import tqdm

from lmac_sb.data.dataset import thin_out
from lmac_sb.data.manifest import read_entries
from lmac_sb.data.scenes import make_scenes
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    models_sha256,
)
from lmac_sb.pages.listening import choose_methods, make_trial, write_test
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    check_folder,
    claim_folder,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import read_json
from lmac_sb.utils.lock import lock_folder


@exit_on_user_error
def main(argv=None):
    """Explain some clips by each method; write page and key."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    device = run_opts.get("device") or "cpu"
    loaded = load_interpreters(
        {"lmac": hparams["interpreter"], **hparams["interpreters"]},
        hparams["trusted"],
        device,
    )
    interpreter = loaded["lmac"]
    explainers = {name: x.explainer for name, x in loaded.items()}
    methods = choose_methods(hparams["methods"], explainers, hparams["seed"])
    output_folder = Path(hparams["output_folder"])
    identity = {
        "seed": hparams["seed"],
        "interpreters": models_sha256(loaded),
        "methods": ", ".join(methods),
        "settings": str(hparams["settings"]),
        "n_clips": hparams["n_clips"],
    }
    log_to_console()
    with lock_folder(output_folder):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            make_scenes(data_folder)
        prepare_esc50(
            data_folder=data_folder,
            manifest_folder=hparams["manifest_folder"],
            train_fold_nums=hparams["train_fold_nums"],
            valid_fold_nums=hparams["valid_fold_nums"],
            test_fold_nums=hparams["test_fold_nums"],
            skip_bad_clips=hparams["skip_bad_clips"],
            accept=partial(check_folder, output_folder, **identity),
        )
        dataset = load_clips(
            hparams["manifest_folder"],
            "test",
            interpreter,
            hparams["interpreter"],
        )
        thin_out(dataset, hparams["n_clips"])
        settings = make_settings(
            hparams["settings"],
            dict(read_entries(Path(hparams["manifest_folder"]) / "test.json")),
            interpreter.sample_rate,
            hparams["seed"],
            hparams["wham_folder"],
            hparams["speech_folder"],
        )
        claim_folder(output_folder, hparams["manifest_folder"], **identity)
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=output_folder,
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        places = range(len(dataset.data_ids))
        trials = [
            make_trial(
                interpreter.explainer,
                methods,
                setting,
                dataset[place],
                interpreter.classes,
                device,
            )
            for setting, place in tqdm(
                list(product(settings, places)),
                unit="sound",
                disable=run_opts.get("noprogressbar"),
            )
        ]
        page = write_test(
            output_folder,
            trials,
            interpreter.sample_rate,
            read_json(output_folder / "experiment.json"),
        )
    print(f"for the listeners: {page}")
    print(f"keep for yourself: {page.with_name('key.json')}")


if __name__ == "__main__":
    main()
