"""Networks: features, encoders, the frozen classifier, decoders, weights.

Imports `utils`.

**One more classifier** is any module: `FrozenClassifier` is given its encoder,
its last layer, and the layers that the decoder reads, deepest first.

>>> import torch
>>> from lmac_sb.models.frozen import FrozenClassifier
>>> encoder = torch.nn.Sequential(torch.nn.GRU(40, 8, batch_first=True))
>>> frozen = FrozenClassifier(encoder, torch.nn.Linear(8, 3), ["0"])
>>> logits, latents = frozen(torch.rand(2, 87, 40))

**One more decoder** is any module that is called as
``decoder(latents, log_magnitude)`` and returns the mask's logits. One that
model folders of unknown origin may name says ``SAFE_IN_YAML = True``.

>>> class Quiet(torch.nn.Module):
...     def forward(self, latents, log_magnitude):
...         return log_magnitude - log_magnitude.mean()
>>> from lmac_sb import Explainer
>>> mine = Explainer(explainer.features, explainer.classifier, Quiet())
>>> mine(wavs).mask.shape
torch.Size([2, 87, 513])
"""
