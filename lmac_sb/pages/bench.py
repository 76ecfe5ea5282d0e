"""A page, in one file, that shows a bench: tables and plots to choose from.

See `lmac_sb.pages.page` on how names of methods and data stay data.
"""

from pathlib import Path

from lmac_sb.bench.measured import MEASURES
from lmac_sb.bench.results import EQUAL, better, digits, measures
from lmac_sb.bench.run import BENCH
from lmac_sb.bench.tables import groups
from lmac_sb.evaluation.comparison import OWN
from lmac_sb.metrics.registry import unguarded
from lmac_sb.pages.meanings import MEANINGS
from lmac_sb.pages.page import save_page, write_block
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.io import read_json

__all__ = ["write_bench_page"]

PAGE = "bench.html"
_LISTS = ("cells", "figures", "differences", "losses", "notes")


def write_bench_page(folder):
    """Write a page for the folder of a bench.

    The page is a single file that opens from disk and loads nothing else.

    Arguments
    ---------
    folder : str or Path
        As ``lmac bench`` writes it, with ``bench.json``.

    Returns
    -------
    pathlib.Path
        ``bench.html`` in the folder.

    Raises
    ------
    LMACError
        If ``bench.json`` is missing or holds something else, or the page
        cannot be written. Then an earlier page stays as it was.

    Example
    -------
    >>> write_bench_page("nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: nowhere/bench.json: no such file, expected the folder \
of a bench
    """
    folder = Path(folder)
    path, page = folder / BENCH, folder / PAGE
    if not path.is_file():
        raise LMACError(f"{path}: no such file, expected the folder of a bench")
    facts = read_json(path)
    if not isinstance(facts, dict) or not all(
        isinstance(facts.get(name), list) for name in _LISTS
    ):
        raise LMACError(
            f"{path}: found {shown(facts)}, expected {', '.join(_LISTS)}"
        )
    contents = _contents(facts)
    save_page(
        page,
        "bench",
        lambda file: write_block(file, "index", contents),
        styles=["report"],
        scripts=["dom", "theme", "tips", "charts"],
    )
    return page


def _contents(facts):
    """What the page says."""
    names = measures({x["measure"] for x in facts["figures"]})
    return {
        **{name: facts[name] for name in _LISTS},
        "made": facts.get("made", {}),
        "keeps": [EQUAL, OWN],
        "groups": groups(names),
        "directions": {name: better(name) for name in names},
        "digits": {name: digits(name) for name in names},
        "meanings": {name: _meaning(name) for name in names},
    }


def _meaning(measure):
    """What a measure says, in one sentence."""
    if measure in MEASURES:
        return MEASURES[measure][2]
    plain = unguarded(measure)
    meaning = MEANINGS[plain]
    if plain == measure:
        return meaning
    how = {
        "heard": "Of the sounds, analysed again",
        "other": "Asked of another classifier",
    }
    return f"{how.get(measure.split(' ')[0], measure)}. {meaning}"
