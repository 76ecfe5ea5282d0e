"""Plots show what they are given, and are the same bytes each time."""

import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from test_classes import EDGES, row

from lmac_sb.audit import plots
from lmac_sb.audit.classes import find_classes
from lmac_sb.audit.describe import BANDS
from lmac_sb.metrics.verdict import VERDICTS

ALARM = {"class": "dog", "where": "below 60 Hz", "effect": [0.7, 0.6, 0.8]}


def classes_of(*names):
    rows = [row(name, band=i % 16) for i, name in enumerate(names)]
    rows.append(row(names[0], verdict="nothing kept", band=2))
    return find_classes(pd.DataFrame(rows), EDGES)


def words(path):
    """Texts of an SVG, which matplotlib writes as comments beside glyphs."""
    return re.findall(r"<!-- (.*?) -->", path.read_text("utf-8"))


def test_pictures_show_classes_verdicts_and_alarms(tmp_path):
    found = plots.draw_audit(tmp_path, classes_of("a$x$b", "dog"), [ALARM])
    files = {item["file"] for item in found}
    stems = ("bands", "times", "verdicts", "alarms")
    assert files == {f"{stem}.{x}" for stem in stems for x in ("png", "svg")}
    assert "a$x$b (2)" in words(tmp_path / "bands.svg")
    assert "dog: below 60 Hz" in words(tmp_path / "alarms.svg")
    assert "nothing kept" in words(tmp_path / "verdicts.svg")
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)


def test_same_values_same_bytes(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    for name in "ab":
        plots.draw_audit(tmp_path / name, classes_of("cat", "dog"), [ALARM])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_of_many_classes_the_largest_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "MOST_CLASSES", 3)
    names = [f"class {i}" for i in range(5)]
    found = plots.draw_audit(tmp_path, classes_of("most", *names), [])
    assert "3 of 6 classes" in found[0]["text"]
    assert "most (2)" in words(tmp_path / "bands.svg")


def test_one_scale_shows_the_highest_of_all(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        plots,
        "write_figure",
        lambda figure, stem: seen.update({stem: figure}) or [],
    )
    nothing = dict.fromkeys(BANDS, float("nan"))
    rows = [row("a", **nothing), row("b"), row("c", **{BANDS[0]: 0.2})]
    plots.draw_audit(tmp_path, find_classes(pd.DataFrame(rows), EDGES), [])
    for axis in seen[tmp_path / "bands"].axes:
        assert axis.get_ylim() == (0, 1.05)


def test_every_verdict_has_a_colour():
    assert set(plots._VERDICTS) == set(VERDICTS)


@pytest.mark.parametrize("alarms", [[], [ALARM]])
def test_without_clips(tmp_path, alarms):
    found = plots.draw_audit(tmp_path, [], alarms)
    assert len(found) == 2 * len(alarms)
