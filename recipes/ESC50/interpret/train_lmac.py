#!/usr/bin/env python3
"""Train L-MAC to explain an audio classifier, and fine-tune it.

On the embedded scenes (a classifier is trained first if there is none), and
on ESC-50:

    python train_lmac.py hparams/lmac.yaml
    python train_lmac.py hparams/lmac.yaml --data_folder /path/to/ESC-50 \
        --classifier_folder /path/to/model --n_classes 50

Guided fine-tuning of a finished run:

    python train_lmac.py hparams/lmac_ft.yaml \
        --pretrained_interpreter results/lmac/1234
"""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from esc50_prepare import prepare_esc50
from speechbrain.utils.distributed import if_main_process, run_on_main
from speechbrain.utils.logger import get_logger

from lmac_sb.data.dataset import check_labels
from lmac_sb.data.scenes import make_scenes
from lmac_sb.explain.masking import binarize, ideal_mask
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.shape import mask_area
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.classifier_folder import is_local, load_classifier
from lmac_sb.models.psi import as_mask_decoder
from lmac_sb.models.weights import load_strict, weights_sha256
from lmac_sb.training.brain import LOG_CONFIG, RecipeBrain, gather_rows
from lmac_sb.training.checkpoints import best_checkpoint
from lmac_sb.training.experiment import (
    check_folder,
    check_frontend,
    check_multilabel,
    claim_training,
    data_sha256,
    load_hparams,
    log_to_console,
    make_datasets,
)
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.io import write_csv, write_json
from lmac_sb.utils.lock import lock_folder
from lmac_sb.utils.provenance import provenance

logger = get_logger(__name__)


class LMACBrain(RecipeBrain):
    """Trains the decoder through the frozen classifier."""

    # Name of the method in the tables, and what to do about a mask that
    # keeps everything or nothing.
    method = "lmac"
    levers = ("raise reg_w_l1", "lower reg_w_l1")

    def __init__(self, *args, interpret_period, **kwargs):
        super().__init__(*args, **kwargs)
        self.interpret_period = interpret_period

    def on_stage_start(self, stage, epoch=None):
        """Decode through the distributed wrapper in training only."""
        super().on_stage_start(stage, epoch)
        decoder = self.modules.decoder
        if stage != sb.Stage.TRAIN:
            decoder = getattr(decoder, "module", decoder)
        self.hparams.explainer.decoder = decoder
        self.test_rows = []

    def compute_forward(self, batch, stage):
        """Analysis of the sound, and its explanation."""
        batch = batch.to(self.device)
        explainer = self.hparams.explainer
        analysis = explainer.analyze(batch.sig.data)
        mask = explainer.mask(analysis)
        sounds = stage == sb.Stage.TEST or bool(self.chosen(batch, stage))
        return analysis, explainer.complete(analysis, mask, sounds=sounds)

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records the terms, and the metrics when not training."""
        analysis, explanation = predictions
        labels = batch.class_string_encoded.data[:, 0].to(self.device)
        right = explanation.decision == labels
        guidance = {}
        if self.hparams.finetuning:
            guidance = self.guidance(analysis, explanation, batch, right)
        losses, terms = self.hparams.lmac_loss(
            explanation.mask,
            explanation.logits_in,
            explanation.logits_out,
            explanation.decision,
            **guidance,
        )
        self.record(batch.id, accuracy=right, **terms)
        if stage != sb.Stage.TRAIN:
            self.judge(analysis, explanation, batch, stage)
        return self.mean_loss(losses, batch.id)

    def judge(self, analysis, explanation, batch, stage):
        """Metrics and sounds of explained clips that are not trained on."""
        event = None
        if hasattr(batch, "event"):
            event = self.locate(batch, analysis.stft)
        values = self.measure(explanation, event)
        self.record(batch.id, **values)
        if stage == sb.Stage.TEST:
            self.compare(analysis, explanation, values, event, batch)
        self.write_sounds(explanation, batch, stage)

    def locate(self, batch, stft):
        """Ideal mask of the event of each clip."""
        stem = self.hparams.features.stft(batch.event.data.to(self.device))
        return ideal_mask(stem, stft)

    def measure(self, explanation, event):
        """Metrics of an explanation, [batch] each."""
        return evaluate(explanation, event)

    def guidance(self, analysis, explanation, batch, right):
        """What the guided loss needs: the clean clip within the mixture."""
        features = self.hparams.features
        with torch.no_grad():
            clean = features.magnitude(
                features.stft(batch.clean.data.to(self.device))
            )
        return {
            "log_masked": torch.log1p(
                self.hparams.explainer.masked_in(
                    analysis.magnitude, explanation.mask
                )
            ),
            "log_whole": torch.log1p(analysis.magnitude),
            "log_clean": torch.log1p(clean),
            # The clean clip explains the decision only if it is its class.
            "eligible": right.float(),
        }

    def compare(self, analysis, explanation, values, event, batch):
        """Metrics of the method (`values`), its variants, trivial masks."""
        explainer = self.hparams.explainer
        mask, target = explanation.mask, explanation.decision
        masks, steps = {}, explainer.refine_steps
        if steps:
            refined = explainer.refine(analysis, mask, steps, target)
            masks[f"{self.method}+{steps}"] = refined
        masks[f"{self.method}_binary"] = binarize(mask, 0.5)
        for name, trivial in TRIVIAL_MASKS.items():
            masks[name] = trivial(
                analysis.magnitude, mask_area(mask), self.hparams.seed
            )
        # What a listener hears: the sounds, analysed afresh.
        heard = replace(
            explanation,
            logits_in=explainer.analyze(explanation.waveform).logits,
            logits_out=explainer.analyze(explanation.residual).logits,
        )
        methods = {
            self.method: values,
            f"{self.method}_heard": self.measure(heard, event),
        }
        for name, other in masks.items():
            other = explainer.complete(analysis, other, target, sounds=False)
            methods[name] = self.measure(other, event)
        names = self.hparams.label_encoder.ind2lab
        decisions = [names[c] for c in explanation.decision.tolist()]
        for name, metrics in methods.items():
            columns = {key: x.tolist() for key, x in metrics.items()}
            for place, clip in enumerate(batch.id):
                self.test_rows.append(
                    {
                        "id": clip,
                        "method": name,
                        "label": batch.class_string[place],
                        "decision": decisions[place],
                        **{key: x[place] for key, x in columns.items()},
                    }
                )

    def chosen(self, batch, stage):
        """Places in the batch of the clips to write, if it is time to."""
        epoch = self.hparams.epoch_counter.current
        if stage == sb.Stage.VALID and epoch % self.interpret_period:
            return []
        clips = self.clips.get(stage, ())
        return [i for i, clip in enumerate(batch.id) if clip in clips]

    def sound_folder(self, stage):
        """Where the clips of this stage go."""
        epoch = self.hparams.epoch_counter.current
        name = "test" if stage == sb.Stage.TEST else f"epoch_{epoch:03d}"
        return Path(self.hparams.output_folder) / "interpretations" / name

    def write_sounds(self, explanation, batch, stage):
        """Write the chosen clips of this batch."""
        for place in self.chosen(batch, stage):
            save_clip(
                self.sound_folder(stage) / batch.id[place],
                batch.sig.data[place],
                explanation,
                place,
                self.hparams.features,
                self.hparams.label_encoder.ind2lab,
                batch.class_string[place],
            )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, and after validation keep the last and best checkpoint."""
        stats = self.averages()
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        elif stage == sb.Stage.VALID:
            self.finish_epoch(epoch, stats)
            self.warn_of_collapse(stats)
        else:
            self.log({"epoch": self.tested.meta["epoch"]}, test_stats=stats)
            self.test_rows = gather_rows(self.test_rows)

    def warn_of_collapse(self, stats):
        """Say so when the mask keeps everything or nothing."""
        area = stats["area"]
        more, less = self.levers
        for gone, what, lever in (
            (area > 0.95, "ones", more),
            (area < 0.005, "zeros", less),
        ):
            if gone:
                logger.warning(
                    "the mask has collapsed to all %s (area %.3f): %s",
                    what,
                    area,
                    lever,
                )


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


