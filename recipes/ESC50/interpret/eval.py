#!/usr/bin/env python3
"""Evaluate explanations: every method, in every setting, on every clip.

On the embedded scenes, and on ESC-50:

    python eval.py hparams/eval.yaml --interpreter results/lmac/1234
    python eval.py hparams/eval.yaml --interpreter results/esc50_lmac/1234 \
        --data_folder /path/to/ESC-50 --interpreters "{lmac_ft: other_folder}"
"""

import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
from esc50_prepare import prepare_esc50
from tqdm import tqdm

from lmac_sb.data.dataset import thin_out
from lmac_sb.data.manifest import read_entries
from lmac_sb.data.regions import read_regions
from lmac_sb.data.scenes import make_scenes
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.evaluation.figures import draw_curves, draw_passes, draw_snr
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    load_judge,
    models_sha256,
)
from lmac_sb.evaluation.runner import OWN, Grid
from lmac_sb.evaluation.tables import write_summary
from lmac_sb.methods.registry import make_methods, passes
from lmac_sb.metrics.summary import summarize
from lmac_sb.models.weights import weights_sha256
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    check_folder,
    claim_folder,
    data_sha256,
    frontend,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.io import write_csv, write_json
from lmac_sb.utils.lock import lock_folder
from lmac_sb.utils.provenance import provenance

STEPS_METRICS = ["AI", "AD", "AG", "FF", "area", "event_mass", "event_auc"]
NOISE_PARTS = {"train": "tr", "valid": "cv", "test": "tt"}


def table(rows):
    """Rows with all columns, those of the first row first."""
    last = ["warning", "error"]
    names = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in names if name not in last] + last
    return [{name: row.get(name, "") for name in names} for row in rows]


def steps(rows, methods):
    """Setting to method to (passes, figures), where a method took steps."""
    lines = {}
    for name, method in methods.items():
        if passes(method) is None:
            continue
        line = name.split("+")[0]
        for setting in dict.fromkeys(row["setting"] for row in rows):
            chosen = [
                row
                for row in rows
                if (row["setting"], row["method"], row["keep"])
                == (setting, name, OWN)
                and "error" not in row
            ]
            if chosen:
                figures = summarize(chosen, columns=STEPS_METRICS)[name]
                points = lines.setdefault(setting, {}).setdefault(line, [])
                points.append((passes(method), figures))
    return lines


def prepare(hparams, interpreter, identity):
    """Data set, settings, and clips whose active regions are known."""
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
        download=hparams["download"],
        skip_bad_clips=hparams["skip_bad_clips"],
        accept=partial(check_folder, hparams["output_folder"], **identity),
    )
    split = hparams["split"]
    dataset = load_clips(
        hparams["manifest_folder"], split, interpreter, hparams["interpreter"]
    )
    thin_out(dataset, hparams["n_clips"])
    manifest = Path(hparams["manifest_folder"]) / f"{split}.json"
    settings = make_settings(
        hparams["settings"],
        dict(read_entries(manifest)),
        interpreter.sample_rate,
        hparams["seed"],
        hparams["wham_folder"],
        hparams["speech_folder"],
        NOISE_PARTS[split],
    )
    return dataset, settings, read_regions(data_folder)


def write(output_folder, rows, seconds, methods, origin):
    """Rows, tables and figures."""
    write_csv(output_folder / "results.csv", table(rows))
    write_csv(output_folder / "seconds.csv", seconds)
    write_json(output_folder / "provenance.json", origin)
    write_summary(output_folder, rows)
    draw_curves(output_folder / "curves", rows)
    draw_snr(output_folder / "snr", rows)
    for setting, lines in steps(rows, methods).items():
        # One point is no line.
        lines = {name: x for name, x in lines.items() if len(x) > 1}
        if lines:
            stem = output_folder / f"steps {setting}".replace(" ", "_")
            draw_passes(stem, lines, STEPS_METRICS)
    print((output_folder / "summary.md").read_text(encoding="utf-8"))
    print(f"all rows, tables and figures: {output_folder}")


@exit_on_user_error
def main(argv=None):
    """Evaluate."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    device = run_opts.get("device") or "cpu"
    split = hparams["split"]
    if split not in NOISE_PARTS:
        raise LMACError(f"split: '{split}' is none of {', '.join(NOISE_PARTS)}")
    output_folder = Path(hparams["output_folder"])

    # Models
    loaded = load_interpreters(
        {"lmac": hparams["interpreter"], **hparams["interpreters"]},
        hparams["trusted"],
        device,
    )
    interpreter = loaded["lmac"]
    explainers = {name: x.explainer for name, x in loaded.items()}
    methods = make_methods(
        hparams["methods"],
        explainers,
        hparams["optimised_steps"],
        hparams["seed"],
    )
    other = None
    judge = {
        "embedding_model": hparams["judge_embedding_model"],
        "classifier": hparams["judge_classifier"],
    }
    if hparams["judge_folder"] is not None:
        other = load_judge(
            hparams["judge_folder"],
            hparams["judge_features"],
            frontend(hparams),
            judge,
            interpreter.classes,
            output_folder / "judge",
            device,
        )
    identity = {
        "seed": hparams["seed"],
        "interpreters": models_sha256(loaded),
        "judge": weights_sha256(*judge.values()) if other else None,
        "methods": ", ".join(methods),
        "settings": str(hparams["settings"]),
        **{
            key: str(hparams[key])
            for key in ("split", "shares", "n_clips", "optimised_steps")
        },
    }
    log_to_console()
    with lock_folder(output_folder):
        dataset, settings, regions = prepare(hparams, interpreter, identity)
        claim_folder(output_folder, hparams["manifest_folder"], **identity)
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=output_folder,
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )
        grid = Grid(
            interpreter.explainer,
            methods,
            settings,
            hparams["shares"],
            interpreter.classes,
            output_folder / "rows",
            other,
            regions,
            device,
        )
        with tqdm(
            total=len(dataset.n_samples) * len(settings) * len(methods),
            unit="clip",
            disable=run_opts.get("noprogressbar"),
        ) as bar:
            rows, seconds = grid.run(dataset, hparams["batch_size"], bar.update)
        origin = provenance(
            split=split,
            data_sha256=data_sha256(hparams["manifest_folder"]),
            **{key: hparams[key] for key in ("seed", "interpreter")},
        )
        write(output_folder, rows, seconds, methods, origin)
    failed = [row for row in rows if row.get("error")]
    for row in failed:
        print(f"{row['setting']}, {row['method']}, {row['id']}: {row['error']}")
    if failed:
        raise LMACError(f"{len(failed)} rows failed, see {output_folder}")


if __name__ == "__main__":
    main()
