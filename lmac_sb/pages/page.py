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

from lmac_sb.utils.errors import LMACError, is_full
from lmac_sb.utils.io import write_in_one_step

__all__ = ["save_page", "write_block", "write_page"]

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


def save_page(path, name, write_data, **parts):
    """Write a page to a file, in one step.

    Arguments
    ---------
    path : Path
        The file, whose folder is made if need be; an earlier one stays as it
        was until this one is complete.
    name : str
        See `write_page`.
    write_data : callable
        See `write_page`.
    **parts
        Its other arguments.

    Raises
    ------
    LMACError
        If it cannot be written.
    OSError
        If the disk is full.

    Example
    -------
    >>> path = getfixture("tmp_path") / "report.html"
    >>> save_page(path, "report", lambda file: write_block(file, "index", {}))
    >>> path.is_file()
    True
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_in_one_step(
            path, lambda file: write_page(file, name, write_data, **parts)
        )
    except OSError as error:
        if is_full(error):
            raise
        raise LMACError(
            f"{path}: cannot be written ({error.strerror})"
        ) from error


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
