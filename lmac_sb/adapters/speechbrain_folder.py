"""A classifier's folder in the format of SpeechBrain, as a `Listener`."""

import copy
from pathlib import Path

import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.inference.interfaces import Pretrained
from speechbrain.lobes.features import MFCC, Fbank, Leaf
from speechbrain.nnet.activations import Softmax
from speechbrain.processing.features import InputNormalization

from lmac_sb.adapters.speechbrain_modules import (
    Encoded,
    Normalized,
    Spectra,
    without_noise,
)
from lmac_sb.adapters.speechbrain_weights import load_parts
from lmac_sb.listener.listener import Listener
from lmac_sb.models.source import HPARAMS, local_folder, read_hparams
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.given import read_given
from lmac_sb.utils.io import first_line
from lmac_sb.utils.yaml_safety import compose_bounded

__all__ = ["Normalized", "load_speechbrain"]

# Names of the parts, those of SpeechBrain's interfaces first; and the classes
# by which a part of another name is told, if there is one of them.
NAMES = {
    "features": ("compute_features", "features", "feature_extractor", "fbank"),
    "normalizer": ("mean_var_norm", "normalizer", "normalize", "input_norm"),
    "embedding": ("embedding_model", "encoder", "embedder", "xvector"),
    "head": ("classifier", "output_mlp", "out_mlp", "head", "output"),
}
CLASSES = {
    "features": (Fbank, MFCC, Leaf),
    "normalizer": (InputNormalization,),
}
# What may stand beside a network, and is none.
NO_NETWORKS = (
    InputNormalization,
    Softmax,
    torch.nn.LogSoftmax,
    torch.nn.Softmax,
)
# Of interfaces that do other things than name a clip, or do it in a file of
# their own.
OTHERS = {
    "asr",
    "decoder",
    "enhance_model",
    "generator",
    "lm",
    "masknet",
    "vad",
    "wav2vec2",
    "whisper",
}
LABELS = "label_encoder"
_HIGHEST = 768_000  # Hz
# What of a yaml is looked at by its name; see `_find_parts`.
NEEDED = (
    "modules",
    "pretrainer",
    "compute_stft",
    "compute_fbank",
    "audio_normalizer",
    LABELS,
    *(name for names in NAMES.values() for name in names),
)


def load_speechbrain(
    source, trusted=False, savedir=None, output="logits", sample_rate=None
):
    """A classifier that SpeechBrain's `from_hparams` loads, as a `Listener`.

    Its output is that of `EncoderClassifier.classify_batch` (or of
    `AudioClassifier`) for clips without padding: log-probabilities if the
    classifier ends in a log-softmax, cosines if it is the one of ECAPA-TDNN.
    The decision is the largest in both.

    Weights, statistics of the normaliser and names of the classes are read
    from the files beside the yaml, whatever place the yaml gives for them.

    Arguments
    ---------
    source : str, Path or speechbrain.inference.interfaces.Pretrained
        A folder with a ``hyperparams.yaml``, a yaml of another name in such a
        folder, the id of a hub repository, or an interface that SpeechBrain
        has loaded.
    trusted : bool
        Whether the yaml may make any object and call any function, and use
        files outside its folder.
    savedir : str or Path
        Folder for what comes from a hub, with one sub-folder for each
        repository; by default the hub's cache.
    output : str
        ``logits``, or ``embedding``: what `encode_batch` returns, for a score
        such as the cosine to the embedding of a reference voice. That needs
        neither classifier nor names.
    sample_rate : int
        Rate in Hz of the waveforms; only for a folder that gives none, or two.

    Returns
    -------
    Listener
        In evaluation mode, without gradients of the weights. Its `front_end`
        is ``Sequential(compute_features, Normalized(mean_var_norm))``.

    Raises
    ------
    LMACError
        If there is no such folder, repository or yaml, the yaml asks for what
        is not allowed, the folder is of another interface, weights are missing
        or do not fit, or names, outputs and rates disagree.

    Example
    -------
    >>> load_speechbrain("./nowhere")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: ./nowhere: no such folder, expected a model
    """
    if output not in ("logits", "embedding"):
        raise LMACError(
            f"output: found {output!r}, expected 'logits' or 'embedding'"
        )
    if isinstance(source, Pretrained):
        path = type(source).__name__
        source = copy.deepcopy(source)
        hparams = {**vars(source.hparams), "modules": dict(source.mods.items())}
        parts = _find_parts(hparams, path, output)
    else:
        path = _yaml_of(source, savedir)
        hparams = _read(path, trusted)
        parts = _find_parts(hparams, path, output)
        load_parts(hparams, path, dict(parts.values()), trusted)
    items = {role: item for role, (_, item) in parts.items()}
    front_end = _front_end(items, hparams, path)
    model = Encoded(
        items.get("embedding"), items.get("head"), lengths="stft" not in items
    )
    for part in (front_end, model):
        without_noise(part.eval().requires_grad_(False))
    rate = _sample_rate(parts, hparams, path, sample_rate)
    labels = _labels(items.get("labels"), path)
    _check_outputs(model, front_end, rate, labels, path)
    return Listener(
        model, rate, labels=labels, front_end=front_end, scale="logits"
    )


