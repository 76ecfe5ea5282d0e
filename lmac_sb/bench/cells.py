"""A cell of the bench: one classifier on one data set, all methods."""

from typing import NamedTuple

import torch

from lmac_sb.bench.classifiers import Classifier, Setup
from lmac_sb.bench.entries import call_entry
from lmac_sb.bench.judges import judge_of, load_judge
from lmac_sb.bench.measured import Measured
from lmac_sb.bench.methods import base, bench_methods
from lmac_sb.data.audio import Preprocessor
from lmac_sb.data.dataset import make_dataset, thin_out
from lmac_sb.data.regions import read_regions, regions_identity
from lmac_sb.evaluation.contamination import make_settings
from lmac_sb.evaluation.judge import Judge
from lmac_sb.evaluation.models import models_identity
from lmac_sb.evaluation.runner import Grid
from lmac_sb.inference.interpreter import LMACInterpreter
from lmac_sb.metrics.registry import GUARDS
from lmac_sb.utils.errors import LMACError, shown

__all__ = ["Cell", "Loaded", "evaluate", "load"]

BATCH = 2  # clips of a chunk, so that little is lost if the bench is stopped


class Cell(NamedTuple):
    """A classifier on a data set.

    Arguments
    ---------
    name : str
        Of the classifier.
    classifier : lmac_sb.bench.classifiers.Classifier
        The entry.
    setup : lmac_sb.bench.classifiers.Setup
        Its data, folder and seeds.

    Example
    -------
    >>> Cell("mine", Classifier(None), None).name
    'mine'
    """

    name: str
    classifier: Classifier
    setup: Setup

    @property
    def judge(self):
        """Name of its judge."""
        return judge_of(self.setup.prepared.data, self.classifier)


class Loaded(NamedTuple):
    """What a cell needs, loaded.

    Arguments
    ---------
    interpreters : dict
        Method to `lmac_sb.LMACInterpreter`, of the first seed.
    others : list of dict
        The same of the other seeds.
    judge : callable
        See `lmac_sb.bench.judges.load_judge`.

    Example
    -------
    >>> Loaded({}, [], None).others
    []
    """

    interpreters: dict
    others: list
    judge: object

    @property
    def first(self):
        """Any of the interpreters: they share their classifier."""
        return next(iter(self.interpreters.values()))

    def identity(self):
        """What the models are, for the identity of a job."""
        found = [self.interpreters, *self.others]
        return [models_identity(x, dict.fromkeys(x))["sha256"] for x in found]


def load(cell):
    """Load what a cell needs, and train what is missing.

    Arguments
    ---------
    cell : Cell
        The cell.

    Returns
    -------
    Loaded

    Raises
    ------
    LMACError
        If it cannot be loaded or trained, or is of other classes.
    """
    setup = cell.setup
    found = call_entry(cell.name, cell.classifier.load, setup)
    first, *others = _checked(cell.name, found)
    _check_classes(cell, next(iter(first.values())))
    above = setup._replace(folder=setup.folder.parent)
    judge = load_judge(cell.judge, above, next(iter(first.values())))
    return Loaded(first, others, judge)


def _checked(name, found):
    """Interpreters of each seed, if that is what a classifier gave."""
    found = list(found) if isinstance(found, (list, tuple)) else [found]
    for some in found:
        if not isinstance(some, dict) or not all(
            isinstance(x, LMACInterpreter) for x in some.values()
        ):
            raise LMACError(
                f"{name}: gave {shown(some)}, expected a dict of methods and "
                "LMACInterpreters, or a list of such dicts"
            )
    if not found or not found[0]:
        raise LMACError(f"{name}: gave no interpreter, expected one")
    return found


def _check_classes(cell, interpreter):
    """Refuse a classifier that does not know the data."""
    prepared = cell.setup.prepared
    means = prepared.data.means or {}
    known = set(interpreter.classes)
    unknown = [
        name
        for name in prepared.classes
        if name not in known and means.get(name) not in known
    ]
    if unknown:
        raise LMACError(
            f"{prepared.name}: the classifier {cell.name} knows "
            f"{', '.join(sorted(known)[:10])}, but {prepared.name} has "
            f"{', '.join(unknown[:10])}; expected one of the same classes"
        )
    several = prepared.data.several
    if several and not interpreter.explainer.classifier.multilabel:
        raise LMACError(
            f"{prepared.name}: the classifier {cell.name} decides for one "
            "class of a clip, but these clips have several; expected one that "
            "decides each on its own"
        )


