"""Listenable maps for audio classifiers (L-MAC) on SpeechBrain.

The public names are loaded when first asked for, so that importing the
package, for its version say, does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmac_sb.inference.explain import explain
    from lmac_sb.inference.fit import fit
    from lmac_sb.inference.interpreter import LMACInterpreter
    from lmac_sb.lmac.explainer import Explainer, Explanation
    from lmac_sb.utils.errors import LMACError

__version__ = "0.2.0"

__all__ = [
    "Explainer",
    "Explanation",
    "LMACError",
    "LMACInterpreter",
    "explain",
    "fit",
]

_HOME = {
    "Explainer": "lmac_sb.lmac.explainer",
    "Explanation": "lmac_sb.lmac.explainer",
    "LMACError": "lmac_sb.utils.errors",
    "LMACInterpreter": "lmac_sb.inference.interpreter",
    "explain": "lmac_sb.inference.explain",
    "fit": "lmac_sb.inference.fit",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Name the lazy attributes too."""
    return sorted(set(globals()) | set(__all__))
