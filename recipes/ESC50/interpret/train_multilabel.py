#!/usr/bin/env python3
"""Train a classifier of clips of several classes, and L-MAC to explain it.

Each class is decided for itself, and explained for itself. On the embedded
scenes of two or three events (the classifier is trained first if there is
none):

    python train_multilabel.py hparams/lmac_multilabel.yaml

The classifier alone:

    python train_multilabel.py hparams/classifier_multilabel.yaml
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.nn import functional as F

import train_classifier
import train_lmac
from lmac_sb.data.manifest import labels_of
from lmac_sb.data.scenes import make_scenes
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.metrics.localisation import event_auc, event_mass
from lmac_sb.metrics.summary import markdown_table, summarize
from lmac_sb.models.psi import as_mask_decoder
from lmac_sb.models.weights import weights_sha256
from lmac_sb.training.brain import LOG_CONFIG
from lmac_sb.training.experiment import (
    claim_training,
    load_hparams,
    log_to_console,
)
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.io import write_csv, write_in_one_step
from lmac_sb.utils.lock import lock_folder
from train_classifier import ClassifierBrain
from train_lmac import LMACBrain

# Of the table by class; "ones" is the mask that keeps everything.
COLUMNS = (
    "right",
    "event_mass",
    "ones event_mass",
    "other_mass",
    "ones other_mass",
    "event_auc",
    "other_auc",
    "AD",
    "FF",
    "Fid-In",
)


class MultilabelClassifierBrain(ClassifierBrain):
    """Binary cross entropy of each class."""

    multilabel = True

    def targets(self, labels):
        """Ones at the classes of each clip, [batch, classes]."""
        return labels

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records how many clips and classes are right."""
        logits, targets = predictions
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        )
        labels = batch.class_string_encoded.data.to(logits.device) > 0
        decided = logits >= 0
        hits = (decided & labels).sum(1)
        self.record(
            batch.id,
            # Of the clips: those of which each class is right.
            accuracy=(decided == labels).all(1),
            F1=2 * hits / (decided.sum(1) + labels.sum(1)),
        )
        return self.mean_loss(losses.mean(1), batch.id)


