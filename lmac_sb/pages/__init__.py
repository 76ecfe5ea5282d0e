"""HTML pages: the report, the page of an audit and the listening test.

Imports `evaluation` and all before it.

**One more page** is an ``.html``, a ``.css`` and a ``.js`` file in ``static``,
and a module that calls `write_page` with their name and writes the data.

>>> import io
>>> from lmac_sb.pages.page import write_block, write_page
>>> file = io.StringIO()
>>> data = {"title": "mine", "metrics": [], "clips": []}
>>> write_page(file, "report", lambda file: write_block(file, "index", data))
>>> '"title": "mine"' in file.getvalue()
True
"""
