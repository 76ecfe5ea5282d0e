"""An interpreter in a folder, with the user's classifier by reference.

Such a folder holds ``classifier.json`` (where the classifier lies, how it is
listened to, which layers are read), ``hyperparams.yaml`` and, if one was
trained, ``decoder.safetensors`` (how it is explained), and ``SHA256SUMS``.
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lmac_sb
from lmac_sb.adapters.layered import LayeredClassifier
from lmac_sb.adapters.layers import Layer, layer_modules
from lmac_sb.adapters.named import is_named
from lmac_sb.adapters.source import as_listener
from lmac_sb.inference.adopt import ADOPTED, adopt, tried
from lmac_sb.inference.bundle import check_work
from lmac_sb.inference.reference import (
    call_import_path,
    find_referred,
    is_import_path,
    refer_to,
)
from lmac_sb.listener.listener import Listener
from lmac_sb.listener.windows import Windows
from lmac_sb.lmac.explainer import Explainer
from lmac_sb.lmac.refine import Refiner
from lmac_sb.models.decoder import LevelDecoder, MaskDecoder
from lmac_sb.models.sound import SoundFeatures
from lmac_sb.models.source import HPARAMS, load_yaml
from lmac_sb.models.weights import load_strict, write_weights
from lmac_sb.utils.checksums import read_sums, write_sums
from lmac_sb.utils.errors import LMACError, kind_of, shown
from lmac_sb.utils.io import (
    as_path,
    first_line,
    folder_in_one_step,
    is_free,
    read_json,
    write_json,
)
from lmac_sb.utils.near import nearest

__all__ = [
    "CLASSIFIER",
    "Origin",
    "load_saved",
    "refuse_options",
    "save_interpreter",
    "shipped_decoder",
    "shipped_model",
]

CLASSIFIER = "classifier.json"
_SHIPPED = Path(__file__).with_name("shipped")  # a folder for each name
_WEIGHTS = "decoder.safetensors"
_KEYS = ("decoder", "refiner", "refine_steps", "mask_domain")
# What values of other kinds than were saved lead to.
_WRONG = (
    *(AttributeError, KeyError, IndexError, TypeError, ValueError),
    *(OverflowError, RuntimeError),
)
_NEAR = 1e-2  # of answers to one sound, as a share of their spread

_YAML = """\
# How a classifier is explained, for lmac_sb.LMACInterpreter.from_hparams; the
# classifier itself lies where classifier.json says. Written by its `save`.

decoder: !new:lmac_sb.models.decoder.{decoder}

loss: !new:lmac_sb.lmac.losses.LMACLoss
{loss}

refiner: !new:lmac_sb.lmac.refine.Refiner
    loss: !ref <loss>
{refiner}

