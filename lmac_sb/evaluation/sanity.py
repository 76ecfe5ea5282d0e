"""Sanity checks of explanations.

Cascading randomisation (Adebayo et al., arXiv 1810.03292): an explanation of
a classifier must change when the classifier's weights are randomised layer by
layer, from its output down. Remove and retrain, ROAR (Hooker et al., arXiv
1806.10758): a classifier that is retrained without what an explanation calls
relevant must do worse than one that lost the same amount at random.
"""

import functools
import random

import torch
from torch.nn import functional as F

from lmac_sb.data.columns import listed
from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.evaluation.filling import FILLS
from lmac_sb.evaluation.rows import in_order, means_of, of_one_length
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import is_first
from lmac_sb.lmac.masking import cut_ranks, ranks
from lmac_sb.methods.registry import Case, make_case, min_max
from lmac_sb.metrics.summary import summarize
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import first_line

__all__ = [
    "check_randomisation",
    "check_removable",
    "check_retrainable",
    "check_roar",
    "clips_at",
    "correlation",
    "decides_by_weights",
    "masks_of",
    "randomised",
    "remove",
    "retrain",
    "roar_lines",
    "rows_of_all",
    "similarity",
    "stages",
]


ROAR_BATCH = 16  # clips in each training step of `retrain`


def stages(classifier):
    """Parts of a classifier in the order in which they are randomised.

    Arguments
    ---------
    classifier : lmac_sb.models.frozen.FrozenClassifier
        The explained classifier.

    Returns
    -------
    list of str
        Names of the parts that have weights: the head, then the parts of the
        embedding model, the last one first. Each block of a list counts as a
        part.

    Example
    -------
    >>> from lmac_sb.models.encoders import ConvEmbedding
    >>> from lmac_sb.models.frozen import FrozenClassifier
    >>> frozen = FrozenClassifier(
    ...     ConvEmbedding(40, [4, 8]), torch.nn.Linear(8, 3), ["blocks.1"]
    ... )
    >>> stages(frozen)[:2]
    ['classifier', 'embedding_model.blocks.1']
    """
    parts = []
    for name, module in classifier.embedding_model.named_children():
        blocks = [(name, module)]
        if isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential)):
            blocks = [(f"{name}.{i}", x) for i, x in enumerate(module)]
        parts += [
            f"embedding_model.{place}"
            for place, block in blocks
            if any(True for _ in block.parameters())
        ]
    return ["classifier", *reversed(parts)]


def randomised(classifier, seed=0):
    """Randomise a classifier further with each iteration of a loop.

    Arguments
    ---------
    classifier : lmac_sb.models.frozen.FrozenClassifier
        Changed in place. It gets its own weights back after the loop, or, if
        the loop ends early, when the generator is closed.
    seed : int
        Seed of the new weights.

    Yields
    ------
    str
        The part that was randomised last, see `stages`. All parts before it
        stay random.

    Returns
    -------
    generator

    Example
    -------
    >>> before = explainer.analyze(wavs).logits
    >>> for name in randomised(explainer.classifier):
    ...     after = explainer.analyze(wavs).logits
    ...     assert not torch.equal(before, after)
    >>> torch.equal(explainer.analyze(wavs).logits, before)
    True
    """
    own = {k: v.clone() for k, v in classifier.state_dict().items()}
    try:
        for place, name in enumerate(stages(classifier)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + place)
                for module in classifier.get_submodule(name).modules():
                    _reset(module)
            yield name
    finally:
        classifier.load_state_dict(own)


def _reset(module):
    """Give a module new weights, and a normalisation new statistics."""
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()
        return
    for weights in module.parameters(recurse=False):
        torch.nn.init.normal_(weights, std=0.02)


def correlation(mask, other):
    """Pearson's correlation of two masks.

    Arguments
    ---------
    mask, other : torch.Tensor
        [batch, time, freq].

    Returns
    -------
    torch.Tensor
        [batch], in [-1, 1]; NaN for a constant mask.

    Example
    -------
    >>> mask = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    >>> round(correlation(mask, 1 - mask).item(), 4)
    -1.0
    """
    a, b = (x.flatten(1).double() for x in (mask, other))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).float()


