"""The Brain of the classifiers that L-MAC explains."""

import speechbrain as sb
import torch
from torch.nn import functional as F

from lmac_sb.models.encoders import embed
from lmac_sb.training.brain import RecipeBrain


class ClassifierBrain(RecipeBrain):
    """Trains by cross entropy, with mixup and masked blocks."""

    multilabel = False

    def __init__(self, *args, mixup_alpha, mask_share, min_frames, **kwargs):
        super().__init__(*args, **kwargs)
        self.mixup_alpha = mixup_alpha
        self.mask_share = mask_share
        self.min_frames = min_frames

    def compute_forward(self, batch, stage):
        """Logits and soft targets, [batch, classes] each."""
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
        """Pad short clips to the fewest frames that the model can pool."""
        missing = self.min_frames - mel.shape[1]
        return F.pad(mel, (0, 0, 0, missing)) if missing > 0 else mel
