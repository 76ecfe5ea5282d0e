"""Tests of what the app answers, without a server."""

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from lmac_sb import LMACError
from lmac_sb.app import answer as module
from lmac_sb.app import server
from lmac_sb.app.answer import (
    Limits,
    Wish,
    answer,
    check_sound,
    offered,
    sentence,
)
from lmac_sb.app.visits import Visits
from lmac_sb.methods.gradients import ATTRIBUTIONS, OF_CAPTUM

ROOT = Path(__file__).resolve().parents[3]
SPACE = ROOT / "docs" / "space"


def test_a_decoder_stands_beside_its_refinement(interpreter, tone, tmp_path):
    found = list(answer(interpreter, Wish(tone, steps=1), tmp_path))
    titles = [result.title for result in found]
    assert titles == ["decoder, then 1 step", "decoder"]
    assert found[1].folder == tmp_path / "own" / "unrefined"
    assert (found[1].folder / "interpretation.wav").is_file()


def test_other_methods_keep_as_much(interpreter, tone, tmp_path):
    wish = Wish(tone, methods=("gradcam", "loudest"))
    own, *others = answer(interpreter, wish, tmp_path)
    area = float(own.explanation.mask.mean())
    for result in others:
        assert float(result.explanation.mask.mean()) == pytest.approx(
            area, abs=1e-3
        )
        path = result.folder / "explanation.json"
        facts = json.loads(path.read_text("utf-8"))
        assert f"by {result.title}" in facts["notes"][-1]


def test_one_that_fails_does_not_hold_up_the_others(
    small, tone, tmp_path, monkeypatch
):
    def failing(*arguments):
        """As a classifier of others may."""
        raise RuntimeError("no such kernel in /home/me/venv/lib/torch.py")

    monkeypatch.setitem(ATTRIBUTIONS, "saliency", failing)
    wish = Wish(tone, methods=("saliency", "gradcam", "loudest"))
    found = list(answer(small, wish, tmp_path))
    assert [bool(result.error) for result in found] == [
        False,
        True,
        True,
        False,
    ]
    assert found[1].error == "RuntimeError: no such kernel in torch.py"
    assert "hears sound" in found[2].error


def test_what_is_offered(interpreter, small, monkeypatch):
    on_sound = dict(offered(small))
    assert "spectrogram" in on_sound["gradcam"]
    assert dict(offered(interpreter))["gradcam"] == ""
    assert set(on_sound) > set(ATTRIBUTIONS)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    without = dict(offered(interpreter))
    for name in OF_CAPTUM:
        assert 'pip install "lmac-sb[eval]"' in without[name]
    assert without["smoothgrad"] == ""


def test_those_that_need_captum_are_known(interpreter, sounds, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    explainer = interpreter.explainer
    analysis = explainer.analyze(sounds[:1])
    needing = set()
    for name in set(ATTRIBUTIONS) - {"deeplift_shap", "gradient_shap"}:
        try:
            ATTRIBUTIONS[name](explainer, analysis, analysis.logits.argmax(1))
        except LMACError as error:
            assert "captum" in str(error)
            needing.add(name)
    assert needing == set(OF_CAPTUM)


@pytest.mark.parametrize("steps", [-1, 51, 10**9])
def test_steps_are_limited(small, tone, tmp_path, steps):
    with pytest.raises(LMACError, match="steps: found"):
        list(answer(small, Wish(tone, steps=steps), tmp_path))


def test_a_sound_as_long_as_allowed_is_taken(tone):
    check_sound(tone, Limits(1, 2.0))
    with pytest.raises(LMACError, match="^tone.wav: longer than 1.9 s"):
        check_sound(tone, Limits(1, 1.9))
    with pytest.raises(LMACError, match="^tone.wav: found 0 MB, expected"):
        check_sound(tone, Limits(0.01, 2))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/tmp/a/b.wav: no audio", "b.wav: no audio"),
        (r"C:\Users\me\b.wav: no audio", "b.wav: no audio"),
        ("found (/home/me/x/y)", "found (y)"),
        ("44.1/48 kHz and 3 / 4", "44.1/48 kHz and 3 / 4"),
        ("one\ntwo", "one"),
    ],
)
def test_sentences_name_no_folders(text, expected):
    assert sentence(LMACError(text)) == expected


def test_only_uploads_are_taken(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    (tmp_path / "secret.wav").touch()
    (folder / "link.wav").symlink_to(tmp_path / "secret.wav")
    visits = Visits(folder)
    for path in (tmp_path / "secret.wav", folder / "link.wav"):
        with pytest.raises(LMACError, match="was not uploaded"):
            visits.keep("one", path)


def test_the_space_runs_the_same_app(monkeypatch):
    called = {}
    monkeypatch.setattr(
        "lmac_sb.app.serve", lambda *given, **named: called.update(named)
    )
    runpy.run_path(str(SPACE / "app.py"), run_name="__main__")
    assert (called["host"], called["port"]) == ("0.0.0.0", 7860)
    server._limits(called["max_mb"], called["max_seconds"])


def test_the_header_of_the_space():
    text = (SPACE / "README.md").read_text("utf-8")
    _, header, _ = text.split("---\n", 2)
    card = yaml.safe_load(header)
    assert card["sdk"] == "gradio"
    assert (SPACE / card["app_file"]).is_file()
    assert card["license"] == "apache-2.0"
    assert len(card["short_description"]) <= 60
    pins = (ROOT / "requirements.txt").read_text("utf-8")
    assert f"gradio=={card['sdk_version']}\n" in pins
    wanted = (SPACE / "requirements.txt").read_text("utf-8")
    assert re.search(r"^lmac-sb\[app,yamnet\]", wanted, re.M)
