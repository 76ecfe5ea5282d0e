"""Turn a finished run into a folder that anyone can load."""

import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

import torch
import yaml

import lmac_sb
from lmac_sb.data.manifest import read_entries
from lmac_sb.inference.interpreter import LMACInterpreter, name_of
from lmac_sb.inference.saved import CLASSIFIER
from lmac_sb.metrics.summary import markdown_table
from lmac_sb.models.classifier_folder import load_classifier, save_labels
from lmac_sb.models.source import (
    HPARAMS,
    is_local,
    make_objects,
    room_beside,
)
from lmac_sb.models.weights import load_strict, write_weights
from lmac_sb.training.arguments import SCRIPTS
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.identity import EXPERIMENT, weights_identity
from lmac_sb.utils.checksums import SUMS, check_sums, write_sums
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.given import check_file, read_given
from lmac_sb.utils.io import (
    first_line,
    folder_in_one_step,
    is_free,
    is_leftover,
    read_json,
    remove_parts,
    restore_folder,
    write_json,
)
from lmac_sb.utils.portable import portable
from lmac_sb.utils.seal import SEAL, is_sealed
from lmac_sb.utils.yaml_safety import compose_bounded, one_line, safe_yaml

__all__ = ["data_of_run", "export_run", "load_interpreter", "push"]

logger = logging.getLogger(__name__)

# Objects in a run's yaml that make up the model.
PARTS = (
    "preprocess",
    "features",
    "embedding_model",
    "classifier",
    "frozen_classifier",
    "decoder",
    "explainer",
    "label_encoder",
)
# Scripts whose runs have all of these.
DECODERS = ("train_lmac.py", "train_l2i.py", "train_multilabel.py")
FAMILIARITY = "familiarity"  # one more, of runs that measured it
# Those with weights; features have some only if they learn statistics.
WEIGHTS = ("features", "embedding_model", "classifier", "decoder", FAMILIARITY)

# What the card says of how the model was made, beside the data.
MADE = ("command", "commit", "python", "torch", "speechbrain", "seed")

HEADER = """\
# A sound classifier and its explanations by L-MAC, for
# lmac_sb.LMACInterpreter.from_hparams. Written by `lmac export`.

"""

FOOTER = """
modules:
    explainer: !ref <explainer>

pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        label_encoder: !ref <label_encoder>
"""

CARD = """\
---
license: {license}
library_name: speechbrain
pipeline_tag: audio-classification
tags: [audio-classification, explainability, L-MAC, lmac-sb]
---
# {title}

A sound classifier of {n_classes} classes that explains its decisions with
L-MAC, listenable maps for audio classifiers
([arXiv 2403.13086](https://arxiv.org/abs/2403.13086)): what the decision rests
on is kept as a sound.

```python
from lmac_sb import LMACInterpreter

interpreter = LMACInterpreter.from_hparams("{source}"{trusted})
explanation = interpreter.explain_file("sound.wav")
explanation.save("explained")
```

Classes: {classes}.

## Licence

{license}. The sounds that it was trained on may have terms of their own.

## Training

```
{command}
```

lmac-sb {version}, commit {commit}, Python {python}, torch {torch}, speechbrain
{speechbrain}, seed {seed}, epoch {epoch}.

## Data

{data}

## Results

Mean over the test clips ± half the width of its 95 % bootstrap interval.

{table}

{accuracy}
## Files

`SHA256SUMS` holds the checksums of all files; a folder with a changed file is
not loaded. Weights are safetensors: loading them runs no code.
{example}"""


UNVOUCHED = """
These figures have no checksum: nothing shows whether they are those of a test.
"""

_OLD_S = 24 * 3600  # of an unfinished folder that nobody writes to any more


