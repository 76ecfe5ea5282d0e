"""Tests of the way from the table of clips to alarms."""

import random

import pandas as pd
import pytest

from lmac_sb.audit.alarm import KINDS, Alarm, ranked
from lmac_sb.audit.alarms import (
    LEAST_EFFECT,
    MOST_Q,
    find_alarms,
)
from lmac_sb.audit.alarms import (
    tests_of as all_tests,
)
from lmac_sb.audit.evidence import EVIDENCE, N_DONORS, PARTS

CLASSES = ("cat", "cow", "dog")


def table(n=30, shortcut=None, part="band_01", share=1.0, classes=CLASSES):
    """Clips of which a class follows one part, in a share of the decisions."""
    rng = random.Random(0)
    rows = []
    for i in range(n * len(classes)):
        name = classes[i % len(classes)]
        row = {"id": f"{i}", "heard": name, "nyquist": 8000.0}
        row["rest_decision"] = rng.choice(classes)
        if name == shortcut and rng.random() < share:
            row["rest_decision"] = name
        others = [x for x in classes if x != name] or [name]
        donors = [name, *rng.choices(others, k=N_DONORS - 1)]
        falls = {}
        for k, donor in enumerate(donors):
            row[f"donor_{k}"] = donor
            for where in PARTS:
                after = name
                if where in (part, "all") and rng.random() < share:
                    if donor == shortcut:
                        after = donor
                    elif name == shortcut:
                        after = rng.choice(others)
                row[f"{where}_{k}"] = after
                fall = "same" if donor == name else "drop"
                value = 3.0 * (after != name) + rng.gauss(0, 1)
                falls.setdefault(f"{fall}_{where}", []).append(value)
        row.update({key: sum(x) / len(x) for key, x in falls.items()})
        rows.append(row)
    return pd.DataFrame(rows, columns=["id", *EVIDENCE])


@pytest.mark.parametrize(
    ("part", "kind", "where"),
    [
        ("band_00", "band", "below 25 Hz"),
        ("band_01", "band", "from 25 to 156 Hz"),
        ("start", "place", "at the start"),
        ("all", "background", "outside of the loud event"),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_what_was_planted_is_named(part, kind, where, share):
    frame = table(shortcut="dog", part=part, share=share)
    alarms = find_alarms(frame)
    assert {alarm.name for alarm in alarms} == {"dog"}
    assert {alarm.kind for alarm in alarms} - {"survives"} == {kind}
    assert len(alarms) == 2 or share < 1
    (alarm,) = (alarm for alarm in alarms if alarm.kind == kind)
    assert alarm.where == where and alarm.q <= MOST_Q
    assert alarm.effect[1] < alarm.effect[0] <= alarm.effect[2]
    assert alarm.effect[0] == pytest.approx(share, abs=0.2)
    assert "dog" in alarm.text and set(alarm.examples) <= set(frame["id"])
    assert 0 < len(alarm.examples) <= 6


def test_no_alarm_where_nothing_was_planted():
    assert find_alarms(table()) == []
    assert len(all_tests(table())) == len(CLASSES) * (len(PARTS) + 1)


def test_an_effect_that_is_sure_but_small_is_no_alarm():
    frame = table(n=400, shortcut="dog", share=LEAST_EFFECT / 2)
    assert find_alarms(frame) == []
    assert min(test.p for test in all_tests(frame)) < 1e-6


def test_all_tests_that_were_done_count():
    """More of them, and the same p is worth less."""
    frame = table(shortcut="dog", share=0.7, n=15)
    few = {(alarm.kind, alarm.where): alarm.q for alarm in find_alarms(frame)}
    idle = all_tests(frame)[0]._replace(p=1.0, kind="column")
    more = find_alarms(frame, [idle] * 50)
    assert few and all(
        alarm.q >= few[alarm.kind, alarm.where] for alarm in more
    )
    assert len(find_alarms(frame, [idle] * 10**6)) < len(few)


def test_alarms_of_columns_are_ranked_with_the_others():
    column = Alarm(
        "column", "cow", "site = A", (0.9, 0.8, 1.0), "x", 1e-9, 9, "", ()
    )
    found = find_alarms(table(shortcut="dog", share=0.8), [column])
    assert found[0].kind == "column" and len(found) > 2
    assert found[0].q > column.p


def test_bands_side_by_side_are_one():
    frame = table(shortcut="dog", part="band_01")
    for k in range(N_DONORS):
        frame[f"band_02_{k}"] = frame[f"band_01_{k}"]
    for fall in ("drop", "same"):
        frame[f"{fall}_band_02"] = frame[f"{fall}_band_01"]
    bands = [alarm for alarm in find_alarms(frame) if alarm.kind == "band"]
    assert [alarm.where for alarm in bands] == ["from 25 to 310 Hz"]
    assert bands[0].band_hz == pytest.approx((25, 310), abs=1)


@pytest.mark.parametrize(
    "frame",
    [
        table(n=0),
        table(n=1),
        table(classes=("dog",)),
        table(n=30, shortcut="dog").iloc[:1],
        table().assign(heard=None),
        table().assign(**{f"donor_{k}": None for k in range(N_DONORS)}),
    ],
    ids=["none", "one a class", "one class", "one", "silent", "no donors"],
)
def test_no_test_is_possible(frame):
    assert find_alarms(frame) == []


def test_without_clips_of_the_same_class_it_is_asked_what_moves():
    frame = table(shortcut="dog")
    names = [f"{part}_0" for part in PARTS] + [f"same_{x}" for x in PARTS]
    frame = frame.assign(donor_0=None, **dict.fromkeys(names))
    kinds = {alarm.kind for alarm in find_alarms(frame)}
    assert kinds == {"band", "survives"}


def test_random_tables_give_few_alarms():
    """With nothing to find, one in a hundred tables may have some."""
    found = 0
    for seed in range(20):
        frame = table(n=12)
        rng = random.Random(seed)
        for part in PARTS:
            for k in range(N_DONORS):
                column = frame[f"{part}_{k}"].tolist()
                frame[f"{part}_{k}"] = [
                    rng.choice(CLASSES) if rng.random() < 0.3 else x
                    for x in column
                ]
        found += len(find_alarms(frame)) > 0
    assert found <= 1


def test_the_order_of_clips_does_not_matter():
    frame = table(shortcut="dog", share=0.6)
    mixed = frame.sample(frac=1, random_state=0)
    for one, two in zip(find_alarms(frame), find_alarms(mixed)):
        assert one.effect == pytest.approx(two.effect)
        assert one._replace(effect=0, examples=0) == two._replace(
            effect=0, examples=0
        )


def test_plain_values():
    for alarm in find_alarms(table(shortcut="dog")):
        plain = alarm.as_json()
        assert plain["kind"] in KINDS and plain["class"] == "dog"
        assert set(plain) == {
            *("kind", "class", "where", "band_hz", "time", "column", "effect"),
            *("effect_of", "p", "q", "n", "text", "examples"),
        }


def test_ranked_by_what_is_sure():
    base = Alarm("band", "a", "x", (0.5, 0.4, 0.6), "", 0.0, 1, "", ())
    sure = base._replace(name="b", effect=(0.45, 0.44, 0.46))
    assert ranked([base, sure]) == [sure, base]
