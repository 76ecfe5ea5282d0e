"""Steps that the training scripts share: data, classifier, results."""

import json
import os
import random
import shlex
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
import yaml
from preparation import check_scenes, prepare_clips
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger
from torch import distributed

from lmac_sb.data.columns import listed
from lmac_sb.data.dataset import check_labels
from lmac_sb.evaluation.results import report_failures, write_rows
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.summary import markdown_table, summarize, tellable
from lmac_sb.models.classifier_folder import load_classifier, save_classifier
from lmac_sb.models.source import is_local
from lmac_sb.models.weights import load_strict, write_weights
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.experiment import (
    FRONTEND,
    check_frontend,
    check_multilabel,
    check_sizes,
    frontend,
    make_datasets,
)
from lmac_sb.training.identity import read_claim, weights_identity
from lmac_sb.utils.console import Loudness, get_loudness, say, set_loudness
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import restore_folder, write_json
from lmac_sb.utils.portable import portable
from lmac_sb.utils.program import program
from lmac_sb.utils.provenance import provenance
from lmac_sb.utils.seal import seal

logger = get_logger(__name__)

FOLDS = ("train_fold_nums", "valid_fold_nums", "test_fold_nums")
FAMILIAR_CLIPS = 1000  # of a split, on which usual distances are measured
# Keys that a classifier and the run that explains it have in common.
SHARED = (
    *FRONTEND,
    *FOLDS,
    "scenes_folder",
    "clips_per_class",
    "extra_scene_folds",
    "shortcuts",
    "n_events",
    "n_classes",
    "signal_length_s",
    "channels",
    "emb_dim",
    "n_blocks",
    "n_heads",
    "patch",
    "stem",
    "audio_cache",
)


def prepare_classes(claim, hparams, clips, sounds):
    """Prepare the data and name the classes; returns the data sets.

    `clips` are options of `prepare_clips`.
    """
    run_on_main(prepare_clips, args=[claim, hparams], kwargs=clips)
    datasets = make_datasets(
        clips["manifest_folder"],
        sounds,
        hparams["epoch_counter"],
        hparams["seed"],
    )
    label_encoder = sounds.label_encoder
    # Sorted, so that the index of a class does not depend on the folds.
    with datasets["train"].output_keys_as(["class_string"]):
        found = sorted({item["class_string"] for item in datasets["train"]})
    label_encoder.update_from_iterable(found)
    label_encoder.expect_len(hparams["n_classes"])
    classes = list(label_encoder.lab2ind)
    if len(classes) != hparams["n_classes"]:
        raise LMACError(
            f"n_classes: found {hparams['n_classes']}, expected the "
            f"{len(classes)} classes of the data ({listed(classes)}): use "
            f"--n_classes {len(classes)}"
        )
    return datasets


def train_classifier(brain, hparams, datasets, loader_options, model_folder):
    """Train, test, and write the model folder."""
    fit_and_test(brain, hparams, datasets, loader_options)
    results = origin(hparams, brain, valid=brain.tested.meta, test=brain.stats)
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
                "results": seal(portable(results), "config.json"),
            },
        },
    )
    if if_main_process():
        say(f"classifier: {model_folder}", Loudness.QUIET)


def fit_and_test(brain, hparams, datasets, loader_options):
    """Train, and test the best checkpoint."""
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=loader_options,
        valid_loader_kwargs=loader_options,
    )
    brain.evaluate(datasets["test"], test_loader_kwargs=loader_options)


def origin(hparams, brain, **more):
    """Provenance of the results of a tested run."""
    yaml_file = Path(hparams["output_folder"]) / "hyperparams.yaml"
    return provenance(
        test_folds=hparams["test_fold_nums"],
        seed=hparams["seed"],
        epoch=brain.tested.meta["epoch"],
        data_sha256=read_claim(hparams)["data"]["sha256"],
        **more,
        hyperparams=yaml_file.read_text("utf-8"),
    )