def evaluate(cell, loaded, names, options, folder, code):
    """All rows of a cell.

    Arguments
    ---------
    cell : Cell
        The cell.
    loaded : Loaded
        From `load`.
    names : list of str
        Methods, see `lmac_sb.bench.methods.bench_methods`.
    options : lmac_sb.bench.run.Options
        How many clips, draws and so on.
    folder : Path
        Where finished rows are kept.
    code : dict
        Checksums of the user's code, see `lmac_sb.bench.entries.code_of`.

    Returns
    -------
    rows : list of dict
        One a clip, method and keep.
    facts : dict
        What is to be said of them.

    Raises
    ------
    LMACError
        If no clip is left, or the folder has rows of other models.
    """
    prepared = cell.setup.prepared
    dataset = _clips(cell, loaded, options.clips)
    _check_finite(cell, loaded, dataset[0])
    explainers = _explainers(loaded.interpreters)
    methods, left_out = bench_methods(names, explainers, options.seed)
    if "ideal" in methods and "event" not in dataset.output_keys:
        del methods["ideal"]
        left_out.append("ideal")
    others = [_of_a_seed(methods, x) for x in map(_explainers, loaded.others)]
    judge = Judge(loaded.first.explainer, loaded.judge, [GUARDS[0], GUARDS[-1]])
    comparison = Measured(
        judge,
        methods,
        loaded.first.classes,
        others,
        options.draws,
        explainers.values(),
    )
    regions = read_regions(prepared.folder)
    about = {
        "data": prepared.identity(),
        "regions": regions_identity(regions)["sha256"],
        "models": loaded.identity(),
        "draws": options.draws,
        "code": code,
    }
    grid = Grid(
        comparison,
        make_settings("clean", {}, loaded.first.sample_rate),
        folder,
        regions,
        about,
    )
    rows, _ = grid.run(dataset, BATCH)
    rows = list(rows)
    facts = {
        "data": prepared.name,
        "classifier": cell.name,
        "judge": cell.judge,
        "reference": comparison.reference,
        "left_out": left_out,
        "clips": len(dataset.data_ids),
        "several": prepared.data.several,
        "explained": len({row["id"] for row in rows}),
        "tested": len(prepared.ids("test")),
        "accuracy": _accuracy(rows),
        "folds": dict(prepared.data.folds),
    }
    return rows, facts


def _check_finite(cell, loaded, clip):
    """Refuse a classifier that says nothing of the first clip."""
    with torch.no_grad():
        logits = loaded.first.explainer.classify_sounds(clip["sig"][None])
    if not logits.isfinite().all():
        raise LMACError(
            f"{cell.setup.prepared.name}, {cell.name}: the classifier gives "
            f"NaN or infinite values for {clip['id']}, expected numbers"
        )


def _explainers(interpreters):
    """Explainers by method."""
    return {name: x.explainer for name, x in interpreters.items()}


def _of_a_seed(methods, explainers):
    """Those of some methods that differ from seed to seed, of one seed."""
    found, _ = bench_methods(methods, explainers)
    return {k: x for k, x in found.items() if base(k) in explainers}


def _accuracy(rows):
    """Share of the explained decisions that are right."""
    right = {row["id"]: row["right"] for row in rows}
    return sum(right.values()) / len(right)


def _clips(cell, loaded, n_clips):
    """Test clips as the classifier hears them, evenly spread."""
    prepared, interpreter = cell.setup.prepared, loaded.first
    preprocess = interpreter.preprocess
    if preprocess.n_samples is None and prepared.seconds:
        preprocess = Preprocessor(interpreter.sample_rate, prepared.seconds)
    # Where each class is decided on its own, they are in the order of those.
    classes = interpreter.classes if prepared.data.several else None
    dataset = make_dataset(
        prepared.manifests / "test.jsonl",
        preprocess,
        prepared.encoder(classes),
        events=True,
    )
    dataset.output_keys = list(dataset.pipeline.output_mapping)
    if cell.classifier.asked is None:
        thin_out(dataset, n_clips)
        return dataset
    asked = cell.classifier.asked(cell.setup, interpreter)
    found = [asked(dataset[i]) for i in range(len(dataset.data_ids))]
    places = [i for i, more in enumerate(found) if more is not None]
    if not places:
        raise LMACError(
            f"{prepared.name}, {cell.name}: the classifier knows the class of "
            f"none of {len(found)} clips"
        )
    by_id = {dataset.data_ids[i]: found[i] for i in places}
    dataset.n_samples = [dataset.n_samples[i] for i in places]
    dataset.data_ids = [dataset.data_ids[i] for i in places]
    thin_out(dataset, n_clips)
    return _Asked(dataset, by_id)


class _Asked:
    """Clips with what is asked about them."""

    def __init__(self, dataset, asked):
        self.dataset, self.asked = dataset, asked
        self.n_samples, self.data_ids = dataset.n_samples, dataset.data_ids
        self.output_keys = dataset.output_keys

    def __getitem__(self, place):
        """A clip."""
        item = self.dataset[place]
        return {**item, **self.asked[item["id"]]}