refine_steps: {steps}
second_look: {look}
mask_domain: {domain}
"""


@dataclasses.dataclass
class Origin:
    """What `LMACInterpreter.from_classifier` was called with.

    Arguments
    ---------
    model : object
        The user's model, or where it comes from.
    arguments : dict
        All others that are not None, by name.

    Example
    -------
    >>> Origin("./model", {"sample_rate": 16000}).arguments["sample_rate"]
    16000
    """

    model: Any
    arguments: dict[str, Any]

    def called(self, trusted: bool) -> dict[str, Any]:
        """All arguments, after a function of the user was called.

        Arguments
        ---------
        trusted : bool
            Whether code of the user may run.

        Returns
        -------
        dict
            With the key ``model``.
        """
        arguments = {"model": self.model, **self.arguments}
        if is_import_path(self.model):
            returned = call_import_path(self.model, trusted)
            arguments = {**arguments, **returned, **self.arguments}
        return arguments

    def adopted(self, arguments: dict[str, Any]) -> tuple[Any, Any, Any]:
        """What `adopt` makes of it.

        Arguments
        ---------
        arguments : dict
            From `called`.

        Returns
        -------
        tuple
            As of `lmac_sb.inference.adopt.adopt`; ``origin`` is added to the
            hparams.
        """
        how = {
            name: value
            for name, value in arguments.items()
            if name in ("sound", *ADOPTED)
        }
        arguments = {k: v for k, v in arguments.items() if k not in how}
        if not is_named(arguments["model"]):  # its loader has more of them
            _check_options(arguments)
        modules, hparams, run_opts = adopt(as_listener(**arguments), **how)
        hparams["origin"] = self
        return modules, hparams, run_opts


def _check_options(arguments: dict[str, Any]) -> None:
    """Refuse what is no option of `from_classifier`, naming all that are."""
    known = {"sound", *ADOPTED}
    for function in (as_listener, Listener):
        known.update(inspect.signature(function).parameters)
    known -= {"options"}
    unknown = min(set(arguments) - known, default=None)
    if unknown is None:
        return
    # Listed are the names that `from_classifier` has for them.
    listed = sorted(known - {"model", "front_end"})
    near = nearest(unknown, listed)
    hint = "" if near is None else f"did you mean '{near}'? "
    raise LMACError(
        f"{unknown}: no such option; {hint}expected one of {', '.join(listed)}"
    )


def save_interpreter(
    interpreter: Any, folder: str | Path, model: str | Path | None = None
) -> Path:
    """Write a folder, see `lmac_sb.LMACInterpreter.save`.

    Arguments
    ---------
    interpreter : lmac_sb.LMACInterpreter
        From `from_classifier`, or `lmac_sb.fit`.
    folder : str or Path
        Must not exist yet, or be empty, or hold such an interpreter.
    model : str or Path
        Where the classifier comes from, if it was given as an object.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    LMACError
        If it is not known where the classifier comes from, what lies there
        answers otherwise, or an option cannot be saved.
    """
    folder = as_path("folder", folder)
    if not is_free(folder) and not (folder / CLASSIFIER).is_file():
        raise LMACError(f"{folder}: already exists; choose another folder")
    origin = getattr(interpreter.hparams, "origin", None)
    if origin is None:
        raise LMACError(
            "interpreter: found one that came with its classifier, expected "
            "one of from_classifier; its own folder can be copied"
        )
    given = model is not None
    reference = refer_to(model if given else origin.model, folder)
    by_function = reference["kind"] == "function"
    arguments = dict(origin.arguments)
    if given and not by_function:
        # A folder has its own; the answers are compared below.
        arguments.pop("features", None)
    arguments = _plain_arguments(arguments, by_function)
    explainer = interpreter.explainer
    facts = {
        "lmac_sb": lmac_sb.__version__,
        "model": reference,
        "arguments": arguments,
        "labels": interpreter.classes,
        "features": _settings_of(explainer.features),
        "answers": _answers(interpreter).tolist(),
        "layers": [
            dataclasses.asdict(layer)
            for layer in getattr(explainer.classifier, "layers", [])
        ],
        "relevance": getattr(explainer.classifier, "relevance", False),
    }
    if given:
        try:
            _compare(facts, folder, trusted=True)
        except LMACError as error:
            hint = _HINT if by_function else ""
            raise LMACError(f"{error}{hint}") from error
    with folder_in_one_step(folder, replace=True) as part:
        write_json(part / CLASSIFIER, facts)
        text = _yaml_of(explainer)
        (part / HPARAMS).write_text(text, encoding="utf-8")
        if explainer.decoder.state_dict():
            write_weights(part / _WEIGHTS, explainer.decoder)
        write_sums(part)
    return folder


def load_saved(
    folder: Path, trusted: bool, moved: Any = None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """What an interpreter in a folder is made of.

    Arguments
    ---------
    folder : Path
        Its checksums have been checked.
    trusted : bool
        Whether code of the user, or code that comes with the classifier, may
        run.
    moved : str or Path
        Where the classifier lies now, if not where it was.

    Returns
    -------
    tuple
        As of `lmac_sb.inference.adopt.adopt`.

    Raises
    ------
    LMACError
        If the classifier is gone, or another one, or a file is broken.
    """
    facts = _read_facts(folder / CLASSIFIER)
    values = _read_yaml(folder / HPARAMS)
    try:
        parts = _compare(facts, folder, trusted, moved)
        return _with_decoder(parts, folder, facts, values)
    except LMACError:
        raise
    except _WRONG as error:
        raise LMACError(
            f"{folder / CLASSIFIER}: {type(error).__name__}: "
            f"{first_line(error)}"
        ) from error


def shipped_decoder(
    name: str,
    modules: dict[str, Any],
    hparams: dict[str, Any],
    run_opts: dict[str, str],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """The same classifier with the decoder that comes with this package.

    Arguments
    ---------
    name : str
        Of the classifier, see `lmac_sb.adapters.named`.
    modules, hparams, run_opts : dict
        As of `lmac_sb.inference.adopt.adopt`, whatever its options.

    Returns
    -------
    tuple
        Of the same.

    Raises
    ------
    LMACError
        If there is no decoder for it.
    """
    folder = _SHIPPED / name
    if not (folder / CLASSIFIER).is_file():
        found = sorted(x.parent.name for x in _SHIPPED.glob(f"*/{CLASSIFIER}"))
        raise LMACError(
            f"decoder: found none for {name}, expected one of "
            f"{', '.join(found)}; lmac_sb.fit trains one"
        )
    facts = _read_facts(folder / CLASSIFIER)
    values = _read_yaml(folder / HPARAMS)
    return _with_decoder((modules, hparams, run_opts), folder, facts, values)


def shipped_model(name: str, options: dict[str, Any]) -> Path:
    """The folder of a model that comes with this package.

    Arguments
    ---------
    name : str
        Of the model, see `lmac_sb.adapters.named`.
    options : dict
        Those that were given, other than `run_opts` and `trusted`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    LMACError
        If there are options: the model is ready as it is.

    Example
    -------
    >>> shipped_model("esc10", {}).name
    'esc10'
    """
    refuse_options(options, name)
    return _SHIPPED / name


def refuse_options(options: dict[str, Any], source: str | Path) -> None:
    """Refuse options of `from_classifier` for a model that is made already.

    Arguments
    ---------
    options : dict
        Those that were given.
    source : str or Path
        The model.

    Raises
    ------
    LMACError
        If there are any; names one.

    Example
    -------
    >>> refuse_options({"pool": "max"}, "esc10")
    Traceback (most recent call last):
    ...
    lmac_sb.LMACError: pool: found 'max', but esc10 is made already; expected \