def find_classifier(hparams, source, recipe, script="train_classifier.py"):
    """Train the default classifier on the embedded scenes, if there is none.

    For the user's own data, raise an error that names the command to run.
    """
    if source is None:
        raise LMACError("classifier_folder: null, expected a classifier")
    restore_folder(source)
    if recipe is None or not is_local(source) or Path(source).is_dir():
        return
    folder = Path(source)
    script = Path(__file__).resolve().parent / script
    recipe = find_recipe(hparams.file, recipe)
    own_data = hparams["data_folder"] is not None
    run = folder.parent
    if folder.name != "model":  # its own place in the folder of a run
        run = folder.with_name(f"{folder.name}_run")
    places = {"output_folder": run, "model_folder": folder}
    if folder == run / "model":
        del places["model_folder"]
    options = {**places, **classifier_options(hparams, recipe, own_data)}
    options = [
        f"--{key}={'null' if value is None else value}"
        for key, value in options.items()
    ]
    if hparams.run_opts["noprogressbar"]:
        options.append("--noprogressbar")
    command = ["python", os.path.relpath(script), os.path.relpath(recipe)]
    caller = program()
    start = [*caller, "train", short_name(recipe)] if caller else command
    shown = [*start, *options]
    command += options
    if own_data:
        raise LMACError(
            f"classifier_folder: {folder} does not exist; train a classifier "
            f"first: {shlex.join(shown)}"
        )
    if if_main_process():
        log = run / "train_log.txt"
        say(f"no classifier in {folder}, training one first: {log}")
        say(f"+ {shlex.join(shown)}", Loudness.VERBOSE)
    loudness = get_loudness()
    verbose = loudness is Loudness.VERBOSE
    command.append("--verbose" if verbose else "--quiet")
    if distributed.is_initialized():
        # On CPUs, several processes cannot train batch normalisation.
        run_on_main(train_alone, args=[command])
        return
    with keep_random_state():
        # Without the decorator that exits on errors: this script has its own.
        import_module(script.stem).main.__wrapped__(command[2:])
    set_loudness(loudness)


def find_recipe(file, name):
    """The yaml file that trains a classifier: beside a run's, or of these."""
    shipped = Path(__file__).resolve().parent / "hparams"
    for folder in (Path(file).parent, shipped):
        if (folder / name).is_file():
            return folder / name
    raise LMACError(
        f"classifier_recipe: {name}: no such file beside {file} or in "
        f"{shipped}, expected a yaml file that trains a classifier"
    )


def short_name(recipe):
    """How `lmac train` may be told of a yaml file."""
    shipped = Path(__file__).resolve().parent / "hparams"
    if shipped in recipe.resolve().parents:
        return str(recipe.resolve().relative_to(shipped).with_suffix(""))
    return os.path.relpath(recipe)


def train_alone(command):
    """Train in one process, even if this one runs under a launcher."""
    lone = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    environment = {k: v for k, v in os.environ.items() if k not in lone}
    done = subprocess.run([sys.executable, *command[1:]], env=environment)
    if done.returncode:
        raise LMACError(f"{command[1]}: failed, see above")


def classifier_options(hparams, recipe, own_data):
    """Options for a classifier that must match the run that explains it.

    On scenes these are the keys changed on the command line, and on other
    data all keys; without those that have the value of its yaml file.
    """

    def texts(content):
        """Yaml with all values as texts."""
        return yaml.load(content, Loader=yaml.BaseLoader)

    asked = texts(hparams.overrides or "{}")
    known = texts(recipe.read_text("utf-8"))
    always = ["seed", "scenes_folder"]
    if own_data:
        always = ["seed", "data_folder", "n_classes", "signal_length_s", *FOLDS]
    options = {
        key: json.dumps(hparams[key], separators=(",", ":"))
        if isinstance(hparams[key], list)
        else hparams[key]
        for key in dict.fromkeys([*always, *SHARED])
        if key in hparams
        and key in known
        and (key in always or key in asked)
        and texts(json.dumps(hparams[key])) != known[key]
    }
    if "device" in hparams.run_opts.overridden_args:
        options["device"] = hparams.run_opts["device"]
    return options


