"""What an audit found: from the table of clips to what is shown of it."""

import math

from lmac_sb.audit.alarms import alarms_among, tests_of
from lmac_sb.audit.classes import find_classes, wilson
from lmac_sb.audit.columns import column_tests
from lmac_sb.audit.confusions import find_confusions
from lmac_sb.audit.groups import find_groups
from lmac_sb.inference.clip_folder import folder_names

__all__ = ["MOST_CONFUSIONS", "choose_examples", "find_results", "plain"]

MOST_CONFUSIONS = 100  # that are shown; the table has all
_MOST_FAILED = 100  # that are listed


def find_results(frame, against, edges_hz, seed):
    """All that is found in the table of clips.

    Arguments
    ---------
    frame : pandas.DataFrame
        Rows of `lmac_sb.audit.rows.Explained.rows`.
    against : pandas.DataFrame
        Rows of clips that were explained against their labels.
    edges_hz : list of float
        Of the bands.
    seed : int
        Of all draws.

    Returns
    -------
    dict
        As ``audit.json`` holds it, with ids in place of the names of
        examples; those of confusions are pairs of id and label.
    """
    failed = frame[frame["error"].notna()]
    against = against[against["error"].isna()]
    frame = frame[frame["error"].isna()]
    notes = []
    classes = find_classes(frame, edges_hz)
    for found in classes:
        rows = frame[frame["decision"] == found["name"]]
        notes += _add_groups(found, rows, edges_hz, seed)
    tests, said = column_tests(frame, edges_hz, seed)
    if "heard" in frame:  # only where parts were removed and exchanged
        tests += tests_of(frame)
    confusions = find_confusions(frame, against, edges_hz, seed)
    for pair in confusions:
        groups = _groups(pair["groups"])
        for group in groups:
            group["examples"] = [(x, pair["label"]) for x in group["examples"]]
        pair["groups"] = groups
    if len(confusions) > MOST_CONFUSIONS:
        notes.append(
            f"wrong decisions: the {MOST_CONFUSIONS} most frequent pairs of "
            f"{len(confusions)} are shown"
        )
    return {
        "failed": failed[["id", "error"]][:_MOST_FAILED].to_dict("records"),
        "n_failed": len(failed),
        "labels": bool(frame["right"].notna().any()),
        "classes": classes,
        "alarms": [alarm.as_json() for alarm in alarms_among(tests)],
        "n_tests": len(tests),
        "confusions": confusions,
        "notes": notes + said,
    }


def _add_groups(found, rows, edges_hz, seed):
    """Add groups to a class; returns what is to be said."""
    groups, outliers, n_grouped = find_groups(rows, edges_hz, seed)
    found["groups"] = _groups(groups)
    found["prototypes"] = [group.ids[0] for group in groups]
    found["outliers"] = outliers
    n_kept = int(rows["band_00"].notna().sum())
    if n_kept > n_grouped:
        return [
            f"groups of {found['name']}: of {n_kept} clips, {n_grouped} were "
            "drawn"
        ]
    return []


def _groups(groups):
    """Groups in plain values."""
    n = sum(len(group.ids) for group in groups)
    return [
        {
            "name": f"group {i}",
            "n": len(group.ids),
            "share": wilson(len(group.ids), n),
            "text": group.text,
            "examples": group.examples,
        }
        for i, group in enumerate(groups, 1)
    ]


def choose_examples(results, frame, most):
    r"""Choose the clips to hear, and name them in the results.

    The most important come first: those of alarms, those of wrong decisions,
    then the first one of each list of each class, the largest class first,
    then the second ones.

    Arguments
    ---------
    results : dict
        From `find_results`; the ids of examples become names of their
        folders, and those that are not chosen are left out. It gets
        ``examples``, name to ``id``, ``label``, ``decision``, ``right``,
        ``item`` (the row) and ``against``.
    frame : pandas.DataFrame
        See `find_results`.
    most : int
        How many.

    Example
    -------
    >>> import pandas
    >>> alarm = {"examples": ["a/b.wav", "c.wav"]}
    >>> results = {"alarms": [alarm], "confusions": [], "classes": []}
    >>> frame = pandas.DataFrame({"id": ["c.wav", "a/b.wav"], "label": "cat"})
    >>> frame = frame.assign(decision="dog", right=False)
    >>> choose_examples(results, frame, 1)
    >>> results["alarms"], results["examples"]["b"]["item"]
    ([{'examples': ['b']}], 1)
    """
    asked = list(dict.fromkeys(_in_order(results)))[:most]
    stems = [clip.split("/")[-1].rsplit(".", 1)[0] for clip, _ in asked]
    names = dict(zip(asked, folder_names(stems)))
    for found, key in _lists(results):
        chosen = (names.get(_asked(x)) for x in found[key])
        found[key] = [name for name in chosen if name is not None]
    items = dict(zip(frame["id"], frame.index))
    results["examples"] = {}
    for (clip, against), name in names.items():
        item = int(items[clip])
        label = frame["label"][item]
        results["examples"][name] = {
            "id": clip,
            "label": label if isinstance(label, str) else None,
            "decision": frame["decision"][item],
            "right": {True: True, False: False}.get(frame["right"][item]),
            "item": item,
            "against": against,
        }


def _asked(example):
    """An example as a pair of id and class against which it is explained."""
    return example if isinstance(example, tuple) else (example, None)


def _lists(results):
    """Every list of examples: what holds it, and its key there."""
    for alarm in results["alarms"]:
        yield alarm, "examples"
    for pair in results["confusions"]:
        for group in pair["groups"]:
            yield group, "examples"
    for found in sorted(results["classes"], key=lambda x: -x["n"]):
        for group in found["groups"]:
            yield group, "examples"
        yield found, "prototypes"
        yield found, "outliers"


def _in_order(results):
    """Every example, the most important one first."""
    last = []
    n_first = len(results["alarms"])
    n_first += sum(len(pair["groups"]) for pair in results["confusions"])
    for place, (found, key) in enumerate(_lists(results)):
        if place < n_first:
            yield from map(_asked, found[key])
        else:
            last.append(found[key])
    for place in range(max(map(len, last), default=0)):
        for examples in last:
            if place < len(examples):
                yield _asked(examples[place])


def plain(value):
    """Values as JSON has them: null for what is no number.

    Arguments
    ---------
    value : object
        Of dicts, lists, texts and numbers.

    Returns
    -------
    object

    Example
    -------
    >>> plain({"mean": [float("nan"), 1.0]})
    {'mean': [None, 1.0]}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        # The name of a file may hold bytes that are not valid text.
        return value.encode("utf-8", "backslashreplace").decode()
    return value
