"""Pages of one file that ask nothing of any network.

A page's own text is in ``.html``, ``.css`` and ``.js`` files in ``static``.
Data go into it as JSON in blocks that a browser does not run: names of
classes and files stay data. The page forbids itself every connection by a
Content-Security-Policy.
"""

import base64
import hashlib
import json
from pathlib import Path

__all__ = ["write_block", "write_page"]

STATIC = Path(__file__).with_name("static")


def write_page(file, name, write_data, styles=None, media="data:"):
    """Write a page.

    Arguments
    ---------
    file : file object
        Where to, open for text.
    name : str
        The page's text is ``name.html`` and ``name.js`` in ``static``.
    write_data : callable
        Gets the file where the data belong, see `write_block`.
    styles : list of str
        Style sheets in ``static``, without their ending; default that of
        the name.
    media : str
        Sources of sounds, in the words of a Content-Security-Policy.

    Example
    -------
    >>> import io
    >>> file = io.StringIO()
    >>> write_page(file, "report", lambda f: write_block(f, "index", {}))
    >>> '<script type="application/json" id="index">{}<' in file.getvalue()
    True
    """
    html, script, style = (
        "".join(
            (STATIC / f"{part}.{kind}").read_text("utf-8") for part in parts
        )
        for kind, parts in (
            ("html", [name]),
            ("js", [name]),
            ("css", styles or [name]),
        )
    )
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"img-src data:; media-src {media}; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    head, tail = html.split("{{data}}")
    file.write(head.replace("{{policy}}", policy).replace("{{style}}", style))
    write_data(file)
    file.write(tail.replace("{{script}}", script))


def _hash(text):
    """A text's name in a Content-Security-Policy."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def write_block(file, name, value):
    r"""Write a block of data that no text in it can end or turn to script.

    Arguments
    ---------
    file : file object
        Where to, open for text.
    name : str
        Its id in the page.
    value : object
        What JSON can hold.

    Raises
    ------
    ValueError
        If it holds a number that JSON has not.

    Example
    -------
    >>> import sys
    >>> write_block(sys.stdout, "a", "</script>")
    <script type="application/json" id="a">"\u003c/script\u003e"</script>
    """
    text = json.dumps(value, allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    file.write(f'<script type="application/json" id="{name}">{text}</script>\n')