@contextmanager
def keep_random_state():
    """Restore the state of all random generators at the end."""
    state = np.random.get_state(), random.getstate()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(state[0])
        random.setstate(state[1])


def spread(ids, n_clips):
    """Ids of some of the clips, evenly spread over their order."""
    n_clips = min(n_clips, len(ids))
    return {ids[len(ids) * i // n_clips] for i in range(n_clips)}


def find_interpreter(hparams, source, needed):
    """Weights of the trained decoder that training starts from, or None."""
    if source is None:
        if not needed:
            return None
        raise LMACError(
            "pretrained_interpreter: fine-tuning needs the run folder of a "
            "trained decoder: --pretrained_interpreter results/lmac/1234"
        )
    source = Path(source)
    if source.resolve() == Path(hparams["output_folder"]).resolve():
        raise LMACError(
            f"output_folder: {source} is the run that training starts from "
            "(pretrained_interpreter), expected another folder"
        )
    if not source.exists():
        raise LMACError(
            f"pretrained_interpreter: {source} does not exist, expected the "
            "run folder of a trained decoder, or its weights"
        )
    if source.is_file():
        return source
    best = best_checkpoint(
        source / "save", hparams["select_key"], hparams["select_largest"]
    )
    if best is None or "decoder" not in best.paramfiles:
        raise LMACError(
            f"pretrained_interpreter: {source} holds no intact checkpoint "
            f"of a decoder with '{hparams['select_key']}' in save/"
        )
    return best.paramfiles["decoder"]


def start_from(decoder, weights):
    """Load the trained decoder that training starts from, if there is one."""
    if weights is None:
        return
    try:
        load_strict(decoder, weights)
    except LMACError as error:
        raise LMACError(
            f"pretrained_interpreter: {error}; expected a trained decoder of "
            f"the same kind and size as here ({type(decoder).__name__})"
        ) from error


def prepare_explained(claim, hparams, classifier, clips, sounds):
    """Load the classifier and prepare the data; returns the data sets.

    `classifier` are options of `find_classifier`, `clips` of `prepare_clips`.
    """
    classifier_folder = classifier["source"]
    find_classifier(hparams, **classifier)
    config = load_classifier(
        classifier_folder,
        {
            "embedding_model": hparams["embedding_model"],
            "classifier": hparams["classifier"],
        },
        sounds.label_encoder,
        Path(hparams["save_folder"]) / "classifier",
    )
    check_sizes(hparams)
    check_frontend(config.get("frontend", {}), hparams, classifier_folder)
    frozen = hparams["frozen_classifier"]
    check_multilabel(config, frozen.multilabel, classifier_folder)
    found = weights_identity(classifier_folder, frozen)
    run_on_main(claim.check, kwargs={"classifier_folder": found})
    check_scenes(clips, sounds.label_encoder, classifier_folder)
    run_on_main(prepare_clips, args=[claim, hparams], kwargs=clips)
    folder = clips["manifest_folder"]
    check_labels(folder, sounds.label_encoder, classifier_folder)
    return make_datasets(
        folder, sounds, hparams["epoch_counter"], hparams["seed"], events=True
    )


def prepare_adopted(claim, hparams, frozen, clips, sounds):
    """Prepare the data for the classifier of anyone; returns the data sets.

    Its classes need not be those of the data: it is its decisions that are
    explained. Clips of a class that it does not know are decided neither
    rightly nor wrongly.
    `clips` are options of `prepare_clips`.
    """
    found = weights_identity(hparams["model"], frozen)
    run_on_main(claim.check, kwargs={"classifier_folder": found})
    run_on_main(prepare_clips, args=[claim, hparams], kwargs=clips)
    datasets = make_datasets(
        clips["manifest_folder"],
        sounds,
        hparams["epoch_counter"],
        hparams["seed"],
        events=True,
    )
    names, encoder = set(), sounds.label_encoder
    for dataset in datasets.values():
        with dataset.output_keys_as(["class_string"]):
            names |= {item["class_string"] for item in dataset}
    unknown = sorted(names - set(encoder.lab2ind))
    if unknown:
        logger.warning(
            "model: lacks %d of the %d classes of the data (%s), it has %s; no "
            "decision on a clip of these counts as right or wrong. If only "
            "the names differ, give those of the data: --class_names",
            len(unknown),
            len(names),
            listed(unknown),
            listed(list(encoder.lab2ind)),
        )
        name = "<unk>"
        while name in encoder.lab2ind:
            name = f"<{name}>"
        encoder.add_unk(name)
    encoder.expect_len(len(encoder))
    return datasets


def keep_adopted(hparams, interpreter):
    """Write the trained decoder to a folder that `lmac explain` takes."""
    folder = interpreter.save(Path(hparams["output_folder"]) / "interpreter")
    say(f"interpreter: {folder}", Loudness.QUIET)


def starting_decoder(hparams, source=None):
    """The decoder before its training, as part of the run's identity."""
    # Without a source it is random, so it depends on the seed.
    what = source or f"drawn with seed {hparams['seed']}"
    return {"starting_decoder": weights_identity(what, hparams["decoder"])}


def train_explainer(brain, hparams, datasets, loader_options, save_clips):
    """Train, test, and write the results."""
    brain.clips = {
        stage: spread(datasets[split].data_ids, save_clips)
        for stage, split in (
            (sb.Stage.VALID, "valid"),
            (sb.Stage.TEST, "test"),
        )
    }
    fit_and_test(brain, hparams, datasets, loader_options)
    run_on_main(write_results, kwargs={"hparams": hparams, "brain": brain})


def measure_familiarity(familiarity, explainer, datasets, folder):
    """Write what is usual of training and validation clips."""
    heard = {}
    for split in ("train", "valid"):
        clips = datasets[split]
        places = spread(range(len(clips)), FAMILIAR_CLIPS)
        with clips.output_keys_as(["sig", "class_string_encoded"]):
            found = [hear(explainer, clips[place]) for place in sorted(places)]
        heard[split] = [torch.cat(values) for values in zip(*found)]
    embeddings, _, labels = heard["train"]
    familiarity.fit(embeddings, labels, *heard["valid"][:2])
    write_weights(Path(folder) / "familiarity.safetensors", familiarity)


def hear(explainer, item):
    """Embedding, logits and label of a clip of a data set."""
    device = next(explainer.parameters()).device
    logits, embedding = explainer.hear(item["sig"][None].to(device))
    return embedding.cpu(), logits.cpu(), item["class_string_encoded"]


def write_results(hparams, brain):
    """Write the results by clip, their summary and their provenance."""
    folder = Path(hparams["output_folder"])
    columns = [*METRICS, *(f"heard {name}" for name in METRICS)]
    summary = summarize(
        brain.test_rows, reference=brain.method, columns=columns
    )
    write_rows(folder / "results.csv", brain.test_rows)
    results = {
        "provenance": origin(
            hparams,
            brain,
            data_folder=str(hparams["data_folder"] or "embedded scenes"),
        ),
        "summary": summary,
    }
    write_json(folder / "results.json", seal(results, "results.json"))
    say(markdown_table(tellable(summary)), Loudness.QUIET)
    for what, where in (
        ("results", f"{folder / 'results.json'} and results.csv"),
        ("sounds and pictures", folder / "interpretations" / "test"),
    ):
        say(f"{what}: {where}", Loudness.QUIET)
    report_failures(brain.test_rows, folder)
