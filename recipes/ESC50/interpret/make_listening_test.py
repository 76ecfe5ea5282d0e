#!/usr/bin/env python3
"""Make a blinded listening test: a page for listeners, and its key.

On the embedded scenes, and on ESC-50:

    python make_listening_test.py hparams/listening.yaml \
        --interpreter results/lmac/1234
    python make_listening_test.py hparams/listening.yaml \
        --interpreter results/esc50_lmac/1234 --data_folder /path/to/ESC-50

Give listening_test.html to the listeners and keep key.json for yourself;
score_listening_test.py reads the files that the listeners return.
"""

from itertools import product
from pathlib import Path

import speechbrain as sb
from preparation import check_scenes, prepare_clips

from lmac_sb.data.dataset import thin_out
from lmac_sb.data.manifest import read_entries
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    models_identity,
    sources_of,
)
from lmac_sb.pages.listening import choose_methods, make_trial, write_test
from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.console import Loudness, progress, say
from lmac_sb.utils.errors import exit_on_user_error


def prepare(claim, hparams, interpreter):
    """Data set of the chosen clips, and the settings."""
    clips, source = hparams["clips"], hparams["interpreter"]
    check_scenes(clips, interpreter.hparams.label_encoder, source)
    prepare_clips(claim, hparams, **clips)
    manifest_folder = Path(hparams["manifest_folder"])
    dataset = load_clips(manifest_folder, "test", interpreter, source)
    thin_out(dataset, hparams["n_clips"])
    settings = make_settings(
        hparams["settings"],
        dict(read_entries(manifest_folder / "test.jsonl")),
        interpreter.sample_rate,
        hparams["seed"],
        {
            "wham_folder": hparams["wham_folder"],
            "speech_folder": hparams["speech_folder"],
        },
    )
    return dataset, settings


@exit_on_user_error
def main(argv=None):
    """Explain some clips by each method, and write page and key."""
    hparams = load_hparams(argv, __file__)
    device = hparams.run_opts["device"] or "cpu"
    sources = sources_of(hparams["interpreter"], hparams["interpreters"])
    loaded = load_interpreters(sources, hparams["trusted"], device)
    interpreter = loaded["lmac"]
    methods = choose_methods(
        hparams["methods"],
        {name: x.explainer for name, x in loaded.items()},
        hparams["seed"],
    )
    with open_run(hparams) as claim:
        claim.check(interpreters=models_identity(loaded, sources))
        dataset, settings = prepare(claim, hparams, interpreter)
        claim.take()
        sb.create_experiment_directory(**hparams.directory)
        places = range(len(dataset.data_ids))
        quiet = hparams.run_opts["noprogressbar"]
        sounds = list(product(settings, places))
        trials = [
            make_trial(
                interpreter.explainer,
                methods,
                setting,
                dataset[place],
                interpreter.classes,
                device,
            )
            for setting, place in progress(sounds, unit="sound", disable=quiet)
        ]
        page = write_test(
            hparams["output_folder"],
            trials,
            interpreter.sample_rate,
            claim.compared,
        )
    key = page.with_name("key.json")
    say(f"for the listeners: {page}", Loudness.QUIET)
    say(f"keep for yourself: {key}", Loudness.QUIET)


if __name__ == "__main__":
    main()
