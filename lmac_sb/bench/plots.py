"""Plots of a bench, as PNG and SVG: each measure of all methods."""

import re

from lmac_sb.bench.measured import MEASURES
from lmac_sb.bench.results import EQUAL, better
from lmac_sb.evaluation.comparison import OWN
from lmac_sb.utils.figures import COLOURS, STYLE, write_figure

__all__ = ["draw_bench"]

# What is drawn, of those that there are; the rest is on the page.
DRAWN = (
    *("AI", "AD", "AG", "FF", "Fid-In", "event_auc", "time_auc"),
    *("kept_event_auc", "heard AI", "other AI"),
    *("agreement", "mask change", "passes"),
)
_ARROWS = {1: " ↑", -1: " ↓", 0: ""}


def draw_bench(folder, cells, found):
    """Draw a figure for each cell.

    Arguments
    ---------
    folder : Path
        An existing one.
    cells : list of dict
        Facts of each cell.
    found : list of dict
        From `lmac_sb.bench.results.figures`.

    Returns
    -------
    list of str
        Names of the PNG files.
    """
    names = []
    for facts in cells:
        place = facts["data"], facts["classifier"]
        part = [x for x in found if (x["data"], x["classifier"]) == place]
        stem = folder / re.sub(r"[^\w-]+", "_", " ".join(place))
        names.append(_draw(stem, ", ".join(place), part))
    return names


def _draw(stem, title, lines):
    """Draw one panel for each measure; the name of the PNG."""
    import matplotlib
    from matplotlib.figure import Figure

    # At equal area, but for what is of the mask as it is.
    lines = [
        x
        for x in lines
        if x["keep"] == (OWN if x["measure"] in MEASURES else EQUAL)
        and x["mean"] is not None
    ]
    there = {x["measure"] for x in lines}
    drawn = [name for name in DRAWN if name in there]
    methods = list(dict.fromkeys(x["method"] for x in lines))
    abreast = min(4, len(drawn))
    n_rows = -(-len(drawn) // abreast)
    height = 0.8 + n_rows * (0.7 + 0.22 * len(methods))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(2.2 + 2.4 * abreast, height), layout="constrained"
        )
        figure.suptitle(title, parse_math=False)
        axes = figure.subplots(n_rows, abreast, squeeze=False, sharey=True)
        axes = axes.ravel()
        for axis in axes[len(drawn) :]:
            axis.remove()
        for axis, name in zip(axes, drawn):
            axis.set_title(f"{name}{_ARROWS[better(name)]}", parse_math=False)
            for x in lines:
                if x["measure"] == name:
                    place = methods.index(x["method"])
                    axis.hlines(place, x["low"], x["high"], color=COLOURS[0])
                    axis.plot(x["mean"], place, "o", color=COLOURS[0])
            axis.set_yticks(range(len(methods)), methods, parse_math=False)
            axis.set_ylim(len(methods) - 0.5, -0.5)
        return write_figure(figure, stem)[0].name