def export_run(
    run_folder,
    out_folder,
    license="apache-2.0",
    repository=None,
    trusted=False,
):
    """Write the model of a finished L-MAC run to a separate folder.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of `train_lmac.py`.
    out_folder : str or Path
        Must not exist yet, or be empty; appears complete or not at all.
    license : str
        Licence of the model, for its card.
    repository : str
        Id of the hub repository for which it is meant, for its card.
    trusted : bool
        Whether the run's yaml may make any object and call any function.

    Returns
    -------
    pathlib.Path
        The folder, see `lmac_sb.LMACInterpreter.from_hparams`.

    Raises
    ------
    LMACError
        If the run is incomplete, its parts do not belong together, or its
        yaml asks for what is not allowed.
    """
    run, out = Path(run_folder), Path(out_folder)
    if not is_free(out):
        raise LMACError(f"{out}: already exists; choose another folder")
    _check_no_model(run)
    text, hparams, classifier, results = _load_run(run, trusted)
    vouched = _are_vouched(results, "results.json", run)
    tested = classifier.get("results")
    if isinstance(tested, dict):
        of = f"classifier of {run}"
        vouched &= _are_vouched(tested, "config.json", of)
        tested.pop(SEAL, None)
    config = _config(hparams, classifier, results, license)
    try:
        with folder_in_one_step(out) as part:
            _sweep(part.parent)
            trusted &= not _write_model(part, text, hparams)
            write_json(part / "config.json", config)
            more = {
                "trusted": trusted,
                "example": _copy_example(run, part),
                "vouched": vouched,
            }
            card = _card(repository or out.name, config, run, **more)
            (part / "README.md").write_text(card, encoding="utf-8")
            write_sums(part)
            # Check that the export can be loaded.
            LMACInterpreter.from_hparams(part, trusted=trusted)
    except OSError as error:
        raise LMACError(
            f"{out}: cannot be written ({first_line(error)})"
        ) from error
    return out


def _sweep(folder):
    """Delete what exports that were killed have left in a folder.

    The next export has another name as a rule, so nothing else does.
    """
    remove_parts(folder)
    # Of another machine, or of a process whose number has another one now.
    for path in folder.glob(".*.part"):
        if is_leftover(path.name):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _OLD_S:
                    shutil.rmtree(path)


def _write_model(part, text, hparams):
    """Write yaml, weights and labels; whether they load without trust."""
    for name in WEIGHTS:
        if name in hparams and hparams[name].state_dict():
            write_weights(part / f"{name}.safetensors", hparams[name])
            text += f"        {name}: !ref <{name}>\n"
    (part / HPARAMS).write_text(text, encoding="utf-8")
    save_labels(hparams["label_encoder"], part / "label_encoder.txt")
    return _is_safe(text)


def load_interpreter(source, trusted=False, run_opts=None):
    """Load an interpreter from a run's folder or an exported one.

    Arguments
    ---------
    source : str or Path
        Folder of a finished run, exported folder, or id of a hub repository.
    trusted : bool
        See `LMACInterpreter.from_hparams`; of a run too.
    run_opts : dict
        As of SpeechBrain's `Pretrained`.

    Returns
    -------
    lmac_sb.inference.interpreter.LMACInterpreter

    Raises
    ------
    LMACError
        If the folder cannot be loaded.
    """
    kept = Path(source) / "interpreter"  # of a run of lmac_any.yaml
    if (kept / CLASSIFIER).is_file():
        if not trusted:
            check_file(kept / CLASSIFIER, folder=source)
        source = kept
    if not _is_run(source):
        return LMACInterpreter.from_hparams(
            source, trusted=trusted, run_opts=run_opts
        )
    _, hparams, _, _ = _load_run(Path(source), trusted)
    interpreter = LMACInterpreter(
        hparams["modules"], hparams, run_opts=run_opts
    )
    interpreter.model_name = name_of(source)
    return interpreter


def data_of_run(source):
    """Where the clips lie that a run was trained on.

    Arguments
    ---------
    source : str or Path
        As of `load_interpreter`.

    Returns
    -------
    pathlib.Path
        The folder; None of what is no run.

    Raises
    ------
    LMACError
        If the folder is not where it was.
    """
    if not _is_run(source):
        return None
    run = Path(source)
    _, settings = _read_run(run / HPARAMS)
    for key in ("data_folder", "scenes_folder"):
        folder = yaml.load(settings.get(key, "null"), yaml.SafeLoader)
        if folder is not None:
            return _locate(run, folder, settings["output_folder"], key)
    return None


