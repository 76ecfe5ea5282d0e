#!/usr/bin/python3
"""Train L-MAC to explain an audio classifier, and fine-tune it.

    python train_lmac.py hparams/lmac.yaml --data_folder=/yourpath/ESC50

Guided fine-tuning of a finished run, on clips with WHAM! noise:

    python train_lmac.py hparams/lmac_ft.yaml --data_folder=/yourpath/ESC50 \
        --wham_folder=/yourpath/wham_noise \
        --pretrained_interpreter=results/LMAC/1234

hparams/lmac_cnn14.yaml has the decoder of the paper, for published weights.
For more details, please refer to the README file.

Authors
 * Francesco Paissan 2024
 * Cem Subakan 2024
 * The lmac-sb authors 2026
"""

import math
import sys
from pathlib import Path

import speechbrain as sb
import torch
from esc50_prepare import dataio_prep, prepare_esc50
from hyperpyyaml import load_hyperpyyaml
from speechbrain.lobes.lmac.clip_folder import save_clip
from speechbrain.lobes.lmac.explanation import AudioExplanation
from speechbrain.lobes.lmac.losses import Guidance
from speechbrain.lobes.lmac.registry import evaluate
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import if_main_process, run_on_main
from wham_prepare import prepare_wham


def add_noise(clips, noise):
    """Mix each clip with noise of the same energy.

    Arguments
    ---------
    clips : torch.Tensor
        [batch, samples].
    noise : iterator of torch.Tensor
        Recordings as long as a clip, [1, samples].

    Returns
    -------
    mixture : torch.Tensor
        [batch, samples], with a peak of 1.
    clean : torch.Tensor
        The clips at the level that they have in the mixture.
    """
    noise = torch.cat([next(noise) for _ in clips]).to(clips)
    clips, noise = (
        x / x.norm(dim=1, keepdim=True).clamp(min=1e-8) for x in (clips, noise)
    )
    mixture = clips + noise
    peak = mixture.abs().amax(1, keepdim=True).clamp(min=1e-8)
    return mixture / peak, clips / peak


def find_decoder(hparams):
    """Weights that fine-tuning starts from.

    Arguments
    ---------
    hparams : dict
        With `pretrained_interpreter`: a file, or the folder of a run, whose
        best checkpoint is taken.

    Returns
    -------
    path : pathlib.Path
    """
    source = hparams["pretrained_interpreter"]
    if source is None:
        raise ValueError(
            "pretrained_interpreter: fine-tuning needs the decoder's weights "
            "or the folder of the run that trained it"
        )
    path, output = Path(source), Path(hparams["output_folder"]).resolve()
    if output in (path.resolve(), *path.resolve().parents):
        raise ValueError(
            f"output_folder: {source} is part of it; fine-tuning needs a "
            "folder of its own, give another --experiment_name"
        )
    if path.is_dir() and (path / "save").is_dir():
        best = Checkpointer(path / "save").find_checkpoint(min_key="loss")
        path = best.paramfiles["psi_model"] if best is not None else path
    if not path.is_file():
        raise ValueError(
            f"pretrained_interpreter: {source} is no file of weights, and no "
            "run folder with a checkpoint in save/"
        )
    return path


