"""What evaluations load: models to compare, a second opinion, clips."""

from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder

from lmac_sb.data.dataset import check_labels, make_dataset
from lmac_sb.inference.export import load_interpreter
from lmac_sb.models.classifier_folder import load_classifier
from lmac_sb.models.encoders import embed
from lmac_sb.models.weights import weights_sha256
from lmac_sb.training.experiment import check_frontend, check_multilabel
from lmac_sb.training.identity import weights_identity
from lmac_sb.utils.errors import LMACError

__all__ = [
    "load_clips",
    "load_interpreters",
    "load_second_classifier",
    "models_identity",
    "sources_of",
]


def sources_of(interpreter, others):
    """Where the models to compare come from, by name.

    Arguments
    ---------
    interpreter : str
        Value of the key `interpreter`: the method ``lmac``.
    others : dict
        Value of the key `interpreters`: name to source.

    Returns
    -------
    dict
        The first one is ``lmac``.

    Raises
    ------
    LMACError
        If another one has that name.

    Example
    -------
    >>> sources_of("results/lmac/1234", {"lmac_ft": "results/lmac_ft/1234"})
    {'lmac': 'results/lmac/1234', 'lmac_ft': 'results/lmac_ft/1234'}
    """
    if "lmac" in others:
        raise LMACError(
            "interpreters: 'lmac' is the name of the model that --interpreter "
            f"names ({interpreter}), expected a name of its own"
        )
    return {"lmac": interpreter, **others}


def load_interpreters(sources, trusted=False, device="cpu"):
    """Models to compare, by name; all must explain one classifier.

    Arguments
    ---------
    sources : dict
        Name to a run's folder, exported folder or hub id; the first one is
        the one that the others must agree with.
    trusted : bool
        See `lmac_sb.inference.interpreter.LMACInterpreter.from_hparams`.
    device : str
        Where to put them.

    Returns
    -------
    dict
        Name to `lmac_sb.inference.interpreter.LMACInterpreter`.

    Raises
    ------
    LMACError
        If one cannot be loaded, or explains another classifier, other
        classes or another front end than the first; names both.
    """
    loaded = {}
    for name, source in sources.items():
        if "+" in name:
            raise LMACError(
                f"interpreters: '{name}', expected a name without a plus"
            )
        loaded[name] = load_interpreter(source, trusted)
        loaded[name].to(device)
        loaded[name].device = device
    first, *others = loaded
    wanted = _identity(loaded[first])
    for name in others:
        for what, value in _identity(loaded[name]).items():
            if value != wanted[what]:
                raise LMACError(
                    f"interpreters: {sources[name]} has another {what} "
                    f"({value}) than {sources[first]} ({wanted[what]})"
                )
    return loaded


def _identity(interpreter):
    """What two interpreters of one classifier have in common."""
    features = interpreter.explainer.features
    return {
        "sample_rate": features.sample_rate,
        "hop length in samples": features.hop_samples,
        "number of bins": features.n_bins,
        "n_mels": getattr(features, "n_mels", None),  # None of sound itself
        "signal length in samples": interpreter.preprocess.n_samples,
        "list of classes": interpreter.classes,
        "classifier": weights_sha256(interpreter.explainer.classifier),
    }


def models_identity(loaded, sources):
    """The models as a part of what a run is.

    Arguments
    ---------
    loaded : dict
        From `load_interpreters`.
    sources : dict
        Where they came from, by the same names.

    Returns
    -------
    dict
        See `lmac_sb.training.identity.weights_identity`.
    """
    explainers = [x.explainer for x in loaded.values()]
    return weights_identity(
        ", ".join(f"{name}: {source}" for name, source in sources.items()),
        *(explainer.classifier for explainer in explainers),
        *(explainer.decoder for explainer in explainers),
    )


def load_clips(manifest_folder, split, interpreter, source):
    """Clips of a split, as a model wants them.

    Arguments
    ---------
    manifest_folder : str or Path
        Written by the data preparation.
    split : str
        Name of a manifest in it.
    interpreter : lmac_sb.inference.interpreter.LMACInterpreter
        The model.
    source : str or Path
        Where it comes from, for messages.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        With events where they are known.

    Raises
    ------
    LMACError
        If the model does not know a class.
    """
    label_encoder = interpreter.hparams.label_encoder
    check_labels(manifest_folder, label_encoder, source)
    return make_dataset(
        Path(manifest_folder) / f"{split}.jsonl",
        interpreter.preprocess,
        label_encoder,
        events=True,
    )


def load_second_classifier(
    folder, modules, frontend, classes, cache_folder, device="cpu"
):
    """A second classifier as a function of waveforms.

    Arguments
    ---------
    folder : str or Path
        What train_classifier.py wrote as model_folder.
    modules : dict
        ``features``, and ``embedding_model`` and ``classifier``, whose weights
        are loaded.
    frontend : dict
        The settings of the features, see
        `lmac_sb.training.experiment.frontend`; ``multilabel`` too, if the
        explained classifier decides each class on its own.
    classes : list of str
        Classes of the explained classifier.
    cache_folder : str or Path
        Where files of a hub repository are kept.
    device : str
        Where to put it.

    Returns
    -------
    callable
        Waveforms [batch, samples] to logits [batch, classes].

    Raises
    ------
    LMACError
        If it cannot be loaded, decides in another way than the explained
        classifier, or has another front end or other classes.
    """
    encoder = CategoricalEncoder()
    parts = {k: v for k, v in modules.items() if k != "features"}
    config = load_classifier(
        folder, parts, encoder, cache_folder, key="judge_folder"
    )
    check_frontend(config.get("frontend", {}), frontend, folder)
    check_multilabel(config, frontend.get("multilabel", False), folder)
    names = [encoder.ind2lab[c] for c in range(len(encoder))]
    if names != list(classes):
        raise LMACError(
            f"judge_folder: {folder} knows the classes {', '.join(names)}, the "
            f"explained classifier {', '.join(classes)}"
        )
    for module in modules.values():
        module.to(device).requires_grad_(False).eval()

    @torch.no_grad()
    def classify(wavs):
        """Logits of waveforms."""
        features = modules["features"]
        mel = features.mel(features.magnitude(features.stft(wavs)))
        return modules["classifier"](embed(modules["embedding_model"], mel))

    return classify
