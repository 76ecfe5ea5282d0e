"""The Brains for clips of several classes, each decided on its own."""

from dataclasses import dataclass

import speechbrain as sb
import torch
from classifier_brain import ClassifierBrain
from lmac_brain import LMACBrain
from speechbrain.dataio.batch import PaddedData
from torch.nn import functional as F

from lmac_sb.lmac.losses import others_apart
from lmac_sb.methods.decided import decided, locate
from lmac_sb.utils.errors import LMACError


class MultilabelClassifierBrain(ClassifierBrain):
    """Binary cross entropy of each class."""

    multilabel = True

    def targets(self, labels):
        """Ones at the classes of each clip, [batch, classes]."""
        return labels

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records the accuracy and the F1 score of each clip."""
        logits, targets = predictions
        losses = F.binary_cross_entropy_with_logits(
            logits, targets, reduction="none"
        )
        labels = batch.class_string_encoded.data.to(logits.device) > 0
        chosen = decided(logits)
        hits = (chosen & labels).sum(1)
        self.record(
            batch.id,
            # A clip counts as right if all its classes are right.
            accuracy=(chosen == labels).all(1),
            F1=2 * hits / (chosen.sum(1) + labels.sum(1)),
        )
        return self.mean_loss(losses.mean(1), batch.id)


@dataclass
class ExplainedClasses:
    """A batch with a row for each explained class of each clip.

    `sig`, and `event` where it is known, as in a batch of clips; an event
    [rows, classes, samples] has those of all classes.
    """

    id: list
    clips: list
    class_string: list
    sig: PaddedData
    right: torch.Tensor
    target: torch.Tensor


class MultilabelBrain(LMACBrain):
    """Explains each decided class on its own.

    In training, each step draws one of a clip's classes. Otherwise each class
    counts as a separate clip, whose id ends in the number of the class.

    In the first `grow_share` of the training, the weights of the total
    variation and of the other classes grow from zero: from the start, they lead
    to masks that keep nothing, before the decoder has learnt what to keep.
    """

    def __init__(self, *args, others_w, grow_share=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.others_w = others_w
        self.grow_share = grow_share

    def compute_forward(self, batch, stage):
        """The chosen clips and classes, their analysis and explanations."""
        batch = batch.to(self.device)
        rows, target = self.choose(batch, stage)
        if len(target) == 0:
            return rows, None, None
        analysis = self.explainer.analyze(rows.sig.data, target)
        return rows, analysis, self.explain(analysis, rows, stage, target)

    def choose(self, batch, stage):
        """Choose the classes to explain; returns their clips and numbers."""
        wavs = batch.sig.data
        with torch.no_grad():
            features = self.hparams.features
            magnitude = features.magnitude(features.stft(wavs))
            logits = self.explainer.classify(magnitude)
        chosen = decided(logits)
        if stage == sb.Stage.TRAIN:
            # Each step needs every clip. If a clip has no decided class, one
            # of the more probable classes is drawn, by a softmax, since all
            # sigmoids may be zero.
            p = torch.where(
                chosen.any(1, keepdim=True),
                chosen.float(),
                logits.softmax(1),
            )
            clips = torch.arange(len(wavs), device=wavs.device)
            target = torch.multinomial(p, 1)[:, 0]
            ids = batch.id
        else:
            clips, target = chosen.nonzero(as_tuple=True)
            ids = [
                f"{batch.id[clip]}-{c}"
                for clip, c in zip(clips.tolist(), target.tolist())
            ]
        labels = batch.class_string_encoded.data.to(wavs.device)
        rows = ExplainedClasses(
            id=ids,
            clips=[batch.id[clip] for clip in clips.tolist()],
            class_string=[batch.class_string[clip] for clip in clips.tolist()],
            sig=PaddedData(wavs[clips], batch.sig.lengths[clips]),
            right=labels[clips, target],
            target=target,
        )
        if hasattr(batch, "event"):
            event = batch.event
            rows.event = PaddedData(event.data[clips], event.lengths[clips])
        return rows, target

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records its terms and, unless training, the metrics."""
        rows, analysis, explanation = predictions
        if explanation is None:
            return torch.zeros(())
        question = explanation.asked()
        losses, terms = self.hparams.lmac_loss(
            question.mask,
            question.logits_in,
            question.logits_out,
            question.decision,
        )
        others = decided(explanation.logits)
        others = others.scatter(1, rows.target[:, None], False)
        terms["apart"] = others_apart(
            explanation.logits_in, explanation.logits_out, others
        )
        grown = self.grown(stage)
        # The loss has added the whole of this term.
        early = (1 - grown) * self.hparams.lmac_loss.reg_w_tv * terms["tv"]
        losses = losses - early + grown * self.others_w * terms["apart"]
        self.record(rows.id, accuracy=rows.right, **terms)
        if stage != sb.Stage.TRAIN:
            self.assess(analysis, explanation, rows, stage)
        return self.mean_loss(losses, rows.id)

    def grown(self, stage):
        """Share of the weights that grow which counts in this step."""
        if stage != sb.Stage.TRAIN or not self.grow_share:
            return 1.0
        return min(1.0, self.done / self.grow_share)

    def locate(self, batch, stft):
        """Ideal masks for the explained class's event, and for the others."""
        events = batch.event.data.to(self.device)
        return locate(self.hparams.features, events, batch.target, stft)

    def items(self, batch):
        """What the rows of the test say of each explained class."""
        return [
            {**item, "right": right}
            for item, right in zip(super().items(batch), batch.right.tolist())
        ]

    def names(self, batch):
        """The clip of each explanation: a chosen one is written as a whole."""
        return batch.clips

    def answers(self, batch, place):
        """The explained class, and its absence."""
        name = self.hparams.label_encoder.ind2lab[int(batch.target[place])]
        return [name, f"no {name}"]

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Refuse a classifier that decides for no class at all."""
        if stage != sb.Stage.TRAIN and not self.gathered_records():
            raise LMACError(
                f"classifier_folder: {self.hparams.classifier_folder} decides "
                f"for no class in any {stage.name.lower()} clip, so nothing "
                "can be explained; train it longer"
            )
        super().on_stage_end(stage, stage_loss, epoch)
