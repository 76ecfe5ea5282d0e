"""Plots of an evaluation, each as PNG and SVG.

The input is the rows of an evaluation, or lines: a dict from name to points
(x, values). The values are a dict from metric to ``mean``, ``low`` and
``high``, such as `lmac_sb.metrics.summary.summarize` gives for each method.
Matplotlib is loaded when a figure is drawn. The same values give the same
bytes.
"""

import math
from statistics import fmean

from lmac_sb.evaluation.rows import by_method, natural
from lmac_sb.evaluation.tables import curves, shares_of
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.summary import header, summarize
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.figures import COLOURS, STYLE, write_figure

__all__ = [
    "draw_curves",
    "draw_passes",
    "draw_randomisation",
    "draw_roar",
    "draw_snr",
]

# Markers and dashes change with other periods than the colours, so that no
# two of 84 lines look alike.
MARKERS = ("o", "s", "^", "D")
DASHES = ("-", "--", ":", "-.")
ABREAST = 3  # panels side by side


def draw_curves(stem, rows):
    """Draw insertion and deletion over the share of kept bins, by setting.

    Arguments
    ---------
    stem : str or Path
        Path of the files without suffix.
    rows : list of dict or lmac_sb.evaluation.rows.StoredRows
        See `lmac_sb.evaluation.tables.curves`; clips with an error are left
        out of their method's line.

    Returns
    -------
    list of pathlib.Path
        The PNG and the SVG; empty if no row's ``keep`` is a share.
    """
    parts, drawn = by_method(rows), {}
    shares = shares_of(parts.keeps)
    for setting, method in parts.names if shares else ():
        found = curves(parts.of(setting, method), shares)
        found = [curve for curve in found if "error" not in curve]
        for side in ("insertion", "deletion") if found else ():
            better = header(f"{side} AUC").split()[-1]
            panel = drawn.setdefault(f"{setting}: {side} {better}", {})
            panel[method] = _mean_curve(found, side)
    if not drawn:
        return []
    return _draw(stem, drawn, "share of bins", "probability", abreast=2)


def _mean_curve(found, side):
    """Points of a method without intervals, which would hide other lines."""
    columns = zip(*(curve[side] for curve in found))
    return [
        (x, fmean(column), None, None)
        for x, column in zip(found[0]["shares"], columns)
    ]


def draw_snr(stem, rows):
    """Draw metrics over the signal-to-noise ratio, for each kind of noise.

    Arguments
    ---------
    stem : str or Path
        Path of the files without suffix.
    rows : list of dict or lmac_sb.evaluation.rows.StoredRows
        Rows of an evaluation. Those count whose ``keep`` is ``own`` and whose
        setting ends in an SNR, such as "white 5 dB".

    Returns
    -------
    list of pathlib.Path
        The PNG and the SVG; empty if there is no such row.
    """
    names = [name for name, metric in METRICS.items() if metric.repeated]
    parts = by_method(rows)
    cells = []
    for setting, method in parts.names:
        kind, snr = _kind_and_snr(setting)
        if snr is not None:
            cells.append((kind, snr, natural(method), setting, method))
    kinds = {}
    for kind, snr, _, setting, method in sorted(cells):
        part = parts.of(setting, method)
        own = [row for row in part if row["keep"] == "own"]
        if own:
            figures = summarize(own, columns=names)[method]
            lines = kinds.setdefault(kind, {})
            lines.setdefault(method, []).append((snr, figures))
    panels = {
        f"{kind}: {title}": panel
        for kind, lines in kinds.items()
        for title, panel in _panels(lines, names).items()
    }
    if not panels:
        return []
    return _draw(stem, panels, "SNR in dB", abreast=len(names))


def _kind_and_snr(setting):
    """Kind and SNR in a setting's name; None if it has no SNR."""
    *kind, level, unit = ["", "", *setting.split(" ")]
    try:
        return " ".join(kind).strip(), float(level) if unit == "dB" else None
    except ValueError:
        return setting, None


