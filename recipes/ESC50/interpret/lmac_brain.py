"""The Brain that trains L-MAC's decoder through the frozen classifier."""

import shutil
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from lmac_sb.evaluation.comparison import Comparison
from lmac_sb.evaluation.judge import Judge
from lmac_sb.inference.clip_folder import save_clip
from lmac_sb.inference.explanation import AudioExplanation
from lmac_sb.lmac.losses import Guidance
from lmac_sb.lmac.masking import ideal_mask
from lmac_sb.methods.registry import Case, make_methods
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.metrics.registry import METRICS, evaluate
from lmac_sb.training.brain import RecipeBrain, gather_rows

logger = get_logger(__name__)


def in_pairs(wavs, decision, share):
    """Some clips with the next one added as loud, and what to explain.

    A share of the clips [batch, samples] is paired. Of a pair, the decision
    on one of both alone is explained, drawn at random, so that the decoder
    must read from the evidence which one is meant.
    """
    sounds = wavs.any(1)
    power = wavs.norm(dim=1, keepdim=True).clamp(min=1e-12)
    others = (wavs / power).roll(1, 0) * power
    paired, turned = torch.rand(2, len(wavs), device=wavs.device)
    paired = (paired < share) & sounds & sounds.roll(1)
    target = torch.where(paired & (turned < 0.5), decision.roll(1), decision)
    return wavs + paired[:, None] * others, target