it of a classifier of others
    """
    for key, value in options.items():
        hint = "; the rate of samples is rate=" if key == "sample_rate" else ""
        raise LMACError(
            f"{key}: found {shown(value)}, but {source} is made already; "
            f"expected it of a classifier of others{hint}"
        )


def _with_decoder(
    parts: tuple[dict[str, Any], dict[str, Any], dict[str, str]],
    folder: Path,
    facts: dict[str, Any],
    values: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """A classifier with the decoder and the refiner of a folder."""
    modules, hparams, run_opts = parts
    layers = [Layer(**layer) for layer in facts["layers"]]
    adopted, decoder = modules["explainer"], values["decoder"]
    if _WEIGHTS in read_sums(folder):
        load_strict(decoder, folder / _WEIGHTS)
    elif decoder.state_dict():
        raise LMACError(f"{folder / _WEIGHTS}: no such file, expected weights")
    classifier = adopted.classifier
    if layers:
        known = layer_modules(hparams["listener"])
        for layer in layers:
            if layer.name not in known:
                raise LMACError(
                    f"{folder / CLASSIFIER}: the model has no layer "
                    f"'{layer.name}' any more"
                )
        classifier = LayeredClassifier(
            classifier.embedding_model,
            layers,
            classifier.multilabel,
            facts["relevance"],
        )
    explainer = Explainer(
        adopted.features,
        classifier,
        decoder,
        values["mask_domain"],
        values["refiner"],
        values["refine_steps"],
        values.get("second_look", False),
    )
    explainer.to(run_opts.get("device", "cpu"))
    return {"explainer": explainer}, hparams, run_opts


def _compare(
    facts: dict[str, Any], folder: Path, trusted: bool, moved: Any = None
) -> tuple[Any, Any, Any]:
    """Load the classifier, and refuse one that answers otherwise."""
    source = find_referred(facts["model"], folder, moved)
    origin = Origin(source, _listened(facts["arguments"]))
    kept = facts["features"]
    if kept["class"] == "SoundFeatures":
        origin.arguments["spectrogram"] = SoundFeatures(
            kept["sample_rate"], kept["n_fft"], kept["hop_samples"]
        )
    if not is_import_path(source):
        origin.arguments["trusted"] = trusted
    modules, hparams, run_opts = origin.adopted(origin.called(trusted))
    names = hparams["label_encoder"].ind2lab
    labels = [str(names[number]) for number in range(len(names))]
    features = _settings_of(modules["explainer"].features)
    for what, found, expected in (
        ("front end", features, kept),
        ("labels", labels, facts["labels"]),
    ):
        if found != expected:
            raise LMACError(
                f"{source}: its {what} is {_part(found, expected)}, expected "
                f"{_part(expected, found)}, that of the classifier in {folder}"
            )
    answers = _logits(hparams["listener"], hparams["preprocess"])
    expected = torch.tensor(facts["answers"]).to(answers)
    spread = (expected.amax() - expected.amin()).clamp(min=1e-3)
    error = (answers - expected).abs().amax()
    if not error <= _NEAR * spread:
        raise LMACError(
            f"{source}: is not the classifier of {folder}: its outputs on one "
            f"noise differ by up to {float(error):.3g}, of a spread of "
            f"{float(spread):.3g}; make the interpreter again from this one"
        )
    return modules, hparams, run_opts


_HINT = (
    "; the function has to return what from_classifier was given: the model, "
    "or a dict of its arguments, such as dict(model=..., features=...)"
)


def _part(one: Any, two: Any) -> Any:
    """What of one differs from two."""
    if isinstance(one, dict):
        return {k: v for k, v in one.items() if two.get(k) != v}
    return one


def _answers(interpreter: Any) -> Tensor:
    """The classifier's logits on a noise, [classes]."""
    return _logits(interpreter.listener, interpreter.preprocess)


