"""Figures for people, as PNG and SVG; the same figure gives the same bytes."""

from pathlib import Path

from lmac_sb.utils.io import write_in_one_step

__all__ = ["COLOURS", "STYLE", "write_figure"]

# Colours that colour-blind people can distinguish (Okabe and Ito), without
# yellow, which is hard to see on white.
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)
# For `matplotlib.rc_context`, while a figure is drawn and written.
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    # Without it, the names inside an SVG are random.
    "svg.hashsalt": "lmac_sb",
}


def write_figure(figure, stem):
    """Write a figure as PNG and SVG, each in one step.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        Drawn and written within `STYLE`.
    stem : str or Path
        The files, without their endings.

    Returns
    -------
    list of Path
        The PNG, then the SVG.

    Example
    -------
    >>> from matplotlib.figure import Figure
    >>> stem = getfixture("tmp_path") / "empty"
    >>> [path.name for path in write_figure(Figure(), stem)]
    ['empty.png', 'empty.svg']
    """
    options = {"png": {"dpi": 150}, "svg": {"metadata": {"Date": None}}}
    paths = []
    for suffix, how in options.items():
        path = Path(f"{stem}.{suffix}")

        def write(file, suffix=suffix, how=how):
            """Write the picture to an open file."""
            figure.savefig(file, format=suffix, **how)

        write_in_one_step(path, write, binary=True)
        paths.append(path)
    return paths
