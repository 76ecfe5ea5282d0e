"""What a comparison does not measure: cost, agreement, and robustness.

**Cost**: CPU seconds and passes of the classifier, forward and backward.

**Agreement**: the masks of explainers that were trained from other seeds,
against that of the first: their correlation over the bins that sound
(`lmac_sb.metrics.verdict.agreement`), and the overlap (intersection over
union) of as many of their highest bins as the reference keeps.

**Robustness**: white noise 40 dB below the sound, drawn several times. *Mask
change* is one minus the correlation of the masks of both, for the same class;
*decision change* by how much the class's probability changes. A draw after
which the classifier decides for another class says nothing of the mask, and
counts for the decision alone; where none is left, the mask's change is NaN. A
method whose mask takes more than `MOST_PASSES` is not called again: occlusion
would take most of the time.
"""

import math
import time
from dataclasses import replace

import torch
from torch.nn.modules.module import register_module_forward_hook

from lmac_sb.evaluation.comparison import OWN, Comparison
from lmac_sb.evaluation.judge import white_noise
from lmac_sb.lmac.masking import cut_ranks, ranks
from lmac_sb.metrics.shape import mask_area
from lmac_sb.metrics.verdict import agreement
from lmac_sb.models.question import as_question
from lmac_sb.utils.errors import LMACError

__all__ = ["MEASURES", "NOISE_DB", "Measured", "Passes", "overlap"]

NOISE_DB = 40.0  # below the sound: not heard beside it
MOST_PASSES = 100  # of a mask that is made again with noise
# name -> better direction, decimals, and what it says
MEASURES = {
    "agreement": (
        1,
        3,
        "Agreement: the correlation of the masks of explainers that were "
        "trained from different seeds.",
    ),
    "agreement IoU": (
        1,
        3,
        "Agreement, overlap: how many of the highest bins explainers of "
        "different seeds share, of those that either has.",
    ),
    "mask change": (
        -1,
        3,
        "Mask change: one minus the correlation of the masks with and without "
        "noise 40 dB below the sound.",
    ),
    "decision change": (
        0,
        4,
        "Decision change: by how much the probability of the class changes "
        "with that noise; the same for all methods.",
    ),
    "seconds": (-1, 2, "CPU seconds that the mask of a clip takes."),
    "passes": (
        -1,
        0,
        "Passes of the classifier that the mask of a clip takes, forward and "
        "backward.",
    ),
    "failed": (-1, 3, "Failed: the share of the clips that have no mask."),
}


class Passes:
    """Counts passes of modules within `with`: forward, and backward if any.

    Arguments
    ---------
    is_one : callable
        Whether a module is counted.
    n_rows : int
        Rows of the batch axis for which one call is one pass.

    Example
    -------
    >>> net = torch.nn.Linear(1, 1)
    >>> with Passes(lambda module: module is net, 2) as passes:
    ...     _ = net(torch.zeros(2, 1, requires_grad=True))
    >>> passes.count
    2.0
    """

    def __init__(self, is_one, n_rows):
        self.is_one, self.n_rows, self.count = is_one, n_rows, 0.0

    def __enter__(self):
        self._handle = register_module_forward_hook(self._see)
        return self

    def __exit__(self, *error):
        self._handle.remove()

    def _see(self, module, inputs, output):
        """One call of a module."""
        if self.is_one(module):
            if isinstance(output, (tuple, list)):
                output = output[0]
            times = 1 + output.requires_grad
            self.count += times * len(inputs[0]) / self.n_rows


def overlap(one, other, area):
    """Intersection over union of the highest bins of two masks.

    Arguments
    ---------
    one, other : torch.Tensor
        [batch, time, freq].
    area : torch.Tensor
        Share of the bins that count, [batch].

    Returns
    -------
    torch.Tensor
        [batch], in [0, 1]; NaN where no bin counts.

    Example
    -------
    >>> one = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    >>> other = torch.tensor([[[3.0, 1.0, 2.0, 0.0]]])
    >>> overlap(one, other, torch.tensor([0.5]))
    tensor([0.3333])
    """
    a, b = (cut_ranks(ranks(mask), area) > 0 for mask in (one, other))
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))


class _Recorded:
    """A method that remembers what it made of each clip, and its cost."""

    def __init__(self, method, heard):
        self.method, self.heard = method, heard
        self.made, self.cost = {}, {}

    def __call__(self, case, *area):
        """Call the method, and remember the first mask of each clip."""
        start = time.process_time()
        with Passes(lambda module: module in self.heard, len(case)) as passes:
            made = self.method.function(case, *area)
        seconds = (time.process_time() - start) / len(case)
        count = passes.count + self._shared(case)
        if made.shape == case.analysis.magnitude.shape:
            for clip, mask in zip(case.ids, made.detach().float()):
                self.made.setdefault(clip, mask)
                self.cost.setdefault(
                    clip, {"seconds": seconds, "passes": count}
                )
        return made

    def _shared(self, case):
        """Passes that were made for the case, and are the method's as well.

        Those with which a decoder reads the clip, if it explains as the case
        does; another explainer looks at the clip anew.
        """
        explainers = getattr(self.method.function, "args", ())
        shares = any(x is case.explainer for x in explainers)
        return (self.method.start or 0) if shares else 0


