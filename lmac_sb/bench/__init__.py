"""The leaderboard: classifiers, data sets and methods, compared in one way.

Imports `evaluation` and all before it.

**One more method** is a function of the explainer, the analysis of a batch and
the class to explain, that gives scores of all bins; and one entry of
`lmac_sb.methods.gradients.ATTRIBUTIONS`, or `--methods my_module:my_function`
on the command line. A data set is one entry of `data.DATA`, a classifier one
of `classifiers.CLASSIFIERS`, or `my_module:name` as well.

>>> from lmac_sb.bench.methods import bench_methods
>>> from lmac_sb.methods.gradients import ATTRIBUTIONS
>>> from lmac_sb.methods.registry import make_case
>>> ATTRIBUTIONS["level"] = lambda explainer, analysis, target: (
...     analysis.magnitude
... )
>>> methods, _ = bench_methods(["level"], {"lmac": explainer})
>>> case = make_case(explainer, wavs, [1, 1], [{"id": "a"}, {"id": "b"}])
>>> list(methods), methods["level"].function(case).shape
(['lmac', 'loudest', 'level'], torch.Size([2, 87, 513]))
>>> del ATTRIBUTIONS["level"]
"""
