"""Where the time of a training step and of an explanation goes."""

import contextlib
import functools
import time

import torch
from measure import check_names

from lmac_sb.lmac import explainer as rooms

# In the order in which a clip passes them.
PARTS = (
    "reading",
    "STFT",
    "features",
    "classifier",
    "evidence",
    "decoder",
    "masks",
    "loss",
    "backward",
    "optimiser",
    "ISTFT",
    "writing",
    "rest",
)


def check_parts(names):
    """Refuse names of no part.

    Arguments
    ---------
    names : list of str
        What is asked for; nothing: all.

    Returns
    -------
    list of str
        The parts, in the order of `PARTS`.

    Raises
    ------
    LMACError
        If a name is unknown.
    """
    check_names("--parts", names, PARTS)
    return [name for name in PARTS if name in names] if names else list(PARTS)


class Parts:
    """Processor time by part; of one within another, the inner one counts.

    Arguments
    ---------
    device : str
        Where the calls run. On a GPU each part waits for its end, so the sum
        is more than the whole takes otherwise.
    """

    def __init__(self, device="cpu"):
        self.on_gpu = torch.device(device).type == "cuda"
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open = ["rest"]
        self._since = self._now()

    def _now(self):
        """Seconds: of the processor, or the clock behind a GPU's queue."""
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _turn(self):
        """Book what has passed to the part that is open."""
        now = self._now()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def of(self, name):
        """Within `with`, time belongs to a part.

        Arguments
        ---------
        name : str
            One of `PARTS`.
        """
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def reset(self):
        """Begin anew."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._since = self._now()

    def finish(self):
        """Book what has passed since the last part."""
        self._turn()

    @contextlib.contextmanager
    def watch(self, explainer):
        """Within `with`, the calls of an explainer's parts are counted.

        Arguments
        ---------
        explainer : lmac_sb.lmac.explainer.Explainer
            Is as before afterwards.
        """
        features, classifier = explainer.features, explainer.classifier
        places = [
            (features, "stft", "STFT"),
            (features, "istft", "ISTFT"),
            (features, "magnitude", "features"),
            (features, "mel", "features"),
            # What it takes beyond the pass within it.
            (classifier, "trace", "evidence"),
            (classifier, "forward", "classifier"),
            (classifier, "logits_and_embedding", "classifier"),
            (explainer.decoder, "forward", "decoder"),
            (explainer, "_sides", "masks"),
            (explainer, "mask", "masks"),
            (rooms, "standard_level", "decoder"),
        ]
        with contextlib.ExitStack() as stack:
            for owner, attribute, name in places:
                if hasattr(owner, attribute):
                    stack.enter_context(self._wrapped(owner, attribute, name))
            yield self

    @contextlib.contextmanager
    def _wrapped(self, owner, attribute, name):
        """One function, which counts for a part."""
        function = getattr(owner, attribute)
        is_own = attribute in vars(owner)

        @functools.wraps(function)
        def timed(*args, **options):
            with self.of(name):
                return function(*args, **options)

        # Not by setattr of a module, which would look for a parameter.
        vars(owner)[attribute] = timed
        try:
            yield
        finally:
            if is_own:
                vars(owner)[attribute] = function
            else:
                del vars(owner)[attribute]
