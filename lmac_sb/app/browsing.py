"""The page on which explained clips are looked through, some at a time."""

import html
import re

import gradio as gr

from lmac_sb.app.cards import kept_card
from lmac_sb.app.shelf import OUTCOMES, Query
from lmac_sb.app.told import told
from lmac_sb.utils.errors import LMACError

__all__ = ["build_shelf_page"]

ANY = "any"
SIZES = (10, 25, 50, 100)  # clips of a page
HEAD = ("no.", "clip", "label", "decision", "verdict", "sounds")
LONGEST = 200  # characters of a name in the list
N_WAITING = 32
INTRO = """\
# Hear what decisions rest on
Choose a clip in the list: you hear the part that the decision rests on, the \
rest, and the whole.
"""


def build_shelf_page(shelf, visits):
    """The page of a shelf.

    Arguments
    ---------
    shelf : lmac_sb.app.shelf.Shelf
        The clips.
    visits : lmac_sb.app.visits.Visits
        Keeps the visitors apart.

    Returns
    -------
    gradio.Blocks
    """
    service = _Service(shelf, visits)
    with gr.Blocks(
        title="lmac: explained clips", analytics_enabled=False
    ) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            asked = _asked(shelf)
        with gr.Row():
            back = gr.Button("Back", elem_id="back")
            number = gr.Number(1, label="page", precision=0, elem_id="page")
            forth = gr.Button("Next", elem_id="next")
            size = gr.Dropdown(
                SIZES, value=SIZES[1], label="clips of a page", elem_id="size"
            )
        said = gr.Markdown(
            elem_id="said", sanitize_html=False, latex_delimiters=[]
        )
        with gr.Row():
            with gr.Column(scale=3, min_width=480):
                clips = gr.Dataframe(
                    headers=list(HEAD),
                    datatype="str",
                    interactive=False,
                    wrap=True,
                    elem_id="clips",
                    buttons=[],
                    max_height=700,
                )
            with gr.Column(scale=2):
                # All text in it is escaped already, and no formula.
                card = gr.Markdown(
                    elem_id="answer", sanitize_html=False, latex_delimiters=[]
                )
        shown, where = [clips, said, number], [*asked, number, size]
        hidden = {"api_visibility": "private"}
        page.load(service.first, where, shown, **hidden)
        for part in (*asked, size):
            part.change(service.first, where, shown, **hidden)
        number.submit(service.list, where, shown, **hidden)
        back.click(service.back, where, shown, **hidden)
        forth.click(service.forth, where, shown, **hidden)
        clips.select(service.choose, None, card, **hidden)
        page.unload(service.close)
    page.queue(max_size=N_WAITING, api_open=False)
    # Otherwise, as part of another server, Gradio reads any file that is
    # named to it.
    page.has_launched = True
    return page


def _asked(shelf):
    """Parts that say which clips are listed."""
    text = gr.Textbox(
        label="search",
        placeholder="part of a name",
        max_length=200,
        elem_id="text",
    )
    found = [text]
    for name, label, values in (
        ("class", "label or decision", shelf.names("class")),
        ("verdict", "verdict", shelf.names("verdict")),
        ("outcome", "decided", list(OUTCOMES)),
    ):
        choices = [(ANY, ""), *((_short(x), x) for x in values)]
        found.append(gr.Dropdown(choices, value="", label=label, elem_id=name))
    return found


class _Service:
    """What the page does, for any number of visitors."""

    def __init__(self, shelf, visits):
        self.shelf, self.visits = shelf, visits

    def first(self, text, name, verdict, outcome, number, size):
        """The first page of what is asked for."""
        return self._list(Query(text, name, verdict, outcome), 1, size)

    def list(self, text, name, verdict, outcome, number, size):
        """A page."""
        return self._list(Query(text, name, verdict, outcome), number, size)

    def back(self, text, name, verdict, outcome, number, size):
        """The page before."""
        query = Query(text, name, verdict, outcome)
        return self._list(query, (number or 1) - 1, size)

    def forth(self, text, name, verdict, outcome, number, size):
        """The next page."""
        query = Query(text, name, verdict, outcome)
        return self._list(query, (number or 1) + 1, size)

    def _list(self, query, number, size):
        """Rows of a page, what is said of them, and the page's number."""
        try:
            n = self.shelf.count(query)
            page = _within(number, n, _size(size))
            rows = self.shelf.page(query, page - 1, size)
        except LMACError as error:
            raise told(error, "Not shown") from error
        first = (page - 1) * size
        said = f"{first + 1} to {first + len(rows)} of {n}" if n else "none"
        table = [
            [
                str(number),
                _short(clip.id),
                _short(clip.label or ""),
                _short(clip.decision),
                clip.verdict,
                "no" if clip.place is None else "yes",
            ]
            for number, clip in rows
        ]
        notes = [*self.shelf.explained.notes]
        if self.shelf.n_broken:
            notes.append(f"not whole, and so not here: {self.shelf.n_broken}")
        words = "; ".join([f"clips: {said}, of {self.shelf.n} in all", *notes])
        return table, f"<p>{html.escape(words)}</p>", page

    def choose(self, event: gr.SelectData, request: gr.Request):
        """The clip of the row that was chosen, in whatever order they are."""
        try:
            clip = self.shelf.clip(_number(event.row_value))
            return self._card(clip, request.session_hash)
        except Exception as error:
            raise told(error, "Not shown") from error

    def _card(self, clip, session):
        """The card of a clip, whose files this visitor may then load."""
        if clip.place is None:
            raise LMACError(
                f"{_short(clip.id)}: its sounds were not kept; explain it by "
                "lmac explain"
            )
        visit = self.visits.enter(session)
        try:
            folder = visit.new_folder()
            return kept_card(self.shelf.copy(clip.place, folder), folder)
        finally:
            self.visits.leave(visit)

    def close(self, request: gr.Request):
        """Forget a visitor."""
        self.visits.close(request.session_hash)


def _size(size):
    """The size of a page, checked."""
    if size not in SIZES:
        raise LMACError(f"clips of a page: expected one of {SIZES}")
    return size


def _within(number, n, size):
    """A page that there is."""
    last = max(1, -(-n // size))
    if not isinstance(number, (int, float)) or not number > 1:
        return 1
    return int(min(number, last))


def _number(row):
    """The number of a clip, which is the first in its row."""
    first = row[0] if isinstance(row, list) and row else None
    if not isinstance(first, str) or not re.fullmatch("[0-9]{1,15}", first):
        raise LMACError("clip: found none in that row; choose again")
    return int(first)


def _short(text):
    """A name on one line, not too long for a list."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