@torch.no_grad()
def _logits(listener: Any, preprocess: Any) -> Tensor:
    """A listener's logits on a noise, [classes]."""
    wavs = tried(listener, None, preprocess)
    with listener.all_times():
        return listener(wavs)[0].detach().cpu().float()


def _settings_of(features: Any) -> dict[str, Any]:
    """The spectrogram that masks act on, in plain values."""
    names = ("sample_rate", "n_fft", "hop_samples", "n_bins")
    settings = {name: int(getattr(features, name)) for name in names}
    return {"class": type(features).__name__, **settings}


def _plain_arguments(
    arguments: dict[str, Any], by_function: bool
) -> dict[str, Any]:
    """Arguments as JSON holds them."""
    plain = {}
    for name, value in arguments.items():
        if name in ("sound", "own", "spectrogram", "trusted"):
            continue  # the spectrogram is saved with the features
        if isinstance(value, Windows):
            value = {"windows": dataclasses.asdict(value)}
        if isinstance(value, (np.ndarray, np.generic)):
            value = value.tolist()
        if _is_plain(value):
            plain[name] = value
        elif not by_function:
            raise LMACError(
                f"{name}: found {kind_of(value)}, which cannot be "
                "saved, expected a function that returns it: "
                'save(folder, model="package.module:function"), which gives '
                f"dict(model=..., {name}=...)"
            )
    return plain