class LMAC(sb.Brain):
    """Trains the decoder through the frozen classifier."""

    def on_stage_start(self, stage, epoch=None):
        """Forget the values of the stage before."""
        self.values = {}

    def init_optimizers(self):
        """Optimize the decoder alone, as the classifier stays as it is."""
        self.optimizer = self.opt_class(self.hparams.psi_model.parameters())
        self.optimizers_dict = {"opt_class": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def is_shown(self, stage):
        """Whether sounds and pictures of this stage are written."""
        if stage == sb.Stage.TRAIN or not self.hparams.save_interpretations:
            return False
        epoch = self.hparams.epoch_counter.current
        return (
            stage == sb.Stage.TEST or epoch % self.hparams.interpret_period == 0
        )

    def compute_forward(self, batch, stage):
        """Analysis of the sounds, and their explanation."""
        batch = batch.to(self.device)
        wavs = clean = batch.sig.data
        if self.hparams.add_wham_noise:
            wavs, clean = add_noise(wavs, iter(self.hparams.wham_dataset))
        explainer = self.hparams.explainer
        analysis = explainer.analyze(wavs)
        # Several processes train through a wrapper of the explainer.
        train = stage == sb.Stage.TRAIN
        explanation = (self.modules.explainer if train else explainer)(
            analysis=analysis, sounds=self.is_shown(stage)
        )
        return wavs, clean, analysis, explanation

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; keeps the terms, and the metrics when not training."""
        wavs, clean, analysis, explanation = predictions
        labels = batch.class_string_encoded.data[:, 0].to(self.device)
        right = explanation.decision == labels
        guidance = None
        if self.hparams.finetuning:
            guidance = self.guidance(clean, analysis, explanation, right)
        losses, terms = self.hparams.lmac_loss(
            explanation.mask,
            explanation.logits_in,
            explanation.logits_out,
            explanation.decision,
            guidance,
        )
        values = {"loss": losses, "acc": right, **terms}
        if stage != sb.Stage.TRAIN:
            values.update(evaluate(explanation))
        for name, value in values.items():
            column = self.values.setdefault(name, [])
            column.extend(value.detach().float().tolist())
        if self.is_shown(stage) and if_main_process():
            folder = Path(self.hparams.output_folder) / "interpretations"
            self.save(folder / batch.id[0], wavs, explanation, labels)
        return losses.mean()

    def guidance(self, clean, analysis, explanation, right):
        """What the guided loss needs: the clean clip within the mixture."""
        features, explainer = self.hparams.features, self.hparams.explainer
        with torch.no_grad():
            clean = features.magnitude(features.stft(clean))
        masked = explainer.let_through(analysis.magnitude, explanation.mask)
        return Guidance(
            torch.log1p(masked),
            torch.log1p(analysis.magnitude),
            torch.log1p(clean),
            # The clean clip explains the decision only if it is its class.
            eligible=right.float(),
        )

    def save(self, folder, wavs, explanation, labels=None):
        """Write sounds, maps and a picture of the first clip."""
        known = self.hparams.label_encoder.ind2lab
        n_classes = explanation.logits.shape[1]
        # A classifier may have outputs for classes that the data lacks.
        names = [known.get(c, f"class {c}") for c in range(n_classes)]
        clip = AudioExplanation.of(
            explanation[0].cpu(), wavs[:1].cpu(), self.hparams.features, names
        )
        truth = None if labels is None else names[int(labels[0])]
        save_clip(folder, clip, truth)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log; after validation anneal, keep the last and best checkpoint."""
        stats = {}
        for name, column in self.values.items():
            # A metric may be undefined for a clip, such as a silent one.
            column = [value for value in column if not math.isnan(value)]
            stats[name] = sum(column) / len(column) if column else math.nan
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
            return
        meta, counter = {"epoch": epoch}, self.hparams.epoch_counter
        if stage == sb.Stage.TEST:
            meta = {"Epoch loaded": counter.current}
            self.hparams.train_logger.log_stats(meta, test_stats=stats)
            return
        meta["lr"], new_lr = self.hparams.lr_annealing(
            [self.optimizer], epoch, stats["loss"]
        )
        sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
        loggers = [self.hparams.train_logger]
        if self.hparams.use_tensorboard:
            loggers.append(self.hparams.tensorboard_train_logger)
        for logger in loggers:
            logger.log_stats(meta, self.train_stats, stats)
        self.checkpointer.save_and_keep_only(meta=stats, min_keys=["loss"])


if __name__ == "__main__":
    # CLI:
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])

    # Initialize ddp (useful only for multi-GPU DDP training)
    sb.utils.distributed.ddp_init_group(run_opts)

    # Load hyperparameters file with command-line overrides
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)

    # Only eval.py reads hparams["overlap_type"], hparams["int_method"],
    # hparams["ljspeech_path"] and hparams["single_sample"].

    if hparams["finetuning"]:
        # First of all, so that a mistake touches no folder.
        decoder_weights = find_decoder(hparams)

    # Create experiment directory
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )

    # Tensorboard logging
    if hparams["use_tensorboard"]:
        from speechbrain.utils.train_logger import TensorboardLogger

        hparams["tensorboard_train_logger"] = TensorboardLogger(
            hparams["tensorboard_logs_folder"]
        )

    run_on_main(
        prepare_esc50,
        kwargs={
            "data_folder": hparams["data_folder"],
            "audio_data_folder": hparams["audio_data_folder"],
            "save_json_train": hparams["train_annotation"],
            "save_json_valid": hparams["valid_annotation"],
            "save_json_test": hparams["test_annotation"],
            "train_fold_nums": hparams["train_fold_nums"],
            "valid_fold_nums": hparams["valid_fold_nums"],
            "test_fold_nums": hparams["test_fold_nums"],
            "skip_manifest_creation": hparams["skip_manifest_creation"],
        },
    )

    # Dataset IO prep: creating Dataset objects and proper encodings for labels
    datasets, label_encoder = dataio_prep(hparams)
    hparams["label_encoder"] = label_encoder

    hparams["wham_dataset"] = prepare_wham(
        hparams["wham_folder"],
        hparams["add_wham_noise"],
        hparams["sample_rate"],
        hparams["signal_length_s"],
        hparams["wham_audio_folder"],
    )

    # The classifier that is explained
    if hparams["use_pretrained"]:
        run_on_main(hparams["pretrained_esc50"].collect_files)
        hparams["pretrained_esc50"].load_collected()

    if hparams["finetuning"]:
        state = torch.load(
            decoder_weights, map_location="cpu", weights_only=True
        )
        hparams["psi_model"].load_state_dict(state)

    Interpreter_brain = LMAC(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )

    Interpreter_brain.fit(
        epoch_counter=hparams["epoch_counter"],
        train_set=datasets["train"],
        valid_set=datasets["valid"],
        train_loader_kwargs=hparams["dataloader_options"],
        valid_loader_kwargs=hparams["test_loader_options"],
    )

    Interpreter_brain.evaluate(
        test_set=datasets["test"],
        min_key="loss",
        test_loader_kwargs=hparams["test_loader_options"],
    )
