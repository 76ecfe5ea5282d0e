"""Tests of an audit's page as a file; tests/browser opens it."""

import copy
import json
import os
import re

import pytest
from audits import alarm, audit_of, group, one_class, write_audit
from test_report import HOSTILE, Page, write_clip

from lmac_sb.pages import audit as module
from lmac_sb.pages.audit import write_audit_page
from lmac_sb.pages.audit_facts import examples_of, read_audit
from lmac_sb.utils.errors import LMACError

NAMES = ["a", "b", "c", "d", "e"]


def facts(name):
    """What an audit says of an example."""
    return {"id": f"{name}.wav", "label": "dog", "decision": "cat"}


@pytest.fixture
def folder(tmp_path):
    """An audit with five examples."""
    for name in NAMES:
        write_clip(tmp_path / "examples", name)
    examples = {name: facts(name) for name in NAMES}
    return write_audit(tmp_path, audit_of(["dog", "cat"], examples))


def change(folder, edit):
    """Change an ``audit.json``."""
    path = folder / "audit.json"
    audit = json.loads(path.read_text("utf-8"))
    edit(audit)
    path.write_text(json.dumps(audit), encoding="utf-8")


def test_the_page_is_one_file_that_names_nothing_outside(folder):
    path = write_audit_page(folder)
    assert path == folder / "audit.html"
    assert sorted(x.name for x in folder.iterdir()) == [
        "audit.html",
        "audit.json",
        "examples",
    ]
    page = Page(path)
    addresses = [
        value
        for _, attrs in page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
    ]
    assert addresses == ["data:,"]
    # The name of SVG's markup is asked of nobody.
    assert set(re.findall(r"https?://[^\"']*", page.text)) == {
        "http://www.w3.org/2000/svg"
    }
    policy = page.policy()
    assert policy["default-src"] == ["'none'"]
    assert policy["img-src"] == policy["media-src"] == ["data:"]


def test_what_the_page_holds(folder):
    page = Page(write_audit_page(folder))
    index = page.data("index")
    audit = read_audit(folder)
    for key in ("alarms", "classes", "confusions", "failed", "made", "n_tests"):
        assert index[key] == audit[key]
    assert index["title"] == "scenes"
    assert list(index["meanings"]) == ["AI", "FF", "area"]
    assert index["directions"] == {"AI": 1, "FF": 1, "area": 0}
    assert index["left_out"] == {}
    for i, name in enumerate(NAMES):
        entry = index["examples"][name]
        assert entry["block"] == f"clip-{i}"
        # Names of the corpus, numbers of the clip.
        assert (entry["id"], entry["label"]) == (f"{name}.wav", "dog")
        assert entry["probabilities"] == [0.6, 0.7, 0.1]
        heavy = page.data(f"clip-{i}")
        assert len(heavy["sounds"]) == 3
    assert "secret" not in page.text


def test_texts_of_others_stay_text(folder):
    def edit(audit):
        for name in ("corpus", "made"):
            audit[name]["name"] = HOSTILE
        audit["classes"][0]["name"] = HOSTILE
        audit["alarms"][0] |= {"text": HOSTILE, "column": HOSTILE}
        audit["failed"].append({"id": HOSTILE, "error": HOSTILE})
        audit["examples"]["a"]["id"] = HOSTILE

    change(folder, edit)
    page = Page(write_audit_page(folder))
    assert sum(tag == "script" for tag, _ in page.tags) == len(NAMES) + 2
    assert "alert(1)</script>" not in page.text
    assert page.data("index")["classes"][0]["name"] == HOSTILE


def test_examples_come_by_importance(folder):
    """Alarms, wrong decisions, then the first of each list of each class."""
    audit = read_audit(folder)
    assert examples_of(audit) == ["a", "b", "c", "d", "e"]
    audit["alarms"] = []
    assert examples_of(audit)[:2] == ["d", "e"]
    audit["confusions"] = []
    assert examples_of(audit) == ["a", "c", "b", "d"]


