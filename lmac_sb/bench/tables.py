"""The bench as Markdown: a table for each cell and kind of measure."""

from lmac_sb.bench.measured import MEASURES
from lmac_sb.bench.results import (
    EQUAL,
    LEAST,
    OTHER_FORMS,
    better,
    digits,
    measures,
)
from lmac_sb.evaluation.comparison import OWN
from lmac_sb.metrics.registry import METRICS, unguarded

__all__ = ["cell_text", "groups", "loss_text", "markdown", "remarks"]

NOTE = (
    "Mean over the clips [95 % bootstrap interval]. *Own*: the mask as the "
    "method gives it; *equal area*: as many of its highest bins as the "
    "reference keeps in the clip. *Heard*: the sounds were analysed again; "
    "*other*: asked of the judge, which had no part in the mask. Only clips "
    "of the test folds, which no model was trained on. All figures are in "
    "`bench.csv`, differences paired by clip in `differences.csv`."
)
_ARROWS = {1: " ↑", -1: " ↓", 0: ""}


def groups(names):
    """Measures by what they tell.

    Arguments
    ---------
    names : iterable of str
        Measures.

    Returns
    -------
    dict
        Title to names; titles without any are left out.

    Example
    -------
    >>> groups(["AI", "event_auc", "heard AI", "seconds"])["localisation"]
    ['event_auc']
    """
    found = {
        "faithfulness": [],
        "localisation": [],
        "heard, and by the judge": [],
        "agreement, robustness and cost": [],
    }
    plain, placed, guarded, more = found.values()
    for name in measures(set(names) - set(OTHER_FORMS)):
        if name in MEASURES:
            more.append(name)
        elif unguarded(name) != name:
            guarded.append(name)
        elif METRICS[name].needs in ("in", "out", "logits", "mask"):
            plain.append(name)
        else:
            placed.append(name)
    return {title: some for title, some in found.items() if some}


def cell_text(figure, measure):
    """A figure as a table shows it.

    Arguments
    ---------
    figure : dict
        With ``mean``, ``low`` and ``high``.
    measure : str
        Whose.

    Returns
    -------
    str

    Example
    -------
    >>> cell_text({"mean": 1.0, "low": 0.5, "high": 1.5}, "AI")
    '1.0 [0.5, 1.5]'
    """
    n = digits(measure)
    if figure is None or figure["mean"] is None:
        return "–"
    mean, low, high = (
        f"{round(figure[key], n) + 0.0:.{n}f}"
        for key in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def markdown(cells, found, lost, notes):
    """The whole text.

    Arguments
    ---------
    cells : list of dict
        Facts of each cell.
    found, lost : list of dict
        From `lmac_sb.bench.results`: figures and losses.
    notes : list of str
        What is missing, and why.

    Returns
    -------
    str
    """
    blocks = ["# Bench", NOTE]
    if notes:
        blocks += ["## Not in it", "\n".join(f"- {_plain(x)}" for x in notes)]
    blocks += ["## Where L-MAC loses", loss_text(cells, lost)]
    for facts in cells:
        blocks += _cell(facts, found)
    return "\n\n".join(blocks) + "\n"


def loss_text(cells, lost):
    """The lines that say where L-MAC loses.

    Arguments
    ---------
    cells, lost : list of dict
        See `markdown`.

    Returns
    -------
    str
        Markdown.
    """
    having = [x for x in cells if x["reference"] == "lmac"]
    if not having:
        return "No classifier of this bench has a decoder of L-MAC."
    head = (
        "Where the 95 % interval of another method minus `lmac`, paired by "
        "clip, excludes zero on the better side, without a correction for the "
        f"number of comparisons; over at least {LEAST} clips. Other "
        "masks of L-MAC (`lmac+5`, `lmac_look`) do not count, nor does "
        "`ideal`, which was told the answer."
    )
    lines = []
    for facts in having:
        place = facts["data"], facts["classifier"]
        for keep in (EQUAL, OWN):
            part = [
                x
                for x in lost
                if (x["data"], x["classifier"], x["keep"]) == (*place, keep)
            ]
            by_method = {}
            for line in part:
                text = f"{line['measure']} {_signed(line)}"
                by_method.setdefault(line["method"], []).append(text)
            said = "; ".join(
                f"`{_plain(method)}`: {', '.join(some)}"
                for method, some in by_method.items()
            )
            lines.append(f"- {', '.join(place)}, {keep}: {said or 'nowhere'}")
    return "\n\n".join([head, "\n".join(lines)])


def _signed(line):
    """A difference with its interval."""
    mean, low, high = (f"{line[key]:+.2g}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def _cell(facts, found):
    """Title, facts and tables of one cell."""
    place = facts["data"], facts["classifier"]
    own = [x for x in found if (x["data"], x["classifier"]) == place]
    blocks = [f"## {_plain(', '.join(place))}", _facts(facts)]
    for keep in (EQUAL, OWN):
        part = [x for x in own if x["keep"] == keep]
        # Cost and agreement are of the mask as it is.
        for title, columns in groups({x["measure"] for x in part}).items():
            blocks += [f"**{title}, {keep}**", _table(part, columns)]
    return blocks


def _facts(facts):
    """What is to be said of a cell, in one paragraph."""
    folds = ", ".join(f"{key} {x}" for key, x in facts["folds"].items())
    right = f"{100 * facts['accuracy']:.1f} %"
    said = f"Accuracy on these clips: {right}."
    if facts["several"]:
        said = (
            f"{facts['explained']} classes are decided for in them, each of "
            f"which is explained on its own; {right} of them are right."
        )
    text = (
        f"{facts['clips']} of {facts['tested']} test clips; folds: {folds}. "
        f"{said} Area of: `{facts['reference']}`. Judge: {facts['judge']}."
    )
    if facts["left_out"]:
        names = ", ".join(f"`{_plain(x)}`" for x in facts["left_out"])
        text += f" Not available here: {names}."
    return text + "".join(f" {x}." for x in remarks(facts, _plain))


def remarks(facts, plain=str):
    """What is to be said of methods that failed, or whose masks are odd.

    Arguments
    ---------
    facts : dict
        Of a cell, with what `lmac_sb.bench.results.told` gives.
    plain : callable
        What is done to names and texts of others.

    Returns
    -------
    list of str

    Example
    -------
    >>> one = {"method": "mine:neg", "n": 5, "warning": "no score above zero"}
    >>> remarks({"errors": [], "warnings": [one]})
    ['`mine:neg`: no score above zero on 5 clips']
    """
    found = []
    for one in [*facts["errors"], *facts["warnings"]]:
        method = plain(one["method"])
        clips = f"{one['n']} clip{'s' * (one['n'] != 1)}"
        if "error" in one:
            found.append(f"`{method}` failed on {clips}: {plain(one['error'])}")
        else:
            found.append(f"`{method}`: {plain(one['warning'])} on {clips}")
    return found


def _table(lines, columns):
    """A Markdown table of methods and measures."""
    cells = {(x["method"], x["measure"]): x for x in lines}
    head = [f"{name}{_ARROWS[better(name)]}" for name in columns]
    rows = [
        "| " + " | ".join(["method", *head]) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for method in dict.fromkeys(x["method"] for x in lines):
        texts = [cell_text(cells.get((method, x)), x) for x in columns]
        rows.append("| " + " | ".join([_plain(method), *texts]) + " |")
    return "\n".join(rows)


def _plain(text):
    """Text of others in a table: on one line, without bars, and no HTML."""
    text = " ".join(str(text).split()).replace("`", "'")
    return text.replace("|", "\\|").replace("<", "&lt;")
