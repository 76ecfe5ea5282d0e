"""The listening test's page as a file; tests/browser opens it."""

import base64
import csv
import hashlib
import io
import json
import re

import numpy as np
import pytest
import soundfile as sf
import torch

from lmac_sb.evaluation.contamination import Clean, WhiteNoise
from lmac_sb.lmac.masking import top_share
from lmac_sb.methods.gradients import ATTRIBUTIONS
from lmac_sb.methods.registry import min_max
from lmac_sb.methods.trivial import TRIVIAL_MASKS
from lmac_sb.pages.listening import (
    PEAK,
    TARGET_RMS,
    choose_methods,
    make_trial,
    match_loudness,
    write_test,
)
from lmac_sb.pages.ratings import read_key
from lmac_sb.utils.errors import LMACError

NAMES = [
    "lmac",
    "saliency",
    "saliency at equal area",
    "random",
    "ones",
    "ideal",
]
SHIPPED = ["lmac", "lmac+5", "gradcam at equal area", "random", "ones"]
HOSTILE = "</script><script>alert(1)</script>"


def rms(wave):
    return float(torch.as_tensor(wave).double().square().mean().sqrt())


@pytest.fixture(scope="module")
def methods(interpreter):
    return choose_methods(NAMES, {"lmac": interpreter.explainer})


@pytest.fixture(scope="module")
def items(interpreter, sounds):
    return [
        {"id": f"secret{i}", "sig": x, "event": x / 2, "class_string": "dog"}
        for i, x in enumerate(sounds)
    ]


@pytest.fixture(scope="module")
def trials(interpreter, methods, items):
    settings = [Clean(), WhiteNoise(snr_db=5)]
    return [
        make_trial(
            interpreter.explainer, methods, setting, item, interpreter.classes
        )
        for setting in settings
        for item in items
    ]


@pytest.fixture
def written(trials, tmp_path):
    """Text of the page, its blocks of data, and the key."""
    page = write_test(tmp_path, trials, 16000, {"seed": 1})
    text = page.read_text("utf-8")
    found = re.findall(
        r'<script type="application/json" id="(.+?)">(.*)<', text
    )
    blocks = {name: json.loads(block) for name, block in found}
    return text, blocks, read_key(tmp_path / "key.json")


def decode(address):
    head, encoded = address.split(",")
    assert head == "data:audio/flac;base64"
    return sf.read(io.BytesIO(base64.b64decode(encoded)))


# ----------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lmac", "lamc"], "unknown 'lamc'; did you mean 'lmac'"),
        (["lmac", "ones", "ones"], "found 'ones' twice"),
        (["lmac", "ones at equal area"], "'ones at equal area': its area"),
        (["random", "lmac"], "'random' comes first"),
        (["saliency at equal area"], "'saliency at equal area' comes first"),
        ([], "none given"),
        (None, "none given"),
    ],
)
def test_bad_methods(names, message):
    with pytest.raises(LMACError, match=message):
        choose_methods(names, {"lmac": None})


def test_sounds_are_those_of_the_masks(trials, interpreter, methods, items):
    explainer = interpreter.explainer
    for trial, item in zip(trials, items):
        wavs = item["sig"][None]
        found = explainer(wavs)
        assert trial["decision"] == interpreter.classes[int(found.decision)]
        assert trial["setting"] == "clean"
        assert torch.equal(trial["original"], item["sig"])
        assert list(trial["sounds"]) == NAMES
        analysis = explainer.analyze(wavs)
        scores = ATTRIBUTIONS["saliency"](explainer, analysis, found.decision)
        area = found.mask.mean((1, 2))
        masks = {
            "lmac": found.mask,
            "saliency": min_max(scores),
            "saliency at equal area": top_share(scores, area),
            "random": TRIVIAL_MASKS["random"](found.magnitude, area, 0),
            "ones": torch.ones_like(found.mask),
        }
        for name, mask in masks.items():
            expected = explainer.complete(analysis, mask.float()).waveform[0]
            assert torch.allclose(
                trial["sounds"][name], expected.detach(), atol=1e-4
            ), name


def test_the_known_event_is_heard_at_its_gain(trials):
    # Half of the clip is "event", but no louder than the rest.
    assert rms(trials[0]["sounds"]["ideal"]) < rms(trials[0]["original"])