def _is_run(source):
    """Whether a folder is a run's; an exported one is none."""
    # That has checksums, whatever else lies in it.
    is_run = (Path(source) / EXPERIMENT).is_file()
    return is_run and not (Path(source) / SUMS).exists()


def push(folder, repository):
    """Upload an exported folder to a hub.

    Arguments
    ---------
    folder : str or Path
        Folder written by `export_run`.
    repository : str
        Id, ``name/repository``; created if it does not exist.

    Returns
    -------
    str
        URL of the upload.

    Raises
    ------
    LMACError
        If a file has changed, or the hub refuses the upload.
    """
    from huggingface_hub import HfApi

    check_sums(folder)
    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message="Upload by lmac export",
        )
    except Exception as error:
        # Hub errors have no common class, and several lines.
        reason = " ".join(str(error).split())
        raise LMACError(
            f"{repository}: cannot be pushed ({type(error).__name__}: {reason})"
        ) from error
    return str(done)


def _load_run(run, trusted):
    """The yaml, the loaded objects, the classifier's config, the results."""
    if not run.is_dir():
        raise LMACError(f"{run}: no such run folder")
    text, settings = _read_run(run / HPARAMS)
    checkpoint = _find_checkpoint(run, settings)
    source = _locate(
        run, settings["classifier_folder"], settings["output_folder"]
    )
    # Where training has put what comes from a hub.
    place = source if Path(source).is_dir() else run / "save" / "classifier"
    hparams = _make(run, text, (checkpoint.path, place), trusted)
    load_strict(hparams["decoder"], checkpoint.paramfiles["decoder"])
    if FAMILIARITY in hparams:
        path = run / f"{FAMILIARITY}.safetensors"
        check_file(path, folder=run)
        load_strict(hparams[FAMILIARITY], path)
    classifier = _load_classifier(run, hparams, source)
    results = _read_results(run / "results.json", checkpoint.meta["epoch"])
    return text, hparams, classifier, results


