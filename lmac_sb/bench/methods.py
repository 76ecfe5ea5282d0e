"""Methods of the bench: those of the registry, and functions of one's own.

A function of one's own gets the explainer, the analysis of a batch and the
class to explain [batch], and gives scores [batch, time, freq], as each of
`lmac_sb.methods.gradients.ATTRIBUTIONS` does, of which those below zero count
as zero in the mask; or it is a
`lmac_sb.methods.registry.Method`, which may give masks as well. Whatever it
does, its rows say so, and the others go on.
"""

import re

import torch

from lmac_sb.bench.entries import OWN, check_form, said
from lmac_sb.inference.reference import (
    SURPRISES,
    imported,
    is_import_path,
    searching_here,
)
from lmac_sb.methods.registry import Method, make_methods
from lmac_sb.utils.errors import LMACError, kind_of

__all__ = ["DEFAULT", "REFERENCE", "base", "bench_methods", "check_methods"]

# What is compared where nothing else is asked for.
DEFAULT = (
    *("lmac", "lmac_look", "lmac+5", "optimised+20", "l2i"),
    *("input_x_gradient", "smoothgrad", "integrated_gradients", "gradcam"),
    *("occlusion", "loudest", "random", "ones", "ideal"),
)
LMAC, OPTIMISED, STEPS = "lmac", "optimised", "optimised+20"
REFERENCE = "loudest"  # with which each is compared, clip by clip
# Explainers that a classifier may have.
EXPLAINERS = (LMAC, "l2i")


def base(name):
    """The explainer in the name of a method.

    Arguments
    ---------
    name : str
        Such as ``lmac+5``.

    Returns
    -------
    str

    Example
    -------
    >>> base("lmac+5"), base("l2i_binary"), base("loudest")
    ('lmac', 'l2i', 'loudest')
    """
    return re.sub(r"(\+\d+|_binary|_look)$", "", name)


def check_methods(names, more=()):
    """Refuse names that no classifier has, before anything is computed.

    Arguments
    ---------
    names : list of str
        As in `bench_methods`.
    more : iterable of str
        Further explainers.

    Raises
    ------
    LMACError
        If one is unknown or given twice, or cannot be imported.

    Example
    -------
    >>> check_methods(["loudset"])
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: methods: unknown 'loudset'; did you mean 'loudest'? ...
    """
    for name in names:
        check_form("methods", name)
        if is_import_path(name):
            _own(name)
    # None of them is called.
    explainers = dict.fromkeys((*EXPLAINERS, *more))
    try:
        _named(names, explainers, 0)
    except LMACError as error:
        if not str(error).startswith("methods: unknown"):
            raise
        raise LMACError(f"{error}; of your own: {OWN['methods']}") from error


def bench_methods(names, explainers, seed=0):
    """The methods that can explain a classifier, and what cannot.

    Arguments
    ---------
    names : list of str
        As of `lmac_sb.methods.registry.make_methods`, or
        ``package.module:function``. The first of the result has the area at
        which all are compared: the decoder, or else steps from nothing.
    explainers : dict
        Method to `lmac_sb.lmac.explainer.Explainer`, of one classifier.
    seed : int
        Of the random mask.

    Returns
    -------
    methods : dict
        Name to `lmac_sb.methods.registry.Method`.
    left_out : list of str
        Those that this classifier does not have.

    Example
    -------
    >>> methods, left_out = bench_methods(["l2i", "ones"], {"lmac": explainer})
    >>> list(methods), left_out
    (['lmac', 'loudest', 'ones'], ['l2i'])
    """
    first = LMAC if LMAC in explainers else STEPS
    left_out = [name for name in names if _is_missing(name, explainers)]
    wanted = [name for name in names if name not in left_out]
    order = list(dict.fromkeys([first, REFERENCE, *wanted]))
    return _named(order, explainers, seed), left_out


def _is_missing(name, explainers):
    """Whether a known method is of an explainer that a classifier lacks."""
    if is_import_path(name):
        return False
    try:
        _known([name], explainers)
    except LMACError:
        return True
    return False


def _named(names, explainers, seed):
    """Methods in the order of their names."""
    own = {name: _own(name) for name in names if is_import_path(name)}
    rest = [name for name in names if name not in own]
    known = _known(rest, explainers, seed) if rest else {}
    if len(own) + len(rest) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise LMACError(f"methods: '{twice}' is given twice")
    return {name: own.get(name) or known[name] for name in names}


def _known(names, explainers, seed=0):
    """Methods of the registry; a classifier may bring steps of its own."""
    others = {k: x for k, x in explainers.items() if k != OPTIMISED}
    steps = explainers.get(OPTIMISED)
    return make_methods(names, others, seed=seed, optimised=steps)


def _own(name):
    """A method of the user."""
    try:
        found = imported(name)
    except SURPRISES as error:
        raise LMACError(
            f"methods: {name}: {said(error)}; expected a function that can "
            "be imported"
        ) from error
    if not isinstance(found, Method):
        if not callable(found):
            raise LMACError(
                f"methods: {name}: found an object of the type "
                f"{type(found).__name__}, expected a function of explainer, "
                "analysis and target, or a Method"
            )
        function = found
        found = Method(
            "scores",
            lambda case: function(case.explainer, case.analysis, case.target),
        )
    return found._replace(function=_Guarded(found.kind, found.function))


class _Guarded:
    """A function of the user: what it raises is an error of its row."""

    def __init__(self, kind, function):
        self.kind, self.function = kind, function

    def __call__(self, case, *area):
        """Call it, and look at what it gives."""
        # By places, so that what it writes is in copies.
        own = case[list(range(len(case)))]
        area = [torch.as_tensor(x).clone() for x in area]
        try:
            with searching_here():
                given = self.function(own, *area)
            if given is None:
                raise LMACError("gave nothing, expected a tensor")
            made = _real(given).detach().to(case.analysis.magnitude)
        except LMACError:
            raise
        except SURPRISES as error:
            raise LMACError(said(error)) from error
        if self.kind == "scores" and made.isinf().any():
            raise LMACError(
                "infinite scores, expected finite numbers of 32 bits"
            )
        if self.kind != "scores" and ((made < 0) | (made > 1)).any():
            raise LMACError(
                f"mask from {made.min():.3g} to {made.max():.3g}, expected "
                "values in [0, 1]"
            )
        return made


def _real(given):
    """What a function of the user gave, as a tensor of real numbers."""
    what = kind_of(given)
    try:
        made = torch.as_tensor(given)
        if not made.is_complex():
            return made
        what = "complex numbers"
    except (TypeError, RuntimeError):
        pass
    raise LMACError(f"gave {what}, expected a tensor of real numbers")