def test_a_method_that_fails_stops_all(interpreter, items):
    methods = choose_methods(["lmac", "ideal"], {"lmac": interpreter.explainer})
    item = {k: v for k, v in items[1].items() if k != "event"}
    with pytest.raises(LMACError, match="clip secret1, clean: ideal: .*events"):
        make_trial(
            interpreter.explainer, methods, Clean(), item, interpreter.classes
        )


def test_nan_is_an_error(interpreter, items):
    methods = choose_methods(["lmac"], {"lmac": interpreter.explainer})
    method, at_area = methods["lmac"]
    broken = method._replace(
        function=lambda case: case.analysis.magnitude * float("nan")
    )
    with pytest.raises(LMACError, match="clip secret0, clean: lmac: NaN"):
        make_trial(
            interpreter.explainer,
            {"lmac": (broken, at_area)},
            Clean(),
            items[0],
            interpreter.classes,
        )


# ----------------------------------------------------------------- loudness


def test_all_sounds_of_a_trial_are_equally_loud():
    noise = torch.randn(16000)
    burst = torch.zeros(16000)
    burst[:4000] = torch.randn(4000) / 50
    waves = match_loudness(noise, [burst, noise / 1000])
    assert [rms(wave) for wave in waves] == pytest.approx(3 * [TARGET_RMS])


def test_peaks_are_not_cut():
    click = torch.zeros(16000)
    click[5] = 0.5
    waves = match_loudness(torch.randn(16000), [click])
    assert rms(waves[0]) == pytest.approx(rms(waves[1]))
    assert max(float(w.abs().max()) for w in waves) == pytest.approx(PEAK)


def test_rounding_is_not_made_loud():
    noise = torch.randn(16000)
    waves = match_loudness(noise, [noise * 5e-5, 0 * noise])
    assert rms(waves[0]) == pytest.approx(TARGET_RMS)
    assert not waves[1].any() and not waves[2].any()


def test_a_silent_clip_is_refused(trials, tmp_path):
    silent = {**trials[0], "original": torch.zeros(16000)}
    with pytest.raises(LMACError, match="clip secret0: is silent"):
        write_test(tmp_path, [trials[1], silent], 16000, {})
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------- page


def test_key_tells_what_each_code_is(written, trials):
    text, blocks, key = written
    index = blocks.pop("index")
    assert index["test"] == key["test"]
    assert len(key["trials"]) == len(trials) == len(index["trials"])
    for trial, (code, about) in zip(trials, key["trials"].items()):
        for name in ("id", "setting", "label", "decision"):
            assert about[name] == trial[name]
        assert list(about["sounds"].values()) == NAMES
        block = blocks[f"trial-{code}"]
        names = ["original", *about["sounds"].values()]
        sounds = [trial["original"], *trial["sounds"].values()]
        codes = ["original", *about["sounds"]]
        expected = match_loudness(sounds[0], sounds[1:])
        for code, name, wave in zip(codes, names, expected):
            found, rate = decode(block[code])
            assert rate == 16000
            assert np.abs(found - wave.numpy()).max() < 1e-4, name


def test_page_gives_no_method_away(written):
    text, blocks, key = written
    codes = [
        code for about in key["trials"].values() for code in about["sounds"]
    ]
    assert len(set(codes)) == len(codes) == 6 * len(NAMES)
    # Without sounds, whose base64 may hold anything by chance.
    bare = re.sub(r"base64,[\w+/=]+", "", text)
    assert all(code in bare for code in codes)
    words = set(re.findall(r"[\w+]+", bare.lower()))
    secrets = [*ATTRIBUTIONS, *TRIVIAL_MASKS, "lmac", "ideal", "optimised"]
    assert words.isdisjoint(secrets)
    assert "secret" not in bare  # nor a clip's name
    # The order does not reveal it either.
    for trial in blocks["index"]["trials"]:
        assert trial["codes"] == sorted(trial["codes"])
        block = list(blocks[f"trial-{trial['trial']}"])
        assert block == sorted(block)
    places = [trial["trial"] for trial in blocks["index"]["trials"]]
    assert places == sorted(places)
    by_place = {
        tuple(about["sounds"][code] for code in sorted(about["sounds"]))
        for about in key["trials"].values()
    }
    assert len(by_place) > 1