class Measured(Comparison):
    """A comparison whose rows have these measures as well.

    Arguments
    ---------
    judge, methods, classes : object
        See `lmac_sb.evaluation.comparison.Comparison`.
    others : list of dict
        Methods by name of explainers from other seeds.
    draws : int
        Of the noise.
    explainers : iterable of lmac_sb.lmac.explainer.Explainer
        Those that explain: passes of their classifiers count; by default that
        of the judge.

    Example
    -------
    >>> from lmac_sb.evaluation.judge import Judge
    >>> from lmac_sb.methods.registry import make_case, make_methods
    >>> methods = make_methods(["lmac", "loudest"], {"lmac": explainer})
    >>> classes = ["cat", "cow", "dog"]
    >>> comparison = Measured(Judge(explainer), methods, classes, [methods], 1)
    >>> items = [{"id": x, "class_string": "dog"} for x in "ab"]
    >>> case = make_case(explainer, wavs, [1.0, 1.0], items)
    >>> rows, _ = comparison(case, items)
    >>> rows[0]["agreement"], rows[0]["passes"]
    (1.0, 1.0)
    """

    def __init__(
        self, judge, methods, classes, others=(), draws=3, explainers=()
    ):
        super().__init__(judge, methods, classes, shares=[])
        self.others, self.draws = list(others), draws
        heard = {
            x.classifier.embedding_model for x in (judge.explainer, *explainers)
        }
        self._recorded = {
            name: _Recorded(method, heard) for name, method in methods.items()
        }
        self.methods = {
            name: method._replace(function=self._recorded[name])
            for name, method in methods.items()
        }

    def __call__(self, case, items, setting="clean"):
        """Rows of a batch, see `Comparison`."""
        for recorded in self._recorded.values():
            recorded.made, recorded.cost = {}, {}
        rows, seconds = super().__call__(case, items, setting)
        known = self._recorded[self.reference].made
        reference = self.methods[self.reference]
        masks = torch.stack([known[clip] for clip in case.ids])
        area = mask_area(self._own(reference, masks))
        noisy = [self._with_noise(case, draw) for draw in range(self.draws)]
        place = {clip: i for i, clip in enumerate(case.ids)}
        for row in rows:
            if row["keep"] != OWN or row.get("error"):
                continue
            i, name = place[row["id"]], row["method"]
            row.update(self._recorded[name].cost[row["id"]])
            row["decision change"] = _mean([x.moved[i].item() for x in noisy])
        self._compare(rows, case, area, noisy)
        return rows, seconds

    def _compare(self, rows, case, area, noisy):
        """Add how masks agree with those of noise and of other seeds."""
        own = {
            (row["method"], row["id"]): row
            for row in rows
            if row["keep"] == OWN and not row.get("error")
        }
        for name, recorded in self._recorded.items():
            ids = [clip for clip in case.ids if (name, clip) in own]
            if not ids:
                continue
            places = [case.ids.index(clip) for clip in ids]
            made = torch.stack([recorded.made[clip] for clip in ids])
            mask = self._own(recorded.method, made)
            part, share = case[places], area[places]
            if max(recorded.cost[x]["passes"] for x in ids) <= MOST_PASSES:
                changes = self._changes(name, mask, part, share, noisy)
                for clip, values in zip(ids, changes):
                    own[name, clip]["mask change"] = _mean(values)
            found = self._agreements(name, mask, part, share)
            for column, values in found.items():
                for clip, value in zip(ids, values):
                    own[name, clip][column] = value

    def _with_noise(self, case, draw):
        """The clips with noise that nobody hears."""
        explainer = case.explainer
        names = [f"bench {clip} {draw}" for clip in case.ids]
        wavs = case.wavs + white_noise(case.wavs, names, NOISE_DB)
        analysis = explainer.analyze(wavs, case.target)
        multilabel = explainer.classifier.multilabel
        question = as_question(case.target, multilabel)
        before, after = (
            question.probability(x.logits) for x in (case.analysis, analysis)
        )
        noisy = replace(case, wavs=wavs, analysis=analysis)
        # Of classes that are decided one by one, none is another's rival.
        both = (before > 0.5, after > 0.5)
        if not multilabel:
            both = (case.analysis.logits.argmax(1), analysis.logits.argmax(1))
        return _Noisy(noisy, (after - before).abs(), both[0] == both[1])

    def _changes(self, name, mask, case, area, noisy):
        """One minus the correlation with each noisy mask, by clip."""
        method = self._recorded[name].method
        found = [[] for _ in case.ids]
        for one in noisy:
            places = [one.case.ids.index(clip) for clip in case.ids]
            again = self._again(method, one.case[places], area)
            if again is None:
                continue
            same = agreement(mask, again, case.analysis.magnitude)
            stays = one.stays[places]
            for values, value, counts in zip(found, same.tolist(), stays):
                if counts:
                    values.append(1 - value)
        return found

    def _agreements(self, name, mask, case, area):
        """Agreement with the explainers of other seeds."""
        columns = {"agreement": [], "agreement IoU": []}
        for methods in self.others:
            again = name in methods and self._again(methods[name], case, area)
            if torch.is_tensor(again):
                magnitude = case.analysis.magnitude
                same = agreement(mask, again, magnitude)
                columns["agreement"].append(same)
                columns["agreement IoU"].append(overlap(mask, again, area))
        return {
            column: torch.stack(values).mean(0).tolist()
            for column, values in columns.items()
            if values
        }

    def _again(self, method, case, area):
        """The mask of other sounds or another explainer; None if it fails."""
        try:
            made = self._call(method, case, area)
        except (LMACError, RuntimeError, ValueError, TypeError):
            return None
        return self._own(method, made)


class _Noisy:
    """Noisy clips, by how much the decision moved, and whether it stays."""

    def __init__(self, case, moved, stays):
        self.case, self.moved, self.stays = case, moved, stays


def _mean(values):
    """Mean of those that are no NaN; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