def similarity(mask, other, window=7):
    """Structural similarity (SSIM) of two masks.

    Arguments
    ---------
    mask, other : torch.Tensor
        Values in [0, 1], [batch, time, freq].
    window : int
        Side of the uniform window, in frames and bins.

    Returns
    -------
    torch.Tensor
        [batch], 1 for equal masks (Wang et al., 2004, with its constants for
        a range of 1).

    Example
    -------
    >>> mask = torch.rand(1, 20, 20)
    >>> similarity(mask, mask)
    tensor([1.])
    """
    if min(mask.shape[1:]) < window:
        raise LMACError(
            f"similarity: masks of {tuple(mask.shape[1:])}, expected at "
            f"least {window} frames and bins"
        )
    a, b = (x[:, None].double() for x in (mask, other))

    def local(x):
        """Mean over a window around each bin."""
        return F.avg_pool2d(x, window, stride=1)

    mean_a, mean_b = local(a), local(b)
    n = window * window
    # Sample variances, as in the paper's code and in scikit-image.
    var_a, var_b, both = (
        (local(x) - y) * n / (n - 1)
        for x, y in (
            (a * a, mean_a**2),
            (b * b, mean_b**2),
            (a * b, mean_a * mean_b),
        )
    )
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    ratio = ratio / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return ratio.mean((1, 2, 3)).float()


@torch.no_grad()
def remove(explainer, methods, shares, wavs, fill="silence", items=None):
    """The classifier's input without what each method calls relevant.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`. A mask of fixed area,
        such as ``ideal``, loses its loudest bins first, and never more bins
        than it has.
    shares : list of float
        Shares of the bins to remove, in [0, 1].
    wavs : torch.Tensor
        [batch, samples].
    fill : str
        What stands in their place, see `lmac_sb.evaluation.filling`.
    items : list of dict
        The clips, from `lmac_sb.data.dataset.make_dataset`; their ids seed
        what is drawn, and their events are the method ``ideal``.

    Returns
    -------
    dict
        (method, share) to the classifier's input [batch, time, mel].

    Raises
    ------
    LMACError
        If a method has no order of bins, as it marks all of them.
    """
    if items is None:
        items = [{"id": ""}] * len(wavs)
    case = make_case(explainer, wavs, [1.0] * len(wavs), items)
    magnitude = case.analysis.magnitude
    seeds = [random.Random(item["id"]).getrandbits(63) for item in items]
    inputs = {}
    for name, method in methods.items():
        holes = _holes(name, method, case, shares)
        for share, hole in zip(shares, holes):
            rest = FILLS[fill](magnitude, hole, seeds)
            inputs[name, share] = explainer.features.mel(rest)
    return inputs


def _holes(name, method, case, shares):
    """Ones at the bins that a method calls relevant, for each share."""
    areas = [
        torch.full((len(case),), share, device=case.wavs.device)
        for share in shares
    ]
    if method.kind == "area":
        return [method.function(case, area) for area in areas]
    scores = method.function(case)
    if method.kind != "fixed":
        order = ranks(scores)
        return [cut_ranks(order, area) for area in areas]
    if scores.all():
        raise LMACError(f"methods: '{name}' has no order of bins")
    order = ranks(scores * case.analysis.magnitude)
    return [cut_ranks(order, area) * scores for area in areas]


