"""Metrics of explanations, one value a clip.

Imports `utils`.

**One more metric** is a function of tensors and one entry of `METRICS`, which
says what it needs, which direction is better, and where it is shown. Training,
evaluation, tables, plots and pages follow.

>>> METRICS["peak"] = Metric(lambda mask: mask.amax((1, 2)), "mask", 0)
>>> evaluate(explainer(wavs))["peak"].shape
torch.Size([2])
>>> del METRICS["peak"]
"""

from lmac_sb.metrics import fidelity, localisation, registry, shape, sound
from lmac_sb.metrics.fidelity import *  # noqa: F403
from lmac_sb.metrics.localisation import *  # noqa: F403
from lmac_sb.metrics.registry import *  # noqa: F403
from lmac_sb.metrics.shape import *  # noqa: F403
from lmac_sb.metrics.sound import *  # noqa: F403

__all__ = sorted(
    [
        *fidelity.__all__,
        *localisation.__all__,
        *registry.__all__,
        *shape.__all__,
        *sound.__all__,
    ]
)