class MultilabelBrain(LMACBrain):
    """Explains each class that is decided on its own.

    In training, one of a clip's classes is drawn in each step. Else each one
    counts as a clip of its own, whose id ends in the number of the class.
    """

    def compute_forward(self, batch, stage):
        """The explained classes with their clips, and the explanations."""
        batch = batch.to(self.device)
        rows, target = self.choose(batch, stage)
        if len(target) == 0:
            return rows, None, None
        explainer = self.hparams.explainer
        analysis = explainer.analyze(rows.sig.data, target)
        mask = explainer.mask(analysis, target)
        sounds = stage == sb.Stage.TEST or bool(self.chosen(rows, stage))
        return (
            rows,
            analysis,
            explainer.complete(analysis, mask, target, sounds=sounds),
        )

    def choose(self, batch, stage):
        """Which classes of which clips are explained, and these clips."""
        wavs = batch.sig.data
        with torch.no_grad():
            features = self.hparams.features
            magnitude = features.magnitude(features.stft(wavs))
            logits = self.hparams.explainer.classify(magnitude)
        decided = logits >= 0
        if stage == sb.Stage.TRAIN:
            # Each step needs each clip: one of which no class is decided
            # explains one of the likelier ones. Not by sigmoids: all of them
            # may be zero.
            p = torch.where(
                decided.any(1, keepdim=True),
                decided.float(),
                logits.softmax(1),
            )
            clips = torch.arange(len(wavs), device=wavs.device)
            target = torch.multinomial(p, 1)[:, 0]
            ids = batch.id
        else:
            clips, target = decided.nonzero(as_tuple=True)
            ids = [
                f"{batch.id[clip]}-{c}"
                for clip, c in zip(clips.tolist(), target.tolist())
            ]
        labels = batch.class_string_encoded.data.to(wavs.device)
        rows = SimpleNamespace(
            id=ids,
            clips=[batch.id[clip] for clip in clips.tolist()],
            class_string=[batch.class_string[clip] for clip in clips.tolist()],
            sig=SimpleNamespace(data=wavs[clips]),
            right=labels[clips, target],
            target=target,
        )
        if hasattr(batch, "event"):
            # Events of all classes, [rows, classes, samples].
            rows.event = SimpleNamespace(data=batch.event.data[clips])
        return rows, target

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records the terms, and the metrics when not training."""
        rows, analysis, explanation = predictions
        if explanation is None:
            return torch.zeros(())
        question = self.hparams.explainer.question(explanation)
        losses, terms = self.hparams.lmac_loss(
            question.mask,
            question.logits_in,
            question.logits_out,
            question.decision,
        )
        self.record(rows.id, accuracy=rows.right, **terms)
        if stage != sb.Stage.TRAIN:
            self.judge(analysis, explanation, rows, stage)
        return self.mean_loss(losses, rows.id)

    def locate(self, batch, stft):
        """Ideal masks of the explained class's event, and of the others."""
        features = self.hparams.features
        own, others = torch.zeros(2, *stft.shape[:-1], device=stft.device)
        for c in range(batch.event.data.shape[1]):
            stem = features.stft(batch.event.data[:, c].to(self.device))
            ideal = train_lmac.ideal_mask(stem, stft)
            is_own = (batch.target == c)[:, None, None]
            own = torch.where(is_own, ideal, own)
            others = torch.where(is_own, others, torch.maximum(others, ideal))
        return own, others

    def measure(self, explanation, event):
        """Metrics of the explained class, and the mask on other events."""
        question = self.hparams.explainer.question(explanation)
        if event is None:
            return super().measure(question, None)
        own, others = event
        return {
            **super().measure(question, own),
            "other_mass": event_mass(explanation.mask, others),
            "other_auc": event_auc(explanation.mask, others),
        }

    def chosen(self, batch, stage):
        """Places of the explanations to write, all of a chosen clip."""
        return super().chosen(SimpleNamespace(id=batch.clips), stage)

    def write_sounds(self, explanation, batch, stage):
        """Write the chosen clips, once for each class that is explained."""
        question = self.hparams.explainer.question(explanation)
        names = self.hparams.label_encoder.ind2lab
        for place in self.chosen(batch, stage):
            name = names[int(batch.target[place])]
            save_clip(
                self.sound_folder(stage) / batch.id[place],
                batch.sig.data[place],
                question,
                place,
                self.hparams.features,
                [name, f"no {name}"],
                batch.class_string[place],
            )

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Refuse a classifier that leaves nothing to explain."""
        if stage != sb.Stage.TRAIN and not self.gathered_records():
            raise LMACError(
                f"classifier_folder: {self.hparams.classifier_folder} decides "
                f"for no class in any {stage.name.lower()} clip, so nothing "
                "can be explained; train it longer"
            )
        super().on_stage_end(stage, stage_loss, epoch)


def tabulate(rows, method):
    """Figures by class: does the explanation find its event and no other?

    Arguments
    ---------
    rows : list of dict
        Of each explanation and method.
    method : str
        The one to show.

    Returns
    -------
    dict
        Class, then all classes, to the figures of `COLUMNS`.
    """
    ones = {row["id"]: row for row in rows if row["method"] == "ones"}
    own = [
        {
            **row,
            **{f"ones {key}": x for key, x in ones[row["id"]].items()},
            "right": float(row["decision"] in labels_of(row["label"])),
        }
        for row in rows
        if row["method"] == method
    ]
    own.sort(key=lambda row: row["decision"])
    everything = [{**row, "decision": "all classes"} for row in own]
    return summarize(own + everything, by="decision", columns=COLUMNS)


def write_classes(hparams, brain, n_clips):
    """The table by class, as csv and Markdown."""
    folder = Path(hparams["output_folder"])
    summary = tabulate(brain.test_rows, brain.method)
    explained = {row["id"].rsplit("-", 1)[0] for row in brain.test_rows}
    write_csv(
        folder / "classes.csv",
        [
            {"class": name, "figure": column, **values}
            for name, figures in summary.items()
            for column, values in figures.items()
        ],
    )
    shown = {
        f"{name} ({figures['right']['n']})": figures
        for name, figures in summary.items()
    }
    found = [c for c in COLUMNS if c in summary["all classes"]]
    table = markdown_table(shown, found, by="class (explanations)")
    write_in_one_step(
        folder / "classes.md", lambda file: print(table, file=file)
    )
    print(table)
    print(f"{n_clips - len(explained)} of {n_clips} clips: no class decided")


@exit_on_user_error
def main(argv=None):
    """Train the classifier, or L-MAC if the yaml has a decoder; test it."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    explains = "decoder" in hparams
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(
                make_scenes,
                args=[data_folder],
                kwargs={"n_events": hparams["n_events"]},
            )
        data = {
            "label_encoder": hparams["label_encoder"],
            "clips": {
                "data_folder": data_folder,
                "manifest_folder": hparams["manifest_folder"],
                "train_fold_nums": hparams["train_fold_nums"],
                "valid_fold_nums": hparams["valid_fold_nums"],
                "test_fold_nums": hparams["test_fold_nums"],
                "download": hparams["download"],
                "skip_bad_clips": hparams["skip_bad_clips"],
            },
            "sounds": {
                "preprocess": hparams["preprocess"],
                "wham_folder": hparams["wham_folder"],
                "snr_db": hparams["snr_db"],
                "noisy_splits": hparams["noisy_splits"],
                "audio_cache": hparams["audio_cache"],
            },
        }
        if explains:
            datasets = train_lmac.prepare(
                hparams,
                classifier_folder=hparams["classifier_folder"],
                classifier_recipe=hparams["classifier_recipe"],
                classifier_script=Path(__file__).name,
                **data,
            )
            hparams["modules"]["decoder"] = as_mask_decoder(hparams["decoder"])
            identity = {
                "classifier": weights_sha256(hparams["frozen_classifier"]),
                "starting_decoder": weights_sha256(hparams["decoder"]),
            }
            brain_class = partial(
                MultilabelBrain,
                interpret_period=hparams["interpret_period"],
            )
        else:
            datasets = train_classifier.prepare(hparams, **data)
            identity = {"n_classes": hparams["n_classes"]}
            brain_class = partial(
                MultilabelClassifierBrain,
                mixup_alpha=hparams["mixup_alpha"],
                mask_share=hparams["mask_share"],
                min_frames=hparams["min_frames"],
            )
        claim_training(hparams, **identity)
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = brain_class(
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
        )
        if hparams["use_tensorboard"] and if_main_process():
            brain.tensorboard_logger = sb.utils.train_logger.TensorboardLogger(
                hparams["tensorboard_folder"]
            )
        if not explains:
            train_classifier.train(
                brain,
                hparams,
                datasets,
                loader_options=hparams["dataloader_options"],
                model_folder=hparams["model_folder"],
            )
            return
        train_lmac.train(
            brain,
            hparams,
            datasets,
            loader_options=hparams["dataloader_options"],
            save_clips=hparams["save_clips"],
        )
        run_on_main(write_classes, args=[hparams, brain, len(datasets["test"])])


if __name__ == "__main__":
    main()
