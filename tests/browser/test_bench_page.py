"""Tests of a bench's page in a browser."""

import random

import pytest

from lmac_sb.bench.results import differences, figures, losses
from lmac_sb.bench.run import BENCH
from lmac_sb.pages.bench import write_bench_page
from lmac_sb.utils.io import write_json

pytest.importorskip("selenium")

from driven import (  # noqa: E402
    DrivenPage,
    brightness,
    contrast,
    sizes_of_controls,
    sticking_out,
)

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>" + "x" * 300
# AD of a method is about this.
METHODS = {"lmac": 20, "lmac+5": 10, "loudest": 40, "gradcam": 5, HOSTILE: 60}
CELLS = [("scenes", "cnn"), ("scenes", "transformer"), ("esc10", "yamnet")]


def facts_of(place, reference="lmac"):
    """What is said of a cell."""
    data, classifier = place
    return {
        "data": data,
        "classifier": classifier,
        "judge": "another",
        "reference": reference,
        "left_out": ["l2i"],
        "clips": 8,
        "tested": 80,
        "accuracy": 0.9,
        "folds": {"train": [1, 2], "valid": [3], "test": [4]},
        "errors": [{"method": HOSTILE, "n": 2, "error": HOSTILE}],
        "warnings": [{"method": HOSTILE, "n": 3, "warning": HOSTILE}],
    }


def rows_of(reference):
    """Rows of a cell."""
    rng = random.Random(0)
    names = [x for x in METHODS if reference == "lmac" or "lmac" not in x]
    rows = []
    for keep in ("own", f"area of {reference}"):
        for method in [*names, reference] if reference != "lmac" else names:
            for clip in range(8):
                about = METHODS.get(method, 30)
                row = {"id": str(clip), "method": method, "keep": keep}
                row |= {"AD": about + rng.random(), "AI": 100.0, "area": 0.1}
                if keep == "own":
                    row |= {"mask change": about / 100, "passes": about}
                    row["decision change"] = 0.01
                rows.append(row)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a bench of three cells."""
    folder = tmp_path_factory.mktemp("bench")
    found = {"cells": [], "figures": [], "differences": []}
    for place in CELLS:
        reference = "optimised+20" if place[1] == "yamnet" else "lmac"
        facts, rows = facts_of(place, reference), rows_of(reference)
        found["cells"].append(facts)
        found["figures"] += figures(facts, rows)
        found["differences"] += differences(facts, rows)
    found["losses"] = losses(found["differences"])
    found["notes"] = [f"digits: {HOSTILE}"]
    write_json(folder / BENCH, {**found, "made": {"seed": 1, "x": HOSTILE}})
    write_bench_page(folder)
    return folder


@pytest.fixture
def page(browse, folder):
    """The page, opened."""
    return DrivenPage(browse.open(folder / "bench.html"))


def first_column(page, table=1):
    """Names of the methods of a table, from above."""
    rows = page.all(f"#tables .scroll:nth-of-type({table}) tbody th")
    return [row.text for row in rows]


def test_what_is_shown(page):
    assert page.options("#data") == ["scenes", "esc10"]
    assert page.options("#classifier") == ["cnn", "transformer"]
    assert page.one("#plot-title").text == "AI ↑"
    assert len(page.all("#plot svg circle")) == 5
    assert len(page.all("#robust svg circle")) == 5
    assert "8 of 80 test clips; folds: train 1, 2" in page.one("#facts").text
    assert page.one("#missing li").text.startswith("digits: <script>")
    assert not page.all("main img")
    # The ones that are better than lmac, and no form of it.
    lost = {item.text.split(" ")[0] for item in page.all("#losses li")}
    assert lost == {"gradcam"}
    best = {cell.text.split()[0] for cell in page.all("td.best")}
    assert "100.0" in best


def test_choices_change_it(page):
    page.select("#measure", "AD")
    assert page.one("#plot-title").text == "AD ↓"
    page.select("#minus", "minus loudest")
    assert page.one("#plot-title").text == "AD ↓, minus loudest"
    assert len(page.all("#plot svg circle")) == 4
    assert page.all("td.good") and page.all("td.bad")
    page.select("#data", "esc10")
    assert page.options("#classifier") == ["yamnet"]
    assert "Reference of the area: optimised+20" in page.one("#facts").text
    assert "no decoder" in page.one("#losses-title + .intro").text
    page.select("#minus", "means")
    page.select("#keep", "own area")
    assert page.one("#plot-title").text == "AD ↓"
    assert len(page.all("#plot svg circle")) == 4


def test_tables_are_sorted(page):
    page.select("#minus", "means")
    before = first_column(page)
    assert before[0] == "lmac"
    buttons = {x.text: x for x in page.all("#tables .sort")}
    buttons["AD ↓"].click()
    assert first_column(page)[0] == "gradcam"  # the best on top
    assert page.one("th[aria-sort=ascending]").text.startswith("AD ↓")
    buttons["AD ↓"].click()
    assert first_column(page)[0].startswith("<script>")


def test_it_can_be_read_and_pressed(browse, folder):
    for width, dark in ((360, True), (1280, False)):
        page = DrivenPage(browse.open(folder / "bench.html", width, dark=dark))
        assert (brightness(page) < 60) == dark
        for selector in ("#facts", ".sort", "#losses li", ".interval"):
            assert contrast(page, selector) >= 4.5, selector
        small = [
            text
            for text, wide, high in sizes_of_controls(page)
            if wide < 24 or high < 44
        ]
        assert small == []
        # Tables scroll in a frame of their own.
        outside = [
            x for x in sticking_out(page) if not x.startswith(TABLE_PARTS)
        ]
        assert outside == []
        assert page.js("document.documentElement.scrollWidth <= innerWidth")


TABLE_PARTS = (
    *("<table", "<thead", "<tbody", "<tr", "<th", "<td", "<caption"),
    *("<button", "<span", "<bdi"),
)
