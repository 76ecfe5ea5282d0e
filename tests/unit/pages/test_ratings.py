"""Tests of the ratings of a listening test, and of the scores."""

import copy
import csv
import json

import numpy as np
import pytest

from lmac_sb.pages.ratings import (
    rating_files,
    read_key,
    read_ratings,
    score,
    who_listened,
    write_scores,
)
from lmac_sb.utils.errors import LMACError

METHODS = ("lmac", "a|b", "ones")


@pytest.fixture
def key():
    """Two clips in two settings, three methods."""
    return {
        "test": "test1",
        "trials": {
            f"t{setting[0]}{clip}": {
                "id": clip,
                "setting": setting,
                "sounds": {f"{setting[0]}{clip}{m[0]}": m for m in METHODS},
            }
            for setting in ("clean", "mixture")
            for clip in ("x", "y")
        },
    }


@pytest.fixture
def content(key):
    """What the page saves: each sound 40 for fit and 60 for quality."""
    return {
        "test": "test1",
        "listener": "Ann",
        "started": "2026-01-01T00:00:00.000Z",
        "saved": "2026-01-01T00:10:00.000Z",
        "trials": [
            {
                "trial": trial,
                "ratings": [
                    {"code": code, "fit": 40, "quality": 60}
                    for code in reversed(about["sounds"])
                ],
            }
            for trial, about in reversed(key["trials"].items())
        ],
    }


@pytest.fixture
def save(tmp_path):
    """Write a file with any content."""

    def save(name, content):
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return save


def test_codes_become_methods(key, content, save):
    content["trials"][1]["ratings"][0]["fit"] = 1
    rows = read_ratings([save("a.json", content)], key)
    assert [(r["id"], r["setting"], r["method"]) for r in rows] == [
        (clip, setting, method)
        for setting in ("clean", "mixture")
        for clip in ("x", "y")
        for method in METHODS
    ]
    # The second trial was mixture x, its first sound the last method.
    low = [row for row in rows if row["fit"] != 40]
    assert low == [
        {
            "listener": "Ann",
            "id": "x",
            "setting": "mixture",
            "method": "ones",
            "place": 1,
            "fit": 1,
            "quality": 60,
        }
    ]


def change(content, place, value):
    """A copy with another value somewhere, or without it."""
    content = copy.deepcopy(content)
    part = content
    for name in place[:-1]:
        part = part[name]
    if value is KeyError:
        del part[place[-1]]
    else:
        part[place[-1]] = value
    return content


RATING = ("trials", 0, "ratings", 1)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            ["test"],
            "test2",
            r"found ratings of the test 'test2', expected 'test1'",
        ),
        (["test"], KeyError, "holds no ratings .* 'test' is missing"),
        (["listener"], "  ", "listener: found '  '"),
        (["listener"], 7, "listener: found 7"),
        (["trials", 3], KeyError, "incomplete, rates 9 of 12 sounds"),
        (["trials"], [], "incomplete, rates 0 of 12 sounds"),
        (RATING, KeyError, "incomplete, rates 11 of 12 sounds"),
        ([*RATING, "fit"], None, "fit of the code 'mya': found None"),
        ([*RATING, "fit"], KeyError, "fit of the code 'mya': found None"),
        ([*RATING, "fit"], 0, "fit of the code 'mya': found 0"),
        ([*RATING, "quality"], 101, "quality of the code 'mya': found 101"),
        (
            [*RATING, "quality"],
            5.5,
            "found 5.5, expected a whole number from 1",
        ),
        ([*RATING, "quality"], True, "found True"),
        ([*RATING, "quality"], "50", "found '50'"),
        ([*RATING, "code"], "zzz", "unknown code 'zzz' in trial 'tmy'"),
        ([*RATING, "code"], ["x"], r"unknown code \['x'\]"),
        ([*RATING, "code"], "myl", "unknown|twice"),
        ([*RATING, "code"], "myo", "rates the code 'myo' twice"),
        ([*RATING, "code"], KeyError, "trials: expected a list"),
        (["trials", 0, "trial"], "tcx", "unknown code 'myo' in trial 'tcx'"),
        (["trials", 0, "trial"], {}, "unknown code 'myo' in trial {}"),
        (["trials", 0], "x", "trials: expected a list"),
        (["trials"], {"a": 1}, "trials: expected a list"),
        (["trials"], None, "trials: expected a list"),
        (RATING, 3, "trials: expected a list"),
    ],
)
def test_bad_ratings(key, content, save, place, value, message):
    path = save("bad.json", change(content, place, value))
    with pytest.raises(LMACError, match=message) as error:
        read_ratings([path], key)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["{", "", "[1]", "null", "\xff"])
