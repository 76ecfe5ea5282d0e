"""What L-MAC is compared with, by name.

Imports `explain`, `metrics`, `models` and `utils`.

**One more attribution method** is a function of the explainer, the analysis of
a batch and the class to explain, and one entry of `ATTRIBUTIONS`; a mask that
knows nothing of the classifier is one of `TRIVIAL_MASKS`.

>>> from lmac_sb.methods.gradients import ATTRIBUTIONS
>>> from lmac_sb.methods.registry import make_case, make_methods
>>> ATTRIBUTIONS["level"] = lambda explainer, analysis, target: (
...     analysis.magnitude
... )
>>> level = make_methods(["level"], {})["level"]
>>> clips = [{"id": "a"}, {"id": "b"}]
>>> level.function(make_case(explainer, wavs, [1, 1], clips)).shape
torch.Size([2, 87, 513])
>>> del ATTRIBUTIONS["level"]
"""
