#!/usr/bin/env python3
"""Run the commands behind the tables of docs/ again, and compare.

    python tools/reproduce.py            # all tables for which there is data
    python tools/reproduce.py scenes
    python tools/reproduce.py --commit   # keep the results as the new reference

The reference for each table is its summary in `docs/tables`. A new mean agrees
if it lies in the reference's 95 % bootstrap interval, plus a tolerance for
rounding.
"""

import argparse
import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lmac_sb.metrics.registry import METRICS, unguarded  # noqa: E402

RECIPE = ROOT / "recipes" / "ESC50" / "interpret"
KEPT = ROOT / "docs" / "tables"
KEYS = ("setting", "method", "keep", "subset", "metric")
SLACK = {"%": 1.0, "dB": 1.0, "": 0.01}  # for rounding, by a metric's unit

ESC10 = (
    "--data_folder {data}/esc10 --train_fold_nums [1,2] "
    "--valid_fold_nums [3] --test_fold_nums [4]"
)
MODEL = (
    "--signal_length_s 5 "
    "--classifier_folder results/esc10_classifier/1234/model"
)
JUDGED = (
    f"eval.py hparams/eval.yaml {ESC10} --interpreter results/esc10_lmac/1234 "
    "--interpreters '{{lmac_ft: results/esc10_lmac_ft/1234, "
    "l2i: results/esc10_l2i/1234}}' "
    "--judge_folder results/esc10_classifier/1235/model "
)
CLASSIFIER = (
    f"train_classifier.py hparams/classifier_conv.yaml {ESC10} "
    "--signal_length_s 5 --number_of_epochs 60 --mixup_alpha 0.4 "
    "--experiment_name esc10_classifier --seed "
)
# Table to its commands, in the recipe's folder, and the summary they write.
TABLES = {
    "scenes": (
        [
            "train_lmac.py hparams/lmac.yaml",
            "train_lmac.py hparams/variants/lmac_psi.yaml",
            "eval.py hparams/eval.yaml "
            "--interpreters '{{lmac_psi: results/lmac_psi/1234}}' "
            "--methods '[lmac, lmac+1, lmac+2, lmac+5, lmac+10, lmac+20, "
            "lmac+50, optimised+20, optimised, lmac_psi, lmac_psi+5, gradcam, "
            "integrated_gradients, ideal, ones, random, loudest]' "
            "--settings '[clean, mixture paper]'",
        ],
        "results/eval/1234/summary.csv",
    ),
    "localisation": (
        [
            "train_lmac.py hparams/lmac.yaml",
            "eval.py hparams/eval.yaml --settings '[clean]' --shares '[]' "
            "--experiment_name localisation "
            "--methods '[lmac, lmac+5, optimised+20, gradcam, "
            "integrated_gradients, loudest, ideal, ones, random]'",
        ],
        "results/localisation/1234/summary.csv",
    ),
    "esc10": (
        [
            f"{CLASSIFIER} 1234",
            f"{CLASSIFIER} 1235",
            f"train_lmac.py hparams/lmac.yaml {ESC10} {MODEL} "
            "--number_of_epochs 24 --experiment_name esc10_lmac",
            f"train_lmac.py hparams/lmac_ft.yaml {ESC10} {MODEL} "
            "--wham_folder {data}/noise --pretrained_interpreter "
            "results/esc10_lmac/1234 --experiment_name esc10_lmac_ft",
            f"train_l2i.py hparams/l2i.yaml {ESC10} {MODEL} "
            "--experiment_name esc10_l2i",
            f"{JUDGED} --settings '[clean]' "
            "--methods '[lmac, lmac+1, lmac+2, lmac+5, lmac+10, lmac+20, "
            "lmac+50, lmac_ft, l2i, optimised+20, optimised, saliency, "
            "input_x_gradient, smoothgrad, integrated_gradients, "
            "guided_backprop, gradcam, guided_gradcam, gradient_shap, "
            "deeplift_shap, occlusion, ones, random, loudest, "
            "loudest_frames]' --experiment_name esc10_eval",
        ],
        "results/esc10_eval/1234/summary.csv",
    ),
    # The next two use the models of esc10.
    "esc10_mixed": (
        [
            f"{JUDGED} "
            "--settings '[mixture paper, white paper, speech paper]' "
            "--speech_folder {data}/speech/ljspeech "
            "--methods '[lmac, lmac+5, lmac_ft, l2i, integrated_gradients, "
            "guided_backprop, gradcam, ones, random, loudest, "
            "loudest_frames]' --experiment_name esc10_mixed",
        ],
        "results/esc10_mixed/1234/summary.csv",
    ),
    "esc10_noise": (
        [
            f"train_lmac.py hparams/lmac.yaml {ESC10} {MODEL} "
            "--number_of_epochs 24 --mask_domain log1p "
            "--experiment_name esc10_log1p",
            f"eval.py hparams/eval.yaml {ESC10} "
            "--interpreter results/esc10_lmac/1234 "
            "--interpreters '{{lmac_ft: results/esc10_lmac_ft/1234, "
            "lmac_log1p: results/esc10_log1p/1234}}' "
            "--settings '[clean, mixture paper, noise 20 dB, noise 10 dB, "
            "noise 5 dB, noise 0 dB, noise -5 dB]' --wham_folder {data}/noise "
            "--methods '[lmac, lmac+5, lmac_ft, lmac_log1p, ones, loudest]' "
            "--shares '[]' --experiment_name esc10_noise",
        ],
        "results/esc10_noise/1234/summary.csv",
    ),
}


