"""Metrics of explanations, one value a clip.

Imports `utils`.
"""

from lmac_sb.metrics import localisation, registry, shape, sound
from lmac_sb.metrics.faithfulness import *  # noqa: F403
from lmac_sb.metrics.faithfulness import __all__ as _of_decisions
from lmac_sb.metrics.localisation import *  # noqa: F403
from lmac_sb.metrics.registry import *  # noqa: F403
from lmac_sb.metrics.shape import *  # noqa: F403
from lmac_sb.metrics.sound import *  # noqa: F403

# `faithfulness` is the metric; its module has the same name.
__all__ = sorted(
    [
        *_of_decisions,
        *localisation.__all__,
        *registry.__all__,
        *shape.__all__,
        *sound.__all__,
    ]
)
