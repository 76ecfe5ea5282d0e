"""The page: what is asked, by which parts, and what answers."""

import tempfile
from pathlib import Path

import gradio as gr

from lmac_sb.app.answer import (
    MOST_STEPS,
    SLOW,
    Wish,
    answer,
    check_sound,
    folder_for,
    offered,
    zipped,
)
from lmac_sb.app.cards import cards
from lmac_sb.app.told import told
from lmac_sb.app.visits import Stopped, interruptible
from lmac_sb.data.example import write_example
from lmac_sb.models.question import RUNNER_UP

__all__ = ["build_page"]

DECISION, ALL_OTHERS = "the decision", "all other classes"
N_WAITING = 8  # more are refused, since one is explained at a time
SWEEP_S, OLDEST_S = 600, 86400  # uploads of a day ago are deleted

INTRO = """\
# Why did the classifier decide so?
Drop a sound or record one. You hear the part that the decision rests on, \
the rest, and whether the classifier agrees.
"""
PRIVATE = """\
What you give stays on the computer that runs this page, and is deleted when \
you close it. A verdict is about this classifier, not about the world.
"""


def build_page(interpreter, limits, visits):
    """The page of a model.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        The model.
    limits : lmac_sb.app.answer.Limits
        The largest sound that is taken.
    visits : lmac_sb.app.visits.Visits
        Keeps the visitors apart.

    Returns
    -------
    gradio.Blocks
    """
    with gr.Blocks(
        title="lmac: hear why",
        analytics_enabled=False,
        delete_cache=(SWEEP_S, OLDEST_S),
    ) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            with gr.Column():
                sound = gr.Audio(
                    label=f"sound, at most {limits.mb:g} MB and "
                    f"{limits.seconds:g} s",
                    type="filepath",
                    elem_id="sound",
                    editable=False,
                    buttons=[],
                )
                example = gr.Button("Or take an example", elem_id="example")
            with gr.Column():
                asked = _asked(interpreter)
        with gr.Row():
            explain = gr.Button("Explain", variant="primary", elem_id="explain")
            stop = gr.Button("Stop", elem_id="stop")
        # Not gr.HTML, which compiles its content, as a program may be. All
        # text in it is escaped already, and no formula.
        answers = gr.Markdown(
            elem_id="answer", sanitize_html=False, latex_delimiters=[]
        )
        download = gr.DownloadButton(
            "Download all as a zip file", visible=False, elem_id="download"
        )
        gr.Markdown(PRIVATE)
        service = _Service(interpreter, limits, visits)
        shown = [answers, download]
        hidden = {"api_visibility": "private"}
        example.click(service.example, None, sound, queue=False, **hidden)
        sound.change(service.take, sound, shown, queue=False, **hidden)
        explain.click(
            service.explain,
            [sound, *asked],
            shown,
            concurrency_limit=1,
            scroll_to_output=True,
            **hidden,
        )
        stop.click(service.stop, queue=False, **hidden)
        page.unload(service.close)
    page.queue(max_size=N_WAITING, api_open=False)
    # Otherwise, as part of another server, Gradio reads any file that is
    # named to it.
    page.has_launched = True
    return page


def _asked(interpreter):
    """Parts that say what is asked of the sound."""
    classes = [
        (name, number) for number, name in enumerate(interpreter.classes)
    ]
    has_steps = interpreter.explainer.refiner is not None
    steps = min(interpreter.explainer.refine_steps, MOST_STEPS)
    known = offered(interpreter)
    missing = [f"{name} {why}" for name, why in known if why]
    return [
        gr.Dropdown(
            [(DECISION, -1), *classes],
            value=-1,
            label=f"why is it (of {len(classes)} classes)",
            elem_id="target",
        ),
        gr.Dropdown(
            [(ALL_OTHERS, -1), ("the runner-up", -2), *classes],
            value=-1,
            label="and not",
            elem_id="against",
        ),
        gr.Slider(
            0,
            MOST_STEPS,
            steps if has_steps else 0,
            step=1,
            label="gradient steps",
            info="more take longer, and are faithful more often"
            if has_steps
            else "this model takes none",
            interactive=has_steps,
            elem_id="steps",
        ),
        gr.CheckboxGroup(
            [
                (f"{name} (slow)" if name in SLOW else name, name)
                for name, why in known
                if not why
            ],
            label="compare with other methods",
            info=f"Not here: {'; '.join(missing)}" if missing else None,
            elem_id="methods",
        ),
    ]


class _Service:
    """What the page does, for any number of visitors."""

    def __init__(self, interpreter, limits, visits):
        self.interpreter = interpreter
        self.limits = limits
        self.visits = visits

    def example(self):
        """A sound for those who have none; the page gives it as its own."""
        folder = Path(tempfile.mkdtemp(dir=self.visits.folder))
        path, _ = write_example(folder, model=self.interpreter.model_name)
        return str(path)

    def take(self, sound, request: gr.Request):
        """Keep a new sound; an answer about another one goes."""
        try:
            self.visits.keep(request.session_hash, sound)
        except Exception as error:
            raise told(error, "Not explained", sound) from error
        return "", gr.DownloadButton(visible=False)

    def explain(
        self, sound, target, against, steps, methods, request: gr.Request
    ):
        """Show one method after the other, then the download."""
        results = []
        try:
            visit = self.visits.find(request.session_hash, sound)
            wish = Wish(
                visit.sound,
                None if target == -1 else target,
                {-1: None, -2: RUNNER_UP}.get(against, against),
                steps,
                tuple(methods),
            )
            for archive in self._answer(visit, wish, results):
                yield _shown(results, archive)
        except Stopped:
            yield _shown(results, None, "stopped")
        except Exception as error:
            raise told(error, "Not explained", sound) from error

    def _answer(self, visit, wish, results):
        """Add one result after the other; yields at each, the archive last."""
        check_sound(wish.sound, self.limits)
        visit.start()
        try:
            folder = folder_for(visit.new_folder(), wish.sound)
            classifier = self.interpreter.explainer.classifier
            with interruptible(classifier, visit.check):
                for result in answer(self.interpreter, wish, folder):
                    visit.check()
                    results.append(result)
                    yield None
            archive = zipped(folder)
            visit.check()
            yield archive
        finally:
            self.visits.leave(visit)

    def stop(self, request: gr.Request):
        """End what this visitor waits for."""
        self.visits.stop(request.session_hash)

    def close(self, request: gr.Request):
        """Forget a visitor."""
        self.visits.close(request.session_hash)


def _shown(results, archive, note=""):
    """Values of the answer and of the download."""
    if archive is None:
        note = note or "more to come ..."
        return cards(results, note), gr.DownloadButton(visible=False)
    button = gr.DownloadButton(value=str(archive), visible=True)
    return cards(results), button