def test_more_examples_than_fit_are_told(folder, monkeypatch):
    monkeypatch.setattr(module, "MOST_EXAMPLES", 2)
    index = Page(write_audit_page(folder)).data("index")
    assert index["left_out"] == {"c": "", "d": "", "e": ""}
    assert "block" not in index["examples"]["c"]
    monkeypatch.setattr(module, "MOST_EXAMPLES", 300)
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    index = Page(write_audit_page(folder)).data("index")
    assert list(index["left_out"]) == ["b", "c", "d", "e"]


def test_examples_that_are_not_whole_are_told(folder):
    (folder / "examples" / "a" / "original.wav").unlink()
    (folder / "examples" / "b").rename(folder / "examples" / "x")
    os.symlink(folder / "examples" / "x", folder / "examples" / "b")
    page = Page(write_audit_page(folder))
    left_out = page.data("index")["left_out"]
    assert list(left_out) == ["a", "b"]
    assert left_out["a"].startswith("examples/a: found none, expected one of")
    assert left_out["b"].startswith("examples/b: is a link")
    assert str(folder) not in page.text


def test_a_folder_of_examples_elsewhere_is_not_followed(folder, tmp_path):
    (folder / "examples").rename(folder / "other")
    os.symlink(folder / "other", folder / "examples")
    left_out = Page(write_audit_page(folder)).data("index")["left_out"]
    assert list(left_out) == NAMES
    assert "is a link" in left_out["a"]


def test_an_audit_without_examples(tmp_path):
    for given in ({}, {"a": facts("a")}):
        audit = audit_of(["dog", "cat"], given)
        write_audit(tmp_path, audit)
        index = Page(write_audit_page(tmp_path)).data("index")
        assert list(index["left_out"]) == list(given)


def test_without_labels_alarms_or_classes(tmp_path):
    classes = [one_class(name, n_wrong=None) for name in ("dog", "cat")]
    audit = audit_of(["dog", "cat"], classes=classes, alarms=[], confusions=[])
    audit["corpus"]["labels"] = False
    write_audit(tmp_path, audit)
    assert write_audit_page(tmp_path).is_file()
    audit |= {"classes": [], "failed": [], "plots": [], "notes": []}
    write_audit(tmp_path, audit)
    assert write_audit_page(tmp_path).is_file()


def test_unknown_figures_are_null(tmp_path):
    """A class of no decisions has no means."""
    empty = one_class("dog", n=0, area=[None] * 3, verdicts={})
    empty["bands"] |= dict.fromkeys(("mean", "low", "high"), [None] * 16)
    empty["fidelity"] = {"AI": [None] * 3}
    write_audit(tmp_path, audit_of(["dog", "cat"], classes=[empty]))
    found = Page(write_audit_page(tmp_path)).data("index")["classes"]
    assert found == [empty]


# Where an audit is damaged, and what is said.
WRONG = {
    "alarms": (5, "alarms: found 5, expected a list"),
    "alarms[0]": ([], r"alarms\[0\]: found \[\], expected an object"),
    "alarms[0].kind": (None, r"alarms\[0\].kind: found None, expected a text"),
    "alarms[1].effect": (
        [0.1, 0.2],
        r"alarms\[1\].effect: found \[0.1, 0.2\], expected a list of 3",
    ),
    "alarms[1].effect[2]": (
        "1",
        r"alarms\[1\].effect\[2\]: found '1', expected a number or null",
    ),
    "alarms[0].p": (1.5, r"alarms\[0\].p: found 1.5, expected a number of at"),
    "alarms[0].band_hz[0]": (-1, r"band_hz\[0\]: found -1, expected a number"),
    "alarms[0].time": ([0, 2], r"time\[1\]: found 2, expected a number of"),
    "alarms[0].examples[0]": (
        "../../etc",
        r"examples\[0\]: found '../../etc', expected the name of a folder",
    ),
    "classes[0].n": (-1, r"classes\[0\].n: found -1, expected a whole number"),
    "classes[1].bands.mean": (
        [0.5],
        r"classes\[1\].bands.mean: found 1 values between 17 edges_hz, expected"
        " 16",
    ),
    "classes[1].times.edges": (
        [0, 1, 1],
        r"classes\[1\].times.edges: found \[0, 1, 1\], expected two or more",
    ),
    "classes[0].verdicts": ([], r"verdicts: found \[\], expected an object"),
    "classes[0].groups[0].share": (1, r"groups\[0\].share: found 1, expected"),
    "corpus.labels": ("yes", "corpus.labels: found 'yes', expected True or"),
    "corpus.columns[0]": (1, r"corpus.columns\[0\]: found 1, expected a text"),
    "n_tests": (2.5, "n_tests: found 2.5, expected a whole number"),
    "made": ("me", "made: found 'me', expected an object"),
    "plots[0].file": (
        "https://x.org/y",
        r"plots\[0\].file: found 'https://x.org/y', expected a file in",
    ),
    "corpus.unknown_labels": (
        "owl",
        "corpus.unknown_labels: found 'owl', expected a list",
    ),
    "notes": ([3], r"notes\[0\]: found 3, expected a text"),
    "failed[0].id": (None, r"failed\[0\].id: found None, expected a text"),
    "examples.a.label": (3, r"examples\['a'\].label: found 3, expected a text"),
}


