"""A blinded listening test: its page and its key.

The page is one file that opens from disk. It plays explanations by several
methods and asks two questions about each. Sounds are named by codes. Only the
key, which the researcher keeps, says which method made which sound. The codes
are computed from everything that defines the test, including trained weights:
the same command writes the same test again, and the page alone does not reveal
the methods.

Loudness: listeners would rate a quiet sound lower because it is quiet. So all
sounds of a trial, including the original, have the same RMS level over the
clip: 0.07 of full scale (-23 dB), or less if a peak would be clipped
otherwise. Sounds that are almost silent become silent.

Sounds are stored as FLAC, which is lossless.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import soundfile as sf
import torch

from lmac_sb.lmac.masking import top_share
from lmac_sb.methods.registry import make_case, make_methods, min_max
from lmac_sb.metrics.shape import mask_area
from lmac_sb.pages.page import write_block, write_page
from lmac_sb.pages.ratings import read_key
from lmac_sb.utils.errors import LMACError
from lmac_sb.utils.io import write_in_one_step, write_json

__all__ = [
    "choose_methods",
    "make_trial",
    "match_loudness",
    "write_test",
]

AT_AREA = " at equal area"
PAGE, KEY = "listening_test.html", "key.json"
TARGET_RMS, PEAK = 0.07, 0.99
SILENCE = 1e-4  # share of the original's level; less is rounding noise


def choose_methods(names, interpreters, seed=0):
    """Methods of a listening test, by the names that the yaml gives them.

    Arguments
    ---------
    names : list of str
        As for `make_methods`. A method whose name ends in `` at equal area``
        keeps its highest-scored bins, as many as the first method does. Other
        methods use their masks as published.
    interpreters : dict
        Name to `lmac_sb.lmac.explainer.Explainer`.
    seed : int
        Seed of the random mask.

    Returns
    -------
    dict
        Name to (`lmac_sb.methods.registry.Method`, whether at equal area).

    Raises
    ------
    LMACError
        If a name is unknown or given twice, or the first method has no area.

    Example
    -------
    >>> list(choose_methods(["saliency", "saliency at equal area"], {}))
    ['saliency', 'saliency at equal area']
    """
    names = [names] if isinstance(names, str) else list(map(str, names or []))
    plain = dict.fromkeys(name.removesuffix(AT_AREA) for name in names)
    known = make_methods(plain, interpreters, seed=seed)
    methods = {}
    for name in names:
        method = known[name.removesuffix(AT_AREA)]
        at_area = name.endswith(AT_AREA)
        if name in methods:
            raise LMACError(f"methods: found '{name}' twice")
        if at_area and method.kind == "fixed":
            raise LMACError(f"methods: '{name}': its area cannot be chosen")
        if not methods and (at_area or method.kind == "area"):
            raise LMACError(
                f"methods: '{name}' comes first but has no area of its own, "
                "expected a method whose area the others can keep"
            )
        methods[name] = method, at_area
    return methods


def make_trial(explainer, methods, setting, item, classes, device="cpu"):
    """Explain one clip in one setting by each method.

    Arguments
    ---------
    explainer : lmac_sb.lmac.explainer.Explainer
        Explainer of the classifier.
    methods : dict
        From `choose_methods`.
    setting : callable
        From `lmac_sb.evaluation.contamination.make_settings`.
    item : dict
        Item of a data set from `lmac_sb.data.dataset.make_dataset` without
        noise.
    classes : list of str
        Names of the classes.
    device : str or torch.device
        Where the models are.

    Returns
    -------
    dict
        ``id``, ``setting``, ``label``, ``decision``, ``original`` [samples]
        and ``sounds``: method to the sound that its mask lets through
        [samples].

    Raises
    ------
    LMACError
        If a method fails, since a listening test needs every sound.
    """
    wav, _, gain = setting(item["sig"], item["id"])
    case = make_case(explainer, wav[None].to(device), [gain], [item])
    sounds, area = {}, None
    for name, (method, at_area) in methods.items():
        try:
            mask = _make_mask(method, at_area, case, area)
        except (RuntimeError, TypeError, ValueError) as error:
            raise LMACError(
                f"clip {item['id']}, {setting.name}: {name}: {error}"
            ) from error
        if area is None:
            area = mask_area(mask)
        with torch.no_grad():
            found = explainer.complete(
                case.analysis, mask, case.target, check=False
            )
        sounds[name] = found.waveform[0].cpu()
    return {
        "id": item["id"],
        "setting": setting.name,
        "label": item["class_string"],
        "decision": classes[int(case.target)],
        "original": wav,
        "sounds": sounds,
    }


def _make_mask(method, at_area, case, area):
    """Mask of a method, [1, time, freq]."""
    if method.kind == "area":
        made = method.function(case, area)
    else:
        made = method.function(case)
    made = made.detach().float()
    if not made.isfinite().all():
        raise LMACError("NaN in the mask")
    if method.kind == "area":
        return made
    if at_area:
        return top_share(made, area)
    return min_max(made) if method.kind == "scores" else made


def match_loudness(original, sounds):
    """Give all sounds of a trial the same RMS level.

    Arguments
    ---------
    original : torch.Tensor
        The clip, [samples].
    sounds : list of torch.Tensor
        Its explanations, [samples] each.

    Returns
    -------
    list of torch.Tensor
        The original, then the explanations, all below full scale. A sound
        that is 80 dB below the original becomes silent.

    Raises
    ------
    LMACError
        If the original is silent.

    Example
    -------
    >>> wave = torch.tensor([1.0, -1.0])
    >>> match_loudness(wave, [wave / 8, 0 * wave])
    [tensor([ 0.0700, -0.0700]), tensor([ 0.0700, -0.0700]), tensor([0., 0.])]
    """
    waves = [original, *sounds]
    levels = [wave.double().square().mean().sqrt().item() for wave in waves]
    if levels[0] == 0:
        raise LMACError("is silent, expected a sound")
    even = [
        wave / level if level > SILENCE * levels[0] else torch.zeros_like(wave)
        for wave, level in zip(waves, levels)
    ]
    peak = max(wave.abs().max().item() for wave in even)
    return [wave * min(TARGET_RMS, PEAK / peak) for wave in even]


def write_test(folder, trials, sample_rate, identity):
    """Write the page and the key of a listening test.

    Arguments
    ---------
    folder : str or Path
        Folder for ``listening_test.html`` and ``key.json``.
    trials : list of dict
        From `make_trial`.
    sample_rate : int
        Sampling rate of the sounds in Hz.
    identity : dict
        Plain values that define this test, such as the seed and the checksums
        of data and weights. The codes are computed from them.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    LMACError
        If a clip is silent, or the folder holds the key of another test.
    """
    folder = Path(folder)
    test = _code(identity, "test")
    key_file = folder / KEY
    if key_file.is_file() and read_key(key_file)["test"] != test:
        raise LMACError(
            f"{key_file}: is the key of another test, whose ratings would be "
            "lost without it; choose another folder"
        )
    key, index, blocks = {}, [], {}
    for trial in trials:
        code = _code(identity, "trial", trial["id"], trial["setting"])
        key[code], blocks[code] = _encode(trial, sample_rate, identity)
        # In the order of the codes, which gives nothing away.
        index.append(
            {
                "trial": code,
                "decision": trial["decision"],
                "codes": sorted(key[code]["sounds"]),
            }
        )
    index.sort(key=lambda trial: trial["trial"])
    write_json(key_file, {"test": test, "trials": key})
    write_in_one_step(
        folder / PAGE,
        lambda file: write_page(
            file,
            "listening",
            lambda file: _write_trials(
                file, {"test": test, "trials": index}, blocks
            ),
            # The report's styles, and this page's own.
            styles=["report"],
            scripts=["dom"],
        ),
    )
    return folder / PAGE


def _encode(trial, sample_rate, identity):
    """The entry of a trial in the key, and its sounds by code."""
    try:
        waves = match_loudness(
            trial["original"], list(trial["sounds"].values())
        )
    except LMACError as error:
        raise LMACError(f"clip {trial['id']}: {error}") from error
    original, *flacs = (_flac(wave, sample_rate) for wave in waves)
    codes = {
        _code(identity, "sound", trial["id"], trial["setting"], name): name
        for name in trial["sounds"]
    }
    entry = {name: trial[name] for name in ("id", "setting", "decision")}
    seconds = len(trial["original"]) / sample_rate
    entry.update(label=trial["label"], seconds=seconds, sounds=codes)
    return entry, {"original": original, **dict(zip(codes, flacs))}


def _code(identity, *parts):
    """A code that means nothing without the whole identity."""
    text = json.dumps([identity, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _flac(wave, sample_rate):
    """A sound as a data URI, in a format that browsers play."""
    buffer = io.BytesIO()
    sf.write(buffer, wave.numpy(), sample_rate, "PCM_16", format="FLAC")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{encoded}"


def _write_trials(file, index, blocks):
    """Write the list, and the sounds of each trial."""
    write_block(file, "index", index)
    for code, sounds in sorted(blocks.items()):
        write_block(file, f"trial-{code}", dict(sorted(sounds.items())))
