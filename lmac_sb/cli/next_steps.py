"""What can be done with the results of a script, as commands."""

from pathlib import Path

import yaml

from lmac_sb.cli.said import command_line
from lmac_sb.utils.recipe import find_yaml, yaml_names

__all__ = ["after_training"]

# Keys that say where a run writes, and what it starts from: not those of the
# next run.
_OWN = {
    *("experiment_name", "output_folder", "save_folder", "manifest_folder"),
    *("model_folder", "train_log", "tensorboard_folder", "save_clips"),
    *("classifier_folder", "pretrained_interpreter", "finetuning"),
}


def after_training(given):
    """Commands that use a run.

    Arguments
    ---------
    given : lmac_sb.training.arguments.Arguments
        What the run was trained with.

    Returns
    -------
    list of str
        Each works from the folder in which the run was trained.
    """
    if "decoder" not in given.resolved:
        return _after_classifier(given)
    run = Path(given.resolved["output_folder"])
    steps = []
    if "lmac_loss" in given.resolved and "channels" in given.resolved:
        steps += _after_lmac(given, run)
    adopted = run / "interpreter"
    sounds = run / "interpretations" / "test"
    if adopted.is_dir():
        some = next(sounds.glob("*/original.wav"), "FILE")
        words = [some, "--model", adopted, "--out", "explained"]
        steps.append(command_line("explain", *words))
    if sounds.is_dir():
        steps.append(command_line("report", sounds))
    return steps


def _after_lmac(given, run):
    """Fine-tune, evaluate and export a decoder."""
    steps = []
    noise = Path(str(given.resolved.get("scenes_folder")), "noise")
    noisy = given.changed.get("wham_folder", "null") != "null"
    if Path(given.file).stem == "lmac" and (noisy or noise.is_dir()):
        steps.append(
            command_line(
                *("finetune", run),
                *_same(given, "lmac_ft", {"classifier_folder"}),
                *_place(given, "ft"),
            )
        )
    more = [*_same(given, "eval"), *_place(given, "eval")]
    steps.append(command_line("eval", run, *more))
    model = run.with_name(f"{run.name}_model")
    if not model.exists():
        steps.append(command_line("export", run, model))
    return steps


def _after_classifier(given):
    """Train L-MAC to explain a classifier."""
    stem = Path(given.file).stem.replace("classifier_", "lmac_")
    stem = "lmac" if stem == "lmac_conv" else stem
    names = [x for x in yaml_names() if x.split("/")[-1] == stem]
    folder = given.resolved["model_folder"]
    return [
        command_line(
            *("train", name, "--classifier_folder", folder),
            *_same(given, name),
        )
        for name in names
    ]


def _same(given, name, also=()):
    """The changed keys that another yaml file of the recipe has too."""
    text = find_yaml(name).read_text("utf-8")
    known = {*yaml.load(text, Loader=yaml.BaseLoader)}
    return [
        word
        for key, value in given.changed.items()
        if key in known and (key not in _OWN or key in also)
        for word in (f"--{key}", value)
    ]


def _place(given, suffix):
    """Where the next run writes: beside this one, as no two share a folder."""
    for key in ("output_folder", "experiment_name"):
        if key in given.changed or key == "experiment_name":
            return [f"--{key}", f"{given.resolved[key]}_{suffix}"]
    return []