# ---------------------------------------------------------------- the folder


def _yaml_of(source, savedir):
    """Path of the yaml in a folder or repository."""
    path = Path(source)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    if savedir is not None:
        savedir = Path(savedir) / str(source).replace("/", "--")
    path = local_folder(source, savedir) / HPARAMS
    if not path.is_file():
        others = sorted(x.name for x in path.parent.glob("*.y*ml"))
        hint = (
            f"; give one of {', '.join(others)} by its path" if others else ""
        )
        raise LMACError(
            f"{path}: no such file, expected the folder of a SpeechBrain "
            f"classifier{hint}"
        )
    return path


def _read(path, trusted):
    """Objects of the yaml; another interface is named as the reason first."""
    try:
        return read_hparams(path, trusted, NEEDED)
    except LMACError:
        names = _module_names(path)
        if names is not None:
            _check_interface(names, path)
        raise


def _module_names(path):
    """Keys under `modules`, read as text; None if there are none to read."""
    try:
        root = compose_bounded(read_given(path), path)
        (modules,) = (v for k, v in root.value if k.value == "modules")
        return [key.value for key, _ in modules.value]
    except Exception:
        # Not yaml, or of another form: the error that led here says more.
        return None


# ------------------------------------------------------------------ its parts


def _check_interface(names, path):
    """Refuse the modules of what is no classifier of whole clips."""
    if "explainer" in names:
        name = path.parent if isinstance(path, Path) else path
        raise LMACError(
            f"{name}: has a decoder already, expected a classifier without "
            "one; it explains as it is, by LMACInterpreter.from_hparams or "
            "lmac explain --model"
        )
    other = sorted(OTHERS.intersection(names))
    if other and not {"embedding_model", "classifier"}.issubset(names):
        raise _no_classifier(names, path, f"'{other[0]}' among the modules")


def _no_classifier(names, path, found):
    """The error for a folder of another kind."""
    return LMACError(
        f"{path}: found {found} ({', '.join(map(str, names)) or 'none'}), "
        "expected compute_features, mean_var_norm, embedding_model and "
        "classifier, as EncoderClassifier, or compute_stft, embedding_model "
        "and classifier, as AudioClassifier; if it has an interface of its "
        "own, load that and give a module from waveforms to logits"
    )


def _find_parts(hparams, path, output):
    """What the classifier is made of.

    Returns
    -------
    dict
        Role to the key in the yaml and the object. ``stft`` and ``fbank``, or
        ``features`` and ``normalizer``; ``embedding``, ``head``, ``labels``.
        What there is none of is left out.
    """
    modules = _only_modules(hparams["modules"])
    _check_interface(list(modules), path)
    known = {**_only_modules(hparams), **modules}
    parts = {}
    if "compute_stft" in known and "compute_features" not in known:
        parts["stft"] = ("compute_stft", known["compute_stft"])
        if hparams.get("use_melspectra", "compute_fbank" in known):
            _take(parts, "fbank", ["compute_fbank"], known)
    else:
        for role in ("features", "normalizer"):
            _take(parts, role, NAMES[role], known)
            _take_the_only_one(parts, role, modules, CLASSES[role])
    if "features" not in parts and "stft" not in parts:
        raise _no_classifier(modules, path, "no features")
    for role in ("embedding", "head"):
        _take(parts, role, NAMES[role], known)
    _take_what_is_left(parts, modules)
    if output == "embedding":
        parts.pop("head", None)
        if "embedding" not in parts:
            raise _no_classifier(modules, path, "no embedding_model")
        return parts
    if "head" not in parts:
        raise _no_classifier(
            modules,
            path,
            "no classifier (for the embedding: output='embedding')",
        )
    return _with_label_encoder(parts, hparams, path)


