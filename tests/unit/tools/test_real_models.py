"""The benchmark of real models: its sounds and its measures."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def real_models(monkeypatch):
    """The benchmark, whose folder is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("real_models")
    sys.modules.pop("real_models", None)


def test_notes_are_what_they_say(real_models):
    for index in range(4):
        event, whole, frequency, kind = real_models.make_note(3, index)
        again = real_models.make_note(3, index)
        assert np.array_equal(whole, again[1]) and frequency == again[2]
        assert kind == real_models.DISTRACTORS[index % 2]
        assert 110 <= frequency <= 880
        # All of a harmonic note's energy lies at multiples of its frequency.
        note = event[event != 0]
        power = np.abs(np.fft.rfft(note * np.hanning(len(note)), 16000)) ** 2
        places = np.arange(len(power)) / frequency
        near = np.abs(places - places.round()) * frequency < 10
        assert power[near & (places > 0.5)].sum() > 0.99 * power.sum()


def test_noise_is_10_db_below_the_note(real_models):
    event, whole, _, _ = real_models.make_note(0, 1)
    rest = whole - event
    # Before the burst, which sounds in the middle half of the note.
    sounding = np.flatnonzero(event)
    first, last = sounding[0], sounding[-1]
    beside = np.r_[rest[:first], rest[last:]]
    middle = slice(first + 400, last - 400)
    ratio = np.mean(event[middle] ** 2) / np.mean(beside**2)
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.5)


def test_speech_has_its_snr(real_models, real_data):
    for snr_db in (0, 5):
        speech, noise, both = real_models.make_speech(real_data, 0, 1, snr_db)
        ratio = np.mean(speech**2) / np.mean(noise**2)
        assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=1e-6)
        assert np.array_equal(both, speech + noise)


def test_measures_of_known_masks(real_models):
    """A mask of the event itself, and one of everything."""
    from types import SimpleNamespace

    known = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    magnitude = torch.tensor([[[2.0, 1.0], [1.0, 1.0]]])
    event = torch.tensor([[0.0, 1.0, -1.0]])
    found = SimpleNamespace(
        mask=known,
        magnitude=magnitude,
        waveform=event,
        p_inside=torch.ones(1),
        p_outside=torch.zeros(1),
    )
    values = real_models.measures(found, known, event)
    assert values["area"] == 0.25
    assert values["event_auc"] == values["event's energy kept"] == 1
    assert values["kept energy on the event"] == 1
    found.mask = torch.ones_like(known)
    values = real_models.measures(found, known, event)
    assert values["kept energy on the event"] == pytest.approx(4 / 7)
    assert values["event_auc"] == 1  # the level finds it


@pytest.mark.parametrize("what", ["notes", "speech"])
def test_it_runs(real_models, real_data, tmp_path, capsys, what):
    package = {"notes": "torchcrepe", "speech": "silero_vad"}[what]
    pytest.importorskip(package, reason=f"no {package} here")
    threads = torch.get_num_threads()
    path = tmp_path / "found.json"
    try:
        real_models.main(
            [what, "--clips", "2", "--seeds", "0", "--steps", "2"]
            + ["--threads", "1"]
            + ["--hop", "2000", "--data", str(real_data), "--json", str(path)]
        )
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(path.read_text())["rows"]
    kept = ["explanation", "loudest bins", "known bins", "whole sound"]
    assert [row["kept"] for row in rows] == kept * 2
    for row in rows:
        if row["kept"] == "known bins":
            assert row["kept energy on the event"] == pytest.approx(1)
            assert row["SI-SDR, dB"] > 8
    for one, loudest in zip(rows[::4], rows[1::4]):
        assert one["area"] == pytest.approx(loudest["area"], abs=1e-3)
    printed = capsys.readouterr().out
    assert printed.count("| explanation |") == 2
