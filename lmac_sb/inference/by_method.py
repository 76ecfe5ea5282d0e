"""Explanations of one classifier by other methods, to compare with its own.

Whatever the method, what its mask keeps and leaves is made audible, classified
and judged in the same way.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.lmac.explainer import Analysis, Explainer
from lmac_sb.lmac.masking import cut_ranks, ranks
from lmac_sb.methods.registry import Case, Method, make_methods
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["by_method"]


class _ByMethod(Explainer):
    """An explainer whose masks come from a method of the registry."""

    def __init__(self, explainer: Explainer, method: Method, area: float):
        super().__init__(
            explainer.features,
            explainer.classifier,
            explainer.decoder,
            explainer.mask_domain,
        )
        self.method = method
        self.area = area

    def mask(self, analysis: Analysis, target: Any = None) -> Tensor:
        """The bins that the method ranks highest, as many as the area says."""
        asked = self._ask(analysis, target)
        names = [str(i) for i in range(len(analysis.magnitude))]
        wavs: Any = analysis.wavs  # no method here reads them
        case = Case(self, wavs, analysis, asked.decision, names)
        area = analysis.magnitude.new_full((len(names),), self.area)
        if self.method.kind == "area":
            return self.method.function(case, area)
        return cut_ranks(ranks(self.method.function(case)), area)


def by_method(
    interpreter: LMACInterpreter, name: str, area: float
) -> LMACInterpreter:
    """An interpreter of the same classifier, which explains by a method.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Of the classifier; it stays as it is.
    name : str
        An attribution or a trivial mask, see
        `lmac_sb.methods.registry.make_methods`.
    area : float
        Share of the bins that the mask keeps, in [0, 1]: those that the method
        ranks highest. For a fair comparison, that of another mask of the
        same sound, see `lmac_sb.metrics.shape.mask_area`.

    Returns
    -------
    lmac_sb.LMACInterpreter
        Its masks are zeros and ones, and it takes no steps. A method asks why
        it is the class, whatever that is compared with.

    Raises
    ------
    LMACError
        If there is no such method, or it asks for a trained decoder or a known
        event.

    Example
    -------
    >>> other = by_method(interpreter, "smoothgrad", area=0.1)
    >>> round(float(other.explain_file(path).mask.mean()), 2)
    0.1
    """
    method = make_methods([name], {})[name]
    if method.kind not in ("scores", "area"):
        raise LMACError(
            f"method: found {shown(name)}, expected one that ranks the bins"
        )
    other = copy.copy(interpreter)
    # A module's copy has the same dictionary of its parts.
    other._modules = dict(interpreter._modules)
    other.explainer = _ByMethod(interpreter.explainer, method, area)
    return other