def read_summary(path):
    """Key to (mean, low, high) of a summary.csv."""
    with open(path, encoding="utf-8", newline="") as file:
        return {
            tuple(row[key] for key in KEYS): tuple(
                float(row[name] or "nan") for name in ("mean", "low", "high")
            )
            for row in csv.DictReader(file)
            if is_kept(row)
        }


def is_kept(row):
    """Whether a row of a summary.csv is compared; those for shares are not."""
    return row["subset"] == "all" and not row["keep"][0].isdigit()


def keep(summary, kept):
    """Copy the rows that are compared, rounded to six digits."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with open(summary, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if is_kept(row)]
    for row in rows:
        for name in ("mean", "low", "high"):
            row[name] = f"{float(row[name] or 'nan'):.6g}"
    with open(kept, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def differences(kept, found):
    """Lines that say where two summaries disagree.

    A metric that no row of the reference has is newer than it.
    """
    known = {key[-1] for key in kept}
    found = {key: x for key, x in found.items() if key[-1] in known}
    lines = [
        f"{' / '.join(key)}: only {where}"
        for where, some, other in (
            ("kept", kept, found),
            ("found", found, kept),
        )
        for key in some
        if key not in other
    ]
    for key in kept.keys() & found.keys():
        (_, low, high), (mean, _, _) = kept[key], found[key]
        metric = METRICS.get(unguarded(key[-1]))
        slack = SLACK[metric.unit if metric else ""]
        undefined = mean != mean and kept[key][0] != kept[key][0]
        if not undefined and not low - slack <= mean <= high + slack:
            lines.append(
                f"{' / '.join(key)}: {mean:.4g} is not in "
                f"[{low - slack:.4g}, {high + slack:.4g}]"
            )
    return sorted(lines)


def data_folder():
    """Folder of the recordings, or None."""
    for place in (os.environ.get("LMAC_SB_DATA"), ROOT.parent / "shared/data"):
        if place and (Path(place) / "esc10").is_dir():
            return Path(place).resolve()
    return None


def run(commands, data):
    """Run commands in the recipe's folder; stop at the first that fails."""
    for command in commands:
        command = command.format(data=data)
        print(f"+ python {command}", flush=True)
        subprocess.run(
            [sys.executable, *shlex.split(command)], cwd=RECIPE, check=True
        )


def main(argv=None):
    """Run and compare the tables; returns 0 if all agree, else 1."""
    parser = argparse.ArgumentParser(
        description="Run the commands behind the tables of docs/, and compare."
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", default=[])
    parser.add_argument(
        "--commit", action="store_true", help="keep the results"
    )
    options = parser.parse_args(argv)
    unknown = sorted(set(options.tables) - set(TABLES))
    if unknown:
        parser.error(
            f"found '{unknown[0]}', expected one of {', '.join(TABLES)}"
        )
    data, bad = data_folder(), 0
    for name in options.tables or TABLES:
        commands, summary = TABLES[name]
        if data is None and any("{data}" in x for x in commands):
            print(f"{name}: skipped, no folder esc10/ in LMAC_SB_DATA")
            continue
        run(commands, data)
        if options.commit:
            keep(RECIPE / summary, KEPT / f"{name}.csv")
            continue
        lines = differences(
            read_summary(KEPT / f"{name}.csv"), read_summary(RECIPE / summary)
        )
        print(f"{name}: {len(lines)} numbers differ from docs/tables")
        print("".join(f"  {line}\n" for line in lines), end="")
        bad += bool(lines)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
