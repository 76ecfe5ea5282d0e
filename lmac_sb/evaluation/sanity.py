"""Sanity checks of explanations.

Cascading randomisation (Adebayo et al., arXiv 1810.03292): an explanation of
a classifier must change when the classifier's weights are made random, from
its output down. Remove and retrain, ROAR (Hooker et al., arXiv 1806.10758): a
classifier that is trained anew without what an explanation calls relevant
must do worse than one that lost as much at random.
"""

import torch
from torch.nn import functional as F
from tqdm import tqdm

from lmac_sb.data.dataset import EqualLengthBatches
from lmac_sb.explain.masking import apply_mask, cut_ranks, ranks
from lmac_sb.methods.registry import Case, min_max
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


def stages(classifier):
    """What is made random, from the output down.

    Arguments
    ---------
    classifier : lmac_sb.models.frozen.FrozenClassifier
        The explained classifier.

    Returns
    -------
    list of str
        Names of parts of the classifier that have weights of their own: its
        head, then the embedding model's parts, the last one first. Lists of
        blocks are taken apart.

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
    """Make more and more of a classifier random, for as long as it is looped.

    Arguments
    ---------
    classifier : lmac_sb.models.frozen.FrozenClassifier
        Changed in place; has its own weights again after the loop, and after
        a broken one once the generator is closed.
    seed : int
        Of the new weights.

    Yields
    ------
    str
        The part that became random last, see `stages`; those before it still
        are.

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
    """New weights, and new statistics of normalisations."""
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
            f"similarity: masks of {tuple(mask.shape[1:])}, expected "
            f"{window} frames and bins at least"
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
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
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
    case = Case(explainer, wavs, analysis, target, None)
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


def retrain(model, inputs, labels, epochs, batch_size=16, lr=0.002, seed=0):
    """Train a classifier from nothing on inputs that stay as they are.

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
        How often each clip is seen.
    batch_size : int
        Clips a step.
    lr : float
        Highest learning rate of one cycle.
    seed : int
        Of the order and of rotations in time.

    Returns
    -------
    torch.nn.Module
        The model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    n_steps = epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, n_steps)
    model.train()
    with torch.enable_grad():
        for _ in range(epochs):
            order = torch.randperm(len(inputs), generator=generator)
            for rows in order.split(batch_size):
                shift = int(
                    torch.randint(inputs.shape[1], (1,), generator=generator)
                )
                # One clip alone has no statistics to normalise by.
                batch = inputs[rows].roll(shift, 1)
                loss = F.cross_entropy(model(batch), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return model.eval()


def decides_by_weights(methods):
    """Refuse to randomise a classifier that a method does not look at.

    Arguments
    ---------
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.

    Raises
    ------
    LMACError
        Names the method.

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


def check_randomisation(explainer, methods, dataset, batch_size, seed=0):
    """Compare masks with those of an ever more random classifier.

    Arguments
    ---------
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        From `lmac_sb.data.dataset.make_dataset`.
    batch_size : int
        Clips at once.
    seed : int
        Of the random weights.

    Returns
    -------
    list of dict
        A row for each clip, method and stage: correlation and SSIM.
    """
    decides_by_weights(methods)
    rows = []
    for wavs, _, ids in tqdm(
        list(_batches(dataset, batch_size, explainer)), unit="batch"
    ):
        with torch.no_grad():
            target = explainer.analyze(wavs).logits.argmax(1)
        before = _masks(methods, explainer, wavs, target)
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
    case = Case(explainer, wavs, analysis, target, None)
    masks = {}
    for name, method in methods.items():
        made = method.function(case)
        masks[name] = min_max(made) if method.kind == "scores" else made
    return masks


def _batches(dataset, batch_size, explainer):
    """Waveforms [batch, samples], labels [batch] and ids of equal length."""
    device = explainer.features.fbank_matrix.device
    for rows in EqualLengthBatches(dataset.n_samples, batch_size):
        items = [dataset[row] for row in rows]
        yield (
            torch.stack([item["sig"] for item in items]).to(device),
            torch.cat([item["class_string_encoded"] for item in items]),
            [item["id"] for item in items],
        )


def check_roar(explainer, methods, datasets, shares, make_model, options):
    """Train classifiers without what each method calls relevant.

    Arguments
    ---------
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
    methods : dict
        From `lmac_sb.methods.registry.make_methods`.
    datasets : dict
        ``train`` and ``test`` to a data set.
    shares : list of float
        Shares of the bins to silence.
    make_model : callable
        Gives a new classifier of mel spectrograms [batch, time, mel].
    options : dict
        ``batch_size`` (of the explained clips), ``epochs``, ``runs`` (
        trainings from different seeds) and ``seed``.

    Returns
    -------
    list of dict
        A row for each test clip, method, share and run: accuracy in percent.

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
    device = explainer.features.fbank_matrix.device
    rows = []
    trainings = [
        (*key, run) for key in inputs["train"] for run in range(options["runs"])
    ]
    for method, share, run in tqdm(trainings, unit="training"):
        seed = options["seed"] + run
        torch.manual_seed(seed)
        model = retrain(
            make_model().to(device),
            inputs["train"][method, share],
            labels["train"].to(device),
            options["epochs"],
            seed=seed,
        )
        with torch.no_grad():
            parts = inputs["test"][method, share].split(32)
            decided = torch.cat([model(x).argmax(1).cpu() for x in parts])
        right = (decided == labels["test"]).float().tolist()
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


def _remove_from_all(explainer, methods, shares, dataset, batch_size, split):
    """What `remove` leaves of all clips, and their labels [clips]."""
    parts, labels = {}, []
    for wavs, found, _ in tqdm(
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
            f"{split}: clips of several lengths, ROAR needs one length: "
            "train the explained models with signal_length_s"
        ) from error
