#!/usr/bin/env python3
"""Sanity checks of explanations.

Do they depend on the classifier's weights (cascading randomisation), do they
find what it needs (ROAR), and do they follow the class that is asked about
(swap)?

    python sanity.py hparams/sanity.yaml --interpreter results/lmac/1234
    python sanity.py hparams/sanity.yaml --checks [roar]

Under torchrun, processes share the work.
"""

from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from preparation import check_scenes, prepare_clips
from speechbrain.utils.distributed import run_on_main

from lmac_sb.data.dataset import thin_out
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    models_identity,
    sources_of,
)
from lmac_sb.evaluation.plots import draw_randomisation, draw_roar
from lmac_sb.evaluation.rows import means_of
from lmac_sb.evaluation.sanity import (
    check_randomisation,
    check_removable,
    check_retrainable,
    check_roar,
    decides_by_weights,
    roar_lines,
)
from lmac_sb.evaluation.swap import check_swap
from lmac_sb.methods.registry import make_methods
from lmac_sb.metrics.summary import (
    markdown_table,
    means_over,
    summarize,
    tellable,
)
from lmac_sb.training.experiment import open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.utils.console import Loudness, say, say_table
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.io import write_csv, write_in_one_step, write_json
from lmac_sb.utils.provenance import provenance


def write(output_folder, name, rows, table):
    """Write the rows of a check, and print and write its table."""
    write_csv(output_folder / f"{name}.csv", rows)
    path = output_folder / f"{name}.txt"
    write_in_one_step(path, lambda file: file.write(table + "\n"))
    say_table(table, path)


def interval(figure):
    """A mean with its interval, as text."""
    return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**figure)


def write_lines(output_folder, name, rows, lines, draw):
    """The same of means along a line, and draw them."""
    over = {"roar": "share", "randomisation": "down to"}[name]
    table = []
    for method, points in lines.items():
        for x, values in points:
            cells = []
            for column, figure in values.items():
                cells.append(f"{column} {interval(figure)}")
                if "difference" in figure:
                    less = interval(figure["difference"])
                    cells.append(f"less than random by {less}")
            table.append(f"{method}, {over} {x}: {', '.join(cells)}")
    write(output_folder, name, rows, "\n".join(table))
    draw(output_folder / name, lines)


def write_swap(output_folder, name, rows):
    """The same of the answers to both questions about each sound."""
    columns = ["correlation", "Fid-In", "event_mass", "other_mass"]
    sounds = means_of(rows, ["method", "id"], columns)
    summary = summarize(sounds, columns=columns)
    table = markdown_table(tellable(summary), columns)
    write(output_folder, name, rows, table)


def retrained(hparams):
    """A classifier before ROAR trains it."""
    return torch.nn.Sequential(
        hparams["embedding_class"](), hparams["classifier_class"]()
    )


def run_roar(hparams, explainer, methods, datasets):
    """Check whether methods find what the classifier needs."""
    output_folder = Path(hparams["output_folder"])
    rows = check_roar(
        explainer,
        methods,
        datasets,
        hparams["roar_shares"],
        partial(retrained, hparams),
        {
            "folder": output_folder / "rows_roar",
            "fills": hparams["roar_fill"],
            "batch_size": hparams["batch_size"],
            "epochs": hparams["roar_epochs"],
            "runs": hparams["runs"],
            "seed": hparams["seed"],
        },
    )
    results = [output_folder, "roar", rows, roar_lines(rows), draw_roar]
    run_on_main(write_lines, results)


def run_on_clips(hparams, name, explainer, methods, dataset):
    """Check on single clips what masks depend on, by the check's name."""
    output_folder = Path(hparams["output_folder"])
    check = {"randomisation": check_randomisation, "swap": check_swap}[name]
    folder = {"randomisation": "rows", "swap": "rows_swap"}[name]
    options = {
        "folder": output_folder / folder,
        "batch_size": hparams["batch_size"],
        "seed": hparams["seed"],
    }
    rows = check(explainer, methods, dataset, options)
    if name == "swap":
        run_on_main(write_swap, [output_folder, name, rows])
        return
    lines = means_over(rows, "stage", ["correlation", "SSIM"])
    results = [output_folder, name, rows, lines, draw_randomisation]
    run_on_main(write_lines, results)


def finish(output_folder):
    """Write where the results come from."""
    write_json(Path(output_folder) / "provenance.json", provenance())
    say(f"rows and figures: {output_folder}", Loudness.QUIET)


def load(hparams):
    """The models by name, their sources, and the methods of each check."""
    device = hparams.run_opts["device"] or "cpu"
    sources = sources_of(hparams["interpreter"], hparams["interpreters"])
    loaded = load_interpreters(sources, hparams["trusted"], device)
    explainers = {name: x.explainer for name, x in loaded.items()}
    names = {
        "randomisation": hparams["randomisation_methods"],
        "swap": hparams["swap_methods"],
        "roar": hparams["roar_methods"],
    }
    methods = {
        check: make_methods(names[check], explainers, seed=hparams["seed"])
        for check in hparams["checks"]
    }
    for check in ("randomisation", "swap"):
        decides_by_weights(methods.get(check, {}), f"{check}_methods")
    return loaded, sources, methods


@exit_on_user_error
def main(argv=None):
    """Load the models and the clips, and check the explanations."""
    hparams = load_hparams(argv, __file__)
    loaded, sources, methods = load(hparams)
    interpreter = loaded["lmac"]
    with open_run(hparams, neutral=["batch_size", "checks"]) as claim:
        identity = {"interpreters": models_identity(loaded, sources)}
        run_on_main(claim.check, kwargs=identity)
        # Only the model knows whether clips have several classes.
        encoder = interpreter.hparams.label_encoder
        folder, source = hparams["manifest_folder"], hparams["interpreter"]
        check_scenes(hparams["clips"], encoder, source)
        clips = [claim, {**hparams, "label_encoder": encoder}]
        run_on_main(prepare_clips, clips, hparams["clips"])
        datasets = {
            split: load_clips(folder, split, interpreter, source)
            for split in ("train", "test")
        }
        if "roar" in methods:
            check_removable(methods["roar"], datasets)
            n_samples = datasets["train"].n_samples[0]
            model = partial(retrained, hparams)
            check_retrainable(interpreter, model, n_samples)
        run_on_main(claim.take)
        sb.create_experiment_directory(**hparams.directory)
        explainer = interpreter.explainer
        if "roar" in methods:
            run_roar(hparams, explainer, methods["roar"], datasets)
        test = datasets["test"]
        thin_out(test, hparams["n_clips"])
        for check in ("randomisation", "swap"):
            if check in methods:
                run_on_clips(hparams, check, explainer, methods[check], test)
        run_on_main(finish, [hparams["output_folder"]])


if __name__ == "__main__":
    main()
