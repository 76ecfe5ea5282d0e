#!/usr/bin/env python3
"""Evaluate explanations: every method, in every setting, on every clip.

On the embedded scenes, and on ESC-50:

    python eval.py hparams/eval.yaml --interpreter results/lmac/1234
    python eval.py hparams/eval.yaml --interpreter results/esc50_lmac/1234 \
        --data_folder /path/to/ESC-50 --interpreters "{lmac_ft: other_folder}"
    torchrun --nproc_per_node 2 eval.py hparams/eval.yaml
"""

from pathlib import Path

import speechbrain as sb
from preparation import SCENES_FOLDER, check_scenes, prepare_clips
from speechbrain.utils.distributed import run_on_main

from lmac_sb.data.dataset import MultilabelEncoder, thin_out
from lmac_sb.data.manifest import labels_of, read_entries
from lmac_sb.data.regions import read_regions, regions_identity
from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.evaluation.judge import Judge
from lmac_sb.evaluation.models import (
    load_clips,
    load_interpreters,
    load_second_classifier,
    models_identity,
    sources_of,
)
from lmac_sb.evaluation.results import write_results
from lmac_sb.evaluation.runner import Grid
from lmac_sb.inference.export import data_of_run
from lmac_sb.methods.registry import make_methods
from lmac_sb.training.experiment import NOISE_PARTS, frontend, open_run
from lmac_sb.training.hparams import load_hparams
from lmac_sb.training.identity import weights_identity
from lmac_sb.utils.errors import exit_on_user_error
from lmac_sb.utils.provenance import provenance


def load_second(hparams, interpreter, device):
    """The second classifier, or None, and its identity."""
    folder = hparams["judge_folder"]
    modules = {
        "features": hparams["judge_features"],
        "embedding_model": hparams["judge_embedding_model"],
        "classifier": hparams["judge_classifier"],
    }
    if folder is None:
        return None, {"sha256": None, "what": "none"}
    multilabel = interpreter.explainer.classifier.multilabel
    classify = load_second_classifier(
        folder,
        modules,
        {**frontend(hparams), "multilabel": multilabel},
        interpreter.classes,
        Path(hparams["output_folder"]) / "judge",
        device,
    )
    _, *learnt = modules.values()
    return classify, weights_identity(folder, *learnt)


def prepare(claim, hparams, interpreter):
    """Data set, settings, and known active regions of clips."""
    several = isinstance(interpreter.hparams.label_encoder, MultilabelEncoder)
    clips = {**hparams["clips"], "several": several}
    if several and not (clips["data_folder"] or clips["scenes_folder"]):
        # Usual scenes have one event.
        clips["data_folder"] = data_of_run(hparams["interpreter"])
    source = hparams["interpreter"]
    check_scenes(clips, interpreter.hparams.label_encoder, source)
    run_on_main(prepare_clips, [claim, hparams], clips)
    split = hparams["split"]
    dataset = load_clips(hparams["manifest_folder"], split, interpreter, source)
    thin_out(dataset, hparams["n_clips"])
    manifest = Path(hparams["manifest_folder"]) / f"{split}.jsonl"
    entries = dict(read_entries(manifest))
    if several:
        for entry in entries.values():
            entry["labels"] = labels_of(entry["class_string"])
    settings = make_settings(
        hparams["settings"],
        entries,
        interpreter.sample_rate,
        hparams["seed"],
        {
            "wham_folder": hparams["wham_folder"],
            "speech_folder": hparams["speech_folder"],
        },
        NOISE_PARTS[split],
    )
    # Of a clip of several classes, they do not tell which one sounds.
    folder = clips["data_folder"] or clips["scenes_folder"] or SCENES_FOLDER
    regions = {} if several else read_regions(folder)
    identity = {"active_regions": regions_identity(regions)}
    run_on_main(claim.check, kwargs=identity)
    return dataset, settings, regions


def write(claim, hparams, results):
    """Write tables and figures."""
    origin = provenance(
        split=hparams["split"],
        data_sha256=claim.identity["data"]["sha256"],
        **{key: hparams[key] for key in ("seed", "interpreter")},
    )
    write_results(*results, origin)


@exit_on_user_error
def main(argv=None):
    """Evaluate, and write tables and figures."""
    hparams = load_hparams(argv, __file__)
    device = hparams.run_opts["device"] or "cpu"
    output_folder = Path(hparams["output_folder"])
    sources = sources_of(hparams["interpreter"], hparams["interpreters"])
    loaded = load_interpreters(sources, hparams["trusted"], device)
    interpreter = loaded["lmac"]
    methods = make_methods(
        hparams["methods"],
        {name: x.explainer for name, x in loaded.items()},
        hparams["optimised_steps"],
        hparams["seed"],
    )
    other, identity = load_second(hparams, interpreter, device)
    with open_run(hparams, neutral=["batch_size"]) as claim:
        models = models_identity(loaded, sources)
        identity = {"interpreters": models, "judge_folder": identity}
        run_on_main(claim.check, kwargs=identity)
        dataset, settings, regions = prepare(claim, hparams, interpreter)
        run_on_main(claim.take)
        sb.create_experiment_directory(**hparams.directory)
        comparison = Comparison(
            Judge(interpreter.explainer, other),
            methods,
            interpreter.classes,
            hparams["shares"],
        )
        folder = output_folder / "rows"
        grid = Grid(comparison, settings, folder, regions)
        quiet = hparams.run_opts["noprogressbar"]
        rows, seconds = grid.run(dataset, hparams["batch_size"], quiet)
        results = [output_folder, rows, seconds, methods]
        run_on_main(write, [claim, hparams, results])


if __name__ == "__main__":
    main()
