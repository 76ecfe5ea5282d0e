"""Soundscapes as the data of the real scripts, with tiny settings."""

import csv

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.data.soundscapes import make_soundscapes

RATE = 16000


def write_tones(folder, names, seconds=0.4):
    """A tone a file, each of another pitch."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        t = np.arange(round(seconds * RATE)) / RATE
        x = 0.2 * np.sin(2 * np.pi * (300 + 53 * number) * t)
        sf.write(path, x, RATE)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Distractors."""
    folder = tmp_path_factory.mktemp("others")
    return write_tones(folder, [f"{number}.wav" for number in range(10)])


@pytest.fixture(scope="module")
def made(scenes, others, tmp_path_factory):
    """Clips of the ten classes as events in the noise of WHAM!'s layout."""
    return make_soundscapes(
        tmp_path_factory.mktemp("soundscapes") / "one",
        scenes,
        scenes / "noise",
        distractors=others,
        clips_per_class=1,
        duration_s=1,
    )


@pytest.fixture(scope="module")
def several(scenes, others, tmp_path_factory):
    """The same with one to three events."""
    return make_soundscapes(
        tmp_path_factory.mktemp("soundscapes") / "several",
        scenes,
        scenes / "noise",
        distractors=others,
        clips_per_class=1,
        duration_s=1,
        n_events=[1, 2, 3],
    )


def test_training_and_evaluation(recipe, made, tiny, tmp_path):
    """The ideal mask of the stems is where the event is, to the bin."""
    options = {**tiny, "data_folder": made, "number_of_epochs": 1}
    run = tmp_path / "lmac"
    done = recipe.main("train_lmac", "lmac.yaml", output_folder=run, **options)
    assert done.code == 0, done.err
    done = recipe.main(
        "eval",
        "eval.yaml",
        interpreter=run,
        data_folder=made,
        methods="[lmac, ideal, loudest, ones]",
        settings="[clean, white 5 dB]",
        shares="[]",
        output_folder=tmp_path / "eval",
    )
    assert done.code == 0, done.err
    with open(tmp_path / "eval" / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    ideal = [
        row for row in rows if row["method"] == "ideal" and row["keep"] == "own"
    ]
    assert len(ideal) == 2 * 10
    for row in ideal:
        assert float(row["event_auc"]) == float(row["event_mass"]) == 1


def test_several_events(recipe, several, tmp_path):
    """Each event is explained on its own."""
    done = recipe.main(
        "train_multilabel",
        "classifier_multilabel.yaml",
        data_folder=several,
        output_folder=tmp_path / "classifier",
        number_of_epochs=1,
    )
    assert done.code == 0, done.err
    done = recipe.main(
        "train_multilabel",
        "lmac_multilabel.yaml",
        data_folder=several,
        classifier_folder=tmp_path / "classifier" / "model",
        output_folder=tmp_path / "lmac",
        number_of_epochs=1,
        decoder_width=8,
        save_clips=1,
    )
    assert done.code == 0, done.err
    with open(tmp_path / "lmac" / "results.csv", encoding="utf-8") as file:
        columns = csv.DictReader(file).fieldnames
    assert "event_auc" in columns


def test_a_classifier_of_other_classes(
    recipe, scenes, others, classifier, tmp_path
):
    """One line that names both; the events are in folders of classes."""
    names = [
        f"fold{fold}/{name}/x.wav"
        for fold in range(1, 6)
        for name in ("bell", "dog")
    ]
    made = make_soundscapes(
        tmp_path / "a",
        write_tones(tmp_path / "events", names, seconds=0.3),
        scenes / "noise",
        distractors=others,
        clips_per_class=1,
        duration_s=1,
    )
    done = recipe.main(
        "train_lmac",
        "lmac.yaml",
        data_folder=made,
        classifier_folder=classifier / "model",
        output_folder=tmp_path / "lmac",
    )
    assert done.code == 1
    (line,) = done.err.strip().splitlines()
    assert "the classifier knows " in line and "the data has bell, dog" in line
