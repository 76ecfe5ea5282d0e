"""A page in the browser: drop a sound, hear why the classifier decided.

Imports `pages` and all before it, and Gradio, which is an extra: only `serve`
imports it, when it is called.

`answer` asks the package what the page is asked, `cards` writes the answer as
markup, `told` writes errors, and `page` lays it out. `shelf` finds explained
clips by an index on disk, and `browsing` lists them some at a time. `visits`
keeps the files of one visitor from those of the others and deletes them,
`guard` lets nothing in or out that the page does not need, and `server` runs
all of it.

**One more method** to choose from is one entry of
`lmac_sb.methods.gradients.ATTRIBUTIONS`, or of `answer.TRIVIAL`.

>>> from lmac_sb.app.answer import Wish, answer, offered
>>> from lmac_sb.methods.gradients import ATTRIBUTIONS
>>> ATTRIBUTIONS["low"] = lambda explainer, analysis, target: (
...     -analysis.magnitude.cumsum(2)
... )
>>> ("low", "") in offered(interpreter)
True
>>> wish = Wish(path, methods=("low",))
>>> [x.title for x in answer(interpreter, wish, getfixture("tmp_path"))]
['decoder', 'low']
>>> del ATTRIBUTIONS["low"]
"""

from lmac_sb.app.server import serve, serve_explained

__all__ = ["serve", "serve_explained"]