class LMACBrain(RecipeBrain):
    """Trains the decoder through the frozen classifier."""

    # Name of the method in tables, and the remedies for a mask that keeps
    # everything or nothing.
    method = "lmac"
    levers = ("raise reg_w_l1", "lower reg_w_l1")
    later = (*RecipeBrain.later, *METRICS)

    def __init__(
        self, *args, explainer, interpret_period, pair_share=0.0, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.explainer = explainer
        self.interpret_period = interpret_period
        self.pair_share = pair_share

    def on_stage_start(self, stage, epoch=None):
        """Forget the rows of the stage before."""
        super().on_stage_start(stage, epoch)
        self.test_rows = []
        if stage != sb.Stage.TRAIN:
            # Sounds of an earlier checkpoint are none of this one.
            run_on_main(
                shutil.rmtree,
                args=[self.sound_folder(stage)],
                kwargs={"ignore_errors": True},
            )
        if stage == sb.Stage.TEST:
            self.comparison = self.make_comparison()

    def compute_forward(self, batch, stage):
        """Analyse the sounds, and explain their decisions."""
        batch = batch.to(self.device)
        wavs, target = batch.sig.data, None
        if stage == sb.Stage.TRAIN and self.pair_share:
            alone = self.explainer.hear(wavs)[0].argmax(1)
            wavs, target = in_pairs(wavs, alone, self.pair_share)
        analysis = self.explainer.analyze(wavs, target)
        return analysis, self.explain(analysis, batch, stage, target)

    def explain(self, analysis, batch, stage, target=None):
        """Explanation by the decoder's own mask."""
        # Several processes train through a wrapper of the explainer.
        train = stage == sb.Stage.TRAIN
        explainer = self.modules.explainer if train else self.explainer
        return explainer(
            analysis=analysis,
            target=target,
            sounds=bool(self.chosen(batch, stage)),
            refine_steps=0,
            second_look=False,
        )

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records its terms and, unless training, the metrics."""
        analysis, explanation = predictions
        labels = batch.class_string_encoded.data[:, 0].to(self.device)
        right = explanation.decision == labels
        guidance = None
        if self.hparams.finetuning:
            guidance = self.guidance(analysis, explanation, batch, right)
        question = explanation.asked()
        losses, terms = self.hparams.lmac_loss(
            question.mask,
            question.logits_in,
            question.logits_out,
            question.decision,
            guidance,
        )
        judged = [i for i, x in enumerate(batch.class_string) if self.knows(x)]
        self.record([batch.id[i] for i in judged], accuracy=right[judged])
        self.record(batch.id, **terms)
        if stage != sb.Stage.TRAIN:
            self.assess(analysis, explanation, batch, stage)
        return self.mean_loss(losses, batch.id)

    def assess(self, analysis, explanation, batch, stage):
        """Metrics and sounds of explained clips that are not trained on."""
        event = others = None
        if hasattr(batch, "event"):
            event, others = self.locate(batch, analysis.stft)
        question = explanation.asked()
        linear = self.explainer.linear_mask(
            analysis.magnitude, explanation.mask
        )
        metrics = evaluate(question, event, others=others, linear_mask=linear)
        self.record(batch.id, **metrics)
        if stage == sb.Stage.TEST:
            case = Case(
                self.explainer,
                batch.sig.data,
                analysis,
                explanation.decision,
                batch.id,
                event,
                others,
            )
            rows, _ = self.comparison(case, self.items(batch))
            self.test_rows += rows
        self.write_sounds(explanation, batch, stage)

    def locate(self, batch, stft):
        """Ideal masks of the event of each clip, and of all others."""
        stem = self.explainer.features.stft(batch.event.data.to(self.device))
        return ideal_mask(stem, stft), None

    def make_comparison(self):
        """The method, its variants and trivial masks, as an evaluation has."""
        explainer, steps = self.explainer, self.explainer.refine_steps
        names = [self.method, f"{self.method}_binary", *TRIVIAL_MASKS]
        if steps:
            names.insert(1, f"{self.method}+{steps}")
        if explainer.second_look:
            names.insert(1, f"{self.method}_look")
        seed = self.hparams.seed
        return Comparison(
            Judge(explainer, guards=["heard"]),
            make_methods(names, {self.method: explainer}, seed=seed),
            self.hparams.label_encoder.ind2lab,
        )

    def items(self, batch):
        """What the rows of the test say of each clip."""
        return [
            {
                "id": clip,
                "class_string": label,
                **({} if self.knows(label) else {"right": None}),
            }
            for clip, label in zip(batch.id, batch.class_string)
        ]

    def knows(self, label):
        """Whether a label is a class of the classifier.

        Else nobody can say whether its decision is right.
        """
        return label in self.hparams.label_encoder.lab2ind

    def guidance(self, analysis, explanation, batch, right):
        """What the clean part of the mixture tells the loss."""
        features = self.explainer.features
        with torch.no_grad():
            clean = features.magnitude(
                features.stft(batch.clean.data.to(self.device))
            )
        masked = self.explainer.let_through(
            analysis.magnitude, explanation.mask
        )
        return Guidance(
            torch.log1p(masked),
            torch.log1p(analysis.magnitude),
            torch.log1p(clean),
            # The clean clip explains the decision only if that is its class.
            eligible=right.float(),
        )

    def chosen(self, batch, stage):
        """Positions in the batch of the clips to write in this epoch."""
        epoch = self.hparams.epoch_counter.current
        if stage == sb.Stage.VALID and epoch % self.interpret_period:
            return []
        clips = self.clips.get(stage, ())
        return [i for i, x in enumerate(self.names(batch)) if x in clips]

    def names(self, batch):
        """The clip of each explanation."""
        return batch.id

    def sound_folder(self, stage):
        """Folder for the clips of this stage."""
        epoch = self.hparams.epoch_counter.current
        name = "test" if stage == sb.Stage.TEST else f"epoch_{epoch:03d}"
        return Path(self.hparams.output_folder) / "interpretations" / name

    def write_sounds(self, explanation, batch, stage):
        """Write the chosen clips of this batch."""
        question = explanation.asked()
        for place in self.chosen(batch, stage):
            clip = AudioExplanation.of(
                question[place].cpu(),
                batch.sig.data[place : place + 1].cpu(),
                self.explainer.features,
                self.answers(batch, place),
            )
            folder = self.sound_folder(stage) / batch.id[place]
            save_clip(folder, clip, batch.class_string[place])

    def answers(self, batch, place):
        """Names of the answers among which the classifier decides."""
        return self.hparams.label_encoder.ind2lab

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