def test_page_is_one_file_that_asks_for_nothing(written):
    text, _, _ = written
    for kind in ("style", "script"):
        (inline,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = hashlib.sha256(inline.encode()).digest()
        name = base64.b64encode(digest).decode()
        assert f"{kind}-src 'sha256-{name}'" in text
    assert "default-src 'none'; base-uri 'none'" in text
    assert re.findall(r"https?:|@import|\bsrc=|innerHTML", text) == []


def test_names_of_classes_stay_data(trials, tmp_path):
    trial = {**trials[0], "decision": HOSTILE}
    page = write_test(tmp_path, [trial], 16000, {})
    assert HOSTILE not in page.read_text("utf-8")


def test_the_same_test_is_written_again(trials, tmp_path):
    files = [tmp_path / "listening_test.html", tmp_path / "key.json"]
    write_test(tmp_path, trials, 16000, {"seed": 1})
    first = [file.read_bytes() for file in files]
    write_test(tmp_path, trials, 16000, {"seed": 1})
    assert [file.read_bytes() for file in files] == first
    with pytest.raises(LMACError, match="key.json: is the key of another test"):
        write_test(tmp_path, trials, 16000, {"seed": 2})
    assert [file.read_bytes() for file in files] == first
    assert sorted(tmp_path.iterdir()) == sorted(files)


# ------------------------------------------------------------------ scripts


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory, interpreter, sounds):
    """ESC-50's layout: five folds of the three classes."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "audio").mkdir()
    (folder / "meta").mkdir()
    with open(folder / "meta" / "esc50.csv", "w", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = "filename fold target category esc10 src_file take"
        writer.writerow(header.split())
        for fold in range(1, 6):
            for target, name in enumerate(interpreter.classes):
                clip = f"{fold}-{100 * fold + target}-A-{target}.wav"
                wave = sounds[target] * 0.9
                sf.write(folder / "audio" / clip, wave.numpy(), 16000)
                writer.writerow([clip, fold, target, name, False, clip, "A"])
    return folder


def test_scripts(recipe, bundle, data_folder, tmp_path, capsys):
    options = {
        "interpreter": bundle,
        "data_folder": data_folder,
        "output_folder": tmp_path / "out",
        "n_clips": 2,
    }
    name = "make_listening_test"
    done = recipe.main(name, "listening.yaml", **options)
    assert done.code == 0, done.out + done.err
    key_file = tmp_path / "out" / "key.json"
    key = read_key(key_file)
    assert [x["setting"] for x in key["trials"].values()] == [
        *2 * ["clean"],
        *2 * ["mixture paper"],
    ]
    before = (tmp_path / "out" / "listening_test.html").read_bytes()
    done = recipe.main(name, "listening.yaml", **options)
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "out" / "listening_test.html").read_bytes() == before
    done = recipe.main(name, "listening.yaml", **{**options, "n_clips": 1})
    assert done.code == 1
    assert "n_clips 2, now it is 1" in done.err

    score = recipe.script("score_listening_test").main
    for i, listener in enumerate(["ann", "ben"]):
        content = {
            "test": key["test"],
            "listener": listener,
            "trials": [
                {
                    "trial": code,
                    "ratings": [
                        {
                            "code": sound,
                            "fit": 10 + i if method == "ones" else 50 + i,
                            "quality": 70,
                        }
                        for sound, method in about["sounds"].items()
                    ],
                }
                for code, about in key["trials"].items()
            ],
        }
        (tmp_path / "out" / f"{listener}.json").write_text(json.dumps(content))
    files = [str(tmp_path / "out" / f"{x}.json") for x in ("ann", "ben")]
    score([*files, "--key", str(key_file)])
    assert "| all | ones | 10.5 [10.0, 11.0] | 70.0 [70.0, 70.0] |" in (
        capsys.readouterr().out
    )
    with open(tmp_path / "out" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["setting"], row["method"]) for row in rows] == [
        (setting, method)
        for setting in ("all", "clean", "mixture paper")
        for method in SHIPPED
    ]
    # A folder must hold only ratings and the key.
    with pytest.raises(SystemExit):
        score([str(tmp_path / "out"), "--key", str(key_file)])
    error = capsys.readouterr().err
    assert "experiment.json: holds no ratings of a listening test" in error
