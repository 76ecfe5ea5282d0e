"""Wrong decisions by pair of classes, and what spoke for the wrong one."""

from lmac_sb.audit.groups import find_groups

__all__ = ["choose_confused", "find_confusions"]

MOST_PAIRS = 20
MOST_CLIPS = 20  # of a pair that are explained; of more, a seeded draw


def choose_confused(frame, seed=0):
    """Wrongly decided clips that are to be explained against their labels.

    Arguments
    ---------
    frame : pandas.DataFrame
        A row for each explained clip: ``id``, ``label``, ``decision`` and
        ``right``. A class that contains the label is right.
    seed : int
        Of the draw of clips.

    Returns
    -------
    pandas.DataFrame
        Rows of up to 20 clips of each of the 20 most frequent pairs of label
        and decision.

    Example
    -------
    >>> import pandas
    >>> row = {"id": "a", "label": "dog", "decision": "cat", "right": False}
    >>> frame = pandas.DataFrame([row, {**row, "right": None}])
    >>> len(choose_confused(frame))
    1
    """
    wrong = frame[frame["right"] == False]  # noqa: E712 (None is neither)
    pairs = wrong.groupby(["label", "decision"], sort=True)
    order = pairs.size().sort_values(ascending=False, kind="stable")
    chosen = []
    for pair in order.index[:MOST_PAIRS]:
        clips = pairs.get_group(pair)
        if len(clips) > MOST_CLIPS:
            clips = clips.sample(MOST_CLIPS, random_state=seed).sort_index()
        chosen += clips.index.tolist()
    return frame.loc[chosen]


def find_confusions(frame, against, edges_hz, seed=0):
    """What spoke for the wrong class, for each pair of classes confused.

    Arguments
    ---------
    frame : pandas.DataFrame
        See `choose_confused`.
    against : pandas.DataFrame
        A row for each clip that was explained against its label: ``id``,
        ``label``, ``decision`` and the columns of
        `lmac_sb.audit.describe.describe`.
    edges_hz : list of float
        Of the bands.
    seed : int
        Of the groups.

    Returns
    -------
    list of dict
        ``label``, ``decision``, ``n`` clips, ``text``, and ``groups``, a list
        of `lmac_sb.audit.groups.Group` of those that were explained; the most
        frequent pair first.

    Example
    -------
    >>> import pandas
    >>> row = {"id": "a", "label": "dog", "decision": "cat", "right": True}
    >>> find_confusions(pandas.DataFrame([row]), pandas.DataFrame([row]), [])
    []
    """
    labels = frame.loc[frame["right"].notna(), "label"].value_counts()
    wrong = frame[frame["right"] == False]  # noqa: E712 (None is neither)
    explained = dict(list(against.groupby(["label", "decision"])))
    found = []
    for (label, decision), clips in wrong.groupby(["label", "decision"]):
        n, of_label = len(clips), int(labels[label])
        text = (
            f"{n} of {of_label} clips of {label} ({n / of_label:.0%}) are "
            f"decided as {decision}."
        )
        groups = []
        if (label, decision) in explained:
            rows = explained[label, decision]
            groups, _, n_grouped = find_groups(rows, edges_hz, seed)
            if groups:
                what = "; or ".join(group.text for group in groups)
                text += f" For {decision} rather than {label} speaks: {what}"
                text += "." if n_grouped == n else f" ({n_grouped} explained)."
        found.append(
            {
                "label": label,
                "decision": decision,
                "n": n,
                "text": text,
                "groups": groups,
            }
        )
    return sorted(found, key=lambda x: (-x["n"], x["label"], x["decision"]))
