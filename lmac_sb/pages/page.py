"""Pages that are one file and use no network.

The files ``.html``, ``.css`` and ``.js`` of a page are in ``static``. Data is
inserted as JSON in blocks that a browser does not run, so names of classes and
files stay data. A Content-Security-Policy in the page forbids all
connections.
"""

import base64
import hashlib
import json
from pathlib import Path

__all__ = ["write_block", "write_page"]

STATIC = Path(__file__).with_name("static")


def write_page(file, name, write_data, styles=(), scripts=(), media="data:"):
    """Write a page from its parts in ``static`` and its data.

    Arguments
    ---------
    file : file object
        Open text file to write to.
    name : str
        The page is ``name.html`` in ``static``.
    write_data : callable
        Called with the file at the place of the data, see `write_block`.
    styles : sequence of str
        Style sheets in ``static`` besides ``name.css``, which comes last; all
        without suffix.
    scripts : sequence of str
        Scripts besides ``name.js``, in the same way.
    media : str
        Sources of sounds in the notation of a Content-Security-Policy.

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
            ("js", [*scripts, name]),
            ("css", [*styles, name]),
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
    """Hash of a text, as a Content-Security-Policy names it."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def write_block(file, name, value):
    r"""Write a block of data that no text in it can end or turn to script.

    Arguments
    ---------
    file : file object
        Open text file to write to.
    name : str
        Id of the block in the page.
    value : object
        Any value that JSON can represent.

    Raises
    ------
    ValueError
        If it holds NaN or an infinite number, which JSON lacks.

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
