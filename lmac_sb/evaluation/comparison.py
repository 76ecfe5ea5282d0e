"""Masks of several methods for a batch of clips, all scored in one way."""

import time
from itertools import product

import torch

from lmac_sb.lmac.masking import cut_ranks, ranks
from lmac_sb.methods.registry import min_max
from lmac_sb.metrics.shape import mask_area
from lmac_sb.utils.errors import LMACError

__all__ = ["OWN", "Comparison"]

OWN = "own"  # the mask as the method gives it


class Comparison:
    """All methods on a batch of clips, one row for each clip and mask.

    Arguments
    ---------
    judge : lmac_sb.evaluation.judge.Judge
        Of the explained classifier.
    methods : dict
        From `make_methods`; the first one's area is the one at which all are
        compared.
    classes : list of str
        Names of the classes.
    shares : list of float
        Further areas, in (0, 1]; None: each mask as its method gives it, and
        no other.

    Raises
    ------
    LMACError
        If a share is out of range, or the first method has no area.

    Example
    -------
    >>> from lmac_sb.evaluation.judge import Judge
    >>> from lmac_sb.methods.registry import make_case, make_methods
    >>> methods = make_methods(["lmac", "loudest"], {"lmac": explainer})
    >>> classes = ["cat", "cow", "dog"]
    >>> comparison = Comparison(Judge(explainer), methods, classes, [0.1])
    >>> items = [{"id": x, "class_string": "dog"} for x in "ab"]
    >>> case = make_case(explainer, wavs, [1.0, 1.0], items)
    >>> rows, seconds = comparison(case, items)
    >>> len(rows), rows[0]["method"], rows[0]["keep"], rows[0]["label"]
    (12, 'lmac', 'own', 'dog')
    """

    def __init__(self, judge, methods, classes, shares=None):
        for share in shares or []:
            if not 0 < share <= 1:
                raise LMACError(f"shares: {share} is not in (0, 1]")
        self.reference = next(iter(methods))
        if methods[self.reference].kind == "area":
            raise LMACError(
                f"methods: '{self.reference}' comes first, but has no area of "
                "its own; all are compared at the area of the first"
            )
        self.judge = judge
        self.methods = methods
        self.classes = classes
        self.shares = None if shares is None else list(shares)

    def keeps(self):
        """Names of the ways in which a mask is made."""
        if self.shares is None:
            return [OWN]
        return [OWN, f"area of {self.reference}", *map(str, self.shares)]

    def __call__(self, case, items, setting="clean"):
        """Rows of a batch, and the time that each method took.

        Arguments
        ---------
        case : lmac_sb.methods.registry.Case
            What is explained.
        items : list of dict
            The clips: ``id``, ``class_string``, and maybe ``right``, whether
            the decision is, or None where nobody can say; default: whether it
            is the label.
        setting : str
            Name of what was mixed in.

        Returns
        -------
        rows : list of dict
            One a clip, method and keep.
        seconds : dict
            Method to the time for all clips.

        Raises
        ------
        LMACError
            If the first method fails: its area is the others'.
        """
        texts = self._texts(case, items, setting)
        rows, seconds, area = [], {}, None
        for name, method in self.methods.items():
            begin = time.perf_counter()
            made = self._make(method, case, area)
            seconds[name] = time.perf_counter() - begin
            if area is None:
                if not torch.is_tensor(made):
                    raise LMACError(f"{self.reference}: {made[0]}")
                area = mask_area(made)
            for row in self._rows(method, made, area, case):
                rows.append({**texts[row["id"]], **row, "method": name})
        return rows, seconds

    def _texts(self, case, items, setting):
        """Columns that all rows of a clip have in common."""
        silence = self.judge.silence(case).tolist()
        texts = {}
        for item, c, p in zip(items, case.target.tolist(), silence):
            label, decision = item["class_string"], self.classes[c]
            right = item.get("right", decision == label)
            texts[item["id"]] = {
                "id": item["id"],
                "setting": setting,
                "method": None,
                "keep": None,
                "label": label,
                "decision": decision,
                "right": None if right is None else int(right),
                "p_silence": p,
            }
        return texts

    def _make(self, method, case, area):
        """A method's mask or scores; if it fails, an error for each clip."""
        try:
            made = self._call(method, case, area)
            if made.isfinite().all():
                return made
        except (LMACError, RuntimeError, ValueError, TypeError) as error:
            if len(case) == 1:
                return [" ".join(str(error).split()) or type(error).__name__]
        if len(case) == 1:
            return ["NaN in the mask"]
        # Clip by clip, so that the others still get their rows.
        parts = [
            self._make(method, case[[i]], None if area is None else area[[i]])
            for i in range(len(case))
        ]
        if all(torch.is_tensor(part) for part in parts):
            return torch.cat(parts)
        return [part if torch.is_tensor(part) else part[0] for part in parts]

    def _call(self, method, case, area):
        """A method's mask or scores, as a tensor of the right shape."""
        if method.kind == "area":
            made = method.function(case, area)
        else:
            made = method.function(case)
        shape = case.analysis.magnitude.shape
        if made.shape != shape:
            raise LMACError(
                f"mask of shape {tuple(made.shape)}, expected {tuple(shape)}"
            )
        return made.detach().float()

    def _rows(self, method, made, area, case):
        """Rows of one method: in each of its keeps, one a clip."""
        if torch.is_tensor(made):
            return self._judged(method, made, area, case)
        rows = []
        for i, part in enumerate(made):
            if torch.is_tensor(part):
                rows += self._judged(method, part, area[[i]], case[[i]])
            else:
                rows.append({"id": case.ids[i], "keep": OWN, "error": part})
        return rows

    def _judged(self, method, made, area, case):
        """Rows of masks that could be made."""
        odd, rows = _odd(method, made), []
        for keeps, mask, full in self._masks(method, made, area, case):
            columns = self.judge(case, mask, full)
            columns = {key: x.tolist() for key, x in columns.items()}
            for keep, (i, clip) in product(keeps, enumerate(case.ids)):
                row = {"id": clip, "keep": keep}
                row.update((key, x[i]) for key, x in columns.items())
                if odd[i] and method.kind != "fixed":
                    row["warning"] = odd[i]
                rows.append(row)
        return rows

    def _masks(self, method, made, area, case):
        """Names of keeps, their mask, and whether to judge it in full."""
        own, *areas = self.keeps()
        if not areas or method.kind == "fixed":
            yield [own], self._own(method, made), True
            return
        at_area, *names = areas
        shares = list(zip(names, self.shares))
        if method.kind == "area":
            yield [own, at_area], made, True
            for name, share in shares:
                at_share = method.function(case, torch.full_like(area, share))
                yield [name], at_share, False
        else:
            yield [own], self._own(method, made), True
            places = ranks(made)
            yield [at_area], cut_ranks(places, area), True
            for name, share in shares:
                yield [name], cut_ranks(places, share), False

    def _own(self, method, made):
        """What a method made, as a mask."""
        return min_max(made) if method.kind == "scores" else made


def _odd(method, made):
    """What is odd about the masks of each clip, in words; None if nothing."""
    found = []
    lows, highs = made.amin((1, 2)).tolist(), made.amax((1, 2)).tolist()
    for low, high in zip(lows, highs):
        unsaid = method.kind == "scores" and high <= 0
        said = "no score above zero" if unsaid else None
        found.append("constant mask" if low == high else said)
    return found
