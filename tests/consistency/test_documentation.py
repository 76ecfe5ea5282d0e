"""The README and the pages of docs/: length, links, index."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_readme_is_one_page():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150, "move details to a page of docs/"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    here = [link for link in links if not link.startswith("http")]
    assert [link for link in here if not (page.parent / link).exists()] == []


def test_readme_names_every_page():
    """On GitHub, where the site's index shows no list of pages."""
    index = (ROOT / "README.md").read_text("utf-8")
    pages = {p.stem for p in (ROOT / "docs").glob("*.md")}
    # Lists of pages, and pages of the root folder.
    pages -= {"index", "api", "figures", "security", "changelog"}
    pages -= {"contributing"}
    assert {x for x in pages if f"](docs/{x}.md)" not in index} == set()