def place_of(audit, key):
    """Where a key leads: an object or list, and the last step."""
    steps = [
        int(step) if step.isdecimal() else step
        for step in re.findall(r"\w+", key)
    ]
    for step in steps[:-1]:
        audit = audit[step]
    return audit, steps[-1]


@pytest.mark.parametrize("key", WRONG)
def test_wrong_values_are_one_line(folder, key):
    value, expected = WRONG[key]
    write_audit_page(folder)
    before = (folder / "audit.html").read_bytes()

    def edit(audit):
        inner, last = place_of(audit, key)
        inner[last] = value

    change(folder, edit)
    with pytest.raises(LMACError) as error:
        write_audit_page(folder)
    text = str(error.value)
    assert text.startswith(f"{folder / 'audit.json'}: ")
    assert re.search(expected, text), text
    assert "\n" not in text
    assert (folder / "audit.html").read_bytes() == before


def keys_of(value, path=""):
    """Each key of an object, wherever in it, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}".strip(".")
            yield from keys_of(inner, f"{path}.{key}".strip("."))
    elif isinstance(value, list) and value:
        yield from keys_of(value[0], f"{path}[0]")


def test_each_missing_key_is_named(tmp_path):
    audit = audit_of(["dog", "cat"], {"a": facts("a"), "b": facts("b")})
    # These have any names.
    free = r"^made\.|^examples\.\w+$|verdicts\.|fidelity\."
    for key in keys_of(audit):
        if re.search(free, key):
            continue
        damaged = copy.deepcopy(audit)
        inner, last = place_of(damaged, key)
        del inner[last]
        write_audit(tmp_path, damaged)
        with pytest.raises(LMACError, match=rf"{last}: is missing$"):
            read_audit(tmp_path)


@pytest.mark.parametrize("where", ["alarms", "confusions", "classes"])
def test_an_example_that_is_named_must_be_listed(folder, where):
    def edit(audit):
        if where == "alarms":
            audit["alarms"] = [alarm("dog", ["z"])]
        elif where == "confusions":
            audit["confusions"][0]["groups"] = [group("x", ["z"])]
        else:
            audit["classes"][0]["outliers"] = ["z"]

    change(folder, edit)
    with pytest.raises(LMACError, match="examples: 'z' is missing, which an"):
        write_audit_page(folder)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[]", "holds no JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"alarms": NaN}', "NaN is no JSON"),
        ("[" * 10**5, "cannot be read as JSON"),
        ('{"made": {}}', "corpus: is missing"),
    ],
)
def test_what_is_no_audit_is_told(tmp_path, text, expected):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(LMACError, match=expected):
        write_audit_page(tmp_path)
    assert not (tmp_path / "audit.html").exists()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "audit.json")
    with pytest.raises(LMACError, match="no regular file"):
        write_audit_page(tmp_path)


def test_many_classes_make_a_small_page(tmp_path):
    names = [f"class {i}" for i in range(521)]
    write_audit(tmp_path, audit_of(names))
    assert write_audit_page(tmp_path).stat().st_size < 3e6