def test_no_json_object(key, tmp_path, text):
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    for read in (read_key, lambda path: read_ratings([path], key)):
        with pytest.raises(
            LMACError, match="bad.json: (not JSON|is no text|holds no)"
        ):
            read(path)


def test_missing_files(key, tmp_path):
    with pytest.raises(LMACError, match="gone.json: no such file"):
        read_ratings([tmp_path / "gone.json"], key)
    with pytest.raises(LMACError, match="found no ratings"):
        read_ratings([], key)
    with pytest.raises(LMACError, match="holds no JSON files with ratings"):
        rating_files([tmp_path], tmp_path / "key.json")


@pytest.mark.parametrize("other", ["Ann", " ann ", "ＡＮＮ"])
def test_one_file_a_listener(key, content, save, other):
    a = save("a.json", content)
    b = save("b.json", {**content, "listener": other})
    with pytest.raises(LMACError, match="b.json: is by the .* as is .*a.json"):
        read_ratings([a, b], key)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["test"], 1),
        (["test"], KeyError),
        (["trials"], {}),
        (["trials"], []),
        (["trials", "tcx"], 1),
        (["trials", "tcx", "id"], KeyError),
        (["trials", "tcx", "sounds"], []),
    ],
)
def test_bad_key(key, save, place, value):
    path = save("key.json", change(key, place, value))
    with pytest.raises(LMACError, match="key.json: not the key of a listening"):
        read_key(path)


def test_ratings_are_no_key(content, save):
    with pytest.raises(LMACError, match="a.json: not the key of a listening"):
        read_key(save("a.json", content))


def test_folders_of_ratings(key, content, save, tmp_path):
    key_file = save("key.json", key)
    files = [save(f"{x}.json", {**content, "listener": x}) for x in "ba"]
    (tmp_path / "notes.txt").write_text("x")
    assert rating_files([tmp_path], key_file) == sorted(files)
    assert rating_files(files, key_file) == files


# ------------------------------------------------------------------- scores


def make_rows(values, setting="clean", method="m"):
    """Rows of one method from ratings [listeners, clips]."""
    return [
        {
            "listener": f"l{i}",
            "id": f"c{j}",
            "setting": setting,
            "method": method,
            "place": 1,
            "fit": int(value),
            "quality": 101 - int(value),
        }
        for i, line in enumerate(values)
        for j, value in enumerate(line)
    ]


def test_intervals_against_a_slow_bootstrap():
    rng = np.random.default_rng(3)
    values = 30 + rng.integers(40, size=(5, 7)) + 6 * np.arange(5)[:, None]
    (found,) = score(make_rows(values))
    means = []
    for _ in range(4000):
        listeners = [rng.integers(5) for _ in range(5)]
        clips = [rng.integers(7) for _ in range(7)]
        drawn = [values[i, j] for i in listeners for j in clips]
        means.append(sum(drawn) / len(drawn))
    assert found["fit"] == pytest.approx(values.mean())
    low, high = np.percentile(means, [2.5, 97.5])
    assert found["fit low"] == pytest.approx(low, abs=1)
    assert found["fit high"] == pytest.approx(high, abs=1)
    # The other question has mirrored values.
    assert found["quality"] == pytest.approx(101 - values.mean())
    assert found["quality low"] == pytest.approx(101 - found["fit high"])
    assert (found["listeners"], found["clips"]) == (5, 7)


def test_listeners_and_clips_both_count():
    def width(values):
        (found,) = score(make_rows(values))
        return found["fit high"] - found["fit low"]

    assert width([[50, 50], [50, 50]]) == 0
    assert width([[20, 20], [80, 80]]) == 60  # listeners disagree
    assert width([[20, 80], [20, 80]]) == 60  # clips differ


def test_settings_apart_and_together():
    rows = make_rows([[10, 20], [30, 40]], "clean", "a")
    rows += make_rows([[50, 50], [50, 50]], "white paper", "a")
    table = score(rows)
    assert [(row["setting"], row["fit"]) for row in table] == [
        ("all", 37.5),
        ("clean", 25),
        ("white paper", 50),
    ]
    # One clip in two settings is one clip.
    assert {row["clips"] for row in table} == {2}
    assert table[0]["fit low"] == 30 and table[0]["fit high"] == 45
    assert score(rows[::-1])[0]["fit low"] == 30


