#!/usr/bin/env python3
"""Sanity checks of explanations: do they depend on the classifier's weights
(cascading randomisation), and do they find what it needs (ROAR)?

    python sanity.py hparams/sanity.yaml --interpreter results/lmac/1234
    python sanity.py hparams/sanity.yaml --checks [roar]
"""

import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from esc50_prepare import prepare_esc50
from tqdm import tqdm

from lmac_sb.data.dataset import EqualLengthBatches, thin_out
from lmac_sb.data.scenes import make_scenes
from lmac_sb.evaluation.figures import draw_randomisation, draw_roar
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    models_sha256,
)
from lmac_sb.evaluation.sanity import (
    correlation,
    randomised,
    remove,
    retrain,
    similarity,
)
from lmac_sb.methods.registry import Case, make_methods, min_max
from lmac_sb.metrics.summary import bootstrap
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    check_folder,
    claim_folder,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.io import write_csv, write_json
from lmac_sb.utils.lock import lock_folder
from lmac_sb.utils.provenance import provenance

CHECKS = ("randomisation", "roar")


def batches(dataset, batch_size):
    """Waveforms [batch, samples], labels [batch] and ids of equal length."""
    for rows in EqualLengthBatches(dataset.n_samples, batch_size):
        items = [dataset[row] for row in rows]
        yield (
            torch.stack([item["sig"] for item in items]),
            torch.cat([item["class_string_encoded"] for item in items]),
            [item["id"] for item in items],
        )


def masks_of(methods, explainer, wavs, target):
    """Mask of each method, in [0, 1], [batch, time, freq]."""
    analysis = explainer.analyze(wavs, target)
    case = Case(explainer, wavs, analysis, target, None)
    masks = {}
    for name, method in methods.items():
        made = method.function(case)
        masks[name] = min_max(made) if method.kind == "scores" else made
    return masks


def check_randomisation(hparams, interpreter, methods, dataset):
    """Correlation and SSIM with the mask of the whole classifier."""
    explainer = interpreter.explainer
    for name, method in methods.items():
        if method.kind not in ("mask", "scores"):
            raise LMACError(
                f"randomisation_methods: '{name}' does not look at the "
                "classifier"
            )
    thin_out(dataset, hparams["n_clips"])
    rows = []
    for wavs, _, ids in tqdm(
        list(batches(dataset, hparams["batch_size"])), unit="batch"
    ):
        with torch.no_grad():
            target = explainer.analyze(wavs).logits.argmax(1)
        before = masks_of(methods, explainer, wavs, target)
        for stage in randomised(explainer.classifier, hparams["seed"]):
            after = masks_of(methods, explainer, wavs, target)
            for name, mask in after.items():
                values = zip(
                    ids,
                    correlation(before[name], mask).tolist(),
                    similarity(before[name], mask).tolist(),
                )
                rows += [
                    {
                        "id": clip,
                        "method": name,
                        "stage": stage.replace("embedding_model.", ""),
                        "correlation": r,
                        "SSIM": s,
                    }
                    for clip, r, s in values
                ]
    return rows


def check_roar(hparams, interpreter, methods, datasets):
    """Accuracy of classifiers trained without what methods call relevant."""
    explainer, shares = interpreter.explainer, hparams["roar_shares"]
    data, classes = {}, {}
    for split, dataset in datasets.items():
        parts, labels = {}, []
        for wavs, found, _ in tqdm(
            list(batches(dataset, hparams["batch_size"])),
            unit="batch",
            desc=f"{split}: masks",
        ):
            labels.append(found)
            for key, mel in remove(explainer, methods, shares, wavs).items():
                parts.setdefault(key, []).append(mel)
        try:
            data[split] = {key: torch.cat(x) for key, x in parts.items()}
        except RuntimeError as error:
            raise LMACError(
                f"{split}: clips of several lengths, ROAR needs one length: "
                "train the explained models with signal_length_s"
            ) from error
        classes[split] = torch.cat(labels)
    rows = []
    trainings = [
        (*key, run) for key in data["train"] for run in range(hparams["runs"])
    ]
    for method, share, run in tqdm(trainings, unit="training"):
        key = method, share
        torch.manual_seed(hparams["seed"] + run)
        model = retrain(
            torch.nn.Sequential(
                hparams["embedding_class"](), hparams["classifier_class"]()
            ),
            data["train"][key],
            classes["train"],
            hparams["roar_epochs"],
            seed=hparams["seed"] + run,
        )
        with torch.no_grad():
            decided = torch.cat(
                [model(x).argmax(1) for x in data["test"][key].split(32)]
            )
        right = (decided == classes["test"]).float().tolist()
        rows += [
            {
                "id": clip,
                "method": method,
                "share": share,
                "run": run,
                "accuracy": 100 * value,
            }
            for clip, value in zip(datasets["test"].data_ids, right)
        ]
    return rows


def means(rows, over, columns):
    """Method to points: a value of `over`, and mean and interval of columns."""
    groups = {}
    for row in rows:
        points = groups.setdefault(row["method"], {})
        points.setdefault(row[over], []).append(row)
    return {
        method: [
            (
                x,
                {
                    name: bootstrap([row[name] for row in part])
                    for name in columns
                },
            )
            for x, part in points.items()
        ]
        for method, points in groups.items()
    }


def print_means(lines, over):
    """Print `means` as a table."""
    for method, points in lines.items():
        for x, figures in points:
            cells = [
                f"{name} {f['mean']:.3f} [{f['low']:.3f}, {f['high']:.3f}]"
                for name, f in figures.items()
            ]
            print(f"{method}, {over} {x}: {', '.join(cells)}")


@exit_on_user_error
def main(argv=None):
    """Run the checks that are asked for."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    for check in hparams["checks"]:
        if check not in CHECKS:
            raise LMACError(f"checks: '{check}' is none of {', '.join(CHECKS)}")
    loaded = load_interpreters(
        {"lmac": hparams["interpreter"], **hparams["interpreters"]},
        hparams["trusted"],
    )
    interpreter = loaded["lmac"]
    explainers = {name: x.explainer for name, x in loaded.items()}
    names = {
        "randomisation": hparams["randomisation_methods"],
        "roar": hparams["roar_methods"],
    }
    methods = {
        check: make_methods(names[check], explainers, seed=hparams["seed"])
        for check in hparams["checks"]
    }
    output_folder = Path(hparams["output_folder"])
    identity = {"seed": hparams["seed"], "interpreters": models_sha256(loaded)}
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
        datasets = {
            split: load_clips(
                hparams["manifest_folder"],
                split,
                interpreter,
                hparams["interpreter"],
            )
            for split in ("train", "test")
        }
        claim_folder(output_folder, hparams["manifest_folder"], **identity)
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=output_folder,
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        if "roar" in methods:
            rows = check_roar(hparams, interpreter, methods["roar"], datasets)
            write_csv(output_folder / "roar.csv", rows)
            lines = means(rows, "share", ["accuracy"])
            print_means(lines, "share")
            draw_roar(output_folder / "roar", lines)
        if "randomisation" in methods:
            rows = check_randomisation(
                hparams, interpreter, methods["randomisation"], datasets["test"]
            )
            write_csv(output_folder / "randomisation.csv", rows)
            lines = means(rows, "stage", ["correlation", "SSIM"])
            print_means(lines, "down to")
            draw_randomisation(output_folder / "randomisation", lines)
        write_json(output_folder / "provenance.json", provenance())
        print(f"rows and figures: {output_folder}")


if __name__ == "__main__":
    main()