def draw_passes(stem, lines, metrics):
    """Draw metrics over the passes of the classifier that they cost.

    Arguments
    ---------
    stem : str or Path
        Path of the files without suffix.
    lines : dict
        Name, such as "from the decoder", to points (passes, values); passes
        are above zero.
    metrics : list of str
        One panel each.

    Returns
    -------
    list of pathlib.Path
        The PNG and the SVG.

    Raises
    ------
    LMACError
        If there is nothing to draw, or a number of passes is not above zero,
        since the axis is logarithmic.
    """
    for name, points in lines.items():
        for passes, _ in points:
            if not passes > 0:
                raise LMACError(
                    f"figure {stem}: {passes} passes of '{name}', expected a "
                    "number above zero"
                )
    panels = _panels(lines, metrics)
    return _draw(stem, panels, "passes of the classifier", log=True)


def draw_randomisation(stem, lines):
    """Draw the similarity to the original mask as layers are randomised.

    Arguments
    ---------
    stem : str or Path
        Path of the files without suffix.
    lines : dict
        Method to points (layer, values), from the top layer on; the values
        are ``correlation`` and ``SSIM``.

    Returns
    -------
    list of pathlib.Path
        The PNG and the SVG.

    Raises
    ------
    LMACError
        If there is nothing to draw.
    """
    panels = _panels(lines, ["correlation", "SSIM"])
    return _draw(stem, panels, "randomised down to")


def draw_roar(stem, lines):
    """Draw the accuracy of a retrained classifier over the removed share.

    Arguments
    ---------
    stem : str or Path
        Path of the files without suffix.
    lines : dict
        Method to points (share, values); each value, such as ``accuracy``,
        has a panel.

    Returns
    -------
    list of pathlib.Path
        The PNG and the SVG.

    Raises
    ------
    LMACError
        If there is nothing to draw.
    """
    found = (values for points in lines.values() for _, values in points)
    panels = _panels(lines, dict.fromkeys(name for x in found for name in x))
    return _draw(stem, panels, "share of removed bins")


def _panels(lines, metrics):
    """For each metric, title to name to points (x, mean, low, high)."""
    panels = {}
    for metric in metrics:
        panel = {}
        for name, points in lines.items():
            found = [
                (x, *(values[metric][key] for key in ("mean", "low", "high")))
                for x, values in points
                if metric in values
            ]
            if found:
                panel[name] = found
        if panel:
            panels[header(metric)] = panel
    return panels


def _draw(stem, panels, x_label, y_label=None, log=False, abreast=ABREAST):
    """Draw panels of lines with a legend on the right; returns the paths."""
    if not panels:
        raise LMACError(f"figure {stem}: no values to draw")
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(n for lines in panels.values() for n in lines))
    columns = min(abreast, len(panels))
    n_rows = math.ceil(len(panels) / columns)
    height = max(0.6 + 2.8 * n_rows, 0.4 + 0.22 * len(names))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(1.8 + 3.2 * columns, height), layout="constrained"
        )
        axes = figure.subplots(n_rows, columns, squeeze=False).ravel()
        for axis in axes[len(panels) :]:
            axis.remove()
        handles = {}
        for axis, (title, lines) in zip(axes, panels.items()):
            # Names may hold dollar signs that do not mark formulas.
            axis.set_title(title, parse_math=False)
            axis.set_xlabel(x_label)
            axis.set_ylabel(y_label or "")
            axis.sharex(axes[0])
            if log:
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
            for name, points in lines.items():
                look = _look(names.index(name))
                handles[name] = _line(axis, points, look)
        legend = figure.legend(
            [handles[name] for name in names], names, loc="outside right upper"
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
        return write_figure(figure, stem)


def _look(index):
    """Colour, marker and dashes of a line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def _line(axis, points, look):
    """Draw one line, with intervals if there are any; returns its handle."""
    x, mean, low, high = zip(*points)
    (handle,) = axis.plot(x, mean, **look)
    if low[0] is not None:
        axis.vlines(x, low, high, color=look["color"], alpha=0.5, linewidth=1)
    if isinstance(x[0], str):
        axis.tick_params(axis="x", rotation=60)
    return handle
