"""Wrong decisions, counted and grouped."""

import pandas as pd
from test_groups import EDGES
from test_groups import clips as described

from lmac_sb.audit.confusions import choose_confused, find_confusions


def table(*counts):
    """Rows of (label, decision, right, n)."""
    rows = []
    for label, decision, right, n in counts:
        for i in range(n):
            rows.append(
                {
                    "id": f"{label}-{decision}-{i:03}",
                    "label": label,
                    "decision": decision,
                    "right": right,
                }
            )
    return pd.DataFrame(rows)


FRAME = table(
    ("dog", "cat", False, 30),
    ("dog", "dog", True, 20),
    ("dog", "animal", True, 5),  # contains it
    ("cat", "dog", False, 2),
    (None, "dog", None, 9),
    ("unknown", "dog", None, 9),
)


def test_the_most_frequent_pairs_are_explained_by_a_seeded_draw():
    chosen = choose_confused(FRAME, seed=1)
    pairs = chosen.groupby(["label", "decision"]).size().to_dict()
    assert pairs == {("dog", "cat"): 20, ("cat", "dog"): 2}
    assert chosen.index.tolist() == choose_confused(FRAME, 1).index.tolist()
    assert chosen.index.tolist() != choose_confused(FRAME, 2).index.tolist()
    many = table(*((f"{i:02}", "x", False, 1 + i) for i in range(30)))
    assert choose_confused(many)["label"].nunique() == 20
    assert "29" in set(choose_confused(many)["label"])


def test_what_spoke_for_the_wrong_class_is_said():
    against = choose_confused(FRAME)
    rows = described(10, 1, 0) + described(12, 14, 15, seed=1)
    columns = pd.DataFrame(rows).drop(columns="id").set_index(against.index)
    found = find_confusions(FRAME, against.join(columns), EDGES)
    assert [(x["label"], x["decision"], x["n"]) for x in found] == [
        ("dog", "cat", 30),
        ("cat", "dog", 2),
    ]
    text = found[0]["text"]
    assert text.startswith("30 of 55 clips of dog (55%) are decided as cat.")
    assert "For cat rather than dog speaks: " in text
    assert "; or " in text and text.endswith("(20 explained).")
    assert [len(group.ids) for group in found[0]["groups"]] == [10, 10]
    assert found[1]["groups"][0].ids[0].startswith("cat-dog")


def test_no_wrong_decision_and_none_explained():
    right = FRAME[FRAME["right"] == True]  # noqa: E712
    assert not len(choose_confused(right))
    assert find_confusions(right, right[:0], EDGES) == []
    found = find_confusions(FRAME, FRAME[:0], EDGES)
    assert [len(x["groups"]) for x in found] == [0, 0]
