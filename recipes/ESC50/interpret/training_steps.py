"""What the training scripts share: data, classifier, training, results."""

import os
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
from esc50_prepare import prepare_esc50
from speechbrain.utils.distributed import if_main_process, run_on_main

from lmac_sb.data.dataset import check_labels
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.classifier_folder import (
    is_local,
    load_classifier,
    save_classifier,
)
from lmac_sb.models.weights import weights_sha256
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.experiment import (
    check_folder,
    check_frontend,
    check_multilabel,
    data_sha256,
    frontend,
    make_datasets,
)
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_csv, write_json
from lmac_sb.utils.provenance import provenance


def prepare_classes(hparams, label_encoder, clips, sounds):
    """Name the classes; returns the data sets.

    `clips` are options of `prepare_esc50`, `sounds` are of `make_datasets`.
    """
    run_on_main(
        prepare_esc50,
        kwargs={
            **clips,
            "accept": partial(
                check_folder,
                hparams["output_folder"],
                seed=hparams["seed"],
                n_classes=hparams["n_classes"],
            ),
        },
    )
    datasets = make_datasets(
        manifest_folder=clips["manifest_folder"],
        label_encoder=label_encoder,
        epoch_counter=hparams["epoch_counter"],
        seed=hparams["seed"],
        events=False,
        **sounds,
    )
    # Sorted names, so that a class has one index whatever the folds are.
    with datasets["train"].output_keys_as(["class_string"]):
        found = sorted({item["class_string"] for item in datasets["train"]})
    label_encoder.update_from_iterable(found)
    label_encoder.expect_len(hparams["n_classes"])
    classes = list(label_encoder.lab2ind)
    if len(classes) != hparams["n_classes"]:
        raise LMACError(
            f"n_classes: {hparams['n_classes']}, but the data has "
            f"{len(classes)} classes ({', '.join(classes[:5])}, …): "
            f"give --n_classes {len(classes)}"
        )
    return datasets


def train_classifier(brain, hparams, datasets, loader_options, model_folder):
    """Train, test, and write the model folder."""
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=loader_options,
        valid_loader_kwargs=loader_options,
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=loader_options)
    results = provenance(
        test_folds=hparams["test_fold_nums"],
        seed=hparams["seed"],
        epoch=brain.tested.meta["epoch"],
        valid=brain.tested.meta,
        test=brain.test_stats,
        data_sha256=data_sha256(hparams["manifest_folder"]),
        hyperparams=(
            Path(hparams["output_folder"]) / "hyperparams.yaml"
        ).read_text("utf-8"),
    )
    run_on_main(
        save_classifier,
        kwargs={
            "folder": model_folder,
            "modules": {
                "embedding_model": hparams["embedding_model"],
                "classifier": hparams["classifier"],
            },
            "label_encoder": hparams["label_encoder"],
            "config": {
                "frontend": frontend(hparams),
                "multilabel": brain.multilabel,
                "results": results,
            },
        },
    )
    if if_main_process():
        print(f"classifier: {model_folder}")


def train_scenes_classifier(hparams, source, recipe_name, script_name):
    """Train the default classifier on the embedded scenes, if there is none.

    With data of the user's own the command to run is told instead.
    """
    if source is None:
        raise LMACError("classifier_folder: null, a classifier is needed")
    if recipe_name is None or not is_local(source):
        return
    folder = Path(source)
    if folder.is_dir():
        return
    script = Path(__file__).resolve().parent / script_name
    recipe = script.parent / "hparams" / recipe_name
    command = [
        "python",
        os.path.relpath(script),
        os.path.relpath(recipe),
        f"--seed={hparams['seed']}",
        f"--output_folder={folder.parent}",
        f"--model_folder={folder}",
    ]
    if hparams["data_folder"] is not None:
        command += [
            f"--data_folder={hparams['data_folder']}",
            f"--n_classes={hparams['n_classes']}",
            f"--signal_length_s={hparams['signal_length_s'] or 'null'}",
            *(
                f"--{key}={hparams[key]}".replace(" ", "")
                for key in (
                    "train_fold_nums",
                    "valid_fold_nums",
                    "test_fold_nums",
                )
            ),
        ]
        raise LMACError(
            f"classifier_folder: {folder} does not exist; train a classifier "
            f"first: {shlex.join(command)}"
        )
    command.append(f"--scenes_folder={hparams['scenes_folder']}")
    print(f"no classifier in {folder}, training one first", flush=True)
    print("+", shlex.join(command), flush=True)
    # One process, whatever launcher this one runs under.
    lone = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {k: v for k, v in os.environ.items() if k not in lone}
    command[0] = sys.executable
    done = subprocess.run(command, env=environment)
    if done.returncode:
        raise LMACError(f"{script.name}: failed, see above")


