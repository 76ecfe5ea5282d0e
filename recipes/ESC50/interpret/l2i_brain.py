"""The Brain of L2I, the method that L-MAC is compared with."""

import speechbrain as sb
import torch
from lmac_brain import LMACBrain


class L2IBrain(LMACBrain):
    """Trains the network to rebuild the sound and imitate the classifier."""

    method = "l2i"
    levers = ("raise relevance_th", "lower relevance_th")

    def __init__(self, *args, l2i_loss, **kwargs):
        super().__init__(*args, **kwargs)
        self.l2i_loss = l2i_loss

    def compute_forward(self, batch, stage):
        """Analyse and decompose the sounds; explain them unless training."""
        batch = batch.to(self.device)
        explainer = self.explainer
        analysis = explainer.analyze(batch.sig.data)
        log_magnitude = explainer.pad(torch.log1p(analysis.magnitude))
        parts = self.modules.decoder(analysis.latents, log_magnitude)
        explanation = None
        if stage != sb.Stage.TRAIN:
            explanation = self.explain(analysis, batch, stage)
        return analysis, log_magnitude, parts, explanation

    def compute_objectives(self, predictions, batch, stage):
        """Mean loss; records its terms and, unless training, the metrics."""
        analysis, log_magnitude, parts, explanation = predictions
        labels = batch.class_string_encoded.data[:, 0].to(self.device)
        decision = analysis.logits.argmax(1)
        losses, terms = self.l2i_loss(parts, log_magnitude, analysis.logits)
        self.record(
            batch.id,
            accuracy=decision == labels,
            # How often the imitation decides as the classifier does.
            fidelity=parts.logits.argmax(1) == decision,
            **terms,
        )
        if stage != sb.Stage.TRAIN:
            self.assess(analysis, explanation, batch, stage)
        return self.mean_loss(losses, batch.id)
