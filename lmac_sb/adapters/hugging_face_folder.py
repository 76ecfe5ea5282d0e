"""Read the model and the feature extractor of a folder or hub repository."""

import functools
import re
from pathlib import Path

import torch

from lmac_sb.models.source import is_local, why_not_fetched
from lmac_sb.models.weights import check_unread, check_values
from lmac_sb.utils.errors import LMACError, shown
from lmac_sb.utils.given import check_file, show_size
from lmac_sb.utils.io import first_line, read_json

__all__ = ["read_hugging_face"]

_WEIGHTS = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
]
_EXTRACTOR = ["preprocessor_config.json", "processor_config.json"]
# Of a model's class: which loader of transformers makes it.
_LOADERS = {
    "AudioFrameClassification": "AUDIO_FRAME_CLASSIFICATION",
    "XVector": "AUDIO_XVECTOR",
    "": "AUDIO_CLASSIFICATION",
}
_AUTO = {
    "AUDIO_FRAME_CLASSIFICATION": "AutoModelForAudioFrameClassification",
    "AUDIO_XVECTOR": "AutoModelForAudioXVector",
    "AUDIO_CLASSIFICATION": "AutoModelForAudioClassification",
}
_LAYERS = re.compile("layers|blocks|depths?$|stages")
_BANDS = re.compile("mel|fft|feature_size|window_size")
# What a setting may be, by its name.
_MOST = ((_LAYERS, 200), (_BANDS, 1 << 16), (re.compile(""), 10**7))
_SLACK = 64 << 20  # bytes of a model that no file holds
# Not used in evaluation, so that a folder may lack it.
_UNUSED = "masked_spec_embed"


def read_hugging_face(source, revision=None, trusted=False):
    """Read an audio classifier of transformers and its feature extractor.

    Arguments
    ---------
    source : str or Path
        Folder or hub id, see `lmac_sb.adapters.hugging_face`.
    revision : str
        Branch, tag or commit of the hub repository.
    trusted : bool
        Whether code that lies beside the weights may be run.

    Returns
    -------
    model : transformers.PreTrainedModel
        In float32 and evaluation mode.
    extractor : transformers.FeatureExtractionMixin
        What its owner calls before it.

    Raises
    ------
    LMACError
        See `lmac_sb.adapters.hugging_face.load_hugging_face`.
    """
    source, revision = _locate(source, revision)
    local = not trusted and Path(source).is_dir()
    size = _check_folder(Path(source)) if local else None
    transformers = _import_transformers()
    read = functools.partial(
        _read, source, revision=revision, trust_remote_code=trusted
    )
    config = read("config.json", transformers.AutoConfig)
    auto = _loader(transformers, source, config)
    extractor = read(_EXTRACTOR[0], transformers.AutoFeatureExtractor)
    keywords = {}
    attention = getattr(config, "_attn_implementation", None)
    if attention not in (None, "eager", "sdpa"):
        # Others need a package, a GPU or half precision; what they name may
        # also be a hub repository, whose code transformers would run.
        keywords["attn_implementation"] = "eager"
    if local:
        _check_size(
            source,
            size,
            functools.partial(auto.from_config, config, **keywords),
        )
    # Weights of another shape are refused below, in words of one line.
    model, found = read(
        _WEIGHTS[0],
        auto,
        config=config,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **keywords,
    )
    _check_weights(source, config, model, found)
    return model.float().eval(), extractor


def _import_transformers():
    """The package, which only these models need."""
    try:
        import transformers
    except ImportError as error:
        raise LMACError(
            "transformers: not installed, needed for models of Hugging Face; "
            'pip install "lmac-sb[huggingface]"'
        ) from error
    return transformers


def _locate(source, revision):
    """Source as transformers takes it, and its revision; check a folder."""
    text = str(source)
    if not Path(source).expanduser().exists() and "@" in text:
        text, _, named = text.partition("@")
        if revision not in (None, named):
            raise LMACError(
                f"{source}: names another revision than revision={revision}"
            )
        revision = named
    if not is_local(text):
        return text, revision
    folder = Path(text).expanduser()
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise LMACError(
            f"{source}: {found}, expected a folder written by "
            "save_pretrained, or the id of a hub repository, name/repository"
        )
    for names in (["config.json"], _EXTRACTOR, _WEIGHTS):
        paths = [folder / name for name in names]
        present = [path for path in paths if path.is_file()]
        if not present:
            or_other = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise LMACError(
                f"{paths[0]}: no such file{or_other}, expected a folder "
                "written by save_pretrained of the model and of its feature "
                "extractor"
            )
        if present[0].suffix == ".json":
            read_json(present[0])
    return str(folder), revision