def spread(ids, n_clips):
    """Some of the clips, evenly spread over their order."""
    n_clips = min(n_clips, len(ids))
    return {ids[len(ids) * i // n_clips] for i in range(n_clips)}


def find_interpreter(hparams, source):
    """Weights of the trained decoder that fine-tuning starts from."""
    if source is None:
        raise LMACError(
            "pretrained_interpreter: fine-tuning needs the run folder of a "
            "trained decoder: --pretrained_interpreter results/lmac/1234"
        )
    source = Path(source)
    if source.resolve() == Path(hparams["output_folder"]).resolve():
        raise LMACError(
            f"output_folder: {source} is the run that fine-tuning starts "
            "from; it needs a folder of its own"
        )
    if source.is_file():
        return source
    best = best_checkpoint(
        source / "save", hparams["select_key"], hparams["select_largest"]
    )
    if best is None:
        raise LMACError(
            f"pretrained_interpreter: {source} holds no intact checkpoint "
            f"with '{hparams['select_key']}' in save/"
        )
    return best.paramfiles["decoder"]


def prepare_explained(
    hparams,
    classifier_folder,
    classifier_recipe,
    label_encoder,
    clips,
    sounds,
    classifier_script="train_classifier.py",
):
    """Load the classifier with its classes; returns the data sets.

    `clips` are options of `prepare_esc50`, `sounds` are of `make_datasets`.
    """
    run_on_main(
        train_scenes_classifier,
        args=[hparams, classifier_folder, classifier_recipe, classifier_script],
    )
    config = load_classifier(
        classifier_folder,
        {
            "embedding_model": hparams["embedding_model"],
            "classifier": hparams["classifier"],
        },
        label_encoder,
        Path(hparams["save_folder"]) / "classifier",
    )
    check_frontend(config.get("frontend", {}), hparams, classifier_folder)
    check_multilabel(
        config,
        hparams["frozen_classifier"].multilabel,
        classifier_folder,
    )
    run_on_main(
        prepare_esc50,
        kwargs={
            **clips,
            "accept": partial(
                check_folder,
                hparams["output_folder"],
                seed=hparams["seed"],
                classifier=weights_sha256(hparams["frozen_classifier"]),
            ),
        },
    )
    check_labels(clips["manifest_folder"], label_encoder, classifier_folder)
    return make_datasets(
        manifest_folder=clips["manifest_folder"],
        label_encoder=label_encoder,
        epoch_counter=hparams["epoch_counter"],
        seed=hparams["seed"],
        events=True,
        **sounds,
    )


def train_explainer(brain, hparams, datasets, loader_options, save_clips):
    """Train, test, and write the results."""
    brain.clips = {
        stage: spread(datasets[split].data_ids, save_clips)
        for stage, split in (
            (sb.Stage.VALID, "valid"),
            (sb.Stage.TEST, "test"),
        )
    }
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=loader_options,
        valid_loader_kwargs=loader_options,
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=loader_options)
    run_on_main(write_results, kwargs={"hparams": hparams, "brain": brain})


def write_results(hparams, brain):
    """Results by clip, their summary, and where they came from."""
    folder = Path(hparams["output_folder"]).resolve()
    summary = summarize(brain.test_rows, reference=brain.method)
    write_csv(folder / "results.csv", brain.test_rows)
    write_json(
        folder / "results.json",
        {
            "provenance": provenance(
                data_folder=str(hparams["data_folder"] or "embedded scenes"),
                test_folds=hparams["test_fold_nums"],
                seed=hparams["seed"],
                epoch=brain.tested.meta["epoch"],
                data_sha256=data_sha256(hparams["manifest_folder"]),
                hyperparams=(folder / "hyperparams.yaml").read_text("utf-8"),
            ),
            "summary": summary,
        },
    )
    print(markdown_table(summary))
    print(f"figures: {folder / 'results.json'} and results.csv")
    print(f"sounds and pictures: {folder / 'interpretations' / 'test'}")
