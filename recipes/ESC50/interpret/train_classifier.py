#!/usr/bin/env python3
"""Train the sound classifier that L-MAC explains.

On the embedded scenes, and on ESC-50:

    python train_classifier.py hparams/classifier_conv.yaml
    python train_classifier.py hparams/classifier_conv.yaml \
        --data_folder /path/to/ESC-50 --n_classes 50

The best weights, the class names and the front end's settings end up in
`model_folder`, which `train_lmac.py` takes as `classifier_folder`.
"""

import sys
from functools import partial
from pathlib import Path

import speechbrain as sb
import torch
from esc50_prepare import prepare_esc50
from speechbrain.utils.distributed import if_main_process, run_on_main
from torch.nn import functional as F

from lmac_sb.data.scenes import make_scenes
from lmac_sb.models.classifier_folder import save_classifier
from lmac_sb.models.encoders import embed
from lmac_sb.training.brain import LOG_CONFIG, RecipeBrain
from lmac_sb.training.experiment import (
    check_folder,
    claim_training,
    data_sha256,
    frontend,
    load_hparams,
    log_to_console,
    make_datasets,
)
from lmac_sb.utils.errors import LMACError, exit_on_user_error
from lmac_sb.utils.lock import lock_folder
from lmac_sb.utils.provenance import provenance


class ClassifierBrain(RecipeBrain):
    """Cross entropy on log-mel features, with mixup and masked blocks."""

    multilabel = False

    def __init__(self, *args, mixup_alpha, mask_share, min_frames, **kwargs):
        super().__init__(*args, **kwargs)
        self.mixup_alpha = mixup_alpha
        self.mask_share = mask_share
        self.min_frames = min_frames

    def compute_forward(self, batch, stage):
        """Logits [batch, classes], and soft targets of the same shape."""
        batch = batch.to(self.device)
        features = self.modules.features
        with torch.no_grad():
            magnitude = features.magnitude(features.stft(batch.sig.data))
        targets = self.targets(batch.class_string_encoded.data)
        if stage == sb.Stage.TRAIN:
            magnitude, targets = self.mixup(magnitude, targets)
        mel = features.mel(magnitude)
        if stage == sb.Stage.TRAIN:
            mel = self.mask(mel)
        mel = self.pad(mel)
        embeddings = embed(self.modules.embedding_model, mel)
        return self.modules.classifier(embeddings).flatten(1), targets

    def targets(self, labels):
        """Probability of each class, [batch, classes]."""
        return F.one_hot(labels[:, 0], self.hparams.n_classes).float()

    def compute_objectives(self, predictions, batch, stage):
        """Mean cross entropy; records the accuracy."""
        logits, targets = predictions
        losses = -(targets * logits.log_softmax(1)).sum(1)
        labels = batch.class_string_encoded.data[:, 0].to(logits.device)
        correct = logits.argmax(1) == labels
        self.record(batch.id, accuracy=correct)
        return self.mean_loss(losses, batch.id)

    def mixup(self, magnitude, targets):
        """Mix pairs of clips of the batch (arXiv 1710.09412)."""
        alpha = self.mixup_alpha
        if alpha == 0:
            return magnitude, targets
        share = torch.distributions.Beta(alpha, alpha).sample((len(targets),))
        share = share.to(targets.device)[:, None]
        order = torch.randperm(len(targets))
        targets = share * targets + (1 - share) * targets[order]
        share = share[:, :, None]
        return share * magnitude + (1 - share) * magnitude[order], targets

    def mask(self, mel):
        """Silence a random block of frames and of bands of each clip."""
        for dim in (1, 2):
            size = mel.shape[dim]
            widths = torch.rand(len(mel), 1) * self.mask_share * size
            starts = torch.rand(len(mel), 1) * (size - widths)
            place = torch.arange(size)
            block = (place >= starts) & (place < starts + widths)
            block = block.unsqueeze(3 - dim).to(mel.device)
            mel = mel.masked_fill(block, 0)
        return mel

    def pad(self, mel):
        """At least as many frames as the model can pool."""
        missing = self.min_frames - mel.shape[1]
        return F.pad(mel, (0, 0, 0, missing)) if missing > 0 else mel

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, and after validation keep the last and best checkpoint."""
        stats = self.averages()
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
        elif stage == sb.Stage.VALID:
            self.finish_epoch(epoch, stats)
        else:
            self.test_stats = stats
            self.log({"epoch": self.tested.meta["epoch"]}, test_stats=stats)


@exit_on_user_error
def main(argv=None):
    """Train, test, and write the model folder."""
    hparams_file, hparams, run_opts, overrides = load_hparams(
        sys.argv[1:] if argv is None else argv, Path(__file__).parent
    )
    log_to_console()
    with lock_folder(hparams["output_folder"]):
        # Data
        data_folder = hparams["data_folder"]
        if data_folder is None:
            data_folder = hparams["scenes_folder"]
            run_on_main(make_scenes, args=[data_folder])
        datasets = prepare(
            hparams,
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
        claim_training(hparams, n_classes=hparams["n_classes"])
        # Only now, so that a refused run leaves the folder as it is.
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=hparams_file,
            overrides=overrides,
            log_config=LOG_CONFIG,
        )

        brain = ClassifierBrain(
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
            mixup_alpha=hparams["mixup_alpha"],
            mask_share=hparams["mask_share"],
            min_frames=hparams["min_frames"],
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
            model_folder=hparams["model_folder"],
        )


# Other scripts use what follows. They say by name which keys of their yaml
# files it reads, so that SpeechBrain's check finds them in each script.


def prepare(hparams, label_encoder, clips, sounds):
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


def train(brain, hparams, datasets, loader_options, model_folder):
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


if __name__ == "__main__":
    main()
