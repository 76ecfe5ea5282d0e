"""Tests of scenes with shortcuts: what is planted, where, and how often."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from lmac_sb.data.scenes import CLASSES, make_scenes
from lmac_sb.data.shortcuts import SHORTCUTS, check_shortcuts, plant
from lmac_sb.utils.errors import LMACError

RATE = 16000


def read(folder, name):
    return sf.read(str(folder / name))[0]


def made(folder, *shortcuts, **settings):
    settings = {"clips_per_class": 2, "n_folds": 2, **settings}
    return make_scenes(folder, shortcuts=list(shortcuts), **settings)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return made(tmp_path_factory.mktemp("scenes") / "clean")


def test_only_the_clips_that_are_named_change(clean, tmp_path):
    """Each clip with a shortcut is listed, and no other one has changed."""
    folder = made(
        tmp_path / "a",
        {"kind": "hum", "class": "trill", "folds": [1]},
        {"kind": "click", "class": "bounce"},
    )
    table = pd.read_csv(folder / "meta" / "esc50.csv", keep_default_na=False)
    for row in table.itertuples():
        expected = {("trill", 1): "hum"}.get((row.category, row.fold), "")
        if row.category == "bounce":
            expected = "click"
        assert row.shortcuts == expected
        paths = [x / "audio" / row.filename for x in (folder, clean)]
        same = paths[0].read_bytes() == paths[1].read_bytes()
        assert same == (expected == ""), row.filename
    settings = json.loads((folder / "scenes.json").read_text())["settings"]
    assert settings["shortcuts"][1] == {
        "kind": "click",
        "class": "bounce",
        "probability": 1.0,
        "folds": None,
    }
    with pytest.raises(LMACError, match="made with shortcuts=.*hum"):
        made(folder)
    made(clean)  # found as it was made, before there were shortcuts


def test_without_shortcuts_nothing_tells_of_them(clean):
    head = (clean / "meta" / "esc50.csv").read_text().splitlines()[0]
    assert "shortcuts" not in head
    assert "shortcuts" not in (clean / "scenes.json").read_text()
    # That of the version before.
    assert pd.read_csv(clean / "meta" / "esc50.csv").shape == (40, 7)


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_events_stay_and_the_background_changes(clean, tmp_path, kind):
    """The stem is the event alone, at the scale of the mixture."""
    folder = made(tmp_path / "a", {"kind": kind})
    table = pd.read_csv(folder / "meta" / "esc50.csv")
    assert (table["shortcuts"] == kind).all()
    for name in table["filename"][::9]:
        stem, old = (read(x / "stems", name) for x in (folder, clean))
        scale = np.abs(stem).max() / np.abs(old).max()
        assert np.abs(stem - scale * old).max() <= 2 / 32768
        assert scale == pytest.approx(1, abs=0.25)
        mixtures = [read(x / "audio", name) for x in (folder, clean)]
        change = mixtures[0] - stem - scale * (mixtures[1] - old)
        assert np.abs(change).max() > 0.002


def test_shortcuts_are_what_they_are_called(clean, tmp_path):
    """Where in time and frequency the background changes."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(2 * RATE)
    hertz = np.fft.rfftfreq(len(noise), 1 / RATE)

    def power(kind):
        """Of the change, by frequency."""
        change = plant([kind], noise, RATE, rng) - noise
        return np.abs(np.fft.rfft(change)) ** 2, change

    hum, _ = power("hum")
    assert set(hertz[hum > 0.01 * hum.max()]) == {60, 120, 180, 240, 300}
    edge, _ = power("edge")
    assert edge[hertz <= 7000].sum() < 1e-9 * edge.sum()
    offset, change = power("offset")
    assert offset[0] / offset.sum() == pytest.approx(1)
    assert 20 * np.log10(np.abs(change).max()) == pytest.approx(-20)
    _, click = power("click")
    assert not click[RATE // 40 :].any() and click[: RATE // 100].any()
    event, chirp = power("event")
    inside = (hertz > 5400) & (hertz < 6600)
    assert event[inside].sum() > 0.99 * event.sum()
    assert np.abs(chirp).max() <= 0.2
    darker = plant(["colour"], noise, RATE, rng)
    assert np.mean(darker**2) == pytest.approx(np.mean(noise**2))
    before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (noise, darker))
    low, high = hertz < 1000, hertz > 4000
    assert after[low].sum() > 2 * before[low].sum()
    assert after[high].sum() < 0.5 * before[high].sum()


def test_probability(tmp_path):
    """So many clips of the class have it, and always the same ones."""
    settings = {"clips_per_class": 30, "n_folds": 1, "duration_s": 1.0}
    one = {"kind": "offset", "class": "trill"}
    some = made(tmp_path / "a", {**one, "probability": 0.6}, **settings)
    table = pd.read_csv(some / "meta" / "esc50.csv", keep_default_na=False)
    has = table["shortcuts"] == "offset"
    assert set(table["category"][has]) == {"trill"}
    assert 11 <= has.sum() <= 25  # 18 are expected
    more = made(tmp_path / "b", {**one, "probability": 0.9}, **settings)
    table = pd.read_csv(more / "meta" / "esc50.csv", keep_default_na=False)
    assert (table["shortcuts"] == "offset")[has].all()


def test_several_events_have_the_shortcut_of_each(tmp_path):
    folder = made(
        tmp_path / "a", {"kind": "edge", "class": "trill"}, n_events=[2]
    )
    table = pd.read_csv(folder / "meta" / "esc50.csv", keep_default_na=False)
    has = table["category"].str.split("+").map(lambda x: "trill" in x)
    assert ((table["shortcuts"] == "edge") == has).all() and has.sum() >= 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hum", "found 'hum', expected a list"),
        ([{"class": "trill"}], "expected a mapping with the key kind"),
        ([{"kind": "hun"}], "found kind 'hun'.*did you mean 'hum'"),
        ([{"kind": "hum", "class": "tril"}], "did you mean 'trill'"),
        ([{"kind": "hum", "share": 1}], "found the key 'share'"),
        ([{"kind": "hum", "probability": 0}], "found probability 0"),
        ([{"kind": "hum", "probability": True}], "found probability True"),
        ([{"kind": "hum", "folds": [1.5]}], "found folds"),
        ([{"kind": "hum", "folds": 1}], "found folds"),
    ],
)
def test_bad_shortcuts(tmp_path, given, message):
    with pytest.raises(LMACError, match=message):
        make_scenes(tmp_path / "a", shortcuts=given)
    assert not list(tmp_path.iterdir())


def test_unknown_contents(tmp_path):
    with pytest.raises(LMACError, match="found plants, expected n_events"):
        make_scenes(tmp_path / "a", plants=[])


def test_classes_of_scenes_are_known():
    for name in (None, *CLASSES):
        (found,) = check_shortcuts([{"kind": "hum", "class": name}], CLASSES)
        assert found["class"] == name
