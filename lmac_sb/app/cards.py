"""The answer of the page as markup; all text in it is escaped."""

import html
import math
import os
from urllib.parse import quote

from lmac_sb.inference.clip_facts import answer_of, decision_of
from lmac_sb.inference.clip_folder import PICTURE, common_gain, gain_in_words
from lmac_sb.inference.spectra import PROBABILITIES, sounds_of
from lmac_sb.metrics.registry import METRICS
from lmac_sb.metrics.summary import header
from lmac_sb.metrics.verdict import VERDICTS

__all__ = ["STYLE", "cards", "kept_card"]

SOUNDS = {
    "interpretation": "kept: what the decision rests on",
    "residual": "removed: the rest",
    "original": "the whole sound",
}
N_TOP = 5  # classes that the model hears

STYLE = """
#answer .cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
#answer .card { border: 1px solid var(--border-color-primary); padding: 1rem;
  border-radius: 8px; min-width: 0; overflow-wrap: anywhere; }
#answer h3 { margin: 0 0 .3rem; }
#answer p { margin: .3rem 0; }
#answer .verdict { font-weight: 600; }
#answer .verdict.bad::before { content: "!! "; }
#answer .note { color: var(--body-text-color-subdued); }
#answer label { display: block; margin: .6rem 0; }
#answer audio, #answer img { display: block; width: 100%; }
#answer table { border-collapse: collapse; margin-top: .6rem; }
#answer table, #answer tr, #answer td { border: none !important; }
#answer td { padding: .1rem 1rem .1rem 0; }
#answer td + td { text-align: right; font-variant-numeric: tabular-nums; }
"""


def cards(results, note=""):
    """All answers side by side.

    Arguments
    ---------
    results : list of lmac_sb.app.answer.Result
        The model's own first; none if it was stopped before that.
    note : str
        What is said below them.

    Returns
    -------
    str

    Example
    -------
    >>> from lmac_sb.app.answer import Wish, answer
    >>> folder = getfixture("tmp_path")
    >>> made = cards(list(answer(interpreter, Wish(path), folder)))
    >>> made.count("<audio")
    3
    >>> cards([], "stopped")
    '<div><p class="note">stopped</p></div>'
    """
    if not results:
        return f"<div>{_note(note)}</div>"
    own = results[0].explanation
    heard = ", ".join(f"{name} {p:.3f}" for name, p in own.top(N_TOP)[0])
    parts = [f'<p class="heard">The model hears: {_text(heard)}</p>']
    parts += [f'<p class="note">{_text(note)}</p>' for note in results[0].notes]
    parts += ['<div class="cards">', *map(_card, results), "</div>"]
    if len(results) > 1:
        parts.append(
            _note(
                "Each other method keeps as large a share of the spectrogram "
                "as the mask of the first, and asks for the class alone, "
                "whatever it is compared with."
            )
        )
    if note:
        parts.append(_note(note))
    # One line that begins with a tag, in which no Markdown is looked for.
    return f"<div>{''.join(parts)}</div>"


def _card(result):
    """One method."""
    parts = [f"<h3>{_text(result.title)}</h3>"]
    if result.explanation is None:
        parts.append(_note(f"not possible: {result.error}"))
    else:
        parts += _explained(result.explanation, result.folder)
    return f'<section class="card">{"".join(parts)}</section>'


def _explained(clip, folder):
    """Verdict, players, picture and numbers of an explanation."""
    yield from _heard(clip.titles[0], clip.verdicts[0])
    said = gain_in_words(common_gain(sounds_of(clip).values()))
    if said:
        yield _note(said)
    yield from _played(folder)
    p = (clip.p_before, clip.p_inside, clip.p_outside)
    yield _table(_numbers([float(x[0]) for x in p], clip.metrics[0]))


def kept_card(info, folder):
    """The card of an explanation that was kept on disk.

    Arguments
    ---------
    info : dict
        Its facts, see `lmac_sb.inference.clip_facts.INFO`.
    folder : pathlib.Path
        With its sounds, and maybe its picture.

    Returns
    -------
    str

    Example
    -------
    >>> from lmac_sb.inference.clip_folder import read_clip
    >>> (folder,) = interpreter.explain_file(path).save(getfixture("tmp_path"))
    >>> kept_card(read_clip(folder).info, folder).count("<audio")
    3
    """
    answer = answer_of(info)
    label = info["label"]
    decided = f"decided: {decision_of(info)}"
    if label is not None:
        decided += f", the label is {label}"
    parts = [f"<h3>{_text(info['id'])}</h3>", f"<p>{_text(decided)}</p>"]
    parts += _heard(answer["name"], info["verdict"])
    notes = [*info.get("notes", ()), gain_in_words(info["gain"])]
    parts += [_note(note) for note in notes if note]
    parts += _played(folder)
    p = [answer[name] for name in PROBABILITIES]
    parts.append(_table(_numbers(p, info["metrics"])))
    card = f'<section class="card">{"".join(parts)}</section>'
    return f'<div class="cards">{card}</div>'


def _heard(title, verdict):
    """What is explained, and what to make of it."""
    kind = "good" if verdict == "faithful" else "bad"
    yield f"<p>why <b>{_text(title)}</b></p>"
    yield f'<p class="verdict {kind}">{_text(verdict)}</p>'
    yield f"<p>{_text(VERDICTS[verdict])}.</p>"


def _played(folder):
    """Players of the three sounds, and the picture."""
    for name, title in SOUNDS.items():
        for path in sorted(folder.glob(f"{name}.*")):
            yield (
                f'<label>{_text(title)}<audio class="{name}" controls '
                f'preload="metadata" src="{_address(path)}"></audio></label>'
            )
    if (folder / PICTURE).is_file():
        yield (
            f'<img src="{_address(folder / PICTURE)}" alt="spectrograms of '
            'the three sounds, and the mask">'
        )


def _note(text):
    """A line that is less important."""
    return f'<p class="note">{_text(text)}</p>'


def _numbers(probabilities, metrics):
    """Names and numbers of an explanation."""
    places = ("on the whole", "on what is kept", "on the rest")
    rows = [
        (f"p {place}", "unknown" if p is None else f"{p:.3f}")
        for place, p in zip(places, probabilities)
    ]
    for name, value in metrics.items():
        metric = METRICS.get(name)
        if metric is None or value is None or not math.isfinite(value):
            continue
        if "console" in metric.shown:
            rows.append((header(name), f"{value:.{metric.digits}f}"))
    return rows


def _table(rows):
    """Rows as markup."""
    cells = "".join(
        f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _address(path):
    """Where the server gives a file, relative to the page."""
    return f"gradio_api/file={quote(os.fspath(path))}"


def _text(text):
    """Text that stays text, on one line."""
    return html.escape(" ".join(str(text).split()))
