"""A blinded listening test: its page and its key.

The page, one file that opens from disk, plays explanations by several methods
and asks two questions of each. Sounds go by codes; which method made which
stands in the key, which stays with the researcher. The codes are made from
what the test is made of, trained weights included: the same command writes
the same test again, and the page alone does not give them away.

Loudness: a quiet sound would be rated for being quiet. So each sound of a
trial, the original too, has the same RMS level over the clip: 0.07 of full
scale (-23 dB), or less where a peak would otherwise be cut off, then for all
sounds of the trial. What holds next to nothing is left silent.

Sounds are FLAC, which loses nothing.
"""

import base64
import hashlib
import io
import json
from pathlib import Path

import soundfile as sf
import torch

from lmac_sb.explain.masking import top_share
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
SILENCE = 1e-4  # of the original's level: rounding, nothing to be made loud


def choose_methods(names, interpreters, seed=0):
    """Methods of a listening test, by the names that the yaml gives them.

    Arguments
    ---------
    names : list of str
        As for `make_methods`. With `` at equal area`` behind the name a
        method keeps as large a share of the bins as the first one does, its
        highest-scored ones; without, its mask is as published.
    interpreters : dict
        Name to `lmac_sb.explain.explainer.Explainer`.
    seed : int
        Of the random mask.

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
            raise LMACError(f"methods: '{name}' stands there twice")
        if at_area and method.kind == "fixed":
            raise LMACError(f"methods: '{name}': its area cannot be chosen")
        if not methods and (at_area or method.kind == "area"):
            raise LMACError(
                f"methods: '{name}' comes first, but has no area of its own; "
                "others keep the area of the first"
            )
        methods[name] = method, at_area
    return methods


def make_trial(explainer, methods, setting, item, classes, device="cpu"):
    """One clip in one setting, as each method explains it.

    Arguments
    ---------
    explainer : lmac_sb.explain.explainer.Explainer
        Of the explained classifier.
    methods : dict
        From `choose_methods`.
    setting : callable
        From `lmac_sb.evaluation.contamination.make_settings`.
    item : dict
        Of a data set from `lmac_sb.data.dataset.make_dataset`, without noise.
    classes : list of str
        Names of the classes.
    device : str or torch.device
        Where the models are.

    Returns
    -------
    dict
        ``id``, ``setting``, ``label``, ``decision``, ``original`` [samples]
        and ``sounds``, method to what its mask lets through [samples].

    Raises
    ------
    LMACError
        If a method fails: a listening test has no holes.
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
        The original, then the explanations; all below full scale. One that
        is 80 dB below the original is silenced.

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
        raise LMACError("silent, nothing can be heard in it")
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
        Where to write ``listening_test.html`` and ``key.json``.
    trials : list of dict
        From `make_trial`.
    sample_rate : int
        Of the sounds in Hz.
    identity : dict
        What makes this test what it is, such as seed, data and the checksum
        of the weights; plain values. The codes are made from it.

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
        about = {name: trial[name] for name in ("id", "setting", "decision")}
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
        key[code] = {**about, "label": trial["label"], "sounds": codes}
        # In the order of the codes, which tells nothing.
        index.append(
            {
                "trial": code,
                "decision": trial["decision"],
                "codes": sorted(codes),
            }
        )
        blocks[code] = {"original": original, **dict(zip(codes, flacs))}
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
            # The report's look, and what this page has besides.
            styles=["report", "listening"],
        ),
    )
    return folder / PAGE


def _code(identity, *parts):
    """A code that tells nothing to who does not know all of the identity."""
    text = json.dumps([identity, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _flac(wave, sample_rate):
    """A sound as the address of data, in a kind that browsers play."""
    buffer = io.BytesIO()
    sf.write(buffer, wave.numpy(), sample_rate, "PCM_16", format="FLAC")
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:audio/flac;base64,{encoded}"


def _write_trials(file, index, blocks):
    """Write the list, and the sounds of each trial."""
    write_block(file, "index", index)
    for code, sounds in sorted(blocks.items()):
        write_block(file, f"trial-{code}", dict(sorted(sounds.items())))
