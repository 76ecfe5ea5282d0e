"""How Sphinx makes the site from this folder: `make docs`."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lmac_sb  # noqa: E402

project = "lmac-sb"
author = copyright = "The lmac-sb authors"
release = version = lmac_sb.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas without a network
]
exclude_patterns = ["_build", "space"]  # the latter is an app's own
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"lmac-sb {release}"
html_show_sphinx = False

# A heading can be linked to, as on GitHub.
myst_heading_anchors = 3
# Notebooks are kept without outputs; an error in one fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# Docstrings write `name` for code, whether or not it is a name of Python.
default_role = "py:obj"
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types, shapes and units

# Pages of the root folder, which GitHub shows there.
ROOT_PAGES = "SECURITY", "CHANGELOG", "CONTRIBUTING"


def link_root_pages(app, docname, source):
    """On the site, the pages of the root folder are beside the others."""
    for name in ROOT_PAGES:
        source[0] = source[0].replace(f"../{name}.md", f"{name.lower()}.md")


def title_of(toc, below):
    """A page's entry in the sidebar, with the pages below it or without."""
    title = nodes.bullet_list()
    for item in toc.children:
        pages = list(item.findall(addnodes.toctree)) if below else []
        title += nodes.list_item("", item[0].deepcopy())
        if pages:
            title[-1] += nodes.bullet_list("", *(x.deepcopy() for x in pages))
    return title


def short_sidebar(app, pagename, templatename, context, doctree):
    """Of the modules, a page's sidebar has those of its own room.

    All modules, with all that is in them, would be copied for each page.
    """
    env, make = app.env, context["toctree"]
    if not hasattr(app, "titles"):
        app.titles = {
            below: {name: title_of(x, below) for name, x in env.tocs.items()}
            for below in (False, True)
        }
    titles = {
        name: title
        if name.startswith("_api/") and not pagename.startswith(name)
        else app.titles[True][name]
        for name, title in app.titles[False].items()
    }

    def toctree(**options):
        tocs, env.tocs = env.tocs, titles
        try:
            return make(**options)
        finally:
            env.tocs = tocs

    context["toctree"] = toctree


def setup(app):
    """Connect the above."""
    app.connect("source-read", link_root_pages)
    app.connect("html-page-context", short_sidebar, priority=400)
