"""Plots of an audit, each as PNG and SVG: the same values, the same bytes."""

import math

from lmac_sb.inference.spectra import shortened
from lmac_sb.utils.figures import COLOURS, STYLE, write_figure

__all__ = ["draw_audit"]

MOST_CLASSES = 24  # in a picture: those with the most clips
MOST_ALARMS = 20
_ABREAST = 4  # panels side by side
_LONGEST = 28  # characters of a name
# One colour a verdict, good ones first; grey for those without a judgement.
_VERDICTS = {
    "faithful": "#009e73",
    "unfaithful: the kept part does not decide so": "#e69f00",
    "unfaithful: the rest decides the same": "#d55e00",
    "everything kept": "#56b4e9",
    "nothing kept": "#0072b2",
    "unknown": "#777777",
    "silent": "#bbbbbb",
}


def draw_audit(folder, classes, alarms):
    """Draw what an audit found.

    Arguments
    ---------
    folder : pathlib.Path
        Where the pictures go; must exist.
    classes : list of dict
        From `lmac_sb.audit.classes.find_classes`.
    alarms : list of dict
        As in ``audit.json``, the most important one first.

    Returns
    -------
    list of dict
        ``file``, its name, and ``text``, what it shows, of each picture.

    Example
    -------
    >>> draw_audit(getfixture("tmp_path"), [], [])
    []
    """
    import matplotlib

    most = sorted((x for x in classes if x["n"]), key=lambda x: -x["n"])
    shown = sorted(most[:MOST_CLASSES], key=lambda x: x["name"])
    some = ""
    if len(most) > len(shown):
        some = f", of the {len(shown)} of {len(most)} classes with most clips"
    found = []
    with matplotlib.rc_context(STYLE):
        if shown:
            found = [
                ("bands", _bands(shown), "kept energy by frequency"),
                ("times", _times(shown), "kept energy by time in the clip"),
                ("verdicts", _verdicts(shown), "shares of the verdicts"),
            ]
        found = [(name, figure, f"{x}{some}") for name, figure, x in found]
        if alarms:
            text = "the alarms, with 95 % intervals"
            found.append(("alarms", _alarms(alarms[:MOST_ALARMS]), text))
        return [
            {"file": path.name, "text": text}
            for name, figure, text in found
            for path in write_figure(figure, folder / name)
        ]


def _panels(n):
    """A figure, and its panels."""
    from matplotlib.figure import Figure

    columns = min(_ABREAST, n)
    rows = -(-n // columns)
    figure = Figure(
        figsize=(1 + 2.6 * columns, 0.6 + 1.9 * rows), layout="constrained"
    )
    axes = figure.subplots(
        rows, columns, squeeze=False, sharex=True, sharey=True
    ).ravel()
    for axis in axes[n:]:
        axis.remove()
    return figure, axes[:n]


def _profiles(classes, axis_name, edges_of):
    """A panel a class, with means as steps and their intervals."""
    figure, axes = _panels(len(classes))
    for axis, found in zip(axes, classes):
        profile = found[axis_name]
        edges = edges_of(profile)
        # Names may hold dollar signs that do not mark formulas.
        axis.set_title(
            f"{shortened(found['name'], _LONGEST)} ({found['n']})",
            parse_math=False,
        )
        axis.stairs(
            profile["high"],
            edges,
            baseline=profile["low"],
            fill=True,
            alpha=0.3,
            color=COLOURS[0],
        )
        axis.stairs(profile["mean"], edges, color=COLOURS[0])
        axis.set_xlim(edges[0], edges[-1])
    # One scale for all; where nothing is kept, shares are NaN.
    every = (x for found in classes for x in found[axis_name]["high"])
    highest = max((x for x in every if not math.isnan(x)), default=1.0)
    axes[0].set_ylim(0, 1.05 * highest)
    figure.supylabel("share of what is kept")
    return figure, axes


def _bands(classes):
    """Kept energy over the mel bands, which are equally wide."""
    figure, axes = _profiles(classes, "bands", lambda x: [*range(17)])
    edges = classes[0]["bands"]["edges_hz"]
    places = [*range(0, 17, 4)]
    for axis in axes:
        axis.set_xticks(places, [f"{edges[x] / 1000:.2g}" for x in places])
    figure.supxlabel("frequency in kHz, on the mel scale")
    return figure


def _times(classes):
    """Kept energy over the clip."""
    figure, _ = _profiles(classes, "times", lambda x: x["edges"])
    figure.supxlabel("time as a share of the clip")
    return figure


def _verdicts(classes):
    """Shares of verdicts, a bar a class."""
    figure, axis = _rows(len(classes))
    names = [shortened(found["name"], _LONGEST) for found in classes]
    left = [0.0] * len(classes)
    for verdict, colour in _VERDICTS.items():
        shares = [x["verdicts"].get(verdict, [0.0])[0] for x in classes]
        if any(shares):
            axis.barh(
                range(len(names)),
                shares,
                left=left,
                color=colour,
                label=verdict,
            )
        left = [a + b for a, b in zip(left, shares)]
    _name_rows(axis, names)
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of the clips")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def _alarms(alarms):
    """Effects with intervals, the most important one first."""
    figure, axis = _rows(len(alarms))
    means, lows, highs = zip(*(alarm["effect"] for alarm in alarms))
    rows = range(len(alarms))
    axis.hlines(rows, lows, highs, color=COLOURS[1], alpha=0.5)
    axis.plot(means, rows, "o", color=COLOURS[1])
    names = [f"{alarm['class']}: {alarm['where']}" for alarm in alarms]
    _name_rows(axis, [shortened(name, 2 * _LONGEST) for name in names])
    axis.set_xlim(left=min(0, *lows))
    axis.set_xlabel("effect, see the table of alarms")
    return figure


def _rows(n):
    """A figure with one panel for so many rows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.3 + 0.3 * n), layout="constrained")
    return figure, figure.subplots()


def _name_rows(axis, names):
    """Names beside the rows, the first one on top."""
    axis.set_yticks(range(len(names)), names, parse_math=False)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="y", visible=False)