def _read_results(path, epoch):
    """The results of a run, if they are those of this epoch."""
    results = _read_json(path)
    try:
        found = float(results["provenance"]["epoch"])
        if not results["summary"]:
            raise KeyError("summary")
        for key in MADE:
            _ = results["provenance"][key]
        markdown_table(results["summary"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LMACError(
            f"{path}: holds no {one_line(error)}; train_lmac.py writes it"
        ) from error
    if found != epoch:
        raise LMACError(
            f"{path}: results of epoch {found:g}, but the best checkpoint is "
            f"of epoch {epoch:g}; run the training command again to test it"
        )
    return results


def _are_vouched(figures, name, place):
    """Whether figures have their checksum; an error if they were changed."""
    if is_sealed(figures, name):
        return True
    if isinstance(figures, dict) and SEAL in figures:
        raise LMACError(
            f"{place}: {name} was changed since the test wrote it; run the "
            "training command again, which tests again"
        )
    logger.warning(
        "%s: %s has no checksum; the model card says that nothing shows "
        "whether its figures are those of a test",
        place,
        name,
    )
    return False


def _read_run(path):
    """The yaml of the model alone, and the run's settings as text."""
    if not path.exists():
        raise LMACError(
            f"{path}: no such file, expected a run of train_lmac.py"
        )
    root = compose_bounded(read_given(path, folder=path.parent), path)
    nodes = {key.value: node for key, node in root.value}
    expected = (*PARTS, "classifier_folder", "output_folder", "select_key")
    missing = [name for name in expected if name not in nodes]
    if missing:
        _check_script(path.parent, nodes)
        raise LMACError(f"{path}: key '{missing[0]}' is missing")
    settings = {
        name: node.value
        for name, node in nodes.items()
        if isinstance(node, yaml.ScalarNode)
    }
    for name in ("classifier_folder", "output_folder", "select_key"):
        if name not in settings:
            raise LMACError(f"{path}: key '{name}' is no text")
    names = {id(n): k for k, n in nodes.items() if n.tag.startswith("!")}
    kept, new = {}, [*PARTS]
    if FAMILIARITY in nodes:
        measured = path.with_name(f"{FAMILIARITY}.safetensors")
        if measured.is_file():
            new.append(FAMILIARITY)
        else:
            logger.warning(
                "%s: no such file, so nobody is told of strange sounds; run "
                "the training command again, which writes it",
                measured,
            )
    while new:
        name = new.pop()
        if name not in kept:
            kept[name] = _rewrite(nodes[name], names, new, top=True)
    blocks = []
    for name in nodes:
        if name in kept:
            key = yaml.ScalarNode("tag:yaml.org,2002:str", name)
            block = yaml.MappingNode(
                "tag:yaml.org,2002:map", [(key, kept[name])]
            )
            blocks.append(yaml.serialize(block, indent=4, allow_unicode=True))
    return HEADER + "\n".join(blocks) + FOOTER, settings


def _check_script(run, keys):
    """Say of a run of another script, by its keys, what it is."""
    owners = [script for key, script in SCRIPTS.items() if key in keys]
    if not owners or owners[0] in DECODERS:
        return
    said = f"{run}: found a run of {owners[0]}, expected one with a decoder, "
    said += f"as of {DECODERS[0]}"
    if owners[0] == "train_classifier.py":
        said += f"; train it with --classifier_folder {run / 'model'}"
    raise LMACError(said)


def _check_no_model(run):
    """Refuse what needs no export: others can load it as it is."""
    for folder in (run, run / "interpreter"):
        if (folder / CLASSIFIER).is_file() or (folder / SUMS).is_file():
            raise LMACError(
                f"{folder}: found a model that can be loaded as it is, "
                f"expected a run of {DECODERS[0]}"
            )


def _rewrite(node, names, found, top=False):
    """Copy of a yaml node; objects that have their own key become !ref."""
    if not top and id(node) in names:
        found.append(names[id(node)])
        return yaml.ScalarNode("!ref", f"<{names[id(node)]}>")
    if isinstance(node, yaml.ScalarNode):
        value = node.value
        if node.tag == "tag:yaml.org,2002:null":
            value = "null"
        return yaml.ScalarNode(node.tag, value, style=node.style)
    if isinstance(node, yaml.SequenceNode):
        items = [_rewrite(item, names, found) for item in node.value]
        return yaml.SequenceNode(node.tag, items, flow_style=node.flow_style)
    items = [
        (_rewrite(key, names, found), _rewrite(value, names, found))
        for key, value in node.value
    ]
    return yaml.MappingNode(node.tag, items, flow_style=node.flow_style)


def _find_checkpoint(run, settings):
    """The best checkpoint of a run, which holds a decoder."""
    key = settings["select_key"]
    largest = settings.get("select_largest", "false").lower() == "true"
    checkpoint = best_checkpoint(run / "save", key, largest)
    if checkpoint is None:
        raise LMACError(
            f"{run / 'save'}: found no intact checkpoint with '{key}'"
        )
    for name in ("epoch", key):
        if not isinstance(checkpoint.meta.get(name), (int, float)):
            raise LMACError(
                f"{checkpoint.path}: '{name}' is no number in CKPT.yaml"
            )
    if "decoder" not in checkpoint.paramfiles:
        raise LMACError(f"{checkpoint.path}: holds no decoder.ckpt")
    return checkpoint


def _make(run, text, folders, trusted):
    """The objects of a run's yaml; of what others wrote, only safe ones."""
    if trusted:
        return make_objects(text, run / HPARAMS)
    text = safe_yaml(text, run / HPARAMS)
    room = sum(map(room_beside, folders))
    hparams = make_objects(text, run / HPARAMS, room)
    LMACInterpreter._check_parts(hparams["modules"], hparams)
    LMACInterpreter._check_work(hparams, run / HPARAMS)
    return hparams


def _load_classifier(run, hparams, source):
    """Load the classifier that the run explained; returns its config."""
    config = load_classifier(
        source,
        {name: hparams[name] for name in ("embedding_model", "classifier")},
        hparams["label_encoder"],
        run / "save" / "classifier",
    )
    claimed = _read_json(run / EXPERIMENT)
    for key in ("classifier_folder", "sha256"):
        claimed = claimed.get(key) if isinstance(claimed, dict) else None
    found = weights_identity(source, hparams["frozen_classifier"])
    if claimed != found["sha256"]:
        raise LMACError(
            f"{source}: not the classifier that {run} was trained on; it has "
            "been replaced since then"
        )
    return config


def _locate(run, folder, output_folder, key="classifier_folder"):
    """Path of a folder in the run's yaml, or the id of a hub repository.

    The folder may be relative to where the run was started.
    """
    places = [Path(folder)]
    tail = Path(output_folder).parts
    base = run.resolve()
    if base.parts[-len(tail) :] == tail:
        places.insert(0, Path(*base.parts[: -len(tail)]) / folder)
    for place in places:
        restore_folder(place)
        if place.is_dir():
            return place
    if not is_local(folder):
        return folder
    looked = ", ".join(os.path.abspath(place) for place in places)
    start = "; it is relative to where the run was trained, so start there"
    if Path(folder).is_absolute():
        start = ""
    raise LMACError(
        f"{key}: {folder} does not exist, looked at {looked}{start}"
    )


def _read_json(path):
    """Content of a JSON file that a finished run has."""
    if not path.exists():
        raise LMACError(f"{path}: no such file; the run is not finished")
    check_file(path, folder=path.parent)
    return read_json(path)


def _copy_example(run, part):
    """Copy an explained test clip; returns its name, or None without one."""
    clips = sorted((run / "interpretations" / "test").glob("*/original.*"))
    if not clips:
        return None
    clip = clips[0].parent
    shutil.copytree(clip, part / "example" / clip.name)
    return clip.name


def _is_safe(text):
    """Whether the yaml uses only classes that are allowed untrusted."""
    try:
        safe_yaml(text, HPARAMS)
    except LMACError:
        return False
    return True


def _config(hparams, classifier, results, license):
    """Facts about the model, for programs."""
    features, names = hparams["features"], hparams["label_encoder"].ind2lab
    return {
        "lmac_sb": lmac_sb.__version__,
        "torch": torch.__version__,
        "license": license,
        "sample_rate": features.sample_rate,
        "signal_length_s": hparams["preprocess"].signal_length_s,
        "classes": [names[c] for c in range(len(names))],
        "classifier": portable(classifier),
        "provenance": portable(results["provenance"]),
        "results": results["summary"],
    }


def _card(title, config, run, trusted, example, vouched):
    """Text of the model card."""
    made = config["provenance"]
    accuracy = ""
    tested = config["classifier"].get("results", {}).get("test", {})
    if "accuracy" in tested:
        accuracy = (
            f"Accuracy of the classifier: {100 * tested['accuracy']:.1f} %.\n"
        )
    note = ""
    if example:
        note = (
            f"\n`example/{example}` is a test clip: `original`, "
            "`interpretation` (what the decision rests on) and `residual`.\n"
        )
    sizes = []
    for split in ("train", "valid", "test"):
        clips = read_entries(run / "manifests" / f"{split}.jsonl")
        sizes.append(f"{sum(1 for _ in clips)} {split}")
    data = f"{Path(made['data_folder']).name}: {', '.join(sizes)} clips."
    return CARD.format(
        title=title,
        source=title,
        trusted=", trusted=True" if trusted else "",
        n_classes=len(config["classes"]),
        classes=", ".join(config["classes"]),
        license=config["license"],
        version=config["lmac_sb"],
        data=f"{data} Test folds: {made['test_folds']}.",
        table=markdown_table(config["results"]),
        accuracy=accuracy + ("" if vouched else UNVOUCHED),
        example=note,
        **{key: made[key] for key in MADE},
        epoch=f"{made['epoch']:g}",
    )
