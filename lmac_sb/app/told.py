"""Errors as a visitor of the page reads them."""

import html
import logging

import gradio as gr

from lmac_sb.app.answer import sentence
from lmac_sb.utils.errors import LMACError, is_full

__all__ = ["told"]

logger = logging.getLogger(__name__)


def told(error, title, sound=None):
    """An error in one sentence, without markup or folders of the server.

    Arguments
    ---------
    error : Exception
        Any; what is no mistake of the visitor is logged.
    title : str
        What became of the wish, as in *Not explained*.
    sound : str or Path
        The sound that the error may name.

    Returns
    -------
    gradio.Error
        To be raised.

    Example
    -------
    >>> told(LMACError("/tmp/a/b.wav: <b>"), "Not explained").message
    'b.wav: &lt;b&gt;'
    """
    if is_full(error):
        text = "the disk of this computer is full; try again later"
    elif isinstance(error, LMACError):
        text = sentence(error, sound)
    else:
        logger.error("the app failed", exc_info=error)
        text = (
            "something went wrong, which the window that runs this app tells "
            f"({type(error).__name__})"
        )
    return gr.Error(
        html.escape(text), duration=None, title=title, print_exception=False
    )
