"""The Brain that trains L-MAC's decoder through the frozen classifier."""

from dataclasses import replace
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger

from lmac_sb.explain.masking import binarize, ideal_mask
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.metrics.registry import evaluate
from lmac_sb.metrics.shape import mask_area
from lmac_sb.training.brain import RecipeBrain, gather_rows

logger = get_logger(__name__)


class LMACBrain(RecipeBrain):
    """Trains the decoder through the frozen classifier."""

    # Name of the method in tables, and the remedies for a mask that keeps
    # everything or nothing.
    method = "lmac"
    levers = ("raise reg_w_l1", "lower reg_w_l1")

    def __init__(self, *args, explainer, interpret_period, **kwargs):
        super().__init__(*args, **kwargs)
        self.explainer = explainer
        self.interpret_period = interpret_period

    def on_stage_start(self, stage, epoch=None):
        """Use the distributed wrapper of the decoder only in training."""
        super().on_stage_start(stage, epoch)
        decoder = self.modules.decoder
        if stage != sb.Stage.TRAIN:
            decoder = getattr(decoder, "module", decoder)
        self.explainer.decoder = decoder
        self.test_rows = []

    def compute_forward(self, batch, stage):
        """Analyse the sounds, and explain their decisions."""
        batch = batch.to(self.device)
        explainer = self.explainer
        analysis = explainer.analyze(batch.sig.data)
        mask = explainer.mask(analysis)
        sounds = stage == sb.Stage.TEST or bool(self.chosen(batch, stage))
        return analysis, explainer.complete(analysis, mask, sounds=sounds)

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records its terms and, unless training, the metrics."""
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
        """Record metrics of validation and test clips, and write sounds."""
        event = None
        if hasattr(batch, "event"):
            event = self.locate(batch, analysis.stft)
        values = self.measure(explanation, event)
        self.record(batch.id, **values)
        if stage == sb.Stage.TEST:
            self.compare(analysis, explanation, values, event, batch)
        self.write_sounds(explanation, batch, stage)

    def locate(self, batch, stft):
        """Ideal mask for the event of each clip."""
        stem = self.hparams.features.stft(batch.event.data.to(self.device))
        return ideal_mask(stem, stft)

    def measure(self, explanation, event):
        """Metrics of the explanations, [batch] each."""
        return evaluate(explanation, event)

    def guidance(self, analysis, explanation, batch, right):
        """Arguments for the guided loss, from the clean part of the mixture."""
        features = self.hparams.features
        with torch.no_grad():
            clean = features.magnitude(
                features.stft(batch.clean.data.to(self.device))
            )
        return {
            "log_masked": torch.log1p(
                self.explainer.masked_in(analysis.magnitude, explanation.mask)
            ),
            "log_whole": torch.log1p(analysis.magnitude),
            "log_clean": torch.log1p(clean),
            # The clean clip explains the decision only if that is its class.
            "eligible": right.float(),
        }

    def compare(self, analysis, explanation, values, event, batch):
        """Add rows for the method (`values`), its variants, trivial masks."""
        explainer = self.explainer
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
        # What a listener hears: the sounds, analysed again.
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
        """Positions in the batch of the clips to write in this epoch."""
        epoch = self.hparams.epoch_counter.current
        if stage == sb.Stage.VALID and epoch % self.interpret_period:
            return []
        clips = self.clips.get(stage, ())
        return [i for i, clip in enumerate(batch.id) if clip in clips]

    def sound_folder(self, stage):
        """Folder for the clips of this stage."""
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
        """Warn of a collapsed mask; gather the rows of the test."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == sb.Stage.VALID:
            self.warn_of_collapse(self.stats)
        elif stage == sb.Stage.TEST:
            self.test_rows = gather_rows(self.test_rows)

    def warn_of_collapse(self, stats):
        """Warn if the mask keeps everything or nothing."""
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