def _is_plain(value: Any) -> bool:
    """Whether JSON holds a value."""
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    return value is None or isinstance(value, (str, int, float, bool))


def _listened(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments from what JSON holds."""
    found = dict(arguments)
    if isinstance(found.get("windows"), dict):
        found["windows"] = Windows(**found["windows"]["windows"])
    if isinstance(found.get("at"), list):
        found["at"] = tuple(found["at"])
    return found


def _yaml_of(explainer: Explainer) -> str:
    """The yaml of decoder and refiner."""
    refiner: Any = explainer.refiner
    loss, decoder = vars(refiner.loss), explainer.decoder
    steps = {k: v for k, v in vars(refiner).items() if k != "loss"}
    if isinstance(decoder, LevelDecoder):
        values = {"offset": decoder.offset, "gain": decoder.gain}
    elif isinstance(decoder, MaskDecoder):
        values = {
            "latent_channels": [p[1].in_channels for p in decoder.project],
            "n_mels": decoder.n_mels,
            "n_fft": explainer.features.n_fft,
            "sample_rate": explainer.features.sample_rate,
            "width": decoder.coefficients.in_channels,
            "n_mix": len(decoder.fine),
            "spectrogram": decoder.patches is not None,
            "standard": decoder.standard,
            "f_min": decoder.f_min,
            "f_max": decoder.f_max,
            "depthwise": decoder.depthwise,
        }
    else:
        raise LMACError(
            f"decoder: found {kind_of(decoder)}, expected the one "
            "that lmac_sb.fit trains"
        )
    return _YAML.format(
        decoder=f"{type(decoder).__name__}\n{_block(values)}",
        loss=_block(loss),
        refiner=_block(steps),
        steps=explainer.refine_steps,
        look=explainer.second_look,
        domain=explainer.mask_domain,
    )


def _block(values: dict[str, Any]) -> str:
    """Lines of yaml of plain values."""
    return "\n".join(f"    {name}: {value}" for name, value in values.items())


def _read_yaml(path: Path) -> dict[str, Any]:
    """Decoder, refiner and settings, without weights."""
    values = load_yaml(path, needed=_KEYS)
    for key in _KEYS:
        if key not in values:
            raise LMACError(f"{path}: key '{key}' is missing")
    for key, kind in (("decoder", torch.nn.Module), ("refiner", Refiner)):
        if not isinstance(values[key], kind):
            raise LMACError(
                f"{path}: {key} is {kind_of(values[key])}, expected a "
                f"{kind.__name__}"
            )
    check_work({"refine_steps": values["refine_steps"]}, path)
    return values


def _read_facts(path: Path) -> dict[str, Any]:
    """Content of ``classifier.json``, checked."""
    facts = read_json(path)
    kinds = {
        "model": dict,
        "arguments": dict,
        "labels": list,
        "features": dict,
        "answers": list,
        "layers": list,
        "relevance": bool,
    }
    for key, kind in kinds.items():
        if not isinstance(facts, dict) or not isinstance(facts.get(key), kind):
            raise LMACError(
                f"{path}: key '{key}' is missing or no {kind.__name__}"
            )
    check_work(_work_of(facts["arguments"], facts["features"]), path)
    return facts


def _work_of(
    arguments: dict[str, Any], features: dict[str, Any]
) -> dict[str, Any]:
    """What makes an explanation long, see `check_work`."""
    windows = arguments.get("windows")
    if isinstance(windows, dict):
        windows = windows.get("windows")
    windows = windows if isinstance(windows, dict) else {}
    size, hop = windows.get("size"), windows.get("hop")
    overlaps = isinstance(size, int) and isinstance(hop, int) and hop > 0
    return {
        "sample_rate": arguments.get("sample_rate"),
        "seconds": arguments.get("signal_length_s"),
        "refine_steps": arguments.get("steps"),
        "n_fft": features.get("n_fft"),
        "samples": size,
        "overlap": size / hop if overlaps else None,
    }