def _check_folder(folder):
    """Refuse files and settings that would make too much work.

    Returns
    -------
    int
        Bytes of the weights.
    """
    for name in ("config.json", *_EXTRACTOR):
        if (folder / name).exists():
            check_file(folder / name, folder=folder)
            _check_numbers(read_json(folder / name), folder / name)
    found = [name for name in _WEIGHTS if (folder / name).exists()]
    names = found[:1]
    if names[0].endswith(".json"):
        index = read_json(folder / names[0])
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict):
            raise LMACError(f"{folder / names[0]}: holds no weight_map")
        names = sorted({str(shard) for shard in shards.values()})
    size = 0
    for name in names:
        if "/" in name or "\\" in name:
            raise LMACError(f"{folder}: {shown(name)} leads out of the folder")
        check_file(folder / name, folder=folder)
        try:
            size += check_unread(folder / name)
        except LMACError as error:
            raise LMACError(
                f"{folder / _WEIGHTS[0]}: cannot be loaded ({error})"
            ) from error
    return size


def _check_numbers(content, path, key=""):
    """Refuse a number of layers, bands or anything else that is too large."""
    if isinstance(content, dict):
        for name, value in content.items():
            _check_numbers(value, path, str(name))
    elif isinstance(content, list):
        for value in content:
            _check_numbers(value, path, key)
    elif isinstance(content, int):
        most = next(most for kind, most in _MOST if kind.search(key))
        if abs(content) > most:
            raise LMACError(
                f"{path}: {shown(key)} is {shown(content)}, expected at most "
                f"{most}"
            )


def _check_size(source, size, make):
    """Refuse a model that is much larger than the weights in its folder."""
    try:
        with torch.device("meta"):
            model = make()
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise LMACError(
            f"{Path(source) / 'config.json'}: cannot be loaded ({reason})"
        ) from error
    needed = sum(x.nbytes for x in model.state_dict().values())
    # Weights may be of half precision.
    if needed > 4 * size + _SLACK:
        raise LMACError(
            f"{Path(source) / 'config.json'}: asks for a model of "
            f"{show_size(needed)}, but the weights hold {show_size(size)}"
        )


def _read(source, name, auto, **keywords):
    """Object that transformers makes of a file; one line if it cannot."""
    try:
        return auto.from_pretrained(source, **keywords)
    except Exception as error:
        # They raise OSError, ValueError, KeyError, RuntimeError and those of
        # safetensors, json and the hub.
        reason = f"{type(error).__name__}: {first_line(error)}"
        if "trust_remote_code" in str(error):
            raise LMACError(
                f"{source}: {name} names code of its own, which may do "
                "anything; pass trusted=True if you trust it"
            ) from error
        if Path(source).is_dir():
            raise LMACError(
                f"{Path(source) / name}: cannot be loaded ({reason})"
            ) from error
        raise LMACError(
            f"{source}: not a local folder, and {name} cannot be fetched "
            f"from a hub ({why_not_fetched(error)})"
        ) from error


def _loader(transformers, source, config):
    """Class of transformers that makes the model which a folder holds."""
    names = getattr(config, "architectures", None) or [""]
    kind = next(k for end, k in _LOADERS.items() if names[0].endswith(end))
    auto = getattr(transformers, _AUTO[kind])
    known = getattr(transformers, f"MODEL_FOR_{kind}_MAPPING")
    code = getattr(config, "auto_map", None) or {}
    if type(config) not in known and _AUTO[kind] not in code:
        raise LMACError(
            f"{source}: found {names[0] or config.model_type}, expected an "
            "audio classifier of transformers ("
            f"{', '.join(sorted(k.model_type for k in known.keys()))})"
        )
    if getattr(config, "quantization_config", None):
        raise LMACError(
            f"{source}: found quantised weights, expected those of the "
            "float model, since others pass no exact gradient"
        )
    return auto


def _check_weights(source, config, model, found):
    """Refuse weights of which a part is random, or not finite."""
    for key, here, expected in sorted(found["mismatched_keys"]):
        raise LMACError(
            f"{source}: found '{key}' of shape {list(here)} in the weights, "
            f"expected {list(expected)} by config.json (where id2label tells "
            "the number of classes)"
        )
    missing = [key for key in found["missing_keys"] if _UNUSED not in str(key)]
    if missing:
        names = getattr(config, "architectures", None) or ["another model"]
        raise LMACError(
            f"{source}: the weights of {names[0]} hold no "
            f"{shown(sorted(map(str, missing))[0])} for "
            f"{type(model).__name__}, expected a trained classifier "
            "(explanations of a random one mean nothing)"
        )
    check_values(model.state_dict(), source)
