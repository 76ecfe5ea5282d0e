#!/usr/bin/env python3
"""Sanity checks of explanations.

Do they depend on the classifier's weights (cascading randomisation), and do
they find what it needs (ROAR)?

    python sanity.py hparams/sanity.yaml --interpreter results/lmac/1234
    python sanity.py hparams/sanity.yaml --checks [roar]

Under torchrun, processes share the first check; ROAR trains, in one of them.
"""

from pathlib import Path

import speechbrain as sb
import torch
from preparation import prepare_clips
from speechbrain.utils.distributed import run_on_main

from lmac_sb.data.dataset import thin_out
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    models_identity,
)
from lmac_sb.evaluation.plots import draw_randomisation, draw_roar
from lmac_sb.evaluation.sanity import (
    check_randomisation,
    check_roar,
    decides_by_weights,
)
from lmac_sb.methods.registry import make_methods
from lmac_sb.metrics.summary import means_over
from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.console import Loudness, say, say_table
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import write_csv, write_in_one_step, write_json
from lmac_sb.utils.provenance import provenance


def write(output_folder, name, rows, lines, draw):
    """Write the rows of a check, print their means and draw them."""
    write_csv(output_folder / f"{name}.csv", rows)
    over = {"roar": "share", "randomisation": "down to"}[name]
    table = []
    for method, points in lines.items():
        for x, values in points:
            cells = [
                f"{name} {v['mean']:.3f} [{v['low']:.3f}, {v['high']:.3f}]"
                for name, v in values.items()
            ]
            table.append(f"{method}, {over} {x}: {', '.join(cells)}")
    path = output_folder / f"{name}.txt"
    write_in_one_step(path, lambda file: file.write("\n".join(table) + "\n"))
    say_table("\n".join(table), path)
    draw(output_folder / name, lines)


def run_roar(hparams, explainer, methods, datasets):
    """Check whether methods find what the classifier needs."""
    rows = check_roar(
        explainer,
        methods,
        datasets,
        hparams["roar_shares"],
        lambda: torch.nn.Sequential(
            hparams["embedding_class"](), hparams["classifier_class"]()
        ),
        {
            "batch_size": hparams["batch_size"],
            "epochs": hparams["roar_epochs"],
            "runs": hparams["runs"],
            "seed": hparams["seed"],
        },
    )
    lines = means_over(rows, "share", ["accuracy"])
    write(Path(hparams["output_folder"]), "roar", rows, lines, draw_roar)


def run_randomisation(hparams, explainer, methods, dataset):
    """Check whether masks follow the classifier's weights."""
    output_folder = Path(hparams["output_folder"])
    thin_out(dataset, hparams["n_clips"])
    options = {
        "folder": output_folder / "rows",
        "batch_size": hparams["batch_size"],
        "seed": hparams["seed"],
    }
    rows = check_randomisation(explainer, methods, dataset, options)
    lines = means_over(rows, "stage", ["correlation", "SSIM"])
    results = [output_folder, "randomisation", rows, lines, draw_randomisation]
    run_on_main(write, results)


def finish(output_folder):
    """Write where the results come from."""
    write_json(Path(output_folder) / "provenance.json", provenance())
    say(f"rows and figures: {output_folder}", Loudness.QUIET)


@exit_on_user_error
def main(argv=None):
    """Load the models and the clips, and check the explanations."""
    hparams = load_hparams(argv, __file__)
    device = hparams.run_opts["device"] or "cpu"
    sources = {"lmac": hparams["interpreter"], **hparams["interpreters"]}
    loaded = load_interpreters(sources, hparams["trusted"], device)
    interpreter = loaded["lmac"]
    names = {
        "randomisation": hparams["randomisation_methods"],
        "roar": hparams["roar_methods"],
    }
    explainers = {name: x.explainer for name, x in loaded.items()}
    methods = {
        check: make_methods(names[check], explainers, seed=hparams["seed"])
        for check in hparams["checks"]
    }
    decides_by_weights(methods.get("randomisation", {}))
    with open_run(hparams, neutral=["batch_size", "checks"]) as claim:
        identity = {"interpreters": models_identity(loaded, sources)}
        run_on_main(claim.check, kwargs=identity)
        run_on_main(prepare_clips, [claim, hparams], hparams["clips"])
        folder, source = hparams["manifest_folder"], hparams["interpreter"]
        datasets = {
            split: load_clips(folder, split, interpreter, source)
            for split in ("train", "test")
        }
        run_on_main(claim.take)
        sb.create_experiment_directory(**hparams.directory)
        explainer = interpreter.explainer
        if "roar" in methods:
            roar = [hparams, explainer, methods["roar"], datasets]
            run_on_main(run_roar, roar)
        if "randomisation" in methods:
            test = datasets["test"]
            run_randomisation(
                hparams, explainer, methods["randomisation"], test
            )
        run_on_main(finish, [hparams["output_folder"]])


if __name__ == "__main__":
    main()
