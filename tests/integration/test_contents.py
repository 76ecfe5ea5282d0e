"""What runs know of the content of their data, and what they tell others."""

import csv
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import soundfile as sf

from lmac_sb.cli import main


@pytest.fixture
def data(scenes, tmp_path):
    """A copy of the scenes to change."""
    return shutil.copytree(scenes, tmp_path / "data")


def replace(path):
    """Another sound of the same length, rate, size and time."""
    info = path.stat()
    wav, rate = sf.read(path, dtype="int16")
    sf.write(path, np.ascontiguousarray(wav[::-1]), rate)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert path.stat().st_size == info.st_size


def refused(done, *parts):
    """One line names what has changed."""
    assert done.code == 1, done.out
    assert done.err.count("error: ") == 1 and "Traceback" not in done.err
    for part in parts:
        assert part in done.err, done.err


def test_evaluation_of_replaced_audio(recipe, tiny, lmac_run, data, tmp_path):
    """No row of the old sounds is returned for the new ones."""
    noise = data / "noise"
    options = {
        **{k: v for k, v in tiny.items() if k.endswith("_fold_nums")},
        "data_folder": data,
        "interpreter": lmac_run,
        "output_folder": tmp_path / "run",
        "wham_folder": noise,
        "methods": "[lmac, ones]",
        "settings": "[clean]",
        "shares": "[0.5]",
        "n_clips": 2,
    }

    def evaluate():
        return recipe.main("eval", "eval.yaml", **options)

    assert evaluate().code == 0
    rows = sorted((tmp_path / "run" / "rows").iterdir())
    times = [path.stat().st_mtime_ns for path in rows]
    clip = sorted((data / "audio").glob("5-*"))[0]
    replace(clip)
    refused(evaluate(), "another data", f"changed: '{clip.stem}'")
    replace(clip)  # and back again
    recording = sorted((noise / "tt").iterdir())[0]
    replace(recording)
    refused(evaluate(), "another wham_folder", f"'tt/{recording.name}'")
    replace(recording)
    done = evaluate()
    assert done.code == 0, done.err
    assert [path.stat().st_mtime_ns for path in rows] == times


def test_training_on_replaced_audio(recipe, tiny, lmac_run, data, tmp_path):
    run = shutil.copytree(lmac_run, tmp_path / "run")
    options = {**tiny, "data_folder": data, "output_folder": run}
    clips = sorted((data / "audio").glob("[15]-*"))
    for clip in clips:
        replace(clip)
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    more = f"and {len(clips) - 4} more"
    refused(done, "another data", "changed: '1-", more)
    for clip in clips:
        replace(clip)
    done = recipe.main("train_lmac", "lmac.yaml", **options)
    assert done.code == 0, done.err
    assert "all 2 epochs are already done" in done.out


def test_nothing_tells_of_the_maker(lmac_run, classifier, tmp_path, capsys):
    """What is made to be given away holds no path of this machine."""
    base = lmac_run.parent.name  # of all folders of these tests
    out = tmp_path / "out"
    assert main(["export", str(lmac_run), str(out)]) == 0
    assert "no checksum" not in capsys.readouterr().err
    for folder in (out, classifier / "model"):
        for path in filter(os.path.isfile, folder.rglob("*")):
            texts = [path.read_bytes()]
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    texts += map(archive.read, archive.namelist())
            for text in texts:
                for word in (base, str(lmac_run.parent.parent), os.getcwd()):
                    assert word.encode() not in text, (path, word)


NAMES = [
    "C++",
    "a => b",
    "it's",
    'the "dog"',
    "$x_2$",
    "a|b",
    "True",
    "<unk>",
    "K\u00e4fer",
    "=====, \\n",
]


def test_odd_labels(recipe, tiny, data, tmp_path, helpers):
    """A classifier of odd names, in an odd table, can be explained."""
    table = data / "meta" / "esc50.csv"
    with open(table, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    known = sorted({row[3] for row in rows})
    for row in rows:
        row[3] = NAMES[known.index(row[3])]
        # On the disk in another case, as from Windows.
        os.rename(data / "audio" / row[0], data / "audio" / row[0].upper())
    with open(table, "w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    model = tmp_path / "classifier" / "model"
    common = {"data_folder": data, "number_of_epochs": 1, "batch_size": 8}
    done = recipe.main(
        "train_classifier",
        "classifier_conv.yaml",
        output_folder=model.parent,
        **common,
    )
    assert done.code == 0, done.err
    run = tmp_path / "run"
    options = {**tiny, **common, "classifier_folder": model}
    done = recipe.main("train_lmac", "lmac.yaml", output_folder=run, **options)
    assert done.code == 0, done.err
    assert {row["label"] for row in helpers.read_rows(run)} == set(NAMES)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
    assert config["classes"] == sorted(NAMES)
