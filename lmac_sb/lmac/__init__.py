"""The method: tensors in, tensors out.

Masks, the losses that train a decoder, refinement, and the `Explainer`, the one
place that knows the order of the steps. Imports `models` and `utils`.

**One more loss** is called as `LMACLoss` is and returns the total and the terms
of each clip; the yaml file names it as ``lmac_loss``, for training and for
refinement.

>>> import torch
>>> from lmac_sb.lmac.losses import LMACLoss
>>> class Decided(LMACLoss):
...     def __call__(self, mask, *others):
...         total, terms = super().__call__(mask, *others)
...         terms["doubt"] = (mask * (1 - mask)).mean((1, 2))
...         return total + terms["doubt"], terms
>>> found = explainer(wavs)
>>> total, terms = Decided()(
...     found.mask, found.logits_in, found.logits_out, found.decision
... )
>>> total.shape, terms["doubt"].shape
(torch.Size([2]), torch.Size([2]))
"""