def find_interpreter(hparams):
    """Weights of the trained decoder that fine-tuning starts from."""
    source = hparams["pretrained_interpreter"]
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


@exit_on_user_error
def main(argv=None):
    """Train or fine-tune, test, and write results and sounds."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    if hparams["finetuning"]:
        # First of all, so that a mistake touches no folder.
        interpreter = find_interpreter(hparams)
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(make_scenes, args=[data_folder])
        datasets = prepare(
            hparams,
            classifier_folder=hparams["classifier_folder"],
            classifier_recipe=hparams["classifier_recipe"],
            label_encoder=hparams["label_encoder"],
            clips={
                "data_folder": data_folder,
                "manifest_folder": hparams["manifest_folder"],
                "train_fold_nums": hparams["train_fold_nums"],
                "valid_fold_nums": hparams["valid_fold_nums"],
                "test_fold_nums": hparams["test_fold_nums"],
                "download": hparams["download"],
                "skip_bad_clips": hparams["skip_bad_clips"],
            },
            sounds={
                "preprocess": hparams["preprocess"],
                "wham_folder": hparams["wham_folder"],
                "snr_db": hparams["snr_db"],
                "noisy_splits": hparams["noisy_splits"],
                "audio_cache": hparams["audio_cache"],
            },
        )

        # Decoder
        hparams["modules"]["decoder"] = as_mask_decoder(hparams["decoder"])
        if hparams["finetuning"]:
            load_strict(hparams["decoder"], interpreter)
        claim_training(
            hparams,
            classifier=weights_sha256(hparams["frozen_classifier"]),
            # Random before stage 1, and so part of the seed.
            starting_decoder=weights_sha256(hparams["decoder"]),
        )
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = LMACBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
            seed=hparams["seed"],
            number_of_epochs=hparams["number_of_epochs"],
            lr_annealing=hparams["lr_annealing"],
            train_logger=hparams["train_logger"],
            select_key=hparams["select_key"],
            select_largest=hparams["select_largest"],
            interpret_period=hparams["interpret_period"],
        )
        if hparams["use_tensorboard"] and if_main_process():
            brain.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                hparams["tensorboard_folder"]
            )
        train(
            brain,
            hparams,
            datasets,
            loader_options=hparams["dataloader_options"],
            save_clips=hparams["save_clips"],
        )


# Other scripts use what follows. They say by name which keys of their yaml
# files it reads, so that SpeechBrain's check finds them in each script.


def prepare(
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


def train(brain, hparams, datasets, loader_options, save_clips):
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


if __name__ == "__main__":
    main()