def retrain(model, inputs, labels, epochs, lr=0.002, seed=0):
    """Train a classifier from scratch on fixed inputs.

    Arguments
    ---------
    model : torch.nn.Module
        Inputs [batch, time, mel] to logits [batch, classes]; trained in
        place.
    inputs : torch.Tensor
        [clips, time, mel].
    labels : torch.Tensor
        [clips].
    epochs : int
        Number of passes over the clips.
    lr : float
        Highest learning rate of one cycle.
    seed : int
        Seed of the order of the clips and of rotations in time.

    Returns
    -------
    torch.nn.Module
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    # On a CPU, twice as fast for maps of few channels.
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    n_steps = epochs * -(-len(inputs) // ROAR_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, n_steps)
    model.train()
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for rows in order.split(ROAR_BATCH):
                shift = int(
                    torch.randint(inputs.shape[1], (1,), generator=generator)
                )
                batch = inputs[rows].roll(shift, 1)
                loss = F.cross_entropy(model(batch), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def decides_by_weights(methods, key="randomisation_methods"):
    """Refuse methods that do not look at the classifier.

    Arguments
    ---------
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    key : str
        Where they were given, for the message.

    Raises
    ------
    LMACError
        If there is such a method; the message names it.

    Example
    -------
    >>> from lmac_sb.methods.registry import make_methods
    >>> decides_by_weights(make_methods(["saliency"], {"lmac": None}))
    >>> decides_by_weights(make_methods(["random"], {"lmac": None}))
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: randomisation_methods: 'random' does not look at the ...
    """
    for name, method in methods.items():
        if method.kind not in ("mask", "scores"):
            raise LMACError(f"{key}: '{name}' does not look at the classifier")


def check_randomisation(explainer, methods, dataset, options):
    """Compare masks with those of a classifier that becomes more random.

    Several processes may do the same at once: each takes its share of the
    batches, and one that was broken off goes on where it stopped.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`.
    options : dict
        ``folder``, where finished rows are kept; ``batch_size``, the clips
        that are explained at once; ``seed`` of the random weights.

    Returns
    -------
    list of dict
        A row for each clip, method and stage, with correlation and SSIM.

    Raises
    ------
    LMACError
        If the folder has rows of other clips or methods.
    """
    decides_by_weights(methods)

    def rows_of(places):
        """Rows of the clips of one batch."""
        wavs, items = clips_at(places, dataset, explainer)
        ids = [item["id"] for item in items]
        seed = options["seed"]
        return _randomisation_rows(explainer, methods, wavs, ids, seed)

    return rows_of_all(rows_of, methods, dataset, options)


def rows_of_all(rows_of, methods, dataset, options):
    """Rows of all clips of a data set, of which each process makes its share.

    Arguments
    ---------
    rows_of : callable
        Of the places of some clips of one length, gives their rows.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`.
    options : dict
        ``folder``, where finished rows are kept; ``batch_size``, the clips
        that are explained at once; ``seed``.

    Returns
    -------
    list of dict

    Raises
    ------
    LMACError
        If the folder has rows of other clips, methods or seeds.
    """
    clips = in_order(dataset.n_samples)
    identity = {
        "clips": [dataset.data_ids[i] for i in clips],
        "methods": list(methods),
        "seed": options["seed"],
    }
    job = Job(options["folder"], len(clips), identity, options["batch_size"])

    def work(items):
        """Rows of the clips with these numbers in their order."""
        batches = of_one_length([clips[i] for i in items], dataset)
        return Chunk([row for places in batches for row in rows_of(places)])

    quiet = not is_first()
    with progress(total=len(clips), unit="clip", disable=quiet) as bar:
        job.run(work, lambda index: bar.update(len(job.items(index))))
    return [row for index in range(job.n_chunks) for row in job.rows(index)]


def _randomisation_rows(explainer, methods, wavs, ids, seed):
    """Rows of the clips of one batch."""
    with torch.no_grad():
        target = explainer.analyze(wavs).logits.argmax(1)
    before, rows = masks_of(methods, explainer, wavs, target), []
    for stage in randomised(explainer.classifier, seed):
        after = masks_of(methods, explainer, wavs, target)
        for name, mask in after.items():
            values = zip(
                ids,
                correlation(before[name], mask).tolist(),
                similarity(before[name], mask).tolist(),
            )
            rows += [
                {
                    "id": clip,
                    "method": name,
                    "stage": stage.replace("embedding_model.", ""),
                    "correlation": r,
                    "SSIM": s,
                }
                for clip, r, s in values
            ]
    return rows


def masks_of(methods, explainer, wavs, target):
    """Masks that explain a class of each clip.

    Arguments
    ---------
    methods : dict
        From `lmac_sb.methods.registry.make_methods`; none that wants an area.
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    wavs : torch.Tensor
        [batch, samples].
    target : torch.Tensor
        The classes, [batch].

    Returns
    -------
    dict
        Method to masks in [0, 1], [batch, time, freq].
    """
    analysis = explainer.analyze(wavs, target)
    case = Case(explainer, wavs, analysis, target, [""] * len(wavs))
    masks = {}
    for name, method in methods.items():
        made = method.function(case)
        masks[name] = min_max(made) if method.kind == "scores" else made
    return masks


def clips_at(places, dataset, explainer):
    """Some clips of one length.

    Arguments
    ---------
    places : list of int
        Of the clips in the data set.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`.
    explainer : lmac_sb.lmac.explainer.Explainer
        Where it is, the waveforms go.

    Returns
    -------
    wavs : torch.Tensor
        [batch, samples].
    items : list of dict
        All that the data set says of each clip.
    """
    device = next(explainer.features.buffers()).device
    items = [dataset[place] for place in places]
    return torch.stack([item["sig"] for item in items]).to(device), items


def check_removable(methods, datasets):
    """Refuse what ROAR cannot do, before anything is written.

    Arguments
    ---------
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    datasets : dict
        Data sets by split.

    Raises
    ------
    LMACError
        If the clips of a split have several lengths, or a method marks all
        bins.

    Example
    -------
    >>> check_removable({"ones": None}, {})
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: roar_methods: 'ones' has no order of bins
    """
    if "ones" in methods:
        raise LMACError("roar_methods: 'ones' has no order of bins")
    for split, dataset in datasets.items():
        if len(set(dataset.n_samples)) > 1:
            raise LMACError(
                f"{split}: clips of several lengths, expected one length for "
                "ROAR; train the explained models with signal_length_s, or "
                "leave roar out of the checks"
            )


def check_retrainable(interpreter, make_model, n_samples):
    """Refuse a classifier that ROAR cannot train, before anything is written.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        Of the classifier that is explained.
    make_model : callable
        See `check_roar`.
    n_samples : int
        Length of the clips.

    Raises
    ------
    LMACError
        If several classes of a clip may be true, or the classifier does not
        fit the features or the classes of the one that is explained.

    Example
    -------
    >>> import lmac_sb
    >>> interpreter = lmac_sb.LMACInterpreter.from_pretrained("esc10")
    >>> make = lambda: torch.nn.Sequential(
    ...     torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    ...     torch.nn.Linear(1, 3),
    ... )
    >>> check_retrainable(interpreter, make, 16000)
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: n_classes: found 3, expected the 10 classes ...
    """
    explainer, classes = interpreter.explainer, interpreter.classes
    if explainer.classifier.multilabel:
        raise LMACError(
            "checks: roar trains classifiers of one class a clip, found an "
            "interpreter that decides each class on its own; expected "
            "[randomisation, swap]"
        )
    features = explainer.features
    device = next(explainer.parameters()).device
    silence = torch.zeros(1, n_samples, device=device)
    with torch.random.fork_rng(), torch.no_grad():
        mel = features.mel(features.magnitude(features.stft(silence))).cpu()
        try:
            found = make_model().eval()(mel).shape[-1]
        except RuntimeError as error:
            raise LMACError(
                f"n_mels, channels, emb_dim: {first_line(error)}; expected "
                f"a classifier of the {mel.shape[-1]} mel bands that the "
                "explained one has"
            ) from error
    if found != len(classes):
        raise LMACError(
            f"n_classes: found {found}, expected the {len(classes)} classes "
            f"of the explained classifier ({listed(classes)}): use "
            f"--n_classes {len(classes)}"
        )


def check_roar(explainer, methods, datasets, shares, make_model, options):
    """Train classifiers without what each method calls relevant.

    Several processes may do the same at once, each with its share of the
    trainings; what was broken off goes on where it stopped.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    datasets : dict
        Data sets by the names ``train`` and ``test``.
    shares : list of float
        Shares of the bins to remove.
    make_model : callable
        Makes a new classifier of mel spectrograms [batch, time, mel].
    options : dict
        ``folder``, where finished rows are kept; ``fills`` (what stands in
        place of the removed bins), ``batch_size`` (clips that are explained
        at once), ``epochs``, ``runs`` (trainings from different seeds) and
        ``seed``.

    Returns
    -------
    list of dict
        A row for each test clip, fill, method, share and run, with the
        accuracy in percent.

    Raises
    ------
    LMACError
        If the clips have several lengths, a method has no order of bins, or
        the folder has rows of others.
    """
    check_removable(methods, datasets)
    trainings = [
        (fill, method, share, run)
        for fill in options["fills"]
        for method in methods
        for share in shares
        for run in range(options["runs"])
    ]
    identity = {
        "clips": {split: list(x.data_ids) for split, x in datasets.items()},
        "trainings": trainings,
        **{name: options[name] for name in ("epochs", "seed")},
    }
    job = Job(options["folder"], len(trainings), identity, chunk=1)

    # One fill at a time: the inputs of all would not fit into memory.
    @functools.lru_cache(maxsize=1)
    def data(fill):
        """Inputs of both splits by method and share, and labels."""
        return {
            split: _remove_from_all(
                remove_by, dataset, options["batch_size"], fill, split
            )
            for split, dataset in datasets.items()
        }

    def remove_by(places, dataset, fill):
        """What `remove` gives of some clips, and their labels."""
        wavs, items = clips_at(places, dataset, explainer)
        labels = torch.cat([item["class_string_encoded"] for item in items])
        return remove(explainer, methods, shares, wavs, fill, items), labels

    def work(items):
        """Rows of one training."""
        ((fill, method, share, run),) = (trainings[i] for i in items)
        splits = {
            split: (inputs[method, share], labels)
            for split, (inputs, labels) in data(fill).items()
        }
        right = _retrained_decisions(
            make_model, splits, options["epochs"], options["seed"] + run
        )
        about = {"fill": fill, "method": method, "share": share, "run": run}
        return Chunk(
            [
                {"id": clip, **about, "accuracy": 100 * value}
                for clip, value in zip(datasets["test"].data_ids, right)
            ]
        )

    quiet = not is_first()
    with progress(total=len(trainings), unit="training", disable=quiet) as bar:
        job.run(work, lambda index: bar.update())
    return [row for index in range(job.n_chunks) for row in job.rows(index)]


def roar_lines(rows):
    """Means of `check_roar`, for a figure with lines.

    Arguments
    ---------
    rows : list of dict
        From `check_roar`. A clip counts once, with its mean over the runs.

    Returns
    -------
    dict
        Method to points, each a share and, by fill, the result of
        `lmac_sb.metrics.summary.summarize` for the accuracy, compared with
        the method ``random`` where there is that one.

    Example
    -------
    >>> row = {"id": "a", "fill": "noise", "share": 0.1}
    >>> rows = [
    ...     {**row, "method": "lmac", "accuracy": 0.0},
    ...     {**row, "method": "lmac", "accuracy": 100.0},
    ...     {**row, "method": "random", "accuracy": 100.0},
    ... ]
    >>> ((share, values),) = roar_lines(rows)["lmac"]
    >>> share, values["accuracy, noise"]["mean"]
    (0.1, 50.0)
    >>> values["accuracy, noise"]["difference"]["mean"]
    50.0
    """
    tables = {}
    keys = ["fill", "share", "method", "id"]
    for row in means_of(rows, keys, ["accuracy"]):
        tables.setdefault((row["fill"], row["share"]), []).append(row)
    lines = {}
    for (fill, share), table in tables.items():
        summary = summarize(table, reference="random", columns=["accuracy"])
        for method, columns in summary.items():
            points = lines.setdefault(method, {}).setdefault(share, {})
            points[f"accuracy, {fill}"] = columns["accuracy"]
    return {method: list(points.items()) for method, points in lines.items()}


def _retrained_decisions(make_model, splits, epochs, seed):
    """For each test clip, 1 if a retrained classifier is right, else 0."""
    torch.manual_seed(seed)
    inputs, labels = splits["train"]
    model = make_model().to(inputs.device)
    retrain(model, inputs, labels.to(inputs.device), epochs, seed=seed)
    inputs, labels = splits["test"]
    with torch.no_grad():
        parts = inputs.split(32)
        decided = torch.cat([model(x).argmax(1).cpu() for x in parts])
    return (decided == labels).float().tolist()


def _remove_from_all(remove_by, dataset, batch_size, fill, split):
    """Inputs without the removed bins of all clips, and labels [clips]."""
    parts, labels = {}, []
    batches = EqualLengthBatches(dataset.n_samples, batch_size)
    for places in progress(
        list(batches), unit="batch", desc=f"{split}: {fill}"
    ):
        found, of_batch = remove_by(places, dataset, fill)
        labels.append(of_batch)
        for key, mel in found.items():
            parts.setdefault(key, []).append(mel)
    return {k: torch.cat(x) for k, x in parts.items()}, torch.cat(labels)