def _only_modules(values):
    """The modules among values by key."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, torch.nn.Module)
    }


def _take(parts, role, names, known):
    """Give a role to the first of these names that there is."""
    taken = {key for key, _ in parts.values()}
    for name in names:
        if role not in parts and name in known and name not in taken:
            parts[role] = (name, known[name])


def _take_the_only_one(parts, role, modules, kinds):
    """Give a role to the only module of these classes, if it is open."""
    found = [key for key, item in modules.items() if isinstance(item, kinds)]
    if role not in parts and len(found) == 1:
        parts[role] = (found[0], modules[found[0]])


def _take_what_is_left(parts, modules):
    """Give the open ones of embedding and head to what is left, in order."""
    taken = {key for key, _ in parts.values()}
    left = [
        key
        for key, item in modules.items()
        if key not in taken and not isinstance(item, NO_NETWORKS)
    ]
    roles = [role for role in ("embedding", "head") if role not in parts]
    if len(left) == len(roles):
        for role, key in zip(roles, left):
            parts[role] = (key, modules[key])


def _with_label_encoder(parts, hparams, path):
    """Add the label encoder: of the yaml, or for a file without one there."""
    values = dict(hparams)
    if hasattr(hparams.get("pretrainer"), "loadables"):
        values.update(hparams["pretrainer"].loadables)
    for key in ("label_encoder", *values):
        if isinstance(values.get(key), CategoricalEncoder):
            return {**parts, "labels": (key, values[key])}
    if isinstance(path, Path) and (path.parent / f"{LABELS}.txt").is_file():
        return {**parts, "labels": (LABELS, CategoricalEncoder())}
    return parts


# --------------------------------------------------------------- the listener


def _front_end(items, hparams, path):
    """The module from waveforms to the embedding model's input."""
    if "stft" in items:
        power = hparams.get("spec_mag_power")
        if not isinstance(power, (int, float)):
            raise LMACError(
                f"{path}: spec_mag_power: found {power!r}, expected the power "
                "of the spectra that AudioClassifier uses"
            )
        return Spectra(items["stft"], items.get("fbank"), power)
    steps = [items["features"]]
    if "normalizer" in items:
        steps.append(Normalized(items["normalizer"]))
    return torch.nn.Sequential(*steps)


def _sample_rate(parts, hparams, path, given):
    """The one rate that features, normaliser of sounds and yaml speak of."""
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise LMACError(
                f"sample_rate: found {given!r}, expected a whole number of Hz"
            )
        return given
    rates = {}
    for role in ("stft", "fbank", "features"):
        if role in parts:
            key, item = parts[role]
            for part in item.modules():
                rate = getattr(part, "sample_rate", None)
                if isinstance(rate, (int, float)):
                    rates.setdefault(int(rate), key)
    audio = hparams.get("audio_normalizer")
    for key, rate in (
        ("audio_normalizer", getattr(audio, "sample_rate", None)),
        ("sample_rate", hparams.get("sample_rate")),
    ):
        if isinstance(rate, (int, float)):
            rates.setdefault(int(rate), key)
    if len(rates) == 1 and 0 < min(rates) <= _HIGHEST:
        return min(rates)
    found = " and ".join(f"{rate} Hz by {key}" for rate, key in rates.items())
    raise LMACError(
        f"{path}: found {found or 'no sample rate'}, expected one of at "
        f"most {_HIGHEST} Hz; say which it hears by sample_rate="
    )


def _labels(encoder, path):
    """Names of the classes in the order of their numbers, None without any."""
    if encoder is None:
        return None
    if set(encoder.ind2lab) != set(range(len(encoder))):
        raise LMACError(
            f"{path}: label_encoder: found the numbers "
            f"{min(encoder.ind2lab)} to {max(encoder.ind2lab)} for "
            f"{len(encoder)} names, expected 0 to {len(encoder) - 1}"
        )
    return [str(encoder.ind2lab[i]) for i in range(len(encoder))]


def _check_outputs(model, front_end, sample_rate, labels, path):
    """Call it once, on a second of noise: the parts fit, and so do the names.

    Raises
    ------
    LMACError
        If they do not.
    """
    generator = torch.Generator().manual_seed(0)
    wavs = torch.randn(2, sample_rate, generator=generator) / 10
    try:
        with torch.no_grad():
            outputs = model(front_end(wavs))
    except Exception as error:
        # Modules of anyone, put together by us: anything can be raised.
        raise LMACError(
            f"{path}: its modules do not fit together "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2:
        raise LMACError(
            f"{path}: found outputs "
            f"{list(getattr(outputs, 'shape', [])) or type(outputs).__name__} "
            "for two clips, expected [2, classes]"
        )
    if labels is not None and len(labels) != outputs.shape[1]:
        raise LMACError(
            f"{path}: found {len(labels)} names in label_encoder for "
            f"{outputs.shape[1]} outputs of the classifier, expected as many"
        )
