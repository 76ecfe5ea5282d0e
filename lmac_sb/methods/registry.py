"""The methods that an evaluation compares, by name."""

import re
from collections import namedtuple
from dataclasses import dataclass, replace
from functools import partial

import torch

from lmac_sb.lmac.masking import binarize, convert_mask, ideal_mask
from lmac_sb.methods.attribution import captum_method
from lmac_sb.methods.decided import locate
from lmac_sb.methods.gradients import ATTRIBUTIONS, OF_CAPTUM
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.near import nearest

__all__ = [
    "Case",
    "Method",
    "make_case",
    "make_methods",
    "min_max",
    "passes",
]

# kind: "mask" (of a case, values in [0, 1]), "scores" (of a case, any real
# numbers), "area" (of a case and the shares to keep [batch]: a mask) or
# "fixed" (of a case: a mask whose area is not for us to choose).
# steps: how many along a gradient, None for methods that take none.
# start: passes of the classifier before the first step.
Method = namedtuple(
    "Method", "kind function steps start", defaults=(None, None)
)


@dataclass
class Case:
    """What methods are asked about some clips of one length.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Holds the classifier.
    wavs : torch.Tensor
        What it hears, [batch, samples].
    analysis : lmac_sb.lmac.explainer.Analysis
        Its view of them.
    target : torch.Tensor
        Class to explain, [batch].
    ids : list of str
        Names of the clips.
    event : torch.Tensor
        Ideal mask of the event of that class, [batch, time, freq], or None.
    others : torch.Tensor
        Ideal mask of all other events, [batch, time, freq], or None.
    clean : torch.Tensor
        The clips within a mixture, [batch, samples]; None without one.
    frames : torch.Tensor
        Frames in which the event is known to sound, boolean, [batch, time],
        or None.

    Example
    -------
    >>> items = [{"id": "a"}, {"id": "b"}]
    >>> case = make_case(explainer, wavs, [1.0, 1.0], items)
    >>> len(case), case[[1]].ids
    (2, ['b'])
    """

    explainer: object
    wavs: torch.Tensor
    analysis: object
    target: torch.Tensor
    ids: list
    event: torch.Tensor = None
    others: torch.Tensor = None
    clean: torch.Tensor = None
    frames: torch.Tensor = None

    def __len__(self):
        """Number of clips."""
        return len(self.ids)

    def __getitem__(self, rows):
        """Some of the clips, by a list of their places."""
        part = {
            name: value[rows]
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        ids = [self.ids[row] for row in rows]
        return replace(self, analysis=self.analysis[rows], ids=ids, **part)


def make_methods(
    names, interpreters, optimised_steps=150, seed=0, optimised=None
):
    """Methods by name.

    Arguments
    ---------
    names : list of str
        Names in `interpreters`; attributions and trivial masks;
        ``optimised``, a mask that gradient steps draw from nothing; the
        number of steps may follow, as in ``lmac+5`` and ``optimised+20``;
        ``lmac_look``, after a second look; ``lmac_binary``, the mask of
        ``lmac`` cut at one half;
        ``ideal``, the mask of a known event.
    interpreters : dict
        Name to `lmac_sb.lmac.explainer.Explainer`.
    optimised_steps : int
        Steps of ``optimised`` where its name tells none.
    seed : int
        Of the random mask.
    optimised : lmac_sb.lmac.explainer.Explainer
        From whose mask ``optimised`` takes its steps; by default from one
        half everywhere.

    Returns
    -------
    dict
        Name to `Method`, in the order given.

    Raises
    ------
    LMACError
        If a name is unknown (the message lists the known ones) or given
        twice, or its package is not installed, or an interpreter has the
        name of another method.

    Example
    -------
    >>> list(make_methods(["saliency", "ones"], {}))
    ['saliency', 'ones']
    >>> make_methods(["salience"], {})
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: methods: unknown 'salience'; did you mean ...
    """
    known = {
        **{
            name: Method("scores", partial(_attribute, function))
            for name, function in ATTRIBUTIONS.items()
        },
        **{
            name: Method("area", partial(_trivial, function, seed))
            for name, function in TRIVIAL_MASKS.items()
        },
        "ones": Method("fixed", lambda case: torch.ones_like(_grid(case))),
        "ideal": Method("fixed", _ideal),
    }
    for name, explainer in interpreters.items():
        known[f"{name}_binary"] = Method("mask", partial(_binary, explainer))
        known[f"{name}_look"] = Method(
            "mask", partial(_decode, explainer, 0, look=True), 0, 3
        )
    stepping = {"optimised": (_optimised, optimised_steps, 0)}
    if optimised is not None:
        start = partial(_decode, optimised)
        stepping["optimised"] = start, optimised_steps, 1
    for name, explainer in interpreters.items():
        if name in known or name in stepping:
            raise LMACError(
                f"interpreters: '{name}' is the name of another method, "
                "expected a name of its own"
            )
        stepping[name] = partial(_decode, explainer), 0, 1
    methods = {}
    for name in [names] if isinstance(names, str) else names:
        base, steps = re.fullmatch(r"(.*?)(?:\+(\d+))?", str(name)).groups()
        if name in methods:
            raise LMACError(f"methods: '{name}' is given twice")
        if name in OF_CAPTUM:
            captum_method("Saliency")  # is it there?
        if name in known:
            methods[name] = known[name]
        elif base in stepping:
            function, default, start = stepping[base]
            steps = default if steps is None else int(steps)
            methods[name] = Method(
                "mask", partial(function, steps), steps, start
            )
        else:
            near = nearest(base, [*known, *stepping])
            hint = "" if near is None else f"did you mean '{near}'? "
            raise LMACError(
                f"methods: unknown '{name}'; {hint}there are "
                f"{', '.join(known)}, and {', '.join(stepping)}, which may end "
                "in a number of gradient steps such as +5"
            )
    if not methods:
        raise LMACError("methods: none given")
    return methods


def passes(method):
    """Passes of the classifier that a method costs for one clip.

    Arguments
    ---------
    method : Method
        One that takes gradient steps, or could.

    Returns
    -------
    int
        Forward and backward count alike: a step has two of each, and after
        the last one both sides are classified once more. None for a method
        that takes no steps.

    Example
    -------
    >>> passes(make_methods(["optimised+10"], {})["optimised+10"])
    42
    """
    if method.steps is None:
        return None
    return method.start + (4 * method.steps + 2 if method.steps else 0)


def make_case(explainer, wavs, gains, items):
    """What methods are asked about some clips: why this class?

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Of the explained classifier.
    wavs : torch.Tensor
        What it hears, [batch, samples].
    gains : list of float
        What the clips were multiplied by to be a part of that.
    items : list of dict
        The clips, from `lmac_sb.data.dataset.make_dataset`; with ``target``
        where another class than the decision is to be explained.

    Returns
    -------
    Case
        With an event where all clips have one; with the others too where
        events are by class.

    Example
    -------
    >>> items = [{"id": name} for name in "ab"]
    >>> for item, wav in zip(items, wavs):
    ...     item["event"] = wav / 2
    >>> case = make_case(explainer, wavs, [1.0] * len(wavs), items)
    >>> case.event.shape == case.analysis.magnitude.shape
    True
    """
    target = None
    if all("target" in item for item in items):
        target = torch.tensor([item["target"] for item in items])
        target = target.to(wavs.device)
    analysis = explainer.analyze(wavs, target)
    if target is None:
        target = analysis.logits.argmax(1)
    event = others = None
    if all("event" in item for item in items):
        # The event at the gain that the clip has in the mixture.
        stems = torch.stack(
            [item["event"].to(wavs) * gain for item, gain in zip(items, gains)]
        )
        features, stft = explainer.features, analysis.stft
        if stems.dim() == 3:
            event, others = locate(features, stems, target, stft)
        else:
            event = ideal_mask(features.stft(stems), stft)
    ids = [item["id"] for item in items]
    return Case(explainer, wavs, analysis, target, ids, event, others)


def min_max(scores):
    """What speaks for the class in each clip, shifted and scaled to [0, 1].

    Arguments
    ---------
    scores : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch, time, freq]; zeros for a clip whose scores are all the same.
        Scores below zero speak against the class, and count as zero.

    Example
    -------
    >>> min_max(torch.tensor([[[-1.0, 2.0, 1.0]]]))
    tensor([[[0.0000, 1.0000, 0.5000]]])
    """
    scores = scores.clamp(min=0)
    low = scores.amin((1, 2), keepdim=True)
    width = scores.amax((1, 2), keepdim=True) - low
    return (scores - low) / torch.where(width > 0, width, torch.inf)


def _grid(case):
    """A tensor with the shape of the masks."""
    return case.analysis.magnitude


def _attribute(function, case):
    """Scores of an attribution."""
    return function(case.explainer, case.analysis, case.target)


def _trivial(function, seed, case, area):
    """A mask of so much area that knows nothing of the classifier."""
    return function(_grid(case), area, seed)


def _decode(explainer, steps, case, look=False):
    """Mask of a trained decoder, maybe after a second look, or refined."""
    with torch.no_grad():
        analysis = case.analysis
        if explainer is not case.explainer:
            # Its decoder may want another view, such as one with evidence.
            analysis = explainer.analyze(case.wavs, case.target)
        mask = explainer.mask(analysis, case.target)
    if look:
        mask = explainer.look_again(analysis, mask, case.target)
    if steps:
        mask = explainer.refine(analysis, mask, steps, case.target)
    # All masks of a table act where those of its first model do.
    domains = explainer.mask_domain, case.explainer.mask_domain
    return convert_mask(case.analysis.magnitude, mask, *domains)


def _binary(explainer, case):
    """Mask of a trained decoder, cut at one half."""
    return binarize(_decode(explainer, 0, case), 0.5)


def _optimised(steps, case):
    """Mask drawn by gradient steps that start from no knowledge."""
    half = torch.full_like(_grid(case), 0.5)
    return case.explainer.refine(case.analysis, half, steps, case.target)


def _ideal(case):
    """Mask of the known event."""
    if case.event is None:
        raise LMACError("ideal: the data does not tell where its events are")
    return case.event