def test_files_of_scores(key, content, save, tmp_path):
    rows = read_ratings([save("a.json", content)], key)
    (tmp_path / "f").touch()
    with pytest.raises(LMACError, match=r"/f: cannot be made or wr.* \(File e"):
        write_scores(tmp_path / "f", rows)
    text = write_scores(tmp_path / "out", rows)
    assert text == (tmp_path / "out" / "scores.md").read_text("utf-8")
    assert "| clean | a\\|b | 40.0 [40.0, 40.0] | 60.0 [60.0, 60.0] |" in text
    assert "over listeners (1) and clips (2)" in text
    with open(tmp_path / "out" / "ratings.csv", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 12
    with open(tmp_path / "out" / "scores.csv", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[1]
    assert (row["setting"], row["method"]) == ("all", "a|b")
    assert [float(row[f"fit{end}"]) for end in ("", " low", " high")] == 3 * [
        40
    ]


# --------------------------------------------------------------- who listened


@pytest.fixture
def timed(key):
    """The key of a test whose sounds last five seconds."""
    for trial in key["trials"].values():
        trial["seconds"] = 5.0
    return key


@pytest.fixture
def heard(content, save):
    """Write the file of a listener; some ratings may have other values."""

    def write(listener, plays=1, seconds=8.0, first=None):
        mine = copy.deepcopy({**content, "listener": listener})
        for trial in mine["trials"]:
            for rating in trial["ratings"]:
                rating.update(plays=plays, seconds=seconds)
        mine["trials"][0]["ratings"][0].update(first or {})
        return save(f"{listener}.json", mine)

    return write


def test_who_cannot_have_listened(timed, heard, content, save):
    """One sound is enough: the page allows none."""
    files = [
        heard("Ann"),
        heard("Bob", plays=0),
        heard("Cid", seconds=1.5),
        heard("Dan", first={"plays": 0, "fit": 100}),
        heard("Eve", first={"seconds": 4.8}),
        heard("Fay", seconds=4.95),  # clocks differ
        save("old.json", {**content, "listener": "Old"}),
    ]
    left_out, unknown = who_listened(read_ratings(files, timed))
    assert left_out == {
        "Bob": "12 of 12 sounds not played to their end",
        "Cid": "12 of 12 sounds rated in less time than they last",
        "Dan": "1 of 12 sounds not played to their end",
        "Eve": "1 of 12 sounds rated in less time than they last",
    }
    assert unknown == ["Old"]


def test_scores_leave_them_out_and_say_so(
    timed, heard, content, save, tmp_path
):
    """Their ratings stay in ratings.csv, and change no score."""
    good = [heard("Ann"), save("old.json", {**content, "listener": "Old"})]
    alone = write_scores(tmp_path / "a", read_ratings(good, timed))
    bad = heard("Dan", first={"plays": 0, "fit": 100})
    text = write_scores(tmp_path / "b", read_ratings([*good, bad], timed))
    assert "over listeners (2)" in text
    assert (
        "Left out: 1 of 3 listeners, who cannot have listened: 'Dan' "
        "(1 of 12 sounds not played to their end)."
    ) in text
    assert "counted: 1 of 2 listeners" in text and "'Old'" in text
    assert "Left out" not in alone
    assert text.startswith(alone[: alone.index("Mean opinions")])
    with open(tmp_path / "b" / "ratings.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    dan = [row for row in rows if row["listener"] == "Dan"]
    assert {row["counts"] for row in dan} == {"False"}
    old = [row for row in rows if row["listener"] == "Old"]
    assert {(r["counts"], r["plays"]) for r in old} == {("True", "")}


def test_nobody_listened(timed, heard, tmp_path):
    rows = read_ratings([heard("Bob", plays=0)], timed)
    with pytest.raises(LMACError, match="no listener .* 'Bob': 12 of 12"):
        write_scores(tmp_path / "out", rows)
    assert not (tmp_path / "out").exists()


def test_an_older_key_has_no_lengths(key, heard):
    """What was not played is known without them."""
    rows = read_ratings([heard("Bob", plays=0), heard("Cid", seconds=0)], key)
    assert list(who_listened(rows)[0]) == ["Bob"]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ({"plays": -1}, "plays of the code .*: found -1, expected a whole"),
        ({"plays": 1.5}, "plays of the code .*: found 1.5"),
        ({"plays": True}, "plays of the code .*: found True"),
        ({"plays": None}, "plays of the code .*: found None"),
        ({"seconds": -0.1}, "seconds of the code .*: found -0.1, expected a"),
        ({"seconds": "9"}, "seconds of the code .*: found '9'"),
        ({"seconds": None}, "seconds of the code .*: found None"),
        ({"seconds": float("inf")}, "bad.json: |seconds of the code"),
    ],
)
def test_bad_plays_and_times(timed, heard, first, message):
    path = heard("bad", first=first)
    with pytest.raises(LMACError, match=message):
        read_ratings([path], timed)


@pytest.mark.parametrize("seconds", [-1, "5", None, True])
def test_bad_lengths_in_the_key(timed, save, seconds):
    timed["trials"]["tcx"]["seconds"] = seconds
    with pytest.raises(LMACError, match="not the key of a listening test"):
        read_key(save("key.json", timed))
