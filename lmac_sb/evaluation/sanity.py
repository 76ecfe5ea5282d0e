"""Sanity checks of explanations.

Cascading randomisation (Adebayo et al., arXiv 1810.03292): an explanation of
a classifier must change when the classifier's weights are randomised layer by
layer, from its output down. Remove and retrain, ROAR (Hooker et al., arXiv
1806.10758): a classifier that is retrained without what an explanation calls
relevant must do worse than one that lost the same amount at random.
"""

import torch
from torch.nn import functional as F

from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.evaluation.rows import in_order, of_one_length
from lmac_sb.jobs.job import Chunk, Job
from lmac_sb.jobs.processes import is_first
from lmac_sb.lmac.masking import apply_mask, cut_ranks, ranks
from lmac_sb.methods.registry import Case, min_max
from lmac_sb.utils.console import progress
from lmac_sb.utils.errors import LMACError

__all__ = [
    "check_randomisation",
    "check_roar",
    "correlation",
    "decides_by_weights",
    "randomised",
    "remove",
    "retrain",
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
def remove(explainer, methods, shares, wavs):
    """The classifier's input without what each method calls relevant.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    shares : list of float
        Shares of the bins to silence, in [0, 1].
    wavs : torch.Tensor
        [batch, samples].

    Returns
    -------
    dict
        (method, share) to the classifier's input [batch, time, mel].

    Raises
    ------
    LMACError
        If a method has no order of bins, such as one of fixed area.
    """
    analysis = explainer.analyze(wavs)
    target = analysis.logits.argmax(1)
    case = Case(explainer, wavs, analysis, target, [""] * len(wavs))
    inputs = {}
    for name, method in methods.items():
        if method.kind == "fixed":
            raise LMACError(f"methods: '{name}' has no order of bins")
        order = None
        if method.kind != "area":
            order = ranks(method.function(case))
        for share in shares:
            area = torch.full((len(wavs),), share, device=wavs.device)
            if order is None:
                mask = method.function(case, area)
            else:
                mask = cut_ranks(order, area)
            rest = apply_mask(analysis.magnitude, 1 - mask, "linear")
            inputs[name, share] = explainer.features.mel(rest)
    return inputs


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


def decides_by_weights(methods):
    """Refuse methods that do not look at the classifier.

    Arguments
    ---------
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.

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
            raise LMACError(
                f"randomisation_methods: '{name}' does not look at the "
                "classifier"
            )


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
    seed, clips = options["seed"], in_order(dataset.n_samples)
    identity = {
        "clips": [dataset.data_ids[i] for i in clips],
        "methods": list(methods),
        "seed": seed,
    }
    job = Job(options["folder"], len(clips), identity, options["batch_size"])

    def work(items):
        """Rows of the clips with these numbers in their order."""
        rows = []
        for places in of_one_length([clips[i] for i in items], dataset):
            wavs, _, ids = _batch(dataset, places, explainer)
            rows += _randomisation_rows(explainer, methods, wavs, ids, seed)
        return Chunk(rows)

    quiet = not is_first()
    with progress(total=len(clips), unit="clip", disable=quiet) as bar:
        job.run(work, lambda index: bar.update(len(job.items(index))))
    return [row for index in range(job.n_chunks) for row in job.rows(index)]


def _randomisation_rows(explainer, methods, wavs, ids, seed):
    """Rows of the clips of one batch."""
    with torch.no_grad():
        target = explainer.analyze(wavs).logits.argmax(1)
    before, rows = _masks(methods, explainer, wavs, target), []
    for stage in randomised(explainer.classifier, seed):
        after = _masks(methods, explainer, wavs, target)
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


def _masks(methods, explainer, wavs, target):
    """Mask of each method, in [0, 1], [batch, time, freq]."""
    analysis = explainer.analyze(wavs, target)
    case = Case(explainer, wavs, analysis, target, [""] * len(wavs))
    masks = {}
    for name, method in methods.items():
        made = method.function(case)
        masks[name] = min_max(made) if method.kind == "scores" else made
    return masks


def _batches(dataset, batch_size, explainer):
    """Batch by batch, see `_batch`."""
    for places in EqualLengthBatches(dataset.n_samples, batch_size):
        yield _batch(dataset, places, explainer)


def _batch(dataset, places, explainer):
    """Waveforms [batch, samples], labels [batch] and ids of some clips."""
    device = next(explainer.features.buffers()).device
    items = [dataset[place] for place in places]
    return (
        torch.stack([item["sig"] for item in items]).to(device),
        torch.cat([item["class_string_encoded"] for item in items]),
        [item["id"] for item in items],
    )


def check_roar(explainer, methods, datasets, shares, make_model, options):
    """Train classifiers without what each method calls relevant.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    datasets : dict
        Data sets by the names ``train`` and ``test``.
    shares : list of float
        Shares of the bins to silence.
    make_model : callable
        Makes a new classifier of mel spectrograms [batch, time, mel].
    options : dict
        ``batch_size`` (clips that are explained at once), ``epochs``,
        ``runs`` (trainings from different seeds) and ``seed``.

    Returns
    -------
    list of dict
        A row for each test clip, method, share and run, with the accuracy in
        percent.

    Raises
    ------
    LMACError
        If the clips have several lengths, or a method has no order of bins.
    """
    inputs, labels = {}, {}
    for split, dataset in datasets.items():
        inputs[split], labels[split] = _remove_from_all(
            explainer, methods, shares, dataset, options["batch_size"], split
        )
    rows = []
    trainings = [
        (*key, run) for key in inputs["train"] for run in range(options["runs"])
    ]
    for method, share, run in progress(trainings, unit="training"):
        right = _retrained_decisions(
            make_model,
            {split: found[method, share] for split, found in inputs.items()},
            labels,
            options["epochs"],
            options["seed"] + run,
        )
        rows += [
            {
                "id": clip,
                "method": method,
                "share": share,
                "run": run,
                "accuracy": 100 * value,
            }
            for clip, value in zip(datasets["test"].data_ids, right)
        ]
    return rows


def _retrained_decisions(make_model, inputs, labels, epochs, seed):
    """For each test clip, 1 if a retrained classifier is right, else 0."""
    torch.manual_seed(seed)
    device = inputs["train"].device
    model = retrain(
        make_model().to(device),
        inputs["train"],
        labels["train"].to(device),
        epochs,
        seed=seed,
    )
    with torch.no_grad():
        parts = inputs["test"].split(32)
        decided = torch.cat([model(x).argmax(1).cpu() for x in parts])
    return (decided == labels["test"]).float().tolist()


def _remove_from_all(explainer, methods, shares, dataset, batch_size, split):
    """Inputs from `remove` of all clips, and their labels [clips]."""
    parts, labels = {}, []
    for wavs, found, _ in progress(
        list(_batches(dataset, batch_size, explainer)),
        unit="batch",
        desc=f"{split}: masks",
    ):
        labels.append(found)
        for key, mel in remove(explainer, methods, shares, wavs).items():
            parts.setdefault(key, []).append(mel)
    try:
        return {k: torch.cat(x) for k, x in parts.items()}, torch.cat(labels)
    except RuntimeError as error:
        raise LMACError(
            f"{split}: clips of several lengths, expected one length for "
            "ROAR; train the explained models with signal_length_s"
        ) from error
